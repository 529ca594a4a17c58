//! A connection as a byte stream for the tasks of its worker: tokio's `AsyncRead` and `AsyncWrite`.
//!
//! `poll_shutdown` is a half-close; dropping closes both ways in the background; [`Stream::abort`] resets.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tcp_proto::{ConnectionId, Received};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::coop;

use crate::services::{Park, Reset};
use crate::worker::{Endpoint, Interest};

/// See the module. Reads and writes fail with `ConnectionReset`, `TimedOut` or `ConnectionAborted` once the
/// connection has ended otherwise than by both sides' closing.
pub struct Stream {
    endpoint: Rc<Endpoint>,
    id: ConnectionId,
    /// Whether the connection was given back or parked already.
    gone: bool,
}

impl Stream {
    pub(crate) fn new(endpoint: Rc<Endpoint>, id: ConnectionId) -> Self {
        Stream { endpoint, id, gone: false }
    }

    pub(crate) fn id(&self) -> ConnectionId {
        self.id
    }

    /// Our address and the peer's; `None` once the connection has ended.
    #[must_use]
    pub fn addresses(&self) -> Option<(SocketAddr, SocketAddr)> {
        self.endpoint.addresses(self.id)
    }

    /// Ends the connection with a RST.
    pub fn abort(mut self) {
        self.gone = true;
        self.endpoint.give_back(self.id, |connection| connection.abort());
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if !self.gone {
            self.endpoint.give_back(self.id, |connection| connection.close());
        }
    }
}

impl Reset for Stream {
    fn reset(self) {
        self.abort();
    }
}

impl Park for Stream {
    fn is_idle(&self) -> bool {
        self.endpoint.is_idle(self.id)
    }

    fn park(mut self) {
        self.gone = true;
        self.endpoint.park(self.id);
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let budget = ready!(coop::poll_proceed(cx));
        let read = ready!(self.endpoint.poll_connection(self.id, Interest::Read, cx.waker(), |connection| {
            match connection.recv(buffer.initialize_unfilled()) {
                Received::Bytes(count) => Poll::Ready(Ok(count.get())),
                Received::End => Poll::Ready(Ok(0)),
                Received::Nothing => Poll::Pending,
            }
        }))?;
        budget.made_progress();
        // A connection that ended in order has nothing more to read.
        buffer.advance(read.unwrap_or(0));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let budget = ready!(coop::poll_proceed(cx));
        let written = ready!(self.endpoint.poll_connection(self.id, Interest::Write, cx.waker(), |connection| {
            match connection.send(bytes) {
                0 if connection.may_send() => Poll::Pending,
                0 => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
                count => Poll::Ready(Ok(count)),
            }
        }))?;
        budget.made_progress();
        Poll::Ready(written.ok_or_else(|| io::ErrorKind::BrokenPipe.into()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // What was written is the stack's to deliver.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = self.endpoint.poll_connection(self.id, Interest::Write, cx.waker(), |connection| {
            connection.shutdown_write();
            Poll::Ready(Ok(()))
        });
        shut.map_ok(|_| ())
    }
}
