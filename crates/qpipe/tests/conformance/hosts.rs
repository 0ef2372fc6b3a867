//! Where the two nodes of a case are: on loopback, or in two network namespaces with whatever link
//! there is between them.
//!
//! | variable | |
//! | --- | --- |
//! | `NETLAB_A`, `NETLAB_A_IP` | the namespace of the node that dials, and its address there |
//! | `NETLAB_B`, `NETLAB_B_IP` | the same of the other |
//! | `QPIPE_TEST_SLOWNESS` | by how much deadlines that are made for loopback are longer |
//! | `QPIPE_LONG` | 1: large transfers as well |
//!
//! `netlab run` sets the first four.

use std::env;
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;

use qpipe::{PipeReader, PipeWriter};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::runtime::{Builder, Handle, Runtime};

use crate::pair::{MEMORY, Pair, Place};

/// A runtime's threads. The programs that use the pipes have their own.
const WORKERS: usize = 2;

/// Two nodes with a session.
pub(crate) struct Hosts {
    runtime: Runtime,
    /// Of the node that was dialled, if that is on another host than the one that dialled.
    other: Option<Runtime>,
    pair: Pair,
}

impl Hosts {
    pub(crate) fn new() -> Hosts {
        let (runtime, address) = host("NETLAB_A").unwrap_or_else(loopback);
        let place = Place { runtime: runtime.handle().clone(), address };
        let (other, other_place) = match host("NETLAB_B") {
            Some((other, address)) => {
                let place = Place { runtime: other.handle().clone(), address };
                (Some(other), place)
            }
            None => (None, place.clone()),
        };
        let pair = runtime.block_on(Pair::between(place, other_place, MEMORY));
        Hosts { runtime, other, pair }
    }

    /// What drives the node that dialled, which opens all pipes.
    pub(crate) fn dialler(&self) -> &Handle {
        self.runtime.handle()
    }

    /// What drives the node that was dialled.
    pub(crate) fn acceptor(&self) -> &Handle {
        self.other.as_ref().unwrap_or(&self.runtime).handle()
    }

    /// A pipe whose writer knows that it may fill the start window, and not only what an open that
    /// is not answered yet may send.
    pub(crate) fn pipe(&self) -> (PipeWriter, PipeReader) {
        self.runtime.block_on(async {
            let (writer, reader) = self.pair.pipe().await;
            writer.accepted().await.unwrap();
            (writer, reader)
        })
    }

    /// A pipe that its reader opened.
    pub(crate) fn pipe_from_reader(&self) -> (PipeWriter, PipeReader) {
        self.runtime.block_on(self.pair.pipe_from_reader())
    }
}

/// A host on loopback.
fn loopback() -> (Runtime, IpAddr) {
    let runtime = Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build();
    (runtime.unwrap(), Ipv4Addr::LOCALHOST.into())
}

/// The host in the network namespace that the environment names so, if it does.
fn host(name: &str) -> Option<(Runtime, IpAddr)> {
    let namespace = env::var(name).ok()?;
    let address = env::var(format!("{name}_IP")).unwrap().parse().unwrap();
    let namespace = File::open(format!("/run/netns/{namespace}")).unwrap();
    // All of a node's sockets are opened by these threads.
    let enter = move || {
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
    };
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(WORKERS).enable_all().on_thread_start(enter);
    Some((builder.build().unwrap(), address))
}

/// By how much deadlines that are made for loopback are longer.
pub(crate) fn slowness() -> u32 {
    env::var(SLOWNESS).map_or(1, |slowness| slowness.parse().unwrap())
}

/// What sets [`slowness`].
pub(crate) const SLOWNESS: &str = "QPIPE_TEST_SLOWNESS";

/// Whether the long option was chosen.
pub(crate) fn has_time() -> bool {
    env::var("QPIPE_LONG").is_ok_and(|long| long == "1")
}
