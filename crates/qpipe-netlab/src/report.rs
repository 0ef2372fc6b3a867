//! What a lab tells about itself.

use std::{collections::BTreeMap, fmt};

use serde::Serialize;
use toml::Value;

use crate::{link::LinkStats, router::HostStats};

/// The counters of a lab.
#[derive(Serialize)]
pub(crate) struct Report {
    pub(crate) seed: u64,
    pub(crate) seconds: f64,
    /// By letters of source and destination.
    pub(crate) links: BTreeMap<String, LinkStats>,
    pub(crate) hosts: BTreeMap<String, HostReport>,
}

#[derive(Serialize)]
pub(crate) struct HostReport {
    #[serde(flatten)]
    pub(crate) stats: HostStats,
    /// Dropped by the kernel before the emulator, which was too slow to read them.
    pub(crate) tun_overflow: u64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        writeln!(f, "netlab: {:.1} s, seed {}", self.seconds, self.seed)?;
        writeln!(
            f,
            "link  {:>10} {:>9} {:>10} {:>9} {:>8} {:>8} {:>8} {:>7} {:>7} {:>7} {:>9}",
            "in",
            "MB",
            "delivered",
            "MB",
            "queue",
            "loss",
            "outage",
            "corrupt",
            "dup",
            "reorder",
            "max queue"
        )?;
        for (pair, link) in &self.links {
            if link.packets_in == 0 && self.links.len() > 2 {
                continue;
            }
            writeln!(
                f,
                "{}->{}  {:>10} {:>9.2} {:>10} {:>9.2} {:>8} {:>8} {:>8} {:>7} {:>7} {:>7} {:>9}",
                &pair[..1],
                &pair[1..],
                link.packets_in,
                link.bytes_in as f64 / 1e6,
                link.packets_delivered,
                link.bytes_delivered as f64 / 1e6,
                link.dropped_queue,
                link.dropped_loss,
                link.dropped_outage,
                link.corrupted,
                link.duplicated,
                link.reordered,
                link.max_queue_bytes,
            )?;
        }
        self.hosts.iter().try_for_each(|(host, report)| report.describe(host, f))
    }
}

impl HostReport {
    /// One line for each kind of trouble that it had.
    fn describe(&self, host: &str, f: &mut fmt::Formatter) -> fmt::Result {
        let HostReport { stats, tun_overflow } = self;
        for (number, what) in [
            (stats.stale_address, "packets from or to an address that it or its peer has not"),
            (stats.write_errors, "packets refused by the receiving kernel"),
            (*tun_overflow, "packets lost before the emulator, which was too slow"),
        ] {
            if number > 0 {
                writeln!(f, "host {host}: {number} {what}")?;
            }
        }
        Ok(())
    }
}

/// What serialises to tables, as words `table.key=value` on one line.
pub(crate) fn one_line(value: &impl Serialize) -> Result<String, toml::ser::Error> {
    let mut words = Vec::new();
    gather("", &Value::try_from(value)?, &mut words);
    Ok(words.join(" "))
}

fn gather(name: &str, value: &Value, words: &mut Vec<String>) {
    let Value::Table(table) = value else { return words.push(format!("{name}={value}")) };
    for (key, value) in table {
        let dot = if name.is_empty() { "" } else { "." };
        gather(&format!("{name}{dot}{key}"), value, words);
    }
}
