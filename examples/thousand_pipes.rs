//! A thousand pipes in one session, each with a result of its own.
//!
//! Every tenth reader leaves early. Its writer, and no other, gets `BrokenPipe` with the number of
//! bytes that were consumed; all the other pipes carry every byte to their end.
//!
//! Run it with `cargo run -p qpipe --example thousand_pipes`.

#![allow(clippy::disallowed_macros, reason = "an example prints")]

use std::{io, sync::Arc, time::Duration};

use anyhow::{Context, bail, ensure};
use qpipe::{
    Address, Cause, IncomingOpen, Nobody, Node, NodeOptions, OpenOptions, OpenTarget, Peer,
    PipeError, PipeReader, Session, identity::HostIdentity, tls::ExpectedHost,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinSet,
};

const PIPES: usize = 1000;

/// Of each pipe: more than its first window, so that writers have to wait for their readers.
const CONTENT_BYTES: usize = 100_000;

/// What a reader takes that leaves early.
const TASTE_BYTES: usize = 1000;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    // One host with two processes: peers of the same host may connect to each other without a rule.
    let host = HostIdentity::ephemeral()?;
    let listen = vec!["127.0.0.1:0".parse()?];
    let options = NodeOptions { listen, takes_names: true, ..NodeOptions::default() };
    let reading = Node::start(host.node(), options, Arc::new(Nobody))?;
    let options = NodeOptions { accepts: false, ..NodeOptions::default() };
    let writing = Node::start(host.process()?, options, Arc::new(Nobody))?;

    let address = Address::try_from(reading.local_addresses()[0])?;
    let expected = ExpectedHost::Is(host.fingerprint());
    let peer = Peer { name: "reader".to_owned(), addresses: vec![address], expected };
    let session = writing.connect(&peer, None).await?;

    let mut writers = JoinSet::new();
    for number in 0..PIPES {
        let session = session.clone();
        writers.spawn(async move { (number, write(&session, number).await) });
    }
    let mut readers = JoinSet::new();
    for _ in 0..PIPES {
        let open = reading.next_open().await.context("the node was closed")?;
        readers.spawn(read(open));
    }

    let (mut complete, mut broken) = (0, 0);
    while let Some(written) = writers.join_next().await {
        let (number, result) = written?;
        match result {
            Ok(consumed) if !leaves_early(number) => {
                ensure!(consumed == CONTENT_BYTES as u64, "pipe {number}: {consumed} consumed");
                complete += 1;
            }
            Err(error) if leaves_early(number) => {
                ensure!(error.kind() == io::ErrorKind::BrokenPipe, "pipe {number}: {error}");
                let expected =
                    PipeError::Broken { cause: Cause::ReaderClosed, consumed: TASTE_BYTES as u64 };
                ensure!(PipeError::of(&error) == Some(&expected), "pipe {number}: {error}");
                broken += 1;
            }
            Ok(_) => bail!("pipe {number}: its reader left, and its writer did not notice"),
            Err(error) => bail!("pipe {number}: {error}"),
        }
    }
    while let Some(read) = readers.join_next().await {
        read??;
    }

    let report = writing.close(Duration::from_secs(5)).await;
    ensure!(report.cut == 0, "{} pipes were left open", report.cut);
    println!(
        "{PIPES} pipes in one session: {complete} complete with {CONTENT_BYTES} bytes each, \
         {broken} broken pipes with {TASTE_BYTES} bytes consumed each"
    );
    Ok(())
}

fn leaves_early(number: usize) -> bool {
    number.is_multiple_of(10)
}

/// Writes one pipe; gives the number of bytes that its reader consumed.
async fn write(session: &Session, number: usize) -> io::Result<u64> {
    let name = format!("jobs/{number}").parse().map_err(io::Error::other)?;
    // Waits only while the peer allows no more unanswered opens.
    let mut writer = session
        .open_writer(OpenTarget::Name(name), OpenOptions::default())
        .await
        .map_err(io::Error::other)?;
    writer.write_all(&content(number)).await?;
    writer.finish().await?;
    Ok(writer.consumed())
}

/// Answers one open, and reads as much as the pipe's number says.
async fn read(open: IncomingOpen) -> anyhow::Result<()> {
    let OpenTarget::Name(name) = open.target().clone() else { bail!("an open without a name") };
    let number = name.as_str().strip_prefix("jobs/").context("a name of no job")?.parse()?;
    let ends = open.accept().map_err(|cause| anyhow::anyhow!("cannot accept {name}: {cause}"))?;
    let mut reader: PipeReader = ends.reader.context("an open that does not write")?;
    reader.join();
    if leaves_early(number) {
        reader.read_exact(&mut [0; TASTE_BYTES]).await?;
        // Dropping the reader is what breaks the pipe.
        return Ok(());
    }
    let mut got = Vec::with_capacity(CONTENT_BYTES);
    reader.read_to_end(&mut got).await?;
    ensure!(got == content(number), "pipe {number} got the bytes of another one");
    Ok(())
}

/// Bytes that no other pipe has.
fn content(number: usize) -> Vec<u8> {
    let line = format!("this is pipe {number}\n");
    line.bytes().cycle().take(CONTENT_BYTES).collect()
}
