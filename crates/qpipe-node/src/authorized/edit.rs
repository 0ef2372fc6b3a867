//! Changing the peers in `authorized.toml`, as invitations and `qpipe trust` do.

use std::path::Path;

use qpipe_proto::{Fingerprint, NamePattern};
use toml_edit::{ArrayOfTables, DocumentMut, Item, Table, TableLike, Value};

use super::{Authorized, PEERS_MAX, POLICY, PeerRules};
use crate::alias::Alias;
use crate::document::{self, EditError, detached_comments, prepend_comments, set, strings};

/// Adds a peer. One with the same key keeps its rules, gets those that it lacks, and the new name.
///
/// Comments and order stay. Two processes that do this at the same time both succeed.
///
/// # Errors
/// [`AddPeerError::NameTaken`] if a peer with another key has the name, [`AddPeerError::Full`] at
/// [`PEERS_MAX`]; the file stays as it is.
pub fn add_peer(path: &Path, peer: &PeerRules) -> Result<(), AddPeerError> {
    document::edit(path, POLICY, |path, text| {
        let authorized = Authorized::parse(path, text).map_err(EditError::Read)?;
        let merged = merged(&authorized, peer)?;
        let old = authorized.rules_for(&peer.key);
        if old == Some(&merged) {
            return Ok((None, ()));
        }
        if old.is_none() && authorized.peers().len() >= PEERS_MAX {
            return Err(AddPeerError::Full);
        }
        let mut document = document::editable(path, text).map_err(EditError::Read)?;
        let mut expected = authorized.peers().to_vec();
        match authorized.by_key.get(&peer.key) {
            Some(index) => {
                if let Some(table) = nth_peer(&mut document, *index) {
                    write_peer(table, &merged, old);
                }
                expected[*index] = merged;
            }
            None => {
                append_peer(&mut document, &merged);
                expected.push(merged);
            }
        }
        let new_text = document.to_string();
        check_result(path, &new_text, &expected)?;
        Ok((Some(new_text), ()))
    })
}

/// Removes the peer that has this name or this fingerprint (`SHA256:…`), and returns it; none if
/// there was no such peer.
///
/// # Errors
/// If the file cannot be read, is broken, or cannot be written.
pub fn remove_peer(path: &Path, name_or_key: &str) -> Result<Option<PeerRules>, EditError> {
    let key = name_or_key.parse::<Fingerprint>().ok();
    document::edit(path, POLICY, |path, text| {
        let mut expected = Authorized::parse(path, text)?.peers;
        let is_meant = |peer: &PeerRules| {
            peer.is_called(name_or_key) || key.as_ref().is_some_and(|key| peer.key == *key)
        };
        let Some(index) = expected.iter().position(is_meant) else {
            return Ok((None, None));
        };
        let removed = expected.remove(index);
        let mut document = document::editable(path, text)?;
        remove_nth_peer(&mut document, index);
        let new_text = document.to_string();
        check_result(path, &new_text, &expected)?;
        Ok((Some(new_text), Some(removed)))
    })
}

/// Why a peer was not added.
#[derive(Debug, thiserror::Error)]
pub enum AddPeerError {
    /// The file could not be edited.
    #[error(transparent)]
    Edit(#[from] EditError),
    /// There are [`PEERS_MAX`] peers already.
    #[error("there are {PEERS_MAX} peers already: remove some with `qpipe trust remove`")]
    Full,
    /// Two peers with one name could not be told apart.
    #[error(
        "the name `{name}` belongs to the key {key} already: choose another name, or run \
         `qpipe trust remove {name}` first"
    )]
    NameTaken {
        /// The name.
        name: Alias,
        /// The key of the peer that has it.
        key: Fingerprint,
    },
}

fn merged(authorized: &Authorized, peer: &PeerRules) -> Result<PeerRules, AddPeerError> {
    if let Some(name) = &peer.name
        && let Some(other) = authorized.peer_by_name(name.as_str())
        && other.key != peer.key
    {
        return Err(AddPeerError::NameTaken { name: name.clone(), key: other.key });
    }
    let Some(old) = authorized.rules_for(&peer.key) else {
        return Ok(peer.clone());
    };
    Ok(PeerRules {
        key: peer.key,
        name: peer.name.clone().or_else(|| old.name.clone()),
        send: union(&old.send, &peer.send),
        recv: union(&old.recv, &peer.recv),
        list: union(&old.list, &peer.list),
    })
}

fn union(old: &[NamePattern], new: &[NamePattern]) -> Vec<NamePattern> {
    let added = new.iter().filter(|pattern| !old.contains(pattern));
    old.iter().chain(added).cloned().collect()
}

/// Writes what differs from what is there.
fn write_peer(table: &mut dyn TableLike, peer: &PeerRules, old: Option<&PeerRules>) {
    if old.is_none() {
        set(table, "key", peer.key.to_string());
    }
    if let Some(name) = &peer.name
        && old.is_none_or(|old| old.name.as_ref() != Some(name))
    {
        set(table, "name", name.as_str());
    }
    for (key, patterns, old_patterns) in [
        ("send", &peer.send, old.map(|old| &old.send)),
        ("recv", &peer.recv, old.map(|old| &old.recv)),
        ("list", &peer.list, old.map(|old| &old.list)),
    ] {
        let added = &patterns[old_patterns.map_or(0, |old| old.len())..];
        match table.get_mut(key).and_then(Item::as_array_mut) {
            Some(array) => array.extend(added.iter().map(NamePattern::to_string)),
            None if (old.is_some() || key == "list") && added.is_empty() => {}
            None => set(table, key, Value::Array(strings(patterns))),
        }
    }
}

fn nth_peer(document: &mut DocumentMut, index: usize) -> Option<&mut dyn TableLike> {
    match document.get_mut("peer")? {
        Item::ArrayOfTables(tables) => tables.get_mut(index).map(|table| table as _),
        Item::Value(Value::Array(array)) => {
            array.get_mut(index)?.as_inline_table_mut().map(|table| table as _)
        }
        _ => None,
    }
}

fn append_peer(document: &mut DocumentMut, peer: &PeerRules) {
    let before = document::end_of(document);
    let mut table = Table::new();
    write_peer(&mut table, peer, None);
    let peers = document.entry("peer").or_insert_with(|| Item::ArrayOfTables(ArrayOfTables::new()));
    match peers {
        Item::Value(Value::Array(array)) => array.push(table.into_inline_table()),
        Item::ArrayOfTables(tables) => {
            document::place_at_end(&mut table, &before);
            tables.push(table);
            document.set_trailing("");
        }
        // Authorized::parse has let nothing else through; check_result would notice.
        _ => {}
    }
}

fn remove_nth_peer(document: &mut DocumentMut, index: usize) {
    match document.get_mut("peer") {
        Some(Item::ArrayOfTables(tables)) if index < tables.len() => {
            let comments = detached_comments(tables.remove(index).decor());
            if comments.is_empty() {
                return;
            }
            if let Some(next) = tables.get_mut(index) {
                prepend_comments(next.decor_mut(), &comments);
            } else {
                let end = document.trailing().as_str().unwrap_or("").to_owned();
                document.set_trailing(format!("{comments}{end}"));
            }
        }
        Some(Item::Value(Value::Array(array))) if index < array.len() => {
            array.remove(index);
        }
        _ => {}
    }
}

/// The proof that an edit did what it should and nothing else, whatever form the file has.
fn check_result(path: &Path, new_text: &str, expected: &[PeerRules]) -> Result<(), EditError> {
    let shape = |what: String| EditError::Shape { path: path.to_path_buf(), what };
    match Authorized::parse(path, new_text) {
        Ok(found) if found.peers == expected => Ok(()),
        Ok(_) => Err(shape("the peers are written in an unusual form".to_owned())),
        Err(error) => Err(shape(error.to_string())),
    }
}
