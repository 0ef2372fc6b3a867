//! Short pipes, one after the other, some at a time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use anyhow::Result;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{chunk, quantile_ms};
use crate::carrier::{Carrier, Pipe};

/// Opens `pipes`, `at_once` at a time, writes `bytes` into each and waits until its reader has all.
pub(crate) async fn many<C: Carrier>(
    carrier: C,
    pipes: u64,
    bytes: usize,
    at_once: usize,
) -> Result<Value> {
    let chunk = chunk(bytes);
    let next = Arc::new(AtomicU64::new(0));
    let start = Instant::now();
    let mut lanes = JoinSet::new();
    for _ in 0..at_once {
        let (carrier, chunk, next) = (carrier.clone(), chunk.clone(), next.clone());
        lanes.spawn(async move {
            let mut times = Vec::new();
            while next.fetch_add(1, Relaxed) < pipes {
                let opened = Instant::now();
                let mut pipe = carrier.pipe().await?;
                pipe.write(chunk.clone()).await?;
                pipe.finish().await?;
                times.push(opened.elapsed());
            }
            anyhow::Ok(times)
        });
    }
    let mut times = Vec::new();
    while let Some(lane) = lanes.join_next().await {
        times.extend(lane??);
    }
    let seconds = start.elapsed().as_secs_f64();
    times.sort_unstable();
    Ok(json!({
        "pipes": pipes,
        "pipes_s": pipes as f64 / seconds,
        "p50_ms": quantile_ms(&times, 0.5),
        "p99_ms": quantile_ms(&times, 0.99),
    }))
}
