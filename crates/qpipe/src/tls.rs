//! TLS as qpipe uses it: 1.3 only, both sides authenticated, no 0-RTT, no resumption.
//!
//! A dial takes a [`DialTls`] of its own, which afterwards also tells the key that the host
//! presented and the cipher suite. The handshake is over for the dialling side before the other
//! has looked at its certificate: a refusal reaches the dialler as the connection's end (see
//! [`explain_handshake`]), not as an error of the dial.

use std::{
    fmt,
    sync::{Arc, LazyLock},
};

use qpipe_proto::Fingerprint;
use quinn::crypto::rustls::{NoInitialCipherSuite, QuicClientConfig, QuicServerConfig};
use rustls::{
    ClientConfig, ServerConfig, SupportedCipherSuite,
    client::Resumption,
    crypto::{
        CryptoProvider,
        aws_lc_rs::{cipher_suite, default_provider, kx_group},
    },
    server::NoServerSessionStorage,
    sign::SingleCertAndKey,
    version::TLS13,
};

use crate::identity::Identity;

mod failure;
mod suite;
#[cfg(test)]
mod tests;
mod verifiers;

pub use failure::{HandshakeFailure, explain_handshake};
pub use suite::SuiteProbe;
pub use verifiers::{AnyClient, ExpectedHost, PinnedServer};

/// What both sides must speak: the name of the protocol in the handshake.
pub const ALPN: &[u8] = b"qpipe/1";

/// What to hand quinn as the server's name. It is never sent and never compared: a host is its
/// key.
pub const SERVER_NAME: &str = "qpipe";

/// What one dial needs, and what it can tell afterwards.
#[derive(Clone)]
pub struct DialTls {
    crypto: Arc<QuicClientConfig>,
    server: Arc<PinnedServer>,
    suite: Arc<SuiteProbe>,
}

impl DialTls {
    /// For [`quinn::ClientConfig::new`].
    pub fn crypto(&self) -> Arc<QuicClientConfig> {
        self.crypto.clone()
    }

    /// The key of the host that was met; see [`PinnedServer::seen`].
    pub fn host_seen(&self) -> Option<Fingerprint> {
        self.server.seen()
    }

    /// The name of the cipher suite; see [`SuiteProbe::suite`].
    pub fn suite(&self) -> Option<&'static str> {
        self.suite.suite()
    }
}

impl fmt::Debug for DialTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DialTls").field("server", &self.server).finish_non_exhaustive()
    }
}

/// The client's side of TLS for one dial: presents `identity`, accepts the host `expected`.
///
/// Neither tickets nor stored sessions: a session of qpipe resumes above TLS, and a full
/// handshake always runs the verifiers.
///
/// # Errors
/// [`TlsError`], which no input causes.
pub fn client_config(identity: &Identity, expected: ExpectedHost) -> Result<DialTls, TlsError> {
    let server = Arc::new(PinnedServer::new(expected));
    let suite = Arc::new(SuiteProbe::default());
    let mut config = client_rustls(server.clone(), |builder| {
        builder
            .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity.certified_key())))
    })?;
    config.key_log = suite.clone();
    Ok(DialTls { crypto: Arc::new(QuicClientConfig::try_from(config)?), server, suite })
}

/// The server's side of TLS, for [`quinn::ServerConfig::with_crypto`]: presents `identity`,
/// demands a certificate and takes any good one. Who may do what is decided at Hello.
///
/// # Errors
/// [`TlsError`], which no input causes.
pub fn server_config(identity: &Identity) -> Result<Arc<QuicServerConfig>, TlsError> {
    Ok(Arc::new(QuicServerConfig::try_from(server_rustls(identity)?)?))
}

/// TLS could not be set up: the build of the cryptographic library lacks what qpipe needs.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// No cipher for the first packets of QUIC.
    #[error("the TLS library lacks AES-128-GCM, which QUIC begins with")]
    NoInitialSuite(#[from] NoInitialCipherSuite),
    /// No common ground of protocol version, cipher suites and key exchange.
    #[error("the TLS library cannot be set up: {0}")]
    Setup(#[from] rustls::Error),
}

type ClientAuthChoice = rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>;

fn client_rustls(
    server: Arc<PinnedServer>,
    authenticate: impl FnOnce(ClientAuthChoice) -> ClientConfig,
) -> Result<ClientConfig, TlsError> {
    let mut config = authenticate(
        ClientConfig::builder_with_provider(PROVIDER.clone())
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(server),
    );
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.enable_sni = false;
    config.enable_early_data = false;
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn server_rustls(identity: &Identity) -> Result<ServerConfig, TlsError> {
    let mut config = ServerConfig::builder_with_provider(PROVIDER.clone())
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(Arc::new(AnyClient))
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(identity.certified_key())));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.max_early_data_size = 0;
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(config)
}

/// Made once a process: aws-lc seeds itself when first used.
static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
    Arc::new(CryptoProvider {
        cipher_suites: cipher_suites(cpu_has_aes()),
        // The hybrid first: what is recorded today must not be readable with a quantum computer.
        kx_groups: vec![kx_group::X25519MLKEM768, kx_group::X25519],
        signature_verification_algorithms: verifiers::ED25519_ONLY,
        ..default_provider()
    })
});

/// All three suites of TLS 1.3, by what they cost: 2.3 to 3.0 CPU seconds per GB at both ends
/// together for AES-128, 2.4 to 3.5 for AES-256, 3.9 to 5.9 for ChaCha20, which is the only fast
/// one where the CPU has no AES. The server follows the client's order.
fn cipher_suites(aes: bool) -> Vec<SupportedCipherSuite> {
    let mut suites = vec![
        cipher_suite::TLS13_AES_128_GCM_SHA256,
        cipher_suite::TLS13_AES_256_GCM_SHA384,
        cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    ];
    if !aes {
        suites.rotate_right(1);
    }
    suites
}

#[cfg(target_arch = "x86_64")]
fn cpu_has_aes() -> bool {
    std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq")
}

#[cfg(target_arch = "aarch64")]
fn cpu_has_aes() -> bool {
    std::arch::is_aarch64_feature_detected!("aes")
        && std::arch::is_aarch64_feature_detected!("pmull")
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn cpu_has_aes() -> bool {
    false
}
