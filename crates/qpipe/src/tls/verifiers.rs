//! What each side demands of the other's certificates.
//!
//! Both verifiers check the signature by which TLS 1.3 has the peer prove that it holds its key.
//! A certificate alone proves nothing: anyone who met a host has a copy of it.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use qpipe_proto::Fingerprint;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError,
    PeerIncompatible, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};

use crate::identity::{ChainError, PeerIdentity};

/// Which host a dial is to reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpectedHost {
    /// The one with this key, or a process of it.
    Is(Fingerprint),
    /// Not known yet: the handshake is always refused, and yields the host's key, so that the
    /// caller can ask its user and dial again with [`Self::Is`].
    Unknown,
}

/// Accepts one host.
///
/// It refuses before the client has sent its own certificate or anything that follows: another
/// host does not even learn who called.
#[derive(Debug)]
pub struct PinnedServer {
    expected: ExpectedHost,
    seen: OnceLock<Fingerprint>,
    /// With no key expected: the certificate whose key is to be proven yet, and its host.
    unproven: Mutex<Option<(CertificateDer<'static>, Fingerprint)>>,
}

impl PinnedServer {
    /// A verifier for one dial: what it has seen would mix with what another dial sees.
    pub fn new(expected: ExpectedHost) -> Self {
        Self { expected, seen: OnceLock::new(), unproven: Mutex::new(None) }
    }

    /// The key of the host that answered (the first, if several did); `None` before.
    ///
    /// With [`ExpectedHost::Unknown`] the host has proven that it holds the key (or the key of a
    /// process that it signed). A key that is not the expected one is what the host claims, good
    /// for a message and nothing else.
    pub fn seen(&self) -> Option<Fingerprint> {
        self.seen.get().copied()
    }
}

impl ServerCertVerifier for PinnedServer {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let host = peer(end_entity, intermediates, now)?.host();
        match self.expected {
            ExpectedHost::Is(expected) => {
                self.seen.get_or_init(|| host);
                if host != expected {
                    return Err(CertificateError::ApplicationVerificationFailure.into());
                }
            }
            // Refused below, once the key is proven: a caller that pins what it sees must not
            // be made to pin the key of a bystander.
            ExpectedHost::Unknown => {
                let mut unproven = self.unproven.lock().unwrap_or_else(PoisonError::into_inner);
                *unproven = Some((end_entity.clone().into_owned(), host));
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let valid = verify_tls13_signature(message, certificate, signature, &ED25519_ONLY)?;
        match self.expected {
            ExpectedHost::Is(_) => Ok(valid),
            ExpectedHost::Unknown => {
                let unproven = self.unproven.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some((proven, host)) = unproven.as_ref()
                    && proven == certificate
                {
                    self.seen.get_or_init(|| *host);
                }
                Err(CertificateError::UnknownIssuer.into())
            }
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ED25519_ONLY.supported_schemes()
    }
}

/// Accepts every client that proves to hold the key of a good certificate.
///
/// That is who it is, not what it may do: access is decided at Hello, by the rules or a ticket.
#[derive(Clone, Copy, Debug)]
pub struct AnyClient;

impl ClientCertVerifier for AnyClient {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        peer(end_entity, intermediates, now)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &ED25519_ONLY)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ED25519_ONLY.supported_schemes()
    }

    fn client_auth_mandatory(&self) -> bool {
        true
    }
}

/// The one kind of signature that qpipe makes and takes.
pub(super) static ED25519_ONLY: WebPkiSupportedAlgorithms = WebPkiSupportedAlgorithms {
    all: &[webpki::aws_lc_rs::ED25519],
    mapping: &[(SignatureScheme::ED25519, &[webpki::aws_lc_rs::ED25519])],
};

fn peer(
    end_entity: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    now: UnixTime,
) -> Result<PeerIdentity, Error> {
    // One more than are allowed says as much as any number.
    let chain: Vec<CertificateDer<'_>> =
        std::iter::once(end_entity).chain(intermediates.iter().take(2)).cloned().collect();
    PeerIdentity::from_chain(&chain, now).map_err(|error| {
        Error::InvalidCertificate(match error {
            ChainError::NotValidNow => CertificateError::Expired,
            other => CertificateError::Other(OtherError(Arc::new(other))),
        })
    })
}
