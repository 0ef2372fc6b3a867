//! What the tests take over.

use std::{
    fs::File,
    future::Future,
    io::{self, PipeReader, PipeWriter, Read, Write},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    pin::Pin,
    task::{Context, Poll, Waker},
    thread::JoinHandle,
};

use rustix::{
    fs::{CWD, Mode, OFlags, fcntl_getfl, mkfifoat, open},
    pipe::fcntl_getpipe_size,
    pty::{OpenptFlags, openpt, ptsname, unlockpt},
    termios::{OptionalActions, tcgetattr, tcsetattr},
};
use tempfile::TempDir;

use super::{
    Sink, Source,
    descriptor::{Descriptor, Side, Way},
};

pub(super) fn pipe() -> (PipeReader, PipeWriter) {
    io::pipe().unwrap()
}

/// A pipe that is opened as if it could not be opened again.
pub(super) fn waited_source(fd: impl Into<OwnedFd>) -> Source {
    Source::new(Descriptor::with(fd.into(), Side::Read, Way::Waited).unwrap())
}

pub(super) fn waited_sink(fd: impl Into<OwnedFd>) -> Sink {
    Sink::new(Descriptor::with(fd.into(), Side::Write, Way::Waited).unwrap())
}

pub(super) struct Fifo {
    _dir: TempDir,
    path: PathBuf,
}

impl Fifo {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fifo");
        mkfifoat(CWD, &path, Mode::RUSR | Mode::WUSR).unwrap();
        Self { _dir: dir, path }
    }

    /// Both ends, without O_NONBLOCK.
    pub(super) fn open(&self) -> (File, File) {
        let keep = self.file(OFlags::RDWR);
        let ends = (self.file(OFlags::RDONLY), self.file(OFlags::WRONLY));
        drop(keep);
        ends
    }

    pub(super) fn file(&self, flags: OFlags) -> File {
        open(&self.path, flags | OFlags::CLOEXEC, Mode::empty()).unwrap().into()
    }
}

/// A terminal that changes nothing of what passes, and its far side.
pub(super) fn terminal() -> (File, File) {
    let far = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    unlockpt(&far).unwrap();
    let path = ptsname(&far, Vec::new()).unwrap();
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let near = open(path.as_c_str(), flags, Mode::empty()).unwrap();
    let mut settings = tcgetattr(&near).unwrap();
    settings.make_raw();
    tcsetattr(&near, OptionalActions::Now, &settings).unwrap();
    (near.into(), far.into())
}

/// Bytes that differ from place to place.
pub(super) fn content(bytes: usize) -> Vec<u8> {
    (0..bytes as u64).map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

pub(super) fn writing(mut to: impl Write + Send + 'static, bytes: Vec<u8>) -> JoinHandle<()> {
    std::thread::spawn(move || to.write_all(&bytes).unwrap())
}

pub(super) fn reading(mut from: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).unwrap();
        bytes
    })
}

/// Everything until EOF.
pub(super) async fn drained(source: &mut Source) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Some(chunk) = source.next(usize::MAX).await.unwrap() {
        assert!(!chunk.is_empty());
        bytes.extend_from_slice(&chunk);
    }
    bytes
}

/// Polls once.
pub(super) fn polled<F: Future>(future: Pin<&mut F>) -> Option<F::Output> {
    match future.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

pub(super) fn is_blocking(fd: &impl std::os::fd::AsFd) -> bool {
    !fcntl_getfl(fd).unwrap().contains(OFlags::NONBLOCK)
}

/// Writes until the pipe is full; how many bytes that were.
pub(super) fn fill(writer: &mut impl Write, of: &impl std::os::fd::AsFd) -> usize {
    let room = fcntl_getpipe_size(of).unwrap();
    writer.write_all(&vec![0; room]).unwrap();
    room
}

pub(super) fn file(dir: &Path, bytes: &[u8]) -> File {
    let path = dir.join("file");
    std::fs::write(&path, bytes).unwrap();
    File::open(path).unwrap()
}
