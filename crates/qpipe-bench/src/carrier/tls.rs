//! TLS for the carriers that are not qpipe: 1.3, AES-128-GCM, one certificate that both ends know.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

/// The name in the certificate.
pub(super) const NAME: &str = "localhost";

/// The certificate, in a form that other programs read as well.
pub(crate) fn certificate_file(state: &Path) -> PathBuf {
    state.join("cert.pem")
}

/// Its key.
pub(crate) fn key_file(state: &Path) -> PathBuf {
    state.join("key.pem")
}

/// Makes the certificate, unless there is one.
pub(crate) fn make_certificate(state: &Path) -> Result<()> {
    if key_file(state).exists() {
        return Ok(());
    }
    fs::create_dir_all(state).with_context(|| state.display().to_string())?;
    let made = rcgen::generate_simple_self_signed([NAME.to_owned()])?;
    fs::write(certificate_file(state), made.cert.pem())?;
    fs::write(key_file(state), made.signing_key.serialize_pem())?;
    Ok(())
}

pub(super) fn server(state: &Path, protocol: &[u8]) -> Result<ServerConfig> {
    let certificate = CertificateDer::from_pem_file(certificate_file(state))?;
    let key = PrivateKeyDer::from_pem_file(key_file(state))?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)?;
    config.alpn_protocols = vec![protocol.to_vec()];
    Ok(config)
}

pub(super) fn client(state: &Path, protocol: &[u8]) -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificate_file(state))?)?;
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    Ok(config)
}

/// The suite that qpipe takes: rustls would begin with AES-256.
fn provider() -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites = vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256];
    Arc::new(provider)
}
