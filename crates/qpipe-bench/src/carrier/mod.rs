//! What carries many pipes between two processes: the library, and what else there is.

pub(crate) mod qpipe;
pub(crate) mod quinn;
pub(crate) mod stdio;
mod tls;
pub(crate) mod yamux;

use std::{
    fs,
    future::Future,
    path::Path,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use anyhow::{Result, ensure};
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

pub(crate) use tls::{certificate_file, key_file, make_certificate};

pub(crate) type Writer = Pin<Box<dyn AsyncWrite + Send>>;
pub(crate) type Reader = Pin<Box<dyn AsyncRead + Send>>;

/// Reads how many bytes of a pipe have got somewhere.
pub(crate) type Meter = Box<dyn Fn() -> u64 + Send>;

/// A connection that pipes are opened in. Clones are the same one.
pub(crate) trait Carrier: Clone + Send + Sync + 'static {
    type Pipe: Pipe;

    /// A pipe to somebody who reads it and keeps nothing.
    fn pipe(&self) -> impl Future<Output = Result<Self::Pipe>> + Send;

    /// Two pipes, to and from somebody who sends back what comes.
    fn echo(&self) -> impl Future<Output = Result<(Writer, Reader)>> + Send;
}

/// The write end of a pipe.
pub(crate) trait Pipe: Send + 'static {
    fn write(&mut self, chunk: Bytes) -> impl Future<Output = Result<()>> + Send;

    /// Closes it; the reader has everything when this is done.
    fn finish(self) -> impl Future<Output = Result<()>> + Send;

    /// How many bytes the reader has, as far as this end knows: for carriers that do not tell, how
    /// many they took.
    fn meter(&self) -> Meter;
}

/// The first byte of a stream says what the far end is to do with the others.
const SINK: u8 = b'S';
const ECHO: u8 = b'E';

/// A pipe of a carrier whose streams go both ways and know only FIN.
pub(crate) struct Stream {
    writer: Writer,
    reader: Reader,
    taken: Arc<AtomicU64>,
}

impl Stream {
    async fn open(mut writer: Writer, reader: Reader) -> Result<Stream> {
        writer.write_u8(SINK).await?;
        Ok(Stream { writer, reader, taken: Arc::default() })
    }
}

impl Pipe for Stream {
    async fn write(&mut self, mut chunk: Bytes) -> Result<()> {
        while !chunk.is_empty() {
            let taken = self.writer.write_buf(&mut chunk).await?;
            self.taken.fetch_add(taken as u64, Relaxed);
        }
        Ok(())
    }

    async fn finish(mut self) -> Result<()> {
        self.writer.shutdown().await?;
        ensure!(self.reader.read(&mut [0]).await? == 0, "bytes where an end was due");
        Ok(())
    }

    fn meter(&self) -> Meter {
        let taken = self.taken.clone();
        Box::new(move || taken.load(Relaxed))
    }
}

/// The far end of a stream.
async fn serve_stream(mut writer: Writer, mut reader: Reader) -> Result<()> {
    let echoes = reader.read_u8().await? == ECHO;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = reader.read(&mut buffer).await?;
        if read == 0 {
            writer.shutdown().await?;
            return Ok(());
        }
        if echoes {
            writer.write_all(&buffer[..read]).await?;
            writer.flush().await?;
        }
    }
}

/// The memory of this process that is not of files, in bytes.
pub(crate) fn resident() -> Result<u64> {
    let rollup = fs::read_to_string(Path::new("/proc/self/smaps_rollup"))?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Anonymous:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    Ok(kib.unwrap_or_default() * 1024)
}
