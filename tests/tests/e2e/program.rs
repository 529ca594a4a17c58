//! The XDP program at work: it decides by the map, drops what is malformed, says so in the log, passes the rest.

use std::io::{Read, Write};
use std::net::SocketAddr;

use etherparse::TcpHeader;
use tests::Lab;
use tests::daemon::Daemon;
use tests::net::{CLIENT_V4, CLIENT_V6, SERVER_V4, SERVER_V6};
use tests::peer;
use tests::raw::{send_first_fragment, send_segment};
use tests::wait::{until, until_it};

use crate::{ECHO, KERNEL, SERVERS, server};

#[test]
fn without_its_map_entry_a_connections_next_segment_is_one_without_a_connection() {
    let lab = Lab::new();
    let daemon = lab.daemon().listen(SERVER_V4, ECHO, "echo").start();
    let mut connection = lab.connect(server(ECHO));
    connection.write_all(b"x").unwrap();
    connection.read_exact(&mut [0]).unwrap();
    let maps = daemon.maps();
    // The daemon has written what there is to write once the figures are up to date.
    let find = || maps.connection(server(ECHO), connection.local_addr().unwrap());
    let entry = until("the figures", || find().filter(|entry| entry.number("bytes_out") == 1));
    assert_eq!(maps.counter("steer_no_connection"), 0);
    maps.delete_connection(&entry);
    connection.write_all(b"y").unwrap();
    until_it("the segment to be counted", || maps.counter("steer_no_connection"), |count| *count >= 1);
}

#[test]
fn malformed_segments_are_dropped_and_counted_by_reason() {
    let lab = Lab::new();
    let daemon = lab.daemon().listen(SERVER_V4, ECHO, "echo").listen(SERVER_V6, ECHO, "echo").start();
    type SetFlags = fn(&mut TcpHeader);
    let cases: [(&str, SetFlags); 5] = [
        ("drop_null", |_| {}),
        ("drop_xmas", |tcp| (tcp.fin, tcp.psh, tcp.urg) = (true, true, true)),
        ("drop_syn_fin", |tcp| (tcp.syn, tcp.fin) = (true, true)),
        ("drop_syn_rst", |tcp| (tcp.syn, tcp.rst) = (true, true)),
        ("drop_fin_without_ack", |tcp| tcp.fin = true),
    ];
    for (counter, set_flags) in cases {
        for (source, destination) in [(CLIENT_V4, SERVER_V4), (CLIENT_V6, SERVER_V6)] {
            let mut tcp = TcpHeader::new(5555, 0, 1, 100);
            set_flags(&mut tcp);
            send_segment(&lab.client, source, SocketAddr::new(destination, ECHO), tcp, b"");
        }
        until_it(counter, || daemon.maps().counter(counter), |count| *count == 2);
    }
    assert_silent(&lab, &daemon);
}

#[test]
fn a_stray_reset_is_dropped() {
    let lab = Lab::new();
    let daemon = lab.daemon().listen(SERVER_V4, ECHO, "echo").start();
    let mut rst = TcpHeader::new(5555, 0, 1, 0);
    rst.rst = true;
    send_segment(&lab.client, CLIENT_V4, server(ECHO), rst, b"");
    until_it("the drop", || daemon.maps().counter("drop_stray_rst"), |count| *count == 1);
    assert_silent(&lab, &daemon);
}

#[test]
fn a_first_fragment_to_an_owned_port_is_dropped_and_one_to_another_port_passes() {
    let lab = Lab::new();
    let daemon = lab.daemon().listen(SERVER_V4, ECHO, "echo").start();
    let mut syn = TcpHeader::new(5555, ECHO, 1, 100);
    syn.syn = true;
    send_first_fragment(&lab.client, [10, 77, 0, 1], [10, 77, 0, 2], &syn, &[0; 4]);
    until_it("the drop", || daemon.maps().counter("drop_fragment"), |count| *count == 1);
    syn.destination_port = KERNEL;
    let passed = daemon.maps().counter("pass");
    send_first_fragment(&lab.client, [10, 77, 0, 1], [10, 77, 0, 2], &syn, &[0; 4]);
    until_it("the pass", || daemon.maps().counter("pass"), |count| *count > passed);
    assert_eq!(daemon.maps().counter("drop_fragment"), 1);
}

#[test]
fn a_drop_is_in_the_daemons_log() {
    let lab = Lab::new();
    let daemon = lab.daemon().listen(SERVER_V4, ECHO, "echo").start();
    send_segment(&lab.client, CLIENT_V4, server(ECHO), TcpHeader::new(5555, 0, 1, 100), b"");
    let line = daemon.wait_for_log(&["null", "5555"]);
    assert!(line.contains("10.77.0.1"), "{line}");
}

#[test]
fn segments_of_an_unowned_port_pass_and_are_not_classified() {
    let lab = Lab::new();
    let daemon = lab.daemon().listen(SERVER_V4, ECHO, "echo").start();
    let kernel = peer::serve(peer::listen(&lab.server, server(KERNEL)), 1, peer::echo);
    let before = daemon.maps().counter("pass");
    assert_eq!(peer::exchange(&lab.connect(server(KERNEL)), b"kernel"), b"kernel");
    kernel.join().unwrap();
    assert!(daemon.maps().counter("pass") >= before + 4);
    assert_eq!(["syn", "ack", "data", "fin"].map(|class| daemon.maps().counter(class)), [0; 4]);
}

#[test]
fn a_segment_without_a_connection_is_answered_with_the_reset_of_the_standard() {
    let lab = Lab::new();
    let daemon = lab.daemon().listen(SERVER_V4, ECHO, "echo").listen(SERVER_V6, ECHO, "echo").start();
    for (source, destination) in [(CLIENT_V4, SERVER_V4), (CLIENT_V6, SERVER_V6)] {
        let to = SocketAddr::new(destination, ECHO);
        let mut ack = TcpHeader::new(5555, 0, 1, 100);
        (ack.ack, ack.acknowledgment_number) = (true, 4242);
        send_segment(&lab.client, source, to, ack, b"data");
        let rst = until("the RST", || lab.segments(|segment| segment.source == to).pop());
        assert!(rst.flags.rst && !rst.flags.ack && rst.seq == 4242, "{rst}");
    }
    assert_eq!(daemon.maps().counter("steer_no_connection"), 2);
}

#[test]
fn a_segment_without_a_connection_is_ignored_where_silence_is_configured() {
    let lab = Lab::new();
    let daemon = lab.daemon().listen(SERVER_V4, ECHO, "echo").tcp("no_connection = \"drop\"").start();
    let mut ack = TcpHeader::new(5555, 0, 1, 100);
    (ack.ack, ack.acknowledgment_number) = (true, 4242);
    send_segment(&lab.client, CLIENT_V4, server(ECHO), ack, b"");
    until_it("the segment to arrive", || daemon.maps().counter("steer_no_connection"), |count| *count == 1);
    assert_silent(&lab, &daemon);
}

#[test]
fn a_segment_with_a_wrong_checksum_is_not_acted_upon() {
    let lab = Lab::new();
    let daemon = lab.daemon().listen(SERVER_V4, ECHO, "echo").start();
    // The client's kernel now leaves checksums to a device that does not exist.
    lab.client.run(&format!("ethtool -K {} tx on", lab.client.interface())).unwrap();
    let connecting = lab.client.enter(|| {
        let timeout = std::time::Duration::from_millis(300);
        std::net::TcpStream::connect_timeout(&server(ECHO), timeout)
    });
    assert!(connecting.is_err(), "a SYN with a wrong checksum was answered");
    assert!(daemon.maps().counter("syn") >= 1, "no SYN arrived; the test did not test anything");
    assert_eq!(daemon.connections(ECHO).len(), 0);
}

#[test]
fn unfilled_checksums_are_accepted_where_that_is_configured() {
    let lab = Lab::new();
    let _daemon = lab.daemon().line("rx_checksum = \"accept-partial\"").listen(SERVER_V4, ECHO, "echo").start();
    lab.client.run(&format!("ethtool -K {} tx on", lab.client.interface())).unwrap();
    assert_eq!(peer::exchange(&lab.connect(server(ECHO)), b"partial"), b"partial");
}

#[test]
fn both_families_are_served_by_one_program() {
    let lab = Lab::new();
    let daemon = lab.daemon().listen(SERVER_V4, ECHO, "echo").listen(SERVER_V6, ECHO, "echo").start();
    for address in SERVERS {
        assert_eq!(peer::exchange(&lab.connect((address, ECHO)), b"x"), b"x");
    }
    assert_eq!(daemon.maps().counter("steer_syn"), 2);
}

/// Proves that xtcp has answered nothing so far: a later connection's SYN-ACK is the first thing it sent.
fn assert_silent(lab: &Lab, daemon: &Daemon) {
    assert_eq!(peer::exchange(&lab.connect(server(ECHO)), b"after"), b"after");
    let first = until("a segment of xtcp's", || {
        let checker = lab.checker();
        checker.segments().iter().find(|segment| checker.is_ours(segment)).cloned()
    });
    assert!(first.flags.syn && first.flags.ack, "xtcp answered: {first}; log: {:#?}", daemon.log());
}
