//! An sshd and its client with keys of their own, which know nobody else.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

/// Where it listens.
pub(super) const PORT: u16 = 2222;

const SERVER: &str = "\
HostKey {dir}/host
PidFile none
AuthorizedKeysFile {dir}/authorized
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
UseDNS no
PrintMotd no
MaxSessions 1000
MaxStartups 1000
SetEnv HOME={dir}
LogLevel ERROR
";

const CLIENT: &str = "\
Host *
  Port 2222
  IdentityFile {dir}/user
  IdentitiesOnly yes
  BatchMode yes
  StrictHostKeyChecking no
  UserKnownHostsFile /dev/null
  Compression no
  GSSAPIAuthentication no
  Ciphers aes128-gcm@openssh.com
  LogLevel ERROR
";

fn dir(state: &Path) -> PathBuf {
    state.join("ssh")
}

/// Makes keys and configurations, where ssh is installed.
pub(super) fn prepare(state: &Path) -> Result<()> {
    let dir = dir(state);
    fs::create_dir_all(&dir)?;
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o700))?;
    for key in ["host", "user"] {
        let file = dir.join(key);
        if file.exists() {
            continue;
        }
        let mut command = Command::new("ssh-keygen");
        command.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&file).stdin(Stdio::null());
        let Ok(status) = command.status() else { return Ok(()) };
        ensure!(status.success(), "ssh-keygen failed");
    }
    fs::copy(dir.join("user.pub"), dir.join("authorized"))?;
    let here = dir.to_str().context("a path that is no text")?;
    fs::write(dir.join("sshd_config"), SERVER.replace("{dir}", here))?;
    fs::write(dir.join("ssh_config"), CLIENT.replace("{dir}", here))?;
    // Where sshd wants to lock itself in.
    fs::create_dir_all("/run/sshd").context("/run/sshd")
}

/// The command of the server, without the address.
pub(super) fn server(state: &Path) -> String {
    let config = dir(state).join("sshd_config");
    format!("exec $(command -v sshd) -D -e -f {} -p {PORT}", config.display())
}

/// The command of the client, without the host.
pub(super) fn client(state: &Path) -> String {
    format!("ssh -F {}", dir(state).join("ssh_config").display())
}
