//! The contract of a pipe, case by case, for everything that makes a write end and a read end: the
//! kernel's own pipe, which is the oracle, qpipe's ends over a real QUIC connection, and kernel
//! pipes at both ends of a qpipe.
//!
//! Where qpipe is meant to differ from the kernel, [`differences`] says so and why; no case knows
//! which pipe it runs on.
//!
//! By default both hosts are on loopback. [`hosts`] puts them into two network namespaces where the
//! environment names some, and [`networks`] runs the same cases over bad links that way.

// Threads are seen to sleep in /proc, and networks are Linux's namespaces.
#![cfg(target_os = "linux")]

mod cases;
mod differences;
mod drawn;
mod ends;
mod hosts;
mod networks;
#[path = "../pair/mod.rs"]
mod pair;
mod shared;
mod sides;

use std::sync::mpsc;
use std::time::Duration;

use sides::{Kernel, OpenedByReader, OpenedByWriter, Pipes, ThroughDescriptors};

/// A case that takes longer hangs, on loopback.
const CASE_DEADLINE: Duration = Duration::from_secs(120);

/// Runs one case on fresh pipes, and fails if it hangs.
fn run<P: Pipes>(case: fn(&P)) {
    let (done, ended) = mpsc::channel();
    let running = std::thread::spawn(move || {
        case(&P::new());
        // The receiver is there until the deadline.
        let _ = done.send(());
    });
    match ended.recv_timeout(CASE_DEADLINE * hosts::slowness()) {
        Ok(()) => running.join().unwrap(),
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            std::panic::resume_unwind(running.join().unwrap_err())
        }
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("the case hangs"),
    }
}

macro_rules! on {
    ($module:ident, $pipes:ty, $($cases:ident: $($case:ident)*;)*) => {
        mod $module {
            use super::*;

            $($(#[test]
            fn $case() {
                run::<$pipes>($cases::$case);
            })*)*
        }
    };
}

macro_rules! everywhere {
    ($($case:ident)*) => {
        on! { kernel, Kernel, cases: $($case)*; }
        on! { opened_by_writer, OpenedByWriter, cases: $($case)*; }
        on! { opened_by_reader, OpenedByReader, cases: $($case)*; }
        on! { through_descriptors, ThroughDescriptors, cases: $($case)*; }
    };
}

macro_rules! where_ends_are_descriptors {
    ($($case:ident)*) => {
        on! { kernel_descriptors, Kernel, shared: $($case)*; }
        on! { qpipe_descriptors, ThroughDescriptors, shared: $($case)*; }
    };
}

everywhere! {
    c1_every_byte_then_eof_then_eof_again
    c2_a_writer_that_dies_leaves_its_bytes
    c3_nothing_written_is_eof
    c5_a_reader_that_left_is_epipe
    c6_an_idle_writer_hears_that_its_reader_left
    c7_a_blocked_writer_hears_that_its_reader_left
    c8_a_reader_that_leaves_early_cuts_a_large_write
    c13_all_sizes_and_modes_of_blocking
    c14_a_writer_without_a_reader_would_block_after_the_capacity
    c15_a_writer_on_a_full_pipe_wakes_when_there_is_room
    c19_a_reader_waits_for_its_writer
    c20_a_writer_blocks_at_the_capacity_until_its_reader_comes
    c21_a_writer_after_eof_is_another_pipe
    c22_sizes_around_every_limit_arrive_equal
    c23_one_pipe_carries_on_after_the_eof_of_another
    c24_a_reply_follows_the_end_of_its_request
    c30_unread_bytes_survive_their_writer
    c32_the_end_of_the_last_pipe_cuts_nothing
    c33_many_finished_and_unread_pipes_leave_room_for_another
    c34_a_stalled_reader_holds_up_no_other
    a_read_of_nothing_and_a_write_of_nothing_change_nothing
}

where_ends_are_descriptors! {
    c9_eof_comes_only_after_the_last_copy_is_closed
    c10_all_readers_blocked_on_one_descriptor_wake_at_eof
    c11_records_of_pipe_buf_from_several_writers_stay_whole
    c12_larger_writes_from_several_writers_are_all_there
}
