//! How quinn is set up.

use std::sync::Arc;
use std::time::Duration;

use qpipe_proto::contact::Patience;
use qpipe_proto::limits::{STREAM_OVERHEAD_BYTES, WINDOW_BYTES_MAX};
use quinn::{EndpointConfig, IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};

use super::pulse::KickFactory;
use crate::identity::Continuity;

/// A connection on which nothing arrives for so long is over; its session may live on, and dials
/// another one long before. Longer than most outages: an old connection is back sooner than a new one.
/// Not longer, since quinn keeps a connection for this long that began with a forged close.
const SILENCE_MAX: Duration = Duration::from_secs(180);

/// First guess of the round trip. quinn's 333 ms makes a lost first packet cost a second.
const INITIAL_RTT: Duration = Duration::from_millis(100);

/// Content of a window in chunks of one byte, each with a header of one byte, and header and
/// trailer of the stream.
const STREAM_WINDOW_BYTES: u32 = (2 * WINDOW_BYTES_MAX + STREAM_OVERHEAD_BYTES) as u32;

/// What quinn may hold to be sent beyond the node's memory budget: control messages, and chunks of
/// which a part is acknowledged.
const SEND_SLACK_BYTES: u64 = 16 * 1024 * 1024;

/// Probes that wait to be sent or read, in bytes: a few, of the size of a packet. Older ones give way.
const DATAGRAM_BYTES: usize = 16 * 1024;

/// The transport of both sides. QUIC's windows lie wide above the Limits that pipes feel. Datagrams
/// of up to `datagram_bytes_max` are tried, and used where they arrive.
pub(crate) fn config(
    is_server: bool,
    patience: &Patience,
    memory: u64,
    datagram_bytes_max: u16,
) -> Arc<TransportConfig> {
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(datagram_bytes_max);
    let mut config = TransportConfig::default();
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(u32::from(is_server)))
        // No pipe stream before Hello.
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::MAX)
        // What pipes may buffer is bounded by their Limits and the budget, pipe by pipe: a shared
        // window that an honest peer could fill would let one stalled pipe stop the others. This one
        // is for peers that say that they consumed what they never acknowledge.
        .send_window(memory + SEND_SLACK_BYTES)
        .initial_rtt(INITIAL_RTT)
        .mtu_discovery_config(Some(discovery))
        // Two chances to be heard before the peer takes this side for silent.
        .keep_alive_interval(Some(patience.heartbeat / 3))
        .max_idle_timeout(IdleTimeout::try_from(SILENCE_MAX).ok())
        .congestion_controller_factory(Arc::new(KickFactory))
        .datagram_send_buffer_size(DATAGRAM_BYTES)
        .datagram_receive_buffer_size(Some(DATAGRAM_BYTES));
    Arc::new(config)
}

/// The endpoint of both sides. With the same keys as before a restart, a node recognises connections
/// that it has forgotten, and resets them (RFC 9000, section 10.3).
pub(crate) fn endpoint_config(continuity: &Continuity) -> EndpointConfig {
    let mut config = EndpointConfig::new(continuity.reset_key());
    let cid_key = continuity.cid_key;
    config.cid_generator(move || {
        Box::new(quinn_proto::HashedConnectionIdGenerator::from_key(cid_key))
    });
    config
}
