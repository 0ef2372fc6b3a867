//! Hosts with nodes, and pipes between them.

use std::cell::Cell;
use std::future::Future;
use std::net::SocketAddr;
use std::panic;
use std::sync::{Arc, Mutex, Once};
use std::time::Duration;

use qpipe_proto::contact::Patience;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::dice::{byte, bytes};
use super::network::Net;
use crate::identity::{Continuity, HostIdentity, PeerIdentity};
use crate::tls::ExpectedHost;
use crate::{
    Access, Address, Node, NodeOptions, OpenOptions, OpenTarget, Peer, PipeReader, PipeWriter,
    Session,
};

/// After the end of a simulation its last tasks have so long to end: quinn keeps a connection whose
/// first packet closed it until the idle timeout.
const AFTERMATH: Duration = Duration::from_secs(2000);

/// Runs `story` in virtual time. Then nothing may be left of it.
pub(super) fn simulate<F: Future>(seed: u64, story: impl FnOnce(Net) -> F) -> F::Output {
    watch_for_panics();
    PANICS.set(0);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let output = story(Net::new(seed)).await;
        let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
        let until = Instant::now() + AFTERMATH;
        while tasks() > 0 && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        assert_eq!(tasks(), 0, "tasks are left");
        assert_eq!(PANICS.get(), 0, "a task panicked");
        output
    })
}

thread_local! {
    static PANICS: Cell<usize> = const { Cell::new(0) };
}

/// Counts panics by thread: tokio would swallow those of a task.
fn watch_for_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            PANICS.set(PANICS.get() + 1);
            usual(info);
        }));
    });
}

/// A host with a node that everybody may talk to.
pub(super) struct Place {
    pub(super) node: Node,
    pub(super) address: SocketAddr,
    pub(super) key: HostIdentity,
}

struct Everybody;

impl Access for Everybody {
    fn knows(&self, _: &PeerIdentity) -> bool {
        true
    }
}

/// The address of the `n`-th host.
pub(super) fn address(n: u8) -> SocketAddr {
    SocketAddr::from(([198, 18, 0, n], 7473))
}

impl Place {
    pub(super) fn new(net: &Net, n: u8) -> Place {
        Place::with(net, n, Patience::default())
    }

    pub(super) fn with(net: &Net, n: u8, patience: Patience) -> Place {
        Place::start(net, address(n), HostIdentity::ephemeral().unwrap(), patience, None)
    }

    pub(super) fn start(
        net: &Net,
        address: SocketAddr,
        key: HostIdentity,
        patience: Patience,
        continuity: Option<Continuity>,
    ) -> Place {
        let options = NodeOptions {
            takes_names: true,
            memory: 64 << 20,
            patience,
            continuity,
            ..NodeOptions::default()
        };
        let socket = net.socket(address);
        let node = Node::start_on(key.node(), options, Arc::new(Everybody), socket);
        Place { node, address, key }
    }

    /// How to dial it.
    pub(super) fn peer(&self) -> Peer {
        let addresses = vec![Address::try_from(self.address).unwrap()];
        let expected = ExpectedHost::Is(self.node.fingerprint());
        Peer { name: "peer".to_owned(), addresses, expected }
    }

    /// A session with another.
    pub(super) async fn dial(&self, other: &Place) -> Session {
        self.node.connect(&other.peer(), None).await.unwrap()
    }

    /// Ends gracefully; all memory must be given back.
    pub(super) async fn leave(self) {
        let report = self.node.close(Duration::from_secs(30)).await;
        assert_eq!(report.cut, 0);
        assert_eq!(self.node.budget().committed(), (0, 0), "memory is not given back");
    }
}

/// A pipe that the side of `session` writes, and `to` reads.
pub(super) async fn pipe(session: &Session, to: &Place) -> (PipeWriter, PipeReader) {
    let target = OpenTarget::Name("simulated/pipe".parse().unwrap());
    let writer = session.open_writer(target, OpenOptions::default()).await.unwrap();
    let reader = to.node.next_open().await.unwrap().accept().unwrap().reader.unwrap();
    (writer, reader)
}

/// A pipe that the side of `session` reads, and `from` writes.
pub(super) async fn pipe_back(session: &Session, from: &Place) -> (PipeWriter, PipeReader) {
    let target = OpenTarget::Name("simulated/pipe".parse().unwrap());
    let reader = session.open_reader(target, OpenOptions::default()).await.unwrap();
    let writer = from.node.next_open().await.unwrap().accept().unwrap().writer.unwrap();
    (writer, reader)
}

/// A pipe that is as busy as it can be, until it is told to stop.
pub(super) struct Flow {
    writing: JoinHandle<u64>,
    reading: JoinHandle<u64>,
    is_over: Arc<Mutex<bool>>,
    arrivals: Arc<Mutex<Vec<(Instant, u64)>>>,
}

/// What a flow's writer gives in one go, in bytes.
const WRITE_BYTES: usize = 16 * 1024;

impl Flow {
    pub(super) fn start((mut writer, mut reader): (PipeWriter, PipeReader)) -> Flow {
        let is_over = Arc::new(Mutex::new(false));
        let arrivals = Arc::new(Mutex::new(Vec::new()));
        let (stop, seen) = (is_over.clone(), arrivals.clone());
        let writing = tokio::spawn(async move {
            while !*stop.lock().unwrap() {
                let content = bytes(1, writer.written(), WRITE_BYTES);
                writer.write_all(&content).await.unwrap();
            }
            writer.finish().await.unwrap();
            writer.written()
        });
        let reading = tokio::spawn(async move {
            let mut buffer = vec![0; 64 * 1024];
            let mut offset = 0;
            loop {
                let got = reader.read(&mut buffer).await.unwrap();
                if got == 0 {
                    return offset;
                }
                for (i, found) in buffer[..got].iter().enumerate() {
                    assert_eq!(*found, byte(1, offset + i as u64), "at {offset} + {i}");
                }
                offset += got as u64;
                seen.lock().unwrap().push((Instant::now(), offset));
            }
        });
        Flow { writing, reading, is_over, arrivals }
    }

    /// When the first byte arrived after `since`, and how long after.
    pub(super) fn first_after(&self, since: Instant) -> Option<Duration> {
        let arrivals = self.arrivals.lock().unwrap();
        arrivals.iter().find(|(at, _)| *at > since).map(|(at, _)| *at - since)
    }

    /// Bytes that had arrived by then.
    pub(super) fn total_at(&self, until: Instant) -> u64 {
        let arrivals = self.arrivals.lock().unwrap();
        arrivals.iter().rev().find(|(at, _)| *at <= until).map_or(0, |(_, total)| *total)
    }

    /// The longest time without a byte from `since` on.
    pub(super) fn longest_gap(&self, since: Instant) -> Duration {
        let arrivals = self.arrivals.lock().unwrap();
        let times: Vec<Instant> =
            arrivals.iter().map(|(at, _)| *at).filter(|at| *at >= since).collect();
        times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    }

    /// Ends it; all that was written must have come.
    pub(super) async fn stop(self) -> u64 {
        *self.is_over.lock().unwrap() = true;
        let (written, read) = (self.writing.await.unwrap(), self.reading.await.unwrap());
        assert_eq!(written, read);
        read
    }
}

/// Lets time pass.
pub(super) async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}

pub(super) const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

pub(super) const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}
