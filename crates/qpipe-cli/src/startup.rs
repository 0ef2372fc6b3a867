//! What only the first moments of the process can tell: which standard descriptors were closed,
//! and which signals were ignored. And how it is to manage its memory.
//!
//! Before `main`, Rust's runtime opens /dev/null where a standard descriptor is closed, and ignores
//! SIGPIPE. So `qpipe recv >&-` could not be told from one whose output goes to /dev/null on
//! purpose, and would lose every byte and report success. This looks before the runtime does.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Whether the process was started without a standard input.
pub(crate) fn stdin_was_closed() -> bool {
    STDIN_CLOSED.load(Ordering::Relaxed)
}

/// Whether the process was started without a standard output.
pub(crate) fn stdout_was_closed() -> bool {
    STDOUT_CLOSED.load(Ordering::Relaxed)
}

/// Whether whoever started the process made it ignore the signal, as `nohup` does for SIGHUP and
/// shells for the SIGINT of background jobs. False where the system does not tell.
pub(crate) fn was_ignored(signal: i32) -> bool {
    // Bit 0 stands for signal 1.
    let bit = u32::try_from(signal - 1).ok().and_then(|shift| 1_u64.checked_shl(shift));
    bit.is_some_and(|bit| IGNORED.load(Ordering::Relaxed) & bit != 0)
}

/// Has glibc keep 16 MiB of what was freed, and take 1 MiB at a time. Each datagram that arrives is an
/// allocation: by default memory is given back to the kernel and fetched again, page by page, all the
/// time, which is 2 to 10 % of the processor time of a transfer over Ethernet.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code)]
pub(crate) fn tune_allocator() {
    const KEPT_BYTES: libc::c_int = 16 << 20;
    const STEP_BYTES: libc::c_int = 1 << 20;

    // The threshold above which memory is mapped is to be set along: one that is set stops it from
    // adapting. Refused, all stays as it is.
    for (parameter, bytes) in [
        (libc::M_TRIM_THRESHOLD, KEPT_BYTES),
        (libc::M_TOP_PAD, STEP_BYTES),
        (libc::M_MMAP_THRESHOLD, STEP_BYTES),
    ] {
        // Sound: mallopt(3) changes numbers of the allocator, under its lock, and takes no pointer.
        unsafe { libc::mallopt(parameter, bytes) };
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn tune_allocator() {}

static STDIN_CLOSED: AtomicBool = AtomicBool::new(false);
static STDOUT_CLOSED: AtomicBool = AtomicBool::new(false);
static IGNORED: AtomicU64 = AtomicU64::new(0);

// Unsafe: the linker is told to put a function pointer where the C runtime looks for functions to call
// before `main`. The section holds nothing but such pointers, this one is to a
// function that lives as long as the program, takes no arguments (the C calling convention lets the
// callee ignore those it gets), cannot panic, allocates nothing, and uses nothing of Rust's
// runtime: atomics and system calls only.
#[cfg(target_os = "linux")]
#[used]
#[allow(unsafe_code)]
#[unsafe(link_section = ".init_array")]
static LOOK: extern "C" fn() = look;

#[cfg(target_os = "linux")]
extern "C" fn look() {
    let is_closed = |fd| rustix::io::fcntl_getfd(fd) == Err(rustix::io::Errno::BADF);
    STDIN_CLOSED.store(is_closed(rustix::stdio::stdin()), Ordering::Relaxed);
    STDOUT_CLOSED.store(is_closed(rustix::stdio::stdout()), Ordering::Relaxed);
    IGNORED.store(ignored_now().unwrap_or(0), Ordering::Relaxed);
}

/// Room for the lines before `SigIgn`, of which the list of groups is the long one.
#[cfg(target_os = "linux")]
const STATUS_BYTES_MAX: usize = 16 * 1024;

#[cfg(target_os = "linux")]
fn ignored_now() -> Option<u64> {
    use rustix::fs::{Mode, OFlags};

    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let status = rustix::fs::open(c"/proc/self/status", flags, Mode::empty()).ok()?;
    let mut text = [0_u8; STATUS_BYTES_MAX];
    let mut filled = 0;
    while let Some(rest) = text.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match rustix::io::read(&status, rest).ok()? {
            0 => break,
            bytes => filled += bytes,
        }
    }
    ignored_in(text.get(..filled)?)
}

/// The mask in the line `SigIgn:` of /proc/self/status.
#[cfg(target_os = "linux")]
fn ignored_in(status: &[u8]) -> Option<u64> {
    let line =
        status.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"SigIgn:"))?;
    u64::from_str_radix(std::str::from_utf8(line).ok()?.trim(), 16).ok()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_mask_of_ignored_signals_is_found_among_other_lines() {
        let status =
            b"Name:\tx\nSigBlk:\t0000000000000001\nSigIgn:\t0000000000001002\nSigCgt:\t0\n";

        assert_eq!(ignored_in(status), Some(0x1002));
        assert_eq!(ignored_in(b"Name:\tx\n"), None);
        assert_eq!(ignored_in(b"SigIgn:\tx\n"), None);
    }

    #[test]
    fn a_test_program_is_started_with_its_standard_descriptors() {
        assert!(!stdin_was_closed());
        assert!(!stdout_was_closed());
    }

    #[test]
    fn numbers_that_are_no_signals_are_not_ignored() {
        for signal in [-1, 0, 65, i32::MAX, i32::MIN + 1] {
            assert!(!was_ignored(signal), "{signal}");
        }
    }
}
