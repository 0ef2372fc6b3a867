//! Real `qpipe` processes over links that fail in a known way: outages, address changes, loss.
//!
//! Host A and host B are namespaces with a [`Lab`] between them, which needs root and
//! /dev/net/tun. With QPIPE_LONG=1 the faults last as long as the promises say; else the long ones
//! are shorter or left out, and that is printed. Figures are printed too: `--nocapture` shows them.

mod arrivals;
mod dialling;
mod idle;
mod moving_client;
mod moving_server;
mod outages;
mod processes;
mod restarts;
mod weather;

use std::{
    env, io,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use qpipe_netlab::Lab;

use crate::host::{Host, Running, Serving, Start, introduce};

use arrivals::Arrivals;

/// The host that moves and roams.
pub const A: usize = 0;
pub const B: usize = 1;

/// 20 Mbit/s, 25 ms each way, a queue of one round trip.
pub const ORDINARY: [&str; 4] = ["--rate", "20mbit", "--delay", "25ms"];

/// Nothing that is promised to be quick takes nearly as long, however busy the machine is.
pub const QUICK: Duration = Duration::from_secs(5);

/// How often a condition is looked at that is waited for.
const LOOK: Duration = Duration::from_millis(2);

/// Two hosts with a link between them.
pub struct Net {
    // The first to be dropped, with the processes on it.
    pub lab: Arc<Lab>,
    pub a: Host,
    pub b: Host,
}

impl Net {
    /// Two hosts with such a link. `None`, and a printed reason, where this user may not have them;
    /// that is a failure where CI=true.
    pub fn new(options: &[&str]) -> Option<Net> {
        match Lab::new(options) {
            Ok(lab) => Some(Net { lab: Arc::new(lab), a: Host::new(), b: Host::new() }),
            Err(reason) => {
                assert!(env::var("CI").as_deref() != Ok("true"), "no lab: {reason:#}");
                eprintln!("skipped: no network namespaces with TUN devices here: {reason:#}");
                None
            }
        }
    }

    /// A qpipe process on a host, in its network.
    pub fn qpipe(&self, side: usize, arguments: &str) -> Start {
        let host = if side == A { &self.a } else { &self.b };
        let namespace = self.lab.namespace(side);
        host.bash(&format!("exec ip netns exec {namespace} qpipe {arguments}"))
    }

    pub fn control(&self, command: &str) -> String {
        self.lab.control(command).unwrap_or_else(|error| panic!("{command}: {error:#}"))
    }

    /// B's node, on which A may use `x` both ways.
    pub fn serve(&self, options: &str) -> Serving {
        let serving = self.serve_again(&format!("{}:0", self.lab.address(B)), options);
        introduce(&self.a, "alice", &self.b, &serving, &["send:x", "recv:x"]);
        serving
    }

    /// B's node at this address.
    pub fn serve_again(&self, listen: &str, options: &str) -> Serving {
        let mut running = self.qpipe(B, &format!("serve --listen {listen} {options}")).start();
        let address = running.word_of_stderr("listening on ", "/udp");
        Serving { running, address }
    }

    /// Feeds A's `qpipe send`, whose ticket B's `qpipe recv` dials with.
    pub fn anonymous(&self, options: &str, input: Input) -> Transfer {
        let send = self.qpipe(A, &format!("send {options}"));
        let mut sender = input.feed(send).start();
        let ticket = sender.ticket();
        let (reader, output) = io::pipe().unwrap();
        let recv = self.qpipe(B, &format!("recv {options}")).ticket(&ticket);
        Transfer { sender, receiver: recv.stdout(output).start(), arrivals: Arrivals::of(reader) }
    }

    /// Feeds the `qpipe send` on one side; the other's `qpipe recv` reads. A dials B's node.
    pub fn named(&self, from: usize, options: &str, input: Input) -> Transfer {
        let name = |side| if side == A { "b/x" } else { "x" };
        let to = if from == A { B } else { A };
        let send = self.qpipe(from, &format!("send {} {}", self.remote(from, options), name(from)));
        let (reader, output) = io::pipe().unwrap();
        let recv = self.qpipe(to, &format!("recv {} {}", self.remote(to, options), name(to)));
        let receiver = recv.stdout(output).start();
        let sender = input.feed(send).start();
        Transfer { sender, receiver, arrivals: Arrivals::of(reader) }
    }

    /// Options about the connection are for those who have one: on B that is the node.
    fn remote<'a>(&self, side: usize, options: &'a str) -> &'a str {
        if side == A { options } else { "" }
    }
}

/// What a sender reads.
pub enum Input {
    /// All of this, then EOF.
    Bytes(Vec<u8>),
    /// What is written to the other end of this.
    Pipe(io::PipeReader),
}

impl Input {
    fn feed(self, start: Start) -> Start {
        match self {
            Input::Bytes(bytes) => start.input(&bytes),
            Input::Pipe(pipe) => start.stdin(pipe),
        }
    }
}

/// A pipe with bytes under way.
pub struct Transfer {
    pub sender: Running,
    pub receiver: Running,
    pub arrivals: Arrivals,
}

impl Transfer {
    /// Waits until so many bytes have come, and fails at once if one side ends before.
    pub fn delivers(&mut self, bytes: usize, limit: Duration) {
        wait(limit, "all bytes at the reader", || {
            let ended = self.sender.has_ended() && self.receiver.has_ended();
            let all = self.arrivals.total() == bytes as u64;
            assert!(all || !ended, "both ended after {} bytes", self.arrivals.total());
            all.then_some(())
        });
    }

    /// Waits for the end of both, which is a success, and fails unless all has arrived unharmed.
    pub fn completes(mut self, content: &[u8], limit: Duration) {
        both_end(&mut self.sender, &mut self.receiver, limit);
        let (sent, received) = (self.sender.end(), self.receiver.end());
        assert_eq!((sent.code(), received.code()), (0, 0), "{sent:?}{received:?}");
        crate::host::assert_same(&self.arrivals.bytes(), content);
    }
}

/// Prints the median and the worst of some times; returns the worst.
pub fn figures(what: &str, mut times: Vec<Duration>) -> Duration {
    times.sort();
    let count = times.len();
    figure(&format!("{what}: median of {count}"), times[count / 2]);
    figure(&format!("{what}: worst of {count}"), times[count - 1]);
    times[count - 1]
}

/// Waits until two programs have ended.
pub fn both_end(one: &mut Running, other: &mut Running, limit: Duration) {
    wait(limit, "the end of both", || {
        // Both are asked: one that ended stays a zombie until then.
        let ended = (one.has_ended(), other.has_ended());
        (ended == (true, true)).then_some(())
    });
}

/// Whether the long option was chosen.
pub fn long() -> bool {
    env::var("QPIPE_LONG").is_ok_and(|long| long == "1")
}

/// Whether a test that takes minutes is to run; prints it if not.
pub fn has_time() -> bool {
    if !long() {
        eprintln!("skipped: takes minutes, and QPIPE_LONG is not 1");
    }
    long()
}

/// Waits until there is an answer, or fails after `limit`.
pub fn wait<T>(limit: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < limit, "waited {limit:?} in vain: {what}");
        thread::sleep(LOOK);
    }
}

/// Lets so much time pass in which a fault or silence goes on.
pub fn pass(time: Duration) {
    thread::sleep(time);
}

/// Prints a measured time.
pub fn figure(what: &str, time: Duration) {
    eprintln!("figure: {what}: {} ms", time.as_millis());
}
