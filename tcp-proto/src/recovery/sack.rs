//! Loss recovery with selective acknowledgments (RFC 2018): RACK finds what is lost, tail loss probes make the peer
//! tell (RFC 8985), proportional rate reduction paces the repair (RFC 9937), and what turns out to have been no loss
//! is undone (RFC 3522, RFC 2883). The SND variables stay the connection's.

use core::time::Duration;

use super::prr::{Prr, Told};
use super::rack::{Path, Rack, RoundTrips};
use super::scoreboard::Scoreboard;
use super::{Figure, News, Next, Outstanding};
use crate::congestion::{Acked, Congestion, Prior};
use crate::seq::{SeqNum, Span};
use crate::time::Instant;
use crate::wire::tcp::MAX_SACK_BLOCKS;

/// Shortest and usual wait for a tail loss probe: below the first, the host's own delays look like losses.
const LEAST_PROBE_TIMEOUT: Duration = Duration::from_millis(10);
/// How long the peer may hold back the ACK of a single segment (RFC 8985 section 7.2).
const PEERS_DELAYED_ACK: Duration = Duration::from_millis(200);

#[derive(Clone, Debug)]
enum Phase {
    /// Nothing is known to be lost.
    Open,
    /// A loss was found and is being repaired.
    Fast(Prr),
    /// The retransmission timer expired.
    Timeout,
}

/// A tail loss probe under way.
#[derive(Clone, Copy, Debug)]
struct Probe {
    /// SND.NXT after it.
    end: SeqNum,
    /// Whether it repeated something.
    again: bool,
    /// How much of the window was in use when it was due.
    used: u32,
}

/// What a recovery that was needless gives back.
#[derive(Clone, Copy, Debug)]
struct Undo {
    prior: Prior,
    /// SND.UNA when the recovery began: nothing before it was sent again by it.
    from: SeqNum,
    /// Our clock when something was first sent again, ms; `None`: nothing was yet.
    stamp: Option<u32>,
    /// Segments sent again that the peer did not report as duplicates.
    unexplained: u32,
    /// SND.NXT when the recovery ended: once that is acknowledged, its duplicates have been reported.
    until: Option<SeqNum>,
}

/// Loss recovery of a connection whose peer sends SACK.
#[derive(Debug)]
pub(crate) struct Sack {
    board: Scoreboard,
    rack: Rack,
    path: Path,
    phase: Phase,
    /// SND.NXT when recovery began.
    recover: SeqNum,
    probe: Option<Probe>,
    /// A probe is due; how much of the window was in use until then.
    probe_due: Option<u32>,
    /// Whether the timer expired and the first segment has not been sent again since: it goes whatever is in flight.
    head_due: bool,
    undo: Option<Undo>,
    /// When the reordering window of something that is likely lost ends.
    reorder_deadline: Option<Instant>,
}

impl Sack {
    /// Nothing sent yet; `next` is SND.NXT.
    pub(super) fn new(next: SeqNum, path: Path) -> Self {
        Sack {
            board: Scoreboard::default(),
            rack: Rack::default(),
            path,
            phase: Phase::Open,
            recover: next,
            probe: None,
            probe_due: None,
            head_due: false,
            undo: None,
            reorder_deadline: None,
        }
    }

    pub(super) fn path(&self) -> Path {
        self.path
    }

    /// Octets under way.
    pub(super) fn in_flight(&self) -> u32 {
        self.board.pipe()
    }

    pub(super) fn is_active(&self) -> bool {
        !matches!(self.phase, Phase::Open)
    }

    /// Whether a probe is what is sent next.
    pub(super) fn is_probing(&self) -> bool {
        self.probe_due.is_some()
    }

    /// Whether what is sent is limited transmit: something was reported, and nothing found lost.
    pub(super) fn is_limited(&self) -> bool {
        !self.is_active() && self.board.sacked() > 0
    }

    /// What to send next. `more`: whether there is something new that the peer's window allows.
    //= docs/rfc/rfc3042.md#2-sack
    pub(super) fn next(&self, at: Outstanding, window: u32, more: bool) -> Next {
        if self.is_probing() {
            return self.next_probe(at, more);
        }
        let budget = match &self.phase {
            Phase::Fast(prr) => prr.allowance(),
            Phase::Timeout if self.head_due => at.mss,
            Phase::Open | Phase::Timeout => window.saturating_sub(self.board.pipe()),
        };
        match self.board.first_lost() {
            // Half a segment would help nobody.
            Some(lost) if budget > 0 => Next { seq: lost.start, most: lost.len(), budget: budget.max(at.mss) },
            Some(lost) => Next { seq: lost.start, most: lost.len(), budget: 0 },
            None if self.board.is_full() => Next { seq: at.next, most: 0, budget: 0 },
            None => Next { seq: at.next, most: u32::MAX, budget },
        }
    }

    //= docs/rfc/rfc8985.md#7.3-probe
    fn next_probe(&self, at: Outstanding, more: bool) -> Next {
        match self.board.last().filter(|_| !more || self.board.is_full()) {
            Some(last) => {
                let start = last.start.latest(last.end - at.mss.min(last.len()));
                Next { seq: start, most: last.end - start, budget: u32::MAX }
            }
            None => Next { seq: at.next, most: u32::MAX, budget: at.mss },
        }
    }

    /// Octets were sent, `next` being SND.NXT before that.
    //= docs/rfc/rfc3522.md#3.2-timestamp
    pub(super) fn on_sent(&mut self, span: Span, next: SeqNum, now: Instant) {
        let again = span.start.before(next);
        self.head_due = false;
        if let Some(used) = self.probe_due.take() {
            self.probe = Some(Probe { end: span.end.latest(next), again, used });
        }
        if let Phase::Fast(prr) = &mut self.phase {
            prr.on_sent(span.len());
        }
        if let Some(undo) = self.undo.as_mut().filter(|_| again) {
            undo.stamp.get_or_insert(now.as_millis() as u32);
            undo.unexplained += 1;
        }
        self.board.sent(span, next, now);
    }

    /// Everything that the peer does not have is to be sent again: its window was closed when it was sent.
    pub(super) fn resend(&mut self) {
        self.board.lose(|_| true, |_| true);
    }

    /// Segments of more than `size` bytes are lost: the path does not carry them.
    pub(super) fn resend_larger_than(&mut self, size: u32) {
        self.board.lose(|segment| segment.span.len() > size, |_| true);
    }

    /// The largest segment before `una`, bytes.
    pub(super) fn largest_acked(&self, una: SeqNum) -> u32 {
        self.board.before(una).map(|segment| segment.span.len()).max().unwrap_or(0)
    }

    /// An acceptable ACK arrived.
    pub(super) fn on_ack(&mut self, news: &News<'_>, congestion: &mut Congestion) -> Option<Duration> {
        let mut before = self.board.pipe();
        self.probe_due = None;
        let duplicate = self.duplicate_report(news);
        let delivered = self.take_in(news);
        let rtt = self.rack.take_sample();
        if duplicate.is_some() {
            self.rack.got_twice(&mut self.path, news.at.una, news.at.next);
        }
        let probe_lost = self.judge_probe(news, duplicate);
        if self.undo_if_needless(news, duplicate, congestion) {
            // What was taken for lost was in flight all along.
            before = self.board.pipe() + delivered;
        }
        let _ = self.undo.take_if(|undo| undo.until.is_some_and(|until| news.at.una.at_or_after(until)));
        let after_timeout = matches!(self.phase, Phase::Timeout);
        let acked = Acked {
            bytes: news.acked,
            in_flight: if after_timeout { congestion.window() } else { before },
            mss: news.at.mss,
            una: news.at.una,
            next: news.at.next,
            now: news.now,
            rtt,
            smoothed: news.trips.smoothed,
        };
        let ends = self.is_active() && news.at.una.at_or_after(self.recover);
        if ends {
            // Slow start after a timeout has not ended with it.
            if after_timeout {
                congestion.on_ack(&acked);
            }
            news.figures.count(Figure::Recovered);
            self.end(news.at.next, congestion);
        }
        let found = self.detect(news);
        match (&mut self.phase, probe_lost) {
            (Phase::Open, _) if found > 0 => self.begin_fast(news, before, delivered, congestion),
            (Phase::Open, Some(used)) => {
                news.figures.count(Figure::ProbeRepaired);
                congestion.on_loss(before.max(used), news.at.mss);
            }
            (Phase::Open | Phase::Timeout, _) if news.acked > 0 && !ends => congestion.on_ack(&acked),
            (Phase::Open | Phase::Timeout, _) => {}
            (Phase::Fast(prr), _) => {
                if found > 0 {
                    news.figures.count(Figure::LostInRecovery);
                }
                let is_safe = news.acked > 0 && found == 0;
                prr.on_ack(Told { delivered, pipe: self.board.pipe(), is_safe, mss: news.at.mss });
            }
        }
        rtt
    }

    /// Notes what the ACK acknowledges and reports, in the order of numbers: within one ACK nothing overtakes anything.
    /// Octets of which we did not know.
    fn take_in(&mut self, news: &News<'_>) -> u32 {
        let Sack { board, rack, path, .. } = self;
        let (now, una, shortest) = (news.now, news.at.una, news.trips.shortest);
        let mut delivered = board.acknowledge(una, |segment| rack.arrived(path, segment, now, news.echo, shortest));
        let mut sacks = [Span::default(); MAX_SACK_BLOCKS];
        let sacks = &mut sacks[..news.sacks.len().min(MAX_SACK_BLOCKS)];
        sacks.copy_from_slice(&news.sacks[..sacks.len()]);
        sacks.sort_unstable_by_key(|span| span.start - una);
        for span in sacks {
            let sane = span.start.at_or_after(una) && span.start.before(span.end);
            if sane && span.end.at_or_before(news.at.next) {
                // The timestamp that comes back is that of the last segment in order, not of what is reported.
                delivered += board.sack(*span, |segment| rack.arrived(path, segment, now, None, shortest));
            }
        }
        delivered
    }

    /// What the peer got twice, if the first block says so (RFC 2883 section 4).
    //= docs/rfc/rfc2883.md#5-sender
    fn duplicate_report(&self, news: &News<'_>) -> Option<Span> {
        let first = *news.sacks.first()?;
        let inside = news.sacks.get(1).is_some_and(|second| second.holds(first));
        let old = first.end.at_or_before(news.at.una);
        // Nobody can have got twice what was never acknowledged, nor what was long ago.
        let recent = first.start.before(first.end) && (news.at.una - first.start) <= news.max_window.max(1);
        (inside || (old && recent)).then_some(first)
    }

    /// Whether the probe repaired a loss that nothing else told of (RFC 8985 section 7.4.2): data sent after it are
    /// acknowledged, and the peer did not report that it got the probe's twice. How much of the window was in use then.
    //= docs/rfc/rfc8985.md#7.4-detect
    fn judge_probe(&mut self, news: &News<'_>, duplicate: Option<Span>) -> Option<u32> {
        let probe = self.probe.filter(|probe| news.at.una.at_or_after(probe.end))?;
        let beyond = news.at.una.after(probe.end);
        let told = !probe.again || duplicate.is_some() || (news.acked == 0 && news.is_duplicate);
        if told || beyond {
            self.probe = None;
        }
        (beyond && !told).then_some(probe.used)
    }

    /// Undoes a recovery when the ACK shows that what was sent again had arrived the first time: by the timestamp of
    /// the first sending (RFC 3522), or by reports of every repetition as a duplicate (RFC 2883). Whether it did.
    //= docs/rfc/rfc3522.md#3.2-spurious
    //= docs/rfc/rfc4015.md#3.3-no-resend
    fn undo_if_needless(&mut self, news: &News<'_>, duplicate: Option<Span>, congestion: &mut Congestion) -> bool {
        let Some(undo) = &mut self.undo else { return false };
        let Some(stamp) = undo.stamp else { return false };
        let first_sending = news.acked > 0 && news.echo.is_some_and(|echo| (echo.wrapping_sub(stamp) as i32) < 0);
        // The network may have doubled something, too.
        let board = &self.board;
        let duplicate = duplicate.filter(|twice| twice.end.after(undo.from) && !board.was_sent_once(twice.start));
        if let Some(twice) = duplicate {
            let segments = twice.len().div_ceil(news.at.mss.max(1)).max(1);
            undo.unexplained = undo.unexplained.saturating_sub(segments);
        }
        let all_twice = duplicate.is_some() && undo.unexplained == 0;
        // An ACK of what was sent after the recovery began tells nothing about it.
        let about_it = first_sending && self.is_active();
        let Some(undo) = self.undo.filter(|_| about_it || all_twice) else { return false };
        news.figures.count(if about_it { Figure::EifelUndo } else { Figure::DuplicateUndo });
        self.board.find_again();
        congestion.undo(undo.prior, self.board.pipe(), news.at.mss);
        self.phase = Phase::Open;
        self.undo = None;
        true
    }

    /// Takes for lost what RACK finds; octets.
    fn detect(&mut self, news: &News<'_>) -> u32 {
        let window = self.reordering_window(news.at.mss, news.trips);
        let (lost, wait) = self.rack.detect(&mut self.board, window, news.now);
        self.reorder_deadline = wait.map(|wait| news.now + wait);
        lost
    }

    fn reordering_window(&self, mss: u32, trips: RoundTrips) -> Duration {
        // A handshake that was repeated measured nothing.
        let trips = if trips.smoothed.is_zero() { self.rack.round_trips() } else { trips };
        self.path.window(trips, self.board.sacked() / mss.max(1), self.is_active())
    }

    fn begin_fast(&mut self, news: &News<'_>, in_flight: u32, delivered: u32, congestion: &mut Congestion) {
        news.figures.count(Figure::RackRecovery);
        self.note_undo(news.at.una, congestion);
        congestion.on_loss(in_flight, news.at.mss);
        let mut prr = Prr::begin(in_flight, congestion.window());
        prr.on_ack(Told { delivered: delivered.max(1), pipe: self.board.pipe(), is_safe: false, mss: news.at.mss });
        self.phase = Phase::Fast(prr);
        self.recover = news.at.next;
        self.probe = None;
    }

    fn note_undo(&mut self, from: SeqNum, congestion: &Congestion) {
        self.undo = Some(Undo { prior: congestion.prior(), from, stamp: None, unexplained: 0, until: None });
    }

    fn end(&mut self, next: SeqNum, congestion: &mut Congestion) {
        self.phase = Phase::Open;
        if let Some(undo) = &mut self.undo {
            undo.until = Some(next);
        }
        self.path.recovered();
        congestion.on_repaired();
    }

    /// The retransmission timer expired.
    //= docs/rfc/rfc2018.md#5-timeout-first
    //= docs/rfc/rfc2018.md#5-timeout-forget
    //= docs/rfc/rfc8985.md#6.3-rto
    pub(super) fn on_timeout(&mut self, news: &News<'_>, congestion: &mut Congestion) {
        let at = news.at;
        // A loss of the same data that was found before has had its effect already.
        let first = !self.is_active();
        if first {
            self.note_undo(at.una, congestion);
        }
        // RFC 2018 section 8: the peer may have forgotten what it reported.
        if self.board.head_is_sacked() {
            news.figures.count(Figure::Reneging);
            self.board.forget_sacks();
        }
        let in_flight = at.in_flight() - self.board.sacked();
        congestion.on_timeout(in_flight, at.mss, first);
        let window = self.reordering_window(at.mss, news.trips);
        self.rack.time_out(&mut self.board, window, news.now);
        self.phase = Phase::Timeout;
        self.head_due = true;
        self.recover = at.next;
        self.reorder_deadline = None;
        (self.probe, self.probe_due) = (None, None);
    }

    /// The reordering window of something has passed.
    pub(super) fn on_reorder_timeout(&mut self, news: &News<'_>, congestion: &mut Congestion) {
        let before = self.board.pipe();
        let found = self.detect(news);
        if found > 0 && !self.is_active() {
            self.begin_fast(news, before, 0, congestion);
        } else if let Phase::Fast(prr) = &mut self.phase {
            prr.allow(news.at.mss);
        }
    }

    /// The probe timer expired.
    pub(super) fn on_probe_timeout(&mut self, congestion: &Congestion) {
        self.probe_due = (!self.board.is_empty()).then(|| congestion.used(self.board.pipe()));
    }

    /// When a reordering window ends, if one does.
    pub(super) fn reorder_deadline(&self) -> Option<Instant> {
        self.reorder_deadline
    }

    /// How long after a sending or an ACK a probe is due; `None`: none is (RFC 8985 section 7.2), or it waits for room in a
    /// window that the peer has made smaller.
    //= docs/rfc/rfc8985.md#7.2-pto
    //= docs/rfc/rfc8985.md#7.3-one
    //= docs/rfc/rfc8985.md#7.3-rto
    pub(super) fn probe_timeout(&self, at: Outstanding, smoothed: Duration) -> Option<Duration> {
        let waits = self.probe.is_some() || self.probe_due.is_some();
        let quiet = !self.is_active() && !waits && self.board.sacked() == 0 && !self.board.is_empty();
        let alone = if at.next - at.una <= at.mss { PEERS_DELAYED_ACK } else { Duration::ZERO };
        quiet.then(|| (2 * smoothed + alone).max(LEAST_PROBE_TIMEOUT))
    }
}
