//! A child process whose standard input is a remote pipe.
//!
//! `sort` knows nothing of qpipe: it gets the read end of a real kernel pipe, which the library
//! fills with what arrives over QUIC. Two nodes in this one process stand for two hosts.
//!
//! Run it with `cargo run -p qpipe --example child_stdin`.

#![allow(clippy::disallowed_macros, reason = "an example prints")]

use std::{
    process::{Output, Stdio},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, ensure};
use qpipe::{
    Address, End, Nobody, Node, NodeOptions, OpenOptions, OpenTarget, Peer, PipeReader, PipeWriter,
    identity::HostIdentity, tls::ExpectedHost,
};
use tokio::{io::AsyncWriteExt, process::Command};

const LINES: u32 = 20_000;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let (near, far) = (node()?, node()?);

    // The far host offers a pipe that the near one may write. See the example `anonymous_pipe` for
    // how the secret travels between two processes, in a ticket.
    let mut offer = far.offer(End::Write, None)?;
    let session = near.connect(&peer(&far)?, Some(offer.secret())).await?;
    let target = OpenTarget::Ticket(offer.secret().clone());
    let writer = session.open_writer(target, OpenOptions::default()).await?;
    let reader = offer.taken().await.context("the far node was closed")?.reader;
    let reader = reader.context("no pipe to read")?;

    let ((), output) = tokio::try_join!(write_shuffled(writer), sort(reader))?;

    ensure!(output.status.success(), "sort failed: {}", output.status);
    let sorted = String::from_utf8(output.stdout)?;
    let expected: String = (0..LINES).map(|number| format!("{number}\n")).collect();
    ensure!(sorted == expected, "sort did not get every line");
    println!("sort read {LINES} lines from a remote pipe and gave all of them back in order");

    let within = Duration::from_secs(5);
    tokio::join!(near.close(within), far.close(within));
    Ok(())
}

/// The near host: writes the numbers in a disorder that holds each of them once.
async fn write_shuffled(mut writer: PipeWriter) -> anyhow::Result<()> {
    // 7,919 is a prime that does not divide LINES, so the steps meet every number.
    let numbers = (0..LINES).map(|step| step * 7919 % LINES);
    for number in numbers {
        writer.write_all(format!("{number}\n").as_bytes()).await?;
    }
    Ok(writer.finish().await?)
}

/// The far host: runs `sort` on what comes out of the pipe.
async fn sort(reader: PipeReader) -> anyhow::Result<Output> {
    let (stdin, pumping) = reader.into_fd()?;
    // The `Command` is a temporary on purpose: it owns the descriptor, and as long as this process
    // held a copy, nobody would notice that the child has gone.
    let child = Command::new("sort")
        .arg("-n")
        .stdin(stdin)
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run sort")?;
    let output = child.wait_with_output().await?;
    // A kernel pipe cannot carry an error: to `sort` an aborted pipe looks like EOF. The pumping
    // knows better, so its result is what decides whether the output can be trusted.
    let carried = pumping.await.context("the pipe was cut off: the output is not complete")?;
    ensure!(carried > 0, "the pipe was empty");
    Ok(output)
}

/// A node with a key of its own, on a free port of the loopback.
fn node() -> anyhow::Result<Node> {
    let listen = vec!["127.0.0.1:0".parse()?];
    let options = NodeOptions { listen, ..NodeOptions::default() };
    Ok(Node::start(HostIdentity::ephemeral()?.node(), options, Arc::new(Nobody))?)
}

/// How to dial `node`.
fn peer(node: &Node) -> anyhow::Result<Peer> {
    let bound = node.local_addresses();
    let addresses = bound.into_iter().map(Address::try_from).collect::<Result<_, _>>()?;
    let expected = ExpectedHost::Is(node.fingerprint());
    Ok(Peer { name: "the far host".to_owned(), addresses, expected })
}
