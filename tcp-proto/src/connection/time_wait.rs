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
    /// old draws an ACK, rate-limited.
    pub(super) fn arrives_in_time_wait(&mut self, cx: &mut Context<'_>, segment: &Segment<'_>) -> Step {
        if segment.rst() {
            cx.drop(DropReason::Challenged);
            return DONE;
        }
        let repeats_fin = segment.fin() && segment.end() == self.recv.next;
        if repeats_fin {
            self.restart_time_wait(cx);
            self.recv.owed.now = true;
        } else if segment.length() > 0 || segment.seq != self.recv.next {
            cx.drop(DropReason::OutOfWindow);
            if self.may_answer(cx) {
                self.recv.owed.now = true;
            }
        }
        DONE
    }

    /// Whether a SYN may start the next connection with this 4-tuple although this one is in TIME-WAIT: its
    /// timestamp, or without timestamps its sequence number, lies after everything of this connection; or it has
    /// timestamps that this one had not (RFC 6191 section 2).
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

    /// The next connection with this 4-tuple begins: this one is over.
    pub(crate) fn is_succeeded(&mut self, cx: &mut Context<'_>) {
        self.end(cx, Cause::Expired, CloseReason::Finished);
    }

    /// SND.NXT: a successor's numbers start above it.
    pub(crate) fn last_number(&self) -> SeqNum {
        self.send.next
    }
}
