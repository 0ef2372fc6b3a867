//! Tells the program which commit and which TLS library it was built from, and how, for `--version`; and
//! how its quick forms are linked.

// A build script speaks to cargo by printing.
#![allow(clippy::disallowed_macros)]

use std::{env, fs, process::Command};

fn main() {
    println!("cargo:rustc-env=QPIPE_COMMIT={}", commit().unwrap_or_else(unknown));
    println!("cargo:rustc-env=QPIPE_RUSTLS={}", rustls_version().unwrap_or_else(unknown));
    println!("cargo:rustc-env=QPIPE_BUILD={}", build());
    println!("cargo:rerun-if-changed={LOCK_FILE}");
    println!("cargo:rerun-if-changed=build.rs");
    link_quick();
}

/// Has `qsend` and `qrecv` begin at their own first instruction, at a fixed address, with nothing that would
/// have to be loaded or relocated before it, where qpipe-quick knows the system. Elsewhere they are programs
/// like any other.
fn link_quick() {
    println!("cargo:rustc-check-cfg=cfg(quick)");
    let target = |what: &str| env::var(format!("CARGO_CFG_TARGET_{what}")).unwrap_or_default();
    let is_known = matches!(target("ARCH").as_str(), "x86_64" | "aarch64");
    if target("OS") != "linux" || !is_known {
        return;
    }
    println!("cargo:rustc-cfg=quick");
    for name in ["qsend", "qrecv"] {
        for option in ["-nostartfiles", "-no-pie", "-Wl,--no-dynamic-linker"] {
            println!("cargo:rustc-link-arg-bin={name}={option}");
        }
    }
}

/// Relative to this crate, where build scripts run.
const LOCK_FILE: &str = "../../Cargo.lock";

fn unknown() -> String {
    "unknown".to_owned()
}

/// As Cargo calls it, and whether rustc was given a profile (bench/pgo.sh).
fn build() -> String {
    let name = env::var("PROFILE").unwrap_or_else(|_| unknown());
    let flags = env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    let with = if flags.contains("profile-use=") { ", with a profile" } else { "" };
    name + with
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
