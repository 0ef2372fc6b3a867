use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use qpipe::{Cause, End, Fingerprint, PipeError, Priority};
use serde_json::json;

use super::*;
use crate::local::Records;
use crate::local::{OpenAsk, Outcome, PipeStop, Place, Stop, cause_of};

fn place() -> impl Strategy<Value = Place> {
    prop_oneof![
        any::<String>().prop_map(|name| Place::Local { name }),
        any::<(String, String)>().prop_map(|(host, name)| Place::Remote { host, name }),
        any::<String>().prop_map(|target| Place::Typed { target }),
    ]
}

fn end() -> impl Strategy<Value = End> {
    prop_oneof![Just(End::Duplex), Just(End::Read), Just(End::Write)]
}

fn open() -> impl Strategy<Value = OpenAsk> {
    let flags = any::<(bool, bool, bool)>();
    let numbers = any::<(Option<u64>, Option<u64>)>();
    let priority = prop_oneof![Just(Priority::Low), Just(Priority::Normal), Just(Priority::High)];
    (end(), place(), flags, numbers, priority, vec(any::<String>(), 0..9)).prop_map(
        |(end, place, (no_wait, wants_progress, has_lines), numbers, priority, words)| {
            let process = process_text(words.iter().map(String::as_str));
            let records = has_lines.then_some(Records::Line);
            let (timeout_ms, capacity_bytes) = numbers;
            OpenAsk {
                end,
                place,
                no_wait,
                timeout_ms,
                wants_progress,
                records,
                priority,
                capacity_bytes,
                process,
            }
        },
    )
}

fn ask() -> impl Strategy<Value = Ask> {
    prop_oneof![
        open().prop_map(Ask::Open),
        Just(Ask::Retire),
        Just(Ask::Status),
        any::<u64>().prop_map(|within_ms| Ask::Stop { within_ms }),
    ]
}

fn word() -> impl Strategy<Value = Word> {
    prop_oneof![any::<u32>().prop_map(|cause| Word::Abort { cause }), Just(Word::Confirm)]
}

fn pipe_stop() -> impl Strategy<Value = PipeStop> {
    prop_oneof![
        any::<(u32, u64)>().prop_map(|(cause, delivered)| PipeStop::Aborted { cause, delivered }),
        any::<(u32, u64)>().prop_map(|(cause, consumed)| PipeStop::Broken { cause, consumed }),
        any::<u64>().prop_map(|delivered| PipeStop::Corrupt { delivered }),
        any::<(u32, u64)>().prop_map(|(cause, consumed)| PipeStop::Failed { cause, consumed }),
        any::<u32>().prop_map(|cause| PipeStop::Refused { cause }),
    ]
}

fn outcome() -> impl Strategy<Value = Outcome> {
    let stop = prop_oneof![
        any::<(Option<i32>, String)>().prop_map(|(errno, text)| Stop::Input { errno, text }),
        Just(Stop::NoPartner),
        any::<(Option<i32>, String)>().prop_map(|(errno, text)| Stop::Output { errno, text }),
        pipe_stop().prop_map(Stop::Pipe),
    ];
    (any::<u64>(), option::of(stop)).prop_map(|(bytes, stopped)| Outcome { bytes, stopped })
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        any::<(String, u64)>().prop_map(|(peer, after_ms)| Event::Back { peer, after_ms }),
        Just(Event::Done),
        (option::of(outcome()), option::of(outcome()))
            .prop_map(|(sent, received)| Event::Ended { sent, received }),
        Just(Event::Eof),
        any::<String>().prop_map(|text| Event::Failed { text }),
        Just(Event::Joined),
        any::<(Option<String>, Option<std::net::SocketAddrV4>)>()
            .prop_map(|(host, address)| Event::Opened { host, address: address.map(Into::into) }),
        any::<u64>().prop_map(|bytes| Event::Progress { bytes }),
        any::<(String, u64, u64)>().prop_map(|(peer, silent_ms, left_ms)| Event::Silent {
            peer,
            silent_ms,
            left_ms
        }),
        any::<(u64, String)>().prop_map(|(n, s)| Event::Status(json!({ "n": n, "s": [s] }))),
        (any::<String>(), any::<[u8; 32]>(), vec(any::<String>(), 0..4)).prop_map(
            |(host, seen, addresses)| Event::UnknownHost {
                host,
                seen: Fingerprint::from_bytes(seen),
                addresses
            }
        ),
    ]
}

proptest! {
    #[test]
    fn requests_survive_the_wire(ask in ask()) {
        let request = Request::new(ask);

        prop_assert_eq!(Request::parse(&request.encode().unwrap()).unwrap(), Some(request));
    }

    #[test]
    fn words_survive_the_wire(word in word()) {
        prop_assert_eq!(Word::parse(&word.encode().unwrap()).unwrap(), Some(word));
    }

    #[test]
    fn events_survive_the_wire(event in event()) {
        prop_assert_eq!(Event::parse(&event.encode().unwrap()).unwrap(), Some(event));
    }

    #[test]
    fn garbage_is_an_error_and_nothing_else(bytes: Vec<u8>) {
        prop_assert!(Request::parse(&bytes).is_err());
        prop_assert!(Word::parse(&bytes).is_err());
        prop_assert!(Event::parse(&bytes).is_err());
    }

    #[test]
    fn a_request_with_a_byte_changed_does_no_harm(ask in ask(), at: prop::sample::Index, byte: u8) {
        let mut bytes = Request::new(ask).encode().unwrap();
        let at = at.index(bytes.len());
        bytes[at] = byte;

        if let Ok(Some(request)) = Request::parse(&bytes) {
            prop_assert_eq!(Request::parse(&request.encode().unwrap()).unwrap(), Some(request));
        }
    }

    #[test]
    fn process_texts_are_short_and_harmless(words: Vec<String>) {
        let text = process_text(words.iter().map(String::as_str));

        prop_assert!(text.len() <= PROCESS_BYTES_MAX);
        prop_assert!(!text.contains(is_obeyed_by_terminals));
    }
}

#[test]
fn process_text_is_cut_between_characters() {
    let text = process_text(["qpipe", "send", &"ä".repeat(1_000)]);

    assert!(text.starts_with("qpipe send ää"));
    assert!(text.ends_with('…'));
    assert!(text.len() > PROCESS_BYTES_MAX - 4);
}

#[test]
fn what_a_request_does_not_have_is_refused() {
    for json in [
        r#"{"qpipe":1,"ask":"retire","more":1}"#,
        r#"{"qpipe":1,"ask":{"stop":{"within_ms":1,"more":1}}}"#,
        r#"{"qpipe":1,"ask":{"stop":{"within_ms":-1}}}"#,
        r#"{"qpipe":1,"ask":{"stop":{"within_ms":1},"retire":null}}"#,
        r#"{"qpipe":1,"ask":"dance"}"#,
        r#"{"qpipe":1,"qpipe":1,"ask":"retire"}"#,
        r#"{"qpipe":1,"ask":{"open":{"end":"send","place":{"local":{"name":"x"}},"x":1}}}"#,
        r#"{"qpipe":1,"ask":{"open":{"end":"both","place":{"local":{"name":"x"}}}}}"#,
        r#"{"qpipe":1,"ask":{"open":{"end":"send","place":{"local":{"name":"\ud800"}}}}}"#,
        r#"{"qpipe":1,"ask":"retire"} "retire""#,
    ] {
        assert!(matches!(Request::parse(json.as_bytes()), Err(LocalError::Message(_))), "{json}");
    }
}

#[test]
fn command_line_that_is_long_or_obeyed_by_terminals_is_refused() {
    let request = |process: &str| {
        let place = json!({ "local": { "name": "x" } });
        let open = json!({ "end": "recv", "place": place, "process": process });
        Request::parse(json!({ "qpipe": 1, "ask": { "open": open } }).to_string().as_bytes())
    };

    assert!(request("qpipe recv x").is_ok());
    assert!(request("\u{1b}[2J").is_err());
    assert!(request(&"x".repeat(PROCESS_BYTES_MAX + 1)).is_err());
}

#[test]
fn another_version_is_told_as_such_whatever_it_says() {
    let found = Request::parse(br#"{"qpipe":2,"wants":["everything"]}"#);

    assert!(matches!(found, Err(LocalError::Version { found: 2 })));
    assert!(matches!(Request::parse(br#"{"ask":"retire"}"#), Err(LocalError::Message(_))));
}

#[test]
fn only_events_of_later_versions_are_passed_over() {
    let parse = |json: &str| Event::parse(json.as_bytes());

    assert_eq!(parse(r#"{"event":"dream","of":[1,{}]}"#).unwrap(), None);
    assert_eq!(parse(r#"{"event":"eof","since":5}"#).unwrap(), Some(Event::Eof));
    assert!(parse(r#"{"event":"progress","bytes":"many"}"#).is_err());
    assert!(parse(r#"{"bytes":5}"#).is_err());
}

#[test]
fn depth_is_bounded() {
    let deep = format!(r#"{{"event":"status","x":{}1{}}}"#, "[".repeat(10_000), "]".repeat(10_000));

    assert!(Event::parse(deep.as_bytes()).is_err());
}

#[test]
fn messages_that_are_too_long_are_not_made() {
    let text = "x".repeat(EVENT_BYTES_MAX);
    let name = "x".repeat(MESSAGE_BYTES_MAX);

    let event = Event::Failed { text }.encode();
    let open = OpenAsk::new(End::Read, Place::Local { name });
    let request = Request::new(Ask::Open(open)).encode();

    assert!(matches!(event, Err(LocalError::Length { bytes_max: EVENT_BYTES_MAX, .. })));
    assert!(matches!(request, Err(LocalError::Length { bytes_max: MESSAGE_BYTES_MAX, .. })));
}

#[test]
fn text_of_the_other_side_is_made_harmless_in_errors() {
    let error = Request::parse(b"{\"qpipe\":1,\"ask\":\"\\u001b[2J\"}").unwrap_err().to_string();

    assert!(!error.contains(is_obeyed_by_terminals), "{error:?}");
}

#[test]
fn errors_of_pipes_survive_the_wire_with_their_causes() {
    for cause in Cause::ALL.iter().copied().chain([Cause::Other(9_999)]) {
        let mut errors = vec![
            PipeError::Aborted { cause, delivered: 5 },
            PipeError::Broken { cause, consumed: 6 },
            PipeError::Failed { cause, consumed: 7 },
            PipeError::Refused { cause },
        ];
        errors.push(PipeError::Corrupt { delivered: 8 });
        for error in errors {
            assert_eq!(PipeError::from(PipeStop::from(error)), error);
        }
    }
    assert_eq!(cause_of(0), Cause::Protocol);
}
