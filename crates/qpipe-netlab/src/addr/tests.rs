use super::*;

const PLAN: Plan = Plan { subnet: 3, hosts: 3 };

fn v4(from: Number, to: Number) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 20, 0, 0, 0, 0, 64, 1, 0, 0];
    packet.extend(PLAN.v4(from).octets());
    packet.extend(PLAN.v4(to).octets());
    packet
}

fn v6(from: Number, to: Number) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, 0, 59, 64];
    packet.extend(PLAN.v6(from).octets());
    packet.extend(PLAN.v6(to).octets());
    packet
}

#[test]
fn the_plan() {
    assert_eq!(PLAN.v4(2).to_string(), "10.77.3.2");
    assert_eq!(PLAN.v6(2).to_string(), "fd77:0:0:3::2");
    assert_eq!(PLAN.v6(101).to_string(), "fd77:0:0:3::101");
    assert_eq!(PLAN.number(&v6(254, 16), End::Source), Some(254));
    assert_eq!(PLAN.number(&v6(254, 16), End::Destination), Some(16));
    assert_eq!(PLAN.number(&v4(7, 9), End::Destination), Some(9));
    let elsewhere = Plan { subnet: 4, hosts: 3 };
    assert_eq!(elsewhere.number(&v4(7, 9), End::Source), None);
    assert_eq!(elsewhere.number(&v6(7, 9), End::Source), None);
}

#[test]
fn routing() {
    let book = AddressBook::new(PLAN);
    for packet in [v4, v6] {
        assert_eq!(book.depart(0, 0, &mut packet(1, 2)), Ok(1));
        assert_eq!(book.depart(0, 0, &mut packet(1, 3)), Ok(2));
        assert_eq!(book.depart(2, 0, &mut packet(3, 1)), Ok(0));
        assert_eq!(book.depart(0, 0, &mut packet(1, 4)), Err(Refusal::Unroutable));
        assert_eq!(book.depart(0, 0, &mut packet(1, 1)), Err(Refusal::Unroutable));
        assert_eq!(book.depart(0, 0, &mut packet(1, 255)), Err(Refusal::Unroutable));
        assert_eq!(book.depart(0, 0, &mut packet(9, 2)), Err(Refusal::Stale));
    }
    let mut multicast = v4(1, 2);
    multicast[16..20].copy_from_slice(&[224, 0, 0, 1]);
    assert_eq!(book.depart(0, 0, &mut multicast), Err(Refusal::Unroutable));
}

#[test]
fn translation() {
    let book = AddressBook::new(PLAN);
    for packet in [v4, v6] {
        assert_eq!(book.arrive(0, 0, &mut packet(2, 1)), Ok(()));
    }
    assert_eq!(book.translate(), 101);
    for make in [v4, v6] {
        let mut packet = make(1, 2);
        assert_eq!(book.depart(0, 0, &mut packet), Ok(1));
        assert_eq!(PLAN.number(&packet, End::Source), Some(101));

        let mut answer = make(2, 101);
        assert_eq!(book.depart(1, 0, &mut answer), Ok(0));
        assert_eq!(book.arrive(0, 0, &mut answer), Ok(()));
        assert_eq!(PLAN.number(&answer, End::Destination), Some(1));

        // The address before the change is dead.
        let mut late = make(2, 1);
        assert_eq!(book.depart(1, 0, &mut late), Ok(0));
        assert_eq!(book.arrive(0, 0, &mut late), Err(Refusal::Stale));
    }
    assert_eq!(book.translate(), 102);
    assert_eq!(book.arrive(0, 0, &mut v4(2, 101)), Err(Refusal::Stale));
    assert_eq!(book.arrive(0, 0, &mut v4(2, 102)), Ok(()));
    assert_eq!(book.arrive(1, 0, &mut v4(1, 2)), Ok(()));
}

#[test]
fn moving() {
    let book = AddressBook::new(PLAN);
    let target = AddressBook::next_real(book.real());
    assert_eq!(target, 201);
    book.set_real(0);
    assert_eq!(book.depart(0, 0, &mut v4(1, 2)), Err(Refusal::Stale));
    assert_eq!(book.arrive(0, 0, &mut v4(2, 1)), Err(Refusal::Stale));
    book.set_real(target);
    assert_eq!(book.depart(0, 0, &mut v4(1, 2)), Err(Refusal::Stale));
    assert_eq!(book.arrive(0, 0, &mut v4(2, 1)), Err(Refusal::Stale));
    assert_eq!(book.depart(0, 0, &mut v4(201, 2)), Ok(1));
    assert_eq!(book.arrive(0, 0, &mut v4(2, 201)), Ok(()));

    // A translation on top of it leads to the new place.
    book.translate();
    let mut packet = v4(2, 101);
    assert_eq!(book.arrive(0, 0, &mut packet), Ok(()));
    assert_eq!(PLAN.number(&packet, End::Destination), Some(201));
    assert_eq!(AddressBook::next_real(201), 202);
}

#[test]
fn a_nat_forgets_who_is_silent_and_gives_the_next_packet_a_new_address() {
    let book = AddressBook::new(PLAN);
    book.set_nat_timeout(Some(30));
    assert_eq!(book.arrive(0, 5, &mut v4(2, 1)), Err(Refusal::Stale), "nothing was sent yet");
    assert_eq!(book.depart(0, 10, &mut v4(1, 2)), Ok(1));
    assert_eq!(book.arrive(0, 39, &mut v4(2, 1)), Ok(()));

    // What came in has not renewed the mapping.
    assert_eq!(book.arrive(0, 40, &mut v4(2, 1)), Err(Refusal::Stale));

    let mut packet = v4(1, 2);
    assert_eq!(book.depart(0, 41, &mut packet), Ok(1));
    assert_eq!(PLAN.number(&packet, End::Source), Some(101));
    assert_eq!(book.arrive(0, 42, &mut v4(2, 1)), Err(Refusal::Stale));
    assert_eq!(book.arrive(0, 42, &mut v4(2, 101)), Ok(()));
    book.set_nat_timeout(None);
    assert_eq!(book.arrive(0, 4000, &mut v4(2, 101)), Ok(()));
}
