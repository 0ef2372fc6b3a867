//! Opening the ends that a command works with, and taking leave of the peer.

use std::{
    future::Future,
    io::{self, IsTerminal},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, anyhow, bail};
use qpipe::{
    Cause, End, Ends, Nobody, Node, NodeOptions, OpenOptions, OpenTarget, PipeError, PipeReader,
    PipeWriter, StartError, Ticket,
    identity::{HostIdentity, Identity},
    interface_addresses,
};
use qpipe_node::Way;
use qpipe_proto::ticket::{Address, Grant, TICKET_ADDRESSES_MAX};

use crate::{
    args::PipeArgs,
    commands::bind_remedy,
    dial,
    ending::Label,
    exit::Exit,
    host::ThisHost,
    pump::Stopped,
    say,
    signals::Signals,
    silence,
    target::{Place, command_for},
};

/// How long the peer is given to hear how a pipe ended before the process does.
pub(crate) const FAREWELL: Duration = Duration::from_secs(3);

/// How long a host that is not heard is waited for, unless the user says otherwise: there is no node
/// that could answer for this process once it is gone.
const GIVE_UP: Duration = Duration::from_secs(600);

/// A process's certificate is valid for 24 hours.
const RENEW_EVERY: Duration = Duration::from_secs(8 * 3600);

/// How long an end waits for a partner before it says so.
pub(crate) const SILENT_WAIT: Duration = Duration::from_secs(2);

/// The same when a signal is waiting to be died of.
const FAREWELL_OF_SIGNAL: Duration = Duration::from_secs(2);

/// An open pipe, or two.
pub(crate) struct Opened {
    /// The node that carries them.
    pub(crate) node: Arc<Node>,
    /// What messages call them.
    pub(crate) label: Label,
    /// The end to write, if asked for.
    pub(crate) writer: Option<PipeWriter>,
    /// The end to read, if asked for.
    pub(crate) reader: Option<PipeReader>,
}

impl Opened {
    /// The end to write.
    ///
    /// # Errors
    /// None was asked for.
    pub(crate) fn take_writer(&mut self) -> anyhow::Result<PipeWriter> {
        self.writer.take().context("the other host opened no end to write")
    }

    /// The end to read.
    ///
    /// # Errors
    /// None was asked for.
    pub(crate) fn take_reader(&mut self) -> anyhow::Result<PipeReader> {
        self.reader.take().context("the other host opened no end to read")
    }

    /// Gives the peer time to hear how everything ended, then closes the node.
    pub(crate) async fn farewell(self, exit: Exit, signals: &mut Signals) {
        let is_signal = matches!(exit, Exit::Signal(_)) && exit != Exit::broken_pipe();
        let within = if is_signal { FAREWELL_OF_SIGNAL } else { FAREWELL };
        let closing = async {
            match is_signal {
                true => self.node.close(within).await,
                // A peer whose network is away is to hear it, too: a writer would wait for ever.
                false => self.node.close_patiently(within).await,
            }
        };
        tokio::select! {
            report = closing => if report.cut > 0 {
                say::error(format_args!(
                    "the other host did not confirm in {1} s that it knows how {0} ended",
                    self.label,
                    within.as_secs()
                ));
            },
            // Whoever sends a second one does not want to wait.
            _ = signals.next() => {}
        }
    }
}

/// Opens what the command line asks for: `end` is the end that this command holds.
///
/// # Errors
/// The target is wrong, or cannot be reached.
pub(crate) async fn open(
    args: &PipeArgs,
    end: End,
    this: &ThisHost,
    place: Place,
) -> anyhow::Result<Opened> {
    let label = place.label();
    let (way, target, secret) = match place {
        Place::Anonymous => return offer(args, end, this).await,
        Place::Local(name) => (this.own_node().await?, OpenTarget::Name(name), None),
        Place::Remote { host, name } => {
            (Way::to(&host, &this.config)?, OpenTarget::Name(name), None)
        }
        Place::Ticket(ticket) => {
            let secret = ticket.secret().clone();
            (Way::by_ticket(&ticket), OpenTarget::Ticket(secret.clone()), Some(secret))
        }
    };
    let node = start(args, this, false)?;
    let session = dial::connect(way, &node, this, secret.as_ref(), args.accept_new).await?;
    say::detail(format_args!(
        "connected to {} ({}/udp)",
        session.peer().host(),
        session.remote_address()
    ));
    let options = OpenOptions {
        no_wait: args.no_wait,
        priority: args.flow.priority.into(),
        capacity: args.flow.capacity.map(|capacity| capacity.size().bytes()),
    };
    let Ends { writer, reader, .. } = session
        .open_ends(end, target, options)
        .await
        .with_context(|| format!("cannot open {label}"))?;
    Ok(Opened { node, label, writer, reader })
}

/// Waits until the open is granted; with `--no-wait` or `--timeout`, until somebody is at the other
/// end. Nothing is read from standard input before: `qpipe send x || cat` is to lose nothing.
///
/// # Errors
/// Refused, nobody came in time, or the pipe is over for another reason.
pub(crate) async fn await_partner(
    accepted: impl Future<Output = Result<(), PipeError>>,
    joined: impl Future<Output = Result<(), PipeError>>,
    args: &PipeArgs,
) -> Result<(), Stopped> {
    let answered = async {
        accepted.await?;
        if args.no_wait || args.timeout.is_some() { joined.await } else { Ok(()) }
    };
    let Some(timeout) = args.timeout else { return answered.await.map_err(Stopped::Pipe) };
    match tokio::time::timeout(timeout, answered).await {
        Ok(answered) => answered.map_err(Stopped::Pipe),
        Err(_) => Err(Stopped::NoPartner),
    }
}

/// Says on a terminal that nobody is at the other end yet, if that is so for long: there, waiting
/// looks like hanging.
pub(crate) fn tell_waiting(
    joined: impl Future<Output = Result<(), PipeError>> + Send + 'static,
    label: &Label,
) {
    let Some(waiting) = waiting_note(label) else { return };
    drop(tokio::spawn(async move {
        if tokio::time::timeout(SILENT_WAIT, joined).await.is_err() {
            say::note(waiting);
        }
    }));
}

/// What is said of an end that waits long for another; nothing where nobody looks.
pub(crate) fn waiting_note(label: &Label) -> Option<String> {
    io::stderr().is_terminal().then(|| waiting_for(label))
}

/// A pipe of this host whose name has a slash may have been meant for a host that nobody knows.
fn waiting_for(label: &Label) -> String {
    let note = format!("waiting for somebody at the other end of {label}");
    match label {
        Label::Local(name) => match name.split_once('/') {
            Some((first, _)) => format!("{note}, a pipe of this host: no host is called {first}"),
            None => note,
        },
        _ => note,
    }
}

/// What the other end is told when this one stops for its own reasons.
pub(crate) fn cause_of(stopped: &Stopped) -> Cause {
    match stopped {
        Stopped::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => Cause::ReaderClosed,
        Stopped::Input(_) | Stopped::Output(_) => Cause::Io,
        Stopped::NoPartner => Cause::TimedOut,
        Stopped::Signal(_) => Cause::Interrupted,
        Stopped::Pipe(error) => error.cause(),
    }
}

/// The addresses to name in a ticket: those the user names, then those of this host.
///
/// # Errors
/// This host's addresses cannot be listed.
pub(crate) fn ticket_addresses(
    advertise: &[Address],
    bound: &[SocketAddr],
) -> anyhow::Result<Vec<Address>> {
    let own = interface_addresses(bound).context("cannot list this host's addresses")?;
    let mut addresses = Vec::new();
    for address in advertise.iter().chain(&own) {
        if !addresses.contains(address) {
            addresses.push(address.clone());
        }
    }
    addresses.truncate(TICKET_ADDRESSES_MAX);
    Ok(addresses)
}

/// A node of this process alone.
fn start(args: &PipeArgs, this: &ThisHost, accepts: bool) -> anyhow::Result<Arc<Node>> {
    let options = NodeOptions {
        listen: args.at.listen.clone(),
        memory: this.memory(args.memory),
        accepts,
        patience: this.patience(args.waiting, GIVE_UP),
        ..NodeOptions::default()
    };
    let identity = this.identity()?.process()?;
    let started = Node::start(identity.clone(), options, Arc::new(Nobody));
    let node = Arc::new(started.map_err(|error| match &error {
        StartError::Bind { address, source } => {
            anyhow!("{error}: {}", bind_remedy(*address, source.kind()))
        }
        StartError::Random(_) | StartError::Tls(_) => error.into(),
    })?);
    tokio::spawn(keep_certified(node.clone(), this.identity()?.clone(), identity));
    let (telling, config) = (node.clone(), this.config.clone());
    tokio::spawn(async move {
        while let Some(notice) = telling.next_notice().await {
            silence::tell(&notice, &config);
        }
    });
    Ok(node)
}

/// Renews the certificate of a process that runs for long: with one that is expired it could not dial
/// again after an outage.
pub(crate) async fn keep_certified(node: Arc<Node>, host: HostIdentity, identity: Identity) {
    loop {
        tokio::time::sleep(RENEW_EVERY).await;
        let renewed = host.renew(&identity).map_err(anyhow::Error::from);
        if let Err(error) = renewed.and_then(|identity| Ok(node.renew(identity)?)) {
            say::error(format_args!("this process's certificate could not be renewed: {error}"));
        }
    }
}

/// Makes an anonymous pipe, shows the command for the other host, and waits for that to be run.
async fn offer(args: &PipeArgs, end: End, this: &ThisHost) -> anyhow::Result<Opened> {
    let node = start(args, this, true)?;
    let granted = match end {
        End::Duplex => End::Duplex,
        End::Read => End::Write,
        End::Write => End::Read,
    };
    let mut offer = node.offer(granted, None).context("cannot make a ticket")?;
    let advertise = [&args.at.advertise[..], &this.config.node.advertise[..]].concat();
    let addresses = ticket_addresses(&advertise, &node.local_addresses())?;
    let ticket = Ticket::new(
        addresses,
        node.fingerprint(),
        offer.secret().clone(),
        Grant::Pipe(granted),
        None,
    )?;
    say::note("run this on the other host:");
    say::show(format_args!("qpipe {} {ticket}", command_for(granted)));
    let taken = offer.taken();
    let taken = match args.timeout {
        None => taken.await,
        Some(timeout) => match tokio::time::timeout(timeout, taken).await {
            Ok(taken) => taken,
            Err(_) => bail!(
                "nobody used the ticket in {}: run the command on the other host sooner, or give \
                 --timeout more",
                humantime::format_duration(timeout)
            ),
        },
    };
    let Some(Ends { session, writer, reader }) = taken else {
        bail!("the node was closed before anybody used the ticket");
    };
    let (peer, from) = (session.peer().host(), session.remote_address());
    say::detail(format_args!("the ticket was used by {peer} ({from}/udp)"));
    // The other command has opened the pipe: this one says for its own side what it was told.
    if let Some(writer) = &writer {
        writer.set_priority(args.flow.priority.into());
    }
    if let Some(capacity) = args.flow.capacity.map(|capacity| capacity.size().bytes()) {
        writer.iter().for_each(|writer| writer.set_capacity(capacity));
        reader.iter().for_each(|reader| reader.set_capacity(capacity));
    }
    Ok(Opened { node, label: Label::Anonymous, writer, reader })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_learns_that_a_host_is_unknown() {
        let note = |name: &str| waiting_for(&Label::Local(name.to_owned()));
        assert!(
            note("bb/x").ends_with("of the pipe bb/x, a pipe of this host: no host is called bb")
        );
        assert!(note("x").ends_with("of the pipe x"));
        let remote = Label::Remote { host: "b".to_owned(), name: "inbox/x".to_owned() };
        assert!(!waiting_for(&remote).contains("no host"));
    }
}
