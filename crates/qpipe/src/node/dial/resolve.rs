//! From names to addresses.

use std::net::SocketAddr;
use std::time::Duration;

use qpipe_proto::ticket::{Address, Host};

use super::DialError;

/// Addresses tried, at most.
const DIAL_ADDRESSES_MAX: usize = 16;

/// The addresses behind names, IPv6 and IPv4 in turn (RFC 8305, section 4).
pub(super) async fn resolve(addresses: &[Address]) -> Result<Vec<SocketAddr>, DialError> {
    let mut found = Vec::new();
    let mut failure = None;
    for address in addresses {
        match address.host() {
            Host::Ip(ip) => found.push(SocketAddr::new(*ip, address.port())),
            Host::Dns(name) => match tokio::net::lookup_host((name.as_str(), address.port())).await
            {
                Ok(addresses) => found.extend(interleave(addresses.collect())),
                Err(source) => {
                    let (host, source) = (name.to_string(), source.into());
                    failure = Some(DialError::Resolve { host, source });
                }
            },
        }
    }
    let found = distinct(found, DIAL_ADDRESSES_MAX);
    match failure {
        Some(failure) if found.is_empty() => Err(failure),
        _ if found.is_empty() => Err(DialError::NoAnswer { tried: found, after: Duration::ZERO }),
        _ => Ok(found),
    }
}

/// Each address once, where it stands first, and no more than `most` of them.
pub(super) fn distinct(mut addresses: Vec<SocketAddr>, most: usize) -> Vec<SocketAddr> {
    let mut seen = Vec::new();
    addresses.retain(|address| {
        let is_new = !seen.contains(address);
        seen.push(*address);
        is_new
    });
    addresses.truncate(most);
    addresses
}

fn interleave(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let (six, four): (Vec<_>, Vec<_>) = addresses.into_iter().partition(SocketAddr::is_ipv6);
    let longest = six.len().max(four.len());
    (0..longest).flat_map(|i| [six.get(i), four.get(i)]).flatten().copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns() {
        let addresses = ["[::1]:1", "[::1]:2", "1.1.1.1:1"].map(|text| text.parse().unwrap());
        let [six, other_six, four] = addresses;
        assert_eq!(interleave(addresses.to_vec()), [six, four, other_six]);
    }
}
