//! "Segment arrives" in TIME-WAIT (RFC 9293 section 3.10.7.4 and section 3.6.1, RFC 1337, RFC 6191): what is to be done
//! is decided in one place, for connections that the application still holds and for the records of the others
//! ([`crate::records`]).

use tcp_common::{Cause, State};

use super::Connection;
use super::arrives::{DONE, Step};
use super::output::clock;
use crate::api::CloseReason;
use crate::config::TcpConfig;
use crate::drops::DropReason;
use crate::limits::CONNECTION_ACK_INTERVAL_MS;
use crate::records::{Record, Remains};
use crate::seq::SeqNum;
use crate::shared::Context;
use crate::time::Duration;
use crate::timers::Timer;
use crate::wire::Segment;

/// What has to be known of a connection in TIME_WAIT to judge a segment.
pub(crate) struct Closed {
    /// SND.NXT, which is SND.UNA, too.
    send_next: SeqNum,
    /// RCV.NXT.
    receive_next: SeqNum,
    /// RCV.WND.
    window: u32,
    /// The largest window that the peer ever offered.
    max_window: u32,
    /// TS.Recent, if timestamps are in use.
    recent: Option<u32>,
}

/// What follows from a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is acceptable, and there is nothing for it to do.
    Nothing,
    /// It is dropped.
    Drop(DropReason),
    /// It is acknowledged, and 2 x MSL starts over.
    Restart,
    /// It is dropped, and draws an ACK unless this connection answered another a moment ago.
    Answer(DropReason),
    /// The same, and the limit of all connections' challenge ACKs counts, too (RFC 5961).
    Challenge(DropReason),
}

impl Closed {
    pub(crate) fn of_record(record: &Record) -> Self {
        Closed {
            send_next: record.send_next,
            receive_next: record.receive_next,
            window: record.window(),
            max_window: record.max_window(),
            recent: record.recent(),
        }
    }

    /// A RST is ignored (RFC 1337); a repeated FIN is acknowledged and restarts 2 x MSL; whatever else is
    /// unacceptable draws an ACK, rate-limited; the rest is acceptable, and there is nothing left for it to do. `is_old`:
    /// whether its timestamp comes from the past (PAWS).
    //= docs/rfc/rfc1337.md#3-F1
    //= docs/rfc/rfc9293.md#3.10.7.4-5-TIME-WAIT
    //= docs/rfc/rfc9293.md#3.10.7.4-8-TIME-WAIT
    pub(crate) fn judge(&self, segment: &Segment<'_>, is_old: bool) -> Verdict {
        match segment {
            _ if segment.rst() => Verdict::Drop(DropReason::Challenged),
            _ if is_old => Verdict::Answer(DropReason::OldTimestamp),
            _ if self.repeats_fin(segment) => Verdict::Restart,
            _ if !self.is_acceptable(segment) => Verdict::Answer(DropReason::OutOfWindow),
            _ if segment.syn() => Verdict::Challenge(DropReason::Challenged),
            _ if !segment.has_ack() => Verdict::Drop(DropReason::Meaningless),
            _ if !self.is_ack_in_range(segment) => Verdict::Challenge(DropReason::BadAck),
            _ if segment.length() > 0 => Verdict::Drop(DropReason::Meaningless),
            _ => Verdict::Nothing,
        }
    }

    /// Whether a timestamp comes from the past (PAWS); 2 x MSL is too short for TS.Recent to grow out of date.
    pub(crate) fn is_old(&self, segment: &Segment<'_>) -> bool {
        let timestamps = self.recent.zip(segment.options.timestamps);
        timestamps.is_some_and(|(recent, timestamps)| (timestamps.value.wrapping_sub(recent) as i32) < 0)
    }

    /// Its number is old, so that the first step would stop it; the ACK must be one the peer can have sent.
    fn repeats_fin(&self, segment: &Segment<'_>) -> bool {
        let believable = segment.has_ack() && self.is_ack_in_range(segment);
        segment.fin() && !segment.syn() && believable && segment.end() == self.receive_next
    }

    /// The first step (RFC 9293 section 3.10.7.4).
    fn is_acceptable(&self, segment: &Segment<'_>) -> bool {
        let (next, window) = (self.receive_next, self.window);
        let in_window = |seq: SeqNum| seq.at_or_after(next) && seq.before(next + window);
        match (window, segment.length()) {
            (0, _) => segment.seq == next,
            (_, 0) => in_window(segment.seq),
            _ => in_window(segment.seq) || in_window(segment.end() - 1),
        }
    }

    /// As in the other synchronized states (RFC 5961 section 5).
    fn is_ack_in_range(&self, segment: &Segment<'_>) -> bool {
        let oldest = self.send_next - self.max_window;
        segment.ack.at_or_after(oldest) && segment.ack.at_or_before(self.send_next)
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
    pub(crate) fn may_be_succeeded_by(&self, config: &TcpConfig, syn: &Segment<'_>) -> bool {
        if !config.time_wait_reuse {
            return false;
        }
        match (self.recent, syn.options.timestamps.filter(|_| config.timestamps)) {
            (Some(recent), Some(timestamps)) if timestamps.value != recent => {
                (timestamps.value.wrapping_sub(recent) as i32) > 0
            }
            (None, Some(_)) => true,
            _ => syn.seq.after(self.receive_next),
        }
    }
}

impl Connection {
    pub(super) fn arrives_in_time_wait(&mut self, cx: &mut Context<'_>, segment: &Segment<'_>) -> Step {
        let is_old = segment.options.timestamps.is_some_and(|timestamps| self.recv.is_old(timestamps.value, cx.now));
        let verdict = self.closed().judge(segment, is_old);
        if !segment.rst() && verdict != Verdict::Restart {
            self.note_twice(segment);
        }
        match verdict {
            Verdict::Nothing => {}
            Verdict::Drop(reason) => cx.drop(reason),
            Verdict::Restart => {
                self.restart_time_wait(cx);
                self.recv.owed.now = true;
            }
            Verdict::Answer(reason) => {
                cx.drop(reason);
                self.answer_unacceptable(cx, segment);
            }
            Verdict::Challenge(reason) => self.challenge(cx, reason),
        }
        DONE
    }

    /// What TIME_WAIT needs.
    fn closed(&self) -> Closed {
        Closed {
            send_next: self.send.next,
            receive_next: self.recv.next,
            window: self.recv.window(),
            max_window: self.send.max_window,
            recent: self.recv.timestamps(),
        }
    }

    /// Whether a SYN may end it; see [`Closed::may_be_succeeded_by`].
    pub(crate) fn may_be_succeeded_by(&self, syn: &Segment<'_>) -> bool {
        self.state == State::TIME_WAIT && self.closed().may_be_succeeded_by(&self.config, syn)
    }

    /// What a record of it is made of.
    pub(crate) fn remains(&mut self, cx: &Context<'_>) -> Option<Remains> {
        let left = self.timers.left(Timer::TimeWait, cx.now)?;
        let mss = self.receive_segment_size(cx).into();
        let now = clock(cx.now);
        let answered = now.wrapping_sub(now.wrapping_sub(self.last_challenge).min(CONNECTION_ACK_INTERVAL_MS));
        Some(Remains {
            key: self.key,
            send_next: self.send.next,
            receive_next: self.recv.next,
            recent: self.recv.timestamps(),
            deadline: cx.now + left,
            restarted: cx.now + left > self.since + self.config.time_wait() + Duration::from_millis(1),
            window_field: self.recv.advertise(mss),
            scale: self.recv.offered_scale(),
            max_window: self.send.max_window,
            echoes_marks: self.ecn.echo() != crate::wire::Flags(0),
            answered,
        })
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
