//! The addresses of the lab, and how the address of host A changes.
//!
//! Every host has an IPv4 address 10.77.S.n and an IPv6 address fd77:0:0:S::n with
//! the same number n (written in decimal in both). Host number h starts as n = h.
//! Host A can take other numbers: it can really move to 201, 202, ..., and it can
//! appear as 101, 102, ... to the others, by translation in the emulator.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    sync::atomic::{AtomicU16, AtomicU64, Ordering::SeqCst},
};

use crate::{
    ip::{self, End, Version},
    units::Nanos,
};

/// The last part of an address.
pub(crate) type Number = u16;

pub(crate) const MAX_HOSTS: usize = 16;
const FIRST_TRANSLATED: Number = 101;
const LAST_TRANSLATED: Number = 199;
const FIRST_MOVED: Number = 201;
const LAST_MOVED: Number = 254;

/// The address plan of one lab.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) subnet: u8,
    pub(crate) hosts: usize,
}

impl Plan {
    pub(crate) fn v4(&self, number: Number) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, self.subnet, number as u8)
    }

    pub(crate) fn v6(&self, number: Number) -> Ipv6Addr {
        Ipv6Addr::new(
            0xfd77,
            0,
            0,
            as_hex_digits(self.subnet as u16),
            0,
            0,
            0,
            as_hex_digits(number),
        )
    }

    /// The number in one of a packet's addresses, if that belongs to the lab.
    fn number(&self, packet: &[u8], end: End) -> Option<Number> {
        match *ip::address(packet, end)? {
            [10, 77, subnet, number] => (subnet == self.subnet).then_some(number as Number),
            ref address => {
                let octets: [u8; 16] = address.try_into().ok()?;
                let number = from_hex_digits(u16::from_be_bytes([octets[14], octets[15]]))?;
                (octets == self.v6(number).octets()).then_some(number)
            }
        }
    }

    fn replace(&self, packet: &mut [u8], end: End, number: Number) {
        match ip::version(packet) {
            Some(Version::V4) => ip::replace_address(packet, end, &self.v4(number).octets()),
            Some(Version::V6) => ip::replace_address(packet, end, &self.v6(number).octets()),
            None => {}
        }
    }
}

/// 101 becomes 0x101, so that it is still written 101 in an IPv6 address.
fn as_hex_digits(number: u16) -> u16 {
    let digit = |power: u32| number / 10u16.pow(power) % 10;
    digit(3) << 12 | digit(2) << 8 | digit(1) << 4 | digit(0)
}

fn from_hex_digits(hex: u16) -> Option<u16> {
    let digits = [hex >> 12, hex >> 8 & 15, hex >> 4 & 15, hex & 15];
    let number = digits.iter().fold(0, |number, digit| number * 10 + digit);
    digits.iter().all(|digit| *digit < 10).then_some(number)
}

/// Why a packet cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It is not for a host of this lab (or multicast).
    Unroutable,
    /// It comes from, or goes to, an address that host A no longer has.
    Stale,
}

/// Who has which address at the moment. Host A is the host with index 0.
pub(crate) struct AddressBook {
    plan: Plan,
    /// The number that host A really has; 0 while it has none.
    real: AtomicU16,
    /// The number that the others see; 0 if it is the real one.
    seen: AtomicU16,
    /// How long the NAT in front of host A remembers; `FOREVER` if there is none.
    nat_timeout: AtomicU64,
    /// When host A last sent something through the NAT; `FOREVER` if it never did.
    last_sent: AtomicU64,
}

/// A time that does not come.
const FOREVER: Nanos = Nanos::MAX;

impl AddressBook {
    pub(crate) fn new(plan: Plan) -> Self {
        Self {
            plan,
            real: AtomicU16::new(1),
            seen: AtomicU16::new(0),
            nat_timeout: AtomicU64::new(FOREVER),
            last_sent: AtomicU64::new(FOREVER),
        }
    }

    pub(crate) fn plan(&self) -> Plan {
        self.plan
    }

    /// Makes the others see a new address of host A; returns its number.
    pub(crate) fn translate(&self) -> Number {
        let next = next(self.seen.load(SeqCst), FIRST_TRANSLATED, LAST_TRANSLATED);
        self.seen.store(next, SeqCst);
        next
    }

    /// Puts host A behind a NAT that forgets its mapping when host A has sent nothing for so long
    /// (what comes in does not count): then nothing reaches host A until it sends again, from a new
    /// address. `None` takes the NAT away.
    pub(crate) fn set_nat_timeout(&self, timeout: Option<Nanos>) {
        self.nat_timeout.store(timeout.unwrap_or(FOREVER), SeqCst);
    }

    /// Whether the NAT, if there is one, knows host A at `now`.
    fn is_mapped(&self, now: Nanos) -> bool {
        match (self.nat_timeout.load(SeqCst), self.last_sent.load(SeqCst)) {
            (FOREVER, _) => true,
            (_, FOREVER) => false,
            (timeout, last_sent) => now.saturating_sub(last_sent) < timeout,
        }
    }

    /// Notes that host A sends at `now`, which renews the NAT's mapping or makes a new one.
    fn note_sending(&self, now: Nanos) {
        if self.last_sent.load(SeqCst) != FOREVER && !self.is_mapped(now) {
            self.translate();
        }
        self.last_sent.store(now, SeqCst);
    }

    /// Notes the number that host A really has from now on (0 for none).
    pub(crate) fn set_real(&self, number: Number) {
        self.real.store(number, SeqCst);
    }

    pub(crate) fn real(&self) -> Number {
        self.real.load(SeqCst)
    }

    /// The number to move to after `current`.
    pub(crate) fn next_real(current: Number) -> Number {
        next(current, FIRST_MOVED, LAST_MOVED)
    }

    fn seen(&self) -> Number {
        match self.seen.load(SeqCst) {
            0 => self.real(),
            number => number,
        }
    }

    /// Treats a packet as it leaves `host`: translates its source, and tells where it goes.
    pub(crate) fn depart(
        &self,
        host: usize,
        now: Nanos,
        packet: &mut [u8],
    ) -> Result<usize, Refusal> {
        let to = self.plan.number(packet, End::Destination).ok_or(Refusal::Unroutable)?;
        let from = self.plan.number(packet, End::Source).ok_or(Refusal::Unroutable)?;
        let destination = match to {
            FIRST_TRANSLATED..=LAST_TRANSLATED | FIRST_MOVED..=LAST_MOVED => 0,
            _ if (1..=self.plan.hosts).contains(&(to as usize)) => to as usize - 1,
            _ => return Err(Refusal::Unroutable),
        };
        if destination == host {
            return Err(Refusal::Unroutable);
        }
        if host == 0 {
            let real = self.real();
            if from != real {
                return Err(Refusal::Stale);
            }
            self.note_sending(now);
            let seen = self.seen();
            if seen != real {
                self.plan.replace(packet, End::Source, seen);
            }
        }
        Ok(destination)
    }

    /// Treats a packet as it arrives at `host`: translates its destination.
    pub(crate) fn arrive(&self, host: usize, now: Nanos, packet: &mut [u8]) -> Result<(), Refusal> {
        if host == 0 {
            let (real, seen) = (self.real(), self.seen());
            let to = self.plan.number(packet, End::Destination);
            // What is not an address of the lab was corrupted on the way; the kernel
            // of the host gets to reject that.
            if to.is_some_and(|to| to != seen) || real == 0 || !self.is_mapped(now) {
                return Err(Refusal::Stale);
            }
            if to.is_some() && seen != real {
                self.plan.replace(packet, End::Destination, real);
            }
        }
        Ok(())
    }
}

fn next(current: Number, first: Number, last: Number) -> Number {
    if (first..last).contains(&current) { current + 1 } else { first }
}

#[cfg(test)]
mod tests;
