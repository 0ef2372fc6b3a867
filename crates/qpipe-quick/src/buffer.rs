//! Bytes of which there is a most.

/// Up to `BYTES` bytes.
pub(crate) struct Buffer<const BYTES: usize> {
    bytes: [u8; BYTES],
    filled: usize,
    is_cut: bool,
}

impl<const BYTES: usize> Buffer<BYTES> {
    pub(crate) fn new() -> Self {
        Self { bytes: [0; BYTES], filled: 0, is_cut: false }
    }

    /// Adds all of `more`, or nothing.
    pub(crate) fn push(&mut self, more: &[u8]) -> &mut Self {
        let room = self.bytes.get_mut(self.filled..).and_then(|room| room.get_mut(..more.len()));
        match room {
            Some(room) => {
                // Not `copy_from_slice`, which panics where lengths differ: here nothing does.
                room.iter_mut().zip(more).for_each(|(to, from)| *to = *from);
                self.filled += more.len();
            }
            None => self.is_cut = true,
        }
        self
    }

    /// What was added; none if something did not fit.
    pub(crate) fn whole(&self) -> Option<&[u8]> {
        if self.is_cut { None } else { self.bytes.get(..self.filled) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_noticed() {
        let mut buffer = Buffer::<5>::new();

        assert_eq!(buffer.push(b"abc").push(b"de").whole(), Some(&b"abcde"[..]));
        assert_eq!(buffer.push(b"").whole(), Some(&b"abcde"[..]));
        assert_eq!(buffer.push(b"f").whole(), None);
    }
}
