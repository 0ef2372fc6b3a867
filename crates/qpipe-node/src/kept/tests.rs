use std::fs;

use proptest::prelude::*;

use super::*;

const FILE: &str = "/h/names.toml";

fn name(text: &str) -> PipeName {
    text.parse().unwrap()
}

fn parse(text: &str) -> Result<Kept, ReadError> {
    Kept::parse(Path::new(FILE), text)
}

fn change(capacity: &str, mode: &str, description: &str) -> KeepChange {
    KeepChange {
        capacity: Some(capacity.parse().unwrap()),
        mode: Some(mode.parse().unwrap()),
        description: Some(Some(description.parse().unwrap())),
        changes_kept: false,
    }
}

#[test]
fn file_says_what_is_kept_and_how() {
    let kept = parse(
        "[names.\"inbox/photos\"]\ncapacity = \"64KiB\"\nmode = \"w\"\ndescription = \"cameras\"\n\
         [names.log]\n",
    )
    .unwrap();

    let photos = kept.get(&name("inbox/photos")).unwrap();
    assert_eq!(photos.capacity_bytes(), 65_536);
    assert_eq!(photos.mode, PeerMode::Write);
    assert_eq!(photos.description.as_ref().unwrap().as_str(), "cameras");
    assert_eq!(kept.get(&name("log")), Some(&KeptName::default()));
    assert_eq!(kept.get(&name("log")).unwrap().capacity_bytes(), 512 << 10);
    assert_eq!(parse("").unwrap(), Kept::default());
}

#[test]
fn anything_that_is_not_understood_is_an_error_with_its_line() {
    let cases = [
        ("x", 1),
        ("\n[names.a\n", 2),
        ("[names.\"a b\"]\n", 1),
        ("[names.a]\nmode = \"rwx\"\n", 2),
        ("[names.a]\n\ncapacity = \"4095\"\n", 3),
        ("[names.a]\ncapacity = \"2GiB\"\n", 2),
        ("[names.a]\ndescription = \"a\\u001bb\"\n", 2),
        ("[names.a]\nowner = \"me\"\n", 2),
        ("[names.a]\n[names.a]\n", 2),
        ("[name.a]\n", 1),
        ("names = 7\n", 1),
        ("[names.a.b]\n", 1),
    ];
    for (text, wanted) in cases {
        match parse(text) {
            Err(ReadError::Invalid { line, .. }) => assert_eq!(line, wanted, "{text:?}"),
            other => panic!("{text:?}: {other:?}"),
        }
    }
}

#[test]
fn capacities_modes_and_descriptions_have_bounds() {
    for (text, is_good) in
        [("4KiB", true), ("4095", false), ("1GiB", true), ("1073741825", false), ("many", false)]
    {
        assert_eq!(text.parse::<Capacity>().is_ok(), is_good, "{text}");
    }
    for text in ["rw", "r", "w", "-"] {
        assert_eq!(text.parse::<PeerMode>().unwrap().to_string(), text);
    }
    for text in ["", "wr", "RW", "0600"] {
        assert_eq!(text.parse::<PeerMode>(), Err(ParsePeerModeError), "{text}");
    }
    let long = "x".repeat(DESCRIPTION_BYTES_MAX);
    assert_eq!(long.parse::<Description>().unwrap().as_str(), long);
    for text in ["", "a\nb", "\x1b[31m", "\u{202e}", &format!("{long}x")] {
        assert!(text.parse::<Description>().is_err(), "{text:?}");
    }
}

#[test]
fn mode_says_which_ends_peers_may_open() {
    let lets = |mode: PeerMode| [Shape::Read, Shape::Write, Shape::Duplex].map(|s| mode.lets(s));
    assert_eq!(lets(PeerMode::ReadWrite), [true, true, true]);
    assert_eq!(lets(PeerMode::Read), [true, false, false]);
    assert_eq!(lets(PeerMode::Write), [false, true, false]);
    assert_eq!(lets(PeerMode::Nothing), [false, false, false]);
}

#[test]
fn names_are_kept_changed_and_removed_and_comments_stay() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("names.toml");
    fs::write(&file, "# mine\n\n[names.old] # first\nmode = \"r\"\n").unwrap();
    let both = [name("old"), name("a/b")];

    assert_eq!(keep(&file, &both, &change("8KiB", "-", "new")).unwrap(), [name("old")]);
    let more = KeepChange { mode: Some(PeerMode::Write), changes_kept: true, ..Default::default() };
    assert_eq!(keep(&file, &both, &more).unwrap(), []);

    let text = fs::read_to_string(&file).unwrap();
    assert!(text.starts_with("# mine\n\n[names.old] # first\nmode = \"w\"\n"), "{text}");
    let kept = Kept::load(&file).unwrap();
    assert_eq!(kept.get(&both[1]).unwrap().capacity_bytes(), 8192);
    assert_eq!(kept.get(&both[1]).unwrap().mode, PeerMode::Write);

    let no_description =
        KeepChange { description: Some(None), changes_kept: true, ..Default::default() };
    keep(&file, &both, &no_description).unwrap();
    assert_eq!(Kept::load(&file).unwrap().get(&both[1]).unwrap().description, None);

    let unknown = remove_kept(&file, &[name("old"), name("never")]).unwrap();
    assert_eq!(unknown, [name("never")]);
    assert!(fs::read_to_string(&file).unwrap().starts_with("# mine\n"));
    assert_eq!(remove_kept(&file, &both).unwrap(), [name("old")]);
    assert!(Kept::load(&file).unwrap().is_empty());
}

#[test]
fn no_more_names_are_kept_than_may_be() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("names.toml");
    let all: Vec<_> = (0..KEPT_NAMES_MAX).map(|i| name(&format!("n{i}"))).collect();
    keep(&file, &all, &KeepChange::default()).unwrap();

    let full = keep(&file, &[name("more")], &KeepChange::default());

    assert!(matches!(full, Err(KeepError::Full)));
    assert_eq!(Kept::load(&file).unwrap().iter().count(), KEPT_NAMES_MAX);
    let mut text = fs::read_to_string(&file).unwrap();
    text.push_str("[names.more]\n");
    let error = parse(&text).unwrap_err().to_string();
    assert!(error.contains("4096 names"), "{error}");
}

#[test]
fn what_is_in_the_file_is_seen_at_once_and_a_broken_one_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("names.toml");
    let file = KeptFile::open(&path);
    assert!(file.current().is_empty());

    keep(&path, &[name("x")], &change("4KiB", "r", "it")).unwrap();
    assert!(file.current().get(&name("x")).is_some());
    assert!(file.current().lets_peers(&name("x"), Shape::Read));
    assert!(!file.current().lets_peers(&name("x"), Shape::Write));
    assert!(file.current().lets_peers(&name("y"), Shape::Write));

    fs::write(&path, "garbage").unwrap();
    assert!(file.current().get(&name("x")).is_some());
    assert!(file.take_broken().unwrap().to_string().contains("names.toml:1: "));
    assert!(file.take_broken().is_none());

    fs::remove_file(&path).unwrap();
    assert!(file.current().is_empty());
}

#[test]
fn what_the_file_said_at_the_start_stays_when_the_first_look_finds_it_broken() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("names.toml");
    keep(&path, &[name("x")], &KeepChange::default()).unwrap();
    let file = KeptFile::open(&path);

    fs::write(&path, "garbage").unwrap();

    assert!(file.current().get(&name("x")).is_some());
    assert!(file.take_broken().is_some());
}

#[test]
fn file_that_others_may_write_is_not_believed() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("names.toml");
    keep(&path, &[name("x")], &KeepChange::default()).unwrap();
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();

    assert!(matches!(Kept::load(&path), Err(ReadError::WritableByOthers { .. })));
}

proptest! {
    #[test]
    fn what_is_kept_is_read_back(
        texts in proptest::collection::btree_map("[a-z\"'.#=é-]{1,8}(/[a-z.'\"]{2,4}x)?", (
            proptest::option::of(CAPACITY_BYTES_MIN..=CAPACITY_BYTES_MAX),
            0usize..4,
            proptest::option::of("[ -~é]{1,60}"),
        ), 1..8)
    ) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("names.toml");
        let mut expected = Kept::default();
        for (text, (capacity, mode, description)) in texts {
            let Ok(name) = text.parse::<PipeName>() else { continue };
            let wanted = KeptName {
                capacity: capacity.map(|bytes| bytes.to_string().parse().unwrap()),
                mode: PeerMode::ALL[mode],
                description: description.map(|text| text.parse().unwrap()),
            };
            let change = KeepChange {
                capacity: wanted.capacity,
                mode: Some(wanted.mode),
                description: Some(wanted.description.clone()),
                changes_kept: false,
            };
            keep(&file, std::slice::from_ref(&name), &change).unwrap();
            expected.names.insert(name, wanted);
        }
        prop_assert_eq!(&Kept::load(&file).unwrap(), &expected);
        let all: Vec<_> = expected.names.keys().cloned().collect();
        prop_assert_eq!(remove_kept(&file, &all).unwrap(), vec![]);
        prop_assert!(Kept::load(&file).unwrap().is_empty());
    }

    #[test]
    fn garbage_is_an_error_and_no_panic(text in "\\PC{0,200}|(\\[names|mode|=|\"|\n|\\.a|\\]){0,30}") {
        let _ = parse(&text);
    }
}
