//! What must hold, whatever happens: the promises of a pipe, checked against what programs do and
//! see.
//!
//! It knows nothing of the product: it is told what was written, delivered and reported, in its own
//! words, and its sources are searched by a test for any mention of the product's crates.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::clock::Time;
use crate::content;

mod pairs;

/// How a writing program's end was over, as it was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriterEnd {
    /// The reader left.
    Broken,
    /// The reader consumed every byte.
    Complete,
    /// Another way.
    Failed,
    /// The open was refused.
    Refused,
}

/// How a reading program's end was over, as it was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReaderEnd {
    /// The writer aborted or is lost.
    Aborted,
    /// The reader left by itself.
    Closed,
    /// Length or checksum were wrong.
    Corrupt,
    /// Every byte came.
    Eof,
    /// The open was refused.
    Refused,
}

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Its number, such as `P3`.
    pub promise: &'static str,
    /// What was seen.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.promise, self.what)
    }
}

/// What a check gives.
pub type Checked = Result<(), Violation>;

/// One pipe, as its programs see it.
#[derive(Debug, Default)]
struct Pipe {
    /// Bytes taken from the writing program.
    accepted: u64,
    /// Bytes handed to the reading program.
    delivered: u64,
    is_closed: bool,
    is_aborted: bool,
    is_refused: bool,
    /// When the reader left.
    left: Option<Time>,
    /// Since when both ends' nodes could have lost each other for good: "lost" is legal then.
    is_excused: bool,
    writer: Option<WriterEnd>,
    reader: Option<ReaderEnd>,
    /// Nobody looks at this end any more.
    writer_gone: bool,
    reader_gone: bool,
    /// When it last moved.
    moved: Time,
}

/// The promises, and what was seen of each pipe.
#[derive(Debug)]
pub struct Oracle {
    seed: u64,
    pipes: BTreeMap<usize, Pipe>,
    /// Bytes that a pipe may hold between its programs.
    backlog_max: u64,
    /// Since when the faults have ended, and what to wait for a move at most.
    calm: Option<(Time, Duration)>,
    /// Since when nothing is in the way, and how soon an end is told then.
    prompt: Option<(Time, Duration)>,
}

impl Oracle {
    /// For pipes with at most `backlog_max` bytes between writer and reader.
    pub fn new(seed: u64, backlog_max: u64) -> Oracle {
        Oracle { seed, pipes: BTreeMap::new(), backlog_max, calm: None, prompt: None }
    }

    /// A pipe begins, with nobody at either end yet.
    pub fn open(&mut self, pipe: usize, now: Time) {
        let nobody = Pipe { writer_gone: true, reader_gone: true, ..Pipe::default() };
        self.pipes.insert(pipe, Pipe { moved: now, ..nobody });
    }

    /// A program has the write end from now on.
    pub fn writer_comes(&mut self, pipe: usize) {
        self.pipe(pipe).writer_gone = false;
    }

    /// A program has the read end from now on.
    pub fn reader_comes(&mut self, pipe: usize) {
        self.pipe(pipe).reader_gone = false;
    }

    /// The faults have ended: every pipe moves or ends within `patience`.
    pub fn calm(&mut self, now: Time, patience: Duration) {
        self.calm = Some((now, patience));
    }

    /// From `since` on nothing is in the way: a reader's end is told to its writer `within` so long.
    pub fn prompt(&mut self, since: Time, within: Duration) {
        self.prompt = Some((since, within));
    }

    /// `length` bytes were taken from the writing program.
    pub fn accepted(&mut self, pipe: usize, length: u64, now: Time) -> Checked {
        let backlog_max = self.backlog_max;
        let pipe = self.pipe(pipe);
        pipe.accepted += length;
        pipe.moved = now;
        let backlog = pipe.accepted - pipe.delivered;
        if pipe.left.is_none() && backlog > backlog_max {
            return broken("P8", format!("{backlog} bytes are between the programs"));
        }
        if pipe.is_closed || pipe.is_aborted || pipe.writer.is_some() {
            return broken("P6", "a write was taken after the end".to_owned());
        }
        Ok(())
    }

    /// `bytes` were handed to the reading program, which had had all before them.
    pub fn delivered(&mut self, number: usize, bytes: &[u8], now: Time) -> Checked {
        let seed = self.seed;
        let pipe = self.pipe(number);
        let offset = pipe.delivered;
        if let Some(at) = content::difference(seed, number, offset, bytes) {
            return broken("P2", format!("pipe {number}: byte {at} is another one"));
        }
        pipe.delivered += bytes.len() as u64;
        pipe.moved = now;
        if pipe.delivered > pipe.accepted {
            return broken("P1", format!("pipe {number}: more came out than went in"));
        }
        if pipe.reader.is_some() {
            return broken("P5", format!("pipe {number}: bytes after its end"));
        }
        Ok(())
    }

    /// The writing program closed the pipe.
    pub fn closed(&mut self, pipe: usize, now: Time) {
        let pipe = self.pipe(pipe);
        (pipe.is_closed, pipe.moved) = (true, now);
    }

    /// The writing program ended without closing the pipe.
    pub fn aborted(&mut self, pipe: usize, now: Time) {
        let pipe = self.pipe(pipe);
        (pipe.is_aborted, pipe.moved) = (true, now);
    }

    /// The program that was asked refused the pipe.
    pub fn refused(&mut self, pipe: usize, now: Time) {
        let pipe = self.pipe(pipe);
        (pipe.is_refused, pipe.moved) = (true, now);
    }

    /// The reading program left, or was never there.
    pub fn left(&mut self, pipe: usize, now: Time) {
        let pipe = self.pipe(pipe);
        pipe.left.get_or_insert(now);
        pipe.moved = now;
    }

    /// The ends of this pipe may never hear of each other again: a node died or gave up.
    pub fn excuse(&mut self, pipe: usize) {
        self.pipe(pipe).is_excused = true;
    }

    /// Every pipe that exists is excused: a node died.
    pub fn excuse_all(&mut self) {
        self.pipes.values_mut().for_each(|pipe| pipe.is_excused = true);
    }

    /// Nobody looks at the write end any more.
    pub fn writer_gone(&mut self, pipe: usize) {
        self.pipe(pipe).writer_gone = true;
    }

    /// Nobody looks at the read end any more.
    pub fn reader_gone(&mut self, pipe: usize) {
        self.pipe(pipe).reader_gone = true;
    }

    /// What the write end says now, of which `consumed` bytes were consumed.
    pub fn writer_sees(
        &mut self,
        number: usize,
        end: Option<WriterEnd>,
        consumed: u64,
        now: Time,
    ) -> Checked {
        let prompt = self.prompt;
        let pipe = self.pipe(number);
        if consumed > pipe.delivered {
            let (delivered, what) = (pipe.delivered, "were told to be consumed");
            return broken("P4", format!("pipe {number}: {consumed} of {delivered} {what}"));
        }
        if let (Some(left), None, Some((since, within))) = (pipe.left, end, prompt)
            && !pipe.is_excused
            && now > left.max(since) + within
        {
            return broken("P17", format!("pipe {number}: the writer was not told in time"));
        }
        match (pipe.writer, end) {
            (None, None) => return Ok(()),
            (Some(before), after) if after != Some(before) => {
                return broken("P6", format!("pipe {number}: writer: {before:?}, then {after:?}"));
            }
            (Some(_), _) => return Ok(()),
            (None, Some(end)) => (pipe.writer, pipe.moved) = (Some(end), now),
        }
        pairs::writer(number, pipe)?;
        pairs::both(number, pipe)
    }

    /// What the read end says now, every byte that came having been handed over.
    pub fn reader_sees(&mut self, number: usize, end: Option<ReaderEnd>, now: Time) -> Checked {
        let pipe = self.pipe(number);
        match (pipe.reader, end) {
            (None, None) => return Ok(()),
            (Some(before), after) if after != Some(before) => {
                return broken("P5", format!("pipe {number}: reader: {before:?}, then {after:?}"));
            }
            (Some(_), _) => return Ok(()),
            (None, Some(end)) => (pipe.reader, pipe.moved) = (Some(end), now),
        }
        pairs::reader(number, pipe)?;
        pairs::both(number, pipe)
    }

    /// Time passes: once the faults have ended, every pipe moves.
    pub fn look(&self, now: Time) -> Checked {
        let Some((since, patience)) = self.calm else { return Ok(()) };
        for (number, pipe) in &self.pipes {
            let idle = now.saturating_sub(pipe.moved.max(since));
            if !pipe.is_over() && idle > patience {
                let (writer, reader) = (pipe.writer, pipe.reader);
                let (delivered, accepted) = (pipe.delivered, pipe.accepted);
                let what = format!(
                    "pipe {number}: nothing for {idle:?}; {delivered} of {accepted} bytes, \
                     writer {writer:?}, reader {reader:?}"
                );
                return broken("P16", what);
            }
        }
        Ok(())
    }

    /// Whether both ends of every pipe are over.
    pub fn is_over(&self) -> bool {
        self.pipes.values().all(Pipe::is_over)
    }

    /// A node that has no pipes holds `committed` bytes of its memory for pipes.
    pub fn idle(&self, host: usize, committed: u64) -> Checked {
        if committed > 0 {
            return broken("P9", format!("host {host}: {committed} bytes were never given back"));
        }
        Ok(())
    }

    /// A node holds `committed` bytes of the `budget` that it was given.
    pub fn holds(&self, host: usize, committed: u64, budget: u64) -> Checked {
        if committed > budget {
            return broken("P8", format!("host {host}: {committed} bytes held of {budget}"));
        }
        Ok(())
    }

    fn pipe(&mut self, pipe: usize) -> &mut Pipe {
        self.pipes.entry(pipe).or_default()
    }
}

impl Pipe {
    fn is_over(&self) -> bool {
        (self.writer.is_some() || self.writer_gone) && (self.reader.is_some() || self.reader_gone)
    }
}

fn broken(promise: &'static str, what: String) -> Checked {
    Err(Violation { promise, what })
}

#[cfg(test)]
mod tests;
