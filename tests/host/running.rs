//! Programs that run: watched, waited for with a bound, and killed with all their children when a
//! test is over.

use std::{
    fmt, fs,
    io::Read,
    os::unix::process::{CommandExt, ExitStatusExt},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use super::until;

/// A program, or a shell with what it started.
pub struct Running {
    child: Child,
    what: String,
    stdout: Captured,
    stderr: Captured,
    status: Option<ExitStatus>,
}

impl Running {
    pub fn start(mut command: Command, what: String, captures_stdout: bool) -> Running {
        if captures_stdout {
            command.stdout(Stdio::piped());
        }
        command.stderr(Stdio::piped()).process_group(0);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{what}: {error}"));
        // Its copies of the descriptors that were handed over would hide EOF and broken pipes.
        drop(command);
        let stdout = child.stdout.take().map(Captured::start).unwrap_or_default();
        let stderr = child.stderr.take().map(Captured::start).unwrap_or_default();
        Running { child, what, stdout, stderr, status: None }
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// To the program itself, not to its children.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    pub fn has_ended(&mut self) -> bool {
        self.status = self.status.or(self.child.try_wait().unwrap());
        self.status.is_some()
    }

    /// Waits for the ticket in the command for the other host.
    pub fn ticket(&mut self) -> String {
        until("a ticket", || {
            let text = self.stderr.text();
            let line = text.lines().find(|line| line.starts_with("qpipe ") && is_whole(&text));
            let ticket = line.and_then(|line| line.split(' ').nth(2).map(str::to_owned));
            assert!(ticket.is_some() || !self.has_ended(), "it ended without a ticket");
            ticket
        })
    }

    /// Waits until this stands in the standard error.
    pub fn says(&mut self, what: &str) {
        until(what, || {
            let ended = self.has_ended() && self.stderr.is_over();
            let found = self.stderr.text().contains(what);
            assert!(found || !ended, "it ended without saying {what:?}");
            found.then_some(())
        });
    }

    /// Waits for the word between two others in the standard error.
    pub fn word_of_stderr(&mut self, before: &str, after: &str) -> String {
        self.says(before);
        until(after, || {
            let text = self.stderr.text();
            let rest = text.split_once(before)?.1;
            rest.split_once(after).map(|(word, _)| word.to_owned())
        })
    }

    /// Waits until the standard output so far is this.
    pub fn prints(&mut self, expected: &[u8]) {
        let length = || self.stdout.bytes.lock().unwrap().len();
        until("output", || (length() >= expected.len()).then_some(()));
        super::assert_same(&self.stdout.bytes.lock().unwrap(), expected);
    }

    /// Waits for its end, and that of all who write where it wrote.
    pub fn end(mut self) -> Ended {
        let what = format!("the end of: {}", self.what);
        until(&what, || self.has_ended().then_some(()));
        until(&what, || (self.stdout.is_over() && self.stderr.is_over()).then_some(()));
        Ended {
            what: self.what.clone(),
            status: self.status.unwrap(),
            stdout: std::mem::take(&mut self.stdout.bytes.lock().unwrap()),
            stderr: self.stderr.text(),
        }
    }

    /// The most memory that it ever had resident, in bytes.
    pub fn peak_resident_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap() * 1024
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- {}\n{}---", self.what, self.stderr.text());
        }
        if self.status.is_none() {
            let _ = kill_process_group(self.pid(), Signal::KILL);
            let _ = self.child.wait();
        } else {
            // Others of its group may live on; the group's number is not reused while they do.
            let _ = kill_process_group(self.pid(), Signal::KILL);
        }
    }
}

/// What is left of a program.
pub struct Ended {
    what: String,
    status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Ended {
    /// As a shell shows it.
    pub fn code(&self) -> i32 {
        let signal = || 128 + self.status.signal().unwrap();
        self.status.code().unwrap_or_else(signal)
    }

    /// Fails unless this is its status, as a shell shows it.
    pub fn expect(self, code: i32) -> Ended {
        assert_eq!(self.code(), code, "{self:?}");
        self
    }

    /// Fails unless the standard error has all of these.
    pub fn saying(self, texts: &[&str]) -> Ended {
        for text in texts {
            assert!(self.stderr.contains(text), "no {text:?} in {self:?}");
        }
        self
    }

    /// Fails unless it said and printed nothing.
    pub fn silent(self) -> Ended {
        assert!(self.stdout.is_empty() && self.stderr.is_empty(), "{self:?}");
        self
    }

    /// The statuses of a pipeline, as `"141 0"`.
    pub fn statuses(&self) -> &str {
        let line = self.stderr.lines().find_map(|line| line.strip_prefix("statuses "));
        line.unwrap_or_else(|| panic!("no statuses in {self:?}"))
    }

    pub fn stdout(&self) -> String {
        String::from_utf8(self.stdout.clone()).unwrap()
    }
}

impl fmt::Debug for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.stdout[..self.stdout.len().min(200)];
        let shown = String::from_utf8_lossy(shown);
        writeln!(f, "{}\n{}; {} bytes: {shown}", self.what, self.status, self.stdout.len())?;
        f.write_str(&self.stderr)
    }
}

/// What a program writes, gathered by a thread.
#[derive(Default)]
struct Captured {
    bytes: Arc<Mutex<Vec<u8>>>,
    thread: Option<JoinHandle<()>>,
}

impl Captured {
    fn start(mut from: impl Read + Send + 'static) -> Captured {
        let bytes = Arc::<Mutex<Vec<u8>>>::default();
        let gathered = bytes.clone();
        let thread = thread::spawn(move || {
            let mut buffer = vec![0; 64 * 1024];
            while let Ok(read @ 1..) = from.read(&mut buffer) {
                gathered.lock().unwrap().extend_from_slice(&buffer[..read]);
            }
        });
        Captured { bytes, thread: Some(thread) }
    }

    fn is_over(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes.lock().unwrap()).into_owned()
    }
}

fn is_whole(text: &str) -> bool {
    text.ends_with('\n')
}
