//! A host's qpipe node: named pipes, access rules, and the files that it keeps.
//!
//! [`Serve`] is the node that `qpipe serve` runs: it listens, lets in whom `authorized.toml` lists
//! or an invitation admits, and joins the two ends of each named pipe (`relay`). It holds no
//! policy about bytes; what a pipe promises is kept by the library and the protocol core.
//!
//! | module | what |
//! | --- | --- |
//! | [`Serve`], `names`, `relay` | the serving node: who opened which name, and the join of two legs |
//! | [`HomeAccess`] | who may do what, from the files of a [`Home`] |
//! | [`Home`], [`Config`], [`Authorized`], [`Kept`], [`Invitations`], [`AuditLog`], [`ServeLock`] | files |

#![forbid(unsafe_code)]

mod access;
mod alias;
mod answers;
mod audit;
mod authorized;
mod config;
mod delivery;
mod disk;
mod document;
mod fd;
mod home;
mod invitation;
mod join;
mod kept;
mod known_peers;
mod lines;
pub mod local;
mod lock;
mod names;
mod reach;
mod rule;
mod serve;
mod shared;
mod size;
mod traffic;
mod watched;

pub use access::HomeAccess;
pub use alias::{ALIAS_TEXT_BYTES_MAX, Alias, ParseAliasError};
pub use answers::{ANSWER_BYTES_MAX, STATUS_NAME, is_nodes_own};
pub use audit::{
    AUDIT_FIELD_CHARS_MAX, AUDIT_FILE_BYTES_MAX, AuditEntry, AuditError, AuditLog, Outcome,
};
pub use authorized::{
    AUTHORIZED_FILE_BYTES_MAX, AddPeerError, Authorized, PATTERNS_PER_LIST_MAX, PEERS_MAX,
    PeerRules, add_peer, remove_peer,
};
pub use config::{
    CONFIG_FILE_BYTES_MAX, Config, KnownHost, NodeConfig, PinHostError, Waiting,
    parse_waiting_time, pin_host, remove_host,
};
pub use delivery::{Delivery, PIECE_BYTES_MAX, Undelivered};
pub use document::{EditError, ReadError};
pub use fd::Source;
pub use home::{Home, HomeError};
pub use invitation::{
    INVITATION_RULES_MAX, INVITATIONS_PENDING_MAX, Invitation, InvitationError, Invitations,
    RedeemError,
};
pub use kept::{
    CAPACITY_BYTES_MAX, CAPACITY_BYTES_MIN, Capacity, DESCRIPTION_BYTES_MAX, Description,
    KEPT_NAMES_MAX, KeepChange, KeepError, Kept, KeptName, NAMES_FILE_BYTES_MAX,
    ParseCapacityError, ParseDescriptionError, ParsePeerModeError, PeerMode, keep, remove_kept,
};
pub use lines::LINE_BYTES_MAX;
pub use local::local_peer;
pub use lock::{ServeInfo, ServeLock, ServeLockError, running_serve};
pub use names::{INCARNATIONS_PER_NAME_MAX, NAMES_MAX};
pub use reach::{Way, WayError, clean, host_text, wait_for_start};
pub use rule::{ParseRuleError, Rule, Verb};
pub use serve::{DEFAULT_LISTEN, Enrolment, GIVE_UP, Serve, ServeError, ServeOptions};
pub use shared::{CLIENTS_MAX, NodeStatus, SharedNode, Stopping, status};
pub use size::{ByteSize, ParseByteSizeError};
