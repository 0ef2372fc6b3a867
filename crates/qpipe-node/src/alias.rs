//! Names that a user gives to hosts and peers.

use std::fmt;
use std::str::FromStr;

use qpipe_proto::ticket::{DNS_NAME_BYTES_MAX, TICKET_PREFIX};

/// The longest alias, in bytes: the longest DNS name with the longest port, since a host may go by
/// its address.
pub const ALIAS_TEXT_BYTES_MAX: usize = DNS_NAME_BYTES_MAX + ":65535".len();

/// What a user calls a host (`[hosts.b]`) or a peer (`name = "alice"`).
///
/// ASCII letters, digits and `.`, `-`, `_`, `:`, `[`, `]`, the first a letter, a digit or `[`, and
/// not like a ticket: so it can be the host or address part of a target as it was typed, and is
/// never taken for an option or a ticket. An invitation can carry only those without `:`, `[`, `]`
/// ([`qpipe_proto::ticket::is_alias`]).
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Alias(String);

impl Alias {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Alias {
    type Err = ParseAliasError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let first = text.bytes().next().ok_or(ParseAliasError::Empty)?;
        if text.len() > ALIAS_TEXT_BYTES_MAX {
            return Err(ParseAliasError::TooLong);
        }
        if !first.is_ascii_alphanumeric() && first != b'[' {
            return Err(ParseAliasError::First);
        }
        let start = text.get(..TICKET_PREFIX.len());
        if start.is_some_and(|start| start.eq_ignore_ascii_case(TICKET_PREFIX)) {
            return Err(ParseAliasError::LikeTicket);
        }
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte);
        if !text.bytes().all(allowed) {
            return Err(ParseAliasError::Character);
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Alias {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::borrow::Borrow<str> for Alias {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// Why a text is not an [`Alias`].
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ParseAliasError {
    /// A character that is not allowed.
    #[error("a name has only ASCII letters, digits, `.`, `-`, `_`, `:`, `[` and `]`")]
    Character,
    /// No characters at all.
    #[error("a name cannot be empty")]
    Empty,
    /// The first character is one that only later ones may be.
    #[error("a name begins with a letter, a digit or `[`")]
    First,
    /// It would be taken for a ticket wherever a target may stand.
    #[error("a name cannot begin with {TICKET_PREFIX}, as tickets do")]
    LikeTicket,
    /// More than [`ALIAS_TEXT_BYTES_MAX`] bytes.
    #[error("a name has at most {ALIAS_TEXT_BYTES_MAX} bytes")]
    TooLong,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_hosts_and_addresses_are_aliases() {
        for text in ["b", "alice", "b.example", "192.0.2.7:7474", "[::1]:7473", "x-1_2"] {
            assert_eq!(text.parse::<Alias>().map(|alias| alias.to_string()), Ok(text.to_owned()));
        }
    }

    #[test]
    fn what_could_be_misread_is_refused() {
        let parse = |text: &str| text.parse::<Alias>();

        assert_eq!(parse(""), Err(ParseAliasError::Empty));
        assert_eq!(parse("-v"), Err(ParseAliasError::First));
        assert_eq!(parse("QPIPE1abc"), Err(ParseAliasError::LikeTicket));
        assert_eq!(parse("b/inbox"), Err(ParseAliasError::Character));
        assert_eq!(parse("b\u{1b}[31m"), Err(ParseAliasError::Character));
        assert_eq!(parse("jörg"), Err(ParseAliasError::Character));
        assert_eq!(parse(&"b".repeat(ALIAS_TEXT_BYTES_MAX + 1)), Err(ParseAliasError::TooLong));
        assert!(parse(&"b".repeat(ALIAS_TEXT_BYTES_MAX)).is_ok());
    }
}
