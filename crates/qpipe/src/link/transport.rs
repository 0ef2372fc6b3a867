//! How quinn is set up.

use std::sync::Arc;
use std::time::Duration;

use qpipe_proto::limits::{STREAM_OVERHEAD_BYTES, WINDOW_BYTES_MAX};
use quinn::{EndpointConfig, IdleTimeout, TransportConfig, VarInt};

/// A connection on which nothing arrives for so long is over.
///
/// Until sessions resume on another connection, this also ends its pipes.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(10);

/// Something is sent at least so often, by both sides: a silent peer is a lost one.
const KEEP_ALIVE: Duration = Duration::from_secs(2);

/// First guess of the round trip. quinn's 333 ms makes a lost first packet cost a second.
const INITIAL_RTT: Duration = Duration::from_millis(100);

/// Content of a window in chunks of one byte, each with a header of one byte, and header and
/// trailer of the stream.
const STREAM_WINDOW_BYTES: u32 = (2 * WINDOW_BYTES_MAX + STREAM_OVERHEAD_BYTES) as u32;

/// The transport of both sides. QUIC's windows lie wide above the Limits that pipes feel.
pub(crate) fn config(is_server: bool) -> Arc<TransportConfig> {
    let mut config = TransportConfig::default();
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(u32::from(is_server)))
        // No pipe stream before Hello.
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::MAX)
        // What pipes may buffer is bounded by their Limits and the budget, pipe by pipe: a shared
        // window would let one stalled pipe stop the others.
        .send_window(1 << 40)
        .initial_rtt(INITIAL_RTT)
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_idle_timeout(IdleTimeout::try_from(SILENCE_MAX).ok())
        .datagram_receive_buffer_size(None);
    Arc::new(config)
}

/// The endpoint of both sides.
pub(crate) fn endpoint_config() -> EndpointConfig {
    EndpointConfig::default()
}
