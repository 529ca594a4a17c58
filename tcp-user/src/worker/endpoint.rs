//! The stack of one worker as the worker's own tasks see it: one [`Endpoint`] per thread, shared by the
//! driver (which turns it) and by every stream (which act on it and wait for its events).
//!
//! A connection without a stream is parked: it costs nothing here. When something happens to it the driver is told
//! ([`Endpoint::take_stirred`]), and starts its listener's service again on a new stream.
//!
//! It is borrowed only inside a call, never across an await; wakers are called after the borrow has ended.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Poll, Waker};

use tcp_proto::{
    CloseReason, ConnectError, ConnectOptions, ConnectionId, ConnectionMut, Device, Event, Instant, ListenError,
    ListenOptions, ListenerId, Stack,
};
use tokio::sync::Notify;

use super::clock;
use crate::stream::Stream;

/// Sweeps that find nothing to have happened on a stream after which it is idle.
const IDLE_SWEEPS: u8 = 2;

/// See the module.
pub struct Endpoint {
    core: RefCell<Core>,
    /// Set when an application acted, so that the driver turns.
    acted: Notify,
}

struct Core {
    stack: Stack,
    waits: HashMap<ConnectionId, Wait>,
    /// Listeners with connections to accept.
    incoming: Vec<ListenerId>,
    /// Parked connections to which something happened; may name one twice, or one that has a stream again.
    stirred: Vec<ConnectionId>,
    /// Wakers to call once the borrow has ended.
    woken: Vec<Waker>,
}

/// Who waits for what on a connection that a [`Stream`] holds.
#[derive(Default)]
struct Wait {
    reader: Option<Waker>,
    writer: Option<Waker>,
    connected: bool,
    closed: Option<CloseReason>,
    /// Sweeps since the stream moved something last.
    sweeps: u8,
}

impl Wait {
    /// Whether the stream has waited for something to read, and for nothing else, since the last sweep but one.
    fn is_idle(&self) -> bool {
        self.sweeps >= IDLE_SWEEPS && self.writer.is_none() && self.closed.is_none()
    }
}

/// What a stream waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interest {
    /// Something to read, or the end.
    Read,
    /// Room to write, or that the connection is established.
    Write,
}

impl Endpoint {
    /// An endpoint around a fresh stack.
    pub fn new(stack: Stack) -> Rc<Self> {
        let (incoming, stirred, woken) = (Vec::new(), Vec::new(), Vec::new());
        let core = Core { stack, waits: HashMap::new(), incoming, stirred, woken };
        Rc::new(Endpoint { core: RefCell::new(core), acted: Notify::new() })
    }

    /// Starts to listen.
    pub fn listen(&self, local: SocketAddr, options: ListenOptions) -> Result<ListenerId, ListenError> {
        self.core.borrow_mut().stack.listen(local, options)
    }

    /// Turns the stack once over `device`; see [`tcp_proto::turn`].
    pub fn turn(&self, device: &mut impl Device) -> Option<Instant> {
        let mut core = self.core.borrow_mut();
        let Core { stack, waits, incoming, stirred, woken } = &mut *core;
        let deadline =
            tcp_proto::turn(stack, device, clock::now(), |_, event| note(event, waits, incoming, stirred, woken));
        let woken = std::mem::take(woken);
        drop(core);
        woken.into_iter().for_each(Waker::wake);
        deadline
    }

    /// Wakes the readers of the streams that are idle, so that they may be parked. Call it once a second or so.
    pub fn sweep(&self) {
        let mut core = self.core.borrow_mut();
        let mut idle = Vec::new();
        for wait in core.waits.values_mut() {
            wait.sweeps = wait.sweeps.saturating_add(1);
            // Once: whoever does not want to be parked is left alone.
            if wait.sweeps == IDLE_SWEEPS && wait.is_idle() {
                idle.extend(wait.reader.take());
            }
        }
        let used = core.waits.len();
        if core.waits.capacity() > 4 * used + 64 {
            core.waits.shrink_to(2 * used);
        }
        drop(core);
        idle.into_iter().for_each(Waker::wake);
    }

    /// Takes the listeners that have connections to accept, in the order in which they got them.
    pub fn take_incoming(&self) -> Vec<ListenerId> {
        std::mem::take(&mut self.core.borrow_mut().incoming)
    }

    /// Takes the parked connections to which something happened, in that order.
    pub fn take_stirred(&self) -> Vec<ConnectionId> {
        std::mem::take(&mut self.core.borrow_mut().stirred)
    }

    /// Takes the oldest established connection of a listener; it is parked.
    pub fn accept(&self, listener: ListenerId) -> Option<ConnectionId> {
        self.core.borrow_mut().stack.accept(listener)
    }

    /// Whether there is nothing to read on a connection, nor the end.
    pub fn is_quiet(&self, id: ConnectionId) -> bool {
        let mut core = self.core.borrow_mut();
        core.stack.connection(clock::now(), id).is_some_and(|connection| !connection.is_readable())
    }

    /// A stream over a parked connection, and the listener that it came by; `None` if it is not parked (any more).
    pub fn unpark(self: &Rc<Self>, id: ConnectionId) -> Option<(Option<ListenerId>, Stream)> {
        let mut core = self.core.borrow_mut();
        if core.waits.contains_key(&id) {
            return None;
        }
        let listener = core.stack.connection(clock::now(), id)?.listener();
        core.waits.insert(id, Wait { connected: true, ..Wait::default() });
        drop(core);
        self.acted.notify_one();
        Some((listener, Stream::new(Rc::clone(self), id)))
    }

    /// Connections that are not parked.
    #[cfg(test)]
    pub fn streams(&self) -> usize {
        self.core.borrow().waits.len()
    }

    /// Whether the peer of a stream has said nothing for a while, and the stream waits for nothing else.
    pub(crate) fn is_idle(&self, id: ConnectionId) -> bool {
        self.core.borrow().waits.get(&id).is_some_and(Wait::is_idle)
    }

    /// The stream over a connection is gone, and the connection stays.
    pub(crate) fn park(&self, id: ConnectionId) {
        let wait = self.core.borrow_mut().waits.remove(&id);
        // A waker's drop may run foreign code, so it has to wait for the end of the borrow.
        drop(wait);
    }

    /// Opens a connection; done when it is established.
    pub async fn connect(
        self: &Rc<Self>,
        remote: SocketAddr,
        options: ConnectOptions,
    ) -> Result<Stream, ConnectFailure> {
        let stream = {
            let mut core = self.core.borrow_mut();
            let id = core.stack.connect(clock::now(), remote, options)?;
            core.waits.insert(id, Wait::default());
            Stream::new(Rc::clone(self), id)
        };
        self.acted.notify_one();
        std::future::poll_fn(|cx| self.poll_connected(stream.id(), cx.waker())).await?;
        Ok(stream)
    }

    fn poll_connected(&self, id: ConnectionId, waker: &Waker) -> Poll<Result<(), ConnectFailure>> {
        let mut core = self.core.borrow_mut();
        let Some(wait) = core.waits.get_mut(&id) else {
            return Poll::Ready(Err(ConnectFailure::Ended(CloseReason::Aborted)));
        };
        match (wait.connected, wait.closed) {
            (true, _) => Poll::Ready(Ok(())),
            (false, Some(reason)) => Poll::Ready(Err(ConnectFailure::Ended(reason))),
            (false, None) => {
                wait.writer = Some(waker.clone());
                Poll::Pending
            }
        }
    }

    /// Done when an application has acted since the last turn.
    pub async fn acted(&self) {
        self.acted.notified().await;
    }

    /// Reads from or acts on the stack itself.
    pub fn with_stack<T>(&self, act: impl FnOnce(&mut Stack) -> T) -> T {
        act(&mut self.core.borrow_mut().stack)
    }

    /// The driver should turn soon.
    pub fn wake_driver(&self) {
        self.acted.notify_one();
    }

    /// Lets `act` try something on a connection. If it can't now, `waker` is called when `interest` may be
    /// met; if the connection has ended, the outcome is why (`Ok(None)`: in order).
    pub(crate) fn poll_connection<T>(
        &self,
        id: ConnectionId,
        interest: Interest,
        waker: &Waker,
        act: impl FnOnce(&mut ConnectionMut<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<Option<T>>> {
        let mut core = self.core.borrow_mut();
        let Core { stack, waits, .. } = &mut *core;
        let wait = waits.entry(id).or_default();
        if let Some(error) = wait.closed.and_then(failure) {
            return Poll::Ready(Err(error));
        }
        let Some(mut connection) = stack.connection(clock::now(), id) else { return Poll::Ready(Ok(None)) };
        match act(&mut connection) {
            Poll::Ready(outcome) => {
                wait.sweeps = 0;
                drop(core);
                self.acted.notify_one();
                Poll::Ready(outcome.map(Some))
            }
            Poll::Pending => {
                match interest {
                    Interest::Read => wait.reader = Some(waker.clone()),
                    Interest::Write => wait.writer = Some(waker.clone()),
                }
                Poll::Pending
            }
        }
    }

    /// Our address and the peer's; `None` once the connection has ended.
    pub(crate) fn addresses(&self, id: ConnectionId) -> Option<(SocketAddr, SocketAddr)> {
        let mut core = self.core.borrow_mut();
        let connection = core.stack.connection(clock::now(), id)?;
        Some((connection.local(), connection.remote()))
    }

    /// A stream gives its connection back; `end` closes or aborts it.
    pub(crate) fn give_back(&self, id: ConnectionId, end: impl FnOnce(ConnectionMut<'_>)) {
        let mut core = self.core.borrow_mut();
        let waits = core.waits.remove(&id);
        if let Some(connection) = core.stack.connection(clock::now(), id) {
            end(connection);
        }
        drop(core);
        // As in `park`.
        drop(waits);
        self.acted.notify_one();
    }
}

/// Remembers what an event means for those who wait.
fn note(
    event: Event,
    waits: &mut HashMap<ConnectionId, Wait>,
    incoming: &mut Vec<ListenerId>,
    stirred: &mut Vec<ConnectionId>,
    woken: &mut Vec<Waker>,
) {
    match event {
        Event::Incoming(listener) if incoming.contains(&listener) => {}
        Event::Incoming(listener) => incoming.push(listener),
        Event::Connected(id) => woken.extend(waits.get_mut(&id).and_then(|wait| {
            wait.connected = true;
            wait.writer.take()
        })),
        Event::Readable(id) => match waits.get_mut(&id) {
            Some(wait) => woken.extend(wait.reader.take()),
            None => stirred.push(id),
        },
        Event::Writable(id) => woken.extend(waits.get_mut(&id).and_then(|wait| wait.writer.take())),
        // Streams deliver urgent data in line, and have no way to show the mark (docs/decisions/0006).
        Event::Urgent(_) => {}
        Event::Retransmitting(id) => tracing::debug!(?id, "the peer has not acknowledged for a while (R1)"),
        Event::Closed(id, reason) => match waits.get_mut(&id) {
            Some(wait) => {
                wait.closed = Some(reason);
                woken.extend([wait.reader.take(), wait.writer.take()].into_iter().flatten());
            }
            None => stirred.push(id),
        },
    }
}

/// The error that a stream reports for a connection that ended for `reason`, if it is one.
fn failure(reason: CloseReason) -> Option<io::Error> {
    let kind = match reason {
        CloseReason::Finished => return None,
        CloseReason::Refused => io::ErrorKind::ConnectionRefused,
        CloseReason::Reset => io::ErrorKind::ConnectionReset,
        CloseReason::TimedOut => io::ErrorKind::TimedOut,
        CloseReason::Aborted => io::ErrorKind::ConnectionAborted,
        CloseReason::TableFull => io::ErrorKind::OutOfMemory,
        CloseReason::InUse => io::ErrorKind::AddrInUse,
    };
    Some(kind.into())
}

/// Why an active open failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectFailure {
    /// It could not start.
    #[error("{}", explain_connect_error(*.0))]
    NotStarted(ConnectError),
    /// It ended before it was established.
    #[error("{}", explain_end(*.0))]
    Ended(CloseReason),
}

impl From<ConnectError> for ConnectFailure {
    fn from(error: ConnectError) -> Self {
        ConnectFailure::NotStarted(error)
    }
}

fn explain_connect_error(error: ConnectError) -> &'static str {
    match error {
        ConnectError::InvalidRemote => "not a unicast address with a port",
        ConnectError::FamilyMismatch => "the two addresses are of different families",
        ConnectError::InUse => "a connection between these addresses and ports exists",
        ConnectError::NoPort => "every ephemeral port is in use (ephemeral_ports)",
        ConnectError::TooManyConnections => "the connection table is full (max_connections)",
    }
}

fn explain_end(reason: CloseReason) -> &'static str {
    match reason {
        CloseReason::Finished => "closed",
        CloseReason::Refused => "connection refused",
        CloseReason::Reset => "connection reset",
        CloseReason::TimedOut => "timed out",
        CloseReason::Aborted => "aborted",
        CloseReason::TableFull => "the connection table is full (max_connections)",
        CloseReason::InUse => "another connection has these addresses and ports",
    }
}
