//! Packet buffers, recycled through a pool to avoid an allocation per packet.

/// One IP packet in a buffer that may be larger than it.
#[derive(Debug)]
pub(crate) struct Packet {
    buffer: Box<[u8]>,
    len: usize,
}

impl Packet {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.buffer[..self.len]
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.buffer[..self.len]
    }

    /// Fills the packet by `fill`, which gets the whole buffer and returns the length used.
    pub(crate) fn fill_with<E>(
        &mut self,
        fill: impl FnOnce(&mut [u8]) -> Result<usize, E>,
    ) -> Result<(), E> {
        self.len = fill(&mut self.buffer)?.min(self.buffer.len());
        Ok(())
    }

    /// Flips one bit; `pick` is reduced modulo the number of bits.
    pub(crate) fn flip_bit(&mut self, pick: u64) {
        if self.len > 0 {
            let bit = (pick % (self.len as u64 * 8)) as usize;
            self.buffer[bit / 8] ^= 1 << (bit % 8);
        }
    }
}

/// A free list of equally large packet buffers.
pub(crate) struct Pool {
    free: Vec<Packet>,
    buffer_size: usize,
}

impl Pool {
    pub(crate) fn new(buffer_size: usize) -> Self {
        Self { free: Vec::new(), buffer_size }
    }

    pub(crate) fn take(&mut self) -> Packet {
        self.free.pop().unwrap_or_else(|| Packet {
            buffer: vec![0; self.buffer_size].into_boxed_slice(),
            len: 0,
        })
    }

    pub(crate) fn give(&mut self, packet: Packet) {
        self.free.push(packet);
    }

    /// A packet with the given contents (cut to the buffer size).
    pub(crate) fn copy_of(&mut self, bytes: &[u8]) -> Packet {
        let mut packet = self.take();
        packet.len = bytes.len().min(packet.buffer.len());
        packet.buffer[..packet.len].copy_from_slice(&bytes[..packet.len]);
        packet
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flips_exactly_one_bit() {
        let mut pool = Pool::new(64);
        for pick in 0..100 {
            let mut packet = pool.copy_of(&[0; 5]);
            packet.flip_bit(pick);
            let ones: u32 = packet.bytes().iter().map(|byte| byte.count_ones()).sum();
            assert_eq!(ones, 1);
            pool.give(packet);
        }
        pool.take().flip_bit(3);
    }

    #[test]
    fn buffers_are_reused() {
        let mut pool = Pool::new(64);
        let packet = pool.copy_of(b"abc");
        let address = packet.bytes().as_ptr();
        pool.give(packet);
        assert_eq!(pool.copy_of(b"xyz").bytes().as_ptr(), address);
    }
}
