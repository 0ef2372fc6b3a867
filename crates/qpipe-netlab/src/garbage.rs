//! What labs have left behind whose process was killed.

use std::{fs, os::unix::net::UnixStream, path::Path};

use anyhow::Result;

use crate::{ctl, netns::Netns};

/// Deletes the namespaces and sockets of labs that are gone; returns their names.
pub(crate) fn collect() -> Result<Vec<String>> {
    let mut deleted = Vec::new();
    for name in Netns::list()? {
        let lab = name.strip_suffix(|last: char| last.is_ascii_lowercase());
        if lab.is_some_and(is_dead) {
            deleted.push(name.clone());
            drop(Netns::adopt(name));
        }
    }
    for path in ctl::sockets()? {
        let lab = path.file_stem().and_then(|stem| stem.to_str());
        if lab.is_some_and(is_dead) {
            fs::remove_file(&path)?;
            deleted.push(path.display().to_string());
        }
    }
    Ok(deleted)
}

/// Whether this is the name of a lab (`nl`, its process id, `-` and a number) that is no more: the
/// process is gone, or another has its id and nobody listens.
fn is_dead(lab: &str) -> bool {
    let process = lab.strip_prefix("nl").and_then(|rest| rest.split_once('-'));
    let Some(Ok(pid)) = process.map(|(pid, _)| pid.parse::<u32>()) else { return false };
    let socket = ctl::socket(lab);
    !Path::new(&format!("/proc/{pid}")).exists()
        || socket.exists() && UnixStream::connect(socket).is_err()
}
