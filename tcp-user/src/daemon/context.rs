//! What the control socket is answered from: the workers, the program's counters, and the kernel's routes.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;

use tcp_proto::{ConnectOptions, TcpConfig};

use crate::control::Row;
use crate::control::server::{Cursor, Daemon, Refused};
use crate::net::{Interface, Network};
use crate::stats::Stats;
use crate::worker::{Command, WorkerHandle};
use crate::xdp::Program;

/// What the control socket is answered from.
pub(super) struct Context {
    pub workers: Vec<WorkerHandle>,
    pub program: Rc<RefCell<Program>>,
    pub network: Network,
    pub interface: Interface,
    pub tcp: Arc<TcpConfig>,
}

impl Daemon for Context {
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
        let mut reports = Vec::new();
        for worker in &self.workers {
            reports.push(worker.ask(Command::Report).await.map_err(|error| error.to_string())?);
        }
        let counters = self.program.borrow().counters().map_err(|error| error.to_string())?;
        let stats = Stats::gather(&self.interface.name, &counters, &reports);
        serde_json::to_value(stats).map_err(|error| error.to_string())
    }

    async fn connect(&self, remote: SocketAddr, client: UnixStream) -> Result<(), Refused> {
        let path = match self.network.resolve(&self.interface, remote.ip()).await {
            Ok(path) => path,
            Err(error) => return Err(Refused { why: error.to_string(), client: Some(client) }),
        };
        let options =
            ConnectOptions { local: SocketAddr::new(path.route.source, 0), link: path.link, tcp: self.tcp.clone() };
        let Some(worker) = self.workers.first() else {
            return Err(Refused { why: "no worker".to_owned(), client: Some(client) });
        };
        let command = Command::Connect { remote, options: Box::new(options), control: client };
        worker.send(command).await.map_err(|error| Refused { why: error.to_string(), client: None })
    }
}
