//! The parameters of a link, and the one grammar (`key value`) by which the
//! command line, the configuration file and the control socket set them.

use std::str::FromStr;

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::units::{
    MILLISECOND, Nanos, SECOND, parse_duration, parse_probability, parse_rate, parse_size,
    parse_switch,
};

/// The smallest automatic queue limit.
const MIN_AUTO_QUEUE: u64 = 64 * 1024;

/// Everything that describes one direction of a link.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct LinkParams {
    /// Bits per second; `None` is unlimited.
    pub(crate) rate: Option<u64>,
    /// Queue limit in bytes; `None` is automatic.
    pub(crate) queue: Option<u64>,
    #[serde(rename = "delay_ns")]
    pub(crate) delay: Nanos,
    #[serde(rename = "jitter_ns")]
    pub(crate) jitter: Nanos,
    pub(crate) jitter_dist: JitterDist,
    /// Draw the jitter independently for each packet, so that it reorders.
    pub(crate) jitter_reorder: bool,
    pub(crate) loss: f64,
    pub(crate) loss_burst: Option<BurstLoss>,
    pub(crate) dup: f64,
    pub(crate) reorder: f64,
    #[serde(rename = "reorder_delay_ns")]
    pub(crate) reorder_delay: Nanos,
    pub(crate) corrupt: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum JitterDist {
    /// Within ±jitter.
    Uniform,
    /// The jitter is one standard deviation; cut off at three.
    Normal,
}

/// Gilbert-Elliott loss: every packet is lost in the bad state, none in the good one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct BurstLoss {
    /// Chance per packet of going from good to bad.
    pub(crate) p: f64,
    /// Chance per packet of going from bad to good.
    pub(crate) r: f64,
}

impl Default for LinkParams {
    fn default() -> Self {
        Self {
            rate: None,
            queue: None,
            delay: 0,
            jitter: 0,
            jitter_dist: JitterDist::Uniform,
            jitter_reorder: false,
            loss: 0.0,
            loss_burst: None,
            dup: 0.0,
            reorder: 0.0,
            reorder_delay: 5 * MILLISECOND,
            corrupt: 0.0,
        }
    }
}

/// A link parameter as users see it.
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) value_name: &'static str,
    pub(crate) help: &'static str,
}

const fn key(name: &'static str, value_name: &'static str, help: &'static str) -> Key {
    Key { name, value_name, help }
}

/// Every key that [`LinkParams::set`] understands.
pub(crate) const KEYS: &[Key] = &[
    key("rate", "RATE", "Bit rate: 10mbit, 1gbit, unlimited [default: unlimited]"),
    key(
        "queue",
        "SIZE",
        "Drop-tail queue limit: 64KiB, auto [default: auto, max of 64 KiB and rate x 2 x delay]",
    ),
    key("delay", "TIME", "One-way delay: 20ms, 300us; a bare number is in ms [default: 0]"),
    key(
        "jitter",
        "TIME",
        "Variation of the delay, in order unless --jitter-reorder is set [default: 0]",
    ),
    key(
        "jitter-dist",
        "DIST",
        "uniform (within +-jitter) or normal (jitter is one standard deviation) [default: uniform]",
    ),
    key(
        "jitter-reorder",
        "on|off",
        "Draw the jitter for each packet alone, so that packets overtake each other [default: off]",
    ),
    key("loss", "PROB", "Independent random loss: 0.01 or 1% [default: 0]"),
    key(
        "loss-burst",
        "P,R",
        "Burst loss: chance to enter and to leave the losing state, or off [default: off]",
    ),
    key("dup", "PROB", "Chance that a packet arrives twice [default: 0]"),
    key(
        "reorder",
        "PROB",
        "Chance that a packet is held back, so that later ones overtake it [default: 0]",
    ),
    key("reorder-delay", "TIME", "How long such a packet is held back [default: 5ms]"),
    key("corrupt", "PROB", "Chance that one random bit of a packet is flipped [default: 0]"),
];

impl LinkParams {
    /// Sets one parameter from text.
    pub(crate) fn set(&mut self, key: &str, value: &str) -> Result<()> {
        self.try_set(key, value).with_context(|| format!("{key} {value}"))
    }

    fn try_set(&mut self, key: &str, value: &str) -> Result<()> {
        match key {
            "rate" => self.rate = parse_rate(value)?,
            "queue" if value == "auto" => self.queue = None,
            "queue" => self.queue = Some(parse_size(value)?),
            "delay" => self.delay = parse_duration(value, MILLISECOND)?,
            "jitter" => self.jitter = parse_duration(value, MILLISECOND)?,
            "jitter-dist" => {
                self.jitter_dist = match value {
                    "uniform" => JitterDist::Uniform,
                    "normal" => JitterDist::Normal,
                    _ => bail!("use `uniform` or `normal`"),
                }
            }
            "jitter-reorder" => self.jitter_reorder = parse_switch(value)?,
            "loss" => self.loss = parse_probability(value)?,
            "loss-burst" if value == "off" => self.loss_burst = None,
            "loss-burst" => self.loss_burst = Some(value.parse()?),
            "dup" => self.dup = parse_probability(value)?,
            "reorder" => self.reorder = parse_probability(value)?,
            "reorder-delay" => self.reorder_delay = parse_duration(value, MILLISECOND)?,
            "corrupt" => self.corrupt = parse_probability(value)?,
            _ => bail!("there is no such link parameter"),
        }
        Ok(())
    }

    /// The queue limit in bytes that is in force.
    pub(crate) fn queue_limit(&self) -> u64 {
        match (self.queue, self.rate) {
            (Some(bytes), _) => bytes,
            (None, None) => u64::MAX,
            (None, Some(rate)) => {
                let round_trip = 2.0 * self.delay as f64 / SECOND as f64;
                MIN_AUTO_QUEUE.max((rate as f64 / 8.0 * round_trip) as u64)
            }
        }
    }

    /// How far the jitter can move a delay at most, either way.
    pub(crate) fn max_jitter(&self) -> Nanos {
        match self.jitter_dist {
            JitterDist::Uniform => self.jitter,
            JitterDist::Normal => 3 * self.jitter,
        }
    }
}

impl FromStr for BurstLoss {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (p, r) = text.split_once(',').ok_or_else(|| anyhow!("use P,R"))?;
        Ok(Self { p: parse_probability(p)?, r: parse_probability(r)? })
    }
}

/// A span of time during which every link drops everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Outage {
    pub(crate) start: Nanos,
    pub(crate) end: Nanos,
}

impl Outage {
    pub(crate) fn covers(&self, time: Nanos) -> bool {
        (self.start..self.end).contains(&time)
    }
}

impl FromStr for Outage {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (start, length) = text
            .split_once('+')
            .ok_or_else(|| anyhow!("use START+DURATION, for example 5s+500ms"))?;
        let start = parse_duration(start, SECOND)?;
        let length = parse_duration(length, SECOND)?;
        ensure!(length > 0, "an outage must last for some time");
        Ok(Self { start, end: start + length })
    }
}

impl TryFrom<String> for Outage {
    type Error = anyhow::Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_understood() {
        for key in KEYS {
            let error = LinkParams::default().set(key.name, "?").unwrap_err();
            assert!(!format!("{error:#}").contains("no such"), "{}", key.name);
        }
        assert!(LinkParams::default().set("colour", "red").is_err());
    }

    #[test]
    fn setting() {
        let mut params = LinkParams::default();
        params.set("rate", "8mbit").unwrap();
        params.set("delay", "50").unwrap();
        params.set("loss-burst", "1%,0.25").unwrap();
        assert_eq!(params.rate, Some(8_000_000));
        assert_eq!(params.delay, 50 * MILLISECOND);
        assert_eq!(params.loss_burst, Some(BurstLoss { p: 0.01, r: 0.25 }));
        params.set("loss-burst", "off").unwrap();
        assert_eq!(params.loss_burst, None);
    }

    #[test]
    fn automatic_queue_is_one_bdp_but_not_tiny() {
        let mut params = LinkParams { rate: Some(80_000_000), ..Default::default() };
        assert_eq!(params.queue_limit(), 64 * 1024);
        params.delay = 50 * MILLISECOND;
        assert_eq!(params.queue_limit(), 1_000_000);
        params.queue = Some(3000);
        assert_eq!(params.queue_limit(), 3000);
    }

    #[test]
    fn outages() {
        let outage: Outage = "5+500ms".parse().unwrap();
        assert!(!outage.covers(5 * SECOND - 1));
        assert!(outage.covers(5 * SECOND));
        assert!(!outage.covers(5 * SECOND + 500 * MILLISECOND));
        assert!("5".parse::<Outage>().is_err());
        assert!("5+0".parse::<Outage>().is_err());
    }
}
