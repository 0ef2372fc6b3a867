use std::fs;
use std::path::PathBuf;

use super::*;
use crate::document::EditError;

const KEY_A: &str = "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
const KEY_B: &str = "SHA256:BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBA";

struct File {
    _dir: tempfile::TempDir,
    path: PathBuf,
}

fn file(text: &str) -> File {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.toml");
    fs::write(&path, text).unwrap();
    File { _dir: dir, path }
}

impl File {
    fn text(&self) -> String {
        fs::read_to_string(&self.path).unwrap()
    }

    fn load(&self) -> Config {
        Config::load(&self.path).unwrap()
    }

    fn pin(&self, name: &str, address: &str, key: &str) -> Result<(), PinHostError> {
        pin_host(&self.path, &alias(name), &[address.parse().unwrap()], &fingerprint(key))
    }
}

fn alias(text: &str) -> Alias {
    text.parse().unwrap()
}

fn fingerprint(text: &str) -> Fingerprint {
    text.parse().unwrap()
}

fn what_is_wrong(text: &str) -> String {
    let error = Config::parse(Path::new("config.toml"), text).unwrap_err();
    error.to_string()
}

#[test]
fn missing_file_means_the_defaults() {
    let dir = tempfile::tempdir().unwrap();

    let config = Config::load(&dir.path().join("config.toml")).unwrap();

    let listen: Vec<String> = config.node.listen.iter().map(SocketAddr::to_string).collect();
    assert_eq!(listen, ["0.0.0.0:7473", "[::]:7473"]);
    assert_eq!(config.node.memory, "256MiB".parse().unwrap());
    assert_eq!(config, Config::default());
}

#[test]
fn everything_that_can_be_said_is_read() {
    let file = file(&format!(
        "[node]\nlisten = [\"[::1]:1\"]\nadvertise = [\"n.example:2\"]\nmemory = \"64MiB\"\n\
         [hosts.b]\naddress = \"b.example:3\"\nfingerprint = \"{KEY_A}\"\n\
         [hosts.\"192.0.2.7:4\"]\naddress = [\"192.0.2.7:4\", \"c.example\"]\n"
    ));

    let config = file.load();

    assert_eq!(config.node.listen, ["[::1]:1".parse().unwrap()]);
    assert_eq!(config.node.advertise, ["n.example:2".parse().unwrap()]);
    assert_eq!(config.node.memory.bytes(), 64 << 20);
    let b = config.host("b").unwrap();
    assert_eq!(b.addresses, ["b.example:3".parse().unwrap()]);
    assert_eq!(b.fingerprint, Some(fingerprint(KEY_A)));
    let by_address = config.host("192.0.2.7:4").unwrap();
    assert_eq!(by_address.addresses.len(), 2);
    assert_eq!(by_address.fingerprint, None);
    assert_eq!(config.host("c"), None);
    assert_eq!(config.alias_by_fingerprint(&fingerprint(KEY_A)), Some(&alias("b")));
    assert_eq!(config.alias_by_fingerprint(&fingerprint(KEY_B)), None);
}

#[test]
fn memory_may_be_a_plain_number() {
    assert_eq!(file("node.memory = 4096").load().node.memory.bytes(), 4096);
}

#[test]
fn errors_tell_the_line_and_what_is_wrong() {
    let cases = [
        (
            "[node]\nmemory = \"1G\"\nlisen = []\n",
            "config.toml:3: unknown key `lisen`, expected one of `listen`, `advertise`, `memory`",
        ),
        ("\n[nod]\n", "config.toml:2: unknown key `nod`, expected `node` or `hosts`"),
        ("[node]\n\nlisten = 7473\n", "config.toml:3: wrong type: integer `7473`"),
        (
            "[node]\nlisten = [\n\"0.0.0.0:1\",\n\"x:2\"]\n",
            "config.toml:4: bad value \"x:2\": expec",
        ),
        ("[node]\nlisten = []\n", "config.toml:2: `listen` is empty"),
        ("[node]\nmemory = \"256MX\"\n", "config.toml:2: bad value \"256MX\": not a size"),
        ("[node]\nmemory = -1\n", "config.toml:2: a size cannot be negative"),
        ("[node]\nmemory = true\n", "config.toml:2: wrong type: boolean `true`, expected a size"),
        ("\n[hosts.b]\n", "config.toml:2: missing key `address`"),
        ("[hosts.b]\naddress = []\n", "config.toml:2: the list of addresses is empty"),
        ("[hosts.b]\naddress = [1]\n", "config.toml:2: wrong type: integer `1`, expected a string"),
        ("[hosts.b]\naddress = \"b:x\"\n", "config.toml:2: bad value \"b:x\": "),
        ("[hosts.b]\naddress = \"b\"\nfingerprint = \"x\"\n", "config.toml:3: bad value \"x\": "),
        ("[hosts.b]\naddress = \"b\"\nkey = 1\n", "config.toml:3: unknown key `key`"),
        ("\n\n[hosts.\"-v\"]\naddress = \"b\"\n", "config.toml:3: bad value \"-v\": a name begins"),
        ("[node]\nmemory = \n", "config.toml:2: "),
    ];
    for (text, expected) in cases {
        let told = what_is_wrong(text);
        assert!(told.starts_with(expected), "{text:?}\n told {told}\n not  {expected}");
    }
}

#[test]
fn file_larger_than_the_limit_is_refused() {
    let file = file(&"#\n".repeat(CONFIG_FILE_BYTES_MAX as usize / 2 + 1));

    assert!(matches!(Config::load(&file.path), Err(ReadError::TooLarge { .. })));
}

#[test]
fn pinning_keeps_comments_order_and_form() {
    let file = file(
        "# mine\n[node] # self\nmemory = \"1GiB\" # plenty\n\n# the big one\n[hosts.b]\n\
         address = \"old.example:1\" # moved\n\n[hosts.a]\naddress = \"a.example\"\n# the end\n",
    );

    file.pin("b", "new.example:2", KEY_B).unwrap();
    file.pin("c", "c.example:3", KEY_A).unwrap();

    let expected = format!(
        "# mine\n[node] # self\nmemory = \"1GiB\" # plenty\n\n# the big one\n[hosts.b]\n\
         address = \"new.example:2\" # moved\nfingerprint = \"{KEY_B}\"\n\n[hosts.a]\n\
         address = \"a.example\"\n# the end\n\n[hosts.c]\naddress = \"c.example:3\"\n\
         fingerprint = \"{KEY_A}\"\n"
    );
    assert_eq!(file.text(), expected);
}

#[test]
fn new_host_comes_after_everything_else() {
    let file = file("[hosts.a]\naddress = \"a\"\n\n[node]\nmemory = 1\n# [hosts.x]");

    file.pin("b", "b.example:1", KEY_A).unwrap();

    let expected = format!(
        "[hosts.a]\naddress = \"a\"\n\n[node]\nmemory = 1\n# [hosts.x]\n\n[hosts.b]\n\
         address = \"b.example:1\"\nfingerprint = \"{KEY_A}\"\n"
    );
    assert_eq!(file.text(), expected);
}

#[test]
fn pinning_works_in_an_absent_file_and_in_inline_tables() {
    let dir = tempfile::tempdir().unwrap();
    let absent = File { path: dir.path().join("deep/config.toml"), _dir: dir };
    absent.pin("b", "b.example:1", KEY_A).unwrap();
    assert_eq!(
        absent.text(),
        format!("[hosts.b]\naddress = \"b.example:1\"\nfingerprint = \"{KEY_A}\"\n")
    );

    for text in [
        "hosts = {}\n",
        "hosts.a = { address = \"a\" }\n",
        "hosts.a.address = \"a\"\n",
        "[hosts]\na.address = \"a\"\n",
    ] {
        let file = file(text);
        file.pin("b", "b.example:1", KEY_A).unwrap();
        file.pin("a", "a.example:1", KEY_B).unwrap();
        assert_eq!(file.load().hosts.len(), 2, "{text}");
        assert!(remove_host(&file.path, &alias("a")).unwrap().is_some());
        assert!(file.load().host("b").is_some());
    }
}

#[test]
fn other_key_for_a_pinned_host_is_refused_with_both_keys_and_the_remedy() {
    let file = file("");
    file.pin("b", "b.example:1", KEY_A).unwrap();
    let before = file.text();

    let error = file.pin("b", "b.example:1", KEY_B).unwrap_err();

    assert!(matches!(error, PinHostError::FingerprintChanged { .. }));
    let told = error.to_string();
    assert!(told.contains(KEY_A) && told.contains(KEY_B), "{told}");
    assert!(told.contains("qpipe trust remove b"), "{told}");
    assert_eq!(file.text(), before);
}

#[test]
fn pinning_without_an_address_is_refused() {
    let file = file("");

    let pinned = pin_host(&file.path, &alias("b"), &[], &fingerprint(KEY_A));

    assert!(matches!(pinned, Err(PinHostError::NoAddress { .. })));
}

#[test]
fn broken_file_is_not_edited() {
    let file = file("[node]\nlisen = []\n");

    let error = file.pin("b", "b.example:1", KEY_A).unwrap_err();

    assert!(error.to_string().contains("config.toml:2: unknown key `lisen`"), "{error}");
    assert_eq!(file.text(), "[node]\nlisen = []\n");
}

#[test]
fn removed_host_takes_its_own_comment_and_leaves_the_others() {
    let file = file(
        "# all about hosts\n\n# about b\n[hosts.b]\naddress = \"b\"\n\n# about c\n[hosts.c]\n\
         address = \"c\"\n",
    );

    let removed = remove_host(&file.path, &alias("b")).unwrap();

    assert_eq!(removed.unwrap().addresses, ["b".parse().unwrap()]);
    assert_eq!(file.text(), "# all about hosts\n\n# about c\n[hosts.c]\naddress = \"c\"\n");
    assert_eq!(remove_host(&file.path, &alias("b")).unwrap(), None);
    remove_host(&file.path, &alias("c")).unwrap();
    assert_eq!(file.text(), "# all about hosts\n\n");
}

#[test]
fn pins_of_many_threads_are_all_kept() {
    let file = file("# kept\n");

    std::thread::scope(|scope| {
        for thread in 0..4 {
            let file = &file;
            scope.spawn(move || {
                for n in 0..5 {
                    file.pin(&format!("h{thread}-{n}"), "b.example:1", KEY_A).unwrap();
                }
            });
        }
    });

    assert_eq!(file.load().hosts.len(), 20);
    assert!(file.text().starts_with("# kept\n"));
}

#[test]
fn edit_error_names_the_file_that_cannot_be_written() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("not-a-dir"), "").unwrap();
    let path = dir.path().join("not-a-dir/config.toml");

    let error = pin_host(&path, &alias("b"), &["b".parse().unwrap()], &fingerprint(KEY_A));

    assert!(matches!(error, Err(PinHostError::Edit(EditError::Write { .. }))));
}
