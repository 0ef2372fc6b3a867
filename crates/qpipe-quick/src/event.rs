//! What the node says, as far as it is good news: anything else is for `qpipe` to understand.

use crate::End;

/// The bytes of a message's length.
const LENGTH_BYTES: usize = 4;

/// An event of the local protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The pipe is open.
    Opened,
    /// Somebody is at its other end.
    Joined,
    /// So many bytes have moved.
    Progress,
    /// The input is at its end.
    Eof,
    /// It is over, and all went well.
    Done,
    /// Something else.
    Other,
}

impl Event {
    /// Reads the JSON of an event as the node writes it. JSON has many ways to say the same; all but
    /// one are `Other`.
    pub(crate) fn of(json: &[u8], end: End) -> Event {
        let is_done = || {
            let (before, after): (&[u8], &[u8]) = match end {
                End::Send => (br#""sent":{"bytes":"#, br#","stopped":null},"received":null}"#),
                End::Recv => (br#""sent":null,"received":{"bytes":"#, br#","stopped":null}}"#),
            };
            let rest = json.strip_prefix(br#"{"event":"ended","#)?.strip_prefix(before)?;
            let bytes = rest.strip_suffix(after)?;
            bytes.iter().all(u8::is_ascii_digit).then_some(())
        };
        match json {
            br#"{"event":"joined"}"# => Event::Joined,
            br#"{"event":"eof"}"# => Event::Eof,
            _ if json.starts_with(br#"{"event":"opened","#) => Event::Opened,
            _ if json.starts_with(br#"{"event":"progress","#) => Event::Progress,
            _ if is_done().is_some() => Event::Done,
            _ => Event::Other,
        }
    }
}

/// The first message among the bytes that came, and how many bytes it has with its length; none if it is
/// not there as a whole.
pub(crate) fn first(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let (length, rest) = bytes.split_first_chunk::<LENGTH_BYTES>()?;
    let length = u32::from_be_bytes(*length) as usize;
    Some((rest.get(..length)?, LENGTH_BYTES + length))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The events in docs/local-protocol.md, which a test compares with what nodes say.
    fn examples() -> impl Iterator<Item = &'static str> {
        let page = include_str!("../../../docs/local-protocol.md");
        page.lines().map(str::trim).filter(|line| line.starts_with(r#"{"event":"#))
    }

    #[test]
    fn of_the_examples_only_good_news_is_understood() {
        let mut found = Vec::new();
        for json in examples() {
            let event = Event::of(json.as_bytes(), End::Send);
            assert_eq!(event, Event::of(json.as_bytes(), End::Recv), "{json}");
            if event != Event::Other {
                found.push(event);
            }
        }

        assert_eq!(found, [Event::Opened, Event::Joined, Event::Progress, Event::Eof]);
    }

    #[test]
    fn only_an_end_of_the_own_direction_that_nothing_stopped_is_success() {
        let sent = br#"{"event":"ended","sent":{"bytes":1024,"stopped":null},"received":null}"#;
        let received = br#"{"event":"ended","sent":null,"received":{"bytes":0,"stopped":null}}"#;

        assert_eq!(Event::of(sent, End::Send), Event::Done);
        assert_eq!(Event::of(received, End::Recv), Event::Done);
        for (json, end) in [
            (&sent[..], End::Recv),
            (received, End::Send),
            (br#"{"event":"ended","sent":{"bytes":1,"stopped":"no_partner"},"received":null}"#, End::Send),
            (br#"{"event":"ended","sent":{"bytes":1,"stopped":null},"received":{"bytes":1,"stopped":null}}"#, End::Send),
            (br#"{"event":"ended","sent":{"bytes":x,"stopped":null},"received":null}"#, End::Send),
            (br#"{"event":"ended"}"#, End::Send),
            (b"", End::Send),
        ] {
            assert_eq!(Event::of(json, end), Event::Other, "{}", String::from_utf8_lossy(json));
        }
    }

    #[test]
    fn messages_are_cut_where_their_lengths_say() {
        assert_eq!(first(b"\0\0\0\x02{}\0\0"), Some((&b"{}"[..], 6)));
        assert_eq!(first(b"\0\0\0\x03{}"), None);
        assert_eq!(first(b"\xff\xff\xff\xff{}"), None);
        assert_eq!(first(b"\0\0\0"), None);
    }
}
