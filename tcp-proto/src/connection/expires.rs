//! A timer expires: one function for each. `docs/timers.md` is the table.

use tcp_common::Cause;

use super::{Connection, Origin, Probe};
use crate::api::{CloseReason, Event};
use crate::figures::Figure;
use crate::recovery::Purpose;
use crate::shared::Context;
use crate::timers::Timer;

impl Connection {
    /// Serves every timer that is due.
    //= docs/rfc/rfc9293.md#3.10.8-user
    //= docs/rfc/rfc9293.md#3.10.8-TIME-WAIT
    pub(crate) fn timers_expire(&mut self, cx: &mut Context<'_>) {
        while let Some(timer) = self.timers.take_due(cx.now) {
            cx.count(self.figure_of(timer));
            match timer {
                Timer::Establish => self.establish_expires(cx),
                Timer::Retransmit => self.retransmit_expires(cx),
                Timer::DelayedAck => self.recv.owed.now = true,
                Timer::Persist => self.persist_expires(cx),
                Timer::Keepalive => self.keepalive_expires(cx),
                Timer::FinWait2 | Timer::TimeWait => self.end(cx, Cause::Expired, CloseReason::Finished),
                Timer::UserTimeout => self.abort(cx, Cause::Expired, CloseReason::TimedOut),
            }
        }
    }

    /// What the expiry of `timer` counts as.
    fn figure_of(&self, timer: Timer) -> Figure {
        match timer {
            Timer::Establish => Figure::EstablishTimer,
            Timer::Retransmit => match self.purpose() {
                Purpose::Timeout => Figure::RetransmitTimer,
                Purpose::Probe => Figure::ProbeTimer,
                Purpose::Reorder => Figure::ReorderTimer,
            },
            Timer::DelayedAck => Figure::DelayedAckTimer,
            Timer::Persist => Figure::PersistTimer,
            Timer::Keepalive => Figure::KeepaliveTimer,
            Timer::FinWait2 => Figure::FinWait2Timer,
            Timer::TimeWait => Figure::TimeWaitTimer,
            Timer::UserTimeout => Figure::UserTimer,
        }
    }

    /// Our SYN is unanswered: again, until its retries are used up (MUST-22).
    //= docs/rfc/rfc9293.md#MUST-22
    fn establish_expires(&mut self, cx: &mut Context<'_>) {
        let retries = match self.origin {
            Origin::Active => self.config.syn_retries,
            Origin::Passive(_) => self.config.synack_retries,
        };
        if u32::from(self.retries) >= retries {
            return self.end(cx, Cause::Expired, CloseReason::TimedOut);
        }
        self.retry(cx);
        self.rtt.back_off();
        self.send.syn_due = true;
    }

    /// Something is repeated once more; at R1 the application is told.
    //= docs/rfc/rfc9293.md#MUST-20
    //= docs/rfc/rfc9293.md#MUST-22
    //= docs/rfc/rfc9293.md#SHLD-9
    fn retry(&mut self, cx: &mut Context<'_>) {
        self.retries = self.retries.saturating_add(1);
        if u32::from(self.retries) == self.config.retries1 && self.is_held() {
            cx.event(Event::Retransmitting(cx.id));
        }
    }

    /// RFC 6298 sections 5.4 to 5.6, and R1 and R2 of RFC 9293 section 3.8.3. A window that closed over what
    /// was sent is no loss (SHLD-17): it is probed instead.
    //= docs/rfc/rfc9293.md#MUST-20
    //= docs/rfc/rfc9293.md#SHLD-17
    //= docs/rfc/rfc9293.md#3.10.8-retransmission
    //= docs/rfc/rfc6298.md#5.4-resend
    //= docs/rfc/rfc6298.md#5.6-rearm
    fn retransmit_expires(&mut self, cx: &mut Context<'_>) {
        let purpose = self.take_purpose();
        if self.send.window == 0 {
            self.resend();
            self.retries = 0;
            return self.persist_expires(cx);
        }
        if purpose != Purpose::Timeout {
            return self.flow_stirs(cx, purpose);
        }
        if u32::from(self.retries) >= self.retry_limit() {
            return self.end(cx, Cause::Expired, CloseReason::TimedOut);
        }
        self.retry(cx);
        self.flow_timed_out(cx);
        self.suspect_path(cx);
        self.rtt.back_off();
    }

    /// R2; less once nobody waits for the outcome.
    //= docs/rfc/rfc9293.md#MUST-20
    fn retry_limit(&self) -> u32 {
        if self.is_orphan() { self.config.orphan_retries.min(self.config.retries2) } else { self.config.retries2 }
    }

    /// A probe of the peer's window. As long as it answers, probing never ends (MUST-37).
    //= docs/rfc/rfc9293.md#MUST-36
    //= docs/rfc/rfc9293.md#MUST-37
    fn persist_expires(&mut self, cx: &mut Context<'_>) {
        // Answers keep a connection open (MUST-37), but not one that nobody holds any more: only progress does.
        let spent = if self.is_orphan() { self.retries } else { self.probes };
        if u32::from(spent) >= self.retry_limit() {
            return self.abort(cx, Cause::Expired, CloseReason::TimedOut);
        }
        self.probes = self.probes.saturating_add(1);
        self.retries = self.retries.saturating_add(1);
        // A small window's probe is as large as the window, and may be too large for the path.
        if u32::from(self.probes) > self.config.retries1 && self.send.window > 1 {
            self.suspect_path(cx);
        }
        self.resend();
        self.probe_due = Some(Probe::Window);
    }

    /// A probe of an idle peer; sent data are probe enough (MUST-26).
    //= docs/rfc/rfc9293.md#MUST-26
    //= docs/rfc/rfc9293.md#MUST-29
    //= docs/rfc/rfc9293.md#MAY-5
    fn keepalive_expires(&mut self, cx: &mut Context<'_>) {
        if self.send.is_outstanding() || self.send.queued() > 0 {
            return self.arm(cx, Timer::Keepalive, self.config.keepalive_time);
        }
        if u32::from(self.probes) >= self.config.keepalive_probes {
            return self.abort(cx, Cause::Expired, CloseReason::TimedOut);
        }
        self.probes += 1;
        self.probe_due = Some(Probe::Idle);
        self.arm(cx, Timer::Keepalive, self.config.keepalive_interval);
    }
}
