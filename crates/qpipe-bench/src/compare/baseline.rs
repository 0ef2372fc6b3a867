//! Ratios that were measured before: none may become worse by more than a fifth.
//!
//! How programs compare depends on what a packet costs beside what a byte costs, and so on the processor:
//! each model has ratios of its own.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result, bail};

use super::{
    row::{Bound, Row},
    sample::Sample,
    table::{processor, value},
};

/// How much worse a ratio may be, as a share of it.
const TOLERANCE: f64 = 0.2;

/// What is compared: ratios, and shares of a link. Others depend on the machine.
const ABSOLUTE: [&str; 2] = ["share", "rtt_ratio"];

type Ratios = BTreeMap<String, f64>;

/// By the processor's model.
type Baseline = BTreeMap<String, Ratios>;

fn read(file: &Path) -> Result<Baseline> {
    let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
    serde_json::from_str(&text).with_context(|| file.display().to_string())
}

fn ratios(rows: &[Row], samples: &[Sample]) -> Vec<(String, f64, Bound)> {
    let mut all = Vec::new();
    for row in rows {
        for asked in &row.asked {
            let is_compared = asked.theirs.is_some() || ABSOLUTE.contains(&asked.ours.1);
            if let Some(value) = value(row, asked, samples).filter(|_| is_compared) {
                all.push((format!("{}: {}", row.name, asked.what), value, asked.bound));
            }
        }
    }
    all
}

/// Writes them down for this processor.
pub(super) fn write(file: &Path, rows: &[Row], samples: &[Sample]) -> Result<()> {
    let mut baseline = if file.exists() { read(file)? } else { Baseline::new() };
    let round = |value: f64| (value * 1000.0).round() / 1000.0;
    let ratios = ratios(rows, samples).into_iter().map(|(name, value, _)| (name, round(value)));
    baseline.insert(processor(), ratios.collect());
    let text = serde_json::to_string_pretty(&baseline)?;
    fs::write(file, text + "\n").with_context(|| file.display().to_string())
}

/// Fails if one is worse than it was, or is not there any more. Where this processor was never measured,
/// there is nothing to compare with, which is said.
pub(super) fn check(file: &Path, rows: &[Row], samples: &[Sample]) -> Result<()> {
    let baseline = read(file)?;
    let processor = processor();
    let Some(before) = baseline.get(&processor) else {
        let known: Vec<_> = baseline.keys().map(String::as_str).collect();
        let (file, known) = (file.display(), known.join(", "));
        eprintln!("skipped: {file} says nothing of {processor}, only of: {known}");
        return Ok(());
    };
    let now = ratios(rows, samples);
    let mut worse = Vec::new();
    for (name, before) in before {
        match now.iter().find(|(other, ..)| other == name) {
            None => worse.push(format!("{name}: not measured, was {before:.3}")),
            Some((_, now, bound)) if is_worse(*before, *now, *bound) => {
                worse.push(format!("{name}: {now:.3}, was {before:.3}"));
            }
            Some(_) => {}
        }
    }
    if worse.is_empty() {
        return Ok(());
    }
    bail!("worse by more than a fifth:\n{}", worse.join("\n"))
}

fn is_worse(before: f64, now: f64, bound: Bound) -> bool {
    match bound {
        Bound::AtLeast(_) => now < before * (1.0 - TOLERANCE),
        Bound::AtMost(_) => now > before * (1.0 + TOLERANCE),
        Bound::Between(least, most) => (least..=most).contains(&before) && !bound.is_kept(now),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fifth_is_tolerated_in_the_bad_direction_and_anything_in_the_good_one() {
        let least = Bound::AtLeast(1.0);
        assert!(!is_worse(1.0, 0.81, least) && is_worse(1.0, 0.79, least));
        assert!(!is_worse(1.0, 5.0, least));
        let most = Bound::AtMost(1.0);
        assert!(!is_worse(1.0, 1.19, most) && is_worse(1.0, 1.21, most));
        assert!(!is_worse(1.0, 0.1, most));
    }
}
