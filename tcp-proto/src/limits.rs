//! Limits: constants that bound what a peer can make us hold or send, and the rate limiter.

use core::time::Duration;

use crate::random::Random;
use crate::time::Instant;

/// Segments without a connection that wait for their answer, at most.
pub(crate) const MAX_REPLIES: usize = 256;
/// Ranges of out-of-order data a connection keeps, at most.
pub(crate) const MAX_GAPS: usize = 64;
/// What a connection's receive and send buffers may hold before it has moved anything, bytes each, where they tune
/// themselves.
pub(crate) const INITIAL_BUFFER: u32 = 1 << 16;
/// Segments that a connection has outstanding, at most.
pub(crate) const MAX_SENT_SEGMENTS: usize = 8192;
/// Bytes that rounding the window up to its scale may let in beyond the receive buffer, at most.
pub(crate) const WINDOW_SLACK: u32 = 1 << 14;
/// Duplicate ACKs owed at once, at most.
pub(crate) const MAX_DUPLICATE_ACKS: u8 = 64;
/// Challenge and out-of-window ACKs a connection sends, at most one per so many ms (RFC 5961 section 7).
pub(crate) const CONNECTION_ACK_INTERVAL_MS: u32 = 500;
/// Challenge ACKs of all connections of all stacks together, per second; the limit of each second is drawn between
/// half of it and one and a half, so that nobody can count on it (RFC 5961 section 7, CVE-2016-5696).
pub(crate) const CHALLENGE_ACKS_PER_SECOND: u32 = 1000;
/// How far before RCV.NXT a segment from another MAC address may begin to be believed that the peer is there now, bytes:
/// the peer may repeat what we have, because our ACKs went where it no longer is. As long as we seem not to be heard,
/// it is the receive buffer.
pub(crate) const LINK_REACH: u32 = 65_535;
/// How long a SYN cookie is good, at most: the epoch that it was issued in, and the next.
pub(crate) const COOKIE_LIFETIME: Duration = Duration::from_nanos(2 * tcp_common::cookie::EPOCH_NS);
/// How often a listener tells the XDP program that it sends cookies.
pub(crate) const COOKIE_DEMAND_INTERVAL: Duration = Duration::from_secs(1);
/// How long the XDP program is to send cookies for a listener that has told it so; as after a flood that it saw by itself.
pub(crate) const COOKIE_DEMAND_HOLD: Duration = Duration::from_nanos(tcp_common::gauge::HOLD_NS);
/// Entries of the connection table refreshed in one turn, at most.
pub(crate) const REFRESH_BATCH: usize = 256;
/// Connections in TIME_WAIT that make room when the connection table is full, at most each time.
pub(crate) const TABLE_FULL_EVICTIONS: usize = 64;
/// How long a connection's state may be out of date in the connection table.
pub(crate) const STATE_DELAY: Duration = Duration::from_millis(5);
/// Sets of parameters whose connections in TIME_WAIT are kept as records, at most; those with yet others stay as they
/// are.
pub(crate) const MAX_CLASSES: usize = 256;
/// How long a connection that nobody holds is in TIME_WAIT before it becomes a record: its last ACK has left by then, and
/// its state is in the connection table.
pub(crate) const SETTLE_DELAY: Duration = Duration::from_millis(100);
/// How long a connection's slow-moving figures may be out of date in the connection table.
pub(crate) const REFRESH_INTERVAL: Duration = Duration::from_secs(1);

/// So many per second.
#[derive(Clone, Debug)]
pub(crate) struct RateLimit {
    per_second: u32,
    randomised: bool,
    left: u32,
    second: u64,
}

impl RateLimit {
    /// Exactly `per_second`.
    pub(crate) fn exact(per_second: u32) -> Self {
        RateLimit { per_second, randomised: false, left: per_second, second: 0 }
    }

    /// Between half and one and a half of `per_second`, drawn anew each second.
    pub(crate) fn randomised(per_second: u32) -> Self {
        RateLimit { per_second, randomised: true, left: 0, second: u64::MAX }
    }

    /// Takes one, if the current second has one left.
    pub(crate) fn take(&mut self, now: Instant, random: &mut Random) -> bool {
        let second = now.as_millis() / 1000;
        if second != self.second {
            self.second = second;
            self.left = match self.randomised {
                true => self.per_second / 2 + random.below(self.per_second + 1),
                false => self.per_second,
            };
        }
        let taken = self.left > 0;
        self.left = self.left.saturating_sub(1);
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_gives_what_it_has_and_no_more() {
        let mut random = Random::new([0, 0]);
        let mut limit = RateLimit::exact(3);
        let taken = |limit: &mut RateLimit, random: &mut Random, ms| {
            (0..10).filter(|_| limit.take(Instant::from_millis(ms), random)).count()
        };
        assert_eq!(taken(&mut limit, &mut random, 0), 3);
        assert_eq!(taken(&mut limit, &mut random, 999), 0);
        assert_eq!(taken(&mut limit, &mut random, 1000), 3);
    }

    #[test]
    fn a_randomised_limit_varies_between_its_bounds() {
        let mut random = Random::new([5, 6]);
        let mut limit = RateLimit::randomised(100);
        let counts: alloc::vec::Vec<usize> = (0..20)
            .map(|s| (0..1000).filter(|_| limit.take(Instant::from_millis(s * 1000), &mut random)).count())
            .collect();
        assert!(counts.iter().all(|n| (50..=150).contains(n)), "{counts:?}");
        assert!(counts.iter().any(|n| *n != counts[0]));
    }
}
