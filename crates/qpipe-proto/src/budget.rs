//! A node's memory budget: what windows and buffered writes of all its pipes may take together.
//!
//! Up to half is for floors of [`FLOOR_BYTES`], so that no accepted pipe is ever without. The rest is
//! a pool for growth, of which no pipe gets more than half of what is free, and no peer more than half
//! while there are several. While there are few floors the pool is larger than half: it leaves as much
//! again as they take, and an eighth of the budget at least, to those that may follow. What is taken is
//! given back when its [`Share`] is dropped.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::limits::{FLOOR_BYTES, START_WINDOW_BYTES};
use crate::planted::{self, Planted};

/// A node's memory budget. Clones share it.
#[derive(Clone, Debug)]
pub struct Budget {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    total: u64,
    /// Bytes taken by floors.
    floors: u64,
    /// Bytes taken by growth.
    pool: u64,
    peers: u64,
}

/// One peer's account in a [`Budget`].
#[derive(Clone, Debug)]
pub struct Account {
    budget: Budget,
    /// Growth taken through this account.
    taken: Arc<Mutex<u64>>,
    /// Counts the account as a peer while any clone lives.
    _peer: Arc<Peer>,
}

#[derive(Debug)]
struct Peer(Budget);

/// What one end of a pipe holds of the budget: a floor and growth, or growth only.
#[derive(Debug)]
pub struct Share {
    account: Account,
    floor: u64,
    growth: u64,
}

impl Budget {
    /// A budget of `bytes` in all.
    pub fn new(bytes: u64) -> Budget {
        let state = State { total: bytes, floors: 0, pool: 0, peers: 0 };
        Budget { state: Arc::new(Mutex::new(state)) }
    }

    /// An account for one more peer.
    pub fn account(&self) -> Account {
        self.lock().peers += 1;
        Account { budget: self.clone(), taken: Arc::default(), _peer: Arc::new(Peer(self.clone())) }
    }

    /// Bytes taken now: floors, growth.
    pub fn committed(&self) -> (u64, u64) {
        let state = self.lock();
        (state.floors, state.pool)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is numbers that are always consistent, so a poisoned lock is harmless.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// How large the pool is now. It may hold more than that for a while: it becomes smaller as floors
    /// become more.
    fn growth_max(&self) -> u64 {
        self.total - (2 * self.floors).clamp(self.total / 8, self.total / 2)
    }

    fn growth_free(&self) -> u64 {
        self.growth_max().saturating_sub(self.pool)
    }

    fn has_floor(&self) -> bool {
        let floors = self.floors + FLOOR_BYTES;
        floors <= self.total / 2 && floors + self.pool <= self.total
    }
}

impl Account {
    /// A share with a floor, or `None` if no floor is left.
    pub fn floor(&self) -> Option<Share> {
        let mut state = self.budget.lock();
        if !state.has_floor() {
            return None;
        }
        state.floors += FLOOR_BYTES;
        Some(Share { account: self.clone(), floor: FLOOR_BYTES, growth: 0 })
    }

    /// A share of exactly `bytes` out of the pool, without a floor, or `None`.
    pub fn reserve(&self, bytes: u64) -> Option<Share> {
        let mut share = Share { account: self.clone(), floor: 0, growth: 0 };
        (share.take(bytes, |free| free) >= bytes).then_some(share)
    }
}

impl Account {
    /// A share of exactly `bytes` out of the pool if that is little of what is free (a sixteenth),
    /// or `None`.
    pub fn reserve_if_ample(&self, bytes: u64) -> Option<Share> {
        let mut share = Share { account: self.clone(), floor: 0, growth: 0 };
        (share.take(bytes, |free| free / 16) >= bytes).then_some(share)
    }
}

impl Share {
    /// Bytes held.
    pub fn bytes(&self) -> u64 {
        self.floor + self.growth
    }

    /// Grows towards `wanted` bytes in all, as far as the pool allows; returns what is held then.
    pub fn grow(&mut self, wanted: u64) -> u64 {
        let more = wanted.saturating_sub(self.bytes());
        self.take(more, |free| free / 2);
        self.bytes()
    }

    /// Grows to [`START_WINDOW_BYTES`] if less than half of the pool is committed.
    pub fn start(&mut self) -> u64 {
        let half_free = {
            let state = self.account.budget.lock();
            state.pool < state.growth_max() / 2
        };
        if half_free { self.grow(START_WINDOW_BYTES) } else { self.bytes() }
    }

    /// Whether little of the pool is left, so that those who have much should do with less.
    pub(crate) fn is_scarce(&self) -> bool {
        let state = self.account.budget.lock();
        state.growth_free() < state.growth_max() / 8
    }

    /// Gives back what exceeds `wanted` bytes, down to the floor.
    pub fn shrink(&mut self, wanted: u64) {
        let keep = wanted.saturating_sub(self.floor).min(self.growth);
        let back = self.growth - keep;
        self.growth = keep;
        self.account.give_back(back, 0);
    }

    fn take(&mut self, more: u64, part: impl Fn(u64) -> u64) -> u64 {
        let mut state = self.account.budget.lock();
        let mut taken = self.account.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let mut granted = more.min(part(state.growth_free()));
        if state.peers > 1 {
            granted = granted.min((state.growth_max() / 2).saturating_sub(*taken));
        }
        state.pool += granted;
        *taken += granted;
        self.growth += granted;
        granted
    }
}

/// A share that several ends draw on for what their own do not cover: a session's reservation for
/// what may be sent before an open is answered.
#[derive(Clone, Debug)]
pub(crate) struct Reservation {
    share: Arc<Share>,
    drawn: Arc<Mutex<u64>>,
}

/// What one end draws on a [`Reservation`]. Dropping it gives that back.
#[derive(Debug)]
pub(crate) struct Draft {
    reservation: Reservation,
    bytes: u64,
}

impl Reservation {
    pub(crate) fn new(share: Share) -> Reservation {
        Reservation { share: Arc::new(share), drawn: Arc::default() }
    }

    /// A draft of nothing yet.
    pub(crate) fn draft(&self) -> Draft {
        Draft { reservation: self.clone(), bytes: 0 }
    }
}

impl Draft {
    /// Draws `bytes` in all from now on; false, and nothing changes, if there are not so many.
    pub(crate) fn set(&mut self, bytes: u64) -> bool {
        let mut drawn = self.reservation.drawn.lock().unwrap_or_else(PoisonError::into_inner);
        let others = *drawn - self.bytes;
        if others + bytes > self.reservation.share.bytes().max(*drawn) {
            return false;
        }
        *drawn = others + bytes;
        self.bytes = bytes;
        true
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        self.set(0);
    }
}

impl Account {
    fn give_back(&self, growth: u64, floor: u64) {
        let mut state = self.budget.lock();
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        state.pool -= growth;
        state.floors -= floor;
        *taken -= growth;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if planted::has(Planted::LeaksCredit) {
            return self.account.give_back(0, self.floor);
        }
        self.account.give_back(self.growth, self.floor);
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.0.lock().peers -= 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn floors_run_out_and_come_back() {
        let budget = Budget::new(8 * FLOOR_BYTES);
        let account = budget.account();
        let shares: Vec<_> = std::iter::from_fn(|| account.floor()).collect();
        assert_eq!(shares.len(), 4);
        drop(shares);
        assert!(account.floor().is_some());
        assert_eq!(budget.committed(), (0, 0));
    }

    #[test]
    fn growth_takes_at_most_half_of_what_is_free() {
        let account = Budget::new(4 * MIB).account();
        let mut a = account.floor().unwrap();
        let mut b = account.floor().unwrap();
        let pool = 4 * MIB - MIB / 2;
        assert_eq!(a.grow(64 * MIB), pool / 2 + FLOOR_BYTES);
        assert_eq!(b.grow(64 * MIB), pool / 4 + FLOOR_BYTES);
        a.shrink(0);
        assert_eq!(a.bytes(), FLOOR_BYTES);
        assert_eq!(b.grow(64 * MIB), pool / 4 + 3 * pool / 8 + FLOOR_BYTES);
    }

    #[test]
    fn one_of_several_peers_cannot_take_all() {
        let budget = Budget::new(4 * MIB);
        let (one, _other) = (budget.account(), budget.account());
        let mut shares: Vec<_> = (0..32).map(|_| one.floor().unwrap()).collect();
        for share in &mut shares {
            share.grow(MIB);
        }
        assert_eq!(budget.committed().1, (4 * MIB - MIB / 2) / 2, "half of what floors leave");
    }

    /// Takes half of what is free again and again: in the end all but a byte.
    fn grow_to_the_last(share: &mut Share) {
        for _ in 0..64 {
            share.grow(64 * MIB);
        }
    }

    #[test]
    fn growth_leaves_room_for_as_many_floors_again() {
        let budget = Budget::new(4 * MIB);
        let account = budget.account();
        let mut shares = Vec::new();
        for (floors, left) in [
            (1, MIB / 2),
            (50, MIB / 2),
            (100, 200 * FLOOR_BYTES),
            (200, 400 * FLOOR_BYTES),
            (300, 2 * MIB),
        ] {
            shares.resize_with(floors, || account.floor().unwrap());
            grow_to_the_last(&mut shares[0]);
            assert_eq!(4 * MIB - budget.committed().1, left + 1);
            shares[0].shrink(0);
        }
    }

    #[test]
    fn floors_and_growth_are_never_more_than_the_budget() {
        let budget = Budget::new(4 * MIB);
        let account = budget.account();
        let mut grown = account.floor().unwrap();
        grow_to_the_last(&mut grown);

        let floors: Vec<_> = std::iter::from_fn(|| account.floor()).collect();

        let (floor_bytes, pool) = budget.committed();
        assert!(floor_bytes + pool <= 4 * MIB);
        assert_eq!(floors.len() as u64 + 1, MIB / 2 / FLOOR_BYTES);
        assert!(grown.is_scarce(), "who has much is to give back");
        let had = grown.bytes();
        assert_eq!(grown.grow(64 * MIB), had);
        grown.shrink(0);
        assert!(account.floor().is_some());
    }

    #[test]
    fn start_windows_shrink_to_floors_when_half_is_committed() {
        let account = Budget::new(4 * MIB).account();
        let mut shares: Vec<_> = (0..64).map(|_| account.floor().unwrap()).collect();
        let started = shares.iter_mut().filter_map(|s| (s.start() > FLOOR_BYTES).then_some(()));
        let half = (4 * MIB - 2 * 64 * FLOOR_BYTES) / 2;
        assert_eq!(started.count() as u64, half.div_ceil(START_WINDOW_BYTES - FLOOR_BYTES));
    }

    #[test]
    fn drafts_share_a_reservation_and_give_back() {
        let reservation = Reservation::new(Budget::new(MIB).account().reserve(1000).unwrap());
        let (mut a, mut b) = (reservation.draft(), reservation.draft());
        assert!(a.set(600) && b.set(400));
        assert!(!b.set(401) && a.set(500) && b.set(500));
        drop(a);
        assert!(b.set(1000));
    }

    proptest! {
        #[test]
        fn what_is_taken_is_within_the_budget_and_comes_back(
            steps in proptest::collection::vec((0u8..5, 0usize..8, 0u64..MIB), 1..200)
        ) {
            let budget = Budget::new(2 * MIB);
            let accounts = [budget.account(), budget.account()];
            let mut shares: Vec<Share> = Vec::new();
            for (what, which, bytes) in steps {
                let count = shares.len().max(1);
                match (what, shares.get_mut(which % count)) {
                    (0, _) => shares.extend(accounts[which % 2].floor()),
                    (1, _) => shares.extend(accounts[which % 2].reserve(bytes)),
                    (2, Some(share)) => {
                        share.grow(bytes);
                    }
                    (3, Some(share)) => share.shrink(bytes),
                    (4, Some(_)) => drop(shares.swap_remove(which % count)),
                    _ => {}
                }
                let (floors, pool) = budget.committed();
                prop_assert!(floors <= MIB && floors + pool <= 2 * MIB);
                prop_assert_eq!(floors + pool, shares.iter().map(Share::bytes).sum::<u64>());
            }
            shares.clear();
            prop_assert_eq!(budget.committed(), (0, 0));
        }
    }
}
