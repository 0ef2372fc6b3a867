//! What an idle pipe costs at each end.

use anyhow::Result;
use qpipe::PipeWriter;
use serde_json::{Value, json};

use crate::carrier::{
    qpipe::{IDLE_BYTES, Near},
    resident,
};

/// Opened before the first look, so that what a process needs once is not counted.
const WARM_UP: usize = 1000;

/// Opens `pipes` in the session, writes into each, waits until that is consumed, and keeps them.
pub(crate) async fn idle(near: &Near, pipes: usize) -> Result<Value> {
    let mut writers = Vec::with_capacity(WARM_UP + pipes);
    open(near, &mut writers, WARM_UP).await?;
    let (near_before, far_before) = (resident()?, near.far_memory().await?);
    open(near, &mut writers, pipes).await?;
    let (near_after, far_after) = (resident()?, near.far_memory().await?);
    let each = |after: u64, before: u64| after.saturating_sub(before) as f64 / pipes as f64;
    Ok(json!({
        "pipes": pipes,
        "bytes_per_pipe_writer": each(near_after, near_before),
        "bytes_per_pipe_reader": each(far_after, far_before),
    }))
}

async fn open(near: &Near, writers: &mut Vec<PipeWriter>, count: usize) -> Result<()> {
    let from = writers.len();
    for _ in 0..count {
        writers.push(near.idle_pipe().await?);
    }
    for writer in &writers[from..] {
        // Anything else than bytes that are consumed is the pipe's end.
        let consumed = writer.watch().consumed_beyond(IDLE_BYTES as u64 - 1).await;
        consumed.map_err(|ended| anyhow::anyhow!("an idle pipe ended: {ended:?}"))?;
    }
    Ok(())
}
