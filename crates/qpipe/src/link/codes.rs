//! The numbers by which connections and streams are closed. They carry no facts: a graceful end is
//! two Byes, whatever the code, and a stream's end is its trailer.

use quinn::VarInt;

/// The connection is no longer needed.
pub(crate) const DONE: VarInt = VarInt::from_u32(0);
/// The peer broke the protocol.
pub(crate) const PROTOCOL: VarInt = VarInt::from_u32(1);
/// No rule lists the peer.
pub(crate) const NOT_ALLOWED: VarInt = VarInt::from_u32(2);
/// The ticket is unknown, used or expired.
pub(crate) const TICKET: VarInt = VarInt::from_u32(3);
/// No protocol version in common.
pub(crate) const VERSION: VarInt = VarInt::from_u32(4);
/// No memory or no place for another session.
pub(crate) const BUSY: VarInt = VarInt::from_u32(5);
/// The session is over at this side, or was never known here.
pub(crate) const GONE: VarInt = VarInt::from_u32(6);
/// A newer connection of the session has taken this one's place.
pub(crate) const SUPERSEDED: VarInt = VarInt::from_u32(7);
/// Two nodes use one key.
pub(crate) const TWIN: VarInt = VarInt::from_u32(8);

/// STOP_SENDING: the reader left, Closed follows on the control stream.
pub(crate) const STOP_BROKEN: VarInt = VarInt::from_u32(1);
/// STOP_SENDING: this stream is not wanted. Any code but [`STOP_BROKEN`] means that.
pub(crate) const STOP_CUT: VarInt = VarInt::from_u32(2);
/// STOP_SENDING: this stream was stopped before its header was read: its writer's node starts another.
pub(crate) const STOP_UNREAD: VarInt = VarInt::from_u32(3);
