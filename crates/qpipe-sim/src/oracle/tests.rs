use super::*;

const NOW: Time = Duration::from_secs(1);

fn oracle_after(written: u64) -> Oracle {
    let mut oracle = Oracle::new(7, 1000);
    oracle.open(0, NOW);
    oracle.accepted(0, written, NOW).unwrap();
    oracle
}

fn promise(checked: Checked) -> &'static str {
    checked.unwrap_err().promise
}

#[test]
fn no_source_of_the_oracle_mentions_the_product() {
    let sources = [
        include_str!("../oracle.rs"),
        include_str!("pairs.rs"),
        include_str!("../content.rs"),
        include_str!("../rng.rs"),
    ];
    for source in sources {
        for crate_name in ["qpipe_proto", "qpipe::", "quinn"] {
            assert!(!source.contains(crate_name), "{crate_name}");
        }
    }
}

#[test]
fn the_right_bytes_and_then_eof_are_fine() {
    let mut oracle = oracle_after(100);
    oracle.delivered(0, &content::bytes(7, 0, 0, 60), NOW).unwrap();
    oracle.delivered(0, &content::bytes(7, 0, 60, 40), NOW).unwrap();
    oracle.closed(0, NOW);
    oracle.reader_sees(0, Some(ReaderEnd::Eof), NOW).unwrap();
    oracle.writer_sees(0, Some(WriterEnd::Complete), 100, NOW).unwrap();
    assert!(oracle.is_over());
}

#[test]
fn a_repeated_or_skipped_byte_breaks_p2() {
    let mut oracle = oracle_after(100);
    oracle.delivered(0, &content::bytes(7, 0, 0, 10), NOW).unwrap();
    assert_eq!(promise(oracle.delivered(0, &content::bytes(7, 0, 9, 10), NOW)), "P2");
    assert_eq!(promise(oracle.delivered(0, &content::bytes(7, 0, 11, 10), NOW)), "P2");
    assert_eq!(promise(oracle.delivered(0, &content::bytes(7, 1, 10, 10), NOW)), "P2");
}

#[test]
fn eof_before_every_byte_or_without_a_close_breaks_p3() {
    let mut oracle = oracle_after(100);
    oracle.delivered(0, &content::bytes(7, 0, 0, 99), NOW).unwrap();
    oracle.closed(0, NOW);
    assert_eq!(promise(oracle.reader_sees(0, Some(ReaderEnd::Eof), NOW)), "P3");
    let mut oracle = oracle_after(0);
    assert_eq!(promise(oracle.reader_sees(0, Some(ReaderEnd::Eof), NOW)), "P3");
}

#[test]
fn an_abort_that_loses_bytes_is_excused_only_by_a_death() {
    let mut oracle = oracle_after(100);
    oracle.aborted(0, NOW);
    assert_eq!(promise(oracle.reader_sees(0, Some(ReaderEnd::Aborted), NOW)), "P4");
    let mut oracle = oracle_after(100);
    oracle.excuse_all();
    oracle.reader_sees(0, Some(ReaderEnd::Aborted), NOW).unwrap();
}

#[test]
fn success_without_delivery_breaks_p4() {
    let mut oracle = oracle_after(100);
    oracle.closed(0, NOW);
    assert_eq!(promise(oracle.writer_sees(0, Some(WriterEnd::Complete), 0, NOW)), "P4");
    assert_eq!(promise(oracle_after(100).writer_sees(0, None, 1, NOW)), "P4");
}

#[test]
fn an_end_that_changes_breaks_p5_or_p6() {
    let mut oracle = oracle_after(0);
    oracle.left(0, NOW);
    oracle.writer_sees(0, Some(WriterEnd::Broken), 0, NOW).unwrap();
    assert_eq!(promise(oracle.writer_sees(0, None, 0, NOW)), "P6");
    oracle.reader_sees(0, Some(ReaderEnd::Closed), NOW).unwrap();
    assert_eq!(promise(oracle.reader_sees(0, Some(ReaderEnd::Aborted), NOW)), "P5");
}

#[test]
fn too_much_between_the_programs_breaks_p8() {
    let mut oracle = oracle_after(1000);
    assert_eq!(promise(oracle.accepted(0, 1, NOW)), "P8");
}

#[test]
fn memory_that_is_not_given_back_breaks_p9() {
    assert_eq!(promise(oracle_after(0).idle(0, 1)), "P9");
}

#[test]
fn a_pipe_that_stands_still_when_faults_have_ended_breaks_p16() {
    let mut oracle = oracle_after(100);
    oracle.look(NOW * 1000).unwrap();
    oracle.writer_comes(0);
    oracle.calm(NOW, NOW * 5);
    oracle.look(NOW * 6).unwrap();
    assert_eq!(promise(oracle.look(NOW * 7)), "P16");
}

#[test]
fn a_writer_that_is_not_told_of_its_readers_end_breaks_p17() {
    let mut oracle = oracle_after(100);
    oracle.left(0, NOW);
    oracle.prompt(NOW * 2, NOW);
    oracle.writer_sees(0, None, 0, NOW * 3).unwrap();
    assert_eq!(promise(oracle.writer_sees(0, None, 0, NOW * 4)), "P17");
}
