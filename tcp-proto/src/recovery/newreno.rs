//! Loss recovery without selective acknowledgments: limited transmit (RFC 3042), fast retransmit and NewReno (RFC 5681
//! section 3.2, RFC 6582), and going back to SND.UNA after a timeout.

use super::{Acked, Figure, News, Next, Outstanding};
use crate::congestion::Congestion;
use crate::seq::SeqNum;

/// Duplicate ACKs that mean a loss (RFC 5681 section 3.2).
const DUPLICATE_THRESHOLD: u8 = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing is known to be lost.
    Open,
    /// Duplicate ACKs told of a loss.
    Fast,
    /// The retransmission timer expired.
    Timeout,
}

/// State of loss recovery. SND.UNA <= cursor <= SND.NXT always.
#[derive(Clone, Debug)]
pub(crate) struct NewReno {
    phase: Phase,
    duplicates: u8,
    /// Whether the first unacknowledged segment is to be sent again, besides what the cursor names.
    head_due: bool,
    /// SND.NXT when recovery began: recovery ends when it is acknowledged. RFC 6582 calls it "recover".
    recover: SeqNum,
    /// The next octet to send: SND.NXT, or earlier when what follows is taken for lost.
    cursor: SeqNum,
    /// What recovery adds to the congestion window, bytes: each duplicate ACK tells of a segment that left the
    /// network; a partial ACK takes back what it acknowledges, and more if duplicate ACKs were lost.
    inflation: i32,
    /// Whether recovery ended and nothing sent after it began is acknowledged yet: duplicate ACKs may be of what it
    /// repeated needlessly.
    echoes: bool,
}

impl NewReno {
    /// Nothing sent yet; `next` is SND.NXT.
    pub(super) fn new(next: SeqNum) -> Self {
        NewReno {
            phase: Phase::Open,
            duplicates: 0,
            head_due: false,
            recover: next,
            cursor: next,
            inflation: 0,
            echoes: false,
        }
    }

    /// What to send next: the first unacknowledged segment at once when it is due.
    //= docs/rfc/rfc3042.md#2-new-data
    //= docs/rfc/rfc3042.md#2-budget
    //= docs/rfc/rfc3042.md#2-cwnd
    pub(super) fn next(&self, at: Outstanding, window: u32) -> Next {
        if self.head_due {
            return Next { seq: at.una, most: u32::MAX, budget: u32::MAX };
        }
        let allowed = window.saturating_add_signed(self.inflation);
        Next { seq: self.cursor, most: u32::MAX, budget: allowed.saturating_sub(self.cursor - at.una) }
    }

    /// An acceptable ACK arrived.
    pub(super) fn on_news(&mut self, news: &News<'_>, congestion: &mut Congestion) {
        if news.acked > 0 {
            self.on_ack(news, congestion);
        } else if news.is_duplicate {
            self.on_duplicate(news, congestion);
        }
    }

    /// Octets under way: what was sent less what duplicate ACKs tell of.
    pub(super) fn in_flight(&self, una: SeqNum) -> u32 {
        (self.cursor - una).saturating_sub(self.inflation.max(0) as u32)
    }

    /// Whether a loss is being repaired.
    pub(super) fn is_active(&self) -> bool {
        self.phase != Phase::Open
    }

    /// Whether what is sent is limited transmit: duplicates came, too few to tell of a loss.
    pub(super) fn is_limited(&self) -> bool {
        self.phase == Phase::Open && self.duplicates > 0
    }

    /// A segment that ends before `end` was sent (again); the head goes first when it is due.
    pub(super) fn on_sent(&mut self, end: SeqNum) {
        self.head_due = false;
        self.cursor = self.cursor.latest(end);
    }

    /// Everything from `una` on is to be sent again: the peer's window was closed when it was sent.
    pub(super) fn resend_from(&mut self, una: SeqNum) {
        self.cursor = una;
    }

    /// A duplicate ACK arrived (RFC 5681 section 2).
    //= docs/rfc/rfc5681.md#3.2-fast-retransmit
    //= docs/rfc/rfc5681.md#3.2-inflate
    //= docs/rfc/rfc6582.md#3.2-enter
    //= docs/rfc/rfc6582.md#3.2-timeout
    fn on_duplicate(&mut self, news: &News<'_>, congestion: &mut Congestion) {
        let at = news.at;
        // Until more is acknowledged than was sent when recovery began, duplicates are of what it repeated and no new
        // loss (RFC 6582 section 3.2, steps 2 and 4).
        if self.phase == Phase::Timeout || self.echoes {
            return;
        }
        // A segment has left the network, so that another may go; before the loss is certain already (limited
        // transmit), so that ACKs go on coming.
        self.inflation = self.inflation.saturating_add_unsigned(at.mss);
        self.duplicates = self.duplicates.saturating_add(1);
        if self.phase == Phase::Open && self.duplicates == DUPLICATE_THRESHOLD {
            // What limited transmit sent does not count (RFC 5681 section 3.2, step 2).
            news.figures.count(Figure::FastRetransmit);
            //= docs/rfc/rfc5681.md#3.2-limited
            congestion.on_loss(at.in_flight(), at.mss);
            self.phase = Phase::Fast;
            self.recover = at.next;
            self.head_due = true;
        }
    }

    /// New data were acknowledged.
    fn on_ack(&mut self, news: &News<'_>, congestion: &mut Congestion) {
        let (acked, at) = (news.acked, news.at);
        self.duplicates = 0;
        self.head_due = false;
        self.cursor = self.cursor.latest(at.una);
        let repaired = at.una.at_or_after(self.recover);
        let before = at.in_flight() + acked;
        let growth = |in_flight| Acked {
            bytes: acked,
            in_flight,
            mss: at.mss,
            una: at.una,
            next: at.next,
            now: news.now,
            rtt: None,
            smoothed: news.trips.smoothed,
        };
        match self.phase {
            Phase::Open => {
                self.inflation = 0;
                self.echoes = false;
                congestion.on_ack(&growth(before));
            }
            Phase::Fast if !repaired => {
                news.figures.count(Figure::PartialAck);
                self.on_partial_ack(acked, at);
            }
            Phase::Fast => congestion.on_recovered(at.in_flight(), at.mss),
            Phase::Timeout => congestion.on_ack(&growth(congestion.window())),
        }
        if self.is_active() && repaired {
            news.figures.count(Figure::Recovered);
            self.end(at);
            congestion.on_repaired();
        }
    }

    /// The next hole shows: the segment at SND.UNA is lost too (RFC 6582 section 3.2, step 3).
    //= docs/rfc/rfc6582.md#3.2-partial
    fn on_partial_ack(&mut self, acked: u32, at: Outstanding) {
        self.head_due = true;
        self.inflation = self.inflation.saturating_sub_unsigned(acked);
        if acked >= at.mss {
            self.inflation = self.inflation.saturating_add_unsigned(at.mss);
        }
    }

    //= docs/rfc/rfc6582.md#3.2-enter
    fn end(&mut self, at: Outstanding) {
        self.phase = Phase::Open;
        self.echoes = at.una == self.recover;
        self.inflation = 0;
    }

    /// The retransmission timer expired: all that is outstanding is taken for lost.
    pub(super) fn on_timeout(&mut self, at: Outstanding, congestion: &mut Congestion) {
        congestion.on_timeout(at.in_flight(), at.mss, self.phase != Phase::Timeout);
        self.phase = Phase::Timeout;
        self.recover = at.next;
        self.cursor = at.una;
        self.duplicates = 0;
        self.head_due = false;
        self.inflation = 0;
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::super::RoundTrips;
    use super::*;
    use crate::config::CongestionAlgorithm;
    use crate::time::Instant;

    const MSS: u32 = 1000;

    fn at(una: u32, next: u32) -> Outstanding {
        Outstanding { una: SeqNum(una), next: SeqNum(next), mss: MSS }
    }

    fn news(acked: u32, at: Outstanding) -> News<'static> {
        let trips = RoundTrips { shortest: Duration::ZERO, smoothed: Duration::ZERO };
        let now = Instant::from_millis(0);
        let figures = alloc::boxed::Box::leak(alloc::boxed::Box::default());
        News { at, now, acked, is_duplicate: acked == 0, sacks: &[], echo: None, trips, max_window: 65_535, figures }
    }

    fn reno() -> Congestion {
        Congestion::new(CongestionAlgorithm::Reno, 10 * MSS, None)
    }

    #[test]
    fn the_third_duplicate_ack_resends_the_head_once_and_a_partial_ack_the_next_hole() {
        let (mut recovery, mut reno) = (NewReno::new(SeqNum(0)), reno());
        recovery.on_sent(SeqNum(10_000));
        for duplicate in 1..=3 {
            assert!(!recovery.head_due, "duplicate {duplicate}");
            recovery.on_news(&news(0, at(0, 10_000)), &mut reno);
        }
        assert!(recovery.head_due && recovery.is_active());
        assert_eq!((reno.window(), recovery.inflation), (5_000, 3_000));
        recovery.on_sent(SeqNum(1_000));
        assert!(!recovery.head_due);
        recovery.on_news(&news(0, at(0, 10_000)), &mut reno);
        assert_eq!(recovery.inflation, 4_000);
        recovery.on_news(&news(4_000, at(4_000, 10_000)), &mut reno);
        assert!(recovery.head_due && recovery.is_active());
        assert_eq!(recovery.inflation, 1_000);
        recovery.on_news(&news(6_000, at(10_000, 10_000)), &mut reno);
        assert!(!recovery.is_active());
        assert_eq!(recovery.inflation, 0);
    }

    #[test]
    fn a_timeout_goes_back_to_the_first_unacknowledged_octet() {
        let (mut recovery, mut reno) = (NewReno::new(SeqNum(0)), reno());
        recovery.on_sent(SeqNum(10_000));
        recovery.on_timeout(at(0, 10_000), &mut reno);
        assert_eq!((recovery.cursor, reno.window()), (SeqNum(0), MSS));
        recovery.on_sent(SeqNum(1_000));
        recovery.on_news(&news(3_000, at(3_000, 10_000)), &mut reno);
        assert_eq!((recovery.cursor, recovery.is_active()), (SeqNum(3_000), true));
        for _ in 0..5 {
            recovery.on_news(&news(0, at(3_000, 10_000)), &mut reno);
        }
        assert!(!recovery.head_due, "repeats of what the timeout sent again are no new loss");
        recovery.on_news(&news(7_000, at(10_000, 10_000)), &mut reno);
        assert!(!recovery.is_active());
    }

    //= docs/rfc/rfc6582.md#3.2-enter
    #[test]
    fn a_loss_is_found_however_much_was_sent_since_the_last_one() {
        let (mut recovery, mut reno) = (NewReno::new(SeqNum(0)), reno());
        for una in [1 << 30, 2 << 30, (2 << 30) + 5_000] {
            recovery.on_sent(SeqNum(una));
            recovery.on_news(&news(MSS, at(una, una)), &mut reno);
        }
        let una = (2 << 30) + 5_000;
        recovery.on_sent(SeqNum(una + 10_000));
        for _ in 0..3 {
            recovery.on_news(&news(0, at(una, una + 10_000)), &mut reno);
        }
        assert!(recovery.head_due);
    }
}
