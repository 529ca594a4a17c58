//! When to give memory back to the system: a peak of connections with full buffers leaves hundreds of megabytes free in
//! the allocator, which by itself gives back only what lies at the end of its heaps.

/// What is worth the walk over all free memory, bytes.
const WORTH_GIVING_BACK: u64 = 16 << 20;

/// Finds out when much of what buffers took is free.
#[derive(Debug, Default)]
pub(super) struct Ebb {
    /// Bytes that buffers had freed when memory was given back last.
    given_back: u64,
}

impl Ebb {
    /// Whether memory is to be given back: buffers take `used` bytes, and have freed `freed` so far.
    pub(super) fn is_low(&mut self, used: usize, freed: u64) -> bool {
        let since = freed - self.given_back;
        let low = since >= WORTH_GIVING_BACK && since / 2 >= used as u64;
        if low {
            self.given_back = freed;
        }
        low
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_given_back_once_after_much_of_it_was_freed_and_hardly_any_is_used() {
        let mut ebb = Ebb::default();
        let mut low = |used: usize, freed: u64| ebb.is_low(used << 20, freed << 20);
        assert!(!low(300, 0) && !low(200, 100) && !low(101, 200));
        assert!(low(100, 200));
        assert!(!low(0, 200) && !low(0, 215));
        assert!(low(0, 216));
    }
}
