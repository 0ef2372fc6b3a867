//! Changing the hosts in `config.toml`, as pinning a key does.

use std::path::Path;

use qpipe_proto::Fingerprint;
use qpipe_proto::ticket::Address;
use toml_edit::{DocumentMut, Item, Table, TableLike, Value};

use super::{Config, KnownHost, POLICY};
use crate::alias::Alias;
use crate::document::{self, EditError, detached_comments, prepend_comments, set, strings};

/// Adds the host `alias` with its addresses and its key, or updates its addresses.
///
/// The user's comments and order stay. Two processes that do this at the same time both succeed.
/// A symbolic link is followed. A host that has no fingerprint yet gets this one, and its addresses
/// are replaced: so the alias must come from this host's user, not from a peer or a ticket.
///
/// # Errors
/// [`PinHostError::FingerprintChanged`] if another key is pinned for it; the file stays as it is.
pub fn pin_host(
    path: &Path,
    alias: &Alias,
    addresses: &[Address],
    fingerprint: &Fingerprint,
) -> Result<(), PinHostError> {
    if addresses.is_empty() {
        return Err(PinHostError::NoAddress { alias: alias.clone() });
    }
    let wanted = KnownHost { addresses: addresses.to_vec(), fingerprint: Some(*fingerprint) };
    document::edit(path, POLICY, |path, text| {
        let config = Config::parse(path, text).map_err(EditError::Read)?;
        let old = config.host(alias.as_str());
        if old == Some(&wanted) {
            return Ok((None, ()));
        }
        if let Some(pinned) = old.and_then(|host| host.fingerprint.as_ref())
            && pinned != fingerprint
        {
            return Err(PinHostError::FingerprintChanged {
                alias: alias.clone(),
                pinned: *pinned,
                offered: *fingerprint,
            });
        }
        let mut document = document::editable(path, text).map_err(EditError::Read)?;
        write_host(&mut document, alias, &wanted, old);
        let new_text = document.to_string();
        let mut expected = config.clone();
        expected.hosts.insert(alias.clone(), wanted);
        check_result(path, &new_text, &expected)?;
        Ok((Some(new_text), ()))
    })
}

/// Removes the host `alias` with its pinned key, and returns it; none if there was no such host.
///
/// # Errors
/// If the file cannot be read, is broken, or cannot be written.
pub fn remove_host(path: &Path, alias: &Alias) -> Result<Option<KnownHost>, EditError> {
    document::edit(path, POLICY, |path, text| {
        let mut expected = Config::parse(path, text)?;
        let Some(removed) = expected.hosts.remove(alias) else {
            return Ok((None, None));
        };
        let mut document = document::editable(path, text)?;
        let hosts = document.get_mut("hosts").and_then(Item::as_table_like_mut);
        if let Some(Item::Table(table)) = hosts.and_then(|hosts| hosts.remove(alias.as_str())) {
            keep_comments(&mut document, &table);
        }
        let new_text = document.to_string();
        check_result(path, &new_text, &expected)?;
        Ok((Some(new_text), Some(removed)))
    })
}

/// Why a host was not pinned.
#[derive(Debug, thiserror::Error)]
pub enum PinHostError {
    /// The file could not be edited.
    #[error(transparent)]
    Edit(#[from] EditError),
    /// The host has another key than the one that is pinned: it was set up anew, or somebody else
    /// answers in its place.
    #[error(
        "the key of `{alias}` is not the pinned one: pinned {pinned}, now {offered}. If the host \
         was set up anew and the new key is right, run `qpipe trust remove {alias}` and try again"
    )]
    FingerprintChanged {
        /// The host.
        alias: Alias,
        /// The fingerprint in the file.
        pinned: Fingerprint,
        /// The fingerprint that was to be pinned.
        offered: Fingerprint,
    },
    /// Nobody said where the host is.
    #[error("cannot remember `{alias}` without an address")]
    NoAddress {
        /// The host.
        alias: Alias,
    },
}

fn write_host(
    document: &mut DocumentMut,
    alias: &Alias,
    wanted: &KnownHost,
    old: Option<&KnownHost>,
) {
    let end = document::end_of(document);
    let hosts = document.entry("hosts").or_insert_with(|| {
        let mut table = Table::new();
        table.set_implicit(true);
        Item::Table(table)
    });
    // Config::parse has found this to be a table of tables; check_result notices if it is not.
    let hosts_are_inline = hosts.is_inline_table();
    let Some(hosts) = hosts.as_table_like_mut() else { return };
    if let Some(host) = hosts.get_mut(alias.as_str()).and_then(Item::as_table_like_mut) {
        if old.is_none_or(|old| old.addresses != wanted.addresses) {
            set(host, "address", address_value(&wanted.addresses));
        }
        set_fingerprint(host, wanted);
        return;
    }
    let mut host = Table::new();
    set(&mut host, "address", address_value(&wanted.addresses));
    set_fingerprint(&mut host, wanted);
    if hosts_are_inline {
        hosts.insert(alias.as_str(), Item::Value(Value::InlineTable(host.into_inline_table())));
    } else {
        document::place_at_end(&mut host, &end);
        hosts.insert(alias.as_str(), Item::Table(host));
        document.set_trailing("");
    }
}

fn set_fingerprint(host: &mut dyn TableLike, wanted: &KnownHost) {
    if let Some(fingerprint) = &wanted.fingerprint {
        set(host, "fingerprint", fingerprint.to_string());
    }
}

fn address_value(addresses: &[Address]) -> Value {
    match addresses {
        [address] => Value::from(address.to_string()),
        several => Value::Array(strings(several)),
    }
}

/// Moves comments that were not about the removed table alone to the table after it.
fn keep_comments(document: &mut DocumentMut, removed: &Table) {
    let comments = detached_comments(removed.decor());
    if comments.is_empty() {
        return;
    }
    let headers = document.iter().filter_map(|(_, item)| item.as_table()).flat_map(|table| {
        let below = table.iter().filter_map(|(_, item)| item.as_table());
        below.chain([table]).filter(|table| !table.is_implicit()).filter_map(Table::position)
    });
    let next = headers.filter(|position| Some(*position) > removed.position()).min();
    for table in document.iter_mut().filter_map(|(_, item)| item.as_table_mut()) {
        if next.is_some() && table.position() == next && !table.is_implicit() {
            return prepend_comments(table.decor_mut(), &comments);
        }
        for table in table.iter_mut().filter_map(|(_, item)| item.as_table_mut()) {
            if next.is_some() && table.position() == next {
                return prepend_comments(table.decor_mut(), &comments);
            }
        }
    }
    let end = document.trailing().as_str().unwrap_or("").to_owned();
    document.set_trailing(format!("{comments}{end}"));
}

/// The proof that an edit did what it should and nothing else, whatever form the file has.
fn check_result(path: &Path, new_text: &str, expected: &Config) -> Result<(), EditError> {
    let shape = |what: String| EditError::Shape { path: path.to_path_buf(), what };
    match Config::parse(path, new_text) {
        Ok(found) if found == *expected => Ok(()),
        Ok(_) => Err(shape("the hosts are written in an unusual form".to_owned())),
        Err(error) => Err(shape(error.to_string())),
    }
}
