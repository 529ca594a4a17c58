//! What an application does with one of its connections: calls that act on it through its stack, which then settles what
//! follows, and getters.

use core::net::SocketAddr;

use tcp_common::{Cause, State};

use super::Stack;
use crate::api::{CloseReason, ConnectionInfo, ListenerId, Received, SoftError};
use crate::connection::{Connection, Holder, Origin};
use crate::shared::Context;
use crate::time::{Duration, Instant};

/// A connection, borrowed from its stack.
pub struct ConnectionMut<'a> {
    pub(super) stack: &'a mut Stack,
    pub(super) now: Instant,
    pub(super) index: u32,
}

impl ConnectionMut<'_> {
    /// Our socket address.
    #[must_use]
    pub fn local(&self) -> SocketAddr {
        self.get(|connection| connection.key.local())
    }

    /// The peer's socket address.
    #[must_use]
    pub fn remote(&self) -> SocketAddr {
        self.get(|connection| connection.key.remote())
    }

    /// State.
    #[must_use]
    pub fn state(&self) -> State {
        self.get(|connection| connection.state)
    }

    /// The listener that its SYN came to, which may be closed by now; `None`: the application connected.
    #[must_use]
    pub fn listener(&self) -> Option<ListenerId> {
        match self.get(|connection| connection.origin) {
            Origin::Passive(listener) => Some(listener),
            Origin::Active => None,
        }
    }

    /// Queues as much of `bytes` as the send buffer takes; how many. Fewer than given: [`Event::Writable`] tells
    /// when there is room. Nothing is taken once sending is over (see [`ConnectionMut::may_send`]).
    pub fn send(&mut self, bytes: &[u8]) -> usize {
        self.act(|connection, cx| connection.send(cx, bytes)).unwrap_or(0)
    }

    /// Whether [`ConnectionMut::send`] may still take bytes (now or later).
    #[must_use]
    pub fn may_send(&self) -> bool {
        self.get(Connection::may_send)
    }

    /// Bytes the send buffer would take now.
    #[must_use]
    pub fn send_room(&self) -> usize {
        self.get(Connection::send_room)
    }

    /// Copies received bytes out.
    pub fn recv(&mut self, into: &mut [u8]) -> Received {
        self.act(|connection, cx| connection.recv(cx, into)).unwrap_or(Received::End)
    }

    /// Whether [`ConnectionMut::recv`] would return something else than `Nothing`.
    #[must_use]
    pub fn is_readable(&self) -> bool {
        self.get(Connection::is_readable)
    }

    /// Half-close: a FIN follows what is queued. Receiving goes on.
    pub fn shutdown_write(&mut self) {
        self.act(|connection, cx| connection.shutdown_write(cx));
    }

    /// Gives the handle back and closes both ways: what is queued and a FIN are delivered in the background (see
    /// `linger`); unread or later data draw a RST. The id is dead afterwards.
    pub fn close(self) {
        let (stack, now, index) = (self.stack, self.now, self.index);
        stack.act(now, index, |connection, cx| connection.close(cx));
    }

    /// Gives the handle back and sends RST. The id is dead afterwards.
    pub fn abort(self) {
        let (stack, now, index) = (self.stack, self.now, self.index);
        stack.act(now, index, |connection, cx| {
            connection.holder = Holder::Nobody;
            connection.abort(cx, Cause::Abort, CloseReason::Aborted);
        });
    }

    /// Switches Nagle's algorithm off or on (MUST-17).
    pub fn set_nodelay(&mut self, nodelay: bool) {
        self.act(|connection, _| connection.set_nodelay(nodelay));
    }

    /// Switches keep-alive on or off; the idle time begins now (RFC 9293 section 3.8.4).
    pub fn set_keepalive(&mut self, keepalive: bool) {
        self.act(|connection, cx| connection.set_keepalive(cx, keepalive));
    }

    /// R2 of this connection: retransmissions of one segment after which it is given up; more than 255: never (RFC 9293
    /// section 3.8.3). `retries2` of its parameters before.
    pub fn set_retries2(&mut self, retries: u32) {
        self.act(|connection, _| connection.set_retries2(retries));
    }

    /// Gives the connection up when what it sent stays unacknowledged for so long, counted from now on; zero: only
    /// [`ConnectionMut::set_retries2`] limits it. `user_timeout` of its parameters before.
    pub fn set_user_timeout(&mut self, timeout: Duration) {
        self.act(|connection, cx| connection.set_user_timeout(cx, timeout));
    }

    /// Differentiated services code point of what is sent from now on, 0 to 63 (RFC 9293 section 3.9.1.9).
    ///
    /// # Panics
    /// When it has more than six bits.
    pub fn set_dscp(&mut self, dscp: u8) {
        assert!(dscp < 64, "a code point has six bits: {dscp}");
        self.act(|connection, _| connection.set_dscp(dscp));
    }

    /// Bytes still to be read until the end of the peer's urgent data; 0: there are none. They are read like any others,
    /// and may not all have arrived. [`Event::Urgent`] tells when there are more.
    #[must_use]
    pub fn urgent_remaining(&self) -> u32 {
        self.get(Connection::urgent_remaining)
    }

    /// The last soft error since it was asked for; it ends nothing (RFC 9293 section 3.9.1.8). Who does not want to
    /// know does not ask.
    //= docs/rfc/rfc9293.md#MUST-47
    //= docs/rfc/rfc9293.md#SHLD-20
    //= docs/rfc/rfc9293.md#SHLD-25
    pub fn take_soft_error(&mut self) -> Option<SoftError> {
        self.act(|connection, _| connection.take_soft_error()).flatten()
    }

    /// The row `xtcp conns` shows.
    #[must_use]
    pub fn info(&self) -> ConnectionInfo {
        let mtu = self.stack.shared.config.mtu;
        self.get(|connection| connection.info(self.now, mtu))
    }

    fn get<T>(&self, get: impl FnOnce(&Connection) -> T) -> T {
        let entry = self.stack.entries.get(self.index);
        get(&entry.expect("the borrow keeps the connection alive").connection)
    }

    fn act<T>(&mut self, act: impl FnOnce(&mut Connection, &mut Context<'_>) -> T) -> Option<T> {
        self.stack.act(self.now, self.index, act)
    }
}
