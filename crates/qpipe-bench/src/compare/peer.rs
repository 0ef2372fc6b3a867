//! The programs that are run.

use std::path::PathBuf;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::run::find;

/// A program, or a way to use one.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Peer {
    /// `qpipe send` and `recv` through the nodes of their hosts.
    Qpipe,
    /// `qpipe send --direct` and `recv --direct`.
    QpipeDirect,
    /// `qsend` and `qrecv` through the nodes of their hosts.
    Quick,
    /// The library, inside of one process at each end.
    Library,
    /// ssh with aes128-gcm, a connection for each pipe.
    Ssh,
    /// The same through a master that is connected already.
    SshMaster,
    /// socat with TLS 1.3.
    SocatTls,
    Dumbpipe,
    /// Plain quinn between standard input and output.
    Quinn,
    /// Plain quinn, inside of one process at each end.
    QuinnInside,
    /// yamux over TLS between standard input and output.
    Yamux,
    /// The same inside of one process at each end.
    YamuxInside,
    /// TCP without encryption, inside of one process at each end.
    Iperf3,
    /// `cat` between two pipes of one host.
    Cat,
}

impl Peer {
    pub(super) fn name(self) -> &'static str {
        match self {
            Peer::Cat => "cat (no network)",
            Peer::Dumbpipe => "dumbpipe",
            Peer::Iperf3 => "iperf3, TCP (no pipes, no encryption)",
            Peer::Library => "qpipe, the library",
            Peer::Qpipe => "qpipe",
            Peer::QpipeDirect => "qpipe --direct",
            Peer::Quick => "qpipe: qsend and qrecv",
            Peer::Quinn => "plain quinn",
            Peer::QuinnInside => "plain quinn (no pipes)",
            Peer::SocatTls => "socat, TLS",
            Peer::Ssh => "ssh, aes128-gcm",
            Peer::SshMaster => "ssh through a master",
            Peer::Yamux => "yamux over TLS",
            Peer::YamuxInside => "yamux over TLS (no pipes)",
        }
    }

    /// What it needs that is not here.
    pub(super) fn missing(self, path: &[PathBuf]) -> Option<&'static str> {
        let needs: &[&str] = match self {
            Peer::Cat => &["cat"],
            Peer::Dumbpipe => &["dumbpipe"],
            Peer::Iperf3 => &["iperf3"],
            Peer::Qpipe | Peer::QpipeDirect => &["qpipe"],
            Peer::Quick => &["qpipe", "qsend", "qrecv"],
            Peer::SocatTls => &["socat"],
            Peer::Ssh | Peer::SshMaster => &["ssh", "sshd"],
            Peer::Library | Peer::Quinn | Peer::QuinnInside | Peer::Yamux | Peer::YamuxInside => {
                &[]
            }
        };
        needs.iter().find(|program| find(program, path.iter().cloned()).is_none()).copied()
    }
}
