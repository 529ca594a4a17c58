//! Two workers on one thread, joined by a link in memory: streams, services and commands over the real stack
//! and the real driver loop.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;

use tcp_common::layout::FLAG_COOKIE;
use tcp_common::{ConnectionKey, ConnectionValue};
use tcp_proto::{Device, LinkAddress, NoEntry};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::task::spawn_local;

use super::*;
use crate::control::client::Client;
use crate::stream::Stream;

const SERVER: &str = "10.0.0.2";
const MACS: [[u8; 6]; 2] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]];
/// Frames in flight in one direction; more wait in the stack, as they do for a full ring.
const WIRE_FRAMES: usize = 256;
/// How long a test may take before it is said to hang.
const HUNG: Duration = Duration::from_secs(60);

/// One direction of a wire.
#[derive(Default)]
struct Wire {
    frames: RefCell<VecDeque<Vec<u8>>>,
    arrived: Notify,
}

/// One end of a wire.
struct MemoryLink {
    incoming: Rc<Wire>,
    outgoing: Rc<Wire>,
    /// Capacity of the connection table.
    table_room: usize,
    /// Entries that the program made.
    made: Rc<RefCell<HashMap<ConnectionKey, ConnectionValue>>>,
}

impl MemoryLink {
    fn new(incoming: &Rc<Wire>, outgoing: &Rc<Wire>, table_room: usize) -> MemoryLink {
        let (incoming, outgoing) = (Rc::clone(incoming), Rc::clone(outgoing));
        MemoryLink { incoming, outgoing, table_room, made: Rc::default() }
    }
}

impl Device for MemoryLink {
    fn receive(&mut self, limit: usize, mut sink: impl FnMut(&[u8])) {
        for _ in 0..limit {
            let Some(frame) = self.incoming.frames.borrow_mut().pop_front() else { break };
            sink(&frame);
        }
    }

    fn commit(
        &mut self,
        new: &[(ConnectionKey, ConnectionValue)],
        _changed: &[(ConnectionKey, ConnectionValue)],
        mut failed: impl FnMut(ConnectionKey, NoEntry),
    ) {
        for (key, _) in new {
            match self.table_room.checked_sub(1) {
                Some(room) => self.table_room = room,
                None => failed(*key, NoEntry::Full),
            }
        }
    }

    fn transmit(&mut self, limit: usize, mut build: impl FnMut(&mut [u8]) -> Option<usize>) {
        let room = WIRE_FRAMES.saturating_sub(self.outgoing.frames.borrow().len());
        for _ in 0..limit.min(room) {
            let mut frame = vec![0; 2048];
            let Some(length) = build(&mut frame) else { return };
            frame.truncate(length);
            self.outgoing.frames.borrow_mut().push_back(frame);
            self.outgoing.arrived.notify_one();
        }
    }

    fn remove(&mut self, keys: &[ConnectionKey]) {
        for key in keys {
            if self.made.borrow_mut().remove(key).is_none() {
                self.table_room += 1;
            }
        }
    }

    fn lookup(&mut self, key: &ConnectionKey) -> Option<ConnectionValue> {
        self.made.borrow().get(key).copied()
    }
}

impl Link for MemoryLink {
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

/// A worker that listens and one that connects.
struct Pair {
    client: Rc<Endpoint>,
    server: WorkerHandle,
    server_endpoint: Rc<Endpoint>,
    /// Dropping it would stop the client's driver.
    client_commands: WorkerHandle,
}

impl Pair {
    fn new(listeners: &[(u16, Service)], table_room: usize) -> Pair {
        let (there, back) = (Rc::new(Wire::default()), Rc::new(Wire::default()));
        let (server, server_endpoint) = drive(1, listeners, MemoryLink::new(&there, &back, table_room));
        let (commands, client) = drive(0, &[], MemoryLink::new(&back, &there, usize::MAX));
        let handle = |commands| WorkerHandle { queue: 0, commands };
        Pair { client, server: handle(server), server_endpoint, client_commands: handle(commands) }
    }

    async fn connect(&self, port: u16) -> Result<Stream, ConnectFailure> {
        self.client.connect(server(port), connect_options()).await
    }

    /// A control client whose request to connect to `port` the daemon has read and given to the client's worker.
    fn bridge(&self, port: u16) -> Client {
        bridge_by(&self.client, VecDeque::new(), port)
    }

    /// As if the clients had said nothing for a while; returns when nothing changes any more.
    async fn let_idle(&self) {
        for _ in 0..3 {
            self.server_endpoint.sweep();
            self.server.ask(Command::Report).await.unwrap();
        }
    }

    async fn server_rows(&self) -> Vec<ConnectionInfo> {
        self.server.ask(|reply| Command::Connections { cursor: 0, reply }).await.unwrap().rows
    }
}

/// As [`Pair::bridge`], given to the worker of `endpoint`.
fn bridge_by(endpoint: &Rc<Endpoint>, others: VecDeque<WorkerHandle>, port: u16) -> Client {
    let (near, far) = UnixStream::pair().unwrap();
    near.set_nonblocking(true).unwrap();
    far.set_nonblocking(true).unwrap();
    let open = ActiveOpen { remote: server(port), options: connect_options(), control: far, others };
    spawn_local(bridge::connect(Rc::clone(endpoint), open));
    Client::over(tokio::net::UnixStream::from_std(near).unwrap())
}

/// A worker that has no ephemeral port: there are fewer ports than workers.
fn without_ports() -> Rc<Endpoint> {
    let config = StackConfig { ephemeral_ports: 40_000..=40_000, stacks: 2, queue: 1, ..StackConfig::default() };
    Endpoint::new(Stack::new(config, [7; 32], now()))
}

fn server(port: u16) -> SocketAddr {
    SocketAddr::new(SERVER.parse().unwrap(), port)
}

fn connect_options() -> ConnectOptions {
    ConnectOptions {
        local: "10.0.0.1:0".parse().unwrap(),
        link: LinkAddress { mac: MACS[1], vlan: None },
        tcp: Arc::new(TcpConfig::default()),
    }
}

/// Runs a driver as a task.
fn drive(end: usize, listeners: &[(u16, Service)], link: MemoryLink) -> (mpsc::Sender<Command>, Rc<Endpoint>) {
    let listener = |(port, service): &(u16, Service)| ListenerOptions {
        address: server(*port),
        tcp: Arc::new(TcpConfig::default()),
        service: service.clone(),
    };
    let (endpoint, listeners) = listen(WorkerOptions {
        stack: StackConfig { mac: MACS[end], ..StackConfig::default() },
        seed: [end as u8; 32],
        cookie_keys: CookieKeys::default(),
        listeners: listeners.iter().map(listener).collect(),
    })
    .unwrap();
    let (commands, inbox) = mpsc::channel(COMMAND_QUEUE);
    spawn_local(Driver::new(Rc::clone(&endpoint), link, listeners, inbox).run());
    (commands, endpoint)
}

/// Runs `test` beside the drivers that it starts; a panic of theirs shows as a test that hangs.
fn run_test(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let bounded = async { tokio::time::timeout(HUNG, test).await.expect("the test hung") };
    LocalSet::new().block_on(&runtime, bounded);
}

fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|i| (i * 7 % 251) as u8).collect()
}

async fn read_to_end(stream: &mut Stream) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.map(|_| bytes)
}

#[test]
fn a_stream_carries_megabytes_both_ways_and_ends_both_ways() {
    run_test(async {
        let pair = Pair::new(&[(7, Service::Echo)], usize::MAX);
        let (mut from, mut to) = tokio::io::split(pair.connect(7).await.unwrap());
        let sent = pattern(5_000_000);
        let send = async {
            to.write_all(&sent).await.unwrap();
            to.shutdown().await.unwrap();
        };
        let mut received = Vec::new();
        let ((), read) = tokio::join!(send, from.read_to_end(&mut received));
        read.unwrap();
        assert!(received == sent);
    });
}

#[test]
fn a_bulk_transfer_does_not_starve_a_hundred_interactive_ones() {
    run_test(async {
        let services = [(7, Service::Echo), (19, Service::Chargen), (9, Service::Discard)];
        let pair = Rc::new(Pair::new(&services, usize::MAX));
        let mut bulk_in = pair.connect(19).await.unwrap();
        let mut bulk_out = pair.connect(9).await.unwrap();
        let flood_in = async { while bulk_in.read(&mut [0; 65_536]).await.unwrap() > 0 {} };
        let flood_out = async { while bulk_out.write_all(&[0; 65_536]).await.is_ok() {} };
        let interactive = async {
            let mut exchanges = tokio::task::JoinSet::new();
            for number in 0..100u8 {
                let pair = Rc::clone(&pair);
                exchanges.spawn_local(async move {
                    let mut stream = pair.connect(7).await.unwrap();
                    stream.write_all(&[number]).await.unwrap();
                    assert_eq!(stream.read_u8().await.unwrap(), number);
                });
            }
            exchanges.join_all().await;
        };
        tokio::select! {
            () = flood_in => panic!("chargen ended"),
            () = flood_out => panic!("discard ended"),
            () = interactive => {}
        }
    });
}

#[test]
fn aborting_a_stream_resets_the_peers() {
    run_test(async {
        let pair = Pair::new(&[(9, Service::Discard)], usize::MAX);
        let stream = pair.connect(9).await.unwrap();
        stream.abort();
        while !pair.server_rows().await.is_empty() {}
    });
}

#[test]
fn a_port_without_listener_refuses() {
    run_test(async {
        let pair = Pair::new(&[], usize::MAX);
        let failure = pair.connect(7).await.err();
        assert_eq!(failure, Some(ConnectFailure::Ended(tcp_proto::CloseReason::Refused)));
    });
}

#[test]
fn daytime_closes_first_and_waits_in_time_wait() {
    run_test(async {
        let pair = Pair::new(&[(13, Service::Daytime)], usize::MAX);
        let mut stream = pair.connect(13).await.unwrap();
        let line = read_to_end(&mut stream).await.unwrap();
        assert!(line.ends_with(b"-UTC\r\n"));
        stream.shutdown().await.unwrap();
        drop(stream);
        loop {
            let rows = pair.server_rows().await;
            if rows.iter().all(|row| row.state == State::TIME_WAIT) {
                assert_eq!(rows.len(), 1);
                break;
            }
        }
    });
}

#[test]
fn a_drain_refuses_new_connections_and_ends_with_the_last_old_one() {
    run_test(async {
        let pair = Pair::new(&[(7, Service::Echo)], usize::MAX);
        let mut stream = pair.connect(7).await.unwrap();
        stream.write_all(b"x").await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), b'x');
        let mut drained = Box::pin(pair.server.ask(Command::Drain));
        // The command is served before the next, which this one waits for.
        tokio::select! {
            biased;
            _ = &mut drained => panic!("drained with a connection open"),
            _ = pair.server.ask(Command::Report) => {}
        }
        assert!(pair.connect(7).await.is_err());
        stream.write_all(b"y").await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), b'y');
        stream.shutdown().await.unwrap();
        assert_eq!(read_to_end(&mut stream).await.unwrap(), b"");
        drained.await.unwrap();
    });
}

#[test]
fn a_connection_whose_peer_is_silent_owns_no_stream_and_is_served_when_it_speaks() {
    run_test(async {
        let pair = Pair::new(&[(7, Service::Echo)], usize::MAX);
        let mut streams = Vec::new();
        for _ in 0..10 {
            streams.push(pair.connect(7).await.unwrap());
        }
        pair.server.ask(Command::Report).await.unwrap();
        assert_eq!((pair.server_rows().await.len(), pair.server_endpoint.streams()), (10, 0));
        for _ in 0..3 {
            for stream in &mut streams {
                stream.write_all(b"x").await.unwrap();
                assert_eq!(stream.read_u8().await.unwrap(), b'x');
            }
            assert_eq!(pair.server_endpoint.streams(), 10);
            pair.let_idle().await;
            assert_eq!(pair.server_endpoint.streams(), 0);
        }
        for stream in &mut streams {
            stream.shutdown().await.unwrap();
            assert_eq!(read_to_end(stream).await.unwrap(), b"");
        }
        assert_eq!(pair.server_endpoint.streams(), 0);
        pair.client.with_stack(|stack| assert_eq!(stack.count(State::TIME_WAIT), 10));
        assert!(pair.server_rows().await.is_empty());
    });
}

#[test]
fn a_stream_that_waits_to_write_or_has_moved_something_is_not_idle() {
    run_test(async {
        let pair = Pair::new(&[(7, Service::Echo)], usize::MAX);
        let (mut moves, mut stuck) = (pair.connect(7).await.unwrap(), pair.connect(7).await.unwrap());
        // More than all buffers on the way hold, so that the service waits to write.
        let flood = async {
            stuck.write_all(&pattern(8_000_000)).await.unwrap();
            panic!("the service reads although nobody reads what it sends");
        };
        let look = async {
            for _ in 0..5 {
                moves.write_all(b"x").await.unwrap();
                assert_eq!(moves.read_u8().await.unwrap(), b'x');
                pair.server_endpoint.sweep();
                assert_eq!(pair.server_endpoint.streams(), 2);
            }
            pair.let_idle().await;
            assert_eq!(pair.server_endpoint.streams(), 1);
        };
        tokio::select! { () = flood => {}, () = look => {} }
    });
}

#[test]
fn a_parked_connection_is_served_after_its_listener_is_closed_and_a_drain_waits_for_it() {
    run_test(async {
        let pair = Pair::new(&[(7, Service::Echo)], usize::MAX);
        let mut stream = pair.connect(7).await.unwrap();
        let mut drained = Box::pin(pair.server.ask(Command::Drain));
        tokio::select! {
            biased;
            _ = &mut drained => panic!("drained with a connection open"),
            _ = pair.server.ask(Command::Report) => {}
        }
        assert_eq!(pair.server_endpoint.streams(), 0);
        stream.write_all(b"y").await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), b'y');
        pair.let_idle().await;
        assert_eq!(pair.server_endpoint.streams(), 0);
        stream.shutdown().await.unwrap();
        assert_eq!(read_to_end(&mut stream).await.unwrap(), b"");
        drained.await.unwrap();
    });
}

#[test]
fn a_parked_connection_that_its_peer_resets_leaves_nothing_behind() {
    run_test(async {
        let pair = Pair::new(&[(7, Service::Echo)], usize::MAX);
        let stream = pair.connect(7).await.unwrap();
        assert_eq!(pair.server_rows().await.len(), 1);
        stream.abort();
        while !pair.server_rows().await.is_empty() {}
        assert_eq!(pair.server_endpoint.streams(), 0);
    });
}

#[test]
fn abort_resets_every_connection() {
    run_test(async {
        let pair = Pair::new(&[(7, Service::Echo)], usize::MAX);
        let mut streams = Vec::new();
        for _ in 0..10 {
            streams.push(pair.connect(7).await.unwrap());
        }
        pair.server.ask(Command::Abort).await.unwrap();
        for stream in &mut streams {
            assert_eq!(read_to_end(stream).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        }
    });
}

#[test]
fn the_report_counts_connections_and_names_listeners() {
    run_test(async {
        let pair = Pair::new(&[(7, Service::Echo)], usize::MAX);
        let mut stream = pair.connect(7).await.unwrap();
        stream.write_all(b"x").await.unwrap();
        stream.read_u8().await.unwrap();
        let report = pair.server.ask(Command::Report).await.unwrap();
        assert!(report.states.contains(&(State::ESTABLISHED, 1)) && report.states.contains(&(State::LISTEN, 1)));
        let [listener] = &report.listeners[..] else { panic!("one listener: {report:?}") };
        assert_eq!((listener.info.address.port(), &listener.service), (7, &Service::Echo));
    });
}

#[test]
fn a_full_connection_table_drops_the_syn_rather_than_serve_unseen() {
    run_test(async {
        let pair = Pair::new(&[(7, Service::Echo)], 1);
        let _first = pair.connect(7).await.unwrap();
        let second = pair.connect(7);
        let dropped = async {
            let is_full = |drops: &[(&str, u64)]| drops.contains(&("table_full", 1));
            while !is_full(&pair.server.ask(Command::Report).await.unwrap().drops) {}
        };
        tokio::select! {
            _ = second => panic!("the second connection got an answer"),
            () = dropped => {}
        }
    });
}

#[test]
fn a_control_client_talks_to_a_peer_through_a_bridge() {
    run_test(async {
        let pair = Pair::new(&[(7, Service::Echo)], usize::MAX);
        let sent = pattern(300_000);
        let mut received = Vec::new();
        pair.bridge(7).carry(server(7), sent.as_slice(), &mut received).await.unwrap();
        assert!(received == sent);
    });
}

#[test]
fn an_active_open_for_which_a_worker_has_no_port_is_passed_on_to_the_next_worker() {
    run_test(async {
        let pair = Pair::new(&[(7, Service::Echo)], usize::MAX);
        let mut received = Vec::new();
        let others = VecDeque::from([pair.client_commands.clone()]);
        let session = bridge_by(&without_ports(), others, 7).carry(server(7), b"passed on".as_slice(), &mut received);
        session.await.unwrap();
        assert_eq!(received, b"passed on");
        let nobody = bridge_by(&without_ports(), VecDeque::new(), 7);
        let error = nobody.carry(server(7), b"".as_slice(), Vec::new()).await.unwrap_err();
        assert_eq!(error.to_string(), "10.0.0.2:7: every ephemeral port is in use (ephemeral_ports)");
    });
}

#[test]
fn a_control_client_hears_that_its_peer_refused() {
    run_test(async {
        let pair = Pair::new(&[], usize::MAX);
        let error = pair.bridge(7).carry(server(7), b"".as_slice(), Vec::new()).await.unwrap_err();
        assert_eq!(error.to_string(), "10.0.0.2:7: connection refused");
    });
}

#[test]
fn a_control_client_hears_of_a_reset_after_its_peers_stream_has_ended() {
    run_test(async {
        let pair = Pair::new(&[(13, Service::Daytime)], usize::MAX);
        let (input, mut typing) = tokio::io::duplex(64);
        let (mut screen, output) = tokio::io::duplex(64);
        let session = pair.bridge(13).carry(server(13), input, output);
        let user = async {
            let mut line = String::new();
            while !line.ends_with('\n') {
                line.push(screen.read_u8().await.unwrap().into());
            }
            pair.server.ask(Command::Abort).await.unwrap();
            typing.write_all(b"more").await.unwrap();
        };
        let (outcome, ()) = tokio::join!(session, user);
        assert_eq!(outcome.unwrap_err().to_string(), "10.0.0.2:13: connection reset");
    });
}

#[test]
fn an_unclaimed_entry_is_removed_unless_it_was_claimed_or_made_anew_since_somebody_looked() {
    run_test(async {
        let wire = Rc::new(Wire::default());
        let link = MemoryLink::new(&wire, &wire, usize::MAX);
        let made = Rc::clone(&link.made);
        let (commands, _endpoint) = drive(0, &[(7, Service::Echo)], link);
        let worker = WorkerHandle { queue: 0, commands };
        let key = |port| ConnectionKey::new(server(7), SocketAddr::new(SERVER.parse().unwrap(), port));
        let entries = [(1, FLAG_COOKIE, 99), (2, FLAG_COOKIE, 100), (3, 0, 50), (4, FLAG_COOKIE, 1)];
        for (port, flags, since_ns) in entries {
            made.borrow_mut().insert(key(port), ConnectionValue { flags, since_ns, ..ConnectionValue::default() });
        }
        let keys: Vec<_> = (1..=5).map(key).collect();
        let removed = worker.ask(|reply| Command::RemoveUnknown { keys, made_before: 100, reply }).await.unwrap();
        let mut left: Vec<u16> = made.borrow().keys().map(|key| key.remote_port).collect();
        left.sort_unstable();
        assert_eq!((removed, left), (2, vec![2, 3]));
    });
}
