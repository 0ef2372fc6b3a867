//! Every bound of the protocol core, with the sum that the bounds protect.
//!
//! Memory that a peer can make a node hold is the sum of: the budget (`--memory`, windows and
//! buffered writes: [`crate::Budget`]), for each session [`CONTROL_MESSAGE_BYTES_MAX`] for a
//! half-read message, and for each of [`OPENS_UNANSWERED_MAX`] opens one pipe's state. The test at
//! the end of this file adds the reservations up.

/// Protocol version that this code speaks: ALPN `qpipe/1`.
pub const VERSION: u32 = 1;

/// `PIPE_BUF` of Linux, in bytes: a write of up to this size is never torn (pipe(7)).
pub const PIPE_BUF: u64 = 4096;

/// So many bytes a reader may have written and not call consumed before it knows, after the end, that they are
/// where they have to be: a file of another host may be refused when it is closed. Nobody waits for them.
pub const KEPT_BYTES_MAX: u64 = 1;

/// The window that every accepted pipe has, in bytes, whatever else happens: one atomic write, and what the
/// reader keeps back meanwhile.
pub const FLOOR_BYTES: u64 = PIPE_BUF + KEPT_BYTES_MAX;

/// The window that a pipe starts with while less than half of the growth pool is committed, in
/// bytes. It is the capacity of a Linux pipe (pipe(7)).
pub const START_WINDOW_BYTES: u64 = 64 * 1024;

/// The largest window of one pipe, in bytes: twice the bandwidth-delay product of 2 Gbit/s over
/// 125 ms. QUIC's own stream window lies above it.
pub const WINDOW_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Default of Hello's `initial_limit`, in bytes: what may be sent on a new pipe before Accepted.
pub const INITIAL_LIMIT_BYTES: u64 = 16 * 1024;

/// The most that a peer's `initial_limit` is taken for, in bytes: our side buffers it for replay.
pub const INITIAL_LIMIT_BYTES_MAX: u64 = 1024 * 1024;

/// How many opens of a peer may be unanswered, or over but not settled.
/// [`INITIAL_LIMIT_BYTES`] for each is reserved when a session starts.
pub const OPENS_UNANSWERED_MAX: u64 = 256;

/// Pipes in one group: duplex needs two, a remote process five.
pub const GROUP_PIPES_MAX: u32 = 8;

/// Ranges of pending Settled. When they are full, reading of the control stream pauses.
pub const SETTLED_RANGES_MAX: usize = 1024;

/// A control message, in bytes. A length over this is refused before a byte of it is kept.
pub const CONTROL_MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// Facts of so many pipes go into one message, so that it stays under
/// [`CONTROL_MESSAGE_BYTES_MAX`]: an Open with the longest name takes under 400 bytes.
pub const FACTS_PER_MESSAGE_MAX: usize = 128;

/// A stream header, in bytes: an Open with the longest name, an id, an offset.
pub const STREAM_HEADER_BYTES_MAX: usize = 1024;

/// A stream trailer, in bytes: an End.
pub const STREAM_TRAILER_BYTES_MAX: usize = 64;

/// What a stream may need beyond its chunks, in bytes: header and trailer.
pub const STREAM_OVERHEAD_BYTES: u64 = 4096;

/// The largest chunk that this code writes, in bytes. Larger ones cost quinn memory, smaller ones
/// processor time: its send buffer is searched linearly, segment by segment.
pub const CHUNK_BYTES_MAX: u64 = 256 * 1024;

/// Consumed is told at the latest so long after it became true, in milliseconds.
pub const CONSUMED_DELAY_MS: u64 = 50;

/// Where a reader has consumed all that came, and the writer has not heard of one atomic write of it or more, it may
/// be that its own capacity holds the writer back: Consumed is told after this part of a round trip.
pub const CONSUMED_SOON_PART: u32 = 4;

/// And no sooner than after so many milliseconds.
pub const CONSUMED_SOON_MS: u64 = 1;

/// Open and End that go out on a pipe's own stream are told on the control stream after so long, in
/// milliseconds, unless the peer has shown by then that it heard them.
pub const IN_BAND_DELAY_MS: u64 = 50;

/// Pipes of a session whose Open or End waits that long. What more there is, is told at once.
pub const IN_BAND_PIPES_MAX: usize = 8192;

/// A write end that was idle for so long gives unused credit back, in milliseconds.
pub const IDLE_RETURN_MS: u64 = 2000;

/// A group whose members are not all known after so long is refused, in milliseconds.
pub const GROUP_DEADLINE_MS: u64 = 10_000;

/// Addresses that a side tells of itself.
pub const ADDRESSES_MAX: usize = 16;

/// Sessions of one node, over all peers.
pub const SESSIONS_MAX: usize = 1024;

/// Sessions with one peer host: its processes each have one.
pub const SESSIONS_PER_PEER_MAX: usize = 256;

/// Default of `--memory`, in bytes.
pub const MEMORY_BYTES_DEFAULT: u64 = 256 * 1024 * 1024;

/// The least `--memory`, in bytes: one session's reservation, and floors.
pub const MEMORY_BYTES_MIN: u64 = 16 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_session_fits_into_the_least_memory() {
        let opens = OPENS_UNANSWERED_MAX * INITIAL_LIMIT_BYTES;
        let pool = MEMORY_BYTES_MIN / 2;
        assert!(opens + START_WINDOW_BYTES + 2 * CONTROL_MESSAGE_BYTES_MAX as u64 <= pool);
    }

    #[test]
    fn a_full_message_of_facts_stays_under_the_limit() {
        let settled = SETTLED_RANGES_MAX * 24;
        assert!(FACTS_PER_MESSAGE_MAX * 300 + settled / 2 <= CONTROL_MESSAGE_BYTES_MAX);
    }

    #[test]
    fn windows_hold_an_atomic_write() {
        const {
            assert!(FLOOR_BYTES >= PIPE_BUF + KEPT_BYTES_MAX);
            assert!(INITIAL_LIMIT_BYTES >= FLOOR_BYTES);
            assert!(START_WINDOW_BYTES >= INITIAL_LIMIT_BYTES);
            assert!(WINDOW_BYTES_MAX >= START_WINDOW_BYTES);
        }
    }
}
