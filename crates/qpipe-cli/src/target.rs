//! Which pipe the user means.

use std::{
    env,
    io::{self, Read},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, bail};
use qpipe_node::{Config, host_text};
use qpipe_proto::{
    PipeName, Target, Ticket,
    target::HostRef,
    ticket::{End, Grant, TICKET_PREFIX, TICKET_TEXT_BYTES_MAX},
};

use crate::{WrongUsage, ending::Label};

/// The variable that a ticket may stand in, since arguments show in `ps`.
const TICKET_VARIABLE: &str = "QPIPE_TICKET";

/// The pipe that a command is about.
#[derive(Debug)]
pub(crate) enum Place {
    /// A new one without a name, for whoever gets its ticket.
    Anonymous,
    /// A pipe of this host's node.
    Local(PipeName),
    /// A pipe of another host's node.
    Remote {
        /// Which host.
        host: HostRef,
        /// The pipe there.
        name: PipeName,
    },
    /// What the ticket grants.
    Ticket(Ticket),
}

impl Place {
    /// Reads the TARGET of a command that is to hold `end` of the pipe.
    ///
    /// # Errors
    /// [`WrongUsage`] if it is no target, or a ticket for something else.
    pub(crate) fn parse(target: Option<&str>, end: End, config: &Config) -> anyhow::Result<Self> {
        let Some(text) = ticket_or_target(target, end == End::Read)? else {
            return Ok(Self::Anonymous);
        };
        let target = Target::parse(&text, |name| config.host(name).is_some())
            .map_err(|error| WrongUsage(error.to_string()))?;
        Ok(match target {
            Target::Local(name) => Self::Local(name),
            Target::Remote { host, name } => Self::Remote { host, name },
            Target::Ticket(ticket) => {
                check(&ticket, end)?;
                Self::Ticket(ticket)
            }
        })
    }

    /// What messages call it.
    pub(crate) fn label(&self) -> Label {
        match self {
            Self::Anonymous | Self::Ticket(_) => Label::Anonymous,
            Self::Local(name) => Label::Local(name.to_string()),
            Self::Remote { host, name } => {
                Label::Remote { host: host_text(host), name: name.to_string() }
            }
        }
    }
}

/// Reads the ticket of an invitation: from the command line, standard input (`-`), or the
/// environment.
///
/// # Errors
/// [`WrongUsage`] if there is none, or it is one for a pipe; a failure if it has expired.
pub(crate) fn invitation(text: Option<&str>) -> anyhow::Result<Ticket> {
    let text = ticket_or_target(text, true)?.ok_or_else(|| {
        WrongUsage(format!("give the ticket as argument, or in ${TICKET_VARIABLE}"))
    })?;
    let ticket: Ticket = text
        .parse()
        .map_err(|error: qpipe_proto::ticket::ParseTicketError| WrongUsage(error.to_string()))?;
    if let Grant::Pipe(end) = ticket.grant() {
        bail!(WrongUsage(format!(
            "this ticket is for a pipe and no invitation: use `qpipe {}` with it",
            command_for(*end)
        )));
    }
    check_expiry(&ticket)?;
    Ok(ticket)
}

/// The command that holds this end of a pipe.
pub(crate) fn command_for(end: End) -> &'static str {
    match end {
        End::Duplex => "duplex",
        End::Read => "recv",
        End::Write => "send",
    }
}

/// The text on the command line, with `-` standing for standard input; else the environment's.
fn ticket_or_target(text: Option<&str>, stdin_is_free: bool) -> anyhow::Result<Option<String>> {
    match text {
        Some("-") if stdin_is_free => read_ticket().map(Some),
        Some("-") => bail!(WrongUsage(format!(
            "standard input is the data here: put the ticket into ${TICKET_VARIABLE}"
        ))),
        Some(text) => Ok(Some(text.to_owned())),
        None => match env::var(TICKET_VARIABLE) {
            Err(_) => Ok(None),
            Ok(text) if text.trim().to_ascii_lowercase().starts_with(TICKET_PREFIX) => {
                Ok(Some(text))
            }
            // A pipe name there would be a ticket that was copied badly.
            Ok(_) => bail!(WrongUsage(format!(
                "${TICKET_VARIABLE} holds no ticket: tickets begin with {TICKET_PREFIX}"
            ))),
        },
    }
}

/// Standard input to its end, as `echo` writes it; what is more than a ticket is noticed.
fn read_ticket() -> anyhow::Result<String> {
    let mut text = String::new();
    let bytes_max = 2 * TICKET_TEXT_BYTES_MAX as u64;
    io::stdin()
        .lock()
        .take(bytes_max)
        .read_to_string(&mut text)
        .context("cannot read a ticket from standard input")?;
    Ok(text.trim().to_owned())
}

fn check(ticket: &Ticket, end: End) -> anyhow::Result<()> {
    match ticket.grant() {
        Grant::Invitation { .. } => {
            bail!(WrongUsage("this ticket is an invitation: use `qpipe join` with it".to_owned()))
        }
        Grant::Pipe(granted) if *granted != end => bail!(WrongUsage(format!(
            "this ticket is for the other end: use `qpipe {}` with it",
            command_for(*granted)
        ))),
        Grant::Pipe(_) => check_expiry(ticket),
    }
}

fn check_expiry(ticket: &Ticket) -> anyhow::Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    if ticket.has_expired(now) {
        bail!("the ticket has expired (or this host's clock is wrong): ask for a new one");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use qpipe_proto::{Fingerprint, Secret};

    use super::*;

    fn ticket(grant: Grant, expires: Option<u64>) -> String {
        let address = "192.0.2.7".parse().unwrap();
        let fingerprint = Fingerprint::from_bytes([7; 32]);
        let secret = Secret::from_bytes([9; 16]);
        Ticket::new(vec![address], fingerprint, secret, grant, expires).unwrap().to_string()
    }

    fn refusal(text: &str, end: End) -> String {
        let error = Place::parse(Some(text), end, &Config::default()).unwrap_err();
        assert!(error.is::<WrongUsage>(), "{error}");
        let text_of_error = error.to_string();
        assert!(!text_of_error.contains("qpipe1") || text.len() < 20, "{text_of_error}");
        text_of_error
    }

    #[test]
    fn names_hosts_and_tickets_are_told_apart() {
        let label = |text: &str| {
            Place::parse(Some(text), End::Read, &Config::default()).unwrap().label().to_string()
        };

        assert_eq!(label("inbox/x"), "the pipe inbox/x");
        assert_eq!(label("b.example/x"), "the pipe b.example/x");
        assert_eq!(label("b.example:7473/x"), "the pipe b.example/x");
        assert_eq!(label("[::1]:7474/x"), "the pipe [::1]:7474/x");
        assert_eq!(label(&ticket(Grant::Pipe(End::Read), None)), "the anonymous pipe");
    }

    #[test]
    fn a_ticket_for_something_else_names_the_right_command() {
        let for_reading = ticket(Grant::Pipe(End::Read), None);
        let invitation = Grant::Invitation { alias: "alice".to_owned(), by: "b".to_owned() };

        assert_eq!(
            refusal(&for_reading, End::Write),
            "this ticket is for the other end: use `qpipe recv` with it"
        );
        assert!(refusal(&ticket(invitation, None), End::Write).contains("`qpipe join`"));
        assert!(super::invitation(Some(&for_reading)).unwrap_err().to_string().contains("recv"));
    }

    #[test]
    fn garbage_is_wrong_usage_and_is_not_repeated() {
        let whole = ticket(Grant::Pipe(End::Read), None);

        assert!(refusal(&whole[..whole.len() - 3], End::Read).contains("copy it again"));
        refusal("qpipe1", End::Read);
        refusal("a//b", End::Read);
        refusal("b.example/", End::Read);
        refusal("-", End::Write);
    }

    #[test]
    fn an_expired_ticket_is_a_failure_without_a_journey() {
        let text = ticket(Grant::Pipe(End::Read), Some(1));
        let error = Place::parse(Some(&text), End::Read, &Config::default()).unwrap_err();

        assert!(!error.is::<WrongUsage>());
        assert!(error.to_string().contains("has expired"));
    }
}
