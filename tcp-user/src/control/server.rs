//! The daemon's end of the control socket: one task a client, on the main thread.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use tcp_common::State;
use tcp_common::prefix::{Prefix, Rule};
use tokio::net::UnixStream;
use tokio::task::JoinSet;

use super::protocol::MAX_REQUEST;
use super::{Answer, Change, ControlSocket, LineReader, Outcome, Request, Row, read_line, write_answer};
use crate::config::read_prefix;

/// Most clients at a time; more wait in the socket's backlog.
pub const MAX_CLIENTS: usize = 64;
/// How long a client may take to send its request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// What the server asks the rest of the daemon for. Errors are for the client: one line each.
pub trait Daemon {
    /// Rows of listeners.
    fn listeners(&self) -> impl Future<Output = Result<Vec<Row>, String>>;
    /// The next rows of connections; `cursor` starts as its default and is moved on.
    /// `None`: there are no more.
    fn connections(&self, cursor: &mut Cursor) -> impl Future<Output = Result<Option<Vec<Row>>, String>>;
    /// Figures.
    fn stats(&self) -> impl Future<Output = Result<serde_json::Value, String>>;
    /// Allows or denies a prefix, or ends that.
    fn change(&self, rule: Rule, change: Change, prefix: Prefix) -> Result<Outcome, String>;
    /// The prefixes that are allowed or denied, by address.
    fn prefixes(&self, rule: Rule) -> Vec<Prefix>;
    /// Hands the client over to an active open, which answers it.
    fn connect(
        &self,
        remote: std::net::SocketAddr,
        client: std::os::unix::net::UnixStream,
    ) -> impl Future<Output = Result<(), Refused>>;
    /// There are [`MAX_CLIENTS`]: further ones wait.
    fn clients_wait(&self);
}

/// How far a sweep over the connections of all workers has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// Index of the worker.
    pub worker: usize,
    /// The worker's own cursor.
    pub position: usize,
}

/// An active open could not start; the client is handed back to be told.
#[derive(Debug)]
pub struct Refused {
    /// Why, in one line.
    pub why: String,
    /// The client.
    pub client: Option<std::os::unix::net::UnixStream>,
}

/// Serves clients until dropped. Call it inside a `LocalSet`.
pub async fn serve(socket: &ControlSocket, daemon: Rc<impl Daemon + 'static>) -> io::Result<()> {
    let mut clients = JoinSet::new();
    loop {
        if clients.len() >= MAX_CLIENTS {
            daemon.clients_wait();
            clients.join_next().await;
        }
        tokio::select! {
            accepted = socket.listener.accept() => match accepted {
                Ok((client, _)) => drop(clients.spawn_local(serve_client(client, Rc::clone(&daemon)))),
                // Out of descriptors or memory: wait for it to pass.
                Err(error) => {
                    tracing::warn!(%error, "can't accept a control client");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            Some(_) = clients.join_next() => {}
        }
    }
}

async fn serve_client(mut client: UnixStream, daemon: Rc<impl Daemon>) {
    let request = match tokio::time::timeout(REQUEST_TIMEOUT, read_request(&mut client)).await {
        Ok(Ok(Some(request))) => request,
        Ok(Ok(None)) => return,
        Ok(Err(error)) => {
            let _ = write_answer(&mut client, &Answer::Error(format!("bad request: {error}"))).await;
            return;
        }
        Err(_) => return,
    };
    // When writing fails, the client is gone and has no use for the rest.
    let _ = match request {
        Request::Conns { state } => send_rows(&mut client, &*daemon, state.as_deref()).await,
        Request::Stats => send_stats(&mut client, &*daemon).await,
        Request::Connect { remote } => connect(client, &*daemon, remote).await,
        Request::Change { rule, change, prefixes } => {
            change_prefixes(&mut client, &*daemon, (rule.into(), change), prefixes).await
        }
        Request::Prefixes { rule } => {
            let prefixes = daemon.prefixes(rule.into()).iter().map(Prefix::to_string).collect();
            write_answer(&mut client, &Answer::Prefixes(prefixes)).await
        }
    };
}

async fn read_request(client: &mut UnixStream) -> io::Result<Option<Request>> {
    let mut reader = LineReader::new(client, MAX_REQUEST);
    let request = read_line(&mut reader).await?;
    if !reader.rest().is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "more than one line"));
    }
    Ok(request)
}

async fn send_rows(client: &mut UnixStream, daemon: &impl Daemon, state: Option<&str>) -> io::Result<()> {
    if let Some(state) = state.filter(|name| State::ALL.iter().all(|state| state.name() != *name)) {
        let names = State::ALL.map(State::name).join(", ");
        return write_answer(client, &Answer::Error(format!("no state is called {state}: {names}"))).await;
    }
    let wanted = |row: &Row| state.is_none_or(|state| row.state == state);
    let mut next = daemon.listeners().await.map(Some);
    let mut cursor = Cursor::default();
    loop {
        let mut rows = match next {
            Ok(Some(rows)) => rows,
            Ok(None) => return write_answer(client, &Answer::Done).await,
            Err(why) => return write_answer(client, &Answer::Error(why)).await,
        };
        rows.retain(wanted);
        if !rows.is_empty() {
            write_answer(client, &Answer::Rows(rows)).await?;
        }
        next = daemon.connections(&mut cursor).await;
    }
}

async fn send_stats(client: &mut UnixStream, daemon: &impl Daemon) -> io::Result<()> {
    let answer = daemon.stats().await.map_or_else(Answer::Error, Answer::Stats);
    write_answer(client, &answer).await
}

async fn change_prefixes(
    client: &mut UnixStream,
    daemon: &impl Daemon,
    (rule, change): (Rule, Change),
    prefixes: Vec<String>,
) -> io::Result<()> {
    let mut changes = Vec::new();
    let mut last = Answer::Done;
    for text in prefixes {
        match change_prefix(daemon, rule, change, &text) {
            Ok(outcome) => changes.push((text, outcome)),
            Err(why) => {
                last = Answer::Error(why);
                break;
            }
        }
    }
    write_answer(client, &Answer::Changed(changes)).await?;
    write_answer(client, &last).await
}

fn change_prefix(daemon: &impl Daemon, rule: Rule, change: Change, text: &str) -> Result<Outcome, String> {
    let prefix = read_prefix(text).map_err(|error| error.to_string())?;
    daemon.change(rule, change, prefix)
}

async fn connect(client: UnixStream, daemon: &impl Daemon, remote: std::net::SocketAddr) -> io::Result<()> {
    match daemon.connect(remote, client.into_std()?).await {
        Ok(()) | Err(Refused { client: None, .. }) => Ok(()),
        Err(Refused { why, client: Some(client) }) => {
            write_answer(&mut UnixStream::from_std(client)?, &Answer::Error(why)).await
        }
    }
}
