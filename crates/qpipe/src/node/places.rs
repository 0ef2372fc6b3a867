//! Places of sessions: how many there may be, and each peer's host's one share of the memory.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use qpipe_proto::budget::Account;
use qpipe_proto::limits::{SESSIONS_MAX, SESSIONS_PER_PEER_MAX};
use qpipe_proto::{Budget, Fingerprint};

/// Hosts that have places, with as many as they have.
type Hosts = HashMap<Fingerprint, (Account, usize)>;

/// The places of a node. Clones are the same.
#[derive(Clone)]
pub(super) struct Places {
    pub(super) budget: Budget,
    hosts: Arc<Mutex<Hosts>>,
}

/// The place of one session, from before its Hello is answered until it is over.
pub(crate) struct Place {
    /// What the peer's host holds of the node's memory budget, over all of its sessions.
    pub(crate) account: Account,
    host: Fingerprint,
    hosts: Arc<Mutex<Hosts>>,
}

impl Places {
    pub(super) fn new(budget: Budget) -> Places {
        Places { budget, hosts: Arc::default() }
    }

    /// A place for a session that a peer of this host asks for, if there is one.
    pub(super) fn ask(&self, host: Fingerprint) -> Option<Place> {
        let hosts = lock(&self.hosts);
        let of_host = hosts.get(&host).map_or(0, |(_, count)| *count);
        let in_all: usize = hosts.values().map(|(_, count)| count).sum();
        let is_free = in_all < SESSIONS_MAX && of_host < SESSIONS_PER_PEER_MAX;
        is_free.then(|| self.give(hosts, host))
    }

    /// A place for a session that this node asks for.
    pub(super) fn take(&self, host: Fingerprint) -> Place {
        self.give(lock(&self.hosts), host)
    }

    fn give(&self, mut hosts: MutexGuard<'_, Hosts>, host: Fingerprint) -> Place {
        let (account, count) = hosts.entry(host).or_insert_with(|| (self.budget.account(), 0));
        *count += 1;
        Place { account: account.clone(), host, hosts: self.hosts.clone() }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Entry::Occupied(mut of_host) = lock(&self.hosts).entry(self.host) {
            of_host.get_mut().1 -= 1;
            if of_host.get().1 == 0 {
                of_host.remove();
            }
        }
    }
}

fn lock(hosts: &Mutex<Hosts>) -> MutexGuard<'_, Hosts> {
    hosts.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places() -> Places {
        Places::new(Budget::new(1 << 20))
    }

    fn host(number: u8) -> Fingerprint {
        Fingerprint::from_bytes([number; 32])
    }

    #[test]
    fn places_of_one_host_run_out_and_are_free_again() {
        // Given: a host that has all places that one may have.
        let (places, host_1) = (places(), host(1));
        let mut taken: Vec<_> =
            (0..SESSIONS_PER_PEER_MAX).map_while(|_| places.ask(host_1)).collect();
        assert_eq!(taken.len(), SESSIONS_PER_PEER_MAX);

        // Then: it gets no other, while another host does, until one is free.
        assert!(places.ask(host_1).is_none());
        assert!(places.ask(host(2)).is_some());
        taken.pop();
        assert!(places.ask(host_1).is_some());
    }

    #[test]
    fn all_places_run_out() {
        // Given: hosts that have as many places as there are.
        let places = places();
        let of = |i: usize| host((i / SESSIONS_PER_PEER_MAX) as u8);
        let taken: Vec<_> = (0..SESSIONS_MAX).map_while(|i| places.ask(of(i))).collect();
        assert_eq!(taken.len(), SESSIONS_MAX);

        // Then: whom this node dials itself finds one, and nobody else.
        assert!(places.ask(host(200)).is_none());
        drop(places.take(host(200)));
    }

    #[test]
    fn sessions_of_one_host_share_one_account_that_goes_with_the_last() {
        // Given: two places of one host, neither of which has led to a session yet, and another host.
        let places = places();
        let (one, other) = (places.ask(host(1)).unwrap(), places.take(host(1)));
        let elsewhere = places.take(host(2));

        // When: all that one host may have, half of seven eighths, is reserved through the one.
        let share = one.account.reserve((1 << 20) * 7 / 16).unwrap();

        // Then: the other has nothing left.
        assert!(other.account.reserve(1).is_none());
        assert!(elsewhere.account.reserve(1).is_some());
        drop((share, one, other, elsewhere));
        assert!(lock(&places.hosts).is_empty());
    }
}
