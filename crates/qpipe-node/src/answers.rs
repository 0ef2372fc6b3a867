//! What a serving node tells other hosts of itself: pipes that it writes into itself, under names that
//! are its own. `qpipe status HOST` and `qpipe ls HOST` read them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use qpipe::{Cause, PipeName, PipeWriter};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The pipe out of which a peer reads how a node is: a [`crate::NodeStatus`] as JSON.
pub const STATUS_NAME: &str = ".qpipe/status";

/// The longest answer, in bytes: as long as the longest event at the local socket.
pub const ANSWER_BYTES_MAX: usize = crate::local::EVENT_BYTES_MAX;

/// Names of which this is the first segment are the node's own.
const OWN: &str = ".qpipe";

/// Answers under way at once, from when they are made until they are read.
const ANSWERS_MAX: usize = 16;

/// How long a peer may take to read one.
const READ_MAX: Duration = Duration::from_secs(10);

/// Whether a name is a node's own: no program opens it, and it cannot be kept.
pub fn is_nodes_own(name: &PipeName) -> bool {
    name.as_str().split('/').next() == Some(OWN)
}

/// The answers under way. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Answers(Arc<Semaphore>);

impl Answers {
    pub(crate) fn new() -> Answers {
        Answers(Arc::new(Semaphore::new(ANSWERS_MAX)))
    }

    /// A place for one more.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn begin(&self) -> Result<Place, Cause> {
        self.0.clone().try_acquire_owned().map(Place).map_err(|_| Cause::Busy)
    }
}

/// The place of an answer.
pub(crate) struct Place(OwnedSemaphorePermit);

impl Place {
    /// Writes an answer, for as long as a peer may take to read it.
    pub(crate) fn give(self, answer: Vec<u8>, mut writer: PipeWriter) {
        writer.join();
        tokio::spawn(async move {
            let _place = self.0;
            if answer.len() > ANSWER_BYTES_MAX {
                return writer.abort(Cause::Io);
            }
            let write = async {
                writer.write_chunk(Bytes::from(answer)).await?;
                writer.finish().await
            };
            // Who reads no more, or not in time, has asked for nothing.
            if tokio::time::timeout(READ_MAX, write).await.is_err() {
                writer.abort(Cause::TimedOut);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_node_are_told_from_those_that_look_like_them() {
        let is_own = |text: &str| is_nodes_own(&text.parse().unwrap());

        assert!(is_own(STATUS_NAME) && is_own(".qpipe") && is_own(".qpipe/x/y"));
        assert!(!is_own("x/.qpipe") && !is_own(".qpipes/status") && !is_own("qpipe/status"));
    }

    #[test]
    fn answers_under_way_are_bounded() {
        let answers = Answers::new();
        let mut places: Vec<Place> = (0..ANSWERS_MAX).map(|_| answers.begin().unwrap()).collect();

        assert_eq!(answers.begin().err(), Some(Cause::Busy));
        places.pop();
        assert!(answers.begin().is_ok());
    }
}
