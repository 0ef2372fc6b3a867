//! Asking another host's node how it is: its answer is a pipe of its own, which is read here.

use std::{io, time::Duration};

use anyhow::{Context, bail};
use qpipe::{Cause, End, PipeError};
use qpipe_node::{ANSWER_BYTES_MAX, NodeStatus, STATUS_NAME};
use tokio::{io::AsyncReadExt, net::unix::pipe, time::timeout};

use crate::{
    WrongUsage,
    exit::Exit,
    host::ThisHost,
    pump::Stopped,
    say,
    shared::{self, Carried, Ended, Handed, Opened, Told, Wishes},
    signals::Signals,
    target::Place,
};

/// How long the answer may take, once the pipe is open.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// What became of the question.
pub(crate) enum Answer {
    Status(Box<NodeStatus>),
    /// There is none, which was said.
    None(Exit),
}

/// Asks the node of `host` how it is.
///
/// # Errors
/// `host` is none, it cannot be reached, it does not tell this host, or its answer makes no sense.
pub(crate) async fn status(host: &str, accept_new: bool) -> anyhow::Result<Answer> {
    let mut signals = Signals::listen()?;
    let this = ThisHost::load()?;
    let place = place(host, &this)?;
    let label = place.label();
    let Some(through) = shared::named(&place) else { bail!(no_host(host)) };
    let (reader, writer) = io::pipe().context("no kernel pipe to be had")?;
    let reader = pipe::Receiver::from_owned_fd(reader.into())?;
    let handed = Handed::Descriptor(End::Read, writer.into());
    let wishes = Wishes::of_question(accept_new, ANSWER_MAX);
    let opened = shared::open(None, &this, wishes, handed, through, &label, &mut signals).await?;
    let mut carried = match opened {
        Opened::Carried(carried) => carried,
        Opened::Ended(ended) => return none(host, ended, &label),
    };
    let answered = tokio::select! {
        answered = timeout(ANSWER_MAX, hear(&mut carried, reader)) => answered,
        signal = signals.next() => return Ok(Answer::None(Exit::Signal(signal))),
    };
    let (ended, text) =
        answered.with_context(|| format!("{} does not answer", say::clean(host)))??;
    match ended.received {
        Some(Ok(_)) => {}
        _ => return none(host, ended, &label),
    }
    let status = serde_json::from_slice(&text);
    let status = status.with_context(|| format!("{} answers nonsense", say::clean(host)))?;
    Ok(Answer::Status(Box::new(status)))
}

/// The pipe that holds the answer.
fn place(host: &str, this: &ThisHost) -> anyhow::Result<Place> {
    let text = format!("{host}/{STATUS_NAME}");
    match Place::parse(Some(&text), End::Read, &this.config)? {
        Place::Remote { host, name } if name.as_str() == STATUS_NAME => {
            Ok(Place::Remote { host, name })
        }
        _ => bail!(no_host(host)),
    }
}

fn no_host(text: &str) -> WrongUsage {
    WrongUsage(format!(
        "`{}` is no host: `qpipe trust list` shows those with a name; others are a DNS name or an \
         address",
        say::clean(text)
    ))
}

/// Reads the answer, and hears how that ended.
async fn hear(
    carried: &mut Carried<'_>,
    reader: pipe::Receiver,
) -> anyhow::Result<(Ended, Vec<u8>)> {
    let read = async {
        let mut text = Vec::new();
        let bytes = reader.take(ANSWER_BYTES_MAX as u64 + 1).read_to_end(&mut text).await?;
        if bytes > ANSWER_BYTES_MAX {
            bail!("the answer is longer than {ANSWER_BYTES_MAX} bytes");
        }
        Ok(text)
    };
    let ended = async {
        loop {
            if let Told::Ended(ended) = carried.next().await? {
                return anyhow::Ok(ended);
            }
        }
    };
    let (text, ended) = tokio::try_join!(read, ended)?;
    Ok((ended, text))
}

/// Says why there is no answer.
fn none(host: &str, ended: Ended, label: &crate::ending::Label) -> anyhow::Result<Answer> {
    let host = say::clean(host);
    match ended.received {
        Some(Err(Stopped::Pipe(PipeError::Refused { cause: Cause::NotAllowed }))) => bail!(
            "{host} does not tell this host: there, `qpipe trust add NAME --key KEY --allow \
             'list:**'` allows it, where KEY is what `qpipe key fingerprint` prints here"
        ),
        Some(Err(Stopped::Pipe(PipeError::Refused { cause: Cause::NoPartner }))) => {
            bail!("the node of {host} is too old to tell how it is")
        }
        received => Ok(Answer::None(shared::tell(Ended { received, ..ended }, label, false))),
    }
}
