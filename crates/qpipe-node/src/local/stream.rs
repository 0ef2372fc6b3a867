//! One connection between a program of this host and the host's node, as messages.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::{MaybeUninit, take};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use bytes::{Buf, Bytes};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use tokio::io::Interest;
use tokio::net::UnixStream;

use super::LocalError;
use super::codec::Message;
use super::socket::taken;

/// Descriptors that come with a request, at most: one to read, one to write.
pub const DESCRIPTORS_MAX: usize = 2;

/// The bytes of a message's length.
const LENGTH_BYTES: usize = 4;

/// What is read at once, so that memory follows what came and not what was announced.
const READ_BYTES_MAX: usize = 16 << 10;

/// A connection to the node of this host.
///
/// It lives as long as what it asked for: dropped, it tells the node that the program is gone.
#[derive(Debug)]
pub struct LocalStream {
    pub(super) socket: UnixStream,
    pub(super) incoming: Incoming,
    outgoing: Bytes,
}

impl LocalStream {
    pub(super) fn new(socket: UnixStream) -> LocalStream {
        LocalStream { socket, incoming: Incoming::default(), outgoing: Bytes::new() }
    }

    /// Goes on with a connection to a node over which another program has asked for something. Needs tokio's
    /// runtime.
    ///
    /// # Errors
    /// [`LocalError::Stream`]: it is no Unix stream socket, or whoever is at its other end is another user.
    pub fn adopt(socket: OwnedFd) -> Result<LocalStream, LocalError> {
        match taken(socket).map_err(LocalError::Stream)? {
            (socket, None) => Ok(LocalStream::new(socket)),
            (_, Some(_)) => Err(LocalError::Stream(io::ErrorKind::PermissionDenied.into())),
        }
    }

    /// Sends a message and, with it, copies of the descriptors: close your own ones then, or the
    /// other side never sees their end.
    ///
    /// # Errors
    /// The message is too long, or the connection is gone.
    ///
    /// # Cancel safety
    /// Cancel safe without descriptors: what was begun goes out before the next message. With
    /// descriptors, it is unknown whether the message was sent.
    pub async fn send<M: Message + Sync>(
        &mut self,
        message: &M,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), LocalError> {
        let message = framed(message)?;
        self.flush(&[]).await?;
        self.outgoing = message;
        self.flush(descriptors).await
    }

    /// The next message; none when the other side closed the connection. Messages that only a later
    /// version knows are passed over.
    ///
    /// # Errors
    /// What came is no message, or had descriptors with it, or the connection failed. There is no
    /// use in reading on.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn recv<M: Message>(&mut self) -> Result<Option<M>, LocalError> {
        self.incoming.message(&self.socket, 0).await
    }

    async fn flush(&mut self, descriptors: &[BorrowedFd<'_>]) -> Result<(), LocalError> {
        write(&self.socket, &mut self.outgoing, descriptors).await.map_err(LocalError::Stream)
    }
}

/// A message as it is sent.
pub(super) fn framed<M: Message>(message: &M) -> Result<Bytes, LocalError> {
    let json = message.encode()?;
    let too_long = LocalError::Length { found: json.len() as u64, bytes_max: M::BYTES_MAX };
    let length = u32::try_from(json.len()).map_err(|_| too_long)?;
    Ok([&length.to_be_bytes(), json.as_slice()].concat().into())
}

/// Writes all of `bytes`, the first of them with the descriptors.
///
/// # Cancel safety
/// `bytes` is what is still to be written; whether the descriptors went is unknown if nothing did.
pub(super) async fn write(
    socket: &UnixStream,
    bytes: &mut Bytes,
    mut descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    while !bytes.is_empty() {
        let send = || send_some(socket.as_fd(), bytes, descriptors);
        let sent = socket.async_io(Interest::WRITABLE, send).await?;
        bytes.advance(sent);
        descriptors = &[];
    }
    Ok(())
}

/// Sends what the socket takes without waiting.
pub(super) fn send_some(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        // The space is padded, and may hold more than is meant for it.
        let is_few = descriptors.len() <= DESCRIPTORS_MAX;
        if !is_few || !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
    }
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    Ok(sendmsg(socket, &[IoSlice::new(bytes)], &mut control, flags)?)
}

/// What came of a message so far.
#[derive(Debug, Default)]
pub(super) struct Incoming {
    /// Its length and its JSON.
    bytes: Vec<u8>,
    descriptors: Vec<OwnedFd>,
}

impl Incoming {
    /// The next message, to which up to `allowed` descriptors may belong; none when the other side
    /// closed the connection.
    ///
    /// # Cancel safety
    /// Cancel safe: what came is kept here.
    pub(super) async fn message<M: Message>(
        &mut self,
        socket: &UnixStream,
        allowed: usize,
    ) -> Result<Option<M>, LocalError> {
        loop {
            let Some(json) = self.json(socket, M::BYTES_MAX, allowed).await? else {
                return Ok(None);
            };
            if let Some(message) = M::parse(&json)? {
                return Ok(Some(message));
            }
        }
    }

    /// The descriptors that came with the last message.
    pub(super) fn take_descriptors(&mut self) -> Vec<OwnedFd> {
        take(&mut self.descriptors)
    }

    async fn json(
        &mut self,
        socket: &UnixStream,
        bytes_max: usize,
        allowed: usize,
    ) -> Result<Option<Vec<u8>>, LocalError> {
        loop {
            let missing = self.missing(bytes_max)?;
            if missing == 0 {
                return Ok(Some(take(&mut self.bytes).split_off(LENGTH_BYTES)));
            }
            let read = || self.read_some(socket.as_fd(), missing.min(READ_BYTES_MAX), allowed);
            let read = match socket.async_io(Interest::READABLE, read).await {
                // Closed with something unread that we had sent.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Read::End,
                read => read.map_err(LocalError::Stream)?,
            };
            match read {
                Read::DescriptorsLost => return Err(LocalError::DescriptorsLost),
                Read::End if self.bytes.is_empty() => return Ok(None),
                Read::End => return Err(LocalError::EndedEarly),
                Read::Some => self.check_descriptors(allowed)?,
            }
        }
    }

    /// How many bytes of the message have not come; as far as known while its length has not.
    fn missing(&self, bytes_max: usize) -> Result<usize, LocalError> {
        let Some(length) = self.bytes.first_chunk::<LENGTH_BYTES>() else {
            return Ok(LENGTH_BYTES - self.bytes.len());
        };
        let length = u32::from_be_bytes(*length);
        match usize::try_from(length) {
            Ok(length) if (1..=bytes_max).contains(&length) => {
                Ok(length + LENGTH_BYTES - self.bytes.len())
            }
            _ => Err(LocalError::Length { found: length.into(), bytes_max }),
        }
    }

    fn check_descriptors(&self, allowed: usize) -> Result<(), LocalError> {
        let found = self.descriptors.len();
        if found > allowed { Err(LocalError::Descriptors { found, allowed }) } else { Ok(()) }
    }

    /// Reads up to `bytes_max`, and never beyond the message: what comes with a byte belongs to the
    /// message that the byte is of.
    fn read_some(
        &mut self,
        socket: BorrowedFd<'_>,
        bytes_max: usize,
        allowed: usize,
    ) -> io::Result<Read> {
        // With room for one more than allowed, too many are told from those that the kernel could
        // not deliver.
        let mut space =
            [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX + 1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let start = self.bytes.len();
        self.bytes.resize(start + bytes_max, 0);
        let (_, room) = self.bytes.split_at_mut(start);
        let flags = RecvFlags::DONTWAIT | close_on_exec();
        let received = recvmsg(socket, &mut [IoSliceMut::new(room)], &mut control, flags);
        let bytes = received.as_ref().map_or(0, |received| received.bytes);
        self.bytes.truncate(start + bytes);
        let received = received?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                self.descriptors.extend(descriptors);
            }
        }
        if received.flags.contains(ReturnFlags::CTRUNC) && self.descriptors.len() <= allowed {
            return Ok(Read::DescriptorsLost);
        }
        Ok(if bytes == 0 { Read::End } else { Read::Some })
    }
}

/// What a read brought.
enum Read {
    DescriptorsLost,
    End,
    Some,
}

/// No program that the node starts is to inherit what a program handed over.
#[cfg(target_os = "linux")]
fn close_on_exec() -> RecvFlags {
    RecvFlags::CMSG_CLOEXEC
}

/// Elsewhere std marks what a child is not to have when it starts one.
#[cfg(not(target_os = "linux"))]
fn close_on_exec() -> RecvFlags {
    RecvFlags::empty()
}

#[cfg(test)]
mod tests;
