//! Reaching another host, and whom to ask when its key is not known.

use std::{
    fs::OpenOptions,
    io::{BufRead, BufReader, Write},
};

use anyhow::{Context, anyhow, bail};
use qpipe::{DialError, Fingerprint, Node, Secret, Session, tls::ExpectedHost};
use qpipe_node::{Alias, Way, pin_host};
use qpipe_proto::ticket::{Address, Host};

use crate::{host::ThisHost, say};

/// Connects, and asks the user first whether an unknown host's key is right.
///
/// # Errors
/// It did not work: the text says what happened and what to do about it.
pub(crate) async fn connect(
    mut way: Way,
    node: &Node,
    this: &ThisHost,
    secret: Option<&Secret>,
    accept_new: bool,
) -> anyhow::Result<Session> {
    let first = node.connect(&way.peer, secret).await;
    let (Err(DialError::UnknownHost { seen }), Some(alias)) = (&first, way.alias()) else {
        return first.map_err(|error| anyhow!(way.explain(&error)));
    };
    trust(alias, &way.peer.name, &way.peer.addresses, seen, this, accept_new).await?;
    way.peer.expected = ExpectedHost::Is(*seen);
    node.connect(&way.peer, secret).await.map_err(|error| anyhow!(way.explain(&error)))
}

/// Pins an unknown host's key if the user takes it as right.
///
/// # Errors
/// The user does not, or cannot be asked; or the key cannot be written down.
pub(crate) async fn trust(
    alias: &Alias,
    name: &str,
    addresses: &[Address],
    seen: &Fingerprint,
    this: &ThisHost,
    accept_new: bool,
) -> anyhow::Result<()> {
    if !accept_new {
        let question = format!(
            "qpipe: the key of {name} is not known here yet. It is\n  {seen}\n\
             which `qpipe key fingerprint` prints there, if it is the right one. Is it? (yes/no) "
        );
        match tokio::task::spawn_blocking(move || ask(&question)).await? {
            Some(true) => {}
            Some(false) => bail!("the key of {name} was not accepted, and nothing was sent"),
            None => bail!(
                "the key of {name} is not known here yet, and there is no terminal to ask on. It \
                 is {seen}: if `qpipe key fingerprint` prints the same there, run `qpipe trust add \
                 {alias} --key {seen} --address {}`, or take whatever key it has with --accept-new",
                joined(addresses)
            ),
        }
    }
    let home = this.home().context("an unknown host's key cannot be pinned")?;
    pin_host(&home.config_file(), alias, addresses, seen)?;
    say::note(format_args!("pinned the key {seen} for {name}"));
    Ok(())
}

/// Asks on the terminal, even when the standard descriptors are pipes; `None` if there is none.
fn ask(question: &str) -> Option<bool> {
    let mut terminal = OpenOptions::new().read(true).write(true).open("/dev/tty").ok()?;
    terminal.write_all(question.as_bytes()).ok()?;
    let mut answer = String::new();
    BufReader::new(terminal).read_line(&mut answer).ok()?;
    Some(matches!(answer.trim().to_ascii_lowercase().as_str(), "yes" | "y"))
}

fn joined(addresses: &[Address]) -> String {
    let texts: Vec<String> = addresses.iter().map(Address::to_string).collect();
    texts.join(" --address ")
}

/// Whether a name that a peer proposes for itself could pass for an address.
pub(crate) fn passes_for_address(name: &str) -> bool {
    let is_ip = name.parse::<Address>().is_ok_and(|address| matches!(address.host(), Host::Ip(_)));
    is_ip || name == "localhost" || name.contains(['.', ':', '['])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proposed_names_that_look_like_addresses_are_noticed() {
        for name in ["bank.example", "192.0.2.7", "localhost", "7", "::1"] {
            assert_eq!(passes_for_address(name), name != "7", "{name}");
        }
    }
}
