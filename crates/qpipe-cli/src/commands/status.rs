//! `qpipe status`, `qpipe ls` and `qpipe stop`: what a node does, and the end of this host's.

use std::time::Duration;

use anyhow::{Context, bail};
use indicatif::{BinaryBytes, HumanDuration};
use qpipe_node::{
    ByteSize, Kept, NodeStatus,
    local::{Ask, Event, LocalStream, Request, connect, milliseconds},
    status::{Name, Pipe, Session, unused},
};

use crate::{
    args::{ListArgs, StatusArgs, StopArgs},
    commands::afar::{self, Answer},
    exit::Exit,
    host, say,
};

/// How long a node may take to say how it is.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// What there is to say instead of an answer.
const NO_NODE: &str = "no node runs for this host's programs: the first `qpipe send` or `recv` of a \
                       named pipe starts one";

/// Shows what a node does.
///
/// # Errors
/// None runs, or it does not answer.
pub(crate) async fn run(args: StatusArgs) -> anyhow::Result<Exit> {
    let status = match &args.of.host {
        None => status().await?,
        Some(host) => match afar::status(host, args.of.accept_new).await? {
            Answer::Status(status) => *status,
            Answer::None(exit) => return Ok(exit),
        },
    };
    if args.json {
        say::answer(harmless(&serde_json::to_string_pretty(&status)?))?;
    } else {
        say::answer(text(&status).trim_end())?;
    }
    Ok(Exit::Success)
}

/// JSON without characters that terminals obey: it may have them from another host.
fn harmless(json: &str) -> String {
    json.lines().map(say::clean).collect::<Vec<_>>().join("\n")
}

/// Lists the named pipes that are in use, or kept.
///
/// # Errors
/// No node runs and no name is kept, the node does not answer, or names.toml is broken: what is in use
/// is listed all the same.
pub(crate) async fn list(args: ListArgs) -> anyhow::Result<Exit> {
    if let Some(host) = &args.of.host {
        return match afar::status(host, args.of.accept_new).await? {
            Answer::Status(status) => {
                let more = status.names_in_all.saturating_sub(status.names.len());
                show(&status.names, more, args.json)
            }
            Answer::None(exit) => Ok(exit),
        };
    }
    let home = host::home()?;
    let kept = Kept::load(&home.names_file());
    let status = match connect(&home).await? {
        Some(stream) => Some(status_of(stream).await?),
        None => None,
    };
    let (more, names): (usize, Vec<Name>) = match (status, &kept) {
        (Some(status), _) => (status.names_in_all.saturating_sub(status.names.len()), status.names),
        (None, Ok(kept)) if !kept.is_empty() => (0, unused(kept).collect()),
        (None, Ok(_)) => bail!(NO_NODE),
        (None, Err(_)) => (0, Vec::new()),
    };
    let exit = show(&names, more, args.json)?;
    kept?;
    Ok(exit)
}

/// Shows names, and that there are `more`.
fn show(names: &[Name], more: usize, as_json: bool) -> anyhow::Result<Exit> {
    if as_json {
        say::answer(harmless(&serde_json::to_string_pretty(&names)?))?;
        return Ok(Exit::Success);
    }
    for name in names {
        say::answer(say::clean(&name_text(name)))?;
    }
    if more > 0 {
        say::note(format_args!("and {more} names more"));
    }
    Ok(Exit::Success)
}

fn name_text(name: &Name) -> String {
    let kind = if name.duplex { " (duplex)" } else { "" };
    let state = if name.is_unused() && name.kept {
        "nobody uses it".to_owned()
    } else {
        let state = state(if name.open { "open" } else { "waiting" }, &name.waiting_for);
        format!("{state}, {} writing, {} reading", name.writers, name.readers)
    };
    let mut text = format!("{}{kind}: {state}", name.name);
    if name.kept {
        let capacity = ByteSize::from_bytes(name.capacity.unwrap_or_default());
        text += &format!("; kept, mode {}, {capacity}", name.mode.as_deref().unwrap_or("rw"));
    }
    if let Some(description) = &name.description {
        text += &format!(": {description}");
    }
    text
}

/// Ends this host's node.
///
/// # Errors
/// It does not answer.
pub(crate) async fn stop(args: StopArgs) -> anyhow::Result<Exit> {
    let Some(mut stream) = connect(&host::home()?).await? else {
        say::note("no node runs for this host's programs");
        return Ok(Exit::Success);
    };
    match ask(&mut stream, Ask::Stop { within_ms: milliseconds(args.within) }).await? {
        Some(Event::Done) => {}
        other => bail!(no_answer(other)),
    }
    // It closes the connection when it ends.
    while stream.recv::<Event>().await.is_ok_and(|event| event.is_some()) {}
    Ok(Exit::Success)
}

async fn status() -> anyhow::Result<NodeStatus> {
    status_of(connect(&host::home()?).await?.context(NO_NODE)?).await
}

async fn status_of(mut stream: LocalStream) -> anyhow::Result<NodeStatus> {
    let answer = tokio::time::timeout(ANSWER_MAX, ask(&mut stream, Ask::Status)).await;
    match answer.context("this host's node does not answer: it is stopped, or very busy")?? {
        Some(Event::Status(status)) => {
            serde_json::from_value(status).context("the node answered what is not understood")
        }
        other => bail!(no_answer(other)),
    }
}

/// Asks the node, and gives what it says first.
async fn ask(stream: &mut LocalStream, ask: Ask) -> anyhow::Result<Option<Event>> {
    let asked = stream.send(&Request::new(ask), &[]).await;
    match (asked, stream.recv().await) {
        // One that does not listen may have said why.
        (_, Ok(Some(event))) => Ok(Some(event)),
        (Err(error), _) => Err(error.into()),
        (Ok(()), heard) => Ok(heard?),
    }
}

/// What came instead of the answer.
fn no_answer(event: Option<Event>) -> String {
    match event {
        Some(Event::Failed { text }) => say::clean(&text),
        _ => "this host's node ended before it answered".to_owned(),
    }
}

fn text(status: &NodeStatus) -> String {
    let kind = match status.serves {
        true => {
            let addresses = status.addresses.iter().map(|address| format!("{address}/udp"));
            format!("qpipe serve on {}", addresses.collect::<Vec<_>>().join(" and "))
        }
        false => "node for this host's programs".to_owned(),
    };
    let mut lines = vec![format!(
        "{kind}, process {}, for {}, {} in pipes' windows",
        status.pid,
        time(status.uptime),
        BinaryBytes(status.memory_taken)
    )];
    if status.sessions.is_empty() {
        lines.push("no sessions with other hosts".to_owned());
    }
    lines.extend(status.sessions.iter().map(session_text));
    lines.extend(status.pipes.iter().map(pipe_text));
    if status.pipes_in_all > status.pipes.len() {
        lines.push(format!("and {} pipes more", status.pipes_in_all - status.pipes.len()));
    }
    lines.iter().map(|line| format!("{}\n", say::clean(line))).collect()
}

fn session_text(session: &Session) -> String {
    let name = session.name.as_deref().unwrap_or(&session.key);
    let address = session.address.map_or(String::new(), |address| format!(" ({address}/udp)"));
    let resumed = match session.resumed {
        0 => String::new(),
        times => format!(", resumed {times} times"),
    };
    let connection = match &session.connection {
        None => format!(", no connection, not heard for {}", time(session.silent)),
        Some(c) => {
            let sent = c.sent_packets.max(1);
            format!(
                ", round trip {:.1} ms, {:.2} % lost, window {}, {}/s, {} sent, {} received",
                c.rtt_ms,
                c.lost_packets as f64 * 100.0 / sent as f64,
                BinaryBytes(c.congestion_window),
                BinaryBytes(session.rate),
                BinaryBytes(c.sent_bytes),
                BinaryBytes(c.received_bytes),
            )
        }
    };
    let age = time(session.age);
    format!("host {name}{address}: {} pipes, for {age}{resumed}{connection}", session.pipes)
}

fn pipe_text(pipe: &Pipe) -> String {
    let process = match pipe.pid {
        Some(pid) => format!(", process {pid}: {}", pipe.process),
        None => String::new(),
    };
    format!(
        "pipe {} ({}): {}, {} sent, {} received, {}/s, for {}{process}",
        pipe.name,
        pipe.end,
        state(&pipe.state, &pipe.waiting_for),
        BinaryBytes(pipe.sent),
        BinaryBytes(pipe.received),
        BinaryBytes(pipe.rate),
        time(pipe.age),
    )
}

fn state(state: &str, waiting_for: &Option<String>) -> String {
    match waiting_for {
        None => state.to_owned(),
        Some(whom) => format!("{state} for a {whom}"),
    }
}

fn time(seconds: f64) -> HumanDuration {
    // What is no time at all is none.
    HumanDuration(Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or_default())
}
