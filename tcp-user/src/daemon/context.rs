//! What the control socket is answered from: the workers, the program's counters, and the kernel's routes.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;

use futures_util::future::try_join_all;
use tcp_common::prefix::{Prefix, Rule};
use tcp_proto::{ConnectOptions, TcpConfig};

use super::DaemonError;
use crate::control::server::{Cursor, Daemon, Refused};
use crate::control::{Change, Outcome, Row};
use crate::net::{Interface, Network};
use crate::stats::{CookieMode, Stats};
use crate::worker::{self, ActiveOpen, Command, WorkerHandle};
use crate::xdp::Program;

/// What the control socket is answered from.
pub(super) struct Context {
    pub workers: Vec<WorkerHandle>,
    pub program: Rc<RefCell<Program>>,
    pub network: Network,
    pub interface: Interface,
    pub tcp: Arc<TcpConfig>,
    /// How often control clients had to wait for others.
    pub clients_waited: Cell<u64>,
    /// Active opens so far.
    pub opens: Cell<usize>,
}

impl Context {
    /// The figures of the program and of all workers.
    pub(super) async fn gather(&self) -> Result<Stats, DaemonError> {
        let reports = try_join_all(self.workers.iter().map(|worker| worker.ask(Command::Report))).await?;
        let program = self.program.borrow();
        let clients_waited = self.clients_waited.get();
        let gathered = Stats::gather(&self.interface.name, &program.counters()?, &reports);
        let mut stats = Stats { clients_waited, ..gathered };
        let now = worker::now().as_nanos();
        for (index, listener) in (0..).zip(&mut stats.listeners) {
            if program.sends_cookies(index, now)? {
                (listener.cookie_mode, listener.program_sends_cookies) = (CookieMode::On, true);
            }
        }
        Ok(stats)
    }

    /// All workers; each time another one comes first.
    fn workers_in_turn(&self) -> VecDeque<WorkerHandle> {
        let mut workers = VecDeque::from(self.workers.clone());
        let opens = self.opens.get();
        self.opens.set(opens.wrapping_add(1));
        if !workers.is_empty() {
            workers.rotate_left(opens % self.workers.len());
        }
        workers
    }
}

impl Daemon for Context {
    fn clients_wait(&self) {
        self.clients_waited.set(self.clients_waited.get() + 1);
    }

    async fn listeners(&self) -> Result<Vec<Row>, String> {
        // Every worker has all listeners, so the first one's are all there are.
        let Some(worker) = self.workers.first() else { return Ok(Vec::new()) };
        let report = worker.ask(Command::Report).await.map_err(|error| error.to_string())?;
        Ok(report.listeners.iter().map(Row::of_listener).collect())
    }

    async fn connections(&self, cursor: &mut Cursor) -> Result<Option<Vec<Row>>, String> {
        let Some(worker) = self.workers.get(cursor.worker) else { return Ok(None) };
        let slice = worker
            .ask(|reply| Command::Connections { cursor: cursor.position, reply })
            .await
            .map_err(|error| error.to_string())?;
        *cursor = match slice.next {
            Some(position) => Cursor { position, ..*cursor },
            None => Cursor { worker: cursor.worker + 1, position: 0 },
        };
        Ok(Some(slice.rows.iter().map(|info| Row::of_connection(info, worker.queue)).collect()))
    }

    async fn stats(&self) -> Result<serde_json::Value, String> {
        let stats = self.gather().await.map_err(|error| error.to_string())?;
        serde_json::to_value(stats).map_err(|error| error.to_string())
    }

    fn change(&self, rule: Rule, change: Change, prefix: Prefix) -> Result<Outcome, String> {
        let mut program = self.program.borrow_mut();
        let before = program.prefixes().get(&prefix).copied();
        let (written, outcome) = match (change, before) {
            (Change::Add, Some(same)) if same == rule => return Ok(Outcome::Unchanged),
            (Change::Add, Some(_)) => (program.set_prefix(prefix, rule), Outcome::Replaced),
            (Change::Add, None) => (program.set_prefix(prefix, rule), Outcome::Added),
            (Change::Del, Some(same)) if same == rule => (program.remove_prefix(&prefix), Outcome::Removed),
            (Change::Del, Some(other)) => {
                return Err(format!("{prefix} is not in {}, but in {}", rule.name(), other.name()));
            }
            (Change::Del, None) => return Err(format!("{prefix} is not in {}", rule.name())),
        };
        written.map(|()| outcome).map_err(|error| format!("{prefix}: {error}"))
    }

    fn prefixes(&self, rule: Rule) -> Vec<Prefix> {
        let program = self.program.borrow();
        program.prefixes().iter().filter(|(_, is)| **is == rule).map(|(prefix, _)| *prefix).collect()
    }

    async fn connect(&self, remote: SocketAddr, client: UnixStream) -> Result<(), Refused> {
        let path = match self.network.resolve(&self.interface, remote.ip()).await {
            Ok(path) => path,
            Err(error) => return Err(Refused { why: error.to_string(), client: Some(client) }),
        };
        let options =
            ConnectOptions { local: SocketAddr::new(path.route.source, 0), link: path.link, tcp: self.tcp.clone() };
        let mut others = self.workers_in_turn();
        let Some(worker) = others.pop_front() else {
            return Err(Refused { why: "no worker".to_owned(), client: Some(client) });
        };
        let open = ActiveOpen { remote, options, control: client, others };
        worker
            .send(Command::Connect(Box::new(open)))
            .await
            .map_err(|error| Refused { why: error.to_string(), client: None })
    }
}
