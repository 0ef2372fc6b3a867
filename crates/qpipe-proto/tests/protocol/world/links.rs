//! Connections: dialled, adopted, lost, replaced; and nodes that end before their pipes do.

use std::collections::VecDeque;

use bytes::Bytes;
use qpipe_proto::PipeId;
use qpipe_proto::cause::Cause;
use qpipe_proto::hello::Limits;

use super::World;
use super::network::Stream;

/// One connection.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) epoch: u64,
    /// The node that dialled it.
    dialler: usize,
    /// What each node said and the other did not hear.
    pub(super) control: [VecDeque<Parcel>; 2],
    pub(super) streams: Vec<Stream>,
    /// Nothing passes any more.
    pub(crate) is_dead: bool,
}

/// Something on a control stream.
#[derive(Clone, Debug)]
pub(super) enum Parcel {
    Hello(Limits),
    Message(Bytes),
}

impl Link {
    pub(super) fn new(epoch: u64, dialler: usize) -> Link {
        let (control, streams) = (Default::default(), Vec::new());
        Link { epoch, dialler, control, streams, is_dead: false }
    }

    pub(crate) fn has_control(&self, node: usize) -> bool {
        !self.control[node].is_empty()
    }

    /// On how many of the pipe's streams there is something.
    pub(crate) fn carries(&self, id: PipeId) -> usize {
        let ready = |stream: &&Stream| stream.id == id && stream.has_items();
        if self.is_dead { 0 } else { self.streams.iter().filter(ready).count() }
    }

    /// Whether anything can still come of it.
    pub(crate) fn is_of_use(&self) -> bool {
        !self.is_dead || self.streams.iter().any(Stream::has_items)
    }

    /// The oldest message that `node` said will be heard twice, unless it is a Hello.
    pub(crate) fn echo(&mut self, node: usize) {
        if let Some(Parcel::Message(bytes)) = self.control[node].front() {
            let again = Parcel::Message(bytes.clone());
            self.control[node].push_front(again);
        }
    }
}

impl World {
    /// The node says Hello on another connection, unless a Hello of its own is still under way.
    pub(crate) fn dial(&mut self, node: usize) -> bool {
        if !self.may_dial(node) {
            return false;
        }
        let highest = self.nodes[node].highest;
        let epoch = (highest / 2 + 1) * 2 + u64::from(node == 0);
        self.nodes[node].highest = epoch;
        let mut link = Link::new(epoch, node);
        link.control[node].push_back(Parcel::Hello(self.nodes[node].session.limits()));
        self.links.push(link);
        true
    }

    pub(crate) fn may_dial(&self, node: usize) -> bool {
        !self.is_ended() && !self.is_greeting(node)
    }

    /// Whether a Hello of the node's is unanswered on a connection that lives.
    pub(crate) fn is_greeting(&self, node: usize) -> bool {
        let adopted = self.nodes[node].session.epoch();
        self.links.iter().any(|link| !link.is_dead && link.dialler == node && link.epoch > adopted)
    }

    /// A Hello that `from` said arrives.
    pub(super) fn greet(&mut self, link: usize, from: usize, limits: Limits) {
        let (epoch, node) = (self.links[link].epoch, 1 - from);
        let is_answer = self.links[link].dialler == node;
        let newest = if is_answer {
            self.nodes[node].session.epoch() + 1
        } else {
            self.nodes[node].highest + 1
        };
        if epoch < newest {
            // A newer one replaced it already.
            return self.lose_link(link);
        }
        let side = &mut self.nodes[node];
        side.highest = side.highest.max(epoch);
        let answer = side.session.limits();
        side.session.connected(epoch, limits, self.now);
        assert!(side.session.epoch() == epoch && side.session.is_connected());
        if !is_answer {
            self.links[link].control[node].push_back(Parcel::Hello(answer));
        }
        self.look(node);
    }

    /// The connection is lost with all that is under way on it.
    pub(crate) fn lose_link(&mut self, link: usize) {
        let link = &mut self.links[link];
        link.is_dead = true;
        link.control.iter_mut().for_each(VecDeque::clear);
        link.streams.iter_mut().for_each(Stream::lose);
    }

    /// The node learns which of its connections are dead.
    pub(crate) fn notice(&mut self, node: usize) {
        if self.nodes[node].is_crashed {
            return;
        }
        for link in 0..self.links.len() {
            if self.links[link].is_dead {
                let ids: Vec<PipeId> =
                    self.links[link].streams.iter().map(|stream| stream.id).collect();
                ids.iter().for_each(|id| while self.deliver_on(link, *id, node) {});
            }
        }
        let session = &mut self.nodes[node].session;
        let adopted = self.links.iter().find(|link| link.epoch == session.epoch());
        if adopted.is_some_and(|link| link.is_dead) {
            session.disconnected();
            self.look(node);
        }
    }

    /// Connections older than what both have adopted are closed, or all if a session is over.
    pub(crate) fn close_older(&mut self) {
        let adopted = self.nodes.each_ref().map(|node| node.session.epoch());
        let upto = adopted[0].min(adopted[1]);
        for link in 0..self.links.len() {
            if self.links[link].epoch < upto || self.is_ended() {
                self.lose_link(link);
            }
        }
    }

    /// Whether a Hello is under way on a connection that lives.
    pub(super) fn is_answered(&self) -> bool {
        let hellos = self.links.iter().flat_map(|link| link.control.iter().flatten());
        hellos.into_iter().any(|parcel| matches!(parcel, Parcel::Hello(_)))
    }

    /// Whether both talk on one connection.
    pub(crate) fn is_connected(&self) -> bool {
        let sessions = self.nodes.each_ref().map(|node| &node.session);
        let epoch = sessions[0].epoch();
        sessions.iter().all(|session| session.is_connected() && session.epoch() == epoch)
            && self.links.iter().any(|link| link.epoch == epoch && !link.is_dead)
    }

    /// Whether a node's session ended before its pipes did.
    pub(crate) fn is_ended(&self) -> bool {
        self.nodes.iter().any(|node| node.is_over || node.is_crashed)
    }

    /// The node gives its session up, or hears that the peer did.
    pub(crate) fn give_up(&mut self, node: usize) {
        let side = &mut self.nodes[node];
        if !side.is_over && !side.is_crashed {
            side.is_over = true;
            side.session.lose(Cause::Lost);
            self.look(node);
            let ids: Vec<PipeId> = self.pipes.keys().copied().collect();
            ids.iter().for_each(|id| self.judge_read(*id));
        }
    }

    /// The node is no more, and nobody there sees anything any more.
    pub(crate) fn crash(&mut self, node: usize) {
        self.nodes[node].is_crashed = true;
        self.nodes[node].offers.clear();
    }

    /// The session is over at both ends, with what was under way.
    pub(crate) fn lose(&mut self) {
        (0..self.links.len()).for_each(|link| self.lose_link(link));
        (0..2).for_each(|node| self.give_up(node));
    }
}
