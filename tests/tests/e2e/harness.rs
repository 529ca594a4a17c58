//! The harness itself, with a kernel TCP server in place of the daemon: a later failure is the daemon's.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use etherparse::TcpHeader;
use tests::Lab;
use tests::impairment::Impairment;
use tests::net::{CLIENT_V6, SERVER_V4, SERVER_V6, WireOptions, leftovers};
use tests::peer::{self, assert_same};
use tests::wait::until;

const PORT: u16 = 7;

#[test]
fn the_checker_accepts_what_the_kernels_tcp_sends() {
    let lab = Lab::new();
    lab.checker().own(PORT..=PORT);
    for address in [SERVER_V4, SERVER_V6] {
        let at = SocketAddr::new(address, PORT);
        let server = peer::serve(peer::listen(&lab.server, at), 1, peer::echo);
        let data = peer::bytes(3_000_000, 1);
        assert_same(&peer::exchange(&lab.connect(at), &data), &data);
        server.join().unwrap();
    }
    until("both connections on the wire", || {
        let last_acks = lab.segments(|segment| segment.source.port() == PORT && segment.flags.fin);
        (last_acks.len() >= 2).then_some(())
    });
    let checker = lab.checker();
    assert!(checker.checked() > 2 * 3_000_000 / 1460, "the capture missed segments: {}", checker.checked());
    let syn_ack = checker.segments().iter().find(|segment| checker.is_ours(segment)).unwrap();
    assert_eq!((syn_ack.flags.syn, syn_ack.mss), (true, Some(1460)), "{syn_ack}");
}

#[test]
#[should_panic(expected = "TcpChecksum")]
fn a_lab_whose_capture_holds_a_violation_panics_when_dropped() {
    let lab = Lab::new();
    lab.checker().own(PORT..=PORT);
    // With this the server's kernel leaves checksums to a device that does not exist.
    lab.server.run(&format!("ethtool -K {} tx on", lab.server.interface())).unwrap();
    let at = SocketAddr::new(SERVER_V4, PORT);
    let server = peer::serve(peer::listen(&lab.server, at), 1, peer::echo);
    peer::assert_same(&peer::exchange(&lab.connect(at), b"hello"), b"hello");
    server.join().unwrap();
}

#[test]
fn a_wire_that_loses_segments_loses_them_both_ways_and_the_kernels_streams_arrive_whole() {
    let lab = Lab::with(&WireOptions {
        impairment: Impairment { loss: 100, ..Impairment::default() },
        ..WireOptions::default()
    });
    for address in [SERVER_V4, SERVER_V6] {
        let at = SocketAddr::new(address, PORT);
        let server = peer::serve(peer::listen(&lab.server, at), 1, peer::echo);
        let before = [&lab.client, &lab.server].map(tests::nstat::retransmits);
        let data = peer::bytes(200_000, 3);
        assert_same(&peer::exchange(&lab.connect(at), &data), &data);
        server.join().unwrap();
        let after = [&lab.client, &lab.server].map(tests::nstat::retransmits);
        assert!(after[0] > before[0] && after[1] > before[1], "sent again: {before:?} {after:?}");
    }
}

#[test]
fn a_wire_that_loses_everything_carries_nothing_until_it_is_told_to_lose_nothing() {
    let lab = Lab::new();
    let at = SocketAddr::new(SERVER_V4, PORT);
    let server = peer::serve(peer::listen(&lab.server, at), 1, peer::echo);
    lab.lose(1000).unwrap();
    let lost = lab.client.enter(|| TcpStream::connect_timeout(&at, Duration::from_millis(100)));
    assert_eq!(lost.unwrap_err().kind(), std::io::ErrorKind::TimedOut);
    lab.lose(0).unwrap();
    assert_same(&peer::exchange(&lab.connect(at), b"repaired"), b"repaired");
    server.join().unwrap();
}

#[test]
fn a_hand_made_segment_reaches_the_wire_as_it_was_made() {
    let lab = Lab::new();
    let nobody = ([10, 77, 0, 99].into(), SERVER_V4);
    for (port, (source, destination)) in [(1234, nobody), (1235, (CLIENT_V6, SERVER_V6))] {
        let null = TcpHeader::new(port, 0, 42, 100);
        tests::raw::send_segment(&lab.client, source, SocketAddr::new(destination, PORT), null, b"xy");
        let captured = until("the segment", || lab.segments(|segment| segment.source.port() == port).pop());
        assert_eq!((captured.source.ip(), captured.destination.ip()), (source, destination));
        assert_eq!((captured.seq, captured.window, captured.length), (42, 100, 2));
        assert_eq!(captured.flags, tests::segment::Flags::default());
        assert!(captured.tcp_checksum_ok && captured.ip_checksum_ok, "{captured}");
    }
}

#[test]
fn a_lab_is_gone_after_a_panic() {
    let names = std::thread::spawn(|| {
        let lab = Lab::new();
        let name = lab.server.name().to_owned();
        std::panic::resume_unwind(Box::new(name));
    });
    let name = *names.join().unwrap_err().downcast::<String>().unwrap();
    assert!(name.starts_with("xtcp-"), "{name}");
    assert!(!std::path::Path::new("/run/netns").join(&name).exists(), "{name} is left behind");
    assert!(leftovers().iter().all(|leftover| !leftover.contains(&name)));
}

#[test]
fn sockets_made_inside_a_namespace_stay_there() {
    let lab = Lab::new();
    let listener = peer::listen(&lab.server, SocketAddr::new(SERVER_V4, 9));
    let at = listener.local_addr().unwrap();
    let server = peer::serve(listener, 1, peer::echo);
    assert_same(&peer::exchange(&lab.connect(at), b"inside"), b"inside");
    server.join().unwrap();
}
