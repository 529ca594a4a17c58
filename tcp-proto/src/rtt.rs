//! Round-trip time estimation and the retransmission timeout (RFC 6298), with the textbook's estimator of
//! RFC 793 to compare. Karn's rule is the caller's: no sample from a segment that was sent twice.

use core::time::Duration;

use crate::config::{RttEstimator, TcpConfig};
use crate::recovery::RoundTrips;
use crate::time::Instant;

/// RTO for the first data after a SYN that had to be repeated (RFC 6298 section 5.7).
const RTO_AFTER_REPEATED_SYN: Duration = Duration::from_secs(3);

/// How long the shortest round trip counts before a longer one takes its place, s: the path may have changed.
const SHORTEST_LIFETIME: u32 = 300;

/// What a connection knows of its path's delay. Microseconds: they reach 71 minutes.
#[derive(Clone, Debug)]
pub(crate) struct Rtt {
    smoothed_us: Option<u32>,
    variation_us: u32,
    /// RTO without backoff.
    base_us: u32,
    /// Shortest round trip of late, us, and when it was measured, s.
    shortest_us: u32,
    shortest_at: u32,
    /// Doublings since the last sample (Karn).
    backoff: u8,
}

impl Rtt {
    //= docs/rfc/rfc6298.md#2.1-initial
    pub(crate) fn new(config: &TcpConfig) -> Self {
        Rtt {
            smoothed_us: None,
            variation_us: 0,
            base_us: micros(config.initial_rto),
            shortest_us: 0,
            shortest_at: 0,
            backoff: 0,
        }
    }

    /// Takes a sample in (RFC 6298 sections 2.2 and 2.3).
    //= docs/rfc/rfc9293.md#MUST-18
    //= docs/rfc/rfc6298.md#2.2-first
    //= docs/rfc/rfc6298.md#2.3-next
    pub(crate) fn sample(&mut self, rtt: Duration, config: &TcpConfig) {
        let rtt = micros(rtt);
        let rto = match config.rtt_estimator {
            RttEstimator::Rfc6298 => self.sample_rfc6298(rtt, micros(config.min_rto)),
            RttEstimator::Rfc793 => self.sample_rfc793(rtt),
        };
        self.base_us = rto.clamp(micros(config.min_rto), micros(config.max_rto));
        self.backoff = 0;
    }

    /// RTO = SRTT + max(G, 4 x RTTVAR). `min_rto` stands for G, as in Linux: on a steady path RTTVAR goes to
    /// zero, and an RTO of hardly more than SRTT would take every delayed ACK for a loss.
    //= docs/rfc/rfc6298.md#2.2-first
    //= docs/rfc/rfc6298.md#2.3-next
    //= docs/rfc/rfc6298.md#2.3-gains
    fn sample_rfc6298(&mut self, rtt: u32, granularity: u32) -> u32 {
        let smoothed = match self.smoothed_us {
            None => {
                self.variation_us = rtt / 2;
                rtt
            }
            Some(old) => {
                self.variation_us = self.variation_us - self.variation_us / 4 + old.abs_diff(rtt) / 4;
                old - old / 8 + rtt / 8
            }
        };
        self.smoothed_us = Some(smoothed);
        smoothed.saturating_add(self.variation_us.saturating_mul(4).max(granularity))
    }

    /// SRTT = 0.9 old + 0.1 new; RTO = 2 x SRTT.
    fn sample_rfc793(&mut self, rtt: u32) -> u32 {
        let smoothed = self.smoothed_us.map_or(rtt, |old| ((u64::from(old) * 9 + u64::from(rtt)) / 10) as u32);
        self.smoothed_us = Some(smoothed);
        smoothed.saturating_mul(2)
    }

    /// Takes a round trip in that may be the shortest of late.
    //= docs/rfc/rfc8985.md#6.2-1-min-rtt
    pub(crate) fn note_shortest(&mut self, rtt: Duration, now: Instant) {
        let seconds = (now.as_millis() / 1000) as u32;
        let old = seconds.wrapping_sub(self.shortest_at) > SHORTEST_LIFETIME;
        if self.shortest_us == 0 || old || micros(rtt) <= self.shortest_us {
            (self.shortest_us, self.shortest_at) = (micros(rtt).max(1), seconds);
        }
    }

    /// What loss recovery measures with; `None` before the first sample.
    pub(crate) fn trips(&self) -> Option<RoundTrips> {
        let smoothed = self.smoothed()?;
        let shortest = if self.shortest_us == 0 { smoothed } else { Duration::from_micros(self.shortest_us.into()) };
        Some(RoundTrips { shortest, smoothed })
    }

    /// The handshake needed a second SYN: its RTT is unknown, and the path may be slow.
    //= docs/rfc/rfc6298.md#5.7-syn
    pub(crate) fn syn_was_repeated(&mut self, config: &TcpConfig) {
        self.base_us = self.base_us.max(micros(RTO_AFTER_REPEATED_SYN)).min(micros(config.max_rto));
        self.backoff = 0;
    }

    /// The timeout now, backed off.
    //= docs/rfc/rfc9293.md#MUST-18
    //= docs/rfc/rfc6298.md#2.5-maximum
    pub(crate) fn rto(&self, config: &TcpConfig) -> Duration {
        let backed_off = u64::from(self.base_us) << self.backoff.min(31);
        Duration::from_micros(backed_off).min(config.max_rto)
    }

    /// Doubles the timeout (RFC 6298 section 5.5).
    //= docs/rfc/rfc9293.md#MUST-19
    //= docs/rfc/rfc6298.md#5.5-back-off
    pub(crate) fn back_off(&mut self) {
        self.backoff = self.backoff.saturating_add(1).min(31);
    }

    /// SRTT; `None` before the first sample.
    pub(crate) fn smoothed(&self) -> Option<Duration> {
        self.smoothed_us.map(|us| Duration::from_micros(us.into()))
    }
}

fn micros(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    //= docs/rfc/rfc6298.md#2.1-initial
    //= docs/rfc/rfc6298.md#2.5-maximum
    #[test]
    fn the_rto_starts_at_one_second_follows_samples_and_keeps_its_bounds() {
        let config = TcpConfig::default();
        let mut rtt = Rtt::new(&config);
        assert_eq!(rtt.rto(&config), ms(1000));
        rtt.sample(ms(100), &config);
        assert_eq!((rtt.smoothed(), rtt.rto(&config)), (Some(ms(100)), ms(300)));
        rtt.sample(ms(500), &config);
        // RTTVAR = 3/4 x 50 + 1/4 x 400 = 137.5; SRTT = 7/8 x 100 + 1/8 x 500 = 150.
        assert_eq!((rtt.smoothed(), rtt.rto(&config)), (Some(ms(150)), ms(700)));
        for _ in 0..200 {
            rtt.sample(Duration::from_micros(50), &config);
        }
        assert!(rtt.rto(&config) >= ms(200) && rtt.rto(&config) < ms(202));
        for _ in 0..20 {
            rtt.sample(ms(200_000), &config);
        }
        assert_eq!(rtt.rto(&config), ms(120_000));
    }

    #[test]
    fn the_textbook_estimator_doubles_a_slow_average() {
        let config = TcpConfig { rtt_estimator: RttEstimator::Rfc793, ..TcpConfig::default() };
        let mut rtt = Rtt::new(&config);
        rtt.sample(ms(1000), &config);
        assert_eq!(rtt.rto(&config), ms(2000));
        rtt.sample(ms(2000), &config);
        assert_eq!((rtt.smoothed(), rtt.rto(&config)), (Some(ms(1100)), ms(2200)));
    }

    #[test]
    fn backoff_doubles_up_to_the_maximum_and_ends_with_a_sample() {
        let config = TcpConfig::default();
        let mut rtt = Rtt::new(&config);
        rtt.back_off();
        assert_eq!(rtt.rto(&config), ms(2000));
        for _ in 0..40 {
            rtt.back_off();
        }
        assert_eq!(rtt.rto(&config), ms(120_000));
        rtt.sample(ms(100), &config);
        assert_eq!(rtt.rto(&config), ms(300));
    }

    //= docs/rfc/rfc8985.md#6.2-1-min-rtt
    #[test]
    fn the_shortest_round_trip_is_kept_until_it_is_five_minutes_old() {
        let mut rtt = Rtt::new(&TcpConfig::default());
        rtt.sample(ms(100), &TcpConfig::default());
        for (at, measured, shortest) in [(0, 80, 80), (1, 90, 80), (2, 50, 50), (302, 70, 50), (303, 70, 70)] {
            rtt.note_shortest(ms(measured), Instant::from_millis(1000 * at));
            assert_eq!(rtt.trips().map(|trips| trips.shortest), Some(ms(shortest)), "at {at} s");
        }
    }

    #[test]
    fn data_after_a_repeated_syn_waits_three_seconds() {
        let config = TcpConfig::default();
        let mut rtt = Rtt::new(&config);
        rtt.back_off();
        rtt.syn_was_repeated(&config);
        assert_eq!(rtt.rto(&config), ms(3000));
    }
}
