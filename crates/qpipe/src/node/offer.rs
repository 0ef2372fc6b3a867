//! Offers: ends of anonymous pipes that wait for the holder of a ticket.

use std::io;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use qpipe_proto::ticket::{End, SecretHash};
use qpipe_proto::{Cause, Secret};
use tokio::sync::oneshot;

use super::{Core, Ends};
use crate::clock;
use crate::session::IncomingOpen;

/// An end of an anonymous pipe that waits for the holder of its secret. Dropping it withdraws it.
#[derive(Debug)]
pub struct Offer {
    secret: Secret,
    taken: oneshot::Receiver<Ends>,
    _withdraw: Withdraw,
}

/// An offer as the node keeps it: by the secret's hash.
#[derive(Debug)]
pub(super) struct Pending {
    grants: End,
    expires: Option<Instant>,
    taken: oneshot::Sender<Ends>,
}

#[derive(Debug)]
struct Withdraw {
    core: Weak<Core>,
    hash: SecretHash,
}

/// Makes an offer.
pub(super) fn make(core: &Arc<Core>, grants: End, expires: Option<Duration>) -> io::Result<Offer> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    let secret = Secret::from_bytes(bytes);
    let hash = secret.hash();
    let (taken, receiver) = oneshot::channel();
    let expires = expires.map(|after| clock::now() + after);
    core.offers().insert(hash, Pending { grants, expires, taken });
    let _withdraw = Withdraw { core: Arc::downgrade(core), hash };
    Ok(Offer { secret, taken: receiver, _withdraw })
}

impl Offer {
    /// The secret, which belongs into a ticket and nowhere else.
    pub fn secret(&self) -> &Secret {
        &self.secret
    }

    /// Waits until somebody opens the other end; `None` if the node was closed before.
    ///
    /// # Cancel safety
    /// Cancel safe: an end that was opened is given at the next call.
    pub async fn taken(&mut self) -> Option<Ends> {
        (&mut self.taken).await.ok()
    }
}

impl Core {
    /// Whether an offer with this secret waits.
    pub(super) fn has_offer(&self, secret: &Secret) -> bool {
        self.offers().get(&secret.hash()).is_some_and(Pending::is_valid)
    }

    /// Answers an open that presents a ticket: one refusal for unknown, used and expired.
    pub(super) fn take_offer(&self, hash: &SecretHash, open: IncomingOpen) {
        let shape = open.shape();
        let pending = {
            let mut offers = self.offers();
            match offers.get(hash) {
                Some(pending) if pending.is_valid() && pending.fits(shape) => offers.remove(hash),
                _ => None,
            }
        };
        let Some(pending) = pending else { return open.refuse(Cause::Ticket) };
        let Ok(ends) = open.accept() else {
            // Refused for want of memory: the ticket was not used.
            if !pending.taken.is_closed() {
                self.offers().insert(*hash, pending);
            }
            return;
        };
        ends.writer.iter().for_each(|end| end.join());
        ends.reader.iter().for_each(|end| end.join());
        // Nobody waits any more: the ends are dropped, which tells the peer.
        let _ = pending.taken.send(ends);
    }
}

impl Pending {
    fn is_valid(&self) -> bool {
        self.expires.is_none_or(|at| clock::now() < at)
    }

    fn fits(&self, shape: (usize, usize)) -> bool {
        shape
            == match self.grants {
                End::Duplex => (1, 1),
                End::Read => (0, 1),
                End::Write => (1, 0),
            }
    }
}

impl Drop for Withdraw {
    fn drop(&mut self) {
        if let Some(core) = self.core.upgrade() {
            core.offers().remove(&self.hash);
        }
    }
}
