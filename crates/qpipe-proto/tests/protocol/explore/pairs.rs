//! The pairs of endings that a search reached, and the table of them in the specification.

use std::collections::BTreeSet;

use qpipe_proto::cause::Cause;
use qpipe_proto::{ReadOutcome, WriteOutcome};

use crate::world::{Record, World};

/// What the writer and the reader saw, in the words of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Pair(&'static str, &'static str);

impl Pair {
    pub(super) fn of(world: &World, pipe: &Record) -> Pair {
        let had_end = [pipe.opener == pipe.writer || pipe.is_accepted, pipe.may_read()];
        let nodes = [pipe.writer, 1 - pipe.writer].map(|node| &world.nodes[node]);
        let nobody = [0, 1].map(|end| {
            if nodes[end].is_crashed && had_end[end] { "crashed" } else { "never there" }
        });
        let writer = match pipe.write_outcome {
            Some(WriteOutcome::Broken { .. }) => "broken",
            Some(WriteOutcome::Complete { .. }) => "complete",
            Some(WriteOutcome::Failed { cause: Cause::Corrupt, .. }) => "failed: corrupt",
            Some(WriteOutcome::Failed { cause: Cause::Lost, .. }) => "failed: lost",
            Some(WriteOutcome::Failed { cause: Cause::Stopping, .. }) => "failed: stopping",
            Some(WriteOutcome::Failed { cause: Cause::WriterDropped, .. }) => {
                "failed: its own abort"
            }
            Some(WriteOutcome::Failed { cause, .. }) => panic!("the writer failed: {cause}"),
            Some(WriteOutcome::Refused(_)) => "refused",
            None => nobody[0],
        };
        let reader = match pipe.read_outcome {
            Some(ReadOutcome::Aborted(Cause::Lost)) => "aborted: lost",
            Some(ReadOutcome::Aborted(Cause::Stopping)) => "aborted: stopping",
            Some(ReadOutcome::Aborted(Cause::WriterDropped)) => "aborted by the writer",
            Some(ReadOutcome::Aborted(cause)) => panic!("aborted: {cause}"),
            Some(ReadOutcome::Closed(_)) => "closed by itself",
            Some(ReadOutcome::Corrupt) => "corrupt",
            Some(ReadOutcome::Eof) => "EOF",
            Some(ReadOutcome::Refused(_)) => "refused",
            None => nobody[1],
        };
        Pair(writer, reader)
    }
}

/// Every pair that was reached is in the table, and every pair of the table was reached.
pub(super) fn compare(reached: &BTreeSet<Pair>) {
    let reached: BTreeSet<(String, String)> = reached
        .iter()
        .map(|Pair(writer, reader)| (writer.to_string(), reader.to_string()))
        .collect();
    let listed = table(include_str!("../../../../../docs/protocol.md"));
    let missing: Vec<_> = reached.difference(&listed).collect();
    let unreached: Vec<_> = listed.difference(&reached).collect();
    assert!(missing.is_empty(), "pairs that the specification does not list: {missing:#?}");
    assert!(unreached.is_empty(), "pairs that it lists and that were not reached: {unreached:#?}");
}

/// The pairs of the table under "Pairs of endings": each cell that is not "no".
fn table(text: &str) -> BTreeSet<(String, String)> {
    let section = text.split("### Pairs of endings").nth(1).expect("the section");
    let lines = section.lines().skip_while(|line| !line.starts_with('|'));
    let rows: Vec<Vec<String>> = lines
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect())
        .collect();
    let mut pairs = BTreeSet::new();
    for row in &rows[2..] {
        for (reader, cell) in rows[0].iter().zip(row).skip(1) {
            if cell != "no" {
                pairs.insert((row[0].clone(), reader.clone()));
            }
        }
    }
    pairs
}
