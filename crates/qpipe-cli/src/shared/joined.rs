//! Waiting for somebody at the other end of a pipe that is open.

use anyhow::bail;

use super::{Carried, Ended, Next, Told};

impl Carried<'_> {
    /// Waits until somebody is at the other end, or the pipe is over: then it gives how it ended.
    ///
    /// # Errors
    /// The node is gone, or talks nonsense.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(crate) async fn joined(&mut self) -> anyhow::Result<Option<Ended>> {
        while !self.is_joined {
            match self.hear().await? {
                Next::Told(Told::Ended(ended)) => return Ok(Some(ended)),
                Next::Joined => {}
                _ => bail!("this host's node does not say whether anybody is at the other end"),
            }
        }
        Ok(None)
    }
}
