//! Cases in which several threads share a descriptor, as processes do that inherited it.

use std::sync::Arc;

use crate::differences::{DIFFERENCES, Ending};
use crate::ends::{FdReader, FdWriter, WriteEnd, read_exact, read_to_end, write_all};
use crate::sides::{Pipes, Sleeper};

/// A copy of the descriptor, as fork makes one.
fn copy(writer: &FdWriter) -> FdWriter {
    FdWriter { fd: writer.fd.try_clone().unwrap(), background: None }
}

pub(crate) fn c9_eof_comes_only_after_the_last_copy_is_closed<P>(pipes: &P)
where
    P: Pipes<W = FdWriter, R = FdReader>,
{
    let (writer, mut reader) = pipes.open();
    let mut second = copy(&writer);
    let closing = Sleeper::spawn(move || writer.close().unwrap());
    write_all(&mut second, b"still here").unwrap();
    assert_eq!(read_exact(&mut reader, 10), b"still here");
    let reading = Sleeper::spawn(move || read_to_end(&mut reader)).until_asleep();
    write_all(&mut second, b", and gone").unwrap();
    drop(second);
    assert_eq!(reading.join(), (b", and gone".to_vec(), Ending::Eof));
    closing.join();
}

pub(crate) fn c10_all_readers_blocked_on_one_descriptor_wake_at_eof<P>(pipes: &P)
where
    P: Pipes<W = FdWriter, R = FdReader>,
{
    for readers in [2, 3, 10, 100] {
        let (writer, reader) = pipes.open();
        let reader = Arc::new(reader);
        let blocked: Vec<_> = (0..readers)
            .map(|_| {
                let reader = reader.clone();
                let read = move || rustix::io::read(&reader.fd, &mut [0; 10]).unwrap();
                Sleeper::spawn(read).until_asleep()
            })
            .collect();
        writer.close().unwrap();
        assert!(blocked.into_iter().all(|reader| reader.join() == 0));
    }
}

/// `writers` threads write `count` records of `size` bytes each; gives all that came through.
fn records<P>(pipes: &P, writers: u8, count: usize, size: usize) -> Vec<u8>
where
    P: Pipes<W = FdWriter, R = FdReader>,
{
    let (writer, mut reader) = pipes.open();
    let writing: Vec<_> = (0..writers)
        .map(|i| {
            let mut writer = copy(&writer);
            Sleeper::spawn(move || {
                for _ in 0..count {
                    write_all(&mut writer, &vec![i; size]).unwrap();
                }
            })
        })
        .collect();
    let closing = Sleeper::spawn(move || {
        writing.into_iter().for_each(Sleeper::join);
        writer.close().unwrap();
    });
    let (got, ending) = read_to_end(&mut reader);
    assert_eq!(ending, Ending::Eof);
    closing.join();
    got
}

pub(crate) fn c11_records_of_pipe_buf_from_several_writers_stay_whole<P>(pipes: &P)
where
    P: Pipes<W = FdWriter, R = FdReader>,
{
    let size = DIFFERENCES.atomic_write.of(P::KIND);
    let got = records(pipes, 5, 100, size);
    assert_eq!(got.len(), 5 * 100 * size);
    for record in got.chunks(size) {
        assert!(record.iter().all(|byte| *byte == record[0]), "a torn record");
    }
    for writer in 0..5 {
        assert_eq!(got.chunks(size).filter(|record| record[0] == writer).count(), 100);
    }
}

/// Larger writes may be torn, by the kernel as by qpipe, but nothing is lost or doubled.
pub(crate) fn c12_larger_writes_from_several_writers_are_all_there<P>(pipes: &P)
where
    P: Pipes<W = FdWriter, R = FdReader>,
{
    let size = DIFFERENCES.atomic_write.of(P::KIND) + 904;
    let got = records(pipes, 8, 50, size);
    for writer in 0..8 {
        assert_eq!(got.iter().filter(|byte| **byte == writer).count(), 50 * size);
    }
    assert_eq!(got.len(), 8 * 50 * size);
}
