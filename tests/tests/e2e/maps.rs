//! The pinned maps as `bpftool` dumps them: fields and states by name, and true.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};

use etherparse::TcpHeader;
use tests::Lab;
use tests::daemon::Daemon;
use tests::net::{SERVER_V4, SERVER_V6};
use tests::peer;
use tests::raw::send_segment;
use tests::wait::{until, until_it};

use crate::{DAYTIME, ECHO, PROXY, SERVERS, loopback, server};

const BACKEND: u16 = 8000;

#[test]
fn an_established_connection_is_in_the_map_by_its_addresses_ports_and_state() {
    let lab = Lab::new();
    let daemon = lab.daemon().listen(SERVER_V4, ECHO, "echo").listen(SERVER_V6, ECHO, "echo").start();
    let connections = SERVERS.map(|address| lab.connect((address, ECHO)));
    for (address, connection) in SERVERS.into_iter().zip(&connections) {
        let local = SocketAddr::new(address, ECHO);
        let remote = connection.local_addr().unwrap();
        let entry =
            until("the entry", || daemon.maps().connection(local, remote).filter(|e| e.state() == "ESTABLISHED"));
        assert_eq!(entry.number("queue"), 0);
        assert!(entry.number("since_ns") > 0, "{entry:#?}");
    }
    assert_eq!(daemon.maps().connections().len(), 2);
}

#[test]
fn the_maps_figures_follow_the_connection() {
    let lab = Lab::new();
    let daemon = lab.daemon().listen(SERVER_V4, ECHO, "echo").start();
    let mut connection = lab.connect(server(ECHO));
    connection.write_all(&[1; 3000]).unwrap();
    connection.read_exact(&mut [0; 3000]).unwrap();
    let figures = || {
        let entry = daemon.maps().connection(server(ECHO), connection.local_addr().unwrap()).unwrap();
        (entry.number("bytes_in"), entry.number("bytes_out"))
    };
    until_it("the bytes in the map", figures, |seen| *seen == (3000, 3000));
    let entry = daemon.maps().connection(server(ECHO), connection.local_addr().unwrap()).unwrap();
    assert!(entry.number("segments_in") >= 4 && entry.number("segments_out") >= 2, "{entry:#?}");
    let row = daemon.connections(ECHO).remove(0);
    assert_eq!((entry.number("snd_nxt"), entry.number("rcv_nxt")), (row.number("snd_nxt"), row.number("rcv_nxt")));
}

#[test]
fn close_wait_is_in_the_map_while_the_backend_still_sends() {
    let lab = Lab::new();
    let backend = peer::listen(&lab.server, loopback(BACKEND));
    let daemon = lab.daemon().listen(SERVER_V4, PROXY, &format!("proxy:{}", loopback(BACKEND))).start();
    let client = lab.connect(server(PROXY));
    let _behind = peer::accept(&backend);
    client.shutdown(Shutdown::Write).unwrap();
    wait_for_states(&daemon, &["CLOSE_WAIT"]);
}

#[test]
fn fin_wait_2_and_time_wait_are_in_the_map() {
    let lab = Lab::new();
    let daemon = lab.daemon().listen(SERVER_V4, DAYTIME, "daytime").start();
    let client = lab.connect(server(DAYTIME));
    assert!(!peer::read_to_end(&client).is_empty());
    wait_for_states(&daemon, &["FIN_WAIT_2"]);
    drop(client);
    wait_for_states(&daemon, &["TIME_WAIT"]);
    let entry = daemon.maps().connections().remove(0);
    assert!(entry.number("deadline_ns") > entry.number("since_ns"), "{entry:#?}");
}

#[test]
fn fin_wait_1_is_in_the_map_while_the_peer_does_not_acknowledge() {
    let lab = Lab::new();
    let daemon = lab.daemon().listen(SERVER_V4, DAYTIME, "daytime").start();
    half_open(&lab, DAYTIME);
    let syn_ack = until("the SYN-ACK", || lab.segments(|segment| segment.flags.syn && segment.flags.ack).pop());
    let mut ack = TcpHeader::new(SILENT.port(), 0, syn_ack.ack, 60_000);
    (ack.ack, ack.acknowledgment_number) = (true, syn_ack.seq.wrapping_add(1));
    send_segment(&lab.client, SILENT.ip(), server(DAYTIME), ack, b"");
    wait_for_states(&daemon, &["FIN_WAIT_1"]);
}

#[test]
fn syn_rcvd_is_in_the_map_while_the_handshake_is_half_done() {
    let lab = Lab::new();
    let daemon = lab.daemon().listen(SERVER_V4, ECHO, "echo").start();
    half_open(&lab, ECHO);
    wait_for_states(&daemon, &["SYN_RCVD"]);
    let entry = daemon.maps().connections().remove(0);
    assert_eq!((entry.local(), entry.remote()), (server(ECHO), SILENT));
    let row = daemon.wait_for_state(ECHO, &["SYN_RCVD"]);
    assert!(row.timers.contains_key("establish"), "{row:#?}");
}

#[test]
fn the_entry_is_gone_when_the_connection_is() {
    let lab = Lab::new();
    let daemon = lab.daemon().listen(SERVER_V4, ECHO, "echo").start();
    assert_eq!(peer::exchange(&lab.connect(server(ECHO)), b"x"), b"x");
    wait_for_states(&daemon, &[]);
}

#[test]
fn a_dump_for_people_prints_fields_and_states_by_name() {
    let lab = Lab::new();
    let daemon = lab.daemon().listen(SERVER_V4, ECHO, "echo").start();
    let _connection = lab.connect(server(ECHO));
    wait_for_states(&daemon, &["ESTABLISHED"]);
    let dump = daemon.maps().dump_text("CONNECTIONS");
    for name in
        ["local_addr", "remote_addr", "local_port\": 7", "remote_port", "\"state\": \"ESTABLISHED\"", "deadline_ns"]
    {
        assert!(dump.contains(name) || dump.contains(&name.replace('"', "")), "no {name} in\n{dump}");
    }
}

#[test]
fn counters_move_by_class() {
    let lab = Lab::new();
    let daemon = lab.daemon().listen(SERVER_V4, ECHO, "echo").start();
    assert_eq!(peer::exchange(&lab.connect(server(ECHO)), b"x"), b"x");
    wait_for_states(&daemon, &[]);
    let maps = daemon.maps();
    assert_eq!(["syn", "syn_ack", "fin", "rst", "data"].map(|class| maps.counter(class)), [1, 0, 1, 0, 1]);
    assert!(maps.counter("ack") >= 1);
    assert_eq!((maps.counter("steer_syn"), maps.counter("steer_no_connection")), (1, 0));
    assert!(maps.counter("steer_connection") >= 4);
}

#[test]
fn every_map_of_the_contract_is_pinned() {
    let lab = Lab::new();
    let daemon = lab.daemon().listen(SERVER_V4, ECHO, "echo").start();
    let pins = std::fs::read_dir(daemon.pin_path()).unwrap();
    let pins: BTreeSet<String> = pins.map(|pin| pin.unwrap().file_name().into_string().unwrap()).collect();
    for map in ["LISTENERS", "CONNECTIONS", "COUNTERS", "XSKS", "CONFIG"] {
        assert!(pins.contains(map), "no {map} among {pins:?}");
    }
    assert!(!pins.iter().any(|pin| pin.to_uppercase().contains("KEY")), "cookie keys must not be pinned: {pins:?}");
}

/// An address that nobody has: what is sent to it vanishes.
const SILENT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 77, 0, 60)), 3333);

/// Sends a SYN whose SYN-ACK will never be answered.
fn half_open(lab: &Lab, port: u16) {
    let mut syn = TcpHeader::new(SILENT.port(), 0, 1000, 60_000);
    syn.syn = true;
    send_segment(&lab.client, SILENT.ip(), server(port), syn, b"");
}

/// Waits until the map's entries are in exactly these states.
fn wait_for_states(daemon: &Daemon, states: &[&str]) {
    let seen = || daemon.maps().connections().iter().map(|entry| entry.state().to_owned()).collect::<Vec<_>>();
    until_it("the states in CONNECTIONS", seen, |seen| seen == states);
}
