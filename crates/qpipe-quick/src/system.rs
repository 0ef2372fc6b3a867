//! System calls, without the C library. Each is one of section 2 of the manual.

use core::mem::{MaybeUninit, size_of};

use syscalls::{Errno, Sysno, syscall};

use crate::given::PATH_BYTES;

/// A descriptor.
pub(crate) type Fd = i32;

pub(crate) const STDIN: Fd = 0;
pub(crate) const STDOUT: Fd = 1;
pub(crate) const STDERR: Fd = 2;

/// A Unix stream socket that never waits and is not inherited.
pub(crate) fn socket() -> Result<Fd, Errno> {
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: takes numbers only.
    unsafe { syscall!(Sysno::socket, libc::AF_UNIX, kind, 0) }.map(|fd| fd as Fd)
}

/// Connects to a socket whose path is shorter than [`PATH_BYTES`].
pub(crate) fn connect(fd: Fd, path: &[u8]) -> Result<(), Errno> {
    let mut address = libc::sockaddr_un {
        sun_family: libc::AF_UNIX as libc::sa_family_t,
        sun_path: [0; PATH_BYTES],
    };
    // The last byte stays 0.
    let room = address.sun_path.iter_mut().take(PATH_BYTES - 1);
    room.zip(path).for_each(|(to, from)| *to = *from as libc::c_char);
    let bytes = size_of::<libc::sockaddr_un>();
    // SAFETY: the address is read, and lives until this returns.
    unsafe { syscall!(Sysno::connect, fd, &raw const address, bytes) }.map(drop)
}

/// The user at the other end of a socket.
pub(crate) fn peer_uid(fd: Fd) -> Result<libc::uid_t, Errno> {
    let mut peer = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut bytes = size_of::<libc::ucred>() as libc::socklen_t;
    let (level, name) = (libc::SOL_SOCKET, libc::SO_PEERCRED);
    // SAFETY: at most `bytes` bytes are written to `peer`, which is plain numbers.
    unsafe { syscall!(Sysno::getsockopt, fd, level, name, &raw mut peer, &raw mut bytes) }?;
    Ok(peer.uid)
}

/// The user whose rights this process has.
pub(crate) fn own_uid() -> Option<libc::uid_t> {
    // SAFETY: takes nothing.
    unsafe { syscall!(Sysno::geteuid) }.ok().map(|uid| uid as libc::uid_t)
}

/// Whether the descriptor is open.
pub(crate) fn is_open(fd: Fd) -> bool {
    // SAFETY: takes numbers only.
    unsafe { syscall!(Sysno::fcntl, fd, libc::F_GETFD) }.is_ok()
}

/// Whether it is that of a terminal.
pub(crate) fn is_terminal(fd: Fd) -> bool {
    let mut settings = MaybeUninit::<libc::termios>::uninit();
    // SAFETY: the kernel's structure, which is the smaller one, is written; nobody reads it.
    unsafe { syscall!(Sysno::ioctl, fd, libc::TCGETS, settings.as_mut_ptr()) }.is_ok()
}

/// The control message that hands over one descriptor (cmsg(3)).
#[repr(C)]
struct Rights {
    head: libc::cmsghdr,
    fd: Fd,
}

/// Sends bytes with a descriptor; gives how many went.
pub(crate) fn send_with(socket: Fd, bytes: &[u8], fd: Fd) -> Result<usize, Errno> {
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: plain numbers and pointers, for which zeroes are a value; some targets pad them by fields
    // that cannot be named.
    let (mut rights, mut message): (Rights, libc::msghdr) = unsafe { core::mem::zeroed() };
    // Without the padding behind the descriptor: CMSG_LEN of cmsg(3).
    rights.head.cmsg_len = (size_of::<libc::cmsghdr>() + size_of::<Fd>()) as _;
    rights.head.cmsg_level = libc::SOL_SOCKET;
    rights.head.cmsg_type = libc::SCM_RIGHTS;
    rights.fd = fd;
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut rights).cast();
    message.msg_controllen = size_of::<Rights>() as _;
    // SAFETY: the message and all that it points to are read only, and live until this returns.
    unsafe { syscall!(Sysno::sendmsg, socket, &raw const message, libc::MSG_NOSIGNAL) }
}

/// Sends bytes; gives how many went.
pub(crate) fn send(socket: Fd, bytes: &[u8]) -> Result<usize, Errno> {
    let flags = libc::MSG_NOSIGNAL;
    // SAFETY: the bytes are read only.
    unsafe { syscall!(Sysno::sendto, socket, bytes.as_ptr(), bytes.len(), flags, 0, 0) }
}

/// Reads what is there without waiting, and leaves it there if `is_left`.
pub(crate) fn receive(socket: Fd, room: &mut [u8], is_left: bool) -> Result<usize, Errno> {
    let flags = if is_left { libc::MSG_PEEK } else { 0 };
    let (start, bytes) = (room.as_mut_ptr(), room.len());
    // SAFETY: at most as many bytes are written as there is room for.
    unsafe { syscall!(Sysno::recvfrom, socket, start, bytes, flags, 0, 0) }
}

/// Waits until there is something to read, for `ms` milliseconds at most.
pub(crate) fn wait(fd: Fd, ms: u64) -> Result<(), Errno> {
    let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    let time = libc::timespec {
        tv_sec: (ms / 1000) as libc::time_t,
        tv_nsec: (ms % 1000 * 1_000_000) as libc::c_long,
    };
    let (poll, time) = (&raw mut poll, &raw const time);
    // SAFETY: one structure is read and written, the time is read and what is left of it may be written
    // to nowhere else; no set of signals is given.
    unsafe { syscall!(Sysno::ppoll, poll, 1, time, 0, 0) }.map(drop)
}

/// Milliseconds of a clock that only goes forward.
pub(crate) fn now_ms() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the structure is written.
    let told = unsafe { syscall!(Sysno::clock_gettime, libc::CLOCK_MONOTONIC, &raw mut time) };
    match told {
        Ok(_) => time.tv_sec as u64 * 1000 + time.tv_nsec as u64 / 1_000_000,
        // Every kernel has this clock. Were it to fail, nothing would be late.
        Err(_) => 0,
    }
}

pub(crate) fn close(fd: Fd) {
    // SAFETY: takes a number. Whoever holds the descriptor closes it.
    let _ = unsafe { syscall!(Sysno::close, fd) };
}

/// Puts /dev/null in the place of a descriptor.
pub(crate) fn fill(place: Fd) -> Result<(), Errno> {
    let flags = libc::O_RDWR | libc::O_CLOEXEC;
    let path = c"/dev/null".as_ptr();
    // SAFETY: the path is read up to the byte that ends it.
    let null = unsafe { syscall!(Sysno::openat, libc::AT_FDCWD, path, flags, 0) }? as Fd;
    put(null, place)
}

/// Puts a descriptor in the place of another one, where it is inherited.
pub(crate) fn put(fd: Fd, place: Fd) -> Result<(), Errno> {
    if fd == place {
        // SAFETY: takes numbers only.
        return unsafe { syscall!(Sysno::fcntl, fd, libc::F_SETFD, 0) }.map(drop);
    }
    // SAFETY: takes numbers only.
    unsafe { syscall!(Sysno::dup3, fd, place, 0) }.map(drop)
}

/// The path of the executable of this process, as far as there is room.
pub(crate) fn own_path(room: &mut [u8]) -> Result<&[u8], Errno> {
    let link = c"/proc/self/exe".as_ptr();
    let (start, bytes) = (room.as_mut_ptr(), room.len());
    // SAFETY: the path is read up to the byte that ends it; at most as many bytes are written as there
    // is room for.
    let bytes = unsafe { syscall!(Sysno::readlinkat, libc::AT_FDCWD, link, start, bytes) }?;
    room.get(..bytes).ok_or(Errno::ENAMETOOLONG)
}

/// Lets another program take the place of this one; comes back only if that fails.
///
/// # Safety
/// `path` ends with a byte of 0; both lists end with a null pointer, and their strings with a byte of 0.
pub(crate) unsafe fn execute(path: *const u8, list: *const *const u8, env: *const *const u8) {
    // SAFETY: as the caller vouches. Nothing is written.
    let _ = unsafe { syscall!(Sysno::execve, path, list, env) };
}

/// Ends the process.
pub(crate) fn exit(status: i32) -> ! {
    loop {
        // SAFETY: takes a number, and does not come back.
        let _ = unsafe { syscall!(Sysno::exit_group, status) };
    }
}

/// Says something on standard error, if anybody listens.
pub(crate) fn say(text: &[u8]) {
    // SAFETY: the bytes are read only.
    let _ = unsafe { syscall!(Sysno::write, STDERR, text.as_ptr(), text.len()) };
}
