//! Congestion control: how much may be in flight (RFC 5681, RFC 6928 for the initial window, RFC 3465 for
//! counting bytes instead of ACKs). What was lost is [`crate::recovery`]'s business.

/// Largest congestion window, bytes: what a scaled window can reach.
const MAX_WINDOW: u32 = 1 << 30;

/// Segments that one ACK adds to the window in slow start, at most, however many it acknowledges (RFC 3465
/// section 2.2); after a timeout one, because then an ACK may cover what was received long before (section 2.3).
const SLOW_START_LIMIT: u32 = 2;
const SLOW_START_LIMIT_AFTER_TIMEOUT: u32 = 1;

/// An algorithm that decides how much may be in flight. Bytes throughout.
pub(crate) trait CongestionControl {
    /// `acked` bytes of new data were acknowledged outside of recovery; `in_flight` were before.
    fn on_ack(&mut self, acked: u32, in_flight: u32, mss: u32);
    /// A loss was found by duplicate ACKs with `in_flight` bytes outstanding.
    fn on_loss(&mut self, in_flight: u32, mss: u32);
    /// The retransmission timer expired with `in_flight` bytes outstanding; `first`: for this data.
    fn on_timeout(&mut self, in_flight: u32, mss: u32, first: bool);
    /// Recovery ended with `in_flight` bytes outstanding.
    fn on_recovered(&mut self, in_flight: u32, mss: u32);
    /// Nothing was sent for longer than an RTO: the window tells nothing about the path any more.
    fn on_idle(&mut self, mss: u32);
    /// The congestion window.
    fn window(&self) -> u32;
    /// The slow-start threshold; `None` before the first loss.
    fn threshold(&self) -> Option<u32>;
    /// The contract's name of the algorithm.
    fn name(&self) -> &'static str;
}

/// Initial window: ten segments, at most 14,600 bytes unless two segments are more (RFC 6928 section 2).
pub(crate) fn initial_window(mss: u32) -> u32 {
    (10 * mss).min(14_600.max(2 * mss))
}

/// Reno (RFC 5681).
#[derive(Clone, Debug)]
pub(crate) struct Reno {
    window: u32,
    threshold: u32,
    /// Bytes acknowledged since the window last grew in congestion avoidance.
    acked: u32,
    /// Whether slow start follows a timeout.
    after_timeout: bool,
}

impl Reno {
    pub(crate) fn new(mss: u32) -> Self {
        Reno { window: initial_window(mss), threshold: u32::MAX, acked: 0, after_timeout: false }
    }

    fn grow(&mut self, by: u32) {
        self.window = self.window.saturating_add(by).min(MAX_WINDOW);
    }

    fn halve(&mut self, in_flight: u32, mss: u32) {
        self.threshold = (in_flight / 2).max(2 * mss);
        self.acked = 0;
    }

    /// In slow start: what was acknowledged, up to a limit.
    fn start(&mut self, acked: u32, mss: u32) {
        let limit = if self.after_timeout { SLOW_START_LIMIT_AFTER_TIMEOUT } else { SLOW_START_LIMIT };
        self.grow(acked.min(limit * mss));
    }

    /// In congestion avoidance: a segment per window of acknowledged bytes.
    fn avoid(&mut self, acked: u32, mss: u32) {
        self.acked = self.acked.saturating_add(acked);
        if self.acked >= self.window {
            self.acked -= self.window;
            self.grow(mss);
        }
    }
}

impl CongestionControl for Reno {
    fn on_ack(&mut self, acked: u32, in_flight: u32, mss: u32) {
        let slow_start = self.window < self.threshold;
        // A window that was not used proves nothing (RFC 7661): it does not grow.
        let used = if slow_start { in_flight.saturating_mul(2) >= self.window } else { in_flight + mss >= self.window };
        match (used, slow_start) {
            (true, true) => self.start(acked, mss),
            (true, false) => self.avoid(acked, mss),
            (false, _) => {}
        }
    }

    fn on_loss(&mut self, in_flight: u32, mss: u32) {
        self.halve(in_flight, mss);
        self.window = self.threshold;
    }

    fn on_timeout(&mut self, in_flight: u32, mss: u32, first: bool) {
        if first {
            self.halve(in_flight, mss);
        }
        self.window = mss;
        self.after_timeout = true;
    }

    fn on_recovered(&mut self, in_flight: u32, mss: u32) {
        self.after_timeout = false;
        // What is not in flight would leave as one burst (RFC 6582 section 3.2, step 3).
        self.window = self.window.min(in_flight.max(mss) + mss);
    }

    fn on_idle(&mut self, mss: u32) {
        self.window = self.window.min(initial_window(mss));
    }

    fn window(&self) -> u32 {
        self.window
    }

    fn threshold(&self) -> Option<u32> {
        (self.threshold != u32::MAX).then_some(self.threshold)
    }

    fn name(&self) -> &'static str {
        "reno"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MSS: u32 = 1000;

    #[test]
    fn slow_start_doubles_per_round_trip_and_avoidance_adds_a_segment() {
        let mut reno = Reno::new(MSS);
        assert_eq!((reno.window(), reno.threshold()), (10_000, None));
        for _ in 0..10 {
            reno.on_ack(MSS, reno.window(), MSS);
        }
        assert_eq!(reno.window(), 20_000);
        reno.on_loss(20_000, MSS);
        assert_eq!((reno.window(), reno.threshold()), (10_000, Some(10_000)));
        for _ in 0..10 {
            reno.on_ack(MSS, reno.window(), MSS);
        }
        assert_eq!(reno.window(), 11_000);
    }

    #[test]
    fn an_ack_of_many_segments_adds_two_and_after_a_timeout_one() {
        let mut reno = Reno::new(MSS);
        reno.on_ack(5 * MSS, 10 * MSS, MSS);
        assert_eq!(reno.window(), 12 * MSS);
        reno.on_timeout(12 * MSS, MSS, true);
        reno.on_ack(5 * MSS, MSS, MSS);
        assert_eq!(reno.window(), 2 * MSS);
    }

    #[test]
    fn a_timeout_starts_over_and_a_second_one_does_not_halve_again() {
        let mut reno = Reno::new(MSS);
        reno.on_timeout(10_000, MSS, true);
        assert_eq!((reno.window(), reno.threshold()), (MSS, Some(5_000)));
        reno.on_timeout(MSS, MSS, false);
        assert_eq!(reno.threshold(), Some(5_000));
    }

    #[test]
    fn an_unused_window_does_not_grow() {
        let mut reno = Reno::new(MSS);
        for _ in 0..100 {
            reno.on_ack(100, 100, MSS);
        }
        assert_eq!(reno.window(), 10_000);
    }

    #[test]
    fn the_initial_window_is_that_of_rfc_6928() {
        assert_eq!(initial_window(1460), 14_600);
        assert_eq!(initial_window(536), 5_360);
        assert_eq!(initial_window(8960), 17_920);
    }
}
