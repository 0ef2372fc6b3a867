//! Which chains of certificates make an identity, and when.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose};

use super::*;
use crate::identity::HostIdentity;

const HOUR: Duration = Duration::from_secs(3_600);

#[test]
fn a_host_certificate_is_host_and_process_in_one() {
    let host = HostIdentity::ephemeral().unwrap();
    let peer = check(host.node().chain()).unwrap();
    assert_eq!((peer.host(), peer.process()), (host.fingerprint(), host.fingerprint()));
}

#[test]
fn a_process_certificate_names_its_host_and_itself() {
    let host = HostIdentity::ephemeral().unwrap();
    let process = host.process().unwrap();
    let peer = check(process.chain()).unwrap();
    assert_eq!((peer.host(), peer.process()), (host.fingerprint(), process.process()));
    assert_ne!(peer.host(), peer.process());
}

#[test]
fn a_process_certificate_is_good_for_a_day_either_way() {
    let now = SystemTime::now();
    let process = HostIdentity::ephemeral().unwrap().process_at(now).unwrap();
    let at = |time| PeerIdentity::from_chain(process.chain(), unix(time));
    assert!(at(now - 23 * HOUR).is_ok());
    assert!(at(now + 23 * HOUR).is_ok());
    assert_eq!(at(now - 25 * HOUR), Err(ChainError::NotValidNow));
    assert_eq!(at(now + 25 * HOUR), Err(ChainError::NotValidNow));
}

#[test]
fn a_host_certificate_outlives_its_dates() {
    let host = HostIdentity::ephemeral().unwrap();
    let in_a_century = unix(SystemTime::now() + 24 * 365 * 100 * HOUR);
    assert!(PeerIdentity::from_chain(host.node().chain(), in_a_century).is_ok());
}

#[test]
fn clocks_at_the_ends_of_time_make_certificates_all_the_same() {
    let host = HostIdentity::ephemeral().unwrap();
    for secs in [0, 1, 253_402_300_799, 300_000_000_000] {
        let process = host.process_at(UNIX_EPOCH + Duration::from_secs(secs)).unwrap();
        assert_eq!(process.chain().len(), 2);
    }
}

#[test]
fn a_process_that_another_host_signed_is_refused() {
    let [a, b] = [0; 2].map(|_| HostIdentity::ephemeral().unwrap());
    let (process, host) = (a.process().unwrap(), b.node());
    let chain = [process.chain()[0].clone(), host.chain()[0].clone()];
    assert_eq!(check(&chain), Err(ChainError::NotSignedByHost));
}

#[test]
fn a_process_cannot_vouch_for_another() {
    let host = HostIdentity::ephemeral().unwrap();
    let middle = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let chain = signed_chain(&middle, host_like("qpipe process", IsCa::NoCa));
    assert_eq!(check(&chain), Err(ChainError::NotAuthority));
    let [process, other] = [0; 2].map(|_| host.process().unwrap());
    let chain = [process.chain()[0].clone(), other.chain()[0].clone()];
    assert_eq!(check(&chain), Err(ChainError::NotAuthority));
}

#[test]
fn a_host_whose_certificate_does_not_allow_signing_cannot_vouch() {
    let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let mut host = host_like("h", IsCa::Ca(BasicConstraints::Constrained(0)));
    assert!(check(&signed_chain(&key, host.clone())).is_ok());
    host.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    assert_eq!(check(&signed_chain(&key, host)), Err(ChainError::NotAuthority));
}

#[test]
fn the_order_is_process_then_host() {
    let host = HostIdentity::ephemeral().unwrap();
    let mut chain = host.process().unwrap().chain().to_vec();
    chain.reverse();
    assert_eq!(check(&chain), Err(ChainError::NotAuthority));
}

#[test]
fn a_host_certificate_is_no_process_certificate() {
    let host = HostIdentity::ephemeral().unwrap();
    let chain = [host.node().chain(), host.node().chain()].concat();
    assert_eq!(check(&chain), Err(ChainError::NotSignedByHost));
}

#[test]
fn none_and_three_certificates_are_refused() {
    let host = HostIdentity::ephemeral().unwrap();
    let chain = [host.process().unwrap().chain(), host.node().chain()].concat();
    assert_eq!(check(&[]), Err(ChainError::Empty));
    assert_eq!(check(&chain), Err(ChainError::TooLong));
}

#[test]
fn keys_of_another_kind_are_refused_in_every_place() {
    let curve = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let chain = signed_chain(&curve, host_like("h", IsCa::Ca(BasicConstraints::Constrained(0))));
    assert_eq!(check(&chain), Err(ChainError::NotEd25519));
    assert_eq!(check(&chain[1..]), Err(ChainError::NotEd25519));

    let host = HostIdentity::ephemeral().unwrap();
    let leaf = CertificateParams::default().self_signed(&curve).unwrap().der().clone();
    assert_eq!(check(&[leaf, host.node().chain()[0].clone()]), Err(ChainError::NotEd25519));
}

#[test]
fn garbage_and_what_is_cut_or_too_large_is_refused() {
    let host = HostIdentity::ephemeral().unwrap();
    let good = host.node().chain()[0].clone();
    for length in [0, 1, 2, 50, good.len() - 1] {
        let cut = CertificateDer::from(good[..length].to_vec());
        assert_eq!(check(&[cut]), Err(ChainError::Malformed), "{length} bytes");
    }
    let longer = CertificateDer::from([&good[..], b"\0"].concat());
    assert_eq!(check(&[longer]), Err(ChainError::Malformed));
    let garbage = |length| CertificateDer::from(vec![0x30; length]);
    assert_eq!(check(&[garbage(4_096)]), Err(ChainError::Malformed));
    assert_eq!(check(&[garbage(4_097)]), Err(ChainError::TooLarge));
    assert_eq!(check(&[good, garbage(4_097)]), Err(ChainError::TooLarge));
}

/// A process's certificate signed by `host_key`, and the certificate `host` around that.
fn signed_chain(host_key: &KeyPair, host: CertificateParams) -> [CertificateDer<'static>; 2] {
    let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let host_certificate = host.self_signed(host_key).unwrap();
    let issuer = Issuer::new(host, host_key);
    let leaf = CertificateParams::default().signed_by(&key, &issuer).unwrap();
    [leaf.der().clone(), host_certificate.der().clone()]
}

fn host_like(name: &str, is_ca: IsCa) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params.is_ca = is_ca;
    params
}

fn check(chain: &[CertificateDer<'_>]) -> Result<PeerIdentity, ChainError> {
    PeerIdentity::from_chain(chain, UnixTime::now())
}

fn unix(time: SystemTime) -> UnixTime {
    UnixTime::since_unix_epoch(time.duration_since(UNIX_EPOCH).unwrap())
}
