//! Parsing of human-readable rates, sizes, durations and probabilities.

use anyhow::{Result, bail, ensure};

/// Nanoseconds: either a duration, or a point in time counted from the lab's start.
pub(crate) type Nanos = u64;

pub(crate) const MICROSECOND: Nanos = 1_000;
pub(crate) const MILLISECOND: Nanos = 1_000_000;
pub(crate) const SECOND: Nanos = 1_000_000_000;

/// Splits "12.5ms" into its number and its lower-cased suffix.
fn number_and_suffix(text: &str) -> Result<(f64, String)> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(split);
    let Ok(value) = number.parse() else {
        bail!("`{text}` does not start with a number");
    };
    Ok((value, suffix.trim().to_ascii_lowercase()))
}

/// A duration such as `20ms`, `1.5s`, `300us`; a bare number counts in `bare_unit`.
pub(crate) fn parse_duration(text: &str, bare_unit: Nanos) -> Result<Nanos> {
    let (value, suffix) = number_and_suffix(text)?;
    let unit = match suffix.as_str() {
        "" => bare_unit,
        "ns" => 1,
        "us" | "µs" => MICROSECOND,
        "ms" => MILLISECOND,
        "s" | "sec" => SECOND,
        "m" | "min" => 60 * SECOND,
        other => bail!("unknown unit of time `{other}` (use ns, us, ms, s or min)"),
    };
    Ok((value * unit as f64).round() as Nanos)
}

/// A rate in bits per second such as `100mbit`; `None` stands for `unlimited`.
pub(crate) fn parse_rate(text: &str) -> Result<Option<u64>> {
    if text.trim().eq_ignore_ascii_case("unlimited") {
        return Ok(None);
    }
    let (value, suffix) = number_and_suffix(text)?;
    let unit = match suffix.trim_end_matches("/s") {
        "" | "bit" => 1e0,
        "k" | "kbit" => 1e3,
        "m" | "mbit" => 1e6,
        "g" | "gbit" => 1e9,
        other => bail!("unknown rate unit `{other}` (use bit, kbit, mbit, gbit, or `unlimited`)"),
    };
    let bits = (value * unit).round() as u64;
    ensure!(bits > 0, "a rate must be above zero (use `down` for a dead link)");
    Ok(Some(bits))
}

/// A size in bytes such as `64KiB` or `1mb`.
pub(crate) fn parse_size(text: &str) -> Result<u64> {
    let (value, suffix) = number_and_suffix(text)?;
    let unit = match suffix.as_str() {
        "" | "b" => 1.0,
        "kb" => 1e3,
        "mb" => 1e6,
        "k" | "kib" => 1024.0,
        "m" | "mib" => 1024.0 * 1024.0,
        other => bail!("unknown size unit `{other}` (use b, kb, mb, KiB or MiB)"),
    };
    Ok((value * unit).round() as u64)
}

/// A probability such as `0.05`, `1e-4` or `5%`.
pub(crate) fn parse_probability(text: &str) -> Result<f64> {
    let text = text.trim();
    let parsed = match text.strip_suffix('%') {
        Some(percent) => percent.trim().parse::<f64>().map(|value| value / 100.0),
        None => text.parse(),
    };
    match parsed {
        Ok(value) if (0.0..=1.0).contains(&value) => Ok(value),
        _ => bail!("`{text}` is not a probability (use 0 to 1, or a percentage)"),
    }
}

/// `on`/`off` and their usual synonyms.
pub(crate) fn parse_switch(text: &str) -> Result<bool> {
    match text.trim() {
        "on" | "true" | "yes" | "1" => Ok(true),
        "off" | "false" | "no" | "0" => Ok(false),
        other => bail!("`{other}` is neither `on` nor `off`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(parse_duration("20ms", SECOND).unwrap(), 20 * MILLISECOND);
        assert_eq!(parse_duration("1.5s", MILLISECOND).unwrap(), 1500 * MILLISECOND);
        assert_eq!(parse_duration("7", MILLISECOND).unwrap(), 7 * MILLISECOND);
        assert_eq!(parse_duration("2 min", SECOND).unwrap(), 120 * SECOND);
        assert!(parse_duration("-1ms", SECOND).is_err());
        assert!(parse_duration("5 parsecs", SECOND).is_err());
    }

    #[test]
    fn rates() {
        assert_eq!(parse_rate("100mbit").unwrap(), Some(100_000_000));
        assert_eq!(parse_rate("1.5Gbit/s").unwrap(), Some(1_500_000_000));
        assert_eq!(parse_rate("64k").unwrap(), Some(64_000));
        assert_eq!(parse_rate("unlimited").unwrap(), None);
        assert!(parse_rate("0").is_err());
        assert!(parse_rate("10mb").is_err());
    }

    #[test]
    fn sizes() {
        assert_eq!(parse_size("64KiB").unwrap(), 65536);
        assert_eq!(parse_size("64kb").unwrap(), 64000);
        assert_eq!(parse_size("1500").unwrap(), 1500);
        assert!(parse_size("1 truckload").is_err());
    }

    #[test]
    fn probabilities_and_switches() {
        assert_eq!(parse_probability("0.05").unwrap(), 0.05);
        assert_eq!(parse_probability("5%").unwrap(), 0.05);
        assert_eq!(parse_probability("1e-4").unwrap(), 0.0001);
        for bad in ["1.01", "-0.1", "NaN", "often"] {
            assert!(parse_probability(bad).is_err(), "{bad}");
        }
        assert!(parse_switch("on").unwrap());
        assert!(parse_switch("maybe").is_err());
    }
}
