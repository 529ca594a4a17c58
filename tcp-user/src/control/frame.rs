//! How a stream travels over the control socket once `connect` has succeeded: frames of at most 64 KiB both
//! ways, so that an end, a failure and a client that died can be told apart.
//!
//! A frame is a length (u32, big endian) and so many bytes. Length 0 is the end of the stream. The highest
//! bit marks a failure; the bytes then say why.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Most bytes of a frame.
pub const MAX_FRAME: usize = 64 * 1024;
/// Marks a failure.
const FAILURE: u32 = 1 << 31;

/// What [`read`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// So many bytes at the start of the buffer.
    Data(usize),
    /// The end of the stream.
    End,
    /// The stream failed; why.
    Failed(String),
}

/// Reads a frame; its bytes go to `buffer`. `None`: the other side closed the socket.
///
/// # Errors
/// The socket failed, or what came is no frame (`InvalidData`).
pub async fn read<R>(from: &mut R, buffer: &mut [u8; MAX_FRAME]) -> io::Result<Option<Frame>>
where
    R: AsyncRead + Unpin,
{
    let mut head = [0; 4];
    match from.read_exact(&mut head).await {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    };
    let head = u32::from_be_bytes(head);
    let length = (head & !FAILURE) as usize;
    let Some(bytes) = buffer.get_mut(..length) else {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a frame beyond the limit"));
    };
    from.read_exact(bytes).await?;
    Ok(Some(match (head & FAILURE != 0, length) {
        (true, _) => Frame::Failed(String::from_utf8_lossy(bytes).into_owned()),
        (false, 0) => Frame::End,
        (false, length) => Frame::Data(length),
    }))
}

/// Writes `bytes` as one frame.
///
/// # Panics
/// When there are more than [`MAX_FRAME`], or none.
pub async fn write_data<W: AsyncWrite + Unpin>(to: &mut W, bytes: &[u8]) -> io::Result<()> {
    assert!((1..=MAX_FRAME).contains(&bytes.len()));
    to.write_all(&(bytes.len() as u32).to_be_bytes()).await?;
    to.write_all(bytes).await
}

/// Writes the end of the stream.
pub async fn write_end<W: AsyncWrite + Unpin>(to: &mut W) -> io::Result<()> {
    to.write_all(&0u32.to_be_bytes()).await
}

/// Writes why the stream failed; cut to [`MAX_FRAME`].
pub async fn write_failure<W: AsyncWrite + Unpin>(to: &mut W, why: &str) -> io::Result<()> {
    let bytes = &why.as_bytes()[..why.len().min(MAX_FRAME)];
    to.write_all(&(bytes.len() as u32 | FAILURE).to_be_bytes()).await?;
    to.write_all(bytes).await
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn frames(bytes: &[u8]) -> Vec<io::Result<Option<Frame>>> {
        let (mut from, mut buffer) = (bytes, [0; MAX_FRAME]);
        let mut found = Vec::new();
        while found.last().is_none_or(|last| matches!(last, Ok(Some(_)))) {
            found.push(read(&mut from, &mut buffer).await);
        }
        found
    }

    #[tokio::test]
    async fn data_end_and_failure_arrive_as_they_were_sent() {
        let mut bytes = Vec::new();
        write_data(&mut bytes, b"abc").await.unwrap();
        write_end(&mut bytes).await.unwrap();
        write_failure(&mut bytes, "reset").await.unwrap();
        write_failure(&mut bytes, "").await.unwrap();
        let found: Vec<_> = frames(&bytes).await.into_iter().map(Result::unwrap).collect();
        let failed = |why: &str| Some(Frame::Failed(why.to_owned()));
        assert_eq!(found, [Some(Frame::Data(3)), Some(Frame::End), failed("reset"), failed(""), None]);
    }

    #[tokio::test]
    async fn a_length_beyond_the_limit_is_refused() {
        let found = frames(&(MAX_FRAME as u32 + 1).to_be_bytes()).await;
        assert_eq!(found[0].as_ref().unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
