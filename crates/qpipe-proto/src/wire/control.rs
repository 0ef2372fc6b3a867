//! Control messages: between the generated protobuf types and ours.

use std::net::SocketAddr;

use bytes::{Buf, Bytes, BytesMut};
use prost::Message;

use super::address::{address_from_pb, address_to_pb};
use super::{pb, varint};
use crate::cause::Cause;
use crate::fact::{
    Answer, Attempt, Closed, ClosedKind, End, EndKind, Facts, Group, Held, Limit, Open, OpenTarget,
    Opener, Priority,
};
use crate::hello::{Enrolled, Instance, Limits, SessionId};
use crate::id::PipeId;
use crate::limits::{
    ADDRESSES_MAX, CONTROL_MESSAGE_BYTES_MAX, FACTS_PER_MESSAGE_MAX, SETTLED_RANGES_MAX,
};
use crate::ticket::Secret;

/// A message of the control stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControlMessage {
    /// Where the sender can be reached.
    Addresses(Vec<SocketAddr>),
    /// A graceful end.
    Bye(Bye),
    /// Statements about pipes.
    Facts(FactsMessage),
    /// The first message of each side.
    Hello(Hello),
}

/// A graceful end of the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bye {
    /// How many opens of the peer were seen.
    pub opens_seen: u64,
}

/// Statements about pipes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FactsMessage {
    /// What is stated about each pipe.
    pub pipes: Vec<(PipeId, Facts)>,
    /// A raised cumulative number of opens.
    pub opens_allowed: Option<u64>,
    /// Forgotten pipes, first and last, of one opener each.
    pub settled: Vec<(PipeId, PipeId)>,
}

impl FactsMessage {
    /// Whether it states nothing.
    pub fn is_empty(&self) -> bool {
        self.pipes.is_empty() && self.opens_allowed.is_none() && self.settled.is_empty()
    }
}

/// The first message of each side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Protocol versions that the sender speaks; of the acceptor, the one it chose.
    pub versions: Vec<u32>,
    /// The session's id, chosen by the side that dialled its first connection.
    pub session: SessionId,
    /// Which of the session's connections this is.
    pub epoch: u64,
    /// Which run of the sender's node this is.
    pub instance: Instance,
    /// Whether the sender has heard a Hello of this session before.
    pub resumed: bool,
    /// What the peer may do before it hears more.
    pub limits: Limits,
    /// The secret of a ticket, from a dialler that no rule may list.
    pub ticket: Option<Secret>,
    /// What an invitation granted.
    pub enrolled: Option<Enrolled>,
    /// Name and version of the sender's program.
    pub software: String,
}

/// A control message that cannot be understood: the session ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a malformed control message: {0}")]
pub struct MalformedMessage(pub &'static str);

/// Cuts the bytes of a control stream into messages.
#[derive(Debug, Default)]
pub struct ControlDecoder {
    buffer: BytesMut,
}

impl ControlDecoder {
    /// Takes in the next bytes of the stream. Call [`ControlDecoder::next`] until it gives nothing
    /// before pushing more, so that no more than one message is kept.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next message, if one is complete.
    ///
    /// # Errors
    /// The stream cannot be understood from here on.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<ControlMessage>, MalformedMessage> {
        let Some((length, prefix)) = varint::decode(&self.buffer) else { return Ok(None) };
        if length > CONTROL_MESSAGE_BYTES_MAX as u64 {
            return Err(MalformedMessage("too long"));
        }
        if length == 0 {
            return Err(MalformedMessage("empty"));
        }
        let total = prefix + length as usize;
        if self.buffer.len() < total {
            return Ok(None);
        }
        let mut message = self.buffer.split_to(total).freeze();
        message.advance(prefix);
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
        }
        parse(message).map(Some)
    }
}

/// The length of a message takes so many bytes at most (RFC 9000, section 16).
const LENGTH_BYTES_MAX: usize = 4;

/// A message as it goes on the stream, with its length before it.
pub fn encode_control(message: &ControlMessage) -> Bytes {
    let body = match message {
        ControlMessage::Addresses(addresses) => {
            let addresses = addresses.iter().map(address_to_pb).collect();
            pb::control_message::Body::Addresses(pb::Addresses { addresses })
        }
        ControlMessage::Bye(bye) => {
            pb::control_message::Body::Bye(pb::Bye { opens_seen: bye.opens_seen })
        }
        ControlMessage::Facts(facts) => pb::control_message::Body::Facts(facts_to_pb(facts)),
        ControlMessage::Hello(hello) => pb::control_message::Body::Hello(hello_to_pb(hello)),
    };
    with_length(&pb::ControlMessage { body: Some(body) })
}

/// The protobuf message with its length before it.
pub(super) fn with_length(message: &impl Message) -> Bytes {
    behind(&[], message)
}

/// The same behind other bytes.
pub(super) fn behind(before: &[u8], message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut out = Vec::with_capacity(before.len() + LENGTH_BYTES_MAX + length);
    out.extend_from_slice(before);
    varint::encode(length as u64, &mut out);
    // It fails only where there is no room, and a vector has some.
    let _ = message.encode(&mut out);
    out.into()
}

fn parse(message: Bytes) -> Result<ControlMessage, MalformedMessage> {
    let message = pb::ControlMessage::decode(message)
        .map_err(|_| MalformedMessage("not a protobuf message"))?;
    match message.body.ok_or(MalformedMessage("of no known kind"))? {
        pb::control_message::Body::Addresses(message) => {
            if message.addresses.len() > ADDRESSES_MAX {
                return Err(MalformedMessage("too many addresses"));
            }
            let addresses: Result<Vec<_>, _> =
                message.addresses.into_iter().map(address_from_pb).collect();
            Ok(ControlMessage::Addresses(addresses?))
        }
        pb::control_message::Body::Bye(bye) => {
            Ok(ControlMessage::Bye(Bye { opens_seen: bye.opens_seen }))
        }
        pb::control_message::Body::Facts(facts) => facts_from_pb(facts).map(ControlMessage::Facts),
        pb::control_message::Body::Hello(hello) => hello_from_pb(hello).map(ControlMessage::Hello),
    }
}

fn hello_to_pb(hello: &Hello) -> pb::Hello {
    pb::Hello {
        versions: hello.versions.clone(),
        session: hello.session.0.to_vec(),
        initial_limit: hello.limits.initial_limit,
        opens_allowed: hello.limits.opens_allowed,
        ticket: hello.ticket.as_ref().map_or(Vec::new(), secret_to_pb),
        enrolled: hello.enrolled.clone().map(|e| pb::Enrolled {
            name: e.name,
            send: e.send,
            recv: e.recv,
            list: e.list,
        }),
        software: hello.software.clone(),
        epoch: hello.epoch,
        resumed: hello.resumed,
        instance: Some(pb::Instance { start: hello.instance.start, random: hello.instance.random }),
    }
}

fn hello_from_pb(hello: pb::Hello) -> Result<Hello, MalformedMessage> {
    let session = <[u8; 16]>::try_from(&hello.session[..])
        .map_err(|_| MalformedMessage("a session id that is not 16 bytes"))?;
    if hello.epoch == 0 || hello.epoch > PipeId::MAX {
        return Err(MalformedMessage("a Hello without a proper epoch"));
    }
    let instance = hello.instance.ok_or(MalformedMessage("a Hello without an instance"))?;
    let ticket = if hello.ticket.is_empty() { None } else { Some(secret_from_pb(&hello.ticket)?) };
    Ok(Hello {
        versions: hello.versions,
        session: SessionId(session),
        epoch: hello.epoch,
        instance: Instance { start: instance.start, random: instance.random },
        resumed: hello.resumed,
        limits: Limits { initial_limit: hello.initial_limit, opens_allowed: hello.opens_allowed },
        ticket,
        enrolled: hello.enrolled.map(|e| Enrolled {
            name: e.name,
            send: e.send,
            recv: e.recv,
            list: e.list,
        }),
        software: hello.software,
    })
}

fn facts_to_pb(message: &FactsMessage) -> pb::Facts {
    pb::Facts {
        pipes: message.pipes.iter().map(|(id, facts)| pipe_to_pb(*id, facts)).collect(),
        opens_allowed: message.opens_allowed.unwrap_or(0),
        settled: message
            .settled
            .iter()
            .map(|(first, last)| pb::IdRange { first: first.number(), last: last.number() })
            .collect(),
    }
}

fn facts_from_pb(message: pb::Facts) -> Result<FactsMessage, MalformedMessage> {
    if message.pipes.len() > FACTS_PER_MESSAGE_MAX || message.settled.len() > SETTLED_RANGES_MAX {
        return Err(MalformedMessage("facts of too many pipes"));
    }
    let pipes: Result<Vec<_>, _> = message.pipes.into_iter().map(pipe_from_pb).collect();
    let settled: Result<Vec<_>, _> = message.settled.into_iter().map(range_from_pb).collect();
    let opens_allowed = Some(message.opens_allowed).filter(|opens| *opens > 0);
    Ok(FactsMessage { pipes: pipes?, opens_allowed, settled: settled? })
}

fn range_from_pb(range: pb::IdRange) -> Result<(PipeId, PipeId), MalformedMessage> {
    let (first, last) = (id_from_pb(range.first)?, id_from_pb(range.last)?);
    if first > last || first.opener() != last.opener() {
        return Err(MalformedMessage("a range of ids that is none"));
    }
    Ok((first, last))
}

fn pipe_to_pb(id: PipeId, facts: &Facts) -> pb::Pipe {
    pb::Pipe {
        id: id.number(),
        open: facts.open.as_ref().map(open_to_pb),
        accepted: facts.answer == Some(Answer::Accepted),
        refused: match facts.answer {
            Some(Answer::Refused(cause)) => cause.code(),
            _ => 0,
        },
        joined: facts.joined,
        end: facts.end.as_ref().map(end_to_pb),
        limit: facts.limit.map(limit_to_pb),
        returned: facts.returned.map(limit_to_pb),
        consumed: Some(facts.consumed).filter(|consumed| *consumed > 0),
        closed: facts.closed.as_ref().map(closed_to_pb),
        held: facts.held.map(held_to_pb),
    }
}

fn pipe_from_pb(pipe: pb::Pipe) -> Result<(PipeId, Facts), MalformedMessage> {
    let answer = match (pipe.accepted, Cause::from_code(pipe.refused)) {
        (true, Some(_)) => return Err(MalformedMessage("a pipe both accepted and refused")),
        (true, None) => Some(Answer::Accepted),
        (false, cause) => cause.map(Answer::Refused),
    };
    let facts = Facts {
        open: pipe.open.map(open_from_pb).transpose()?,
        answer,
        joined: pipe.joined,
        end: pipe.end.map(end_from_pb).transpose()?,
        limit: pipe.limit.map(limit_from_pb),
        returned: pipe.returned.map(limit_from_pb),
        consumed: pipe.consumed.unwrap_or(0),
        held: pipe.held.map(held_from_pb),
        closed: pipe.closed.map(closed_from_pb).transpose()?,
    };
    Ok((id_from_pb(pipe.id)?, facts))
}

/// An id on the wire.
pub(super) fn id_from_pb(number: u64) -> Result<PipeId, MalformedMessage> {
    PipeId::new(number).ok_or(MalformedMessage("an id out of range"))
}

/// An Open as a message.
pub(super) fn open_to_pb(open: &Open) -> pb::Open {
    pb::Open {
        opener: match open.opener {
            Opener::Reader => pb::Opener::Reader.into(),
            Opener::Writer => pb::Opener::Writer.into(),
        },
        target: match &open.target {
            OpenTarget::Name(name) => Some(pb::open::Target::Name(name.to_string())),
            OpenTarget::Ticket(secret) => Some(pb::open::Target::Ticket(secret_to_pb(secret))),
            OpenTarget::Unknown => None,
        },
        no_wait: open.no_wait,
        priority: match open.priority {
            Priority::High => pb::Priority::High.into(),
            Priority::Low => pb::Priority::Low.into(),
            Priority::Normal => pb::Priority::Normal.into(),
        },
        group: Some(pb::Group { first: open.group.first.number(), size: open.group.size }),
    }
}

/// An Open from a message.
pub(super) fn open_from_pb(open: pb::Open) -> Result<Open, MalformedMessage> {
    let opener = match open.opener() {
        pb::Opener::Reader => Opener::Reader,
        pb::Opener::Writer => Opener::Writer,
        pb::Opener::Unspecified => return Err(MalformedMessage("an Open by neither end")),
    };
    let priority = match open.priority() {
        pb::Priority::High => Priority::High,
        pb::Priority::Low => Priority::Low,
        pb::Priority::Normal => Priority::Normal,
    };
    // A target that cannot be understood concerns this pipe alone, which is refused for it.
    let target = match open.target {
        Some(pb::open::Target::Name(name)) => {
            name.parse().map_or(OpenTarget::Unknown, OpenTarget::Name)
        }
        Some(pb::open::Target::Ticket(secret)) => {
            secret_from_pb(&secret).map_or(OpenTarget::Unknown, OpenTarget::Ticket)
        }
        None => OpenTarget::Unknown,
    };
    let group = open.group.ok_or(MalformedMessage("an Open of no group"))?;
    let group = Group { first: id_from_pb(group.first)?, size: group.size };
    Ok(Open { opener, target, no_wait: open.no_wait, priority, group })
}

/// An End as a message.
pub(super) fn end_to_pb(end: &End) -> pb::End {
    let (kind, cause) = match end.kind {
        EndKind::Aborted(cause) => (pb::EndKind::Aborted, cause.code()),
        EndKind::Eof => (pb::EndKind::Eof, 0),
    };
    pb::End { kind: kind.into(), cause, length: end.length, checksum: end.checksum }
}

/// An End from a message.
pub(super) fn end_from_pb(end: pb::End) -> Result<End, MalformedMessage> {
    let kind = match end.kind() {
        pb::EndKind::Aborted => EndKind::Aborted(cause_from_pb(end.cause)?),
        pb::EndKind::Eof => EndKind::Eof,
        pb::EndKind::Unspecified => return Err(MalformedMessage("an End of no kind")),
    };
    Ok(End { kind, length: end.length, checksum: end.checksum })
}

fn closed_to_pb(closed: &Closed) -> pb::Closed {
    let (kind, cause) = match closed.kind {
        ClosedKind::Aborted => (pb::ClosedKind::Aborted, 0),
        ClosedKind::Broken(cause) => (pb::ClosedKind::Broken, cause.code()),
        ClosedKind::Complete => (pb::ClosedKind::Complete, 0),
        ClosedKind::Corrupt => (pb::ClosedKind::Corrupt, 0),
    };
    pb::Closed { kind: kind.into(), cause, consumed: closed.consumed }
}

fn closed_from_pb(closed: pb::Closed) -> Result<Closed, MalformedMessage> {
    let kind = match closed.kind() {
        pb::ClosedKind::Aborted => ClosedKind::Aborted,
        pb::ClosedKind::Broken => ClosedKind::Broken(cause_from_pb(closed.cause)?),
        pb::ClosedKind::Complete => ClosedKind::Complete,
        pb::ClosedKind::Corrupt => ClosedKind::Corrupt,
        pb::ClosedKind::Unspecified => return Err(MalformedMessage("a Closed of no kind")),
    };
    Ok(Closed { kind, consumed: closed.consumed })
}

fn held_to_pb(held: Held) -> pb::Held {
    let Attempt { epoch, number } = held.attempt;
    pb::Held { epoch, attempt: number, offset: held.offset }
}

fn held_from_pb(held: pb::Held) -> Held {
    let attempt = Attempt { epoch: held.epoch, number: held.attempt };
    Held { attempt, offset: held.offset }
}

fn limit_to_pb(limit: Limit) -> pb::Limit {
    pb::Limit { number: limit.number, offset: limit.offset }
}

fn limit_from_pb(limit: pb::Limit) -> Limit {
    Limit { number: limit.number, offset: limit.offset }
}

fn cause_from_pb(code: u32) -> Result<Cause, MalformedMessage> {
    Cause::from_code(code).ok_or(MalformedMessage("an end without its cause"))
}

fn secret_to_pb(secret: &Secret) -> Vec<u8> {
    secret.expose().to_vec()
}

fn secret_from_pb(bytes: &[u8]) -> Result<Secret, MalformedMessage> {
    let bytes = <[u8; 16]>::try_from(bytes)
        .map_err(|_| MalformedMessage("a ticket secret that is not 16 bytes"))?;
    Ok(Secret::from_bytes(bytes))
}
