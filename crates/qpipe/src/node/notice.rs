//! What the user of a node should know of its sessions.

use std::net::SocketAddr;
use std::time::Duration;

use qpipe_proto::Fingerprint;

use crate::link;

/// Something that the user should know of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The peer's host.
    pub host: Fingerprint,
    /// What the user calls the peer, where this side dialled it.
    pub peer: Option<String>,
    /// Where the peer is, or was last.
    pub address: Option<SocketAddr>,
    /// What there is to know.
    pub kind: NoticeKind,
}

/// What there is to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NoticeKind {
    /// The peer is heard again.
    Back {
        /// After so long.
        after: Duration,
    },
    /// Nothing is heard from the peer.
    Silent {
        /// For so long.
        silent: Duration,
        /// It is waited for so much longer.
        left: Duration,
    },
}

impl From<link::Notice> for NoticeKind {
    fn from(notice: link::Notice) -> NoticeKind {
        match notice {
            link::Notice::Back { after } => NoticeKind::Back { after },
            link::Notice::Silent { silent, left } => NoticeKind::Silent { silent, left },
        }
    }
}
