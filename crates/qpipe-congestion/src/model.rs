//! The controller: a model of the path, and the window that follows from it.
//!
//! ```text
//!            plateau, or loss with delay        drained
//!   Startup ─────────────────────────────▶ Down ───────▶ Cruise ──────────┐
//!      ▲                                    ▲  ▲            │ some rounds  │
//!      │ persistent congestion, long pause  │  └─ queue ────┘ stays        │
//!      │                                    └───── no more to be had ── Up ◀┘
//! ```
//!
//! The window is all that quinn lets a controller say; its pacer spreads 1.25 windows over a smoothed
//! round trip. So phases differ in the window, in bandwidth-delay products.

mod phases;
mod rounds;
mod window;
mod yields;

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn_proto::RttEstimator;
use quinn_proto::congestion::{Controller, ControllerFactory, ControllerMetrics};

use self::phases::Phase;
use self::rounds::Books;
use self::yields::Others;
use crate::contest::MaxRtt;
use crate::filter::{MaxRate, MinRtt, Pauses};
use crate::policer::Policer;
use crate::rate::Sampler;

/// Packets of the first window. RFC 6928 allows 10; they are paced, and what a path of 1 Mbit/s
/// queues of them is gone in 0.4 s.
const INITIAL_PACKETS: u64 = 32;

/// Fewer packets would wait for delayed acknowledgements (RFC 9002 asks for two at least).
const PACKETS_MIN: u64 = 4;

/// Rounds of cruising; up to three more, so that flows do not keep step.
const CRUISE_ROUNDS: u64 = 6;

/// Delay that hosts cause themselves, by timers and batches: on a LAN it is most of the round trip.
const HOST_DELAY: Duration = Duration::from_millis(3);

/// How much of that the window makes up for where hosts are not crowded and somebody sends little. A receiver that
/// was held up works off what has come meanwhile, and is heard long before the rest is here; what more there is
/// waits before everything else that is sent.
const HOST_SLACK: Duration = Duration::from_micros(100);

/// The same where nobody minds a delay. Bulk comes in the portions that programs write and read.
const BULK_SLACK: Duration = Duration::from_millis(2);

/// And at least: so much the kernel sends at once, and who has less to wait for does not wait long.
const HOST_SLACK_BYTES: f64 = 65_536.0;

/// Packets that fit into any queue, in the window and in its delay.
const QUEUE_PACKETS: f64 = 2.0;

/// Packets that quinn sends without telling.
const BATCH_PACKETS: u64 = 10;

/// Losses that the window makes up for; more than this is congestion whatever the delay.
const RANDOM_LOSS_MAX: f64 = 0.2;
const LOSS_CEILING: f64 = 0.35;

/// A window that was not used for so long says nothing of the path any more.
const STALE: Duration = Duration::from_secs(10);

/// Makes [`Model`]s.
#[derive(Clone, Copy, Debug, Default)]
pub struct ModelFactory;

impl ControllerFactory for ModelFactory {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(Model::new(now, current_mtu))
    }
}

/// A model of one path, and where the controller is in its cycle.
#[derive(Clone, Debug)]
pub struct Model {
    mtu: u64,
    window: u64,
    in_flight: u64,
    /// What the pacer is told of the window while it is not in use, as its multiple.
    haste: u64,
    /// The least that the window makes up for, of what hosts delay.
    slack: Duration,
    /// The last round was held up by this host, not by its window.
    is_held_up: bool,
    sampler: Sampler,
    rate: MaxRate,
    /// The largest rate in a longer time, which fades.
    peak: f64,
    /// The same, for longer.
    held: f64,
    min_rtt: MinRtt,
    max_rtt: MaxRtt,
    phase: Phase,
    /// Rounds so far, when this phase began, and what was delivered when this round's end was sent.
    round: u64,
    phase_round: u64,
    round_ends: u64,
    books: Books,
    /// Of Startup and Up: the bandwidth that growth is measured against, rounds without growth.
    full: f64,
    plateau: u32,
    /// Rounds of this Cruise.
    cruise: u64,
    /// A probe has ended since the last Cruise, and the round from which the next is due: draining
    /// a queue does not put it off, or who yields most would probe least.
    is_probed: bool,
    up_at: u64,
    /// The phase's drain reached its window in this round.
    drained: Option<u64>,
    /// Whether this Down is a deep one.
    is_dip: bool,
    others: Others,
    policer: Policer,
    /// Loss with delay has shown that more than this does not fit.
    ceiling: Option<u64>,
    /// What acknowledgements brought beyond the rate since an epoch began: bytes, its beginning; and
    /// the most of late.
    burst: (u64, Instant),
    bursts: MaxRate,
    /// When an acknowledgement came last, and the pauses between them.
    heard: Instant,
    pauses: Pauses,
    /// When the window was last in use.
    used_at: Instant,
}

impl Model {
    /// A controller that knows nothing yet of a path whose packets have up to `mtu` bytes.
    pub fn new(now: Instant, mtu: u16) -> Model {
        let mtu = u64::from(mtu);
        Model {
            mtu,
            window: INITIAL_PACKETS * mtu,
            in_flight: 0,
            haste: 1,
            slack: BULK_SLACK,
            is_held_up: false,
            sampler: Sampler::new(now),
            rate: MaxRate::default(),
            peak: 0.0,
            held: 0.0,
            min_rtt: MinRtt::new(now),
            max_rtt: MaxRtt::new(now),
            phase: Phase::Startup,
            round: 0,
            phase_round: 0,
            round_ends: 0,
            books: Books::new(now),
            full: 0.0,
            plateau: 0,
            cruise: CRUISE_ROUNDS,
            is_probed: true,
            up_at: 0,
            drained: None,
            is_dip: false,
            others: Others::new(now),
            policer: Policer::new(),
            ceiling: None,
            burst: (0, now),
            bursts: MaxRate::default(),
            heard: now,
            pauses: Pauses::default(),
            used_at: now,
        }
    }

    /// Says whether somebody sends little, who would wait behind others. A queue within
    /// hosts and a LAN is then kept shorter than bulk alone is best served with. At first nobody does.
    pub fn set_interactive(&mut self, is_interactive: bool) {
        self.slack = if is_interactive { HOST_SLACK } else { BULK_SLACK };
    }
}

impl Controller for Model {
    fn on_sent(&mut self, now: Instant, bytes: u64, _last_packet_number: u64) {
        if 2 * self.in_flight > self.window {
            self.used_at = now;
        } else if self.in_flight == 0 && now.saturating_duration_since(self.used_at) > STALE {
            self.restart(now, self.window / 2);
            self.used_at = now;
        }
        self.sampler.on_sent(now, self.in_flight);
        self.in_flight += bytes;
        self.books.most = self.books.most.max(self.in_flight);
    }

    fn on_ack(
        &mut self,
        now: Instant,
        sent: Instant,
        bytes: u64,
        _app_limited: bool,
        _rtt: &RttEstimator,
    ) {
        self.sampler.on_ack(now, sent, bytes);
    }

    fn on_end_acks(
        &mut self,
        now: Instant,
        in_flight: u64,
        app_limited: bool,
        _largest_packet_num_acked: Option<u64>,
    ) {
        self.in_flight = in_flight;
        if let Some(sample) = self.sampler.take(now, in_flight, app_limited) {
            self.learn(now, sample);
            self.adjust(now, sample);
        }
    }

    fn on_congestion_event(
        &mut self,
        now: Instant,
        sent: Instant,
        is_persistent_congestion: bool,
        lost_bytes: u64,
    ) {
        self.in_flight = self.in_flight.saturating_sub(lost_bytes);
        self.books.lost += lost_bytes;
        if is_persistent_congestion {
            // Whatever the path was, it is not known any more (RFC 9002, section 7.6).
            self.restart(now, 0);
        } else if lost_bytes == 0 {
            self.congested();
        }
        self.contend(now, sent);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.mtu = u64::from(new_mtu);
    }

    /// The window; a multiple of it while it has room for a batch, which only the pacer minds.
    fn window(&self) -> u64 {
        let window = self.window.max(PACKETS_MIN * self.mtu);
        if self.in_flight + BATCH_PACKETS * self.mtu < window {
            window * self.haste
        } else {
            window
        }
    }

    fn metrics(&self) -> ControllerMetrics {
        let mut metrics = ControllerMetrics::default();
        metrics.congestion_window = self.window;
        metrics.pacing_rate = Some((self.rate.get() * 8.0) as u64);
        metrics
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        INITIAL_PACKETS * self.mtu
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
