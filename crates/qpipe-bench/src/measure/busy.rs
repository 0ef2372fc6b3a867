//! Pipes that are all busy at once: what they carry together, and how evenly.

use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{CHUNK_BYTES, chunk, jain, mbit_s};
use crate::carrier::{Carrier, Meter, Pipe};

/// How often to look whether pipes fail while they are measured.
const LOOK: Duration = Duration::from_millis(100);

/// `pipes` that write as fast as they can; the bytes at their readers from `warmup` on, for `time`.
pub(crate) async fn busy<C: Carrier>(
    carrier: C,
    pipes: usize,
    warmup: Duration,
    time: Duration,
) -> Result<Value> {
    let chunk = chunk(CHUNK_BYTES);
    let mut meters: Vec<Meter> = Vec::with_capacity(pipes);
    let mut writing = JoinSet::new();
    for _ in 0..pipes {
        let mut pipe = carrier.pipe().await?;
        meters.push(pipe.meter());
        let chunk = chunk.clone();
        writing.spawn(async move {
            loop {
                if let Err(error) = pipe.write(chunk.clone()).await {
                    return error;
                }
            }
        });
    }
    run_for(warmup, &mut writing).await?;
    let read = || meters.iter().map(|meter| meter()).collect::<Vec<u64>>();
    let (before, start) = (read(), Instant::now());
    run_for(time, &mut writing).await?;
    let (after, time) = (read(), start.elapsed());
    let each: Vec<u64> = after.iter().zip(&before).map(|(after, before)| after - before).collect();
    let shares: Vec<f64> = each.iter().map(|bytes| *bytes as f64).collect();
    let total: u64 = each.iter().sum();
    Ok(json!({
        "pipes": pipes,
        "mbit_s": mbit_s(total, time),
        "jain": jain(&shares),
        "silent": each.iter().filter(|bytes| **bytes == 0).count(),
    }))
}

/// Waits, unless a pipe fails.
async fn run_for(time: Duration, writing: &mut JoinSet<anyhow::Error>) -> Result<()> {
    let end = Instant::now() + time;
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        if let Ok(Some(failed)) = tokio::time::timeout(left.min(LOOK), writing.join_next()).await {
            return Err(failed?);
        }
    }
    Ok(())
}
