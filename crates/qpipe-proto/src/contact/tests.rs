use super::*;

const RTT: Duration = Duration::from_millis(50);

#[expect(clippy::disallowed_methods, reason = "a test needs an instant to begin at")]
fn start() -> Instant {
    Instant::now()
}

fn contact(side: Side, now: Instant) -> Contact {
    Contact::new(side, Patience::default(), Contact::FIRST_EPOCH, RTT, now)
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

#[test]
fn epochs_are_ordered_and_a_tie_goes_to_the_first_dialler() {
    let first = Contact::FIRST_EPOCH;
    let (ours, theirs) = (next_epoch(first, Side::Dialler), next_epoch(first, Side::Acceptor));

    assert!(first < theirs && theirs < ours);
    assert!(next_epoch(theirs, Side::Acceptor) > ours);
    assert!(next_epoch(ours, Side::Acceptor) > ours);
}

#[test]
fn silence_brings_a_dial_that_an_answer_on_the_older_connection_ends() {
    let now = start();
    let mut contact = contact(Side::Dialler, now);

    assert_eq!(contact.poll(true, now + seconds(2)), None);
    assert_eq!(contact.poll_timeout(true), Some(now + seconds(3)));
    assert_eq!(contact.poll(true, now + seconds(3)), Some(ContactAction::Dial));
    assert_eq!(contact.poll(true, now + seconds(4)), None, "one dial at a time");

    contact.heard(now + seconds(4));
    assert_eq!(contact.dialled(now + seconds(5)), None, "closed unused");
    assert!(!contact.is_dialling());
}

#[test]
fn after_hello_there_is_no_way_back() {
    let now = start();
    let mut contact = contact(Side::Dialler, now);
    assert_eq!(contact.poll(true, now + seconds(3)), Some(ContactAction::Dial));
    let epoch = contact.dialled(now + seconds(4)).unwrap();
    assert!(epoch > Contact::FIRST_EPOCH);

    contact.heard(now + seconds(4));
    contact.dial_failed(0.0, now + seconds(5));
    contact.heard(now + seconds(5));

    let again = contact.poll_timeout(true).unwrap();
    assert_eq!(
        contact.poll(true, again),
        Some(ContactAction::Dial),
        "though the older one is heard"
    );
    contact.heard(again + RTT);
    let next = contact.dialled(again + RTT).unwrap();
    assert!(next > epoch);
    contact.adopted(next, RTT, again + 2 * RTT);
    assert_eq!(contact.poll(true, again + seconds(2)), None);
}

#[test]
fn a_lost_connection_is_dialled_at_once_by_the_first_dialler_alone() {
    let now = start();
    let (mut dialler, mut acceptor) = (contact(Side::Dialler, now), contact(Side::Acceptor, now));
    dialler.lost(now + seconds(1));
    acceptor.lost(now + seconds(1));

    assert_eq!(dialler.poll(true, now + seconds(1)), Some(ContactAction::Dial));
    assert_eq!(acceptor.poll(true, now + seconds(1)), None);
    assert_eq!(acceptor.poll(true, now + seconds(4)), Some(ContactAction::Dial));
}

#[test]
fn a_session_without_pipes_is_dialled_by_its_first_dialler_and_goes_after_a_while() {
    let now = start();
    let mut dialler = contact(Side::Dialler, now);
    dialler.lost(now);
    assert_eq!(dialler.poll(false, now), Some(ContactAction::Dial), "the peer may have a pipe");
    let mut contact = contact(Side::Acceptor, now);
    contact.lost(now);

    assert_eq!(contact.poll(false, now + seconds(59)), None);
    assert_eq!(
        contact.poll(false, now + IDLE_KEPT),
        Some(ContactAction::GiveUp(GiveUp::Idle)),
        "nobody needs it"
    );
    assert_eq!(contact.poll(true, now + IDLE_KEPT), None, "it is over");
}

#[test]
fn a_connection_is_not_replaced_as_soon_as_it_is_there() {
    let now = start();
    let mut contact = contact(Side::Dialler, now);
    contact.network_changed(now + seconds(1));

    assert_eq!(contact.poll(true, now + seconds(1)), None);
    assert_eq!(contact.poll(true, now + REPLACE_AFTER), Some(ContactAction::Dial));
}

#[test]
fn the_user_is_told_once_of_silence_and_once_of_its_end() {
    let now = start();
    let mut contact = contact(Side::Acceptor, now);
    contact.lost(now);
    let mut told = Vec::new();
    for second in 1..40 {
        if second == 20 {
            contact.adopted(9, RTT, now + seconds(second));
        }
        while let Some(action) = contact.poll(true, now + seconds(second)) {
            match action {
                ContactAction::Dial => contact.dial_failed(1.0, now + seconds(second)),
                action => told.push((second, action)),
            }
        }
        if second > 20 {
            contact.heard(now + seconds(second));
        }
    }
    assert_eq!(
        told,
        [
            (15, ContactAction::Notice { silent: seconds(15), left: seconds(585) }),
            (20, ContactAction::Back { after: seconds(20) }),
        ]
    );
}

#[test]
fn silence_ends_at_give_up_and_sooner_where_the_host_says_that_nobody_is_there() {
    for (is_refused, why) in [(false, GiveUp::Silence), (true, GiveUp::Refused)] {
        let now = start();
        let mut contact = contact(Side::Dialler, now);
        contact.lost(now);
        let mut at = now;
        let end = loop {
            match contact.poll(true, at) {
                Some(ContactAction::Dial) => {
                    if is_refused {
                        contact.refused(at);
                    }
                    contact.dial_failed(0.5, at);
                }
                Some(ContactAction::GiveUp(why)) => break why,
                Some(_) => {}
                None => at = contact.poll_timeout(true).unwrap(),
            }
        };
        assert_eq!(end, why);
        let limit = if is_refused { seconds(10) } else { seconds(600) };
        assert!(at - now <= limit, "{:?}", at - now);
    }
}

#[test]
fn dials_back_off_and_a_change_of_the_network_starts_anew() {
    let now = start();
    let mut contact = contact(Side::Dialler, now);
    contact.lost(now);
    let mut at = now;
    let mut pauses = Vec::new();
    for _ in 0..7 {
        assert_eq!(contact.poll(true, at), Some(ContactAction::Dial));
        contact.dial_failed(1.0, at);
        let next = contact.dial_at().unwrap();
        pauses.push(next - at);
        at = next;
    }
    assert!(pauses.is_sorted() && pauses[0] == BACKOFF && pauses[6] == BACKOFF_MAX, "{pauses:?}");

    assert!(std::iter::from_fn(|| contact.poll(true, at)).any(|a| a == ContactAction::Dial));
    contact.dial_failed(1.0, at);
    contact.network_changed(at);
    assert!(
        std::iter::from_fn(|| contact.poll(true, at)).any(|a| a == ContactAction::Dial),
        "at once"
    );
}
