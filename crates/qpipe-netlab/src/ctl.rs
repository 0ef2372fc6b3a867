//! The control socket: one command per line, one line of answer for each.
//!
//! An answer is `ok`, `ok RESULT` or `error: REASON`.

use std::{
    collections::BTreeMap,
    fs::{self, Permissions},
    io::{self, BufRead, BufReader, Write},
    os::unix::fs::PermissionsExt,
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;

use crate::{
    addr::AddressBook,
    lab::letter,
    link::Link,
    packet::Pool,
    params::LinkParams,
    report::one_line,
    roam::{GAP, Roamer},
    router::Remote,
    units::{Nanos, SECOND, parse_duration},
};

const DIRECTORY: &str = "/run/netlab";

/// The help text of `netlab ctl`.
pub(crate) const COMMANDS: &str = "\
Commands:
  KEY VALUE [KEY VALUE...]  set link parameters: `loss 5%`, `rate 10mbit delay 200ms`, ...
                            (the keys are the names of the link options of `netlab run`)
  down, up                  cut the link, restore it
  show, stats               the parameters, the counters
  roam                      change host A's address as the others see it
  roam-real                 change host A's address itself (takes half a second)
  nat-timeout TIME|off      put host A behind a NAT that forgets it when it is silent so long

All but the last three can begin with a direction, as in `ab loss 1` or `ba down`;
without one, they are about every link.";

/// Executes commands.
pub(crate) struct Controller {
    remote: Remote,
    roamer: Arc<Roamer>,
    book: Arc<AddressBook>,
}

impl Controller {
    pub(crate) fn new(remote: Remote, roamer: Arc<Roamer>, book: Arc<AddressBook>) -> Self {
        Self { remote, roamer, book }
    }

    /// Executes a command and returns its result, which may be empty.
    pub(crate) fn execute(&self, line: &str) -> Result<String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (pair, command) = match words.split_first() {
            None => bail!("empty command"),
            Some((first, rest)) => match parse_pair(first, self.remote.hosts()) {
                Some(pair) => (Some(pair), rest),
                None => (None, &words[..]),
            },
        };
        match (command, pair) {
            (["up"], _) => self.for_links(pair, |link, _, _| link.set_up(true)).map(drop)?,
            (["down"], _) => self.for_links(pair, |link, _, _| link.set_up(false)).map(drop)?,
            (["stats"], _) => return self.describe(pair, |link| link.stats()),
            (["show"], _) => return self.describe(pair, |link| link.params().clone()),
            (["roam"], None) => return Ok(self.roamer.translate()),
            (["roam-real"], None) => {
                self.roamer.leave()?;
                thread::sleep(GAP);
                return self.roamer.join();
            }
            (["nat-timeout", "off"], None) => self.book.set_nat_timeout(None),
            (["nat-timeout", time], None) => {
                self.book.set_nat_timeout(Some(parse_duration(time, SECOND)?));
            }
            _ => self.set(pair, command)?,
        }
        Ok(String::new())
    }

    fn set(&self, pair: Option<(usize, usize)>, words: &[&str]) -> Result<()> {
        ensure!(!words.is_empty() && words.len().is_multiple_of(2), "unknown command");
        let settings: Vec<(String, String)> =
            words.chunks(2).map(|pair| (pair[0].into(), pair[1].into())).collect();
        let apply = move |params: &mut LinkParams| {
            settings.iter().try_for_each(|(key, value)| params.set(key, value))
        };
        apply(&mut LinkParams::default())?; // all is well, or nothing happens
        self.for_links(pair, move |link, now, pool| {
            let mut params = link.params().clone();
            apply(&mut params).expect("it was fine before");
            link.set_params(now, pool, params);
        })?;
        Ok(())
    }

    fn describe<T: Serialize + Send + 'static>(
        &self,
        pair: Option<(usize, usize)>,
        describe: fn(&Link) -> T,
    ) -> Result<String> {
        let links = self.for_links(pair, move |link, _, _| describe(link))?.into_iter();
        let named = links.map(|((source, destination), description)| {
            (format!("{}{}", letter(source), letter(destination)), description)
        });
        Ok(one_line(&named.collect::<BTreeMap<_, _>>())?)
    }

    /// Runs `action` on one link, or on every link.
    fn for_links<T: Send + 'static>(
        &self,
        pair: Option<(usize, usize)>,
        action: impl Fn(&mut Link, Nanos, &mut Pool) -> T + Clone + Send + 'static,
    ) -> Result<Vec<((usize, usize), T)>> {
        let mut results = Vec::new();
        for source in 0..self.remote.hosts() {
            if pair.is_some_and(|pair| pair.0 != source) {
                continue;
            }
            let action = action.clone();
            results.extend(self.remote.call(source, move |station, now| {
                let links = station.links.iter_mut().enumerate();
                links
                    .filter(|(destination, _)| pair.is_none_or(|pair| pair.1 == *destination))
                    .filter_map(|(destination, link)| {
                        let result = action(link.as_mut()?, now, &mut station.pool);
                        Some(((source, destination), result))
                    })
                    .collect::<Vec<_>>()
            })?);
        }
        Ok(results)
    }
}

/// Parses a direction such as `ab`.
pub(crate) fn parse_pair(word: &str, hosts: usize) -> Option<(usize, usize)> {
    let host = |byte: u8| {
        let host = byte.checked_sub(b'a')? as usize;
        (host < hosts).then_some(host)
    };
    match *word.as_bytes() {
        [source, destination] if source != destination => Some((host(source)?, host(destination)?)),
        _ => None,
    }
}

/// Listens on a socket, which is removed when this is dropped.
pub(crate) struct Server {
    path: PathBuf,
}

impl Server {
    /// `name` is the name of the lab.
    pub(crate) fn start(name: &str, controller: Arc<Controller>) -> Result<Self> {
        fs::create_dir_all(DIRECTORY).context(DIRECTORY)?;
        fs::set_permissions(DIRECTORY, Permissions::from_mode(0o700))?;
        let path = socket(name);
        let _ = fs::remove_file(&path); // left by a process that had our id before us
        let listener = UnixListener::bind(&path).with_context(|| path.display().to_string())?;
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let controller = controller.clone();
                thread::spawn(move || serve(stream, &controller));
            }
        });
        Ok(Self { path })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// The control socket of the lab with this name.
pub(crate) fn socket(lab: &str) -> PathBuf {
    Path::new(DIRECTORY).join(format!("{lab}.sock"))
}

/// The control sockets of all labs.
pub(crate) fn sockets() -> Result<Vec<PathBuf>> {
    match fs::read_dir(DIRECTORY) {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).context(DIRECTORY),
    }
}

/// Serves one client until it hangs up.
fn serve(stream: UnixStream, controller: &Controller) {
    let mut answers = &stream;
    for line in BufReader::new(&stream).lines() {
        let Ok(line) = line else { return };
        let answer = match controller.execute(&line) {
            Ok(result) => format!("ok {result}").trim_end().to_string(),
            Err(error) => format!("error: {error:#}"),
        };
        if writeln!(answers, "{answer}").is_err() {
            return;
        }
    }
}

/// Sends one command, and returns its result.
pub(crate) fn send(path: &Path, command: &str) -> Result<String> {
    let mut stream = UnixStream::connect(path).with_context(|| path.display().to_string())?;
    writeln!(stream, "{command}")?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    match answer.trim_end().split_once(' ') {
        _ if answer.trim_end() == "ok" => Ok("ok".into()),
        Some(("ok", result)) => Ok(result.into()),
        Some(("error:", reason)) => bail!("{reason}"),
        _ => bail!("the lab has gone"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs() {
        assert_eq!(parse_pair("ab", 2), Some((0, 1)));
        assert_eq!(parse_pair("ca", 3), Some((2, 0)));
        for word in ["ac", "aa", "abc", "a", "", "AB", "up"] {
            assert_eq!(parse_pair(word, 2), None, "{word}");
        }
        assert_eq!(parse_pair("up", crate::addr::MAX_HOSTS), None);
    }
}
