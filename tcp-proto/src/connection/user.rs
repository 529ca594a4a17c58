//! The application's calls (RFC 9293 section 3.10.2 to 3.10.5): SEND, RECEIVE, CLOSE, ABORT.

use tcp_common::{Cause, State};

use super::sender::WriterWaits;
use super::{Connection, Holder, Probe};
use crate::api::{CloseReason, Received, SoftError};
use crate::figures::Figure;
use crate::limits::INITIAL_BUFFER;
use crate::shared::Context;
use crate::time::Duration;
use crate::timers::Timer;

impl Connection {
    /// Whether the application may queue bytes, now or when there is room.
    pub(crate) fn may_send(&self) -> bool {
        self.state.may_send() && !self.close_waits
    }

    /// Bytes the send buffer takes now.
    pub(crate) fn send_room(&self) -> usize {
        if self.may_send() { self.send_capacity().saturating_sub(self.send.queued()) as usize } else { 0 }
    }

    /// Size of the send buffer, bytes: what is under way, and as much again to follow it without a pause.
    pub(super) fn send_capacity(&self) -> u32 {
        let most = self.config.send_buffer;
        let under_way = self.flow.as_ref().map_or(0, |flow| flow.congestion.window());
        let enough = under_way.saturating_mul(2).max(INITIAL_BUFFER);
        if self.config.autotune { most.min(enough) } else { most }
    }

    /// SEND: queues what fits; how many bytes.
    pub(crate) fn send(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> usize {
        self.rest(cx);
        let room = self.send_room().min(bytes.len());
        let taken = self.send.append(&mut cx.shared.pool, &bytes[..room]);
        match self.send.writer_waits {
            WriterWaits::ForMemory => {}
            _ if taken < room => {
                cx.shared.waits.memory += 1;
                cx.count(Figure::Starved);
                self.starve();
            }
            _ if taken < bytes.len() => {
                cx.shared.waits.send_buffer += 1;
                self.send.writer_waits = WriterWaits::ForRoom;
            }
            _ => self.send.writer_waits = WriterWaits::No,
        }
        taken
    }

    /// The writer is told when there is memory again.
    pub(super) fn starve(&mut self) {
        self.send.writer_waits = WriterWaits::ForMemory;
    }

    /// Whether the writer waits for memory.
    pub(super) fn starves(&self) -> bool {
        self.send.writer_waits == WriterWaits::ForMemory
    }

    /// The writer has waited long enough for memory.
    pub(crate) fn starves_no_more(&mut self) {
        self.send.writer_waits = WriterWaits::No;
    }

    /// Whether a read would yield bytes or the end of the stream.
    pub(crate) fn is_readable(&self) -> bool {
        self.recv.readable() > 0 || self.is_at_end()
    }

    fn is_at_end(&self) -> bool {
        self.recv.readable() == 0 && self.recv.finished()
    }

    /// RECEIVE.
    pub(crate) fn recv(&mut self, cx: &mut Context<'_>, into: &mut [u8]) -> Received {
        let length = self.recv.read(&mut cx.shared.pool, into);
        if self.config.autotune && cx.shared.pool.has_room() && self.recv.tune(self.config.recv_buffer) {
            cx.count(Figure::BufferGrew);
        }
        let mss = self.receive_segment_size(cx).into();
        if length > 0 && self.state.may_receive() && self.recv.window_update_is_due(mss) {
            cx.count(Figure::WindowUpdate);
            self.recv.owed.now = true;
        }
        match core::num::NonZeroUsize::new(length) {
            Some(bytes) => Received::Bytes(bytes),
            None if self.is_at_end() => Received::End,
            None => Received::Nothing,
        }
    }

    /// CLOSE of the sending side: the FIN follows what is queued. In SYN_RCVD it waits until our SYN is
    /// acknowledged, as RFC 9293 section 3.10.4 lets it: until then the SYN may have to be repeated.
    pub(crate) fn shutdown_write(&mut self, cx: &mut Context<'_>) {
        match self.state {
            State::SYN_SENT | State::SYN_RCVD => self.close_waits = true,
            _ => self.advance(cx, Cause::Close),
        }
    }

    /// CLOSE of both sides: the application is gone. Data that it left unread are lost, and the peer must
    /// not take them for delivered (SHLD-3, RFC 2525 section 2.17).
    //= docs/rfc/rfc9293.md#SHLD-3
    //= docs/rfc/rfc9293.md#MAY-1
    pub(crate) fn close(&mut self, cx: &mut Context<'_>) {
        self.holder = Holder::Nobody;
        let unread = self.recv.readable() > 0;
        let at_once = self.config.linger.is_some_and(|linger| linger.is_zero());
        if (unread || at_once) && self.state != State::TIME_WAIT {
            return self.abort(cx, Cause::Abort, CloseReason::Aborted);
        }
        self.recv.discard(&mut cx.shared.pool);
        if self.state == State::SYN_SENT {
            return self.end(cx, Cause::Close, CloseReason::Aborted);
        }
        self.shutdown_write(cx);
        self.orphaned(cx);
    }

    /// Nobody waits any more: time is limited now.
    fn orphaned(&mut self, cx: &Context<'_>) {
        match (self.state, self.config.linger) {
            (State::FIN_WAIT_2, _) => self.arm(cx, Timer::FinWait2, self.config.fin_wait2_timeout),
            (State::SYN_RCVD | State::FIN_WAIT_1 | State::CLOSING | State::LAST_ACK, Some(linger)) => {
                self.arm(cx, Timer::UserTimeout, linger);
            }
            _ => {}
        }
    }

    /// Whether the user timeout's timer limits how long an orphan tries to deliver.
    pub(super) fn lingers(&self) -> bool {
        self.is_orphan() && self.config.linger.is_some()
    }

    //= docs/rfc/rfc9293.md#MUST-17
    pub(crate) fn set_nodelay(&mut self, nodelay: bool) {
        self.nodelay = nodelay;
    }

    //= docs/rfc/rfc9293.md#MUST-24
    pub(crate) fn set_keepalive(&mut self, cx: &Context<'_>, keepalive: bool) {
        if keepalive == self.config.keepalive {
            return;
        }
        self.config_mut().keepalive = keepalive;
        self.probe_due = self.probe_due.filter(|probe| *probe != Probe::Idle);
        self.timers.stop(Timer::Keepalive);
        if !self.is_persisting() {
            self.probes = 0;
        }
        self.arm_keepalive(cx);
    }

    /// R2 as a number of retransmissions.
    //= docs/rfc/rfc9293.md#MUST-21
    pub(crate) fn set_retries2(&mut self, retries: u32) {
        self.config_mut().retries2 = retries;
    }

    /// R2 as a time, counted from now on.
    //= docs/rfc/rfc9293.md#MUST-21
    //= docs/rfc/rfc5482.md#3.1-local
    pub(crate) fn set_user_timeout(&mut self, cx: &Context<'_>, timeout: Duration) {
        self.config_mut().user_timeout = timeout;
        self.timers.stop(Timer::UserTimeout);
        if self.send.is_outstanding() {
            self.arm_user_timeout(cx);
        }
    }

    //= docs/rfc/rfc9293.md#SHLD-21
    pub(crate) fn set_dscp(&mut self, dscp: u8) {
        self.config_mut().dscp = dscp;
    }

    /// Octets that the application has still to read until the end of the peer's urgent data.
    pub(crate) fn urgent_remaining(&self) -> u32 {
        self.recv.urgent_remaining()
    }

    pub(crate) fn take_soft_error(&mut self) -> Option<SoftError> {
        self.soft_error.take()
    }
}
