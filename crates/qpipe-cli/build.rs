//! Tells the program which commit and which TLS library it was built from, for `--version`.

// A build script speaks to cargo by printing.
#![allow(clippy::disallowed_macros)]

use std::{env, fs, process::Command};

fn main() {
    println!("cargo:rustc-env=QPIPE_COMMIT={}", commit().unwrap_or_else(unknown));
    println!("cargo:rustc-env=QPIPE_RUSTLS={}", rustls_version().unwrap_or_else(unknown));
    println!("cargo:rerun-if-changed={LOCK_FILE}");
    println!("cargo:rerun-if-changed=build.rs");
}

/// Relative to this crate, where build scripts run.
const LOCK_FILE: &str = "../../Cargo.lock";

fn unknown() -> String {
    "unknown".to_owned()
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && !text.trim().is_empty()).then(|| text.trim().to_owned())
}

/// The commit of qpipe's own repository: a source tree that was unpacked inside another one must
/// not be given that one's.
fn commit() -> Option<String> {
    let here = env::var("CARGO_MANIFEST_DIR").ok()?;
    let top = git(&["rev-parse", "--show-toplevel"])?;
    if !here.starts_with(&top) || !here.ends_with("crates/qpipe-cli") {
        return None;
    }
    for file in ["HEAD", "index"] {
        if let Some(path) = git(&["rev-parse", "--git-path", file]) {
            println!("cargo:rerun-if-changed={path}");
        }
    }
    git(&["rev-parse", "--short=12", "HEAD"])
}

/// The version that the lock file gives the package `rustls`.
fn rustls_version() -> Option<String> {
    let lock = fs::read_to_string(LOCK_FILE).ok()?;
    let package =
        lock.split("[[package]]").find(|entry| entry.contains("\nname = \"rustls\"\n"))?;
    let (_, rest) = package.split_once("version = \"")?;
    Some(rest.split_once('"')?.0.to_owned())
}
