//! `qsend` and `qrecv`: `qpipe send` and `qpipe recv`, in processes that cost next to nothing.
//!
//! A command of this host hands its descriptor to the host's node and waits to hear how it went. For a
//! short pipe nearly all of its cost is the start of a process: the dynamic linker, the relocations of 13
//! MB of code, the C library, the command line, a runtime. So this does the plain case in a few system
//! calls, in an executable of a few KiB that nothing is linked to and that begins at its first instruction.
//!
//! Everything else is left to `qpipe`, which takes the place of the process ([execve(2)]): options,
//! tickets, terminals, a host without a node; whatever the node has to say but success; and what is not over
//! after [`PATIENCE_MS`]. A pipe that is open goes on in `qpipe`, which is handed the connection to
//! the node and is told so by `--asked` ([`Progress`]). So there is one program that talks to people, and
//! what this one does not understand cannot be misunderstood.
//!
//! | module | what |
//! | --- | --- |
//! | `given` | arguments and environment, as the kernel puts them on the stack |
//! | `request` | which targets are plain, and the request for one (docs/local-protocol.md) |
//! | `event` | the few events that mean that all goes well |
//! | `system` | system calls |
//! | `memory` | the functions that compilers take for granted |
//! | `run` | from the first instruction to the end |
//!
//! Signals need nothing: a program that dies of one is, to its node, one that was interrupted.
//!
//! [execve(2)]: https://man7.org/linux/man-pages/man2/execve.2.html
//! [`PATIENCE_MS`]: PATIENCE_MS

#![cfg_attr(not(test), no_std)]
#![cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]

mod buffer;
mod event;
mod given;
#[cfg(not(test))]
mod memory;
mod request;
mod run;
mod system;

pub use run::{PATIENCE_MS, Progress, run};

/// Which end of the pipe the program holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It writes: `qsend`.
    Send,
    /// It reads: `qrecv`.
    Recv,
}

/// The whole of a program: the code at which the kernel begins.
///
/// To be used once in a binary without `main` that is linked with `-nostartfiles`.
#[macro_export]
macro_rules! program {
    ($end:expr) => {
        // Some linkers leave the addresses of functions that the C library has as well for the dynamic
        // linker to fill in, which there is none of: unless nobody else could use them.
        core::arch::global_asm!(
            ".hidden memcpy",
            ".hidden memmove",
            ".hidden memset",
            ".hidden memcmp",
            ".hidden bcmp",
            ".hidden strlen",
        );

        #[cfg(target_arch = "x86_64")]
        core::arch::global_asm!(
            // No caller. What the kernel has put on the stack is the one argument; the stack
            // is aligned to 16 bytes.
            ".globl _start",
            "_start:",
            "xor ebp, ebp",
            "mov rdi, rsp",
            "call {begin}",
            "ud2",
            begin = sym begin,
        );

        #[cfg(target_arch = "aarch64")]
        core::arch::global_asm!(
            ".globl _start",
            "_start:",
            "mov x29, xzr",
            "mov x30, xzr",
            "mov x0, sp",
            "bl {begin}",
            "brk #1",
            begin = sym begin,
        );

        extern "C" fn begin(stack: *mut *const u8) -> ! {
            // SAFETY: `_start` alone calls this, with the stack as the kernel has left it.
            unsafe { $crate::run($end, stack) }
        }
    };
}
