//! What simulations need of a node beyond what programs do.

use std::sync::Arc;

use quinn::AsyncUdpSocket;

use super::{Endpoints, Node, NodeOptions, sockets};
use crate::access::Access;
use crate::identity::{Continuity, Identity};
use crate::link::{Link, codes};

impl Node {
    /// Starts a node on a socket that is none of the kernel's, and listens to no change of this host's
    /// network.
    pub(crate) fn start_on(
        identity: Identity,
        options: NodeOptions,
        access: Arc<dyn Access>,
        socket: Arc<dyn AsyncUdpSocket>,
    ) -> Node {
        let server = sockets::server_config(&identity).unwrap();
        let continuity = options.continuity.clone().unwrap_or(Continuity::fresh().unwrap());
        let endpoints = vec![sockets::endpoint_on(&continuity, socket, server.clone()).unwrap()];
        let endpoints = Endpoints { endpoints, server, broken: Arc::default() };
        Node::assemble(identity, options, access, &continuity, endpoints).unwrap()
    }

    /// Gives the node another socket, as after the loss of an address.
    pub(crate) fn rebind_to(&self, socket: Arc<dyn AsyncUdpSocket>) {
        self.core.endpoints[0].rebind_abstract(socket).unwrap();
    }

    /// Tells the node that its host's addresses or routes changed.
    pub(crate) fn network_changed(&self) {
        let links = self.core.links().clone();
        links.iter().for_each(Link::network_changed);
    }

    /// Closes the adopted connections of all sessions with a code that says nothing of these; returns
    /// how many there were.
    pub(crate) fn cut_connections(&self) -> usize {
        let links = self.core.links().clone();
        let wires: Vec<_> = links.iter().filter_map(|link| link.lock().wire.clone()).collect();
        wires.iter().for_each(|wire| wire.conn.close(codes::DONE, b"cut by a test"));
        wires.len()
    }

    /// How many pipes are not settled, over all sessions.
    pub(crate) fn unsettled(&self) -> usize {
        let links = self.core.links().clone();
        links.iter().map(|link| link.lock().session.unsettled()).sum()
    }
}
