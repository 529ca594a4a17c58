//! The proxy: passes a stream on to a backend through the kernel's sockets, with half-close and
//! backpressure in both directions and resets passed on as resets. One backend; choosing among several
//! and the PROXY protocol are not here yet.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::copy::{Between, CopyError, Half, IntoNothing, copy};
use super::{LINGER, Reset};
use crate::config::Backend;

/// How long a backend may take to accept.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a backend that does not accept is logged at most.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(1);

/// Serves one client by the backend; the client is reset when the backend does not accept.
pub async fn serve<S: AsyncRead + AsyncWrite + Reset + Unpin>(client: S, backend: Backend) {
    let connected = match &backend {
        Backend::Tcp { host, port } => {
            let connect = TcpStream::connect((host.as_str(), *port));
            match within_timeout(connect).await {
                Ok(stream) => {
                    // The client's own segments already are as large as they should be.
                    let _ = stream.set_nodelay(true);
                    return bridge(client, stream).await;
                }
                Err(error) => Err(error),
            }
        }
        Backend::Unix(path) => match within_timeout(UnixStream::connect(path)).await {
            Ok(stream) => return bridge(client, stream).await,
            Err(error) => Err(error),
        },
    };
    if let Err(error) = connected as io::Result<()> {
        complain(&backend, &error);
        client.reset();
    }
}

/// Logs a backend's failure; at most one a second and thread, however many clients it concerns.
fn complain(backend: &Backend, error: &io::Error) {
    thread_local! {
        static LAST: Cell<Option<Instant>> = const { Cell::new(None) };
    }
    let now = Instant::now();
    if LAST.get().is_none_or(|last| now.duration_since(last) >= COMPLAINT_INTERVAL) {
        LAST.set(Some(now));
        tracing::warn!(%backend, %error, "backend does not accept: its clients are reset");
    }
}

async fn within_timeout<T>(connect: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(CONNECT_TIMEOUT, connect).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// How a bridge ended.
enum End {
    /// Both directions were passed on to their end.
    Finished,
    /// One side failed: the other is reset.
    Broken,
    /// The backend has said everything and takes no more.
    BackendDone,
    /// The client has said everything and takes no more.
    ClientDone,
}

/// Passes bytes, ends and resets between a client and its backend until both directions have ended.
async fn bridge<C, B>(mut client: C, mut backend: B)
where
    C: AsyncRead + AsyncWrite + Reset + Unpin,
    B: AsyncRead + AsyncWrite + Reset + Unpin,
{
    let mut halves = Halves::default();
    match poll_fn(|cx| halves.poll(cx, &mut client, &mut backend)).await {
        End::Finished => {}
        End::Broken => {
            client.reset();
            backend.reset();
        }
        // Closing now would reset the connection and destroy the answer if it is still under way.
        End::BackendDone => {
            drop(backend);
            let _ = tokio::time::timeout(LINGER, copy(IntoNothing(&mut client))).await;
        }
        End::ClientDone => {
            drop(client);
            let _ = tokio::time::timeout(LINGER, copy(IntoNothing(&mut backend))).await;
        }
    }
}

/// The two directions of a bridge.
#[derive(Default)]
struct Halves {
    to_backend: Half,
    to_client: Half,
}

impl Halves {
    fn poll<C, B>(&mut self, cx: &mut Context<'_>, client: &mut C, backend: &mut B) -> Poll<End>
    where
        C: AsyncRead + AsyncWrite + Unpin,
        B: AsyncRead + AsyncWrite + Unpin,
    {
        // The answers first: when the backend has finished, its refusal to read more is no failure.
        if let Poll::Ready(Err(error)) = self.to_client.poll(cx, &mut Between(backend, client)) {
            return Poll::Ready(after(&error, &self.to_backend, End::ClientDone));
        }
        if let Poll::Ready(Err(error)) = self.to_backend.poll(cx, &mut Between(client, backend)) {
            return Poll::Ready(after(&error, &self.to_client, End::BackendDone));
        }
        if self.to_client.is_done() && self.to_backend.is_done() { Poll::Ready(End::Finished) } else { Poll::Pending }
    }
}

/// What an error in one direction means: `done` if the sink failed after it had ended its own stream.
fn after(error: &CopyError, other: &Half, done: End) -> End {
    match error {
        CopyError::Write(_) if other.is_done() => done,
        _ => End::Broken,
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::rc::Rc;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadBuf, duplex};
    use tokio::net::TcpListener;

    use super::*;

    /// A stream in memory that remembers whether it was reset.
    struct Memory(DuplexStream, Rc<Cell<bool>>);

    impl Memory {
        fn new(bytes: usize) -> (Memory, DuplexStream, Rc<Cell<bool>>) {
            let (near, far) = duplex(bytes);
            let reset = Rc::new(Cell::new(false));
            (Memory(near, Rc::clone(&reset)), far, reset)
        }
    }

    impl Reset for Memory {
        fn reset(self) {
            self.1.set(true);
        }
    }

    impl AsyncRead for Memory {
        fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_read(cx, buf)
        }
    }

    impl AsyncWrite for Memory {
        fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            Pin::new(&mut self.0).poll_write(cx, bytes)
        }
        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_flush(cx)
        }
        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_shutdown(cx)
        }
    }

    #[tokio::test]
    async fn each_direction_ends_by_itself() {
        let (client, mut user, reset) = Memory::new(1024);
        let (backend, mut server, _) = Memory::new(1024);
        let user_side = async {
            user.write_all(b"question").await.unwrap();
            user.shutdown().await.unwrap();
            let mut answer = String::new();
            user.read_to_string(&mut answer).await.unwrap();
            answer
        };
        let server_side = async {
            let mut question = String::new();
            server.read_to_string(&mut question).await.unwrap();
            server.write_all(b"answer to ").await.unwrap();
            server.write_all(question.as_bytes()).await.unwrap();
            server.shutdown().await.unwrap();
        };
        let ((), answer, ()) = tokio::join!(bridge(client, backend), user_side, server_side);
        assert_eq!(answer, "answer to question");
        assert!(!reset.get());
    }

    #[tokio::test]
    async fn a_backend_that_does_not_read_holds_the_client_back() {
        let (client, mut user, _) = Memory::new(1024);
        let (backend, _server, _) = Memory::new(1024);
        let write = user.write_all(&[0; 1 << 20]);
        tokio::select! {
            biased;
            () = bridge(client, backend) => panic!("the bridge ended"),
            _ = write => panic!("all of it was taken"),
            () = std::future::ready(()) => {}
        }
    }

    #[tokio::test]
    async fn a_backend_that_refuses_resets_the_client() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let (client, _user, reset) = Memory::new(64);
        serve(client, Backend::Tcp { host: "127.0.0.1".into(), port }).await;
        assert!(reset.get());
    }

    #[tokio::test]
    async fn a_backends_reset_reaches_the_client_as_a_reset() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (client, _user, reset) = Memory::new(64);
        let backend = async { listener.accept().await.unwrap().0.reset() };
        let address = Backend::Tcp { host: "127.0.0.1".into(), port };
        tokio::join!(serve(client, address), backend);
        assert!(reset.get());
    }

    #[tokio::test]
    async fn a_clients_reset_reaches_the_backend_as_a_reset() {
        struct ResetClient;
        impl Reset for ResetClient {
            fn reset(self) {}
        }
        impl AsyncRead for ResetClient {
            fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
                Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
            }
        }
        impl AsyncWrite for ResetClient {
            fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
                Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
            }
            fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
                Poll::Ready(Ok(()))
            }
            fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
                Poll::Ready(Ok(()))
            }
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = Backend::Tcp { host: "127.0.0.1".into(), port: listener.local_addr().unwrap().port() };
        let backend = async {
            let mut stream = listener.accept().await.unwrap().0;
            stream.read(&mut [0; 1]).await.map_err(|error| error.kind())
        };
        let ((), outcome) = tokio::join!(serve(ResetClient, address), backend);
        assert_eq!(outcome, Err(io::ErrorKind::ConnectionReset));
    }

    #[tokio::test]
    async fn an_answer_survives_a_backend_that_did_not_read_the_whole_question() {
        let (client, mut user, reset) = Memory::new(1024);
        let (backend, mut server, _) = Memory::new(64);
        let server_side = async {
            server.write_all(b"no").await.unwrap();
            drop(server);
        };
        let user_side = async {
            // More than the backend takes: the bridge finds it gone only when it writes.
            user.write_all(&[0; 500]).await.unwrap();
            let mut answer = String::new();
            user.read_to_string(&mut answer).await.unwrap();
            user.shutdown().await.unwrap();
            answer
        };
        let ((), answer, ()) = tokio::join!(bridge(client, backend), user_side, server_side);
        assert_eq!(answer, "no");
        assert!(!reset.get());
    }

    #[tokio::test]
    async fn a_unix_socket_serves_as_backend() {
        let path = std::env::temp_dir().join(format!("xtcp-proxy-test-{}.sock", std::process::id()));
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let (client, mut user, _) = Memory::new(64);
        let backend = async {
            let mut stream = listener.accept().await.unwrap().0;
            stream.write_all(b"hello").await.unwrap();
        };
        let user_side = async {
            user.shutdown().await.unwrap();
            let mut answer = String::new();
            user.read_to_string(&mut answer).await.unwrap();
            answer
        };
        let address = Backend::Unix(path.clone());
        let ((), (), answer) = tokio::join!(serve(client, address), backend, user_side);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(answer, "hello");
    }
}
