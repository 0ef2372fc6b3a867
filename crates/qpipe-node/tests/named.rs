//! Named pipes through a serving node: the contract holds end to end.

use std::sync::Arc;
use std::time::Duration;

use qpipe::identity::HostIdentity;
use qpipe::{
    Cause, Nobody, Node, NodeOptions, OpenOptions, OpenTarget, Patience, PipeError, PipeReader,
    PipeWriter, Session,
};
use qpipe_node::{Home, Serve, ServeOptions, add_peer, local_peer, remove_peer};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A serving node, and two hosts' sessions with it.
struct World {
    serve: Arc<Serve>,
    home: Home,
    _dir: TempDir,
    _nodes: Vec<Node>,
    alice: Session,
    bob: Session,
}

const MEMORY: u64 = 64 << 20;

impl World {
    /// Alice may send to `inbox/*`, bob may receive from it, both may use `both/*` in both ways.
    async fn new() -> World {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path().join("home"));
        home.create().unwrap();
        let listen = vec!["127.0.0.1:0".parse().unwrap()];
        let serve = Serve::start(
            &home,
            ServeOptions { listen, memory: MEMORY, patience: Patience::default() },
        )
        .unwrap();
        let serve = Arc::new(serve);
        let running = serve.clone();
        tokio::spawn(async move { running.run(|error| panic!("{error}")).await });
        let (one, alice) =
            join(&serve, &home, "alice", &["send:inbox/*", "send:both/*", "recv:both/*"]).await;
        let (two, bob) =
            join(&serve, &home, "bob", &["recv:inbox/*", "send:both/*", "recv:both/*"]).await;
        World { serve, home, _dir: dir, _nodes: vec![one, two], alice, bob }
    }

    async fn writer(&self, name: &str) -> PipeWriter {
        self.alice.open_writer(target(name), OpenOptions::default()).await.unwrap()
    }

    async fn reader(&self, name: &str) -> PipeReader {
        self.bob.open_reader(target(name), OpenOptions::default()).await.unwrap()
    }
}

async fn join(serve: &Serve, home: &Home, name: &str, rules: &[&str]) -> (Node, Session) {
    let identity = HostIdentity::ephemeral().unwrap();
    let rules = rules.iter().map(|rule| rule.parse().unwrap());
    let peer =
        qpipe_node::PeerRules::new(identity.fingerprint(), Some(name.parse().unwrap()), rules);
    add_peer(&home.authorized_file(), &peer).unwrap();
    let options = NodeOptions { accepts: false, memory: MEMORY, ..NodeOptions::default() };
    let node = Node::start(identity.process().unwrap(), options, Arc::new(Nobody)).unwrap();
    let host = local_peer(home, serve.node().fingerprint()).unwrap();
    let session = node.connect(&host, None).await.unwrap();
    (node, session)
}

fn target(name: &str) -> OpenTarget {
    OpenTarget::Name(name.parse().unwrap())
}

fn content(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i as u64).wrapping_mul(0x9e37_79b9).rotate_right(11) as u8).collect()
}

#[tokio::test]
async fn bytes_and_eof_pass_through_and_finish_means_consumed() {
    let world = World::new().await;
    let mut writer = world.writer("inbox/x").await;
    let mut reader = world.reader("inbox/x").await;
    let sent = content(5_000_000);
    let copy = sent.clone();
    let writing = tokio::spawn(async move {
        writer.write_all(&copy).await.unwrap();
        writer.finish().await.unwrap();
        writer.consumed()
    });
    let mut got = Vec::new();
    reader.read_to_end(&mut got).await.unwrap();
    assert!(got == sent);
    assert_eq!(writing.await.unwrap(), 5_000_000);
}

#[tokio::test]
async fn finish_waits_for_the_reader_not_for_the_relay() {
    let world = World::new().await;
    let mut writer = world.writer("inbox/x").await;
    let mut reader = world.reader("inbox/x").await;
    writer.write_all(b"letter").await.unwrap();
    writer.close();
    assert_eq!(reader.read_chunk(100).await.unwrap().unwrap(), "letter");
    // Handed over, but not said to be consumed.
    assert!(tokio::time::timeout(Duration::from_millis(300), writer.finish()).await.is_err());
    assert_eq!(writer.consumed(), 0);
    reader.consume(6);
    writer.finish().await.unwrap();
}

#[tokio::test]
async fn a_reader_that_leaves_breaks_the_writer_behind_the_relay() {
    let world = World::new().await;
    let mut writer = world.writer("inbox/x").await;
    let mut reader = world.reader("inbox/x").await;
    writer.write_all(&[1; 1000]).await.unwrap();
    reader.read_exact(&mut [0; 600]).await.unwrap();
    drop(reader);
    let broken = PipeError::Broken { cause: Cause::ReaderClosed, consumed: 600 };
    assert_eq!(writer.over().await, Err(broken));
}

#[tokio::test]
async fn an_abort_passes_through_after_what_was_written() {
    let world = World::new().await;
    let mut writer = world.writer("inbox/x").await;
    let mut reader = world.reader("inbox/x").await;
    writer.write_all(b"partial").await.unwrap();
    writer.abort(Cause::Interrupted);
    let mut got = Vec::new();
    let error = reader.read_to_end(&mut got).await.unwrap_err();
    assert_eq!(got, b"partial");
    let aborted = PipeError::Aborted { cause: Cause::Interrupted, delivered: 7 };
    assert_eq!(PipeError::of(&error), Some(&aborted));
}

#[tokio::test]
async fn a_writer_that_came_first_and_finished_waits_for_a_reader() {
    let world = World::new().await;
    let mut writer = world.writer("inbox/x").await;
    writer.write_all(b"early").await.unwrap();
    writer.close();
    let mut next = world.writer("inbox/x").await;
    next.write_all(b"late").await.unwrap();
    next.close();
    for (text, mut writer) in [("early", writer), ("late", next)] {
        let mut got = String::new();
        world.reader("inbox/x").await.read_to_string(&mut got).await.unwrap();
        assert_eq!(got, text);
        writer.finish().await.unwrap();
    }
}

#[tokio::test]
async fn readers_see_eof_when_the_last_of_several_writers_ends() {
    let world = World::new().await;
    let (mut one, mut two) = (world.writer("inbox/x").await, world.writer("inbox/x").await);
    let mut reader = world.reader("inbox/x").await;
    one.write_all(b"one").await.unwrap();
    let mut got = [0; 3];
    reader.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"one");
    // All of it is consumed: this one need not wait for the other.
    one.finish().await.unwrap();
    two.write_all(b"two").await.unwrap();
    two.close();

    let mut rest = String::new();
    reader.read_to_string(&mut rest).await.unwrap();

    assert_eq!(rest, "two");
    two.finish().await.unwrap();
}

#[tokio::test]
async fn one_writer_that_aborts_makes_the_end_an_abort_and_fails_no_other() {
    let world = World::new().await;
    let (mut one, two) = (world.writer("inbox/x").await, world.writer("inbox/x").await);
    let mut reader = world.reader("inbox/x").await;
    two.joined().await.unwrap();
    two.abort(Cause::Interrupted);
    one.write_all(b"all of it").await.unwrap();
    let mut got = [0; 9];
    reader.read_exact(&mut got).await.unwrap();

    one.finish().await.unwrap();

    let error = reader.read(&mut [0; 10]).await.unwrap_err();
    let cause = PipeError::of(&error).unwrap().cause();
    assert_eq!((&got, cause), (b"all of it", Cause::Interrupted));
}

#[tokio::test]
async fn each_piece_goes_to_one_of_several_readers() {
    let world = World::new().await;
    let mut writer = world.writer("inbox/x").await;
    let readers = [world.reader("inbox/x").await, world.reader("inbox/x").await];
    for reader in &readers {
        reader.joined().await.unwrap();
    }
    let sent = content(4_000_000);
    let writing = async {
        writer.write_all(&sent).await.unwrap();
        writer.finish().await.unwrap();
    };
    let reading = async |mut reader: PipeReader| {
        let mut got = Vec::new();
        reader.read_to_end(&mut got).await.unwrap();
        got
    };
    let [one, two] = readers;
    let ((), one, two) = tokio::join!(writing, reading(one), reading(two));

    assert_eq!(one.len() + two.len(), sent.len());
    let sum = |bytes: &[u8]| bytes.iter().map(|byte| u64::from(*byte)).sum::<u64>();
    assert_eq!(sum(&one) + sum(&two), sum(&sent));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_write_of_up_to_pipe_buf_is_torn_by_another_writer() {
    const WRITERS: u8 = 4;
    const RECORDS: usize = 2_000;
    let world = World::new().await;
    let mut reader = world.reader("inbox/x").await;
    let mut writing = Vec::new();
    for id in 1..=WRITERS {
        let mut writer = world.writer("inbox/x").await;
        writing.push(tokio::spawn(async move {
            for record in 0..RECORDS {
                // Length, writer, and the writer's byte for the rest.
                let length = 3 + (record * 1_237 + usize::from(id) * 91) % 4_094;
                let mut bytes = vec![id; length];
                bytes[..2].copy_from_slice(&(length as u16).to_be_bytes());
                writer.write_all(&bytes).await.unwrap();
            }
            writer.finish().await.unwrap();
        }));
    }
    let mut counts = [0; WRITERS as usize + 1];
    let mut head = [0; 3];
    loop {
        match reader.read_exact(&mut head).await {
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof, "{error}");
                break;
            }
            Ok(_) => {
                let mut rest = vec![0; usize::from(u16::from_be_bytes([head[0], head[1]])) - 3];
                reader.read_exact(&mut rest).await.unwrap();
                assert!(rest.iter().all(|byte| *byte == head[2]), "torn: {head:?}");
                counts[usize::from(head[2])] += 1;
            }
        }
    }
    for writing in writing {
        writing.await.unwrap();
    }
    assert_eq!(counts, [0, RECORDS, RECORDS, RECORDS, RECORDS]);
}

#[tokio::test]
async fn what_a_reader_leaves_behind_goes_to_another() {
    let world = World::new().await;
    let mut writer = world.writer("inbox/x").await;
    let mut first = world.reader("inbox/x").await;
    writer.write_all(b"abcdef").await.unwrap();
    assert_eq!(&first.read_chunk(6).await.unwrap().unwrap()[..], b"abcdef");
    first.consume(2);
    let mut second = world.reader("inbox/x").await;
    second.joined().await.unwrap();

    first.close(Cause::ReaderClosed);

    writer.close();
    let mut rest = String::new();
    second.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, "cdef");
    writer.finish().await.unwrap();
}

#[tokio::test]
async fn a_reader_that_leaves_does_not_break_writers_while_others_read() {
    let world = World::new().await;
    let mut writer = world.writer("inbox/x").await;
    let (first, mut second) = (world.reader("inbox/x").await, world.reader("inbox/x").await);
    first.joined().await.unwrap();
    second.joined().await.unwrap();
    first.close(Cause::ReaderClosed);
    writer.write_all(b"content").await.unwrap();
    writer.close();

    let mut got = String::new();
    second.read_to_string(&mut got).await.unwrap();

    assert_eq!(got, "content");
    writer.finish().await.unwrap();
}

#[tokio::test]
async fn nobody_there_and_no_wait_is_refused_at_once() {
    let world = World::new().await;
    let options = OpenOptions { no_wait: true, ..OpenOptions::default() };
    let writer = world.alice.open_writer(target("inbox/x"), options).await.unwrap();
    let nobody = Err(PipeError::Refused { cause: Cause::NoPartner });
    assert_eq!(writer.joined().await, nobody);
    let _reader = world.reader("inbox/y").await;
    _reader.accepted().await.unwrap();
    let writer = world.alice.open_writer(target("inbox/y"), options).await.unwrap();
    writer.joined().await.unwrap();
}

#[tokio::test]
async fn a_name_that_left_its_only_side_is_free_again() {
    let world = World::new().await;
    let reader = world.reader("inbox/x").await;
    reader.accepted().await.unwrap();
    let watch = reader.watch();
    drop(reader);
    let _ = watch.over().await;
    // Nobody is there for one who does not want to wait.
    loop {
        let options = OpenOptions { no_wait: true, ..OpenOptions::default() };
        let writer = world.alice.open_writer(target("inbox/x"), options).await.unwrap();
        // It may be joined while the node has not looked at the reader's end yet.
        if let Err(error) = writer.joined().await {
            assert_eq!(error, PipeError::Refused { cause: Cause::NoPartner });
            break;
        }
    }
}

#[tokio::test]
async fn what_no_rule_allows_is_refused() {
    let world = World::new().await;
    let refused = Err(PipeError::Refused { cause: Cause::NotAllowed });
    assert_eq!(world.writer("outbox/x").await.accepted().await, refused);
    assert_eq!(world.reader("outbox/x").await.accepted().await, refused);
    let reader = world.alice.open_reader(target("inbox/x"), OpenOptions::default()).await.unwrap();
    assert_eq!(reader.accepted().await, refused);
}

#[tokio::test]
async fn a_rule_taken_away_ends_its_pipes_at_once() {
    let world = World::new().await;
    let mut writer = world.writer("inbox/x").await;
    let mut reader = world.reader("inbox/x").await;
    writer.write_all(b"so far").await.unwrap();
    reader.read_exact(&mut [0; 6]).await.unwrap();
    remove_peer(&world.home.authorized_file(), "alice").unwrap().unwrap();
    world.serve.reload().unwrap();
    let error = reader.read_chunk(100).await.unwrap_err();
    assert_eq!(PipeError::of(&error).unwrap().cause(), Cause::Revoked);
    assert_eq!(writer.over().await.unwrap_err().cause(), Cause::Revoked);
}

#[tokio::test]
async fn two_duplex_openers_meet_at_a_name() {
    let world = World::new().await;
    let options = OpenOptions::default();
    let (mut to_bob, mut from_bob) =
        world.alice.open_duplex(target("both/x"), options).await.unwrap();
    let (mut to_alice, mut from_alice) =
        world.bob.open_duplex(target("both/x"), options).await.unwrap();
    to_bob.write_all(b"ping").await.unwrap();
    to_bob.close();
    let mut got = String::new();
    from_alice.read_to_string(&mut got).await.unwrap();
    to_alice.write_all(got.to_uppercase().as_bytes()).await.unwrap();
    to_alice.close();
    let mut reply = String::new();
    from_bob.read_to_string(&mut reply).await.unwrap();
    assert_eq!(reply, "PING");
    to_alice.finish().await.unwrap();
    to_bob.finish().await.unwrap();
}

#[tokio::test]
async fn a_stalled_reader_behind_the_relay_stops_its_writer_and_no_other() {
    let world = World::new().await;
    let mut stalled = world.writer("inbox/stalled").await;
    let _idle = world.reader("inbox/stalled").await;
    let mut written = 0_usize;
    while let Ok(n) =
        tokio::time::timeout(Duration::from_millis(500), stalled.write(&[3; 4096])).await
    {
        written += n.unwrap();
    }
    assert!(written < 1_000_000, "{written} bytes accepted for a reader that reads none");
    let mut writer = world.writer("inbox/x").await;
    let mut reader = world.reader("inbox/x").await;
    let sent = content(2_000_000);
    let copy = sent.clone();
    let writing = tokio::spawn(async move {
        writer.write_all(&copy).await.unwrap();
        writer.finish().await.unwrap();
    });
    let mut got = Vec::new();
    reader.read_to_end(&mut got).await.unwrap();
    assert!(got == sent);
    writing.await.unwrap();
}

#[tokio::test]
async fn an_empty_pipe_is_complete_only_when_a_reader_took_its_eof() {
    let world = World::new().await;
    let mut writer = world.writer("inbox/x").await;
    writer.close();
    writer.accepted().await.unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(300), writer.finish()).await.is_err());
    let mut reader = world.reader("inbox/x").await;
    assert!(reader.read_chunk(10).await.unwrap().is_none());
    writer.finish().await.unwrap();
}

#[tokio::test]
async fn what_a_lost_writer_left_unread_is_forgotten() {
    let world = World::new().await;
    let before = world.serve.node().budget().committed();
    let (node, session) = join(&world.serve, &world.home, "carol", &["send:inbox/*"]).await;
    let mut writer = session.open_writer(target("inbox/x"), OpenOptions::default()).await.unwrap();
    writer.write_all(b"from carol").await.unwrap();
    writer.close();
    writer.accepted().await.unwrap();
    drop(node);
    assert_eq!(writer.over().await.unwrap_err().cause(), Cause::Lost);
    // Nothing tells when the serving node has noticed; its memory shows it.
    let forgotten = async {
        while world.serve.node().budget().committed() != before {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), forgotten).await.unwrap();
    let options = OpenOptions { no_wait: true, ..OpenOptions::default() };
    let reader = world.bob.open_reader(target("inbox/x"), options).await.unwrap();
    assert_eq!(reader.accepted().await, Err(PipeError::Refused { cause: Cause::NoPartner }));
}

#[tokio::test]
async fn a_revoked_reader_that_does_not_answer_holds_nobody_up() {
    let world = World::new().await;
    let writer = world.writer("inbox/x").await;
    let reader = world.reader("inbox/x").await;
    writer.joined().await.unwrap();
    remove_peer(&world.home.authorized_file(), "bob").unwrap().unwrap();
    world.serve.reload().unwrap();
    // The reader neither reads nor closes its end.
    assert_eq!(writer.over().await.unwrap_err().cause(), Cause::Revoked);
    drop(reader);
}
