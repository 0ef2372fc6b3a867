use std::io::{Read, Write};

use super::*;
use crate::local::{Ask, OpenAsk, Place as PipePlace, Word, connect};

fn home() -> (tempfile::TempDir, Home) {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::at(dir.path().join("home"));
    (dir, home)
}

async fn connected(home: &Home) -> LocalStream {
    connect(home).await.unwrap().expect("a node that listens")
}

#[tokio::test]
async fn request_comes_with_its_descriptor_and_the_answer_goes_back() {
    let (_dir, home) = home();
    let listener = Listener::bind(&home).unwrap();
    let mut program = connected(&home).await;
    let (mut reader, writer) = std::io::pipe().unwrap();
    let place = PipePlace::Local { name: "x".to_owned() };
    let request = Request::new(Ask::Open(OpenAsk::new(qpipe::End::Read, place)));

    program.send(&request, &[writer.as_fd()]).await.unwrap();
    drop(writer);
    let (mut node, credentials) = listener.accept().await.unwrap();
    let (heard, descriptors) = node.recv_request().await.unwrap().unwrap();
    let [descriptor] = descriptors.try_into().unwrap();
    fs::File::from(descriptor).write_all(b"there").unwrap();
    let (events, mut words) = node.into_parts();
    events.send(Event::Eof);

    assert_eq!(heard, request);
    assert_eq!(credentials.uid, geteuid().as_raw());
    assert_eq!(credentials.pid, i32::try_from(std::process::id()).ok());
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "there");
    assert_eq!(program.recv().await.unwrap(), Some(Event::Eof));
    program.send(&Word::Confirm, &[]).await.unwrap();
    assert_eq!(words.next().await.unwrap(), Some(Word::Confirm));
}

#[tokio::test]
async fn files_are_for_their_owner_alone_and_go_with_the_node() {
    let (_dir, home) = home();
    assert!(connect(&home).await.unwrap().is_none());

    let listener = Listener::bind(&home).unwrap();

    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let path = home.socket_file();
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(path.parent().unwrap()), 0o700);
    assert!(listener.is_current());
    drop(listener);
    assert!(!path.exists());
    assert!(connect(&home).await.unwrap().is_none());
}

#[tokio::test]
async fn programs_of_other_users_are_turned_away_and_counted() {
    let (_dir, home) = home();
    let mut listener = Listener::bind(&home).unwrap();
    let mut stranger = connected(&home).await;
    let mut own = connected(&home).await;
    own.send(&Request::new(Ask::Retire), &[]).await.unwrap();
    // Of two programs, the first one claims to be somebody else's.
    static ASKED: AtomicU64 = AtomicU64::new(0);
    listener.who = |_| {
        let uid = if ASKED.fetch_add(1, Ordering::Relaxed) == 0 { 4_711 } else { 0 };
        Ok(Credentials { pid: None, uid })
    };

    let (mut node, credentials) = listener.accept().await.unwrap();

    assert_eq!(credentials.uid, 0);
    assert!(node.recv_request().await.unwrap().is_some());
    assert_eq!(listener.strangers(), 1);
    assert_eq!(stranger.recv::<Event>().await.unwrap(), None);
}

#[test]
fn only_the_own_user_and_root_are_trusted() {
    assert!(is_trusted(1_000, 1_000));
    assert!(is_trusted(0, 1_000));
    assert!(!is_trusted(1_001, 1_000));
    assert!(!is_trusted(1_000, 0));
}

#[tokio::test]
async fn stale_socket_is_replaced_and_a_live_one_is_not() {
    let (_dir, home) = home();
    home.create().unwrap();
    drop(StdListener::bind(home.socket_file()).unwrap());

    let listener = Listener::bind(&home).unwrap();
    let second = Listener::bind(&home);

    assert!(matches!(second, Err(LocalError::Live { .. })));
    assert!(listener.is_current());
    assert!(connect(&home).await.unwrap().is_some());
}

#[tokio::test]
async fn file_that_is_no_socket_is_left_alone() {
    let (_dir, home) = home();
    home.create().unwrap();
    fs::write(home.socket_file(), "precious").unwrap();

    let error = Listener::bind(&home).unwrap_err();

    assert!(matches!(error, LocalError::NotASocket { .. }));
    assert_eq!(fs::read(home.socket_file()).unwrap(), b"precious");
}

#[tokio::test]
async fn directory_that_others_may_write_is_refused() {
    let (_dir, home) = home();
    home.create().unwrap();
    let path = home.socket_file();
    fs::set_permissions(path.parent().unwrap(), fs::Permissions::from_mode(0o777)).unwrap();

    assert!(matches!(Listener::bind(&home), Err(LocalError::Home(_))));
}

#[tokio::test]
async fn socket_of_another_node_is_not_removed() {
    let (_dir, home) = home();
    let first = Listener::bind(&home).unwrap();
    fs::remove_file(home.socket_file()).unwrap();
    assert!(!first.is_current());
    let second = Listener::bind(&home).unwrap();

    drop(first);

    assert!(second.is_current());
    assert!(connect(&home).await.unwrap().is_some());
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn path_longer_than_an_address_works() {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::at(dir.path().join("d".repeat(120)).join("e".repeat(120)));

    assert!(connect(&home).await.unwrap().is_none());
    let listener = Listener::bind(&home).unwrap();
    let mut program = connected(&home).await;
    program.send(&Request::new(Ask::Retire), &[]).await.unwrap();

    let (mut node, _) = listener.accept().await.unwrap();
    assert!(node.recv_request().await.unwrap().is_some());
    assert!(matches!(Listener::bind(&home), Err(LocalError::Live { .. })));
    drop(listener);
    assert!(!home.socket_file().exists());
}

#[tokio::test]
async fn node_is_found_with_and_without_the_runtime_directory() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| Some(dir.path().join(name).into_os_string());
    let with = Home::from_env(|name| match name {
        "HOME" => path("h"),
        "XDG_RUNTIME_DIR" => path("run"),
        _ => None,
    });
    let without = Home::from_env(|name| if name == "HOME" { path("h") } else { None });
    let (with, without) = (with.unwrap(), without.unwrap());

    for (node, program) in [(&with, &without), (&without, &with), (&with, &without)] {
        let listener = Listener::bind(node).unwrap();
        for home in [node, program] {
            assert!(connect(home).await.unwrap().is_some());
            assert!(matches!(Listener::bind(home), Err(LocalError::Live { .. })));
        }
        drop(listener);
        assert!(connect(program).await.unwrap().is_none());
        assert!(fs::symlink_metadata(without.socket_file()).is_err());
    }
}

#[tokio::test]
async fn request_against_the_rules_is_answered_with_why() {
    let (_dir, home) = home();
    let listener = Listener::bind(&home).unwrap();
    let null = fs::File::open("/dev/null").unwrap();
    let mut of_another_version = Request::new(Ask::Retire);
    of_another_version.qpipe = 2;
    let cases = [
        (of_another_version, None, "version 2"),
        (Request::new(Ask::Retire), Some(&null), "1 file descriptors"),
    ];

    for (request, descriptor, why) in cases {
        let mut program = connected(&home).await;
        let descriptors: Vec<_> = descriptor.into_iter().map(AsFd::as_fd).collect();
        program.send(&request, &descriptors).await.unwrap();
        let (mut node, _) = listener.accept().await.unwrap();
        assert!(node.recv_request().await.is_err());
        drop(node);

        let heard = program.recv::<Event>().await.unwrap();

        assert!(matches!(&heard, Some(Event::Failed { text }) if text.contains(why)), "{heard:?}");
        assert_eq!(program.recv::<Event>().await.unwrap(), None);
    }
}

#[tokio::test(start_paused = true)]
async fn program_that_asks_for_nothing_is_not_waited_for() {
    let (_dir, home) = home();
    let listener = Listener::bind(&home).unwrap();
    let mut program = connected(&home).await;

    let (mut node, _) = listener.accept().await.unwrap();

    assert!(matches!(node.recv_request().await, Err(LocalError::Silent)));
    assert!(matches!(program.recv().await.unwrap(), Some(Event::Failed { .. })));
}

#[tokio::test]
async fn crowd_of_idle_connections_costs_the_oldest_their_place() {
    let unasked = Unasked::default();
    let places: Vec<_> = (0..UNASKED_MAX).map(|_| Some(unasked.enter())).collect();
    let is_lost =
        async |place| tokio::time::timeout(Duration::ZERO, Place::lost(place)).await.is_ok();
    assert!(!is_lost(&places[0]).await);

    let one_more = unasked.enter();

    assert!(is_lost(&places[0]).await);
    assert!(!is_lost(&places[1]).await);
    assert_eq!(unasked.lock().len(), UNASKED_MAX);
    drop((places, one_more));
    assert!(unasked.lock().is_empty());
}

#[tokio::test]
async fn request_that_is_there_counts_even_if_the_place_is_lost() {
    let (_dir, home) = home();
    let listener = Listener::bind(&home).unwrap();
    let mut program = connected(&home).await;
    program.send(&Request::new(Ask::Retire), &[]).await.unwrap();
    let (mut asked, _) = listener.accept().await.unwrap();
    let _idle = connected(&home).await;
    let (mut silent, _) = listener.accept().await.unwrap();

    let _crowd: Vec<_> = (0..UNASKED_MAX).map(|_| listener.unasked.enter()).collect();

    assert!(asked.recv_request().await.unwrap().is_some());
    assert!(matches!(silent.recv_request().await, Err(LocalError::Crowded)));
}

#[tokio::test]
async fn without_descriptors_a_program_is_told_with_the_spare_one() {
    let (_dir, home) = home();
    let listener = Listener::bind(&home).unwrap();
    let mut program = connected(&home).await;

    assert!(listener.turn_one_away());
    assert!(!listener.turn_one_away(), "nobody is left");

    let heard = program.recv::<Event>().await.unwrap();
    assert!(matches!(heard, Some(Event::Failed { text }) if text.contains("too many files")));
}

#[tokio::test]
async fn program_waits_while_too_many_others_wait_to_be_accepted() {
    let (_dir, home) = home();
    home.create().unwrap();
    let path = home.socket_file();
    let socket = new_socket(SocketFlags::CLOEXEC).unwrap();
    rustix::net::bind(&socket, &Way::to(&path).unwrap().address).unwrap();
    rustix::net::listen(&socket, 0).unwrap();
    let mut others = Vec::new();
    let full = loop {
        match connect_now(&path) {
            Ok(other) => others.push(other),
            Err(error) => break error,
        }
    };
    assert_eq!(full.kind(), io::ErrorKind::WouldBlock);

    let accepting = async { rustix::net::accept(&socket).unwrap() };
    let (connected, _other) = tokio::join!(connect(&home), accepting);

    assert!(connected.unwrap().is_some());
    assert!(!others.is_empty());
}

#[tokio::test]
async fn link_that_cannot_be_made_fails_the_bind_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let links = ["link", "missing/link"].map(|link| dir.path().join(link));
    let _socket = StdListener::bind(&path).unwrap();
    let _gate = disk::lock_for(&path).unwrap();

    let error = SocketFile::of(path.clone(), links.to_vec()).unwrap_err();

    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    assert!(!path.exists());
    assert!(fs::symlink_metadata(&links[0]).is_err());
}
