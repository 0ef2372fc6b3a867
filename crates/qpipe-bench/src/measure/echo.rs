//! Small messages that are sent back, beside a bulk pipe in the same session.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
    task::JoinHandle,
};

use super::{CHUNK_BYTES, chunk, mbit_s, quantile_ms};
use crate::carrier::{Carrier, Meter, Pipe, Reader, Writer};

/// A message, in bytes.
pub(crate) const MESSAGE_BYTES: usize = 64;

/// From one message to the next.
pub(crate) const INTERVAL: Duration = Duration::from_millis(10);

/// How long the last messages may take.
pub(crate) const TAIL: Duration = Duration::from_secs(10);

/// Messages from the start to `warmup + time`, of which those sent after `warmup` count.
#[derive(Clone, Copy)]
pub(crate) struct Schedule {
    start: Instant,
    warmup: Duration,
    time: Duration,
}

impl Schedule {
    pub(crate) fn now(warmup: Duration, time: Duration) -> Schedule {
        Schedule { start: Instant::now(), warmup, time }
    }

    /// When the measurement begins.
    pub(crate) fn opening(&self) -> Instant {
        self.start + self.warmup
    }

    /// Calls `send` with each message when it is due, until that has had enough.
    pub(crate) fn run(self, mut send: impl FnMut([u8; MESSAGE_BYTES]) -> bool) {
        let all = self.warmup + self.time;
        for due in (0..).map(|i| INTERVAL * i).take_while(|due| *due < all) {
            thread::sleep((self.start + due).saturating_duration_since(Instant::now()));
            let mut message = [0; MESSAGE_BYTES];
            let now = self.start.elapsed().as_nanos() as u64;
            message[..8].copy_from_slice(&now.to_le_bytes());
            if !send(message) {
                return;
            }
        }
    }

    /// The time that an echo took, if it counts.
    pub(crate) fn age(&self, message: &[u8; MESSAGE_BYTES]) -> Option<Duration> {
        let sent = message.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))?;
        let sent = Duration::from_nanos(sent);
        (sent >= self.warmup).then(|| self.start.elapsed().saturating_sub(sent))
    }

    /// How many count.
    pub(crate) fn due(&self) -> usize {
        (self.time.as_nanos() / INTERVAL.as_nanos()) as usize
    }

    /// What came back.
    pub(crate) fn result(&self, mut times: Vec<Duration>) -> Value {
        times.sort_unstable();
        json!({
            "echoes": times.len(),
            "missing": self.due().saturating_sub(times.len()),
            "p50_ms": quantile_ms(&times, 0.5),
            "p99_ms": quantile_ms(&times, 0.99),
            "p999_ms": quantile_ms(&times, 0.999),
        })
    }
}

/// Echoes for `time` after `warmup`, beside a bulk pipe or alone.
pub(crate) async fn echo<C: Carrier>(
    carrier: C,
    beside_bulk: bool,
    warmup: Duration,
    time: Duration,
) -> Result<Value> {
    let bulk = if beside_bulk { Some(start_bulk(&carrier).await?) } else { None };
    let (writer, reader) = carrier.echo().await?;
    let schedule = Schedule::now(warmup, time);
    let sending = send(writer, schedule);
    let rate = bulk.map(|(meter, writing)| tokio::spawn(rate(meter, writing, schedule)));
    let times = receive(reader, schedule).await;
    sending.abort();
    let mut result = schedule.result(times);
    if let Some(rate) = rate {
        result["bulk_mbit_s"] = rate.await?.into();
    }
    Ok(result)
}

async fn start_bulk<C: Carrier>(carrier: &C) -> Result<(Meter, JoinHandle<()>)> {
    let mut pipe = carrier.pipe().await?;
    let meter = pipe.meter();
    let chunk = chunk(CHUNK_BYTES);
    let writing = tokio::spawn(async move { while pipe.write(chunk.clone()).await.is_ok() {} });
    Ok((meter, writing))
}

/// What the bulk pipe carries while echoes count; ends it then.
async fn rate(meter: Meter, writing: JoinHandle<()>, schedule: Schedule) -> f64 {
    tokio::time::sleep_until(schedule.opening().into()).await;
    let (before, start) = (meter(), Instant::now());
    tokio::time::sleep(schedule.time).await;
    let rate = mbit_s(meter() - before, start.elapsed());
    writing.abort();
    rate
}

/// Paced by a thread: tokio's timers are good to a millisecond.
fn send(mut writer: Writer, schedule: Schedule) -> JoinHandle<std::io::Result<()>> {
    let (due, mut messages) = mpsc::unbounded_channel();
    thread::spawn(move || schedule.run(|message| due.send(message).is_ok()));
    tokio::spawn(async move {
        while let Some(message) = messages.recv().await {
            writer.write_all(&message).await?;
            writer.flush().await?;
        }
        writer.shutdown().await
    })
}

async fn receive(mut reader: Reader, schedule: Schedule) -> Vec<Duration> {
    let mut times = Vec::with_capacity(schedule.due());
    let mut message = [0; MESSAGE_BYTES];
    let limit = schedule.warmup + schedule.time + TAIL;
    let receiving = async {
        while reader.read_exact(&mut message).await.is_ok() {
            times.extend(schedule.age(&message));
        }
    };
    // What has not come by then is missing in the result.
    let _ = tokio::time::timeout(limit, receiving).await;
    times
}
