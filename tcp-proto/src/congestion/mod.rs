//! Congestion control: how much may be in flight (RFC 5681, RFC 6928 for the initial window, RFC 3465 for
//! counting bytes instead of ACKs). Slow start is here, with HyStart++ ([`hystart`]) where the algorithm is CUBIC;
//! congestion avoidance is Reno's or CUBIC's ([`cubic`]). What was lost is [`crate::recovery`]'s business.

mod cubic;
mod hystart;

use core::time::Duration;

use crate::config::CongestionAlgorithm;
use crate::seq::SeqNum;
use crate::time::Instant;
use cubic::Cubic;
use hystart::HyStart;
pub(crate) use hystart::SlowStart;

/// Largest congestion window, bytes: what a scaled window can reach.
const MAX_WINDOW: u32 = 1 << 30;

/// Segments that one ACK adds to the window in slow start, at most, however many it acknowledges (RFC 3465
/// section 2.2): Reno's, and CUBIC's (RFC 9406 section 4.3), because receivers acknowledge once what their network cards
/// joined; after a timeout one, because then an ACK may cover what was received long before (RFC 3465 section 2.3).
//= docs/rfc/rfc3465.md#2.3-limit
const SLOW_START_LIMIT_RENO: u32 = 2;
//= docs/rfc/rfc9406.md#4.2-limit
const SLOW_START_LIMIT_CUBIC: u32 = 8;
//= docs/rfc/rfc3465.md#2.3-after-timeout
const SLOW_START_LIMIT_AFTER_TIMEOUT: u32 = 1;

/// Initial window: ten segments, at most 14,600 bytes unless two segments are more (RFC 6928 section 2).
//= docs/rfc/rfc6928.md#2-initial
pub(crate) fn initial_window(mss: u32) -> u32 {
    (10 * mss).min(14_600.max(2 * mss))
}

/// An ACK of new data outside of fast recovery.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Acked {
    /// Bytes of new data it acknowledged.
    pub(crate) bytes: u32,
    /// Bytes that were in flight before it.
    pub(crate) in_flight: u32,
    /// Full-sized segment, bytes.
    pub(crate) mss: u32,
    /// SND.UNA after it.
    pub(crate) una: SeqNum,
    /// SND.NXT.
    pub(crate) next: SeqNum,
    pub(crate) now: Instant,
    /// Round trip that it measured, if it did.
    pub(crate) rtt: Option<Duration>,
    /// SRTT; zero before the first sample.
    pub(crate) smoothed: Duration,
}

/// The congestion window of a connection and what moves it. Bytes throughout.
#[derive(Clone, Debug)]
pub(crate) struct Congestion {
    window: u32,
    /// Slow-start threshold; `u32::MAX` before the first loss.
    threshold: u32,
    avoidance: Avoidance,
    /// Whether slow start follows a timeout.
    after_timeout: bool,
    start: HyStart,
    usage: Usage,
}

/// How far the window was used: what was under way at most, of what is not acknowledged yet or was last. ACKs that
/// arrive together find less and less under way, the last ones of a burst hardly anything; that tells neither that the
/// window was too large nor how much the path carried.
#[derive(Clone, Copy, Debug, Default)]
struct Usage {
    /// Bytes under way at most.
    most: u32,
    /// Whether the window had no room for another segment.
    full: bool,
    /// SND.NXT when that was: once it is acknowledged, what is sent next counts anew.
    until: SeqNum,
}

/// Congestion avoidance.
#[derive(Clone, Copy, Debug)]
enum Avoidance {
    /// RFC 5681 section 3.1: bytes acknowledged since the window last grew.
    Reno { acked: u32 },
    /// RFC 9438.
    Cubic(Cubic),
}

/// What a loss that was none is to be undone to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Prior {
    window: u32,
    threshold: u32,
    avoidance: Avoidance,
}

impl Congestion {
    /// Before anything was sent, with an initial window of `window` bytes. `threshold`: what the connection knows of its
    /// path from before an idle time.
    pub(crate) fn new(algorithm: CongestionAlgorithm, window: u32, threshold: Option<u32>) -> Self {
        let avoidance = match algorithm {
            CongestionAlgorithm::Reno => Avoidance::Reno { acked: 0 },
            CongestionAlgorithm::Cubic => Avoidance::Cubic(Cubic::default()),
        };
        Congestion {
            window,
            //= docs/rfc/rfc5681.md#3.1-first-threshold
            threshold: threshold.unwrap_or(u32::MAX),
            avoidance,
            after_timeout: false,
            start: HyStart::default(),
            usage: Usage::default(),
        }
    }

    /// The congestion window.
    pub(crate) fn window(&self) -> u32 {
        self.window
    }

    /// What round trips made of slow start.
    pub(crate) fn start(&self) -> SlowStart {
        self.start.is()
    }

    /// The slow-start threshold; `None` before the first loss.
    pub(crate) fn threshold(&self) -> Option<u32> {
        (self.threshold != u32::MAX).then_some(self.threshold)
    }

    /// Something was sent: `in_flight` bytes are under way now, from `una` (SND.UNA) to `next` (SND.NXT).
    pub(crate) fn on_sent(&mut self, in_flight: u32, una: SeqNum, next: SeqNum, mss: u32) {
        let full = in_flight.saturating_add(mss) > self.window;
        let counts_anew = una.at_or_after(self.usage.until);
        if counts_anew || full || (!self.usage.full && in_flight > self.usage.most) {
            self.usage = Usage { most: in_flight, full, until: next };
        }
    }

    /// How much of the window was in use of late when `in_flight` bytes are under way now.
    pub(crate) fn used(&self, in_flight: u32) -> u32 {
        in_flight.max(self.usage.most).min(self.window)
    }

    /// New data were acknowledged, outside of fast recovery.
    pub(crate) fn on_ack(&mut self, acked: &Acked) {
        let slow_start = self.window < self.threshold;
        let most = acked.in_flight.max(self.usage.most);
        // A window that was not used proves nothing (RFC 7661): it does not grow.
        let used = match slow_start {
            true => most.saturating_mul(2) >= self.window,
            false => most.saturating_add(acked.mss) >= self.window,
        };
        match (used || self.usage.full, slow_start) {
            (true, true) => self.slow_start(acked),
            (true, false) => self.avoid(acked),
            (false, _) => {}
        }
    }

    //= docs/rfc/rfc9293.md#MUST-19
    //= docs/rfc/rfc5681.md#3.1-slow-start
    //= docs/rfc/rfc3465.md#2.2-slow-start
    //= docs/rfc/rfc9406.md#4.3-once
    //= docs/rfc/rfc9438.md#4.10-slow-start
    fn slow_start(&mut self, acked: &Acked) {
        let limit = match self.avoidance {
            _ if self.after_timeout => SLOW_START_LIMIT_AFTER_TIMEOUT,
            Avoidance::Reno { .. } => SLOW_START_LIMIT_RENO,
            Avoidance::Cubic(_) => SLOW_START_LIMIT_CUBIC,
        };
        let mut growth = acked.bytes.min(limit * acked.mss);
        // After a loss the threshold is known: there is nothing to find out carefully (RFC 9406 section 4.2).
        if matches!(self.avoidance, Avoidance::Cubic(_)) && self.threshold == u32::MAX {
            growth /= self.start.divisor(acked);
            if self.start.is_over() {
                self.threshold = self.window;
            }
        }
        self.grow(growth);
    }

    //= docs/rfc/rfc9293.md#MUST-19
    //= docs/rfc/rfc9293.md#MAY-18
    //= docs/rfc/rfc5681.md#3.1-avoidance
    //= docs/rfc/rfc3465.md#2.1-avoidance
    fn avoid(&mut self, acked: &Acked) {
        let growth = match &mut self.avoidance {
            // A segment per window of acknowledged bytes.
            Avoidance::Reno { acked: since } => {
                *since = since.saturating_add(acked.bytes);
                let full = *since >= self.window;
                *since -= if full { self.window } else { 0 };
                if full { acked.mss } else { 0 }
            }
            Avoidance::Cubic(cubic) => cubic.growth(self.window, acked),
        };
        self.grow(growth);
    }

    fn grow(&mut self, by: u32) {
        self.window = self.window.saturating_add(by).min(MAX_WINDOW);
    }

    /// Loss, or the network's word of congestion, with `in_flight` bytes under way.
    //= docs/rfc/rfc9937.md#6.4-end
    pub(crate) fn on_loss(&mut self, in_flight: u32, mss: u32) {
        self.reduce(in_flight, mss);
        self.window = self.threshold;
    }

    /// What was lost was sent when more was under way, perhaps: the last segment of a burst is missed when hardly
    /// anything is.
    //= docs/rfc/rfc5681.md#3.1-ssthresh
    fn reduce(&mut self, in_flight: u32, mss: u32) {
        let in_flight = self.used(in_flight);
        let reduced = match &mut self.avoidance {
            Avoidance::Reno { acked } => {
                *acked = 0;
                in_flight / 2
            }
            Avoidance::Cubic(cubic) => cubic.reduce(in_flight),
        };
        self.threshold = reduced.max(2 * mss);
    }

    /// The retransmission timer expired with `in_flight` bytes under way; `first`: for these data.
    //= docs/rfc/rfc5681.md#3.1-once
    //= docs/rfc/rfc5681.md#3.1-loss-window
    //= docs/rfc/rfc9438.md#4.8-timeout
    pub(crate) fn on_timeout(&mut self, in_flight: u32, mss: u32, first: bool) {
        if first {
            self.reduce(in_flight, mss);
        }
        if let Avoidance::Cubic(cubic) = &mut self.avoidance {
            cubic.time_out();
        }
        self.window = mss;
        self.after_timeout = true;
    }

    /// NewReno's fast recovery ended with `in_flight` bytes under way: what is not would leave as one burst (RFC 6582
    /// section 3.2, step 3).
    //= docs/rfc/rfc5681.md#3.2-deflate
    //= docs/rfc/rfc6582.md#3.2-full
    pub(crate) fn on_recovered(&mut self, in_flight: u32, mss: u32) {
        self.window = self.window.min(in_flight.max(mss) + mss);
    }

    /// Recovery ended, after a timeout or without.
    pub(crate) fn on_repaired(&mut self) {
        self.after_timeout = false;
    }

    /// What to undo the next loss to.
    pub(crate) fn prior(&self) -> Prior {
        Prior { window: self.window, threshold: self.threshold, avoidance: self.avoidance }
    }

    /// The loss was none: the window comes back, but not as one burst; the rest of it in slow start (RFC 4015
    /// section 3.4). What became of congestion avoidance stands if the window is above that already (RFC 9438 section
    /// 4.9).
    //= docs/rfc/rfc4015.md#3.4-restore
    //= docs/rfc/rfc4015.md#3.4-no-burst
    //= docs/rfc/rfc9438.md#4.9-spurious
    pub(crate) fn undo(&mut self, prior: Prior, in_flight: u32, mss: u32) {
        if self.window < prior.window {
            self.avoidance = prior.avoidance;
        }
        self.threshold = prior.threshold.max(prior.window);
        self.window = prior.window.min(in_flight.saturating_add(initial_window(mss))).max(self.window);
        self.after_timeout = false;
    }
}

#[cfg(test)]
mod tests;
