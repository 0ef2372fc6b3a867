//! The key on disk: made once, kept private, refused when it is not.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    sync::Barrier,
};

use rustls::pki_types::UnixTime;
use tempfile::TempDir;

use super::*;

#[test]
fn first_use_makes_a_private_key_that_later_uses_load() {
    let home = TempDir::new().unwrap();
    let dir = home.path().join("state/qpipe");
    let made = HostIdentity::load_or_create(&dir).unwrap();
    assert_eq!(HostIdentity::load_or_create(&dir).unwrap().fingerprint(), made.fingerprint());
    assert_eq!(HostIdentity::load(&dir).unwrap().fingerprint(), made.fingerprint());
    assert_eq!(mode(&dir), 0o700);
    assert_eq!(mode(&dir.join("key.pem")), 0o600);
    assert_eq!(names(&dir), ["cert.pem", "key.pem"]);
}

#[test]
fn the_stored_certificate_is_the_one_presented() {
    let home = TempDir::new().unwrap();
    let made = HostIdentity::load_or_create(home.path()).unwrap();
    let stored = fs::read(home.path().join("cert.pem")).unwrap();
    let again = HostIdentity::load_or_create(home.path()).unwrap();
    assert_eq!(again.node().chain(), made.node().chain());
    assert_eq!(fs::read(home.path().join("cert.pem")).unwrap(), stored);
}

#[test]
fn fifty_threads_at_once_make_one_key() {
    let home = TempDir::new().unwrap();
    let dir = home.path().join("new");
    let start = Barrier::new(50);
    let create = || {
        start.wait();
        HostIdentity::load_or_create(&dir).unwrap().fingerprint()
    };
    let made: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..50).map(|_| scope.spawn(create)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let kept = HostIdentity::load(&dir).unwrap().fingerprint();
    assert!(made.iter().all(|fingerprint| *fingerprint == kept));
    assert_eq!(names(&dir), ["cert.pem", "key.pem"], "drafts were left behind");
}

#[test]
fn a_key_that_others_may_touch_is_refused_with_the_remedy() {
    let home = TempDir::new().unwrap();
    HostIdentity::load_or_create(home.path()).unwrap();
    let key = home.path().join("key.pem");
    for open in [0o640, 0o620, 0o604, 0o601, 0o644, 0o666] {
        fs::set_permissions(&key, fs::Permissions::from_mode(open)).unwrap();
        for load in [HostIdentity::load, HostIdentity::load_or_create] {
            let error = load(home.path()).unwrap_err();
            let text = error.to_string();
            assert!(matches!(error, IdentityError::OpenToOthers { mode, .. } if mode == open));
            assert!(text.contains(&format!("chmod 600 {}", key.display())), "{text}");
        }
    }
    fs::set_permissions(&key, fs::Permissions::from_mode(0o400)).unwrap();
    HostIdentity::load(home.path()).unwrap();
}

#[test]
fn a_file_that_holds_no_ed25519_key_is_refused_by_name_and_kept() {
    let other = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap().serialize_pem();
    let good = new_key().unwrap().serialize_pem();
    let cut = &good[..good.len() / 2];
    let body_gone = good.replace(good.lines().nth(1).unwrap(), "AAAA");
    for content in ["", "hello", "\0\u{1}\u{2}", cut, &other, &body_gone] {
        let home = TempDir::new().unwrap();
        put_key(home.path(), content);
        let error = HostIdentity::load_or_create(home.path()).unwrap_err();
        assert!(matches!(error, IdentityError::Damaged { .. }), "{content:?}: {error}");
        assert!(error.to_string().contains("key.pem"), "{error}");
        assert_eq!(names(home.path()), ["key.pem"]);
        assert_eq!(fs::read_to_string(home.path().join("key.pem")).unwrap(), content);
    }
}

#[test]
fn what_is_not_a_readable_file_is_refused_by_name() {
    let home = TempDir::new().unwrap();
    fs::create_dir(home.path().join("dir")).unwrap();
    let fifo = home.path().join("fifo");
    let made = std::process::Command::new("mkfifo").args(["-m", "600"]).arg(&fifo).status();
    assert!(made.unwrap().success());
    put_key(home.path(), &"x".repeat(100_000));
    fs::rename(home.path().join("key.pem"), home.path().join("huge")).unwrap();
    for instead in ["dir", "fifo", "huge"] {
        symlink(home.path().join(instead), home.path().join("key.pem")).unwrap();
        let error = HostIdentity::load_or_create(home.path()).unwrap_err();
        assert!(matches!(error, IdentityError::Unreadable { .. }), "{instead}: {error}");
        assert!(error.to_string().contains("key.pem"), "{error}");
        fs::remove_file(home.path().join("key.pem")).unwrap();
    }
}

#[test]
fn a_directory_that_cannot_be_made_is_an_error_that_names_it() {
    let home = TempDir::new().unwrap();
    fs::write(home.path().join("file"), "").unwrap();
    let dir = home.path().join("file/qpipe");
    let error = HostIdentity::load_or_create(&dir).unwrap_err();
    assert!(error.to_string().contains("file/qpipe"), "{error}");
}

#[test]
fn load_without_a_key_says_so_and_makes_nothing() {
    let home = TempDir::new().unwrap();
    let error = HostIdentity::load(home.path()).unwrap_err();
    assert!(matches!(error, IdentityError::NoKey { .. }), "{error}");
    assert!(names(home.path()).is_empty());
}

#[test]
fn a_certificate_that_does_not_belong_to_the_key_is_made_again() {
    let home = TempDir::new().unwrap();
    let host = HostIdentity::load_or_create(home.path()).unwrap();
    let file = home.path().join("cert.pem");
    let other = TempDir::new().unwrap();
    HostIdentity::load_or_create(other.path()).unwrap();
    let foreign = fs::read(other.path().join("cert.pem")).unwrap();
    for content in [&foreign[..], b"garbage", b""] {
        fs::write(&file, content).unwrap();

        let read_only = HostIdentity::load(home.path()).unwrap();
        assert_can_certify(&read_only, &host);
        assert_eq!(fs::read(&file).unwrap(), content, "load changed the file");

        assert_can_certify(&HostIdentity::load_or_create(home.path()).unwrap(), &host);
        let repaired = files::read_certificate(&file).unwrap();
        assert_eq!(HostIdentity::load(home.path()).unwrap().node().chain(), [repaired]);
    }
}

#[test]
fn a_certificate_of_the_key_that_cannot_vouch_for_processes_is_made_again() {
    let home = TempDir::new().unwrap();
    let host = HostIdentity::load_or_create(home.path()).unwrap();
    let authority = rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
    for (name, is_ca) in [("another", authority), ("qpipe host", rcgen::IsCa::NoCa)] {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = is_ca;
        let useless = params.self_signed(&*host.key).unwrap();
        fs::write(home.path().join("cert.pem"), useless.pem()).unwrap();

        assert_can_certify(&HostIdentity::load_or_create(home.path()).unwrap(), &host);
        assert_ne!(fs::read_to_string(home.path().join("cert.pem")).unwrap(), useless.pem());
    }
}

#[test]
fn keys_are_read_as_openssl_and_as_aws_lc_write_them() {
    let ours = new_key().unwrap().serialize_der();
    assert_eq!(ours.len(), 48, "not what `openssl genpkey -algorithm ed25519` writes");
    // Version 2 of PKCS#8: with the public key.
    let theirs = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap().serialize_der();
    assert!(theirs.len() > ours.len());
    for der in [ours, theirs] {
        let der = PrivatePkcs8KeyDer::from(der);
        let (host, _) = HostIdentity::from_key(&der, Path::new("key.pem")).unwrap();
        assert_can_certify(&host, &host);
    }
}

#[test]
fn a_renewed_process_keeps_its_key() {
    let host = HostIdentity::ephemeral().unwrap();
    let process = host.process().unwrap();
    let renewed = host.renew(&process).unwrap();
    assert_eq!((renewed.host(), renewed.process()), (process.host(), process.process()));
    assert!(renewed.expires() >= process.expires());
    assert_eq!(host.renew(&host.node()).unwrap().expires(), None);
    assert_ne!(host.process().unwrap().process(), process.process());
}

#[test]
fn debug_output_shows_fingerprints_and_no_key() {
    let host = HostIdentity::ephemeral().unwrap();
    assert_eq!(format!("{host:?}"), format!("HostIdentity({})", host.fingerprint()));
    let node = format!("{:?}", host.node());
    assert_eq!(node, format!("Identity(host {0}, process {0})", host.fingerprint()));
}

fn assert_can_certify(host: &HostIdentity, same_as: &HostIdentity) {
    let process = host.process().unwrap();
    let seen = PeerIdentity::from_chain(process.chain(), UnixTime::now()).unwrap();
    assert_eq!(seen.host(), same_as.fingerprint());
    assert_eq!(seen.process(), process.process());
}

fn put_key(dir: &Path, content: &str) {
    let file = dir.join("key.pem");
    fs::write(&file, content).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}
