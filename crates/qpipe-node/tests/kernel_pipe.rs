//! Ends of pipes for a program by way of its host's node: kernel pipes.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use qpipe::identity::HostIdentity;
use qpipe::{Cause, End, NodeOptions};
use qpipe_node::local::{HeldPipe, Listener, OpenAsk, Outcome, PipeStop, Place, Stop, open_pipe};
use qpipe_node::{Home, SharedNode};
use tokio::task::{JoinHandle, spawn_blocking};

/// A home whose node runs in this process.
struct World {
    home: Home,
    _dir: tempfile::TempDir,
    _answering: JoinHandle<()>,
}

impl World {
    fn new() -> World {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path().join("home"));
        let listener = Listener::bind(&home).unwrap();
        let identity = HostIdentity::ephemeral().unwrap().process().unwrap();
        let node: Arc<SharedNode> =
            SharedNode::start(home.clone(), identity, NodeOptions::default()).unwrap();
        let answering = tokio::spawn(async move {
            node.run(&listener).await;
        });
        World { home, _dir: dir, _answering: answering }
    }

    async fn open(&self, end: End, name: &str) -> (File, HeldPipe) {
        let ask = OpenAsk::new(end, Place::Local { name: name.to_owned() });
        let opened: (OwnedFd, HeldPipe) =
            open_pipe(&self.home, Path::new("/nowhere"), &[], ask).await.unwrap();
        (File::from(opened.0), opened.1)
    }

    /// Both ends of a pipe.
    async fn pipe(&self) -> ((File, HeldPipe), (File, HeldPipe)) {
        tokio::join!(self.open(End::Write, "x"), self.open(End::Read, "x"))
    }
}

async fn read_all(mut file: File) -> String {
    let reading = move || {
        let mut all = String::new();
        file.read_to_string(&mut all).unwrap();
        all
    };
    spawn_blocking(reading).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_written_comes_and_both_ends_hear_that_it_was_all() {
    let world = World::new();
    let ((mut writing, writer), (reading, reader)) = world.pipe().await;
    writing.write_all(b"content").unwrap();
    drop(writing);

    let (written, read, all) = tokio::join!(writer.finish(), reader.finish(), read_all(reading));

    let whole = Outcome { bytes: 7, stopped: None };
    assert_eq!((written.unwrap(), read.unwrap(), all), (whole.clone(), whole, "content".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_that_is_let_go_of_is_an_abort() {
    let world = World::new();
    let ((mut writing, writer), (reading, reader)) = world.pipe().await;
    writing.write_all(b"begun").unwrap();
    let all = tokio::spawn(read_all(reading));

    drop((writing, writer));

    let told = reader.finish().await.unwrap();
    let aborted = PipeStop::Aborted { cause: Cause::Interrupted.code(), delivered: 5 };
    assert_eq!(told.stopped, Some(Stop::Pipe(aborted)));
    // A kernel pipe has no word for it.
    assert_eq!(all.await.unwrap(), "begun");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_leaves_breaks_the_writers_kernel_pipe() {
    let world = World::new();
    let ((mut writing, writer), (reading, reader)) = world.pipe().await;

    drop((reading, reader));

    let broken = spawn_blocking(move || {
        loop {
            if let Err(error) = writing.write_all(&[0; 4096]) {
                return error.kind();
            }
        }
    });
    assert_eq!(broken.await.unwrap(), ErrorKind::BrokenPipe);
    assert!(writer.finish().await.unwrap().stopped.is_some());
}
