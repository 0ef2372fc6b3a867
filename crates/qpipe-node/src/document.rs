//! TOML files that people and qpipe edit: bounded reading, errors with line numbers, careful edits.

use std::fmt;
use std::fs::{self, DirBuilder, Metadata};
use std::io::{self, Read};
use std::marker::PhantomData;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::Deserialize;
use serde::de::{self, DeserializeOwned, Deserializer, Visitor};
use toml_edit::{Array, Decor, DocumentMut, Item, Table, TableLike, Value};

use crate::disk::{self, OTHERS_WRITE, PRIVATE_DIR_MODE, PRIVATE_FILE_MODE};

/// Why a file could not be read and understood.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The content is not what the file may hold.
    #[error("{}:{line}: {what}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong there.
        what: String,
    },
    /// The system does not let us read it.
    #[error("cannot read {}: {cause}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// It is a directory, a FIFO, a device.
    #[error("{} is not a regular file", path.display())]
    NotAFile {
        /// The file.
        path: PathBuf,
    },
    /// The file is larger than anybody's rules or hosts can be.
    #[error("{} is larger than {bytes_max} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The largest size that is read.
        bytes_max: u64,
    },
    /// Others than the owner could have changed it.
    #[error(
        "other users may write to {0} (mode {mode:04o}), so its rules are not used: \
         run `chmod go-w {0}`",
        path.display()
    )]
    WritableByOthers {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
}

/// Why a file could not be edited. The file is as it was.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// It is broken already, or cannot be read: repairing it is for the user.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The entry cannot be put into this file without breaking it.
    #[error("cannot edit {} ({what}): change it by hand", path.display())]
    Shape {
        /// The file.
        path: PathBuf,
        /// What the result would have been.
        what: String,
    },
    /// The new content could not be written.
    #[error("cannot write {}: {cause}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
}

/// What a file of one kind may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Policy {
    /// More is not read.
    pub(crate) bytes_max: u64,
    /// Whether a file that a group or everybody may write is refused.
    pub(crate) owner_writes_alone: bool,
}

/// The text of the file, or none if there is no such file.
pub(crate) fn read(path: &Path, policy: Policy) -> Result<Option<String>, ReadError> {
    let failed = |cause| ReadError::Io { path: path.to_path_buf(), cause };
    let file = match disk::open_to_read(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    check_kind_and_mode(path, &file.metadata().map_err(failed)?, policy)?;
    let mut bytes = Vec::new();
    // One byte more than allowed tells a file at the limit from one beyond it.
    file.take(policy.bytes_max + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > policy.bytes_max {
        return Err(ReadError::TooLarge { path: path.to_path_buf(), bytes_max: policy.bytes_max });
    }
    String::from_utf8(bytes).map(Some).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = valid.iter().filter(|byte| **byte == b'\n').count() + 1;
        let what = "the text is not UTF-8".to_owned();
        ReadError::Invalid { path: path.to_path_buf(), line, what }
    })
}

/// The value that the text of the file `path` describes.
pub(crate) fn parse<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T, ReadError> {
    toml::from_str(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        invalid(path, text, at, &in_words_of_the_file(error.message()))
    })
}

/// The error that `what` is wrong at the byte offset `at` of the text.
pub(crate) fn invalid(path: &Path, text: &str, at: usize, what: &str) -> ReadError {
    let before = &text.as_bytes()[..at.min(text.len())];
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    ReadError::Invalid { path: path.to_path_buf(), line, what: printable(what) }
}

/// Lets `change` work on the text of the file, under its lock, and replaces the file by the text
/// that it returns, if any. Comments, order and permissions stay; a symbolic link is followed.
pub(crate) fn edit<T, E: From<EditError>>(
    path: &Path,
    policy: Policy,
    change: impl FnOnce(&Path, &str) -> Result<(Option<String>, T), E>,
) -> Result<T, E> {
    let failed = |cause| EditError::Write { path: path.to_path_buf(), cause };
    make_parent(path).map_err(failed)?;
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let _lock = disk::lock_for(&target).map_err(failed)?;
    let text = read(&target, policy).map_err(EditError::Read)?;
    let mode = match &text {
        Some(_) => fs::metadata(&target).map_err(failed)?.permissions().mode() & 0o777,
        None => PRIVATE_FILE_MODE,
    };
    let (new_text, answer) = change(&target, text.as_deref().unwrap_or(""))?;
    if let Some(new_text) = new_text {
        if new_text.len() as u64 > policy.bytes_max {
            let bytes_max = policy.bytes_max;
            return Err(EditError::Read(ReadError::TooLarge { path: target, bytes_max }).into());
        }
        disk::replace(&target, new_text.as_bytes(), mode).map_err(failed)?;
    }
    Ok(answer)
}

/// The text as a document whose comments and order survive changes.
pub(crate) fn editable(path: &Path, text: &str) -> Result<DocumentMut, ReadError> {
    text.parse::<DocumentMut>().map_err(|error| {
        invalid(path, text, error.span().map_or(0, |span| span.start), error.message())
    })
}

/// Sets a key, leaving the comment beside an old value where it is.
pub(crate) fn set(table: &mut dyn TableLike, key: &str, value: impl Into<Value>) {
    let mut value = value.into();
    match table.get_mut(key).and_then(Item::as_value_mut) {
        Some(old) => {
            *value.decor_mut() = old.decor().clone();
            *old = value;
        }
        None => {
            table.insert(key, Item::Value(value));
        }
    }
}

/// The texts as an array of strings.
pub(crate) fn strings<T: fmt::Display>(texts: &[T]) -> Array {
    texts.iter().map(T::to_string).collect()
}

/// What stands before a table that is added at the end: the comments that were the end until now,
/// and a blank line. Clear the document's trailing text once the table is in.
pub(crate) fn end_of(document: &DocumentMut) -> String {
    let mut end = document.trailing().as_str().unwrap_or("").to_owned();
    if document.is_empty() && end.is_empty() {
        return end;
    }
    if !end.is_empty() && !end.ends_with('\n') {
        end.push('\n');
    }
    end + "\n"
}

/// Makes the table come after everything else, with `before` between.
pub(crate) fn place_at_end(table: &mut Table, before: &str) {
    table.set_position(Some(isize::MAX));
    table.decor_mut().set_prefix(before);
}

/// The comments before a table that a blank line sets apart from it: they are not about the table
/// alone, and stay when it goes.
pub(crate) fn detached_comments(decor: &Decor) -> String {
    let prefix = decor.prefix().and_then(|raw| raw.as_str()).unwrap_or("");
    let end = prefix.rfind("\n\n").map_or(0, |at| at + 2);
    if prefix[..end].contains('#') { prefix[..end].to_owned() } else { String::new() }
}

/// Puts `comments` before what the decoration has already.
pub(crate) fn prepend_comments(decor: &mut Decor, comments: &str) {
    let old = decor.prefix().and_then(|raw| raw.as_str()).unwrap_or("").to_owned();
    decor.set_prefix(format!("{comments}{}", old.trim_start_matches('\n')));
}

/// A value that is read from a string by its [`FromStr`].
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Parsed<T>(pub(crate) T);

impl<'de, T: FromStr<Err: fmt::Display>> Deserialize<'de> for Parsed<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text<T>(PhantomData<T>);

        impl<T: FromStr<Err: fmt::Display>> Visitor<'_> for Text<T> {
            type Value = Parsed<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                let bad = |error| E::custom(format_args!("bad value {text:?}: {error}"));
                text.parse().map(Parsed).map_err(bad)
            }
        }

        deserializer.deserialize_str(Text(PhantomData))
    }
}

/// The values out of their wrappers.
pub(crate) fn unwrapped<T>(values: Vec<Parsed<T>>) -> Vec<T> {
    values.into_iter().map(|Parsed(value)| value).collect()
}

fn check_kind_and_mode(path: &Path, found: &Metadata, policy: Policy) -> Result<(), ReadError> {
    let path = path.to_path_buf();
    let mode = found.permissions().mode() & 0o7777;
    if !found.is_file() {
        return Err(ReadError::NotAFile { path });
    }
    if policy.owner_writes_alone && mode & OTHERS_WRITE != 0 {
        return Err(ReadError::WritableByOthers { path, mode });
    }
    Ok(())
}

fn make_parent(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(PRIVATE_DIR_MODE).create(disk::parent(path))
}

/// Serde speaks of fields; who wrote the file thinks of keys.
fn in_words_of_the_file(message: &str) -> String {
    let phrases = [
        ("unknown field", "unknown key"),
        ("missing field", "missing key"),
        ("duplicate field", "duplicate key"),
        ("invalid type", "wrong type"),
    ];
    for (serde_says, we_say) in phrases {
        if let Some(rest) = message.strip_prefix(serde_says) {
            return format!("{we_say}{rest}");
        }
    }
    message.to_owned()
}

/// One line without control characters: part of it may come from the file.
fn printable(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.trim_end().chars() {
        match c {
            '\n' => line.push_str("; "),
            c if c.is_control() => line.extend(c.escape_default()),
            c => line.push(c),
        }
    }
    line
}

#[cfg(test)]
mod tests;
