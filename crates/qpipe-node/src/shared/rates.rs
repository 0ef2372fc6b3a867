//! How many bytes move in a second.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use qpipe::identity::PeerIdentity;
use qpipe::{Node, SessionStatus};

use super::registry::Registry;

/// How often rates are taken: they are bytes in a second.
const INTERVAL: Duration = Duration::from_secs(1);

/// The rates of a node's sessions: one for each that there is.
#[derive(Debug, Default)]
pub(super) struct Rates(Mutex<HashMap<Key, Rate>>);

/// Two nodes have at most one session that each of them began.
type Key = (PeerIdentity, bool);

#[derive(Clone, Copy, Debug, Default)]
struct Rate {
    /// Bytes that its connection has carried.
    counted: u64,
    within_second: u64,
}

impl Rates {
    /// Takes the rates of sessions and of what programs have open, for ever.
    pub(super) async fn take(&self, node: &Node, registry: &Registry) {
        let mut interval = tokio::time::interval(INTERVAL);
        loop {
            interval.tick().await;
            registry.take_rates();
            let sessions = node.sessions();
            let mut rates = self.lock();
            *rates = sessions.iter().map(|now| (key(now), rates_since(&rates, now))).collect();
        }
    }

    /// Bytes that went either way within the last second.
    pub(super) fn of(&self, session: &SessionStatus) -> u64 {
        self.lock().get(&key(session)).map_or(0, |rate| rate.within_second)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Rate>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn rates_since(before: &HashMap<Key, Rate>, now: &SessionStatus) -> Rate {
    let counted = now.connection.map_or(0, |c| c.sent_bytes + c.received_bytes);
    // Another connection begins at nothing.
    let within_second = match before.get(&key(now)) {
        Some(before) => counted.checked_sub(before.counted).unwrap_or(counted),
        None => counted,
    };
    Rate { counted, within_second }
}

fn key(session: &SessionStatus) -> Key {
    (session.peer, session.is_dialler)
}
