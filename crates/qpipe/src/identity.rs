//! Who a node is: a host's key, the keys of its processes, and the proof of a peer's identity.
//!
//! A host has one Ed25519 key and a self-signed certificate around it. The host is its key's
//! [`Fingerprint`]; the certificate only carries the key through TLS. A process of the host that
//! does not hold the host's lock has a key of its own, with a certificate signed by the host's
//! for 24 hours, so that peers can grant it what the host has and still tell the two apart.
//!
//! | what is presented  | [`PeerIdentity::host`] | [`PeerIdentity::process`] |
//! | ------------------ | ---------------------- | ------------------------- |
//! | the host's own     | the key                | the same key              |
//! | a process's, host's | the second one's key   | the first one's key       |

use std::{fmt, io, path::Path, path::PathBuf, sync::Arc, time::SystemTime};

use qpipe_proto::Fingerprint;
use rcgen::KeyPair;
use rustls::{
    crypto::aws_lc_rs::sign::any_eddsa_type,
    pki_types::{CertificateDer, PrivatePkcs8KeyDer},
    sign::{CertifiedKey, SigningKey},
};

mod certificate;
mod continuity;
mod files;
mod peer;
#[cfg(test)]
mod tests;

pub use continuity::Continuity;
pub use peer::{ChainError, PeerIdentity};

/// A host's key and certificate. Cheap to clone.
///
/// Its `Debug` shows the fingerprint only.
#[derive(Clone)]
pub struct HostIdentity {
    key: Arc<KeyPair>,
    node: Identity,
}

impl HostIdentity {
    /// Loads the host's key from `dir`, and makes it first where there is none.
    ///
    /// `dir` is made (mode 0700) when it is missing. Any number of processes may do this at the
    /// same time: all of them get the same key.
    ///
    /// The certificate follows from the key, and peers look at nothing but the key in it. So one
    /// that is missing, damaged or of another key is no error: it is made again from the key
    /// and the file replaced (or left as it is, with a warning in the log, where that fails).
    ///
    /// # Errors
    /// A key file that cannot be read, that others may read or change, or that holds no Ed25519
    /// key; a directory that cannot be made or written to.
    pub fn load_or_create(dir: &Path) -> Result<Self, IdentityError> {
        let key_file = dir.join(files::KEY_FILE);
        let key = match files::read_key(&key_file)? {
            Some(key) => key,
            None => {
                files::store_first_key(dir, &new_key()?.serialize_pem())?;
                // Whoever came first has won: what counts is what the file holds.
                files::read_key(&key_file)?
                    .ok_or_else(|| IdentityError::NoKey { file: key_file.clone() })?
            }
        };
        let (mut host, fresh) = Self::from_key(&key, &key_file)?;
        let certificate_file = dir.join(files::CERTIFICATE_FILE);
        if !host.adopt(files::read_certificate(&certificate_file))
            && let Err(error) = files::replace_certificate(dir, &fresh.pem())
        {
            tracing::warn!(file = %certificate_file.display(), %error, "certificate not stored");
        }
        Ok(host)
    }

    /// Loads the host's key from `dir`, and changes nothing there.
    ///
    /// A missing or unusable certificate is made again in memory.
    ///
    /// # Errors
    /// [`IdentityError::NoKey`] where there is none, and those of [`Self::load_or_create`].
    pub fn load(dir: &Path) -> Result<Self, IdentityError> {
        let key_file = dir.join(files::KEY_FILE);
        let key = files::read_key(&key_file)?
            .ok_or_else(|| IdentityError::NoKey { file: key_file.clone() })?;
        let (mut host, _) = Self::from_key(&key, &key_file)?;
        host.adopt(files::read_certificate(&dir.join(files::CERTIFICATE_FILE)));
        Ok(host)
    }

    /// A fresh key that lives in memory only.
    ///
    /// # Errors
    /// [`IdentityError::Generation`] when the cryptographic library fails.
    pub fn ephemeral() -> Result<Self, IdentityError> {
        let key = new_key()?;
        let certificate = certificate::of_host(&key, SystemTime::now())?;
        let signer = signing_key(&PrivatePkcs8KeyDer::from(key.serialize_der()))?;
        Self::assemble(key, signer, certificate.der().clone())
    }

    /// The fingerprint that peers pin: that of the key's SubjectPublicKeyInfo.
    pub fn fingerprint(&self) -> Fingerprint {
        self.node.host
    }

    /// The identity of the process that holds the host's lock: the host's key itself.
    pub fn node(&self) -> Identity {
        self.node.clone()
    }

    /// The identity of any other process of this host: a fresh key, signed by the host's for
    /// 24 hours either way of now (back as well, for peers whose clock is behind).
    ///
    /// # Errors
    /// [`IdentityError::Generation`] when the cryptographic library fails.
    pub fn process(&self) -> Result<Identity, IdentityError> {
        self.process_at(SystemTime::now())
    }

    /// The same process key with a new certificate, for a process that lives longer than its
    /// first one: sessions belong to the key, so a new key could not resume them.
    ///
    /// A node's identity does not expire and is returned as it is.
    ///
    /// # Errors
    /// [`IdentityError::Generation`] when the cryptographic library fails.
    pub fn renew(&self, process: &Identity) -> Result<Identity, IdentityError> {
        match process.expires {
            None => Ok(process.clone()),
            Some(_) => self.certify(process.key.clone(), SystemTime::now()),
        }
    }

    pub(crate) fn process_at(&self, now: SystemTime) -> Result<Identity, IdentityError> {
        let der = PrivatePkcs8KeyDer::from(new_key()?.serialize_der());
        self.certify(signing_key(&der)?, now)
    }

    /// The host as its key alone makes it, and the certificate made for that.
    fn from_key(
        key: &PrivatePkcs8KeyDer<'_>,
        file: &Path,
    ) -> Result<(Self, rcgen::Certificate), IdentityError> {
        let damaged = || IdentityError::Damaged { file: file.to_owned() };
        let pair = KeyPair::from_pkcs8_der_and_sign_algo(key, &rcgen::PKCS_ED25519)
            .map_err(|_| damaged())?;
        let signer = any_eddsa_type(key).map_err(|_| damaged())?;
        let certificate = certificate::of_host(&pair, SystemTime::now())?;
        let host = Self::assemble(pair, signer, certificate.der().clone())?;
        Ok((host, certificate))
    }

    fn assemble(
        key: KeyPair,
        signer: Arc<dyn SigningKey>,
        certificate: CertificateDer<'static>,
    ) -> Result<Self, IdentityError> {
        let host = Fingerprint::of_spki(&spki_of(signer.as_ref())?);
        let node =
            Identity { chain: vec![certificate], key: signer, host, process: host, expires: None };
        Ok(Self { key: Arc::new(key), node })
    }

    /// Takes the stored certificate in place of the fresh one if it can do the same.
    fn adopt(&mut self, stored: Option<CertificateDer<'static>>) -> bool {
        let [fresh] = self.node.chain.as_mut_slice() else { return false };
        match stored {
            Some(stored) if peer::same_authority(&stored, fresh) => {
                *fresh = stored;
                true
            }
            _ => false,
        }
    }

    fn certify(
        &self,
        key: Arc<dyn SigningKey>,
        now: SystemTime,
    ) -> Result<Identity, IdentityError> {
        let spki = spki_of(key.as_ref())?;
        let (leaf, expires) = certificate::of_process(&self.key, &spki, now)?;
        let chain = [&[leaf.der().clone()], self.node.chain.as_slice()].concat();
        let process = Fingerprint::of_spki(&spki);
        Ok(Identity { chain, key, host: self.node.host, process, expires: Some(expires) })
    }
}

impl fmt::Debug for HostIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HostIdentity({})", self.node.host)
    }
}

/// What a process presents to its peers, and the key that proves it. Cheap to clone.
///
/// Its `Debug` shows the fingerprints only.
#[derive(Clone)]
pub struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: Arc<dyn SigningKey>,
    host: Fingerprint,
    process: Fingerprint,
    expires: Option<SystemTime>,
}

impl Identity {
    /// The host this process belongs to.
    pub fn host(&self) -> Fingerprint {
        self.host
    }

    /// The key of this process: the same as [`Self::host`] for a node.
    pub fn process(&self) -> Fingerprint {
        self.process
    }

    /// When peers stop accepting this identity; `None` for a node, which does not expire.
    ///
    /// Connections that stand are not affected. Before then: [`HostIdentity::renew`].
    pub fn expires(&self) -> Option<SystemTime> {
        self.expires
    }

    /// The certificates as they are sent, the process's own first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    pub(crate) fn certified_key(&self) -> Arc<CertifiedKey> {
        Arc::new(CertifiedKey::new(self.chain.clone(), self.key.clone()))
    }

    /// What an attacker could put together: any chain with any key.
    #[cfg(test)]
    pub(crate) fn forged(chain: Vec<CertificateDer<'static>>, key_of: &Identity) -> Self {
        Self { chain, ..key_of.clone() }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity(host {}, process {})", self.host, self.process)
    }
}

/// Why a host's identity could not be had.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The key file holds something else than an Ed25519 private key.
    #[error(
        "the key file {} does not hold an Ed25519 private key (PKCS#8, PEM): restore it, or move \
         it away and a new key is made (peers that pinned the old one will then refuse)",
        file.display()
    )]
    Damaged {
        /// The key file.
        file: PathBuf,
    },
    /// The directory for the key cannot be made.
    #[error("cannot make the directory {} for this host's key: {source}", dir.display())]
    Directory {
        /// The directory.
        dir: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The cryptographic library could not make a key or sign a certificate.
    #[error("cannot make a key or certificate: {0}")]
    Generation(String),
    /// There is no key yet, and none was to be made.
    #[error(
        "this host has no key yet ({} does not exist): it is made on first use",
        file.display()
    )]
    NoKey {
        /// Where the key would be.
        file: PathBuf,
    },
    /// Others than the owner may read or change the key file.
    #[error(
        "others may read or change the key file {0} (mode {mode:04o}): run `chmod 600 {0}`",
        file.display()
    )]
    OpenToOthers {
        /// The key file.
        file: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The key file is there but cannot be read.
    #[error(
        "cannot read the key file {0}: {source}; it must be a file that the user who runs qpipe \
         owns (`chown`) and may read (`chmod 600 {0}`)",
        file.display()
    )]
    Unreadable {
        /// The key file.
        file: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The key or certificate cannot be written.
    #[error(
        "cannot write {}: {source}; this host's key needs a directory that it can be kept in",
        file.display()
    )]
    Unwritable {
        /// The file.
        file: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl From<rcgen::Error> for IdentityError {
    fn from(error: rcgen::Error) -> Self {
        Self::Generation(error.to_string())
    }
}

/// A fresh key. Any 32 random bytes are an Ed25519 key (RFC 8032, section 5.1.5). They are wrapped
/// here since aws-lc would write PKCS#8 version 2, which `openssl pkey` cannot read.
fn new_key() -> Result<KeyPair, IdentityError> {
    let mut der = [0; ED25519_PKCS8_PREFIX.len() + ED25519_SEED_BYTES];
    let (prefix, seed) = der.split_at_mut(ED25519_PKCS8_PREFIX.len());
    prefix.copy_from_slice(ED25519_PKCS8_PREFIX);
    getrandom::fill(seed).map_err(|error| IdentityError::Generation(error.to_string()))?;
    let der = PrivatePkcs8KeyDer::from(&der[..]);
    Ok(KeyPair::from_pkcs8_der_and_sign_algo(&der, &rcgen::PKCS_ED25519)?)
}

/// What stands before the seed in an Ed25519 private key in PKCS#8, version 1 (RFC 8410).
const ED25519_PKCS8_PREFIX: &[u8] =
    b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";

/// The size of an Ed25519 private key (RFC 8032).
const ED25519_SEED_BYTES: usize = 32;

fn signing_key(key: &PrivatePkcs8KeyDer<'_>) -> Result<Arc<dyn SigningKey>, IdentityError> {
    any_eddsa_type(key).map_err(|error| IdentityError::Generation(error.to_string()))
}

fn spki_of(key: &dyn SigningKey) -> Result<Vec<u8>, IdentityError> {
    let spki = key.public_key().ok_or_else(|| {
        IdentityError::Generation("the cryptographic library does not tell the public key".into())
    })?;
    Ok(spki.to_vec())
}
