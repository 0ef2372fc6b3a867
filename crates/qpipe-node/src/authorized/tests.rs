use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use super::*;
use crate::watched::Watched;

const KEY_A: &str = "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
const KEY_B: &str = "SHA256:BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBA";

struct File {
    _dir: tempfile::TempDir,
    path: PathBuf,
}

fn file(text: &str) -> File {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("authorized.toml");
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    File { _dir: dir, path }
}

impl File {
    fn text(&self) -> String {
        fs::read_to_string(&self.path).unwrap()
    }

    fn load(&self) -> Authorized {
        Authorized::load(&self.path).unwrap()
    }

    fn set_mode(&self, mode: u32) {
        fs::set_permissions(&self.path, Permissions::from_mode(mode)).unwrap();
    }
}

/// The file as a node has it that has started.
fn watch(file: &File) -> Watched<Authorized> {
    let mut watched = Watched::new(file.path.clone(), Authorized::load);
    assert!(watched.refresh().unwrap());
    watched
}

fn key(text: &str) -> Fingerprint {
    text.parse().unwrap()
}

fn name(text: &str) -> PipeName {
    text.parse().unwrap()
}

fn peer(key_text: &str, name: &str, rules: &[&str]) -> PeerRules {
    let rules = rules.iter().map(|rule| rule.parse().unwrap());
    PeerRules::new(key(key_text), Some(name.parse().unwrap()), rules)
}

fn what_is_wrong(text: &str) -> String {
    let error = Authorized::parse(Path::new("authorized.toml"), text).unwrap_err();
    error.to_string()
}

#[test]
fn missing_file_allows_nobody_anything() {
    let dir = tempfile::tempdir().unwrap();

    let authorized = Authorized::load(&dir.path().join("authorized.toml")).unwrap();

    assert!(authorized.peers().is_empty());
    assert!(authorized.rules_for(&key(KEY_A)).is_none());
}

#[test]
fn peer_may_do_what_is_listed_and_nothing_else() {
    let file = file(&format!(
        "[[peer]]\nkey = \"{KEY_A}\"\nname = \"alice\"\nsend = [\"inbox/*\"]\nrecv = []\n\
         [[peer]]\nkey = \"{KEY_B}\"\nrecv = [\"logs/**\", \"x\"]\n"
    ));

    let authorized = file.load();

    let alice = authorized.rules_for(&key(KEY_A)).unwrap();
    assert!(alice.may_send(&name("inbox/x")));
    assert!(!alice.may_recv(&name("inbox/x")));
    assert!(!alice.may_send(&name("outbox/x")));
    let other = authorized.rules_for(&key(KEY_B)).unwrap();
    assert!(other.may_recv(&name("logs/a/b")) && other.may_recv(&name("x")));
    assert!(!other.may_send(&name("x")));
    assert_eq!(authorized.peer_by_name("alice"), Some(alice));
    let rules: Vec<String> = other.rules().map(|rule| rule.to_string()).collect();
    assert_eq!(rules, ["recv:logs/**", "recv:x"]);
}

#[test]
fn errors_tell_the_line_and_what_is_wrong() {
    let listed = format!("[[peer]]\nkey = \"{KEY_A}\"\nname = \"a\"\n");
    let cases = [
        (format!("{listed}sned = []\n"), "authorized.toml:4: unknown key `sned`, expected one of"),
        ("[[peers]]\n".to_owned(), "authorized.toml:1: unknown key `peers`, expected `peer`"),
        ("\n[[peer]]\nname = \"a\"\n".to_owned(), "authorized.toml:2: missing key `key`"),
        ("[[peer]]\nkey = \"x\"\n".to_owned(), "authorized.toml:2: bad value \"x\": "),
        (format!("{listed}send = \"x\"\n"), "authorized.toml:4: wrong type: string \"x\""),
        (format!("{listed}send = [\n\"a\",\n\"\"]\n"), "authorized.toml:6: bad value \"\": "),
        (format!("{listed}{listed}"), "authorized.toml:4: the name `a` is given to two peers"),
        (format!("{listed}[[peer]]\nkey = \"{KEY_A}\""), "authorized.toml:5: the key SHA256:AAAA"),
        ("peer = 1\n".to_owned(), "authorized.toml:1: wrong type: integer `1`"),
    ];
    for (text, expected) in cases {
        let told = what_is_wrong(&text);
        assert!(told.starts_with(expected), "{text:?}\n told {told}\n not  {expected}");
    }
}

#[test]
fn one_peer_or_pattern_too_many_is_refused() {
    let tenth = "\"p\",".repeat(PATTERNS_PER_LIST_MAX);
    let text = format!("[[peer]]\nkey = \"{KEY_A}\"\nsend = [{tenth}]\n");
    assert!(Authorized::parse(Path::new("f"), &text).is_ok());
    assert!(what_is_wrong(&text.replace("[\"p\"", "[\"p\", \"p\"")).contains("256 patterns"));

    let mut text = String::new();
    for n in 0..PEERS_MAX {
        // The last characters stay zero bits, so each text is a whole fingerprint.
        text += &format!("[[peer]]\nkey = \"SHA256:{n:0>6}{}\"\n", "A".repeat(37));
    }
    let authorized = Authorized::parse(Path::new("f"), &text).unwrap();
    assert_eq!(authorized.peers().len(), PEERS_MAX);
    let told = what_is_wrong(&format!("{text}[[peer]]\nkey = \"{KEY_B}\"\n"));
    assert_eq!(told, "authorized.toml:20001: more than 10000 peers");
}

#[test]
fn file_that_others_may_write_is_refused_with_the_remedy() {
    let file = file("");
    for mode in [0o620, 0o602, 0o666] {
        file.set_mode(mode);

        let error = Authorized::load(&file.path).unwrap_err();

        assert!(matches!(error, ReadError::WritableByOthers { .. }));
        assert!(error.to_string().contains("chmod go-w"), "{error}");
        assert!(add_peer(&file.path, &peer(KEY_A, "a", &[])).is_err());
    }
    file.set_mode(0o644);
    assert!(Authorized::load(&file.path).is_ok());
}

#[test]
fn added_peers_come_after_what_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let file = File { path: dir.path().join("authorized.toml"), _dir: dir };

    add_peer(&file.path, &peer(KEY_A, "alice", &["send:inbox/*"])).unwrap();
    fs::write(&file.path, format!("# top\n\n{}# end\n", file.text())).unwrap();
    add_peer(&file.path, &peer(KEY_B, "bob", &["recv:logs/**"])).unwrap();

    let expected = format!(
        "# top\n\n[[peer]]\nkey = \"{KEY_A}\"\nname = \"alice\"\nsend = [\"inbox/*\"]\nrecv = []\n\
         # end\n\n[[peer]]\nkey = \"{KEY_B}\"\nname = \"bob\"\nsend = []\nrecv = [\"logs/**\"]\n"
    );
    assert_eq!(file.text(), expected);
    assert_eq!(fs::metadata(&file.path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn same_key_again_merges_the_rules_and_keeps_the_comments() {
    let file = file(&format!(
        "# first\n[[peer]] # her laptop\nkey = \"{KEY_A}\" # ours\nname = \"alice\" # old\n\
         send = [\n  \"inbox/*\", # mail\n]\n"
    ));

    let rules = ["send:inbox/*", "send:drop", "recv:logs/**"];
    add_peer(&file.path, &peer(KEY_A, "alicia", &rules)).unwrap();

    let authorized = file.load();
    let alice = authorized.rules_for(&key(KEY_A)).unwrap();
    assert_eq!(*alice, peer(KEY_A, "alicia", &rules));
    for kept in ["# first", "# her laptop", "# ours", "# old", "# mail"] {
        assert!(file.text().contains(kept), "{kept} in {}", file.text());
    }
    let before = file.text();
    add_peer(&file.path, &peer(KEY_A, "alicia", &["send:drop"])).unwrap();
    assert_eq!(file.text(), before);
}

#[test]
fn name_of_another_key_is_not_given_away() {
    let file = file("");
    add_peer(&file.path, &peer(KEY_A, "alice", &["send:x"])).unwrap();

    let error = add_peer(&file.path, &peer(KEY_B, "alice", &["send:x"])).unwrap_err();

    assert!(matches!(error, AddPeerError::NameTaken { .. }));
    assert!(error.to_string().contains("qpipe trust remove alice"), "{error}");
    assert_eq!(file.load().peers().len(), 1);
}

#[test]
fn peer_is_removed_by_name_or_fingerprint() {
    let file = file(&format!(
        "# all peers\n\n# alice\n[[peer]]\nkey = \"{KEY_A}\"\nname = \"alice\"\n\n# bob\n\
         [[peer]]\nkey = \"{KEY_B}\"\n"
    ));

    let removed = remove_peer(&file.path, "alice").unwrap();

    assert_eq!(removed.unwrap().key, key(KEY_A));
    let expected = format!("# all peers\n\n# bob\n[[peer]]\nkey = \"{KEY_B}\"\n");
    assert_eq!(file.text(), expected);
    assert_eq!(remove_peer(&file.path, "alice").unwrap(), None);
    assert_eq!(remove_peer(&file.path, KEY_A).unwrap(), None);
    assert!(remove_peer(&file.path, KEY_B).unwrap().is_some());
    assert_eq!(file.text(), "# all peers\n\n");
}

#[test]
fn peers_in_one_array_can_be_edited_too() {
    let file = file(&format!("peer = [\n  {{ key = \"{KEY_A}\", name = \"a\" }}, # a\n]\n"));

    add_peer(&file.path, &peer(KEY_A, "a", &["send:x"])).unwrap();
    add_peer(&file.path, &peer(KEY_B, "b", &["recv:x"])).unwrap();

    let authorized = file.load();
    assert_eq!(authorized.peers()[1], peer(KEY_B, "b", &["recv:x"]));
    assert!(authorized.peers()[0].may_send(&name("x")));
    assert!(remove_peer(&file.path, "a").unwrap().is_some());
    assert_eq!(file.load().peers().len(), 1);
}

#[test]
fn additions_and_removals_of_many_threads_are_all_kept() {
    let file = file("");
    let key_of = |thread: u32, n: u32| format!("SHA256:{thread}{n:0>5}{}", "A".repeat(37));

    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (file, key_of) = (&file, &key_of);
            scope.spawn(move || {
                for n in 0..5 {
                    let added = peer(&key_of(thread, n), &format!("p{thread}-{n}"), &["send:x"]);
                    add_peer(&file.path, &added).unwrap();
                }
                assert!(remove_peer(&file.path, &key_of(thread, 0)).unwrap().is_some());
            });
        }
    });

    assert_eq!(file.load().peers().len(), 16);
}

#[test]
fn reload_takes_new_rules_and_keeps_old_ones_while_the_file_is_broken() {
    let file = file("");
    add_peer(&file.path, &peer(KEY_A, "a", &["send:x"])).unwrap();
    let mut watched = watch(&file);
    assert!(!watched.refresh().unwrap());

    add_peer(&file.path, &peer(KEY_B, "b", &["send:y"])).unwrap();
    assert!(watched.refresh().unwrap());
    assert!(!watched.refresh().unwrap());
    assert_eq!(watched.current().peers().len(), 2);

    let good = file.text();
    fs::write(&file.path, "[[peer]]\nkey = 1\n").unwrap();
    let before = Arc::clone(watched.current());
    assert!(matches!(watched.refresh(), Err(ReadError::Invalid { line: 2, .. })));
    assert!(!watched.refresh().unwrap(), "one version is told once");
    assert!(Arc::ptr_eq(&before, watched.current()));

    fs::write(&file.path, good).unwrap();
    assert!(watched.refresh().unwrap());
    assert_eq!(watched.current().peers().len(), 2);
}

#[test]
fn reload_notices_permissions_and_removal() {
    let file = file("");
    add_peer(&file.path, &peer(KEY_A, "a", &["send:x"])).unwrap();
    let mut watched = watch(&file);

    file.set_mode(0o666);
    assert!(matches!(watched.refresh(), Err(ReadError::WritableByOthers { .. })));
    assert_eq!(watched.current().peers().len(), 1);
    file.set_mode(0o600);
    assert!(watched.refresh().unwrap());

    fs::remove_file(&file.path).unwrap();
    assert!(watched.refresh().unwrap());
    assert!(watched.current().peers().is_empty());
}
