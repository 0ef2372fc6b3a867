//! The system call that rustix has no form of: all of this crate's unsafe code.

use std::{io, mem, time::Duration};

/// How a process ended, and what it used together with the children it has waited for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Accounts {
    /// As wait(2) gives it.
    pub(crate) status: i32,
    /// Processor time, user and system.
    pub(crate) cpu: Duration,
    /// The most memory of one process, in KiB; at least what this program had when it started it.
    pub(crate) rss_kib: u64,
}

/// Waits for a child that nobody else waits for.
pub(crate) fn wait(pid: u32) -> io::Result<Accounts> {
    let mut status = 0;
    // SAFETY: all zeroes is a valid `rusage`.
    let mut usage: libc::rusage = unsafe { mem::zeroed() };
    loop {
        // SAFETY: both pointers are to live values of the right types.
        let waited = unsafe { libc::wait4(pid as libc::pid_t, &mut status, 0, &mut usage) };
        if waited > 0 {
            break;
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    let time = |t: libc::timeval| Duration::new(t.tv_sec as u64, t.tv_usec as u32 * 1000);
    let cpu = time(usage.ru_utime) + time(usage.ru_stime);
    Ok(Accounts { status, cpu, rss_kib: usage.ru_maxrss as u64 })
}
