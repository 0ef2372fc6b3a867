//! Bugs to have on purpose, for the simulator: a harness that never fails has to be seen to fail.
//! Without the feature `planted` none can be switched on, and asking costs nothing.

#![allow(unreachable_pub, reason = "public with the feature only")]

/// A bug of the core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// More is said to be consumed than is: all that was received.
    ConsumedEarly,
    /// End states one byte less than was written.
    EndShort,
    /// What was forgotten is not remembered to have been.
    ForgetsForgotten,
    /// Held asks for one byte after the first that is missing.
    HeldAhead,
    /// Held merges to the oldest.
    HeldOldest,
    /// Growth of an end's memory is not given back.
    LeaksCredit,
    /// Limit merges to the lowest.
    LimitLowest,
    /// One byte more than Limit is sent.
    LimitPlusOne,
}

#[cfg(feature = "planted")]
mod switch {
    use std::cell::Cell;

    use super::Planted;

    thread_local! {
        static BUG: Cell<Option<Planted>> = const { Cell::new(None) };
    }

    /// Switches one bug on, for this thread; `None`: none.
    pub fn plant(bug: Option<Planted>) {
        BUG.set(bug);
    }

    pub(crate) fn has(bug: Planted) -> bool {
        BUG.get() == Some(bug)
    }
}

#[cfg(not(feature = "planted"))]
mod switch {
    pub(crate) const fn has(_: super::Planted) -> bool {
        false
    }
}

#[cfg(feature = "planted")]
pub use switch::plant;

pub(crate) use switch::has;
