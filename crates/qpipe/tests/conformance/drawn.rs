//! Random sequences of operations, on a kernel pipe and on qpipe: both ends observe the same.

use std::cell::LazyCell;
use std::io::ErrorKind;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use qpipe_proto::limits::START_WINDOW_BYTES;

use crate::differences::{DIFFERENCES, Ending, Kind};
use crate::ends::{ReadEnd, WriteEnd, fill, read_exact, read_to_end, write_all};
use crate::pair::pattern;
use crate::sides::{Kernel, OpenedByReader, OpenedByWriter, Pipes};

/// Bytes that both keep for a reader that does not read, whatever the sizes of the writes: the
/// kernel spends a page on each piece that does not fit behind the one before.
const SURE_BYTES: usize = 32 * 1024;

#[derive(Clone, Debug)]
enum Step {
    Write(usize),
    /// Of whole pages, so that the kernel's capacity is the same in bytes.
    WritePages(usize),
    TryWrite(usize),
    Fill,
    Read(usize),
    /// A read when nothing is there.
    TryRead,
    CloseWriter,
    KillWriter,
    DropReader,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Wrote(usize),
    Filled(usize),
    WouldBlock,
    BrokenPipe,
    Got(Vec<u8>),
    End(Ending),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1usize..9000).prop_map(Step::Write),
        3 => (1usize..4).prop_map(Step::WritePages),
        2 => (1usize..4097).prop_map(Step::TryWrite),
        1 => Just(Step::Fill),
        6 => (1usize..20_000).prop_map(Step::Read),
        1 => Just(Step::TryRead),
        1 => Just(Step::CloseWriter),
        1 => Just(Step::KillWriter),
        1 => Just(Step::DropReader),
    ]
}

/// One pipe that a sequence of steps is played on.
struct Play<W, R> {
    kind: Kind,
    writer: Option<W>,
    reader: Option<R>,
    written: usize,
    read: usize,
    is_paged: bool,
    closing: Vec<std::thread::JoinHandle<()>>,
    seen: Vec<Seen>,
}

impl<W: WriteEnd, R: ReadEnd> Play<W, R> {
    fn play(kind: Kind, (writer, reader): (W, R), steps: &[Step]) -> Vec<Seen> {
        let mut play = Play {
            kind,
            writer: Some(writer),
            reader: Some(reader),
            written: 0,
            read: 0,
            is_paged: true,
            closing: Vec::new(),
            seen: Vec::new(),
        };
        steps.iter().for_each(|step| play.step(step));
        // Whatever was left open is ended, so that both ends are seen to their end.
        play.step(&Step::CloseWriter);
        play.step(&Step::Read(usize::MAX));
        play.step(&Step::DropReader);
        play.closing.into_iter().for_each(|thread| thread.join().unwrap());
        play.seen
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Write(n) => self.write(*n),
            Step::WritePages(n) => self.write(4096 * n),
            Step::TryWrite(n) => self.try_write(*n),
            Step::Fill => self.fill(),
            Step::Read(n) => self.read(*n),
            Step::TryRead => self.try_read(),
            Step::CloseWriter => self.close(),
            Step::KillWriter => {
                if let Some(writer) = self.writer.take() {
                    writer.die();
                    self.expect(DIFFERENCES.writer_dies.of(self.kind));
                }
            }
            Step::DropReader => {
                self.reader = None;
                if let Some(writer) = &mut self.writer {
                    writer.hear_of_break();
                }
            }
        }
    }

    /// Notes what the writer's end is to be for its reader, in the kernel's words.
    fn expect(&mut self, ending: Ending) {
        if let Some(reader) = &mut self.reader {
            let (rest, seen) = read_to_end(reader);
            assert_eq!(seen, ending);
            self.read += rest.len();
            self.seen.extend([Seen::Got(rest), Seen::End(Ending::Eof)]);
        }
    }

    fn write(&mut self, n: usize) {
        let held = self.written - self.read;
        let Some(writer) = &mut self.writer else { return };
        let is_broken = self.reader.is_none();
        // What does not surely fit would wait for a reader that is this thread.
        if !is_broken && (held + n > SURE_BYTES || !self.is_paged && held > 0) {
            return;
        }
        match write_all(writer, &pattern(1, self.written as u64, n)) {
            Ok(()) => {
                self.written += n;
                self.is_paged &= n.is_multiple_of(4096);
                self.seen.push(Seen::Wrote(n));
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::BrokenPipe);
                self.seen.push(Seen::BrokenPipe);
            }
        }
    }

    /// Up to PIPE_BUF bytes: whole or not at all.
    fn try_write(&mut self, n: usize) {
        let held = self.written - self.read;
        let Some(writer) = &mut self.writer else { return };
        // Beyond the first window there is room only once the news of what was read has come.
        let is_sure = held <= SURE_BYTES && self.written + n <= START_WINDOW_BYTES as usize;
        if self.reader.is_some() && !is_sure {
            return;
        }
        match writer.try_write(&pattern(1, self.written as u64, n)) {
            Ok(taken) => {
                self.written += taken;
                self.is_paged = false;
                self.seen.push(Seen::Wrote(taken));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => self.seen.push(Seen::WouldBlock),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::BrokenPipe);
                self.seen.push(Seen::BrokenPipe);
            }
        }
    }

    /// Fills a pipe of which nothing was read yet: from then on capacities differ, because
    /// qpipe's grow.
    fn fill(&mut self) {
        let Some(writer) = &mut self.writer else { return };
        if !self.is_paged || self.read > 0 || self.reader.is_none() {
            return;
        }
        let from = self.written as u64;
        let filled = fill(writer, &[0xee; 4096]);
        self.seen.push(Seen::Filled(filled));
        self.seen.push(match writer.try_write(b"x") {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Seen::WouldBlock,
            other => panic!("a full pipe took more: {other:?}"),
        });
        // Emptied at once, so that later steps need not know of it.
        let reader = self.reader.as_mut().unwrap();
        let held = from as usize - self.read;
        self.seen.push(Seen::Got(read_exact(reader, held)));
        assert!(read_exact(reader, filled) == vec![0xee; filled]);
        self.written += filled;
        self.read = self.written;
    }

    fn read(&mut self, n: usize) {
        let held = self.written - self.read;
        let Some(reader) = &mut self.reader else { return };
        let n = n.min(held);
        let got = read_exact(reader, n);
        self.read += n;
        self.seen.push(Seen::Got(got));
        if self.read == self.written {
            self.is_paged = self.written.is_multiple_of(4096);
        }
    }

    fn try_read(&mut self) {
        let Some(reader) = &mut self.reader else { return };
        if self.read < self.written || self.writer.is_none() {
            return;
        }
        let error = reader.try_read(&mut [0; 10]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        self.seen.push(Seen::WouldBlock);
    }

    fn close(&mut self) {
        let Some(writer) = self.writer.take() else { return };
        let leaves_bytes = self.reader.is_none();
        let tells = DIFFERENCES.close_tells_of_break.of(self.kind);
        self.closing.push(std::thread::spawn(move || {
            let closed = writer.close();
            assert_eq!(closed.is_err(), leaves_bytes && tells, "{closed:?}");
        }));
        self.expect(Ending::Eof);
    }
}

fn compare<P: Pipes>() {
    let pipes = LazyCell::new(P::new);
    let mut runner =
        TestRunner::new(Config { failure_persistence: None, ..Config::with_cases(150) });
    runner
        .run(&proptest::collection::vec(step(), 1..25), |steps| {
            let oracle = Play::play(Kind::Kernel, Kernel.open(), &steps);
            let ours = Play::play(P::KIND, pipes.open(), &steps);
            prop_assert!(oracle == ours, "kernel: {oracle:.200?}\n qpipe: {ours:.200?}");
            Ok(())
        })
        .unwrap();
}

#[test]
fn random_operations_look_the_same_as_on_a_kernel_pipe() {
    compare::<OpenedByWriter>();
}

#[test]
fn random_operations_on_a_pipe_that_its_reader_opened_look_the_same_as_on_a_kernel_pipe() {
    compare::<OpenedByReader>();
}
