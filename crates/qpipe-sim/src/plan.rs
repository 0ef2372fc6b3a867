//! What a run is made of: its network, its faults and its work, all drawn from the seed.

use std::time::Duration;

use qpipe_proto::contact::Patience;

use crate::clock::Time;
use crate::net::{LinkPlan, Outage};
use crate::rng::Rng;
use crate::work::{self, Job};

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Alarms,
    Blackholes,
    Bursts,
    Corruption,
    Cuts,
    Delay,
    Duplicates,
    Jitter,
    Kills,
    Loss,
    Memory,
    Moves,
    Mtu,
    Nat,
    OneWay,
    OnOff,
    Pauses,
    Rate,
    Rebinding,
    Reordering,
}

const FAULTS: [Fault; 20] = [
    Fault::Alarms,
    Fault::Blackholes,
    Fault::Bursts,
    Fault::Corruption,
    Fault::Cuts,
    Fault::Delay,
    Fault::Duplicates,
    Fault::Jitter,
    Fault::Kills,
    Fault::Loss,
    Fault::Memory,
    Fault::Moves,
    Fault::Mtu,
    Fault::Nat,
    Fault::OneWay,
    Fault::OnOff,
    Fault::Pauses,
    Fault::Rate,
    Fault::Rebinding,
    Fault::Reordering,
];

/// Something that happens at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happening {
    /// A host believes that its network changed: another interface is there.
    Alarm {
        /// Which.
        host: usize,
    },
    /// One of a host's pipe streams is cut on its living connection: by a FIN, or by a reset.
    Cut {
        /// Whose.
        host: usize,
        /// Whether by a FIN.
        by_fin: bool,
    },
    /// A host's node dies, and is started anew after a while.
    Kill {
        /// Whose.
        host: usize,
        /// How long it is gone.
        gone: Duration,
    },
    /// A host gets another port, or another address too.
    Move {
        /// Which.
        host: usize,
        /// Whether the address changes, too.
        address: bool,
        /// Whether the host itself notices: a NAT's rebinding is not noticed.
        noticed: bool,
    },
    /// A host's node stands still, and its socket's buffer fills.
    Pause {
        /// Which.
        host: usize,
        /// How long.
        length: Duration,
    },
}

/// All that a seed determines before a run begins.
#[derive(Clone, Debug)]
pub struct Plan {
    /// By the host that sends.
    pub links: [LinkPlan; 2],
    /// The links of the second phase, without faults.
    pub calm: LinkPlan,
    /// When which links are down.
    pub outages: Vec<Outage>,
    /// What else happens, in order.
    pub happenings: Vec<(Time, Happening)>,
    /// Whether a host's address can be found by its name: it cannot behind a NAT.
    pub is_found: [bool; 2],
    /// Memory for pipes of each node, in bytes.
    pub memory: [u64; 2],
    /// How long both nodes wait for their peer before doing what.
    pub patience: Patience,
    /// Faults end then, at the latest.
    pub faults_until: Time,
    /// What programs do.
    pub jobs: Vec<Job>,
    /// Whether both hosts have something to open at the very beginning.
    pub both_dial: bool,
    /// Whether sessions are ended by Bye when the work is done, or left idle.
    pub says_bye: bool,
    is_clean: bool,
}

/// The most memory of a node, in bytes: nothing is ever short of it.
const MEMORY_BYTES: u64 = 64 * 1024 * 1024;

/// The least memory of a node, in bytes: a session of the fewest opens has to fit.
const MEMORY_BYTES_MIN: u64 = 4 * 1024 * 1024;

impl Plan {
    /// The plan of a seed.
    pub fn new(seed: u64) -> Plan {
        let mut rng = Rng::new(seed, "plan");
        let faults = draw_faults(&mut rng);
        let has = |fault| faults.contains(&fault);
        let faults_until = rng.millis(500, 60_000);
        let links = [link(&mut rng, &faults), link(&mut rng, &faults)];
        let patience = draw_patience(&mut rng);
        let jobs = work::draw(seed, &mut rng);
        let both_dial = rng.chance(0.2);
        let mut memory = [MEMORY_BYTES; 2];
        if has(Fault::Memory) {
            memory = [(); 2].map(|()| rng.skewed(MEMORY_BYTES_MIN, 4 * MEMORY_BYTES_MIN));
        }
        let outages = outages(&mut rng, &faults, faults_until, patience.give_up);
        let happenings = happenings(&mut rng, &faults, faults_until);
        let nat = usize::from(rng.chance(0.5));
        let mut is_found = [true; 2];
        is_found[nat] = !has(Fault::Nat);
        let delay = rng.millis(1, 100);
        let calm = match faults.is_empty() {
            true => LinkPlan { delay: links[0].delay.max(links[1].delay), ..LinkPlan::clean() },
            false => LinkPlan { delay, ..LinkPlan::clean() },
        };
        let says_bye = rng.chance(0.7);
        Plan {
            links,
            calm,
            outages,
            happenings,
            is_found,
            memory,
            patience,
            faults_until,
            jobs,
            both_dial,
            says_bye,
            is_clean: faults.is_empty(),
        }
    }

    /// A pipe that is silent for `length`, through a NAT that forgets every `forgets`. Faults, such as
    /// they are, end an hour later.
    pub fn silent(length: Duration, forgets: Duration) -> Plan {
        let count = length.as_secs() / forgets.as_secs().max(1);
        let forget = Happening::Move { host: 0, address: false, noticed: false };
        let hour = Duration::from_secs(3600);
        Plan {
            links: [LinkPlan::clean(), LinkPlan::clean()],
            calm: LinkPlan::clean(),
            outages: Vec::new(),
            happenings: (1..=count).map(|n| (forgets * n as u32, forget)).collect(),
            is_found: [false, true],
            memory: [MEMORY_BYTES; 2],
            patience: Patience::default(),
            faults_until: length + hour,
            jobs: work::silent(length),
            both_dial: false,
            says_bye: true,
            is_clean: false,
        }
    }

    /// Whether nothing is to go wrong.
    pub fn is_clean(&self) -> bool {
        self.is_clean
    }

    /// A round trip of the second phase.
    pub fn calm_rtt(&self) -> Duration {
        2 * self.calm.delay
    }
}

/// Half of the kinds in most runs; none or one in some, so that what they hide shows.
fn draw_faults(rng: &mut Rng) -> Vec<Fault> {
    let mut faults = FAULTS.to_vec();
    let count = match rng.below(10) {
        0 => 0,
        1 | 2 => 1,
        3..=5 => 4,
        _ => FAULTS.len() / 2,
    };
    for n in 0..count {
        let other = rng.within(n as u64, FAULTS.len() as u64 - 1) as usize;
        faults.swap(n, other);
    }
    faults.truncate(count);
    faults
}

fn link(rng: &mut Rng, faults: &[Fault]) -> LinkPlan {
    let mut link = LinkPlan { delay: rng.millis(1, 30), ..LinkPlan::clean() };
    for fault in faults {
        match fault {
            Fault::Loss => link.loss = rng.skewed(1, 300) as f64 / 1000.0,
            Fault::Bursts => link.burst = (rng.skewed(1, 50) as f64 / 1000.0, rng.within(1, 20)),
            Fault::Duplicates => link.duplicate = rng.skewed(1, 500) as f64 / 1000.0,
            Fault::Reordering => {
                link.reorder = (rng.skewed(1, 500) as f64 / 1000.0, rng.skewed(1, 100));
            }
            Fault::Delay => link.delay = rng.millis(1, 750),
            Fault::Jitter => link.jitter = rng.millis(1, 200),
            Fault::Corruption => link.corrupt = rng.skewed(1, 100) as f64 / 1000.0,
            Fault::Rate => {
                link.rate = Some(rng.skewed(64_000, 10_000_000_000));
                link.queue = rng.skewed(2, 1000) as usize;
            }
            Fault::Mtu => link.mtu = rng.within(1200, 1500) as usize,
            _ => {}
        }
    }
    link
}

fn draw_patience(rng: &mut Rng) -> Patience {
    // Mostly longer than any outage, so that what is lost then is a bug.
    let give_up = if rng.chance(0.1) { rng.within(5, 30) } else { 600 };
    Patience { give_up: Duration::from_secs(give_up), ..Patience::default() }
}

fn outages(rng: &mut Rng, faults: &[Fault], until: Time, give_up: Duration) -> Vec<Outage> {
    let mut outages = Vec::new();
    let longest = if give_up < Duration::from_secs(60) { 40_000 } else { 60_000 };
    for fault in faults {
        let ways = match fault {
            Fault::Blackholes | Fault::OnOff => [true, true],
            Fault::OneWay => {
                let from_a = rng.chance(0.5);
                [from_a, !from_a]
            }
            _ => continue,
        };
        if *fault == Fault::OnOff {
            let (on, off) = (rng.millis(50, 5_000), rng.millis(50, 5_000));
            let mut from = rng.millis(1, 3_000);
            while from < until && outages.len() < 200 {
                outages.push(Outage { from, until: from + off, ways });
                from += on + off;
            }
            continue;
        }
        for _ in 0..rng.within(1, 4) {
            let from = moment(rng, until);
            outages.push(Outage { from, until: from + rng.millis(100, longest), ways });
        }
    }
    outages
}

fn happenings(rng: &mut Rng, faults: &[Fault], until: Time) -> Vec<(Time, Happening)> {
    let mut all = Vec::new();
    for fault in faults {
        let count = match fault {
            Fault::Kills => rng.within(1, 2),
            Fault::Alarms | Fault::Cuts => rng.within(1, 20),
            Fault::Moves | Fault::Rebinding | Fault::Pauses => rng.within(1, 6),
            _ => 0,
        };
        for _ in 0..count {
            let host = rng.below(2) as usize;
            let what = match fault {
                Fault::Alarms => Happening::Alarm { host },
                Fault::Kills => Happening::Kill { host, gone: rng.millis(1, 20_000) },
                Fault::Cuts => Happening::Cut { host, by_fin: rng.chance(0.5) },
                Fault::Pauses => Happening::Pause { host, length: rng.millis(1, 30_000) },
                Fault::Moves => Happening::Move { host, address: true, noticed: rng.chance(0.7) },
                _ => Happening::Move { host, address: rng.chance(0.3), noticed: false },
            };
            all.push((moment(rng, until), what));
        }
    }
    all.sort_by_key(|(at, _)| *at);
    all
}

/// A time before `until`, early ones as likely as late ones: handshakes are over soon.
fn moment(rng: &mut Rng, until: Time) -> Time {
    rng.millis(1, (until.as_millis() as u64).max(2))
}
