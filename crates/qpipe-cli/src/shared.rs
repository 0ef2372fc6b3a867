//! `send`, `recv`, `duplex`, `open` and `fifo` through the node that this host's programs share.

mod begun;
mod handed;
mod joined;
mod place;
mod told;

use std::{env, io, time::Duration};

use anyhow::{Context, bail};
use qpipe::{Cause, End, Fingerprint};
use qpipe_node::{
    Alias, Home,
    local::{
        Ask, Event, LocalError, LocalStream, OpenAsk, Place, Records, Request, Word,
        connect_or_start, milliseconds, process_text,
    },
};
use tokio::time::Instant;

use self::begun::Begun;
use self::handed::Typing;
pub(crate) use self::handed::{Handed, Wishes};
pub(crate) use self::place::named;
use self::place::place;
use self::told::outcome;
pub(crate) use self::told::{Ended, tell};
use crate::{
    WrongUsage,
    args::{Asked, PipeArgs},
    dial,
    ending::Label,
    exit::Exit,
    host::ThisHost,
    input,
    pipes::{SILENT_WAIT, waiting_note},
    progress::Progress,
    pump::Stopped,
    say,
    signals::Signals,
    silence, target,
};

/// How often an open is asked for again: the node that was asked may just have ended, and the key
/// of a host may have to be pinned first.
const TRIES_MAX: u32 = 4;

/// How long the node may take to say how it ended what a signal has stopped.
const FAREWELL: Duration = Duration::from_millis(500);

/// What became of a command's attempt to have the host's node do its work.
pub(crate) enum Attempt {
    /// It did.
    Done(Exit),
    /// The command is to do it itself.
    Own(Box<(ThisHost, target::Place)>),
}

/// What only one of the commands can be told.
#[derive(Default)]
pub(crate) struct Special {
    pub(crate) abort_as_eof: bool,
    pub(crate) records: Option<Records>,
    /// How far `qsend` or `qrecv` has come, whose place this process has taken.
    pub(crate) asked: Option<Asked>,
}

/// Has the host's node do what the command line asks for, if that is its to do.
///
/// # Errors
/// As [`run`], or the command line makes no sense.
pub(crate) async fn attempt(
    args: &PipeArgs,
    end: End,
    special: Special,
    signals: &mut Signals,
) -> anyhow::Result<Attempt> {
    let this = ThisHost::load()?;
    let target = target::Place::parse(args.target.as_deref(), end, &this.config)?;
    let Some(place) = place(&this, args, end, &target) else {
        if special.asked.is_some() {
            bail!(WrongUsage("--asked is for the node's pipes".to_owned()));
        }
        return Ok(Attempt::Own(Box::new((this, target))));
    };
    let begun = special.asked.map(|asked| Begun::take(end, asked)).transpose()?;
    let label = target.label();
    let wishes = Wishes { records: special.records, ..args.into() };
    let ended = run(&this, begun, wishes, end, place, &label, signals).await?;
    Ok(Attempt::Done(tell(ended, &label, special.abort_as_eof)))
}

/// Hands the standard descriptors for `end` of the pipe to this host's node, unless that has `begun`, and
/// waits for the end.
///
/// # Errors
/// There is no node to be had, or the pipe could not be opened.
async fn run(
    this: &ThisHost,
    begun: Option<Begun>,
    wishes: Wishes,
    end: End,
    place: Place,
    label: &Label,
    signals: &mut Signals,
) -> anyhow::Result<Ended> {
    let handed = match end {
        End::Write if input::is_terminal() => {
            Handed::typed().context("no kernel pipe to be had for what is typed")?
        }
        end => Handed::Standard(end),
    };
    let begun = begun.map(|begun| Carried::of(begun, &handed, label));
    let mut carried = match open(begun, this, wishes, handed, place, label, signals).await? {
        Opened::Carried(carried) => carried,
        Opened::Ended(ended) => return Ok(ended),
    };
    loop {
        tokio::select! {
            told = carried.next() => match told? {
                Told::Eof => match carried.typing_error() {
                    None => carried.confirm().await,
                    Some(error) => {
                        carried.abort(Cause::Io).await;
                        return Ok(Ended { sent: Some(Err(Stopped::Input(error))), received: None });
                    }
                },
                Told::Ended(ended) => return Ok(ended),
            },
            signal = signals.next() => {
                carried.abort(Cause::Interrupted).await;
                return Ok(Ended::by_signal(end, signal));
            }
        }
    }
}

/// What became of an open.
pub(crate) enum Opened<'a> {
    /// Bytes may move, and this process has closed what it has handed over.
    Carried(Carried<'a>),
    /// It came to nothing.
    Ended(Ended),
}

/// Hands what is `handed` to this host's node, unless a pipe was asked for already and has `begun`, and waits
/// until it is open.
///
/// # Errors
/// There is no node to be had, or the pipe could not be opened.
pub(crate) async fn open<'a>(
    mut begun: Option<Carried<'a>>,
    this: &ThisHost,
    wishes: Wishes,
    handed: Handed,
    place: Place,
    label: &'a Label,
    signals: &mut Signals,
) -> anyhow::Result<Opened<'a>> {
    let mut tries = 0;
    loop {
        tries += 1;
        let mut carried = match begun.take() {
            Some(carried) => carried,
            None => tokio::select! {
                carried = Carried::start(this, wishes, &handed, place.clone(), label) => carried?,
                signal = signals.next() => {
                    return Ok(Opened::Ended(Ended::by_signal(handed.end(), signal)));
                }
            },
        };
        if carried.is_opened {
            return Ok(Opened::Carried(carried));
        }
        let next = tokio::select! {
            next = carried.hear() => next?,
            signal = signals.next() => {
                carried.abort(Cause::Interrupted).await;
                return Ok(Opened::Ended(Ended::by_signal(handed.end(), signal)));
            }
        };
        match next {
            Next::Opened => {
                carried.typing = handed.release()?;
                return Ok(Opened::Carried(carried));
            }
            Next::Told(Told::Ended(ended)) => return Ok(Opened::Ended(ended)),
            Next::Unknown { host, seen, addresses } if tries < TRIES_MAX => {
                let alias: Alias = host.parse().context("the node named an impossible alias")?;
                let addresses =
                    addresses.iter().map(|text| text.parse()).collect::<Result<Vec<_>, _>>();
                let addresses = addresses.context("the node named an impossible address")?;
                let new = wishes.accept_new;
                tokio::select! {
                    is_pinned = dial::trust(&alias, &host, &addresses, &seen, this, new) => is_pinned?,
                    signal = signals.next() => {
                        return Ok(Opened::Ended(Ended::by_signal(handed.end(), signal)));
                    }
                }
            }
            Next::Again if tries < TRIES_MAX => {}
            Next::Unknown { host, .. } => bail!("the key of {host} changes"),
            Next::Again => bail!("this host's node ends again and again: see its log"),
            Next::Joined | Next::Told(Told::Eof) => {
                bail!("this host's node has begun before it opened {label}")
            }
        }
    }
}

/// A pipe that the node carries for this process.
pub(crate) struct Carried<'a> {
    stream: LocalStream,
    label: &'a Label,
    is_opened: bool,
    is_joined: bool,
    /// When to say that nobody is at the other end, and how.
    note_at: Option<(Instant, String)>,
    progress: Progress,
    counted: u64,
    /// What is typed at this process's terminal goes to the node from here.
    typing: Option<Typing>,
}

/// What is heard of an open pipe.
pub(crate) enum Told {
    /// The input is at its end; the node waits to hear whether that is meant as one.
    Eof,
    /// It is over.
    Ended(Ended),
}

enum Next {
    /// The node ended before it began.
    Again,
    /// Somebody is at the other end of a pipe that was opened.
    Joined,
    Opened,
    Told(Told),
    /// The key of the host is to be pinned first.
    Unknown {
        host: String,
        seen: Fingerprint,
        addresses: Vec<String>,
    },
}

impl<'a> Carried<'a> {
    async fn start(
        this: &ThisHost,
        wishes: Wishes,
        handed: &Handed,
        place: Place,
        label: &'a Label,
    ) -> anyhow::Result<Self> {
        let stream = node(this.home()?).await?;
        let mut carried = Self::of(Begun { stream, asked: Asked::Sent }, handed, label);
        let ask = OpenAsk {
            end: handed.end(),
            place,
            no_wait: wishes.no_wait,
            timeout_ms: wishes.timeout.map(milliseconds),
            wants_progress: carried.progress.is_shown(),
            records: wishes.records,
            priority: wishes.flow.priority.into(),
            capacity_bytes: wishes.flow.capacity.map(|capacity| capacity.size().bytes()),
            process: process_name(),
        };
        let request = Request::new(Ask::Open(ask));
        match carried.stream.send(&request, &handed.descriptors()).await {
            // It does not listen to this: what it has said before, if anything, tells why.
            Err(LocalError::Stream(error)) if is_gone(&error) => {}
            sent => sent.context("cannot hand over a descriptor to this host's node")?,
        }
        Ok(carried)
    }

    fn of(begun: Begun, handed: &Handed, label: &'a Label) -> Self {
        let is_joined = begun.asked == Asked::Joined;
        let note = waiting_note(label).filter(|_| !is_joined);
        Self {
            stream: begun.stream,
            label,
            is_opened: begun.asked != Asked::Sent,
            is_joined,
            note_at: note.map(|note| (Instant::now() + SILENT_WAIT, note)),
            progress: handed.progress(),
            counted: 0,
            typing: None,
        }
    }

    /// Waits for what comes of a pipe that is open.
    ///
    /// # Errors
    /// The node is gone, or talks nonsense.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Told> {
        loop {
            match self.hear().await? {
                Next::Told(told) => return Ok(told),
                Next::Joined | Next::Opened => {}
                Next::Again | Next::Unknown { .. } => bail!("this host's node opens twice"),
            }
        }
    }

    /// Why no more of what is typed can be read, if that is why the input is at its end.
    fn typing_error(&mut self) -> Option<io::Error> {
        self.typing.take().and_then(Typing::into_error)
    }

    /// Says that the end of the input is meant as one.
    pub(crate) async fn confirm(&mut self) {
        // A node that is gone is noticed at the next turn.
        let _ = self.stream.send(&Word::Confirm, &[]).await;
    }

    async fn hear(&mut self) -> anyhow::Result<Next> {
        loop {
            let event = {
                let at = self.note_at.as_ref().map(|(at, _)| *at);
                let noted = async {
                    match at {
                        Some(at) => tokio::time::sleep_until(at).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    event = self.stream.recv::<Event>() => event,
                    () = noted => {
                        if let Some((_, note)) = self.note_at.take() {
                            say::note(note);
                        }
                        continue;
                    }
                }
            };
            let event = match event {
                Ok(Some(event)) => event,
                Ok(None) | Err(LocalError::EndedEarly | LocalError::Stream(_)) => {
                    if !self.is_opened {
                        return Ok(Next::Again);
                    }
                    bail!(
                        "this host's node has ended, and {} with it: what came is not all, what \
                         was sent may not have arrived",
                        self.label
                    );
                }
                Err(error) => return Err(error.into()),
            };
            match event {
                Event::Opened { host, address } => {
                    self.is_opened = true;
                    if let (Some(host), Some(address)) = (host, address) {
                        let host = say::clean(&host);
                        say::detail(format_args!("connected to {host} ({address}/udp)"));
                    }
                    return Ok(Next::Opened);
                }
                Event::Joined => {
                    self.note_at = None;
                    self.is_joined = true;
                    return Ok(Next::Joined);
                }
                Event::Progress { bytes } => {
                    self.progress.add(bytes - self.counted.min(bytes));
                    self.counted = bytes;
                }
                Event::Eof => return Ok(Next::Told(Told::Eof)),
                Event::Silent { peer, silent_ms, left_ms } => {
                    let (silent, left) =
                        (Duration::from_millis(silent_ms), Duration::from_millis(left_ms));
                    say::note(silence::of_silence(&say::clean(&peer), silent, left));
                }
                Event::Back { peer, after_ms } => {
                    let after = Duration::from_millis(after_ms);
                    say::note(silence::of_return(&say::clean(&peer), after));
                }
                Event::UnknownHost { host, seen, addresses } => {
                    return Ok(Next::Unknown { host, seen, addresses });
                }
                Event::Ended { sent, received } => {
                    self.progress.stop();
                    let ended = Ended { sent: sent.map(outcome), received: received.map(outcome) };
                    return Ok(Next::Told(Told::Ended(ended)));
                }
                Event::Failed { text } => bail!("{}", say::clean(&text)),
                Event::Status(_) | Event::Done => {}
            }
        }
    }

    /// Tells the node that this process gives up, and gives it a moment to say what it came to.
    pub(crate) async fn abort(&mut self, cause: Cause) -> Option<Ended> {
        let cause = cause.code();
        let told = async {
            let _ = self.stream.send(&Word::Abort { cause }, &[]).await;
            loop {
                match self.hear().await {
                    Ok(Next::Told(Told::Ended(ended))) => return Some(ended),
                    Ok(Next::Joined | Next::Opened | Next::Told(Told::Eof)) => {}
                    Ok(Next::Again | Next::Unknown { .. }) | Err(_) => return None,
                }
            }
        };
        tokio::time::timeout(FAREWELL, told).await.ok().flatten()
    }
}

/// A connection to this host's node; where none runs, one is started in the background.
///
/// # Errors
/// None can be started.
async fn node(home: &Home) -> anyhow::Result<LocalStream> {
    let program = env::current_exe().context("cannot find the qpipe program")?;
    let stream = connect_or_start(home, &program, &["node".into()]).await;
    stream.context("no node for this host's programs (--direct does without)")
}

/// Whether the other end of a connection is closed.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

/// What the status shows of this process.
fn process_name() -> String {
    let words: Vec<String> =
        env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    process_text(words.iter().map(String::as_str))
}
