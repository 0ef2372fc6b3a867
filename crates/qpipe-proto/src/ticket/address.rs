//! Where a node can be reached.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    num::NonZeroU16,
    str::FromStr,
};

/// The UDP port of a node that was given none: P-I-P-E on a telephone.
pub const DEFAULT_PORT: u16 = 7473;

/// The longest DNS name, without a final dot. The DNS's own limit (RFC 1035, section 2.3.4).
pub const DNS_NAME_BYTES_MAX: usize = 253;

/// The longest label of a DNS name, likewise.
const DNS_LABEL_BYTES_MAX: usize = 63;

/// A host and a UDP port: something that can be dialled.
///
/// Written `192.0.2.1:7473`, `[2001:db8::1]:7473` or `example.org:7473`. A text without a port
/// means [`DEFAULT_PORT`]; printing always names it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    host: Host,
    port: NonZeroU16,
}

impl Address {
    /// The address of a DNS name.
    pub fn from_dns(name: DnsName, port: NonZeroU16) -> Self {
        Self { host: Host::Dns(name), port }
    }

    /// The host: what to resolve, if it is a name.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The UDP port, never 0.
    pub fn port(&self) -> u16 {
        self.port.get()
    }

    /// The address as the operating system wants it, unless the host is a name.
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        match self.host {
            Host::Dns(_) => None,
            Host::Ip(ip) => Some(SocketAddr::new(ip, self.port())),
        }
    }

    /// From how far away the address can be reached.
    pub fn reach(&self) -> Reach {
        match self.host {
            Host::Dns(_) => Reach::Global,
            Host::Ip(ip) if ip.is_loopback() => Reach::Loopback,
            Host::Ip(IpAddr::V4(ip)) if is_private_v4(ip) => Reach::Private,
            Host::Ip(IpAddr::V6(ip)) if ip.is_unique_local() || ip.is_unicast_link_local() => {
                Reach::Private
            }
            Host::Ip(_) => Reach::Global,
        }
    }
}

/// Takes an IPv4 address that is dressed as IPv6 (`::ffff:192.0.2.1`) for what it is, and drops
/// zone and flow label, which have no meaning on another host.
///
/// # Errors
/// [`ParseAddressError::Port`] if the port is 0, [`ParseAddressError::Undialable`] if the address
/// is no single host's.
impl TryFrom<SocketAddr> for Address {
    type Error = ParseAddressError;

    fn try_from(socket: SocketAddr) -> Result<Self, ParseAddressError> {
        let ip = socket.ip().to_canonical();
        let port = NonZeroU16::new(socket.port()).ok_or(ParseAddressError::Port)?;
        let broadcast = ip == IpAddr::V4(Ipv4Addr::BROADCAST);
        if ip.is_unspecified() || ip.is_multicast() || broadcast {
            return Err(ParseAddressError::Undialable);
        }
        Ok(Self { host: Host::Ip(ip), port })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Dns(name) => write!(f, "{name}:{}", self.port),
            Host::Ip(IpAddr::V4(ip)) => write!(f, "{ip}:{}", self.port),
            Host::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]:{}", self.port),
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Address {
    type Err = ParseAddressError;

    fn from_str(text: &str) -> Result<Self, ParseAddressError> {
        if let Some(rest) = text.strip_prefix('[') {
            let (ip, rest) = rest.split_once(']').ok_or(ParseAddressError::Ipv6)?;
            if ip.contains('%') {
                return Err(ParseAddressError::Zone);
            }
            let ip: Ipv6Addr = ip.parse().map_err(|_| ParseAddressError::Ipv6)?;
            let port = parse_port(rest)?;
            return Self::try_from(SocketAddr::new(ip.into(), port.get()));
        }
        let (host, rest) = text.split_at(text.find(':').unwrap_or(text.len()));
        if rest.matches(':').count() > 1 {
            return Err(ParseAddressError::Ipv6);
        }
        let port = parse_port(rest)?;
        match host.parse::<Ipv4Addr>() {
            Ok(ip) => Self::try_from(SocketAddr::new(ip.into(), port.get())),
            Err(_) => Ok(Self::from_dns(host.parse()?, port)),
        }
    }
}

/// What stands before the port of an [`Address`]. An IP address here never is IPv4 dressed as IPv6.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host {
    /// A name that has to be resolved.
    Dns(DnsName),
    /// An IP address.
    Ip(IpAddr),
}

/// A host's name in the DNS, in lower case.
///
/// Labels of 1 to 63 letters, digits, `-` and `_`, no `-` at their ends, separated by dots; at most
/// [`DNS_NAME_BYTES_MAX`] bytes; a final dot is kept, since it tells resolvers not to search. The
/// last label is not a number: resolvers would take the whole for an IPv4 address of their own
/// reading (`127.1`).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DnsName(String);

impl DnsName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DnsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for DnsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for DnsName {
    type Err = ParseAddressError;

    fn from_str(text: &str) -> Result<Self, ParseAddressError> {
        if text.is_empty() {
            return Err(ParseAddressError::Missing);
        }
        let name = text.strip_suffix('.').unwrap_or(text);
        if name.len() > DNS_NAME_BYTES_MAX {
            return Err(ParseAddressError::Long);
        }
        let is_inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if let Some(at) = name.find(|c| !is_inner(c)) {
            return Err(ParseAddressError::Character { at });
        }
        let mut start = 0;
        for label in name.split('.') {
            let is_length_right = (1..=DNS_LABEL_BYTES_MAX).contains(&label.len());
            if !is_length_right || label.starts_with('-') || label.ends_with('-') {
                return Err(ParseAddressError::Label { at: start });
            }
            start += label.len() + ".".len();
        }
        if name.rsplit('.').next().is_some_and(is_number) {
            return Err(ParseAddressError::Ipv4);
        }
        Ok(Self(text.to_ascii_lowercase()))
    }
}

/// From how far away an [`Address`] can be reached; in the order in which a ticket lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reach {
    /// From anywhere, as far as the address tells. Names count as global: what they resolve to is
    /// not known here.
    Global,
    /// From the same site, link or provider: RFC 1918, RFC 6598 (CGNAT), unique local, link-local.
    Private,
    /// From the same host.
    Loopback,
}

/// Sorts addresses as a ticket lists them: global, private, loopback. The order of addresses that
/// reach equally far stays.
pub fn sort_by_reach(addresses: &mut [Address]) {
    addresses.sort_by_key(Address::reach);
}

/// Why a text is not an [`Address`]. Offsets count bytes of the host from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseAddressError {
    /// A character that host names do not have.
    #[error(
        "a host name has letters, digits, - and _ only (write other letters as xn--…), this one \
         has something else at byte {at}"
    )]
    Character {
        /// Where.
        at: usize,
    },
    /// A name that looks like an IPv4 address and is none.
    #[error("this is neither an IPv4 address, such as 192.0.2.1, nor a host name")]
    Ipv4,
    /// An IPv6 address that is wrong, or not in brackets.
    #[error("an IPv6 address is written in brackets, as in [2001:db8::1]:7473")]
    Ipv6,
    /// A part between two dots that is empty, too long, or has `-` at an end.
    #[error(
        "the parts of a host name have 1 to {DNS_LABEL_BYTES_MAX} characters and no - at their \
         ends, the one at byte {at} does not"
    )]
    Label {
        /// Where the part begins.
        at: usize,
    },
    /// Over [`DNS_NAME_BYTES_MAX`].
    #[error("a host name has at most {DNS_NAME_BYTES_MAX} bytes, this one has more")]
    Long,
    /// No host.
    #[error("the host is missing")]
    Missing,
    /// A port that is none.
    #[error("a port is a number from 1 to 65535")]
    Port,
    /// 0.0.0.0, ::, 255.255.255.255 or a multicast address.
    #[error("this address stands for many hosts: name one of them")]
    Undialable,
    /// `[fe80::1%eth0]`.
    #[error("an address with a zone (%) is not supported: use another address of that host")]
    Zone,
}

/// `rest` is what follows the host: nothing, or a colon and the port.
fn parse_port(rest: &str) -> Result<NonZeroU16, ParseAddressError> {
    let digits = match rest.strip_prefix(':') {
        None if rest.is_empty() => {
            return NonZeroU16::new(DEFAULT_PORT).ok_or(ParseAddressError::Port);
        }
        None => return Err(ParseAddressError::Ipv6),
        Some(digits) => digits,
    };
    // The standard library's parser also takes a plus sign.
    if !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err(ParseAddressError::Port);
    }
    digits.parse().map_err(|_| ParseAddressError::Port)
}

fn is_private_v4(ip: Ipv4Addr) -> bool {
    let [first, second, ..] = ip.octets();
    let is_cgnat = first == 100 && (64..128).contains(&second);
    ip.is_private() || ip.is_link_local() || is_cgnat
}

fn is_number(label: &str) -> bool {
    let (digits, is_digit): (&str, fn(&u8) -> bool) =
        match label.strip_prefix("0x").or_else(|| label.strip_prefix("0X")) {
            Some(digits) => (digits, u8::is_ascii_hexdigit),
            None => (label, u8::is_ascii_digit),
        };
    digits.as_bytes().iter().all(is_digit)
}

#[cfg(test)]
mod tests;
