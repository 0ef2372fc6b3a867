//! Makes the certificates of hosts and of their processes.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData,
    SignatureAlgorithm, date_time_ymd,
};

use super::peer;

/// The self-signed certificate of a host, good for signing those of its processes.
pub(super) fn of_host(key: &KeyPair, now: SystemTime) -> Result<Certificate, rcgen::Error> {
    host_params(now).self_signed(key)
}

/// A certificate for the process key `spki`, signed by the host's key, and when it expires.
pub(super) fn of_process(
    host: &KeyPair,
    spki: &[u8],
    now: SystemTime,
) -> Result<(Certificate, SystemTime), rcgen::Error> {
    let key =
        ProcessKey(peer::ed25519_key(spki).ok_or(rcgen::Error::UnsupportedSignatureAlgorithm)?);
    let lifetime = Duration::from_secs(PROCESS_CERTIFICATE_SECS);
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name("qpipe process");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let start = Duration::from_secs(PROCESS_CERTIFICATE_BACK_SECS);
    params.not_before = date_time_ymd(1970, 1, 1) + since_1970(now).saturating_sub(start);
    params.not_after = date_time_ymd(1970, 1, 1) + since_1970(now + lifetime);
    let certificate = params.signed_by(&key, &Issuer::new(host_params(now), host))?;
    Ok((certificate, now + lifetime))
}

/// How long a process's certificate is good for: bounds what a stolen process key is worth,
/// while no command has to renew within a day.
pub(super) const PROCESS_CERTIFICATE_SECS: u64 = 24 * 60 * 60;

/// How far back it is good: a peer whose clock is up to a day behind still accepts it.
const PROCESS_CERTIFICATE_BACK_SECS: u64 = 24 * 60 * 60;

/// How far back a host's certificate is good, for tools other than qpipe, which does not look.
const HOST_CERTIFICATE_BACK_SECS: u64 = 24 * 60 * 60;

/// How long a host's certificate is good for (50 years): longer than the host.
const HOST_CERTIFICATE_SECS: u64 = 50 * 365 * 24 * 60 * 60;

/// The end of the year 9999: X.509 has no way to write a later time.
const CERTIFICATE_TIME_SECS_MAX: u64 = 253_402_300_799;

fn host_params(now: SystemTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name("qpipe host");
    // Path length 0: it signs processes, and these sign nothing.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign];
    let start = Duration::from_secs(HOST_CERTIFICATE_BACK_SECS);
    let end = Duration::from_secs(HOST_CERTIFICATE_SECS);
    params.not_before = date_time_ymd(1970, 1, 1) + since_1970(now).saturating_sub(start);
    params.not_after = date_time_ymd(1970, 1, 1) + since_1970(now + end);
    params
}

fn common_name(name: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    subject
}

fn since_1970(time: SystemTime) -> Duration {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    since.min(Duration::from_secs(CERTIFICATE_TIME_SECS_MAX))
}

/// The raw public key of a process, as rcgen wants to be handed it.
struct ProcessKey<'a>(&'a [u8]);

impl PublicKeyData for ProcessKey<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &rcgen::PKCS_ED25519
    }
}
