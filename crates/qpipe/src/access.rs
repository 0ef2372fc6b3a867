//! Who may talk to a node at all.

use std::net::SocketAddr;

use qpipe_proto::hello::Enrolled;
use qpipe_proto::{Cause, Secret};

use crate::identity::PeerIdentity;

/// Judges peers at their Hello. What a known peer may open is judged at each open, by whoever takes
/// [`crate::IncomingOpen`]s; tickets of the node's own offers need no rule.
pub trait Access: Send + Sync + 'static {
    /// Whether some rule lists the peer.
    fn knows(&self, peer: &PeerIdentity) -> bool;

    /// A peer at `from` presents a secret that belongs to none of the node's offers. `Ok(Some)`: it
    /// was an invitation, and the peer is known from now on. `Ok(None)`: no such ticket.
    ///
    /// # Errors
    /// A cause other than that the ticket is unknown, used or expired.
    ///
    /// Unless implemented: there are no invitations.
    fn redeem(
        &self,
        secret: &Secret,
        peer: &PeerIdentity,
        from: SocketAddr,
    ) -> Result<Option<Enrolled>, Cause> {
        let _ = (secret, peer, from);
        Ok(None)
    }
}

/// Nobody may talk to the node, except with a ticket of one of its offers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Nobody;

impl Access for Nobody {
    fn knows(&self, _: &PeerIdentity) -> bool {
        false
    }
}
