//! A node that collects lines from several others.
//!
//! The collector decides by itself who may talk to it (an [`Access`] of its own) and which names
//! each peer may write to (when it takes the open). A host that it does not know is refused.
//!
//! Run it with `cargo run -p qpipe --example log_collector`.

#![allow(clippy::disallowed_macros, reason = "an example prints")]

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::{Context, bail, ensure};
use qpipe::{
    Access, Address, Cause, DialError, Fingerprint, IncomingOpen, Nobody, Node, NodeOptions,
    OpenOptions, OpenTarget, Peer, PipeReader, PipeWriter,
    identity::{HostIdentity, Identity, PeerIdentity},
    tls::ExpectedHost,
};
use qpipe_proto::limits::PIPE_BUF;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    sync::mpsc,
    task::JoinSet,
};

const HOSTS: [&str; 3] = ["web", "mail", "backup"];

const LINES_PER_HOST: usize = 4;

/// How long a node waits, when it ends, for its pipes to be settled.
const GOODBYE: Duration = Duration::from_secs(5);

/// Who may send, and what it is called here.
#[derive(Clone)]
struct Known(Arc<BTreeMap<Fingerprint, &'static str>>);

impl Known {
    fn name_of(&self, peer: &PeerIdentity) -> Option<&'static str> {
        self.0.get(&peer.host()).copied()
    }
}

impl Access for Known {
    fn knows(&self, peer: &PeerIdentity) -> bool {
        self.name_of(peer).is_some()
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    // Each sender has a key. A real collector would read the fingerprints from a file.
    let hosts = HOSTS
        .into_iter()
        .map(|name| Ok((name, HostIdentity::ephemeral()?.node())))
        .collect::<anyhow::Result<Vec<(&str, Identity)>>>()?;
    let known = hosts.iter().map(|(name, identity)| (identity.host(), *name)).collect();
    let known = Known(Arc::new(known));

    let listen = vec!["127.0.0.1:0".parse()?];
    let options = NodeOptions { listen, takes_names: true, ..NodeOptions::default() };
    let collector =
        Node::start(HostIdentity::ephemeral()?.node(), options, Arc::new(known.clone()))?;
    let peer = Peer {
        name: "collector".to_owned(),
        addresses: vec![Address::try_from(collector.local_addresses()[0])?],
        expected: ExpectedHost::Is(collector.fingerprint()),
    };

    let stranger = connect_as(HostIdentity::ephemeral()?.node(), &peer).await;
    ensure!(matches!(stranger, Err(DialError::NotAllowed { .. })), "a stranger was let in");

    let mut senders = JoinSet::new();
    for (name, identity) in hosts {
        senders.spawn(send(name, identity, peer.clone()));
    }
    let counts = collect(&collector, &known).await?;
    while let Some(sent) = senders.join_next().await {
        sent??;
    }
    collector.close(GOODBYE).await;

    ensure!(counts.len() == HOSTS.len(), "not every host sent something");
    ensure!(counts.values().all(|lines| *lines == LINES_PER_HOST), "lines are missing");
    println!("collected {LINES_PER_HOST} lines from each of {} hosts", counts.len());
    Ok(())
}

/// Takes one pipe from each host, and prints the lines as they come.
async fn collect(node: &Node, known: &Known) -> anyhow::Result<BTreeMap<&'static str, usize>> {
    let (lines, mut arriving) = mpsc::channel(64);
    let mut pipes = JoinSet::new();
    let mut counts = BTreeMap::new();
    loop {
        tokio::select! {
            open = node.next_open(), if counts.len() < HOSTS.len() => {
                let open = open.context("the node was closed")?;
                let (name, reader) = take(open, known)?;
                counts.insert(name, 0);
                pipes.spawn(forward(name, reader, lines.clone()));
            }
            Some((name, line)) = arriving.recv() => print(&mut counts, name, &line),
            // An error here is a sender that was cut off: its log is not complete.
            Some(ended) = pipes.join_next() => {
                ended??;
                if pipes.is_empty() && counts.len() == HOSTS.len() {
                    break;
                }
            }
        }
    }
    drop(lines);
    while let Some((name, line)) = arriving.recv().await {
        print(&mut counts, name, &line);
    }
    Ok(counts)
}

fn print(counts: &mut BTreeMap<&'static str, usize>, name: &'static str, line: &str) {
    *counts.entry(name).or_default() += 1;
    // What a peer wrote may hold characters that a terminal obeys.
    println!("{name:>6}: {}", line.escape_debug());
}

/// Answers an open: a host may write to the name that is its own, and to no other.
fn take(open: IncomingOpen, known: &Known) -> anyhow::Result<(&'static str, PipeReader)> {
    let name = known.name_of(&open.peer()).context("a peer that is not known")?;
    let own: OpenTarget = OpenTarget::Name(format!("logs/{name}").parse()?);
    if *open.target() != own || open.shape() != (1, 0) {
        open.refuse(Cause::NotAllowed);
        bail!("{name} asked for something that it may not have");
    }
    let ends = open.accept().map_err(|cause| anyhow::anyhow!("{name}: {cause}"))?;
    let reader = ends.reader.context("no pipe to read")?;
    // The sender may wait for this, as the open of a FIFO waits for a reader.
    reader.join();
    Ok((name, reader))
}

/// Cuts what comes out of a pipe into lines.
async fn forward(
    name: &'static str,
    reader: PipeReader,
    lines: mpsc::Sender<(&'static str, String)>,
) -> anyhow::Result<()> {
    let mut reader = BufReader::new(reader).lines();
    while let Some(line) = reader.next_line().await.with_context(|| format!("{name} broke off"))? {
        lines.send((name, line)).await?;
    }
    Ok(())
}

/// One sender: a node of its own, as on a host of its own.
async fn send(name: &'static str, identity: Identity, peer: Peer) -> anyhow::Result<()> {
    let (node, session) = connect_as(identity, &peer).await?;
    let target = OpenTarget::Name(format!("logs/{name}").parse()?);
    let mut log = session.open_writer(target, OpenOptions::default()).await?;
    log.joined().await?;
    for number in 1..=LINES_PER_HOST {
        write_line(&mut log, &format!("event {number}")).await?;
    }
    // Until the collector has consumed every line.
    log.finish().await?;
    node.close(GOODBYE).await;
    Ok(())
}

/// Writes a line in one piece: up to `PIPE_BUF` bytes are taken whole or not at all, so that a line
/// is never left half written.
async fn write_line(log: &mut PipeWriter, line: &str) -> anyhow::Result<()> {
    let line = format!("{line}\n");
    ensure!(line.len() as u64 <= PIPE_BUF, "a line of {} bytes is too long", line.len());
    let written = log.write(line.as_bytes()).await?;
    ensure!(written == line.len(), "a line was torn");
    Ok(())
}

/// A node that only dials, and its session with the collector.
async fn connect_as(identity: Identity, peer: &Peer) -> Result<(Node, qpipe::Session), DialError> {
    let options = NodeOptions { accepts: false, ..NodeOptions::default() };
    let node = Node::start(identity, options, Arc::new(Nobody))
        .map_err(|error| DialError::Local(std::io::Error::other(error).into()))?;
    let session = node.connect(peer, None).await?;
    Ok((node, session))
}
