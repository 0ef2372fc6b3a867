//! `qpipe join`: the other side of `qpipe invite`.

use std::sync::Arc;

use anyhow::{Context, bail};
use qpipe::{Enrolled, Nobody, Node, NodeOptions, Ticket};
use qpipe_node::{Alias, Way, pin_host};
use qpipe_proto::ticket::Grant;

use crate::{
    args::JoinArgs,
    dial::{self, passes_for_address},
    exit::Exit,
    host::ThisHost,
    pipes::FAREWELL,
    say,
    signals::Signals,
    target,
};

/// Redeems an invitation, and pins the inviting host.
///
/// # Errors
/// The ticket is no good, the host cannot be reached, or another host has the name.
pub(crate) async fn run(args: JoinArgs) -> anyhow::Result<Exit> {
    let mut signals = Signals::listen()?;
    let this = ThisHost::load()?;
    let ticket = target::invitation(args.ticket.as_deref())?;
    let alias = alias_for(&ticket, args.alias)?;
    // Before the ticket is spent: it works only once.
    check_is_free(&this, &alias, &ticket)?;
    tokio::select! {
        joined = join(&this, &ticket, &alias) => joined.map(|()| Exit::Success),
        signal = signals.next() => Ok(Exit::Signal(signal)),
    }
}

async fn join(this: &ThisHost, ticket: &Ticket, alias: &Alias) -> anyhow::Result<()> {
    let home = this.home()?;
    let options =
        NodeOptions { memory: this.memory(None), accepts: false, ..NodeOptions::default() };
    let node = Node::start(this.identity()?.process()?, options, Arc::new(Nobody))?;
    let way = Way::by_ticket(ticket);
    let session = dial::connect(way, &node, this, Some(ticket.secret()), false).await?;
    let granted = session.enrolled().cloned();
    node.close(FAREWELL).await;
    let Some(granted) = granted else {
        bail!("the other host did not say what the invitation grants: ask for a new one");
    };
    pin_host(&home.config_file(), alias, ticket.addresses(), ticket.fingerprint()).with_context(
        || format!("this host was listed there, but `{alias}` could not be pinned here"),
    )?;
    say::note(format_args!("{alias} is pinned: {}", ticket.fingerprint()));
    say::note(permission(alias.as_str(), &granted));
    Ok(())
}

/// The name for the inviting host: the user's, or the one it proposes if that can do no harm.
fn alias_for(ticket: &Ticket, given: Option<Alias>) -> anyhow::Result<Alias> {
    if let Some(alias) = given {
        return Ok(alias);
    }
    let Grant::Invitation { by, .. } = ticket.grant() else {
        bail!("this ticket is no invitation");
    };
    if passes_for_address(by) {
        bail!(
            "the inviting host calls itself {}, which could be taken for an address: choose a name \
             for it with --as NAME",
            say::clean(by)
        );
    }
    by.parse().with_context(|| {
        format!("the inviting host calls itself {}: choose a name with --as NAME", say::clean(by))
    })
}

fn check_is_free(this: &ThisHost, alias: &Alias, ticket: &Ticket) -> anyhow::Result<()> {
    match this.config.host(alias.as_str()) {
        Some(known) if known.fingerprint.as_ref() != Some(ticket.fingerprint()) => bail!(
            "there is another host called {alias} already: choose another name with --as NAME, or \
             run `qpipe trust remove --host {alias}` first"
        ),
        _ => Ok(()),
    }
}

/// What may be done there now, with an example.
fn permission(alias: &str, granted: &Enrolled) -> String {
    let rules = |verb: &str, patterns: &[String]| {
        patterns
            .iter()
            .map(|pattern| format!("{verb} {alias}/{}", say::clean(pattern)))
            .collect::<Vec<_>>()
    };
    let all = [("send", &granted.send), ("recv", &granted.recv), ("list", &granted.list)];
    let all = all.map(|(verb, patterns)| rules(verb, patterns)).concat();
    let example = match (granted.send.first(), granted.recv.first()) {
        (Some(pattern), _) => format!("qpipe send {alias}/{} < FILE", example_of(pattern)),
        (None, Some(pattern)) => format!("qpipe recv {alias}/{} > FILE", example_of(pattern)),
        (None, None) if granted.list.is_empty() => {
            return format!("{alias} knows this host, and lets it do nothing");
        }
        (None, None) => format!("qpipe ls {alias}"),
    };
    format!(
        "{alias} calls this host {} and lets it: {}\ntry: {example}",
        say::clean(&granted.name),
        all.join(", ")
    )
}

/// A name that the pattern covers.
fn example_of(pattern: &str) -> String {
    say::clean(pattern).replace("**", "x").replace('*', "x")
}

#[cfg(test)]
mod tests {
    use qpipe::{Fingerprint, Secret};

    use super::*;

    fn invitation_by(by: &str) -> Ticket {
        let grant = Grant::Invitation { alias: "alice".to_owned(), by: by.to_owned() };
        let (key, secret) = (Fingerprint::from_bytes([7; 32]), Secret::from_bytes([9; 16]));
        Ticket::new(vec!["192.0.2.7".parse().unwrap()], key, secret, grant, None).unwrap()
    }

    #[test]
    fn a_host_may_propose_a_name_but_not_an_address() {
        assert_eq!(alias_for(&invitation_by("b"), None).unwrap().as_str(), "b");
        assert!(alias_for(&invitation_by("bank.example"), None).is_err());
        assert!(alias_for(&invitation_by("localhost"), None).is_err());

        let given = Some("c".parse().unwrap());
        assert_eq!(alias_for(&invitation_by("bank.example"), given).unwrap().as_str(), "c");
    }

    #[test]
    fn what_was_granted_comes_with_an_example_that_it_covers() {
        let granted = Enrolled {
            name: "alice".to_owned(),
            send: vec!["inbox/*".to_owned()],
            recv: vec!["logs/**".to_owned()],
            list: vec!["logs/**".to_owned()],
        };

        assert_eq!(
            permission("b", &granted),
            "b calls this host alice and lets it: send b/inbox/*, recv b/logs/**, list b/logs/**\n\
             try: qpipe send b/inbox/x < FILE"
        );
    }

    #[test]
    fn what_the_inviting_host_says_is_cleaned() {
        let granted = Enrolled {
            name: "\u{1b}[2J".to_owned(),
            send: vec!["x\u{7}".to_owned()],
            recv: vec![],
            list: vec![],
        };

        assert!(!permission("b", &granted).contains(['\u{1b}', '\u{7}']));
    }
}
