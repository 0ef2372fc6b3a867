//! The socket at which a node answers the programs of its host.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::SocketFlags;
use rustix::process::geteuid;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Notify;

use super::LocalError;
use super::codec::Message;
use super::events::{self, EventSender, Words};
use super::message::{Event, Request};
use super::socket::{Way, connect_now, is_nobody, is_too_long, is_trusted, new_socket};
use super::stream::{DESCRIPTORS_MAX, LocalStream, framed, send_some};
use crate::disk::{self, PRIVATE_FILE_MODE};
use crate::home::Home;

/// How long a program may take to ask for something once it is connected.
pub const REQUEST_MAX: Duration = Duration::from_secs(10);

/// Connections that have not asked for anything yet. One more ends the oldest of them.
pub const UNASKED_MAX: usize = 1_024;

/// Programs that wait to be accepted; the kernel may allow fewer.
const BACKLOG_MAX: i32 = 4_096;

/// How long nobody is accepted when there is no descriptor to do it with.
const PAUSE: Duration = Duration::from_millis(100);

/// A node's socket. Dropped, it removes the socket's file, if that is still its own.
#[derive(Debug)]
pub struct Listener {
    socket: UnixListener,
    file: SocketFile,
    /// Given up to accept, and tell, one more when there are no others left.
    spare: Mutex<Option<OwnedFd>>,
    unasked: Unasked,
    /// Programs of other users that were turned away.
    strangers: AtomicU64,
    /// Whose programs are answered, and how to know them: tests lie about it.
    owner: u32,
    who: fn(&UnixStream) -> io::Result<Credentials>,
}

/// Who is at the other end of a connection, as the kernel says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// The process, where the system tells it.
    pub pid: Option<i32>,
    /// Its user.
    pub uid: u32,
}

/// A connection from a program.
#[derive(Debug)]
pub struct ServerStream {
    stream: LocalStream,
    place: Option<Place>,
}

impl Listener {
    /// Listens at the socket of a home. Makes its directory; takes the place of a node that is gone.
    /// To be called inside a tokio runtime, by whoever holds the home's lock.
    ///
    /// # Errors
    /// Another node listens there; something else is in the way; the path is too long; the directory
    /// is not private.
    pub fn bind(home: &Home) -> Result<Listener, LocalError> {
        home.create()?;
        home.create_socket_dir()?;
        let path = home.socket_file();
        let failed = |cause| LocalError::Io { what: "listen at", path: path.clone(), cause };
        let gate = disk::lock_for(&path).map_err(failed)?;
        let links: Vec<PathBuf> = home.socket_files().into_iter().skip(1).collect();
        for place in [&path].into_iter().chain(&links) {
            clear(place)?;
        }
        let socket = listen(&path)?;
        let file = SocketFile::of(path.clone(), links).map_err(failed)?;
        drop(gate);
        Ok(Listener {
            socket: UnixListener::from_std(socket).map_err(failed)?,
            file,
            spare: Mutex::new(spare()),
            unasked: Unasked::default(),
            strangers: AtomicU64::new(0),
            owner: geteuid().as_raw(),
            who: credentials,
        })
    }

    /// The next program that connects. Those of other users are turned away without a word.
    ///
    /// # Errors
    /// The system does not let the node accept anybody, for a reason that it does not get over.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn accept(&self) -> io::Result<(ServerStream, Credentials)> {
        loop {
            let socket = match self.socket.accept().await {
                Ok((socket, _)) => socket,
                Err(error) if is_passing(&error) => continue,
                Err(error) if is_exhaustion(&error) => {
                    if !self.turn_one_away() {
                        tokio::time::sleep(PAUSE).await;
                    }
                    continue;
                }
                Err(error) => return Err(error),
            };
            // One that cannot be known is not answered.
            let Ok(credentials) = (self.who)(&socket) else { continue };
            if !is_trusted(credentials.uid, self.owner) {
                self.strangers.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            let stream = LocalStream::new(socket);
            let place = Some(self.unasked.enter());
            return Ok((ServerStream { stream, place }, credentials));
        }
    }

    /// Whether the socket's file is still this node's: another could take its place after somebody
    /// removed it, and no program would come here any more.
    pub fn is_current(&self) -> bool {
        self.file.is_ours()
    }

    /// How many programs of other users were turned away.
    pub fn strangers(&self) -> u64 {
        self.strangers.load(Ordering::Relaxed)
    }

    /// Accepts one program with the spare descriptor, tells it why it is not answered, and closes its
    /// connection. Whether that was possible.
    fn turn_one_away(&self) -> bool {
        let mut kept = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        drop(kept.take());
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let accepted = rustix::net::accept_with(&self.socket, flags);
        if let Ok(socket) = &accepted {
            let text = "the node of this host has too many files open".to_owned();
            if let Ok(bytes) = framed(&Event::Failed { text }) {
                // It has asked for nothing that would be in its way.
                let _ = send_some(socket.as_fd(), &bytes, &[]);
            }
        }
        let is_done = accepted.is_ok();
        drop(accepted);
        *kept = spare();
        is_done && kept.is_some()
    }
}

impl ServerStream {
    /// What the program asks for, with the descriptors that belong to it: none if it asks for
    /// nothing before it leaves, or before others want its place. One that takes longer than
    /// [`REQUEST_MAX`], or does not keep to the protocol, is told so; the connection is to be dropped.
    ///
    /// # Errors
    /// What it did wrong.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn recv_request(&mut self) -> Result<Option<(Request, Vec<OwnedFd>)>, LocalError> {
        let received = self.read_request().await;
        let place = self.place.take();
        if let Err(error) = &received {
            let text = error.to_string();
            if let Ok(bytes) = framed(&Event::Failed { text }) {
                // Nothing was sent before, so there is room.
                let _ = send_some(self.stream.socket.as_fd(), &bytes, &[]);
            }
        }
        drop(place);
        received
    }

    /// Sends an event, for as long as the program takes.
    ///
    /// # Errors
    /// The event is too long, or the program is gone.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn send<M: Message + Sync>(&mut self, message: &M) -> Result<(), LocalError> {
        self.stream.send(message, &[]).await
    }

    /// The two directions, once the request was heard.
    pub fn into_parts(self) -> (EventSender, Words) {
        events::into_parts(self.stream)
    }

    async fn read_request(&mut self) -> Result<Option<(Request, Vec<OwnedFd>)>, LocalError> {
        let stream = &mut self.stream;
        let request = tokio::select! {
            // A request that is there counts, however late.
            biased;
            request = stream.incoming.message::<Request>(&stream.socket, DESCRIPTORS_MAX) => request?,
            () = Place::lost(&self.place) => return Err(LocalError::Crowded),
            () = tokio::time::sleep(REQUEST_MAX) => return Err(LocalError::Silent),
        };
        let Some(request) = request else { return Ok(None) };
        let descriptors = stream.incoming.take_descriptors();
        let (found, allowed) = (descriptors.len(), request.descriptors());
        if found != allowed {
            return Err(LocalError::Descriptors { found, allowed });
        }
        Ok(Some((request, descriptors)))
    }
}

/// The connections that have not asked for anything yet, oldest first.
#[derive(Clone, Debug, Default)]
struct Unasked(Arc<Mutex<VecDeque<Arc<Notify>>>>);

/// A connection's place among them, until it is dropped.
#[derive(Debug)]
struct Place {
    unasked: Unasked,
    lost: Arc<Notify>,
}

impl Unasked {
    fn enter(&self) -> Place {
        let lost = Arc::new(Notify::new());
        let mut places = self.lock();
        places.push_back(lost.clone());
        if places.len() > UNASKED_MAX {
            places.pop_front().inspect(|oldest| oldest.notify_one());
        }
        Place { unasked: self.clone(), lost }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Arc<Notify>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Waits until others have taken the place.
    async fn lost(place: &Option<Place>) {
        match place {
            Some(place) => place.lost.notified().await,
            None => std::future::pending().await,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.unasked.lock().retain(|place| !Arc::ptr_eq(place, &self.lost));
    }
}

/// The file of a socket, and links to it.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
    links: Vec<PathBuf>,
}

impl SocketFile {
    /// Makes the links to a socket that was just bound; to be called with its lock held. Where they
    /// cannot be made, the socket's file goes, too.
    fn of(path: PathBuf, links: Vec<PathBuf>) -> io::Result<SocketFile> {
        let made = identity(&path).and_then(|identity| {
            links.iter().try_for_each(|link| symlink(&path, link)).map(|()| identity)
        });
        match made {
            Ok(identity) => Ok(SocketFile { path, identity, links }),
            // Not by dropping a `SocketFile`, which takes the lock.
            Err(error) => {
                remove(&path, &links);
                Err(error)
            }
        }
    }

    fn is_ours(&self) -> bool {
        identity(&self.path).is_ok_and(|found| found == self.identity)
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Whoever listens next has it while it looks and binds.
        let _gate = disk::lock_for(&self.path);
        if self.is_ours() {
            remove(&self.path, &self.links);
        }
    }
}

/// Removes a socket's file, and what links to it. What stays is in nobody's way: connecting to it
/// tells that it is stale.
fn remove(path: &Path, links: &[PathBuf]) {
    let _ = fs::remove_file(path);
    for link in links {
        if fs::read_link(link).is_ok_and(|target| target == path) {
            let _ = fs::remove_file(link);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|found| (found.dev(), found.ino()))
}

/// Removes a socket, or a link to one, at which nobody listens.
fn clear(path: &Path) -> Result<(), LocalError> {
    let failed = |cause| LocalError::Io { what: "replace", path: path.to_path_buf(), cause };
    let kind = match fs::symlink_metadata(path) {
        Ok(found) => found.file_type(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    if !kind.is_socket() && !kind.is_symlink() {
        return Err(LocalError::NotASocket { path: path.to_path_buf() });
    }
    match connect_now(path) {
        Err(error) if is_nobody(&error) => fs::remove_file(path).map_err(failed),
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(failed(error)),
        // Connected, or so many wait that it cannot.
        _ => Err(LocalError::Live { path: path.to_path_buf() }),
    }
}

fn listen(path: &Path) -> Result<StdListener, LocalError> {
    let failed = |cause| LocalError::Io { what: "listen at", path: path.to_path_buf(), cause };
    let way = Way::to(path).map_err(|error| match is_too_long(&error) {
        true => LocalError::PathTooLong { path: path.to_path_buf() },
        false => failed(error),
    })?;
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = new_socket(flags).map_err(failed)?;
    rustix::net::bind(&socket, &way.address).map_err(|errno| failed(errno.into()))?;
    // Nobody can connect before it listens, whatever the umask left open.
    fs::set_permissions(path, fs::Permissions::from_mode(PRIVATE_FILE_MODE)).map_err(failed)?;
    rustix::net::listen(&socket, BACKLOG_MAX).map_err(|errno| failed(errno.into()))?;
    Ok(StdListener::from(socket))
}

fn credentials(socket: &UnixStream) -> io::Result<Credentials> {
    let told = socket.peer_cred()?;
    Ok(Credentials { pid: told.pid(), uid: told.uid() })
}

fn spare() -> Option<OwnedFd> {
    fs::File::open("/dev/null").ok().map(OwnedFd::from)
}

/// Whether the next attempt may go well.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted)
}

/// Whether the system has no descriptor or memory for one more connection.
fn is_exhaustion(error: &io::Error) -> bool {
    let errnos = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    errnos.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

#[cfg(test)]
mod tests;
