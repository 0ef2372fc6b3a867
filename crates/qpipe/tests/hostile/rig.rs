//! The node under attack, and the honest session that it serves meanwhile.

use std::future::Future;
use std::net::SocketAddr;
use std::panic;
use std::sync::{Arc, Mutex, Once};
use std::time::Duration;

use qpipe::identity::{HostIdentity, PeerIdentity};
use qpipe::tls::ExpectedHost;
use qpipe::{
    Access, Address, Cause, Fingerprint, IncomingOpen, Node, NodeOptions, OpenOptions, OpenTarget,
    Patience, Peer, PipeReader, PipeWriter, Session,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Longer than every deadline of a node: what takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(30);

/// What of the honest pipe is on its way during an attack, in bytes.
const UNREAD_BYTES: u64 = 5_000;

/// A node under attack. It serves an honest session with a pipe in use.
pub(crate) struct Rig {
    pub(crate) victim: Node,
    honest: Node,
    session: Session,
    writer: PipeWriter,
    reader: PipeReader,
    written: u64,
    read: u64,
}

/// Whom the node under attack lets in without a ticket.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    /// Everybody: the peer is hostile but known.
    Open,
    /// The honest host only.
    Shut,
}

struct Guests {
    honest: Fingerprint,
    door: Door,
}

impl Access for Guests {
    fn knows(&self, peer: &PeerIdentity) -> bool {
        self.door == Door::Open || peer.host() == self.honest
    }
}

impl Rig {
    /// A node that knows every peer.
    pub(crate) async fn new() -> Rig {
        Rig::with_door(Door::Open).await
    }

    /// A node behind `door`.
    pub(crate) async fn with_door(door: Door) -> Rig {
        Rig::with(door, Patience::default()).await
    }

    /// A node that does not wait long for peers.
    pub(crate) async fn with_patience(patience: Patience) -> Rig {
        Rig::with(Door::Open, patience).await
    }

    async fn with(door: Door, patience: Patience) -> Rig {
        watch_for_panics();
        let honest_identity = HostIdentity::ephemeral().unwrap().node();
        let guests = Guests { honest: honest_identity.host(), door };
        let identity = HostIdentity::ephemeral().unwrap().node();
        let victim = node_with(identity, Arc::new(guests), NodeOptions { patience, ..options() });
        let honest = node(honest_identity, Arc::new(qpipe::Nobody));
        let session = honest.connect(&address_of(&victim), None).await.unwrap();
        let options = OpenOptions::default();
        let writer = session.open_writer(name("honest"), options).await.unwrap();
        let reader = bounded(victim.next_open()).await.unwrap().accept().unwrap().reader.unwrap();
        let mut rig = Rig { victim, honest, session, writer, reader, written: 0, read: 0 };
        rig.write(UNREAD_BYTES).await;
        rig.beat().await;
        rig
    }

    /// Where the node listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.victim.local_addresses()[0]
    }

    /// The node as something to dial.
    pub(crate) fn expected(&self) -> ExpectedHost {
        ExpectedHost::Is(self.victim.fingerprint())
    }

    /// The next group of opens at the node.
    pub(crate) async fn open(&self) -> IncomingOpen {
        bounded(self.victim.next_open()).await.unwrap()
    }

    /// The end to read of the next open, accepted.
    pub(crate) async fn reader(&self) -> PipeReader {
        self.open().await.accept().unwrap().reader.unwrap()
    }

    /// The end to write of the next open, accepted.
    pub(crate) async fn writer(&self) -> PipeWriter {
        self.open().await.accept().unwrap().writer.unwrap()
    }

    /// The honest pipe carries on.
    pub(crate) async fn beat(&mut self) {
        self.write(1_000).await;
        let mut got = [0; 1_000];
        bounded(self.reader.read_exact(&mut got)).await.unwrap();
        assert!(got[..] == pattern(self.read, 1_000)[..], "the honest pipe slipped");
        self.read += 1_000;
    }

    /// The honest host can still dial, open and be heard.
    pub(crate) async fn welcomes(&self) {
        let fresh = node(HostIdentity::ephemeral().unwrap().node(), Arc::new(qpipe::Nobody));
        let mut offer = self.victim.offer(qpipe::End::Write, None).unwrap();
        let target = address_of(&self.victim);
        let session = bounded(fresh.connect(&target, Some(offer.secret()))).await.unwrap();
        let target = OpenTarget::Ticket(offer.secret().clone());
        let mut writer = session.open_writer(target, OpenOptions::default()).await.unwrap();
        let mut reader = bounded(offer.taken()).await.unwrap().reader.unwrap();
        writer.write_all(b"welcome").await.unwrap();
        writer.close();
        assert_eq!(read_all(&mut reader).await, (b"welcome".to_vec(), Ok(())));
        bounded(writer.finish()).await.unwrap();
        drop((reader, writer));
        assert_eq!(session.close(PATIENCE).await.cut, 0);
    }

    /// The honest pipe ends well, and of the hostile peer nothing is left.
    pub(crate) async fn end(mut self) {
        self.beat().await;
        self.writer.close();
        let mut rest = Vec::new();
        bounded(self.reader.read_to_end(&mut rest)).await.unwrap();
        assert_eq!(rest.len() as u64, self.written - self.read);
        assert!(rest == pattern(self.read, rest.len()), "the honest pipe slipped");
        bounded(self.writer.finish()).await.unwrap();
        drop((self.writer, self.reader));
        assert_eq!(self.session.close(PATIENCE).await.cut, 0);
        drop(self.session);
        self.honest.close(PATIENCE).await;
        // A session's reservation is the last to go: nothing committed means no session. It lives as long
        // as an open of it waits to be taken, and tokio makes a task pause after it took 128.
        let given_back = async {
            while self.victim.budget().committed() != (0, 0) {
                while let Some(open) = at_once(self.victim.next_open()).await {
                    drop(open);
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, given_back).await.expect("memory is not given back");
        assert_no_panic();
    }

    async fn write(&mut self, bytes: u64) {
        let content = pattern(self.written, bytes as usize);
        bounded(self.writer.write_all(&content)).await.unwrap();
        self.written += bytes;
    }
}

/// A node that listens on loopback and hands out opens of names.
pub(crate) fn node(identity: qpipe::identity::Identity, access: Arc<dyn Access>) -> Node {
    node_with(identity, access, options())
}

/// As [`node`], set up otherwise.
pub(crate) fn node_with(
    identity: qpipe::identity::Identity,
    access: Arc<dyn Access>,
    options: NodeOptions,
) -> Node {
    Node::start(identity, options, access).unwrap()
}

/// How the nodes are set up.
pub(crate) fn options() -> NodeOptions {
    let listen = vec!["127.0.0.1:0".parse().unwrap()];
    NodeOptions { listen, memory: 64 << 20, takes_names: true, ..NodeOptions::default() }
}

/// How to dial `node`.
pub(crate) fn address_of(node: &Node) -> Peer {
    let addresses = vec![Address::try_from(node.local_addresses()[0]).unwrap()];
    let expected = ExpectedHost::Is(node.fingerprint());
    Peer { name: "victim".to_owned(), addresses, expected }
}

/// A named pipe.
pub(crate) fn name(text: &str) -> OpenTarget {
    OpenTarget::Name(text.parse().unwrap())
}

/// Everything that a reader gets, and how it ended.
pub(crate) async fn read_all(reader: &mut PipeReader) -> (Vec<u8>, Result<(), Cause>) {
    let mut got = Vec::new();
    let end = bounded(reader.read_to_end(&mut got)).await;
    let cause = |error| qpipe::PipeError::of(&error).unwrap().cause();
    (got, end.map(drop).map_err(cause))
}

/// `future`, which is not allowed to hang.
pub(crate) async fn bounded<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.expect("nothing happens any more")
}

/// What `future` gives without waiting.
pub(crate) async fn at_once<F: Future>(future: F) -> Option<F::Output> {
    tokio::select! {
        biased;
        output = future => Some(output),
        () = std::future::ready(()) => None,
    }
}

/// Waits for something that tells nobody when it has happened.
pub(crate) async fn eventually(otherwise: &str, happened: impl Fn() -> bool) {
    let watch = async {
        while !happened() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, watch).await.expect(otherwise);
}

/// Bytes that show any slip: each depends on its place.
pub(crate) fn pattern(from: u64, length: usize) -> Vec<u8> {
    let byte = |i: u64| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 29) as u8;
    (from..from + length as u64).map(byte).collect()
}

static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Notes every panic that is not a test's own: tokio would swallow one in a task.
pub(crate) fn watch_for_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let is_ours = |l: &panic::Location<'_>| l.file().contains("tests");
            if !info.location().is_some_and(is_ours) {
                PANICS.lock().unwrap().push(info.to_string());
            }
            usual(info);
        }));
    });
}

/// Fails the test if the library panicked, in whatever task.
pub(crate) fn assert_no_panic() {
    let panics = PANICS.lock().unwrap();
    assert!(panics.is_empty(), "the library panicked: {panics:?}");
}
