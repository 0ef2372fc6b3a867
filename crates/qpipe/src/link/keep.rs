//! Keeps a session in contact with its peer: one task a session.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use qpipe_proto::contact::{ContactAction, GiveUp, REPLACE_AFTER};
use tokio::task::JoinHandle;

use super::inquiry::Inquiry;
use super::pulse::{Pulse, kick, pulse};
use super::{Link, Notice, State, codes};
use crate::clock;
use crate::session::SessionEnd;

/// How often a connection is looked at on which something is in flight, or was a moment ago.
const BUSY_LOOK: Duration = Duration::from_millis(50);

/// The same where nothing happens.
const IDLE_LOOK: Duration = Duration::from_millis(500);

/// While bytes wait and nothing is acknowledged, something is sent this often: at most every 200 ms
/// and at most ten times a second, whatever QUIC's own timer has backed off to.
const KICK_EVERY: Duration = Duration::from_millis(120);

/// Where nothing waits, that goes on for so long, and then at the second pace.
const KICK_IDLE_AFTER: Duration = Duration::from_secs(2);
const KICK_IDLE_EVERY: Duration = Duration::from_secs(1);

/// A side that only receives sends a probe of this size, in bytes: a server that finds the peer at a
/// new address may send three times as much there before the address is proven (RFC 9000, section 8).
pub(super) const PROBE_BYTES: usize = 1200;

/// Longer than the peer's kicks are apart: what arrives after it says that the way is open again.
const SILENCE: Duration = Duration::from_millis(300);

/// So many frames between two looks are a flow; one that stops for so long is asked about.
const FLOW_FRAMES: u64 = 4;
const FLOW_PAUSE: Duration = Duration::from_millis(75);

/// What the keeper saw of the adopted connection when it last looked.
struct Look {
    epoch: u64,
    remote: Option<SocketAddr>,
    pulse: Pulse,
    received_at: Instant,
    acked_at: Instant,
    /// When something was last sent that asks for an acknowledgement.
    asked_at: Instant,
    /// Whether something of a stream may still be unacknowledged: an acknowledgement of something else
    /// does not end that, only one that leaves nothing in flight.
    is_owed: bool,
    kicked_at: Instant,
    /// Much has arrived, and nobody has asked yet whether more would.
    is_flowing: bool,
}

/// Runs until the session is over.
pub(super) async fn keep(link: Arc<Link>) {
    let mut look = Look::new(clock::now());
    let mut dial: Option<JoinHandle<()>> = None;
    let mut inquiry: Option<Inquiry> = None;
    loop {
        let now = clock::now();
        // Before the connection sends something: the host answers one of the two.
        let is_kick_due = now >= look.kicked_at + KICK_EVERY;
        let ask_at = inquiry.as_mut().map(|inquiry| inquiry.ask(now, is_kick_due));
        let Some(round) = round(&link, &mut look, now) else { break };
        for action in round.actions {
            act(&link, action, &mut dial);
        }
        if let Some(running) = dial.take_if(|_| !round.is_dialling) {
            running.abort();
        }
        match round.silent_at {
            None => inquiry = None,
            Some(address) if inquiry.is_none() => {
                inquiry = Inquiry::new(&link, address, now).ok();
            }
            Some(_) => {}
        }
        let changed = link.keep.notified();
        let next = ask_at.map_or(round.next, |at| at.min(round.next));
        let _ = tokio::time::timeout_at(next.into(), changed).await;
    }
    dial.into_iter().for_each(|task| task.abort());
}

/// What one look comes to.
struct Round {
    actions: Vec<ContactAction>,
    is_dialling: bool,
    /// Where a peer that is silent was, if its host's word on its process counts.
    silent_at: Option<SocketAddr>,
    next: Instant,
}

fn round(link: &Arc<Link>, look: &mut Look, now: Instant) -> Option<Round> {
    let mut state = link.lock();
    if state.ended.is_some() && state.wire.is_none() {
        return None;
    }
    let next_look = look.at(&mut state, now);
    let is_wanted = state.is_in_use() || link.is_awaited && !state.session.is_closing();
    let actions: Vec<_> = std::iter::from_fn(|| state.contact.poll(is_wanted, now)).collect();
    if !state.session.is_connected() {
        state.session.handle_timeout(now);
    }
    let session_timeout = state.session.poll_timeout().filter(|_| state.wire.is_none());
    let timeouts = [state.contact.poll_timeout(is_wanted), session_timeout, next_look];
    let next = timeouts.into_iter().flatten().min().unwrap_or(now + REPLACE_AFTER);
    let is_silent = now >= state.contact.last_heard() + link.patience.heartbeat;
    let silent_at = look.remote.filter(|remote| {
        // An address translator in between may answer for a process that it does not know.
        is_silent && (link.dialled == Some(*remote) || state.told_addresses.contains(remote))
    });
    let is_dialling = state.contact.is_dialling();
    Some(Round { actions, is_dialling, silent_at, next: next.max(now) })
}

fn act(link: &Arc<Link>, action: ContactAction, dial: &mut Option<JoinHandle<()>>) {
    match action {
        ContactAction::Dial => match link.host.upgrade() {
            Some(host) => {
                if let Some(before) = dial.replace(host.redial(link.clone())) {
                    before.abort();
                }
            }
            None => link.end_with(SessionEnd::Lost("its node is gone".to_owned()), codes::GONE),
        },
        ContactAction::GiveUp(why) => {
            let end = match why {
                GiveUp::Idle => SessionEnd::Idle,
                GiveUp::Refused => SessionEnd::Refused,
                GiveUp::Silence => SessionEnd::Silent { silent: link.patience.give_up },
            };
            link.end_with(end, codes::GONE);
        }
        ContactAction::Notice { silent, left } => link.notice(Notice::Silent { silent, left }),
        ContactAction::Back { after } => link.notice(Notice::Back { after }),
    }
}

impl Look {
    fn new(now: Instant) -> Look {
        Look {
            epoch: 0,
            remote: None,
            pulse: Pulse::default(),
            received_at: now,
            acked_at: now,
            asked_at: now,
            is_owed: false,
            kicked_at: now,
            is_flowing: false,
        }
    }

    /// Looks at the adopted connection; returns when to look again.
    fn at(&mut self, state: &mut State, now: Instant) -> Option<Instant> {
        let wire = state.wire.clone()?;
        let conn = &wire.conn;
        if self.epoch != wire.epoch {
            *self = Look { epoch: wire.epoch, ..Look::new(now) };
        }
        let remote = conn.remote_address();
        let is_old_news = std::mem::take(&mut state.has_moved);
        let has_moved = self.remote.replace(remote).is_some_and(|before| before != remote);
        let pulse = pulse(conn)?;
        let before = std::mem::replace(&mut self.pulse, pulse);
        let mut silence = Duration::ZERO;
        if pulse.received != before.received {
            silence = now - std::mem::replace(&mut self.received_at, now);
            self.is_flowing |= pulse.received - before.received >= FLOW_FRAMES;
            if !is_old_news {
                state.contact.heard(now);
            }
        }
        if pulse.asked != before.asked {
            self.asked_at = now;
        }
        if pulse.acks != before.acks {
            self.acked_at = now;
            self.is_owed &= pulse.in_flight > 0;
        }
        self.is_owed |= pulse.streamed != before.streamed;
        let is_unanswered = pulse.in_flight > 0 || self.asked_at > self.acked_at;
        // What was acknowledged before an outage and is heard of after it passes for a round trip of
        // the outage's length. One kick too many is one packet.
        let rtt = conn.rtt().min(4 * pulse.min_rtt);
        let patience = KICK_EVERY.max(rtt + rtt / 4 + BUSY_LOOK / 2);
        // What was sent to another address, or into a silence, is lost, and only the answer to something
        // younger shows it: an acknowledgement that was held up speaks of what came before.
        if has_moved || is_unanswered && silence >= patience.max(SILENCE) {
            self.kick(conn, 0, now);
        } else if is_unanswered && now >= self.acked_at + patience {
            self.urge(state, conn, now);
        } else if self.is_flowing && now >= self.received_at + FLOW_PAUSE {
            // The peer has paused, or this side cannot be reached any more where it was.
            self.kick(conn, PROBE_BYTES, now);
        }
        let is_busy = is_unanswered || self.is_flowing;
        let kick_at = Some(self.kicked_at + KICK_EVERY).filter(|at| is_busy && *at > now);
        let look_at = now + if is_busy { BUSY_LOOK } else { IDLE_LOOK };
        Some(kick_at.map_or(look_at, |at| at.min(look_at)))
    }

    /// Nothing was acknowledged for a while of what asks for it.
    fn urge(&mut self, state: &State, conn: &quinn::Connection, now: Instant) {
        if now < self.kicked_at + KICK_EVERY {
            return;
        }
        let is_waiting = self.is_owed || state.session.is_waiting();
        let is_fresh = now < self.acked_at + KICK_IDLE_AFTER;
        if is_waiting || is_fresh || now >= self.kicked_at + KICK_IDLE_EVERY {
            self.kick(conn, if is_waiting { 0 } else { PROBE_BYTES }, now);
        }
    }

    fn kick(&mut self, conn: &quinn::Connection, padding: usize, now: Instant) {
        self.kicked_at = now;
        self.is_flowing = false;
        kick(conn, padding);
    }
}
