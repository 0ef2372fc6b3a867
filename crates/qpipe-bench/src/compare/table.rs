//! The result as a page for people.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use super::{
    peer::Peer,
    row::{Asked, Row},
    sample::{Sample, median, median_of},
};
use crate::run::find;

/// Between these marks a page has what was measured last.
const BEGIN: &str = "<!-- measured: from here on, bench/compare.sh writes -->";
const END: &str = "<!-- measured: to here -->";

/// The values that are shown, with their headings.
const COLUMNS: [(&str, &str); 25] = [
    ("mbit_s", "Mbit/s"),
    ("rival_mbit_s", "TCP, Mbit/s"),
    ("our_share", "our share"),
    ("share", "of the link"),
    ("jain", "Jain"),
    ("silent", "silent pipes"),
    ("pipes_s", "pipes/s"),
    ("seconds", "last byte, s"),
    ("client_s", "client ends, s"),
    ("first_5mb_s", "first 5 MB, s"),
    ("rtt_ms", "smoothed RTT, ms"),
    ("rtt_ratio", "RTT ÷ base"),
    ("p50_ms", "p50, ms"),
    ("p99_ms", "p99, ms"),
    ("p999_ms", "p99.9, ms"),
    ("missing", "missing"),
    ("bulk_mbit_s", "bulk, Mbit/s"),
    ("bytes_per_pipe_writer", "bytes/pipe, writer"),
    ("bytes_per_pipe_reader", "bytes/pipe, reader"),
    ("process_ms", "process, ms"),
    ("node_ms", "in main, ms"),
    ("cpu_ms", "CPU, ms"),
    ("cpu_s_gib", "CPU s/GiB"),
    ("rss_mib", "peak MiB"),
    ("ratio", "÷ qpipe"),
];

/// What is divided by the first program's: the first of these that a row has.
const MAIN: [&str; 4] = ["pipes_s", "p99_ms", "mbit_s", "seconds"];

/// Everything that was measured, and what [`machine`] said then.
pub(super) fn text(made_on: &str, rows: &[Row], samples: &[Sample]) -> String {
    let mut text = format!("{made_on}\n\n{}", asked(rows, samples));
    for row in rows {
        if samples.iter().any(|sample| sample.row == row.name) {
            text += &format!("\n### {}\n\n{}", row.about, measured(row, samples));
        }
    }
    text
}

/// What it is measured on, and which qpipe is.
pub(super) fn machine(path: &[PathBuf]) -> String {
    let read = |file| fs::read_to_string(file).unwrap_or_default().trim().to_owned();
    let model = processor();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = read("/proc/sys/kernel/osrelease");
    let tcp = read("/proc/sys/net/ipv4/tcp_congestion_control");
    let buffers = read("/proc/sys/net/core/rmem_max");
    let qpipe = version(path).unwrap_or_else(|| "no qpipe".to_owned());
    format!(
        "{cores} cores ({model}), Linux {kernel}; TCP is {tcp} unless said otherwise; socket \
         buffers of at most {buffers} bytes. {qpipe}."
    )
}

/// What `qpipe --version` says, but for its TLS library, in one line.
fn version(path: &[PathBuf]) -> Option<String> {
    let program = find("qpipe", path.iter().cloned())?;
    let output = Command::new(program).arg("--version").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let lines: Vec<_> = text.lines().take_while(|line| !line.starts_with("TLS")).collect();
    Some(lines.join(", "))
}

/// The processor's model.
pub(super) fn processor() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name"));
    model.map_or("unknown processor", |line| line.trim_start_matches([' ', '\t', ':'])).to_owned()
}

/// What is asked for, and what came of it.
fn asked(rows: &[Row], samples: &[Sample]) -> String {
    let head = "| on | measure | asked | measured | |\n| --- | --- | --- | --- | --- |\n";
    let mut text = head.to_owned();
    for row in rows {
        for asked in &row.asked {
            let Some(value) = value(row, asked, samples) else { continue };
            let verdict = match (asked.bound.is_kept(value), asked.is_only_told) {
                (true, _) => "yes",
                (false, true) => "told",
                (false, false) => "**no**",
            };
            let times = if asked.theirs.is_some() { " ×" } else { "" };
            text += &format!(
                "| {} | {} | {}{times} | {}{times} | {verdict} |\n",
                row.about,
                asked.what,
                asked.bound,
                number(value)
            );
        }
    }
    text
}

/// The figure, from medians.
pub(super) fn value(row: &Row, asked: &Asked, samples: &[Sample]) -> Option<f64> {
    let (peer, name) = asked.ours;
    let ours = median(samples, &row.name, peer, name)?;
    match &asked.theirs {
        Some((row, peer, name)) => Some(ours / median(samples, row, *peer, name)?),
        None => Some(ours),
    }
}

/// One row: programs and medians.
fn measured(row: &Row, samples: &[Sample]) -> String {
    let here: Vec<&Sample> = samples.iter().filter(|sample| sample.row == row.name).collect();
    let names: BTreeSet<&str> =
        here.iter().flat_map(|sample| sample.values.keys().map(String::as_str)).collect();
    let main = MAIN.into_iter().find(|name| names.contains(name));
    let columns: Vec<_> = COLUMNS
        .iter()
        .filter(|(name, _)| names.contains(name) || *name == "ratio" && row.peers.len() > 1)
        .collect();
    let heads: Vec<&str> = columns.iter().map(|(_, head)| *head).collect();
    let mut text =
        format!("| | {} | runs |\n|{}\n", heads.join(" | "), " --- |".repeat(heads.len() + 2));
    for peer in &row.peers {
        let of_peer = || here.iter().filter(|sample| sample.peer == *peer);
        let good = of_peer().filter(|sample| sample.failure.is_none()).count();
        if let Some(failure) =
            of_peer().find_map(|sample| sample.failure.as_deref()).filter(|_| good == 0)
        {
            let failure = failure.replace('|', "/");
            text += &format!("| {} | {failure} |{}\n", peer.name(), " |".repeat(heads.len()));
            continue;
        }
        if good == 0 {
            continue;
        }
        let cell = |name: &str| match (name, main) {
            ("ratio", Some(main)) => ratio(row, *peer, main, samples),
            _ => median(samples, &row.name, *peer, name).map_or(String::new(), number),
        };
        let cells: Vec<String> = columns.iter().map(|(name, _)| cell(name)).collect();
        let runs = format!("{good} of {}", of_peer().count());
        text += &format!("| {} | {} | {runs} |\n", peer.name(), cells.join(" | "));
    }
    if let Some(main) = main {
        text += &spread(row, main, samples);
    }
    text
}

/// A program's figure against that of the first one.
fn ratio(row: &Row, peer: Peer, name: &str, samples: &[Sample]) -> String {
    let first = row.peers.first().and_then(|peer| median(samples, &row.name, *peer, name));
    let this = median(samples, &row.name, peer, name);
    first.zip(this).map_or(String::new(), |(first, this)| format!("{:.2}", this / first))
}

/// How far the runs of the first program were apart.
fn spread(row: &Row, name: &str, samples: &[Sample]) -> String {
    let Some(peer) = row.peers.first() else { return String::new() };
    let of_first = samples.iter().filter(|one| one.row == row.name && one.peer == *peer);
    let values: Vec<f64> = of_first.filter_map(|one| one.values.get(name).copied()).collect();
    let (Some(low), Some(high)) =
        (values.iter().copied().reduce(f64::min), values.iter().copied().reduce(f64::max))
    else {
        return String::new();
    };
    let head = COLUMNS.iter().find(|(column, _)| *column == name).map_or(name, |(_, head)| head);
    match median_of(values) {
        Some(_) if low < high => {
            format!("\n{}: {} to {} {head}.\n", peer.name(), number(low), number(high))
        }
        _ => String::new(),
    }
}

/// As many digits as mean something.
fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// Puts text and plots into a page, and the plots beside it.
pub(super) fn put_into(page: &Path, text: &str, plots: &[(&str, String)]) -> Result<()> {
    let old = fs::read_to_string(page).with_context(|| page.display().to_string())?;
    let (before, rest) = old.split_once(BEGIN).context("the page has no mark to write at")?;
    let (_, after) = rest.split_once(END).context("the page has no mark to write to")?;
    let mut images = String::new();
    let stem = page.file_stem().unwrap_or_default().to_string_lossy();
    for (name, svg) in plots {
        let name = format!("{stem}-{name}");
        fs::write(page.with_file_name(&name), svg)?;
        images += &format!("![{}]({name})\n\n", name.trim_end_matches(".svg"));
    }
    fs::write(page, format!("{before}{BEGIN}\n\n{images}{text}\n{END}{after}"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_keeps_what_is_outside_of_the_marks() {
        let page = tempfile::NamedTempFile::new().unwrap();
        fs::write(page.path(), format!("above\n{BEGIN}old{END}\nbelow\n")).unwrap();
        put_into(page.path(), "new", &[]).unwrap();
        let written = fs::read_to_string(page.path()).unwrap();
        assert_eq!(written, format!("above\n{BEGIN}\n\nnew\n{END}\nbelow\n"));
    }

    #[test]
    fn numbers_have_three_digits() {
        assert_eq!(number(1234.5), "1234");
        assert_eq!(number(0.9567), "0.957");
        assert_eq!(number(12.34), "12.3");
    }
}
