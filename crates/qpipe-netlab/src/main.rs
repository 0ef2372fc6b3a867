//! `netlab`: runs programs in network namespaces that an emulated bad link joins.

use std::{
    io::{Write, stderr},
    process::ExitCode,
};

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    match qpipe_netlab::run(std::env::args_os()) {
        Ok(status) => ExitCode::from(status),
        Err(error) => fail(&format!("{error:#}")),
    }
}

#[cfg(not(target_os = "linux"))]
fn main() -> ExitCode {
    fail("there are network namespaces on Linux only")
}

fn fail(reason: &str) -> ExitCode {
    // Nobody may be left to read it.
    let _ = writeln!(stderr(), "netlab: {reason}");
    ExitCode::FAILURE
}
