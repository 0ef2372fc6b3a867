//! Changes of the address of host A.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Result, ensure};

use crate::{
    addr::{AddressBook, Number},
    lab::DEVICE,
    netns::run_ip,
};

/// How long host A is without an address when it really moves.
pub(crate) const GAP: Duration = Duration::from_millis(500);

pub(crate) struct Roamer {
    book: Arc<AddressBook>,
    netns: String,
    /// The number that host A had before it left, while it is without an address.
    left: Mutex<Option<Number>>,
}

impl Roamer {
    /// `netns` is the name of the namespace of host A.
    pub(crate) fn new(book: Arc<AddressBook>, netns: String) -> Self {
        Self { book, netns, left: Mutex::new(None) }
    }

    /// Has the other hosts see a new address of host A; returns it.
    pub(crate) fn translate(&self) -> String {
        self.book.plan().v4(self.book.translate()).to_string()
    }

    /// Takes host A's addresses away.
    pub(crate) fn leave(&self) -> Result<()> {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        ensure!(left.is_none(), "host A is moving already");
        let number = self.book.real();
        self.book.set_real(0);
        *left = Some(number);
        self.change("del", number)
    }

    /// Gives host A the next addresses; returns the IPv4 one.
    pub(crate) fn join(&self) -> Result<String> {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let number = AddressBook::next_real(left.take().unwrap_or_else(|| self.book.real()));
        self.book.set_real(number);
        self.change("add", number)?;
        Ok(self.book.plan().v4(number).to_string())
    }

    fn change(&self, verb: &str, number: Number) -> Result<()> {
        for arguments in address_commands(&self.book, verb, number) {
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            run_ip(&[&["-n", &self.netns], &arguments[..]].concat())?;
        }
        Ok(())
    }
}

/// The `ip` commands that add (or delete) the addresses with a number.
pub(crate) fn address_commands(book: &AddressBook, verb: &str, number: Number) -> [Vec<String>; 2] {
    let plan = book.plan();
    let command = |address: String, more: &[&str]| {
        let words = ["address", verb, &address, "dev", DEVICE];
        words.iter().chain(more).map(|word| word.to_string()).collect()
    };
    [
        command(format!("{}/16", plan.v4(number)), &[]),
        command(format!("{}/64", plan.v6(number)), if verb == "add" { &["nodad"] } else { &[] }),
    ]
}
