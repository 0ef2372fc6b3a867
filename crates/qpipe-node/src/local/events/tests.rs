use super::*;

fn parts() -> (EventSender, Words, LocalStream) {
    let (node, program) = UnixStream::pair().unwrap();
    let (events, words) = into_parts(LocalStream::new(node));
    (events, words, LocalStream::new(program))
}

/// More than the kernel's buffer takes.
fn large() -> Event {
    Event::Failed { text: "x".repeat(900_000) }
}

#[tokio::test]
async fn dropped_sender_lets_the_rest_go_out() {
    let (events, _words, mut program) = parts();

    events.send(Event::Joined);
    events.send(large());
    drop(events);

    assert_eq!(program.recv().await.unwrap(), Some(Event::Joined));
    assert_eq!(program.recv().await.unwrap(), Some(large()));
    assert_eq!(program.recv::<Event>().await.unwrap(), None);
}

#[tokio::test]
async fn words_are_heard_until_the_program_is_gone() {
    let (_events, mut words, mut program) = parts();

    program.send(&Word::Confirm, &[]).await.unwrap();
    program.send(&Word::Abort { cause: 5 }, &[]).await.unwrap();
    drop(program);

    assert_eq!(words.next().await.unwrap(), Some(Word::Confirm));
    assert_eq!(words.next().await.unwrap(), Some(Word::Abort { cause: 5 }));
    assert_eq!(words.next().await.unwrap(), None);
}

#[tokio::test]
async fn program_that_does_not_read_misses_what_passes_and_hears_the_end() {
    let (events, _words, mut program) = parts();
    events.send(large());
    for bytes in 0..1_000_000 {
        events.send(Event::Progress { bytes });
    }
    for left_ms in 0..1_000 {
        events.send(Event::Silent { peer: "p".to_owned(), silent_ms: 1, left_ms });
    }
    events.send(Event::Eof);
    events.send(Event::Done);
    assert!(events.shared.lock().events.len() <= EVENTS_WAITING_MAX);
    drop(events);

    let mut heard = Vec::new();
    while let Some(event) = program.recv::<Event>().await.unwrap() {
        heard.push(event);
    }

    assert_eq!(heard.first(), Some(&large()));
    assert!(heard.len() <= EVENTS_WAITING_MAX + 2);
    assert!(heard.ends_with(&[
        Event::Silent { peer: "p".to_owned(), silent_ms: 1, left_ms: 999 },
        Event::Eof,
        Event::Done
    ]));
}

#[tokio::test]
async fn more_than_waits_for_anybody_ends_the_connection() {
    let (events, mut words, _program) = parts();
    events.send(large());

    for _ in 0..=EVENTS_WAITING_MAX + 1 {
        events.send(Event::Eof);
    }

    assert_eq!(words.next().await.unwrap(), None);
    events.flushed().await;
}

#[tokio::test]
async fn flushed_when_everything_is_written_or_the_program_is_gone() {
    let (events, _words, mut program) = parts();
    events.flushed().await;

    events.send(large());
    let (_, heard) = tokio::join!(events.flushed(), program.recv::<Event>());
    assert_eq!(heard.unwrap(), Some(large()));

    events.send(large());
    drop(program);
    events.flushed().await;
}

#[tokio::test]
async fn last_event_that_is_too_long_becomes_a_failure() {
    let (events, _words, mut program) = parts();

    let text = "x".repeat(crate::local::EVENT_BYTES_MAX);
    events.send(Event::Status(serde_json::json!({ "text": text })));

    let heard = program.recv::<Event>().await.unwrap();
    assert!(matches!(heard, Some(Event::Failed { text }) if text.contains("bytes")));
}
