//! Cases for all pipes.

use std::io::{self, ErrorKind};

use crate::differences::{DIFFERENCES, Ending};
use crate::ends::{ReadEnd, WriteEnd, fill, read_exact, read_to_end, write_all};
use crate::hosts::has_time;
use crate::pair::pattern;
use crate::sides::{Pipes, Sleeper};

const MIB: usize = 1 << 20;

/// Writes all of `bytes` and closes, in a thread of its own.
fn write_and_close(mut writer: impl WriteEnd, bytes: Vec<u8>) -> Sleeper<()> {
    Sleeper::spawn(move || {
        write_all(&mut writer, &bytes).unwrap();
        writer.close().unwrap();
    })
}

pub(crate) fn c1_every_byte_then_eof_then_eof_again<P: Pipes>(pipes: &P) {
    let (writer, mut reader) = pipes.open();
    let writing = write_and_close(writer, pattern(1, 0, MIB));
    assert!(read_to_end(&mut reader) == (pattern(1, 0, MIB), Ending::Eof));
    assert_eq!(reader.read(&mut [0; 10]).unwrap(), 0);
    assert_eq!(reader.read(&mut [0; 10]).unwrap(), 0);
    writing.join();
}

pub(crate) fn c2_a_writer_that_dies_leaves_its_bytes<P: Pipes>(pipes: &P) {
    let (mut writer, mut reader) = pipes.open();
    write_all(&mut writer, b"partial").unwrap();
    writer.die();
    let ending = DIFFERENCES.writer_dies.of(P::KIND);
    assert_eq!(read_to_end(&mut reader), (b"partial".to_vec(), ending));
    // An end is for good.
    assert_eq!(read_to_end(&mut reader), (Vec::new(), ending));
}

pub(crate) fn c3_nothing_written_is_eof<P: Pipes>(pipes: &P) {
    let (writer, mut reader) = pipes.open();
    let writing = write_and_close(writer, Vec::new());
    assert_eq!(read_to_end(&mut reader), (Vec::new(), Ending::Eof));
    writing.join();
}

/// Writes until EPIPE; how much was taken before.
fn until_epipe(writer: &mut impl WriteEnd) -> usize {
    let mut accepted = 0;
    loop {
        match writer.write(&[9; 512]) {
            Ok(n) => accepted += n,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::BrokenPipe);
                return accepted;
            }
        }
    }
}

pub(crate) fn c5_a_reader_that_left_is_epipe<P: Pipes>(pipes: &P) {
    let (mut writer, reader) = pipes.open();
    drop(reader);
    let accepted = until_epipe(&mut writer);
    assert!(accepted <= DIFFERENCES.accepted_after_break.of(P::KIND), "{accepted}");
    assert_eq!(until_epipe(&mut writer), 0);
    assert_eq!(writer.close().is_err(), DIFFERENCES.close_tells_of_break.of(P::KIND));
}

pub(crate) fn c6_an_idle_writer_hears_that_its_reader_left<P: Pipes>(pipes: &P) {
    let (mut writer, mut reader) = pipes.open();
    write_all(&mut writer, b"hello").unwrap();
    read_exact(&mut reader, 5);
    let listening = Sleeper::spawn(move || {
        writer.hear_of_break();
        writer
    });
    let listening = listening.until_asleep();
    drop(reader);
    // Having heard it, even the first write fails.
    assert_eq!(until_epipe(&mut listening.join()), 0);
}

pub(crate) fn c7_a_blocked_writer_hears_that_its_reader_left<P: Pipes>(pipes: &P) {
    let (mut writer, mut reader) = pipes.open();
    let writing = Sleeper::spawn(move || write_all(&mut writer, &pattern(7, 0, 10 * MIB)));
    assert!(read_exact(&mut reader, 1000) == pattern(7, 0, 1000));
    let writing = writing.until_asleep();
    drop(reader);
    assert_eq!(writing.join().unwrap_err().kind(), ErrorKind::BrokenPipe);
}

pub(crate) fn c8_a_reader_that_leaves_early_cuts_a_large_write<P: Pipes>(pipes: &P) {
    let (mut writer, mut reader) = pipes.open();
    let length = 200_000 + DIFFERENCES.capacity.of(P::KIND).end();
    let writing = Sleeper::spawn(move || {
        let (content, mut accepted) = (pattern(8, 0, length), 0);
        while accepted < length {
            match writer.write(&content[accepted..]) {
                Ok(n) => accepted += n,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
                    break;
                }
            }
        }
        assert_eq!(until_epipe(&mut writer), 0);
        accepted
    });
    assert!(read_exact(&mut reader, 1000) == pattern(8, 0, 1000));
    drop(reader);
    let accepted = writing.join();
    assert!((1000..length).contains(&accepted), "{accepted}");
}

/// How a transfer is cut into calls.
#[derive(Clone, Copy)]
struct Calls {
    write: usize,
    read: usize,
    /// Otherwise each call is tried without blocking first.
    blocks_writing: bool,
    blocks_reading: bool,
}

pub(crate) fn c13_all_sizes_and_modes_of_blocking<P: Pipes>(pipes: &P) {
    for write in [1, 513, 4095, 4096, 4097, 70_000] {
        for read in [1, 100, 4096, 5000, 100_000] {
            // Byte by byte would only be slow.
            let most = if read == 1 { 4096 } else { 150_000 };
            let length = (20 * write.min(read)).max(write).min(most);
            for mode in 0..4 {
                let (blocks_writing, blocks_reading) = (mode & 1 == 0, mode & 2 == 0);
                let calls = Calls { write, read, blocks_writing, blocks_reading };
                let (writer, reader) = pipes.open();
                transfer(writer, reader, calls, length);
            }
        }
    }
}

fn transfer(mut writer: impl WriteEnd, mut reader: impl ReadEnd, calls: Calls, length: usize) {
    let seed = (calls.write * 7 + calls.read) as u64;
    let writing = Sleeper::spawn(move || {
        let (content, mut done) = (pattern(seed, 0, length), 0);
        while done < length {
            let piece = &content[done..length.min(done + calls.write)];
            let tried = match calls.blocks_writing {
                true => writer.write(piece),
                false => or_block(writer.try_write(piece), || writer.write(piece)),
            };
            let n = tried.unwrap();
            assert!(piece.len() > 4096 || n == piece.len(), "PIPE_BUF bytes go in whole");
            done += n;
        }
        writer.close().unwrap();
    });
    let (mut got, mut buffer) = (Vec::new(), vec![0; calls.read]);
    loop {
        let n = match calls.blocks_reading {
            true => reader.read(&mut buffer),
            false => or_block(reader.try_read(&mut buffer), || reader.read(&mut buffer)),
        };
        match n.unwrap() {
            0 => break,
            n => got.extend_from_slice(&buffer[..n]),
        }
    }
    assert!(got == pattern(seed, 0, length));
    writing.join();
}

/// What was tried without blocking, or else the call that blocks.
fn or_block(
    tried: io::Result<usize>,
    block: impl FnOnce() -> io::Result<usize>,
) -> io::Result<usize> {
    match tried {
        Err(error) if error.kind() == ErrorKind::WouldBlock => block(),
        other => other,
    }
}

pub(crate) fn c14_a_writer_without_a_reader_would_block_after_the_capacity<P: Pipes>(pipes: &P) {
    let (mut writer, mut reader) = pipes.open();
    let filled = fill(&mut writer, &[5; 4096]);
    assert!(DIFFERENCES.capacity.of(P::KIND).contains(&filled), "{filled}");
    assert_eq!(writer.try_write(b"x").unwrap_err().kind(), ErrorKind::WouldBlock);
    assert!(read_exact(&mut reader, filled) == vec![5; filled]);
}

pub(crate) fn c15_a_writer_on_a_full_pipe_wakes_when_there_is_room<P: Pipes>(pipes: &P) {
    let (mut writer, mut reader) = pipes.open();
    let filled = fill(&mut writer, &[1; 4096]);
    let writing = Sleeper::spawn(move || {
        write_all(&mut writer, &[2; 4096]).unwrap();
        writer
    });
    let writing = writing.until_asleep();
    let taken = DIFFERENCES.wakes_after.of(P::KIND).min(filled);
    read_exact(&mut reader, taken);
    let writer = writing.join();
    assert!(read_exact(&mut reader, filled - taken).iter().all(|byte| *byte == 1));
    assert_eq!(read_exact(&mut reader, 4096), [2; 4096]);
    drop(writer);
}

pub(crate) fn c19_a_reader_waits_for_its_writer<P: Pipes>(pipes: &P) {
    let (writer, mut reader) = pipes.open();
    assert_eq!(reader.try_read(&mut [0; 10]).unwrap_err().kind(), ErrorKind::WouldBlock);
    let reading = Sleeper::spawn(move || read_to_end(&mut reader)).until_asleep();
    let writing = write_and_close(writer, b"late".to_vec());
    assert_eq!(reading.join(), (b"late".to_vec(), Ending::Eof));
    writing.join();
}

pub(crate) fn c20_a_writer_blocks_at_the_capacity_until_its_reader_comes<P: Pipes>(pipes: &P) {
    let (writer, mut reader) = pipes.open();
    let length = 2 * DIFFERENCES.capacity.of(P::KIND).end();
    let writing = write_and_close(writer, pattern(20, 0, length)).until_asleep();
    assert!(read_to_end(&mut reader) == (pattern(20, 0, length), Ending::Eof));
    writing.join();
}

pub(crate) fn c21_a_writer_after_eof_is_another_pipe<P: Pipes>(pipes: &P) {
    let (writer, mut first) = pipes.open();
    let writing = write_and_close(writer, b"first".to_vec());
    assert_eq!(read_to_end(&mut first), (b"first".to_vec(), Ending::Eof));
    writing.join();
    let (writer, mut second) = pipes.open();
    let writing = write_and_close(writer, b"second".to_vec());
    assert_eq!(read_to_end(&mut second), (b"second".to_vec(), Ending::Eof));
    assert_eq!(read_to_end(&mut first), (Vec::new(), Ending::Eof));
    writing.join();
}

pub(crate) fn c22_sizes_around_every_limit_arrive_equal<P: Pipes>(pipes: &P) {
    const KIB: usize = 1024;
    let mut sizes = vec![
        0,
        1,
        10,
        100,
        1000,
        4095,
        4096,
        4097,
        16 * KIB,
        16 * KIB + 1,
        32 * KIB,
        64 * KIB - 1,
        64 * KIB,
        64 * KIB + 1,
        128 * KIB,
        256 * KIB,
        256 * KIB + 1,
        MIB,
    ];
    if has_time() {
        sizes.push(8 * MIB);
    }
    for size in sizes {
        let (writer, mut reader) = pipes.open();
        let writing = write_and_close(writer, pattern(size as u64, 0, size));
        assert!(read_to_end(&mut reader) == (pattern(size as u64, 0, size), Ending::Eof), "{size}");
        writing.join();
    }
}

pub(crate) fn c23_one_pipe_carries_on_after_the_eof_of_another<P: Pipes>(pipes: &P) {
    let ((out, mut out_reader), (mut err, mut err_reader)) = (pipes.open(), pipes.open());
    let writing = write_and_close(out, b"out".to_vec());
    assert_eq!(read_to_end(&mut out_reader), (b"out".to_vec(), Ending::Eof));
    writing.join();
    write_all(&mut err, b"late").unwrap();
    let writing = write_and_close(err, b"r".to_vec());
    assert_eq!(read_to_end(&mut err_reader), (b"later".to_vec(), Ending::Eof));
    writing.join();
}

pub(crate) fn c24_a_reply_follows_the_end_of_its_request<P: Pipes>(pipes: &P) {
    let ((ask, mut asked), (answer, mut answered)) = (pipes.open(), pipes.open());
    let server = Sleeper::spawn(move || {
        let (mut request, ending) = read_to_end(&mut asked);
        assert_eq!(ending, Ending::Eof);
        request.reverse();
        write_and_close(answer, request).join();
    });
    let asking = write_and_close(ask, pattern(24, 0, 300_000));
    let (mut reply, ending) = read_to_end(&mut answered);
    reply.reverse();
    assert!(reply == pattern(24, 0, 300_000) && ending == Ending::Eof);
    asking.join();
    server.join();
}

pub(crate) fn c30_unread_bytes_survive_their_writer<P: Pipes>(pipes: &P) {
    let (mut writer, mut reader) = pipes.open();
    write_all(&mut writer, &pattern(30, 0, 50_000)).unwrap();
    assert_eq!(read_exact(&mut reader, 10), pattern(30, 0, 10));
    writer.die();
    let (rest, ending) = read_to_end(&mut reader);
    assert!(rest == pattern(30, 10, 49_990));
    assert_eq!(ending, DIFFERENCES.writer_dies.of(P::KIND));
}

pub(crate) fn c32_the_end_of_the_last_pipe_cuts_nothing<P: Pipes>(pipes: &P) {
    for round in 0..3 {
        let (writer, mut reader) = pipes.open();
        let writing = write_and_close(writer, pattern(round, 0, 30_000)).until_asleep();
        assert!(read_to_end(&mut reader) == (pattern(round, 0, 30_000), Ending::Eof));
        writing.join();
    }
}

pub(crate) fn c33_many_finished_and_unread_pipes_leave_room_for_another<P: Pipes>(pipes: &P) {
    let unread: Vec<_> = (0..150)
        .map(|i| {
            let (writer, reader) = pipes.open();
            (write_and_close(writer, pattern(i, 0, 1000)), reader)
        })
        .collect();
    let (writer, mut reader) = pipes.open();
    let writing = write_and_close(writer, b"one more".to_vec());
    assert_eq!(read_to_end(&mut reader), (b"one more".to_vec(), Ending::Eof));
    writing.join();
    for (i, (writing, mut reader)) in unread.into_iter().enumerate() {
        assert!(read_to_end(&mut reader) == (pattern(i as u64, 0, 1000), Ending::Eof));
        writing.join();
    }
}

pub(crate) fn c34_a_stalled_reader_holds_up_no_other<P: Pipes>(pipes: &P) {
    let length = 2 * DIFFERENCES.capacity.of(P::KIND).end();
    let (writer, mut stalled) = pipes.open();
    let stuck = write_and_close(writer, pattern(34, 0, length)).until_asleep();
    for i in 0..40 {
        let (writer, mut reader) = pipes.open();
        let writing = write_and_close(writer, pattern(i, 0, 200_000));
        assert!(read_to_end(&mut reader) == (pattern(i, 0, 200_000), Ending::Eof));
        writing.join();
    }
    assert!(read_to_end(&mut stalled) == (pattern(34, 0, length), Ending::Eof));
    stuck.join();
}

pub(crate) fn a_read_of_nothing_and_a_write_of_nothing_change_nothing<P: Pipes>(pipes: &P) {
    let (mut writer, mut reader) = pipes.open();
    assert_eq!(writer.write(&[]).unwrap(), 0);
    assert_eq!(reader.read(&mut []).unwrap(), 0);
    let writing = write_and_close(writer, b"x".to_vec());
    assert_eq!(read_to_end(&mut reader), (b"x".to_vec(), Ending::Eof));
    assert_eq!(reader.read(&mut []).unwrap(), 0);
    writing.join();
}
