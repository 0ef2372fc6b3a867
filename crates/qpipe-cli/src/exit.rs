//! How the process ends, so that the shell sees the truth.

use std::process;

use signal_hook::{consts::SIGPIPE, low_level};

use crate::startup;

/// What the shell is to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Everything was done: 0.
    Success,
    /// A pipe was aborted or failed, or qpipe could not do its work: 1.
    Failure,
    /// The command line makes no sense: 2.
    Usage,
    /// What a program that this one ran has ended with.
    Status(u8),
    /// Death of this signal, which a shell shows as 128 and its number.
    Signal(i32),
}

impl Exit {
    /// How a program ends whose output nobody reads any more: of SIGPIPE, as `cat` would. Where
    /// SIGPIPE was ignored at the start, `cat` would not die of it either, and report a failure.
    pub(crate) fn broken_pipe() -> Self {
        if startup::was_ignored(SIGPIPE) { Self::Failure } else { Self::Signal(SIGPIPE) }
    }

    /// The worse of two: what a command of two pipes ends with. A signal says most, success least.
    pub(crate) fn and(self, other: Self) -> Self {
        let rank = |exit| match exit {
            Self::Success => 0,
            Self::Signal(SIGPIPE) => 1,
            Self::Failure | Self::Status(_) => 2,
            Self::Usage => 3,
            Self::Signal(_) => 4,
        };
        if rank(other) > rank(self) { other } else { self }
    }

    /// Ends the process.
    ///
    /// A thread that is blocked in reading or writing does not hold it up.
    pub(crate) fn leave(self) -> ! {
        match self {
            Self::Success => process::exit(0),
            Self::Failure => process::exit(1),
            Self::Usage => process::exit(2),
            Self::Status(status) => process::exit(status.into()),
            Self::Signal(signal) => {
                // Puts the default action back and raises the signal; only a signal that does not
                // exist lets it return.
                let _ = low_level::emulate_default_handler(signal);
                process::exit(128 + signal)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{env, os::unix::process::ExitStatusExt, process::Command};

    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

    use super::*;

    const HOW: &str = "QPIPE_TEST_EXIT";

    /// Not a test of its own: run by the others in a process that may die.
    #[test]
    fn leaves_as_it_is_told() {
        let Ok(how) = env::var(HOW) else { return };
        match how.as_str() {
            "success" => Exit::Success.leave(),
            "failure" => Exit::Failure.leave(),
            "usage" => Exit::Usage.leave(),
            signal => Exit::Signal(signal.parse().unwrap()).leave(),
        }
    }

    fn end_of(how: &str) -> process::ExitStatus {
        Command::new(env::current_exe().unwrap())
            .args(["--exact", "exit::tests::leaves_as_it_is_told"])
            .env(HOW, how)
            .output()
            .unwrap()
            .status
    }

    #[test]
    fn statuses_are_0_1_and_2() {
        assert_eq!(end_of("success").code(), Some(0));
        assert_eq!(end_of("failure").code(), Some(1));
        assert_eq!(end_of("usage").code(), Some(2));
    }

    #[test]
    fn a_signal_is_died_of_and_not_only_reported() {
        for signal in [SIGHUP, SIGINT, SIGPIPE, SIGTERM] {
            assert_eq!(end_of(&signal.to_string()).signal(), Some(signal));
        }
    }

    #[test]
    fn a_shell_shows_a_broken_pipe_as_141() {
        let test = env::current_exe().unwrap();
        let script = "\"$0\" --exact exit::tests::leaves_as_it_is_told >/dev/null 2>&1; exit $?";
        let status =
            Command::new("sh").args(["-c", script]).arg(test).env(HOW, "13").status().unwrap();

        assert_eq!(status.code(), Some(141));
    }

    #[test]
    fn of_two_pipes_the_worse_end_counts() {
        let broken = Exit::Signal(SIGPIPE);

        assert_eq!(Exit::Success.and(broken), broken);
        assert_eq!(broken.and(Exit::Failure), Exit::Failure);
        assert_eq!(Exit::Failure.and(broken), Exit::Failure);
        assert_eq!(Exit::Failure.and(Exit::Signal(SIGTERM)), Exit::Signal(SIGTERM));
        assert_eq!(Exit::Success.and(Exit::Success), Exit::Success);
    }
}
