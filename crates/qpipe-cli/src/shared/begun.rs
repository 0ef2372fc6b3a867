//! What `qsend` and `qrecv` leave to this command: a connection over which they have asked for a pipe.

use anyhow::Context;
use qpipe::End;
use qpipe_node::local::LocalStream;
use rustix::stdio::{stdin, stdout};

use crate::{args::Asked, input, output};

/// A connection to the node over which a pipe was asked for.
pub(super) struct Begun {
    pub(super) stream: LocalStream,
    /// How far it has come.
    pub(super) asked: Asked,
}

impl Begun {
    /// Takes it from the standard descriptor that has no part in the pipe, where it was put.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn take(end: End, asked: Asked) -> anyhow::Result<Self> {
        let socket = if end == End::Write {
            let socket = stdout().try_clone_to_owned()?;
            output::close_stdout()?;
            socket
        } else {
            let socket = stdin().try_clone_to_owned()?;
            input::close_stdin()?;
            socket
        };
        let stream = LocalStream::adopt(socket);
        Ok(Self { stream: stream.context("nothing was asked of this host's node")?, asked })
    }
}
