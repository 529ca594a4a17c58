//! Peers of a lab: kernel TCP sockets and real programs in the client's or the server's namespace.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;

use crate::net::Namespace;
use crate::wait::{DEADLINE, until};

/// Opens a connection from `namespace` by the kernel's TCP; no read or write on it blocks longer than [`DEADLINE`].
///
/// # Panics
/// When the connection can't be opened.
#[must_use]
pub fn connect(namespace: &Namespace, to: SocketAddr) -> TcpStream {
    let connection = namespace.enter(|| TcpStream::connect_timeout(&to, DEADLINE));
    with_deadlines(connection.unwrap_or_else(|error| panic!("no connection to {to}: {error}")))
}

/// A listening kernel socket in `namespace`.
///
/// # Panics
/// When the address can't be bound.
#[must_use]
pub fn listen(namespace: &Namespace, at: SocketAddr) -> TcpListener {
    namespace.enter(|| TcpListener::bind(at)).unwrap_or_else(|error| panic!("can't listen on {at}: {error}"))
}

/// Accepts one connection; no read or write on it blocks longer than [`DEADLINE`].
///
/// # Panics
/// When none comes within [`DEADLINE`].
#[must_use]
pub fn accept(listener: &TcpListener) -> TcpStream {
    listener.set_nonblocking(true).expect("a socket can be made non-blocking");
    let (connection, _) = until("a connection to accept", || listener.accept().ok());
    connection.set_nonblocking(false).expect("a socket can be made blocking");
    with_deadlines(connection)
}

/// Accepts `count` connections, one after the other, and hands each to `serve` on a thread of its own.
pub fn serve<F>(listener: TcpListener, count: usize, serve: F) -> JoinHandle<()>
where
    F: Fn(TcpStream) + Send + Sync + 'static,
{
    std::thread::spawn(move || {
        std::thread::scope(|scope| {
            for _ in 0..count {
                let connection = accept(&listener);
                let serve = &serve;
                scope.spawn(move || serve(connection));
            }
        });
    })
}

/// Sends back what comes in; at its end closes too.
pub fn echo(mut connection: TcpStream) {
    let mut input = connection.try_clone().expect("a socket can be cloned");
    let _ = std::io::copy(&mut input, &mut connection);
    let _ = connection.shutdown(Shutdown::Write);
}

/// Sends `data` while reading to the end of the stream, then half-closes; returns what came back.
///
/// # Panics
/// When sending or receiving fails.
#[must_use]
pub fn exchange(connection: &TcpStream, data: &[u8]) -> Vec<u8> {
    std::thread::scope(|scope| {
        let sender = scope.spawn(move || {
            let mut connection = connection;
            connection.write_all(data).expect("the peer takes the data");
            connection.shutdown(Shutdown::Write).expect("the connection can be half-closed");
        });
        let received = read_to_end(connection);
        sender.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        received
    })
}

/// As [`exchange`], through a program whose stdin and stdout, both pipes, are the stream.
///
/// # Panics
/// When writing or reading fails.
#[must_use]
pub fn exchange_through(program: &mut Child, data: &[u8]) -> Vec<u8> {
    let (mut stdin, mut stdout) = (program.stdin.take().expect("a pipe"), program.stdout.take().expect("a pipe"));
    std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(data).expect("the program takes the data"));
        let mut received = Vec::new();
        stdout.read_to_end(&mut received).expect("the program's output ends");
        received
    })
}

/// Sends `data` and waits for the same to come back.
///
/// # Panics
/// When sending or receiving fails, or something else comes back.
pub fn round_trip(connection: &mut TcpStream, data: &[u8]) {
    connection.write_all(data).expect("the peer takes the data");
    let mut reply = vec![0; data.len()];
    connection.read_exact(&mut reply).expect("the peer answers");
    assert_same(&reply, data);
}

/// Reads once. A read with a deadline is interrupted when the machine freezes the process for a while; then again.
///
/// # Errors
/// What the socket says otherwise.
pub fn read(mut connection: &TcpStream, into: &mut [u8]) -> std::io::Result<usize> {
    loop {
        match connection.read(into) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Reads to the end of the stream.
///
/// # Panics
/// When reading fails.
#[must_use]
pub fn read_to_end(mut connection: &TcpStream) -> Vec<u8> {
    let mut received = Vec::new();
    connection.read_to_end(&mut received).expect("the stream can be read to its end");
    received
}

/// `length` bytes without a short period, the same for the same seed.
#[must_use]
pub fn bytes(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut bytes: Vec<u8> = std::iter::repeat_with(&mut next).take(length.div_ceil(8)).flatten().collect();
    bytes.truncate(length);
    bytes
}

/// Panics with the place of the first difference rather than with megabytes of output.
///
/// # Panics
/// When the two differ.
pub fn assert_same(received: &[u8], sent: &[u8]) {
    let different = received.iter().zip(sent).position(|(a, b)| a != b);
    assert_eq!(different, None, "the first byte that differs (of {} sent, {} received)", sent.len(), received.len());
    assert_eq!(received.len(), sent.len(), "bytes received");
}

/// A program that runs in a namespace until it is dropped.
#[derive(Debug)]
pub struct Program {
    child: Child,
}

impl Program {
    /// Starts a program with its output thrown away.
    ///
    /// # Panics
    /// When it can't be started.
    #[must_use]
    pub fn start(command: &mut Command) -> Program {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().unwrap_or_else(|error| panic!("can't start {command:?}: {error}"));
        Program { child }
    }

    /// Kills it with SIGKILL; the kernel closes its sockets.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
    }
}

fn with_deadlines(connection: TcpStream) -> TcpStream {
    connection.set_read_timeout(Some(DEADLINE)).expect("a timeout can be set");
    connection.set_write_timeout(Some(DEADLINE)).expect("a timeout can be set");
    connection
}
