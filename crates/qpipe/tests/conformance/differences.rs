//! Where qpipe is meant to differ from a kernel pipe. The cases ask here and nowhere else.

use std::ops::RangeInclusive;

/// What makes the two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// pipe(2).
    Kernel,
    /// [`qpipe::PipeWriter`] and [`qpipe::PipeReader`].
    Qpipe,
    /// Kernel pipes at both ends of a qpipe, made by `into_fd`.
    Descriptors,
}

/// What a reader sees after the last byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Eof,
    /// [`std::io::ErrorKind::ConnectionAborted`].
    Abort,
}

/// One difference.
pub(crate) struct Row<T: 'static> {
    kernel: T,
    qpipe: T,
    descriptors: T,
    /// Why it is meant to be so.
    pub(crate) why: &'static str,
}

impl<T: Clone> Row<T> {
    pub(crate) fn of(&self, kind: Kind) -> T {
        match kind {
            Kind::Kernel => self.kernel.clone(),
            Kind::Qpipe => self.qpipe.clone(),
            Kind::Descriptors => self.descriptors.clone(),
        }
    }
}

/// All differences.
pub(crate) struct Differences {
    /// What follows the bytes of a writer that ended without closing its end.
    pub(crate) writer_dies: Row<Ending>,
    /// Bytes that a writer gets rid of, in writes of 4,096, while nobody reads.
    pub(crate) capacity: Row<RangeInclusive<usize>>,
    /// Bytes that a reader of a full pipe takes before its writer goes on, at most.
    pub(crate) wakes_after: Row<usize>,
    /// Bytes that are still accepted after the reader left, at most.
    pub(crate) accepted_after_break: Row<usize>,
    /// Whether closing the write end tells that the reader left bytes unread.
    pub(crate) close_tells_of_break: Row<bool>,
    /// The largest write that several writers of one descriptor may make without tearing.
    pub(crate) atomic_write: Row<usize>,
}

const KIB: usize = 1024;

pub(crate) const DIFFERENCES: Differences = Differences {
    writer_dies: Row {
        kernel: Ending::Eof,
        qpipe: Ending::Abort,
        descriptors: Ending::Eof,
        why: "a crash must not look like the end of the data; closing a descriptor is all that a \
              program without qpipe can do, so there it stays EOF",
    },
    capacity: Row {
        kernel: 64 * KIB..=64 * KIB,
        qpipe: 64 * KIB..=64 * KIB,
        descriptors: 128 * KIB..=1024 * KIB,
        why: "a pipe starts as large as the kernel's and grows while its reader keeps up; with \
              descriptors there are two kernel pipes, the window between them, which the outer \
              pipe's filling makes grow, and what the two tasks hold",
    },
    wakes_after: Row {
        kernel: 4 * KIB,
        qpipe: 16 * KIB,
        descriptors: 1024 * KIB,
        why: "every Limit is a message: it is raised by a quarter of the window at least",
    },
    accepted_after_break: Row {
        kernel: 0,
        qpipe: 64 * KIB,
        descriptors: 1024 * KIB,
        why: "the news takes half a round trip, and writes do not wait for it",
    },
    close_tells_of_break: Row {
        kernel: false,
        qpipe: true,
        descriptors: true,
        why: "finish waits until every byte is consumed, so it knows",
    },
    atomic_write: Row {
        kernel: 4 * KIB,
        qpipe: 4 * KIB,
        descriptors: 4 * KIB,
        why: "no difference, stated because it is a promise: PIPE_BUF is 4,096 everywhere",
    },
};

#[test]
fn every_difference_has_its_reason() {
    let d = &DIFFERENCES;
    let whys = [
        d.writer_dies.why,
        d.capacity.why,
        d.wakes_after.why,
        d.accepted_after_break.why,
        d.close_tells_of_break.why,
        d.atomic_write.why,
    ];
    assert!(whys.iter().all(|why| why.len() > 20));
}
