//! Client and server of the control socket over a real one, with a daemon that answers from memory.

use std::cell::Cell;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::rc::Rc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::task::{LocalSet, spawn_local};

use tcp_common::prefix::{Prefix, Rule};

use super::client::{Client, ClientError};
use super::server::{self, Cursor, Daemon, Refused};
use super::*;

/// Connections of the daemon in memory, over two workers.
const CONNECTIONS: [usize; 2] = [600, 1];
const SLICE: usize = 256;

struct InMemory;

fn row(local: String, state: &str) -> Row {
    let mut row: Row = serde_json::from_value(serde_json::json!({
        "local": local, "remote": "10.0.0.1:9", "state": state, "age_ms": 0, "state_age_ms": 0, "timers": {},
        "mss": 0, "srtt_us": null, "rto_ms": 0, "cwnd": 0, "ssthresh": null, "snd_una": 0, "snd_nxt": 0,
        "rcv_nxt": 0, "snd_wnd": 0, "rcv_wnd": 0, "bytes_in": 0, "bytes_out": 0, "retransmits": 0,
        "service": null, "congestion": null, "queue": null,
    }))
    .unwrap();
    row.timers.insert("retransmit".to_owned(), 200);
    row
}

thread_local! {
    /// How often clients had to wait.
    static WAITED: Cell<u64> = const { Cell::new(0) };
}

impl Daemon for InMemory {
    fn clients_wait(&self) {
        WAITED.set(WAITED.get() + 1);
    }

    async fn listeners(&self) -> Result<Vec<Row>, String> {
        Ok(vec![row("10.0.0.2:7".to_owned(), "LISTEN")])
    }

    async fn connections(&self, cursor: &mut Cursor) -> Result<Option<Vec<Row>>, String> {
        let Some(&count) = CONNECTIONS.get(cursor.worker) else { return Ok(None) };
        let end = (cursor.position + SLICE).min(count);
        let state = |index| if index == 0 { "TIME_WAIT" } else { "ESTABLISHED" };
        let rows = (cursor.position..end).map(|i| row(format!("{}/{i}", cursor.worker), state(i))).collect();
        *cursor = match end == count {
            true => Cursor { worker: cursor.worker + 1, position: 0 },
            false => Cursor { position: end, ..*cursor },
        };
        Ok(Some(rows))
    }

    async fn stats(&self) -> Result<serde_json::Value, String> {
        Err("the program's counters can't be read".to_owned())
    }

    fn change(&self, _: Rule, change: Change, prefix: Prefix) -> Result<Outcome, String> {
        match (change, prefix.length()) {
            (Change::Add, _) => Ok(Outcome::Added),
            (Change::Del, 128) => Ok(Outcome::Removed),
            (Change::Del, _) => Err(format!("{prefix} is not there")),
        }
    }

    fn prefixes(&self, rule: Rule) -> Vec<Prefix> {
        ["10.0.0.0/8", "fd00::/64"].iter().filter(|_| rule == Rule::Deny).map(|text| text.parse().unwrap()).collect()
    }

    async fn connect(&self, remote: SocketAddr, client: StdUnixStream) -> Result<(), Refused> {
        Err(Refused { why: format!("no route to {}", remote.ip()), client: Some(client) })
    }
}

/// Runs `test` beside a server on a socket of its own, whose path it gets.
fn with_server<T>(name: &str, test: impl AsyncFnOnce(std::path::PathBuf) -> T) -> T {
    let directory = std::env::temp_dir().join(format!("xtcp-server-{name}-{}", std::process::id()));
    let path = directory.join("control.sock");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let outcome = LocalSet::new().block_on(&runtime, async {
        let socket = ControlSocket::bind(&path, None).unwrap();
        let server = spawn_local(async move { server::serve(&socket, Rc::new(InMemory)).await });
        let outcome = test(path.clone()).await;
        server.abort();
        outcome
    });
    std::fs::remove_dir_all(&directory).unwrap();
    outcome
}

async fn rows(path: &std::path::Path, state: Option<&str>) -> Result<Vec<Row>, ClientError> {
    let mut rows = Vec::new();
    Client::open(path).await?.connections(state.map(str::to_owned), |row| rows.push(row)).await?;
    Ok(rows)
}

#[test]
fn a_sweep_brings_listeners_and_every_slice_of_every_worker_once() {
    let rows = with_server("sweep", async |path| rows(&path, None).await.unwrap());
    assert_eq!(rows.len(), 1 + CONNECTIONS.iter().sum::<usize>());
    assert_eq!(rows[0].state, "LISTEN");
    assert_eq!((rows[1].local.as_str(), rows[601].local.as_str()), ("0/0", "1/0"));
    assert_eq!(rows[1].timers["retransmit"], 200);
}

#[test]
fn a_state_filters_rows_and_an_unknown_one_is_refused() {
    with_server("state", async |path| {
        let rows_in = async |state| rows(&path, Some(state)).await;
        assert_eq!(rows_in("TIME_WAIT").await.unwrap().len(), 2);
        assert_eq!(rows_in("SYN_RCVD").await.unwrap().len(), 0);
        let error = rows_in("SLEEPING").await.unwrap_err().to_string();
        assert!(error.starts_with("no state is called SLEEPING: CLOSED, LISTEN,"), "{error}");
    });
}

#[test]
fn prefixes_are_changed_in_order_up_to_the_first_that_fails() {
    with_server("prefixes", async |path| {
        let prefixes = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let change = async |change, texts: &[&str]| {
            let mut done = Vec::new();
            let client = Client::open(&path).await.unwrap();
            let sink = |prefix, outcome| done.push((prefix, outcome));
            let ended = client.change(RuleName::Deny, change, prefixes(texts), sink).await;
            (done, ended.map_err(|error| error.to_string()))
        };
        let (done, ended) = change(Change::Add, &["10.0.0.0/8", "fd00::/64"]).await;
        assert_eq!(ended, Ok(()));
        assert_eq!(done, [("10.0.0.0/8".to_owned(), Outcome::Added), ("fd00::/64".to_owned(), Outcome::Added)]);
        let (done, ended) = change(Change::Del, &["10.0.0.1/32", "10.0.0.0/8", "10.0.0.2/32"]).await;
        assert_eq!(done, [("10.0.0.1/32".to_owned(), Outcome::Removed)]);
        assert_eq!(ended, Err("10.0.0.0/8 is not there".to_owned()));
        let (done, ended) = change(Change::Add, &["10.0.0.1/8"]).await;
        assert_eq!((done, ended.unwrap_err().split(':').next()), (vec![], Some("\"10.0.0.1/8\"")));
        let list = async |rule| Client::open(&path).await.unwrap().prefixes(rule).await.unwrap();
        assert_eq!(list(RuleName::Deny).await, prefixes(&["10.0.0.0/8", "fd00::/64"]));
        assert_eq!(list(RuleName::Allow).await, prefixes(&[]));
    });
}

#[test]
fn what_the_daemon_refuses_reaches_the_client_as_one_line() {
    with_server("refusal", async |path| {
        let stats = Client::open(&path).await.unwrap().stats().await.unwrap_err();
        assert_eq!(stats.to_string(), "the program's counters can't be read");
        let client = Client::open(&path).await.unwrap();
        let error = client.connect("10.9.9.9:80".parse().unwrap(), b"".as_slice(), Vec::new()).await.unwrap_err();
        assert_eq!(error.to_string(), "10.9.9.9:80: no route to 10.9.9.9");
    });
}

#[test]
fn what_is_no_request_is_answered_with_an_error() {
    with_server("nonsense", async |path| {
        let long = vec![b'x'; 2 * protocol::MAX_REQUEST];
        for nonsense in [b"{}\n".as_slice(), b"GET / HTTP/1.1\r\n\r\n", b"{\"command\":\"stats\"}\nmore\n", &long] {
            let mut client = UnixStream::connect(&path).await.unwrap();
            client.write_all(nonsense).await.unwrap();
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with("{\"error\":\"bad request: "), "{answer}");
        }
    });
}

#[test]
fn a_client_too_many_waits_until_another_is_done() {
    with_server("clients", async |path| {
        let mut idle = Vec::new();
        for _ in 0..server::MAX_CLIENTS {
            idle.push(UnixStream::connect(&path).await.unwrap());
        }
        let one_more = spawn_local(async move { rows(&path, None).await });
        while WAITED.get() == 0 {
            tokio::task::yield_now().await;
        }
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert!(!one_more.is_finished());
        idle.pop();
        assert!(!one_more.await.unwrap().unwrap().is_empty());
    });
}

#[test]
fn without_a_daemon_the_client_says_so() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let error = runtime.block_on(rows("/nonexistent/control.sock".as_ref(), None)).unwrap_err().to_string();
    assert!(error.starts_with("no daemon at /nonexistent/control.sock: No such file"), "{error}");
    assert!(error.ends_with("start `xtcp run`, or name its --control-socket"), "{error}");
}
