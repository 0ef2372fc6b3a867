//! `qpipe serve`.

use std::{io, net::SocketAddr, time::Duration};

use anyhow::{Context, anyhow};
use qpipe::{Notice, StartError};
use qpipe_node::{
    DEFAULT_LISTEN, GIVE_UP, Home, ReadError, Serve, ServeError, ServeOptions, Stopping,
    local::{Listener, LocalError, hold_start, retire},
};
use signal_hook::consts::{SIGHUP, SIGTERM};

use crate::{
    args::ServeArgs, commands::allow_descriptors, exit::Exit, host::ThisHost, say,
    signals::Signals, silence,
};

/// How long pipes that are open may go on when the node is told to stop.
const GRACE: Duration = Duration::from_secs(10);

/// Runs this host's node until a signal ends it.
///
/// # Errors
/// It cannot start: another one runs, the port is taken, a file is broken.
pub(crate) async fn run(args: ServeArgs) -> anyhow::Result<Exit> {
    allow_descriptors();
    let mut signals = Signals::listen()?;
    let this = ThisHost::load()?;
    let patience = this.patience(args.bounds.waiting, GIVE_UP);
    let options =
        ServeOptions { listen: args.listen, memory: this.memory(args.bounds.memory), patience };
    // A node that commands have started makes room.
    let home = this.home()?;
    home.create()?;
    let starting = hold_start(home).await.context("cannot keep commands from starting a node")?;
    match retire(home).await {
        // That is another `qpipe serve`, of which the lock tells more.
        Ok(()) | Err(LocalError::Declined(_)) => {}
        Err(error) => return Err(error).context("the node of this host's programs stays"),
    }
    let serve = start(home, &this, options)?;
    let mut listener = Some(Listener::bind(home)?);
    drop(starting);
    say::note(format_args!("listening on {}", listening(&serve)));
    say::note(format_args!("this host's key is {}", this.identity()?.fingerprint()));
    if let Some(capped) = serve.node().capped_buffers() {
        say::note(format_args!("{capped}"));
    }
    let (signal, grace) = loop {
        tokio::select! {
            () = serve.run(tell_broken_rules) => return Err(anyhow!("the node's sockets were closed")),
            Some(notice) = serve.node().next_notice() => tell(&serve, &this, &notice),
            stopping = share(&serve, listener.as_ref()) => match stopping {
                Stopping::Within(within) => break (SIGTERM, within),
                // Somebody has removed the socket. Other hosts are served all the same.
                Stopping::Retired => {
                    drop(listener.take());
                    listener = match Listener::bind(home) {
                        Ok(listener) => Some(listener),
                        Err(error) => {
                            say::error(format_args!(
                                "programs of this host do not reach this node any more: {error}"
                            ));
                            None
                        }
                    };
                }
            },
            signal = signals.next() => match signal {
                SIGHUP => reload(&serve),
                signal => break (signal, GRACE),
            },
        }
    };
    // Whoever comes from now on starts a node of its own.
    drop(listener);
    say::note(format_args!(
        "stopping: open pipes have {} s to end; a second signal cuts them",
        grace.as_secs()
    ));
    Ok(end(&serve, &this, grace, signal, &mut signals).await)
}

/// Lets what is open come to its end, as far as there is time and no second signal; cuts the rest.
async fn end(
    serve: &Serve,
    this: &ThisHost,
    grace: Duration,
    first: i32,
    signals: &mut Signals,
) -> Exit {
    let ended = {
        let ending = finish(serve, grace);
        tokio::pin!(ending);
        loop {
            tokio::select! {
                cut = &mut ending => break Ok(cut),
                Some(notice) = serve.node().next_notice() => tell(serve, this, &notice),
                signal = signals.next() => match signal {
                    SIGHUP => reload(serve),
                    signal => break Err(signal),
                },
            }
        }
    };
    let exit = match ended {
        Ok(0) => Exit::Success,
        Ok(cut) => {
            say::error(format_args!("cut {cut} pipes that had not ended"));
            Exit::Signal(first)
        }
        Err(second) => {
            // Those who are cut hear that and why.
            finish(serve, Duration::ZERO).await;
            Exit::Signal(second)
        }
    };
    serve.shared().over().await;
    exit
}

/// Ends the pipes of other hosts and of this one's programs; how many were cut.
async fn finish(serve: &Serve, within: Duration) -> usize {
    let (report, cut_here) = tokio::join!(serve.stop(within), serve.shared().finish(within));
    report.cut + cut_here
}

/// Tells what the node noticed of a peer, here and to programs that wait for it.
fn tell(serve: &Serve, this: &ThisHost, notice: &Notice) {
    silence::tell(notice, &this.config);
    serve.shared().tell(notice, &silence::name(notice, &this.config));
}

fn reload(serve: &Serve) {
    match serve.reload() {
        Ok(()) => say::note("read authorized.toml again"),
        Err(error) => tell_broken_rules(error),
    }
}

/// Answers programs of this host, if there is a socket for that.
async fn share(serve: &Serve, listener: Option<&Listener>) -> Stopping {
    match listener {
        Some(listener) => serve.shared().run(listener).await,
        None => std::future::pending().await,
    }
}

/// Starts this host's node on the addresses of the command line, else of config.toml.
///
/// # Errors
/// It cannot start: the text says what to do about it.
pub(crate) fn start(home: &Home, this: &ThisHost, options: ServeOptions) -> anyhow::Result<Serve> {
    let given = &options.listen[..];
    let listen = if given.is_empty() { &this.config.node.listen[..] } else { given };
    // The node's own default also serves hosts without IPv6.
    let listen = if listen == DEFAULT_LISTEN { Vec::new() } else { listen.to_vec() };
    Serve::start(home, ServeOptions { listen, ..options }).map_err(explain)
}

/// Says that the rules were changed to what cannot be understood.
pub(crate) fn tell_broken_rules(error: ReadError) {
    say::error(format_args!("{error}; what it said before stays in force"));
}

/// Where the node listens.
pub(crate) fn listening(serve: &Serve) -> String {
    let addresses = serve.node().local_addresses();
    let texts: Vec<String> = addresses.iter().map(|address| format!("{address}/udp")).collect();
    texts.join(" and ")
}

fn explain(error: ServeError) -> anyhow::Error {
    let ServeError::Start(start) = error else { return error.into() };
    let StartError::Bind { address, source } = &start else { return start.into() };
    anyhow!("{start}: {}", bind_remedy(*address, source.kind()))
}

/// What to do when an address cannot be listened on.
pub(crate) fn bind_remedy(address: SocketAddr, kind: io::ErrorKind) -> String {
    let port = address.port();
    match kind {
        io::ErrorKind::AddrInUse => format!(
            "another program has UDP port {port}, perhaps a `qpipe serve` of another home; end it, \
             or name another port with --listen"
        ),
        io::ErrorKind::AddrNotAvailable => {
            format!("this host has no address {}: name one of its own with --listen", address.ip())
        }
        io::ErrorKind::PermissionDenied => {
            format!("port {port} is for root alone: name one from 1024 up with --listen")
        }
        _ => "name another address with --listen".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_of_not_being_able_to_listen_has_its_remedy() {
        let address = "192.0.2.7:7473".parse().unwrap();
        let remedy = |kind| bind_remedy(address, kind);

        assert!(remedy(io::ErrorKind::AddrInUse).contains("UDP port 7473"));
        assert!(remedy(io::ErrorKind::AddrNotAvailable).contains("no address 192.0.2.7"));
        assert!(remedy(io::ErrorKind::PermissionDenied).contains("1024"));
        assert!(remedy(io::ErrorKind::Other).contains("--listen"));
    }
}
