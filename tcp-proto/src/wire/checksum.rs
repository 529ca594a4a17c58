//! The Internet checksum (RFC 1071): the one's complement sum of 16-bit words, summed here 64 bits at a time.

/// A running sum. Parts must be added at even offsets of what is summed, except the last.
#[derive(Clone, Copy, Default)]
pub(crate) struct Checksum(u64);

impl Checksum {
    /// The pseudo-header of a TCP segment: addresses (4 or 16 bytes each), protocol 6 and the TCP length.
    pub(crate) fn pseudo_header(source: &[u8], destination: &[u8], length: usize) -> Self {
        Checksum::pseudo_header_of(6, source, destination, length)
    }

    /// The same of another protocol.
    pub(crate) fn pseudo_header_of(protocol: u8, source: &[u8], destination: &[u8], length: usize) -> Self {
        let mut sum = Checksum(u64::from(protocol) + length as u64);
        sum.add(source);
        sum.add(destination);
        sum
    }

    /// Adds bytes; an odd last byte counts as the high half of a word.
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        let (mut wide, mut carries) = (self.0, 0u64);
        let mut chunks = bytes.chunks_exact(8);
        for chunk in &mut chunks {
            let word = u64::from_be_bytes(chunk.try_into().unwrap_or_default());
            let (sum, carry) = wide.overflowing_add(word);
            wide = sum;
            carries += u64::from(carry);
        }
        self.0 = add_carry(wide, carries);
        self.add_tail(chunks.remainder());
    }

    fn add_tail(&mut self, tail: &[u8]) {
        let mut padded = [0u8; 8];
        padded[..tail.len()].copy_from_slice(tail);
        self.0 = add_carry(self.0, u64::from_be_bytes(padded));
    }

    /// The sum folded to 16 bits, not inverted.
    pub(crate) fn folded(self) -> u16 {
        let sum = (self.0 >> 32) + (self.0 & 0xffff_ffff);
        let sum = (sum >> 16) + (sum & 0xffff);
        let sum = (sum >> 16) + (sum & 0xffff);
        let sum = (sum >> 16) + (sum & 0xffff);
        sum as u16
    }

    /// What the checksum field carries.
    pub(crate) fn finish(self) -> u16 {
        !self.folded()
    }
}

fn add_carry(a: u64, b: u64) -> u64 {
    let (sum, carry) = a.overflowing_add(b);
    sum + u64::from(carry)
}

#[cfg(test)]
mod tests {
    use super::Checksum;

    fn plain(bytes: &[u8]) -> u16 {
        let sum =
            bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0))).sum::<u32>();
        let sum = (sum >> 16) + (sum & 0xffff);
        ((sum >> 16) + (sum & 0xffff)) as u16
    }

    #[test]
    fn agrees_with_the_word_by_word_sum_for_every_length() {
        let bytes: [u8; 67] = core::array::from_fn(|i| (i * 37 + 250) as u8);
        for length in 0..bytes.len() {
            let mut sum = Checksum::default();
            sum.add(&bytes[..length]);
            assert_eq!(sum.folded(), plain(&bytes[..length]), "length {length}");
        }
    }

    #[test]
    fn carries_are_not_lost() {
        let mut sum = Checksum::default();
        sum.add(&[0xff; 64]);
        sum.add(&[0xff; 6]);
        assert_eq!(sum.folded(), 0xffff);
        assert_eq!(sum.finish(), 0);
    }

    #[test]
    fn pseudo_headers_of_both_families_count() {
        let v4 = Checksum::pseudo_header(&[10, 0, 0, 1], &[10, 0, 0, 2], 20);
        assert_eq!(v4.folded(), 0x0a00 * 2 + 3 + 6 + 20);
        let v6 = Checksum::pseudo_header(&[0; 16], &[0; 16], 20);
        assert_eq!(v6.folded(), 26);
    }
}
