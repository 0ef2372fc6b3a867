//! Compiles `src/qpipe.proto` with protox, so that no protoc is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=src/qpipe.proto");
    let files = protox::compile(["src/qpipe.proto"], ["src"])?;
    prost_build::compile_fds(files)?;
    Ok(())
}
