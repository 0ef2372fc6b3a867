//! QUIC's variable-length integers (RFC 9000, section 16).

/// The largest number that fits.
pub(crate) const VARINT_MAX: u64 = (1 << 62) - 1;

/// Appends `value`, which is at most [`VARINT_MAX`], in its shortest form.
pub(crate) fn encode(value: u64, out: &mut Vec<u8>) {
    debug_assert!(value <= VARINT_MAX);
    match value {
        0..=0x3f => out.push(value as u8),
        0x40..=0x3fff => out.extend((value as u16 | 0x4000).to_be_bytes()),
        0x4000..=0x3fff_ffff => out.extend((value as u32 | 0x8000_0000).to_be_bytes()),
        _ => out.extend((value | 0xc000_0000_0000_0000).to_be_bytes()),
    }
}

/// How many bytes the number takes whose first byte is `first`.
pub(crate) fn len(first: u8) -> usize {
    1 << (first >> 6)
}

/// The number at the beginning of `bytes` and how many bytes it takes; `None` if it is cut short.
/// Longer forms than needed are allowed, as in QUIC.
pub(crate) fn decode(bytes: &[u8]) -> Option<(u64, usize)> {
    let len = len(*bytes.first()?);
    let number = bytes.get(..len)?;
    let mut value = u64::from(number[0] & 0x3f);
    for byte in &number[1..] {
        value = value << 8 | u64::from(*byte);
    }
    Some((value, len))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn examples_of_rfc_9000_appendix_a() {
        let long = [0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c];
        assert_eq!(decode(&long), Some((151_288_809_941_952_652, 8)));
        assert_eq!(decode(&[0x9d, 0x7f, 0x3e, 0x7d]), Some((494_878_333, 4)));
        assert_eq!(decode(&[0x7b, 0xbd]), Some((15_293, 2)));
        assert_eq!(decode(&[0x25]), Some((37, 1)));
        assert_eq!(decode(&[0x40, 0x25]), Some((37, 2)));
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(value in 0..=VARINT_MAX) {
            let mut bytes = Vec::new();
            encode(value, &mut bytes);
            prop_assert_eq!(decode(&bytes), Some((value, bytes.len())));
            prop_assert_eq!(decode(&bytes[..bytes.len() - 1]), None);
        }
    }
}
