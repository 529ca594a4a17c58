//! HyStart++ (RFC 9406): slow start ends when round trips get longer, before a loss tells. Rounds end when what was
//! sent at their beginning is acknowledged; after a first sign the window grows more slowly for some rounds, and
//! faster again if it was a false one.

use super::Acked;
use crate::seq::SeqNum;

/// Bounds of the increase of the round trip that counts, us (section 4.2: MIN_RTT_THRESH and MAX_RTT_THRESH).
const LEAST_INCREASE_US: u32 = 4_000;
const MOST_INCREASE_US: u32 = 16_000;
/// The increase that counts, as a fraction of the round trip (MIN_RTT_DIVISOR).
const INCREASE_DIVISOR: u32 = 8;
/// Samples of a round before it tells anything (N_RTT_SAMPLE).
const SAMPLES: u8 = 8;
/// How much slower conservative slow start grows (CSS_GROWTH_DIVISOR), and for how many rounds (CSS_ROUNDS).
const SLOWER: u32 = 4;
const SLOWER_ROUNDS: u8 = 5;

/// Where slow start is.
#[derive(Clone, Debug)]
pub(super) struct HyStart {
    phase: Phase,
    /// SND.NXT when the round began; `None` before the first.
    round_end: Option<SeqNum>,
    /// Shortest round trip of the last round and of this one, us; `u32::MAX`: none.
    last_us: u32,
    current_us: u32,
    /// Samples of this round.
    samples: u8,
}

/// What round trips make of slow start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SlowStart {
    /// Nothing.
    Standard,
    /// It grows more slowly.
    Slowed,
    /// It is over.
    Ended,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Standard,
    /// Conservative slow start: the shortest round trip when it began, us, and its rounds.
    Conservative {
        baseline_us: u32,
        rounds: u8,
    },
    Over,
}

impl Default for HyStart {
    fn default() -> Self {
        HyStart { phase: Phase::Standard, round_end: None, last_us: u32::MAX, current_us: u32::MAX, samples: 0 }
    }
}

impl HyStart {
    /// By what the growth for `acked` is to be divided.
    //= docs/rfc/rfc9406.md#4.2-css
    //= docs/rfc/rfc9406.md#4.2-rounds
    pub(super) fn divisor(&mut self, acked: &Acked) -> u32 {
        if self.round_end.is_none_or(|end| acked.una.at_or_after(end)) {
            self.begin_round(acked.next);
        }
        if let Some(rtt) = acked.rtt {
            self.current_us = self.current_us.min(u32::try_from(rtt.as_micros()).unwrap_or(u32::MAX));
            self.samples = self.samples.saturating_add(1);
        }
        self.judge();
        if self.phase == Phase::Standard { 1 } else { SLOWER }
    }

    /// Where it is.
    pub(super) fn is(&self) -> SlowStart {
        match self.phase {
            Phase::Standard => SlowStart::Standard,
            Phase::Conservative { .. } => SlowStart::Slowed,
            Phase::Over => SlowStart::Ended,
        }
    }

    /// Whether congestion avoidance is to begin.
    pub(super) fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }

    //= docs/rfc/rfc9406.md#4.2-rounds
    //= docs/rfc/rfc9406.md#4.2-end
    fn begin_round(&mut self, next: SeqNum) {
        self.round_end = Some(next);
        self.last_us = self.current_us;
        self.current_us = u32::MAX;
        self.samples = 0;
        if let Phase::Conservative { rounds, .. } = &mut self.phase {
            *rounds += 1;
            if *rounds >= SLOWER_ROUNDS {
                self.phase = Phase::Over;
            }
        }
    }

    //= docs/rfc/rfc9406.md#4.2-exit
    //= docs/rfc/rfc9406.md#4.2-back
    fn judge(&mut self) {
        if self.samples < SAMPLES {
            return;
        }
        match self.phase {
            Phase::Standard if self.last_us != u32::MAX && self.current_us >= self.last_us + self.increase() => {
                self.phase = Phase::Conservative { baseline_us: self.current_us, rounds: 0 };
            }
            Phase::Conservative { baseline_us, .. } if self.current_us < baseline_us => self.phase = Phase::Standard,
            _ => {}
        }
    }

    fn increase(&self) -> u32 {
        (self.last_us / INCREASE_DIVISOR).clamp(LEAST_INCREASE_US, MOST_INCREASE_US)
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;
    use crate::time::Instant;

    /// A round of ten ACKs with round trips of `ms`; the divisor of the last one.
    fn round(start: &mut HyStart, n: u32, ms: u64) -> u32 {
        acks(start, n, ms, 10)
    }

    /// The first `count` ACKs of such a round.
    fn acks(start: &mut HyStart, n: u32, ms: u64, count: u32) -> u32 {
        let mut divisor = 0;
        for ack in 0..count {
            divisor = start.divisor(&Acked {
                bytes: 1000,
                in_flight: 10_000,
                mss: 1000,
                una: SeqNum(10_000 * n + 1000 * ack),
                next: SeqNum(10_000 * (n + 1) + 1000 * ack),
                now: Instant::from_millis(0),
                rtt: Some(Duration::from_millis(ms)),
                smoothed: Duration::from_millis(ms),
            });
        }
        divisor
    }

    #[test]
    fn steady_round_trips_never_end_slow_start() {
        let mut start = HyStart::default();
        for n in 0..50 {
            assert_eq!(round(&mut start, n, 50 + u64::from(n % 3)), 1, "round {n}");
        }
        assert!(!start.is_over());
    }

    //= docs/rfc/rfc9406.md#4.2-rounds
    //= docs/rfc/rfc9406.md#4.2-exit
    //= docs/rfc/rfc9406.md#4.2-css
    //= docs/rfc/rfc9406.md#4.2-end
    #[test]
    fn longer_round_trips_slow_it_down_and_end_it_after_five_rounds() {
        let mut start = HyStart::default();
        assert_eq!(round(&mut start, 0, 50), 1);
        assert_eq!(round(&mut start, 1, 57), SLOWER, "an eighth of 50 ms more");
        for n in 2..6 {
            assert_eq!(round(&mut start, n, 60), SLOWER);
            assert!(!start.is_over(), "round {n}");
        }
        round(&mut start, 6, 60);
        assert!(start.is_over());
    }

    //= docs/rfc/rfc9406.md#4.2-exit
    #[test]
    fn what_counts_as_longer_lies_between_4_and_16_ms() {
        for (before, after, divisor) in [(8, 11, 1), (8, 12, SLOWER), (80, 89, 1), (80, 90, SLOWER)] {
            assert_eq!(round_after(before, after), divisor, "{before} ms, then {after} ms");
        }
        assert_eq!((round_after(400, 415), round_after(400, 416)), (1, SLOWER));
    }

    fn round_after(before: u64, after: u64) -> u32 {
        let mut start = HyStart::default();
        round(&mut start, 0, before);
        round(&mut start, 1, after)
    }

    //= docs/rfc/rfc9406.md#4.2-rounds
    #[test]
    fn seven_samples_tell_nothing_and_eight_do() {
        for (count, divisor) in [(7, 1), (8, SLOWER)] {
            let mut start = HyStart::default();
            round(&mut start, 0, 50);
            assert_eq!(acks(&mut start, 1, 100, count), divisor, "{count} samples");
        }
    }

    //= docs/rfc/rfc9406.md#4.2-back
    #[test]
    fn a_false_sign_is_taken_back() {
        let mut start = HyStart::default();
        round(&mut start, 0, 50);
        assert_eq!(round(&mut start, 1, 60), SLOWER);
        assert_eq!(round(&mut start, 2, 50), 1);
        assert!(!start.is_over());
    }
}
