//! qpipe beside its peers: what is measured on which link, with whom, and what came of it.

mod baseline;
mod measure;
mod peer;
mod plan;
mod plot;
mod row;
mod rows;
mod sample;
mod ssh;
mod table;

use std::{
    env, fs,
    io::Write,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, Result, ensure};

use crate::{carrier, run::stop};

use self::{peer::Peer, row::Row, sample::Sample};

/// What to compare, and where to put what comes of it.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Rows whose names begin so; several with commas [default: all]
    #[arg(long, value_delimiter = ',')]
    rows: Vec<String>,
    /// Programs to run [default: all that a row has]
    #[arg(long, value_delimiter = ',')]
    peers: Vec<Peer>,
    /// How often each is measured; programs alternate [default: 5; 3 with --short]
    #[arg(long)]
    runs: Option<usize>,
    /// Some rows in a short form, 4 minutes in all
    #[arg(long)]
    short: bool,
    /// Names the rows that there are, and does nothing
    #[arg(long)]
    list: bool,
    /// For samples.jsonl, made-on.txt, table.md and the plots
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
    /// Another directory with programs, before those in $PATH
    #[arg(long)]
    path: Vec<PathBuf>,
    /// Makes the table again from the samples that are in the output directory, and measures nothing
    #[arg(long)]
    again: bool,
    /// Fails where a ratio is worse by more than a fifth than in this file
    #[arg(long)]
    baseline: Option<PathBuf>,
    /// Writes the ratios to that file, instead of looking at them
    #[arg(long, requires = "baseline")]
    write_baseline: bool,
    /// Puts table and plots into this page, between its two marks
    #[arg(long)]
    page: Option<PathBuf>,
}

/// The command.
pub(crate) fn compare(options: &Options, state: &Path) -> Result<()> {
    let rows = options.rows();
    if options.list {
        rows.iter().for_each(|row| println!("{}", row.name));
        return Ok(());
    }
    let samples_file = options.out.join("samples.jsonl");
    // Kept beside the samples: the table may be made again elsewhere, and by another build.
    let made_on_file = options.out.join("made-on.txt");
    let samples = if options.again {
        sample::read(&samples_file)?
    } else {
        fs::create_dir_all(&options.out).with_context(|| options.out.display().to_string())?;
        fs::write(&made_on_file, table::machine(&options.path()?))?;
        options.measure(&rows, state, &samples_file)?
    };
    let made_on = fs::read_to_string(&made_on_file)
        .with_context(|| format!("{}: what the samples were taken on", made_on_file.display()))?;
    let text = table::text(&made_on, &rows, &samples);
    fs::write(options.out.join("table.md"), &text)?;
    let plots = plot::plots(&samples);
    for (name, svg) in &plots {
        fs::write(options.out.join(name), svg)?;
    }
    match &options.page {
        Some(page) => table::put_into(page, &text, &plots)?,
        None => println!("{text}"),
    }
    match &options.baseline {
        Some(file) if options.write_baseline => baseline::write(file, &rows, &samples),
        Some(file) => baseline::check(file, &rows, &samples),
        None => Ok(()),
    }
}

impl Options {
    fn rows(&self) -> Vec<Row> {
        let mut rows = if self.short { rows::short() } else { rows::all() };
        let is_chosen = |row: &Row| {
            self.rows.is_empty() || self.rows.iter().any(|name| row.name.starts_with(name))
        };
        rows.retain(is_chosen);
        rows
    }

    /// Measures each row with each program that is present, one after the other, several times.
    fn measure(&self, rows: &[Row], state: &Path, file: &Path) -> Result<Vec<Sample>> {
        fs::create_dir_all(state)?;
        let state = state.canonicalize()?;
        ensure!(is_plain(&state), "--state {}: not a path for scripts", state.display());
        carrier::make_certificate(&state)?;
        ssh::prepare(&state)?;
        let path = self.path()?;
        let bench = measure::Bench::new(state, path);
        stop::at_signals()?;
        let mut log = fs::File::create(file)?;
        let (mut samples, start) = (Vec::new(), Instant::now());
        for row in rows {
            let runs = self.runs.unwrap_or(if self.short { 3 } else { 5 }).min(row.runs_max);
            for run in 1..=runs {
                for peer in row.peers.iter().copied().filter(|peer| self.is_chosen(*peer)) {
                    let sample = bench.sample(row, peer, run);
                    // It may have failed just because of that.
                    stop::check()?;
                    eprintln!("{:5} s  {sample}", start.elapsed().as_secs());
                    writeln!(log, "{}", serde_json::to_string(&sample)?)?;
                    samples.push(sample);
                }
            }
        }
        Ok(samples)
    }

    fn is_chosen(&self, peer: Peer) -> bool {
        self.peers.is_empty() || self.peers.contains(&peer)
    }

    /// Where programs are looked for: beside this one first.
    fn path(&self) -> Result<Vec<PathBuf>> {
        let own = env::current_exe()?;
        let mut path = vec![own.parent().context("a program without a directory")?.to_owned()];
        path.extend(self.path.iter().cloned());
        path.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
        path.extend(["/usr/sbin", "/sbin"].map(PathBuf::from));
        Ok(path)
    }
}

/// Whether a path means itself in a command of a shell, in ssh's settings and in socat's addresses, all
/// of which it is written into.
fn is_plain(path: &Path) -> bool {
    let is_plain = |char: char| char.is_ascii_alphanumeric() || "/._-+@=~".contains(char);
    path.to_str().is_some_and(|path| path.chars().all(is_plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_scripts_or_settings_read_otherwise_is_not_plain() {
        assert!(is_plain(Path::new("/home/user/qpipe-0.1_x/target/bench/state")));
        for path in ["/a b", "/a%h", "/a\"b", "/a;b", "/$a", "/a,b", "/a:b", "/a\nb"] {
            assert!(!is_plain(Path::new(path)), "{path}");
        }
    }
}
