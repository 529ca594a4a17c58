//! What a connection keeps while it sends: the congestion window and loss recovery. It is made when something is sent
//! and goes when the connection rests, so that an idle connection does not carry it; what is worth remembering
//! ([`Memory`]) stays.

use alloc::boxed::Box;
use core::num::{NonZeroU8, NonZeroU32};

use super::Connection;
use super::output::time_since;
use crate::congestion::{Congestion, SlowStart, initial_window};
use crate::figures::Figure;
use crate::recovery::{News, Next, Outstanding, Path, Purpose, Recovery};
use crate::seq::{SeqNum, Span};
use crate::shared::Context;
use crate::time::Instant;
use crate::timers::Timer;
use crate::wire::Segment;

/// The sending of a connection that does not rest.
pub(super) struct Flow {
    pub(super) congestion: Congestion,
    pub(super) recovery: Recovery,
    /// What the retransmission timer waits for.
    pub(super) purpose: Purpose,
    /// When the RTO ends, whatever the timer waits for before.
    timeout: Instant,
    /// The largest segment that was acknowledged since the path's MTU changed, bytes of payload.
    largest_acked: u32,
    /// SND.NXT when a mark of the network slowed us down last: until it is acknowledged, the peer's word of marks is
    /// about what was sent before.
    pub(super) reduced: Option<SeqNum>,
}

/// What outlives a flow.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Memory {
    /// Slow-start threshold, bytes.
    threshold: Option<NonZeroU32>,
    path: Path,
    /// Segments that the next flow begins with at most; `None`: as many as any. One after more than one lost SYN, later
    /// what the window of the last flow was.
    pub(super) starts_with: Option<NonZeroU8>,
}

impl Memory {
    fn threshold(self) -> Option<u32> {
        self.threshold.map(NonZeroU32::get)
    }
}

impl Connection {
    /// The congestion window, bytes.
    pub(super) fn congestion_window(&self, mss: u32) -> u32 {
        self.flow.as_ref().map_or_else(|| self.initial_window(mss), |flow| flow.congestion.window())
    }

    /// The window that a flow begins with. One lost SYN may have been an accident or a full queue of half-open
    /// connections (RFC 6928 section 2); more of them are congestion (RFC 5681 section 3.1). After a rest it is what the
    /// window was if that is less (section 4.1).
    //= docs/rfc/rfc6928.md#2-syn-loss
    //= docs/rfc/rfc5681.md#4.1-idle
    fn initial_window(&self, mss: u32) -> u32 {
        let most = self.memory.starts_with.map_or(u32::MAX, |segments| mss * u32::from(segments.get()));
        initial_window(mss).min(most)
    }

    /// What loss recovery counts as under way, bytes.
    pub(super) fn in_flight(&self) -> u32 {
        self.flow.as_ref().map_or(0, |flow| flow.recovery.in_flight(self.send.una))
    }

    /// The slow-start threshold, bytes; `None` before the first loss.
    pub(super) fn threshold(&self) -> Option<u32> {
        self.flow.as_ref().map_or(self.memory.threshold(), |flow| flow.congestion.threshold())
    }

    /// Whether a loss is being repaired.
    pub(super) fn is_recovering(&self) -> bool {
        self.flow.as_ref().is_some_and(|flow| flow.recovery.is_active())
    }

    /// Whether a tail loss probe is to be sent.
    pub(super) fn probes_tail(&self) -> bool {
        self.flow.as_ref().is_some_and(|flow| flow.recovery.is_probing())
    }

    pub(super) fn outstanding(&self, cx: &Context<'_>) -> Outstanding {
        Outstanding { una: self.send.una, next: self.send.next, mss: self.segment_size(cx).into() }
    }

    /// What is to be sent next.
    pub(super) fn next_to_send(&self, at: Outstanding) -> Next {
        let more = self.send.next.before(self.send.data_end()) && self.send.window > self.send.next - self.send.una;
        match &self.flow {
            Some(flow) => flow.recovery.next(at, flow.congestion.window(), more),
            None => Next { seq: at.next, most: u32::MAX, budget: self.initial_window(at.mss) },
        }
    }

    /// Octets were sent, `next` being SND.NXT before that.
    pub(super) fn flow_sent(&mut self, cx: &Context<'_>, span: Span, next: SeqNum) {
        let (algorithm, memory) = (self.config.congestion, self.memory);
        let (una, mss) = (self.send.una, self.segment_size(cx).into());
        let window = self.initial_window(mss);
        //= docs/rfc/rfc8985.md#4-sack
        let path = self.sack_agreed.then_some(memory.path);
        let flow = self.flow.get_or_insert_with(|| {
            let congestion = Congestion::new(algorithm, window, memory.threshold());
            Box::new(Flow {
                congestion,
                recovery: Recovery::new(next, path),
                purpose: Purpose::Timeout,
                timeout: Instant::MAX,
                largest_acked: 0,
                reduced: None,
            })
        });
        if let Some(figure) = flow.recovery.figure_of_sending(span.start == next) {
            cx.count(figure);
        }
        flow.recovery.on_sent(span, next, cx.now);
        let in_flight = flow.recovery.in_flight(una);
        flow.congestion.on_sent(in_flight, una, next.latest(span.end), mss);
    }

    /// Everything from SND.UNA on is to be sent again.
    pub(super) fn resend(&mut self) {
        if let Some(flow) = &mut self.flow {
            flow.recovery.resend_from(self.send.una);
        }
    }

    /// The path does not carry segments of more than `size` bytes: those under way are sent again as smaller ones.
    pub(super) fn resend_larger_than(&mut self, size: u32) {
        if let Some(flow) = &mut self.flow {
            flow.recovery.resend_larger_than(size, self.send.una);
            flow.largest_acked = 0;
        }
    }

    /// The largest segment that was acknowledged of late, bytes of payload; 0: none was.
    pub(super) fn largest_acked(&self) -> u32 {
        self.flow.as_ref().map_or(0, |flow| flow.largest_acked)
    }

    /// An acceptable ACK arrived, which newly acknowledges `acked` octets or is a duplicate or neither.
    pub(super) fn flow_acked(&mut self, cx: &Context<'_>, segment: &Segment<'_>, acked: u32, is_duplicate: bool) {
        let sacks = if self.sack_agreed { segment.options.sacks } else { Default::default() };
        let echo = segment.options.timestamps.filter(|_| self.recv.timestamps().is_some()).map(|t| t.echo);
        let news = News { acked, is_duplicate, sacks: sacks.as_slice(), echo, ..self.no_news(cx) };
        let Some(flow) = &mut self.flow else { return };
        let (window, start) = (flow.congestion.window(), flow.congestion.start());
        flow.largest_acked = flow.largest_acked.max(flow.recovery.largest_acked(&news));
        if let Some(rtt) = flow.recovery.on_ack(&news, &mut flow.congestion) {
            self.rtt.note_shortest(rtt, cx.now);
        }
        match flow.congestion.start() {
            now if now == start => {}
            SlowStart::Slowed => cx.count(Figure::SlowStartSlowed),
            SlowStart::Ended => cx.count(Figure::SlowStartEnded),
            SlowStart::Standard => {}
        }
        // Whatever made us slow down, the peer is told (RFC 3168 section 6.1.2).
        self.ecn.reduction_due |= self.ecn.agreed && flow.congestion.window() < window;
    }

    /// The view that recovery has of an event that is no ACK.
    fn no_news<'a>(&self, cx: &'a Context<'_>) -> News<'a> {
        News {
            at: self.outstanding(cx),
            now: cx.now,
            acked: 0,
            is_duplicate: false,
            sacks: &[],
            echo: None,
            trips: self.rtt.trips().unwrap_or_default(),
            max_window: self.send.max_window,
            figures: &cx.shared.figures,
        }
    }

    /// The retransmission timer expired and meant a timeout.
    pub(super) fn flow_timed_out(&mut self, cx: &Context<'_>) {
        let news = self.no_news(cx);
        if let Some(flow) = &mut self.flow {
            flow.recovery.on_timeout(&news, &mut flow.congestion);
            self.ecn.reduction_due = self.ecn.agreed;
        }
    }

    /// What the retransmission timer waits for.
    pub(super) fn purpose(&self) -> Purpose {
        self.flow.as_ref().map(|flow| flow.purpose).unwrap_or_default()
    }

    /// What the retransmission timer waited for when it expired.
    pub(super) fn take_purpose(&mut self) -> Purpose {
        self.flow.as_mut().map(|flow| core::mem::take(&mut flow.purpose)).unwrap_or_default()
    }

    /// The retransmission timer expired before the timeout: to probe, or because what looked lost had its time.
    pub(super) fn flow_stirs(&mut self, cx: &Context<'_>, purpose: Purpose) {
        let news = self.no_news(cx);
        if let Some(flow) = &mut self.flow {
            flow.recovery.on_early_timer(purpose, &news, &mut flow.congestion);
        }
        match purpose {
            Purpose::Reorder => self.set_retransmission_timer(cx),
            Purpose::Probe | Purpose::Timeout => self.restart_timeout(cx),
        }
    }

    /// Starts the RTO over for what is outstanding.
    pub(super) fn restart_timeout(&mut self, cx: &Context<'_>) {
        let rto = self.rto();
        if let Some(flow) = &mut self.flow {
            flow.timeout = cx.now + rto;
        }
        self.set_retransmission_timer(cx);
    }

    /// Something was sent, or a report changed what is to be waited for before the RTO: that goes on if it runs. Only the
    /// first segment sent again (`head_again`) has an RTO of its own: repairs of a loss may take longer than what is left,
    /// and would seem to have failed (RFC 6675 section 6).
    pub(super) fn adjust_retransmission(&mut self, cx: &Context<'_>, head_again: bool) {
        if head_again || !self.timers.is_armed(Timer::Retransmit) {
            self.restart_timeout(cx);
        } else {
            self.set_retransmission_timer(cx);
        }
    }

    fn set_retransmission_timer(&mut self, cx: &Context<'_>) {
        let (at, trips) = (self.outstanding(cx), self.rtt.trips());
        let Some(flow) = &mut self.flow else { return };
        let rto = flow.timeout.since(cx.now);
        let (purpose, after) = flow.recovery.timer(at, rto, trips, cx.now);
        flow.purpose = purpose;
        self.arm(cx, Timer::Retransmit, after);
    }

    /// A burst of an old window after an idle time could flood a path that has changed (RFC 5681 section 4.1): the
    /// flow ends once nothing was sent for longer than an RTO.
    //= docs/rfc/rfc5681.md#4.1-idle
    pub(crate) fn rest(&mut self, cx: &Context<'_>) {
        let idle = time_since(self.send.last_sent, cx.now).is_none_or(|idle| idle > self.rto());
        if idle && self.send.queued() == 0 && !self.send.is_outstanding() {
            self.end_flow(cx);
        }
    }

    /// The flow is over. What its window has grown to since the last loss is worth three quarters of it as a threshold
    /// (RFC 2861 section 3.2): the next flow would else creep from where the loss was.
    fn end_flow(&mut self, cx: &Context<'_>) {
        if let Some(flow) = self.flow.take() {
            cx.count(Figure::IdleRestart);
            let window = flow.congestion.window();
            let threshold = flow.congestion.threshold().map(|threshold| threshold.max(window / 4 * 3));
            let threshold = threshold.and_then(NonZeroU32::new);
            let segments = window / u32::from(self.segment_size(cx));
            let starts_with = u8::try_from(segments.max(1)).ok().and_then(NonZeroU8::new);
            self.memory = Memory { threshold, path: flow.recovery.path(), starts_with };
        }
    }
}
