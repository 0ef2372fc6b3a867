//! One measurement, and the median of several.

use std::{collections::BTreeMap, fmt, fs, path::Path};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::peer::Peer;

/// What a measurement gave, by names that the table knows.
pub(super) type Values = BTreeMap<String, f64>;

/// One measurement.
#[derive(Deserialize, Serialize)]
pub(super) struct Sample {
    pub(super) row: String,
    pub(super) peer: Peer,
    /// From 1 on; programs alternate within a run.
    pub(super) run: usize,
    pub(super) values: Values,
    /// Why there are no values.
    pub(super) failure: Option<String>,
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}] {}:", self.row, self.run, self.peer.name())?;
        if let Some(failure) = &self.failure {
            return write!(f, " {failure}");
        }
        self.values.iter().try_for_each(|(name, value)| write!(f, " {name} {value:.3}"))
    }
}

pub(super) fn read(file: &Path) -> Result<Vec<Sample>> {
    let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let parse = |line| serde_json::from_str(line).context("a sample that is none");
    text.lines().map(parse).collect()
}

/// The median of what a program had in a row.
pub(super) fn median(samples: &[Sample], row: &str, peer: Peer, name: &str) -> Option<f64> {
    let of_these = samples.iter().filter(|sample| sample.row == row && sample.peer == peer);
    median_of(of_these.filter_map(|sample| sample.values.get(name).copied()).collect())
}

/// The median; of an even number, the mean of the two in the middle.
pub(super) fn median_of(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let (middle, last) = (values.len() / 2, values.len().checked_sub(1)?);
    Some((values[last / 2] + values[middle]) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_of_odd_and_even_numbers() {
        assert_eq!(median_of(vec![]), None);
        assert_eq!(median_of(vec![3.0]), Some(3.0));
        assert_eq!(median_of(vec![3.0, 1.0]), Some(2.0));
        assert_eq!(median_of(vec![9.0, 1.0, 2.0]), Some(2.0));
    }
}
