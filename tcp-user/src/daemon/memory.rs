//! When to give memory back to the system: a peak of connections with full buffers leaves hundreds of megabytes free in
//! the allocator, which by itself gives back only what lies at the end of its heaps.

/// What is worth the walk over all free memory, bytes: while more and more gets free, and once it has stopped.
const MUCH: u64 = 16 << 20;
const SOME: u64 = 1 << 20;

/// Finds out when much of what buffers took is free.
#[derive(Debug, Default)]
pub(super) struct Ebb {
    /// Bytes that buffers had freed when memory was given back last.
    given_back: u64,
    /// And when they were looked at last.
    seen: u64,
}

impl Ebb {
    /// Whether memory is to be given back: buffers take `used` bytes, and have freed `freed` so far.
    pub(super) fn is_low(&mut self, used: usize, freed: u64) -> bool {
        let since = freed - self.given_back;
        let worth = if freed == self.seen { SOME } else { MUCH };
        self.seen = freed;
        let low = since >= worth && since / 2 >= used as u64;
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
        assert!(low(100, 201));
        assert!(!low(0, 201) && !low(0, 216));
        assert!(low(0, 217));
    }

    #[test]
    fn a_little_is_given_back_once_no_more_gets_free() {
        let mut ebb = Ebb::default();
        let mut low = |freed: u64| ebb.is_low(0, freed << 20);
        assert!(!low(5) && low(5) && !low(5));
        assert!(!low(6) && !low(7) && low(7) && !low(7));
    }
}
