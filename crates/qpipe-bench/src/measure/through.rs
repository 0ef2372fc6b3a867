//! The same as `echo`, through programs: one that sends back what it is given, and one for bulk.

use std::{
    io::{Read, Write},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use serde_json::Value;

use super::{
    CHUNK_BYTES,
    echo::{MESSAGE_BYTES, Schedule, TAIL},
    mbit_s, noise,
};

/// Starts both commands of a shell, and ends them.
pub(crate) fn through(
    echo: &str,
    bulk: Option<&str>,
    warmup: Duration,
    time: Duration,
) -> Result<Value> {
    let mut echoing = start(echo, Stdio::piped())?;
    let mut beside = bulk.map(|bulk| start(bulk, Stdio::null())).transpose()?;
    let schedule = Schedule::now(warmup, time);
    let rate = match &mut beside {
        Some(bulk) => {
            let input = bulk.stdin.take().context("no input")?;
            Some(thread::spawn(move || rate(input, schedule.opening(), time)))
        }
        None => None,
    };
    let mut input = echoing.stdin.take().context("no input")?;
    thread::spawn(move || schedule.run(|message| input.write_all(&message).is_ok()));
    let output = echoing.stdout.take().context("no output")?;
    let mut result = schedule.result(receive(output, schedule, warmup + time + TAIL));
    // Whether it has ended already does not matter.
    let _ = echoing.kill();
    if let (Some(mut bulk), Some(rate)) = (beside, rate) {
        let _ = bulk.kill();
        let rate = rate.join().map_err(|_| anyhow::anyhow!("the feeding thread panicked"))?;
        result["bulk_mbit_s"] = rate.into();
        bulk.wait()?;
    }
    echoing.wait()?;
    Ok(result)
}

fn start(script: &str, output: Stdio) -> Result<Child> {
    let mut shell = Command::new("sh");
    shell.args(["-c", script]).stdin(Stdio::piped()).stdout(output);
    shell.spawn().context("cannot run a shell")
}

/// What the program takes while echoes count.
fn rate(mut input: impl Write, opening: Instant, time: Duration) -> f64 {
    let chunk = noise(CHUNK_BYTES);
    let (mut bytes, mut last) = (0, opening);
    while last < opening + time {
        if input.write_all(&chunk).is_err() {
            break;
        }
        let now = Instant::now();
        if now >= opening {
            bytes += chunk.len() as u64;
            last = now;
        }
    }
    mbit_s(bytes, (last - opening).max(Duration::from_millis(1)))
}

fn receive(
    mut output: impl Read + Send + 'static,
    schedule: Schedule,
    limit: Duration,
) -> Vec<Duration> {
    let (heard, times) = mpsc::channel();
    thread::spawn(move || {
        let mut message = [0; MESSAGE_BYTES];
        while output.read_exact(&mut message).is_ok() {
            if let Some(age) = schedule.age(&message)
                && heard.send(age).is_err()
            {
                return;
            }
        }
    });
    let end = Instant::now() + limit;
    let mut all = Vec::new();
    while all.len() < schedule.due()
        && let Ok(time) = times.recv_timeout(end.saturating_duration_since(Instant::now()))
    {
        all.push(time);
    }
    all
}
