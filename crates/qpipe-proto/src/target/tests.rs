use proptest::prelude::*;

use super::*;
use crate::ticket::tests::any_ticket;

/// With the aliases `b`, `web.example` and `inbox-host`.
fn parse(text: &str) -> Result<Target, TargetError> {
    Target::parse(text, |host| ["b", "web.example", "inbox-host"].contains(&host))
}

fn local(name: &str) -> Result<Target, TargetError> {
    Ok(Target::Local(name.parse().unwrap()))
}

fn on_alias(alias: &str, name: &str) -> Result<Target, TargetError> {
    Ok(Target::Remote { host: HostRef::Alias(alias.to_owned()), name: name.parse().unwrap() })
}

fn on_address(address: &str, name: &str) -> Result<Target, TargetError> {
    let host = HostRef::Address(address.parse().unwrap());
    Ok(Target::Remote { host, name: name.parse().unwrap() })
}

#[test]
fn an_alias_before_the_slash_is_a_host() {
    assert_eq!(parse("b/inbox/x"), on_alias("b", "inbox/x"));
    assert_eq!(parse("inbox-host/x"), on_alias("inbox-host", "x"));
    assert_eq!(parse("web.example/x"), on_alias("web.example", "x"), "before the address");
}

#[test]
fn a_text_without_a_host_is_a_pipe_of_this_host() {
    for text in ["x", "inbox/x", "B/x", "bb/x", "x/b/y", "build.log", "host/a.b:c"] {
        assert_eq!(parse(text), local(text), "{text}");
    }
}

#[test]
fn an_address_before_the_slash_is_a_host() {
    assert_eq!(parse("example.org/a/b"), on_address("example.org:7473", "a/b"));
    assert_eq!(parse("host:9/name"), on_address("host:9", "name"));
    assert_eq!(parse("[::1]:7473/name"), on_address("[::1]:7473", "name"));
    assert_eq!(parse("[::1]/name"), on_address("[::1]:7473", "name"));
    assert_eq!(parse("192.0.2.1/name"), on_address("192.0.2.1:7473", "name"));
    assert_eq!(parse("localhost/name"), on_address("localhost:7473", "name"));
    assert_eq!(parse("b:9/name"), on_address("b:9", "name"), "with a port it is no alias");
}

#[test]
fn dot_slash_makes_anything_a_pipe_of_this_host() {
    for name in ["x", "b/x", "b", "example.org/x", "localhost", "a:9", "a:9/x"] {
        assert_eq!(parse(&format!("./{name}")), local(name));
    }
}

#[test]
fn a_host_without_a_pipe_is_refused_with_the_remedy() {
    for text in [
        "b",
        "b/",
        "host:9",
        "host:9/",
        "[::1]",
        "[::1]:9/",
        "192.0.2.1",
        "localhost",
        "example.org/",
    ] {
        let error = parse(text).unwrap_err();
        assert_eq!(error, TargetError::NoName, "{text}");
        assert!(error.to_string().contains("HOST/NAME"));
    }
}

#[test]
fn what_can_only_be_a_host_and_is_none_is_refused_with_the_reason() {
    for (text, reason) in [
        ("host:http/x", ParseAddressError::Port),
        (":9/x", ParseAddressError::Missing),
        ("::1/x", ParseAddressError::Ipv6),
        ("192.0.2.300/x", ParseAddressError::Ipv4),
        (".hidden/x", ParseAddressError::Label { at: 0 }),
        ("0.0.0.0/x", ParseAddressError::Undialable),
        ("a b.example/x", ParseAddressError::Character { at: 1 }),
    ] {
        let error = parse(text).unwrap_err();
        assert_eq!(error, TargetError::Host(reason), "{text}");
        assert!(error.to_string().starts_with(&reason.to_string()));
    }
}

#[test]
fn a_name_that_breaks_a_rule_is_refused_with_the_rule() {
    for (text, rule) in [
        ("", ParseNameError::Empty),
        ("./", ParseNameError::Empty),
        ("/x", ParseNameError::EmptySegment { at: 0 }),
        ("b//x", ParseNameError::EmptySegment { at: 0 }),
        ("inbox/", ParseNameError::EmptySegment { at: 6 }),
        ("../x", ParseNameError::DotSegment { at: 0 }),
        ("..", ParseNameError::DotSegment { at: 0 }),
        ("b/x/../y", ParseNameError::DotSegment { at: 2 }),
        ("inbox/*", ParseNameError::Special { at: 6, character: '*' }),
        (" x", ParseNameError::Whitespace { at: 0 }),
        ("./qpipe1abc", ParseNameError::Ticket),
        ("b/qpipe1abc", ParseNameError::Ticket),
    ] {
        assert_eq!(parse(text), Err(TargetError::Name(rule)), "{text}");
    }
}

#[test]
fn what_begins_like_a_ticket_is_never_a_name() {
    assert_eq!(parse("qpipe1"), Err(TargetError::Ticket(ParseTicketError::Damaged)));
    assert_eq!(parse("QPIPE1abc"), Err(TargetError::Ticket(ParseTicketError::Damaged)));
    let position = 8;
    for text in ["qpipe1a/b", " qpipe1a/b", "qpipe1a.example/b"] {
        let error = ParseTicketError::UnexpectedCharacter { position };
        assert_eq!(parse(text), Err(TargetError::Ticket(error)), "{text}");
    }
}

proptest! {
    #[test]
    fn a_ticket_is_a_target_also_in_upper_case_and_between_spaces(ticket in any_ticket()) {
        let text = ticket.to_string();

        prop_assert_eq!(parse(&text), Ok(Target::Ticket(ticket.clone())));
        let loud = format!(" {}\n", text.to_uppercase());
        prop_assert_eq!(parse(&loud), Ok(Target::Ticket(ticket)));
    }

    #[test]
    fn no_error_shows_a_piece_of_a_ticket(
        ticket in any_ticket(),
        before in "|./|b/|example.org/|[^a-z0-9]{1,3}|\\PC{1,3}",
        after in "/x|[^a-z0-9]{1,3}|[a-z2-7]",
    ) {
        let text = ticket.to_string();

        let shown = match parse(&format!("{before}{text}{after}")) {
            Ok(_) => String::new(),
            Err(error) => format!("{error} {error:?}"),
        };

        for piece in text.as_bytes().windows(8) {
            let piece = std::str::from_utf8(piece).unwrap();
            prop_assert!(!shown.contains(piece), "{}", shown);
        }
    }

    #[test]
    fn no_text_is_too_strange(text in "\\PC{0,40}|[b./:\\[\\]0-9q]{0,20}") {
        let _ = parse(&text);
        let _ = parse(&format!("qpipe1{text}"));
    }
}
