//! `qpipe key`.

use qpipe::identity::HostIdentity;

use crate::{args::KeyCommand, exit::Exit, host, say};

/// Shows this host's key, and makes one where there is none.
///
/// # Errors
/// The key is unusable, or standard output cannot be written.
pub(crate) fn run(command: KeyCommand) -> anyhow::Result<Exit> {
    let home = host::home()?;
    home.create()?;
    let identity = HostIdentity::load_or_create(&home.key_dir())?;
    let fingerprint = identity.fingerprint();
    match command {
        KeyCommand::Fingerprint => say::answer(fingerprint)?,
        KeyCommand::Show => {
            say::answer(format_args!("fingerprint: {fingerprint}"))?;
            say::answer("kind:        Ed25519")?;
            say::answer(format_args!("kept in:     {}", home.key_dir().display()))?;
        }
    }
    Ok(Exit::Success)
}
