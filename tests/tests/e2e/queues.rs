//! Several RX queues: a worker each, connections that stay with theirs whatever queue their segments arrive on.

use std::time::Duration;

use tests::Lab;
use tests::daemon::Daemon;
use tests::net::{Namespace, SERVER_V4, SERVER_V6, WireOptions};
use tests::peer::{self, assert_same, bytes};
use tests::wait::until_it;

use crate::{DISCARD, ECHO, SERVERS, server};

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
    let listener = peer::listen(&lab.client, (tests::net::CLIENT_V4, 2222).into());
    let daemon = lab.daemon().listen(SERVER_V4, DISCARD, "discard").start();
    for queue in 0..2 {
        send_over(&lab.client, queue, 2);
        let mut client = daemon.client("connect", &["10.77.0.1:2222"]);
        client.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        let mut client = client.spawn().expect("xtcp connect");
        let connection = peer::accept(&listener);
        connection.set_read_timeout(Some(Duration::from_secs(30))).expect("a deadline");
        drop(client.stdin.take());
        assert_eq!(peer::read_to_end(&connection), b"");
        drop(connection);
        assert!(client.wait().expect("its end").success(), "over queue {queue}");
    }
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
