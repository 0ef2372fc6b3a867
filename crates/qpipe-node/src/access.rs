//! Who may do what on a node, from the files of its home. Every grant and refusal is audited.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use qpipe::identity::PeerIdentity;
use qpipe::{Access, Cause, Enrolled, Fingerprint, PipeName, Secret};
use tokio::sync::mpsc;

use crate::audit::{AuditEntry, AuditLog, Outcome};
use crate::authorized::{Authorized, PeerRules, add_peer};
use crate::document::ReadError;
use crate::home::Home;
use crate::invitation::{Invitation, Invitations};
use crate::rule::Verb;
use crate::serve::Enrolment;
use crate::watched::Watched;

/// Access as `authorized.toml` and the pending invitations of a home give it.
#[derive(Debug)]
pub struct HomeAccess {
    home: Home,
    host: Fingerprint,
    rules: Mutex<Watched<Authorized>>,
    /// Why the newest version of the rules is not in force, until it was told.
    broken: Mutex<Option<ReadError>>,
    /// Whether rules changed since that was last asked.
    has_changed: AtomicBool,
    invitations: Invitations,
    audit: AuditLog,
    /// Bounded by invitations, which are ([`crate::INVITATIONS_PENDING_MAX`]).
    enrolled: mpsc::UnboundedSender<Enrolment>,
}

impl HomeAccess {
    /// Reads the files of `home`, whose host key is `host`. Who joins is told on `enrolled`.
    ///
    /// # Errors
    /// `authorized.toml` cannot be read.
    pub fn open(
        home: &Home,
        host: Fingerprint,
        enrolled: mpsc::UnboundedSender<Enrolment>,
    ) -> Result<HomeAccess, ReadError> {
        // A node does not start with rules that it does not understand.
        let mut rules = Watched::new(home.authorized_file(), Authorized::load);
        rules.refresh()?;
        Ok(HomeAccess {
            home: home.clone(),
            host,
            rules: Mutex::new(rules),
            broken: Mutex::default(),
            has_changed: AtomicBool::new(false),
            invitations: Invitations::new(home.invitation_dir()),
            audit: AuditLog::new(home.audit_file()),
            enrolled,
        })
    }

    /// Reads `authorized.toml` again if it changed; true if there are new rules since the last call.
    ///
    /// # Errors
    /// The changed file is broken: the rules before it stay. Told once for each broken version.
    pub fn refresh(&self) -> Result<bool, ReadError> {
        self.look();
        match self.broken.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(error) => Err(error),
            None => Ok(self.has_changed.swap(false, Ordering::AcqRel)),
        }
    }

    /// Looks at the file, and keeps what it finds for [`HomeAccess::refresh`] to tell.
    fn look(&self) {
        let looked = self.rules.lock().unwrap_or_else(PoisonError::into_inner).refresh();
        match looked {
            Ok(false) => {}
            Ok(true) => self.has_changed.store(true, Ordering::Release),
            Err(error) => {
                *self.broken.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            }
        }
    }

    /// Whether a peer may ask about any pipe at all.
    pub(crate) fn lists_any(&self, peer: &PeerIdentity) -> bool {
        let host = peer.host();
        host == self.host || self.rules().rules_for(&host).is_some_and(|r| !r.list.is_empty())
    }

    /// Whether a peer may send to, receive from, or ask about a name. The host's own key may do
    /// everything.
    pub fn allows(&self, peer: &PeerIdentity, verb: Verb, name: &PipeName) -> bool {
        let host = peer.host();
        host == self.host || self.rules().rules_for(&host).is_some_and(|r| r.may(verb, name))
    }

    /// Writes the answer to an open into the audit log.
    pub fn note_open(
        &self,
        peer: &PeerIdentity,
        remote: SocketAddr,
        verb: Verb,
        name: &PipeName,
        refused: Option<Cause>,
    ) {
        let cause = refused.map_or(String::new(), |cause| cause.to_string());
        self.note(peer, remote, verb.as_str(), name.as_str(), refused.is_none(), &cause);
    }

    fn rules(&self) -> Arc<Authorized> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner).current().clone()
    }

    fn note(
        &self,
        peer: &PeerIdentity,
        remote: SocketAddr,
        verb: &str,
        what: &str,
        is_granted: bool,
        cause: &str,
    ) {
        let rules = self.rules();
        let host = peer.host();
        let name = rules.rules_for(&host).and_then(|rules| rules.name.as_ref());
        let entry = AuditEntry {
            time: SystemTime::now(),
            verb,
            peer: Some(&host),
            name: name.map(|name| name.as_str()),
            remote: Some(remote),
            what,
            outcome: if is_granted { Outcome::Granted } else { Outcome::Refused },
            cause,
        };
        if let Err(error) = self.audit.record(&entry) {
            tracing::warn!(%error, "the audit log cannot be written");
        }
    }

    fn enrol(&self, peer: &PeerIdentity, invitation: &Invitation) -> Result<Enrolled, Cause> {
        let name = Some(invitation.alias.clone());
        let rules = PeerRules::new(peer.host(), name, invitation.rules.iter().cloned());
        if let Err(error) = add_peer(&self.home.authorized_file(), &rules) {
            tracing::warn!(%error, "an invited peer could not be added to authorized.toml");
            return Err(Cause::NotAllowed);
        }
        self.look();
        let of = |verb| {
            let rules = invitation.rules.iter().filter(move |rule| rule.verb == verb);
            rules.map(|rule| rule.pattern.to_string()).collect()
        };
        let name = invitation.alias.to_string();
        Ok(Enrolled { name, send: of(Verb::Send), recv: of(Verb::Recv), list: of(Verb::List) })
    }
}

impl Access for HomeAccess {
    fn knows(&self, peer: &PeerIdentity) -> bool {
        self.look();
        self.rules().rules_for(&peer.host()).is_some()
    }

    fn redeem(
        &self,
        secret: &Secret,
        peer: &PeerIdentity,
        from: SocketAddr,
    ) -> Result<Option<Enrolled>, Cause> {
        let hash = secret.hash();
        match self.invitations.redeem(&hash, &peer.host(), SystemTime::now()) {
            Ok(invitation) => {
                let enrolled = self.enrol(peer, &invitation);
                let cause = enrolled.as_ref().err().map_or(String::new(), Cause::to_string);
                self.note(peer, from, "join", invitation.alias.as_str(), enrolled.is_ok(), &cause);
                let enrolled = enrolled?;
                let name = enrolled.name.clone();
                // Nobody may listen: most serving nodes do not wait for anybody to join.
                let _ = self.enrolled.send(Enrolment { name, key: peer.host(), secret: hash });
                Ok(Some(enrolled))
            }
            Err(error) => {
                self.note(peer, from, "join", "", false, &error.cause());
                Ok(None)
            }
        }
    }
}
