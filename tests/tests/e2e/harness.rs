//! The harness itself, with a kernel TCP server in place of the daemon: a later failure is the daemon's.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use etherparse::TcpHeader;
use tests::Lab;
use tests::impairment::Impairment;
use tests::net::{CLIENT_V6, SERVER_V4, SERVER_V6, WireOptions, leftovers, remove_labs_of};
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

/// In its environment a process of this program is told to make a lab and wait for its end.
const DOOMED: &str = "XTCP_TEST_DOOMED";

#[test]
fn what_a_killed_process_leaves_of_its_labs_can_be_removed() {
    if std::env::var_os(DOOMED).is_some() {
        let lab = Lab::new();
        let daemon = lab.daemon().listen(SERVER_V4, PORT, "echo").start();
        println!("daemon {}.", daemon.pid());
        loop {
            std::thread::park();
        }
    }
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "harness::what_a_killed_process_leaves_of_its_labs_can_be_removed", "--nocapture"]);
    let mut child = child.env(DOOMED, "1").stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let daemon = lines.find_map(|line| Some(line.split_once("daemon ")?.1.split_once('.')?.0.to_owned()));
    let daemon = PathBuf::from("/proc").join(daemon.expect("it says so"));
    child.kill().unwrap();
    child.wait().unwrap();
    let own = |left: Vec<String>| left.into_iter().filter(|name| name.contains(&child.id().to_string())).count();
    assert_eq!((own(leftovers()), daemon.exists()), (3, true), "two namespaces and pins");
    assert_eq!(own(remove_labs_of(child.id()).unwrap()), 3);
    assert_eq!(own(leftovers()), 0);
    until("the daemon's end", || (!is_running(&daemon)).then_some(()));
}

/// Whether a process runs: nobody may care for the end of an orphan.
fn is_running(process: &Path) -> bool {
    let status = std::fs::read_to_string(process.join("status")).unwrap_or_default();
    status.lines().any(|line| line.starts_with("State:") && !line.contains("zombie"))
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
