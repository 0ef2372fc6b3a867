//! How a flow's two connections are set up.

use std::sync::Arc;
use std::time::Duration;

use qpipe_congestion::ModelFactory;
use quinn_proto::congestion::{ControllerFactory, CubicConfig, NewRenoConfig};
use quinn_proto::{IdleTimeout, TransportConfig, VarInt};

use super::bbr::BbrFactory;

/// What controls a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// A stand-in for the kernel's BBR.
    Bbr,
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
    /// Whether the host paces it at the rate that it says, instead of quinn by its window.
    pub(super) fn is_paced_by_host(self) -> bool {
        self == Algorithm::Bbr
    }

    /// Datagrams that a connection makes at once, as quinn does.
    pub(super) fn batch(self) -> usize {
        if self.is_paced_by_host() { 1 } else { 10 }
    }

    /// The transport of a connection that it controls.
    pub(super) fn transport(self) -> Arc<TransportConfig> {
        let factory: Arc<dyn ControllerFactory + Send + Sync> = match self {
            Algorithm::Bbr => Arc::new(BbrFactory),
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
