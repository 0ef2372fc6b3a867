use std::fs;

use tokio::task::JoinSet;

use super::*;
use crate::local::{Listener, detach};

/// In the command line of this test program, it makes the test below be a node.
const BE_A_NODE: &str = "be-the-node-of-a-test";

/// Longer than any test of this file takes.
const NODE_LIFE_MAX: Duration = Duration::from_secs(60);

fn home() -> (tempfile::TempDir, Home) {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::at(dir.path().join("home"));
    (dir, home)
}

/// This test program and the arguments that make it a node.
fn node() -> (PathBuf, Vec<OsString>) {
    let test = "local::start::tests::node_that_tests_start";
    let args = ["--exact", test, "--skip", BE_A_NODE];
    (std::env::current_exe().unwrap(), args.map(OsString::from).to_vec())
}

fn starts(home: &Home) -> usize {
    fs::read_to_string(home.state_file("starts")).unwrap_or_default().lines().count()
}

impl Home {
    fn state_file(&self, name: &str) -> PathBuf {
        self.node_log_file().with_file_name(name)
    }
}

/// No test in itself: what the others start, which answers until it is to retire.
#[tokio::test]
async fn node_that_tests_start() {
    if !std::env::args().any(|arg| arg == BE_A_NODE) {
        return;
    }
    detach();
    let home = Home::from_env(|name| std::env::var_os(name)).unwrap();
    let mut log = OpenOptions::new().append(true).create(true).open(home.state_file("starts"));
    io::Write::write_all(log.as_mut().unwrap(), b"started\n").unwrap();
    let listener = Listener::bind(&home).unwrap();
    let answering = async {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            if let Ok(Some((Request { ask: Ask::Retire, .. }, _))) = stream.recv_request().await {
                drop(listener);
                return stream.send(&Event::Done).await.unwrap();
            }
        }
    };
    tokio::time::timeout(NODE_LIFE_MAX, answering).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn hundred_at_once_start_one_node() {
    let (_dir, home) = home();
    let (program, args) = node();
    let mut connecting = JoinSet::new();
    for _ in 0..100 {
        let (home, program, args) = (home.clone(), program.clone(), args.clone());
        connecting.spawn(async move { connect_or_start(&home, &program, &args).await });
    }

    // Dropped at once, so that the node gets to hear who is next.
    while let Some(connected) = connecting.join_next().await {
        drop(connected.unwrap().unwrap());
    }

    assert_eq!(starts(&home), 1);
    retire(&home).await.unwrap();
    assert!(connect(&home).await.unwrap().is_none());
}

#[tokio::test]
async fn next_command_starts_a_node_anew() {
    let (_dir, home) = home();
    let (program, args) = node();

    for nth in 1..=2 {
        drop(connect_or_start(&home, &program, &args).await.unwrap());
        assert_eq!(starts(&home), nth);
        retire(&home).await.unwrap();
    }
    retire(&home).await.unwrap();
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn started_node_keeps_no_pipe_of_whoever_started_it() {
    let (_dir, home) = home();
    let (program, args) = node();
    let flags = rustix::pipe::PipeFlags::empty();
    let (reader, writer) = rustix::pipe::pipe_with(flags).unwrap();

    let stream = connect_or_start(&home, &program, &args).await.unwrap();
    drop(writer);

    // Were it open in the node, this would wait as long as that lives.
    assert_eq!(io::read_to_string(File::from(reader)).unwrap(), "");
    drop(stream);
    retire(&home).await.unwrap();
}

#[tokio::test]
async fn node_that_ends_at_once_is_told_with_its_last_words() {
    let (_dir, home) = home();
    let script = "echo some; echo 'the disk is full\x1b[2J' >&2; exit 3";
    let args = ["-c", script].map(OsString::from);

    let error = connect_or_start(&home, Path::new("/bin/sh"), &args).await.unwrap_err();

    let text = error.to_string();
    assert!(text.contains("exit status: 3"), "{text}");
    assert!(text.contains("the disk is full?[2J"), "{text}");
    assert!(text.contains("node.log"), "{text}");
}

#[tokio::test]
async fn words_of_an_earlier_node_are_not_taken_for_those_of_one_that_says_none() {
    let (_dir, home) = home();
    home.create().unwrap();
    fs::write(home.node_log_file(), "the trouble of yesterday\n").unwrap();
    let args = ["-c", "exit 3"].map(OsString::from);

    let error = connect_or_start(&home, Path::new("/bin/sh"), &args).await.unwrap_err();

    let text = error.to_string();
    assert!(text.contains("left no word") && !text.contains("yesterday"), "{text}");
}

#[tokio::test]
async fn file_that_is_in_the_way_is_named() {
    for name in ["start.lock", "node.log"] {
        let (_dir, home) = home();
        home.create().unwrap();
        let path = home.state_file(name);
        fs::create_dir(&path).unwrap();

        let error = connect_or_start(&home, Path::new("/bin/sh"), &[]).await.unwrap_err();

        assert!(matches!(&error, LocalError::Io { path: named, .. } if *named == path), "{error}");
    }
}

#[tokio::test]
async fn program_that_is_not_there_is_told() {
    let (dir, home) = home();

    let error = connect_or_start(&home, &dir.path().join("none"), &[]).await.unwrap_err();

    assert!(matches!(error, LocalError::Start { .. }), "{error}");
}

#[tokio::test]
async fn started_program_has_its_own_surroundings() {
    let (dir, home) = home();
    let script = "cat; echo hidden; echo \"$PWD $QPIPE_HOME $1\" >&2; exit 1";
    let args = ["-c", script, "sh", "argument"].map(OsString::from);

    let error = connect_or_start(&home, Path::new("/bin/sh"), &args).await.unwrap_err();

    let surroundings = format!("/ {} argument", dir.path().join("home").display());
    assert!(error.to_string().contains(&surroundings), "{error}");
    assert!(!fs::read_to_string(home.node_log_file()).unwrap().contains("hidden"));
}

#[test]
fn log_does_not_grow_for_ever() {
    let (dir, _) = home();
    let path = dir.path().join("node.log");
    File::create(&path).unwrap().set_len(LOG_BYTES_MAX).unwrap();

    open_log(&path).unwrap();

    assert_eq!(fs::metadata(&path).unwrap().len(), 0);
    assert_eq!(fs::metadata(old_log(&path)).unwrap().len(), LOG_BYTES_MAX);
}

#[tokio::test]
async fn node_that_ends_while_it_is_asked_for_room_has_made_it() {
    let (_dir, home) = home();
    let listener = Listener::bind(&home).unwrap();
    let asked = tokio::spawn({
        let home = home.clone();
        async move { retire(&home).await }
    });

    // What it was asked is not even read.
    drop(listener.accept().await.unwrap());
    drop(listener);

    assert!(matches!(asked.await.unwrap(), Ok(())));
}
