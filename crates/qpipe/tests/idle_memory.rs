//! What an idle pipe costs, in two processes: the binary runs itself as the other host.

mod pair;

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;

use pair::{Everybody, named_node, pattern};
use qpipe::identity::HostIdentity;
use qpipe::tls::ExpectedHost;
use qpipe::{Address, Node, NodeOptions, OpenOptions, OpenTarget, Peer, PipeReader, PipeWriter};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Pipes that are open at once.
const PIPES: usize = 10_000;

/// Opened before the first measurement, so that what a process needs once is not counted.
const WARM_UP: usize = 200;

/// What each pipe carries before it idles, in bytes.
const CONTENT_BYTES: usize = 1024;

/// What an idle pipe may cost at each end, in bytes.
const IDLE_BYTES_MAX: usize = 8 * 1024;

/// Tells the other host whom to dial.
const HOST: &str = "QPIPE_TEST_IDLE_HOST";

#[test]
fn ten_thousand_idle_pipes_cost_under_8_kib_each_at_each_end() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    match std::env::var(HOST) {
        Ok(host) => runtime.block_on(write_side(&host)),
        Err(_) => runtime.block_on(read_side()),
    }
}

async fn read_side() {
    let node = named_node(Arc::new(Everybody));
    let host = format!("{} {}", node.local_addresses()[0], node.fingerprint());
    let name = "ten_thousand_idle_pipes_cost_under_8_kib_each_at_each_end";
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(HOST, host)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut readers = Vec::with_capacity(PIPES + WARM_UP);
    receive(&node, &mut readers, WARM_UP).await;
    let before = resident();
    receive(&node, &mut readers, PIPES).await;
    let here = resident().saturating_sub(before) / PIPES;
    // The other host measures once all is consumed, and waits for the end of its input.
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let there = tokio::task::spawn_blocking(move || {
        let found = lines.find_map(|line| line.unwrap().split("idle pipe: ").nth(1)?.parse().ok());
        (found.expect("a measurement"), lines)
    });
    let (there, mut lines): (usize, _) = there.await.unwrap();
    drop(readers);
    child.stdin.take().unwrap().write_all(b"done\n").unwrap();
    let exited = tokio::task::spawn_blocking(move || {
        lines.by_ref().for_each(drop);
        child.wait().unwrap()
    });
    assert!(exited.await.unwrap().success());
    assert!(here < IDLE_BYTES_MAX && there < IDLE_BYTES_MAX, "reader {here}, writer {there} bytes");
}

/// Takes `count` pipes and reads what each carries.
async fn receive(node: &Node, readers: &mut Vec<PipeReader>, count: usize) {
    for _ in 0..count {
        let open = node.next_open().await.unwrap();
        let OpenTarget::Name(name) = open.target().clone() else { panic!("no name") };
        let seed: u64 = name.as_str().parse().unwrap();
        let mut reader = open.accept().unwrap().reader.unwrap();
        let mut got = [0; CONTENT_BYTES];
        reader.read_exact(&mut got).await.unwrap();
        assert!(got[..] == pattern(seed, 0, CONTENT_BYTES));
        readers.push(reader);
    }
}

async fn write_side(host: &str) {
    let (address, fingerprint) = host.split_once(' ').unwrap();
    let address: SocketAddr = address.parse().unwrap();
    let options =
        NodeOptions { listen: vec!["127.0.0.1:0".parse().unwrap()], ..NodeOptions::default() };
    let identity = HostIdentity::ephemeral().unwrap().node();
    let node = Node::start(identity, options, Arc::new(Everybody)).unwrap();
    let peer = Peer {
        name: "peer".to_owned(),
        addresses: vec![Address::try_from(address).unwrap()],
        expected: ExpectedHost::Is(fingerprint.parse().unwrap()),
    };
    let session = node.connect(&peer, None).await.unwrap();
    let mut writers = Vec::with_capacity(PIPES + WARM_UP);
    send(&session, &mut writers, WARM_UP).await;
    let before = resident();
    send(&session, &mut writers, PIPES).await;
    let cost = resident().saturating_sub(before) / PIPES;
    std::io::stdout().write_all(format!("idle pipe: {cost}\n").as_bytes()).unwrap();
    std::io::stdin().read_line(&mut String::new()).unwrap();
}

/// Opens `count` pipes, writes to each, and waits until all of it is consumed.
async fn send(session: &qpipe::Session, writers: &mut Vec<PipeWriter>, count: usize) {
    let from = writers.len();
    for i in from..from + count {
        let target = OpenTarget::Name(i.to_string().parse().unwrap());
        let mut writer = session.open_writer(target, OpenOptions::default()).await.unwrap();
        writer.write_all(&pattern(i as u64, 0, CONTENT_BYTES)).await.unwrap();
        writers.push(writer);
    }
    for writer in &writers[from..] {
        while writer.consumed() < CONTENT_BYTES as u64 {
            tokio::task::yield_now().await;
        }
    }
}

/// The process's memory, in bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}
