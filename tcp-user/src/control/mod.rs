//! The control socket: how `xtcp conns`, `stats`, `connect`, `allow` and `deny` talk to the daemon.

pub mod client;
pub mod frame;
pub mod protocol;
pub mod server;
mod socket;

use std::io;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

pub use protocol::{Answer, Change, Outcome, Request, Row, RuleName};
pub use socket::{ControlSocket, SocketError};

/// Writes one line of JSON.
async fn write_line<W: AsyncWrite + Unpin>(to: &mut W, value: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    to.write_all(&line).await
}

/// Writes an answer.
///
/// # Errors
/// The socket failed.
pub async fn write_answer<W: AsyncWrite + Unpin>(to: &mut W, answer: &Answer) -> io::Result<()> {
    write_line(to, answer).await
}

/// Reads one line of JSON without taking anything behind it, which may be frames. `None`: the other side
/// closed the socket before a line.
async fn read_line<T: DeserializeOwned>(from: &mut LineReader<impl AsyncRead + Unpin>) -> io::Result<Option<T>> {
    match from.line().await? {
        Some(line) => Ok(Some(serde_json::from_slice(&line)?)),
        None => Ok(None),
    }
}

/// Splits what it reads into lines of at most `limit` bytes.
struct LineReader<R> {
    from: R,
    limit: usize,
    /// Read, but not yet given out.
    buffer: Vec<u8>,
    /// Bytes of `buffer` that hold no end of a line.
    searched: usize,
}

impl<R: AsyncRead + Unpin> LineReader<R> {
    fn new(from: R, limit: usize) -> Self {
        LineReader { from, limit, buffer: Vec::new(), searched: 0 }
    }

    async fn line(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            if let Some(end) = self.buffer[self.searched..].iter().position(|&byte| byte == b'\n') {
                let rest = self.buffer.split_off(self.searched + end + 1);
                self.searched = 0;
                return Ok(Some(std::mem::replace(&mut self.buffer, rest)));
            }
            self.searched = self.buffer.len();
            if self.buffer.len() > self.limit {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a line beyond the limit"));
            }
            if self.from.read_buf(&mut self.buffer).await? == 0 {
                return if self.buffer.is_empty() { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
        }
    }

    /// What was read behind the last line.
    fn rest(&self) -> &[u8] {
        &self.buffer
    }
}

#[cfg(test)]
mod tests;
