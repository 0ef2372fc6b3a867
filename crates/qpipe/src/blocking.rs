//! Blocking wrappers: [`std::io::Read`] and [`std::io::Write`] for threads that are not tokio's.
//!
//! The runtime that the node runs in has to be driven by another thread meanwhile.

use std::io::{self, Read, Write};

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Handle;

/// A write end for a blocking thread. Like the asynchronous one, it aborts the pipe if it is
/// dropped unfinished.
#[derive(Debug)]
pub struct PipeWriter {
    inner: crate::PipeWriter,
    runtime: Handle,
}

/// A read end for a blocking thread.
#[derive(Debug)]
pub struct PipeReader {
    inner: crate::PipeReader,
    runtime: Handle,
}

impl crate::PipeWriter {
    /// A blocking wrapper.
    ///
    /// # Panics
    /// Outside of a tokio runtime. Its methods panic when called on one of tokio's own threads.
    pub fn into_blocking(self) -> PipeWriter {
        PipeWriter { inner: self, runtime: Handle::current() }
    }
}

impl crate::PipeReader {
    /// A blocking wrapper.
    ///
    /// # Panics
    /// Outside of a tokio runtime. Its methods panic when called on one of tokio's own threads.
    pub fn into_blocking(self) -> PipeReader {
        PipeReader { inner: self, runtime: Handle::current() }
    }
}

impl PipeWriter {
    /// Writes all of `chunk`, without a copy if it is large.
    ///
    /// # Errors
    /// As [`crate::PipeWriter::write_chunk`].
    pub fn write_chunk(&mut self, chunk: Bytes) -> io::Result<()> {
        self.runtime.block_on(self.inner.write_chunk(chunk))
    }

    /// Closes the pipe, and waits until the reader consumed every byte.
    ///
    /// # Errors
    /// As [`crate::PipeWriter::finish`].
    pub fn finish(mut self) -> io::Result<()> {
        self.runtime.block_on(self.inner.finish())
    }

    /// The asynchronous end.
    pub fn into_inner(self) -> crate::PipeWriter {
        self.inner
    }
}

impl PipeReader {
    /// The next bytes, at most `max`; `None` is EOF. Counts as consumed.
    ///
    /// # Errors
    /// As [`crate::PipeReader::read_chunk`].
    pub fn read_chunk(&mut self, max: usize) -> io::Result<Option<Bytes>> {
        let chunk = self.runtime.block_on(self.inner.read_chunk(max))?;
        if let Some(chunk) = &chunk {
            self.inner.consume(chunk.len() as u64);
        }
        Ok(chunk)
    }

    /// The asynchronous end.
    pub fn into_inner(self) -> crate::PipeReader {
        self.inner
    }
}

impl Write for PipeWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.runtime.block_on(self.inner.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for PipeReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.runtime.block_on(self.inner.read(buffer))
    }
}
