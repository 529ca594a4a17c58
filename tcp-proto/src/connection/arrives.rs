//! "Segment arrives" before the synchronized states: LISTEN (RFC 9293 section 3.10.7.2, as far as it makes a
//! connection) and SYN-SENT (3.10.7.3). The others are in [`super::synchronized`] and [`super::time_wait`].

use core::num::NonZeroU8;
use core::ops::ControlFlow;

use tcp_common::{Cause, State};

use super::{Connection, Origin};
use crate::api::{CloseReason, LinkAddress};
use crate::drops::DropReason;
use crate::figures::Figure;
use crate::limits::LINK_REACH;
use crate::seq::SeqNum;
use crate::shared::Context;
use crate::timers::Timer;
use crate::wire::{Flags, IcmpError, Outgoing, Segment};

/// `Break`: the segment is dealt with; `Continue`: on to the next step.
pub(super) type Step = ControlFlow<()>;

pub(super) const DONE: Step = ControlFlow::Break(());
pub(super) const NEXT: Step = ControlFlow::Continue(());

impl Connection {
    /// A segment of this connection arrived by way of `link`.
    pub(crate) fn segment_arrives(&mut self, cx: &mut Context<'_>, link: LinkAddress, segment: &Segment<'_>) {
        self.counters.segments_in += 1;
        if link != self.link && self.speaks_for_the_peer(segment) {
            self.link = link;
        }
        let _dealt_with = match self.state {
            State::SYN_SENT => self.arrives_in_syn_sent(cx, segment),
            State::TIME_WAIT => self.arrives_in_time_wait(cx, segment),
            _ => self.arrives_synchronized(cx, segment),
        };
    }

    /// Whether our answers follow a segment to another MAC address: it must know both sides' numbers. What a large
    /// window lets in is not enough, because that can be found by trying, and who injects it must not get our answers
    /// (docs/decisions/0005). A repeated segment counts: the peer may have changed its way because we are not heard.
    fn speaks_for_the_peer(&self, segment: &Segment<'_>) -> bool {
        if self.state == State::SYN_SENT {
            return segment.syn() && !segment.rst() && self.acks_our_syn(segment);
        }
        let knows_ours =
            segment.has_ack() && segment.ack.at_or_after(self.send.una) && segment.ack.at_or_before(self.send.next);
        // A whole window may be repeated. With much of ours in flight the ACK is easier to guess: then only when our
        // own timer, too, has found that we are not heard.
        let unheard = self.retries > 0 || self.send.una == self.send.next;
        let repeats = unheard && self.recv.has_recently_had(segment.seq);
        let close = segment.seq.at_or_before(self.recv.next) && segment.seq.at_or_after(self.recv.next - LINK_REACH);
        let knows_theirs = repeats || close;
        knows_ours && knows_theirs && !segment.syn() && !segment.rst()
    }

    /// A SYN came to the listener that made this connection (RFC 9293 section 3.10.7.2).
    //= docs/rfc/rfc9293.md#3.10.7.2-3-SYN
    pub(crate) fn open_passively(&mut self, cx: &mut Context<'_>, syn: &Segment<'_>) {
        self.counters.segments_in += 1;
        self.advance(cx, Cause::PassiveOpen);
        self.take_syn(cx, syn);
        self.advance(cx, Cause::Syn);
        self.send.syn_due = true;
    }

    /// Takes the peer's number and what it offers.
    pub(super) fn take_syn(&mut self, cx: &Context<'_>, syn: &Segment<'_>) {
        self.recv.start(syn.seq);
        self.take_syn_options(cx, &syn.options);
        self.agree_on_ecn(syn);
    }

    /// The application connects (RFC 9293 section 3.10.1).
    pub(crate) fn open_actively(&mut self, cx: &mut Context<'_>) {
        self.advance(cx, Cause::ActiveOpen);
        self.send.syn_due = true;
    }

    /// RFC 9293 section 3.10.7.3. There is no third step: security and compartment are not supported.
    fn arrives_in_syn_sent(&mut self, cx: &mut Context<'_>, segment: &Segment<'_>) -> Step {
        self.syn_sent_first_check_ack(cx, segment)?;
        self.syn_sent_second_check_rst(cx, segment)?;
        self.syn_sent_fourth_check_syn(cx, segment)
    }

    //= docs/rfc/rfc9293.md#3.10.7.3-1-ACK
    //= docs/rfc/rfc9293.md#3.10.7.3-1-ACK-RST
    fn syn_sent_first_check_ack(&mut self, cx: &mut Context<'_>, segment: &Segment<'_>) -> Step {
        if !segment.has_ack() || self.acks_our_syn(segment) {
            return NEXT;
        }
        if segment.rst() {
            cx.drop(DropReason::BadAck)
        } else {
            self.refuse_ack(cx, segment)
        }
        DONE
    }

    //= docs/rfc/rfc9293.md#3.10.7.3-2-RST
    //= docs/rfc/rfc9293.md#3.10.7.3-2-RST-no-ACK
    fn syn_sent_second_check_rst(&mut self, cx: &mut Context<'_>, segment: &Segment<'_>) -> Step {
        if !segment.rst() {
            return NEXT;
        }
        if segment.has_ack() {
            self.end(cx, Cause::Reset, CloseReason::Refused);
        } else {
            cx.drop(DropReason::Meaningless);
        }
        DONE
    }

    //= docs/rfc/rfc9293.md#3.10.7.3-5-other
    //= docs/rfc/rfc9293.md#3.10.7.4-8-SYN-SENT
    fn syn_sent_fourth_check_syn(&mut self, cx: &mut Context<'_>, segment: &Segment<'_>) -> Step {
        if !segment.syn() {
            cx.drop(DropReason::Meaningless);
            return DONE;
        }
        self.take_syn(cx, segment);
        if segment.has_ack() {
            self.syn_is_answered(cx, segment)
        } else {
            self.opens_cross(cx, segment)
        }
        NEXT
    }

    /// SYN and ACK of our SYN: established. Data or a FIN in the same segment count.
    //= docs/rfc/rfc9293.md#3.10.7.3-4-SYN-ACK
    //= docs/rfc/rfc9293.md#3.10.7.3-4-text
    //= docs/rfc/rfc7323.md#2.2-unscaled
    fn syn_is_answered(&mut self, cx: &mut Context<'_>, segment: &Segment<'_>) {
        self.our_syn_is_acked(cx, segment);
        // The window of a SYN is never scaled.
        self.send.set_window(segment.seq, segment.ack, segment.window.into());
        self.recv.owed.now = true;
        self.advance(cx, Cause::SynAck);
        let rest = Segment { seq: segment.seq + 1, flags: segment.flags.without(Flags::SYN), ..*segment };
        self.sixth_check_urg(cx, &rest);
        self.take_text(cx, &rest);
        self.take_fin(cx, &rest);
    }

    /// A SYN alone: the peer opens at the same time (RFC 9293 section 3.5, MUST-10).
    //= docs/rfc/rfc9293.md#MUST-10
    //= docs/rfc/rfc9293.md#3.10.7.3-4-SYN
    fn opens_cross(&mut self, cx: &mut Context<'_>, segment: &Segment<'_>) {
        cx.count(Figure::SimultaneousOpen);
        self.send.set_window(segment.seq, segment.ack, segment.window.into());
        self.retries = 0;
        self.advance(cx, Cause::Syn);
        self.send.syn_due = true;
    }

    /// Whether a segment acknowledges our SYN, which nothing acknowledged yet.
    pub(crate) fn acks_our_syn(&self, segment: &Segment<'_>) -> bool {
        segment.has_ack() && segment.ack.after(self.send.una) && segment.ack.at_or_before(self.send.next)
    }

    /// Whoever acknowledges something else than our SYN speaks of another connection, and is told so by a RST.
    pub(super) fn refuse_ack(&self, cx: &mut Context<'_>, segment: &Segment<'_>) {
        cx.drop(DropReason::BadAck);
        let reset = Outgoing { seq: segment.ack, ack: SeqNum(0), flags: Flags::RST, ..self.reset_segment(cx) };
        cx.shared.reply(cx.now, reset);
    }

    /// Our SYN is acknowledged: the round trip is known, unless the SYN was repeated.
    pub(super) fn our_syn_is_acked(&mut self, cx: &mut Context<'_>, segment: &Segment<'_>) {
        self.send.acknowledge(&mut cx.shared.pool, segment.ack);
        self.timers.stop(Timer::Establish);
        self.memory.starts_with = (self.retries > 1).then_some(NonZeroU8::MIN);
        let timer_expired = core::mem::take(&mut self.retries) > 0;
        match self.send.round_trip(segment.ack, cx.now) {
            Some(rtt) => self.rtt.sample(rtt, &self.config),
            None if timer_expired => self.rtt.syn_was_repeated(&self.config),
            None => {}
        }
    }

    /// An ICMP error about a segment of ours arrived. A hard one ends an open that is under way (RFC 5927
    /// section 5.2 tells why it ends nothing else); others are kept for an application that asks. The number must be
    /// one that we sent (RFC 5927 section 4.1).
    //= docs/rfc/rfc9293.md#MUST-47
    //= docs/rfc/rfc9293.md#MUST-56
    //= docs/rfc/rfc9293.md#SHLD-25
    //= docs/rfc/rfc9293.md#SHLD-26
    //= docs/rfc/rfc5927.md#4.1-sequence
    //= docs/rfc/rfc5927.md#5.2-hard-soft
    pub(crate) fn icmp_arrives(&mut self, cx: &mut Context<'_>, error: &IcmpError) {
        let ours = error.seq.at_or_after(self.send.una) && error.seq.before(self.send.next);
        match error.mtu {
            Some(mtu) if ours && self.state.is_synchronized() => self.packet_was_too_big(cx, mtu),
            None if ours && error.hard && self.state == State::SYN_SENT => {
                self.end(cx, Cause::Abort, CloseReason::Refused);
            }
            None if ours => self.soft_error = Some(error.says),
            _ => cx.drop(DropReason::IrrelevantIcmp),
        }
    }

    /// Whether the ACK that would establish this connection has arrived at a listener.
    pub(crate) fn would_be_accepted_by(&self, segment: &Segment<'_>) -> Option<crate::api::ListenerId> {
        match self.origin {
            Origin::Passive(listener) if self.state == State::SYN_RCVD => {
                (segment.has_ack() && !segment.rst() && !segment.syn()).then_some(listener)
            }
            _ => None,
        }
    }
}
