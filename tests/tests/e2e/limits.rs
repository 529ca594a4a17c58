//! Limits as an operator sees them: what happens beyond them, `xtcp stats`, LISTENERS by `bpftool`, the daemon's log.
//! `tcp-proto/tests/limits.rs` has each of the stack's limits on a virtual clock.

use std::net::{IpAddr, Ipv4Addr};

use etherparse::TcpHeader;
use serde_json::Value;
use tests::Lab;
use tests::daemon::Daemon;
use tests::net::SERVER_V4;
use tests::peer;
use tests::raw::send_segment;
use tests::wait::until_it;

use crate::{DAYTIME, ECHO, server};

/// An address that nobody has: what is sent to it vanishes.
const SILENT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 60));

/// A SYN from the port `port` of [`SILENT`]: its SYN-ACK will never be answered.
fn half_open(lab: &Lab, port: u16) {
    let mut syn = TcpHeader::new(port, 0, 1000, 60_000);
    syn.syn = true;
    send_segment(&lab.client, SILENT, server(ECHO), syn, b"");
}

/// A RST of such a half-open connection.
fn reset(lab: &Lab, port: u16) {
    let mut rst = TcpHeader::new(port, 0, 1001, 0);
    rst.rst = true;
    send_segment(&lab.client, SILENT, server(ECHO), rst, b"");
}

/// Figures of the only listener by `xtcp stats`.
fn listener(daemon: &Daemon) -> Value {
    daemon.stats()["listeners"][0].clone()
}

fn number(object: &Value, field: &str) -> u64 {
    object[field].as_u64().unwrap_or_else(|| panic!("no number {field} in {object:#}"))
}

fn drops(daemon: &Daemon, reason: &str) -> u64 {
    number(&daemon.stats()["drops"], reason)
}

/// Waits until LISTENERS has the same figures of the only listener as `xtcp stats`, and returns them.
fn listener_in_the_map(daemon: &Daemon) -> Value {
    let fields = [
        "syn_queue",
        "syn_queue_max",
        "accept_queue",
        "accept_queue_max",
        "overflows",
        "syn_overflows",
        "accept_overflows",
    ];
    let seen = || {
        let entry = daemon.maps().dump("LISTENERS").remove(0)["formatted"]["value"].clone();
        (entry, listener(daemon))
    };
    let same =
        |(entry, stats): &(Value, Value)| fields.iter().all(|field| number(entry, field) == number(stats, field));
    until_it("the listener's figures in the map", seen, same).0
}

#[test]
fn a_full_syn_queue_drops_syns_until_a_reset_makes_room_and_says_so_everywhere() {
    let lab = Lab::new();
    let listen = "service = \"echo\"\ntcp = { syn_backlog = 2, syn_cookies = \"never\" }";
    let daemon = lab.daemon().listen_with(server(ECHO), listen).start();
    (1..=2).for_each(|port| half_open(&lab, port));
    until_it("two half-open connections", || number(&listener(&daemon), "syn_queue"), |length| *length == 2);
    half_open(&lab, 3);
    until_it("an overflow", || number(&listener(&daemon), "overflows"), |overflows| *overflows == 1);
    let entry = listener_in_the_map(&daemon);
    let figures = ["syn_queue", "syn_queue_max", "accept_queue", "overflows", "syn_overflows", "accept_overflows"];
    assert_eq!(figures.map(|field| number(&entry, field)), [2, 2, 0, 1, 1, 0]);
    assert_eq!(drops(&daemon, "syn_queue_full"), 1);
    daemon.wait_for_log(&["WARN", "listener 10.77.0.2:7", "1 SYNs dropped", "raise syn_backlog"]);
    reset(&lab, 1);
    let mut connection = lab.connect(server(ECHO));
    peer::round_trip(&mut connection, b"there is room again");
    let entry = listener_in_the_map(&daemon);
    assert_eq!(["syn_queue", "syn_queue_max"].map(|field| number(&entry, field)), [1, 2]);
}

#[test]
fn a_half_open_connection_is_forgotten_after_its_last_syn_ack() {
    let lab = Lab::new();
    let listen = "service = \"echo\"\ntcp = { synack_retries = 1, initial_rto = \"100ms\" }";
    let daemon = lab.daemon().listen_with(server(ECHO), listen).start();
    half_open(&lab, 1);
    until_it("a half-open connection", || number(&listener(&daemon), "syn_queue_max"), |max| *max == 1);
    until_it("its end", || number(&listener(&daemon), "syn_queue"), |length| *length == 0);
    until_it(
        "two SYN-ACKs",
        || lab.segments(|segment| segment.flags.syn && segment.flags.ack).len(),
        |syn_acks| *syn_acks == 2,
    );
    assert_eq!(number(&listener(&daemon), "overflows"), 0);
}

#[test]
fn with_a_full_accept_queue_the_syn_ack_is_repeated_until_everybody_is_served() {
    let lab = Lab::new();
    let listen = "service = \"echo\"\ntcp = { backlog = 3, initial_rto = \"100ms\", synack_retries = 10 }";
    let mut daemon = lab.daemon().listen_with(server(ECHO), listen).start();
    let maps = daemon.maps();
    std::thread::scope(|scope| {
        // While the daemon stands still the SYNs of all wait for it, so that their last ACKs come at once, too.
        let paused = daemon.pause();
        for _ in 0..12 {
            scope.spawn(|| peer::round_trip(&mut lab.connect(server(ECHO)), b"served at last"));
        }
        until_it("twelve SYNs", || maps.counter("syn"), |syns| *syns == 12);
        drop(paused);
    });
    let entry = listener_in_the_map(&daemon);
    assert_eq!(["accept_queue", "accept_queue_max"].map(|field| number(&entry, field)), [0, 3]);
    let overflows = number(&entry, "accept_overflows");
    assert!(overflows > 0, "{entry:#}");
    assert_eq!((number(&entry, "overflows"), drops(&daemon, "accept_queue_full")), (overflows, overflows));
    daemon.wait_for_log(&["WARN", "listener 10.77.0.2:7", "last ACKs of handshakes dropped", "raise backlog"]);
}

#[test]
fn beyond_max_connections_a_syn_is_dropped_and_logged() {
    let lab = Lab::new();
    let daemon = lab.daemon().line("max_connections = 2").listen(SERVER_V4, ECHO, "echo").start();
    let mut connections = [lab.connect(server(ECHO)), lab.connect(server(ECHO))];
    half_open(&lab, 1);
    until_it("a drop", || drops(&daemon, "too_many_connections"), |drops| *drops == 1);
    daemon.wait_for_log(&["WARN", "1 opens refused", "raise max_connections"]);
    connections.iter_mut().for_each(|connection| peer::round_trip(connection, b"as if nothing had happened"));
}

#[test]
fn beyond_max_orphans_the_oldest_is_reset_and_logged() {
    let lab = Lab::new();
    let daemon = lab.daemon().line("max_orphans = 2").listen(SERVER_V4, DAYTIME, "daytime").start();
    // The service closes at once; the peers do not, so that their connections stay in FIN_WAIT_2.
    let mut peers = Vec::new();
    for orphans in [1, 2, 2] {
        let peer = lab.connect(server(DAYTIME));
        assert!(!peer::read_to_end(&peer).is_empty());
        peers.push(peer);
        let states = || daemon.connections(DAYTIME).into_iter().map(|row| row.state).collect::<Vec<_>>();
        until_it("orphans", states, |states| *states == vec!["FIN_WAIT_2"; orphans]);
    }
    assert_eq!(drops(&daemon, "too_many_orphans"), 1);
    daemon.wait_for_log(&["WARN", "1 closed connections reset", "raise max_orphans"]);
    let oldest = peers[0].local_addr().unwrap();
    until_it("its RST", || lab.segments(|segment| segment.flags.rst), |resets| !resets.is_empty());
    assert!(lab.segments(|segment| segment.flags.rst).iter().all(|reset| reset.destination == oldest));
}

#[test]
fn each_of_two_workers_has_half_of_a_listeners_queue() {
    let lab = Lab::with(&tests::net::WireOptions { queues: 2, ..tests::net::WireOptions::default() });
    let listen = "service = \"echo\"\ntcp = { syn_backlog = 4, syn_cookies = \"never\" }";
    let daemon = lab.daemon().listen_with(server(ECHO), listen).start();
    (1..=100).for_each(|port| half_open(&lab, port));
    let full = |row: &Value| number(row, "syn_queue") + number(row, "overflows") == 100;
    let row = until_it("a hundred SYNs", || listener(&daemon), full);
    assert!((2..=4).contains(&number(&row, "syn_queue_max")), "two for each worker: {row:#}");
}
