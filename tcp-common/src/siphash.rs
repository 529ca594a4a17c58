//! SipHash (Aumasson and Bernstein, 2012) over whole 64-bit words: small enough for BPF, keyed, so that
//! nobody outside can predict what it yields. `C` and `D` are its compression and finalisation rounds.

/// The 128-bit key of a hash.
pub type SipKey = [u64; 2];

/// SipHash-C-D of `words` (their little-endian bytes) under `key`.
#[inline(always)]
#[must_use]
pub fn siphash<const C: usize, const D: usize>(key: SipKey, words: &[u64]) -> u64 {
    let mut sip = Sip::<C, D>::new(key);
    for &word in words {
        sip.absorb(word);
    }
    sip.finish(words.len() as u64)
}

/// The same word by word, for those who have no room for all words at once.
#[derive(Clone, Copy, Debug)]
pub struct Sip<const C: usize, const D: usize>([u64; 4]);

impl<const C: usize, const D: usize> Sip<C, D> {
    /// Before the first word.
    #[inline(always)]
    #[must_use]
    pub fn new(key: SipKey) -> Self {
        Sip([
            key[0] ^ 0x736f_6d65_7073_6575,
            key[1] ^ 0x646f_7261_6e64_6f6d,
            key[0] ^ 0x6c79_6765_6e65_7261,
            key[1] ^ 0x7465_6462_7974_6573,
        ])
    }

    /// The next word.
    #[inline(always)]
    pub fn absorb(&mut self, word: u64) {
        absorb::<C>(&mut self.0, word);
    }

    /// The hash of what was absorbed: `words` words.
    #[inline(always)]
    #[must_use]
    pub fn finish(mut self, words: u64) -> u64 {
        self.absorb((words * 8) << 56);
        let mut v = self.0;
        v[2] ^= 0xff;
        rounds::<D>(&mut v);
        v[0] ^ v[1] ^ v[2] ^ v[3]
    }
}

#[inline(always)]
fn absorb<const C: usize>(v: &mut [u64; 4], word: u64) {
    v[3] ^= word;
    rounds::<C>(v);
    v[0] ^= word;
}

#[inline(always)]
fn rounds<const N: usize>(v: &mut [u64; 4]) {
    for _ in 0..N {
        v[0] = v[0].wrapping_add(v[1]);
        v[2] = v[2].wrapping_add(v[3]);
        v[1] = v[1].rotate_left(13) ^ v[0];
        v[3] = v[3].rotate_left(16) ^ v[2];
        v[0] = v[0].rotate_left(32);
        v[2] = v[2].wrapping_add(v[1]);
        v[0] = v[0].wrapping_add(v[3]);
        v[1] = v[1].rotate_left(17) ^ v[2];
        v[3] = v[3].rotate_left(21) ^ v[0];
        v[2] = v[2].rotate_left(32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::hash::Hasher;
    use siphasher::sip::{SipHasher13, SipHasher24};

    #[test]
    fn agrees_with_the_reference_crate() {
        for length in 0..8 {
            let words: [u64; 8] = core::array::from_fn(|i| 0x9e37_79b9_7f4a_7c15u64.wrapping_mul(i as u64 + 1));
            let (mut slow, mut fast) = (SipHasher24::new_with_keys(1, 2), SipHasher13::new_with_keys(1, 2));
            for word in &words[..length] {
                slow.write(&word.to_le_bytes());
                fast.write(&word.to_le_bytes());
            }
            assert_eq!(siphash::<2, 4>([1, 2], &words[..length]), slow.finish());
            assert_eq!(siphash::<1, 3>([1, 2], &words[..length]), fast.finish());
        }
    }
}
