//! `names.toml`: the named pipes that are kept until they are removed, whether anybody uses them or
//! not.
//!
//! ```toml
//! [names."inbox/photos"]
//! capacity = "64KiB"
//! mode = "w"
//! description = "what the cameras send"
//! ```
//!
//! A name that is kept is no more open to peers than `authorized.toml` makes it: its mode only takes
//! away.

mod edit;
mod file;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::str::FromStr;

use qpipe::PipeName;
use serde::Deserialize;

pub use self::edit::{KeepChange, KeepError, keep, remove_kept};
pub(crate) use self::file::KeptFile;
use crate::document::{self, Parsed, Policy, ReadError};
use crate::join::Hub;
use crate::names::Shape;
use crate::reach::clean;
use crate::size::{ByteSize, ParseByteSizeError};

/// Names that may be kept.
pub const KEPT_NAMES_MAX: usize = 4_096;

/// The largest `names.toml` that is read, in bytes: [`KEPT_NAMES_MAX`] entries in which every
/// character of name and description is escaped, and comments.
pub const NAMES_FILE_BYTES_MAX: u64 = 8 << 20;

/// The longest description, in bytes: a few lines of a terminal.
pub const DESCRIPTION_BYTES_MAX: usize = 256;

/// The least capacity: what a write to a kernel pipe may have without being cut in two, `PIPE_BUF`.
pub const CAPACITY_BYTES_MIN: u64 = 4 << 10;

/// The largest capacity.
pub const CAPACITY_BYTES_MAX: u64 = 1 << 30;

/// Whoever can write it lets peers in where its owner did not.
const POLICY: Policy = Policy { bytes_max: NAMES_FILE_BYTES_MAX, owner_writes_alone: true };

/// What `names.toml` says.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Kept {
    names: BTreeMap<PipeName, KeptName>,
}

/// A named pipe that is kept.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct KeptName {
    /// What may wait in it at this node. None: as much as in a pipe that is not kept.
    pub capacity: Option<Capacity>,
    /// What peers may do with it.
    pub mode: PeerMode,
    /// What it is for.
    pub description: Option<Description>,
}

impl Kept {
    /// Reads the file; a missing one keeps nothing.
    ///
    /// # Errors
    /// If it cannot be read, is larger than [`NAMES_FILE_BYTES_MAX`], may be written by others, has
    /// more than [`KEPT_NAMES_MAX`] names, or has anything in it that is not understood.
    pub fn load(path: &Path) -> Result<Self, ReadError> {
        match document::read(path, POLICY)? {
            Some(text) => Self::parse(path, &text),
            None => Ok(Self::default()),
        }
    }

    /// The names that are kept, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&PipeName, &KeptName)> {
        self.names.iter()
    }

    /// What is kept of this name.
    pub fn get(&self, name: &PipeName) -> Option<&KeptName> {
        self.names.get(name)
    }

    /// Whether no name is kept.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Whether the mode of this name lets peers open it so. One that is not kept has none.
    pub(crate) fn lets_peers(&self, name: &PipeName, shape: Shape) -> bool {
        self.get(name).is_none_or(|kept| kept.mode.lets(shape))
    }

    /// Reads the text of the file `path`.
    fn parse(path: &Path, text: &str) -> Result<Self, ReadError> {
        let file: NamesText = document::parse(path, text)?;
        if file.names.len() > KEPT_NAMES_MAX {
            let what = format!("more than {KEPT_NAMES_MAX} names are kept");
            return Err(document::invalid(path, text, 0, &what));
        }
        let names = file.names.into_iter().map(|(Parsed(name), text)| (name, text.into()));
        Ok(Self { names: names.collect() })
    }
}

impl KeptName {
    /// What may wait in it at this node before writers have to, in bytes.
    pub fn capacity_bytes(&self) -> u64 {
        self.capacity.map_or(Hub::CAPACITY_BYTES_DEFAULT as u64, |capacity| capacity.size().bytes())
    }
}

/// What may wait in a pipe at its node before its writers have to: from [`CAPACITY_BYTES_MIN`] to
/// [`CAPACITY_BYTES_MAX`] bytes. What is taken from a writer at once is not cut for it, so that each
/// may come with 64 KiB more.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Capacity(ByteSize);

impl Capacity {
    /// As a number of bytes.
    pub const fn size(self) -> ByteSize {
        self.0
    }
}

impl fmt::Display for Capacity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Capacity {
    type Err = ParseCapacityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let size: ByteSize = text.parse()?;
        if (CAPACITY_BYTES_MIN..=CAPACITY_BYTES_MAX).contains(&size.bytes()) {
            Ok(Self(size))
        } else {
            Err(ParseCapacityError::OutOfBounds)
        }
    }
}

/// Why a text is no [`Capacity`].
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ParseCapacityError {
    /// Too little, or too much.
    #[error("a pipe holds from 4KiB to 1GiB")]
    OutOfBounds,
    /// No size at all.
    #[error(transparent)]
    Size(#[from] ParseByteSizeError),
}

/// What peers may do with a name that is kept, seen from them, of what `authorized.toml` allows.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum PeerMode {
    /// `-`: nothing, it is for this host alone.
    Nothing,
    /// `r`: they may read.
    Read,
    /// `rw`: they may read, write, and do both at once.
    #[default]
    ReadWrite,
    /// `w`: they may write.
    Write,
}

impl PeerMode {
    const ALL: [PeerMode; 4] =
        [PeerMode::Nothing, PeerMode::Read, PeerMode::ReadWrite, PeerMode::Write];

    /// As users write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            PeerMode::Nothing => "-",
            PeerMode::Read => "r",
            PeerMode::ReadWrite => "rw",
            PeerMode::Write => "w",
        }
    }

    fn lets(self, shape: Shape) -> bool {
        match shape {
            Shape::Duplex => self == PeerMode::ReadWrite,
            Shape::Read => matches!(self, PeerMode::Read | PeerMode::ReadWrite),
            Shape::Write => matches!(self, PeerMode::ReadWrite | PeerMode::Write),
        }
    }
}

impl fmt::Display for PeerMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for PeerMode {
    type Err = ParsePeerModeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        PeerMode::ALL.into_iter().find(|mode| mode.as_str() == text).ok_or(ParsePeerModeError)
    }
}

/// A text is no [`PeerMode`].
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("expected what other hosts may do: rw, r (read), w (write), or - (nothing)")]
pub struct ParsePeerModeError;

/// What a pipe is for: 1 to [`DESCRIPTION_BYTES_MAX`] bytes, nothing that a terminal would obey.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Description(String);

impl Description {
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for Description {
    type Err = ParseDescriptionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.len() {
            0 => Err(ParseDescriptionError::Empty),
            bytes if bytes > DESCRIPTION_BYTES_MAX => Err(ParseDescriptionError::TooLong { bytes }),
            _ if clean(text) != text => Err(ParseDescriptionError::Control),
            _ => Ok(Self(text.to_owned())),
        }
    }
}

/// Why a text is no [`Description`].
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ParseDescriptionError {
    /// A character that a terminal would obey and not show.
    #[error("a description is one line without control characters")]
    Control,
    /// Nothing.
    #[error("the description is empty")]
    Empty,
    /// Over [`DESCRIPTION_BYTES_MAX`].
    #[error("a description has at most {DESCRIPTION_BYTES_MAX} bytes, this one has {bytes}")]
    TooLong {
        /// How many it has.
        bytes: usize,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NamesText {
    #[serde(default)]
    names: BTreeMap<Parsed<PipeName>, NameText>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NameText {
    capacity: Option<Parsed<Capacity>>,
    mode: Option<Parsed<PeerMode>>,
    description: Option<Parsed<Description>>,
}

impl From<NameText> for KeptName {
    fn from(text: NameText) -> KeptName {
        KeptName {
            capacity: text.capacity.map(|Parsed(capacity)| capacity),
            mode: text.mode.map_or_else(PeerMode::default, |Parsed(mode)| mode),
            description: text.description.map(|Parsed(description)| description),
        }
    }
}

#[cfg(test)]
mod tests;
