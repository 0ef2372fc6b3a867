//! Programs at their ends of pipes: they write, read, rest, and look at how it ends.

use std::time::Duration;

use qpipe_proto::{Cause, ReadOutcome, WriteOutcome};

use super::programs::Scene;
use crate::clock::Time;
use crate::content;
use crate::node::End;
use crate::oracle::{ReaderEnd, Violation, WriterEnd};
use crate::rng::Rng;
use crate::work::{Pace, PipePlan, WriteEnding};

/// What a program that is no longer there lingers until.
pub(super) const GONE: Time = Duration::MAX;

/// How long programs look at an end that is over, to see whether it changes.
const LINGER: Duration = Duration::from_millis(500);

/// A program at a read end.
pub(super) struct Reader {
    pub(super) host: usize,
    pub(super) end: End,
    pub(super) plan: PipePlan,
    pub(super) taken: u64,
    pub(super) wake: Time,
    pub(super) lingers: Option<Time>,
    pub(super) rng: Rng,
}

/// A program at a write end.
pub(super) struct Writer {
    pub(super) host: usize,
    pub(super) end: End,
    pub(super) plan: PipePlan,
    pub(super) written: u64,
    pub(super) has_ended: bool,
    pub(super) wake: Time,
    /// Until when it looks at its end again and again, once that is over.
    pub(super) lingers: Option<Time>,
    pub(super) rng: Rng,
}

impl Writer {
    /// Does what it can; whether that was something.
    pub(super) fn step(&mut self, scene: &mut Scene<'_>, seed: u64) -> Result<bool, Violation> {
        let number = self.plan.number;
        let (outcome, consumed) = scene.node.write_outcome(self.end);
        let end = outcome.map(|outcome| writer_end(outcome, number, scene));
        scene.oracle.writer_sees(number, end, consumed, scene.now)?;
        if let Some(end) = end {
            return Ok(self.linger(end, scene));
        }
        if self.wake > scene.now || self.has_ended {
            return Ok(false);
        }
        let left = self.plan.write.bytes - self.written;
        if left == 0 {
            return Ok(self.finish(scene));
        }
        let chunk = self.rng.within(1, self.plan.write.chunk as u64).min(left);
        let bytes = content::bytes(seed, number, self.written, chunk as usize);
        let taken = scene.node.write(self.end, &bytes, scene.now) as u64;
        if taken == 0 {
            return Ok(false);
        }
        scene.trace.note(scene.now, scene.host, "writes", number as u64, taken);
        scene.oracle.accepted(number, taken, scene.now)?;
        let half = self.plan.write.bytes / 2;
        let is_silent = self.written < half && self.written + taken >= half;
        self.written += taken;
        self.wake = rest(&self.plan.write.pace, &mut self.rng, scene.now, scene.is_calm);
        if is_silent && !scene.is_calm {
            self.wake += self.plan.write.silence;
        }
        Ok(true)
    }

    fn finish(&mut self, scene: &mut Scene<'_>) -> bool {
        let number = self.plan.number;
        let ending = self.plan.write.ending;
        self.has_ended = true;
        scene.trace.note(scene.now, scene.host, "ends", number as u64, ending as u64);
        match ending {
            WriteEnding::Close | WriteEnding::CloseAndGo => {
                scene.node.finish(self.end);
                scene.oracle.closed(number, scene.now);
            }
            WriteEnding::Abort | WriteEnding::Drop => {
                scene.node.abort(self.end, ending == WriteEnding::Drop);
                scene.oracle.aborted(number, scene.now);
            }
            WriteEnding::Stay => {}
        }
        if matches!(ending, WriteEnding::CloseAndGo | WriteEnding::Drop) {
            scene.node.release_writer(self.end);
            scene.oracle.writer_gone(number);
            self.lingers = Some(GONE);
        }
        true
    }

    fn linger(&mut self, end: WriterEnd, scene: &mut Scene<'_>) -> bool {
        match self.lingers {
            None => {
                let number = self.plan.number as u64;
                scene.trace.note(scene.now, scene.host, "writer is told", number, end as u64);
                self.lingers = Some(scene.now + LINGER);
                true
            }
            Some(until) if until <= scene.now => {
                scene.node.release_writer(self.end);
                scene.oracle.writer_gone(self.plan.number);
                self.lingers = Some(GONE);
                true
            }
            Some(_) => false,
        }
    }
}

impl Reader {
    /// Does what it can; whether that was something.
    pub(super) fn step(&mut self, scene: &mut Scene<'_>) -> Result<bool, Violation> {
        let number = self.plan.number;
        if self.lingers.is_none() && self.wake > scene.now {
            return Ok(false);
        }
        let leaves_at = self.plan.read.leaves_at.filter(|at| self.taken >= *at);
        if self.lingers.is_none() && leaves_at.is_some() {
            scene.trace.note(scene.now, scene.host, "leaves", number as u64, self.taken);
            scene.oracle.left(number, scene.now);
            self.go(scene);
            return Ok(true);
        }
        let most = self.rng.within(1, self.plan.read.chunk as u64);
        let most = self.plan.read.leaves_at.map_or(most, |at| most.min((at - self.taken).max(1)));
        if let Some(bytes) = scene.node.read(self.end, most as usize, scene.now) {
            scene.trace.note(scene.now, scene.host, "reads", number as u64, bytes.len() as u64);
            scene.oracle.delivered(number, &bytes, scene.now)?;
            self.taken += bytes.len() as u64;
            self.wake = rest(&self.plan.read.pace, &mut self.rng, scene.now, scene.is_calm);
            return Ok(true);
        }
        let outcome = scene.node.read_outcome(self.end, scene.now);
        let end = outcome.map(|outcome| reader_end(outcome, number, scene));
        self.see(end, scene)
    }

    fn see(&mut self, end: Option<ReaderEnd>, scene: &mut Scene<'_>) -> Result<bool, Violation> {
        let number = self.plan.number;
        scene.oracle.reader_sees(number, end, scene.now)?;
        match (end, self.lingers) {
            (None, _) => Ok(false),
            (Some(end), None) => {
                scene.trace.note(
                    scene.now,
                    scene.host,
                    "reader is told",
                    number as u64,
                    end as u64,
                );
                self.lingers = Some(scene.now + LINGER);
                Ok(true)
            }
            (Some(_), Some(until)) if until <= scene.now => {
                self.go(scene);
                Ok(true)
            }
            (Some(_), Some(_)) => Ok(false),
        }
    }

    fn go(&mut self, scene: &mut Scene<'_>) {
        scene.node.release_reader(self.end);
        scene.oracle.reader_gone(self.plan.number);
        self.lingers = Some(GONE);
    }
}

/// An open that was refused by no program: the rest of its group did not come in time.
fn is_incomplete(cause: Cause, scene: &Scene<'_>) -> bool {
    cause == Cause::Incomplete && scene.now <= scene.groups_until
}

fn writer_end(outcome: WriteOutcome, number: usize, scene: &mut Scene<'_>) -> WriterEnd {
    match outcome {
        WriteOutcome::Broken { .. } => WriterEnd::Broken,
        WriteOutcome::Complete { .. } => WriterEnd::Complete,
        WriteOutcome::Failed { cause, .. } => {
            scene.trace.say(scene.now, scene.host, format_args!("pipe {number} failed: {cause}"));
            WriterEnd::Failed
        }
        WriteOutcome::Refused(cause) => {
            if is_incomplete(cause, scene) {
                scene.oracle.refused(number, scene.now);
            }
            WriterEnd::Refused
        }
    }
}

fn reader_end(outcome: ReadOutcome, number: usize, scene: &mut Scene<'_>) -> ReaderEnd {
    match outcome {
        ReadOutcome::Aborted(cause) => {
            scene.trace.say(scene.now, scene.host, format_args!("pipe {number} aborted: {cause}"));
            ReaderEnd::Aborted
        }
        ReadOutcome::Closed(_) => ReaderEnd::Closed,
        ReadOutcome::Corrupt => ReaderEnd::Corrupt,
        ReadOutcome::Eof => ReaderEnd::Eof,
        ReadOutcome::Refused(cause) => {
            if is_incomplete(cause, scene) {
                scene.oracle.refused(number, scene.now);
            }
            ReaderEnd::Refused
        }
    }
}

/// When a program that is at its `pace` goes on.
fn rest(pace: &Pace, rng: &mut Rng, now: Time, is_calm: bool) -> Time {
    let rests = rng.chance(pace.part);
    let length = rng.below(pace.rest.as_micros() as u64 + 1);
    if rests && !is_calm { now + Duration::from_micros(length) } else { now }
}
