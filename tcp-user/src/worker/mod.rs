//! A worker: one thread with a single-threaded tokio runtime that owns one RX queue's socket, stack and
//! connections; its services run as tasks beside it. Nothing is shared with other threads on the data
//! path, except the exchange of segments that arrived on another queue than their connection's
//! ([`crate::afxdp::Exchange`]); the main thread talks to it by [`Command`]s.

mod bridge;
mod clock;
mod drive;
mod endpoint;
mod link;

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tcp_common::{ConnectionKey, State};
use tcp_proto::{
    ConnectOptions, ConnectionInfo, CookieKeys, ListenOptions, ListenerId, ListenerInfo, Stack, StackConfig, TcpConfig,
};
use tokio::sync::{mpsc, oneshot};
use tokio::task::LocalSet;

use crate::afxdp::{RingStatistics, WorkerDevice};
use crate::config::Service;
use drive::Driver;

pub use clock::now;
pub(crate) use endpoint::Interest;
pub use endpoint::{ConnectFailure, Endpoint};
pub use link::{AfXdpLink, Link, Work};

/// Most rows of one [`Command::Connections`]: what a turn may spend on a sweep.
pub const ROWS_PER_TURN: usize = 256;
/// Commands that may wait for a worker; the sender waits beyond.
const COMMAND_QUEUE: usize = 64;

/// What a worker runs.
#[derive(Clone, Debug)]
pub struct WorkerOptions {
    /// Parameters of its stack.
    pub stack: StackConfig,
    /// Key of its initial sequence numbers, hashes and port choice: secret and random, the same for all workers.
    pub seed: [u8; 32],
    /// Keys of SYN cookies, the same for all workers and the program.
    pub cookie_keys: CookieKeys,
    /// Where it listens.
    pub listeners: Vec<ListenerOptions>,
}

/// One listener of a worker.
#[derive(Clone, Debug)]
pub struct ListenerOptions {
    /// Address; unspecified: every local one of its family.
    pub address: SocketAddr,
    /// Parameters of its connections.
    pub tcp: Arc<TcpConfig>,
    /// What happens to its connections.
    pub service: Service,
}

/// What the main thread asks a worker; it serves at most one a turn. The asker may have gone when the
/// answer comes, which is no error.
pub enum Command {
    /// Rows of the connection table from a cursor on; 0 starts.
    Connections {
        /// Where to go on.
        cursor: usize,
        /// At most [`ROWS_PER_TURN`] rows, and where to go on.
        reply: oneshot::Sender<Slice>,
    },
    /// Figures; the answer is also a sign of life.
    Report(oneshot::Sender<Report>),
    /// An active open.
    Connect(Box<ActiveOpen>),
    /// Use these keys of SYN cookies from now on; answered when that is so.
    CookieKeys {
        /// The ring.
        keys: CookieKeys,
        /// Answered when they are in use.
        reply: oneshot::Sender<()>,
    },
    /// Delete the entries of those among these connections that the worker does not know.
    RemoveUnknown {
        /// Whose entries of its queue the program made before `made_before`, as they were when the asker looked.
        keys: Vec<ConnectionKey>,
        /// CLOCK_MONOTONIC, ns.
        made_before: u64,
        /// How many it deleted.
        reply: oneshot::Sender<usize>,
    },
    /// Stop accepting; answered when no connection is left but those in TIME_WAIT.
    Drain(oneshot::Sender<()>),
    /// Reset every connection; answered when the resets are sent.
    Abort(oneshot::Sender<()>),
    /// End the thread, whatever still goes on.
    Stop,
}

/// An active open whose stream is bridged to a control connection.
pub struct ActiveOpen {
    /// The peer.
    pub remote: SocketAddr,
    /// Our address, the link and the parameters.
    pub options: ConnectOptions,
    /// The control connection; its request has been read.
    pub control: UnixStream,
    /// Workers to ask one after the other when this one's ephemeral ports are used up.
    pub others: VecDeque<WorkerHandle>,
}

/// A slice of the connection table.
#[derive(Debug)]
pub struct Slice {
    /// Rows, each consistent.
    pub rows: Vec<ConnectionInfo>,
    /// Cursor of the next slice; `None`: that was the last.
    pub next: Option<usize>,
}

/// Figures of a worker.
#[derive(Debug)]
pub struct Report {
    /// Figures of each listener, in the order of [`WorkerOptions::listeners`].
    pub listeners: Vec<ListenerReport>,
    /// Number of connections by state.
    pub states: Vec<(State, usize)>,
    /// Segments, answers and connections that the stack dropped, by reason.
    pub drops: Vec<(&'static str, u64)>,
    /// How often an application could not queue all that it wanted to send, by what it waited for.
    pub waits: [(&'static str, u64); 2],
    /// What happened on connections, and how often.
    pub figures: Vec<(&'static str, u64)>,
    /// Figures of the AF_XDP socket; `None` when the kernel did not tell.
    pub rings: Option<RingStatistics>,
    /// Bytes in buffers of connections.
    pub buffer_memory: usize,
    /// Bytes of buffers that went back to the allocator so far.
    pub buffers_freed: u64,
}

/// Figures of a listener and what it serves.
#[derive(Clone, Debug)]
pub struct ListenerReport {
    /// Figures.
    pub info: ListenerInfo,
    /// What it serves.
    pub service: Service,
    /// How long it has listened.
    pub age: Duration,
}

/// Why a worker could not start or ended.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The thread or its runtime could not be made.
    #[error("can't start the worker of queue {queue}: {source}")]
    Start {
        /// RX queue.
        queue: u16,
        /// What the system said.
        source: io::Error,
    },
    /// Its socket failed.
    #[error("the AF_XDP socket of queue {queue} failed: {source}")]
    Socket {
        /// RX queue.
        queue: u16,
        /// What the system said.
        source: io::Error,
    },
    /// Two listeners with the same address.
    #[error("two listeners on {0}")]
    ListenTwice(SocketAddr),
    /// It ended without saying why.
    #[error("the worker of queue {0} ended unexpectedly")]
    Gone(u16),
}

/// A worker that runs; its thread ends by itself when this and every [`WorkerHandle`] are gone.
pub struct Worker {
    /// RX queue.
    pub queue: u16,
    commands: mpsc::Sender<Command>,
    ended: Option<oneshot::Receiver<WorkerError>>,
    thread: std::thread::JoinHandle<()>,
}

impl Worker {
    /// Starts a worker; returns when it listens.
    pub async fn start(device: WorkerDevice, options: WorkerOptions) -> Result<Worker, WorkerError> {
        let queue = options.stack.queue;
        let (commands, inbox) = mpsc::channel(COMMAND_QUEUE);
        let (started_tx, started) = oneshot::channel();
        let (ended_tx, ended) = oneshot::channel();
        let body = move || {
            if let Err(error) = run(device, options, inbox, started_tx) {
                // Nobody listens when the daemon is stopping anyway.
                let _ = ended_tx.send(error);
            }
        };
        let thread = std::thread::Builder::new()
            .name(format!("xtcp-queue-{queue}"))
            .spawn(body)
            .map_err(|source| WorkerError::Start { queue, source })?;
        match started.await {
            Ok(()) => Ok(Worker { queue, commands, ended: Some(ended), thread }),
            Err(_) => Err(ended.await.unwrap_or(WorkerError::Gone(queue))),
        }
    }

    /// A handle for those who ask.
    #[must_use]
    pub fn commands(&self) -> WorkerHandle {
        WorkerHandle { queue: self.queue, commands: self.commands.clone() }
    }

    /// Waits for its end, which is always an error unless [`Worker::stop`] caused it.
    pub async fn ended(&mut self) -> WorkerError {
        match &mut self.ended {
            Some(ended) => {
                let error = ended.await.unwrap_or(WorkerError::Gone(self.queue));
                self.ended = None;
                error
            }
            None => std::future::pending().await,
        }
    }

    /// Ends the thread and closes its socket; blocks for that.
    pub async fn stop(self) {
        let Worker { commands, thread, .. } = self;
        // One that has ended takes no commands.
        let _ = commands.send(Command::Stop).await;
        // A panic of the thread was reported by the panic hook.
        let _ = thread.join();
    }
}

/// Asks a worker.
#[derive(Clone, Debug)]
pub struct WorkerHandle {
    /// RX queue.
    pub queue: u16,
    commands: mpsc::Sender<Command>,
}

impl WorkerHandle {
    /// A handle to a worker that a test plays.
    #[cfg(test)]
    pub(crate) fn received_by_test(queue: u16) -> (WorkerHandle, mpsc::Receiver<Command>) {
        let (commands, inbox) = mpsc::channel(COMMAND_QUEUE);
        (WorkerHandle { queue, commands }, inbox)
    }

    /// Sends a command; waits while the worker has too many.
    pub async fn send(&self, command: Command) -> Result<(), WorkerError> {
        self.commands.send(command).await.map_err(|_| WorkerError::Gone(self.queue))
    }

    /// Sends a command and waits for its answer.
    pub async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, WorkerError> {
        let (reply, answer) = oneshot::channel();
        self.send(command(reply)).await?;
        answer.await.map_err(|_| WorkerError::Gone(self.queue))
    }
}

/// A listener as its worker knows it.
#[derive(Clone)]
struct Listening {
    id: ListenerId,
    service: Rc<Service>,
    since: tcp_proto::Instant,
}

/// The body of the thread.
fn run(
    device: WorkerDevice,
    options: WorkerOptions,
    inbox: mpsc::Receiver<Command>,
    started: oneshot::Sender<()>,
) -> Result<(), WorkerError> {
    let queue = options.stack.queue;
    let failed = |source| WorkerError::Start { queue, source };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let tasks = LocalSet::new();
    let outcome = tasks.block_on(&runtime, async {
        let link = AfXdpLink::new(device).map_err(failed)?;
        let (endpoint, listeners) = listen(options)?;
        let driver = Driver::new(endpoint, link, listeners, inbox);
        // The main thread waits for this unless it is gone, and then the next command tells.
        let _ = started.send(());
        driver.run().await.map_err(|source| WorkerError::Socket { queue, source })
    });
    drop(tasks);
    // A name that a proxy still resolves must not hold up the end.
    runtime.shutdown_background();
    outcome
}

/// A worker over any link: whom to ask, and what runs it within a [`LocalSet`] on the thread that polls it.
///
/// # Errors
/// [`WorkerError::ListenTwice`].
pub fn over<L: Link>(
    link: L,
    options: WorkerOptions,
) -> Result<(WorkerHandle, impl Future<Output = io::Result<()>>), WorkerError> {
    let queue = options.stack.queue;
    let (commands, inbox) = mpsc::channel(COMMAND_QUEUE);
    let (endpoint, listeners) = listen(options)?;
    Ok((WorkerHandle { queue, commands }, Driver::new(endpoint, link, listeners, inbox).run()))
}

/// A stack that listens as asked.
fn listen(options: WorkerOptions) -> Result<(Rc<Endpoint>, Vec<Listening>), WorkerError> {
    let since = now();
    let mut stack = Stack::new(options.stack, options.seed, since);
    stack.set_cookie_keys(options.cookie_keys);
    let endpoint = Endpoint::new(stack);
    let mut listeners = Vec::new();
    for ListenerOptions { address, tcp, service } in options.listeners {
        let id = endpoint.listen(address, ListenOptions { tcp }).map_err(|_| WorkerError::ListenTwice(address))?;
        listeners.push(Listening { id, service: Rc::new(service), since });
    }
    Ok((endpoint, listeners))
}

#[cfg(test)]
mod tests;
