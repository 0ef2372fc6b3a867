//! Where a node keeps what it keeps.

use std::ffi::OsString;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::process::geteuid;

use crate::disk::{OTHERS_WRITE, PRIVATE_DIR_MODE};

/// The files of one node: all under `$QPIPE_HOME` where that is set, else under the XDG
/// directories.
///
/// Two nodes on one machine are two homes. Paths are not checked before [`create`](Self::create).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Home {
    config_dir: PathBuf,
    data_dir: PathBuf,
    state_dir: PathBuf,
    socket_dir: PathBuf,
}

/// The name of the socket of a home's node.
const SOCKET_NAME: &str = "node.sock";

impl Home {
    /// A home that has everything under the one directory `dir`.
    pub fn at(dir: impl Into<PathBuf>) -> Self {
        let dir = dir.into();
        Self {
            config_dir: dir.clone(),
            data_dir: dir.clone(),
            state_dir: dir.clone(),
            socket_dir: dir,
        }
    }

    /// The home that the environment behind `get` names: `QPIPE_HOME`, else `XDG_CONFIG_HOME`,
    /// `XDG_DATA_HOME` and `XDG_STATE_HOME`, each with its usual place under `HOME` as the default.
    ///
    /// The socket of the node is below `XDG_RUNTIME_DIR`, where that is set, and else with the state.
    /// An empty variable counts as unset, and so does a relative path in an `XDG_` one.
    ///
    /// # Errors
    /// [`HomeError::Unknown`] if no variable says where to keep things.
    pub fn from_env(get: impl Fn(&str) -> Option<OsString>) -> Result<Self, HomeError> {
        let path = |name: &str| get(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        if let Some(dir) = path("QPIPE_HOME") {
            return Ok(Self::at(dir));
        }
        let user_home = path("HOME").filter(|dir| dir.is_absolute());
        let xdg = |name: &str, below_home: &str| {
            path(name)
                .filter(|dir| dir.is_absolute())
                .or_else(|| user_home.as_ref().map(|home| home.join(below_home)))
                .map(|dir| dir.join("qpipe"))
                .ok_or(HomeError::Unknown)
        };
        let state_dir = xdg("XDG_STATE_HOME", ".local/state")?;
        let runtime_dir = path("XDG_RUNTIME_DIR").filter(|dir| dir.is_absolute());
        let socket_dir = runtime_dir.map_or_else(|| state_dir.clone(), |dir| dir.join("qpipe"));
        Ok(Self {
            config_dir: xdg("XDG_CONFIG_HOME", ".config")?,
            data_dir: xdg("XDG_DATA_HOME", ".local/share")?,
            state_dir,
            socket_dir,
        })
    }

    /// Makes the directories that are missing, for their owner alone (mode 0700).
    ///
    /// # Errors
    /// [`HomeError::Create`] if one cannot be made; [`HomeError::WritableByOthers`] if one is there
    /// that other users may write: whoever can rename a file in it can replace the node's rules.
    pub fn create(&self) -> Result<(), HomeError> {
        let key_dir = self.key_dir();
        let invitation_dir = self.invitation_dir();
        for dir in [&self.config_dir, &self.data_dir, &key_dir, &self.state_dir, &invitation_dir] {
            create_private_dir(dir)?;
        }
        Ok(())
    }

    /// `config.toml`: the node's settings and the hosts it knows.
    pub fn config_file(&self) -> PathBuf {
        self.config_dir.join("config.toml")
    }

    /// `authorized.toml`: who may do what on this node.
    pub fn authorized_file(&self) -> PathBuf {
        self.config_dir.join("authorized.toml")
    }

    /// `names.toml`: the named pipes that are kept.
    pub fn names_file(&self) -> PathBuf {
        self.config_dir.join("names.toml")
    }

    /// The directory of the node's key and certificate.
    pub fn key_dir(&self) -> PathBuf {
        self.data_dir.join("key")
    }

    /// The directory of the invitations that nobody has redeemed yet.
    pub fn invitation_dir(&self) -> PathBuf {
        self.state_dir.join("invitations")
    }

    /// The log of grants and refusals.
    pub fn audit_file(&self) -> PathBuf {
        self.state_dir.join("audit.log")
    }

    /// What a running `qpipe serve` tells about itself: its process id and its addresses.
    pub fn serve_file(&self) -> PathBuf {
        self.state_dir.join("serve.toml")
    }

    /// Whom a running `qpipe serve` has sessions with.
    pub fn peers_file(&self) -> PathBuf {
        self.state_dir.join("peers")
    }

    /// The socket at which the node listens.
    pub fn socket_file(&self) -> PathBuf {
        self.socket_dir.join(SOCKET_NAME)
    }

    /// Where the node listens, or leaves a link to where it does: [`socket_file`](Self::socket_file),
    /// and its place among the state for programs that were started without `XDG_RUNTIME_DIR`, or a
    /// node that was.
    pub(crate) fn socket_files(&self) -> Vec<PathBuf> {
        let mut files = vec![self.socket_file(), self.state_dir.join(SOCKET_NAME)];
        files.dedup();
        files
    }

    /// Makes the directory of the socket, if it is missing.
    pub(crate) fn create_socket_dir(&self) -> Result<(), HomeError> {
        create_private_dir(&self.socket_dir)?;
        let failed = |cause| HomeError::Create { path: self.socket_dir.clone(), cause };
        let uid = fs::metadata(&self.socket_dir).map_err(failed)?.uid();
        // A directory of another user's could be emptied by them, and filled anew.
        if uid != geteuid().as_raw() && uid != 0 {
            return Err(HomeError::OfAnotherUser { path: self.socket_dir.clone(), uid });
        }
        Ok(())
    }

    /// The file whose lock is held while a command starts a node.
    pub(crate) fn start_lock_file(&self) -> PathBuf {
        self.state_dir.join("start.lock")
    }

    /// What a node that a command started has to say when something goes wrong.
    pub fn node_log_file(&self) -> PathBuf {
        self.state_dir.join("node.log")
    }

    /// What `QPIPE_HOME` is to be for a program in another directory that is to use this home; none
    /// if the XDG directories hold it, whose paths are absolute.
    pub(crate) fn as_variable(&self) -> Option<io::Result<PathBuf>> {
        let is_one = [&self.config_dir, &self.data_dir, &self.socket_dir]
            .into_iter()
            .all(|dir| *dir == self.state_dir);
        is_one.then(|| std::path::absolute(&self.state_dir))
    }

    /// The file whose lock says that a `qpipe serve` runs.
    pub(crate) fn serve_lock_file(&self) -> PathBuf {
        self.state_dir.join("serve.lock")
    }
}

/// Why there is no usable [`Home`].
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    /// A directory could not be made.
    #[error("cannot create the directory {}: {cause}", path.display())]
    Create {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// The directory of the socket belongs to somebody else.
    #[error(
        "{} belongs to another user (uid {uid}): unset XDG_RUNTIME_DIR, or set QPIPE_HOME to a \
         directory of your own",
        path.display()
    )]
    OfAnotherUser {
        /// The directory.
        path: PathBuf,
        /// Its owner.
        uid: u32,
    },
    /// Neither `QPIPE_HOME` nor the XDG directories nor `HOME` are set.
    #[error(
        "no place to keep the key and the rules: set QPIPE_HOME (or HOME) to an absolute directory"
    )]
    Unknown,
    /// Other users may write to the directory.
    #[error(
        "other users may write to {0} (mode {mode:04o}), so nothing in it can be trusted: \
         run `chmod go-w {0}`, or set QPIPE_HOME to a directory of your own",
        path.display()
    )]
    WritableByOthers {
        /// The directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
}

fn create_private_dir(path: &Path) -> Result<(), HomeError> {
    let failed = |cause| HomeError::Create { path: path.to_path_buf(), cause };
    DirBuilder::new().recursive(true).mode(PRIVATE_DIR_MODE).create(path).map_err(failed)?;
    let mode = fs::metadata(path).map_err(failed)?.permissions().mode() & 0o7777;
    if mode & OTHERS_WRITE != 0 {
        return Err(HomeError::WritableByOthers { path: path.to_path_buf(), mode });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home_from(variables: &[(&str, &str)]) -> Result<Home, HomeError> {
        Home::from_env(|name| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into())
        })
    }

    #[test]
    fn qpipe_home_holds_everything() {
        let home = home_from(&[("QPIPE_HOME", "/q"), ("HOME", "/h"), ("XDG_DATA_HOME", "/d")]);

        let home = home.unwrap();
        assert_eq!(home, Home::at("/q"));
        assert_eq!(home.config_file(), Path::new("/q/config.toml"));
        assert_eq!(home.authorized_file(), Path::new("/q/authorized.toml"));
        assert_eq!(home.names_file(), Path::new("/q/names.toml"));
        assert_eq!(home.key_dir(), Path::new("/q/key"));
        assert_eq!(home.invitation_dir(), Path::new("/q/invitations"));
        assert_eq!(home.audit_file(), Path::new("/q/audit.log"));
        assert_eq!(home.serve_file(), Path::new("/q/serve.toml"));
        assert_eq!(home.socket_files(), [Path::new("/q/node.sock")]);
        assert_eq!(home.as_variable().unwrap().unwrap(), Path::new("/q"));
    }

    #[test]
    fn socket_is_below_the_runtime_directory_and_findable_without_it() {
        let home = home_from(&[("HOME", "/h"), ("XDG_RUNTIME_DIR", "/run/user/7")]).unwrap();
        let bare = home_from(&[("HOME", "/h"), ("XDG_RUNTIME_DIR", "run")]).unwrap();

        let state = Path::new("/h/.local/state/qpipe/node.sock");
        assert_eq!(home.socket_file(), Path::new("/run/user/7/qpipe/node.sock"));
        assert_eq!(home.socket_files(), [Path::new("/run/user/7/qpipe/node.sock"), state]);
        assert_eq!(bare.socket_files(), [state]);
        assert!(home.as_variable().is_none());
    }

    #[test]
    fn xdg_directories_win_over_home_one_by_one() {
        let home = home_from(&[("HOME", "/h"), ("XDG_DATA_HOME", "/d")]).unwrap();

        assert_eq!(home.config_file(), Path::new("/h/.config/qpipe/config.toml"));
        assert_eq!(home.key_dir(), Path::new("/d/qpipe/key"));
        assert_eq!(home.audit_file(), Path::new("/h/.local/state/qpipe/audit.log"));
    }

    #[test]
    fn empty_and_relative_variables_count_as_unset() {
        let variables = [("QPIPE_HOME", ""), ("HOME", "/h"), ("XDG_CONFIG_HOME", "here")];

        let home = home_from(&variables).unwrap();

        assert_eq!(home.config_file(), Path::new("/h/.config/qpipe/config.toml"));
    }

    #[test]
    fn no_variable_at_all_tells_which_to_set() {
        let error = home_from(&[]).unwrap_err();

        assert!(matches!(error, HomeError::Unknown));
        assert!(error.to_string().contains("set QPIPE_HOME"));
    }

    #[test]
    fn created_directories_are_private() {
        let parent = tempfile::tempdir().unwrap();
        let home = Home::at(parent.path().join("deep/home"));

        home.create().unwrap();
        home.create().unwrap();

        for dir in [parent.path().join("deep/home"), home.key_dir(), home.invitation_dir()] {
            let mode = fs::metadata(&dir).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o700, "{}", dir.display());
        }
    }

    #[test]
    fn directory_that_others_may_write_is_refused_with_the_remedy() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("open");
        fs::create_dir(&dir).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o777)).unwrap();

        let error = Home::at(&dir).create().unwrap_err();

        assert!(matches!(error, HomeError::WritableByOthers { mode: 0o777, .. }));
        assert!(error.to_string().contains("chmod go-w"));
    }
}
