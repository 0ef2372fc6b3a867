use std::io::{Read, Write};

use tempfile::TempDir;

use super::*;

fn fifo(dir: &TempDir) -> Fifo {
    Fifo::at(&dir.path().join("fifo"), 0o600, false).unwrap()
}

fn text_in(reader: OwnedFd) -> String {
    let mut text = String::new();
    fs::File::from(reader).read_to_string(&mut text).unwrap();
    text
}

#[test]
fn what_was_made_is_removed_and_what_was_found_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("fifo");
    let made = fifo(&dir);
    drop(fifo(&dir));
    assert!(path.exists());

    drop(made);

    assert!(!path.exists());
}

#[test]
fn another_file_at_the_path_is_neither_opened_nor_removed() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = fifo(&dir);
    let path = fifo.place().path().to_owned();
    // The inode stays in use, so that the other file cannot get its number.
    fs::rename(&path, dir.path().join("moved")).unwrap();
    fs::write(&path, "precious").unwrap();

    let error = fifo.place().reader_at_once().unwrap_err();

    assert!(error.to_string().contains("not the FIFO any more"), "{error}");
    drop(fifo);
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
}

#[test]
fn what_a_late_writer_has_written_is_kept_and_what_nobody_wrote_is_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = fifo(&dir);
    let reader = fifo.place().reader_at_once().unwrap();
    let writer = fifo.place().writer_at_once().unwrap();
    fs::File::from(writer).write_all(b"late").unwrap();

    let kept = fifo.place().leave(reader).unwrap();
    assert_eq!(text_in(kept), "late");

    let reader = fifo.place().reader_at_once().unwrap();
    assert!(fifo.place().leave(reader).is_none());
}

#[tokio::test]
async fn an_open_that_waits_can_be_abandoned() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = fifo(&dir);
    for end in [End::Read, End::Write] {
        let opening = Opening::start(fifo.place(), end).unwrap();

        assert!(opening.abandon().await.unwrap().is_none());

        assert!(is_left(fifo.place()));
    }
}

/// Whether nobody has the FIFO open to read. A process that another test of this program starts has a
/// copy of every descriptor until it executes its own, so for a moment there may seem to be a reader.
fn is_left(place: &Place) -> bool {
    (0..1_000).any(|_| match place.writer_at_once() {
        Err(error) => {
            assert_eq!(Errno::from_io_error(&error), Some(Errno::NXIO));
            true
        }
        Ok(_) => {
            thread::sleep(LOOK);
            false
        }
    })
}
