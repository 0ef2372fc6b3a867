//! The options that are about links: each for both directions or for one.

use std::collections::BTreeMap;

use anyhow::Result;
use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};

use crate::params::{KEYS, LinkParams};

/// The options of the links, in the order in which they apply: first those for both
/// directions, then those for one.
#[derive(Default)]
pub(crate) struct LinkOptions {
    pub(super) settings: Vec<Setting>,
}

pub(super) struct Setting {
    /// `None` is every link.
    pub(super) pair: Option<(usize, usize)>,
    pub(super) key: String,
    pub(super) value: String,
}

/// The option prefixes, and what they are about.
const PREFIXES: [(&str, Option<(usize, usize)>); 3] =
    [("", None), ("ab-", Some((0, 1))), ("ba-", Some((1, 0)))];

impl Args for LinkOptions {
    fn augment_args(mut command: Command) -> Command {
        for (prefix, pair) in PREFIXES {
            for key in KEYS {
                let check = |value: &str| match LinkParams::default().set(key.name, value) {
                    Ok(()) => Ok(value.to_string()),
                    Err(error) => Err(error.root_cause().to_string()),
                };
                let mut arg = Arg::new(format!("{prefix}{}", key.name))
                    .long(format!("{prefix}{}", key.name))
                    .value_name(key.value_name)
                    .value_parser(check)
                    .help(key.help)
                    .hide(pair.is_some())
                    .help_heading(
                        "Link options (each also as --ab-... and --ba-..., for one direction)",
                    );
                if key.value_name == "on|off" {
                    arg = arg.num_args(0..=1).require_equals(true).default_missing_value("on");
                }
                command = command.arg(arg);
            }
        }
        command
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for LinkOptions {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut options = Self::default();
        options.update_from_arg_matches(matches)?;
        Ok(options)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        for (prefix, pair) in PREFIXES {
            for key in KEYS {
                if let Some(value) = matches.get_one::<String>(&format!("{prefix}{}", key.name)) {
                    self.settings.push(Setting {
                        pair,
                        key: key.name.into(),
                        value: value.clone(),
                    });
                }
            }
        }
        Ok(())
    }
}

/// Applies the settings, general ones first, to the links of all pairs of hosts.
pub(super) fn link_params(
    hosts: usize,
    settings: &[Setting],
) -> Result<BTreeMap<(usize, usize), LinkParams>> {
    let mut links: BTreeMap<(usize, usize), LinkParams> = (0..hosts)
        .flat_map(|source| (0..hosts).map(move |destination| (source, destination)))
        .filter(|(source, destination)| source != destination)
        .map(|pair| (pair, LinkParams::default()))
        .collect();
    let (general, special): (Vec<_>, Vec<_>) =
        settings.iter().partition(|setting| setting.pair.is_none());
    for Setting { pair, key, value } in general.into_iter().chain(special) {
        for (_, params) in links.iter_mut().filter(|(own, _)| pair.is_none_or(|pair| pair == **own))
        {
            params.set(key, value)?;
        }
    }
    Ok(links)
}
