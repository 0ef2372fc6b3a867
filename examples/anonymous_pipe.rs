//! A pipe between two processes that share nothing but a ticket.
//!
//! The first process offers the write end of an anonymous pipe, then runs this same program again
//! with the ticket in its environment. The second one dials, opens the pipe and writes; the first
//! one reads until EOF. On two hosts the ticket would travel by a message or an ssh session.
//!
//! Run it with `cargo run -p qpipe --example anonymous_pipe`.

#![allow(clippy::disallowed_macros, reason = "an example prints")]

use std::{env, process::Stdio, sync::Arc, time::Duration};

use anyhow::{Context, ensure};
use qpipe::{
    End, Ends, Nobody, Node, NodeOptions, OpenOptions, OpenTarget, Peer, Ticket,
    identity::HostIdentity, interface_addresses, tls::ExpectedHost,
};
use qpipe_proto::ticket::Grant;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::Command,
};

/// Not an argument, since arguments show in `ps`, and a ticket is a secret.
const TICKET_VARIABLE: &str = "QPIPE_TICKET";

const LINES: u64 = 100_000;

/// How long the two may take to agree that everything is over.
const GOODBYE: Duration = Duration::from_secs(5);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match env::var(TICKET_VARIABLE) {
        Ok(ticket) => write(&ticket.parse()?).await,
        Err(_) => read().await,
    }
}

/// The process that offers the pipe and reads it.
async fn read() -> anyhow::Result<()> {
    // A key for this run only; a program with a home would use `HostIdentity::load_or_create`.
    let identity = HostIdentity::ephemeral()?.node();
    let node = Node::start(identity, NodeOptions::default(), Arc::new(Nobody))?;

    // The ticket says where this node is, which key it has, and what its holder may do: write.
    let mut offer = node.offer(End::Write, None)?;
    let addresses = interface_addresses(&node.local_addresses())?;
    let secret = offer.secret().clone();
    let ticket = Ticket::new(addresses, node.fingerprint(), secret, Grant::Pipe(End::Write), None)?;

    let mut other = Command::new(env::current_exe()?)
        .env(TICKET_VARIABLE, ticket.to_string())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .context("cannot start the other process")?;

    let Ends { reader, .. } = tokio::select! {
        ends = offer.taken() => ends.context("the node was closed")?,
        status = other.wait() => anyhow::bail!("the other process ended early: {}", status?),
    };
    let mut reader = reader.context("the other process opened no pipe to write")?;

    // EOF comes only after every byte, with the right checksum. Had the writer been killed, this
    // would be an error and not a shorter text.
    let mut text = String::new();
    reader.read_to_string(&mut text).await?;
    node.close(GOODBYE).await;
    let status = other.wait().await?;

    let numbers: Result<Vec<u64>, _> = text.lines().map(str::parse).collect();
    let numbers = numbers.context("not a list of numbers")?;
    ensure!(numbers.iter().copied().eq(1..=LINES), "lines are missing or out of order");
    ensure!(status.success(), "the other process failed: {status}");
    println!("reader (process {}): {} lines, in order, then EOF", std::process::id(), LINES);
    Ok(())
}

/// The process that was given the ticket and writes.
async fn write(ticket: &Ticket) -> anyhow::Result<()> {
    let identity = HostIdentity::ephemeral()?.node();
    let options = NodeOptions { accepts: false, ..NodeOptions::default() };
    let node = Node::start(identity, options, Arc::new(Nobody))?;

    // The fingerprint in the ticket pins the key that must answer, so nobody has to be asked.
    let peer = Peer {
        name: "the other process".to_owned(),
        addresses: ticket.addresses().to_vec(),
        expected: ExpectedHost::Is(*ticket.fingerprint()),
    };
    let session = node.connect(&peer, Some(ticket.secret())).await?;
    let target = OpenTarget::Ticket(ticket.secret().clone());
    let mut writer = session.open_writer(target, OpenOptions::default()).await?;

    for number in 1..=LINES {
        writer.write_all(format!("{number}\n").as_bytes()).await?;
    }
    // Closes the pipe, and waits until the reader has consumed everything.
    writer.finish().await?;
    println!(
        "writer (process {}): {} bytes consumed by the reader",
        std::process::id(),
        writer.consumed()
    );
    node.close(GOODBYE).await;
    Ok(())
}
