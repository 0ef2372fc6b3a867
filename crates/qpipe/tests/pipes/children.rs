//! Programs that know nothing of qpipe at the ends of pipes.

use std::io::ErrorKind;
use std::process::Stdio;

use qpipe::{Cause, PipeError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

use crate::pair::{Pair, pattern};

#[tokio::test]
async fn a_child_between_two_remote_pipes_copies_one_to_the_other() {
    let pair = Pair::new().await;
    let (mut writer, input) = pair.pipe().await;
    let (output, mut reader) = pair.pipe_from_reader().await;
    let (stdin, giving) = input.into_fd().unwrap();
    let (stdout, taking) = output.into_fd().unwrap();
    let mut child = {
        let mut command = Command::new("cat");
        command.stdin(Stdio::from(stdin)).stdout(Stdio::from(stdout));
        command.spawn().unwrap()
        // The command, with this process's copies of both descriptors, ends here.
    };
    let writing = tokio::spawn(async move {
        writer.write_all(&pattern(1, 0, 1_000_000)).await.unwrap();
        writer.finish().await
    });
    let mut got = Vec::new();
    reader.read_to_end(&mut got).await.unwrap();
    assert!(got == pattern(1, 0, 1_000_000));
    assert!(child.wait().await.unwrap().success());
    writing.await.unwrap().unwrap();
    assert_eq!(giving.await.unwrap(), 1_000_000);
    assert_eq!(taking.await.unwrap(), 1_000_000);
}

#[tokio::test]
async fn a_child_that_has_read_enough_breaks_the_pipe() {
    let pair = Pair::new().await;
    let (mut writer, input) = pair.pipe().await;
    let (stdin, giving) = input.into_fd().unwrap();
    let child = Command::new("head")
        .args(["-c", "1000"])
        .stdin(Stdio::from(stdin))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let writing = tokio::spawn(async move {
        loop {
            if let Err(error) = writer.write_all(&[7; 4096]).await {
                return error;
            }
        }
    });
    let output = child.wait_with_output().await.unwrap();
    assert_eq!(output.stdout, [7; 1000]);
    let error = writing.await.unwrap();
    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    assert_eq!(PipeError::of(&error).unwrap().cause(), Cause::ReaderClosed);
    assert_eq!(giving.await.unwrap_err().kind(), ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn a_child_that_reads_nothing_breaks_an_idle_pipe() {
    let pair = Pair::new().await;
    let (writer, input) = pair.pipe().await;
    let (stdin, giving) = input.into_fd().unwrap();
    let status = Command::new("true").stdin(Stdio::from(stdin)).status().await.unwrap();
    assert!(status.success());
    let broken = PipeError::Broken { cause: Cause::ReaderClosed, consumed: 0 };
    assert_eq!(writer.over().await, Err(broken));
    assert_eq!(giving.await.unwrap_err().kind(), ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn a_child_that_fails_closes_its_end_which_is_eof_as_in_the_kernel() {
    let pair = Pair::new().await;
    let (output, mut reader) = pair.pipe().await;
    let (stdout, taking) = output.into_fd().unwrap();
    let status = Command::new("sh")
        .args(["-c", "printf 'before failing'; exit 3"])
        .stdin(Stdio::null())
        .stdout(Stdio::from(stdout))
        .status()
        .await
        .unwrap();
    assert_eq!(status.code(), Some(3));
    let mut got = String::new();
    reader.read_to_string(&mut got).await.unwrap();
    assert_eq!(got, "before failing");
    assert_eq!(taking.await.unwrap(), 14);
}

#[tokio::test]
async fn a_child_that_is_killed_closes_its_end_too() {
    let pair = Pair::new().await;
    let (output, mut reader) = pair.pipe().await;
    let (stdout, taking) = output.into_fd().unwrap();
    let mut child = Command::new("sh")
        .args(["-c", "echo started; exec cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::from(stdout))
        .spawn()
        .unwrap();
    let mut started = [0; 8];
    reader.read_exact(&mut started).await.unwrap();
    child.kill().await.unwrap();
    assert_eq!(reader.read(&mut [0; 10]).await.unwrap(), 0);
    assert_eq!(taking.await.unwrap(), 8);
}

#[tokio::test]
async fn a_reader_that_leaves_is_epipe_for_a_child_that_writes() {
    let pair = Pair::new().await;
    let (output, mut reader) = pair.pipe().await;
    let (stdout, taking) = output.into_fd().unwrap();
    let mut child = {
        let mut command = Command::new("yes");
        command.stdin(Stdio::null()).stdout(Stdio::from(stdout)).stderr(Stdio::null());
        command.spawn().unwrap()
    };
    reader.read_exact(&mut [0; 100_000]).await.unwrap();
    drop(reader);
    // SIGPIPE, or an error of its own where the signal is ignored.
    assert!(!child.wait().await.unwrap().success());
    assert_eq!(taking.await.unwrap_err().kind(), ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn an_abort_ends_the_child_s_input_and_is_told_to_its_parent() {
    let pair = Pair::new().await;
    let (mut writer, input) = pair.pipe().await;
    let (stdin, giving) = input.into_fd().unwrap();
    let child = {
        let mut command = Command::new("cat");
        command.stdin(Stdio::from(stdin)).stdout(Stdio::piped());
        command.spawn().unwrap()
    };
    writer.write_all(b"partial").await.unwrap();
    drop(writer);
    assert_eq!(child.wait_with_output().await.unwrap().stdout, b"partial");
    let error = giving.await.unwrap_err();
    let aborted = PipeError::Aborted { cause: Cause::WriterDropped, delivered: 7 };
    assert_eq!(PipeError::of(&error), Some(&aborted));
}

#[tokio::test]
async fn a_lost_session_is_told_to_the_parents_of_both_children() {
    let pair = Pair::new().await;
    let (mut idle, input) = pair.pipe().await;
    let (output, _reader) = pair.pipe().await;
    let (stdin, giving) = input.into_fd().unwrap();
    let (stdout, taking) = output.into_fd().unwrap();
    idle.write_all(b"x").await.unwrap();
    drop(pair.acceptor);
    for (pumping, descriptor) in [(giving, stdin), (taking, stdout)] {
        let error = pumping.await.unwrap_err();
        assert_eq!(PipeError::of(&error).unwrap().cause(), Cause::Lost);
        drop(descriptor);
    }
}
