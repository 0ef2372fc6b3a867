//! `qpipe invite`: a ticket with which another host gets itself listed here.

use std::time::SystemTime;

use anyhow::{Context, bail};
use qpipe::{Secret, Ticket};
use qpipe_node::{
    GIVE_UP, Home, Invitation, Invitations, Rule, Serve, ServeOptions, running_serve,
    wait_for_start,
};
use qpipe_proto::ticket::{Grant, SECRET_BYTES, SecretHash, is_alias};

use crate::{
    args::{InviteArgs, WaitingArgs},
    commands::serve,
    exit::Exit,
    host::ThisHost,
    pipes::{FAREWELL, ticket_addresses},
    say,
    signals::Signals,
};

/// Makes an invitation and prints the command that redeems it. Where no `qpipe serve` runs, waits
/// for that itself.
///
/// # Errors
/// The invitation cannot be made or kept, or nobody used it in time.
pub(crate) async fn run(args: InviteArgs) -> anyhow::Result<Exit> {
    let mut signals = Signals::listen()?;
    let this = ThisHost::load()?;
    let home = this.home()?;
    wait_for_start(home).await;
    let (serve, bound) = match running_serve(home) {
        Some(running) => (None, running.addresses),
        None => {
            let patience = this.patience(WaitingArgs::default(), GIVE_UP);
            let options = ServeOptions {
                listen: args.at.listen.clone(),
                memory: this.memory(None),
                patience,
            };
            let serve = serve::start(home, &this, options)?;
            let bound = serve.node().local_addresses();
            (Some(serve), bound)
        }
    };
    let advertise = [&args.at.advertise[..], &this.config.node.advertise[..]].concat();
    let secret = new_secret()?;
    let hash = secret.hash();
    let now = SystemTime::now();
    let invitation = Invitation::new(args.alias, args.allow, now, args.expires);
    let ticket = Ticket::new(
        ticket_addresses(&advertise, &bound)?,
        this.identity()?.fingerprint(),
        secret,
        Grant::Invitation { alias: invitation.alias.to_string(), by: own_name() },
        Some(invitation.expires_unix_s),
    )?;
    let invitations = Invitations::new(home.invitation_dir());
    invitations.create(&hash, &invitation, now)?;
    if let Err(error) = say::answer(format_args!("qpipe join {ticket}")) {
        // Nobody can have read it.
        invitations.withdraw(&hash)?;
        return Err(error.into());
    }
    say::note(promise(&invitation, now + args.expires));
    let Some(serve) = serve else { return Ok(Exit::Success) };
    say::note(format_args!(
        "no `qpipe serve` runs here: waiting for it on {}",
        serve::listening(&serve)
    ));
    tokio::select! {
        joined = await_joiner(&serve, &hash, &args.expires) => {
            serve.stop(FAREWELL).await;
            drop(serve);
            joined.map(|name| told_of(&name)).inspect_err(|_| withdraw(home, &hash))
        }
        signal = signals.next() => {
            withdraw(home, &hash);
            Ok(Exit::Signal(signal))
        }
    }
}

async fn await_joiner(
    serve: &Serve,
    hash: &SecretHash,
    expires: &std::time::Duration,
) -> anyhow::Result<String> {
    let joiner = async {
        while let Some(enrolment) = serve.next_enrolment().await {
            if enrolment.secret == *hash {
                return Ok(format!("{} ({})", say::clean(&enrolment.name), enrolment.key));
            }
        }
        bail!("the node was closed before anybody joined")
    };
    tokio::select! {
        () = serve.run(serve::tell_broken_rules) => {
            bail!("the node's sockets were closed before anybody joined")
        }
        joined = tokio::time::timeout(*expires, joiner) => joined.unwrap_or_else(|_| {
            let expires = humantime::format_duration(*expires);
            bail!("nobody used the invitation in {expires}: make a new one")
        }),
    }
}

fn told_of(joiner: &str) -> Exit {
    say::note(format_args!("{joiner} joined: start `qpipe serve`, so that it finds this host"));
    Exit::Success
}

fn withdraw(home: &Home, hash: &SecretHash) {
    if let Err(error) = Invitations::new(home.invitation_dir()).withdraw(hash) {
        say::error(format_args!("the invitation could not be withdrawn: {error}"));
    }
}

fn new_secret() -> anyhow::Result<Secret> {
    let mut bytes = [0; SECRET_BYTES];
    getrandom::fill(&mut bytes).map_err(std::io::Error::other).context("cannot make a secret")?;
    Ok(Secret::from_bytes(bytes))
}

/// What this host proposes to be called: the first part of its name, since a name with a dot could
/// pass for an address.
fn own_name() -> String {
    let system = rustix::system::uname();
    let name = system.nodename().to_string_lossy();
    proposed(&name)
}

fn proposed(nodename: &str) -> String {
    let label = nodename.split('.').next().unwrap_or_default();
    let is_good = is_alias(label) && label != "localhost";
    if is_good { label.to_owned() } else { NAMELESS.to_owned() }
}

/// What a host proposes to be called that has no usable name.
const NAMELESS: &str = "host";

/// What the invitation grants, and until when.
fn promise(invitation: &Invitation, until: SystemTime) -> String {
    let rules: Vec<String> = invitation.rules.iter().map(Rule::to_string).collect();
    format!(
        "whoever runs this first will be called {} here, and may {}; good once, until {}",
        invitation.alias,
        rules.join(", "),
        humantime::format_rfc3339_seconds(until)
    )
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn a_host_proposes_its_name_without_the_domain() {
        assert_eq!(proposed("b"), "b");
        assert_eq!(proposed("b.example"), "b");
        assert_eq!(proposed("localhost"), "host");
        assert_eq!(proposed(""), "host");
        assert_eq!(proposed("b\u{7}"), "host");
    }

    #[test]
    fn the_promise_names_everything_that_is_granted() {
        let rules = ["send:inbox/*", "recv:logs/**"].map(|rule| rule.parse().unwrap()).to_vec();
        let expires = Duration::from_secs(600);
        let invitation = Invitation::new("alice".parse().unwrap(), rules, UNIX_EPOCH, expires);

        assert_eq!(
            promise(&invitation, UNIX_EPOCH + expires),
            "whoever runs this first will be called alice here, and may send:inbox/*, \
             recv:logs/**; good once, until 1970-01-01T00:10:00Z"
        );
    }
}
