//! The file of one invitation.

use std::fmt;
use std::path::Path;

use qpipe_proto::Fingerprint;
use serde::Deserialize;
use toml_edit::{DocumentMut, value};

use super::Invitation;
use crate::alias::Alias;
use crate::document::{self, Parsed, ReadError, strings, unwrapped};
use crate::rule::Rule;

/// What the file says: the invitation and, once it is spent, who has it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct InvitationText {
    alias: Parsed<Alias>,
    allow: Vec<Parsed<Rule>>,
    expires_unix_s: u64,
    joiner: Option<Parsed<Fingerprint>>,
}

impl InvitationText {
    pub(super) fn pending(invitation: &Invitation) -> Self {
        Self {
            alias: Parsed(invitation.alias.clone()),
            allow: invitation.rules.iter().cloned().map(Parsed).collect(),
            expires_unix_s: invitation.expires_unix_s,
            joiner: None,
        }
    }

    pub(super) fn spent(invitation: &Invitation, joiner: &Fingerprint) -> Self {
        Self { joiner: Some(Parsed(*joiner)), ..Self::pending(invitation) }
    }

    pub(super) fn parse(path: &Path, text: &str) -> Result<Self, ReadError> {
        document::parse(path, text)
    }

    pub(super) fn is_spent_by(&self, peer: &Fingerprint) -> bool {
        self.joiner.as_ref().is_some_and(|Parsed(joiner)| joiner == peer)
    }

    pub(super) fn into_invitation(self) -> Invitation {
        let Parsed(alias) = self.alias;
        let rules = unwrapped(self.allow);
        Invitation { alias, rules, expires_unix_s: self.expires_unix_s }
    }
}

impl fmt::Display for InvitationText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rules: Vec<&Rule> = self.allow.iter().map(|Parsed(rule)| rule).collect();
        let mut document = DocumentMut::new();
        document["alias"] = value(self.alias.0.as_str());
        document["allow"] = value(strings(&rules));
        // TOML has no larger integers; the year 292 277 026 596 is late enough.
        document["expires_unix_s"] = value(i64::try_from(self.expires_unix_s).unwrap_or(i64::MAX));
        if let Some(Parsed(joiner)) = &self.joiner {
            document["joiner"] = value(joiner.to_string());
        }
        write!(f, "{document}")
    }
}
