//! RACK (RFC 8985 sections 6 and 7.2): a segment is lost when one that was sent sufficiently later has arrived. How
//! much later follows from round trips and from the reordering that the path has shown.

use core::time::Duration;

use super::scoreboard::{Scoreboard, Sent};
use crate::seq::SeqNum;
use crate::time::Instant;

/// Reported segments that mean a loss even so soon (RFC 5681's DupThresh).
const DUPLICATE_THRESHOLD: u32 = 3;
/// Recoveries that a widened reordering window outlives (RFC 8985 section 6.2, step 4).
const WIDE_FOR: u8 = 16;

/// What outlives the data: how the path treats the order of segments.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Path {
    /// Whether segments were seen to overtake others.
    reorders: bool,
    /// Reordering window in quarters of the shortest round trip, less one.
    widened: u8,
    /// Recoveries until it narrows again.
    wide_for: u8,
}

/// The latest sent segment known to have arrived, and what it tells.
#[derive(Clone, Debug, Default)]
pub(super) struct Rack {
    newest: Option<Newest>,
    /// The highest number known to have arrived.
    forward: Option<SeqNum>,
    /// SND.NXT when a duplicate widened the window last: once a round is enough.
    widened_until: Option<SeqNum>,
    /// Round trip of the newest segment of the ACK at hand.
    sample: Option<Duration>,
}

#[derive(Clone, Copy, Debug)]
struct Newest {
    at: Instant,
    end: SeqNum,
    rtt: Duration,
}

/// Round trips that RACK measures with.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RoundTrips {
    /// The shortest of late.
    pub(crate) shortest: Duration,
    /// SRTT.
    pub(crate) smoothed: Duration,
}

/// Which of two sendings was the later one; of simultaneous ones that of the higher number.
fn later(at: Instant, end: SeqNum, than: Instant, than_end: SeqNum) -> bool {
    at > than || (at == than && end.after(than_end))
}

impl Rack {
    /// A segment is known to have arrived. `echo`: the timestamp that came back with its acknowledgment, our clock in ms;
    /// `None`: that tells nothing of it.
    //= docs/rfc/rfc8985.md#6.2-2-newest
    //= docs/rfc/rfc8985.md#6.2-3-reordering
    pub(super) fn arrived(
        &mut self,
        path: &mut Path,
        segment: &Sent,
        now: Instant,
        echo: Option<u32>,
        shortest: Duration,
    ) {
        let end = segment.span.end;
        if self.forward.is_some_and(|forward| end.before(forward)) {
            path.reorders |= !segment.again;
        } else {
            self.forward = Some(end);
        }
        let rtt = now.since(segment.at);
        // The ACK may be of the first sending (section 6.2, step 2).
        let ambiguous = segment.again
            && (rtt < shortest
                || echo.is_some_and(|echo| (echo.wrapping_sub(segment.at.as_millis() as u32) as i32) < 0));
        if ambiguous {
            return;
        }
        if !segment.again {
            self.sample = Some(self.sample.map_or(rtt, |sample| sample.min(rtt)));
        }
        if self.newest.is_none_or(|newest| later(segment.at, end, newest.at, newest.end)) {
            self.newest = Some(Newest { at: segment.at, end, rtt });
        }
    }

    /// The shortest round trip of a segment sent once that the ACK at hand tells of.
    pub(super) fn take_sample(&mut self) -> Option<Duration> {
        self.sample.take()
    }

    /// What the newest arrival tells of the path's delay.
    pub(super) fn round_trips(&self) -> RoundTrips {
        let rtt = self.newest.map(|newest| newest.rtt).unwrap_or_default();
        RoundTrips { shortest: rtt, smoothed: rtt }
    }

    /// The peer got something twice: what was repeated was only late. Once per round the window gets wider.
    //= docs/rfc/rfc8985.md#6.2-4-dsack
    pub(super) fn got_twice(&mut self, path: &mut Path, una: SeqNum, next: SeqNum) {
        if self.widened_until.is_some_and(|until| una.before(until)) {
            return;
        }
        self.widened_until = Some(next);
        path.widened = path.widened.saturating_add(1);
        path.wide_for = WIDE_FOR;
    }

    /// Takes for lost what was sent sufficiently earlier than the newest arrival. Octets of that, and how long until
    /// more will be.
    //= docs/rfc/rfc8985.md#6.2-5-lost
    pub(super) fn detect(&self, board: &mut Scoreboard, window: Duration, now: Instant) -> (u32, Option<Duration>) {
        let Some(newest) = self.newest else { return (0, None) };
        let patience = newest.rtt + window;
        let mut wait = None;
        let is_lost = |segment: &Sent| {
            if !later(newest.at, newest.end, segment.at, segment.span.end) {
                return false;
            }
            let left = (segment.at + patience).since(now);
            if !left.is_zero() {
                wait = wait.max(Some(left));
            }
            left.is_zero()
        };
        // What was sent once after the newest arrival was followed only by later sendings.
        let goes_on = |segment: &Sent| segment.again || !segment.at.gt(&newest.at);
        let lost = board.lose(is_lost, goes_on);
        (lost, wait)
    }

    /// The timer expired: lost is the first segment, and what was sent long enough ago (section 6.3).
    //= docs/rfc/rfc8985.md#6.3-rto
    pub(super) fn time_out(&self, board: &mut Scoreboard, window: Duration, now: Instant) {
        let patience = self.newest.map(|newest| newest.rtt + window);
        let mut first = true;
        let is_lost = |segment: &Sent| {
            core::mem::take(&mut first) || patience.is_none_or(|patience| segment.at + patience <= now)
        };
        board.lose(is_lost, |_| true);
    }
}

impl Path {
    /// The reordering window (section 6.2, step 4). Until the path was seen to reorder, there is none once a loss
    /// is likely.
    //= docs/rfc/rfc8985.md#6.2-4-window
    //= docs/rfc/rfc8985.md#6.2-dupthresh
    pub(super) fn window(&self, trips: RoundTrips, sacked_segments: u32, recovering: bool) -> Duration {
        if !self.reorders && (recovering || sacked_segments >= DUPLICATE_THRESHOLD) {
            return Duration::ZERO;
        }
        (trips.shortest / 4 * (u32::from(self.widened) + 1)).min(trips.smoothed)
    }

    /// A recovery ended.
    //= docs/rfc/rfc8985.md#6.2-4-dsack
    pub(super) fn recovered(&mut self) {
        self.wide_for = self.wide_for.saturating_sub(1);
        if self.wide_for == 0 {
            self.widened = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    //= docs/rfc/rfc8985.md#6.2-4-dsack
    //= docs/rfc/rfc8985.md#6.2-4-window
    #[test]
    fn each_round_with_a_duplicate_widens_the_window_and_sixteen_recoveries_narrow_it_again() {
        let (mut rack, mut path) = (Rack::default(), Path { reorders: true, ..Path::default() });
        let window = |path: &Path, smoothed| path.window(RoundTrips { shortest: ms(100), smoothed }, 0, false);
        assert_eq!(window(&path, ms(1000)), ms(25));
        for (una, wide) in [(0, 50), (50, 50), (100, 75), (199, 75)] {
            rack.got_twice(&mut path, SeqNum(una), SeqNum(una + 100));
            assert_eq!(window(&path, ms(1000)), ms(wide), "at {una}");
        }
        assert_eq!(window(&path, ms(60)), ms(60), "no more than SRTT");
        for _ in 1..WIDE_FOR {
            path.recovered();
            assert_eq!(window(&path, ms(1000)), ms(75));
        }
        path.recovered();
        assert_eq!(window(&path, ms(1000)), ms(25));
    }
}
