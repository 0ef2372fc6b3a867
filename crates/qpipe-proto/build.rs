//! Compiles `src/qpipe.proto` with protox, so that no protoc is needed.

#[allow(clippy::disallowed_macros)] // This is how a build script speaks to cargo.
fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=src/qpipe.proto");
    let files = protox::compile(["src/qpipe.proto"], ["src"])?;
    // A derived Debug would show a ticket's secret.
    prost_build::Config::new().skip_debug(["qpipe.v1.Ticket"]).compile_fds(files)?;
    Ok(())
}
