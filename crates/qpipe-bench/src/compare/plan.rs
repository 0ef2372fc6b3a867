//! How each program is started: what runs before the clock does, and what is fed.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};

use crate::{
    carrier,
    run::{Outlet, Process, Ready, Site},
};

use super::{peer::Peer, ssh};

/// The hosts.
pub(super) const A: usize = 0;
pub(super) const B: usize = 1;

/// Where servers listen.
const PORT: u16 = 7600;

/// Where iperf3 listens, which others run beside.
const IPERF3_PORT: u16 = 7602;

/// Where A's node listens.
const NODE_PORT: u16 = 7601;

/// How long a command may take that only prepares something.
const PREPARATION_MAX: Duration = Duration::from_secs(20);

/// Where the bytes come out.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum End {
    /// Of the server that was started last.
    Server,
    Client,
    /// Of a program that an ssh session writes from.
    Fifo,
    /// Nowhere: when the client ends, they have arrived.
    Nowhere,
}

/// A program to start before the clock.
pub(super) struct Server {
    name: &'static str,
    host: usize,
    script: String,
    ready: Ready,
}

/// How to move bytes from A to B with a program.
pub(super) struct Plan {
    pub(super) servers: Vec<Server>,
    /// Fed with the bytes. `{word}` is the last word of the line by which a server said it is ready.
    pub(super) client: String,
    pub(super) end: End,
}

/// What was started.
pub(super) struct Started {
    pub(super) servers: Vec<Process>,
    pub(super) client: String,
    pub(super) outlet: Option<Outlet>,
}

fn server(name: &'static str, host: usize, script: String, ready: Ready) -> Server {
    Server { name, host, script, ready }
}

/// The home of a host.
pub(super) fn home_dir(site: &Site, host: usize) -> PathBuf {
    site.dir.join(["a", "b"][host])
}

/// The same as an assignment for a shell.
pub(super) fn home(site: &Site, host: usize) -> String {
    format!("QPIPE_HOME={}", home_dir(site, host).display())
}

impl Plan {
    /// A pipe between processes. `is_watched`: the bytes must be seen when they come out.
    pub(super) fn pipe(peer: Peer, site: &Site, state: &Path, is_watched: bool) -> Result<Plan> {
        let to = format!("{}:{PORT}", site.address(B));
        let port = Ready::Port(PORT);
        let ours = format!("--state {}", state.display());
        Ok(match peer {
            Peer::Qpipe => Plan::qpipe(site, "x")?,
            Peer::QpipeDirect => Plan::direct(site),
            Peer::Ssh | Peer::SshMaster => Plan::ssh(peer, site, state, is_watched),
            Peer::SocatTls => Plan::socat(site, state),
            Peer::Dumbpipe => {
                let listen = format!("exec dumbpipe listen --recv-only --ipv4-addr {to}");
                let ready = Ready::Line("dumbpipe connect ");
                let from = site.address(A);
                Plan {
                    servers: vec![server("listen", B, listen, ready)],
                    client: format!("exec dumbpipe connect --ipv4-addr {from}:0 {{word}}"),
                    end: End::Server,
                }
            }
            Peer::Quinn | Peer::Yamux => {
                let kind = if peer == Peer::Quinn { "quinn" } else { "yamux" };
                let listen = format!("exec qpipe-bench {ours} listen {kind} {to}");
                Plan {
                    servers: vec![server("listen", B, listen, port)],
                    client: format!("exec qpipe-bench {ours} send {kind} {to}"),
                    end: End::Server,
                }
            }
            Peer::Cat => Plan { servers: vec![], client: "exec cat".into(), end: End::Client },
            Peer::Quick => bail!("{} is for short pipes", peer.name()),
            Peer::Iperf3 | Peer::Library | Peer::QuinnInside | Peer::YamuxInside => {
                bail!("{} has no standard input", peer.name())
            }
        })
    }

    /// Through the nodes of both hosts, of which B's knows A.
    fn qpipe(site: &Site, name: &str) -> Result<Plan> {
        let mut plan = Plan::nodes(site)?;
        let recv = format!("{} exec qpipe recv {name}", home(site, B));
        let waiting = Ready::Path(site.dir.join("recv.err"));
        plan.servers.push(server("recv", B, recv, waiting));
        plan.client = format!("{} exec qpipe send b/{name}", home(site, A));
        plan.end = End::Server;
        Ok(plan)
    }

    /// Nodes on both hosts; A may use any pipe of B.
    pub(super) fn nodes(site: &Site) -> Result<Plan> {
        let (a, b) = (home(site, A), home(site, B));
        let to = format!("{}:{PORT}", site.address(B));
        let prepare = format!(
            "{b} qpipe trust add a --key $({a} qpipe key fingerprint) --allow 'send:*' \
             --allow 'recv:*' && {a} qpipe trust add b --key $({b} qpipe key fingerprint) \
             --address {to}"
        );
        site.start("prepare", A, &prepare, false, false)?.succeed(PREPARATION_MAX)?;
        let node = |host: usize, port: u16| {
            let listen = format!("{}:{port}", site.address(host));
            let script = format!("{} exec qpipe serve --listen {listen}", home(site, host));
            server(["node-a", "node-b"][host], host, script, Ready::Line("listening on "))
        };
        let servers = vec![node(B, PORT), node(A, NODE_PORT)];
        Ok(Plan { servers, client: String::new(), end: End::Nowhere })
    }

    /// Each process for itself, with a ticket.
    fn direct(site: &Site) -> Plan {
        let recv = format!("{} exec qpipe recv --direct", home(site, B));
        let send = format!("{} QPIPE_TICKET={{word}} exec qpipe send --direct", home(site, A));
        let ready = Ready::Line("qpipe send qpipe1");
        Plan { servers: vec![server("recv", B, recv, ready)], client: send, end: End::Server }
    }

    fn ssh(peer: Peer, site: &Site, state: &Path, is_watched: bool) -> Plan {
        let mut plan = Plan::ssh_server(peer, site, state);
        let to = match is_watched {
            true => site.dir.join("fifo").display().to_string(),
            false => "/dev/null".to_owned(),
        };
        plan.client += &format!(" 'exec cat >{to}'");
        plan.end = if is_watched { End::Fifo } else { End::Nowhere };
        plan
    }

    /// A server, and a master if one is wanted; the client's command without the program to run.
    pub(super) fn ssh_server(peer: Peer, site: &Site, state: &Path) -> Plan {
        let (address, from) = (site.address(B), site.address(A));
        let listen = format!("{} -o ListenAddress={address}", ssh::server(state));
        let mut servers = vec![server("sshd", B, listen, Ready::Port(ssh::PORT))];
        let mut client = format!("exec {} -b {from}", ssh::client(state));
        if peer == Peer::SshMaster {
            let socket = site.dir.join("master");
            let master = format!("{client} -M -S {} -N {address}", socket.display());
            servers.push(server("master", A, master, Ready::Path(socket.clone())));
            client += &format!(" -S {}", socket.display());
        }
        client += &format!(" {address}");
        Plan { servers, client, end: End::Nowhere }
    }

    fn socat(site: &Site, state: &Path) -> Plan {
        let (certificate, key) = (carrier::certificate_file(state), carrier::key_file(state));
        let (certificate, key) = (certificate.display(), key.display());
        let address = site.address(B);
        let tls = "openssl-min-proto-version=TLS1.3";
        let listen = format!(
            "exec socat -b 65536 -u OPENSSL-LISTEN:{PORT},bind={address},reuseaddr,\
             cert={certificate},key={key},verify=0,{tls} STDOUT"
        );
        let client = format!(
            "exec socat -b 65536 -u STDIN OPENSSL:{address}:{PORT},\
             cafile={certificate},commonname=localhost,{tls}"
        );
        let servers = vec![server("listen", B, listen, Ready::Port(PORT))];
        Plan { servers, client, end: End::Server }
    }

    /// What is measured inside of one process at each end: the far end, and the near end's options
    /// that say which it is.
    pub(super) fn inside(peer: Peer, site: &Site, state: &Path, more: &str) -> Result<Plan> {
        let kind = match peer {
            Peer::Library => "qpipe",
            Peer::QuinnInside => "quinn",
            Peer::YamuxInside => "yamux",
            _ => bail!("{} is measured between processes", peer.name()),
        };
        let ours = format!("qpipe-bench --state {} {more}", state.display());
        let to = format!("{}:{PORT}", site.address(B));
        let serve = format!("exec {ours} serve {kind} {to}");
        Ok(Plan {
            servers: vec![server("serve", B, serve, Ready::Port(PORT))],
            client: format!("exec {ours} {{verb}} {kind} --to {to}"),
            end: End::Nowhere,
        })
    }

    /// A server of iperf3 for one client.
    pub(super) fn iperf3(site: &Site, more: &str) -> Plan {
        let (address, from) = (site.address(B), site.address(A));
        let serve = format!("exec iperf3 -s -1 -B {address} -p {IPERF3_PORT}");
        Plan {
            servers: vec![server("iperf3-s", B, serve, Ready::Port(IPERF3_PORT))],
            client: format!("exec iperf3 -c {address} -B {from} -p {IPERF3_PORT} -J {more}"),
            end: End::Nowhere,
        }
    }

    /// Starts the servers, one after the other.
    pub(super) fn start(self, site: &Site) -> Result<Started> {
        let (mut servers, mut client) = (Vec::new(), self.client);
        let last = self.servers.len().checked_sub(1);
        for (i, server) in self.servers.into_iter().enumerate() {
            let is_read = self.end == End::Server && Some(i) == last;
            let mut process =
                site.start(server.name, server.host, &server.script, false, is_read)?;
            if let Some(line) = process.ready(&server.ready)? {
                let word = line.split_whitespace().last().context("an empty line")?;
                client = client.replace("{word}", word);
            }
            servers.push(process);
        }
        let outlet = match self.end {
            End::Server => {
                let last = servers.last_mut().and_then(|process| process.stdout.take());
                Some(Outlet::Pipe(last.context("no output")?))
            }
            End::Fifo => Some(Outlet::Fifo(fifo(&site.dir)?)),
            End::Client | End::Nowhere => None,
        };
        Ok(Started { servers, client, outlet })
    }
}

fn fifo(dir: &Path) -> Result<PathBuf> {
    let path = dir.join("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR)?;
    Ok(path)
}
