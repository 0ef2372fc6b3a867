//! Bytes that no honest peer sends: protobuf by hand, and dice with a fixed seed.

/// A length-delimited field of a protobuf message.
pub(crate) fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    out.extend(varint(content.len() as u64));
    out.extend(content);
    out
}

/// A number field of a protobuf message.
pub(crate) fn number(field: u8, value: u64) -> Vec<u8> {
    let mut out = vec![field << 3];
    out.extend(varint(value));
    out
}

/// A message with its length before it, as QUIC writes lengths, in four bytes.
pub(crate) fn message(body: &[u8]) -> Vec<u8> {
    let mut out = (body.len() as u32 | 0x8000_0000).to_be_bytes().to_vec();
    out.extend(body);
    out
}

/// A Hello with this ticket and these versions.
pub(crate) fn hello(version: u8, session: &[u8], ticket: &[u8]) -> Vec<u8> {
    let mut hello = field(1, &[version]);
    hello.extend(field(2, session));
    hello.extend(number(3, 16_384));
    hello.extend(number(4, 256));
    hello.extend(field(5, ticket));
    hello.extend(number(8, 3));
    hello.extend(field(10, &number(1, 1)));
    message(&field(1, &hello))
}

/// Facts of one pipe: the fields of its `Pipe` message.
pub(crate) fn pipe_facts(fields: &[Vec<u8>]) -> Vec<u8> {
    message(&field(2, &field(1, &fields.concat())))
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

/// Dice that fall alike in every run (xorshift64*).
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Dice {
        Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn roll(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.roll() as usize % end
    }

    pub(crate) fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.roll() as u8).collect()
    }

    /// One of several.
    pub(crate) fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }
}
