//! Changing which names are kept, as `qpipe mk` and `qpipe rm` do.

use std::path::Path;

use qpipe::PipeName;
use toml_edit::{DocumentMut, Item, Table, TableLike, Value};

use super::{Capacity, Description, KEPT_NAMES_MAX, Kept, KeptName, POLICY, PeerMode};
use crate::document::{self, EditError, detached_comments, prepend_comments, set};

/// How names are to be kept. What is none stays as it is, or becomes the default of a new name.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct KeepChange {
    /// See [`KeptName::capacity`].
    pub capacity: Option<Capacity>,
    /// See [`KeptName::mode`].
    pub mode: Option<PeerMode>,
    /// See [`KeptName::description`]. `Some(None)` takes it away.
    pub description: Option<Option<Description>>,
    /// Whether names that are kept already are changed.
    pub changes_kept: bool,
}

/// Why names were not kept. The file is as it was.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// The file could not be edited.
    #[error(transparent)]
    Edit(#[from] EditError),
    /// There would be more than [`KEPT_NAMES_MAX`].
    #[error("no more than {KEPT_NAMES_MAX} names are kept: remove some with `qpipe rm`")]
    Full,
}

/// Keeps these names in the file `path`, and returns those that it did not touch, since they are kept
/// already and were not to be changed.
///
/// Comments and order stay. Two processes that do this at the same time both succeed.
///
/// # Errors
/// See [`KeepError`]: then none of them is kept.
pub fn keep(
    path: &Path,
    names: &[PipeName],
    change: &KeepChange,
) -> Result<Vec<PipeName>, KeepError> {
    document::edit(path, POLICY, |path, text| {
        let mut expected = Kept::parse(path, text).map_err(EditError::Read)?;
        let mut document = document::editable(path, text).map_err(EditError::Read)?;
        let mut untouched = Vec::new();
        for name in names {
            let old = expected.names.get(name);
            if old.is_some() && !change.changes_kept {
                untouched.push(name.clone());
                continue;
            }
            let wanted = change.of(old);
            write_name(&mut document, name, &wanted, old);
            expected.names.insert(name.clone(), wanted);
        }
        if expected.names.len() > KEPT_NAMES_MAX {
            return Err(KeepError::Full);
        }
        let new_text = document.to_string();
        check_result(path, &new_text, &expected)?;
        Ok(((new_text != text).then_some(new_text), untouched))
    })
}

/// Keeps these names no longer, and returns those that were not kept.
///
/// # Errors
/// If the file cannot be read, is broken, or cannot be written: then all stay.
pub fn remove_kept(path: &Path, names: &[PipeName]) -> Result<Vec<PipeName>, EditError> {
    document::edit(path, POLICY, |path, text| {
        let mut expected = Kept::parse(path, text)?;
        let mut document = document::editable(path, text)?;
        let mut unknown = Vec::new();
        for name in names {
            if expected.names.remove(name).is_none() {
                unknown.push(name.clone());
                continue;
            }
            let table = document.get_mut("names").and_then(Item::as_table_like_mut);
            if let Some(Item::Table(table)) = table.and_then(|table| table.remove(name.as_str())) {
                keep_comments(&mut document, &table);
            }
        }
        let new_text = document.to_string();
        check_result(path, &new_text, &expected)?;
        Ok(((new_text != text).then_some(new_text), unknown))
    })
}

impl KeepChange {
    /// What becomes of a name that was kept so, or was not.
    fn of(&self, old: Option<&KeptName>) -> KeptName {
        let mut kept = old.cloned().unwrap_or_default();
        kept.capacity = self.capacity.or(kept.capacity);
        kept.mode = self.mode.unwrap_or(kept.mode);
        if let Some(description) = &self.description {
            kept.description.clone_from(description);
        }
        kept
    }
}

fn write_name(
    document: &mut DocumentMut,
    name: &PipeName,
    wanted: &KeptName,
    old: Option<&KeptName>,
) {
    let end = document::end_of(document);
    let names = document.entry("names").or_insert_with(|| {
        let mut table = Table::new();
        table.set_implicit(true);
        Item::Table(table)
    });
    // Kept::parse has found this to be a table of tables; check_result notices if it is not.
    let are_inline = names.is_inline_table();
    let Some(names) = names.as_table_like_mut() else { return };
    if let Some(table) = names.get_mut(name.as_str()).and_then(Item::as_table_like_mut) {
        write_members(table, wanted, old);
        return;
    }
    let mut table = Table::new();
    write_members(&mut table, wanted, None);
    if are_inline {
        names.insert(name.as_str(), Item::Value(Value::InlineTable(table.into_inline_table())));
    } else {
        document::place_at_end(&mut table, &end);
        names.insert(name.as_str(), Item::Table(table));
        document.set_trailing("");
    }
}

/// Writes what differs from `old`; the default is not written.
fn write_members(table: &mut dyn TableLike, wanted: &KeptName, old: Option<&KeptName>) {
    let default = KeptName::default();
    let old = old.unwrap_or(&default);
    if let Some(capacity) = wanted.capacity.filter(|_| wanted.capacity != old.capacity) {
        set(table, "capacity", capacity.to_string());
    }
    if wanted.mode != old.mode {
        set(table, "mode", wanted.mode.as_str());
    }
    match &wanted.description {
        description if *description == old.description => {}
        Some(description) => set(table, "description", description.as_str()),
        None => {
            table.remove("description");
        }
    }
}

/// The comments before a table that goes, as far as they are not about it alone.
fn keep_comments(document: &mut DocumentMut, removed: &Table) {
    let comments = detached_comments(removed.decor());
    if comments.is_empty() {
        return;
    }
    let after = |table: &Table| table.position() > removed.position();
    let names = document.get_mut("names").and_then(Item::as_table_mut);
    let next = names.and_then(|names| {
        let tables = names.iter_mut().filter_map(|(_, item)| item.as_table_mut());
        tables.filter(|table| after(table)).min_by_key(|table| table.position())
    });
    if let Some(next) = next {
        prepend_comments(next.decor_mut(), &comments);
    } else {
        let end = document.trailing().as_str().unwrap_or("").to_owned();
        document.set_trailing(format!("{comments}{end}"));
    }
}

/// The proof that an edit did what it should and nothing else, whatever form the file has.
fn check_result(path: &Path, new_text: &str, expected: &Kept) -> Result<(), EditError> {
    let shape = |what: String| EditError::Shape { path: path.to_path_buf(), what };
    match Kept::parse(path, new_text) {
        Ok(found) if found == *expected => Ok(()),
        Ok(_) => Err(shape("the names are written in an unusual form".to_owned())),
        Err(error) => Err(shape(error.to_string())),
    }
}
