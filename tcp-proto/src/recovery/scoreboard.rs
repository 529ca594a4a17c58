//! What was sent and is not acknowledged, segment by segment: when it left, whether the peer has it (RFC 2018),
//! whether it is taken for lost. Knows nothing of why; that is [`super::sack`]'s business.

use alloc::collections::VecDeque;

use crate::limits::MAX_SENT_SEGMENTS;
use crate::seq::{SeqNum, Span};
use crate::time::Instant;

/// A segment that was sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    pub(super) span: Span,
    /// When it was sent last.
    pub(super) at: Instant,
    /// Whether it was sent more than once.
    pub(super) again: bool,
    fate: Fate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Under way, for all we know.
    InFlight,
    /// The peer has it, but may still forget it.
    Sacked,
    /// Lost, and not sent again since.
    Lost,
}

impl Sent {
    /// Whether it waits for its acknowledgment: neither the peer has it nor is it lost.
    pub(super) fn is_in_flight(&self) -> bool {
        self.fate == Fate::InFlight
    }

    pub(super) fn is_sacked(&self) -> bool {
        self.fate == Fate::Sacked
    }
}

/// Segments in the order of their numbers, without gaps, from SND.UNA to SND.NXT.
#[derive(Debug, Default)]
pub(super) struct Scoreboard {
    segments: VecDeque<Sent>,
    /// Octets under way.
    pipe: u32,
    /// Octets that the peer reported.
    sacked: u32,
    /// Octets that are lost and were not sent again yet.
    lost: u32,
    /// No segment before this one is lost.
    lost_from: SeqNum,
}

impl Scoreboard {
    pub(super) fn pipe(&self) -> u32 {
        self.pipe
    }

    pub(super) fn sacked(&self) -> u32 {
        self.sacked
    }

    pub(super) fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// Whether no more segments can be noted.
    pub(super) fn is_full(&self) -> bool {
        self.segments.len() >= MAX_SENT_SEGMENTS
    }

    /// Octets were sent: those before `next` (SND.NXT) again, the rest for the first time.
    //= docs/rfc/rfc8985.md#4-sent
    pub(super) fn sent(&mut self, span: Span, next: SeqNum, now: Instant) {
        if span.start.before(next) {
            self.sent_again(Span { start: span.start, end: span.end.earliest(next) }, now);
        }
        let new = Span { start: span.start.latest(next), end: span.end };
        if new.end.after(new.start) {
            self.segments.push_back(Sent { span: new, at: now, again: false, fate: Fate::InFlight });
            self.pipe += new.len();
        }
    }

    fn sent_again(&mut self, span: Span, now: Instant) {
        self.split_at(span.start);
        self.split_at(span.end);
        for index in self.index_of(span.start)..self.segments.len() {
            let segment = self.segments[index];
            if segment.span.start.at_or_after(span.end) {
                break;
            }
            if !segment.is_sacked() {
                self.set_fate(index, Fate::InFlight);
                (self.segments[index].at, self.segments[index].again) = (now, true);
            }
        }
    }

    /// Everything before `una` is acknowledged; `each` sees the segments that leave, whole, unless they were reported
    /// before. Octets that had not been reported before.
    pub(super) fn acknowledge(&mut self, una: SeqNum, mut each: impl FnMut(&Sent)) -> u32 {
        self.split_at(una);
        let mut news = 0;
        while let Some(segment) = self.segments.front().copied().filter(|s| s.span.end.at_or_before(una)) {
            if !segment.is_sacked() {
                news += segment.span.len();
                each(&segment);
            }
            self.set_fate(0, Fate::InFlight);
            self.pipe -= segment.span.len();
            self.segments.pop_front();
        }
        news
    }

    /// The peer has `span`; `each` sees the segments that it reports for the first time. Octets of them.
    //= docs/rfc/rfc2018.md#5-scoreboard
    //= docs/rfc/rfc2018.md#8-keep
    pub(super) fn sack(&mut self, span: Span, mut each: impl FnMut(&Sent)) -> u32 {
        let mut news = 0;
        for index in self.index_of(span.start)..self.segments.len() {
            let segment = self.segments[index];
            if segment.span.end.after(span.end) {
                break;
            }
            // A report that covers a part of a segment says too little about it.
            if segment.span.start.at_or_after(span.start) && !segment.is_sacked() {
                self.set_fate(index, Fate::Sacked);
                news += segment.span.len();
                each(&segment);
            }
        }
        news
    }

    /// The peer forgot what it had reported.
    pub(super) fn forget_sacks(&mut self) {
        for index in 0..self.segments.len() {
            if self.segments[index].is_sacked() {
                self.set_fate(index, Fate::InFlight);
            }
        }
    }

    /// Whether the peer reported the first segment and did not acknowledge it: it has forgotten its reports.
    pub(super) fn head_is_sacked(&self) -> bool {
        self.segments.front().is_some_and(Sent::is_sacked)
    }

    /// Takes for lost what is under way and for which `is_lost` holds, in the order of their numbers, as long as
    /// `goes_on` holds. Octets of them.
    pub(super) fn lose(&mut self, mut is_lost: impl FnMut(&Sent) -> bool, goes_on: impl Fn(&Sent) -> bool) -> u32 {
        let mut news = 0;
        for index in 0..self.segments.len() {
            let segment = self.segments[index];
            if !goes_on(&segment) {
                break;
            }
            if segment.is_in_flight() && is_lost(&segment) {
                self.lost_from =
                    if self.lost == 0 { segment.span.start } else { self.lost_from.earliest(segment.span.start) };
                self.set_fate(index, Fate::Lost);
                news += segment.span.len();
            }
        }
        news
    }

    /// What was taken for lost is under way after all.
    pub(super) fn find_again(&mut self) {
        for index in 0..self.segments.len() {
            if self.segments[index].fate == Fate::Lost {
                self.set_fate(index, Fate::InFlight);
            }
        }
    }

    /// The first lost octets, as far as they follow one another.
    pub(super) fn first_lost(&self) -> Option<Span> {
        if self.lost == 0 {
            return None;
        }
        let from = self.index_of(self.lost_from);
        let mut lost =
            self.segments.range(from..).skip_while(|s| s.fate != Fate::Lost).take_while(|s| s.fate == Fate::Lost);
        let first = lost.next()?.span;
        Some(lost.fold(first, |all, next| Span { end: next.span.end, ..all }))
    }

    /// The segments that end before `una`, or there.
    pub(super) fn before(&self, una: SeqNum) -> impl Iterator<Item = &Sent> {
        self.segments.iter().take_while(move |segment| segment.span.end.at_or_before(una))
    }

    /// Whether `seq` belongs to a segment that was sent only once.
    pub(super) fn was_sent_once(&self, seq: SeqNum) -> bool {
        let around = self.segments.get(self.index_of(seq));
        around.is_some_and(|segment| segment.span.start.at_or_before(seq) && !segment.again)
    }

    /// The last segment, unless the peer has it.
    pub(super) fn last(&self) -> Option<Span> {
        self.segments.back().filter(|segment| !segment.is_sacked()).map(|segment| segment.span)
    }

    fn set_fate(&mut self, index: usize, fate: Fate) {
        let segment = &mut self.segments[index];
        let length = segment.span.len();
        let was = core::mem::replace(&mut segment.fate, fate);
        *self.octets(was) -= length;
        *self.octets(fate) += length;
    }

    fn octets(&mut self, fate: Fate) -> &mut u32 {
        match fate {
            Fate::InFlight => &mut self.pipe,
            Fate::Sacked => &mut self.sacked,
            Fate::Lost => &mut self.lost,
        }
    }

    /// Index of the first segment that ends after `seq`.
    fn index_of(&self, seq: SeqNum) -> usize {
        self.segments.partition_point(|segment| segment.span.end.at_or_before(seq))
    }

    /// Makes a segment begin at `seq`, if there is one around it.
    fn split_at(&mut self, seq: SeqNum) {
        let index = self.index_of(seq);
        let Some(segment) = self.segments.get_mut(index).filter(|s| s.span.start.before(seq)) else { return };
        let rest = Sent { span: Span { start: seq, end: segment.span.end }, ..*segment };
        segment.span.end = seq;
        self.segments.insert(index + 1, rest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn span(start: u32, end: u32) -> Span {
        Span { start: SeqNum(start), end: SeqNum(end) }
    }

    fn now(ms: u64) -> Instant {
        Instant::from_millis(ms)
    }

    /// Ten segments of 100 octets, a millisecond apart.
    fn ten() -> Scoreboard {
        let mut board = Scoreboard::default();
        for n in 0..10 {
            board.sent(span(100 * n, 100 * n + 100), SeqNum(100 * n), now(n.into()));
        }
        board
    }

    #[test]
    fn octets_are_under_way_reported_or_lost_and_go_when_acknowledged() {
        let mut board = ten();
        assert_eq!((board.pipe(), board.sacked()), (1000, 0));
        assert_eq!(board.sack(span(300, 500), |_| {}), 200);
        assert_eq!(board.sack(span(300, 500), |_| {}), 0, "reported before");
        assert_eq!(board.lose(|s| s.span.end.at_or_before(SeqNum(300)), |_| true), 300);
        assert_eq!((board.pipe(), board.sacked(), board.first_lost()), (500, 200, Some(span(0, 300))));
        board.sent(span(0, 150), SeqNum(1000), now(20));
        assert_eq!((board.pipe(), board.first_lost()), (650, Some(span(150, 300))));
        let mut seen = 0;
        assert_eq!(board.acknowledge(SeqNum(450), |_| seen += 1), 300);
        assert_eq!((seen, board.pipe(), board.sacked(), board.first_lost()), (4, 500, 50, None));
        assert_eq!(board.acknowledge(SeqNum(1000), |_| {}), 500);
        assert!(board.is_empty() && board.pipe() == 0 && board.sacked() == 0);
    }

    #[test]
    fn a_report_of_a_part_of_a_segment_reports_nothing() {
        let mut board = ten();
        assert_eq!(board.sack(span(150, 250), |_| {}), 0);
        assert_eq!(board.sack(span(150, 399), |_| {}), 100);
    }

    #[test]
    fn what_is_sent_again_is_split_where_it_ends_and_new_octets_follow() {
        let mut board = ten();
        board.lose(|_| true, |_| true);
        board.sent(span(50, 250), SeqNum(1000), now(30));
        assert_eq!((board.pipe(), board.first_lost()), (200, Some(span(0, 50))));
        board.sent(span(950, 1050), SeqNum(1000), now(31));
        assert_eq!((board.pipe(), board.last()), (300, Some(span(1000, 1050))));
        assert_eq!(board.segments.iter().filter(|s| s.again).count(), 4);
    }

    #[test]
    fn what_was_taken_for_lost_or_reported_can_be_under_way_again() {
        let mut board = ten();
        board.sack(span(0, 200), |_| {});
        assert!(board.head_is_sacked());
        board.lose(|_| true, |s| s.span.start.before(SeqNum(500)));
        assert_eq!((board.pipe(), board.sacked()), (500, 200));
        board.forget_sacks();
        board.find_again();
        assert_eq!((board.pipe(), board.sacked(), board.first_lost()), (1000, 0, None));
    }
}
