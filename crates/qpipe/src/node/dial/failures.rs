//! What the attempts of a dial came to.

use std::net::SocketAddr;
use std::time::Duration;

use super::DialError;

/// What the attempts came to so far.
pub(super) struct Failures {
    tried: Vec<SocketAddr>,
    /// Addresses that said no in a way that trying again will not change.
    final_at: Vec<SocketAddr>,
    best: Option<(u8, DialError)>,
}

impl Failures {
    pub(super) fn new(tried: &[SocketAddr]) -> Failures {
        Failures { tried: tried.to_vec(), final_at: Vec::new(), best: None }
    }

    /// Notes a failure; true if there is nothing to wait for any more.
    pub(super) fn note(&mut self, address: SocketAddr, error: DialError) -> bool {
        let rank = self.rank_at(address, &error);
        if rank > 0 && !self.final_at.contains(&address) {
            self.final_at.push(address);
        }
        if self.best.as_ref().is_none_or(|(best, _)| rank >= *best) {
            self.best = Some((rank, error));
        }
        self.final_at.len() == self.tried.len()
    }

    /// What is behind a loopback address of a ticket is this host, not the one that is meant, unless
    /// both are the same: whatever answers there tells little where there are other addresses.
    fn rank_at(&self, address: SocketAddr, error: &DialError) -> u8 {
        let rank = rank(error);
        let has_others = self.tried.iter().any(|other| !other.ip().is_loopback());
        if address.ip().is_loopback() && has_others { rank.min(1) } else { rank }
    }

    pub(super) fn verdict(self, after: Duration) -> DialError {
        let silent = self.tried.iter().filter(|address| !self.final_at.contains(address));
        let silent: Vec<SocketAddr> = silent.copied().collect();
        match self.best {
            Some((rank, _)) if rank <= RANK_NOBODY && !silent.is_empty() => {
                DialError::NoAnswer { tried: silent, after }
            }
            Some((_, DialError::Refused { .. })) => DialError::Refused { tried: self.tried },
            Some((_, DialError::Unreachable { source, .. })) => {
                DialError::Unreachable { tried: self.tried, source }
            }
            Some((_, DialError::NoAnswer { .. })) | None => {
                DialError::NoAnswer { tried: self.tried, after }
            }
            Some((_, error)) => error,
        }
    }
}

/// Up to this rank a failure says only that nobody was met.
const RANK_NOBODY: u8 = 2;

/// How much a failure tells: 0 if another attempt may fare better, the more the better otherwise.
fn rank(error: &DialError) -> u8 {
    match error {
        DialError::NoAnswer { .. } | DialError::Lost(_) | DialError::Resolve { .. } => 0,
        DialError::Unreachable { .. } | DialError::Local(_) => 1,
        DialError::Refused { .. } => RANK_NOBODY,
        DialError::Handshake(_) | DialError::Version(_) => 3,
        DialError::HostKey { .. } => 4,
        DialError::Busy | DialError::NotAllowed { .. } | DialError::Ticket => 5,
        DialError::UnknownHost { .. } => 6,
    }
}

#[cfg(test)]
mod tests {
    use qpipe_proto::Fingerprint;

    use super::*;

    const AFTER: Duration = Duration::from_secs(10);
    const HOST: &str = "192.0.2.7:7473";
    const HERE: &str = "127.0.0.1:7473";

    fn failures(tried: &[&str]) -> Failures {
        let tried: Vec<SocketAddr> = tried.iter().map(|text| text.parse().unwrap()).collect();
        Failures::new(&tried)
    }

    fn refused() -> DialError {
        DialError::Refused { tried: vec![] }
    }

    #[test]
    fn a_host_that_is_silent_is_not_called_refused_for_what_is_on_loopback() {
        let mut failures = failures(&[HOST, HERE]);
        assert!(!failures.note(HERE.parse().unwrap(), refused()));
        match failures.verdict(AFTER) {
            DialError::NoAnswer { tried, .. } => assert_eq!(tried, [HOST.parse().unwrap()]),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn another_key_on_loopback_tells_nothing_of_the_host_that_is_meant() {
        let seen = Fingerprint::of_spki(b"this host's own node");
        let expected = Fingerprint::of_spki(b"the host that is meant");
        let mut failures = failures(&[HOST, HERE]);
        failures.note(HERE.parse().unwrap(), DialError::HostKey { expected, seen });
        assert!(failures.note(HOST.parse().unwrap(), refused()));
        assert!(matches!(failures.verdict(AFTER), DialError::Refused { .. }));
    }

    #[test]
    fn refused_everywhere_is_refused_and_a_wrong_key_is_told() {
        let mut all = failures(&[HOST]);
        assert!(all.note(HOST.parse().unwrap(), refused()));
        assert!(matches!(all.verdict(AFTER), DialError::Refused { .. }));
        let (expected, seen) = (Fingerprint::of_spki(b"a"), Fingerprint::of_spki(b"b"));
        let mut alone = failures(&[HERE]);
        assert!(alone.note(HERE.parse().unwrap(), DialError::HostKey { expected, seen }));
        assert!(matches!(alone.verdict(AFTER), DialError::HostKey { .. }));
    }
}
