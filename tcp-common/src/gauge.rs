//! When a listener answers SYNs with cookies under `syn_cookies = auto`: while more SYNs arrive in a window of time
//! than its SYN queue could take, and for a while after it.
//!
//! One value per listener, which all CPUs read, change and write back without locks: they lose a few counts to each
//! other, and a rate that matters is thousands of times as high.

use crate::cookie;

/// Time over which SYNs are counted, ns (134 ms).
pub const WINDOW_NS: u64 = 1 << 27;
/// How long a listener answers with cookies after the rate has fallen, ns.
pub const HOLD_NS: u64 = 5_000_000_000;

/// The SYNs of a listener.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Gauge {
    /// When the window began, CLOCK_MONOTONIC in ns.
    pub window_ns: u64,
    /// SYNs in it.
    pub syns: u64,
    /// Until when SYNs are answered with cookies, CLOCK_MONOTONIC in ns.
    pub until_ns: u64,
}

/// What a SYN did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// It is to be steered.
    Calm,
    /// It is to be answered with a cookie.
    Flooded,
    /// It is the first to be answered with a cookie.
    Rises,
}

impl Gauge {
    /// Counts a SYN that arrived at `now_ns`. From more than `most` in a window on cookies are on; they stay on as long
    /// as half as many arrive, and [`HOLD_NS`] longer.
    #[inline(always)]
    pub fn note(&mut self, now_ns: u64, most: u32) -> Reading {
        let was_on = self.is_on(now_ns);
        let syns = self.count(now_ns);
        let keeps = if was_on { u64::from(most) / 2 } else { u64::from(most) };
        if syns > keeps {
            self.until_ns = now_ns + HOLD_NS;
        }
        match (was_on, syns > keeps) {
            (true, _) => Reading::Flooded,
            (false, true) => Reading::Rises,
            (false, false) => Reading::Calm,
        }
    }

    /// SYNs of this window, with the one that arrived now.
    #[inline(always)]
    fn count(&mut self, now_ns: u64) -> u64 {
        if now_ns.wrapping_sub(self.window_ns) >= WINDOW_NS {
            (self.window_ns, self.syns) = (now_ns, 0);
        }
        self.syns += 1;
        self.syns
    }

    /// Whether SYNs are answered with cookies.
    #[inline(always)]
    pub fn is_on(&self, now_ns: u64) -> bool {
        now_ns < self.until_ns
    }

    /// Whether cookies that were given out may still come back.
    #[inline(always)]
    pub fn was_on(&self, now_ns: u64) -> bool {
        may_come_back(self.until_ns, now_ns)
    }
}

/// Whether cookies given out until `until_ns` (0: never any) may still come back.
#[inline(always)]
pub fn may_come_back(until_ns: u64, now_ns: u64) -> bool {
    until_ns != 0 && now_ns < until_ns + 2 * cookie::EPOCH_NS
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: u32 = 100;

    fn notes(gauge: &mut Gauge, at: u64, count: u32) -> Reading {
        (0..count).map(|_| gauge.note(at, MOST)).last().expect("some")
    }

    #[test]
    fn more_syns_than_fit_into_a_window_turn_cookies_on_and_silence_turns_them_off() {
        let (mut gauge, start) = (Gauge::default(), 1_000_000_000_000);
        assert_eq!(notes(&mut gauge, start, MOST), Reading::Calm);
        assert_eq!(notes(&mut gauge, start + WINDOW_NS, MOST), Reading::Calm, "a new window begins at zero");
        assert_eq!(gauge.note(start + WINDOW_NS, MOST), Reading::Rises);
        assert_eq!(gauge.note(start + WINDOW_NS, MOST), Reading::Flooded);
        let later = start + WINDOW_NS + HOLD_NS;
        assert!(gauge.is_on(later - 1) && !gauge.is_on(later));
        assert_eq!(gauge.note(later, MOST), Reading::Calm);
        assert!(gauge.was_on(later) && !gauge.was_on(later + 2 * cookie::EPOCH_NS));
    }

    #[test]
    fn half_the_rate_keeps_cookies_on_and_less_does_not() {
        let (mut gauge, mut now) = (Gauge::default(), 1_000_000_000_000);
        notes(&mut gauge, now, MOST + 1);
        for _ in 0..200 {
            now += WINDOW_NS;
            assert_eq!(notes(&mut gauge, now, MOST / 2 + 1), Reading::Flooded);
        }
        let last = now;
        while gauge.is_on(now) {
            now += WINDOW_NS;
            notes(&mut gauge, now, MOST / 2);
        }
        assert!(now - last >= HOLD_NS && now - last < HOLD_NS + WINDOW_NS);
    }

    #[test]
    fn a_listener_that_never_gave_out_a_cookie_takes_none() {
        assert!(!Gauge::default().was_on(1));
    }
}
