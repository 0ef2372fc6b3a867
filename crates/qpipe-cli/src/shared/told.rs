//! How what the node did ended, for the user.

use std::io;

use anyhow::anyhow;
use qpipe::End;
use qpipe_node::local::{Outcome, Stop};

use crate::{
    ending::{self, Label},
    exit::Exit,
    pump::Stopped,
};

/// How a command that the node worked for ended.
pub(crate) struct Ended {
    /// What became of standard input, if it was handed over.
    pub(crate) sent: Option<Result<u64, Stopped>>,
    /// What became of standard output, if it was handed over.
    pub(crate) received: Option<Result<u64, Stopped>>,
}

impl Ended {
    pub(super) fn by_signal(end: End, signal: i32) -> Self {
        let stopped = || Some(Err(Stopped::Signal(signal)));
        Self {
            sent: stopped().filter(|_| end != End::Read),
            received: stopped().filter(|_| end != End::Write),
        }
    }
}

pub(super) fn outcome(outcome: Outcome) -> Result<u64, Stopped> {
    let Some(stopped) = outcome.stopped else { return Ok(outcome.bytes) };
    let io = |errno: Option<i32>, text: String| match errno {
        Some(errno) => io::Error::from_raw_os_error(errno),
        None => io::Error::other(anyhow!(text)),
    };
    Err(match stopped {
        Stop::Input { errno, text } => Stopped::Input(io(errno, text)),
        Stop::Output { errno, text } => Stopped::Output(io(errno, text)),
        Stop::Pipe(stop) => Stopped::Pipe(stop.into()),
        Stop::NoPartner => Stopped::NoPartner,
    })
}

/// Says how both ended.
pub(crate) fn tell(ended: Ended, label: &Label, abort_as_eof: bool) -> Exit {
    let sent = ended.sent.map(|outcome| ending::of_send(label, outcome).tell());
    let received =
        ended.received.map(|outcome| ending::of_recv(label, outcome, abort_as_eof).tell());
    match (sent, received) {
        (Some(sent), Some(received)) => sent.and(received),
        (sent, received) => sent.or(received).unwrap_or(Exit::Failure),
    }
}
