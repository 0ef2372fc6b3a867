//! How pipes ended: the exit status and the sentence for each way.

use std::{fmt, io};

use indicatif::BinaryBytes;
use qpipe::{Cause, PipeError};

use crate::{exit::Exit, pump::Stopped, say};

/// What the shell and the user are told of an end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ending {
    /// The status.
    pub(crate) exit: Exit,
    /// The sentence; none where the shell's own ways are as silent.
    pub(crate) error: Option<String>,
    /// What is only said when asked.
    pub(crate) detail: Option<String>,
}

impl Ending {
    /// Says what there is to say, and gives the status.
    pub(crate) fn tell(self) -> Exit {
        if let Some(error) = self.error {
            say::error(error);
        }
        if let Some(detail) = self.detail {
            say::detail(detail);
        }
        self.exit
    }

    fn of_failure(error: String) -> Self {
        Self { exit: Exit::Failure, error: Some(error), detail: None }
    }

    fn silent(exit: Exit, detail: String) -> Self {
        Self { exit, error: None, detail: Some(detail) }
    }
}

/// How sending into `pipe` ended.
pub(crate) fn of_send(pipe: &Label, outcome: Result<u64, Stopped>) -> Ending {
    let stopped = match outcome {
        Ok(bytes) => {
            let detail = format!("{pipe}: the reader consumed all {}", Amount(bytes));
            return Ending::silent(Exit::Success, detail);
        }
        Err(stopped) => stopped,
    };
    match stopped {
        Stopped::Pipe(PipeError::Broken { cause, consumed }) => {
            let sentence = format!("{pipe}: {cause} after it had consumed {}", Amount(consumed));
            // What `cat` does not say either, unless SIGPIPE was ignored.
            match (cause, Exit::broken_pipe()) {
                (Cause::ReaderClosed, exit @ Exit::Signal(_)) => Ending::silent(exit, sentence),
                (Cause::ReaderClosed, exit) => Ending { exit, ..Ending::of_failure(sentence) },
                (_, exit) => {
                    let sentence = format!(
                        "the reader of {pipe} ended after it had consumed {}: {cause}",
                        Amount(consumed)
                    );
                    Ending { exit, ..Ending::of_failure(sentence) }
                }
            }
        }
        Stopped::Pipe(PipeError::Refused { cause }) => {
            Ending::of_failure(refusal(pipe, cause, Way::Send))
        }
        Stopped::Pipe(error) => {
            let consumed = match error {
                PipeError::Failed { consumed, .. } => consumed,
                _ => 0,
            };
            Ending::of_failure(format!(
                "sending into {pipe} failed: {}; the reader consumed at least {}, perhaps more: \
                 send all of it again",
                error.cause(),
                Amount(consumed)
            ))
        }
        other => of_either(pipe, other),
    }
}

/// How receiving from `pipe` ended; `abort_is_eof` if the user wants an abort to count as an end.
pub(crate) fn of_recv(pipe: &Label, outcome: Result<u64, Stopped>, abort_is_eof: bool) -> Ending {
    let stopped = match outcome {
        Ok(bytes) => {
            return Ending::silent(Exit::Success, format!("{pipe}: all {} came", Amount(bytes)));
        }
        Err(stopped) => stopped,
    };
    match stopped {
        Stopped::Pipe(PipeError::Refused { cause }) => {
            Ending::of_failure(refusal(pipe, cause, Way::Recv))
        }
        Stopped::Pipe(PipeError::Aborted { cause, delivered }) => {
            let sentence = format!(
                "{pipe} was cut off after {}: {cause}; what came is right, but it is not all",
                Amount(delivered)
            );
            let is_damage = matches!(cause, Cause::Corrupt | Cause::Protocol);
            if abort_is_eof && !is_damage {
                return Ending::silent(Exit::Success, sentence);
            }
            Ending::of_failure(sentence)
        }
        Stopped::Pipe(error) => Ending::of_failure(format!(
            "{pipe} failed: {error}; throw away what came, and have it sent again"
        )),
        other => of_either(pipe, other),
    }
}

/// Which pipe a message is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Label {
    /// One without a name.
    Anonymous,
    /// A pipe of this host's node.
    Local(String),
    /// A pipe of another host's node.
    Remote {
        /// The host, as the user calls it.
        host: String,
        /// The pipe there.
        name: String,
    },
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str("the anonymous pipe"),
            Self::Local(name) => write!(f, "the pipe {name}"),
            Self::Remote { host, name } => write!(f, "the pipe {host}/{name}"),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Recv,
    Send,
}

/// A number of bytes as people and scripts want it.
struct Amount(u64);

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            1 => f.write_str("1 byte"),
            bytes @ ..1024 => write!(f, "{bytes} bytes"),
            bytes => write!(f, "{bytes} bytes ({})", BinaryBytes(bytes)),
        }
    }
}

fn of_either(pipe: &Label, stopped: Stopped) -> Ending {
    match stopped {
        Stopped::Input(error) => Ending::of_failure(format!(
            "cannot read standard input: {error}; the reader of {pipe} was told that it is cut off"
        )),
        Stopped::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => {
            let sentence = format!("{pipe}: nobody reads standard output any more");
            match Exit::broken_pipe() {
                exit @ Exit::Signal(_) => Ending::silent(exit, sentence),
                exit => Ending { exit, ..Ending::of_failure(sentence) },
            }
        }
        Stopped::Output(error) => Ending::of_failure(format!(
            "cannot write standard output: {error}; the writer of {pipe} was told that nobody reads"
        )),
        Stopped::NoPartner => Ending::of_failure(format!(
            "nobody came to the other end of {pipe} in time: start it there, or give --timeout more"
        )),
        Stopped::Signal(signal) => {
            Ending::silent(Exit::Signal(signal), format!("{pipe}: ended by signal {signal}"))
        }
        Stopped::Pipe(error) => Ending::of_failure(format!("{pipe} failed: {error}")),
    }
}

/// Why the other node does not let us, and what can be done about it.
fn refusal(pipe: &Label, cause: Cause, way: Way) -> String {
    let (verb, partner, other) = match way {
        Way::Recv => ("receiving from", "writes into", "`qpipe send`"),
        Way::Send => ("sending into", "reads from", "`qpipe recv`"),
    };
    let rule = match (pipe, way) {
        (Label::Anonymous, _) => None,
        (Label::Local(name) | Label::Remote { name, .. }, Way::Recv) => {
            Some(format!("recv:{name}"))
        }
        (Label::Local(name) | Label::Remote { name, .. }, Way::Send) => {
            Some(format!("send:{name}"))
        }
    };
    let remedy = match cause {
        Cause::Busy => "try again when some of its pipes are over, or give it more --memory".into(),
        Cause::NoPartner => format!(
            "nobody {partner} it now: start {other} there first, or leave --no-wait out to wait"
        ),
        Cause::NotAllowed | Cause::Revoked => match rule {
            Some(rule) => {
                format!(
                    "there, `qpipe trust add NAME --key KEY --allow '{rule}'` allows it, \
                 where KEY is what `qpipe key fingerprint` prints here"
                )
            }
            None => "ask there for a new ticket".into(),
        },
        Cause::Stopping => "try again when `qpipe serve` runs there again".into(),
        Cause::Ticket => {
            "a ticket works once, and as long as its command runs: ask for another".into()
        }
        Cause::TimedOut => "try again".into(),
        _ => return format!("{verb} {pipe} was refused: {cause}"),
    };
    match cause {
        Cause::NoPartner => format!("{verb} {pipe} was refused: {remedy}"),
        _ => format!("{verb} {pipe} was refused: {cause}; {remedy}"),
    }
}

#[cfg(test)]
mod tests {
    use signal_hook::consts::{SIGPIPE, SIGTERM};

    use super::*;

    fn b_x() -> Label {
        Label::Remote { host: "b".to_owned(), name: "inbox/x".to_owned() }
    }

    fn sent(error: PipeError) -> Ending {
        of_send(&b_x(), Err(Stopped::Pipe(error)))
    }

    fn received(error: PipeError, abort_is_eof: bool) -> Ending {
        of_recv(&b_x(), Err(Stopped::Pipe(error)), abort_is_eof)
    }

    #[test]
    fn only_a_pipe_that_was_consumed_whole_is_a_success() {
        assert_eq!(of_send(&b_x(), Ok(7)).exit, Exit::Success);
        assert_eq!(of_recv(&b_x(), Ok(7), false).exit, Exit::Success);

        for cause in Cause::ALL.iter().copied() {
            assert_ne!(sent(PipeError::Broken { cause, consumed: 7 }).exit, Exit::Success);
            assert_ne!(sent(PipeError::Failed { cause, consumed: 7 }).exit, Exit::Success);
            assert_ne!(sent(PipeError::Refused { cause }).exit, Exit::Success);
            assert_ne!(
                received(PipeError::Aborted { cause, delivered: 7 }, false).exit,
                Exit::Success
            );
            assert_ne!(received(PipeError::Refused { cause }, true).exit, Exit::Success);
        }
        assert_ne!(received(PipeError::Corrupt { delivered: 7 }, true).exit, Exit::Success);
    }

    #[test]
    fn a_reader_that_left_is_a_silent_sigpipe_as_for_cat() {
        let ending = sent(PipeError::Broken { cause: Cause::ReaderClosed, consumed: 7 });

        assert_eq!(ending.exit, Exit::Signal(SIGPIPE));
        assert_eq!(ending.error, None);
    }

    #[test]
    fn a_reader_that_failed_is_a_sigpipe_that_says_why() {
        let ending = sent(PipeError::Broken { cause: Cause::Io, consumed: 2048 });

        assert_eq!(ending.exit, Exit::Signal(SIGPIPE));
        assert_eq!(
            ending.error.unwrap(),
            "the reader of the pipe b/inbox/x ended after it had consumed 2048 bytes (2.00 KiB): \
             its input or output failed"
        );
    }

    #[test]
    fn a_cut_off_stream_says_after_how_many_bytes() {
        let error = PipeError::Aborted { cause: Cause::Interrupted, delivered: 1 };
        let ending = received(error, false);

        assert_eq!(ending.exit, Exit::Failure);
        assert_eq!(
            ending.error.unwrap(),
            "the pipe b/inbox/x was cut off after 1 byte: it was interrupted by a signal; what \
             came is right, but it is not all"
        );
    }

    #[test]
    fn an_abort_counts_as_an_end_only_when_asked_and_never_when_it_is_damage() {
        let aborted = |cause| PipeError::Aborted { cause, delivered: 7 };

        assert_eq!(received(aborted(Cause::WriterDropped), true).exit, Exit::Success);
        assert_eq!(received(aborted(Cause::Lost), true).exit, Exit::Success);
        assert_eq!(received(aborted(Cause::Corrupt), true).exit, Exit::Failure);
        assert_eq!(received(aborted(Cause::Protocol), true).exit, Exit::Failure);
    }

    #[test]
    fn refusals_name_the_remedy() {
        let told = |cause| sent(PipeError::Refused { cause }).error.unwrap();

        assert_eq!(
            told(Cause::NotAllowed),
            "sending into the pipe b/inbox/x was refused: no rule allows it; there, `qpipe trust \
             add NAME --key KEY --allow 'send:inbox/x'` allows it, where KEY is what `qpipe key \
             fingerprint` prints here"
        );
        assert!(told(Cause::NoPartner).contains("`qpipe recv`"));
    }

    #[test]
    fn a_closed_output_is_a_sigpipe_and_a_full_disk_a_failure() {
        let ended = |kind: io::ErrorKind| of_recv(&b_x(), Err(Stopped::Output(kind.into())), false);

        assert_eq!(ended(io::ErrorKind::BrokenPipe).exit, Exit::Signal(SIGPIPE));
        let full = ended(io::ErrorKind::StorageFull);
        assert_eq!(full.exit, Exit::Failure);
        assert!(full.error.unwrap().starts_with("cannot write standard output: "));
    }

    #[test]
    fn a_signal_is_died_of() {
        let ending = of_send(&b_x(), Err(Stopped::Signal(SIGTERM)));

        assert_eq!(ending.exit, Exit::Signal(SIGTERM));
        assert_eq!(ending.error, None);
    }
}
