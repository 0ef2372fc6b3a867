//! The join of two legs: what the holder of one writes, the holder of the other reads.
//!
//! A leg leads to a peer, by ends of pipes of a session, or to a program of this host, by descriptors
//! that it handed over. Whatever they lead to, the contract is the same end to end: bytes count as
//! consumed when the last hop says so, EOF and aborts pass through with their cause, and a reader that
//! leaves breaks the writer.

mod client;
mod exchange;
mod hub;
mod local;

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use qpipe::{Ends, PipeReader, PipeWriter};
use rustix::io::Errno;

pub(crate) use client::Client;
pub(crate) use hub::Hub;
pub(crate) use local::{Spliced, splice};

use crate::delivery;
use crate::fd::{Sink, Source};
use crate::local::{Event, Outcome, Stop};

/// One side of a named pipe, or of one that leads to another host.
pub(crate) struct Leg {
    /// What its holder writes comes from here.
    pub(crate) from: Option<From>,
    /// What its holder reads goes here.
    pub(crate) to: Option<To>,
    /// The program that waits, if the holder is one of this host.
    pub(crate) client: Option<Arc<Client>>,
}

/// Where bytes come from.
pub(crate) enum From {
    Local(Source),
    Peer(PipeReader),
}

/// Where bytes go.
pub(crate) enum To {
    Local(Sink),
    Peer(PipeWriter),
}

/// How one direction ended, as the writer's program and the reader's are told.
pub(crate) struct Ending {
    written: Outcome,
    read: Outcome,
}

impl fmt::Debug for Leg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.client.is_some() { "Leg of this host" } else { "Leg of a peer" })
    }
}

impl Leg {
    /// The leg that leads to a peer.
    pub(crate) fn to_peer(ends: Ends) -> Leg {
        let (from, to) = (ends.reader.map(From::Peer), ends.writer.map(To::Peer));
        Leg { from, to, client: None }
    }

    /// The leg of a program of this host.
    pub(crate) fn of_program(from: Option<Source>, to: Option<Sink>, client: Arc<Client>) -> Leg {
        let (from, to) = (from.map(From::Local), to.map(To::Local));
        Leg { from, to, client: Some(client) }
    }

    /// Whether its bytes need not be seen.
    pub(crate) fn can_be_spliced(&self) -> bool {
        let keeps_lines = matches!(&self.from, Some(From::Local(source)) if source.keeps_lines());
        self.client.is_some() && !keeps_lines
    }

    /// Tells its holder that a partner is there.
    pub(crate) fn tell_joined(&self) {
        if let Some(From::Peer(reader)) = &self.from {
            reader.join();
        }
        if let Some(To::Peer(writer)) = &self.to {
            writer.join();
        }
        if let Some(client) = &self.client {
            // Only now does it let go of its own copies: until then it can go to another node.
            client.tell(Event::Opened { host: None, address: None });
            client.set_joined();
        }
    }

    /// Waits until its holder leaves, while nobody is at the other end.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(crate) async fn absent(&self) {
        match (&self.client, &self.to, &self.from) {
            (Some(client), Some(To::Local(sink)), _) => tokio::select! {
                _ = client.left() => {}
                () = sink.broken() => {
                    let stop = output_failed(&delivery::broken());
                    let received = Some(Outcome { bytes: 0, stopped: Some(stop) });
                    client.tell(Event::Ended { sent: None, received });
                }
            },
            (Some(client), ..) => drop(client.left().await),
            (None, Some(To::Peer(writer)), _) => drop(writer.over().await),
            // EOF is no reason to leave: what was written waits for a reader, as long as its writer
            // waits for that.
            (None, _, Some(From::Peer(reader))) => {
                if reader.over().await.is_ok() {
                    reader.watch().gone().await;
                }
            }
            // Descriptors come from programs, and a leg without ends has no holder.
            (None, ..) => {}
        }
    }
}

/// Joins two legs of a named pipe: tells their holders that both are there, and carries.
pub(crate) async fn join(one: Leg, other: Leg) {
    one.tell_joined();
    other.tell_joined();
    carry_both(one, other).await;
}

/// Carries what goes from one leg to the other, both ways, until all is over; then tells the programs
/// of this host how it ended.
pub(crate) async fn carry_both(one: Leg, other: Leg) {
    let clients = (one.client.clone(), other.client.clone());
    for client in [&clients.0, &clients.1].into_iter().flatten() {
        client.knows().await;
    }
    let there = carry(one.from, &clients.0, other.to, &clients.1);
    let back = carry(other.from, &clients.1, one.to, &clients.0);
    let (there, back) = tokio::join!(there, back);
    let (sent, received) = split(there);
    let (replied, heard) = split(back);
    if let Some(client) = clients.0 {
        client.tell(Event::Ended { sent, received: heard });
    }
    if let Some(client) = clients.1 {
        client.tell(Event::Ended { sent: replied, received });
    }
}

/// Begins to carry what one leg's holder writes to the readers at a hub, or to it what is written there;
/// what this gives is done when that has had its end, and its program was told.
pub(crate) fn carry_at(hub: &Arc<Hub>, leg: Leg) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    let hub = hub.clone();
    match (leg.from, leg.to, leg.client) {
        (Some(From::Peer(from)), ..) => {
            let number = hub.add_writer();
            Box::pin(async move { hub.write_from_peer(number, from).await })
        }
        (Some(From::Local(from)), _, Some(client)) => {
            let number = hub.add_writer();
            if from.goes_on() {
                hub.go_on(number);
            }
            Box::pin(async move {
                client.knows().await;
                let sent = hub.write_from_program(number, from, &client).await;
                client.tell(Event::Ended { sent: Some(sent), received: None });
            })
        }
        (_, Some(To::Peer(to)), _) => {
            let number = hub.add_reader();
            Box::pin(async move { hub.read_to_peer(number, to).await })
        }
        (_, Some(To::Local(to)), Some(client)) => {
            let number = hub.add_reader();
            Box::pin(async move {
                client.knows().await;
                let received = hub.read_to_program(number, to, &client).await;
                client.tell(Event::Ended { sent: None, received: Some(received) });
            })
        }
        // Descriptors come from programs, and a leg without ends has no holder.
        _ => Box::pin(std::future::ready(())),
    }
}

fn split(ending: Option<Ending>) -> (Option<Outcome>, Option<Outcome>) {
    ending.map(Ending::both).unzip()
}

/// Carries one direction until it is over.
async fn carry(
    from: Option<From>,
    writer: &Option<Arc<Client>>,
    to: Option<To>,
    reader: &Option<Arc<Client>>,
) -> Option<Ending> {
    match (from?, writer, to?, reader) {
        (From::Peer(from), _, To::Peer(to), _) => {
            hub::relay(from, to).await;
            None
        }
        (From::Local(from), Some(writer), To::Peer(to), _) => {
            let stopped = local::feed(from, writer, to).await;
            Some(Ending::of(stopped, writer.sent()))
        }
        (From::Peer(from), _, To::Local(to), Some(reader)) => {
            let stopped = local::drain(from, to, reader).await;
            Some(Ending::of(stopped, reader.received()))
        }
        (From::Local(from), Some(writer), To::Local(to), Some(reader)) => {
            // Nobody else comes to a pipe between two.
            let spliced = splice(from, writer, to, reader, std::future::pending()).await;
            if let Spliced::Ended(ending) = spliced { Some(ending) } else { None }
        }
        // Descriptors come from programs.
        (From::Local(_), None, ..) | (_, _, To::Local(_), None) => None,
    }
}

impl Ending {
    /// What the writer's program is told, and the reader's.
    pub(crate) fn both(self) -> (Outcome, Outcome) {
        (self.written, self.read)
    }

    /// The same for both.
    fn of(stopped: Result<(), Stop>, bytes: u64) -> Ending {
        let outcome = Outcome { bytes, stopped: stopped.err() };
        Ending { written: outcome.clone(), read: outcome }
    }
}

fn input_failed(error: &io::Error) -> Stop {
    Stop::Input { errno: error.raw_os_error(), text: error.to_string() }
}

fn output_failed(error: &io::Error) -> Stop {
    let broken = (error.kind() == io::ErrorKind::BrokenPipe).then_some(Errno::PIPE.raw_os_error());
    Stop::Output { errno: error.raw_os_error().or(broken), text: error.to_string() }
}
