//! Two plots: goodput against loss, latency beside bulk.

use std::fmt::Write;

use super::{
    peer::Peer,
    sample::{Sample, median},
};

/// The drawing, in its own units: that of the whole, and the frame within it.
const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 460.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 310.0;

/// A colour for each program, told apart also by those who see no red or no green.
const COLOURS: [&str; 6] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];

/// The losses that there are rows for, in percent.
const LOSSES: [&str; 6] = ["0", "0.1", "1", "2", "5", "10"];

/// The rows with latency, with their labels.
const LATENCIES: [(&str, &str); 3] =
    [("echo-veth", "veth"), ("echo", "100 Mbit/s"), ("echo-2%", "2 % loss")];

/// Names and contents of those for which there are samples.
pub(super) fn plots(samples: &[Sample]) -> Vec<(&'static str, String)> {
    let loss = LOSSES.map(|percent| (format!("loss-{percent}%"), format!("{percent} %")));
    let echo = LATENCIES.map(|(row, label)| (row.to_owned(), label.to_owned()));
    let plots = [
        ("loss.svg", "Share of a 100 Mbit/s link, by loss", lines(&loss, samples)),
        ("latency.svg", "64 bytes and back beside bulk: p99, ms", bars(&echo, samples)),
    ];
    let drawn = plots.into_iter().filter_map(|(name, title, body)| Some((name, title, body?)));
    drawn.map(|(name, title, body)| (name, frame(title, &body))).collect()
}

/// Row and label of each place on the horizontal axis.
type Places = [(String, String)];

/// Who was measured in any of these rows, in the order of the table.
fn peers(places: &Places, samples: &[Sample]) -> Vec<Peer> {
    let is_here = |sample: &&Sample| {
        sample.failure.is_none() && places.iter().any(|(row, _)| *row == sample.row)
    };
    let mut peers: Vec<Peer> = samples.iter().filter(is_here).map(|sample| sample.peer).collect();
    peers.sort_unstable();
    peers.dedup();
    peers
}

/// The middle of a place.
fn x(place: usize, places: usize) -> f64 {
    LEFT + (RIGHT - LEFT) * (place as f64 + 0.5) / places as f64
}

fn y(share: f64) -> f64 {
    BOTTOM - (BOTTOM - TOP) * share.clamp(0.0, 1.0)
}

/// A line for each program, from 0 to 1.
fn lines(places: &Places, samples: &[Sample]) -> Option<String> {
    let peers = peers(places, samples);
    peers.first()?;
    let mut body = axis(&[0.0, 0.25, 0.5, 0.75, 1.0].map(|share| (share, format!("{share}"))));
    body += &labels(places);
    for (i, peer) in peers.iter().enumerate() {
        let colour = COLOURS[i % COLOURS.len()];
        let point = |(place, (row, _)): (usize, &(String, String))| {
            let share = median(samples, row, *peer, "share")?;
            Some((x(place, places.len()), y(share)))
        };
        let points: Vec<(f64, f64)> = places.iter().enumerate().filter_map(point).collect();
        let path: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let _ = writeln!(
            body,
            r#"<polyline points="{}" fill="none" stroke="{colour}" stroke-width="2"/>"#,
            path.join(" ")
        );
        for (x, y) in points {
            let _ = writeln!(body, r#"<circle cx="{x:.1}" cy="{y:.1}" r="3" fill="{colour}"/>"#);
        }
        body += &key(i, *peer);
    }
    Some(body)
}

/// A bar for each program at each place, from 0.1 to 10,000 on a logarithmic axis.
fn bars(places: &Places, samples: &[Sample]) -> Option<String> {
    let peers = peers(places, samples);
    peers.first()?;
    let share = |ms: f64| (ms.max(0.1).log10() + 1.0) / 5.0;
    let ticks = [0.1, 1.0, 10.0, 100.0, 1000.0, 10_000.0];
    let mut body = axis(&ticks.map(|ms| (share(ms), format!("{ms}"))));
    body += &labels(places);
    let width = (RIGHT - LEFT) / places.len() as f64 / (peers.len() + 1) as f64;
    for (i, peer) in peers.iter().enumerate() {
        let colour = COLOURS[i % COLOURS.len()];
        for (place, (row, _)) in places.iter().enumerate() {
            let Some(ms) = median(samples, row, *peer, "p99_ms") else { continue };
            let left = x(place, places.len()) + (i as f64 - peers.len() as f64 / 2.0) * width;
            let (top, height) = (y(share(ms)), BOTTOM - y(share(ms)));
            let _ = writeln!(
                body,
                r#"<rect x="{left:.1}" y="{top:.1}" width="{:.1}" height="{height:.1}" fill="{colour}"/>"#,
                width * 0.9
            );
        }
        body += &key(i, *peer);
    }
    Some(body)
}

/// The vertical axis, with lines across.
fn axis(ticks: &[(f64, String)]) -> String {
    let mut text = String::new();
    for (share, label) in ticks {
        let y = y(*share);
        let _ = writeln!(
            text,
            r##"<line x1="{LEFT}" x2="{RIGHT}" y1="{y:.1}" y2="{y:.1}" stroke="#bbb"/>"##
        );
        let (x, y) = (LEFT - 6.0, y + 4.0);
        let _ = writeln!(text, r#"<text x="{x}" y="{y:.1}" text-anchor="end">{label}</text>"#);
    }
    text
}

/// What is below the horizontal axis.
fn labels(places: &Places) -> String {
    let mut text = String::new();
    for (place, (_, label)) in places.iter().enumerate() {
        let (x, y) = (x(place, places.len()), BOTTOM + 20.0);
        let _ = writeln!(text, r#"<text x="{x:.1}" y="{y}" text-anchor="middle">{label}</text>"#);
    }
    text
}

/// Which colour is whose.
fn key(i: usize, peer: Peer) -> String {
    let colour = COLOURS[i % COLOURS.len()];
    let y = TOP + 20.0 * i as f64;
    let (x, middle) = (RIGHT + 32.0, y + 4.0);
    let name = peer.name();
    format!(
        "<rect x=\"{}\" y=\"{}\" width=\"14\" height=\"8\" fill=\"{colour}\"/>\n\
         <text x=\"{x}\" y=\"{middle}\">{name}</text>\n",
        RIGHT + 12.0,
        y - 4.0
    )
}

fn frame(title: &str, body: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"22\" font-size=\"14\">{title}</text>\n{body}</svg>\n"
    )
}
