//! The command line and the configuration file.

mod link_options;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    io::{Write, stdout},
    path::{Path, PathBuf},
    str::FromStr,
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::{Args, Parser, Subcommand};
use serde::Deserialize;
use toml::Value;

use crate::{
    addr::MAX_HOSTS,
    ctl::{self, COMMANDS, parse_pair},
    garbage,
    lab::Config,
    params::Outage,
    session,
    units::{Nanos, SECOND, parse_duration},
};

use link_options::{LinkOptions, Setting, link_params};

/// Does what a command line asks for, the name of the program first; returns the exit status. Ends
/// the process where it is wrong, or asks for help.
///
/// # Errors
///
/// Labs that cannot be built, and files and sockets that cannot be used.
pub fn run(arguments: impl Iterator<Item = OsString>) -> Result<u8> {
    match Cli::parse_from(arguments).action {
        Action::Run { options, link, command } => session::run(options.resolve(link)?, &command),
        Action::Up { options, link } => session::up(options.resolve(link)?),
        Action::Ctl { ctl, command } => {
            writeln!(stdout(), "{}", ctl::send(&ctl, &command.join(" "))?)?;
            Ok(0)
        }
        Action::Gc => {
            for gone in garbage::collect()? {
                writeln!(stdout(), "deleted {gone}")?;
            }
            Ok(0)
        }
    }
}

/// Understands the options of `netlab run`.
pub(crate) fn parse(options: &[&str]) -> Result<Settings> {
    match Cli::try_parse_from([&["netlab", "up"], options].concat())?.action {
        Action::Up { options, link } => options.resolve(link),
        _ => bail!("options only"),
    }
}

/// Joins network namespaces by an emulated bad link.
#[derive(Parser)]
#[command(version, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) action: Action,
}

#[derive(Subcommand)]
pub(crate) enum Action {
    /// Set up a lab, run a command with it, tear it down, exit with the command's status
    Run {
        #[command(flatten)]
        options: LabOptions,
        #[command(flatten)]
        link: LinkOptions,
        /// The command; it finds the lab in the environment (NETLAB_A, NETLAB_A_IP, ...)
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Set up a lab and keep it until SIGINT or SIGTERM; prints its environment variables
    Up {
        #[command(flatten)]
        options: LabOptions,
        #[command(flatten)]
        link: LinkOptions,
    },
    /// Send a command to a running lab
    #[command(after_help = COMMANDS)]
    Ctl {
        /// The control socket
        #[arg(long, env = "NETLAB_CTL", value_name = "PATH")]
        ctl: PathBuf,
        /// The command
        #[arg(required = true)]
        command: Vec<String>,
    },
    /// Delete what labs that were killed with SIGKILL have left behind
    Gc,
}

/// The options that are about the lab as a whole. On the command line and in the file.
#[derive(Args, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub(crate) struct LabOptions {
    /// Read options from a TOML file; those on the command line take precedence
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub(crate) config: Option<PathBuf>,

    /// Number of hosts; each pair of them has a link in each direction [default: 2]
    #[arg(long, value_name = "N")]
    hosts: Option<usize>,

    /// Join two hosts by a plain veth pair, without emulation
    #[arg(long)]
    veth: bool,

    /// MTU of the devices [default: 1500]
    #[arg(long, value_name = "BYTES")]
    mtu: Option<u16>,

    /// How many packets may wait for the emulator to read them [default: 10000]
    #[arg(long, value_name = "PACKETS")]
    txqueuelen: Option<u32>,

    /// The third octet of the addresses 10.77.X.n [default: 0]
    #[arg(long, value_name = "X")]
    subnet: Option<u8>,

    /// Set a sysctl in every namespace: net.ipv4.tcp_sack=0; can be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    sysctl: Vec<String>,

    /// Seed of the random generators [default: a random one]
    #[arg(long)]
    seed: Option<u64>,

    /// Drop everything for a while: 5s+500ms; a bare number is in s; can be repeated
    #[arg(long, value_name = "START+DURATION")]
    outage: Vec<Outage>,

    /// When to change host A's address as the others see it, like a NAT that rebinds (in s)
    #[arg(long, value_name = "T1,T2,...", value_delimiter = ',')]
    roam: Vec<Seconds>,

    /// When to really change host A's address, with half a second without one (in s)
    #[arg(long, value_name = "T1,T2,...", value_delimiter = ',')]
    roam_real: Vec<Seconds>,

    /// Put host A behind a NAT that forgets it when it sends nothing for so long (in s)
    #[arg(long, value_name = "TIME")]
    nat_timeout: Option<Seconds>,

    /// Write the final counters to a file, as TOML
    #[arg(long, value_name = "FILE")]
    pub(crate) stats: Option<PathBuf>,

    /// Do not print the final counters
    #[arg(long, short)]
    pub(crate) quiet: bool,

    /// Run the emulator at normal instead of real-time priority
    #[arg(long)]
    no_real_time: bool,

    #[arg(skip)]
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

/// A point in time; a bare number is in seconds.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "Value")]
pub(crate) struct Seconds(pub Nanos);

impl FromStr for Seconds {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        parse_duration(text, SECOND).map(Self)
    }
}

impl TryFrom<Value> for Seconds {
    type Error = anyhow::Error;

    fn try_from(value: Value) -> Result<Self> {
        scalar(&value)?.parse()
    }
}

/// What the command line and the file say, put together.
pub(crate) struct Settings {
    pub(crate) lab: Config,
    /// When host A's address changes as others see it.
    pub(crate) roam: Vec<Nanos>,
    /// When host A really moves.
    pub(crate) roam_real: Vec<Nanos>,
    pub(crate) stats: Option<PathBuf>,
    pub(crate) quiet: bool,
}

impl LabOptions {
    /// Merges the options with those of the file they name.
    pub(crate) fn resolve(self, link: LinkOptions) -> Result<Settings> {
        let (file, mut settings) = match &self.config {
            None => (LabOptions::default(), Vec::new()),
            Some(path) => read_file(path).with_context(|| path.display().to_string())?,
        };
        settings.extend(link.settings);

        let hosts = self.hosts.or(file.hosts).unwrap_or(2);
        let veth = self.veth || file.veth;
        let outages = first_of(self.outage, file.outage);
        let roam = first_of(self.roam, file.roam);
        let roam_real = first_of(self.roam_real, file.roam_real);
        ensure!((2..=MAX_HOSTS).contains(&hosts), "there can be 2 to {MAX_HOSTS} hosts");
        if veth {
            ensure!(hosts == 2, "a veth pair joins exactly two hosts");
            ensure!(
                settings.is_empty()
                    && outages.is_empty()
                    && roam.is_empty()
                    && roam_real.is_empty(),
                "a veth pair is a perfect link: no link, outage or roaming options"
            );
        }
        let sysctls = file.sysctl.iter().chain(&self.sysctl).map(|text| parse_sysctl(text));
        let sysctls = sysctls.collect::<Result<_>>()?;
        let mtu = self.mtu.or(file.mtu).unwrap_or(1500);
        ensure!(mtu >= 1280, "IPv6 needs an MTU of at least 1280");

        let times = |list: Vec<Seconds>| list.into_iter().map(|time| time.0).collect();
        Ok(Settings {
            lab: Config {
                hosts,
                subnet: self.subnet.or(file.subnet).unwrap_or(0),
                mtu,
                txqueuelen: self.txqueuelen.or(file.txqueuelen).unwrap_or(10_000),
                seed: self.seed.or(file.seed).unwrap_or_else(random_seed),
                veth,
                real_time: !(self.no_real_time || file.no_real_time),
                sysctls,
                outages,
                nat_timeout: self.nat_timeout.or(file.nat_timeout).map(|time| time.0),
                links: link_params(hosts, &settings)?,
            },
            roam: times(roam),
            roam_real: times(roam_real),
            stats: self.stats.or(file.stats),
            quiet: self.quiet || file.quiet,
        })
    }
}

fn parse_sysctl(text: &str) -> Result<(String, String)> {
    let (key, value) =
        text.split_once('=').ok_or_else(|| anyhow!("--sysctl {text}: use KEY=VALUE"))?;
    Ok((key.trim().to_string(), value.trim().to_string()))
}

fn first_of<T>(preferred: Vec<T>, other: Vec<T>) -> Vec<T> {
    if preferred.is_empty() { other } else { preferred }
}

/// Reads a configuration file: lab options, link options, and a table of link
/// options for each direction (`[ab]`) that differs.
fn read_file(path: &Path) -> Result<(LabOptions, Vec<Setting>)> {
    let mut options: LabOptions = toml::from_str(&fs::read_to_string(path)?)?;
    let mut settings = Vec::new();
    for (key, value) in std::mem::take(&mut options.rest) {
        match (value, parse_pair(&key, MAX_HOSTS)) {
            (Value::Table(table), pair @ Some(_)) => {
                for (key, value) in table {
                    settings.push(Setting { pair, key, value: scalar(&value)? });
                }
            }
            (Value::Table(_), None) => bail!("[{key}] is not a direction such as [ab]"),
            (value, _) => settings.push(Setting { pair: None, value: scalar(&value)?, key }),
        }
    }
    Ok((options, settings))
}

/// The text of a string, a number or a boolean.
fn scalar(value: &Value) -> Result<String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Integer(_) | Value::Float(_) | Value::Boolean(_) => Ok(value.to_string()),
        _ => bail!("{value} is neither text nor a number"),
    }
}

fn random_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    // Short enough to type; JSON readers that use floating point keep it exact.
    RandomState::new().hash_one(0) % 1_000_000_000
}

#[cfg(test)]
mod tests;
