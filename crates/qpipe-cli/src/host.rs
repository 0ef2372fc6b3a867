//! This host: its files, its key, its settings.

use std::{cell::OnceCell, env, time::Duration};

use anyhow::anyhow;
use qpipe::{Patience, identity::HostIdentity};
use qpipe_node::{ByteSize, Config, Home, HomeError, Waiting, Way};

use crate::args::WaitingArgs;

/// What a command knows of the host it runs on.
pub(crate) struct ThisHost {
    home: Option<Home>,
    /// What config.toml says.
    pub(crate) config: Config,
    /// The host's key, once it was asked for.
    identity: OnceCell<HostIdentity>,
}

impl ThisHost {
    /// Reads config.toml. Where no variable says where things are kept (a container, a service), it has
    /// no files.
    ///
    /// # Errors
    /// If the configuration is there and unusable.
    pub(crate) fn load() -> anyhow::Result<Self> {
        let home = match home() {
            Ok(home) => home,
            Err(HomeError::Unknown) => {
                let config = Config::default();
                return Ok(Self { home: None, config, identity: OnceCell::new() });
            }
            Err(error) => return Err(error.into()),
        };
        let config = Config::load(&home.config_file())?;
        home.create()?;
        Ok(Self { home: Some(home), config, identity: OnceCell::new() })
    }

    /// The host's key, which is made where there is none; without files one for this process alone,
    /// enough for tickets. Whoever leaves everything to the host's node has no need of it.
    ///
    /// # Errors
    /// If the key is there and unusable.
    pub(crate) fn identity(&self) -> anyhow::Result<&HostIdentity> {
        if let Some(identity) = self.identity.get() {
            return Ok(identity);
        }
        let identity = match &self.home {
            Some(home) => HostIdentity::load_or_create(&home.key_dir())?,
            None => HostIdentity::ephemeral()?,
        };
        Ok(self.identity.get_or_init(|| identity))
    }

    /// Where its files are.
    ///
    /// # Errors
    /// If no variable says so.
    pub(crate) fn home(&self) -> anyhow::Result<&Home> {
        self.home.as_ref().ok_or_else(|| anyhow!(HomeError::Unknown))
    }

    /// The way to this host's own `qpipe serve`.
    ///
    /// # Errors
    /// None runs.
    pub(crate) async fn own_node(&self) -> anyhow::Result<Way> {
        Ok(Way::to_own_node(self.home()?, self.identity()?.fingerprint(), &self.config).await?)
    }

    /// How long peers that are not heard are waited for: of the command line, else of config.toml,
    /// else the default, which for giving up is `give_up`.
    pub(crate) fn patience(&self, given: WaitingArgs, give_up: Duration) -> Patience {
        Waiting::from(given).or(self.config.node.waiting, give_up)
    }

    /// The memory budget in bytes: of the command line, else of config.toml, else the default.
    pub(crate) fn memory(&self, given: Option<ByteSize>) -> u64 {
        given.unwrap_or(self.config.node.memory).bytes()
    }
}

/// The home that the environment names.
///
/// # Errors
/// If it names none.
pub(crate) fn home() -> Result<Home, HomeError> {
    Home::from_env(|name| env::var_os(name))
}
