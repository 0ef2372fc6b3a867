//! Two nodes in one process, with real QUIC over loopback between them.

#![allow(dead_code, unreachable_pub)]

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use qpipe::identity::{HostIdentity, PeerIdentity};
use qpipe::tls::ExpectedHost;
use qpipe::{
    Access, Address, End, Ends, Nobody, Node, NodeOptions, OpenOptions, OpenTarget, Peer,
    PipeReader, PipeWriter, Session,
};
use tokio::runtime::Handle;

/// Where a node is.
#[derive(Clone, Debug)]
pub struct Place {
    /// What drives it. Its threads open the node's sockets, so their network is the node's.
    pub runtime: Handle,
    /// An address there.
    pub address: IpAddr,
}

impl Place {
    /// This runtime, on loopback.
    pub fn here() -> Place {
        Place { runtime: Handle::current(), address: Ipv4Addr::LOCALHOST.into() }
    }

    /// Does something there.
    pub async fn run<F>(&self, work: F) -> F::Output
    where
        F: Future<Output: Send> + Send + 'static,
    {
        self.runtime.spawn(work).await.unwrap()
    }
}

/// A node with a key of its own, listening on a free port of 127.0.0.1.
pub fn node(memory: u64) -> Node {
    node_at(Ipv4Addr::LOCALHOST.into(), memory)
}

/// A node with a key of its own, listening on a free port of this address.
pub fn node_at(address: IpAddr, memory: u64) -> Node {
    let identity = HostIdentity::ephemeral().unwrap().node();
    let listen = vec![(address, 0).into()];
    let options = NodeOptions { listen, memory, ..NodeOptions::default() };
    Node::start(identity, options, Arc::new(Nobody)).unwrap()
}

/// How to dial `node`.
pub fn peer(node: &Node) -> Peer {
    let address = Address::try_from(node.local_addresses()[0]).unwrap();
    let expected = ExpectedHost::Is(node.fingerprint());
    Peer { name: "peer".to_owned(), addresses: vec![address], expected }
}

/// Two nodes with a session between them.
pub struct Pair {
    pub dialler: Node,
    pub acceptor: Node,
    pub session: Session,
}

pub const MEMORY: u64 = 256 << 20;

impl Pair {
    pub async fn new() -> Pair {
        Pair::with_memory(MEMORY).await
    }

    pub async fn with_memory(memory: u64) -> Pair {
        Pair::between(Place::here(), Place::here(), memory).await
    }

    /// A node at each of these places: the one that dials, and the other.
    pub async fn between(place: Place, other: Place, memory: u64) -> Pair {
        let acceptor = other.run(async move { node_at(other.address, memory) }).await;
        let peer = peer(&acceptor);
        // A session begins with a ticket; its pipe is closed again at once.
        let mut offer = acceptor.offer(End::Write, None).unwrap();
        let secret = offer.secret().clone();
        let address = place.address;
        let dialling = place.run(async move {
            let dialler = node_at(address, memory);
            let session = dialler.connect(&peer, Some(&secret)).await.unwrap();
            let target = OpenTarget::Ticket(secret);
            let writer = session.open_writer(target, OpenOptions::default()).await.unwrap();
            (dialler, session, writer)
        });
        let (dialler, session, mut writer) = dialling.await;
        let mut ends = offer.taken().await.unwrap();
        let mut reader = ends.reader.take().unwrap();
        writer.close();
        assert!(reader.read_chunk(1).await.unwrap().is_none());
        writer.finish().await.unwrap();
        Pair { dialler, acceptor, session }
    }

    /// A pipe whose writer opened it.
    pub async fn pipe(&self) -> (PipeWriter, PipeReader) {
        let (writer, _, ends) = self.open(End::Write).await;
        (writer.unwrap(), ends.reader.unwrap())
    }

    /// A pipe whose reader opened it.
    pub async fn pipe_from_reader(&self) -> (PipeWriter, PipeReader) {
        let (_, reader, ends) = self.open(End::Read).await;
        (ends.writer.unwrap(), reader.unwrap())
    }

    /// Whatever `end` grants.
    pub async fn open(&self, end: End) -> (Option<PipeWriter>, Option<PipeReader>, Ends) {
        let mut offer = self.acceptor.offer(end, None).unwrap();
        let target = OpenTarget::Ticket(offer.secret().clone());
        let options = OpenOptions::default();
        let (writer, reader) = match end {
            End::Duplex => {
                let (writer, reader) = self.session.open_duplex(target, options).await.unwrap();
                (Some(writer), Some(reader))
            }
            End::Read => (None, Some(self.session.open_reader(target, options).await.unwrap())),
            End::Write => (Some(self.session.open_writer(target, options).await.unwrap()), None),
        };
        (writer, reader, offer.taken().await.unwrap())
    }

    pub fn acceptor_identity(&self) -> PeerIdentity {
        self.session.peer()
    }
}

/// Bytes that show any slip: each depends on its place.
pub fn pattern(seed: u64, from: u64, length: usize) -> Vec<u8> {
    let byte = |i: u64| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ seed).rotate_left(29) as u8;
    (from..from + length as u64).map(byte).collect()
}

/// Everybody may talk to the node; what they open is judged at each open.
pub struct Everybody;

impl Access for Everybody {
    fn knows(&self, _: &PeerIdentity) -> bool {
        true
    }
}

/// A node that gives opens of named pipes out.
pub fn named_node(access: Arc<dyn Access>) -> Node {
    let identity = HostIdentity::ephemeral().unwrap().node();
    let listen = vec!["127.0.0.1:0".parse().unwrap()];
    let options = NodeOptions { listen, takes_names: true, ..NodeOptions::default() };
    Node::start(identity, options, access).unwrap()
}
