//! Invitations: grants that wait for whoever brings the secret, once, for some minutes.
//!
//! Each is a file named by the hash of its secret, so that another process than the one that made
//! it can redeem it, and nobody who reads the directory learns a secret:
//!
//! ```text
//! HASH.toml   --redeem by a joiner-->   HASH.spent   --expiry, sweep-->   (gone)
//!     |                                                                     ^
//!     +------------------- withdraw, or expiry and sweep -------------------+
//! ```
//!
//! `HASH.spent` says who redeemed it, and is made by one rename with the lock of the directory
//! held. Where both files exist (a crash came between) the invitation is spent.

mod text;

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use qpipe_proto::Fingerprint;
use qpipe_proto::ticket::SecretHash;

use self::text::InvitationText;
use crate::alias::Alias;
use crate::disk::{self, FileLock, PRIVATE_FILE_MODE};
use crate::document::{self, Policy, ReadError};
use crate::rule::Rule;

/// The most invitations that wait or are remembered as spent: they are typed by people, and each is
/// a file that every sweep reads.
pub const INVITATIONS_PENDING_MAX: usize = 1_000;

/// The most rules in one invitation.
pub const INVITATION_RULES_MAX: usize = 256;

/// The largest file of one invitation, in bytes: [`INVITATION_RULES_MAX`] rules of 256 bytes.
const INVITATION_FILE_BYTES_MAX: u64 = 64 << 10;

const POLICY: Policy = Policy { bytes_max: INVITATION_FILE_BYTES_MAX, owner_writes_alone: true };

const PENDING: &str = "toml";
const SPENT: &str = "spent";

/// What an invitation grants.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Invitation {
    /// What the joiner will be called on this node.
    pub alias: Alias,
    /// What the joiner will be allowed to do; at most [`INVITATION_RULES_MAX`].
    pub rules: Vec<Rule>,
    /// When it ends, in seconds since 1970-01-01 UTC. At this second it has ended.
    pub expires_unix_s: u64,
}

impl Invitation {
    /// An invitation that ends `lifetime` after `now`, rounded down to seconds.
    pub fn new(alias: Alias, rules: Vec<Rule>, now: SystemTime, lifetime: Duration) -> Self {
        let expires_unix_s = unix_seconds(now).saturating_add(lifetime.as_secs());
        Self { alias, rules, expires_unix_s }
    }

    /// Whether it has ended at `now`.
    pub fn has_expired(&self, now: SystemTime) -> bool {
        unix_seconds(now) >= self.expires_unix_s
    }
}

/// The invitations of a node: those in one directory, whichever process made them.
///
/// All methods do short file I/O under the lock of the directory, and may wait for another process
/// that does the same.
#[derive(Clone, Debug)]
pub struct Invitations {
    dir: PathBuf,
}

impl Invitations {
    /// The invitations in the directory `dir`, which
    /// [`Home::create`](crate::home::Home::create) makes.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// Keeps a new invitation until it is redeemed, withdrawn or swept.
    ///
    /// # Errors
    /// [`InvitationError::Full`] if there are [`INVITATIONS_PENDING_MAX`] that have not expired.
    pub fn create(
        &self,
        hash: &SecretHash,
        invitation: &Invitation,
        now: SystemTime,
    ) -> Result<(), InvitationError> {
        if invitation.rules.len() > INVITATION_RULES_MAX {
            return Err(InvitationError::TooManyRules);
        }
        let _lock = self.lock()?;
        if self.kept()?.len() >= INVITATIONS_PENDING_MAX {
            self.sweep_locked(now)?;
            if self.kept()?.len() >= INVITATIONS_PENDING_MAX {
                return Err(InvitationError::Full);
            }
        }
        let path = self.path(hash, PENDING);
        if path.exists() || self.path(hash, SPENT).exists() {
            return Err(InvitationError::Exists);
        }
        self.write(&path, &InvitationText::pending(invitation))
    }

    /// Grants the invitation to `joiner`, if nobody else has it: exactly once, whatever number of
    /// processes try. The same joiner may ask again until it expires, and gets the same answer,
    /// since it may not have heard the first one.
    ///
    /// # Errors
    /// Those that concern the asker all say the same text, so that trying secrets tells nothing.
    pub fn redeem(
        &self,
        hash: &SecretHash,
        joiner: &Fingerprint,
        now: SystemTime,
    ) -> Result<Invitation, RedeemError> {
        let (pending, spent) = (self.path(hash, PENDING), self.path(hash, SPENT));
        // Guesses are turned away without the lock.
        if !pending.exists() && !spent.exists() {
            return Err(RedeemError::Unknown);
        }
        let _lock = self.lock()?;
        if let Some(text) = document::read(&spent, POLICY).map_err(InvitationError::Read)? {
            let text = InvitationText::parse(&spent, &text).map_err(InvitationError::Read)?;
            let redeemer_asks_again = text.is_spent_by(joiner);
            let invitation = text.into_invitation();
            return match () {
                () if invitation.has_expired(now) => Err(RedeemError::Expired),
                () if redeemer_asks_again => Ok(invitation),
                () => Err(RedeemError::Used),
            };
        }
        let Some(text) = document::read(&pending, POLICY).map_err(InvitationError::Read)? else {
            return Err(RedeemError::Unknown);
        };
        let text = InvitationText::parse(&pending, &text).map_err(InvitationError::Read)?;
        let invitation = text.into_invitation();
        if invitation.has_expired(now) {
            return Err(RedeemError::Expired);
        }
        self.write(&spent, &InvitationText::spent(&invitation, joiner))?;
        // It is spent from here on; a failure leaves a file that nobody heeds any more.
        let _ = disk::remove_if_there(&pending);
        Ok(invitation)
    }

    /// Takes back an invitation that nobody has redeemed, and says whether there was one.
    ///
    /// # Errors
    /// If its file cannot be removed: then it still stands.
    pub fn withdraw(&self, hash: &SecretHash) -> Result<bool, InvitationError> {
        let _lock = self.lock()?;
        let path = self.path(hash, PENDING);
        let removed = disk::remove_if_there(&path).map_err(|cause| self.failed(path, cause))?;
        Ok(removed && !self.path(hash, SPENT).exists())
    }

    /// Forgets what has expired, spent or not, and files that are no invitations (which nobody
    /// could ever redeem), and says how many went.
    ///
    /// # Errors
    /// If the directory cannot be read or a file not removed.
    pub fn sweep(&self, now: SystemTime) -> Result<usize, InvitationError> {
        if !self.dir.exists() {
            return Ok(0);
        }
        let _lock = self.lock()?;
        self.sweep_locked(now)
    }

    fn sweep_locked(&self, now: SystemTime) -> Result<usize, InvitationError> {
        let mut swept = 0;
        for hash in self.kept()? {
            // The spent file goes last: without it, the pending one could be redeemed again.
            let (pending, spent) = (self.path(&hash, PENDING), self.path(&hash, SPENT));
            let decisive = if spent.exists() { &spent } else { &pending };
            if !is_over(decisive, now)? {
                continue;
            }
            for path in [pending, spent] {
                disk::remove_if_there(&path).map_err(|cause| self.failed(path, cause))?;
            }
            swept += 1;
        }
        Ok(swept)
    }

    /// The invitations that have a file, each once.
    fn kept(&self) -> Result<Vec<SecretHash>, InvitationError> {
        let failed = |cause| self.failed(self.dir.clone(), cause);
        let mut hashes = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(failed)? {
            let path = PathBuf::from(entry.map_err(failed)?.file_name());
            let extension = path.extension().and_then(OsStr::to_str);
            let Some(hash) = path.file_stem().and_then(OsStr::to_str) else { continue };
            let Ok(hash) = hash.parse::<SecretHash>() else { continue };
            let counted_as_spent = || self.path(&hash, SPENT).exists();
            match extension {
                Some(SPENT) => hashes.push(hash),
                Some(PENDING) if !counted_as_spent() => hashes.push(hash),
                _ => {}
            }
        }
        Ok(hashes)
    }

    fn write(&self, path: &Path, text: &InvitationText) -> Result<(), InvitationError> {
        disk::replace(path, text.to_string().as_bytes(), PRIVATE_FILE_MODE)
            .map_err(|cause| self.failed(path.to_path_buf(), cause))
    }

    fn lock(&self) -> Result<FileLock, InvitationError> {
        let path = self.dir.join("all");
        disk::lock_for(&path).map_err(|cause| self.failed(self.dir.clone(), cause))
    }

    fn path(&self, hash: &SecretHash, extension: &str) -> PathBuf {
        self.dir.join(format!("{hash}.{extension}"))
    }

    fn failed(&self, path: PathBuf, cause: io::Error) -> InvitationError {
        InvitationError::Io { path, cause }
    }
}

/// Why an invitation was not kept, withdrawn or swept.
#[derive(Debug, thiserror::Error)]
pub enum InvitationError {
    /// There is one with this secret already, or there was: a new one needs a new secret.
    #[error("an invitation with this secret exists already: make one with a new secret")]
    Exists,
    /// No room until some are redeemed or expire.
    #[error(
        "{INVITATIONS_PENDING_MAX} invitations are waiting already: try again when some of them \
         have expired"
    )]
    Full,
    /// A file could not be listed, written, locked or removed.
    #[error("cannot keep invitations in {}: {cause}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// A file could not be read or understood.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// More rules than anybody would read before agreeing to them.
    #[error(
        "an invitation has at most {INVITATION_RULES_MAX} rules: use patterns such as inbox/**"
    )]
    TooManyRules,
}

/// Why an invitation was not redeemed.
///
/// The text is for the asker; [`cause`](Self::cause) and the variants are for the audit log.
#[derive(Debug, thiserror::Error)]
pub enum RedeemError {
    /// Its time is over.
    #[error("{REFUSED}")]
    Expired,
    /// This node could not look it up. The details are for this host only.
    #[error("the invitation could not be checked: see the log of the node that sent it")]
    Store(#[from] InvitationError),
    /// There is none with this secret: never was, withdrawn, or forgotten after its time.
    #[error("{REFUSED}")]
    Unknown,
    /// Another peer has redeemed it.
    #[error("{REFUSED}")]
    Used,
}

const REFUSED: &str = "the invitation is unknown, used or expired: ask for a new one";

impl RedeemError {
    /// What really happened, for the audit log; not for the asker.
    pub fn cause(&self) -> String {
        match self {
            Self::Expired => "expired".to_owned(),
            Self::Store(error) => error.to_string(),
            Self::Unknown => "unknown".to_owned(),
            Self::Used => "used".to_owned(),
        }
    }
}

fn is_over(path: &Path, now: SystemTime) -> Result<bool, InvitationError> {
    let text = match document::read(path, POLICY) {
        Ok(Some(text)) => text,
        Ok(None) => return Ok(true),
        Err(error @ ReadError::Io { .. }) => return Err(error.into()),
        Err(_) => return Ok(true),
    };
    let text = InvitationText::parse(path, &text);
    Ok(text.map_or(true, |text| text.into_invitation().has_expired(now)))
}

fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests;
