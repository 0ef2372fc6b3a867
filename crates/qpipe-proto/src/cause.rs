//! Why an end of a pipe ended. One enum that wire code, log line, exit status and documentation
//! all use; this file alone maps it to numbers.

use std::fmt;

macro_rules! causes {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $text:literal;)*) => {
        /// Why an end of a pipe ended, or was refused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum Cause {
            $($(#[$doc])* $name,)*
            /// A cause that only a newer peer knows, by its number.
            Other(u32),
        }

        impl Cause {
            /// Every cause that has a name.
            pub const ALL: &[Cause] = &[$(Cause::$name,)*];

            /// The number on the wire. Never 0.
            pub fn code(self) -> u32 {
                match self {
                    $(Cause::$name => $code,)*
                    Cause::Other(code) => code,
                }
            }

            /// The cause with this number; 0 is none.
            pub fn from_code(code: u32) -> Option<Cause> {
                match code {
                    0 => None,
                    $($code => Some(Cause::$name),)*
                    code => Some(Cause::Other(code)),
                }
            }
        }

        impl fmt::Display for Cause {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Cause::$name => f.write_str($text),)*
                    Cause::Other(code) => write!(f, "cause {code}, which only a newer qpipe knows"),
                }
            }
        }
    };
}

causes! {
    /// The node has no memory floor left for another pipe.
    Busy = 1, "the node is busy: no memory left for another pipe";
    /// Content did not match the length or checksum that End states.
    Corrupt = 2, "the content does not match its checksum";
    /// A pipe's stream ended without a trailer.
    Cut = 3, "the pipe's stream was cut";
    /// The peer's host says that its process is gone.
    Gone = 19, "the process at the other end is gone";
    /// A group's other pipes did not arrive before the deadline.
    Incomplete = 4, "the group of pipes was not complete in time";
    /// A signal ended the program at this end.
    Interrupted = 5, "it was interrupted by a signal";
    /// Reading or writing the program's descriptor failed.
    Io = 6, "its input or output failed";
    /// The session to the peer ended.
    Lost = 7, "the connection was lost";
    /// `--no-wait`, and nobody is at the other end (ENXIO).
    NoPartner = 8, "nobody is at the other end";
    /// No rule allows it.
    NotAllowed = 9, "no rule allows it";
    /// A fact contradicts another, or a limit was exceeded.
    Protocol = 10, "the protocol was broken";
    /// The reader closed its end or exited (EPIPE).
    ReaderClosed = 11, "the reader closed the pipe";
    /// The other node, or its process, was started anew and has forgotten the session.
    Restarted = 18, "the other node was restarted";
    /// A rule was taken away while the pipe lived.
    Revoked = 12, "the permission was revoked";
    /// The node is shutting down.
    Stopping = 13, "the node is stopping";
    /// The ticket is unknown, used or expired: one cause, so that nothing leaks.
    Ticket = 15, "the ticket is unknown, used or expired";
    /// A deadline passed.
    TimedOut = 16, "it timed out";
    /// Nothing was heard from the peer for as long as it was to be waited for.
    Unheard = 20, "nothing was heard from the other host for too long (--give-up)";
    /// The writer was dropped unfinished.
    WriterDropped = 17, "the writer ended without closing the pipe";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_distinct_and_survive_the_wire() {
        let mut codes: Vec<u32> = Cause::ALL.iter().map(|c| c.code()).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), Cause::ALL.len());
        for cause in Cause::ALL {
            assert_eq!(Cause::from_code(cause.code()), Some(*cause));
        }
        assert_eq!(Cause::from_code(0), None);
        assert_eq!(Cause::from_code(9999), Some(Cause::Other(9999)));
    }
}
