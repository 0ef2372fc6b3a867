//! Much data: real trees, and a stream that is larger than any memory allowed for it.

use std::{
    io::{self, Read, Write},
    path::Path,
    thread,
};

use crate::{anonymous::over_qpipe, host::Host, named::two_hosts};

/// More than every buffer and budget there is.
const STREAM_BYTES: usize = 2 << 30;

/// What either end may have resident at most while it passes: far below the memory that its pipes
/// may take (256 MiB), and mostly the program itself.
const RESIDENT_BYTES_MAX: u64 = 120 << 20;

/// Content repeats after a prime number of bytes, so that no buffer's size hides a slip.
const PERIOD_BYTES: usize = 1_048_573;

/// Before the last bytes are taken, neither program can have ended.
const HELD_BACK_BYTES: usize = 1 << 20;

#[test]
fn two_gibibytes_pass_through_flat_memory() {
    let (a, b) = (Host::new(), Host::new());
    let ((input, mut feed), (mut taken, output)) = (io::pipe().unwrap(), io::pipe().unwrap());
    let period = crate::host::noise(PERIOD_BYTES);
    let mut sender = a.qpipe(&["send"]).stdin(input).start();
    let receiver = b.qpipe(&["recv"]).ticket(&sender.ticket()).stdout(output).start();
    let content = period.clone();
    let writer = thread::spawn(move || {
        let mut left = STREAM_BYTES;
        while left > 0 {
            let piece = left.min(PERIOD_BYTES);
            feed.write_all(&content[..piece]).unwrap();
            left -= piece;
        }
    });

    check(&mut taken, &period, 0, STREAM_BYTES - HELD_BACK_BYTES);
    let peaks = [sender.peak_resident_bytes(), receiver.peak_resident_bytes()];
    check(&mut taken, &period, STREAM_BYTES - HELD_BACK_BYTES, HELD_BACK_BYTES);

    assert_eq!(taken.read(&mut [0]).unwrap(), 0);
    writer.join().unwrap();
    sender.end().expect(0);
    receiver.end().expect(0);
    assert!(peaks.iter().all(|peak| *peak < RESIDENT_BYTES_MAX), "{peaks:?}");
}

/// Reads `bytes` that stand at the offset `at` of the stream.
fn check(from: &mut impl Read, period: &[u8], at: usize, bytes: usize) {
    let (mut done, mut buffer) = (0, vec![0; 256 * 1024]);
    while done < bytes {
        let phase = (at + done) % PERIOD_BYTES;
        let piece = buffer.len().min(bytes - done).min(PERIOD_BYTES - phase);
        from.read_exact(&mut buffer[..piece]).unwrap();
        assert!(buffer[..piece] == period[phase..phase + piece], "wrong after {}", at + done);
        done += piece;
    }
}

/// A tree of real files of some size, as a machine that builds Rust programs has it.
pub fn real_tree() -> &'static str {
    let trees = ["/usr/include", "/usr/share/doc", "/usr/share", "/etc"];
    trees.into_iter().find(|tree| Path::new(tree).is_dir()).unwrap()
}

#[test]
fn a_tree_of_real_files_goes_through_tar_and_gzip() {
    let tar = format!("tar cf - -C {} .", real_tree());
    let oracle = Host::new().pipeline(&format!("{tar} | sha256sum")).end();

    let (sent, received) =
        over_qpipe(&format!("{tar} | gzip -1 | qpipe send"), "qpipe recv | gunzip | sha256sum");

    assert_eq!((sent.statuses(), received.statuses()), ("0 0 0", "0 0 0"));
    assert_eq!(received.stdout(), oracle.stdout());
}

#[test]
fn a_tree_that_is_unpacked_at_the_other_end_is_the_same() {
    let (a, b, _serving) = two_hosts(&["send:tree"]);
    a.bash("cp -r /usr/share/perl5 tree || cp -r /etc tree").end();
    let receiver = b.pipeline("qpipe recv tree | tar xf -").start();

    let sent = a.pipeline("tar cf - tree | qpipe send b/tree").end();

    assert_eq!((sent.statuses(), receiver.end().statuses()), ("0 0", "0 0"));
    let compared = a.bash(&format!("diff -r tree {}", b.work("tree").display())).end().expect(0);
    assert!(a.work("tree").is_dir() && compared.stdout.is_empty());
}

#[test]
fn a_reader_that_stops_holds_the_writer_and_not_the_memory() {
    let (a, b, serving) = two_hosts(&["send:x"]);
    let (mut taken, output) = io::pipe().unwrap();
    let receiver = b.qpipe(&["recv", "x"]).stdout(output).start();
    let sender = a.pipeline("head -c 400000000 /dev/zero | qpipe send b/x").start();

    // The reader takes a little, again and again, and never as much as comes.
    let mut buffer = vec![0; 4096];
    for _ in 0..2000 {
        taken.read_exact(&mut buffer).unwrap();
    }

    let peaks = [serving.running.peak_resident_bytes(), receiver.peak_resident_bytes()];
    assert!(peaks.iter().all(|peak| *peak < RESIDENT_BYTES_MAX), "{peaks:?}");
    drop(taken);
    assert_eq!(sender.end().statuses(), "141 141");
    receiver.end().expect(141);
}
