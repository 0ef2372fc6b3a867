//! Whether the peer of a session can be heard, and what to do when it cannot: look for another way,
//! tell the user, give up.
//!
//! Three times, named for what they do, and independent of each other ([`Patience`]). Detecting that
//! nothing arrives is never giving up: what waits is bounded by the pipes' windows, so waiting is
//! cheap.
//!
//! ```text
//!              silence ≥ heartbeat, network changed, connection lost
//!     Resting ─────────────────────────────────────────────────────► Dialling
//!        ▲  ▲                something arrived on the older one          │ TLS is complete
//!        │  └───────────────────────────────────────────────────────────┤
//!        │                                                               ▼
//!        └──────────── the answer to Hello: it is adopted ◄────────── Greeting
//! ```
//!
//! From Greeting there is no way back to the older connection: the peer may have adopted the new one.

use std::time::{Duration, Instant};

use crate::id::Side;

/// How long to wait for a peer that is not heard before doing what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Without a sign of life for so long, another way to the peer is tried.
    pub heartbeat: Duration,
    /// The user is told.
    pub notice: Duration,
    /// The session is given up, and its pipes with it.
    pub give_up: Duration,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience {
            heartbeat: Duration::from_secs(3),
            notice: Duration::from_secs(15),
            give_up: Duration::from_secs(600),
        }
    }
}

/// A connection is not replaced sooner than this, or four round trips, after it was adopted.
pub const REPLACE_AFTER: Duration = Duration::from_secs(3);

/// A session without unsettled pipes is kept so long without a sign of life.
pub const IDLE_KEPT: Duration = Duration::from_secs(60);

/// The pause between two dials: the first one's, and the most that doubling makes of it.
const BACKOFF: Duration = Duration::from_millis(250);
const BACKOFF_MAX: Duration = Duration::from_secs(4);

/// So many refusals, over so long, by a host that says that nothing listens there (ICMP port
/// unreachable) mean that the peer's process is gone. A node that restarts is back sooner.
const REFUSALS: u32 = 2;
const REFUSED_FOR: Duration = Duration::from_secs(3);

/// What the owner of a session is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContactAction {
    /// The peer is heard again after so long: tell the user, who was told of the silence.
    Back {
        /// How long it was silent.
        after: Duration,
    },
    /// Dial another connection, to answer with [`Contact::dialled`] or [`Contact::dial_failed`].
    Dial,
    /// End the session.
    GiveUp(GiveUp),
    /// Tell the user that the peer is not heard.
    Notice {
        /// For how long.
        silent: Duration,
        /// How much longer it is waited for.
        left: Duration,
    },
}

/// Why a session is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GiveUp {
    /// It has no pipes, and was kept long enough.
    Idle,
    /// The peer's host says that its process is gone.
    Refused,
    /// Nothing was heard for [`Patience::give_up`].
    Silence,
}

/// The state of one session's contact with its peer.
#[derive(Debug)]
pub struct Contact {
    side: Side,
    patience: Patience,
    /// The highest epoch that was adopted, or that this side said Hello with.
    highest: u64,
    /// When something last arrived on the adopted connection.
    heard: Instant,
    /// The adopted connection, if there is one.
    adopted: Option<Adopted>,
    /// When the last adopted connection was lost.
    lost: Instant,
    dial: Dial,
    /// The peer may have adopted a connection that this side has not heard an answer on.
    is_bound: bool,
    /// The network changed since the adopted connection was last heard.
    is_moved: bool,
    failures: u32,
    refused: Option<(Instant, u32)>,
    /// Since when the silence lasts that the user was told of.
    noticed: Option<Instant>,
    is_over: bool,
}

#[derive(Clone, Copy, Debug)]
struct Adopted {
    at: Instant,
    rtt: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dial {
    Greeting,
    Resting { until: Instant },
    Running { since: Instant },
}

impl Contact {
    /// The contact of a session whose connection `epoch` has just been adopted. `side` is this side
    /// in the session.
    pub fn new(side: Side, patience: Patience, epoch: u64, rtt: Duration, now: Instant) -> Contact {
        Contact {
            side,
            patience,
            highest: epoch,
            heard: now,
            adopted: Some(Adopted { at: now, rtt }),
            lost: now,
            dial: Dial::Resting { until: now },
            is_bound: false,
            is_moved: false,
            failures: 0,
            refused: None,
            noticed: None,
            is_over: false,
        }
    }

    /// The epoch of the first connection of a session.
    pub const FIRST_EPOCH: u64 = next_epoch(0, Side::Dialler);

    /// The highest epoch that was adopted or greeted with: what a Hello has to exceed.
    pub fn highest(&self) -> u64 {
        self.highest
    }

    /// Something arrived on the adopted connection.
    pub fn heard(&mut self, now: Instant) {
        self.heard = self.heard.max(now);
        self.is_moved = false;
        self.refused = None;
        if self.adopted.is_some_and(|adopted| now >= adopted.at + REPLACE_AFTER) {
            self.failures = 0;
        }
    }

    /// When something was last heard.
    pub fn last_heard(&self) -> Instant {
        self.heard
    }

    /// The adopted connection is gone.
    pub fn lost(&mut self, now: Instant) {
        if self.adopted.take().is_some() {
            self.lost = now;
        }
    }

    /// The connection `epoch` is adopted, whoever dialled it.
    pub fn adopted(&mut self, epoch: u64, rtt: Duration, now: Instant) {
        self.highest = self.highest.max(epoch);
        self.adopted = Some(Adopted { at: now, rtt });
        self.heard = now;
        self.refused = None;
        self.is_bound = false;
        self.is_moved = false;
        self.dial = Dial::Resting { until: now };
    }

    /// This host's addresses or routes changed: what was heard before proves nothing.
    pub fn network_changed(&mut self, now: Instant) {
        self.is_moved = true;
        self.failures = 0;
        if let Dial::Resting { until } = &mut self.dial {
            *until = now;
        }
    }

    /// Whether a dial that [`ContactAction::Dial`] asked for is still wanted.
    pub fn is_dialling(&self) -> bool {
        !matches!(self.dial, Dial::Resting { .. })
    }

    /// The dial has come to a connection whose TLS is complete. Returns the epoch to say Hello with;
    /// `None`: it is to be closed unused, since the older one has been heard meanwhile.
    pub fn dialled(&mut self, now: Instant) -> Option<u64> {
        let Dial::Running { since } = self.dial else { return None };
        if self.adopted.is_some() && self.heard > since && !self.is_bound {
            self.dial = Dial::Resting { until: now + self.patience.heartbeat };
            return None;
        }
        self.dial = Dial::Greeting;
        self.is_bound = true;
        self.highest = next_epoch(self.highest, self.side);
        Some(self.highest)
    }

    /// The peer's host says that nothing listens where the peer's process was. That it says nothing
    /// means nothing: hosts limit how often they say it.
    pub fn refused(&mut self, now: Instant) {
        let (since, times) = self.refused.unwrap_or((now, 0));
        self.refused = Some((since, times + 1));
    }

    /// The dial has failed, or Hello on it was not answered. `jitter` is random, 0 to 1.
    pub fn dial_failed(&mut self, jitter: f64, now: Instant) {
        if !self.is_dialling() {
            return;
        }
        let doubled = BACKOFF.saturating_mul(1 << self.failures.min(8)).min(BACKOFF_MAX);
        self.failures += 1;
        self.dial =
            Dial::Resting { until: now + doubled.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0) };
    }

    /// What is to be done at `now`; call it until it gives nothing. `is_wanted`: the session has
    /// pipes that are not settled, or somebody waits to open one.
    pub fn poll(&mut self, is_wanted: bool, now: Instant) -> Option<ContactAction> {
        if self.is_over {
            return None;
        }
        let silent = now.saturating_duration_since(self.heard);
        if let Some(why) = self.end(is_wanted, silent, now) {
            self.is_over = true;
            return Some(ContactAction::GiveUp(why));
        }
        if let Some(since) = self.noticed
            && self.heard > since
        {
            self.noticed = None;
            return Some(ContactAction::Back { after: self.heard - since });
        }
        if self.noticed.is_none() && is_wanted && silent >= self.patience.notice {
            self.noticed = Some(self.heard);
            let left = self.patience.give_up.saturating_sub(silent);
            return Some(ContactAction::Notice { silent, left });
        }
        if self.may_dial(is_wanted) && self.dial_at().is_some_and(|at| at <= now) {
            self.dial = Dial::Running { since: now };
            return Some(ContactAction::Dial);
        }
        None
    }

    /// When [`Contact::poll`] wants to be called, if nothing happens before.
    pub fn poll_timeout(&self, is_wanted: bool) -> Option<Instant> {
        if self.is_over {
            return None;
        }
        if !is_wanted {
            let dial = self.dial_at().filter(|_| self.may_dial(is_wanted));
            return [Some(self.heard + IDLE_KEPT), dial].into_iter().flatten().min();
        }
        let notice = self.noticed.is_none().then(|| self.heard + self.patience.notice);
        let refused = self.refused.filter(|(_, times)| *times >= REFUSALS);
        let refused = refused
            .map(|(since, _)| (since + REFUSED_FOR).max(self.heard + self.patience.heartbeat));
        let give_up = Some(self.heard + self.patience.give_up);
        [notice, refused, give_up, self.dial_at()].into_iter().flatten().min()
    }

    /// Whether another connection is worth a dial. The peer may have a pipe of which this side has
    /// heard everything, and may know no way to a side that dialled.
    fn may_dial(&self, is_wanted: bool) -> bool {
        is_wanted || self.side == Side::Dialler && self.adopted.is_none()
    }

    /// Why the session is to end now, if it is.
    fn end(&self, is_wanted: bool, silent: Duration, now: Instant) -> Option<GiveUp> {
        if !is_wanted {
            return (silent >= IDLE_KEPT).then_some(GiveUp::Idle);
        }
        if silent >= self.patience.give_up {
            return Some(GiveUp::Silence);
        }
        let (since, times) = self.refused?;
        let is_refused = times >= REFUSALS && now.saturating_duration_since(since) >= REFUSED_FOR;
        (is_refused && silent >= self.patience.heartbeat).then_some(GiveUp::Refused)
    }

    /// When the next dial is due, if none runs.
    fn dial_at(&self) -> Option<Instant> {
        let Dial::Resting { until } = self.dial else { return None };
        if self.is_bound {
            return Some(until);
        }
        let due = match self.adopted {
            Some(Adopted { at, rtt }) => {
                let earliest = at + REPLACE_AFTER.max(4 * rtt);
                if self.is_moved {
                    earliest
                } else {
                    earliest.max(self.heard + self.patience.heartbeat)
                }
            }
            None if self.is_moved || self.side == Side::Dialler => self.lost,
            // The first dialler is the one that is known to find a way, and two dials would cross.
            None => self.lost + self.patience.heartbeat,
        };
        Some(due.max(until))
    }
}

/// The epoch of a connection that `side` of the session dials, when `highest` is the highest that it
/// has seen. Of two that are dialled at once, that of the first dialler is higher.
const fn next_epoch(highest: u64, side: Side) -> u64 {
    let is_first_dialler = matches!(side, Side::Dialler);
    ((highest >> 1) + 1) << 1 | is_first_dialler as u64
}

#[cfg(test)]
mod tests;
