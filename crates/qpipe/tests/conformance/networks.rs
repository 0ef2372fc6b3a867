//! All cases that have a network, over bad ones: this binary runs itself, with the two nodes in two
//! network namespaces and an emulated link between them.
//!
//! Unless a network says otherwise it has the base of quic-interop-runner: 15 ms each way, 10 Mbit/s,
//! a queue of 25 packets.

use std::env;
use std::io::{self, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use qpipe_netlab::Lab;

use crate::hosts::{SLOWNESS, has_time};

/// The modules of this binary whose cases go over the network.
const OVER_THE_NETWORK: [&str; 5] = [
    "opened_by_writer::",
    "opened_by_reader::",
    "through_descriptors::",
    "qpipe_descriptors::",
    "drawn::",
];

/// Cases at once. They share the link, which they fill.
const AT_ONCE: usize = 8;

/// The same where they mostly wait.
const ALL_AT_ONCE: usize = 70;

/// A network on which the cases take longer hangs. All of them need a quarter of it on the slowest.
const NETWORK_DEADLINE: Duration = Duration::from_secs(3600);

/// A network between the two hosts.
struct Network {
    name: &'static str,
    /// Of `netlab run`.
    options: &'static [&'static str],
    /// What happens to it, over and over: after each time, a command of `netlab ctl`.
    weather: &'static [(Duration, &'static str)],
    /// By how much deadlines are longer than on loopback.
    slowness: u32,
    at_once: usize,
    /// Cases of hundreds of round trips, which are left to the long option.
    too_slow: &'static [&'static str],
}

/// A queue of 25 full packets.
const BASE: Network = Network {
    name: "base",
    options: &["--delay", "15ms", "--rate", "10mbit", "--queue", "37500"],
    weather: &[],
    slowness: 4,
    at_once: AT_ONCE,
    too_slow: &[],
};

impl Network {
    /// Every case passes on it, as it does on loopback.
    // A lab runs in real time.
    #[allow(clippy::disallowed_methods)]
    fn passes(&self) {
        let Some(lab) = self.lab() else { return };
        let lab = Arc::new(lab);
        let began = Instant::now();
        let (stop, stopped) = mpsc::channel::<()>();
        let weather = {
            let (lab, steps) = (lab.clone(), self.weather);
            thread::spawn(move || change(&lab, steps, &stopped))
        };
        let (is_success, output) = end_of(self.start(&lab));
        drop(stop);
        weather.join().unwrap();
        let of = |ending: &str| output.lines().filter(|line| line.ends_with(ending)).count();
        let (passed, failed) = (of(" ... ok"), of(" ... FAILED"));
        let (name, cases, seconds) = (self.name, passed + failed, began.elapsed().as_secs());
        let left_out = self.left_out();
        let note = match left_out.is_empty() {
            true => String::new(),
            false => format!(" (left to QPIPE_LONG=1: {})", left_out.join(", ")),
        };
        say(&format!("conformance on {name}: {cases} cases, {passed} passed, {seconds} s{note}"));
        assert!(is_success && failed == 0 && passed > 0, "on {name}:\n{output}");
    }

    fn left_out(&self) -> &[&str] {
        if has_time() { &[] } else { self.too_slow }
    }

    /// `None`, and a printed reason, where this user may not have one; that is a failure where
    /// CI=true.
    fn lab(&self) -> Option<Lab> {
        match Lab::new(self.options) {
            Ok(lab) => Some(lab),
            Err(reason) => {
                assert!(env::var("CI").as_deref() != Ok("true"), "no lab: {reason:#}");
                say(&format!("skipped: no network {} here: {reason:#}", self.name));
                None
            }
        }
    }

    fn start(&self, lab: &Lab) -> Child {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(OVER_THE_NETWORK).args(["--test-threads", &self.at_once.to_string()]);
        for case in self.left_out() {
            command.args(["--skip", case]);
        }
        for (host, name) in ["NETLAB_A", "NETLAB_B"].into_iter().enumerate() {
            command.env(name, lab.namespace(host));
            command.env(format!("{name}_IP"), lab.address(host).to_string());
        }
        command.env(SLOWNESS, self.slowness.to_string());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        command.spawn().unwrap()
    }
}

/// Whether the cases succeeded, and what they printed.
fn end_of(mut child: Child) -> (bool, String) {
    let mut stdout = child.stdout.take().unwrap();
    let (send, output) = mpsc::channel();
    let reading = thread::spawn(move || {
        let mut text = String::new();
        let read = stdout.read_to_string(&mut text).map(|_| text);
        let _ = send.send(());
        read.unwrap()
    });
    if output.recv_timeout(NETWORK_DEADLINE).is_err() {
        child.kill().unwrap();
    }
    let text = reading.join().unwrap();
    (child.wait().unwrap().success(), text)
}

/// Changes a lab until there is nobody left to say stop.
fn change(lab: &Lab, steps: &[(Duration, &str)], stopped: &Receiver<()>) {
    for (time, command) in steps.iter().cycle() {
        if stopped.recv_timeout(*time) != Err(RecvTimeoutError::Timeout) {
            break;
        }
        lab.control(command).unwrap();
    }
}

/// Prints a line that is seen of tests that pass, too.
fn say(line: &str) {
    io::stderr().write_all(format!("{line}\n").as_bytes()).unwrap();
}

#[test]
fn perfect() {
    Network { name: "perfect", options: &[], slowness: 1, ..BASE }.passes();
}

#[test]
fn base() {
    BASE.passes();
}

/// The base, and this as well.
macro_rules! base_with {
    ($($option:literal)*) => {
        &["--delay", "15ms", "--rate", "10mbit", "--queue", "37500", $($option),*]
    };
}

#[test]
fn loss_of_1_percent() {
    Network { name: "1 % loss", options: base_with!("--loss" "1%"), ..BASE }.passes();
}

#[test]
fn loss_of_5_percent() {
    Network { name: "5 % loss", options: base_with!("--loss" "5%"), ..BASE }.passes();
}

#[test]
fn loss_of_30_percent() {
    let options = base_with!("--loss" "30%");
    let too_slow = &["c34_", "drawn::"];
    let (slowness, at_once) = (20, ALL_AT_ONCE);
    Network { name: "30 % loss", options, slowness, at_once, too_slow, ..BASE }.passes();
}

#[test]
fn blackholes() {
    let weather = &const { [(Duration::from_secs(3), "down"), (Duration::from_secs(2), "up")] };
    Network { name: "blackholes of 2 s in every 5 s", weather, ..BASE }.passes();
}

#[test]
fn rebinding() {
    let weather = &const { [(Duration::from_secs(5), "roam")] };
    Network { name: "rebinding every 5 s", weather, ..BASE }.passes();
}

#[test]
fn mtu_of_1280() {
    Network { name: "an MTU of 1280", options: base_with!("--mtu" "1280"), ..BASE }.passes();
}

#[test]
fn delay_of_750_ms() {
    let options = &["--delay", "750ms", "--rate", "10mbit", "--queue", "37500"];
    let too_slow = &["c13_", "c33_", "c34_", "drawn::"];
    let (slowness, at_once) = (20, ALL_AT_ONCE);
    Network { name: "750 ms delay", options, slowness, at_once, too_slow, ..BASE }.passes();
}
