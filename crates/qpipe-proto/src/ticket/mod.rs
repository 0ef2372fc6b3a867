//! Tickets: a line of text that lets whoever holds it reach a node and do one thing there.

mod address;
mod body;
mod secret;

use std::{fmt, str::FromStr};

use data_encoding::BASE32_NOPAD_NOCASE;
use sha2::{Digest, Sha256};

pub use self::{
    address::{
        Address, DEFAULT_PORT, DNS_NAME_BYTES_MAX, DnsName, Host, ParseAddressError, Reach,
        sort_by_reach,
    },
    secret::{ParseSecretHashError, SECRET_BYTES, Secret, SecretHash},
};
use crate::fingerprint::Fingerprint;

/// What every ticket begins with.
pub const TICKET_PREFIX: &str = "qpipe1";

/// The longest ticket, in characters. A terminal's line in canonical mode takes 4,095, so that a
/// whole command with a ticket in it can still be pasted; 16 IP addresses need about 700.
pub const TICKET_TEXT_BYTES_MAX: usize = 2048;

/// The most addresses in a ticket. Dialling races all of them: more would make a ticket a way to
/// have its holder probe a network.
pub const TICKET_ADDRESSES_MAX: usize = 16;

/// The longest alias: as long as a host's name may be, in Linux's gethostname and in the DNS's
/// labels.
pub const ALIAS_BYTES_MAX: usize = 64;

/// Grants its holder one thing on one node.
///
/// `Display` and `FromStr` are its text, **which is a secret**: whoever reads it can use it. So it
/// belongs on the terminal of the user who asked for it, never in a log, an error or an argument
/// that `ps` shows. `Debug` leaves the secret out.
///
/// The text is `qpipe1` and base32 in lower case; upper case is read as well, and white space
/// around it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket {
    addresses: Vec<Address>,
    fingerprint: Fingerprint,
    secret: Secret,
    grant: Grant,
    expires: Option<u64>,
}

impl Ticket {
    /// A ticket for the node with the key `fingerprint`, which can be dialled at `addresses`, in
    /// that order (see [`sort_by_reach`]). `expires` is in seconds since 1970 (UTC).
    ///
    /// # Errors
    /// If there are no addresses or over [`TICKET_ADDRESSES_MAX`], an alias is none (see
    /// [`is_alias`]), or the text would be longer than [`TICKET_TEXT_BYTES_MAX`].
    pub fn new(
        addresses: Vec<Address>,
        fingerprint: Fingerprint,
        secret: Secret,
        grant: Grant,
        expires: Option<u64>,
    ) -> Result<Self, MakeTicketError> {
        match addresses.len() {
            0 => return Err(MakeTicketError::NoAddress),
            1..=TICKET_ADDRESSES_MAX => {}
            _ => return Err(MakeTicketError::TooManyAddresses),
        }
        if let Grant::Invitation { alias, by } = &grant
            && !(is_alias(alias) && is_alias(by))
        {
            return Err(MakeTicketError::Alias);
        }
        let ticket = Self { addresses, fingerprint, secret, grant, expires };
        let bytes = body::encode(&ticket).len() + CHECK_BYTES;
        if TICKET_PREFIX.len() + BASE32_NOPAD_NOCASE.encode_len(bytes) > TICKET_TEXT_BYTES_MAX {
            return Err(MakeTicketError::TooLong);
        }
        Ok(ticket)
    }

    /// Where to dial, in the order in which to try: 1 to [`TICKET_ADDRESSES_MAX`].
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// Who must answer there.
    pub fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }

    /// What to present there.
    pub fn secret(&self) -> &Secret {
        &self.secret
    }

    /// What the ticket is good for.
    pub fn grant(&self) -> &Grant {
        &self.grant
    }

    /// When it ends, in seconds since 1970 (UTC); `None` if only with the command that issued it.
    pub fn expires(&self) -> Option<u64> {
        self.expires
    }

    /// Whether it has ended at `now`, in seconds since 1970 (UTC). Only the issuer's clock decides;
    /// this spares the holder a journey.
    pub fn has_expired(&self, now: u64) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }
}

/// What a [`Ticket`] grants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Grant {
    /// The holder may join: be listed by the node with what the invitation was made for.
    Invitation {
        /// What the inviting host will call the holder.
        alias: String,
        /// The inviting host's name for itself: a proposal for what to call it. It comes from
        /// outside: do not let it replace a host of that name, or pass for an address.
        by: String,
    },
    /// The holder may open this end of one pipe.
    Pipe(End),
}

/// The end of a pipe that the holder of a ticket may open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum End {
    /// Both ends, one each of two pipes.
    Duplex,
    /// The holder reads.
    Read,
    /// The holder writes.
    Write,
}

/// Whether `text` can be a host's alias: 1 to [`ALIAS_BYTES_MAX`] ASCII letters, digits, `-`, `_`
/// and `.`.
pub fn is_alias(text: &str) -> bool {
    let is_inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    (1..=ALIAS_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_inner)
}

/// The text, which is a secret.
impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&seal(body::encode(self)))
    }
}

impl FromStr for Ticket {
    type Err = ParseTicketError;

    fn from_str(text: &str) -> Result<Self, ParseTicketError> {
        body::decode(&unseal(text.trim())?)
    }
}

/// Why a ticket cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MakeTicketError {
    /// An alias of an invitation breaks the rules of [`is_alias`].
    #[error("an alias has 1 to {ALIAS_BYTES_MAX} letters, digits, -, _ and . and nothing else")]
    Alias,
    /// No address at all.
    #[error("a ticket needs an address at which this node can be reached: name one to advertise")]
    NoAddress,
    /// The addresses are too long together.
    #[error(
        "the ticket would be longer than {TICKET_TEXT_BYTES_MAX} characters: advertise fewer or \
         shorter addresses"
    )]
    TooLong,
    /// Over [`TICKET_ADDRESSES_MAX`].
    #[error("a ticket has at most {TICKET_ADDRESSES_MAX} addresses: advertise fewer")]
    TooManyAddresses,
}

/// Why a text is not a ticket. No variant holds or shows any of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseTicketError {
    /// An address in it is none.
    #[error("the ticket has an address that nobody can dial: ask for another ticket")]
    BadAddress,
    /// The check at its end does not fit.
    #[error("the ticket was cut short or mistyped: copy it again, all of it")]
    Damaged,
    /// Its content is whole and makes no sense.
    #[error("the ticket is whole but makes no sense: it was not made by qpipe")]
    Malformed,
    /// It has a higher version, or a grant or another part that this version does not know.
    #[error("the ticket was made by a newer qpipe: update this one")]
    Newer,
    /// It names no address.
    #[error("the ticket names no address to dial: ask for another ticket")]
    NoAddress,
    /// It does not begin with [`TICKET_PREFIX`].
    #[error("this is not a ticket: tickets begin with {TICKET_PREFIX}")]
    NotATicket,
    /// Over [`TICKET_TEXT_BYTES_MAX`].
    #[error(
        "this is longer than any ticket ({TICKET_TEXT_BYTES_MAX} characters): copy the ticket only"
    )]
    TooLong,
    /// A character that tickets do not have.
    #[error("the ticket has an unexpected character, its number {position}: copy it again")]
    UnexpectedCharacter {
        /// Counted in characters from 1, without the white space before the ticket.
        position: usize,
    },
}

/// Whether `text` is meant to be a ticket, so that it must be taken for nothing else.
pub(crate) fn begins_like_ticket(text: &str) -> bool {
    text.get(..TICKET_PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(TICKET_PREFIX))
}

/// How much of the body's SHA-256 follows it. One in 2^32 copying errors passes; what passes would
/// still have to be a secret that the node issued.
const CHECK_BYTES: usize = 4;

fn check(body: &[u8]) -> [u8; CHECK_BYTES] {
    let [a, b, c, d, ..]: [u8; 32] = Sha256::digest(body).into();
    [a, b, c, d]
}

fn seal(mut body: Vec<u8>) -> String {
    body.extend(check(&body));
    let mut text = BASE32_NOPAD_NOCASE.encode(&body);
    text.make_ascii_lowercase();
    text.insert_str(0, TICKET_PREFIX);
    text
}

/// The body in a ticket's text, if the text is whole.
fn unseal(text: &str) -> Result<Vec<u8>, ParseTicketError> {
    if !begins_like_ticket(text) {
        return Err(ParseTicketError::NotATicket);
    }
    if text.len() > TICKET_TEXT_BYTES_MAX {
        return Err(ParseTicketError::TooLong);
    }
    let is_base32 = |c: char| matches!(c, 'a'..='z' | 'A'..='Z' | '2'..='7');
    let base32 = &text[TICKET_PREFIX.len()..];
    if let Some(index) = base32.chars().position(|c| !is_base32(c)) {
        let position = TICKET_PREFIX.len() + index + 1;
        return Err(ParseTicketError::UnexpectedCharacter { position });
    }
    let mut bytes =
        BASE32_NOPAD_NOCASE.decode(base32.as_bytes()).map_err(|_| ParseTicketError::Damaged)?;
    let body_bytes = bytes.len().checked_sub(CHECK_BYTES).ok_or(ParseTicketError::Damaged)?;
    let told = bytes.split_off(body_bytes);
    if told == check(&bytes) { Ok(bytes) } else { Err(ParseTicketError::Damaged) }
}

#[cfg(test)]
pub(crate) mod tests;
