//! What makes a ticket worth something, and what its issuer keeps of it.

use std::{fmt, str::FromStr};

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

/// The length of a secret. 128 random bits cannot be guessed, by however many peers.
pub const SECRET_BYTES: usize = 16;

/// Keeps the hash of a secret apart from every other use of SHA-256. The zero byte ends it, so that
/// no other prefix can begin with it.
const SECRET_HASH_DOMAIN: &[u8] = b"qpipe ticket secret v1\0";

/// The secret of a ticket: who knows it holds the ticket.
///
/// It has no `Display`, and `Debug` does not show it, so that it gets into a log only through
/// [`Secret::expose`]. The bytes must come from a cryptographic random generator.
#[derive(Clone)]
pub struct Secret([u8; SECRET_BYTES]);

impl Secret {
    /// The secret with these bytes.
    pub const fn from_bytes(bytes: [u8; SECRET_BYTES]) -> Self {
        Self(bytes)
    }

    /// The bytes, for the one message that presents them to the node that issued the ticket.
    pub const fn expose(&self) -> &[u8; SECRET_BYTES] {
        &self.0
    }

    /// What the issuer keeps, and looks presented secrets up by.
    pub fn hash(&self) -> SecretHash {
        let hash = Sha256::new().chain_update(SECRET_HASH_DOMAIN).chain_update(self.0);
        SecretHash(hash.finalize().into())
    }
}

/// Compares hashes: how long that takes says nothing about the secrets.
impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.hash() == other.hash()
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// The hash of a [`Secret`], from which the secret cannot be found. Its text, 64 lower-case
/// hexadecimal digits, serves as a file name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SecretHash([u8; 32]);

impl SecretHash {
    /// The 32 bytes of the hash.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        HEXLOWER.encode_display(&self.0).fmt(f)
    }
}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for SecretHash {
    type Err = ParseSecretHashError;

    fn from_str(text: &str) -> Result<Self, ParseSecretHashError> {
        let mut bytes = [0; 32];
        if text.len() != 2 * bytes.len() {
            return Err(ParseSecretHashError);
        }
        match HEXLOWER.decode_mut(text.as_bytes(), &mut bytes) {
            Ok(_) => Ok(Self(bytes)),
            Err(_) => Err(ParseSecretHashError),
        }
    }
}

/// The text is not the hash of a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the hash of a ticket's secret has 64 digits from 0 to 9 and a to f")]
pub struct ParseSecretHashError;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    // SHA-256 of the domain's bytes and 16 bytes 0x07, computed by another program.
    const SEVENS_HASH: &str = "ef0a1b331dc7d8a96acd105639f296cb8883f02277ad42b7963b29d3b304a2a9";

    #[test]
    fn the_hash_is_the_documented_one() {
        assert_eq!(Secret::from_bytes([7; SECRET_BYTES]).hash().to_string(), SEVENS_HASH);
    }

    #[test]
    fn a_secret_does_not_show_itself() {
        let shown = format!("{:?} {:#?}", Secret::from_bytes([7; 16]), Secret::from_bytes([8; 16]));

        assert_eq!(shown, "Secret(…) Secret(…)");
    }

    #[test]
    fn secrets_are_equal_if_their_bytes_are() {
        let mut bytes = [7; SECRET_BYTES];
        assert_eq!(Secret::from_bytes(bytes), Secret::from_bytes(bytes));

        bytes[15] ^= 1;
        assert_ne!(Secret::from_bytes(bytes), Secret::from_bytes([7; SECRET_BYTES]));
    }

    #[test]
    fn only_a_whole_hash_in_lower_case_is_one() {
        let upper = SEVENS_HASH.to_uppercase();
        let longer = format!("{SEVENS_HASH}00");
        let strange = SEVENS_HASH.replacen(|_: char| true, "g", 1);
        let path = format!("../{}", &SEVENS_HASH[3..]);
        for text in ["", &SEVENS_HASH[1..], &SEVENS_HASH[2..], &upper, &longer, &strange, &path] {
            assert_eq!(text.parse::<SecretHash>(), Err(ParseSecretHashError), "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_hash_survives_printing_and_parsing(bytes: [u8; SECRET_BYTES]) {
            let hash = Secret::from_bytes(bytes).hash();

            prop_assert_eq!(hash.to_string().parse(), Ok(hash));
        }
    }
}
