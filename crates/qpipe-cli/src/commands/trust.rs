//! `qpipe trust`: the peers that may do something here, and the hosts whose keys are pinned.

use std::fmt::Write;

use anyhow::bail;
use qpipe_node::{
    Alias, Authorized, Config, Home, KnownHost, PeerRules, add_peer, pin_host, remove_host,
    remove_peer,
};

use crate::{
    args::{TrustAddArgs, TrustCommand, TrustRemoveArgs},
    exit::Exit,
    host, say,
};

/// Shows or changes whom this host trusts.
///
/// # Errors
/// A file is broken or cannot be written, what is to be added contradicts what is there, or there
/// is nothing to remove.
pub(crate) fn run(command: TrustCommand) -> anyhow::Result<Exit> {
    let home = host::home()?;
    match command {
        TrustCommand::List => list(&home)?,
        TrustCommand::Add(args) => add(&home, args)?,
        TrustCommand::Remove(args) => remove(&home, &args)?,
    }
    Ok(Exit::Success)
}

fn list(home: &Home) -> anyhow::Result<()> {
    let authorized = Authorized::load(&home.authorized_file())?;
    let config = Config::load(&home.config_file())?;
    let lines: Vec<String> = authorized
        .peers()
        .iter()
        .map(peer_line)
        .chain(config.hosts.iter().map(|(alias, host)| host_line(alias, host)))
        .collect();
    if lines.is_empty() {
        say::note("nobody is trusted yet: begin with `qpipe invite`, or with `qpipe trust add`");
        return Ok(());
    }
    Ok(say::answer(lines.join("\n"))?)
}

fn peer_line(peer: &PeerRules) -> String {
    let name = peer.name.as_ref().map_or("-", Alias::as_str);
    let mut line = format!("peer {name} {}", peer.key);
    for rule in peer.rules() {
        // Writing to a string cannot fail.
        let _ = write!(line, " {rule}");
    }
    line
}

fn host_line(alias: &Alias, host: &KnownHost) -> String {
    let key = host.fingerprint.map_or_else(|| "-".to_owned(), |key| key.to_string());
    let mut line = format!("host {alias} {key}");
    for address in &host.addresses {
        let _ = write!(line, " {address}");
    }
    line
}

fn add(home: &Home, args: TrustAddArgs) -> anyhow::Result<()> {
    home.create()?;
    let TrustAddArgs { name, key, allow, address } = args;
    if !address.is_empty() {
        pin_host(&home.config_file(), &name, &address, &key)?;
        say::note(format_args!("pinned the key of the host {name}: try `qpipe send {name}/PIPE`"));
    }
    if !allow.is_empty() {
        let rules: Vec<String> = allow.iter().map(ToString::to_string).collect();
        add_peer(&home.authorized_file(), &PeerRules::new(key, Some(name.clone()), allow))?;
        say::note(format_args!("{name} may {} here from now on", rules.join(", ")));
    }
    Ok(())
}

fn remove(home: &Home, args: &TrustRemoveArgs) -> anyhow::Result<()> {
    let TrustRemoveArgs { name, peer: peer_only, host: host_only } = args;
    let peer = if *host_only { None } else { remove_peer(&home.authorized_file(), name)? };
    let host = match name.parse::<Alias>() {
        Ok(alias) if !*peer_only => remove_host(&home.config_file(), &alias)?,
        _ => None,
    };
    if peer.is_none() && host.is_none() {
        bail!("nobody is trusted under `{}`: `qpipe trust list` shows who is", say::clean(name));
    }
    if let Some(peer) = peer {
        say::note(format_args!("{} may do nothing here any more", peer_line(&peer)));
    }
    if let Some(host) = host {
        let key = host.fingerprint.map_or_else(|| "no key".to_owned(), |key| key.to_string());
        say::note(format_args!("forgot the host {name} and its key: {key}"));
    }
    Ok(())
}
