//! Handshakes between real endpoints over loopback: who gets through, and what each side learns.

use std::time::{Duration, SystemTime};

use quinn::{ClientConfig as QuinnClient, Connection, ConnectionError, Endpoint};

use super::*;
use crate::identity::{HostIdentity, PeerIdentity};

#[tokio::test]
async fn both_sides_learn_who_the_other_is() {
    for [server_is_process, client_is_process] in
        [[false, false], [false, true], [true, false], [true, true]]
    {
        let (a, b) = (host(), host());
        let server = if server_is_process { b.process().unwrap() } else { b.node() };
        let client = if client_is_process { a.process().unwrap() } else { a.node() };
        let dial = client_config(&client, ExpectedHost::Is(b.fingerprint())).unwrap();

        let met = meet(server_config(&server).unwrap(), dial.crypto()).await;

        let seen_by_client = PeerIdentity::of(met.client.as_ref().unwrap()).unwrap();
        let seen_by_server = PeerIdentity::of(met.server.as_ref().unwrap()).unwrap();
        assert_eq!(seen_by_client.host(), b.fingerprint());
        assert_eq!(seen_by_client.process(), server.process());
        assert_eq!(seen_by_server.host(), a.fingerprint());
        assert_eq!(seen_by_server.process(), client.process());
        assert_eq!(dial.host_seen(), Some(b.fingerprint()));
    }
}

#[tokio::test]
async fn the_handshake_takes_the_first_suite_and_tells_it() {
    let server = host();
    let dial = client_config(&host().node(), ExpectedHost::Is(server.fingerprint())).unwrap();
    assert_eq!(dial.suite(), None);

    meet(server_config(&server.node()).unwrap(), dial.crypto()).await.client.unwrap();

    assert_eq!(dial.suite(), PROVIDER.cipher_suites[0].suite().as_str());
}

#[tokio::test]
async fn a_server_that_insists_on_aes_256_is_told_apart() {
    let server = host();
    let mut provider = PROVIDER.as_ref().clone();
    provider.cipher_suites = vec![
        cipher_suite::TLS13_AES_256_GCM_SHA384,
        // QUIC's first packets need it; it is not taken.
        cipher_suite::TLS13_AES_128_GCM_SHA256,
    ];
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_client_cert_verifier(Arc::new(AnyClient))
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(server.node().certified_key())));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.ignore_client_order = true;
    let dial = client_config(&host().node(), ExpectedHost::Is(server.fingerprint())).unwrap();

    meet(quic(config), dial.crypto()).await.client.unwrap();

    assert_eq!(dial.suite(), Some("TLS13_AES_256_GCM_SHA384"));
}

#[test]
fn aes_128_comes_first_and_chacha_where_the_cpu_has_no_aes() {
    let names = |aes| cipher_suites(aes).iter().map(|suite| suite.suite()).collect::<Vec<_>>();
    use rustls::CipherSuite::*;
    assert_eq!(
        names(true),
        [TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256]
    );
    assert_eq!(
        names(false),
        [TLS13_CHACHA20_POLY1305_SHA256, TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384]
    );
    assert_eq!(PROVIDER.kx_groups[0].name(), rustls::NamedGroup::X25519MLKEM768);
}

#[tokio::test]
async fn a_server_with_the_right_certificate_and_the_wrong_key_gets_nowhere() {
    let (real, thief) = (host(), host());
    for certificate_of in [real.node(), real.process().unwrap()] {
        let forged = Identity::forged(certificate_of.chain().to_vec(), &thief.node());
        for expected in [ExpectedHost::Is(real.fingerprint()), ExpectedHost::Unknown] {
            let dial = client_config(&host().node(), expected).unwrap();
            let met = meet(server_config(&forged).unwrap(), dial.crypto()).await;
            assert_eq!(met.client_failure(), HandshakeFailure::PeerLacksItsKey);
            assert_eq!(met.server_failure(), HandshakeFailure::PeerRefusedOurCertificate);
            if expected == ExpectedHost::Unknown {
                assert_eq!(dial.host_seen(), None, "a key was reported that was not proven");
            }
        }
    }
}

#[tokio::test]
async fn a_client_with_the_right_certificate_and_the_wrong_key_gets_nowhere() {
    let (server, real, thief) = (host(), host(), host());
    for certificate_of in [real.node(), real.process().unwrap()] {
        let forged = Identity::forged(certificate_of.chain().to_vec(), &thief.node());
        let met = dial_as(&forged, &server).await;
        assert_eq!(met.server_failure(), HandshakeFailure::PeerLacksItsKey);
        assert_eq!(met.client_failure(), HandshakeFailure::PeerRefusedOurCertificate);
    }
}

#[tokio::test]
async fn another_key_than_the_pinned_one_is_refused_and_reported() {
    let (server, pinned) = (host(), host());
    for identity in [server.node(), server.process().unwrap()] {
        let expected = ExpectedHost::Is(pinned.fingerprint());
        let dial = client_config(&host().node(), expected).unwrap();
        let met = meet(server_config(&identity).unwrap(), dial.crypto()).await;
        assert_eq!(met.client_failure(), HandshakeFailure::WrongHostKey);
        assert_eq!(met.server_failure(), HandshakeFailure::PeerRefusedOurCertificate);
        assert_eq!(dial.host_seen(), Some(server.fingerprint()));
    }
}

#[tokio::test]
async fn first_use_is_refused_reports_the_key_and_then_goes_through() {
    let (server, client) = (host(), host());
    for identity in [server.node(), server.process().unwrap()] {
        let first = client_config(&client.node(), ExpectedHost::Unknown).unwrap();
        let met = meet(server_config(&identity).unwrap(), first.crypto()).await;
        assert_eq!(met.client_failure(), HandshakeFailure::UnknownHostKey);
        assert_eq!(met.server_failure(), HandshakeFailure::PeerRefusedOurCertificate);

        let seen = first.host_seen().unwrap();
        assert_eq!(seen, server.fingerprint());
        let second = client_config(&client.node(), ExpectedHost::Is(seen)).unwrap();
        let met = meet(server_config(&identity).unwrap(), second.crypto()).await;
        met.client.unwrap();
    }
}

#[tokio::test]
async fn chains_that_prove_nothing_are_refused_on_both_sides() {
    let (real, other) = (host(), host());
    let (process, stranger) = (real.process().unwrap(), other.process().unwrap());
    let signed_by_another =
        Identity::forged([&stranger.chain()[..1], real.node().chain()].concat(), &stranger);
    let three = Identity::forged([process.chain(), real.node().chain()].concat(), &process);
    for bad in [signed_by_another, three] {
        let met = dial_as(&bad, &host()).await;
        assert_eq!(met.server_failure(), HandshakeFailure::BadPeerCertificate);
        assert_eq!(met.client_failure(), HandshakeFailure::PeerRefusedOurCertificate);

        let dial = client_config(&host().node(), ExpectedHost::Is(real.fingerprint())).unwrap();
        let met = meet(server_config(&bad).unwrap(), dial.crypto()).await;
        assert_eq!(met.client_failure(), HandshakeFailure::BadPeerCertificate);
        assert_eq!(met.server_failure(), HandshakeFailure::PeerRefusedOurCertificate);
    }
}

#[tokio::test]
async fn an_expired_process_is_refused_on_both_sides() {
    let real = host();
    let expired = real.process_at(SystemTime::now() - Duration::from_secs(25 * 3_600)).unwrap();

    let met = dial_as(&expired, &host()).await;
    assert_eq!(met.server_failure(), HandshakeFailure::PeerCertificateExpired);
    assert_eq!(met.client_failure(), HandshakeFailure::PeerRefusedOurCertificate);

    let dial = client_config(&host().node(), ExpectedHost::Is(real.fingerprint())).unwrap();
    let met = meet(server_config(&expired).unwrap(), dial.crypto()).await;
    assert_eq!(met.client_failure(), HandshakeFailure::PeerCertificateExpired);

    let renewed = real.renew(&expired).unwrap();
    dial_as(&renewed, &host()).await.client.unwrap();
}

#[tokio::test]
async fn a_client_without_a_certificate_is_refused() {
    let server = host();
    let config = rustls_client(&server, |builder| builder.with_no_client_auth());
    let met = meet(server_config(&server.node()).unwrap(), quic_client(config)).await;
    assert_eq!(met.server_failure(), HandshakeFailure::PeerSentNoCertificate);
    assert_eq!(met.client_failure(), HandshakeFailure::PeerRefusedOurCertificate);
}

#[tokio::test]
async fn another_protocol_is_refused_on_both_sides() {
    let server = host();
    for alpn in [&[b"qpipe/2".to_vec()][..], &[b"h3".to_vec(), b"h2".to_vec()], &[]] {
        let mut config = rustls_client(&server, |builder| with_identity(builder, &host().node()));
        config.alpn_protocols = alpn.to_vec();
        let met = meet(server_config(&server.node()).unwrap(), quic_client(config)).await;
        assert_eq!(met.server_failure(), HandshakeFailure::OtherProtocol, "{alpn:?}");
        assert_eq!(met.client_failure(), HandshakeFailure::OtherProtocol, "{alpn:?}");

        let mut config = server_rustls(&server.node()).unwrap();
        config.alpn_protocols = alpn.to_vec();
        let expected = ExpectedHost::Is(server.fingerprint());
        let dial = client_config(&host().node(), expected).unwrap();
        let met = meet(quic(config), dial.crypto()).await;
        assert_eq!(met.client_failure(), HandshakeFailure::OtherProtocol, "{alpn:?}");
    }
}

#[tokio::test]
async fn a_server_that_asks_for_no_certificate_learns_nothing() {
    let server = host();
    let mut config = ServerConfig::builder_with_provider(PROVIDER.clone())
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(server.node().certified_key())));
    config.alpn_protocols = vec![ALPN.to_vec()];
    let dial = client_config(&host().node(), ExpectedHost::Is(server.fingerprint())).unwrap();

    let met = meet(quic(config), dial.crypto()).await;

    assert_eq!(PeerIdentity::of(met.server.as_ref().unwrap()), None);
}

#[test]
fn ends_that_are_no_handshake_failures_are_not_explained() {
    for error in [
        ConnectionError::TimedOut,
        ConnectionError::Reset,
        ConnectionError::LocallyClosed,
        ConnectionError::CidsExhausted,
    ] {
        assert_eq!(explain_handshake(&error), None, "{error}");
    }
    let other = explain_handshake(&ConnectionError::VersionMismatch);
    assert_eq!(other, Some(HandshakeFailure::OtherProtocol));
}

#[tokio::test]
async fn a_busy_server_is_told_apart() {
    let server = host();
    let config = quinn::ServerConfig::with_crypto(server_config(&server.node()).unwrap());
    let listening = Endpoint::server(config, "127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listening.local_addr().unwrap();
    let dial = client_config(&host().node(), ExpectedHost::Is(server.fingerprint())).unwrap();
    let dialling = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();

    let connecting =
        dialling.connect_with(QuinnClient::new(dial.crypto()), address, SERVER_NAME).unwrap();
    listening.accept().await.unwrap().refuse();

    let error = connecting.await.unwrap_err();
    assert_eq!(explain_handshake(&error), Some(HandshakeFailure::PeerBusy));
}

/// How a handshake ended for each side.
struct Met {
    client: Result<Connection, ConnectionError>,
    server: Result<Connection, ConnectionError>,
    _endpoints: [Endpoint; 2],
}

impl Met {
    fn client_failure(&self) -> HandshakeFailure {
        explain_handshake(self.client.as_ref().unwrap_err()).unwrap()
    }

    fn server_failure(&self) -> HandshakeFailure {
        explain_handshake(self.server.as_ref().unwrap_err()).unwrap()
    }
}

/// Lets the two meet. The client has succeeded only when a byte of the server's came through,
/// since its handshake is over before the server has judged its certificate.
async fn meet(server: Arc<QuicServerConfig>, client: Arc<QuicClientConfig>) -> Met {
    let config = quinn::ServerConfig::with_crypto(server);
    let listening = Endpoint::server(config, "127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listening.local_addr().unwrap();
    let dialling = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let serve = async {
        let connection = listening.accept().await.unwrap().await?;
        let mut stream = connection.open_uni().await?;
        stream.write_all(b"!").await.unwrap();
        stream.finish().unwrap();
        Ok(connection)
    };
    let dial = async {
        let config = QuinnClient::new(client);
        let connection = dialling.connect_with(config, address, SERVER_NAME).unwrap().await?;
        let mut stream = connection.accept_uni().await?;
        assert_eq!(stream.read_to_end(1).await.unwrap(), b"!");
        Ok(connection)
    };
    let (server, client) = tokio::join!(serve, dial);
    Met { client, server, _endpoints: [listening, dialling] }
}

async fn dial_as(client: &Identity, server: &HostIdentity) -> Met {
    let dial = client_config(client, ExpectedHost::Is(server.fingerprint())).unwrap();
    meet(server_config(&server.node()).unwrap(), dial.crypto()).await
}

fn host() -> HostIdentity {
    HostIdentity::ephemeral().unwrap()
}

fn rustls_client(
    server: &HostIdentity,
    authenticate: impl FnOnce(ClientAuthChoice) -> ClientConfig,
) -> ClientConfig {
    let verifier = PinnedServer::new(ExpectedHost::Is(server.fingerprint()));
    client_rustls(Arc::new(verifier), authenticate).unwrap()
}

fn with_identity(builder: ClientAuthChoice, identity: &Identity) -> ClientConfig {
    let key = SingleCertAndKey::from(identity.certified_key());
    builder.with_client_cert_resolver(Arc::new(key))
}

fn quic(config: ServerConfig) -> Arc<QuicServerConfig> {
    Arc::new(QuicServerConfig::try_from(config).unwrap())
}

fn quic_client(config: ClientConfig) -> Arc<QuicClientConfig> {
    Arc::new(QuicClientConfig::try_from(config).unwrap())
}
