//! Who the peer is, as proven by the certificates it presented.

use qpipe_proto::Fingerprint;
use quinn::Connection;
use rustls::pki_types::{CertificateDer, SignatureVerificationAlgorithm, UnixTime};
use webpki::{EndEntityCert, Error, KeyUsage, aws_lc_rs::ED25519};
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

#[cfg(test)]
mod tests;

/// The proven identity of a peer.
///
/// Nothing but a chain of certificates that was checked makes one, and TLS has seen the peer
/// prove that it holds the first one's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PeerIdentity {
    host: Fingerprint,
    process: Fingerprint,
}

impl PeerIdentity {
    /// The identity of the other end of a connection; `None` before its certificates came, and
    /// if they are not good now.
    ///
    /// The chain is checked again here, since TLS does not show a verifier the certificates of
    /// a connection that resumes an earlier one. To be asked once, when the handshake is done:
    /// a process's certificate expires, the connection it made does not.
    pub fn of(connection: &Connection) -> Option<Self> {
        let chain = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
        Self::from_chain(&chain, UnixTime::now()).ok()
    }

    /// The peer's host, which access rules and pins name.
    pub fn host(&self) -> Fingerprint {
        self.host
    }

    /// The key of the peer's process, which sessions belong to. The host's own for a node.
    pub fn process(&self) -> Fingerprint {
        self.process
    }

    /// Checks the certificates that a peer presented, its own first.
    pub(crate) fn from_chain(
        chain: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<Self, ChainError> {
        if chain.iter().any(|certificate| certificate.len() > CERTIFICATE_BYTES_MAX) {
            return Err(ChainError::TooLarge);
        }
        match chain {
            [] => Err(ChainError::Empty),
            // A host's certificate is a wrapping: what a pin or a rule names is the key inside,
            // and TLS has the peer prove that it holds that. The certificate's own signature
            // and dates would add nothing to this, while an expiry would one day lock out a
            // host whose key is as good as ever.
            [host] => {
                let host = fingerprint(&parse(host)?)?;
                Ok(Self { host, process: host })
            }
            [process, host] => Self::from_process(process, host, now),
            _ => Err(ChainError::TooLong),
        }
    }

    fn from_process(
        process: &CertificateDer<'_>,
        host: &CertificateDer<'_>,
        now: UnixTime,
    ) -> Result<Self, ChainError> {
        let leaf = parse(process)?;
        let identity = Self { host: fingerprint(&parse(host)?)?, process: fingerprint(&leaf)? };
        if !may_sign(host) {
            return Err(ChainError::NotAuthority);
        }
        // The anchor is what the peer brought along: that says nothing about trust yet, only
        // that this host stands for this process. Who the host may be is decided by its key.
        let anchor = webpki::anchor_from_trusted_cert(host).map_err(|_| ChainError::Malformed)?;
        let algorithms: &[&dyn SignatureVerificationAlgorithm] = &[ED25519];
        leaf.verify_for_usage(algorithms, &[anchor], &[], now, KeyUsage::client_auth(), None, None)
            .map_err(|error| match error {
                Error::CertExpired { .. } | Error::CertNotValidYet { .. } => {
                    ChainError::NotValidNow
                }
                _ => ChainError::NotSignedByHost,
            })?;
        Ok(identity)
    }
}

/// Why a peer's certificates were refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// No certificate at all.
    #[error("the peer presented no certificate")]
    Empty,
    /// Not X.509, or with a critical extension that is not known here.
    #[error("the peer's certificate cannot be read")]
    Malformed,
    /// The second certificate may not sign others.
    #[error("the peer's host certificate may not sign a process's certificate")]
    NotAuthority,
    /// The key is of another kind than Ed25519.
    #[error("the peer's key is not an Ed25519 key")]
    NotEd25519,
    /// The first certificate does not come from the holder of the second's key, or not for TLS.
    #[error("the host that the peer names did not sign its process certificate for this use")]
    NotSignedByHost,
    /// The process's certificate has expired, or is not valid yet.
    #[error("the peer's process certificate is not valid now: are both hosts' clocks right?")]
    NotValidNow,
    /// A certificate over 4 KiB.
    #[error("the peer's certificate is over {CERTIFICATE_BYTES_MAX} bytes")]
    TooLarge,
    /// More than a process's and its host's.
    #[error("the peer presented more than two certificates")]
    TooLong,
}

/// Whether `stored` can stand in for `fresh`: a host's certificate with the same key, under the
/// same name (which its processes' certificates repeat), that may sign.
pub(super) fn same_authority(stored: &CertificateDer<'_>, fresh: &CertificateDer<'_>) -> bool {
    let (Ok(old), Ok(new)) = (parse(stored), parse(fresh)) else { return false };
    stored.len() <= CERTIFICATE_BYTES_MAX
        && fingerprint(&old).is_ok_and(|key| Ok(key) == fingerprint(&new))
        && old.subject() == new.subject()
        && may_sign(stored)
}

/// The raw key in the SubjectPublicKeyInfo of an Ed25519 key; `None` for any other.
pub(super) fn ed25519_key(spki: &[u8]) -> Option<&[u8]> {
    spki.strip_prefix(ED25519_SPKI_PREFIX).filter(|key| key.len() == ED25519_KEY_BYTES)
}

/// A certificate of qpipe takes some 300 bytes. 4 KiB leaves room for those of a fleet's own
/// authority, and bounds what is parsed before anything is known about the peer.
const CERTIFICATE_BYTES_MAX: usize = 4 * 1024;

/// What stands before the key in the one DER form of an Ed25519 SubjectPublicKeyInfo (RFC 8410).
/// A second form of the same key would give it a second fingerprint.
const ED25519_SPKI_PREFIX: &[u8] = b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00";

/// The size of an Ed25519 public key (RFC 8032).
const ED25519_KEY_BYTES: usize = 32;

fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Result<EndEntityCert<'a>, ChainError> {
    EndEntityCert::try_from(certificate).map_err(|_| ChainError::Malformed)
}

fn fingerprint(certificate: &EndEntityCert<'_>) -> Result<Fingerprint, ChainError> {
    let spki = certificate.subject_public_key_info();
    ed25519_key(&spki).ok_or(ChainError::NotEd25519)?;
    Ok(Fingerprint::of_spki(&spki))
}

/// Whether a certificate says CA:true, and allows signing if it limits its key's use: webpki
/// leaves this to whoever chooses the anchor.
fn may_sign(certificate: &CertificateDer<'_>) -> bool {
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else { return false };
    let Ok(usage) = certificate.key_usage() else { return false };
    certificate.is_ca() && usage.is_none_or(|usage| usage.value.key_cert_sign())
}
