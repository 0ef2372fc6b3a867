//! Messages as JSON, and back: what comes from a socket is hostile until it is parsed.

use qpipe_proto::name::is_obeyed_by_terminals;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::LocalError;
use super::message::{
    Ask, EVENT_BYTES_MAX, Event, LOCAL_VERSION, MESSAGE_BYTES_MAX, PROCESS_BYTES_MAX, Request, Word,
};

/// A command line as [`OpenAsk::process`](super::OpenAsk::process) holds it: cut where it gets long, with `?` for each
/// character that a terminal would obey.
pub fn process_text<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    /// Stands for what was cut off.
    const CUT: &str = "…";

    let mut text = String::new();
    for (at, word) in words.into_iter().enumerate() {
        let space = (at > 0).then_some(' ');
        for c in space.into_iter().chain(word.chars()) {
            if text.len() + c.len_utf8() + CUT.len() > PROCESS_BYTES_MAX {
                text.push_str(CUT);
                return text;
            }
            text.push(if is_obeyed_by_terminals(c) { '?' } else { c });
        }
    }
    text
}

/// One of the three kinds of message.
pub trait Message: Sized + Send + sealed::Sealed {
    /// The longest, in bytes of JSON.
    const BYTES_MAX: usize;

    /// The JSON of it.
    ///
    /// # Errors
    /// It is too long, or holds what JSON cannot say.
    fn encode(&self) -> Result<Vec<u8>, LocalError>;

    /// The message that the bytes hold; none if it is one that only a later version knows, and may
    /// be passed over.
    ///
    /// # Errors
    /// The bytes are no such message.
    fn parse(bytes: &[u8]) -> Result<Option<Self>, LocalError>;
}

impl Message for Request {
    const BYTES_MAX: usize = MESSAGE_BYTES_MAX;

    fn encode(&self) -> Result<Vec<u8>, LocalError> {
        json(self, Self::BYTES_MAX)
    }

    fn parse(bytes: &[u8]) -> Result<Option<Self>, LocalError> {
        // Looked at by itself, so that whoever speaks another version is told so.
        let Version { qpipe } = value(bytes)?;
        if qpipe != LOCAL_VERSION {
            return Err(LocalError::Version { found: qpipe });
        }
        let request: Request = value(bytes)?;
        if let Ask::Open(open) = &request.ask {
            if open.process.len() > PROCESS_BYTES_MAX {
                return Err(LocalError::Message("process: too long".to_owned()));
            }
            if open.process.contains(is_obeyed_by_terminals) {
                return Err(LocalError::Message("process: control characters".to_owned()));
            }
        }
        Ok(Some(request))
    }
}

impl Message for Word {
    const BYTES_MAX: usize = MESSAGE_BYTES_MAX;

    fn encode(&self) -> Result<Vec<u8>, LocalError> {
        json(&WordText { word: *self }, Self::BYTES_MAX)
    }

    fn parse(bytes: &[u8]) -> Result<Option<Self>, LocalError> {
        value(bytes).map(|WordText { word }| Some(word))
    }
}

impl Message for Event {
    const BYTES_MAX: usize = EVENT_BYTES_MAX;

    fn encode(&self) -> Result<Vec<u8>, LocalError> {
        json(self, Self::BYTES_MAX)
    }

    fn parse(bytes: &[u8]) -> Result<Option<Self>, LocalError> {
        let error = match value(bytes) {
            Ok(event) => return Ok(Some(event)),
            Err(error) => error,
        };
        let EventKind { event } = value(bytes)?;
        if EVENT_KINDS.contains(&event.as_str()) { Err(error) } else { Ok(None) }
    }
}

/// Of a request, what every version of it has.
#[derive(Deserialize)]
struct Version {
    qpipe: u32,
}

/// A word as it is on the wire: every message is an object.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WordText {
    word: Word,
}

/// Of an event, what every kind of it has.
#[derive(Deserialize)]
struct EventKind {
    event: String,
}

/// The events that this version knows, as they are on the wire.
pub(super) const EVENT_KINDS: [&str; 11] = [
    "back",
    "done",
    "ended",
    "eof",
    "failed",
    "joined",
    "opened",
    "progress",
    "silent",
    "status",
    "unknown_host",
];

mod sealed {
    use super::{Event, Request, Word};

    pub trait Sealed {}
    impl Sealed for Event {}
    impl Sealed for Request {}
    impl Sealed for Word {}
}

fn json(message: &impl Serialize, bytes_max: usize) -> Result<Vec<u8>, LocalError> {
    let bytes = serde_json::to_vec(message).map_err(LocalError::of_json)?;
    if bytes.len() > bytes_max {
        return Err(LocalError::Length { found: bytes.len() as u64, bytes_max });
    }
    Ok(bytes)
}

fn value<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, LocalError> {
    serde_json::from_slice(bytes).map_err(LocalError::of_json)
}

#[cfg(test)]
mod tests;
