//! Who a peer is: the fingerprint of its key, written as ssh writes them.

use std::{fmt, str::FromStr};

use data_encoding::BASE64_NOPAD;
use sha2::{Digest, Sha256};

/// What a fingerprint's text begins with: the name of the hash, as in ssh.
const PREFIX: &str = "SHA256:";

/// Characters after the prefix: 32 bytes in base64 without padding.
const BASE64_CHARACTERS: usize = 43;

/// The SHA-256 of a public key: of the DER encoding of its SubjectPublicKeyInfo, so that it stays
/// the same when the key gets another certificate.
///
/// The text form is `SHA256:` and 43 characters of standard base64. Each fingerprint has exactly
/// one text, so that texts may be compared as well.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// The fingerprint of the key whose SubjectPublicKeyInfo is `der`. What is in `der` is not
    /// checked.
    pub fn of_spki(der: &[u8]) -> Self {
        Self(Sha256::digest(der).into())
    }

    /// The fingerprint with these 32 bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes of the hash.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", BASE64_NOPAD.encode_display(&self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Fingerprint {
    type Err = ParseFingerprintError;

    fn from_str(text: &str) -> Result<Self, ParseFingerprintError> {
        let base64 = text.strip_prefix(PREFIX).ok_or(ParseFingerprintError::Prefix)?;
        if base64.len() != BASE64_CHARACTERS {
            return Err(ParseFingerprintError::Length { found: base64.len() });
        }
        let mut bytes = [0; 32];
        BASE64_NOPAD.decode_mut(base64.as_bytes(), &mut bytes).map_err(|partial| {
            ParseFingerprintError::Character { at: PREFIX.len() + partial.error.position }
        })?;
        Ok(Self(bytes))
    }
}

/// Why a text is not a fingerprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseFingerprintError {
    /// A character that base64 does not have, or a last one that no fingerprint ends with.
    #[error("the fingerprint has a wrong character at byte {at}: copy it again")]
    Character {
        /// Offset in the whole text, from 0.
        at: usize,
    },
    /// The part after `SHA256:` is cut short or too long.
    #[error(
        "a fingerprint has {BASE64_CHARACTERS} characters after {PREFIX}, this one has {found}: \
         copy it again"
    )]
    Length {
        /// Bytes after `SHA256:`.
        found: usize,
    },
    /// The text does not begin with `SHA256:`.
    #[error("a fingerprint begins with {PREFIX}")]
    Prefix,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    // SHA-256 of the three bytes "abc", from FIPS 180-2, in base64.
    const ABC: &str = "SHA256:ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0";

    fn parse(text: &str) -> Result<Fingerprint, ParseFingerprintError> {
        text.parse()
    }

    #[test]
    fn a_known_hash_is_printed_as_ssh_prints_it() {
        let fingerprint = Fingerprint::of_spki(b"abc");

        assert_eq!(fingerprint.to_string(), ABC);
        assert_eq!(format!("{fingerprint:?}"), ABC);
        assert_eq!(parse(ABC), Ok(fingerprint));
    }

    #[test]
    fn another_hash_function_is_refused() {
        assert_eq!(parse(&ABC.replace("SHA256", "MD5")), Err(ParseFingerprintError::Prefix));
        assert_eq!(parse(&ABC.to_lowercase()), Err(ParseFingerprintError::Prefix));
        assert_eq!(parse(""), Err(ParseFingerprintError::Prefix));
    }

    #[test]
    fn a_cut_or_padded_fingerprint_is_refused() {
        for end in PREFIX.len()..ABC.len() {
            let found = end - PREFIX.len();
            assert_eq!(parse(&ABC[..end]), Err(ParseFingerprintError::Length { found }));
        }
        let padded = format!("{ABC}=");
        assert_eq!(parse(&padded), Err(ParseFingerprintError::Length { found: 44 }));
    }

    #[test]
    fn a_last_character_with_unused_bits_set_is_refused() {
        // 43 characters hold 258 bits: of the last one only every fourth value is used.
        let stem = &ABC[..ABC.len() - 1];

        for last in ['1', '2', '3'] {
            let error = parse(&format!("{stem}{last}"));
            assert_eq!(error, Err(ParseFingerprintError::Character { at: ABC.len() - 1 }));
        }
    }

    #[test]
    fn a_character_of_another_base64_is_refused_with_its_place() {
        let url_safe = ABC.replace('/', "_");
        let at = url_safe.find('_').unwrap();

        assert_eq!(parse(&url_safe), Err(ParseFingerprintError::Character { at }));
    }

    proptest! {
        #[test]
        fn every_fingerprint_survives_printing_and_parsing(bytes: [u8; 32]) {
            let fingerprint = Fingerprint::from_bytes(bytes);

            prop_assert_eq!(parse(&fingerprint.to_string()), Ok(fingerprint));
            prop_assert_eq!(fingerprint.as_bytes(), &bytes);
        }

        #[test]
        fn what_parses_prints_as_it_was_written(text in "SHA256:[A-Za-z0-9+/]{43}") {
            if let Ok(fingerprint) = parse(&text) {
                prop_assert_eq!(fingerprint.to_string(), text);
            }
        }
    }
}
