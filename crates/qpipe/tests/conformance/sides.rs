//! What makes pipes: the kernel, and two nodes with a session between them.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use qpipe::Pumping;
use tokio::runtime::Handle;

use crate::differences::Kind;
use crate::ends::{Background, FdReader, FdWriter, QpipeReader, QpipeWriter, ReadEnd, WriteEnd};
use crate::hosts::Hosts;

/// Something that makes a write end and a read end.
pub(crate) trait Pipes: Sized + 'static {
    const KIND: Kind;
    type W: WriteEnd;
    type R: ReadEnd;

    fn new() -> Self;
    /// A new pipe, of which both ends are there.
    fn open(&self) -> (Self::W, Self::R);
}

/// pipe(2): the oracle.
pub(crate) struct Kernel;

/// qpipe, each pipe opened by its writer.
pub(crate) struct OpenedByWriter(Hosts);

/// qpipe, each pipe opened by its reader.
pub(crate) struct OpenedByReader(Hosts);

/// qpipe with kernel pipes at both ends.
pub(crate) struct ThroughDescriptors(Hosts);

impl Pipes for Kernel {
    const KIND: Kind = Kind::Kernel;
    type W = FdWriter;
    type R = FdReader;

    fn new() -> Kernel {
        Kernel
    }

    fn open(&self) -> (FdWriter, FdReader) {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        let writer = FdWriter { fd: writer, background: None };
        (writer, FdReader { fd: reader, _background: None })
    }
}

impl Pipes for OpenedByWriter {
    const KIND: Kind = Kind::Qpipe;
    type W = QpipeWriter;
    type R = QpipeReader;

    fn new() -> OpenedByWriter {
        OpenedByWriter(Hosts::new())
    }

    fn open(&self) -> (QpipeWriter, QpipeReader) {
        let (writer, reader) = self.0.pipe();
        (blocking_writer(self.0.dialler(), writer), blocking_reader(self.0.acceptor(), reader))
    }
}

impl Pipes for OpenedByReader {
    const KIND: Kind = Kind::Qpipe;
    type W = QpipeWriter;
    type R = QpipeReader;

    fn new() -> OpenedByReader {
        OpenedByReader(Hosts::new())
    }

    fn open(&self) -> (QpipeWriter, QpipeReader) {
        let (writer, reader) = self.0.pipe_from_reader();
        (blocking_writer(self.0.acceptor(), writer), blocking_reader(self.0.dialler(), reader))
    }
}

impl Pipes for ThroughDescriptors {
    const KIND: Kind = Kind::Descriptors;
    type W = FdWriter;
    type R = FdReader;

    fn new() -> ThroughDescriptors {
        ThroughDescriptors(Hosts::new())
    }

    fn open(&self) -> (FdWriter, FdReader) {
        let (writer, reader) = self.0.pipe();
        let (fd, background) = descriptor(self.0.dialler(), || writer.into_fd());
        let writer = FdWriter { fd, background };
        let (fd, background) = descriptor(self.0.acceptor(), || reader.into_fd());
        (writer, FdReader { fd, _background: background })
    }
}

fn blocking_writer(runtime: &Handle, end: qpipe::PipeWriter) -> QpipeWriter {
    let _inside = runtime.enter();
    QpipeWriter { end: Some(end.into_blocking()), runtime: runtime.clone() }
}

fn blocking_reader(runtime: &Handle, end: qpipe::PipeReader) -> QpipeReader {
    let _inside = runtime.enter();
    QpipeReader { end: Some(end.into_blocking()), runtime: runtime.clone() }
}

fn descriptor(
    runtime: &Handle,
    make: impl FnOnce() -> io::Result<(OwnedFd, Pumping)>,
) -> (OwnedFd, Option<Background>) {
    let _inside = runtime.enter();
    let (fd, pumping) = make().unwrap();
    (fd, Some(Background { pumping, runtime: runtime.clone() }))
}

/// A thread that can be seen to sleep.
pub(crate) struct Sleeper<T> {
    thread: JoinHandle<T>,
    /// Its directory under /proc.
    task: std::path::PathBuf,
}

impl<T: Send + 'static> Sleeper<T> {
    pub(crate) fn spawn(work: impl FnOnce() -> T + Send + 'static) -> Sleeper<T> {
        let (tell, told) = mpsc::channel();
        let thread = thread::spawn(move || {
            let task = std::fs::read_link("/proc/thread-self").unwrap();
            tell.send(std::path::Path::new("/proc").join(task)).unwrap();
            work()
        });
        Sleeper { thread, task: told.recv().unwrap() }
    }

    /// Waits until the thread sleeps: in a call that blocks, or at the latest when it has ended.
    pub(crate) fn until_asleep(self) -> Sleeper<T> {
        let mut asleep = 0;
        // A thread sleeps for a moment on the way, too: seen asleep often, it is there.
        while asleep < 20 {
            let Ok(stat) = std::fs::read_to_string(self.task.join("stat")) else { break };
            let state = stat.rsplit(')').next().and_then(|rest| rest.trim().chars().next());
            asleep = if matches!(state, Some('S' | 'Z' | 'X')) { asleep + 1 } else { 0 };
            thread::yield_now();
        }
        self
    }

    pub(crate) fn join(self) -> T {
        match self.thread.join() {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}
