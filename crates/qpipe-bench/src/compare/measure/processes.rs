//! Many short pipes, each between processes of its own.

use std::{
    fs::File,
    io::Write,
    path::Path,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, pidfd_open},
};

use super::Bench;
use crate::{
    compare::{
        peer::Peer,
        plan::{A, B, Plan, Started, home_dir},
        sample::Values,
    },
    measure::{noise, quantile_ms},
    run::{Site, stop},
};

/// What each pipe carries, in bytes.
const CONTENT_BYTES: usize = 1024;

/// How long one pipe may take.
const PIPE_MAX: Duration = Duration::from_secs(60);

/// How to start one end of a pipe: without a shell, which would cost as much as what is measured.
struct End<'a> {
    site: &'a Site,
    host: usize,
    /// The program, and its arguments before the pipe's own.
    words: Vec<String>,
    /// What the last argument is but for the pipe's number.
    pipe: &'a str,
    /// Whether it writes.
    is_fed: bool,
}

/// One end of a pipe, from the start of its process to the end of it.
struct Life {
    number: usize,
    start: Instant,
    end: Instant,
}

/// `pipes`, so many at once: how many a second.
pub(super) fn many(
    bench: &Bench,
    peer: Peer,
    site: &Site,
    pipes: usize,
    at_once: usize,
) -> Result<Values> {
    let plan = match peer {
        Peer::Qpipe | Peer::Quick => Plan::nodes(site)?,
        Peer::SshMaster => Plan::ssh_server(peer, site, &bench.state),
        _ => bail!("{} has no shared connection", peer.name()),
    };
    let Started { servers: _running, client, .. } = plan.start(site)?;
    let end = |host, words: &[&str], pipe, is_fed| {
        let words = words.iter().map(|word| (*word).to_owned()).collect();
        End { site, host, words, pipe, is_fed }
    };
    let ends = match peer {
        Peer::Quick => vec![end(B, &["qrecv"], "p", false), end(A, &["qsend"], "b/p", true)],
        Peer::Qpipe => {
            vec![end(B, &["qpipe", "recv"], "p", false), end(A, &["qpipe", "send"], "b/p", true)]
        }
        _ => {
            let words: Vec<&str> = client.split_whitespace().filter(|w| *w != "exec").collect();
            vec![end(A, &words, "cat >/dev/null #", true)]
        }
    };
    // The first one makes the connection.
    all(&ends, pipes..pipes + 1, 1)?;
    let start = Instant::now();
    let lives = all(&ends, 0..pipes, at_once)?;
    let seconds = start.elapsed().as_secs_f64();
    let mut whole: Vec<Option<(Instant, Instant)>> = vec![None; pipes];
    for Life { number, start, end } in lives {
        let (first, last) = whole[number].get_or_insert((start, end));
        (*first, *last) = ((*first).min(start), (*last).max(end));
    }
    let mut times: Vec<Duration> = whole.iter().flatten().map(|(from, to)| *to - *from).collect();
    times.sort_unstable();
    let mut values = Values::from([("pipes_s".to_owned(), pipes as f64 / seconds)]);
    for (name, share) in [("p50_ms", 0.5), ("p99_ms", 0.99)] {
        values.extend(quantile_ms(&times, share).map(|time| (name.to_owned(), time)));
    }
    Ok(values)
}

/// All of these pipes, so many at once. Their ends meet by number, which each host takes in turn.
fn all(ends: &[End<'_>], numbers: std::ops::Range<usize>, at_once: usize) -> Result<Vec<Life>> {
    thread::scope(|scope| {
        let hosts: Vec<_> = ends
            .iter()
            .map(|end| {
                let numbers = numbers.clone();
                // Threads, and the processes that they start, are where the thread is that starts them.
                scope.spawn(move || end.site.at(end.host, || end.many(numbers, at_once)))
            })
            .collect();
        let lives: Result<Vec<Vec<Life>>> = hosts
            .into_iter()
            .map(|host| host.join().map_err(|_| anyhow!("a host panicked"))?)
            .collect();
        Ok(lives?.into_iter().flatten().collect())
    })
}

impl End<'_> {
    fn many(&self, numbers: std::ops::Range<usize>, at_once: usize) -> Result<Vec<Life>> {
        let next = AtomicUsize::new(numbers.start);
        let (program, arguments) = self.words.split_first().context("no program")?;
        let program = self.site.program(program)?;
        let said = self.site.dir.join(format!("{}.err", ["a", "b"][self.host]));
        let said = File::options().create(true).append(true).open(said)?;
        let lane = || {
            let mut lives = Vec::new();
            loop {
                let number = next.fetch_add(1, Relaxed);
                if number >= numbers.end {
                    return anyhow::Ok(lives);
                }
                // Without its nodes such a short life ends by itself.
                stop::check()?;
                lives.push(self.one(&program, arguments, number, &said)?);
            }
        };
        let lives: Result<Vec<Vec<Life>>> = thread::scope(|scope| {
            let lanes: Vec<_> = (0..at_once).map(|_| scope.spawn(lane)).collect();
            let joined = lanes.into_iter().map(|lane| lane.join());
            joined.map(|lane| lane.map_err(|_| anyhow!("a lane panicked"))?).collect()
        });
        Ok(lives?.into_iter().flatten().collect())
    }

    fn one(
        &self,
        program: &Path,
        arguments: &[String],
        number: usize,
        said: &File,
    ) -> Result<Life> {
        let start = Instant::now();
        let mut command = Command::new(program);
        command.args(arguments).arg(format!("{}{number}", self.pipe));
        command.env("QPIPE_HOME", home_dir(self.site, self.host));
        command.stdin(if self.is_fed { Stdio::piped() } else { Stdio::null() });
        command.stdout(Stdio::null()).stderr(said.try_clone()?);
        let mut child = command.spawn()?;
        if let Some(mut input) = child.stdin.take() {
            input.write_all(&noise(CONTENT_BYTES))?;
        }
        wait(&mut child).with_context(|| format!("{} {number}", program.display()))?;
        Ok(Life { number, start, end: Instant::now() })
    }
}

/// Waits for the end of a process, which has to be a good one and to come in time.
fn wait(child: &mut Child) -> Result<()> {
    let pid = Pid::from_raw(child.id() as i32).context("no process id")?;
    let end = pidfd_open(pid, PidfdFlags::empty())?;
    let limit = Timespec::try_from(PIPE_MAX)?;
    if poll(&mut [PollFd::new(&end, PollFlags::IN)], Some(&limit))? == 0 {
        child.kill()?;
    }
    let status = child.wait()?;
    ensure!(status.success(), "{status}");
    Ok(())
}
