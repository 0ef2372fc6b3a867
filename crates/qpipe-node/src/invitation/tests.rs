use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

const KEY_A: &str = "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
const KEY_B: &str = "SHA256:BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBA";

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn key(text: &str) -> Fingerprint {
    text.parse().unwrap()
}

fn hash(n: u64) -> SecretHash {
    format!("{n:064x}").parse().unwrap()
}

fn invitation() -> Invitation {
    let rules = vec!["send:inbox/*".parse().unwrap(), "recv:logs/**".parse().unwrap()];
    Invitation::new("alice".parse().unwrap(), rules, at(1_000), Duration::from_secs(600))
}

fn store() -> (tempfile::TempDir, Invitations) {
    let dir = tempfile::tempdir().unwrap();
    let invitations = Invitations::new(dir.path());
    invitations.create(&hash(1), &invitation(), at(1_000)).unwrap();
    (dir, invitations)
}

#[test]
fn invitation_is_a_private_file_named_by_the_hash() {
    let (dir, _) = store();

    let path = dir.path().join(format!("{}.toml", hash(1)));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(
        fs::read_to_string(path).unwrap(),
        "alias = \"alice\"\nallow = [\"send:inbox/*\", \"recv:logs/**\"]\nexpires_unix_s = 1600\n"
    );
}

#[test]
fn first_joiner_gets_the_grant_and_gets_it_again() {
    let (_dir, invitations) = store();

    assert_eq!(invitations.redeem(&hash(1), &key(KEY_A), at(1_001)).unwrap(), invitation());
    assert_eq!(invitations.redeem(&hash(1), &key(KEY_A), at(1_599)).unwrap(), invitation());
    let other = invitations.redeem(&hash(1), &key(KEY_B), at(1_002));
    assert!(matches!(other, Err(RedeemError::Used)));
}

#[test]
fn expired_invitation_is_refused_to_everybody() {
    let (_dir, invitations) = store();
    let late = |joiner| invitations.redeem(&hash(1), &key(joiner), at(1_600));

    assert!(matches!(late(KEY_A), Err(RedeemError::Expired)));
    invitations.redeem(&hash(1), &key(KEY_A), at(1_599)).unwrap();
    assert!(matches!(late(KEY_A), Err(RedeemError::Expired)));
    assert!(matches!(late(KEY_B), Err(RedeemError::Expired)));
}

#[test]
fn unknown_used_and_expired_look_the_same_from_outside() {
    let (_dir, invitations) = store();
    let refused = |n, joiner, now| invitations.redeem(&hash(n), &key(joiner), at(now)).unwrap_err();

    let unknown = refused(2, KEY_A, 1_001);
    let expired = refused(1, KEY_A, 1_600);
    invitations.redeem(&hash(1), &key(KEY_A), at(1_001)).unwrap();
    let used = refused(1, KEY_B, 1_001);

    assert_eq!(unknown.to_string(), expired.to_string());
    assert_eq!(unknown.to_string(), used.to_string());
    let causes = [unknown.cause(), expired.cause(), used.cause()];
    assert_eq!(causes, ["unknown", "expired", "used"]);
}

#[test]
fn race_of_many_joiners_has_one_winner() {
    let (dir, invitations) = store();
    for n in 10..30 {
        invitations.create(&hash(n), &invitation(), at(1_000)).unwrap();
        let granted = AtomicUsize::new(0);
        let barrier = std::sync::Barrier::new(8);

        std::thread::scope(|scope| {
            for thread in 0..8 {
                let (dir, granted, barrier) = (dir.path(), &granted, &barrier);
                scope.spawn(move || {
                    let joiner = key(&format!("SHA256:{thread}{}", "A".repeat(42)));
                    barrier.wait();
                    match Invitations::new(dir).redeem(&hash(n), &joiner, at(1_001)) {
                        Ok(_) => granted.fetch_add(1, Ordering::Relaxed),
                        Err(RedeemError::Used) => 0,
                        Err(other) => panic!("{other:?}"),
                    };
                });
            }
        });

        assert_eq!(granted.into_inner(), 1);
    }
}

#[test]
fn crash_between_the_two_files_leaves_it_spent() {
    let (dir, invitations) = store();
    let pending = dir.path().join(format!("{}.toml", hash(1)));
    let text = fs::read(&pending).unwrap();
    invitations.redeem(&hash(1), &key(KEY_A), at(1_001)).unwrap();
    fs::write(&pending, text).unwrap();

    let other = invitations.redeem(&hash(1), &key(KEY_B), at(1_002));

    assert!(matches!(other, Err(RedeemError::Used)));
    assert!(!invitations.withdraw(&hash(1)).unwrap());
}

#[test]
fn corrupt_files_grant_nothing_and_tell_the_asker_nothing() {
    let (dir, invitations) = store();
    let path = |extension| dir.path().join(format!("{}.{extension}", hash(1)));
    for (extension, text) in [("toml", "alias = 1"), ("toml", ""), ("spent", "")] {
        fs::write(path(extension), text).unwrap();

        let error = invitations.redeem(&hash(1), &key(KEY_A), at(1_001)).unwrap_err();

        assert!(matches!(error, RedeemError::Store(_)), "{error:?}");
        assert!(!error.to_string().contains(".toml"), "{error}");
        assert!(error.cause().contains(&hash(1).to_string()));
    }
    assert_eq!(invitations.sweep(at(1_001)).unwrap(), 1);
    assert!(!path("toml").exists() && !path("spent").exists());
}

#[test]
fn withdrawn_invitation_is_unknown() {
    let (_dir, invitations) = store();

    assert!(invitations.withdraw(&hash(1)).unwrap());

    assert!(!invitations.withdraw(&hash(1)).unwrap());
    let redeemed = invitations.redeem(&hash(1), &key(KEY_A), at(1_001));
    assert!(matches!(redeemed, Err(RedeemError::Unknown)));
}

#[test]
fn sweep_removes_what_has_expired_and_nothing_else() {
    let (dir, invitations) = store();
    invitations.create(&hash(2), &invitation(), at(1_000)).unwrap();
    invitations.redeem(&hash(2), &key(KEY_A), at(1_001)).unwrap();
    let later = Invitation { expires_unix_s: 2_000, ..invitation() };
    invitations.create(&hash(3), &later, at(1_000)).unwrap();
    fs::write(dir.path().join("notes.txt"), "mine").unwrap();

    assert_eq!(invitations.sweep(at(1_599)).unwrap(), 0);
    assert_eq!(invitations.sweep(at(1_600)).unwrap(), 2);

    assert!(invitations.redeem(&hash(3), &key(KEY_A), at(1_600)).is_ok());
    assert!(dir.path().join("notes.txt").exists());
    let gone = Invitations::new(dir.path().join("none"));
    assert_eq!(gone.sweep(at(0)).unwrap(), 0);
}

#[test]
fn one_too_many_is_refused_until_some_have_expired() {
    let dir = tempfile::tempdir().unwrap();
    let invitations = Invitations::new(dir.path());
    let text = InvitationText::pending(&invitation()).to_string();
    for n in 0..INVITATIONS_PENDING_MAX as u64 {
        fs::write(dir.path().join(format!("{}.toml", hash(n))), &text).unwrap();
    }

    let full = invitations.create(&hash(5_000), &invitation(), at(1_599));

    assert!(matches!(full, Err(InvitationError::Full)));
    invitations.create(&hash(5_000), &invitation(), at(1_600)).unwrap();
}

#[test]
fn secret_is_never_used_for_two_invitations() {
    let (_dir, invitations) = store();
    let again = || invitations.create(&hash(1), &invitation(), at(1_000));

    assert!(matches!(again(), Err(InvitationError::Exists)));
    invitations.redeem(&hash(1), &key(KEY_A), at(1_001)).unwrap();
    assert!(matches!(again(), Err(InvitationError::Exists)));
}

#[test]
fn invitation_with_too_many_rules_is_refused() {
    let (_dir, invitations) = store();
    let rules = vec!["send:x".parse().unwrap(); INVITATION_RULES_MAX + 1];

    let created = invitations.create(&hash(2), &Invitation { rules, ..invitation() }, at(1_000));

    assert!(matches!(created, Err(InvitationError::TooManyRules)));
}
