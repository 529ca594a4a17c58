//! Timers seen from outside: peers that vanish, acknowledgments that do not come, windows that stay closed.
//!
//! Durations are not asserted, only what an expiry does; the virtual-clock tests of `tcp-proto` measure them.

use std::io::{Read, Write};

use etherparse::TcpHeader;
use tests::Lab;
use tests::daemon::Connection;
use tests::net::{CLIENT_V4, SERVER_V4};
use tests::raw::send_segment;
use tests::wait::{until, until_it};

use crate::services::assert_chargen;
use crate::{CHARGEN, ECHO, server};

#[test]
fn keepalive_ends_the_connection_of_a_client_that_vanished() {
    let lab = Lab::new();
    let keepalive =
        "keepalive = true\nkeepalive_time = \"300ms\"\nkeepalive_interval = \"200ms\"\nkeepalive_probes = 3";
    let daemon = lab.daemon().listen(SERVER_V4, ECHO, "echo").tcp(keepalive).start();
    let mut client = lab.connect(server(ECHO));
    client.write_all(b"x").unwrap();
    client.read_exact(&mut [0]).unwrap();
    let row = daemon.wait_for_state(ECHO, &["ESTABLISHED"]);
    assert!(row.timers.contains_key("keepalive"), "{row:#?}");
    vanish(&lab);
    until("the end of the connection", || daemon.connections(ECHO).is_empty().then_some(()));
    let next = row.number("snd_nxt") as u32;
    let probes = lab.segments(|segment| segment.source == server(ECHO) && segment.seq == next.wrapping_sub(1));
    assert!(probes.len() >= 3, "{} probes", probes.len());
}

#[test]
fn keepalive_keeps_the_connection_of_a_client_that_is_only_idle() {
    let lab = Lab::new();
    // Linux answers only one unacceptable segment in half a second, and a probe is one.
    lab.client.set_sysctl("net.ipv4.tcp_invalid_ratelimit", "0").unwrap();
    let keepalive =
        "keepalive = true\nkeepalive_time = \"100ms\"\nkeepalive_interval = \"100ms\"\nkeepalive_probes = 2";
    let daemon = lab.daemon().listen(SERVER_V4, ECHO, "echo").tcp(keepalive).start();
    let mut client = lab.connect(server(ECHO));
    let row = daemon.wait_for_state(ECHO, &["ESTABLISHED"]);
    let probe = (row.number("snd_nxt") as u32).wrapping_sub(1);
    let probes =
        || lab.segments(|segment| segment.source == server(ECHO) && segment.seq == probe && !segment.flags.syn);
    until("more probes than would end it", || (probes().len() > 5).then_some(()));
    client.write_all(b"alive").unwrap();
    let mut reply = [0; 5];
    client.read_exact(&mut reply).unwrap();
    assert_eq!(&reply, b"alive");
}

#[test]
fn unacknowledged_data_are_retransmitted_until_the_retries_are_used_up() {
    let lab = Lab::new();
    let retries = "retries1 = 1\nretries2 = 3\ninitial_rto = \"200ms\"\nmin_rto = \"50ms\"\nmax_rto = \"200ms\"";
    let daemon = lab.daemon().listen(SERVER_V4, CHARGEN, "chargen").tcp(retries).start();
    let mut client = lab.connect(server(CHARGEN));
    client.read_exact(&mut [0; 1000]).unwrap();
    vanish(&lab);
    drop(client); // What it had not read makes room no more; its FIN or RST can't leave.
    until("the end of the connection", || daemon.connections(CHARGEN).is_empty().then_some(()));
    let sent = lab.segments(|segment| segment.source == server(CHARGEN) && segment.length > 0);
    let last = sent.last().unwrap();
    let same = sent.iter().filter(|segment| segment.seq == last.seq).count();
    assert!(same >= 3, "the segment with SEG.SEQ {} was sent {same} times", last.seq);
}

#[test]
fn an_unanswered_syn_ack_is_repeated_and_then_the_half_open_connection_forgotten() {
    let lab = Lab::new();
    let tcp = "synack_retries = 2\ninitial_rto = \"200ms\"";
    let daemon = lab.daemon().listen(SERVER_V4, ECHO, "echo").tcp(tcp).start();
    let mut syn = TcpHeader::new(3333, 0, 1000, 60_000);
    syn.syn = true;
    send_segment(&lab.client, [10, 77, 0, 60].into(), server(ECHO), syn, b"");
    daemon.wait_for_state(ECHO, &["SYN_RCVD"]);
    until("the end of the half-open connection", || daemon.connections(ECHO).is_empty().then_some(()));
    let syn_acks = lab.segments(|segment| segment.source == server(ECHO) && segment.flags.syn);
    assert_eq!(syn_acks.len(), 3, "{syn_acks:#?}");
    assert!(syn_acks.iter().all(|segment| segment.seq == syn_acks[0].seq && segment.ack == 1001), "{syn_acks:#?}");
}

#[test]
fn a_closed_window_is_probed_and_the_stream_goes_on_when_it_opens() {
    let lab = Lab::new();
    lab.client.set_sysctl("net.ipv4.tcp_rmem", "4096 16384 16384").unwrap();
    let persist = "persist_initial = \"100ms\"\npersist_max = \"200ms\"";
    let daemon = lab.daemon().listen(SERVER_V4, CHARGEN, "chargen").tcp(persist).start();
    let mut client = lab.connect(server(CHARGEN));
    let closed = |row: &Option<Connection>| {
        row.as_ref().is_some_and(|row| row.timers.contains_key("persist") && row.number("snd_wnd") == 0)
    };
    until_it("the persist timer of a closed window", || daemon.connections(CHARGEN).pop(), closed);
    let count = || lab.segments(|segment| segment.source == server(CHARGEN)).len();
    let before = count();
    until("three probes", || (count() >= before + 3).then_some(()));
    let mut received = vec![0; 74 * 5000];
    client.read_exact(&mut received).unwrap();
    assert_chargen(&received);
}

#[test]
fn an_acknowledgment_is_delayed_and_then_sent() {
    let lab = Lab::new();
    let _daemon = lab.daemon().listen(SERVER_V4, crate::DISCARD, "discard").tcp("delayed_ack = \"200ms\"").start();
    let mut client = lab.connect(server(crate::DISCARD));
    client.write_all(b"x").unwrap();
    let ours = |segment: &tests::segment::Segment| segment.source == server(crate::DISCARD) && !segment.flags.syn;
    let ack = until("the acknowledgment", || lab.segments(ours).pop());
    let data = lab.segments(|segment| segment.destination == server(crate::DISCARD) && segment.length == 1).remove(0);
    assert_eq!((ack.ack, ack.length), (data.seq.wrapping_add(1), 0), "{ack}");
}

#[test]
fn a_connection_in_fin_wait_2_that_nobody_reads_is_given_up() {
    let lab = Lab::new();
    let tcp = "fin_wait2_timeout = \"200ms\"\nlinger = \"1h\"";
    let daemon = lab.daemon().listen(SERVER_V4, crate::DAYTIME, "daytime").tcp(tcp).start();
    let _client = lab.connect(server(crate::DAYTIME));
    daemon.wait_for_state(crate::DAYTIME, &["FIN_WAIT_2"]);
    until("the end of the connection", || daemon.connections(crate::DAYTIME).is_empty().then_some(()));
}

/// The client's host is gone: nobody has its address any more, so nothing answers.
fn vanish(lab: &Lab) {
    lab.client.ip(&format!("address del {CLIENT_V4}/24 dev {}", lab.client.interface())).unwrap();
}
