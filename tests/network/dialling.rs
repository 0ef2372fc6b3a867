//! Connections made over links that lose much.

use std::time::{Duration, Instant};

use super::{A, B, Net, figures, long};

/// 30 % of all packets, in bursts of 3 on average.
const LOSSY: [&str; 4] = ["--delay", "25ms", "--loss-burst", "14.3%,33.3%"];

/// How long a dial may take, and then a byte.
const LIMIT: Duration = Duration::from_secs(10);

#[test]
fn c38_every_dial_at_30_percent_loss_in_bursts_succeeds_within_10_s() {
    let Some(net) = Net::new(&LOSSY) else { return };
    let dials = if long() { 50 } else { 10 };
    let mut times = Vec::new();
    for _ in 0..dials {
        let mut sender = net.qpipe(A, "send").input(b"hello").start();
        let ticket = sender.ticket();

        let began = Instant::now();
        let mut receiver = net.qpipe(B, "recv").ticket(&ticket).start();
        receiver.prints(b"hello");

        times.push(began.elapsed());
        receiver.end().expect(0);
        sender.end().expect(0);
    }
    let worst = figures("a dial at 30 % loss in bursts, and a byte", times);
    assert!(worst < LIMIT, "{worst:?}");
}
