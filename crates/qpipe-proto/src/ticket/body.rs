//! The content of a ticket's text: between [`Ticket`] and its protobuf message.

use std::net::{IpAddr, SocketAddr};

use prost::Message;

use super::{
    Address, DEFAULT_PORT, End, Grant, Host, MakeTicketError, ParseTicketError, Secret, Ticket,
};
use crate::{
    fingerprint::Fingerprint,
    wire::pb::{self, ticket::Grant as PbGrant, ticket_address::Host as PbHost},
};

/// The version of tickets that this code writes, and the highest that it reads.
const TICKET_VERSION: u32 = 1;

pub(super) fn encode(ticket: &Ticket) -> Vec<u8> {
    let message = pb::Ticket {
        version: TICKET_VERSION,
        addresses: ticket.addresses.iter().map(address_message).collect(),
        fingerprint: ticket.fingerprint.as_bytes().to_vec(),
        secret: ticket.secret.expose().to_vec(),
        grant: Some(match &ticket.grant {
            Grant::Invitation { alias, by } => {
                PbGrant::Invitation(pb::TicketInvitation { alias: alias.clone(), by: by.clone() })
            }
            Grant::Pipe(end) => PbGrant::Pipe(end_message(*end).into()),
        }),
        expires: ticket.expires,
    };
    message.encode_to_vec()
}

pub(super) fn decode(body: &[u8]) -> Result<Ticket, ParseTicketError> {
    check_version(body)?;
    let message = pb::Ticket::decode(body).map_err(|_| ParseTicketError::Malformed)?;
    // What this version would not write itself holds something that it does not know, and that
    // could narrow the grant.
    if message.encode_to_vec() != body {
        return Err(ParseTicketError::Newer);
    }
    let addresses = message.addresses.iter().map(read_address).collect::<Result<_, _>>()?;
    let fingerprint = message.fingerprint.try_into().map_err(|_| ParseTicketError::Malformed)?;
    let secret = message.secret.try_into().map_err(|_| ParseTicketError::Malformed)?;
    let grant = read_grant(message.grant.ok_or(ParseTicketError::Malformed)?)?;
    Ticket::new(
        addresses,
        Fingerprint::from_bytes(fingerprint),
        Secret::from_bytes(secret),
        grant,
        message.expires,
    )
    .map_err(|error| match error {
        MakeTicketError::NoAddress => ParseTicketError::NoAddress,
        MakeTicketError::TooLong => ParseTicketError::TooLong,
        MakeTicketError::Alias | MakeTicketError::TooManyAddresses => ParseTicketError::Malformed,
    })
}

/// Comes first and by itself, since the rest of a newer ticket may be built in another way.
fn check_version(body: &[u8]) -> Result<(), ParseTicketError> {
    let message = pb::TicketVersion::decode(body).map_err(|_| ParseTicketError::Malformed)?;
    match message.version {
        0 => Err(ParseTicketError::Malformed),
        TICKET_VERSION => Ok(()),
        _ => Err(ParseTicketError::Newer),
    }
}

fn address_message(address: &Address) -> pb::TicketAddress {
    let host = match address.host() {
        Host::Dns(name) => PbHost::Dns(name.as_str().to_owned()),
        Host::Ip(IpAddr::V4(ip)) => PbHost::Ip(ip.octets().to_vec()),
        Host::Ip(IpAddr::V6(ip)) => PbHost::Ip(ip.octets().to_vec()),
    };
    let port = if address.port() == DEFAULT_PORT { 0 } else { address.port().into() };
    pb::TicketAddress { host: Some(host), port }
}

fn read_address(message: &pb::TicketAddress) -> Result<Address, ParseTicketError> {
    let address = parse_address(message).ok_or(ParseTicketError::BadAddress)?;
    // Each address has one message: no upper case, no IPv4 dressed as IPv6, no default port.
    if address_message(&address) == *message {
        Ok(address)
    } else {
        Err(ParseTicketError::BadAddress)
    }
}

fn parse_address(message: &pb::TicketAddress) -> Option<Address> {
    let port = match message.port {
        0 => DEFAULT_PORT,
        port => port.try_into().ok()?,
    };
    match message.host.as_ref()? {
        PbHost::Dns(name) => Some(Address::from_dns(name.parse().ok()?, port.try_into().ok()?)),
        PbHost::Ip(ip) => {
            let ip = match ip.len() {
                4 => IpAddr::from(<[u8; 4]>::try_from(ip.as_slice()).ok()?),
                _ => IpAddr::from(<[u8; 16]>::try_from(ip.as_slice()).ok()?),
            };
            Address::try_from(SocketAddr::new(ip, port)).ok()
        }
    }
}

fn end_message(end: End) -> pb::TicketEnd {
    match end {
        End::Duplex => pb::TicketEnd::Duplex,
        End::Read => pb::TicketEnd::Read,
        End::Write => pb::TicketEnd::Write,
    }
}

fn read_grant(message: PbGrant) -> Result<Grant, ParseTicketError> {
    match message {
        PbGrant::Invitation(pb::TicketInvitation { alias, by }) => {
            Ok(Grant::Invitation { alias, by })
        }
        PbGrant::Pipe(end) => match pb::TicketEnd::try_from(end) {
            Ok(pb::TicketEnd::Duplex) => Ok(Grant::Pipe(End::Duplex)),
            Ok(pb::TicketEnd::Read) => Ok(Grant::Pipe(End::Read)),
            Ok(pb::TicketEnd::Write) => Ok(Grant::Pipe(End::Write)),
            Ok(pb::TicketEnd::Unspecified) => Err(ParseTicketError::Malformed),
            Err(_) => Err(ParseTicketError::Newer),
        },
    }
}
