//! How a flow's two connections are set up.

use std::sync::Arc;
use std::time::Duration;

use qpipe_congestion::ModelFactory;
use quinn_proto::congestion::{ControllerFactory, CubicConfig, NewRenoConfig};
use quinn_proto::{IdleTimeout, TransportConfig, VarInt};

/// What controls a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// quinn's CUBIC.
    Cubic,
    /// quinn's NewReno.
    NewReno,
    /// qpipe's own.
    Own,
}

/// Wide enough for any path here: the window is to be the controller's alone.
const WINDOW_BYTES: u32 = 256 * 1024 * 1024;

/// As in the product.
const INITIAL_RTT: Duration = Duration::from_millis(100);

/// Longer than any outage here.
const SILENCE_MAX: Duration = Duration::from_secs(600);

impl Algorithm {
    /// The transport of a connection that it controls.
    pub(super) fn transport(self) -> Arc<TransportConfig> {
        let factory: Arc<dyn ControllerFactory + Send + Sync> = match self {
            Algorithm::Cubic => Arc::new(CubicConfig::default()),
            Algorithm::NewReno => Arc::new(NewRenoConfig::default()),
            Algorithm::Own => Arc::new(ModelFactory),
        };
        let mut config = TransportConfig::default();
        config
            .stream_receive_window(VarInt::from_u32(WINDOW_BYTES))
            .send_window(u64::from(WINDOW_BYTES))
            .initial_rtt(INITIAL_RTT)
            .keep_alive_interval(Some(Duration::from_secs(1)))
            .max_idle_timeout(IdleTimeout::try_from(SILENCE_MAX).ok())
            .congestion_controller_factory(factory);
        Arc::new(config)
    }
}
