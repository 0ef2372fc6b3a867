//! What is measured, and what is asked of it.

use std::time::Duration;

use super::{
    peer::Peer,
    row::{
        Bound::{AtLeast, AtMost, Between},
        Link, Row, What, Window,
    },
};

const GIB: u64 = 1 << 30;

/// Programs that take standard input to standard output over a network.
const PIPES: [Peer; 5] = [Peer::Qpipe, Peer::Ssh, Peer::SshMaster, Peer::Quinn, Peer::Dumbpipe];

/// Congestion controls of this kernel to compete with.
const RIVALS: [&str; 3] = ["cubic", "reno", "bbr"];

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn window(from: u64, to: u64) -> What {
    What::Steady(Window { from: seconds(from), to: seconds(to) })
}

/// A link of so many Mbit/s and ms each way.
fn emulated(mbit_s: f64, delay_ms: u64, more: &[&str]) -> Link {
    let mut options: Vec<String> =
        vec!["--rate".into(), format!("{mbit_s}mbit"), "--delay".into(), format!("{delay_ms}ms")];
    options.extend(more.iter().map(|option| (*option).to_owned()));
    Link::Emulated { options, mbit_s, rtt: Duration::from_millis(2 * delay_ms) }
}

/// The whole table.
pub(super) fn all() -> Vec<Row> {
    let mut rows = vec![veth(GIB), loopback(GIB), memory()];
    rows.extend([1, 10, 100, 1000, 10_000].map(|pipes| busy(pipes, seconds(5))));
    rows.extend([many(20_000), many_processes(2_000), idle(100_000), start(), short_pipe()]);
    let lossy = [(0.0, 0.92), (0.1, 0.92), (1.0, 0.91), (2.0, 0.90), (5.0, 0.85), (10.0, 0.75)];
    rows.extend(lossy.map(|(percent, least)| loss(percent, least, window(5, 35))));
    rows.extend([bursts(), fast(0.0), fast(1.0), long(), small()]);
    rows.push(echo("echo", emulated(100.0, 25, &[]), 70.0, 90.0));
    rows.push(echo("echo-2%", emulated(100.0, 25, &["--loss", "2%"]), 150.0, 88.0));
    rows.push(echo_veth(seconds(10)));
    for queue in [1, 4] {
        rows.extend(RIVALS.map(|rival| beside(rival, queue)));
    }
    rows.extend([together(2), together(8)]);
    rows
}

/// What a regression would show in, in 4 minutes.
pub(super) fn short() -> Vec<Row> {
    let mut loopback = loopback(GIB / 2);
    loopback.peers = vec![Peer::QpipeDirect, Peer::Ssh];
    let mut veth = veth(GIB / 2);
    veth.peers = vec![Peer::Qpipe, Peer::Quinn, Peer::Ssh];
    let mut lossy = vec![loss(0.0, 0.92, window(4, 10)), loss(1.0, 0.91, window(4, 10))];
    let mut echo = echo_veth(seconds(3));
    echo.peers.retain(|peer| *peer != Peer::YamuxInside);
    lossy.iter_mut().for_each(|row| row.peers = vec![Peer::Qpipe]);
    let mut rows = vec![veth, loopback, many(5_000), start()];
    rows.extend([1, 100].map(|pipes| busy(pipes, seconds(2))));
    rows.extend(lossy);
    rows.push(echo);
    rows
}

/// Programs that carry one pipe between two hosts.
const ONE_PIPE: [Peer; 10] = [
    Peer::Qpipe,
    Peer::QpipeDirect,
    Peer::Ssh,
    Peer::SshMaster,
    Peer::SocatTls,
    Peer::Dumbpipe,
    Peer::Quinn,
    Peer::QuinnInside,
    Peer::Yamux,
    Peer::Iperf3,
];

fn veth(bytes: u64) -> Row {
    let (rate, cpu) = ("mbit_s", "cpu_s_gib");
    let ours = (Peer::Qpipe, rate);
    Row::new("veth", "One pipe over veth, MTU 1500", Link::Veth, What::Bulk { bytes }, &ONE_PIPE)
        .ratio("goodput against ssh", ours, (Peer::Ssh, rate), AtLeast(1.0))
        .ratio("goodput against dumbpipe", ours, (Peer::Dumbpipe, rate), AtLeast(4.0))
        .ratio("goodput against quinn, no pipes", ours, (Peer::QuinnInside, rate), AtLeast(1.0))
        .ratio("goodput against quinn, pipes", ours, (Peer::Quinn, rate), AtLeast(1.4))
        .ratio("CPU per GiB against ssh", (Peer::Qpipe, cpu), (Peer::Ssh, cpu), AtMost(1.2))
}

fn loopback(bytes: u64) -> Row {
    let peers = [&ONE_PIPE[..], &[Peer::Cat]].concat();
    let (ours, theirs) = ((Peer::QpipeDirect, "mbit_s"), (Peer::Ssh, "mbit_s"));
    Row::new("loopback", "One pipe over loopback", Link::Loopback, What::Bulk { bytes }, &peers)
        .ratio("goodput against ssh, --direct", ours, theirs, AtLeast(1.5))
}

fn memory() -> Row {
    let what = What::Bulk { bytes: 2 * GIB };
    // What a process needs without pipes comes on top of the budget.
    Row::new("memory", "2 GiB through one pipe over veth", Link::Veth, what, &[Peer::Qpipe])
        .value("peak memory of a process, MiB", (Peer::Qpipe, "rss_mib"), AtMost(288.0))
        .at_most_runs(3)
}

fn busy(pipes: usize, time: Duration) -> Row {
    let (name, memory) = (format!("busy-{pipes}"), busy_memory_mib(pipes));
    let about = format!("{pipes} busy pipes in one session over loopback, {memory} MiB");
    let peers: &[Peer] = if pipes == 1 {
        &[Peer::Library, Peer::QuinnInside, Peer::YamuxInside]
    } else {
        &[Peer::Library]
    };
    let row = Row::new(&name, &about, Link::Loopback, What::Busy { pipes, time }, peers);
    let (ours, least) = ((Peer::Library, "mbit_s"), if pipes > 1000 { 0.75 } else { 0.9 });
    match pipes {
        1 => row,
        _ => row.ratio_to("busy-1", "goodput against one pipe", ours, ours, AtLeast(least)),
    }
}

/// The memory budget of each node of a row of busy pipes, in MiB: windows that are worth their control
/// messages.
pub(super) fn busy_memory_mib(pipes: usize) -> usize {
    if pipes >= 10_000 { 2048 } else { 256 }
}

fn many(pipes: u64) -> Row {
    let peers = [Peer::Library, Peer::QuinnInside, Peer::YamuxInside];
    let what = What::Many { pipes, at_once: 50 };
    let about = "1 KiB pipes in one session over veth, 50 at a time";
    let (ours, theirs) = ((Peer::Library, "pipes_s"), (Peer::QuinnInside, "pipes_s"));
    Row::new("many", about, Link::Veth, what, &peers).ratio(
        "pipes a second against quinn's streams",
        ours,
        theirs,
        AtLeast(0.8),
    )
}

fn many_processes(pipes: usize) -> Row {
    let what = What::ManyProcesses { pipes, at_once: 50 };
    let about = "1 KiB pipes between processes over veth, 50 at a time";
    let (ours, theirs) = ((Peer::Quick, "pipes_s"), (Peer::SshMaster, "pipes_s"));
    let peers = [Peer::Qpipe, Peer::Quick, Peer::SshMaster];
    Row::new("processes", about, Link::Veth, what, &peers).ratio(
        "pipes a second against ssh through a master",
        ours,
        theirs,
        AtLeast(5.0),
    )
}

fn idle(pipes: usize) -> Row {
    let about = format!("{pipes} idle pipes in one session, 1 GiB budget");
    Row::new("idle", &about, Link::Loopback, What::Idle { pipes }, &[Peer::Library])
        .value("bytes at the writer", (Peer::Library, "bytes_per_pipe_writer"), AtMost(4096.0))
        .value("bytes at the reader", (Peer::Library, "bytes_per_pipe_reader"), AtMost(4096.0))
        .at_most_runs(3)
}

fn start() -> Row {
    let about = "A process with a node that starts and ends";
    Row::new("start", about, Link::Loopback, What::Start, &[Peer::Library]).value(
        "start-up and end, ms",
        (Peer::Library, "process_ms"),
        AtMost(10.0),
    )
}

fn short_pipe() -> Row {
    let peers = [Peer::Qpipe, Peer::QpipeDirect, Peer::Ssh, Peer::SshMaster, Peer::Quinn];
    Row::new("short", "One byte over veth, and a good end", Link::Veth, What::Short, &peers)
}

fn loss(percent: f64, least: f64, what: What) -> Row {
    let link = emulated(100.0, 25, &["--loss", &format!("{percent}%")]);
    let about = format!("100 Mbit/s, 25 ms each way, {percent} % loss both ways");
    let row = Row::new(&format!("loss-{percent}%"), &about, link, what, &PIPES).value(
        "share of the link",
        (Peer::Qpipe, "share"),
        AtLeast(least),
    );
    let row = row.value("round trip ÷ base", (Peer::Qpipe, "rtt_ratio"), AtMost(1.25));
    let row = if percent >= 10.0 { row.only_told() } else { row };
    let (ours, theirs) = ((Peer::Qpipe, "first_5mb_s"), (Peer::Ssh, "first_5mb_s"));
    match percent == 0.0 {
        true => row.ratio("first 5 MB, time against ssh", ours, theirs, AtMost(0.8)),
        false => row,
    }
}

fn bursts() -> Row {
    let link = emulated(100.0, 25, &["--loss-burst", "1%,20%"]);
    let about = "100 Mbit/s, 25 ms each way, bursts of loss (1 %, 20 %)";
    steady("bursts", about, link, window(5, 35), 0.75).only_told()
}

fn fast(percent: f64) -> Row {
    let link = emulated(500.0, 75, &["--loss", &format!("{percent}%")]);
    let about = format!("500 Mbit/s, 75 ms each way, {percent} % loss both ways");
    steady(&format!("fast-{percent}%"), &about, link, window(10, 30), 0.85)
}

fn long() -> Row {
    let about = "10 Mbit/s, 300 ms each way";
    steady("long", about, emulated(10.0, 300, &[]), window(15, 45), 0.85)
}

fn small() -> Row {
    let link = emulated(2.0, 50, &["--queue", "37500"]);
    let about = "2 Mbit/s, 50 ms each way, a queue of 25 packets";
    // Six packets of 1,500 bytes take 36 ms there.
    let mut row = steady("small", about, link, window(15, 45), 0.85);
    if let Some(asked) = row.asked.last_mut() {
        asked.bound = AtMost(1.36);
    }
    row
}

fn steady(name: &str, about: &str, link: Link, what: What, least: f64) -> Row {
    Row::new(name, about, link, what, &PIPES)
        .value("share of the link", (Peer::Qpipe, "share"), AtLeast(least))
        .value("round trip ÷ base", (Peer::Qpipe, "rtt_ratio"), AtMost(1.25))
}

fn echo(name: &str, link: Link, p99_ms: f64, bulk: f64) -> Row {
    let peers = [Peer::Library, Peer::QuinnInside, Peer::YamuxInside, Peer::SshMaster];
    let percent = if name == "echo" { 0 } else { 2 };
    let about = format!("64 bytes and back beside bulk, 100 Mbit/s, 25 ms, {percent} % loss");
    Row::new(name, &about, link, What::Echo { time: seconds(20) }, &peers)
        .value("p99, ms", (Peer::Library, "p99_ms"), AtMost(p99_ms))
        .value("bulk, Mbit/s", (Peer::Library, "bulk_mbit_s"), AtLeast(bulk))
}

fn echo_veth(time: Duration) -> Row {
    let peers = [Peer::Library, Peer::QuinnInside, Peer::YamuxInside, Peer::SshMaster];
    let (p99, about) = ("p99_ms", "64 bytes and back beside bulk, veth");
    let ours = (Peer::Library, p99);
    Row::new("echo-veth", about, Link::Veth, What::Echo { time }, &peers)
        .ratio("p99 against quinn", ours, (Peer::QuinnInside, p99), AtMost(1.0))
        .ratio("p99 against ssh through a master", ours, (Peer::SshMaster, p99), AtMost(1.0))
}

/// 50 Mbit/s, 20 ms each way; a queue of so many bandwidth-delay products.
fn bottleneck(queue: usize) -> Link {
    emulated(50.0, 20, &["--queue", &(queue * 250_000).to_string()])
}

fn beside(rival: &'static str, queue: usize) -> Row {
    let what = What::Beside { rival, time: seconds(60) };
    let about = format!("Beside TCP {rival}, 50 Mbit/s, 20 ms, queue {queue} BDP");
    Row::new(&format!("beside-{rival}-{queue}"), &about, bottleneck(queue), what, &[Peer::Qpipe])
        .value("our share", (Peer::Qpipe, "our_share"), Between(0.2, 0.8))
        .at_most_runs(3)
}

fn together(sessions: usize) -> Row {
    let what = What::Together { sessions, time: seconds(60) };
    let about = format!("{sessions} qpipe sessions, 50 Mbit/s, 20 ms, queue 1 BDP");
    let peers = [Peer::QpipeDirect];
    Row::new(&format!("together-{sessions}"), &about, bottleneck(1), what, &peers)
        .value("Jain's index", (Peer::QpipeDirect, "jain"), AtLeast(0.95))
        .at_most_runs(3)
}
