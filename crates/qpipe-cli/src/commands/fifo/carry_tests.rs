use std::io::{PipeReader, PipeWriter, pipe};

use super::*;

fn two_pipes() -> ((PipeWriter, OwnedFd), (OwnedFd, PipeReader)) {
    let ((from, input), (output, to)) = (pipe().unwrap(), pipe().unwrap());
    ((input, from.into()), (to.into(), output))
}

#[test]
fn everything_moves_up_to_the_end() {
    let ((mut input, from), (to, mut output)) = two_pipes();
    input.write_all(b"all of it").unwrap();
    drop(input);

    assert_eq!(carry(&from, &to).unwrap(), Over::Eof);

    drop(to);
    let mut found = String::new();
    output.read_to_string(&mut found).unwrap();
    assert_eq!(found, "all of it");
}

#[test]
fn a_reader_that_goes_is_noticed_while_nothing_comes() {
    let ((_input, from), (to, output)) = two_pipes();
    let carrying = thread::spawn(move || carry(&from, &to).unwrap());

    drop(output);

    assert_eq!(carrying.join().unwrap(), Over::Broken);
}

#[test]
fn an_end_is_one_though_nobody_reads_any_more() {
    let ((input, from), (to, output)) = two_pipes();
    drop((input, output));

    assert_eq!(carry(&from, &to).unwrap(), Over::Eof);
}

#[test]
fn nothing_fits_beside_a_plug_and_nothing_of_it_stays() {
    let (mut reader, mut writer) = pipe().unwrap();
    let plug = Plug::put(&writer).unwrap();
    let mut looked = [PollFd::new(&writer, PollFlags::OUT)];
    poll(&mut looked, Some(&rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap();
    assert!(!looked[0].revents().contains(PollFlags::OUT));
    assert!(!fcntl_getfl(&writer).unwrap().contains(OFlags::NONBLOCK));

    plug.pull(&reader).unwrap();

    writer.write_all(b"content").unwrap();
    drop(writer);
    let mut found = String::new();
    reader.read_to_string(&mut found).unwrap();
    assert_eq!(found, "content");
}
