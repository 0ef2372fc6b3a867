use proptest::prelude::*;

use super::*;
use crate::ticket::tests::any_address;

fn address(text: &str) -> Address {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn error(text: &str) -> ParseAddressError {
    text.parse::<Address>().unwrap_err()
}

#[test]
fn a_port_that_is_left_out_is_the_default_and_is_printed() {
    for (text, printed) in [
        ("192.0.2.1", "192.0.2.1:7473"),
        ("[2001:DB8::1]", "[2001:db8::1]:7473"),
        ("Example.ORG", "example.org:7473"),
        ("localhost", "localhost:7473"),
    ] {
        assert_eq!(address(text).to_string(), printed);
        assert_eq!(address(text).port(), DEFAULT_PORT);
    }
}

#[test]
fn a_port_that_is_given_is_kept() {
    for text in ["192.0.2.1:1", "[::1]:65535", "a_b.example.org:443", "example.org.:7474"] {
        assert_eq!(address(text).to_string(), text);
    }
}

#[test]
fn an_address_is_what_the_operating_system_wants_unless_it_is_a_name() {
    assert_eq!(address("192.0.2.1:9").socket_addr(), Some(([192, 0, 2, 1], 9).into()));
    assert_eq!(address("[::1]:9").socket_addr(), Some((Ipv6Addr::LOCALHOST, 9).into()));
    assert_eq!(address("b.example:9").socket_addr(), None);
    assert_eq!(address("b.example:9").host(), &Host::Dns("b.example".parse().unwrap()));
}

#[test]
fn ipv4_dressed_as_ipv6_is_ipv4() {
    assert_eq!(address("[::ffff:192.0.2.1]:9"), address("192.0.2.1:9"));
}

#[test]
fn a_wrong_port_is_refused() {
    for text in
        ["b:", "b:0", "b:65536", "b:+80", "b: 80", "b:http", "[::1]:", "[::1]:0", "1.2.3.4:-1"]
    {
        assert_eq!(error(text), ParseAddressError::Port, "{text}");
    }
    assert_eq!(
        Address::try_from(SocketAddr::from(([192, 0, 2, 1], 0))),
        Err(ParseAddressError::Port)
    );
}

#[test]
fn ipv6_without_its_brackets_is_refused_with_the_remedy() {
    for text in ["::1", "2001:db8::1", "::1:7473", "[::1", "[::1]7473", "[192.0.2.1]:9", "[]"] {
        assert_eq!(error(text), ParseAddressError::Ipv6, "{text}");
        assert!(error(text).to_string().contains("in brackets"));
    }
    assert_eq!(error("[fe80::1%eth0]:9"), ParseAddressError::Zone);
}

#[test]
fn an_address_of_no_single_host_is_refused() {
    for text in ["0.0.0.0", "[::]", "224.0.0.1", "[ff02::1]", "255.255.255.255", "[::ffff:0.0.0.0]"]
    {
        assert_eq!(error(text), ParseAddressError::Undialable, "{text}");
    }
}

#[test]
fn a_mistyped_ipv4_address_does_not_become_a_name() {
    for text in
        ["192.0.2", "192.0.2.256", "192.0.2.1.5", "127.1", "2130706433", "0x7f.0x1", "1.2.3.4."]
    {
        assert_eq!(error(text), ParseAddressError::Ipv4, "{text}");
    }
}

#[test]
fn a_host_name_that_the_dns_cannot_hold_is_refused() {
    let label = "a".repeat(DNS_LABEL_BYTES_MAX);
    let longest = [label.as_str(), &label, &label, &label[2..]].join(".");
    assert_eq!(longest.len(), DNS_NAME_BYTES_MAX);
    assert_eq!(address(&longest).to_string(), format!("{longest}:7473"));

    assert_eq!(error(&format!("{longest}b")), ParseAddressError::Long);
    assert_eq!(error(&format!("x.{label}b")), ParseAddressError::Label { at: 2 });
    for (text, at) in [("a..b", 2), (".", 0), (".a", 0), ("a..", 2), ("a.-b", 2), ("a-.b", 0)] {
        assert_eq!(error(text), ParseAddressError::Label { at }, "{text}");
    }
    for (text, at) in [("bücher.example", 1), ("a b", 1), ("a@b", 1), ("a\n", 1), ("a/b", 1)] {
        assert_eq!(error(text), ParseAddressError::Character { at }, "{text}");
    }
    for text in ["", ":9"] {
        assert_eq!(error(text), ParseAddressError::Missing);
    }
}

#[test]
fn global_comes_before_private_before_loopback_and_equals_stay_in_order() {
    let mut addresses = [
        "127.0.0.1",
        "[::1]",
        "10.0.0.1",
        "b.example",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.0.1",
        "100.64.0.1",
        "100.127.255.1",
        "[fd00::1]",
        "[fe80::1]",
        "100.128.0.1",
        "100.63.0.1",
        "172.32.0.1",
        "[2001:db8::1]",
        "127.9.9.9",
        "192.0.2.1",
    ]
    .map(address);

    sort_by_reach(&mut addresses);

    let expected = [
        "b.example",
        "100.128.0.1",
        "100.63.0.1",
        "172.32.0.1",
        "[2001:db8::1]",
        "192.0.2.1",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.0.1",
        "100.64.0.1",
        "100.127.255.1",
        "[fd00::1]",
        "[fe80::1]",
        "127.0.0.1",
        "[::1]",
        "127.9.9.9",
    ]
    .map(address);
    assert_eq!(addresses, expected);
}

proptest! {
    #[test]
    fn every_address_survives_printing_and_parsing(address in any_address()) {
        prop_assert_eq!(address.to_string().parse(), Ok(address));
    }

    #[test]
    fn no_text_is_too_strange_to_be_refused(text in "\\PC{0,40}|[\\[\\]:.%0-9a-f]{0,24}") {
        if let Ok(address) = text.parse::<Address>() {
            prop_assert_eq!(address.to_string().parse(), Ok(address));
        }
    }
}
