//! The library: two nodes of one host, so that neither needs a rule for the other.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use qpipe::{
    Address, ConnectionStatus, IncomingOpen, Nobody, Node, NodeOptions, OpenOptions, OpenTarget,
    Peer, PipeReader, PipeWriter, Session, identity::HostIdentity, tls::ExpectedHost,
};

use super::{Carrier, Meter, Pipe, Reader, Writer, resident};

/// How much a reader takes at once, in bytes.
const READ_BYTES_MAX: usize = 256 * 1024;

/// How long the two may take to agree that everything is over.
const GOODBYE: Duration = Duration::from_secs(5);

/// What the far end does with a pipe is its name.
const SINK: &str = "sink";
const ECHO: &str = "echo";
/// It reads [`IDLE_BYTES`] and keeps the pipe.
const IDLE: &str = "idle";
/// It says how much memory it has.
const MEMORY: &str = "memory";

/// What a pipe carries before it is idle, in bytes.
pub(crate) const IDLE_BYTES: usize = 64;

/// A session, and the node that has it.
#[derive(Clone)]
pub(crate) struct Near {
    session: Session,
    node: Arc<Node>,
}

impl Near {
    pub(crate) async fn dial(state: &Path, memory: u64, to: SocketAddr) -> Result<Near> {
        let host = HostIdentity::load_or_create(&state.join("qpipe"))?;
        let options = NodeOptions { accepts: false, memory, ..NodeOptions::default() };
        let node = Node::start(host.process()?, options, Arc::new(Nobody))?;
        let addresses = vec![Address::try_from(to)?];
        let expected = ExpectedHost::Is(host.fingerprint());
        let peer = Peer { name: "the far end".to_owned(), addresses, expected };
        let session = node.connect(&peer, None).await?;
        Ok(Near { session, node: Arc::new(node) })
    }

    /// What the connection has come to.
    pub(crate) fn connection(&self) -> Option<ConnectionStatus> {
        self.node.sessions().into_iter().find_map(|session| session.connection)
    }

    /// A pipe that the far end keeps; what was written is with it.
    pub(crate) async fn idle_pipe(&self) -> Result<PipeWriter> {
        let mut writer = self.session.open_writer(name(IDLE)?, OpenOptions::default()).await?;
        writer.write_chunk(Bytes::from_static(&[0; IDLE_BYTES])).await?;
        Ok(writer)
    }

    /// How much memory the far end has, in bytes.
    pub(crate) async fn far_memory(&self) -> Result<u64> {
        let mut reader = self.session.open_reader(name(MEMORY)?, OpenOptions::default()).await?;
        let mut text = Vec::new();
        while let Some(chunk) = reader.read_chunk(READ_BYTES_MAX).await? {
            reader.consume(chunk.len() as u64);
            text.extend_from_slice(&chunk);
        }
        Ok(String::from_utf8(text)?.parse()?)
    }

    pub(crate) async fn close(self) {
        self.node.close(GOODBYE).await;
    }
}

impl Carrier for Near {
    type Pipe = PipeWriter;

    async fn pipe(&self) -> Result<PipeWriter> {
        Ok(self.session.open_writer(name(SINK)?, OpenOptions::default()).await?)
    }

    async fn echo(&self) -> Result<(Writer, Reader)> {
        let (w, r) = self.session.open_duplex(name(ECHO)?, OpenOptions::default()).await?;
        Ok((Box::pin(w), Box::pin(r)))
    }
}

impl Pipe for PipeWriter {
    async fn write(&mut self, chunk: Bytes) -> Result<()> {
        Ok(self.write_chunk(chunk).await?)
    }

    async fn finish(mut self) -> Result<()> {
        Ok(PipeWriter::finish(&mut self).await?)
    }

    fn meter(&self) -> Meter {
        let watch = self.watch();
        Box::new(move || watch.consumed())
    }
}

fn name(name: &str) -> Result<OpenTarget> {
    Ok(OpenTarget::Name(name.parse()?))
}

/// Starts a node and closes it, as every process of a command that works for itself has to.
pub(crate) async fn start_and_end(state: &Path) -> Result<()> {
    let host = HostIdentity::load_or_create(&state.join("qpipe"))?;
    let node = Node::start(host.process()?, NodeOptions::default(), Arc::new(Nobody))?;
    node.close(GOODBYE).await;
    Ok(())
}

/// The far end, until it is killed.
pub(crate) async fn serve(state: &Path, memory: u64, listen: SocketAddr) -> Result<()> {
    let host = HostIdentity::load_or_create(&state.join("qpipe"))?;
    let listen = vec![listen];
    let options = NodeOptions { listen, memory, takes_names: true, ..NodeOptions::default() };
    let node = Node::start(host.node(), options, Arc::new(Nobody))?;
    let mut idle = Vec::new();
    while let Some(open) = node.next_open().await {
        if open.target() == &name(IDLE)? {
            idle.push(take_idle(open).await?);
        } else {
            // What fails was cut off by a near end that has had enough.
            tokio::spawn(serve_open(open));
        }
    }
    Ok(())
}

async fn take_idle(open: IncomingOpen) -> Result<PipeReader> {
    let mut reader = accept(open)?.1.context("an idle pipe that is not written")?;
    let mut left = IDLE_BYTES;
    while left > 0 {
        let chunk = reader.read_chunk(left).await?.context("an early end")?;
        reader.consume(chunk.len() as u64);
        left -= chunk.len();
    }
    Ok(reader)
}

async fn serve_open(open: IncomingOpen) -> Result<()> {
    match accept(open)? {
        (None, Some(mut reader)) => {
            while let Some(chunk) = reader.read_chunk(READ_BYTES_MAX).await? {
                reader.consume(chunk.len() as u64);
            }
        }
        (Some(mut writer), Some(mut reader)) => {
            while let Some(chunk) = reader.read_chunk(READ_BYTES_MAX).await? {
                let length = chunk.len() as u64;
                writer.write_chunk(chunk).await?;
                reader.consume(length);
            }
            writer.finish().await?;
        }
        (Some(mut writer), None) => {
            writer.write_chunk(resident()?.to_string().into()).await?;
            writer.finish().await?;
        }
        (None, None) => bail!("an open without a pipe"),
    }
    Ok(())
}

fn accept(open: IncomingOpen) -> Result<(Option<PipeWriter>, Option<PipeReader>)> {
    let ends = open.accept().map_err(|cause| anyhow::anyhow!("cannot accept: {cause}"))?;
    if let Some(reader) = &ends.reader {
        reader.join();
    }
    Ok((ends.writer, ends.reader))
}
