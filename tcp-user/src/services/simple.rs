//! The classic services: echo (RFC 862), discard (RFC 863), daytime (RFC 867) and chargen (RFC 864), over
//! streams only. Closing is half-close: each goes on with the other direction until that ends too.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::copy::{Between, CopyError, Half, IntoNothing, Loopback, copy};
use super::{LINGER, Park, Reset};

/// RFC 862: sends back what it receives; the end of the stream, too.
pub async fn echo<S: AsyncRead + AsyncWrite + Reset + Park + Unpin>(mut stream: S) {
    match until_idle(&mut stream, |half, stream, cx| half.poll(cx, &mut Loopback(stream))).await {
        Ended::Idle => stream.park(),
        Ended::Copied(Err(_)) => stream.reset(),
        Ended::Copied(Ok(())) => {}
    }
}

/// RFC 863: throws away what it receives, and closes when the peer has.
pub async fn discard<S: AsyncRead + AsyncWrite + Park + Unpin>(mut stream: S) {
    // An error here is the peer's reset: there is nothing left to close.
    if let Ended::Idle = until_idle(&mut stream, |half, stream, cx| half.poll(cx, &mut IntoNothing(stream))).await {
        stream.park();
    }
}

/// Why [`until_idle`] stopped.
enum Ended {
    /// The source ended, or a side failed.
    Copied(Result<(), CopyError>),
    /// Nothing moves, and nothing is held.
    Idle,
}

/// Copies by `poll` until the source ends or the stream is idle.
async fn until_idle<S: Park>(
    stream: &mut S,
    mut poll: impl FnMut(&mut Half, &mut S, &mut Context<'_>) -> Poll<Result<(), CopyError>>,
) -> Ended {
    let mut half = Half::default();
    std::future::poll_fn(|cx| match poll(&mut half, stream, cx) {
        Poll::Pending if half.holds_nothing() && stream.is_idle() => Poll::Ready(Ended::Idle),
        outcome => outcome.map(Ended::Copied),
    })
    .await
}

/// RFC 867: sends date and time as one line and closes; what it receives is thrown away.
pub async fn daytime<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, now: Timestamp) {
    let line = now.to_zoned(TimeZone::UTC).strftime("%A, %B %-d, %Y %H:%M:%S-UTC\r\n").to_string();
    if stream.write_all(line.as_bytes()).await.is_ok() && stream.shutdown().await.is_ok() {
        // When the peer takes longer, closing resets what it still sends.
        let _ = tokio::time::timeout(LINGER, copy(IntoNothing(&mut stream))).await;
    }
}

/// RFC 864: sends lines of a rotating pattern until the connection ends; what it receives is thrown away.
///
/// The end of the peer's stream does not stop it, because a peer that only half-closed still reads; one
/// that closed answers with a reset.
pub async fn chargen<S: AsyncRead + AsyncWrite + Reset + Unpin>(stream: S) {
    let (mut from, mut to) = tokio::io::split(stream);
    let (mut sending, mut receiving) = (Half::default(), Half::default());
    let mut pattern = Pattern::default();
    let ended: Result<(), CopyError> = std::future::poll_fn(|cx| {
        if !receiving.is_done()
            && let Poll::Ready(Err(error)) = receiving.poll(cx, &mut IntoNothing(&mut from))
        {
            return Poll::Ready(Err(error));
        }
        sending.poll(cx, &mut Between(&mut pattern, &mut to))
    })
    .await;
    if ended.is_err() {
        from.unsplit(to).reset();
    }
}

/// Characters of a line of [`chargen`] without its end.
const LINE_CHARACTERS: usize = 72;
/// A line with CR and LF.
const LINE_BYTES: usize = LINE_CHARACTERS + 2;
/// The printing characters of ASCII, from space to tilde.
const PRINTING: usize = 95;

/// Bytes after which the pattern repeats: one line for every character that one can start with.
const PATTERN_BYTES: usize = PRINTING * LINE_BYTES;

/// The pattern, once.
static PATTERN: [u8; PATTERN_BYTES] = {
    let mut pattern = [0; PATTERN_BYTES];
    let mut position = 0;
    while position < PATTERN_BYTES {
        let (line, column) = (position / LINE_BYTES, position % LINE_BYTES);
        pattern[position] = match column {
            LINE_CHARACTERS => b'\r',
            _ if column > LINE_CHARACTERS => b'\n',
            _ => b' ' + ((line + column) % PRINTING) as u8,
        };
        position += 1;
    }
    pattern
};

/// The endless stream of [`chargen`]: each line starts one character further in the ring of printing ones.
#[derive(Default)]
struct Pattern {
    /// Where in [`PATTERN`] it goes on.
    position: usize,
}

impl AsyncRead for Pattern {
    fn poll_read(mut self: Pin<&mut Self>, _cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while buffer.remaining() > 0 {
            let rest = &PATTERN[self.position..];
            let length = rest.len().min(buffer.remaining());
            buffer.put_slice(&rest[..length]);
            self.position = (self.position + length) % PATTERN_BYTES;
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, DuplexStream, duplex};

    use super::*;
    use crate::services::copy::BUFFER_BYTES;

    #[tokio::test]
    async fn echo_returns_every_byte_and_then_the_end() {
        let (near, far) = duplex(512);
        let (mut from, mut to) = tokio::io::split(far);
        let sent: Vec<u8> = (0..3 * BUFFER_BYTES).map(|i| (i % 251) as u8).collect();
        let send = async {
            to.write_all(&sent).await.unwrap();
            to.shutdown().await.unwrap();
        };
        let mut received = Vec::new();
        let receive = from.read_to_end(&mut received);
        let ((), (), read) = tokio::join!(echo(near), send, receive);
        assert_eq!(read.unwrap(), sent.len());
        assert!(received == sent);
    }

    #[tokio::test]
    async fn discard_answers_nothing_and_closes_after_the_peer() {
        let (near, mut far) = duplex(512);
        let peer = async {
            far.write_all(&[1; 5000]).await.unwrap();
            far.shutdown().await.unwrap();
            let mut answer = Vec::new();
            far.read_to_end(&mut answer).await.unwrap();
            answer
        };
        let ((), answer) = tokio::join!(discard(near), peer);
        assert_eq!(answer, b"");
    }

    #[tokio::test]
    async fn daytime_sends_one_line_and_closes() {
        let (near, mut far) = duplex(512);
        let now: Timestamp = "1982-02-22T17:37:43Z".parse().unwrap();
        let peer = async {
            let mut line = String::new();
            far.read_to_string(&mut line).await.unwrap();
            far.shutdown().await.unwrap();
            line
        };
        let ((), line) = tokio::join!(daytime(near, now), peer);
        assert_eq!(line, "Monday, February 22, 1982 17:37:43-UTC\r\n");
    }

    async fn chargen_bytes(count: usize, mut far: DuplexStream) -> Vec<u8> {
        let mut bytes = vec![0; count];
        far.read_exact(&mut bytes).await.unwrap();
        bytes
    }

    #[tokio::test]
    async fn chargen_sends_the_rotating_pattern_until_the_peer_is_gone() {
        let (near, far) = duplex(4096);
        let ((), bytes) = tokio::join!(chargen(near), chargen_bytes(96 * LINE_BYTES, far));
        let lines: Vec<&[u8]> = bytes.chunks(LINE_BYTES).collect();
        assert_eq!(lines[0], b" !\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefg\r\n");
        assert_eq!(lines[1][..3], *b"!\"#");
        assert_eq!(lines[94][..3], *b"~ !");
        assert_eq!(lines[95], lines[0]);
    }

    #[tokio::test]
    async fn chargen_goes_on_after_the_peer_half_closed() {
        let (near, mut far) = duplex(4096);
        far.shutdown().await.unwrap();
        let ((), bytes) = tokio::join!(chargen(near), chargen_bytes(200_000, far));
        assert_eq!(bytes.len(), 200_000);
    }
}
