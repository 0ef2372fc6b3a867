//! `stamp`: reads its standard input and writes, for each read, when it returned (Unix time in
//! seconds) and how many bytes had come by then. With `-c` it also copies the bytes to a file.

use std::{
    env,
    fs::File,
    io::{self, ErrorKind, Read, Write},
    process::ExitCode,
    time::{SystemTime, UNIX_EPOCH},
};

/// As much as a kernel pipe holds by default, in bytes.
const READ_BYTES_MAX: usize = 64 * 1024;

fn main() -> ExitCode {
    match stamp() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "stamp: {error}");
            ExitCode::FAILURE
        }
    }
}

fn stamp() -> io::Result<()> {
    let arguments: Vec<_> = env::args_os().skip(1).collect();
    let mut copy = match &arguments[..] {
        [] => None,
        [option, file] if option == "-c" => Some(File::create(file)?),
        _ => return Err(io::Error::other("usage: stamp [-c FILE] < INPUT > TIMES")),
    };
    let (mut input, mut times) = (io::stdin().lock(), io::stdout().lock());
    let mut buffer = vec![0; READ_BYTES_MAX];
    let mut total = 0;
    loop {
        let read = match input.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        total += read as u64;
        writeln!(times, "{}.{:06} {total}", now.as_secs(), now.subsec_micros())?;
        if let Some(copy) = &mut copy {
            copy.write_all(&buffer[..read])?;
        }
    }
}
