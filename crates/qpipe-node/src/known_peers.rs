//! Whom the serving node has sessions with, on disk: after a crash the next run tells them that those
//! are over.
//!
//! One peer a line: the fingerprint of its key, a space, its address.

use std::io::Read;
use std::net::SocketAddr;
use std::path::PathBuf;

use qpipe_proto::Fingerprint;
use qpipe_proto::limits::SESSIONS_MAX;

use crate::disk::{self, PRIVATE_FILE_MODE};
use crate::home::Home;

/// The most that is read of the file, in bytes: [`SESSIONS_MAX`] lines.
const FILE_BYTES_MAX: u64 = 128 * SESSIONS_MAX as u64;

/// A peer: its host's key, and where it was.
type Peer = (Fingerprint, SocketAddr);

/// The peers of this run, and those of the run before.
#[derive(Debug)]
pub(crate) struct KnownPeers {
    file: PathBuf,
    stored: Vec<Peer>,
    earlier: Vec<Peer>,
}

impl KnownPeers {
    /// Reads what the run before left. What cannot be read or understood is nobody.
    pub(crate) fn load(home: &Home) -> KnownPeers {
        let file = home.peers_file();
        let mut text = String::new();
        if let Ok(opened) = disk::open_to_read(&file)
            && let Err(error) = opened.take(FILE_BYTES_MAX).read_to_string(&mut text)
        {
            tracing::warn!(file = %file.display(), %error, "peers of the last run are not known");
        }
        let mut earlier: Vec<Peer> = text.lines().filter_map(parse).collect();
        earlier.truncate(SESSIONS_MAX);
        KnownPeers { file, stored: earlier.clone(), earlier }
    }

    /// The peers of the run before; only the first call gives them.
    pub(crate) fn take_earlier(&mut self) -> Vec<Peer> {
        std::mem::take(&mut self.earlier)
    }

    /// Keeps the peers of this run, if they are others than those stored.
    pub(crate) fn store(&mut self, mut peers: Vec<Peer>) {
        peers.sort_unstable();
        peers.dedup();
        if peers == self.stored {
            return;
        }
        let lines = peers.iter().map(|(host, address)| format!("{host} {address}\n"));
        let text: String = lines.collect();
        if let Err(error) = disk::replace(&self.file, text.as_bytes(), PRIVATE_FILE_MODE) {
            tracing::warn!(file = %self.file.display(), %error, "peers not stored");
        }
        // Also after a failure: it is not to be told again each second.
        self.stored = peers;
    }
}

fn parse(line: &str) -> Option<Peer> {
    let (host, address) = line.split_once(' ')?;
    Some((host.parse().ok()?, address.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

    fn home() -> (tempfile::TempDir, Home) {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path());
        home.create().unwrap();
        (dir, home)
    }

    #[test]
    fn what_one_run_stores_the_next_one_finds_once() {
        let (_dir, home) = home();
        let peer = (KEY.parse().unwrap(), "192.0.2.7:7473".parse().unwrap());
        KnownPeers::load(&home).store(vec![peer, peer]);

        let mut next = KnownPeers::load(&home);
        assert_eq!(next.take_earlier(), [peer]);
        assert_eq!(next.take_earlier(), []);
        next.store(Vec::new());
        assert_eq!(KnownPeers::load(&home).take_earlier(), []);
    }

    #[test]
    fn a_damaged_file_is_read_as_far_as_it_makes_sense() {
        let (_dir, home) = home();
        std::fs::write(home.peers_file(), format!("x\n{KEY} here\n{KEY} [::1]:7\n{KEY}\n\n"))
            .unwrap();
        let found = KnownPeers::load(&home).take_earlier();
        assert_eq!(found, [(KEY.parse().unwrap(), "[::1]:7".parse().unwrap())]);

        std::fs::write(home.peers_file(), [0xff; 100]).unwrap();
        assert_eq!(KnownPeers::load(&home).take_earlier(), []);
    }
}
