//! What went wrong in a handshake, from what quinn says of it.

use quinn::ConnectionError;
use rustls::AlertDescription;

/// Why a handshake failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeFailure {
    /// The peer's certificates are not of the kind that qpipe makes.
    #[error("the peer's certificate was refused")]
    BadPeerCertificate,
    /// The two have no cipher suite, key exchange or kind of signature in common.
    #[error("the peer and this host have no version of TLS, cipher or kind of key in common")]
    NoCommonTls,
    /// The peer speaks something else than `qpipe/1`.
    #[error("the peer speaks another protocol, or another version of qpipe, than qpipe/1")]
    OtherProtocol,
    /// Some other alert of TLS, by its number (RFC 8446, section 6).
    #[error("the TLS handshake failed (alert {0})")]
    OtherTls(u8),
    /// The peer takes no new connection now.
    #[error("the peer takes no new connections now: try again later")]
    PeerBusy,
    /// The certificate of the peer's process is not valid at this time.
    #[error("the peer's process certificate is not valid now: are both hosts' clocks right?")]
    PeerCertificateExpired,
    /// The peer showed a certificate, and does not hold the key in it.
    #[error("the peer does not hold the key it presented: this may be an attack")]
    PeerLacksItsKey,
    /// The peer looked at our certificate, or the proof for it, and refused.
    #[error(
        "the peer refused this host's key: it may expect another key here, or its clock may be \
         more than a day off"
    )]
    PeerRefusedOurCertificate,
    /// The peer did not say who it is.
    #[error("the peer presented no certificate")]
    PeerSentNoCertificate,
    /// No key was pinned for this host ([`ExpectedHost::Unknown`](super::ExpectedHost::Unknown)).
    #[error("the host's key is not known yet")]
    UnknownHostKey,
    /// The host's key is another one than the pinned one.
    #[error("the host's key is not the one that is pinned for it")]
    WrongHostKey,
}

/// What a connection's end says about its handshake; `None` when it ended for another reason.
///
/// The text that a peer sends with its refusal is not looked at: it is the peer's to choose.
pub fn explain_handshake(error: &ConnectionError) -> Option<HandshakeFailure> {
    match error {
        ConnectionError::ConnectionClosed(close) => match alert(close.error_code.into()) {
            Some(alert) => Some(told_by_peer(alert)),
            None => (close.error_code == quinn::TransportErrorCode::CONNECTION_REFUSED)
                .then_some(HandshakeFailure::PeerBusy),
        },
        ConnectionError::TransportError(error) => alert(error.code.into()).map(found_here),
        ConnectionError::VersionMismatch => Some(HandshakeFailure::OtherProtocol),
        _ => None,
    }
}

/// QUIC carries an alert of TLS as 0x100 + its number (RFC 9001, section 4.8).
fn alert(code: u64) -> Option<AlertDescription> {
    let number = u8::try_from(code.checked_sub(0x100)?).ok()?;
    Some(AlertDescription::from(number))
}

fn told_by_peer(alert: AlertDescription) -> HandshakeFailure {
    use AlertDescription as Alert;
    match alert {
        Alert::AccessDenied
        | Alert::BadCertificate
        | Alert::CertificateExpired
        | Alert::CertificateRequired
        | Alert::CertificateRevoked
        | Alert::CertificateUnknown
        | Alert::DecryptError
        | Alert::UnknownCA
        | Alert::UnsupportedCertificate => HandshakeFailure::PeerRefusedOurCertificate,
        other => either_way(other),
    }
}

/// The verifiers choose their errors so that each of these has one meaning.
fn found_here(alert: AlertDescription) -> HandshakeFailure {
    use AlertDescription as Alert;
    match alert {
        Alert::AccessDenied => HandshakeFailure::WrongHostKey,
        Alert::BadCertificate | Alert::CertificateUnknown | Alert::UnsupportedCertificate => {
            HandshakeFailure::BadPeerCertificate
        }
        Alert::CertificateExpired => HandshakeFailure::PeerCertificateExpired,
        Alert::CertificateRequired => HandshakeFailure::PeerSentNoCertificate,
        Alert::DecryptError => HandshakeFailure::PeerLacksItsKey,
        Alert::UnknownCA => HandshakeFailure::UnknownHostKey,
        other => either_way(other),
    }
}

fn either_way(alert: AlertDescription) -> HandshakeFailure {
    use AlertDescription as Alert;
    match alert {
        Alert::NoApplicationProtocol => HandshakeFailure::OtherProtocol,
        Alert::HandshakeFailure | Alert::InsufficientSecurity | Alert::ProtocolVersion => {
            HandshakeFailure::NoCommonTls
        }
        other => HandshakeFailure::OtherTls(other.into()),
    }
}
