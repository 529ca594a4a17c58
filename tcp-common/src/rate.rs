//! A rate limit that fits one map field: a token bucket kept as the time at which it will be full again.

/// Lets through at most one event per interval on average, and a burst at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct RateLimit {
    /// When the bucket will be full, in ns on the caller's clock; in the past: it is.
    full_at_ns: u64,
}

impl RateLimit {
    /// Whether an event at `now_ns` may pass; if so it is charged for.
    ///
    /// `interval_ns` is the time in which one more event is earned, `burst` how many may pass at once.
    #[inline(always)]
    pub fn admit(&mut self, now_ns: u64, interval_ns: u64, burst: u64) -> bool {
        let full_at = if self.full_at_ns > now_ns { self.full_at_ns } else { now_ns };
        let admitted = full_at - now_ns <= interval_ns * (burst - 1);
        if admitted {
            self.full_at_ns = full_at + interval_ns;
        }
        admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: u64 = 1_000;

    fn admitted(limit: &mut RateLimit, now: u64, offered: u32) -> usize {
        (0..offered).filter(|_| limit.admit(now, INTERVAL, 10)).count()
    }

    #[test]
    fn a_burst_passes_and_the_next_event_waits_for_its_interval() {
        let mut limit = RateLimit::default();
        assert_eq!(admitted(&mut limit, 5_000_000, 100), 10);
        assert_eq!(admitted(&mut limit, 5_000_000 + INTERVAL - 1, 100), 0);
        assert_eq!(admitted(&mut limit, 5_000_000 + INTERVAL, 100), 1);
    }

    #[test]
    fn an_idle_limit_earns_no_more_than_a_burst() {
        let mut limit = RateLimit::default();
        admitted(&mut limit, 0, 100);
        assert_eq!(admitted(&mut limit, u64::MAX / 2, 100), 10);
    }
}
