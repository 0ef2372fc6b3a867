//! What a program of this host and the host's node say to each other (docs/local-protocol.md).

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use qpipe::{Cause, Fingerprint, PipeError, Priority};
use qpipe_proto::ticket::End;
use serde::{Deserialize, Serialize};

/// The version of the local protocol.
pub const LOCAL_VERSION: u32 = 1;

/// The longest message of a program, in bytes of JSON: names, a host, a description and the command
/// line, each bounded on its own, with room to grow.
pub const MESSAGE_BYTES_MAX: usize = 64 << 10;

/// The longest event, in bytes of JSON: the status of a node with thousands of pipes.
pub const EVENT_BYTES_MAX: usize = 4 << 20;

/// The longest [`OpenAsk::process`], in bytes: a line of `ps` on a wide terminal.
pub const PROCESS_BYTES_MAX: usize = 512;

/// The first message of a program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// [`LOCAL_VERSION`].
    pub qpipe: u32,
    /// What it wants.
    pub ask: Ask,
}

impl Request {
    /// The request for `ask` in this version of the protocol.
    pub fn new(ask: Ask) -> Request {
        Request { qpipe: LOCAL_VERSION, ask }
    }

    /// How many descriptors come with it: what the program writes is read from the first of a
    /// [`End::Write`] or [`End::Duplex`]; what it reads is written to the last of a [`End::Read`] or
    /// [`End::Duplex`].
    pub fn descriptors(&self) -> usize {
        match &self.ask {
            Ask::Open(OpenAsk { end: End::Duplex, .. }) => 2,
            Ask::Open(OpenAsk { end: End::Read | End::Write, .. }) => 1,
            Ask::Retire | Ask::Status | Ask::Stop { .. } => 0,
        }
    }
}

/// What a program may want of the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Ask {
    /// An end of a pipe.
    Open(OpenAsk),
    /// That the node takes no more opens, and ends when its last pipe is over: another version is
    /// to take its place. Answered by [`Event::Done`] as soon as another may listen.
    Retire,
    /// Sessions and pipes. Answered by [`Event::Status`].
    Status,
    /// That the node ends. Answered by [`Event::Done`] when nothing is left to be finished.
    Stop {
        /// What is not finished by then is aborted, in milliseconds.
        within_ms: u64,
    },
}

/// An end of a pipe that a program wants to hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenAsk {
    /// Which end: on the wire `send` ([`End::Write`]), `recv` ([`End::Read`]) or `duplex`.
    #[serde(with = "EndText")]
    pub end: End,
    /// Of which pipe.
    pub place: Place,
    /// Whether to fail at once if nobody is at the other end.
    #[serde(default)]
    pub no_wait: bool,
    /// How long to wait for somebody at the other end, in milliseconds; without a limit if absent.
    pub timeout_ms: Option<u64>,
    /// Whether [`Event::Progress`] is to be told.
    #[serde(default)]
    pub wants_progress: bool,
    /// What of the program's input is to stay together where others write into the pipe as well.
    pub records: Option<Records>,
    /// How the pipe's bytes are sent beside those of other pipes between the two hosts.
    #[serde(default, with = "PriorityText")]
    pub priority: Priority,
    /// How many bytes of a pipe of another host may be written and not consumed; as many as keep the
    /// way there full if absent.
    pub capacity_bytes: Option<u64>,
    /// The program's command line for the status, at most [`PROCESS_BYTES_MAX`] bytes without
    /// characters that terminals obey: see [`process_text`](super::process_text).
    #[serde(default)]
    pub process: String,
}

impl OpenAsk {
    /// An end of the pipe that is there, without any wishes.
    pub fn new(end: End, place: Place) -> OpenAsk {
        OpenAsk {
            end,
            place,
            no_wait: false,
            timeout_ms: None,
            wants_progress: false,
            records: None,
            priority: Priority::default(),
            capacity_bytes: None,
            process: String::new(),
        }
    }
}

/// What of a program's input is not mixed with what others write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Records {
    /// Lines, of up to [`LINE_BYTES_MAX`](crate::LINE_BYTES_MAX) bytes.
    Line,
    /// Writes into the kernel pipe, of up to `PIPE_BUF` bytes: the program has that pipe from qpipe.
    Write,
}

/// Where a pipe is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Place {
    /// On this host.
    Local {
        /// Its name; the node checks it.
        name: String,
    },
    /// On another host.
    Remote {
        /// An alias or an address; the node checks it.
        host: String,
        /// Its name there; the node checks it.
        name: String,
    },
    /// Where a user says it is: the node looks which hosts it knows.
    Typed {
        /// `HOST/NAME`, `NAME` or `./NAME`, as on a command line.
        target: String,
    },
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Local { name } => f.write_str(name),
            Place::Remote { host, name } => write!(f, "{host}/{name}"),
            Place::Typed { target } => f.write_str(target),
        }
    }
}

/// What a program that holds an end says later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Word {
    /// It gives up, and what it wrote is not complete.
    Abort {
        /// The number of a [`Cause`].
        cause: u32,
    },
    /// The end of its input, which [`Event::Eof`] told of, is meant as one.
    Confirm,
}

/// What the node says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The peer is heard again.
    Back {
        /// Whom.
        peer: String,
        /// How long it was silent, in milliseconds.
        after_ms: u64,
    },
    /// What was asked for is done. The last event.
    Done,
    /// The pipes are over. The last event.
    Ended {
        /// How it went with what the program wrote.
        sent: Option<Outcome>,
        /// How it went with what the program read.
        received: Option<Outcome>,
    },
    /// The program's input is at its end, and nobody holds its write end any more. The node waits for
    /// [`Word::Confirm`], since a program that is killed leaves the same behind.
    Eof,
    /// Nothing was opened, or what was asked for was not done. The last event.
    Failed {
        /// Why.
        text: String,
    },
    /// Somebody is at the other end.
    Joined,
    /// The open was granted.
    Opened {
        /// The other host's name, if the pipe leads to one.
        host: Option<String>,
        /// Where it was reached.
        address: Option<SocketAddr>,
    },
    /// How far it has come.
    Progress {
        /// Bytes that were consumed so far, or that came.
        bytes: u64,
    },
    /// Nothing is heard from the peer.
    Silent {
        /// From whom.
        peer: String,
        /// For how long, in milliseconds.
        silent_ms: u64,
        /// When it will be given up, in milliseconds from now.
        left_ms: u64,
    },
    /// The answer to a question: a JSON object without a member `event`. The last event.
    Status(serde_json::Value),
    /// Nothing was opened, since nobody vouched for this host yet: let the user compare, pin it, and
    /// ask again. The last event.
    UnknownHost {
        /// The host that was asked for.
        host: String,
        /// The key that it has.
        #[serde(with = "fingerprint_text")]
        seen: Fingerprint,
        /// Where it was reached.
        addresses: Vec<String>,
    },
}

impl Event {
    /// Whether nothing comes after it.
    pub fn is_last(&self) -> bool {
        match self {
            Event::Done
            | Event::Ended { .. }
            | Event::Failed { .. }
            | Event::Status(_)
            | Event::UnknownHost { .. } => true,
            Event::Back { .. }
            | Event::Eof
            | Event::Joined
            | Event::Opened { .. }
            | Event::Progress { .. }
            | Event::Silent { .. } => false,
        }
    }

    /// Whether a program that does not listen may miss it: what comes later counts.
    pub(super) fn is_passing(&self) -> bool {
        matches!(self, Event::Back { .. } | Event::Progress { .. } | Event::Silent { .. })
    }
}

/// How one direction ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Bytes that were taken from the program, or given to it.
    pub bytes: u64,
    /// What stopped it. None: all was consumed, or all came.
    pub stopped: Option<Stop>,
}

/// What stops a direction before its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stop {
    /// The program's input could not be read.
    Input {
        /// The system's number for it.
        errno: Option<i32>,
        /// What the system said.
        text: String,
    },
    /// Nobody came to the other end.
    NoPartner,
    /// The program's output could not be written.
    Output {
        /// The system's number for it: that of `EPIPE` if nobody reads any more.
        errno: Option<i32>,
        /// What the system said.
        text: String,
    },
    /// The pipe ended badly.
    Pipe(PipeStop),
}

/// How a pipe ends badly: a [`PipeError`], with the numbers of causes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PipeStop {
    /// See [`PipeError::Aborted`].
    Aborted {
        /// The number of a [`Cause`].
        cause: u32,
        /// Bytes that came through.
        delivered: u64,
    },
    /// See [`PipeError::Broken`].
    Broken {
        /// The number of a [`Cause`].
        cause: u32,
        /// Bytes that the reader had consumed.
        consumed: u64,
    },
    /// See [`PipeError::Corrupt`].
    Corrupt {
        /// Bytes that came through.
        delivered: u64,
    },
    /// See [`PipeError::Failed`].
    Failed {
        /// The number of a [`Cause`].
        cause: u32,
        /// Bytes known to be consumed.
        consumed: u64,
    },
    /// See [`PipeError::Refused`].
    Refused {
        /// The number of a [`Cause`].
        cause: u32,
    },
}

impl From<PipeError> for PipeStop {
    fn from(error: PipeError) -> PipeStop {
        let cause = error.cause().code();
        match error {
            PipeError::Aborted { delivered, .. } => PipeStop::Aborted { cause, delivered },
            PipeError::Broken { consumed, .. } => PipeStop::Broken { cause, consumed },
            PipeError::Corrupt { delivered } => PipeStop::Corrupt { delivered },
            PipeError::Failed { consumed, .. } => PipeStop::Failed { cause, consumed },
            PipeError::Refused { .. } => PipeStop::Refused { cause },
        }
    }
}

impl From<PipeStop> for PipeError {
    fn from(stop: PipeStop) -> PipeError {
        match stop {
            PipeStop::Aborted { cause, delivered } => {
                PipeError::Aborted { cause: cause_of(cause), delivered }
            }
            PipeStop::Broken { cause, consumed } => {
                PipeError::Broken { cause: cause_of(cause), consumed }
            }
            PipeStop::Corrupt { delivered } => PipeError::Corrupt { delivered },
            PipeStop::Failed { cause, consumed } => {
                PipeError::Failed { cause: cause_of(cause), consumed }
            }
            PipeStop::Refused { cause } => PipeError::Refused { cause: cause_of(cause) },
        }
    }
}

impl From<PipeError> for Stop {
    fn from(error: PipeError) -> Stop {
        Stop::Pipe(error.into())
    }
}

/// A time as messages tell it, in milliseconds.
pub fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The cause with this number. 0, which is none, counts as a broken protocol.
pub fn cause_of(code: u32) -> Cause {
    Cause::from_code(code).unwrap_or(Cause::Protocol)
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "End", rename_all = "snake_case")]
enum EndText {
    Duplex,
    #[serde(rename = "recv")]
    Read,
    #[serde(rename = "send")]
    Write,
}

/// The priorities' names on the wire.
#[derive(Serialize, Deserialize)]
#[serde(remote = "Priority", rename_all = "snake_case")]
enum PriorityText {
    High,
    Low,
    Normal,
}

mod fingerprint_text {
    use qpipe::Fingerprint;
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(seen: &Fingerprint, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(seen)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Fingerprint, D::Error> {
        String::deserialize(from)?.parse().map_err(de::Error::custom)
    }
}
