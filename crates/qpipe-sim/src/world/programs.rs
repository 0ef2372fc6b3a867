//! The programs of both hosts: they open, answer, write, read and leave as the plan says.

use std::time::Duration;

use super::ends::{GONE, Reader, Writer};
use crate::clock::Time;
use crate::node::{End, Node, OpenFailure};
use crate::oracle::{Oracle, Violation};
use crate::rng::Rng;
use crate::trace::Trace;
use crate::work::{Job, PipePlan};

/// The programs of a run.
pub(super) struct Programs {
    seed_of_content: u64,
    jobs: Vec<Opening>,
    answers: Vec<Answering>,
    writers: Vec<Writer>,
    readers: Vec<Reader>,
    is_calm: bool,
    calm_since: Time,
    delivered: u64,
}

struct Opening {
    job: Job,
    at: Time,
    is_open: bool,
}

struct Answering {
    host: usize,
    at: Time,
    job: usize,
    ends: Vec<(End, bool)>,
}

/// A program that found no memory tries again after so long.
const AGAIN: Duration = Duration::from_millis(250);

/// An incomplete group is refused after ten seconds, and its opener hears of it a little later.
const GROUPS_LAST: Duration = Duration::from_secs(20);

/// What programs work with.
pub(super) struct Scene<'a> {
    pub(super) host: usize,
    pub(super) node: &'a mut Node,
    pub(super) oracle: &'a mut Oracle,
    pub(super) trace: &'a mut Trace,
    pub(super) now: Time,
    pub(super) is_calm: bool,
    /// A group whose members were heard of before the faults ended may be refused until then.
    pub(super) groups_until: Time,
}

impl Programs {
    pub(super) fn new(seed: u64, jobs: &[Job]) -> Programs {
        let opening = |job: &Job| Opening { at: job.at, job: job.clone(), is_open: false };
        Programs {
            seed_of_content: seed,
            jobs: jobs.iter().map(opening).collect(),
            answers: Vec::new(),
            writers: Vec::new(),
            readers: Vec::new(),
            is_calm: false,
            calm_since: Duration::MAX,
            delivered: 0,
        }
    }

    /// Bytes that reading programs were handed.
    pub(super) fn delivered(&self) -> u64 {
        self.delivered
    }

    /// Whether nobody has anything to do any more.
    pub(super) fn is_done(&self) -> bool {
        self.jobs.iter().all(|job| job.is_open)
            && self.answers.is_empty()
            && self.writers.is_empty()
            && self.readers.is_empty()
    }

    /// Whether every open was made and answered.
    pub(super) fn is_open(&self) -> bool {
        self.jobs.iter().all(|job| job.is_open) && self.answers.is_empty()
    }

    /// Nobody rests any more.
    pub(super) fn calm(&mut self, now: Time) {
        self.is_calm = true;
        self.calm_since = now;
        self.jobs.iter_mut().for_each(|job| job.at = job.at.min(now));
        self.answers.iter_mut().for_each(|answer| answer.at = answer.at.min(now));
        self.writers.iter_mut().for_each(|writer| writer.wake = writer.wake.min(now));
        self.readers.iter_mut().for_each(|reader| reader.wake = reader.wake.min(now));
    }

    /// A host's programs die with it.
    pub(super) fn die(&mut self, host: usize, oracle: &mut Oracle) {
        self.answers.retain(|answer| answer.host != host);
        self.writers.retain(|writer| {
            if writer.host == host {
                oracle.writer_gone(writer.plan.number);
            }
            writer.host != host
        });
        self.readers.retain(|reader| {
            if reader.host == host {
                oracle.reader_gone(reader.plan.number);
            }
            reader.host != host
        });
    }

    /// When a program of `host` wakes next, after `now`.
    pub(super) fn wake(&self, host: usize, now: Time) -> Option<Time> {
        let jobs = self.jobs.iter().filter(|job| !job.is_open && job.job.opener == host);
        let answers = self.answers.iter().filter(|answer| answer.host == host);
        let writers = self.writers.iter().filter(|writer| writer.host == host);
        let readers = self.readers.iter().filter(|reader| reader.host == host);
        let all = jobs
            .map(|job| job.at)
            .chain(answers.map(|answer| answer.at))
            .chain(writers.map(|writer| writer.lingers.unwrap_or(writer.wake)))
            .chain(readers.map(|reader| reader.lingers.unwrap_or(reader.wake)));
        all.filter(|at| *at > now).min()
    }

    /// Lets the programs of `host` do what they can; whether they did something.
    ///
    /// # Errors
    /// A promise was broken.
    pub(super) fn step(
        &mut self,
        host: usize,
        node: &mut Node,
        other: Option<&Node>,
        oracle: &mut Oracle,
        trace: &mut Trace,
        now: Time,
    ) -> Result<bool, Violation> {
        let is_calm = self.is_calm;
        let groups_until = self.calm_since.saturating_add(GROUPS_LAST);
        let scene = &mut Scene { host, node, oracle, trace, now, is_calm, groups_until };
        let mut worked = self.hear_opens(scene)?;
        worked |= self.answer(scene);
        worked |= self.open(scene, other);
        let seed = self.seed_of_content;
        for writer in self.writers.iter_mut().filter(|writer| writer.host == host) {
            worked |= writer.step(scene, seed)?;
        }
        for reader in self.readers.iter_mut().filter(|reader| reader.host == host) {
            let before = reader.taken;
            worked |= reader.step(scene)?;
            self.delivered += reader.taken - before;
        }
        self.writers.retain(|writer| writer.lingers != Some(GONE));
        self.readers.retain(|reader| reader.lingers != Some(GONE));
        Ok(worked)
    }

    fn open(&mut self, scene: &mut Scene<'_>, other: Option<&Node>) -> bool {
        let mut worked = false;
        let mut opened = Vec::new();
        for (number, opening) in self.jobs.iter_mut().enumerate() {
            let is_due = !opening.is_open && opening.at <= scene.now;
            if !is_due || opening.job.opener != scene.host {
                continue;
            }
            let pipes = &opening.job.pipes;
            let writes: Vec<bool> = pipes.iter().map(|pipe| pipe.writer == scene.host).collect();
            match scene.node.open(&format!("job{number}"), &writes, scene.now) {
                Ok(ends) => {
                    opening.is_open = true;
                    worked = true;
                    scene.trace.note(scene.now, scene.host, "opens", number as u64, 0);
                    for (end, pipe) in ends.into_iter().zip(pipes) {
                        scene.oracle.open(pipe.number, scene.now);
                        // The peer forgot the session, and this node has not heard of it.
                        if !other.is_some_and(|other| other.shares(end)) {
                            scene.oracle.excuse(pipe.number);
                        }
                        opened.push((end, pipe.clone()));
                    }
                }
                Err(OpenFailure::Later) => {
                    // A session may come to be: then it is driven, and this is tried again.
                }
                Err(OpenFailure::Busy) => opening.at = scene.now + AGAIN,
            }
        }
        for (end, pipe) in opened {
            self.attach(scene, end, pipe);
        }
        worked
    }

    fn hear_opens(&mut self, scene: &mut Scene<'_>) -> Result<bool, Violation> {
        let mut worked = false;
        while let Some((name, ends)) = scene.node.next_incoming() {
            worked = true;
            let number = name.strip_prefix("job").and_then(|number| number.parse::<usize>().ok());
            let job = number.and_then(|number| self.jobs.get(number).map(|job| (number, job)));
            let fits = job.is_some_and(|(_, job)| {
                let writes = job.job.pipes.iter().map(|pipe| pipe.writer == scene.host);
                job.is_open && ends.iter().map(|(_, writes)| *writes).eq(writes)
            });
            let Some((number, opening)) = job.filter(|_| fits) else {
                let what = format!("an open that nobody made: {name:?}");
                return Err(Violation { promise: "P2", what });
            };
            let after = if scene.is_calm { Duration::ZERO } else { opening.job.answer.after };
            scene.trace.note(scene.now, scene.host, "is asked", number as u64, 0);
            let at = scene.now + after;
            self.answers.push(Answering { host: scene.host, at, job: number, ends });
        }
        Ok(worked)
    }

    fn answer(&mut self, scene: &mut Scene<'_>) -> bool {
        let is_due = |answer: &Answering| answer.host == scene.host && answer.at <= scene.now;
        let (due, rest) = std::mem::take(&mut self.answers).into_iter().partition(is_due);
        self.answers = rest;
        let due: Vec<Answering> = due;
        let worked = !due.is_empty();
        for answer in due {
            let job = self.jobs[answer.job].job.clone();
            let ends: Vec<End> = answer.ends.iter().map(|(end, _)| *end).collect();
            let accepts = job.answer.accepts;
            scene.trace.note(scene.now, scene.host, "answers", answer.job as u64, accepts.into());
            if accepts && scene.node.accept(&ends, scene.now) {
                for (end, pipe) in ends.into_iter().zip(job.pipes) {
                    self.attach(scene, end, pipe);
                }
                continue;
            }
            if !accepts {
                scene.node.refuse(&ends);
            }
            for pipe in &job.pipes {
                scene.oracle.refused(pipe.number, scene.now);
            }
        }
        worked
    }

    fn attach(&mut self, scene: &mut Scene<'_>, end: End, plan: PipePlan) {
        let (host, wake, lingers) = (scene.host, scene.now, None);
        let seed = self.seed_of_content ^ plan.number as u64;
        if plan.writer == host {
            scene.oracle.writer_comes(plan.number);
            let rng = Rng::new(seed, "writer");
            let (written, has_ended) = (0, false);
            self.writers.push(Writer { host, end, plan, written, has_ended, wake, lingers, rng });
        } else {
            scene.oracle.reader_comes(plan.number);
            let rng = Rng::new(seed, "reader");
            self.readers.push(Reader { host, end, plan, taken: 0, wake, lingers, rng });
        }
    }
}
