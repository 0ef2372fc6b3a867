//! The two files of a host's identity, and their creation without a race.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::OFlags;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, pem::PemObject};

use super::IdentityError;

/// The host's private key: PKCS#8 in PEM, mode 0600.
pub(super) const KEY_FILE: &str = "key.pem";

/// The host's certificate, in PEM; it follows from the key.
pub(super) const CERTIFICATE_FILE: &str = "cert.pem";

/// Reads the private key; `None` when there is no such file.
pub(super) fn read_key(file: &Path) -> Result<Option<PrivatePkcs8KeyDer<'static>>, IdentityError> {
    let unreadable = |source| IdentityError::Unreadable { file: file.to_owned(), source };
    let opened = match open_regular(file) {
        Ok(opened) => opened,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error)),
    };
    // Of what was opened, not of the path: the file at the path may be another by now.
    let mode = opened.metadata().map_err(unreadable)?.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(IdentityError::OpenToOthers { file: file.to_owned(), mode });
    }
    let pem = read_bounded(opened).map_err(unreadable)?;
    let key = PrivatePkcs8KeyDer::from_pem_slice(&pem)
        .map_err(|_| IdentityError::Damaged { file: file.to_owned() })?;
    Ok(Some(key))
}

/// Reads the certificate; `None` when there is none, whatever the reason.
pub(super) fn read_certificate(file: &Path) -> Option<CertificateDer<'static>> {
    let pem = read_bounded(open_regular(file).ok()?).ok()?;
    CertificateDer::from_pem_slice(&pem).ok()
}

/// Makes the key file, and the directory around it, unless another process was first, which is
/// no error.
pub(super) fn store_first_key(dir: &Path, pem: &str) -> Result<(), IdentityError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|source| IdentityError::Directory { dir: dir.to_owned(), source })?;
    let file = dir.join(KEY_FILE);
    let unwritable = |source| IdentityError::Unwritable { file: file.clone(), source };
    let draft = Draft::write(dir, KEY_FILE, pem, 0o600).map_err(unwritable)?;
    // A hard link never replaces, so of many that try at once exactly one makes the file, and it
    // is complete as soon as it can be seen.
    match fs::hard_link(&draft.path, &file) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        linked => linked.and_then(|()| sync_dir(dir)).map_err(unwritable),
    }
}

/// Puts the certificate in place of what is there. Several may do so at once: each writes one
/// that is good for the key, and readers see one of them whole.
pub(super) fn replace_certificate(dir: &Path, pem: &str) -> Result<(), IdentityError> {
    let file = dir.join(CERTIFICATE_FILE);
    let unwritable = |source| IdentityError::Unwritable { file: file.clone(), source };
    let draft = Draft::write(dir, CERTIFICATE_FILE, pem, 0o644).map_err(unwritable)?;
    fs::rename(&draft.path, &file).map_err(unwritable)
}

/// A file in the making under a name of its own, removed when dropped.
struct Draft {
    path: PathBuf,
}

impl Draft {
    fn write(dir: &Path, name: &str, text: &str, mode: u32) -> io::Result<Self> {
        let path = dir.join(format!(".{name}.{:016x}", getrandom::u64()?));
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&path)?;
        let draft = Self { path };
        file.write_all(text.as_bytes())?;
        // On disk before it has its name: after a power cut, an empty key file would be a host
        // that has lost itself.
        file.sync_all()?;
        Ok(draft)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // It is gone already when it was renamed; and one left behind does no harm.
        let _ = fs::remove_file(&self.path);
    }
}

/// No key or certificate in PEM comes near this; a file that does is something else.
const PEM_FILE_BYTES_MAX: u64 = 16 * 1024;

/// Opens a file, and nothing else: `NONBLOCK` so that a FIFO in its place cannot hold us up.
pub(super) fn open_regular(file: &Path) -> io::Result<File> {
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(file)?;
    if opened.metadata()?.is_file() {
        Ok(opened)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"))
    }
}

fn read_bounded(file: File) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    file.take(PEM_FILE_BYTES_MAX + 1).read_to_end(&mut content)?;
    if content.len() as u64 > PEM_FILE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is too large for a key"));
    }
    Ok(content)
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}
