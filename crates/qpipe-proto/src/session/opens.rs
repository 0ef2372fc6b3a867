//! What a peer may open: the allowance of opens, and groups whose members are not all known.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::fact::{Group, Open, OpenTarget};
use crate::id::PipeId;
use crate::limits::{GROUP_DEADLINE_MS, GROUP_PIPES_MAX, OPENS_UNANSWERED_MAX};

/// How many opens the peer may make, counted from the session's beginning.
#[derive(Debug)]
pub(super) struct Allowance {
    /// The cumulative number that was told.
    told: u64,
    /// Opens that may be unanswered, or over but not settled.
    spare: u64,
    /// Opens that cost nothing beyond their floor: accepted and alive, or settled.
    free: u64,
    /// The highest index heard, plus one.
    heard: u64,
    /// The peer may not have heard the number that was told.
    is_in_doubt: bool,
}

/// Raises of the allowance are told in steps of this, or when the peer has fewer left: more than a
/// group needs, or a peer could wait for ever for the rest of one.
const RAISE_STEP: u64 = OPENS_UNANSWERED_MAX / 16;
const _: () = assert!(RAISE_STEP >= GROUP_PIPES_MAX as u64);

impl Allowance {
    pub(super) fn new(spare: u64) -> Allowance {
        Allowance { told: spare, spare, free: 0, heard: 0, is_in_doubt: false }
    }

    /// Whether the peer was told that it may make this open.
    pub(super) fn allows(&self, id: PipeId) -> bool {
        id.index() < self.told
    }

    pub(super) fn hear(&mut self, id: PipeId) {
        self.heard = self.heard.max(id.index() + 1);
    }

    pub(super) fn heard(&self) -> u64 {
        self.heard
    }

    /// An open was accepted, or is settled without having been accepted or after it was closed.
    pub(super) fn release(&mut self) {
        self.free += 1;
    }

    /// An accepted pipe is over, but not settled: it counts again until it is.
    pub(super) fn charge(&mut self) {
        self.free = self.free.saturating_sub(1);
    }

    /// The number that the peer was told.
    pub(super) fn told(&self) -> u64 {
        self.told
    }

    /// Another connection is adopted: the number is to be told again.
    pub(super) fn doubt(&mut self) {
        self.is_in_doubt = true;
    }

    /// The raised number, if there is one worth telling.
    pub(super) fn raise(&mut self) -> Option<u64> {
        if !self.is_due() {
            return None;
        }
        self.is_in_doubt = false;
        self.told = self.told.max(self.free + self.spare);
        Some(self.told)
    }

    /// Whether there is a raise worth telling.
    pub(super) fn is_due(&self) -> bool {
        let target = self.free + self.spare;
        let is_low = self.heard + RAISE_STEP >= self.told;
        self.is_in_doubt || target > self.told && (target >= self.told + RAISE_STEP || is_low)
    }
}

/// Groups of opens that are not complete yet.
#[derive(Debug, Default)]
pub(super) struct Groups {
    waiting: BTreeMap<PipeId, Waiting>,
}

#[derive(Debug)]
struct Waiting {
    group: Group,
    target: OpenTarget,
    known: Vec<PipeId>,
    deadline: Instant,
}

/// What an open did to its group.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Joined {
    /// All members are known: here they are, in order.
    Complete(Vec<PipeId>),
    /// The open does not fit the group that it names.
    Misfit,
    /// More are to come.
    Waiting,
}

impl Groups {
    pub(super) fn join(&mut self, id: PipeId, open: &Open, now: Instant) -> Joined {
        let group = open.group;
        let step = id.number().wrapping_sub(group.first.number());
        let fits = group.first.opener() == id.opener()
            && (1..=GROUP_PIPES_MAX).contains(&group.size)
            && step < 2 * u64::from(group.size);
        if !fits {
            return Joined::Misfit;
        }
        if group.size == 1 {
            return Joined::Complete(vec![id]);
        }
        let deadline = now + Duration::from_millis(GROUP_DEADLINE_MS);
        let waiting = self.waiting.entry(group.first).or_insert_with(|| Waiting {
            group,
            target: open.target.clone(),
            known: Vec::new(),
            deadline,
        });
        let is_same = waiting.group == group && waiting.target == open.target;
        if !is_same || waiting.known.contains(&id) {
            return Joined::Misfit;
        }
        waiting.known.push(id);
        if waiting.known.len() < group.size as usize {
            return Joined::Waiting;
        }
        let mut known = self.waiting.remove(&group.first).map_or(Vec::new(), |w| w.known);
        known.sort_unstable();
        Joined::Complete(known)
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.waiting.values().map(|w| w.deadline).min()
    }

    /// Gives the members that are not known yet as much time as if their group began now: they were
    /// perhaps lost with a connection.
    pub(super) fn begin_anew(&mut self, now: Instant) {
        for waiting in self.waiting.values_mut() {
            waiting.deadline = now + Duration::from_millis(GROUP_DEADLINE_MS);
        }
    }

    /// Takes out all groups; returns their members.
    pub(super) fn clear(&mut self) -> Vec<PipeId> {
        std::mem::take(&mut self.waiting).into_values().flat_map(|waiting| waiting.known).collect()
    }

    /// Takes out the groups whose deadline has passed; returns their members.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<PipeId> {
        let late: Vec<PipeId> = self
            .waiting
            .iter()
            .filter(|(_, w)| w.deadline <= now)
            .map(|(first, _)| *first)
            .collect();
        late.iter().filter_map(|first| self.waiting.remove(first)).flat_map(|w| w.known).collect()
    }
}
