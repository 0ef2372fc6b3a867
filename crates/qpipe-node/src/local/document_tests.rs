//! docs/local-protocol.md says what the code does.

use std::collections::BTreeSet;

use qpipe::{End, Fingerprint, Priority};
use serde_json::{Value, json};

use super::codec::EVENT_KINDS;
use super::*;

const PAGE: &str = include_str!("../../../../docs/local-protocol.md");

/// The cells of the rows of the table whose first column has this title.
fn table(title: &str) -> Vec<Vec<String>> {
    let head = format!("| {title} |");
    let lines = PAGE.lines().skip_while(|line| !line.starts_with(&head));
    let rows = lines.take_while(|line| line.starts_with('|')).skip(2);
    rows.map(|row| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect())
        .collect()
}

/// The words in backquotes of a cell.
fn quoted(cell: &str) -> BTreeSet<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn first_column(title: &str) -> BTreeSet<String> {
    table(title).iter().flat_map(|row| quoted(&row[0])).collect()
}

/// The examples that begin so.
fn examples(beginning: &str) -> Vec<&'static str> {
    PAGE.lines()
        .filter_map(|line| line.strip_prefix("    "))
        .filter(|line| line.starts_with(beginning))
        .collect()
}

/// What a message of several kinds is called: `"kind"` or `{"kind":…}`.
fn kind(value: &Value) -> String {
    match value {
        Value::String(kind) => kind.clone(),
        Value::Object(members) => members.keys().next().unwrap().clone(),
        _ => panic!("neither a text nor an object: {value}"),
    }
}

fn members(value: &Value) -> BTreeSet<String> {
    value.as_object().into_iter().flat_map(|members| members.keys().cloned()).collect()
}

fn value(message: &impl Message) -> Value {
    serde_json::from_slice(&message.encode().unwrap()).unwrap()
}

fn open() -> OpenAsk {
    OpenAsk {
        end: End::Duplex,
        place: Place::Local { name: "x".to_owned() },
        no_wait: true,
        timeout_ms: Some(1),
        wants_progress: true,
        records: Some(Records::Line),
        priority: Priority::High,
        capacity_bytes: Some(4096),
        process: String::new(),
    }
}

/// One of each kind. The match makes the compiler ask for a new one here.
fn asks() -> Vec<Ask> {
    let all = vec![Ask::Open(open()), Ask::Retire, Ask::Status, Ask::Stop { within_ms: 1 }];
    for ask in &all {
        match ask {
            Ask::Open(_) | Ask::Retire | Ask::Status | Ask::Stop { .. } => {}
        }
    }
    all
}

fn events() -> Vec<Event> {
    let text = || "x".to_owned();
    let seen = Fingerprint::from_bytes([0; 32]);
    let all = vec![
        Event::Back { peer: text(), after_ms: 1 },
        Event::Done,
        Event::Ended { sent: None, received: None },
        Event::Eof,
        Event::Failed { text: text() },
        Event::Joined,
        Event::Opened { host: None, address: None },
        Event::Progress { bytes: 1 },
        Event::Silent { peer: text(), silent_ms: 1, left_ms: 1 },
        Event::Status(json!({})),
        Event::UnknownHost { host: text(), seen, addresses: vec![] },
    ];
    for event in &all {
        match event {
            Event::Back { .. } | Event::Done | Event::Ended { .. } | Event::Eof => {}
            Event::Failed { .. } | Event::Joined | Event::Opened { .. } => {}
            Event::Progress { .. } | Event::Silent { .. } | Event::Status(_) => {}
            Event::UnknownHost { .. } => {}
        }
    }
    all
}

#[test]
fn table_of_requests_is_that_of_the_code() {
    let rows = table("ask");
    assert_eq!(rows.len(), asks().len());
    for ask in asks() {
        let request = Request::new(ask);
        let ask = &value(&request)["ask"];
        let row = rows.iter().find(|row| row[0] == format!("`{}`", kind(ask))).expect("a row");
        let documented = match &request.ask {
            Ask::Open(_) => first_column("member"),
            _ => quoted(&row[1]),
        };
        assert_eq!(documented, members(&ask[kind(ask)]), "{row:?}");
        let is_open = matches!(request.ask, Ask::Open(_));
        assert_eq!(row[2], if is_open { "1 or 2" } else { "0" });
        assert!(EVENT_KINDS.contains(&row[4].trim_matches('`')));
    }
}

#[test]
fn table_of_words_is_that_of_the_code() {
    let words = [Word::Abort { cause: 1 }, Word::Confirm];
    for word in words {
        match word {
            Word::Abort { .. } | Word::Confirm => {}
        }
    }

    let kinds = words.iter().map(|word| kind(&value(word)["word"])).collect();

    assert_eq!(first_column("word"), kinds);
}

#[test]
fn table_of_events_is_that_of_the_code() {
    let rows = table("event");
    assert_eq!(rows.len(), events().len());
    let mut kinds = Vec::new();
    for event in events() {
        let value = value(&event);
        let kind = value["event"].as_str().unwrap().to_owned();
        let row = rows.iter().find(|row| row[0] == format!("`{kind}`")).expect("a row");
        let mut found = members(&value);
        found.remove("event");
        assert_eq!(quoted(&row[1]), found, "{row:?}");
        assert_eq!(row[3], if event.is_last() { "yes" } else { "no" }, "{row:?}");
        kinds.push(kind);
    }
    assert_eq!(kinds, EVENT_KINDS);
}

#[test]
fn table_of_stops_is_that_of_the_code() {
    let stops = [
        Stop::Input { errno: None, text: String::new() },
        Stop::NoPartner,
        Stop::Output { errno: None, text: String::new() },
        Stop::Pipe(PipeStop::Corrupt { delivered: 1 }),
    ];
    let of = |stop: &Stop| {
        match stop {
            Stop::Input { .. } | Stop::NoPartner | Stop::Output { .. } | Stop::Pipe(_) => {}
        }
        kind(&serde_json::to_value(stop).unwrap())
    };

    assert_eq!(first_column("stopped"), stops.iter().map(of).collect());
}

#[test]
fn limits_are_those_of_the_code() {
    let seconds = |time: std::time::Duration| format!("{} s", time.as_secs());
    let limits = [
        ("MESSAGE_BYTES_MAX", MESSAGE_BYTES_MAX.to_string()),
        ("EVENT_BYTES_MAX", EVENT_BYTES_MAX.to_string()),
        ("DESCRIPTORS_MAX", DESCRIPTORS_MAX.to_string()),
        ("PROCESS_BYTES_MAX", PROCESS_BYTES_MAX.to_string()),
        ("REQUEST_MAX", seconds(REQUEST_MAX)),
        ("UNASKED_MAX", UNASKED_MAX.to_string()),
        ("EVENTS_WAITING_MAX", EVENTS_WAITING_MAX.to_string()),
        ("NODE_START_MAX", seconds(NODE_START_MAX)),
    ];

    let listed: Vec<_> =
        table("name").into_iter().map(|row| (row[0].clone(), row[1].clone())).collect();

    assert_eq!(listed, limits.map(|(name, value)| (format!("`{name}`"), value)));
}

#[test]
fn every_example_is_a_message_and_every_message_has_one() {
    let mut asked = BTreeSet::new();
    for json in examples(r#"{"qpipe""#) {
        let request = Request::parse(json.as_bytes()).unwrap().expect(json);
        asked.insert(kind(&value(&request)["ask"]));
    }
    let mut said = BTreeSet::new();
    for json in examples(r#"{"word""#) {
        said.insert(kind(&value(&Word::parse(json.as_bytes()).unwrap().expect(json))["word"]));
    }
    let mut told = BTreeSet::new();
    for json in examples(r#"{"event""#) {
        let event = Event::parse(json.as_bytes()).unwrap().expect(json);
        assert_eq!(value(&event), serde_json::from_str::<Value>(json).unwrap());
        told.insert(value(&event)["event"].as_str().unwrap().to_owned());
    }

    assert_eq!(asked, first_column("ask"));
    assert_eq!(said, first_column("word"));
    assert_eq!(told, first_column("event"));
}

#[test]
fn version_is_that_of_the_page() {
    assert!(PAGE.starts_with(&format!("# The local protocol, version {LOCAL_VERSION}\n")));
}
