//! What is said: bytes that whoever knows the talk, the side and the offset can tell again.

use std::sync::OnceLock;

/// Bytes of a stream that are looked at together, at most.
pub const LARGEST_PIECE: usize = 70_000;
/// A prime, so that no piece of a stream is like its neighbours.
const PERIOD: usize = 131_071;

/// Bytes of the stream that `side` sends in talk `talk`, from `offset` on.
#[must_use]
pub fn stream(side: usize, talk: usize, offset: usize, length: usize) -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    let bytes = BYTES.get_or_init(|| {
        let mut chance = crate::chance::Chance::new(1);
        let period: Vec<u8> = (0..PERIOD).map(|_| chance.draw() as u8).collect();
        period.iter().cycle().take(PERIOD + LARGEST_PIECE).copied().collect()
    });
    let start = (offset + 9973 * talk + 104_729 * side) % PERIOD;
    &bytes[start..start + length]
}
