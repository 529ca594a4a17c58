//! "Segment arrives" in SYN-RECEIVED and the synchronized states: the steps of RFC 9293 section 3.10.7.4,
//! one function each, called in order by [`Connection::arrives_synchronized`]. TIME-WAIT has a file of its
//! own. There is no third step: security and compartment are not supported.

use tcp_common::{Cause, State};

use super::arrives::{DONE, NEXT, Step};
use super::output::time_since;
use super::sender::WriterWaits;
use super::{Connection, Origin};
use crate::api::{CloseReason, Event};
use crate::buffer::NoRoom;
use crate::drops::DropReason;
use crate::figures::Figure;
use crate::seq::{SeqNum, Span};
use crate::shared::Context;
use crate::timers::Timer;
use crate::wire::{Flags, Segment};

impl Connection {
    pub(super) fn arrives_synchronized(&mut self, cx: &mut Context<'_>, segment: &Segment<'_>) -> Step {
        self.repeat_syn_ack(cx, segment)?;
        self.forget_crossing_syn(cx, segment);
        self.check_timestamp(cx, segment)?;
        let segment = &self.without_crossing_syn(segment);
        self.first_check_sequence(cx, segment)?;
        self.second_check_rst(cx, segment)?;
        self.fourth_check_syn(cx, segment)?;
        self.fifth_check_ack(cx, segment)?;
        self.restart_keepalive(cx);
        if let Some(timestamps) = segment.options.timestamps {
            self.recv.note_timestamp(timestamps.value, segment.seq, cx.now);
        }
        self.sixth_check_urg(cx, segment);
        let text = self.trim(segment);
        //= docs/rfc/rfc9293.md#3.10.7.4-7-CLOSE-WAIT
        if !self.state.may_receive() && text.length() > 0 {
            cx.drop(DropReason::Meaningless);
            return NEXT;
        }
        self.take_text(cx, &text);
        self.take_fin(cx, &text);
        NEXT
    }

    /// The peer repeats its SYN: our SYN-ACK was lost. Answered by another, as the timer would.
    fn repeat_syn_ack(&mut self, cx: &mut Context<'_>, segment: &Segment<'_>) -> Step {
        let repeated = self.state == State::SYN_RCVD
            && segment.flags.0 & 0x17 == Flags::SYN.0
            && segment.seq == self.recv.irs
            && self.origin != Origin::Active;
        if !repeated || !self.may_answer(cx) {
            return if repeated { DONE } else { NEXT };
        }
        self.send.syn_due = true;
        DONE
    }

    /// PAWS (RFC 7323 section 5.3), before the first step. A RST is not subject to it. A segment without the
    /// timestamp that was agreed passes, although section 3.2 would have it dropped: some middleboxes strip it
    /// (docs/decisions/0001).
    //= docs/rfc/rfc7323.md#5.3-paws
    //= docs/rfc/rfc7323.md#3.2-no-abort
    pub(super) fn check_timestamp(&mut self, cx: &mut Context<'_>, segment: &Segment<'_>) -> Step {
        let old = segment.options.timestamps.is_some_and(|timestamps| self.recv.is_old(timestamps.value, cx.now));
        if !old || segment.rst() {
            return NEXT;
        }
        // A segment that others overtook is old by its timestamp, too; a repeated one of it then came first.
        self.note_twice(segment);
        cx.drop(DropReason::OldTimestamp);
        self.answer_unacceptable(cx, segment);
        DONE
    }

    /// First, check the sequence number: what is outside of the window is answered by an ACK. What straddles it
    /// is cut to it only when its text is taken, because a RST and a SYN count with the number they came with.
    //= docs/rfc/rfc9293.md#3.10.7.4-1-unacceptable
    pub(super) fn first_check_sequence(&mut self, cx: &mut Context<'_>, segment: &Segment<'_>) -> Step {
        self.note_twice(segment);
        if self.is_acceptable(segment) {
            return NEXT;
        }
        if self.acknowledges_probe(segment) {
            self.fifth_check_ack(cx, segment)?;
        }
        cx.drop(DropReason::OutOfWindow);
        self.answer_unacceptable(cx, segment);
        DONE
    }

    /// Whether a segment that came one octet too early acknowledges what we probed a closed window with. Its sender has
    /// probed, too, and does not know that we took its octet; nor does it look at what we send with the number before
    /// ours. If neither looked at the other's ACKs, neither would ever get on (docs/decisions/0012).
    fn acknowledges_probe(&self, segment: &Segment<'_>) -> bool {
        let flows = self.state.is_synchronized() && self.state != State::TIME_WAIT;
        let plain = segment.has_ack() && !segment.rst() && !segment.syn();
        let news = segment.ack.after(self.send.una) && segment.ack.at_or_before(self.send.next);
        flows && plain && news && segment.seq + 1 == self.recv.next && self.send.acceptable_seq() != self.send.next
    }

    /// What the next ACK tells of a segment that is here already, if the peer understands it.
    pub(super) fn note_twice(&mut self, segment: &Segment<'_>) {
        if self.sack_agreed {
            let span = Span { start: segment.seq, end: segment.seq + segment.payload.len() as u32 };
            self.recv.note_twice(span, self.counters.bytes_in);
        }
    }

    /// Another SYN than the one that crossed ours acknowledges ours: that one was forged or old, because whoever has
    /// seen our number is the peer. Without this, one blind SYN would end any open that is under way.
    fn forget_crossing_syn(&mut self, cx: &Context<'_>, segment: &Segment<'_>) {
        if segment.seq != self.recv.irs && self.answers_crossing_syn(segment) {
            self.recv.restart(&self.config, segment.seq);
            self.take_syn_options(cx, &segment.options);
        }
    }

    /// In a simultaneous open both SYNs come again with the ACK of the other (RFC 9293 figure 8): the SYN is
    /// old, the ACK counts. (One that resets, or acknowledges something else, is judged by its number like any other.)
    fn without_crossing_syn<'s>(&mut self, segment: &Segment<'s>) -> Segment<'s> {
        if segment.seq != self.recv.irs || !self.answers_crossing_syn(segment) {
            return *segment;
        }
        self.recv.owed.now = true;
        // The window of a SYN is not scaled; what is left of the segment is read as if it were.
        let window = segment.window >> self.send.scale;
        Segment { seq: segment.seq + 1, flags: segment.flags.without(Flags::SYN), window, ..*segment }
    }

    fn answers_crossing_syn(&self, segment: &Segment<'_>) -> bool {
        let crossed = self.state == State::SYN_RCVD && self.origin == Origin::Active;
        crossed && segment.syn() && !segment.rst() && self.acks_our_syn(segment)
    }

    /// The four cases of RFC 9293 section 3.10.7.4. With a closed window, an ACK or RST at RCV.NXT counts
    /// although nothing more would (MUST-66); so does a bare ACK at the right edge of an open one, where a sender
    /// stands who filled it (docs/decisions/0010). A RST counts with the number it came with, whatever it carries (RFC
    /// 5961 section 3.2).
    //= docs/rfc/rfc9293.md#MUST-66
    //= docs/rfc/rfc9293.md#3.10.7.4-1-acceptability
    //= docs/rfc/rfc9293.md#3.10.7.4-1-zero-window
    //= docs/rfc/rfc9293.md#3.10.7.4-2-outside
    //= docs/rfc/rfc5961.md#3.2-outside
    fn is_acceptable(&self, segment: &Segment<'_>) -> bool {
        let (next, window) = (self.recv.next, self.recv.window());
        let in_window = |seq: SeqNum| seq.at_or_after(next) && seq.before(next + window);
        let flows = self.state.is_synchronized() && self.state != State::TIME_WAIT;
        let at_the_edge = flows && segment.has_ack() && segment.seq == next + window;
        match window {
            0 => segment.seq == next,
            _ if segment.rst() => in_window(segment.seq),
            _ if segment.length() == 0 => in_window(segment.seq) || at_the_edge,
            _ => in_window(segment.seq) || in_window(segment.end() - 1),
        }
    }

    /// The part of a segment that lies in the window. Text beyond the right edge goes, and the FIN with it;
    /// so does text before RCV.NXT. What the right edge cut off must be sent again, or probed our closed window: the
    /// peer is told at once.
    //= docs/rfc/rfc9293.md#3.10.7.4-1-trim
    fn trim<'s>(&mut self, segment: &Segment<'s>) -> Segment<'s> {
        let mut trimmed = *segment;
        if segment.seq.before(self.recv.next) {
            let old = (self.recv.next - segment.seq) as usize;
            trimmed.payload = segment.payload.get(old..).unwrap_or_default();
            trimmed.seq = self.recv.next;
        }
        let edge = self.recv.next + self.recv.window();
        let room = edge.distance_from(trimmed.seq).max(0) as usize;
        if trimmed.payload.len() + usize::from(trimmed.fin()) > room {
            trimmed.payload = &trimmed.payload[..trimmed.payload.len().min(room)];
            trimmed.flags = trimmed.flags.without(Flags::FIN);
            self.recv.owed.now = true;
        }
        trimmed
    }

    /// An unacceptable segment draws an ACK unless it is a RST. Only text that the peer may just have repeated, because
    /// our ACK of it was lost, draws one every time. The rest is rate-limited: two confused peers must not answer each
    /// other's ACKs for ever, and a stranger's segments must not make us send duplicate ACKs.
    //= docs/rfc/rfc9293.md#3.10.7.4-1-unacceptable
    //= docs/rfc/rfc9293.md#3.10.7.4-1-unacceptable-RST
    pub(super) fn answer_unacceptable(&mut self, cx: &mut Context<'_>, segment: &Segment<'_>) {
        let repeats = segment.length() > 0 && !segment.syn() && self.recv.has_recently_had(segment.seq);
        let unlimited = repeats && self.state != State::TIME_WAIT;
        if !segment.rst() && (unlimited || self.may_answer(cx)) {
            cx.count(Figure::UnacceptableAck);
            self.recv.owed.now = true;
        }
    }

    /// Second, check the RST bit, as RFC 5961 section 3 hardens it: only the exact number resets.
    //= docs/rfc/rfc9293.md#SHLD-2
    //= docs/rfc/rfc9293.md#3.10.7.4-2-exact
    //= docs/rfc/rfc9293.md#3.10.7.4-2-challenge
    //= docs/rfc/rfc9293.md#3.10.7.4-2-SYN-RECEIVED-passive
    //= docs/rfc/rfc9293.md#3.10.7.4-2-SYN-RECEIVED-active
    //= docs/rfc/rfc9293.md#3.10.7.4-2-ESTABLISHED
    //= docs/rfc/rfc9293.md#3.10.7.4-2-CLOSING
    //= docs/rfc/rfc5961.md#3.2-exact
    //= docs/rfc/rfc5961.md#3.2-challenge
    //= docs/rfc/rfc7323.md#5.2-rst
    fn second_check_rst(&mut self, cx: &mut Context<'_>, segment: &Segment<'_>) -> Step {
        if !segment.rst() {
            return NEXT;
        }
        if segment.seq != self.recv.next {
            self.challenge(cx, DropReason::Challenged);
            return DONE;
        }
        let reason = match self.state {
            State::SYN_RCVD if self.origin == Origin::Active => CloseReason::Refused,
            State::CLOSING | State::LAST_ACK => CloseReason::Finished,
            _ => CloseReason::Reset,
        };
        self.end(cx, Cause::Reset, reason);
        DONE
    }

    /// Fourth, check the SYN bit: in a synchronized state it draws a challenge ACK (RFC 5961 section 4); a
    /// passively opened connection in SYN-RECEIVED is forgotten.
    //= docs/rfc/rfc9293.md#3.10.7.4-4-SYN-RECEIVED
    //= docs/rfc/rfc9293.md#3.10.7.4-4-synchronized
    //= docs/rfc/rfc5961.md#4.2-syn
    pub(super) fn fourth_check_syn(&mut self, cx: &mut Context<'_>, segment: &Segment<'_>) -> Step {
        if !segment.syn() {
            return NEXT;
        }
        let in_window = segment.seq.at_or_after(self.recv.next);
        if self.state == State::SYN_RCVD && self.origin != Origin::Active && in_window {
            self.end(cx, Cause::Abort, CloseReason::Reset);
        } else {
            self.challenge(cx, DropReason::Challenged);
        }
        DONE
    }

    /// A challenge ACK (RFC 5961): the peer, if it is one, answers with what settles the matter.
    pub(super) fn challenge(&mut self, cx: &mut Context<'_>, reason: DropReason) {
        cx.drop(reason);
        if self.may_challenge(cx) {
            cx.count(Figure::ChallengeAck);
            self.recv.owed.now = true;
        }
    }

    /// Fifth, check the ACK field.
    //= docs/rfc/rfc9293.md#3.10.7.4-5-ESTABLISHED-old
    //= docs/rfc/rfc9293.md#3.10.7.4-5-FIN-WAIT-2
    //= docs/rfc/rfc9293.md#3.10.7.4-5-CLOSE-WAIT
    fn fifth_check_ack(&mut self, cx: &mut Context<'_>, segment: &Segment<'_>) -> Step {
        self.check_ack_bit(cx, segment)?;
        if self.state == State::SYN_RCVD {
            self.ack_in_syn_rcvd(cx, segment)?;
        }
        self.check_ack_range(cx, segment)?;
        self.take_marks(cx, segment);
        let window = u32::from(segment.window) << self.send.scale;
        let advances = segment.ack.after(self.send.una);
        if advances {
            self.ack_advances(cx, segment);
        } else if segment.ack == self.send.una {
            self.ack_repeats(cx, segment, window);
        }
        self.take_window(segment, window, advances);
        self.fin_may_be_acked(cx);
        if self.state == State::CLOSED { DONE } else { NEXT }
    }

    //= docs/rfc/rfc9293.md#3.10.7.4-5-no-ACK
    pub(super) fn check_ack_bit(&mut self, cx: &mut Context<'_>, segment: &Segment<'_>) -> Step {
        if segment.has_ack() {
            return NEXT;
        }
        cx.drop(DropReason::Meaningless);
        DONE
    }

    //= docs/rfc/rfc9293.md#3.10.7.4-5-SYN-RECEIVED
    //= docs/rfc/rfc9293.md#3.10.7.4-5-SYN-RECEIVED-bad
    fn ack_in_syn_rcvd(&mut self, cx: &mut Context<'_>, segment: &Segment<'_>) -> Step {
        if !self.acks_our_syn(segment) {
            self.refuse_ack(cx, segment);
            return DONE;
        }
        self.our_syn_is_acked(cx, segment);
        self.send.set_window(segment.seq, segment.ack, u32::from(segment.window) << self.send.scale);
        self.advance(cx, Cause::SynAcked);
        NEXT
    }

    /// RFC 5961 section 5: an ACK of what was never sent, or of what lies further back than any window the
    /// peer ever offered, is not the peer's (MAY-12).
    //= docs/rfc/rfc9293.md#MAY-12
    //= docs/rfc/rfc9293.md#3.10.7.4-5-range
    //= docs/rfc/rfc9293.md#3.10.7.4-5-ESTABLISHED-unsent
    //= docs/rfc/rfc5961.md#5.2-ack
    pub(super) fn check_ack_range(&mut self, cx: &mut Context<'_>, segment: &Segment<'_>) -> Step {
        if self.is_ack_in_range(segment) {
            return NEXT;
        }
        self.challenge(cx, DropReason::BadAck);
        DONE
    }

    pub(super) fn is_ack_in_range(&self, segment: &Segment<'_>) -> bool {
        let oldest = self.send.una - self.send.max_window;
        segment.ack.at_or_after(oldest) && segment.ack.at_or_before(self.send.next)
    }

    /// New data are acknowledged.
    //= docs/rfc/rfc9293.md#3.10.7.4-5-ESTABLISHED-new
    //= docs/rfc/rfc9293.md#3.10.7.4-5-CLOSE-WAIT
    fn ack_advances(&mut self, cx: &mut Context<'_>, segment: &Segment<'_>) {
        let before = self.send.una;
        self.send.acknowledge(&mut cx.shared.pool, segment.ack);
        self.take_round_trip(cx, segment);
        self.retries = 0;
        self.flow_acked(cx, segment, segment.ack - before, false);
        if self.is_persisting() {
            // The peer took what a probe carried. Whether there is more to probe for shows anew.
            self.stop_persisting();
        }
        self.restart_retransmission(cx);
        self.tell_writer(cx);
    }

    /// RTT from the timed segment; failing that, from the timestamp echoed, which tells a repeated segment's
    /// two sendings apart (RFC 7323 section 4.1). Without a sample the RTO stays backed off (Karn).
    //= docs/rfc/rfc9293.md#MUST-18
    //= docs/rfc/rfc6298.md#3-karn
    //= docs/rfc/rfc7323.md#4.1-sample
    fn take_round_trip(&mut self, cx: &Context<'_>, segment: &Segment<'_>) {
        let timed = self.send.round_trip(segment.ack, cx.now);
        let echoed = segment.options.timestamps.filter(|t| self.is_recovering() && t.echo != 0);
        if let Some(rtt) = timed.or(echoed.and_then(|t| time_since(t.echo, cx.now))) {
            self.rtt.sample(rtt, &self.config);
        }
    }

    /// RFC 6298 sections 5.2 and 5.3: the timer stops when nothing is outstanding, else starts over.
    //= docs/rfc/rfc6298.md#5.2-stop
    //= docs/rfc/rfc6298.md#5.3-restart
    fn restart_retransmission(&mut self, cx: &Context<'_>) {
        if !self.lingers() {
            self.timers.stop(Timer::UserTimeout);
        }
        if self.send.is_outstanding() {
            self.restart_timeout(cx);
            self.arm_user_timeout(cx);
        } else {
            self.timers.stop(Timer::Retransmit);
        }
    }

    /// An ACK that acknowledges nothing new: a duplicate if it says nothing else either (RFC 5681 section 2). What it
    /// reports counts whatever it carries: a peer that sends data itself may have no bare ACK to tell it by (RFC 6675
    /// section 2).
    //= docs/rfc/rfc5681.md#2-duplicate
    fn ack_repeats(&mut self, cx: &Context<'_>, segment: &Segment<'_>, window: u32) {
        let bare = segment.length() == 0;
        if !bare && segment.options.sacks.as_slice().is_empty() {
            return;
        }
        let duplicate = bare && self.send.is_outstanding() && window == self.send.window && window > 0;
        self.flow_acked(cx, segment, 0, duplicate);
        if self.timers.is_armed(Timer::Retransmit) {
            self.adjust_retransmission(cx, false);
        }
    }

    /// SND.WND follows the newest segment, unless its ACK is an old one. When a closed window opens, what the probes
    /// carried goes again.
    fn take_window(&mut self, segment: &Segment<'_>, window: u32, advances: bool) {
        let was = self.send.window;
        let seq = segment.seq.latest(self.recv.next);
        if segment.ack.before(self.send.una) || !self.send.update_window(seq, segment.ack, window, advances) {
            return;
        }
        if window > was && self.is_persisting() {
            self.stop_persisting();
        }
    }

    /// Our FIN is acknowledged when nothing sent is unacknowledged after it was sent.
    //= docs/rfc/rfc9293.md#3.10.7.4-5-FIN-WAIT-1
    //= docs/rfc/rfc9293.md#3.10.7.4-5-CLOSING
    //= docs/rfc/rfc9293.md#3.10.7.4-5-LAST-ACK
    fn fin_may_be_acked(&mut self, cx: &mut Context<'_>) {
        if !self.send.fin_sent || self.send.is_outstanding() {
            return;
        }
        self.advance(cx, Cause::FinAcked);
        if self.state == State::CLOSED {
            self.end(cx, Cause::FinAcked, CloseReason::Finished);
        }
    }

    /// The writer is told once a good part of the buffer is free again, unless there is no memory for it.
    fn tell_writer(&mut self, cx: &mut Context<'_>) {
        let waits = self.is_held() && self.send.writer_waits == WriterWaits::ForRoom;
        if !waits || self.send.queued() > self.send_capacity() / 2 {
            return;
        }
        if cx.shared.pool.has_room() {
            self.send.writer_waits = WriterWaits::No;
            cx.event(Event::Writable(cx.id));
        } else {
            self.starve();
        }
    }

    /// Sixth, check the URG bit. Urgent data are delivered in line; the application is told where they end.
    //= docs/rfc/rfc9293.md#MUST-30
    //= docs/rfc/rfc9293.md#MUST-32
    //= docs/rfc/rfc9293.md#MUST-47
    //= docs/rfc/rfc9293.md#MUST-66
    //= docs/rfc/rfc9293.md#3.10.7.4-6-ESTABLISHED
    //= docs/rfc/rfc9293.md#3.10.7.4-6-CLOSE-WAIT
    pub(super) fn sixth_check_urg(&mut self, cx: &mut Context<'_>, segment: &Segment<'_>) {
        let Some(end) = segment.urgent.filter(|_| self.state.may_receive()) else { return };
        if self.recv.note_urgent(end) && self.is_held() {
            cx.event(Event::Urgent(cx.id));
        }
    }

    /// Seventh, process the segment text.
    //= docs/rfc/rfc9293.md#3.10.7.4-7-ESTABLISHED
    pub(super) fn take_text(&mut self, cx: &mut Context<'_>, segment: &Segment<'_>) {
        if segment.payload.is_empty() {
            return;
        }
        if self.is_deaf() {
            return self.abort(cx, Cause::Abort, CloseReason::Aborted);
        }
        let filled_gap = self.recv.has_gaps();
        match self.store_text(cx, segment) {
            Ok(0) => self.recv.owe_duplicate(),
            Ok(advance) => self.text_advances(cx, advance, filled_gap),
            Err(why) => {
                cx.drop(why.into());
                self.recv.owed.now = true;
            }
        }
    }

    /// Stores the text. What waits behind gaps makes room for what fills them: otherwise connections that all hold such
    /// data could keep each other's gaps open for ever.
    fn store_text(&mut self, cx: &mut Context<'_>, segment: &Segment<'_>) -> Result<u32, NoRoom> {
        let stored = self.recv.insert(&mut cx.shared.pool, segment.seq, segment.payload);
        let in_order = segment.seq == self.recv.next;
        if stored == Err(NoRoom::Memory) && in_order && self.recv.forget_behind_gaps(&mut cx.shared.pool) {
            cx.count(Figure::Pruned);
            return self.recv.insert(&mut cx.shared.pool, segment.seq, segment.payload);
        }
        stored
    }

    /// Whether nobody will ever read what arrives: the application is gone (SHLD-3).
    //= docs/rfc/rfc9293.md#SHLD-3
    //= docs/rfc/rfc9293.md#MAY-1
    fn is_deaf(&self) -> bool {
        self.is_orphan() && matches!(self.state, State::FIN_WAIT_1 | State::FIN_WAIT_2)
    }

    //= docs/rfc/rfc9293.md#SHLD-19
    //= docs/rfc/rfc5681.md#4.2-delayed-ack
    //= docs/rfc/rfc5681.md#4.2-fill
    //= docs/rfc/rfc9293.md#MUST-58
    //= docs/rfc/rfc9293.md#3.10.7.4-7-ESTABLISHED
    fn text_advances(&mut self, cx: &mut Context<'_>, advance: u32, filled_gap: bool) {
        self.counters.bytes_in += u64::from(advance);
        self.recv.unacknowledged = self.recv.unacknowledged.saturating_add(advance);
        // Duplicate ACKs still owed would carry the new number, and tell of a loss that is none.
        self.recv.owed.duplicates = 0;
        if filled_gap || self.recv.unacknowledged >= 2 * u32::from(self.receive_segment_size(cx)) {
            self.recv.owed.now = true;
        } else {
            self.delay_ack(cx);
        }
        if self.is_held() {
            cx.event(Event::Readable(cx.id));
        }
    }

    /// Holds an ACK back for a segment to carry it (SHLD-18), 500 ms at most (MUST-40).
    //= docs/rfc/rfc9293.md#MUST-40
    //= docs/rfc/rfc9293.md#SHLD-18
    //= docs/rfc/rfc5681.md#4.2-delayed-ack
    //= docs/rfc/rfc5681.md#4.2-500ms
    fn delay_ack(&mut self, cx: &Context<'_>) {
        if self.config.delayed_ack.is_zero() {
            self.recv.owed.now = true;
        } else {
            self.timers.arm_if_idle(Timer::DelayedAck, cx.now, self.config.delayed_ack);
        }
    }

    /// RMSS: a full-sized segment of the peer's.
    pub(super) fn receive_segment_size(&self, cx: &Context<'_>) -> u16 {
        self.announced_mss(cx).min(self.send.peer_mss) - self.option_length()
    }

    /// Eighth, check the FIN bit. A FIN behind a gap is remembered until the gap is filled.
    //= docs/rfc/rfc9293.md#3.10.7.4-8-FIN
    //= docs/rfc/rfc9293.md#3.10.7.4-8-ESTABLISHED
    //= docs/rfc/rfc9293.md#3.10.7.4-8-FIN-WAIT-1
    //= docs/rfc/rfc9293.md#3.10.7.4-8-FIN-WAIT-2
    //= docs/rfc/rfc9293.md#3.10.7.4-8-CLOSE-WAIT
    pub(super) fn take_fin(&mut self, cx: &mut Context<'_>, segment: &Segment<'_>) {
        if segment.fin() && self.state.may_receive() {
            self.recv.fin.get_or_insert(segment.end() - 1);
            // Like any segment behind a gap, it tells the peer of the gap; text in it has done so already.
            if segment.payload.is_empty() && segment.seq != self.recv.next {
                self.recv.owe_duplicate();
            }
        }
        let Some(fin) = self.recv.fin.filter(|_| self.state.may_receive()) else { return };
        if self.recv.next.before(fin) {
            return;
        }
        // Whoever sends text past its FIN: the FIN counts.
        self.recv.next = self.recv.next.latest(fin + 1);
        self.recv.owed.now = true;
        self.advance(cx, Cause::Fin);
        if self.is_held() {
            cx.event(Event::Readable(cx.id));
        }
    }
}
