//! What to send now, and sending it. [`Connection::plan`] chooses and changes nothing; [`Connection::transmit`]
//! writes what was chosen and notes what that entails. Nagle's algorithm and the sender's silly window
//! avoidance (RFC 9293 sections 3.7.4 and 3.8.6.2.1) are in [`Connection::stream_may_go`].

use tcp_common::State;

use super::{Connection, Probe};
use crate::figures::Figure;
use crate::recovery::{Next, Outstanding};
use crate::seq::{SeqNum, Span};
use crate::shared::Context;
use crate::time::{Duration, Instant};
use crate::timers::Timer;
use crate::wire::tcp::{MAX_SACK_BLOCKS, sack_length};
use crate::wire::{Flags, Options, Outgoing, Timestamps, emit};

/// The next segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// Our SYN; with an ACK in SYN_RCVD.
    Syn,
    /// Stream bytes, a FIN, or both.
    Stream(Piece),
    /// A keep-alive probe: nothing, at SND.NXT - 1 (SHLD-12).
    IdleProbe,
    /// An ACK.
    Ack,
}

/// A piece of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    seq: SeqNum,
    length: u32,
    fin: bool,
    /// Whether it probes a closed window.
    probe: bool,
}

impl Piece {
    fn end(&self) -> SeqNum {
        self.seq + self.length + u32::from(self.fin)
    }
}

/// TSval: milliseconds of the clock that every connection and the XDP program share.
//= docs/rfc/rfc7323.md#5.4-clock
pub(crate) fn clock(now: Instant) -> u32 {
    tcp_common::cookie::timestamp_clock(now.as_nanos())
}

/// Time since our clock showed `echo`; `None` if it did not show that yet.
pub(super) fn time_since(echo: u32, now: Instant) -> Option<Duration> {
    let elapsed = clock(now).wrapping_sub(echo);
    (elapsed <= i32::MAX as u32).then(|| Duration::from_millis(elapsed.into()))
}

impl Connection {
    /// Whether [`Connection::transmit`] would send something.
    pub(crate) fn has_something_to_send(&self, cx: &Context<'_>) -> bool {
        self.plan(cx).is_some()
    }

    fn plan(&self, cx: &Context<'_>) -> Option<Plan> {
        match self.state {
            State::CLOSED | State::LISTEN => None,
            State::SYN_SENT | State::SYN_RCVD => self.plan_opening(),
            State::TIME_WAIT => self.plan_ack(),
            _ => self.plan_stream(cx).or_else(|| self.plan_probe()).or_else(|| self.plan_ack()),
        }
    }

    fn plan_opening(&self) -> Option<Plan> {
        if self.send.syn_due { Some(Plan::Syn) } else { self.plan_ack().filter(|_| self.state == State::SYN_RCVD) }
    }

    //= docs/rfc/rfc9293.md#MUST-34
    //= docs/rfc/rfc9293.md#SHLD-15
    //= docs/rfc/rfc9293.md#SHLD-16
    //= docs/rfc/rfc5681.md#3.1-window
    //= docs/rfc/rfc7323.md#2.4-first
    fn plan_stream(&self, cx: &Context<'_>) -> Option<Plan> {
        let size = u32::from(self.payload_size(cx));
        let at = self.outstanding(cx);
        let probe = self.probe_due == Some(Probe::Window);
        // What a probe asks for is the head, even if the peer reports to have it.
        let next = if probe { Next { seq: at.una, most: u32::MAX, budget: u32::MAX } } else { self.next_to_send(at) };
        let window = self.send.window.saturating_sub(next.seq - self.send.una);
        let room = if probe { self.send.window.max(1) } else { window.min(next.budget) };
        let piece = self.piece(next.seq, room.min(next.most), size, probe);
        // Nothing may keep a probe back: it was waited for long enough (RFC 8985 section 7.3).
        let goes = piece.end() != piece.seq && (probe || self.probes_tail() || self.stream_may_go(&piece, size, at));
        goes.then_some(Plan::Stream(piece))
    }

    /// The piece of at most `room` octets of sequence space and `size` bytes from `seq` on.
    fn piece(&self, seq: SeqNum, room: u32, size: u32, probe: bool) -> Piece {
        let end = self.send.data_end();
        let left = end.distance_from(seq).max(0) as u32;
        let length = left.min(room).min(size);
        // A FIN rides on the last data (or alone), if the peer's window holds its octet too. The congestion window
        // need not: it is no load.
        let fits = (seq - self.send.una) + length < self.send.window.max(u32::from(probe));
        let fin = self.fin_is_wanted() && length == left && seq.at_or_before(end) && fits;
        Piece { seq, length, fin, probe }
    }

    /// Whether the application closed, so that a FIN follows the data.
    fn fin_is_wanted(&self) -> bool {
        matches!(self.state, State::FIN_WAIT_1 | State::CLOSING | State::LAST_ACK)
    }

    /// Nagle and silly window avoidance: a full segment goes; less goes when it is all there is and nothing is
    /// outstanding (or nobody wants to wait), or when it is half of the largest window the peer ever offered.
    //= docs/rfc/rfc9293.md#MUST-17
    //= docs/rfc/rfc9293.md#MUST-38
    //= docs/rfc/rfc9293.md#MUST-60
    //= docs/rfc/rfc9293.md#SHLD-7
    //= docs/rfc/rfc9293.md#SHLD-27
    //= docs/rfc/rfc9293.md#SHLD-28
    //= docs/rfc/rfc9293.md#MAY-16
    fn stream_may_go(&self, piece: &Piece, size: u32, at: Outstanding) -> bool {
        let sent_before = piece.seq.before(self.send.next);
        let everything = piece.seq + piece.length == self.send.data_end();
        let quiet = at.una == at.next;
        if piece.length >= size || sent_before {
            return true;
        }
        if everything {
            return piece.fin || self.nodelay || quiet;
        }
        quiet && piece.length >= (self.send.max_window / 2).max(1)
    }

    fn plan_probe(&self) -> Option<Plan> {
        (self.probe_due == Some(Probe::Idle)).then_some(Plan::IdleProbe)
    }

    //= docs/rfc/rfc5681.md#4.2-one
    fn plan_ack(&self) -> Option<Plan> {
        (self.recv.owed.now || self.recv.owed.duplicates > 0).then_some(Plan::Ack)
    }

    /// Arms the persist timer when something waits, nothing is under way that an answer could come to, and
    /// the peer's window is why.
    //= docs/rfc/rfc9293.md#MUST-35
    //= docs/rfc/rfc9293.md#MUST-36
    pub(crate) fn persist_if_stuck(&mut self, cx: &Context<'_>) {
        let sends = self.state.is_synchronized() && self.state != State::TIME_WAIT;
        let waits = self.send.is_outstanding()
            || self.send.next.before(self.send.data_end())
            || (self.fin_is_wanted() && !self.send.fin_sent);
        let served = self.timers.is_armed(Timer::Retransmit) || self.timers.is_armed(Timer::Persist);
        if sends && waits && !served && self.plan_stream(cx).is_none() {
            self.forgive();
            self.arm_persist(cx);
        }
    }

    /// Next probe after the current interval: doubled with each, up to its maximum (SHLD-29, SHLD-30).
    //= docs/rfc/rfc9293.md#SHLD-29
    //= docs/rfc/rfc9293.md#SHLD-30
    pub(super) fn arm_persist(&mut self, cx: &Context<'_>) {
        let first = self.config.persist_initial.unwrap_or_else(|| self.rto());
        let interval = first.saturating_mul(1 << self.retries.min(20)).min(self.config.persist_max);
        self.arm(cx, Timer::Persist, interval);
    }

    /// Whether the peer's window is probed: the timer runs, or the probe is about to leave.
    pub(super) fn is_persisting(&self) -> bool {
        self.timers.is_armed(Timer::Persist) || self.probe_due == Some(Probe::Window)
    }

    /// The peer's window opened, or it took a probe: what the probes carried is sent again, and the rest follows.
    pub(super) fn stop_persisting(&mut self) {
        self.timers.stop(Timer::Persist);
        self.probe_due = None;
        self.forgive();
        self.resend();
    }

    /// The peer answers, or its window is why nothing moves: no reason to give it up. But nobody holds an orphan any
    /// more, so that only progress counts there: a window that opens and closes again must not keep it for ever.
    pub(super) fn forgive(&mut self) {
        if !self.is_orphan() {
            self.retries = 0;
        }
    }

    /// Writes the next segment into `frame`; its length, or `None` when there is nothing to send.
    pub(crate) fn transmit(&mut self, cx: &mut Context<'_>, frame: &mut [u8]) -> Option<usize> {
        let plan = self.plan(cx)?;
        let outgoing = self.outgoing(cx, plan);
        let source = cx.shared.config.mac;
        let length = match plan {
            Plan::Stream(piece) => {
                emit(&outgoing, source, frame, piece.length as usize, |into| self.send.copy(piece.seq, into))
            }
            Plan::Syn | Plan::IdleProbe | Plan::Ack => emit(&outgoing, source, frame, 0, |_| {}),
        };
        // The number of an idle probe is an old one: the peer answers it, but does not take its ACK.
        self.sent(cx, plan, outgoing.flags.has(Flags::ACK) && plan != Plan::IdleProbe);
        Some(length)
    }

    //= docs/rfc/rfc9293.md#SHLD-12
    pub(super) fn outgoing(&mut self, cx: &Context<'_>, plan: Plan) -> Outgoing {
        let (seq, flags) = match plan {
            Plan::Syn => (self.send.iss, self.syn_flags()),
            Plan::Stream(piece) => (piece.seq, self.stream_flags(&piece)),
            Plan::IdleProbe => (self.send.next - 1, Flags::ACK.with(self.ecn.echo())),
            Plan::Ack => (self.send.acceptable_seq(), Flags::ACK.with(self.ecn.echo())),
        };
        let ect = matches!(plan, Plan::Stream(piece) if self.is_marked(&piece));
        let mss = self.receive_segment_size(cx).into();
        let window = match (plan, self.state) {
            (Plan::Syn, _) => self.recv.advertise_unscaled(),
            (_, State::SYN_RCVD) => self.recv.repeat_window(),
            _ => self.recv.advertise(mss),
        };
        let options = if plan == Plan::Syn { self.syn_options(cx) } else { self.options(cx) };
        Outgoing { ect, seq, window, flags, options, ..self.bare_segment() }
    }

    /// PSH with the last byte there is (MUST-61).
    //= docs/rfc/rfc9293.md#MUST-61
    //= docs/rfc/rfc3168.md#6.1.2-cwr
    fn stream_flags(&self, piece: &Piece) -> Flags {
        let last = piece.length > 0 && piece.seq + piece.length == self.send.data_end();
        let cwr = Flags::CWR.when(self.ecn.reduction_due && self.is_marked(piece));
        Flags::ACK.with(Flags::PSH.when(last)).with(Flags::FIN.when(piece.fin)).with(self.ecn.echo()).with(cwr)
    }

    //= docs/rfc/rfc3168.md#6.1.1-offer
    //= docs/rfc/rfc3168.md#6.1.1.1-retry
    fn syn_flags(&self) -> Flags {
        let answers = self.state == State::SYN_RCVD;
        let ecn = match answers {
            true => Flags::ECE.when(self.ecn.agreed),
            // A repeated SYN does without: something on the path may not like it (RFC 3168 section 6.1.1.1).
            false => Flags::ECE.with(Flags::CWR).when(self.config.ecn && self.retries == 0),
        };
        Flags::SYN.with(Flags::ACK.when(answers)).with(ecn)
    }

    /// Whether routers may mark a piece: new data only (RFC 3168 sections 6.1.4 to 6.1.6).
    //= docs/rfc/rfc3168.md#6.1.1-syn-not-ect
    //= docs/rfc/rfc3168.md#6.1.2-ect
    //= docs/rfc/rfc3168.md#6.1.4-acks
    //= docs/rfc/rfc3168.md#6.1.5-retransmissions
    //= docs/rfc/rfc3168.md#6.1.6-probes
    fn is_marked(&self, piece: &Piece) -> bool {
        self.ecn.agreed && piece.length > 0 && !piece.probe && piece.seq == self.send.next
    }

    /// A segment of this connection without seq, flags, window and options.
    //= docs/rfc/rfc9293.md#MUST-45
    //= docs/rfc/rfc9293.md#MUST-48
    //= docs/rfc/rfc9293.md#MUST-49
    //= docs/rfc/rfc9293.md#SHLD-22
    fn bare_segment(&self) -> Outgoing {
        Outgoing {
            key: self.key,
            link: self.link,
            ttl: self.config.ttl,
            dscp: self.config.dscp,
            ect: false,
            seq: self.send.acceptable_seq(),
            ack: if self.state == State::SYN_SENT { SeqNum(0) } else { self.recv.next },
            flags: Flags(0),
            window: 0,
            options: Options::default(),
        }
    }

    /// The RST that ends this connection.
    pub(super) fn reset_segment(&self, cx: &Context<'_>) -> Outgoing {
        Outgoing { flags: Flags::RST.with(Flags::ACK), options: self.options(cx), ..self.bare_segment() }
    }

    //= docs/rfc/rfc2018.md#4-every-ack
    //= docs/rfc/rfc7323.md#3.2-agreed
    //= docs/rfc/rfc7323.md#3.2-rst
    fn options(&self, cx: &Context<'_>) -> Options {
        let timestamps = self.recv.timestamps().map(|echo| Timestamps { value: clock(cx.now), echo });
        let sacks = self.recv.sacks(self.sack_room());
        Options { timestamps, sacks, ..Options::default() }
    }

    /// SACK blocks that fit beside our other options.
    //= docs/rfc/rfc2018.md#3-format
    //= docs/rfc/rfc2018.md#4-many
    fn sack_room(&self) -> usize {
        match (self.sack_agreed, self.recv.timestamps()) {
            (false, _) => 0,
            (true, Some(_)) => MAX_SACK_BLOCKS - 1,
            (true, None) => MAX_SACK_BLOCKS,
        }
    }

    /// Largest payload of a segment that leaves now: reports of what arrived out of order take their place.
    fn payload_size(&self, cx: &Context<'_>) -> u16 {
        let blocks = self.recv.sack_count().min(self.sack_room());
        self.segment_size(cx) - (sack_length(blocks) as u16).min(self.segment_size(cx) - 1)
    }

    /// What our SYN offers; in answer to a SYN, only what that one offered too (RFC 7323 sections 1.3, 3.2).
    //= docs/rfc/rfc9293.md#MUST-14
    //= docs/rfc/rfc9293.md#MUST-65
    //= docs/rfc/rfc9293.md#SHLD-5
    //= docs/rfc/rfc9293.md#MAY-3
    //= docs/rfc/rfc2018.md#2-permitted
    //= docs/rfc/rfc7323.md#2.2-syn
    fn syn_options(&self, cx: &Context<'_>) -> Options {
        let answers = self.state == State::SYN_RCVD;
        let scale = self.config.window_scale && (!answers || self.recv.scaling);
        let timestamps = match (answers, self.recv.timestamps()) {
            (true, echo) => echo.map(|echo| Timestamps { value: clock(cx.now), echo }),
            (false, _) => self.config.timestamps.then(|| Timestamps { value: clock(cx.now), echo: 0 }),
        };
        Options {
            mss: Some(self.announced_mss(cx)),
            window_scale: scale.then(|| self.recv.offered_scale()),
            sack_permitted: if answers { self.sack_agreed } else { self.config.sack },
            timestamps,
            ..Options::default()
        }
    }

    /// What follows from having sent `plan`.
    fn sent(&mut self, cx: &mut Context<'_>, plan: Plan, acknowledges: bool) {
        self.counters.segments_out += 1;
        if acknowledges {
            self.ack_was_sent(cx, plan);
        }
        match plan {
            Plan::Syn => self.syn_was_sent(cx),
            Plan::Stream(piece) => self.piece_was_sent(cx, &piece),
            Plan::IdleProbe => {
                cx.count(Figure::KeepaliveProbe);
                self.probe_due = None;
            }
            Plan::Ack => {}
        }
    }

    /// Any segment carries the ACK that was owed; of duplicate ACKs each is one (RFC 5681 section 4.2).
    //= docs/rfc/rfc9293.md#3.10.7.4-7-piggyback
    fn ack_was_sent(&mut self, cx: &Context<'_>, plan: Plan) {
        self.count_reports(cx);
        self.recv.owed.now = false;
        self.recv.reported();
        if plan == Plan::Ack {
            self.recv.owed.duplicates = self.recv.owed.duplicates.saturating_sub(1);
        }
        self.recv.unacknowledged = 0;
        self.recv.last_ack = self.recv.next;
        self.timers.stop(Timer::DelayedAck);
    }

    /// What the segment told the peer of what arrived.
    fn count_reports(&self, cx: &Context<'_>) {
        if self.sack_room() > 0 && self.recv.sack_count() > 0 {
            cx.count(if self.recv.has_duplicate() { Figure::DuplicateReported } else { Figure::SackSent });
        }
    }

    fn syn_was_sent(&mut self, cx: &Context<'_>) {
        self.send.syn_due = false;
        if self.send.next == self.send.iss {
            self.send.next = self.send.iss + 1;
            self.send.time(self.send.next, cx.now);
        } else {
            cx.count(Figure::SynAgain);
            self.send.stop_timing();
            self.counters.retransmits += 1;
        }
        self.arm(cx, Timer::Establish, self.rto());
    }

    fn piece_was_sent(&mut self, cx: &Context<'_>, piece: &Piece) {
        if self.is_marked(piece) {
            self.ecn.reduction_due = false;
        }
        let end = piece.end();
        let new = end.distance_from(self.send.next).max(0) as u32;
        let again = piece.seq.before(self.send.next);
        if again {
            cx.count(Figure::SentAgain);
            self.send.stop_timing();
            self.counters.retransmits += 1;
        } else if !piece.probe {
            self.send.time(end, cx.now);
        }
        self.counters.bytes_out += u64::from(new - u32::from(piece.fin && new > 0));
        self.send.last_sent = clock(cx.now);
        self.flow_sent(cx, Span { start: piece.seq, end }, self.send.next);
        self.send.next = self.send.next.latest(end);
        self.send.fin_sent |= piece.fin;
        self.wait_for_ack(cx, piece, again && piece.seq == self.send.una);
    }

    /// Something is outstanding: a timer runs for it (RFC 6298 section 5.1). What does not fill the window was held up by
    /// something else, as by reports of octets that are never acknowledged: the timeout ends that.
    /// `head_again`: the first of what is outstanding was sent again.
    //= docs/rfc/rfc6298.md#5.1-start
    fn wait_for_ack(&mut self, cx: &Context<'_>, piece: &Piece, head_again: bool) {
        if piece.probe {
            cx.count(Figure::WindowProbe);
            self.probe_due = None;
        }
        if piece.probe && self.send.next - self.send.una >= self.send.window {
            self.arm_persist(cx);
        } else {
            self.timers.stop(Timer::Persist);
            self.adjust_retransmission(cx, head_again);
        }
        self.arm_user_timeout(cx);
    }

    //= docs/rfc/rfc5482.md#3.1-local
    pub(super) fn arm_user_timeout(&mut self, cx: &Context<'_>) {
        if !self.config.user_timeout.is_zero() && !self.lingers() {
            self.timers.arm_if_idle(Timer::UserTimeout, cx.now, self.config.user_timeout);
        }
    }
}
