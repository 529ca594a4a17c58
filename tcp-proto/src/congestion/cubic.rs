//! CUBIC's congestion avoidance (RFC 9438): after a loss the window returns to where the loss was along the curve
//! C x (t - K)^3 + W_max, flat around W_max, and at least as fast as Reno would. Integers only: milliseconds,
//! bytes, and factors in thousandths.

use core::time::Duration;

use super::Acked;
use crate::time::Instant;

/// What a loss leaves of the window: beta_cubic, in thousandths (section 4.6).
const KEPT: u64 = 700;
/// What fast convergence leaves of W_max when the window did not reach it again: (1 + beta) / 2 (section 4.7).
const CONVERGED: u64 = 850;
/// Growth of the Reno-friendly window per window of ACKs: 3 x (1 - beta) / (1 + beta) segments, in thousandths
/// (section 4.3).
const FRIENDLY: u64 = 529;
/// The same once it has reached what the window was at the loss: Reno's.
const FRIENDLY_BEYOND: u64 = 1000;
/// C in segments per second^3, in thousandths (section 5.1).
//= docs/rfc/rfc9438.md#5.1-constants
const C: i128 = 400;
/// Time without growth that does not count, beyond this and beyond so many round trips: the application had nothing to
/// send (section 5.8). ACKs of a window that is short for its path come all at once, a round trip apart.
const PAUSE: Duration = Duration::from_millis(200);
const PAUSE_TRIPS: u32 = 2;

/// What CUBIC remembers.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cubic {
    /// W_max: where the curve is to be flat, bytes; 0: where congestion avoidance begins.
    peak: u32,
    /// cwnd_prior: the window at the last loss, bytes; 0: there was none.
    prior: u32,
    epoch: Option<Epoch>,
}

/// A time of congestion avoidance, from one loss to the next.
#[derive(Clone, Copy, Debug)]
struct Epoch {
    began: Instant,
    /// When the window last grew.
    last: Instant,
    /// K: from the beginning until the curve is back at its origin, ms.
    k: u64,
    /// Where the curve is flat, bytes.
    origin: u32,
    /// W_est: the window Reno would have by now, bytes.
    friendly: u32,
    /// What does not make a whole byte of it yet: thousandths x bytes x bytes.
    fraction: u64,
}

impl Cubic {
    /// What `acked` adds to `window`, bytes.
    //= docs/rfc/rfc9438.md#4.2-target
    //= docs/rfc/rfc9438.md#4.3-friendly
    //= docs/rfc/rfc9438.md#4.4-increment
    //= docs/rfc/rfc9438.md#4.8-curve
    //= docs/rfc/rfc9438.md#4.10-curve
    pub(super) fn growth(&mut self, window: u32, acked: &Acked) -> u32 {
        if self.peak == 0 {
            self.peak = window;
        }
        let (peak, prior) = (self.peak, self.prior);
        let epoch = self.epoch.get_or_insert_with(|| Epoch::begin(window, peak, acked));
        epoch.skip_pause(acked);
        epoch.befriend(window, prior, acked);
        let elapsed = acked.now.since(epoch.began);
        if epoch.curve(elapsed, acked.mss) < u64::from(epoch.friendly) {
            return epoch.friendly.saturating_sub(window);
        }
        let ahead = elapsed + acked.smoothed;
        let target = epoch.curve(ahead, acked.mss).clamp(window.into(), u64::from(window) * 3 / 2);
        ((target - u64::from(window)) * u64::from(acked.bytes.min(window)) / u64::from(window.max(1))) as u32
    }

    /// A loss: what it leaves of the window, bytes.
    //= docs/rfc/rfc9438.md#4.6-decrease
    //= docs/rfc/rfc9438.md#4.7-convergence
    pub(super) fn reduce(&mut self, in_flight: u32) -> u32 {
        self.peak = if in_flight < self.peak { thousandths(in_flight, CONVERGED) } else { in_flight };
        self.prior = in_flight;
        self.epoch = None;
        thousandths(in_flight, KEPT)
    }

    /// A timeout: the window at the loss is no place to return to, and the curve begins flat (section 4.8).
    //= docs/rfc/rfc9438.md#4.8-curve
    pub(super) fn time_out(&mut self) {
        self.peak = 0;
        self.epoch = None;
    }
}

impl Epoch {
    fn begin(window: u32, peak: u32, acked: &Acked) -> Epoch {
        let segments = peak.saturating_sub(window) / acked.mss.max(1);
        // K = cbrt((W_max - cwnd) / C) seconds; in ms that is a factor of 1000 under the root's cube.
        let k = cube_root(u64::from(segments) * 1_000_000_000 * 1000 / C as u64);
        let (began, last) = (acked.now, acked.now);
        Epoch { began, last, k, origin: peak.max(window), friendly: window, fraction: 0 }
    }

    //= docs/rfc/rfc9438.md#4.2-limited
    fn skip_pause(&mut self, acked: &Acked) {
        let pause = acked.now.since(self.last);
        if pause > PAUSE.max(acked.smoothed * PAUSE_TRIPS) {
            self.began += pause;
        }
        self.last = acked.now;
    }

    /// W_est grows with every byte that is acknowledged.
    //= docs/rfc/rfc9438.md#4.3-friendly
    //= docs/rfc/rfc9438.md#4.3-alpha
    fn befriend(&mut self, window: u32, prior: u32, acked: &Acked) {
        let factor = if self.friendly >= prior { FRIENDLY_BEYOND } else { FRIENDLY };
        self.fraction += factor * u64::from(acked.bytes) * u64::from(acked.mss);
        let byte = 1000 * u64::from(window.max(1));
        self.friendly = self.friendly.saturating_add((self.fraction / byte) as u32);
        self.fraction %= byte;
    }

    /// W_cubic(t), bytes.
    //= docs/rfc/rfc9438.md#4.2-curve
    fn curve(&self, elapsed: Duration, mss: u32) -> u64 {
        let t = elapsed.as_millis() as i128 - i128::from(self.k);
        let offset = C * t * t * t * i128::from(mss) / 1_000_000_000_000;
        (i128::from(self.origin) + offset).clamp(0, u32::MAX.into()) as u64
    }
}

fn thousandths(of: u32, factor: u64) -> u32 {
    (u64::from(of) * factor / 1000) as u32
}

/// The largest integer whose cube is not more than `n`.
fn cube_root(n: u64) -> u64 {
    // 2^22 is the least power of two whose cube is above every u64.
    let (mut low, mut high) = (0u64, 1 << 22);
    while high - low > 1 {
        let middle = (low + high) / 2;
        if u128::from(middle).pow(3) <= n.into() { low = middle } else { high = middle }
    }
    low
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seq::SeqNum;

    const MSS: u32 = 1000;

    fn acked(ms: u64, bytes: u32) -> Acked {
        let now = Instant::from_millis(ms);
        Acked {
            bytes,
            in_flight: 0,
            mss: MSS,
            una: SeqNum(0),
            next: SeqNum(0),
            now,
            rtt: None,
            smoothed: Duration::ZERO,
        }
    }

    #[test]
    fn cube_roots_are_rounded_down() {
        for (n, root) in [(0, 0), (1, 1), (7, 1), (8, 2), (26, 2), (27, 3), (u64::MAX, 2_642_245)] {
            assert_eq!(cube_root(n), root, "{n}");
        }
    }

    //= docs/rfc/rfc9438.md#4.2-curve
    //= docs/rfc/rfc9438.md#4.6-decrease
    //= docs/rfc/rfc9438.md#5.1-constants
    #[test]
    fn the_curve_is_back_at_the_loss_after_k_and_flat_there() {
        let mut cubic = Cubic::default();
        assert_eq!(cubic.reduce(1_000_000), 700_000);
        // K = cbrt(300 / 0.4) = 9.086 s.
        let epoch = Epoch::begin(700_000, cubic.peak, &acked(0, 0));
        assert_eq!(epoch.k, 9085);
        let at = |ms| epoch.curve(Duration::from_millis(ms), MSS);
        assert!((699_000..=701_000).contains(&at(0)), "{}", at(0));
        assert_eq!(at(9085), 1_000_000);
        assert!(at(8085) >= 999_000 && at(10_085) <= 1_001_000);
        assert!(at(18_170) > 1_299_000);
    }

    //= docs/rfc/rfc9438.md#4.7-convergence
    #[test]
    fn a_window_that_did_not_reach_the_last_peak_gives_way() {
        let mut cubic = Cubic::default();
        cubic.reduce(1_000_000);
        assert_eq!(cubic.reduce(900_000), 630_000);
        assert_eq!(cubic.peak, 765_000);
    }

    //= docs/rfc/rfc9438.md#4.3-friendly
    #[test]
    fn where_renos_growth_is_faster_it_is_renos() {
        let mut cubic = Cubic::default();
        let mut window = cubic.reduce(20_000);
        // A round trip of 10 ms: the curve has hardly moved after 100 of them.
        for round in 0..20 {
            let mut left = window;
            while left > 0 {
                window += cubic.growth(window, &acked(10 * round, MSS));
                left = left.saturating_sub(MSS);
            }
        }
        assert!((22_000..=36_000).contains(&window), "{window}");
    }

    //= docs/rfc/rfc9438.md#4.3-alpha
    #[test]
    fn beyond_the_window_of_the_loss_it_grows_as_fast_as_reno() {
        let mut cubic = Cubic::default();
        cubic.reduce(20_000);
        let mut window = 20_000;
        for _ in 0..20 {
            window += cubic.growth(window, &acked(0, MSS));
        }
        assert!((20_900..=21_000).contains(&window), "{window}");
    }

    //= docs/rfc/rfc9438.md#4.3-alpha
    #[test]
    fn what_fast_convergence_takes_from_the_peak_does_not_make_reno_begin_earlier() {
        let mut cubic = Cubic::default();
        cubic.reduce(40_000);
        let mut window = cubic.reduce(20_000);
        assert_eq!((cubic.peak, cubic.prior), (17_000, 20_000));
        window = 18_000.max(window);
        for _ in 0..18 {
            window += cubic.growth(window, &acked(0, MSS));
        }
        assert!((18_400..=18_550).contains(&window), "half a segment per round trip, not one: {window}");
    }

    //= docs/rfc/rfc9438.md#4.8-curve
    //= docs/rfc/rfc9438.md#4.10-curve
    #[test]
    fn after_a_timeout_or_a_slow_start_without_a_loss_the_curve_begins_flat() {
        let mut after_timeout = Cubic::default();
        after_timeout.reduce(1_000_000);
        after_timeout.time_out();
        for mut cubic in [after_timeout, Cubic::default()] {
            cubic.growth(700_000, &acked(0, MSS));
            let epoch = cubic.epoch.expect("congestion avoidance");
            assert_eq!((epoch.k, epoch.origin), (0, 700_000));
            assert_eq!(epoch.curve(Duration::from_millis(10_000), MSS), 1_100_000);
        }
    }

    //= docs/rfc/rfc9438.md#4.2-target
    //= docs/rfc/rfc9438.md#4.4-increment
    #[test]
    fn each_ack_brings_its_share_of_the_way_to_where_the_curve_is_a_round_trip_later() {
        let mut cubic = Cubic::default();
        let window = cubic.reduce(1_000_000);
        let ack = |ms| Acked { smoothed: Duration::from_millis(1000), ..acked(ms, MSS) };
        cubic.growth(window, &ack(0));
        // Below the peak: 1,000,000 - 400 x (9.085 - 1.1)^3 is 796,352.
        assert_eq!(cubic.growth(window, &ack(100)), (796_352 - window) / 700);
        // Above it: 1,000,000 + 400 x (12.1 - 9.085)^3 is 1,010,962.
        for pause in 1..=110 {
            cubic.growth(1_000_000, &ack(100 + 100 * pause));
        }
        assert_eq!(cubic.growth(1_000_000, &ack(11_100)), 10_962 / 1000);
    }

    //= docs/rfc/rfc9438.md#4.2-target
    #[test]
    fn a_window_of_acks_adds_no_more_than_half_of_it() {
        let mut cubic = Cubic::default();
        let window = cubic.reduce(100_000);
        cubic.growth(window, &acked(0, MSS));
        // The curve is far above by now.
        let at = (1..=1000).map(|tick| cubic.growth(window, &acked(100 * tick, MSS))).last();
        assert_eq!(at, Some(MSS / 2), "of each acknowledged octet a half");
    }

    //= docs/rfc/rfc9438.md#4.2-limited
    #[test]
    fn a_pause_does_not_let_the_window_jump() {
        let mut cubic = Cubic::default();
        let window = cubic.reduce(1_000_000);
        cubic.growth(window, &acked(0, MSS));
        assert!(cubic.growth(window, &acked(60_000, MSS)) <= 2 * MSS);
    }

    //= docs/rfc/rfc9438.md#4.2-curve
    #[test]
    fn round_trips_are_no_pauses_however_long_they_are() {
        for trip in [50, 500, 10_000] {
            let mut cubic = Cubic::default();
            let mut window = cubic.reduce(100_000);
            // A window of ACKs at a time, until 20 s after the loss; K is 4.2 s.
            for at in (0..=20_000).step_by(trip as usize) {
                let ack = Acked { smoothed: Duration::from_millis(trip), ..acked(at, window) };
                window += cubic.growth(window, &ack);
            }
            assert!(window > 150_000, "{window} with round trips of {trip} ms");
        }
    }
}
