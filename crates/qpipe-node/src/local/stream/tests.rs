use std::fs::File;
use std::io::Write;
use std::os::unix::net::UnixStream as StdStream;

use super::*;
use crate::local::{Ask, Event, MESSAGE_BYTES_MAX, Request, Word};

fn pair() -> (LocalStream, LocalStream) {
    let (one, other) = UnixStream::pair().unwrap();
    (LocalStream::new(one), LocalStream::new(other))
}

/// A connection whose other side says what it likes.
fn raw() -> (StdStream, LocalStream) {
    let (raw, stream) = StdStream::pair().unwrap();
    stream.set_nonblocking(true).unwrap();
    (raw, LocalStream::new(UnixStream::from_std(stream).unwrap()))
}

fn null() -> File {
    File::open("/dev/null").unwrap()
}

fn framed_json(json: &str) -> Vec<u8> {
    [&u32::try_from(json.len()).unwrap().to_be_bytes(), json.as_bytes()].concat()
}

async fn request(stream: &mut LocalStream) -> Result<Option<Request>, LocalError> {
    stream.incoming.message(&stream.socket, DESCRIPTORS_MAX).await
}

#[tokio::test]
async fn messages_arrive_in_order_up_to_the_end() {
    let (mut node, mut program) = pair();

    for bytes in 0..100 {
        node.send(&Event::Progress { bytes }, &[]).await.unwrap();
    }
    drop(node);

    for bytes in 0..100 {
        let event = program.recv::<Event>().await.unwrap();
        assert_eq!(event, Some(Event::Progress { bytes }));
    }
    assert_eq!(program.recv::<Event>().await.unwrap(), None);
}

#[tokio::test]
async fn largest_event_goes_through_a_small_buffer() {
    let (mut node, mut program) = pair();
    let event = Event::Failed { text: "x".repeat(crate::local::EVENT_BYTES_MAX - 100) };

    let (sent, received) = tokio::join!(node.send(&event, &[]), program.recv::<Event>());

    sent.unwrap();
    assert_eq!(received.unwrap(), Some(event));
}

#[tokio::test]
async fn descriptors_arrive_with_the_request_and_are_not_inherited() {
    let (mut program, mut node) = pair();
    let (reader, writer) = std::io::pipe().unwrap();
    let null = null();

    program.send(&Request::new(Ask::Retire), &[null.as_fd(), writer.as_fd()]).await.unwrap();
    drop(writer);
    request(&mut node).await.unwrap().unwrap();
    let mut descriptors = node.incoming.take_descriptors();

    assert_eq!(descriptors.len(), 2);
    for descriptor in &descriptors {
        let flags = rustix::io::fcntl_getfd(descriptor).unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
    }
    let mut writer = File::from(descriptors.remove(1));
    writer.write_all(b"through").unwrap();
    drop(writer);
    assert_eq!(std::io::read_to_string(reader).unwrap(), "through");
}

#[tokio::test]
async fn third_descriptor_ends_the_connection_and_all_are_closed() {
    let (raw, mut node) = raw();
    let (reader, writer) = std::io::pipe().unwrap();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(5))];
    for count in [3, 5] {
        let mut control = SendAncillaryBuffer::new(&mut space);
        let writers = vec![writer.as_fd(); count];
        assert!(control.push(SendAncillaryMessage::ScmRights(&writers)));
        let bytes = framed_json(r#"{"qpipe":1,"ask":"retire"}"#);
        sendmsg(&raw, &[IoSlice::new(&bytes)], &mut control, SendFlags::empty()).unwrap();
    }
    drop(writer);

    let error = request(&mut node).await.unwrap_err();
    drop((node, raw));

    assert!(matches!(error, LocalError::Descriptors { found: 3.., allowed: 2 }), "{error}");
    assert_eq!(std::io::read_to_string(reader).unwrap(), "");
}

#[tokio::test]
async fn descriptor_with_a_later_message_ends_the_connection() {
    let (mut program, mut node) = pair();

    program.send(&Word::Confirm, &[]).await.unwrap();
    program.send(&Word::Confirm, &[null().as_fd()]).await.unwrap();

    assert_eq!(node.recv::<Word>().await.unwrap(), Some(Word::Confirm));
    let error = node.recv::<Word>().await.unwrap_err();
    assert!(matches!(error, LocalError::Descriptors { found: 1, allowed: 0 }), "{error}");
}

#[tokio::test]
async fn more_than_two_descriptors_are_not_sent() {
    let (mut program, _node) = pair();
    let null = null();

    let sent = program.send(&Word::Confirm, &[null.as_fd(); 3]).await;

    assert!(matches!(sent, Err(LocalError::Stream(_))));
}

#[tokio::test]
async fn lengths_are_checked_before_anything_is_awaited() {
    let too_long = u32::try_from(MESSAGE_BYTES_MAX).unwrap() + 1;
    for length in [0, too_long, u32::MAX] {
        let (mut raw, mut node) = raw();
        raw.write_all(&length.to_be_bytes()).unwrap();

        let error = request(&mut node).await.unwrap_err();

        assert!(matches!(error, LocalError::Length { found, .. } if found == u64::from(length)));
    }
}

#[tokio::test]
async fn memory_follows_what_came_and_not_what_was_announced() {
    let (mut raw, mut node) = raw();
    raw.write_all(&u32::try_from(MESSAGE_BYTES_MAX).unwrap().to_be_bytes()).unwrap();
    raw.write_all(b"{").unwrap();

    let waiting = tokio::time::timeout(std::time::Duration::ZERO, request(&mut node)).await;

    assert!(waiting.is_err());
    assert!(node.incoming.bytes.capacity() <= 3 * READ_BYTES_MAX);
}

#[tokio::test]
async fn connection_that_ends_within_a_message_is_an_error() {
    let whole = framed_json(r#"{"qpipe":1,"ask":"retire"}"#);
    for end in 1..whole.len() {
        let (mut raw, mut node) = raw();
        raw.write_all(&whole[..end]).unwrap();
        drop(raw);

        assert!(matches!(request(&mut node).await, Err(LocalError::EndedEarly)), "{end}");
    }
}

#[tokio::test]
async fn cancelled_reads_lose_nothing() {
    let (mut raw, mut node) = raw();
    for byte in framed_json(r#"{"qpipe":1,"ask":"retire"}"#) {
        let waiting = tokio::time::timeout(std::time::Duration::ZERO, request(&mut node)).await;
        assert!(waiting.is_err());
        raw.write_all(&[byte]).unwrap();
    }

    assert_eq!(request(&mut node).await.unwrap(), Some(Request::new(Ask::Retire)));
}

#[tokio::test]
async fn program_that_leaves_events_unread_is_simply_gone() {
    let (mut node, program) = pair();
    node.send(&Event::Joined, &[]).await.unwrap();

    drop(program);

    assert_eq!(node.recv::<Word>().await.unwrap(), None);
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

    #[test]
    fn garbage_on_the_socket_ends_in_an_error_or_the_end(bytes: Vec<u8>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (mut raw, mut node) = raw();
            raw.write_all(&bytes).unwrap();
            drop(raw);

            let heard = request(&mut node).await;

            assert_eq!(heard.is_err(), !bytes.is_empty());
        });
    }
}
