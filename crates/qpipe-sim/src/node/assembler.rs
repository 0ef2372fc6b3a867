//! Puts the bytes of a stream, read in any order, in order.

use std::collections::BTreeMap;

use bytes::Bytes;

/// Bytes of a stream that came out of order.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    next: u64,
    pieces: BTreeMap<u64, Bytes>,
    held: u64,
}

/// What a piece is charged beyond its bytes.
const PIECE_OVERHEAD_BYTES: u64 = 64;

impl Assembler {
    /// Takes in the piece at `offset`, of which quinn-proto gives every byte once.
    pub(super) fn push(&mut self, offset: u64, bytes: Bytes) {
        self.held += bytes.len() as u64;
        self.pieces.insert(offset, bytes);
    }

    /// The next bytes in order, if they are here.
    pub(super) fn pop(&mut self) -> Option<Bytes> {
        let entry = self.pieces.first_entry().filter(|entry| *entry.key() == self.next)?;
        let bytes = entry.remove();
        self.held -= bytes.len() as u64;
        self.next += bytes.len() as u64;
        Some(bytes)
    }

    /// What is out of order, in bytes.
    pub(super) fn held(&self) -> u64 {
        self.held
    }

    /// What that is charged: bytes, and a place for each piece.
    pub(super) fn charged(&self) -> u64 {
        self.held + self.pieces.len() as u64 * PIECE_OVERHEAD_BYTES
    }
}
