//! Sets of sequence numbers: which octets of a stream have been seen.

/// Half-open ranges in order, none of which touches the next.
#[derive(Clone, Debug, Default)]
pub struct Ranges(Vec<(i64, i64)>);

impl Ranges {
    /// Adds `start..end`.
    pub fn add(&mut self, start: i64, end: i64) {
        if start >= end {
            return;
        }
        // Mostly what is added goes on where the last range ends.
        if let Some(last) = self.0.last_mut().filter(|last| last.0 <= start && start <= last.1) {
            last.1 = last.1.max(end);
            return;
        }
        let first = self.0.partition_point(|range| range.1 < start);
        let after = self.0.partition_point(|range| range.0 <= end);
        let merged = self.0[first..after].iter().fold((start, end), |all, one| (all.0.min(one.0), all.1.max(one.1)));
        self.0.splice(first..after, [merged]);
    }

    /// Whether all of `start..end` is in the set.
    #[must_use]
    pub fn holds(&self, start: i64, end: i64) -> bool {
        let at = self.0.partition_point(|range| range.1 < end);
        start >= end || self.0.get(at).is_some_and(|range| range.0 <= start && end <= range.1)
    }

    /// Where the range ends that begins at or before 0; 0 if there is none.
    #[must_use]
    pub fn contiguous(&self) -> i64 {
        self.0.first().filter(|first| first.0 <= 0).map_or(0, |first| first.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_touch_or_overlap_become_one() {
        let mut ranges = Ranges::default();
        for (start, end) in [(0, 1), (10, 20), (30, 40), (1, 3), (15, 25), (25, 30)] {
            ranges.add(start, end);
        }
        assert_eq!(ranges.0, [(0, 3), (10, 40)]);
        assert_eq!(ranges.contiguous(), 3);
        assert!(ranges.holds(10, 40) && ranges.holds(12, 13) && ranges.holds(5, 5));
        assert!(!ranges.holds(2, 11) && !ranges.holds(9, 11) && !ranges.holds(39, 41));
        ranges.add(3, 10);
        assert_eq!(ranges.0, [(0, 40)]);
    }

    #[test]
    fn a_range_in_the_middle_of_others_touches_neither() {
        let mut ranges = Ranges::default();
        for (start, end) in [(0, 1), (100, 200), (50, 60), (70, 80)] {
            ranges.add(start, end);
        }
        assert_eq!(ranges.0, [(0, 1), (50, 60), (70, 80), (100, 200)]);
    }
}
