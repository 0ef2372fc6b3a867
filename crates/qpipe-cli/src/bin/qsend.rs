//! `qsend`: `qpipe send` for programs that open pipes by the thousand (see qpipe-quick).

#![cfg_attr(quick, no_main)]

#[cfg(not(quick))]
#[path = "../beside.rs"]
mod beside;

#[cfg(quick)]
qpipe_quick::program!(qpipe_quick::End::Send);

#[cfg(not(quick))]
fn main() -> std::process::ExitCode {
    beside::run("send")
}
