//! What an idle connection costs a worker, as the kernel sees it: the pages that the process has touched. One test in this
//! file, because others would be counted, too.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::sync::Arc;

use tcp_common::{ConnectionKey, ConnectionValue};
use tcp_proto::{
    ConnectOptions, CookieKeys, Device, Instant, LinkAddress, NoEntry, Stack, StackConfig, State, TcpConfig, turn,
};
use tokio::sync::Notify;
use tokio::task::{LocalSet, spawn_local, yield_now};
use xtcp::afxdp::RingStatistics;
use xtcp::config::Service;
use xtcp::worker::{Command, Link, ListenerOptions, Work, WorkerHandle, WorkerOptions, now, over};

/// Bytes that an idle connection may cost the daemon; its entry in CONNECTIONS is the kernel's.
const MOST: usize = 460;
/// Connections before the first look, so that what is there once is there.
const BEFORE: usize = 10_000;
/// Connections that are counted.
const COUNTED: usize = 30_000;
/// Connections of one client; it is forgotten when they are established.
const OF_A_CLIENT: usize = 1_000;
const SERVER: (Ipv4Addr, u16) = (Ipv4Addr::new(10, 0, 0, 2), 7);
const MACS: [[u8; 6]; 2] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]];

/// One direction of a wire.
#[derive(Default)]
struct Wire {
    frames: RefCell<VecDeque<Vec<u8>>>,
    arrived: Notify,
}

/// One end of a wire.
struct End {
    incoming: Rc<Wire>,
    outgoing: Rc<Wire>,
}

impl Device for End {
    fn receive(&mut self, limit: usize, mut sink: impl FnMut(&[u8])) {
        for _ in 0..limit {
            let Some(frame) = self.incoming.frames.borrow_mut().pop_front() else { break };
            sink(&frame);
        }
    }

    fn commit(
        &mut self,
        _new: &[(ConnectionKey, ConnectionValue)],
        _changed: &[(ConnectionKey, ConnectionValue)],
        _failed: impl FnMut(ConnectionKey, NoEntry),
    ) {
    }

    fn transmit(&mut self, limit: usize, mut build: impl FnMut(&mut [u8]) -> Option<usize>) {
        let mut frame = [0; 2048];
        for _ in 0..limit {
            let Some(length) = build(&mut frame) else { return };
            self.outgoing.frames.borrow_mut().push_back(frame[..length].to_vec());
            self.outgoing.arrived.notify_one();
        }
    }

    fn remove(&mut self, _keys: &[ConnectionKey]) {}
}

impl Link for End {
    async fn arrival(&self) -> io::Result<()> {
        self.incoming.arrived.notified().await;
        Ok(())
    }

    fn work(&mut self) -> Work {
        if self.incoming.frames.borrow().is_empty() { Work::None } else { Work::Receive }
    }

    fn statistics(&mut self) -> io::Result<RingStatistics> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// A worker that echoes, and the wire to it.
struct Server {
    worker: WorkerHandle,
    there: Rc<Wire>,
    back: Rc<Wire>,
    clients: u16,
}

impl Server {
    fn start() -> Server {
        let (there, back) = (Rc::new(Wire::default()), Rc::new(Wire::default()));
        let link = End { incoming: Rc::clone(&there), outgoing: Rc::clone(&back) };
        let tcp = Arc::new(TcpConfig::default());
        let listeners = vec![ListenerOptions { address: SERVER.into(), tcp, service: Service::Echo }];
        let stack = StackConfig { mac: MACS[1], max_connections: 1 << 17, ..StackConfig::default() };
        let (worker, run) =
            over(link, WorkerOptions { stack, seed: [1; 32], cookie_keys: CookieKeys::default(), listeners })
                .expect("a worker");
        spawn_local(run);
        Server { worker, there, back, clients: 0 }
    }

    /// Another client opens its connections, says nothing, and is forgotten.
    async fn connect(&mut self) {
        self.clients += 1;
        let [high, low] = self.clients.to_be_bytes();
        let config = StackConfig { mac: MACS[0], max_connections: OF_A_CLIENT, ..StackConfig::default() };
        let mut stack = Stack::new(config, [2; 32], now());
        let options = ConnectOptions {
            local: (Ipv4Addr::new(10, 1, high, low), 0).into(),
            link: LinkAddress { mac: MACS[1], vlan: None },
            tcp: Arc::new(TcpConfig::default()),
        };
        for _ in 0..OF_A_CLIENT {
            stack.connect(now(), SERVER.into(), options.clone()).expect("a port");
        }
        let mut end = End { incoming: Rc::clone(&self.back), outgoing: Rc::clone(&self.there) };
        let mut next: Option<Instant> = None;
        while stack.count(State::ESTABLISHED) < OF_A_CLIENT || next.is_some_and(|at| at <= now()) {
            next = turn(&mut stack, &mut end, now(), |_, _| {});
            yield_now().await;
        }
    }

    /// Connections that the worker says are established.
    async fn established(&self) -> usize {
        let report = self.worker.ask(Command::Report).await.expect("a report");
        report.states.iter().find(|(state, _)| *state == State::ESTABLISHED).map_or(0, |(_, count)| *count)
    }
}

/// Bytes of memory that this process has touched.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("figures of this process");
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok());
    pages.expect("the number of resident pages") * 4096
}

#[test]
fn an_idle_connection_costs_a_few_hundred_bytes() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    LocalSet::new().block_on(&runtime, async {
        let mut server = Server::start();
        while server.established().await < BEFORE {
            server.connect().await;
        }
        let before = resident();
        while server.established().await < BEFORE + COUNTED {
            server.connect().await;
        }
        let each = (resident() - before) / COUNTED;
        println!("{each} bytes for each of {COUNTED} idle connections");
        assert!(each <= MOST, "{each} bytes for each of {COUNTED} idle connections, {MOST} at most");
    });
}
