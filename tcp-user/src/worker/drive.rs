//! The loop of a worker: turn the stack, hand accepted connections to their services, serve at most one
//! command, then wait for frames, the next deadline, an application or a command.

use std::io;
use std::ops::ControlFlow;
use std::rc::{Rc, Weak};
use std::time::Duration;

use tcp_common::{ConnectionKey, State};
use tcp_proto::{ConnectionId, Instant, ListenerId};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{spawn_local, yield_now};

use super::{Command, Endpoint, Link, ListenerReport, Listening, ROWS_PER_TURN, Report, Slice, Work, bridge, clock};
use crate::config::Service;
use crate::services::{self, StatusPage};
use crate::stats;

/// Turns after which a kernel that takes no frames (its queue is full, the interface is down) is given more time.
const STUCK_TURNS: u32 = 64;
/// How long it is given at first, and how often that is doubled at most: 64 ms.
const TRANSMIT_RETRY: Duration = Duration::from_millis(1);
const RETRY_DOUBLINGS: u32 = 6;
/// How often streams are looked through for idle ones.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// Most turns that [`Command::Abort`] takes to send its resets.
const ABORT_TURNS: usize = 4096;

/// A worker's state beside its tasks.
pub struct Driver<L> {
    endpoint: Rc<Endpoint>,
    link: L,
    /// Also those that are closed: their services go on.
    listeners: Vec<Listening>,
    status: StatusPage,
    inbox: mpsc::Receiver<Command>,
    /// Who waits for the drain to end.
    draining: Option<oneshot::Sender<()>>,
    /// Turns in a row in which the kernel took none of the frames that wait.
    stuck: u32,
}

/// What ended a wait.
enum Woken {
    /// Frames, time or an application.
    Turn,
    /// A command.
    Command(Command),
    /// Nobody can send commands any more.
    Orphaned,
}

impl<L: Link> Driver<L> {
    pub(super) fn new(
        endpoint: Rc<Endpoint>,
        link: L,
        listeners: Vec<Listening>,
        inbox: mpsc::Receiver<Command>,
    ) -> Self {
        let status = status_page(&endpoint, &listeners);
        Driver { endpoint, link, listeners, status, inbox, draining: None, stuck: 0 }
    }

    /// Runs until nobody can send commands any more or the link fails.
    pub async fn run(mut self) -> io::Result<()> {
        spawn_local(sweep(Rc::downgrade(&self.endpoint)));
        loop {
            let deadline = self.endpoint.turn(&mut self.link);
            self.accept();
            self.unpark();
            self.report_drained();
            match self.wait(deadline).await? {
                Woken::Turn => {}
                Woken::Command(command) => {
                    if self.serve(command).is_break() {
                        return Ok(());
                    }
                }
                Woken::Orphaned => return Ok(()),
            }
        }
    }

    /// Gives each connection that waits to its listener's service; one that may be parked waits for its peer first.
    fn accept(&mut self) {
        for listener in self.endpoint.take_incoming() {
            let parks = self.service(listener).is_some_and(services::parks);
            while let Some(id) = self.endpoint.accept(listener) {
                if !parks || !self.endpoint.is_quiet(id) {
                    self.serve_connection(id);
                }
            }
        }
    }

    /// Gives parked connections to which something happened to their services.
    fn unpark(&mut self) {
        for id in self.endpoint.take_stirred() {
            self.serve_connection(id);
        }
    }

    /// Starts the service of a connection's listener on it; without one it is closed.
    fn serve_connection(&self, id: ConnectionId) {
        let Some((listener, stream)) = self.endpoint.unpark(id) else { return };
        if let Some(service) = listener.and_then(|listener| self.service(listener)) {
            spawn_local(services::serve(service, stream, &self.status));
        }
    }

    fn service(&self, id: ListenerId) -> Option<&Service> {
        self.listeners.iter().find(|listener| listener.id == id).map(|listener| &*listener.service)
    }

    /// Waits for the next reason to turn. The tasks get their turn in any case.
    async fn wait(&mut self, deadline: Option<Instant>) -> io::Result<Woken> {
        let now = clock::now();
        let work = self.link.work();
        self.stuck = if work == Work::Stuck { self.stuck.saturating_add(1) } else { 0 };
        let mut patience = deadline.map(|deadline| deadline.since(now));
        if let Some(pause) = pause(self.stuck) {
            // What is due would have to be sent, too.
            patience = Some(pause);
        } else if work != Work::None || patience == Some(Duration::ZERO) {
            yield_now().await;
            return Ok(self.inbox.try_recv().map_or(Woken::Turn, Woken::Command));
        }
        tokio::select! {
            () = self.endpoint.acted() => Ok(Woken::Turn),
            arrival = self.link.arrival() => arrival.map(|()| Woken::Turn),
            command = self.inbox.recv() => Ok(command.map_or(Woken::Orphaned, Woken::Command)),
            () = sleep(patience) => Ok(Woken::Turn),
        }
    }

    fn serve(&mut self, command: Command) -> ControlFlow<()> {
        // Whoever asked may have gone meanwhile; then nobody needs the answer.
        match command {
            Command::Connections { cursor, reply } => drop(reply.send(self.slice(cursor))),
            Command::Report(reply) => drop(reply.send(self.report())),
            Command::Connect(open) => drop(spawn_local(bridge::connect(Rc::clone(&self.endpoint), *open))),
            Command::CookieKeys { keys, reply } => {
                self.endpoint.with_stack(|stack| stack.set_cookie_keys(keys));
                let _ = reply.send(());
            }
            Command::RemoveUnknown { keys, made_before, reply } => {
                let _ = reply.send(self.remove_unknown(keys, made_before));
            }
            Command::Drain(reply) => self.drain(reply),
            Command::Abort(reply) => {
                self.abort();
                let _ = reply.send(());
            }
            Command::Stop => return ControlFlow::Break(()),
        }
        ControlFlow::Continue(())
    }

    fn slice(&mut self, cursor: usize) -> Slice {
        let mut rows = Vec::with_capacity(ROWS_PER_TURN);
        let now = clock::now();
        let next = self.endpoint.with_stack(|stack| stack.snapshot(now, cursor, ROWS_PER_TURN, &mut rows));
        for row in rows.iter_mut().filter(|row| row.is_record) {
            if let Some(entry) = self.link.lookup(&row.key) {
                row.state_age = now.since(Instant::from_nanos(entry.since_ns));
                row.age = row.age.max(row.state_age);
                (row.bytes_in, row.bytes_out) = (entry.bytes_in, entry.bytes_out);
            }
        }
        Slice { rows, next }
    }

    fn report(&mut self) -> Report {
        let rings = self.link.statistics().ok();
        self.endpoint.with_stack(|stack| Report {
            listeners: listener_reports(stack, &self.listeners),
            states: State::ALL.iter().map(|&state| (state, stack.count(state))).collect(),
            drops: stack.drops(),
            waits: stack.waits(),
            figures: stack.figures(),
            rings,
            buffer_memory: stack.buffer_memory(),
            buffers_freed: stack.buffers_freed(),
        })
    }

    /// Deletes the entries of connections that are none of the stack's; how many.
    ///
    /// Looks at each entry once more before it goes: since the asker looked, the connection may have come, ended, and
    /// left its place to another that the program or another worker made an entry for. The kernel has no call that
    /// compares and deletes, so an entry made between the look and the deletion is lost. It would take somebody who deletes
    /// the old one by hand in that microsecond: nobody but this worker deletes entries of its queue, and nobody writes
    /// over them. The new connection's next segment would be reset, as that of any connection without an entry.
    fn remove_unknown(&mut self, mut keys: Vec<ConnectionKey>, made_before: u64) -> usize {
        self.endpoint.with_stack(|stack| keys.retain(|key| !stack.has_connection(key)));
        keys.retain(|key| {
            let is_unclaimed = self.link.lookup(key).is_some_and(|entry| entry.is_unclaimed_since(made_before));
            if is_unclaimed {
                self.link.remove(&[*key]);
            }
            is_unclaimed
        });
        keys.len()
    }

    fn drain(&mut self, reply: oneshot::Sender<()>) {
        let now = clock::now();
        for listener in &self.listeners {
            self.endpoint.with_stack(|stack| stack.close_listener(now, listener.id));
        }
        self.draining = Some(reply);
    }

    /// Answers the drain once nothing is left to wait for.
    fn report_drained(&mut self) {
        if self.draining.is_some()
            && self.endpoint.with_stack(|stack| live_connections(stack)) == 0
            && let Some(reply) = self.draining.take()
        {
            let _ = reply.send(());
        }
    }

    /// Resets every connection and sends the resets as far as the link takes them.
    fn abort(&mut self) {
        self.listeners.clear();
        self.endpoint.with_stack(|stack| stack.abort_all(clock::now()));
        for _ in 0..ABORT_TURNS {
            let deadline = self.endpoint.turn(&mut self.link);
            let waits = matches!(self.link.work(), Work::Transmit | Work::Stuck);
            if deadline.is_none_or(|deadline| deadline > clock::now()) && !waits {
                break;
            }
        }
    }
}

/// How long to leave a kernel alone that took nothing in `stuck` turns in a row; `None`: not at all.
fn pause(stuck: u32) -> Option<Duration> {
    let pauses = stuck.checked_sub(STUCK_TURNS + 1)?;
    Some(TRANSMIT_RETRY * (1 << pauses.min(RETRY_DOUBLINGS)))
}

/// Looks for idle streams as long as there is an endpoint.
async fn sweep(endpoint: Weak<Endpoint>) {
    loop {
        tokio::time::sleep(SWEEP_INTERVAL).await;
        let Some(endpoint) = endpoint.upgrade() else { return };
        endpoint.sweep();
    }
}

async fn sleep(patience: Option<Duration>) {
    match patience {
        Some(patience) => tokio::time::sleep(patience).await,
        None => std::future::pending().await,
    }
}

/// Connections that a drain waits for.
fn live_connections(stack: &tcp_proto::Stack) -> usize {
    let waited_for = |state: &&State| !matches!(state, State::CLOSED | State::LISTEN | State::TIME_WAIT);
    State::ALL.iter().filter(waited_for).map(|&state| stack.count(state)).sum()
}

fn listener_reports(stack: &tcp_proto::Stack, listeners: &[Listening]) -> Vec<ListenerReport> {
    let now = clock::now();
    let report = |listener: &Listening| {
        let info = stack.listener(listener.id)?;
        Some(ListenerReport { info, service: (*listener.service).clone(), age: now.since(listener.since) })
    };
    listeners.iter().filter_map(report).collect()
}

/// What the http service shows: a fresh look at this worker for every request.
fn status_page(endpoint: &Rc<Endpoint>, listeners: &[Listening]) -> StatusPage {
    let endpoint = Rc::clone(endpoint);
    let listeners = listeners.to_vec();
    Rc::new(move || {
        let (reports, states, memory) = endpoint.with_stack(|stack| {
            let states: Vec<_> = State::ALL.iter().map(|&state| (state, stack.count(state))).collect();
            (listener_reports(stack, &listeners), states, stack.buffer_memory())
        });
        stats::status_page(&reports, &states, memory)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_that_takes_nothing_is_asked_more_and_more_rarely_but_never_given_up() {
        assert_eq!((pause(0), pause(STUCK_TURNS)), (None, None));
        let millis = |stuck| pause(stuck).expect("a pause").as_millis();
        let pauses: Vec<u128> = (STUCK_TURNS + 1..STUCK_TURNS + 10).map(millis).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 64, 64]);
        assert_eq!(millis(u32::MAX), 64);
    }
}
