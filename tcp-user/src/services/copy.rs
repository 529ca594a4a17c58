//! Copies one direction of a stream, the way every service does it: with half-close and backpressure.
//!
//! The buffer is borrowed from the thread's pool only while it holds bytes, so an idle direction owns
//! none, and it is a small one when many directions hold bytes that their sinks do not take. A poll moves
//! a bounded amount, so a bulk transfer lets others have their turn. What is written is not flushed: the
//! sinks are sockets, which need no flush.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes of one buffer: the most that is between reading and writing in one direction.
pub const BUFFER_BYTES: usize = 64 * 1024;
/// Directions of a thread that hold so large a buffer at once, at most: peers that do not read would otherwise
/// take that much for each of their connections.
const LARGE_BUFFERS: usize = 256;
/// Bytes of a buffer beyond.
const SMALL_BUFFER_BYTES: usize = 4 * 1024;
/// Most free buffers a thread keeps.
const POOL_BUFFERS: usize = 64;
/// Most buffers that one poll reads before others have their turn.
const BUFFERS_PER_POLL: usize = 4;

/// Where bytes come from and where they go; may be the same stream.
pub trait Path {
    /// Reads into `buffer`; nothing read means the end.
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>>;
    /// Writes some of `bytes`.
    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>>;
    /// Passes the end on.
    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
}

/// From a stream back into itself.
pub struct Loopback<'a, S>(pub &'a mut S);

/// From the first stream into the second.
pub struct Between<'a, R, W>(pub &'a mut R, pub &'a mut W);

/// From a stream into nothing; the end is not answered.
pub struct IntoNothing<'a, R>(pub &'a mut R);

/// Which side of a [`Path`] failed, and how.
#[derive(Debug)]
pub enum CopyError {
    /// The source.
    Read(io::Error),
    /// The sink.
    Write(io::Error),
}

/// One direction in progress.
#[derive(Default)]
pub struct Half {
    pending: Option<Pending>,
    ended: bool,
    done: bool,
}

/// Bytes that were read and not yet written; never empty.
struct Pending {
    buffer: Buffer,
    start: usize,
    end: usize,
}

impl Half {
    /// Whether the end has been passed on.
    pub fn is_done(&self) -> bool {
        self.done
    }

    /// Whether nothing was read that is not written yet, not even the end.
    pub fn holds_nothing(&self) -> bool {
        self.pending.is_none() && !self.ended
    }

    /// Copies until the source ends, then shuts the sink down.
    pub fn poll(&mut self, cx: &mut Context<'_>, path: &mut impl Path) -> Poll<Result<(), CopyError>> {
        let mut budget = BUFFERS_PER_POLL;
        while !self.done {
            ready!(self.poll_drain(cx, path))?;
            if self.ended {
                ready!(path.poll_shutdown(cx)).map_err(CopyError::Write)?;
                self.done = true;
            } else if budget == 0 {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            } else {
                budget -= 1;
                ready!(self.poll_fill(cx, path))?;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Writes what is pending.
    fn poll_drain(&mut self, cx: &mut Context<'_>, path: &mut impl Path) -> Poll<Result<(), CopyError>> {
        while let Some(pending) = &mut self.pending {
            let bytes = &pending.buffer[pending.start..pending.end];
            match ready!(path.poll_write(cx, bytes)).map_err(CopyError::Write)? {
                0 => return Poll::Ready(Err(CopyError::Write(io::ErrorKind::WriteZero.into()))),
                written => pending.start += written,
            }
            if pending.start == pending.end {
                self.pending = None;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Reads once; while nothing is there, no buffer is held.
    fn poll_fill(&mut self, cx: &mut Context<'_>, path: &mut impl Path) -> Poll<Result<(), CopyError>> {
        let mut buffer = Buffer::take();
        let mut read = ReadBuf::new(&mut buffer);
        ready!(path.poll_read(cx, &mut read)).map_err(CopyError::Read)?;
        match read.filled().len() {
            0 => self.ended = true,
            end => self.pending = Some(Pending { buffer, start: 0, end }),
        }
        Poll::Ready(Ok(()))
    }
}

/// Copies one path to its end.
pub async fn copy(mut path: impl Path) -> Result<(), CopyError> {
    let mut half = Half::default();
    std::future::poll_fn(|cx| half.poll(cx, &mut path)).await
}

impl<S: AsyncRead + AsyncWrite + Unpin> Path for Loopback<'_, S> {
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_read(cx, buffer)
    }
    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0).poll_write(cx, bytes)
    }
    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_shutdown(cx)
    }
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Path for Between<'_, R, W> {
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_read(cx, buffer)
    }
    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.1).poll_write(cx, bytes)
    }
    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.1).poll_shutdown(cx)
    }
}

impl<R: AsyncRead + Unpin> Path for IntoNothing<'_, R> {
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_read(cx, buffer)
    }
    fn poll_write(&mut self, _cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }
    fn poll_shutdown(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

thread_local! {
    static POOL: RefCell<Pool> = const { RefCell::new(Pool { free: Vec::new(), held: 0 }) };
}

/// The large buffers of a thread.
struct Pool {
    free: Vec<Box<[u8]>>,
    /// How many are not free.
    held: usize,
}

impl Pool {
    /// A large buffer, unless too many are held.
    fn take(&mut self) -> Option<Box<[u8]>> {
        if self.held == LARGE_BUFFERS {
            return None;
        }
        self.held += 1;
        Some(self.free.pop().unwrap_or_else(|| vec![0; BUFFER_BYTES].into_boxed_slice()))
    }

    fn give(&mut self, buffer: Box<[u8]>) {
        self.held -= 1;
        if self.free.len() < POOL_BUFFERS {
            self.free.push(buffer);
        }
    }
}

/// A buffer of [`BUFFER_BYTES`] that goes back to its thread's pool, or one of [`SMALL_BUFFER_BYTES`].
struct Buffer(Box<[u8]>);

impl Buffer {
    fn take() -> Self {
        let large = POOL.with_borrow_mut(Pool::take);
        Buffer(large.unwrap_or_else(|| vec![0; SMALL_BUFFER_BYTES].into_boxed_slice()))
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.0);
        if buffer.len() == BUFFER_BYTES {
            // The pool is gone when the thread ends before a task that it owned.
            let _ = POOL.try_with(|pool| pool.borrow_mut().give(buffer));
        }
    }
}

impl std::ops::Deref for Buffer {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl std::ops::DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn an_idle_direction_owns_no_buffer() {
        let (mut near, mut far) = duplex(1024);
        let mut half = Half::default();
        far.write_all(b"abc").await.unwrap();
        std::future::poll_fn(|cx| {
            assert!(half.poll(cx, &mut Loopback(&mut near)).is_pending());
            Poll::Ready(())
        })
        .await;
        assert!(half.pending.is_none());
        let mut answer = [0; 3];
        far.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"abc");
    }

    #[tokio::test]
    async fn a_sink_that_is_full_stops_the_reading() {
        let (mut near, mut far) = duplex(BUFFER_BYTES);
        let (mut sink, _unread) = duplex(1);
        far.write_all(&vec![7; BUFFER_BYTES]).await.unwrap();
        let mut half = Half::default();
        let poll = std::future::poll_fn(|cx| Poll::Ready(half.poll(cx, &mut Between(&mut near, &mut sink)))).await;
        assert!(poll.is_pending());
        assert_eq!(half.pending.as_ref().map(|p| p.end - p.start), Some(BUFFER_BYTES - 1));
    }

    #[tokio::test]
    async fn many_full_sinks_are_given_small_buffers() {
        let mut stuck = Vec::new();
        for _ in 0..LARGE_BUFFERS + 10 {
            let (mut sink, unread) = duplex(1);
            let mut half = Half::default();
            let mut path = Between(&mut tokio::io::repeat(7), &mut sink);
            assert!(std::future::poll_fn(|cx| Poll::Ready(half.poll(cx, &mut path))).await.is_pending());
            stuck.push((half, sink, unread));
            // Each gets tokio's whole budget.
            tokio::task::yield_now().await;
        }
        let held = |(half, ..): &(Half, _, _)| half.pending.as_ref().map_or(0, |pending| pending.buffer.len());
        let (large, small) = stuck.split_at(LARGE_BUFFERS);
        assert!(large.iter().all(|direction| held(direction) == BUFFER_BYTES));
        assert!(small.iter().all(|direction| held(direction) == SMALL_BUFFER_BYTES));
        stuck.drain(..1);
        assert_eq!(Buffer::take().len(), BUFFER_BYTES, "one was given back");
    }

    #[tokio::test]
    async fn one_poll_moves_a_bounded_amount_even_if_more_could_be_moved() {
        struct Endless(usize);
        impl Path for Endless {
            fn poll_read(&mut self, _cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
                let room = buffer.remaining();
                buffer.initialize_unfilled();
                buffer.advance(room);
                Poll::Ready(Ok(()))
            }
            fn poll_write(&mut self, _cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
                self.0 += bytes.len();
                Poll::Ready(Ok(bytes.len()))
            }
            fn poll_shutdown(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                Poll::Ready(Ok(()))
            }
        }
        let mut endless = Endless(0);
        let mut half = Half::default();
        let poll = std::future::poll_fn(|cx| Poll::Ready(half.poll(cx, &mut endless))).await;
        assert!(poll.is_pending());
        assert_eq!(endless.0, BUFFERS_PER_POLL * BUFFER_BYTES);
    }
}
