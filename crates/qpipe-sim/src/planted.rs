//! Planted bugs: a simulation that never fails has to be seen to fail.

use std::fmt;
use std::str::FromStr;

macro_rules! planted {
    ($($(#[$doc:meta])+ $bug:ident = $name:literal;)+) => {
        /// A bug that is in the way of one run, on purpose.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Planted {
            $($(#[$doc])+ $bug,)+
        }

        impl Planted {
            const ALL: &[Planted] = &[$(Planted::$bug),+];
        }

        impl fmt::Display for Planted {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self {
                    $(Planted::$bug => $name,)+
                })
            }
        }

        impl FromStr for Planted {
            type Err = NoSuchBug;

            fn from_str(name: &str) -> Result<Planted, NoSuchBug> {
                match name {
                    $($name => Ok(Planted::$bug),)+
                    _ => Err(NoSuchBug),
                }
            }
        }
    };
}

impl Planted {
    /// Every one that this build can plant: those of the core need the feature `planted`.
    pub fn all() -> impl Iterator<Item = Planted> {
        let is_there = |bug: &Planted| cfg!(feature = "planted") || !bug.is_of_core();
        Planted::ALL.iter().copied().filter(is_there)
    }

    fn is_of_core(self) -> bool {
        self.to_string().starts_with(CORE)
    }
}

/// What the names of the bugs of the core begin with; the others are the driver's, in [`crate::node`].
const CORE: &str = "core-";

/// Plants `bug`, if it is one of the core's, and takes out what was planted before.
#[cfg(feature = "planted")]
pub(crate) fn plant(bug: Option<Planted>) {
    use qpipe_proto::planted::Planted as Core;

    qpipe_proto::planted::plant(bug.and_then(|bug| match bug {
        Planted::CoreConsumedEarly => Some(Core::ConsumedEarly),
        Planted::CoreLimitLowest => Some(Core::LimitLowest),
        Planted::CoreEndShort => Some(Core::EndShort),
        Planted::CoreForgetsForgotten => Some(Core::ForgetsForgotten),
        Planted::CoreHeldAhead => Some(Core::HeldAhead),
        Planted::CoreHeldOldest => Some(Core::HeldOldest),
        Planted::CoreLeaksCredit => Some(Core::LeaksCredit),
        Planted::CoreLimitPlusOne => Some(Core::LimitPlusOne),
        _ => None,
    }));
}

/// Without the feature there is nothing to plant in the core.
#[cfg(not(feature = "planted"))]
pub(crate) fn plant(_: Option<Planted>) {}

planted! {
    /// Of two connections the one that was dialled first is adopted.
    AdoptsLower = "adopts-lower-epoch";
    /// The connection goes as soon as everything was written, acknowledged or not.
    ClosesEarly = "closes-before-acknowledged";
    /// Bytes are consumed as soon as they are received.
    ConsumesEarly = "consumes-what-is-received";
    /// The core says that all is consumed that was received.
    CoreConsumedEarly = "core-consumed-early";
    /// End states one byte less than was written.
    CoreEndShort = "core-end-short";
    /// What was forgotten is not remembered to have been.
    CoreForgetsForgotten = "core-forgets-forgotten";
    /// Held asks for one byte after the first that is missing.
    CoreHeldAhead = "core-held-ahead";
    /// Held merges to the oldest.
    CoreHeldOldest = "core-held-oldest";
    /// Growth of an end's memory is not given back.
    CoreLeaksCredit = "core-leaks-credit";
    /// Limit merges to the lowest.
    CoreLimitLowest = "core-limit-lowest";
    /// One byte more than Limit is sent.
    CoreLimitPlusOne = "core-limit-plus-one";
    /// A session that is not known any more is made anew when a peer resumes it.
    CreatesOnResume = "creates-on-resume";
    /// After a resume what was held already is delivered again.
    DeliversTwice = "delivers-twice";
    /// A connection that is lost ends its pipes as if their writers had closed them.
    EofOnLost = "eof-on-lost";
    /// A stream's FIN is taken for EOF.
    FinIsEof = "fin-is-eof";
    /// A writer that is dropped closes its pipe.
    FinishOnDrop = "finish-on-drop";
    /// Held is never told.
    ForgetsHeld = "forgets-held";
    /// Settled is never told.
    ForgetsSettled = "forgets-settled";
    /// What was told on one connection is not told on the next.
    ForgetsToRetell = "forgets-to-retell";
    /// A writer's abort takes what it wrote with it.
    ResetsOnAbort = "resets-on-abort";
    /// A stream that resumes begins one byte late.
    ResumesLate = "resumes-late";
    /// What was handed to QUIC is kept no longer.
    TrimsEarly = "trims-early";
}

/// The name of no planted bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no such planted bug")]
pub struct NoSuchBug;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_find_their_bugs() {
        assert!(Planted::ALL.len() >= 12);
        for bug in Planted::ALL {
            assert_eq!(bug.to_string().parse(), Ok(*bug));
        }
    }
}
