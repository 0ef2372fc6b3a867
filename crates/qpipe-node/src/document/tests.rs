use std::fs::Permissions;

use super::*;

const SMALL: Policy = Policy { bytes_max: 64, owner_writes_alone: false };

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    #[serde(default)]
    _port: u16,
}

fn what_is_wrong(text: &str) -> String {
    parse::<Settings>(Path::new("dir/file.toml"), text).unwrap_err().to_string()
}

#[test]
fn errors_name_the_file_the_line_and_the_key() {
    assert_eq!(
        what_is_wrong("\n# ports\nprot = 1\n"),
        "dir/file.toml:3: unknown key `prot`, expected `_port`"
    );
    assert_eq!(
        what_is_wrong("_port = \"x\""),
        "dir/file.toml:1: wrong type: string \"x\", expected u16"
    );
    assert!(what_is_wrong("_port = 1\n_port = 2\n").starts_with("dir/file.toml:2: duplicate key"));
    assert!(what_is_wrong("_port = 1\n\n[x").starts_with("dir/file.toml:3: "));
}

#[test]
fn errors_carry_no_control_characters_of_the_file() {
    let error = what_is_wrong("\"\\u001b[31m\\u0007\" = 1");

    assert!(error.contains("\\u{1b}[31m"), "{error}");
    assert!(!error.chars().any(char::is_control), "{error:?}");
}

#[test]
fn missing_file_is_no_error_but_a_directory_is() {
    let dir = tempfile::tempdir().unwrap();

    assert!(matches!(read(&dir.path().join("none"), SMALL), Ok(None)));
    assert!(matches!(read(dir.path(), SMALL), Err(ReadError::NotAFile { .. })));
}

#[test]
fn fifo_in_place_of_the_file_is_refused_without_waiting() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("fifo");
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();

    assert!(matches!(read(&path, SMALL), Err(ReadError::NotAFile { .. })));
}

#[test]
fn file_at_the_limit_is_read_and_one_byte_more_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");

    fs::write(&path, "#".repeat(64)).unwrap();
    assert_eq!(read(&path, SMALL).unwrap().unwrap().len(), 64);
    fs::write(&path, "#".repeat(65)).unwrap();
    assert!(matches!(read(&path, SMALL), Err(ReadError::TooLarge { bytes_max: 64, .. })));
}

#[test]
fn text_that_is_not_utf8_is_told_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    fs::write(&path, b"a = 1\nb = \"\xff\"\n").unwrap();

    assert!(matches!(read(&path, SMALL), Err(ReadError::Invalid { line: 2, .. })));
}

#[test]
fn edit_keeps_permissions_and_follows_a_symbolic_link() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("target");
    let link = dir.path().join("link");
    fs::write(&target, "old").unwrap();
    fs::set_permissions(&target, Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::symlink(&target, &link).unwrap();

    edit(&link, SMALL, |_, old| Ok::<_, EditError>((Some(format!("{old} and new")), ()))).unwrap();

    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(fs::read_to_string(&target).unwrap(), "old and new");
    assert_eq!(fs::metadata(&target).unwrap().permissions().mode() & 0o777, 0o640);
}

#[test]
fn edit_that_would_grow_the_file_beyond_its_limit_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");

    let grown = edit(&path, SMALL, |_, _| Ok::<_, EditError>((Some("#".repeat(65)), ())));

    assert!(matches!(grown, Err(EditError::Read(ReadError::TooLarge { .. }))));
    assert!(!path.exists());
}
