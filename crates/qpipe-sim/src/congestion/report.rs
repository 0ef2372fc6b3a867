//! What came of a scene.

use std::time::Duration;

use crate::clock::Time;

/// What came of one flow.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Bytes at the reader by the end of each tenth of a second.
    pub received: Vec<u64>,
    /// The smoothed round trip at the end of each tenth of a second.
    pub rtt: Vec<Duration>,
    /// Packets that were lost, of those that were sent.
    pub lost: f64,
    /// When 5 MB were at the reader, from the flow's beginning.
    pub first_5mb: Option<Duration>,
}

/// How often a flow is looked at.
pub(super) const LOOK: Duration = Duration::from_millis(100);

impl Report {
    /// Bits in a second at the reader, in a part of the time.
    pub fn goodput(&self, from: Time, to: Time) -> f64 {
        let at = |time: Time| {
            let index = (time.as_millis() / LOOK.as_millis()) as usize;
            let last = self.received.len().saturating_sub(1);
            self.received.get(index.min(last)).copied().unwrap_or(0)
        };
        (at(to) - at(from)) as f64 * 8.0 / to.saturating_sub(from).as_secs_f64().max(1e-9)
    }

    /// The mean of the smoothed round trip, in a part of the time.
    pub fn mean_rtt(&self, from: Time, to: Time) -> Duration {
        let index = |time: Time| (time.as_millis() / LOOK.as_millis()) as usize;
        let to = index(to).min(self.rtt.len());
        let part = &self.rtt[index(from).min(to)..to];
        part.iter().sum::<Duration>() / part.len().max(1) as u32
    }
}

/// Jain's index of fairness: 1 if all are equal, 1/n if one has all.
pub fn jain(values: &[f64]) -> f64 {
    let sum: f64 = values.iter().sum();
    let squares: f64 = values.iter().map(|value| value * value).sum();
    sum * sum / (values.len() as f64 * squares).max(1e-9)
}
