//! What a node keeps from one start to the next, beside its key.

use std::{
    fs::{self, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::hmac;

/// The file, beside the key: mode 0600.
const FILE: &str = "continuity";

const RESET_KEY_BYTES: usize = 32;
const FILE_BYTES: usize = 8 + 8 + RESET_KEY_BYTES;

/// How often a node with its key has started, and the keys by which it recognises QUIC connections
/// of an earlier run: it resets them (RFC 9000, section 10.3), so that their peers know at once.
#[derive(Clone)]
pub struct Continuity {
    start: u64,
    pub(crate) cid_key: u64,
    reset_key: [u8; RESET_KEY_BYTES],
}

impl Continuity {
    /// That of a node whose key nobody used before and nobody will use again.
    ///
    /// # Errors
    /// The system gave no random bytes.
    pub fn fresh() -> io::Result<Self> {
        let mut bytes = [0; FILE_BYTES];
        getrandom::fill(&mut bytes[8..]).map_err(io::Error::other)?;
        Ok(Self::from_bytes(&bytes))
    }

    /// Loads what the node of the key in `dir` kept, counts this start, and stores it again. A file
    /// that is missing or damaged is made anew. For the one process that uses the host's own key.
    ///
    /// # Errors
    /// The file cannot be read or written, or the system gave no random bytes.
    pub fn load_and_count(dir: &Path) -> io::Result<Self> {
        let file = dir.join(FILE);
        let stored = match read(&file) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let mut this = match stored {
            Some(bytes) => Self::from_bytes(&bytes),
            None => Self::fresh()?,
        };
        // Should the file be lost or an old one be restored, the time still makes it go up.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        this.start = this.start.saturating_add(1).max(now);
        this.store(dir)?;
        Ok(this)
    }

    /// How often the node has started: higher than at any start before.
    pub fn start(&self) -> u64 {
        self.start
    }

    pub(crate) fn reset_key(&self) -> Arc<dyn quinn_proto::crypto::HmacKey> {
        Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &self.reset_key))
    }

    fn from_bytes(bytes: &[u8; FILE_BYTES]) -> Self {
        let number = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(word)
        };
        let mut reset_key = [0; RESET_KEY_BYTES];
        reset_key.copy_from_slice(&bytes[16..]);
        Self { start: number(0), cid_key: number(8), reset_key }
    }

    fn store(&self, dir: &Path) -> io::Result<()> {
        let draft = dir.join(format!(".{FILE}.new"));
        let _ = fs::remove_file(&draft);
        let mut out = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
        out.write_all(&self.start.to_le_bytes())?;
        out.write_all(&self.cid_key.to_le_bytes())?;
        out.write_all(&self.reset_key)?;
        out.sync_all()?;
        fs::rename(&draft, dir.join(FILE))
    }
}

fn read(file: &Path) -> io::Result<Option<[u8; FILE_BYTES]>> {
    let mut bytes = Vec::new();
    super::files::open_regular(file)?.take(FILE_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes.try_into().ok())
}

impl std::fmt::Debug for Continuity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Continuity").field("start", &self.start).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_count_up_and_the_keys_stay() {
        let dir = tempfile::tempdir().unwrap();
        let first = Continuity::load_and_count(dir.path()).unwrap();
        let second = Continuity::load_and_count(dir.path()).unwrap();

        assert!(second.start() > first.start());
        assert_eq!((first.cid_key, first.reset_key), (second.cid_key, second.reset_key));
        assert_ne!(first.reset_key, Continuity::fresh().unwrap().reset_key);
    }

    #[test]
    fn a_damaged_file_is_made_anew_and_the_count_still_goes_up() {
        let dir = tempfile::tempdir().unwrap();
        let first = Continuity::load_and_count(dir.path()).unwrap();
        for damage in [&b""[..], b"short", &[0; FILE_BYTES + 1]] {
            fs::write(dir.path().join(FILE), damage).unwrap();
            let next = Continuity::load_and_count(dir.path()).unwrap();
            assert!(next.start() >= first.start());
            assert_ne!(next.reset_key, first.reset_key);
        }
    }

    #[test]
    fn the_file_is_the_owners_alone() {
        use std::os::unix::fs::MetadataExt;
        let dir = tempfile::tempdir().unwrap();
        Continuity::load_and_count(dir.path()).unwrap();
        assert_eq!(fs::metadata(dir.path().join(FILE)).unwrap().mode() & 0o777, 0o600);
    }
}
