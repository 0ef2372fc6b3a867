//! `config.toml`: the node's own settings, and the hosts it knows with their pinned keys.
//!
//! ```toml
//! [node]
//! listen = ["0.0.0.0:7473", "[::]:7473"]
//! advertise = ["b.example:7473"]
//! memory = "256MiB"
//! heartbeat = "3s"
//! notice = "15s"
//! give-up = "24h"
//! linger = "1min"
//!
//! [hosts.b]
//! address = "b.example:7473"
//! fingerprint = "SHA256:…"
//! ```

mod pin;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use qpipe_proto::Fingerprint;
use qpipe_proto::contact::Patience;
use qpipe_proto::ticket::{Address, DEFAULT_PORT};
use serde::Deserialize;
use serde::de::{self, Deserializer, SeqAccess, Visitor};

pub use self::pin::{PinHostError, pin_host, remove_host};
use crate::alias::Alias;
use crate::document::{self, Parsed, Policy, ReadError, unwrapped};
use crate::size::ByteSize;

/// The largest `config.toml` that is read, in bytes: room for ten thousand hosts, and no more
/// memory than a small pipe's.
pub const CONFIG_FILE_BYTES_MAX: u64 = 1 << 20;

/// The memory budget of a node that says nothing else, in bytes.
const MEMORY_BYTES_DEFAULT: u64 = 256 << 20;

pub(crate) const POLICY: Policy =
    Policy { bytes_max: CONFIG_FILE_BYTES_MAX, owner_writes_alone: false };

/// What `config.toml` says.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Config {
    /// The settings of this node.
    pub node: NodeConfig,
    /// The hosts by the names that the user gave them.
    pub hosts: BTreeMap<Alias, KnownHost>,
}

/// `[node]`: the settings of this node.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NodeConfig {
    /// Where `qpipe serve` listens (UDP). Default: port 7473 of every IPv4 and IPv6 address.
    pub listen: Vec<SocketAddr>,
    /// Under which addresses others find this node, where it cannot see them itself. Default: none.
    pub advertise: Vec<Address>,
    /// The budget for bytes that wait in pipes. Default: 256 MiB.
    pub memory: ByteSize,
    /// How long peers that are not heard are waited for.
    pub waiting: Waiting,
    /// How long a node that commands have started stays without anything to do.
    pub linger: Option<Duration>,
}

/// How long to wait for a peer that is not heard before doing what, as far as the user says.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Waiting {
    /// Before another way to it is tried.
    pub heartbeat: Option<Duration>,
    /// Before the user is told.
    pub notice: Option<Duration>,
    /// Before its pipes are ended.
    pub give_up: Option<Duration>,
}

impl Waiting {
    /// These times; where one is not said that of `other`, and else the default, with `give_up` for
    /// the last.
    pub fn or(self, other: Waiting, give_up: Duration) -> Patience {
        let default = Patience::default();
        Patience {
            heartbeat: self.heartbeat.or(other.heartbeat).unwrap_or(default.heartbeat),
            notice: self.notice.or(other.notice).unwrap_or(default.notice),
            give_up: self.give_up.or(other.give_up).unwrap_or(give_up),
        }
    }
}

/// A time to wait, as people write it: `3s`, `10min`, `24h`; from 100 ms to a year. Less would take
/// every delay of a network for its end.
///
/// # Errors
/// It is none.
pub fn parse_waiting_time(text: &str) -> Result<Duration, &'static str> {
    const WRONG: &str = "expected a time from 100ms to 365days, as 3s, 10min or 24h";
    let time = humantime::parse_duration(text).map_err(|_| WRONG)?;
    let possible = Duration::from_millis(100)..=Duration::from_secs(365 * 24 * 3600);
    if possible.contains(&time) { Ok(time) } else { Err(WRONG) }
}

/// `[hosts.NAME]`: a host that this node dials.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct KnownHost {
    /// Where it is; never empty. All are tried.
    pub addresses: Vec<Address>,
    /// The fingerprint of its key. None: not seen yet, the first use asks and pins it.
    pub fingerprint: Option<Fingerprint>,
}

impl Config {
    /// Reads the file; a missing one says nothing, which leaves the defaults.
    ///
    /// # Errors
    /// If it cannot be read, is larger than [`CONFIG_FILE_BYTES_MAX`], or has anything in it that
    /// is not understood.
    pub fn load(path: &Path) -> Result<Self, ReadError> {
        match document::read(path, POLICY)? {
            Some(text) => Self::parse(path, &text),
            None => Ok(Self::default()),
        }
    }

    /// The host that the user calls `name`.
    pub fn host(&self, name: &str) -> Option<&KnownHost> {
        self.hosts.get(name)
    }

    /// What the user calls the host with this key; the first in the alphabet if it has more names.
    pub fn alias_by_fingerprint(&self, fingerprint: &Fingerprint) -> Option<&Alias> {
        let has_it = |host: &KnownHost| host.fingerprint.as_ref() == Some(fingerprint);
        self.hosts.iter().find(|(_, host)| has_it(host)).map(|(alias, _)| alias)
    }

    /// Reads the text of the file `path`.
    pub(crate) fn parse(path: &Path, text: &str) -> Result<Self, ReadError> {
        let file: ConfigText = document::parse(path, text)?;
        let node = NodeConfig {
            listen: file.node.listen.map_or_else(default_listen, |list| list.0),
            advertise: unwrapped(file.node.advertise),
            memory: file.node.memory.map_or_else(default_memory, |MemoryText(size)| size),
            waiting: Waiting {
                heartbeat: file.node.heartbeat.map(|Parsed(WaitingTime(time))| time),
                notice: file.node.notice.map(|Parsed(WaitingTime(time))| time),
                give_up: file.node.give_up.map(|Parsed(WaitingTime(time))| time),
            },
            linger: file.node.linger.map(|Parsed(WaitingTime(time))| time),
        };
        let host = |text: HostText| KnownHost {
            addresses: text.address.0,
            fingerprint: text.fingerprint.map(|Parsed(fingerprint)| fingerprint),
        };
        let hosts = file.hosts.into_iter().map(|(Parsed(alias), text)| (alias, host(text)));
        Ok(Self { node, hosts: hosts.collect() })
    }
}

impl Default for NodeConfig {
    fn default() -> Self {
        let (listen, memory) = (default_listen(), default_memory());
        let waiting = Waiting::default();
        Self { listen, advertise: Vec::new(), memory, waiting, linger: None }
    }
}

fn default_listen() -> Vec<SocketAddr> {
    let every = [IpAddr::from(Ipv4Addr::UNSPECIFIED), IpAddr::from(Ipv6Addr::UNSPECIFIED)];
    every.map(|ip| SocketAddr::new(ip, DEFAULT_PORT)).to_vec()
}

fn default_memory() -> ByteSize {
    ByteSize::from_bytes(MEMORY_BYTES_DEFAULT)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ConfigText {
    #[serde(default)]
    node: NodeText,
    #[serde(default)]
    hosts: BTreeMap<Parsed<Alias>, HostText>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct NodeText {
    listen: Option<ListenText>,
    #[serde(default)]
    advertise: Vec<Parsed<Address>>,
    memory: Option<MemoryText>,
    heartbeat: Option<Parsed<WaitingTime>>,
    notice: Option<Parsed<WaitingTime>>,
    #[serde(rename = "give-up")]
    give_up: Option<Parsed<WaitingTime>>,
    linger: Option<Parsed<WaitingTime>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HostText {
    address: AddressesText,
    fingerprint: Option<Parsed<Fingerprint>>,
}

/// A time to wait.
struct WaitingTime(Duration);

impl FromStr for WaitingTime {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse_waiting_time(text).map(Self)
    }
}

/// At least one `ADDR:PORT`.
struct ListenText(Vec<SocketAddr>);

impl<'de> Deserialize<'de> for ListenText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let list = Vec::<Parsed<ListenAddress>>::deserialize(deserializer)?;
        if list.is_empty() {
            return Err(de::Error::custom("`listen` is empty: leave it out for port 7473"));
        }
        Ok(Self(list.into_iter().map(|Parsed(ListenAddress(address))| address).collect()))
    }
}

/// An address of this host, which unlike a peer's is never a name.
struct ListenAddress(SocketAddr);

impl FromStr for ListenAddress {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let address = text.parse().map(Self);
        address.map_err(|_| "expected ADDR:PORT, as 0.0.0.0:7473 or [::]:7473")
    }
}

/// A string with a unit, or a plain number of bytes.
struct MemoryText(ByteSize);

impl<'de> Deserialize<'de> for MemoryText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Size;

        impl Visitor<'_> for Size {
            type Value = MemoryText;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size, as \"256MiB\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                let bad = |error| E::custom(format_args!("bad value {text:?}: {error}"));
                text.parse().map(MemoryText).map_err(bad)
            }

            fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<Self::Value, E> {
                let bytes = u64::try_from(bytes);
                let bytes = bytes.map_err(|_| E::custom("a size cannot be negative"))?;
                Ok(MemoryText(ByteSize::from_bytes(bytes)))
            }
        }

        deserializer.deserialize_any(Size)
    }
}

/// One address, or a list with at least one.
struct AddressesText(Vec<Address>);

impl<'de> Deserialize<'de> for AddressesText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMore;

        impl<'de> Visitor<'de> for OneOrMore {
            type Value = AddressesText;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an address, as \"b.example:7473\", or a list of them")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                let bad = |error| E::custom(format_args!("bad value {text:?}: {error}"));
                text.parse().map(|address| AddressesText(vec![address])).map_err(bad)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut addresses = Vec::new();
                while let Some(Parsed(address)) = list.next_element()? {
                    addresses.push(address);
                }
                if addresses.is_empty() {
                    return Err(de::Error::custom("the list of addresses is empty"));
                }
                Ok(AddressesText(addresses))
            }
        }

        deserializer.deserialize_any(OneOrMore)
    }
}

#[cfg(test)]
mod tests;
