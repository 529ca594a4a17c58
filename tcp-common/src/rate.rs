//! A rate limit that fits one map field: a token bucket kept as the time at which it will be full again.

/// How many events pass: on average one in each interval, and some at once. A part of CONFIG, too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Rate {
    /// Time in which one more is earned, ns. (CONFIG says what 0 means there.)
    pub interval_ns: u64,
    /// How many pass at once after a pause, at least 1.
    pub burst: u32,
    /// Always zero.
    pub pad: u32,
}

impl Rate {
    /// `rate` a second, up to 1,000,000,000, and `burst` at once; all zeros if `rate` is 0.
    #[must_use]
    pub const fn per_second(rate: u32, burst: u32) -> Rate {
        match rate {
            0 => Rate { interval_ns: 0, burst: 0, pad: 0 },
            _ => Rate { interval_ns: 1_000_000_000 / rate as u64, burst, pad: 0 },
        }
    }
}

/// Lets through what a [`Rate`] allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct RateLimit {
    /// When the bucket will be full, in ns on the caller's clock; in the past: it is.
    full_at_ns: u64,
}

impl RateLimit {
    /// Whether an event at `now_ns` may pass; if so it is charged for.
    #[inline(always)]
    pub fn admit(&mut self, now_ns: u64, rate: &Rate) -> bool {
        let full_at = if self.full_at_ns > now_ns { self.full_at_ns } else { now_ns };
        let admitted = full_at - now_ns <= rate.interval_ns * (u64::from(rate.burst) - 1);
        if admitted {
            self.full_at_ns = full_at + rate.interval_ns;
        }
        admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate::per_second(1_000_000, 10);
    const INTERVAL: u64 = 1_000;

    fn admitted(limit: &mut RateLimit, now: u64, offered: u32) -> usize {
        (0..offered).filter(|_| limit.admit(now, &RATE)).count()
    }

    #[test]
    fn a_rate_of_none_is_all_zeros() {
        assert_eq!(Rate::per_second(0, 10), Rate::default());
        assert_eq!(Rate::per_second(1_000_000, 10), Rate { interval_ns: INTERVAL, burst: 10, pad: 0 });
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
