//! "Segment arrives" in TIME-WAIT (RFC 9293 section 3.10.7.4 and section 3.6.1, RFC 1337, RFC 6191).

use tcp_common::{Cause, State};

use super::Connection;
use super::arrives::{DONE, Step};
use crate::api::CloseReason;
use crate::drops::DropReason;
use crate::seq::SeqNum;
use crate::shared::Context;
use crate::wire::Segment;

impl Connection {
    /// A RST is ignored (RFC 1337); a repeated FIN is acknowledged and restarts 2 x MSL; whatever else is
    /// unacceptable draws an ACK, rate-limited; the rest is acceptable, and there is nothing left for it to do.
    //= docs/rfc/rfc1337.md#3-F1
    //= docs/rfc/rfc9293.md#3.10.7.4-5-TIME-WAIT
    //= docs/rfc/rfc9293.md#3.10.7.4-8-TIME-WAIT
    pub(super) fn arrives_in_time_wait(&mut self, cx: &mut Context<'_>, segment: &Segment<'_>) -> Step {
        if segment.rst() {
            cx.drop(DropReason::Challenged);
            return DONE;
        }
        self.check_timestamp(cx, segment)?;
        if self.repeats_fin(segment) {
            self.restart_time_wait(cx);
            self.recv.owed.now = true;
            return DONE;
        }
        self.first_check_sequence(cx, segment)?;
        self.fourth_check_syn(cx, segment)?;
        self.check_ack_bit(cx, segment)?;
        self.check_ack_range(cx, segment)?;
        if segment.length() > 0 {
            cx.drop(DropReason::Meaningless);
        }
        DONE
    }

    /// Its number is old, so that the first step would stop it; the ACK must be one the peer can have sent.
    fn repeats_fin(&self, segment: &Segment<'_>) -> bool {
        let believable = segment.has_ack() && self.is_ack_in_range(segment);
        segment.fin() && !segment.syn() && believable && segment.end() == self.recv.next
    }

    /// Whether a SYN may start the next connection with this 4-tuple although this one is in TIME-WAIT: its
    /// timestamp, or without timestamps its sequence number, lies after everything of this connection; or it has
    /// timestamps that this one had not (RFC 6191 section 2).
    //= docs/rfc/rfc9293.md#SHLD-4
    //= docs/rfc/rfc9293.md#MAY-2
    //= docs/rfc/rfc9293.md#3.10.7.4-1-TIME-WAIT
    //= docs/rfc/rfc9293.md#3.10.7.4-4-TIME-WAIT
    //= docs/rfc/rfc6191.md#2-newer
    //= docs/rfc/rfc6191.md#2-same
    //= docs/rfc/rfc6191.md#2-older
    //= docs/rfc/rfc6191.md#2-without
    //= docs/rfc/rfc6191.md#2-number
    pub(crate) fn may_be_succeeded_by(&self, syn: &Segment<'_>) -> bool {
        if self.state != State::TIME_WAIT || !self.config.time_wait_reuse {
            return false;
        }
        match (self.recv.timestamps(), syn.options.timestamps.filter(|_| self.config.timestamps)) {
            (Some(recent), Some(timestamps)) if timestamps.value != recent => {
                (timestamps.value.wrapping_sub(recent) as i32) > 0
            }
            (None, Some(_)) => true,
            _ => syn.seq.after(self.recv.next),
        }
    }

    /// The next connection with this 4-tuple begins: this one is over, and its peer knows.
    pub(crate) fn is_succeeded(&mut self, cx: &mut Context<'_>) {
        self.end(cx, Cause::Expired, CloseReason::Finished);
    }

    /// SND.NXT: a successor's numbers start above it.
    pub(crate) fn last_number(&self) -> SeqNum {
        self.send.next
    }
}
