//! Names of named pipes, and the patterns by which rules speak of many of them.

use std::{fmt, str::FromStr};

use crate::ticket::begins_like_ticket;

/// The longest name and the longest pattern. As long as a file's name may be: no one types more,
/// and every Open carries one, so it is bounded before a peer is known to be friendly.
pub const PIPE_NAME_BYTES_MAX: usize = 255;

/// The name of a pipe on a node, such as `inbox/photos`.
///
/// 1 to [`PIPE_NAME_BYTES_MAX`] bytes of UTF-8; segments separated by `/`, none of them empty, `.`
/// or `..`; no control character, no white space, none of `*`, `?`, `[`, `]`, `\`; no beginning
/// that looks like a ticket. So a name can be printed to a terminal and pasted into a shell, and
/// is never mistaken for a pattern, a ticket or a way out of a directory.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PipeName(String);

impl PipeName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for PipeName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PipeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for PipeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl FromStr for PipeName {
    type Err = ParseNameError;

    fn from_str(text: &str) -> Result<Self, ParseNameError> {
        check(text, Stars::Refused)?;
        Ok(Self(text.to_owned()))
    }
}

/// A pattern of names, such as `inbox/*` or `logs/**`.
///
/// Written like a name, but `*` stands for any run of characters within one segment (also none, if
/// the segment has others), and `**` as the whole last segment stands for one or more segments. A
/// pattern without a star matches the one name that is written like it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamePattern(String);

impl NamePattern {
    /// Whether the pattern covers `name`. The time is linear in the lengths of both, whoever chose
    /// them.
    pub fn matches(&self, name: &PipeName) -> bool {
        let mut segments = name.0.split('/');
        for pattern in self.0.split('/') {
            match segments.next() {
                None => return false,
                Some(_) if pattern == REST => return true,
                Some(segment) if !segment_matches(pattern, segment) => return false,
                Some(_) => {}
            }
        }
        segments.next().is_none()
    }

    /// The pattern as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl FromStr for NamePattern {
    type Err = ParsePatternError;

    fn from_str(text: &str) -> Result<Self, ParsePatternError> {
        check(text, Stars::Allowed)?;
        let without_rest = match text.strip_suffix(REST) {
            Some(stem) if stem.is_empty() || stem.ends_with('/') => stem,
            _ => text,
        };
        match without_rest.find(REST) {
            Some(at) => Err(ParsePatternError::Rest { at }),
            None => Ok(Self(text.to_owned())),
        }
    }
}

/// Why a text is not the name of a pipe. Offsets count bytes from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseNameError {
    /// A character that a terminal would obey and not show.
    #[error("a pipe's name has no control characters, this one has U+{:04X} at byte {at}",
        u32::from(*character))]
    Control {
        /// Where.
        at: usize,
        /// Which.
        character: char,
    },
    /// A segment is `.` or `..`.
    #[error("a pipe's name has no part that is . or .., this one has one at byte {at}")]
    DotSegment {
        /// Where the segment begins.
        at: usize,
    },
    /// Nothing at all.
    #[error("a pipe's name is missing")]
    Empty,
    /// A `/` at the beginning or the end, or two in a row.
    #[error(
        "a pipe's name has no / at its beginning or end and no two in a row, this one lacks \
         something at byte {at}"
    )]
    EmptySegment {
        /// Where the segment should be.
        at: usize,
    },
    /// A character that means something in a pattern or to a shell.
    #[error("a pipe's name has none of * ? [ ] \\, this one has {character} at byte {at}")]
    Special {
        /// Where.
        at: usize,
        /// Which.
        character: char,
    },
    /// It begins like a ticket.
    #[error("a pipe's name does not begin with qpipe1, which begins tickets")]
    Ticket,
    /// Over [`PIPE_NAME_BYTES_MAX`].
    #[error("a pipe's name has at most {PIPE_NAME_BYTES_MAX} bytes, this one has {bytes}")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// A space, or another character that looks like one.
    #[error("a pipe's name has no white space, this one has some at byte {at}")]
    Whitespace {
        /// Where.
        at: usize,
    },
}

/// Why a text is not a pattern of names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParsePatternError {
    /// A rule that patterns share with names is broken.
    #[error("not a pattern: {0}")]
    Name(ParseNameError),
    /// `**` somewhere else than as the whole last segment.
    #[error("in a pattern ** stands only after the last /, alone; here it is at byte {at}")]
    Rest {
        /// Its offset in bytes from 0.
        at: usize,
    },
}

impl From<ParseNameError> for ParsePatternError {
    fn from(error: ParseNameError) -> Self {
        Self::Name(error)
    }
}

/// The last segment of a pattern that takes whatever follows.
const REST: &str = "**";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stars {
    Allowed,
    Refused,
}

/// Applies the rules in the order of the text, so that the first fault is the one that is told.
fn check(text: &str, stars: Stars) -> Result<(), ParseNameError> {
    if text.is_empty() {
        return Err(ParseNameError::Empty);
    }
    if text.len() > PIPE_NAME_BYTES_MAX {
        return Err(ParseNameError::TooLong { bytes: text.len() });
    }
    if begins_like_ticket(text) {
        return Err(ParseNameError::Ticket);
    }
    let mut start = 0;
    for segment in text.split('/') {
        match segment {
            "" => return Err(ParseNameError::EmptySegment { at: start }),
            "." | ".." => return Err(ParseNameError::DotSegment { at: start }),
            _ => {}
        }
        for (offset, character) in segment.char_indices() {
            check_character(start + offset, character, stars)?;
        }
        start += segment.len() + "/".len();
    }
    Ok(())
}

fn check_character(at: usize, character: char, stars: Stars) -> Result<(), ParseNameError> {
    match character {
        '*' if stars == Stars::Allowed => Ok(()),
        '*' | '?' | '[' | ']' | '\\' => Err(ParseNameError::Special { at, character }),
        _ if is_obeyed_by_terminals(character) => Err(ParseNameError::Control { at, character }),
        _ if character.is_whitespace() => Err(ParseNameError::Whitespace { at }),
        _ => Ok(()),
    }
}

/// Control characters, line and paragraph separators, and what reverses the order of the
/// characters around it (Unicode's Bidi_Control): none shows, and each changes how the rest is
/// shown.
pub fn is_obeyed_by_terminals(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{61c}'
            | '\u{200e}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}')
}

/// Takes the text before the first star and after the last one off the ends, then finds what is
/// between the stars from left to right. The leftmost place is always as good as a later one, so
/// nothing is tried twice.
fn segment_matches(pattern: &str, segment: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else {
        return pattern == segment;
    };
    let (between, last) = rest.rsplit_once('*').unwrap_or(("", rest));
    let inner = segment.strip_prefix(first).and_then(|rest| rest.strip_suffix(last));
    let Some(mut inner) = inner else {
        return false;
    };
    for piece in between.split('*') {
        match inner.find(piece) {
            Some(at) => inner = &inner[at + piece.len()..],
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests;
