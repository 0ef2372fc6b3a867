use std::net::SocketAddr;

use proptest::{prelude::*, sample::Index};

use super::*;

pub(crate) fn any_address() -> impl Strategy<Value = Address> {
    let port = prop_oneof![Just(DEFAULT_PORT), 1..=u16::MAX];
    let ip = (any::<[u8; 16]>(), any::<bool>(), port.clone()).prop_filter_map(
        "an address of one host",
        |(bytes, is_v6, port)| {
            let [a, b, c, d, ..] = bytes;
            let socket: SocketAddr =
                if is_v6 { (bytes, port).into() } else { ([a, b, c, d], port).into() };
            Address::try_from(socket).ok()
        },
    );
    let dns = ("[a-z][a-z0-9_]{0,9}(-[a-z0-9]{1,5}){0,2}(\\.[a-z]{1,9}){0,3}\\.?", port).prop_map(
        |(name, port)| Address::from_dns(name.parse().unwrap(), port.try_into().unwrap()),
    );
    prop_oneof![ip, dns]
}

fn any_grant() -> impl Strategy<Value = Grant> {
    let alias = "[a-zA-Z0-9._-]{1,64}";
    prop_oneof![
        Just(Grant::Pipe(End::Write)),
        Just(Grant::Pipe(End::Read)),
        Just(Grant::Pipe(End::Duplex)),
        (alias, alias).prop_map(|(alias, by)| Grant::Invitation { alias, by }),
    ]
}

pub(crate) fn any_ticket() -> impl Strategy<Value = Ticket> {
    let addresses = prop::collection::vec(any_address(), 1..=TICKET_ADDRESSES_MAX);
    (addresses, any::<[u8; 32]>(), any::<[u8; 16]>(), any_grant(), any::<Option<u64>>()).prop_map(
        |(addresses, fingerprint, secret, grant, expires)| {
            let fingerprint = Fingerprint::from_bytes(fingerprint);
            Ticket::new(addresses, fingerprint, Secret::from_bytes(secret), grant, expires).unwrap()
        },
    )
}

fn address(text: &str) -> Address {
    text.parse().unwrap()
}

fn make(addresses: Vec<Address>, grant: Grant) -> Result<Ticket, MakeTicketError> {
    let fingerprint = Fingerprint::from_bytes([0xab; 32]);
    Ticket::new(addresses, fingerprint, Secret::from_bytes([7; 16]), grant, Some(1_800_000_000))
}

fn write_ticket() -> Ticket {
    let addresses = ["[2001:db8::1]", "192.0.2.7:443", "b.example"].map(address).to_vec();
    make(addresses, Grant::Pipe(End::Write)).unwrap()
}

fn invitation() -> Ticket {
    let grant = Grant::Invitation { alias: "alice".to_owned(), by: "b".to_owned() };
    make(vec![address("127.0.0.1:50000")], grant).unwrap()
}

fn error(text: &str) -> ParseTicketError {
    text.parse::<Ticket>().unwrap_err()
}

/// One field of a protobuf message that holds bytes.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2, u8::try_from(bytes.len()).unwrap()], bytes].concat()
}

/// The body of a ticket in its parts, for making wrong ones.
struct Parts {
    version: Vec<u8>,
    addresses: Vec<u8>,
    fingerprint: Vec<u8>,
    secret: Vec<u8>,
    grant: Vec<u8>,
    rest: Vec<u8>,
}

impl Parts {
    fn right() -> Self {
        Self {
            version: vec![1 << 3, 1],
            addresses: field(2, &field(1, &[192, 0, 2, 7])),
            fingerprint: field(3, &[0xab; 32]),
            secret: field(4, &[7; 16]),
            grant: vec![5 << 3, 1],
            rest: vec![],
        }
    }

    fn parse(&self) -> Result<Ticket, ParseTicketError> {
        let Self { version, addresses, fingerprint, secret, grant, rest } = self;
        seal([&version[..], addresses, fingerprint, secret, grant, rest].concat()).parse()
    }
}

// Both texts were made by another program from the comments in the .proto file.
const WRITE_TEXT: &str = "\
    qpipe1baareeqkcaqacdnyaaaaaaaaaaaaaaaaaaarecikataaaaqhdc5qgeqlcieweltfpbqw24dmmuncbk5lvov2\
    xk5lvov2xk5lvov2xk5lvov2xk5lvov2xk5lvov2xk5leiiaobyha4dqobyha4dqobyha4dqokabhcakjj62a2io24\
    no";
const INVITATION_TEXT: &str = "\
    qpipe1baarecqkar7qaaabddiimay2ecv2xk5lvov2xk5lvov2xk5lvov2xk5lvov2xk5lvov2xk5lvov2wiqqa4dq\
    obyha4dqobyha4dqobyha4zaucqfmfwgsy3fciaweoeaust5ubsfnqla4";

#[test]
fn a_ticket_is_written_as_the_protocol_says() {
    assert_eq!(write_ticket().to_string(), WRITE_TEXT);
    assert_eq!(invitation().to_string(), INVITATION_TEXT);
    assert_eq!(WRITE_TEXT.parse(), Ok(write_ticket()));
    assert_eq!(INVITATION_TEXT.parse(), Ok(invitation()));
}

#[test]
fn upper_case_and_white_space_around_a_ticket_are_forgiven() {
    let text = format!(" \t{}\r\n", WRITE_TEXT.to_uppercase());

    assert_eq!(text.parse(), Ok(write_ticket()));
}

#[test]
fn debug_shows_the_ticket_without_its_secret() {
    let shown = format!("{:?} {:#?}", write_ticket(), invitation());

    assert!(
        shown.contains("b.example:7473") && shown.contains("SHA256:") && shown.contains("alice")
    );
    assert!(shown.contains("secret: Secret(…)"));
    assert!(!shown.contains("7, 7, 7") && !shown.contains("070707"));
}

#[test]
fn a_ticket_expires_with_its_second() {
    let ticket = write_ticket();

    assert!(!ticket.has_expired(1_799_999_999));
    assert!(ticket.has_expired(1_800_000_000));
    assert!(!Ticket { expires: None, ..ticket }.has_expired(u64::MAX));
}

#[test]
fn a_ticket_cut_anywhere_is_refused() {
    for text in [WRITE_TEXT, INVITATION_TEXT] {
        for end in 0..text.len() {
            let expected = match end {
                0..6 => ParseTicketError::NotATicket,
                _ => ParseTicketError::Damaged,
            };
            assert_eq!(error(&text[..end]), expected, "the first {end} characters");
        }
    }
}

#[test]
fn a_ticket_with_any_one_other_character_is_refused() {
    for text in [WRITE_TEXT, INVITATION_TEXT] {
        for position in TICKET_PREFIX.len()..text.len() {
            for other in "abcdefghijklmnopqrstuvwxyz234567".chars() {
                let mut wrong = text.to_owned();
                wrong.replace_range(position..=position, other.encode_utf8(&mut [0; 4]));
                if wrong != text {
                    assert_eq!(error(&wrong), ParseTicketError::Damaged, "{other} at {position}");
                }
            }
        }
    }
}

#[test]
fn a_ticket_with_something_after_it_is_refused() {
    for other in "abcdefghijklmnopqrstuvwxyz234567".chars() {
        assert_eq!(error(&format!("{WRITE_TEXT}{other}")), ParseTicketError::Damaged);
    }
    assert_eq!(error(&format!("{WRITE_TEXT}{}", &WRITE_TEXT[6..])), ParseTicketError::Damaged);
}

#[test]
fn a_character_that_tickets_do_not_have_is_refused_with_its_place() {
    for character in ['0', '1', '8', '=', '-', ' ', '\n', '\0', 'é', 'ſ', '…'] {
        let position = 10;
        let text = format!("  {}{character}{}\n", &WRITE_TEXT[..position - 1], &WRITE_TEXT[20..]);
        assert_eq!(error(&text), ParseTicketError::UnexpectedCharacter { position });
    }
}

#[test]
fn what_does_not_begin_like_a_ticket_is_none() {
    for text in ["", " ", "qpipe", "qpipe2abc", "hello", "q\u{131}pe1abc", "é", "\"qpipe1abc\""] {
        assert_eq!(error(text), ParseTicketError::NotATicket, "{text}");
    }
}

#[test]
fn a_text_longer_than_any_ticket_is_refused_before_it_is_read() {
    let longest = TICKET_PREFIX.to_owned() + &"a".repeat(TICKET_TEXT_BYTES_MAX - 6);

    assert_eq!(error(&longest), ParseTicketError::Damaged);
    assert_eq!(error(&(longest + "!")), ParseTicketError::TooLong);
}

#[test]
fn a_ticket_of_a_newer_version_is_told_from_a_damaged_one() {
    let right = Parts::right();
    assert!(right.parse().is_ok());

    for part in [
        Parts { version: vec![1 << 3, 2], ..Parts::right() },
        // A newer version may use the other fields in another way.
        Parts { version: vec![1 << 3, 2], grant: vec![2 << 3, 5, 3 << 3, 5], ..Parts::right() },
        // A grant, an end of a pipe, a field and a field of an address that this one lacks.
        Parts { grant: field(8, b"x"), ..Parts::right() },
        Parts { grant: vec![5 << 3, 4], ..Parts::right() },
        Parts { rest: field(15, b"x"), ..Parts::right() },
        Parts {
            addresses: field(2, &[field(1, &[192, 0, 2, 7]), field(9, b"x")].concat()),
            ..right
        },
    ] {
        assert_eq!(part.parse(), Err(ParseTicketError::Newer));
    }
}

#[test]
fn a_whole_ticket_that_makes_no_sense_is_refused() {
    let with_two_grants = [vec![5 << 3, 1], field(6, &[field(1, b"a"), field(2, b"b")].concat())];
    for (part, expected) in [
        (Parts { version: vec![], ..Parts::right() }, ParseTicketError::Malformed),
        (Parts { fingerprint: field(3, &[1; 31]), ..Parts::right() }, ParseTicketError::Malformed),
        (Parts { fingerprint: vec![], ..Parts::right() }, ParseTicketError::Malformed),
        (Parts { secret: field(4, &[7; 17]), ..Parts::right() }, ParseTicketError::Malformed),
        (Parts { grant: vec![], ..Parts::right() }, ParseTicketError::Malformed),
        (Parts { grant: vec![5 << 3, 0], ..Parts::right() }, ParseTicketError::Malformed),
        (Parts { grant: field(6, &field(1, b"a")), ..Parts::right() }, ParseTicketError::Malformed),
        (Parts { rest: vec![7 << 3], ..Parts::right() }, ParseTicketError::Malformed),
        (Parts { addresses: vec![], ..Parts::right() }, ParseTicketError::NoAddress),
        (Parts { grant: with_two_grants.concat(), ..Parts::right() }, ParseTicketError::Newer),
    ] {
        assert_eq!(part.parse(), Err(expected));
    }
    let addresses = Parts::right().addresses;
    let crowd = Parts { addresses: addresses.repeat(TICKET_ADDRESSES_MAX + 1), ..Parts::right() };
    assert_eq!(crowd.parse(), Err(ParseTicketError::Malformed));
}

#[test]
fn a_ticket_with_a_bad_address_is_refused() {
    let mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 7];
    for host in [
        vec![],
        field(1, &[]),
        field(1, &[192, 0, 2]),
        field(1, &[0, 0, 0, 0]),
        field(1, &mapped),
        field(2, b"B.example"),
        field(2, b"192.0.2.7"),
        field(2, b"b example"),
        // Ports: 65,536, and the default one, which is left out.
        [field(1, &[192, 0, 2, 7]), vec![3 << 3, 0x80, 0x80, 0x04]].concat(),
        [field(1, &[192, 0, 2, 7]), vec![3 << 3, 0xb1, 0x3a]].concat(),
    ] {
        let part = Parts { addresses: field(2, &host), ..Parts::right() };
        assert_eq!(part.parse(), Err(ParseTicketError::BadAddress), "{host:?}");
    }
}

#[test]
fn a_ticket_that_could_not_be_read_again_is_not_made() {
    let pipe = || Grant::Pipe(End::Read);
    let one = address("192.0.2.1");
    assert_eq!(make(vec![], pipe()), Err(MakeTicketError::NoAddress));
    assert!(make(vec![one.clone(); 16], pipe()).is_ok());
    assert_eq!(make(vec![one.clone(); 17], pipe()), Err(MakeTicketError::TooManyAddresses));

    let long = address(&["a"; 127].join("."));
    assert_eq!(make(vec![long; 16], pipe()), Err(MakeTicketError::TooLong));

    for wrong in ["", "a b", "a/b", "é", "a\n", &"a".repeat(65)] {
        let (right, wrong) = ("a".repeat(64), wrong.to_owned());
        let as_alias = Grant::Invitation { alias: wrong.clone(), by: right.clone() };
        let as_by = Grant::Invitation { alias: right, by: wrong };
        assert_eq!(make(vec![one.clone()], as_alias), Err(MakeTicketError::Alias));
        assert_eq!(make(vec![one.clone()], as_by), Err(MakeTicketError::Alias));
    }
}

proptest! {
    #[test]
    fn every_ticket_survives_printing_and_parsing(ticket in any_ticket()) {
        let text = ticket.to_string();

        prop_assert!(text.len() <= TICKET_TEXT_BYTES_MAX);
        prop_assert_eq!(text.parse(), Ok(ticket));
    }

    #[test]
    fn every_cut_and_every_other_character_is_an_error(
        ticket in any_ticket(), index: Index, other in "[a-z2-7]|\\PC",
    ) {
        let text = ticket.to_string();
        let at = index.index(text.len());

        prop_assert!(text[..at].parse::<Ticket>().is_err());
        let mut wrong = text.clone();
        wrong.replace_range(at..=at, &other);
        prop_assume!(wrong.trim().to_ascii_lowercase() != text);
        prop_assert!(wrong.parse::<Ticket>().is_err());
    }

    #[test]
    fn random_texts_are_refused(text in "\\PC{0,60}|qpipe1[a-z2-7]{0,200}") {
        prop_assert!(text.parse::<Ticket>().is_err());
    }

    #[test]
    fn a_random_body_is_refused_or_read_to_its_last_byte(body: Vec<u8>) {
        let text = seal(body);
        if let Ok(ticket) = text.parse::<Ticket>() {
            prop_assert_eq!(ticket.to_string(), text);
        }
    }

    #[test]
    fn a_changed_body_is_refused_or_read_to_its_last_byte(
        ticket in any_ticket(), index: Index, byte: u8, change in 0..3,
    ) {
        let mut body = body::encode(&ticket);
        let at = index.index(body.len());
        match change {
            0 => body[at] = byte,
            1 => body.insert(at, byte),
            _ => drop(body.remove(at)),
        }

        let text = seal(body);

        if let Ok(ticket) = text.parse::<Ticket>() {
            prop_assert_eq!(ticket.to_string(), text);
        }
    }
}
