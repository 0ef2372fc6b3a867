//! What `qsend` and `qrecv` are where qpipe-quick does not know the system: the `qpipe` beside them.

use std::{
    env, io,
    os::unix::process::CommandExt,
    process::{Command, ExitCode},
};

/// Lets `qpipe` with this subcommand take the place of the process.
#[expect(clippy::disallowed_macros, reason = "the program that says things cannot be run")]
pub(crate) fn run(command: &str) -> ExitCode {
    let failed = |error: io::Error| eprintln!("q{command}: cannot run qpipe: {error}");
    match env::current_exe() {
        Ok(own) => {
            let mut qpipe = Command::new(own.with_file_name("qpipe"));
            failed(qpipe.arg(command).args(env::args_os().skip(1)).exec());
        }
        Err(error) => failed(error),
    }
    ExitCode::FAILURE
}
