//! C47: pipelines of everyday programs end as they do through a kernel pipe, between two hosts and
//! with both ends on one.

use std::fs;

use crate::host::{Ended, Host, introduce, noise};

/// Programs that end by themselves, on a file `f`.
const PRODUCERS: [&str; 14] = [
    "true",
    "false",
    "echo hi",
    "printf 'no newline'",
    "seq 1000",
    "seq 100000",
    "cat f",
    "head -c 70001 f",
    "tac f",
    "base64 f",
    "od -An -tx1 f",
    "cksum f missing",
    "sh -c 'seq 2000; exit 3'",
    "sh -c 'echo begun; kill -TERM $$'",
];

/// Programs that read to the end.
const CONSUMERS: [&str; 14] = [
    "cat",
    "wc",
    "sort",
    "sort -u",
    "uniq -c",
    "tr a-y b-z",
    "sha256sum",
    "cksum",
    "tail -n 5",
    "tac",
    "cut -c 1-3",
    "fold -w 20",
    "grep -a 77",
    "sh -c 'cat >/dev/null; exit 5'",
];

/// Programs that do not, behind one that never ends. (One that reads nothing at all may be gone before
/// the pipe has a reader; then the writer waits for one, as at a FIFO.)
const LEAVERS: [&str; 4] =
    ["head -n 3", "head -c 100000", "sed 7q", "dd bs=10 count=1 status=none"];

/// Pipelines that run at once: some, since most of the time goes into starting programs.
const AT_ONCE: usize = 6;

/// What of a pipeline has to be the same: what came out, and both statuses.
type Seen = (Vec<u8>, String, String);

fn first(of: &Ended) -> String {
    of.statuses().split(' ').next().unwrap_or_default().to_owned()
}

fn last(of: &Ended) -> String {
    of.statuses().split(' ').next_back().unwrap_or_default().to_owned()
}

fn compare(writer: &Host, reader: &Host, prefix: &str, pairs: &[(&str, &str)]) {
    let seen: Vec<(Seen, Seen)> = pairs
        .chunks(AT_ONCE)
        .flat_map(|chunk| {
            let started: Vec<_> = chunk
                .iter()
                .enumerate()
                .map(|(i, (a, b))| {
                    (
                        writer.pipeline(&format!("{a} | {b}")).start(),
                        reader.pipeline(&format!("qpipe recv p{i} | {b}")).start(),
                        writer.pipeline(&format!("{a} | qpipe send {prefix}p{i}")).start(),
                    )
                })
                .collect();
            started.into_iter().map(|(oracle, received, sent)| {
                let (oracle, received, sent) = (oracle.end(), received.end(), sent.end());
                let expected = (first(&oracle), last(&oracle));
                let found = (first(&sent), last(&received));
                ((oracle.stdout, expected.0, expected.1), (received.stdout, found.0, found.1))
            })
        })
        .collect();
    for ((expected, found), (a, b)) in seen.iter().zip(pairs) {
        let statuses = |seen: &Seen| format!("{} {}", seen.1, seen.2);
        let (is, was) = (statuses(found), statuses(expected));
        assert!(expected == found, "{a} | {b}: {is}, not {was}, or other output");
    }
}

#[test]
fn c47_two_hundred_pipelines_print_and_end_as_through_a_kernel_pipe() {
    let pairs = PRODUCERS.iter().flat_map(|a| CONSUMERS.iter().map(move |b| (*a, *b)));
    let pairs: Vec<_> = pairs.chain(LEAVERS.map(|b| ("yes", b))).collect();
    assert_eq!(pairs.len(), 200);
    let hosts = [Host::sharing(), Host::sharing(), Host::sharing()];
    for host in &hosts {
        fs::write(host.work("f"), noise(200_000)).unwrap();
    }
    let [a, b, alone] = &hosts;
    let serving = b.serve();
    introduce(a, "alice", b, &serving, &["send:*"]);
    // Each program is in both halves.
    let half = |of: usize| {
        let is_in = |i: usize| (i / CONSUMERS.len() + i % CONSUMERS.len()) % 2 == of;
        let pairs = pairs.iter().enumerate().filter(|(i, _)| is_in(*i));
        pairs.map(|(_, pair)| *pair).collect::<Vec<_>>()
    };

    compare(a, b, "b/", &half(0));
    compare(alone, alone, "", &half(1));
}
