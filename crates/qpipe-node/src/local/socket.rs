//! The way to the socket of a home's node.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;
use std::path::Path;
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with};
use rustix::process::geteuid;
use tokio::net::UnixStream;

use super::LocalError;
use super::stream::LocalStream;
use crate::home::Home;

/// How long a node may leave programs waiting before it lets one more connect.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// Connects to the node of a home; none if nobody listens.
///
/// # Errors
/// Whoever listens is another user, or takes no connection in time.
///
/// # Cancel safety
/// Cancel safe.
pub async fn connect(home: &Home) -> Result<Option<LocalStream>, LocalError> {
    for path in home.socket_files() {
        if let Some(socket) = connect_to(&path).await? {
            return Ok(Some(LocalStream::new(socket)));
        }
    }
    Ok(None)
}

async fn connect_to(path: &Path) -> Result<Option<UnixStream>, LocalError> {
    let failed = |cause| LocalError::Io { what: "connect to", path: path.to_path_buf(), cause };
    let socket = match connect_now(path) {
        // So many wait already that one more would have to wait.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            let path = path.to_path_buf();
            let connecting = tokio::task::spawn_blocking(move || connect_patiently(&path));
            connecting.await.map_err(|error| failed(error.into()))?
        }
        socket => socket,
    };
    let socket = match socket {
        Ok(socket) => socket,
        Err(error) if is_nobody(&error) => return Ok(None),
        Err(error) if is_too_long(&error) => {
            return Err(LocalError::PathTooLong { path: path.to_path_buf() });
        }
        Err(error) => return Err(failed(error)),
    };
    let (socket, stranger) = taken(socket).map_err(failed)?;
    match stranger {
        Some(uid) => Err(LocalError::Stranger { path: path.to_path_buf(), uid }),
        None => Ok(Some(socket)),
    }
}

/// A connected socket for tokio, and the user at its other end if that one is not trusted.
pub(super) fn taken(socket: OwnedFd) -> io::Result<(UnixStream, Option<u32>)> {
    let socket = StdStream::from(socket);
    socket.set_nonblocking(true)?;
    let socket = UnixStream::from_std(socket)?;
    let uid = socket.peer_cred()?.uid();
    Ok((socket, (!is_trusted(uid, geteuid().as_raw())).then_some(uid)))
}

/// Whether descriptors may be taken from, or given to, a process of this user.
pub(super) fn is_trusted(uid: u32, own: u32) -> bool {
    uid == own || uid == 0
}

/// Whether connecting failed because nobody listens.
pub(super) fn is_nobody(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound)
}

/// Whether a path fits no socket's address.
pub(super) fn is_too_long(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::NAMETOOLONG.raw_os_error())
}

/// Connects without waiting: `WouldBlock` if too many wait already.
pub(super) fn connect_now(path: &Path) -> io::Result<OwnedFd> {
    let socket = new_socket(SocketFlags::NONBLOCK | SocketFlags::CLOEXEC)?;
    let way = Way::to(path)?;
    rustix::net::connect(&socket, &way.address)?;
    Ok(socket)
}

/// Connects, waiting for [`CONNECT_MAX`].
fn connect_patiently(path: &Path) -> io::Result<OwnedFd> {
    let socket = new_socket(SocketFlags::CLOEXEC)?;
    set_socket_timeout(&socket, Timeout::Send, Some(CONNECT_MAX))?;
    let way = Way::to(path)?;
    rustix::net::connect(&socket, &way.address)?;
    Ok(socket)
}

pub(super) fn new_socket(flags: SocketFlags) -> io::Result<OwnedFd> {
    Ok(socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?)
}

/// The address of a socket's file.
pub(super) struct Way {
    pub(super) address: SocketAddrUnix,
    /// The directory that the address goes through, where the path itself is too long.
    _dir: Option<OwnedFd>,
}

impl Way {
    /// The address of `path`.
    ///
    /// # Errors
    /// The path is too long (see [`is_too_long`]), or its directory is not there.
    pub(super) fn to(path: &Path) -> io::Result<Way> {
        match SocketAddrUnix::new(path) {
            Ok(address) => Ok(Way { address, _dir: None }),
            Err(rustix::io::Errno::NAMETOOLONG) => Way::through_directory(path),
            Err(error) => Err(error.into()),
        }
    }

    #[cfg(target_os = "linux")]
    fn through_directory(path: &Path) -> io::Result<Way> {
        use std::os::fd::AsRawFd;

        use rustix::fs::{Mode, OFlags, open};

        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = open(crate::disk::parent(path), flags, Mode::empty())?;
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let short = Path::new("/proc/self/fd").join(dir.as_raw_fd().to_string()).join(name);
        Ok(Way { address: SocketAddrUnix::new(&short)?, _dir: Some(dir) })
    }

    #[cfg(not(target_os = "linux"))]
    fn through_directory(_path: &Path) -> io::Result<Way> {
        Err(rustix::io::Errno::NAMETOOLONG.into())
    }
}
