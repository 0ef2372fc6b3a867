//! Building a lab: namespaces, devices, links and the threads between them.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    process::{self, Command},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use anyhow::{Context, Result, ensure};

use crate::{
    addr::{AddressBook, Number, Plan},
    cli,
    ctl::{Controller, Server},
    link::Link,
    netns::{Netns, run_ip},
    params::{LinkParams, Outage},
    report::{HostReport, Report},
    roam::{Roamer, address_commands},
    router::{Clock, Router},
    tun::Tun,
    units::{Nanos, SECOND},
};

/// The name of the network device in every namespace.
pub(crate) const DEVICE: &str = "nl0";

/// All that there is to know to build a lab.
pub(crate) struct Config {
    pub(crate) hosts: usize,
    pub(crate) subnet: u8,
    pub(crate) mtu: u16,
    pub(crate) txqueuelen: u32,
    pub(crate) seed: u64,
    pub(crate) veth: bool,
    pub(crate) real_time: bool,
    pub(crate) sysctls: Vec<(String, String)>,
    pub(crate) outages: Vec<Outage>,
    /// How long the NAT in front of host A remembers, if there is one.
    pub(crate) nat_timeout: Option<Nanos>,
    /// The parameters of every link by source and destination.
    pub(crate) links: BTreeMap<(usize, usize), LinkParams>,
}

/// The letter of a host: 0 is `a`.
pub(crate) fn letter(host: usize) -> char {
    (b'a' + host as u8) as char
}

/// Hosts joined by bad links, until this is dropped: then all processes on them are killed. (The
/// order of the fields is that of their destruction.)
pub struct Lab {
    emulator: Option<Emulator>,
    hosts: Vec<Netns>,
    book: Arc<AddressBook>,
    clock: Clock,
    seed: u64,
}

/// What moves the packets, unless the lab has just a veth pair.
struct Emulator {
    server: Server,
    controller: Arc<Controller>,
    router: Router,
    roamer: Arc<Roamer>,
}

impl Lab {
    /// Builds a lab from the options of `netlab run`, for example `["--delay", "25ms"]`, that are
    /// not about a point in time.
    ///
    /// # Errors
    ///
    /// Where this user may not make namespaces and devices, the reason; wrong options.
    pub fn new(options: &[&str]) -> Result<Self> {
        let settings = cli::parse(options)?;
        let idle = settings.roam.is_empty() && settings.roam_real.is_empty();
        ensure!(idle, "a schedule needs somebody to keep it: use `control`");
        Self::build(&settings.lab)
    }

    /// A program on a host (0 is A), yet to be started; its process id is that of the child.
    pub fn command(&self, host: usize, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", self.hosts[host].name()]).arg(program);
        command
    }

    /// The name of a host's network namespace (0 is A).
    pub fn namespace(&self, host: usize) -> &str {
        self.hosts[host].name()
    }

    /// The address that a host (0 is A) has at the start.
    pub fn address(&self, host: usize) -> Ipv4Addr {
        self.book.plan().v4(host as Number + 1)
    }

    /// Does something on a thread of a host (0 is A); processes that it starts are on that host.
    ///
    /// # Errors
    ///
    /// Those of `action`; the namespace cannot be entered.
    pub fn enter<T: Send>(
        &self,
        host: usize,
        action: impl FnOnce() -> Result<T> + Send,
    ) -> Result<T> {
        self.hosts[host].enter(action)
    }

    /// A UDP socket on a host (0 is A), at a free port of all of its addresses.
    ///
    /// # Errors
    ///
    /// What the kernel says against it.
    pub fn socket(&self, host: usize) -> Result<UdpSocket> {
        let anywhere = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0);
        self.hosts[host].enter(|| UdpSocket::bind(anywhere).context("bind"))
    }

    /// Executes a command of `netlab ctl`, for example `loss 5%`, `down`, `up` or `roam`; it has
    /// taken effect when this returns.
    ///
    /// # Errors
    ///
    /// Unknown commands and values; a lab that is just a veth pair.
    pub fn control(&self, command: &str) -> Result<String> {
        let emulator = self.emulator.as_ref().context("a veth pair cannot be changed")?;
        emulator.controller.execute(command)
    }

    pub(crate) fn build(config: &Config) -> Result<Self> {
        static LABS: AtomicU32 = AtomicU32::new(0);
        let plan = Plan { subnet: config.subnet, hosts: config.hosts };
        let book = Arc::new(AddressBook::new(plan));
        book.set_nat_timeout(config.nat_timeout);
        let name = format!("nl{}-{}", process::id(), LABS.fetch_add(1, Ordering::Relaxed));
        let hosts = (0..config.hosts)
            .map(|host| {
                let netns = Netns::create(format!("{name}{}", letter(host)))?;
                // No link-local addresses, no solicitations: only the lab's own traffic.
                netns.sysctl("net.ipv6.conf.default.addr_gen_mode", "1")?;
                netns.sysctl("net.ipv6.conf.default.router_solicitations", "0")?;
                for (key, value) in &config.sysctls {
                    netns.sysctl(key, value)?;
                }
                Ok(netns)
            })
            .collect::<Result<Vec<Netns>>>()?;

        let tuns = if config.veth {
            let (a, b) = (hosts[0].name(), hosts[1].name());
            run_ip(&[
                "link", "add", DEVICE, "netns", a, "type", "veth", "peer", "name", DEVICE, "netns",
                b,
            ])?;
            Vec::new()
        } else {
            hosts.iter().map(|netns| Tun::create(netns, DEVICE)).collect::<Result<Vec<_>>>()?
        };
        for (host, netns) in hosts.iter().enumerate() {
            configure_device(netns, &book, host, config)?;
        }

        let clock = Clock::start();
        let emulator = match config.veth {
            true => None,
            false => Some(Emulator::start(config, tuns, &name, hosts[0].name(), &book, clock)?),
        };
        Ok(Self { emulator, hosts, book, clock, seed: config.seed })
    }

    pub(crate) fn now(&self) -> Nanos {
        self.clock.now()
    }

    pub(crate) fn roamer(&self) -> Option<&Roamer> {
        self.emulator.as_ref().map(|emulator| &*emulator.roamer)
    }

    /// The environment variables that describe the lab.
    pub(crate) fn environment(&self) -> Vec<(String, String)> {
        let plan = self.book.plan();
        let mut variables = Vec::new();
        let mut add = |name: String, value: String| variables.push((name, value));
        for (host, netns) in self.hosts.iter().enumerate() {
            let number = host as Number + 1;
            let upper = letter(host).to_ascii_uppercase();
            let (v4, v6) = (plan.v4(number).to_string(), plan.v6(number).to_string());
            add(format!("NETLAB_{upper}"), netns.name().into());
            add(format!("NETLAB_{upper}_IP"), v4.clone());
            add(format!("NETLAB_{upper}_IP6"), v6.clone());
            add(format!("NETLAB_HOST_{number}"), netns.name().into());
            add(format!("NETLAB_IP_{number}"), v4);
            add(format!("NETLAB_IP6_{number}"), v6);
        }
        add("NETLAB_HOSTS".into(), self.hosts.len().to_string());
        add("NETLAB_DEVICE".into(), DEVICE.into());
        add("NETLAB_SEED".into(), self.seed.to_string());
        if let Some(emulator) = &self.emulator {
            add("NETLAB_CTL".into(), emulator.server.path().display().to_string());
        }
        variables
    }

    /// What has happened so far; `None` if there is no emulator.
    pub(crate) fn report(&self) -> Result<Option<Report>> {
        let Some(emulator) = &self.emulator else { return Ok(None) };
        let stations = emulator.router.collect(|station| {
            let links = station.links.iter().map(|link| link.as_ref().map(Link::stats));
            (station.stats, links.collect::<Vec<_>>())
        })?;
        let mut report = Report {
            seed: self.seed,
            seconds: self.now() as f64 / SECOND as f64,
            links: BTreeMap::new(),
            hosts: BTreeMap::new(),
        };
        for (source, (stats, links)) in stations.into_iter().enumerate() {
            for (destination, stats) in links.into_iter().enumerate() {
                if let Some(stats) = stats {
                    let pair = format!("{}{}", letter(source), letter(destination));
                    report.links.insert(pair, stats);
                }
            }
            let tun_overflow = dropped_by_device(&self.hosts[source]).unwrap_or(0);
            report.hosts.insert(letter(source).into(), HostReport { stats, tun_overflow });
        }
        Ok(Some(report))
    }
}

impl Emulator {
    fn start(
        config: &Config,
        tuns: Vec<Tun>,
        name: &str,
        host_a: &str,
        book: &Arc<AddressBook>,
        clock: Clock,
    ) -> Result<Self> {
        let outages: Arc<[Outage]> = config.outages.clone().into();
        let link = |source: usize, destination: usize| {
            let params = config.links.get(&(source, destination))?.clone();
            let stream = (source * 16 + destination) as u64;
            Some(Link::new(params, outages.clone(), config.seed, stream))
        };
        let links = (0..config.hosts)
            .map(|source| (0..config.hosts).map(|destination| link(source, destination)).collect())
            .collect();
        let router =
            Router::start(tuns, links, book.clone(), clock, config.mtu.into(), config.real_time)?;
        let roamer = Arc::new(Roamer::new(book.clone(), host_a.into()));
        let controller = Controller::new(router.remote(), roamer.clone(), book.clone());
        let controller = Arc::new(controller);
        let server = Server::start(name, controller.clone())?;
        Ok(Self { server, controller, router, roamer })
    }
}

fn configure_device(netns: &Netns, book: &AddressBook, host: usize, config: &Config) -> Result<()> {
    let mtu = config.mtu.to_string();
    let txqueuelen = config.txqueuelen.to_string();
    netns.ip(&["link", "set", DEVICE, "mtu", &mtu, "txqueuelen", &txqueuelen, "up"])?;
    for command in address_commands(book, "add", host as Number + 1) {
        let arguments: Vec<&str> = command.iter().map(String::as_str).collect();
        netns.ip(&arguments)?;
    }
    Ok(())
}

/// How many packets the kernel has dropped since the emulator did not read them in time.
fn dropped_by_device(netns: &Netns) -> Option<u64> {
    let file = format!("/sys/class/net/{DEVICE}/statistics/tx_dropped");
    // `ip netns exec` shows the namespace's own /sys.
    let output = Command::new("ip").args(["netns", "exec", netns.name(), "cat", &file]).output();
    String::from_utf8(output.ok()?.stdout).ok()?.trim().parse().ok()
}
