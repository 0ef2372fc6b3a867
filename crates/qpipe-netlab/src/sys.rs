//! The system calls that rustix has no safe form of: all of this crate's unsafe code.

use std::{fs::File, io, mem, os::fd::AsRawFd, os::unix::process::CommandExt, process::Command};

use rustix::process::{Signal, set_parent_process_death_signal};

/// Turns an open `/dev/net/tun` into the network device `name`, which the namespace of this thread
/// gets: layer 3, no packet information, no offloads.
pub(crate) fn make_tun(device: &File, name: &str) -> io::Result<()> {
    // SAFETY: all zeroes is a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    // The last byte stays zero.
    if name.len() >= request.ifr_name.len() {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as i16;
    // SAFETY: TUNSETIFF reads and writes one `ifreq`, which outlives the call.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETIFF as _, &mut request) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Has this thread run as soon as it can, before all ordinary ones. Without the right to do so, it
/// goes on as before: delays are then less exact on a busy machine.
pub(crate) fn prefer_this_thread() {
    let priority = libc::sched_param { sched_priority: 1 };
    let policy = libc::SCHED_RR | libc::SCHED_RESET_ON_FORK;
    // SAFETY: about the calling thread; the pointer is to a live value.
    unsafe { libc::sched_setscheduler(0, policy, &priority) };
}

/// Has the command end when the thread that starts it ends, even if that is killed.
pub(crate) fn end_with_this_thread(command: &mut Command) {
    // SAFETY: one system call, which is safe between fork and exec.
    unsafe {
        command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::TERM))?));
    }
}
