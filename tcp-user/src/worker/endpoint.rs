//! The stack of one worker as the worker's own tasks see it: one [`Endpoint`] per thread, shared by the
//! driver (which turns it) and by every stream (which act on it and wait for its events).
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
        let core = Core { stack, waits: HashMap::new(), incoming: Vec::new(), woken: Vec::new() };
        Rc::new(Endpoint { core: RefCell::new(core), acted: Notify::new() })
    }

    /// Starts to listen.
    pub fn listen(&self, local: SocketAddr, options: ListenOptions) -> Result<ListenerId, ListenError> {
        self.core.borrow_mut().stack.listen(local, options)
    }

    /// Turns the stack once over `device`; see [`tcp_proto::turn`].
    pub fn turn(&self, device: &mut impl Device) -> Option<Instant> {
        let mut core = self.core.borrow_mut();
        let Core { stack, waits, incoming, woken } = &mut *core;
        let deadline = tcp_proto::turn(stack, device, clock::now(), |_, event| note(event, waits, incoming, woken));
        let woken = std::mem::take(woken);
        drop(core);
        woken.into_iter().for_each(Waker::wake);
        deadline
    }

    /// Takes the listeners that have connections to accept, in the order in which they got them.
    pub fn take_incoming(&self) -> Vec<ListenerId> {
        std::mem::take(&mut self.core.borrow_mut().incoming)
    }

    /// Takes the oldest established connection of a listener.
    pub fn accept(self: &Rc<Self>, listener: ListenerId) -> Option<Stream> {
        let mut core = self.core.borrow_mut();
        let id = core.stack.accept(listener)?;
        core.waits.insert(id, Wait { connected: true, ..Wait::default() });
        drop(core);
        self.acted.notify_one();
        Some(Stream::new(Rc::clone(self), id))
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
        // A waker's drop may run foreign code, so it has to wait for the end of the borrow.
        drop(waits);
        self.acted.notify_one();
    }
}

/// Remembers what an event means for those who wait.
fn note(event: Event, waits: &mut HashMap<ConnectionId, Wait>, incoming: &mut Vec<ListenerId>, woken: &mut Vec<Waker>) {
    match event {
        Event::Incoming(listener) if incoming.contains(&listener) => {}
        Event::Incoming(listener) => incoming.push(listener),
        Event::Connected(id) => woken.extend(waits.get_mut(&id).and_then(|wait| {
            wait.connected = true;
            wait.writer.take()
        })),
        Event::Readable(id) => woken.extend(waits.get_mut(&id).and_then(|wait| wait.reader.take())),
        Event::Writable(id) => woken.extend(waits.get_mut(&id).and_then(|wait| wait.writer.take())),
        // Streams deliver urgent data in line, and have no way to show the mark (docs/decisions/0006).
        Event::Urgent(_) => {}
        Event::Retransmitting(id) => tracing::debug!(?id, "the peer has not acknowledged for a while (R1)"),
        Event::Closed(id, reason) => woken.extend(waits.get_mut(&id).into_iter().flat_map(|wait| {
            wait.closed = Some(reason);
            [wait.reader.take(), wait.writer.take()].into_iter().flatten()
        })),
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
    }
}
