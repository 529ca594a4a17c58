//! Several RX queues: a worker each, connections that stay with theirs whatever queue their segments arrive on.

use std::net::SocketAddr;
use std::time::Duration;

use tests::Lab;
use tests::daemon::{Daemon, output};
use tests::net::{CLIENT_V4, Namespace, SERVER_V4, SERVER_V6, WireOptions};
use tests::peer::{self, assert_same, bytes};
use tests::wait::until_it;

use crate::{DISCARD, ECHO, KERNEL, SERVERS, server};

fn lab(queues: u32) -> Lab {
    Lab::with(&WireOptions { queues, ..WireOptions::default() })
}

/// Has the kernel of `namespace` send everything over one queue (XPS); it arrives on the peer's queue of that number.
fn send_over(namespace: &Namespace, queue: u32, queues: u32) {
    let every = every_cpu();
    let line = |other: u32| {
        let cpus = if other == queue { every.as_str() } else { "0" };
        format!("echo {cpus} > /sys/class/net/{}/queues/tx-{other}/xps_cpus", namespace.interface())
    };
    let lines: Vec<String> = (0..queues).map(line).collect();
    let output = namespace.command_without_bpffs("sh").args(["-ec", &lines.join("\n")]).output().expect("sh");
    assert!(output.status.success(), "xps_cpus: {}", String::from_utf8_lossy(&output.stderr));
}

/// The mask of all CPUs as sysfs writes it: 32 of them a word.
fn every_cpu() -> String {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let word = |first: usize| format!("{:x}", (1_u64 << (cpus - first).min(32)) - 1);
    let words: Vec<String> = (0..cpus).step_by(32).map(word).rev().collect();
    words.join(",")
}

/// A figure of every queue's ring.
fn figures(daemon: &Daemon, name: &str) -> Vec<u64> {
    let stats = daemon.stats();
    let rings = stats["rings"].as_array().expect("rings");
    rings.iter().map(|ring| ring[name].as_u64().unwrap_or_else(|| panic!("no {name} in {ring}"))).collect()
}

#[test]
fn every_queue_serves_the_connections_that_arrive_on_it() {
    let lab = lab(3);
    let daemon = lab.daemon().listen(SERVER_V4, ECHO, "echo").listen(SERVER_V6, ECHO, "echo").start();
    let mut connections = Vec::new();
    for queue in 0..3 {
        send_over(&lab.client, queue, 3);
        connections.extend(SERVERS.map(|address| lab.connect((address, ECHO))));
    }
    for connection in &mut connections {
        peer::round_trip(connection, b"hello");
    }
    let rows = daemon.connections(ECHO);
    let mut queues: Vec<u64> = rows.iter().map(|row| row.number("queue")).collect();
    queues.sort_unstable();
    assert_eq!(queues, [0, 0, 1, 1, 2, 2]);
    assert!(figures(&daemon, "frames_in").iter().all(|frames| *frames > 0));
}

#[test]
fn a_connection_whose_segments_change_their_queue_stays_with_its_worker() {
    let lab = lab(2);
    let daemon = lab.daemon().listen(SERVER_V4, ECHO, "echo").listen(SERVER_V6, ECHO, "echo").start();
    send_over(&lab.client, 0, 2);
    let mut connections = SERVERS.map(|address| lab.connect((address, ECHO)));
    for connection in &mut connections {
        peer::round_trip(connection, b"over its own queue");
    }
    assert_eq!(figures(&daemon, "handed_over"), [0, 0]);
    send_over(&lab.client, 1, 2);
    for connection in &connections {
        let data = bytes(1_000_000, 40);
        assert_same(&peer::exchange(connection, &data), &data);
    }
    let [from_0, from_1] = figures(&daemon, "handed_over")[..] else { panic!("two rings") };
    assert!(from_0 == 0 && from_1 > 1000, "handed over: {from_0} {from_1}");
    assert_eq!(figures(&daemon, "handed_in"), [from_1, 0]);
    drop(connections);
    daemon.wait_for_no_connection(ECHO);
}

#[test]
fn an_active_open_is_answered_on_whatever_queue() {
    let lab = lab(2);
    let listener = peer::listen(&lab.client, (CLIENT_V4, KERNEL).into());
    let daemon = lab.daemon().listen(SERVER_V4, DISCARD, "discard").start();
    for queue in 0..2 {
        send_over(&lab.client, queue, 2);
        let mut client = daemon.connect((CLIENT_V4, KERNEL).into());
        let connection = peer::accept(&listener);
        connection.set_read_timeout(Some(Duration::from_secs(30))).expect("a deadline");
        drop(client.stdin.take());
        assert_eq!(peer::read_to_end(&connection), b"");
        drop(connection);
        assert!(client.wait().expect("its end").success(), "over queue {queue}");
    }
}

#[test]
fn active_opens_are_spread_over_the_workers_and_their_streams_arrive_whole() {
    let lab = lab(4);
    let at = SocketAddr::new(CLIENT_V4, KERNEL);
    let kernel = peer::serve(peer::listen(&lab.client, at), 8, peer::echo);
    let daemon = lab.daemon().listen(SERVER_V4, DISCARD, "discard").start();
    let mut clients: Vec<_> = (0..8).map(|_| daemon.connect(at)).collect();
    let opens = || daemon.rows().into_iter().filter(|row| row.state == "ESTABLISHED").collect::<Vec<_>>();
    let rows = until_it("eight connections", opens, |rows| rows.len() == 8);
    let mut queues: Vec<u64> = rows.iter().map(|row| row.number("queue")).collect();
    queues.sort_unstable();
    assert_eq!(queues, [0, 0, 1, 1, 2, 2, 3, 3]);
    std::thread::scope(|scope| {
        for (seed, client) in (50..).zip(&mut clients) {
            scope.spawn(move || {
                let data = bytes(300_000, seed);
                assert_same(&peer::exchange_through(client, &data), &data);
                assert!(client.wait().expect("its end").success());
            });
        }
    });
    kernel.join().unwrap();
    assert!(figures(&daemon, "handed_over").iter().sum::<u64>() > 0, "every answer happened to hit its worker's queue");
}

#[test]
fn with_fewer_ephemeral_ports_than_workers_each_port_is_used_and_none_twice() {
    let lab = lab(4);
    let at = SocketAddr::new(CLIENT_V4, KERNEL);
    let _listener = peer::listen(&lab.client, at);
    let daemon = lab.daemon().line("ephemeral_ports = \"40000-40001\"").listen(SERVER_V4, DISCARD, "discard").start();
    let mut clients: Vec<_> = (0..2).map(|_| daemon.connect(at)).collect();
    for port in [40_000, 40_001] {
        daemon.wait_for_state(port, &["ESTABLISHED"]);
    }
    let refused = output(&mut daemon.client("connect", &[&at.to_string()]));
    let stderr = String::from_utf8_lossy(&refused.stderr);
    assert!(refused.status.code() == Some(1) && stderr.contains("ephemeral_ports"), "{refused:?}");
    for client in &mut clients {
        client.kill().expect("it runs");
        client.wait().expect("its end");
    }
}

#[test]
fn on_a_wire_that_loses_segments_retransmits_change_their_queue_and_no_byte_is_lost() {
    let lab = lab(4);
    let daemon = lab.daemon().listen(SERVER_V4, ECHO, "echo").listen(SERVER_V6, ECHO, "echo").start();
    let addresses = SERVERS.into_iter().cycle().take(48);
    let connections: Vec<_> = addresses.map(|address| lab.connect((address, ECHO))).collect();
    lab.lose(50).unwrap();
    std::thread::scope(|scope| {
        for (seed, connection) in (300..).zip(connections) {
            scope.spawn(move || {
                let data = bytes(50_000, seed);
                assert_same(&peer::exchange(&connection, &data), &data);
            });
        }
    });
    assert!(tests::nstat::retransmits(&lab.client) > 0, "the wire lost nothing; the test did not test anything");
    assert!(figures(&daemon, "frames_in").iter().all(|frames| *frames > 0), "a worker had nothing to do");
    let handed = ["handed_over", "handed_in", "handover_full"].map(|name| figures(&daemon, name).iter().sum::<u64>());
    assert!(handed[0] > 0 && handed[1] == handed[0] && handed[2] == 0, "handed over, in, too many: {handed:?}");
    lab.lose(0).unwrap();
    until_it("no connection left", || daemon.connections(ECHO).len(), |left| *left == 0);
}

#[test]
fn many_connections_over_both_queues_keep_their_streams_while_queues_change() {
    let lab = lab(2);
    let daemon = lab.daemon().listen(SERVER_V4, ECHO, "echo").start();
    std::thread::scope(|scope| {
        let transfers: Vec<_> = (0..20)
            .map(|seed| {
                let connection = lab.connect(server(ECHO));
                scope.spawn(move || {
                    let data = bytes(300_000, 2000 + seed);
                    assert_same(&peer::exchange(&connection, &data), &data);
                })
            })
            .collect();
        for turn in 0.. {
            if transfers.iter().all(|transfer| transfer.is_finished()) {
                break;
            }
            send_over(&lab.client, turn % 2, 2);
        }
    });
    until_it("no connection left", || daemon.connections(ECHO).len(), |left| *left == 0);
}
