//! How quinn-proto is set up: as the product sets it up, with every source of chance seeded.

use std::any::Any;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use qpipe_congestion::ModelFactory;
use qpipe_proto::limits::{STREAM_OVERHEAD_BYTES, WINDOW_BYTES_MAX};
use quinn_proto::congestion::{Controller, ControllerFactory, ControllerMetrics};
use quinn_proto::crypto::{AeadKey, CryptoError, HandshakeTokenKey, HmacKey};
use quinn_proto::{
    ClientConfig, ConnectionId, ConnectionIdGenerator, EndpointConfig, IdleTimeout, NoneTokenLog,
    NoneTokenStore, RttEstimator, ServerConfig, TransportConfig, ValidationTokenConfig, VarInt,
};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::tls::Tls;
use crate::rng::{Rng, mix};

/// Something is sent at least so often, by both sides.
const KEEP_ALIVE: Duration = Duration::from_secs(2);

/// A connection on which nothing arrives for so long is over. Detection is the contact's.
const SILENCE_MAX: Duration = Duration::from_secs(300);

/// First guess of the round trip.
const INITIAL_RTT: Duration = Duration::from_millis(100);

const STREAM_WINDOW_BYTES: u32 = (2 * WINDOW_BYTES_MAX + STREAM_OVERHEAD_BYTES) as u32;

/// Handshakes that wait to be accepted.
const INCOMING_MAX: usize = 16;

/// Bytes of a connection id.
const CID_BYTES: usize = 8;

/// What a probe adds to the congestion window, so that it gets out though the window is full.
const PROBE_WINDOW_BYTES: u64 = 3000;

/// The endpoint of `host` in its `start`-th life. The reset key is that of the life before.
pub(crate) fn endpoint(seed: u64, host: usize, start: u64) -> EndpointConfig {
    let key = mix(seed ^ host as u64);
    let mut config = EndpointConfig::new(Arc::new(ResetKey(key)));
    let mut rng_seed = [0; 32];
    rng_seed[..8].copy_from_slice(&mix(key ^ start << 8).to_le_bytes());
    config.rng_seed(Some(rng_seed));
    config.cid_generator(move || Box::new(Cids(Rng::new(key ^ start, "connection ids"))));
    config
}

/// A connection's transport, and the handle of its probes.
fn transport(is_server: bool) -> (Arc<TransportConfig>, Probe) {
    let probe = Probe::default();
    let mut config = TransportConfig::default();
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(u32::from(is_server)))
        // No pipe stream before Hello.
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::MAX)
        .send_window(1 << 40)
        .initial_rtt(INITIAL_RTT)
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_idle_timeout(IdleTimeout::try_from(SILENCE_MAX).ok())
        .datagram_receive_buffer_size(None)
        .enable_segmentation_offload(false)
        .congestion_controller_factory(Arc::new(probe.clone()));
    (Arc::new(config), probe)
}

/// The configurations of one host, of which every connection has a copy with its own transport.
pub(crate) struct Configs {
    client: ClientConfig,
    server: ServerConfig,
}

impl Configs {
    /// Of `host`.
    pub(crate) fn new(host: usize) -> Configs {
        let tls = Tls::new(host);
        let mut client = ClientConfig::new(tls.client);
        client.token_store(Arc::new(NoneTokenStore));
        let mut server = ServerConfig::new(tls.server, Arc::new(NoTokens));
        let mut tokens = ValidationTokenConfig::default();
        tokens.sent(0).log(Arc::new(NoneTokenLog));
        server.validation_token_config(tokens).max_incoming(INCOMING_MAX);
        Configs { client, server }
    }

    /// For one dial; its chance comes from `rng`.
    pub(crate) fn client(&self, rng: &mut Rng) -> (ClientConfig, Probe) {
        let (transport, probe) = transport(false);
        let cids = Mutex::new(Cids(Rng::new(rng.bits(), "first connection id")));
        let mut config = self.client.clone();
        config.transport_config(transport);
        config.initial_dst_cid_provider(Arc::new(move || {
            cids.lock().unwrap_or_else(PoisonError::into_inner).generate_cid()
        }));
        (config, probe)
    }

    /// For one connection that is accepted.
    pub(crate) fn server(&self) -> (Arc<ServerConfig>, Probe) {
        let (transport, probe) = transport(true);
        let mut config = self.server.clone();
        config.transport_config(transport);
        (Arc::new(config), probe)
    }
}

struct Cids(Rng);

impl ConnectionIdGenerator for Cids {
    fn generate_cid(&mut self) -> ConnectionId {
        ConnectionId::new(&self.0.bits().to_le_bytes())
    }

    fn cid_len(&self) -> usize {
        CID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// Signs stateless resets; nobody attacks here.
struct ResetKey(u64);

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        for (n, part) in signature_out.chunks_mut(8).enumerate() {
            let word = xxh3_64_with_seed(data, self.0 ^ n as u64).to_le_bytes();
            part.copy_from_slice(&word[..part.len()]);
        }
    }

    fn signature_len(&self) -> usize {
        32
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        let mut right = vec![0; signature.len()];
        self.sign(data, &mut right);
        if right == signature { Ok(()) } else { Err(CryptoError) }
    }
}

/// No token is ever asked for.
struct NoTokens;

impl HandshakeTokenKey for NoTokens {
    fn aead_from_hkdf(&self, _: &[u8]) -> Box<dyn AeadKey> {
        Box::new(NoTokens)
    }
}

impl AeadKey for NoTokens {
    fn seal(&self, _: &mut Vec<u8>, _: &[u8]) -> Result<(), CryptoError> {
        Ok(())
    }

    fn open<'a>(&self, _: &'a mut [u8], _: &[u8]) -> Result<&'a mut [u8], CryptoError> {
        Err(CryptoError)
    }
}

/// Lets a probe out of a connection whose congestion window is full of what was lost.
#[derive(Clone, Debug, Default)]
pub(crate) struct Probe(Arc<AtomicU64>);

impl Probe {
    /// The next packet may go out.
    pub(super) fn allow(&self) {
        self.0.fetch_add(PROBE_WINDOW_BYTES, Ordering::Relaxed);
    }
}

impl ControllerFactory for Probe {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        let inner = Arc::new(ModelFactory).build(now, current_mtu);
        Box::new(Probed { inner, extra: self.0.clone() })
    }
}

struct Probed {
    inner: Box<dyn Controller>,
    extra: Arc<AtomicU64>,
}

impl Controller for Probed {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.inner.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(
        &mut self,
        now: Instant,
        sent: Instant,
        bytes: u64,
        app_limited: bool,
        rtt: &RttEstimator,
    ) {
        self.extra.store(0, Ordering::Relaxed);
        self.inner.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(
        &mut self,
        now: Instant,
        in_flight: u64,
        app_limited: bool,
        largest_packet_num_acked: Option<u64>,
    ) {
        self.inner.on_end_acks(now, in_flight, app_limited, largest_packet_num_acked);
    }

    fn on_congestion_event(
        &mut self,
        now: Instant,
        sent: Instant,
        is_persistent_congestion: bool,
        lost_bytes: u64,
    ) {
        self.inner.on_congestion_event(now, sent, is_persistent_congestion, lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.inner.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        self.inner.window() + self.extra.load(Ordering::Relaxed)
    }

    fn metrics(&self) -> ControllerMetrics {
        self.inner.metrics()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Probed { inner: self.inner.clone_box(), extra: self.extra.clone() })
    }

    fn initial_window(&self) -> u64 {
        self.inner.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
