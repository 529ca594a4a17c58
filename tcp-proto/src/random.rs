//! Chance, from the stack's seed alone: SipHash of a counter. Who does not know the seed can't predict it,
//! and who does can repeat a run.

use tcp_common::siphash::{SipKey, siphash};

/// A source of unpredictable numbers.
#[derive(Clone, Debug)]
pub(crate) struct Random {
    key: SipKey,
    counter: u64,
}

impl Random {
    pub(crate) fn new(key: SipKey) -> Self {
        Random { key, counter: 0 }
    }

    /// 32 random bits.
    pub(crate) fn next(&mut self) -> u32 {
        self.counter += 1;
        siphash::<2, 4>(self.key, &[self.counter]) as u32
    }

    /// A number below `limit` (which is above 0), as good as uniform.
    pub(crate) fn below(&mut self, limit: u32) -> u32 {
        ((u64::from(self.next()) * u64::from(limit)) >> 32) as u32
    }
}
