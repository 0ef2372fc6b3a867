//! Which pipes can be asked for without a look at anything else, and how.

use crate::{End, buffer::Buffer};

/// The longest target that is plain: the status shows it whole.
const TARGET_BYTES_MAX: usize = 400;

/// Room for a request: the target stands in it twice.
const REQUEST_BYTES_MAX: usize = 2 * TARGET_BYTES_MAX + 256;

/// How tickets begin, in either case.
const TICKET_PREFIX: &[u8] = b"qpipe1";

/// A request with its length before it.
pub(crate) type Request = Buffer<{ REQUEST_BYTES_MAX + 4 }>;

/// Whether an argument is the name of a pipe that JSON can hold as it is: no option, no ticket, nothing that
/// would have to be escaped. Whether it is a good name is for the node to say.
pub(crate) fn is_plain(target: &[u8]) -> bool {
    let is_ticket = target
        .get(..TICKET_PREFIX.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(TICKET_PREFIX));
    let is_text = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\');
    !target.is_empty()
        && target.len() <= TARGET_BYTES_MAX
        && !target.starts_with(b"-")
        && !is_ticket
        && target.iter().all(is_text)
}

/// Asks for an end of the pipe that a plain target names, without any wishes.
pub(crate) fn request(end: End, target: &[u8], wants_progress: bool) -> Request {
    let (word, program): (&[u8], &[u8]) = match end {
        End::Send => (b"send", b"qsend "),
        End::Recv => (b"recv", b"qrecv "),
    };
    let mut json = Buffer::<REQUEST_BYTES_MAX>::new();
    json.push(br#"{"qpipe":1,"ask":{"open":{"end":""#).push(word);
    json.push(br#"","place":{"typed":{"target":""#).push(target).push(br#""}},"#);
    if wants_progress {
        json.push(br#""wants_progress":true,"#);
    }
    json.push(br#""process":""#).push(program).push(target).push(br#""}}}"#);
    let json = json.whole().unwrap_or_default();
    let mut framed = Request::new();
    framed.push(&(json.len() as u32).to_be_bytes()).push(json);
    framed
}

/// The word that the end of the input is meant as one.
pub(crate) const CONFIRM: &[u8] = b"\0\0\0\x12{\"word\":\"confirm\"}";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain_and_all_else_is_not() {
        for target in ["x", "b/inbox/x", "./x", "[::1]:7473/x", "b.example:7/a-b_c", "qpipe"] {
            assert!(is_plain(target.as_bytes()), "{target}");
        }
        for target in
            ["", "-", "--help", "qpipe1abc", "QPIPE1ABC", "a b", "a\"b", "a\\b", "é", "a\n"]
        {
            assert!(!is_plain(target.as_bytes()), "{target}");
        }
        assert!(is_plain(&[b'x'; TARGET_BYTES_MAX]));
        assert!(!is_plain(&[b'x'; TARGET_BYTES_MAX + 1]));
    }

    #[test]
    fn the_longest_request_fits() {
        let target = [b'x'; TARGET_BYTES_MAX];
        let request = request(End::Recv, &target, true);
        let whole = request.whole().unwrap();

        assert_eq!(
            usize::try_from(u32::from_be_bytes(*whole.first_chunk().unwrap())).unwrap(),
            whole.len() - 4
        );
        assert!(whole.ends_with(br#"x"}}}"#));
    }

    #[test]
    fn a_request_is_the_one_of_the_specification() {
        let page = include_str!("../../../docs/local-protocol.md");
        let asked = request(End::Send, b"b/inbox", false);
        let json = std::str::from_utf8(&asked.whole().unwrap()[4..]).unwrap();

        assert!(page.contains(&format!("\n    {json}\n")), "{json}");
        assert!(page.contains(std::str::from_utf8(&CONFIRM[4..]).unwrap()));
        assert_eq!(usize::from(CONFIRM[3]), CONFIRM.len() - 4);
    }
}
