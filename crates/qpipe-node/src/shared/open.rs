//! What a program of this host opens.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use qpipe::{Cause, DialError, End, Ends, OpenOptions, OpenTarget, PipeError, PipeName, Session};
use qpipe_proto::Target;
use qpipe_proto::limits::INITIAL_LIMIT_BYTES;

use super::SharedNode;
use super::registry::Entry;
use crate::answers;
use crate::fd::{Sink, Source};
use crate::join::{Client, From, Leg, To, carry_both};
use crate::local::{
    Credentials, Event, LocalError, OpenAsk, Outcome, Place, Records, ServerStream, Stop, Word,
    Words,
};
use crate::names::Shape;
use crate::reach::Way;

/// How often a program that wants to know is told how many bytes have moved.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// How long a program may take to hear how its pipe ended.
const FLUSH_MAX: Duration = Duration::from_secs(10);

/// What an open came to before bytes could move.
enum Refusal {
    /// The program is told this, last.
    Told(Event),
    /// The program has left.
    Left,
}

/// Opens what a program asks for, carries it, and tells the program how it ended.
pub(super) async fn open(
    shared: &Arc<SharedNode>,
    mut stream: ServerStream,
    ask: OpenAsk,
    descriptors: Vec<OwnedFd>,
    credentials: Credentials,
) -> Result<(), LocalError> {
    let pipe = match Pipe::find(shared, &ask.place) {
        Ok(pipe) => pipe,
        Err(text) => return stream.send(&Event::Failed { text }).await,
    };
    let is_local = matches!(pipe, Pipe::Here(_));
    let (source, sink) = match take_over(ask.end, descriptors) {
        Ok((source, sink)) => (source.map(|source| keeping(&ask, is_local, source)), sink),
        Err(told) => return stream.send(&told).await,
    };
    let (events, words) = stream.into_parts();
    let client = Arc::new(Client::new(events, ask.end == End::Duplex));
    let listening = tokio::spawn(listen(words, client.clone()));
    let entry = shared.registry.add(&ask, is_local, credentials.pid, client.clone());
    let progress = ask.wants_progress.then(|| tokio::spawn(tell_progress(client.clone())));
    let leg = Leg {
        from: source.map(From::Local),
        to: sink.map(To::Local),
        client: Some(client.clone()),
    };
    let carried = match pipe {
        Pipe::Here(name) => local(shared, &name, &ask, leg, &client).await,
        Pipe::There { way, name } => remote(shared, &way, name, &ask, leg, &client, &entry).await,
    };
    progress.inspect(|task| task.abort());
    if let Err(Refusal::Told(event)) = carried {
        client.tell(event);
    }
    // One that does not listen is not waited for: the connection is closed.
    let _ = tokio::time::timeout(FLUSH_MAX, client.flushed()).await;
    listening.abort();
    Ok(())
}

/// The pipe that a program means.
enum Pipe {
    /// A name of this node.
    Here(PipeName),
    /// A name of another one.
    There { way: Way, name: PipeName },
}

impl Pipe {
    /// Looks for it, among the hosts of config.toml where that is not said already.
    ///
    /// # Errors
    /// Why there is none, in words.
    fn find(shared: &SharedNode, place: &Place) -> Result<Self, String> {
        if let Place::Local { name } = place {
            let name = name.parse().map_err(|error| format!("`{name}`: {error}"))?;
            return Ok(Self::Here(name));
        }
        let config = shared.config().map_err(|error| error.to_string())?;
        let text = place.to_string();
        let is_typed = matches!(place, Place::Typed { .. });
        match Target::parse(&text, |name| config.host(name).is_some()) {
            Ok(Target::Remote { host, name }) => {
                let way = Way::to(&host, &config).map_err(|error| error.to_string())?;
                Ok(Self::There { way, name })
            }
            Ok(Target::Local(name)) if is_typed => Ok(Self::Here(name)),
            Err(error) if is_typed => Err(error.to_string()),
            _ => Err(format!("`{text}` names no pipe of another host")),
        }
    }
}

/// The descriptors that a program handed over, for the ends that it asks for.
///
/// # Errors
/// What the program is told: of an output that nobody reads any more the same as if it broke later.
fn take_over(end: End, descriptors: Vec<OwnedFd>) -> Result<(Option<Source>, Option<Sink>), Event> {
    let failed = |text| Event::Failed { text };
    let mut descriptors = descriptors.into_iter();
    let mut next =
        || descriptors.next().ok_or_else(|| failed("a descriptor is missing".to_owned()));
    let source = match end {
        End::Write | End::Duplex => {
            let taken = Source::take(next()?);
            let why = |error| failed(format!("standard input cannot be read: {error}"));
            Some(taken.map_err(why)?)
        }
        End::Read => None,
    };
    let sink = match end {
        End::Read | End::Duplex => Some(Sink::take(next()?).map_err(output_refused)?),
        End::Write => None,
    };
    match descriptors.next() {
        None => Ok((source, sink)),
        Some(_) => Err(failed("a descriptor too many".to_owned())),
    }
}

fn output_refused(error: io::Error) -> Event {
    let text = error.to_string();
    if error.kind() != io::ErrorKind::BrokenPipe {
        return Event::Failed { text: format!("standard output cannot be written: {text}") };
    }
    let stopped = Some(Stop::Output { errno: error.raw_os_error(), text });
    Event::Ended { sent: None, received: Some(Outcome { bytes: 0, stopped }) }
}

fn keeping(ask: &OpenAsk, is_local: bool, mut source: Source) -> Source {
    match ask.records {
        Some(Records::Line) => source.keep_lines(),
        Some(Records::Write) => {
            source.keep_writes();
            if !is_local {
                // Before the program writes anything.
                source.fit(INITIAL_LIMIT_BYTES);
            }
        }
        None => {}
    }
    source
}

/// Hears what the program says until its socket is closed.
async fn listen(mut words: Words, client: Arc<Client>) {
    loop {
        match words.next().await {
            Ok(Some(Word::Confirm)) => client.confirm(),
            Ok(Some(Word::Abort { cause })) => {
                return client.leave(Cause::from_code(cause).unwrap_or(Cause::Interrupted));
            }
            // Killed, or it talks nonsense.
            Ok(None) | Err(_) => return client.leave(Cause::Interrupted),
        }
    }
}

async fn tell_progress(client: Arc<Client>) {
    let mut interval = tokio::time::interval(PROGRESS_INTERVAL);
    loop {
        interval.tick().await;
        client.tell(Event::Progress { bytes: client.moved() });
    }
}

/// Joins whoever is at a name of this node, or waits there.
async fn local(
    shared: &Arc<SharedNode>,
    name: &PipeName,
    ask: &OpenAsk,
    leg: Leg,
    client: &Arc<Client>,
) -> Result<(), Refusal> {
    let shape = match ask.end {
        End::Duplex => Shape::Duplex,
        End::Read => Shape::Read,
        End::Write => Shape::Write,
    };
    let checked = match answers::is_nodes_own(name) {
        true => Err(Cause::NotAllowed),
        false => shared.names.check(name, shape, ask.no_wait),
    };
    checked.map_err(|cause| ended(ask.end, PipeError::Refused { cause }))?;
    shared.names.enter(name, shape, leg);
    let timeout = ask.timeout_ms.map(Duration::from_millis);
    if let Some(timeout) = timeout {
        let came = tokio::time::timeout(timeout, client.joined_or_over()).await;
        if came.is_err() && !client.is_joined() {
            client.tell(no_partner(ask.end));
            client.leave(Cause::TimedOut);
            return Ok(());
        }
    }
    tokio::select! {
        biased;
        () = client.over() => {}
        // One that is joined is told how that ended, whether it hears that or not. One that is not, and
        // was told nothing, asks again: another node has taken the place of this one.
        _ = client.left() => if client.is_joined() {
            client.over().await;
        },
    }
    Ok(())
}

/// Opens a pipe of another host's node.
async fn remote(
    shared: &Arc<SharedNode>,
    way: &Way,
    name: PipeName,
    ask: &OpenAsk,
    leg: Leg,
    client: &Arc<Client>,
    entry: &Entry,
) -> Result<(), Refusal> {
    let reach = async {
        let session = connect(shared, way).await?;
        let _ = entry.host.set(session.peer().host());
        let ends = open_ends(&session, name, ask).await?;
        Ok((session, ends))
    };
    let (session, ends) = tokio::select! {
        biased;
        _ = absent(&leg, client) => return Err(Refusal::Left),
        reached = reach => reached?,
    };
    let granted = granted(ask, &ends, &leg, client);
    let refused = match ask.timeout_ms.map(Duration::from_millis) {
        None => granted.await,
        Some(timeout) => {
            tokio::time::timeout(timeout, granted).await.unwrap_or(Err(Refused::NoPartner))
        }
    };
    match refused {
        Ok(()) => {}
        Err(refused) => return Err(give_up(ask.end, ends, refused)),
    }
    let address = Some(session.remote_address());
    let host = Some(session.peer().host().to_string());
    client.tell(Event::Opened { host, address });
    drop(session);
    let joined = tokio::spawn(tell_joined(&ends, client.clone()));
    carry_both(leg, Leg::to_peer(ends)).await;
    joined.abort();
    Ok(())
}

enum Refused {
    Left(Cause),
    NoPartner,
    Pipe(PipeError),
}

/// Waits until the open is granted; where the program wants that, until somebody is at the other end.
async fn granted(ask: &OpenAsk, ends: &Ends, leg: &Leg, client: &Client) -> Result<(), Refused> {
    let waits = ask.no_wait || ask.timeout_ms.is_some();
    let granted = async {
        match (&ends.writer, &ends.reader) {
            (_, Some(reader)) => {
                reader.accepted().await?;
                if waits { reader.joined().await } else { Ok(()) }
            }
            (Some(writer), None) => {
                writer.accepted().await?;
                if waits { writer.joined().await } else { Ok(()) }
            }
            (None, None) => Ok(()),
        }
    };
    tokio::select! {
        biased;
        cause = absent(leg, client) => Err(Refused::Left(cause)),
        granted = granted => granted.map_err(Refused::Pipe),
    }
}

/// Waits until the program leaves, or reads no more, which it is told. One that holds both ends may
/// have something to say all the same.
///
/// # Cancel safety
/// Cancel safe.
async fn absent(leg: &Leg, client: &Client) -> Cause {
    if leg.from.is_some() {
        return client.left().await;
    }
    leg.absent().await;
    tokio::select! {
        biased;
        cause = client.left() => cause,
        () = std::future::ready(()) => Cause::ReaderClosed,
    }
}

/// Lets go of ends that were not granted.
fn give_up(end: End, ends: Ends, refused: Refused) -> Refusal {
    let cause = match &refused {
        Refused::Left(cause) => *cause,
        Refused::NoPartner => Cause::TimedOut,
        Refused::Pipe(error) => error.cause(),
    };
    let Ends { writer, reader, .. } = ends;
    writer.into_iter().for_each(|writer| writer.abort(cause));
    reader.into_iter().for_each(|reader| reader.close(cause));
    match refused {
        Refused::Left(_) => Refusal::Left,
        Refused::NoPartner => Refusal::Told(no_partner(end)),
        Refused::Pipe(error) => ended(end, error),
    }
}

fn tell_joined(ends: &Ends, client: Arc<Client>) -> impl Future<Output = ()> + use<> {
    let writer = ends.writer.as_ref().map(qpipe::PipeWriter::watch);
    let reader = ends.reader.as_ref().map(qpipe::PipeReader::watch);
    async move {
        let joined = match (reader, writer) {
            (Some(reader), _) => reader.joined().await,
            (None, Some(writer)) => writer.joined().await,
            (None, None) => return,
        };
        if joined.is_ok() {
            client.set_joined();
        }
    }
}

async fn connect(shared: &SharedNode, way: &Way) -> Result<Session, Refusal> {
    match shared.node.connect(&way.peer, None).await {
        Ok(session) => Ok(session),
        Err(DialError::UnknownHost { seen }) => {
            let addresses = way.peer.addresses.iter().map(ToString::to_string).collect();
            let alias = way.alias().map(ToString::to_string).unwrap_or_default();
            let unknown = Event::UnknownHost { host: alias, seen, addresses };
            Err(Refusal::Told(unknown))
        }
        Err(error) => Err(failed(way.explain(&error))),
    }
}

async fn open_ends(session: &Session, name: PipeName, ask: &OpenAsk) -> Result<Ends, Refusal> {
    let target = OpenTarget::Name(name);
    let options =
        OpenOptions { no_wait: ask.no_wait, priority: ask.priority, capacity: ask.capacity_bytes };
    let opened = session.open_ends(ask.end, target, options).await;
    opened.map_err(|error| failed(format!("cannot open {}: {error}", ask.place)))
}

fn failed(text: String) -> Refusal {
    Refusal::Told(Event::Failed { text })
}

/// What a program is told whose open came to nothing.
fn ended(end: End, error: PipeError) -> Refusal {
    Refusal::Told(ending(end, Stop::from(error)))
}

fn no_partner(end: End) -> Event {
    ending(end, Stop::NoPartner)
}

pub(super) fn ending(end: End, stop: Stop) -> Event {
    let stopped = Some(Outcome { bytes: 0, stopped: Some(stop) });
    match end {
        End::Write => Event::Ended { sent: stopped, received: None },
        End::Read => Event::Ended { sent: None, received: stopped },
        // One sentence is enough.
        End::Duplex => {
            let received = Some(Outcome { bytes: 0, stopped: None });
            Event::Ended { sent: stopped, received }
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::fs::{CWD, Mode, OFlags, mkfifoat, open};
    use rustix::io::Errno;

    use super::*;

    #[tokio::test]
    async fn output_that_nobody_reads_any_more_is_told_as_one_that_breaks_later() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fifo");
        mkfifoat(CWD, &path, Mode::RUSR | Mode::WUSR).unwrap();
        let reader = open(&path, OFlags::RDWR, Mode::empty()).unwrap();
        let output = open(&path, OFlags::WRONLY, Mode::empty()).unwrap();
        drop(reader);

        let told = take_over(End::Read, vec![output]).unwrap_err();

        let Event::Ended { sent: None, received: Some(outcome) } = told else {
            panic!("{told:?}");
        };
        let Some(Stop::Output { errno, .. }) = outcome.stopped else { panic!("{outcome:?}") };
        assert_eq!(errno, Some(Errno::PIPE.raw_os_error()));
    }

    #[tokio::test]
    async fn descriptors_have_to_fit_what_is_asked_for() {
        let null = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        let cases = [
            (End::Write, vec![], "missing"),
            (End::Write, vec![null(), null()], "too many"),
            (End::Read, vec![null()], "cannot be written"),
        ];
        for (end, descriptors, why) in cases {
            let told = take_over(end, descriptors).unwrap_err();
            assert!(matches!(&told, Event::Failed { text } if text.contains(why)), "{told:?}");
        }
    }
}
