//! SYN cookies (RFC 4987 section 3.6), whoever issues them: the daemon, or the XDP program for it (`xdp_tx`). The client
//! is the kernel's TCP, which must not be able to tell.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use etherparse::TcpHeader;
use serde_json::Value;
use tcp_common::gauge::WINDOW_NS;
use tcp_common::layout::FLAG_COOKIE;
use tcp_common::{ConnectionKey, State};
use tests::Lab;
use tests::daemon::{Daemon, DaemonBuilder};
use tests::net::WireOptions;
use tests::peer;
use tests::raw::send_segment;
use tests::wait::{until, until_it};

use crate::{DAYTIME, ECHO, SERVERS, server};

/// An address that nobody has: what is sent to it vanishes.
const SILENT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 60));
/// SYNs of a flood.
const FLOOD: u16 = 2000;
/// The program's clock stops between timer ticks: it is so late at most, ns.
const CLOCK_LAG_NS: u64 = 10_000_000;

/// Who answers SYNs with cookies.
#[derive(Clone, Copy)]
pub enum By {
    Daemon,
    Program,
}

impl By {
    /// A daemon that is to be given listeners.
    pub fn daemon(self, lab: &Lab) -> DaemonBuilder<'_> {
        match self {
            By::Daemon => lab.daemon().line("xdp_tx = \"off\""),
            By::Program => lab.daemon_with_answers(),
        }
    }
}

fn listening<'lab>(by: By, lab: &'lab Lab, cookies: &str) -> DaemonBuilder<'lab> {
    let lines = format!("service = \"echo\"\ntcp = {{ syn_backlog = 8, syn_cookies = \"{cookies}\" }}");
    SERVERS.iter().fold(by.daemon(lab), |daemon, address| daemon.listen_with((*address, ECHO).into(), &lines))
}

fn send(lab: &Lab, port: u16, shape: impl FnOnce(&mut TcpHeader), payload: &[u8]) {
    let mut segment = TcpHeader::new(port, 0, 1000, 60_000);
    shape(&mut segment);
    send_segment(&lab.client, SILENT, server(ECHO), segment, payload);
}

/// A SYN that nobody will answer the SYN-ACK of.
fn send_syn(lab: &Lab, port: u16) {
    send(lab, port, |segment| segment.syn = true, b"");
}

fn cookies(daemon: &Daemon, field: &str) -> u64 {
    daemon.stats()["cookies"][field].as_u64().expect("a number")
}

pub fn verdict(daemon: &Daemon, name: &str) -> u64 {
    daemon.stats()["verdicts"][name].as_u64().expect("a number")
}

fn listener(daemon: &Daemon) -> Value {
    daemon.stats()["listeners"][0].clone()
}

fn always_serves_a_kernel_client_with_all_options(by: By) {
    let lab = Lab::new();
    let daemon = listening(by, &lab, "always").start();
    let data = peer::bytes(300_000, 1);
    for (number, address) in (1..).zip(SERVERS) {
        let connection = lab.connect((address, ECHO));
        peer::assert_same(&peer::exchange(&connection, &data), &data);
        assert_eq!([cookies(&daemon, "sent"), cookies(&daemon, "ok")], [number, number]);
        let by_program = if matches!(by, By::Program) { number } else { 0 };
        let verdicts = ["answer_cookie", "steer_cookie"].map(|name| verdict(&daemon, name));
        assert_eq!(verdicts, [by_program; 2], "{address}");
    }
    assert_eq!(listener(&daemon)["syn_queue_max"], 0);
    let syn_acks = lab.segments(|segment| segment.flags.syn && segment.flags.ack);
    assert_eq!(syn_acks.len(), 2);
    for answer in syn_acks {
        let agreed = (answer.window_scale.is_some(), answer.sack_permitted, answer.timestamps.is_some());
        assert_eq!(agreed, (true, true, true), "{answer:?}");
        // The window that was scaled is the one that the client uses: 300 kB went through.
        assert!(answer.mss.is_some_and(|mss| mss == 1460 || mss == 1440));
    }
}

fn always_serves_those_who_wait_for_the_server_to_speak(by: By) {
    let lab = Lab::with(&WireOptions { queues: 2, ..WireOptions::default() });
    let lines = "service = \"daytime\"\ntcp = { syn_cookies = \"always\" }";
    let daemon = by.daemon(&lab).listen_with(server(DAYTIME), lines).start();
    for served in 1..=10 {
        assert!(!peer::read_to_end(&lab.connect(server(DAYTIME))).is_empty());
        assert_eq!(cookies(&daemon, "ok"), served);
    }
}

#[test]
fn the_daemon_sends_cookies_while_its_syn_queue_is_full() {
    let lab = Lab::new();
    let daemon = listening(By::Daemon, &lab, "auto").start();
    (1..=8).for_each(|port| send_syn(&lab, port));
    until_it("a full SYN queue", || listener(&daemon), |listener| listener["syn_queue"] == 8);
    assert_eq!((cookies(&daemon, "sent"), &listener(&daemon)["cookie_mode"]), (0, &"on".into()));
    let mut connection = lab.connect(server(ECHO));
    peer::round_trip(&mut connection, b"there is no room, and none is needed");
    assert_eq!([cookies(&daemon, "sent"), cookies(&daemon, "ok")], [1, 1]);
    daemon.wait_for_log(&["INFO", "SYN cookies on for 10.77.0.2:7: its SYN queue is full"]);
    (1..=8).for_each(|port| {
        send(&lab, port, |segment| (segment.rst, segment.sequence_number) = (true, 1001), b"");
    });
    until_it("an empty SYN queue", || listener(&daemon), |listener| listener["syn_queue"] == 0);
    let row = listener(&daemon);
    assert_eq!((&row["cookie_mode"], &row["overflows"]), (&"off".into(), &0.into()), "{row:#}");
    peer::round_trip(&mut connection, b"and it stays");
}

fn a_flood_keeps_no_client_out(by: By) {
    let lab = Lab::new();
    let daemon = listening(by, &lab, "auto").start();
    std::thread::scope(|scope| {
        let flood = scope.spawn(|| (1..=FLOOD).for_each(|port| send_syn(&lab, port)));
        until_it("cookies", || cookies(&daemon, "sent"), |sent| *sent > 0);
        for _ in 0..20 {
            peer::round_trip(&mut lab.connect(server(ECHO)), b"under a flood");
        }
        flood.join().expect("the flood ends");
    });
    let all = |sent: &u64| *sent >= u64::from(FLOOD) - 8;
    until_it("an answer to every SYN", || cookies(&daemon, "sent"), all);
    assert!(cookies(&daemon, "ok") > 0);
    let row = listener(&daemon);
    // The program begins before the queue is full.
    assert!(row["syn_queue_max"].as_u64().is_some_and(|length| length <= 8), "{row:#}");
    assert_eq!(row["syn_overflows"], 0, "{row:#}");
}

fn a_made_up_ack_is_reset_and_made_up_data_vanish(by: By) {
    let lab = Lab::new();
    let daemon = listening(by, &lab, "always").start();
    let forged = |segment: &mut TcpHeader| {
        (segment.ack, segment.acknowledgment_number) = (true, 77);
    };
    send(&lab, 1, forged, b"");
    until_it("one bad cookie", || cookies(&daemon, "bad"), |bad| *bad == 1);
    send(&lab, 2, forged, b"GET / HTTP/1.0\r\n\r\n");
    until_it("another", || cookies(&daemon, "bad"), |bad| *bad == 2);
    // Whatever is sent after both proves that nothing more comes of them.
    peer::round_trip(&mut lab.connect(server(ECHO)), b"a real one");
    let reset: Vec<SocketAddr> =
        lab.segments(|segment| segment.flags.rst).iter().map(|reset| reset.destination).collect();
    assert_eq!(reset, [SocketAddr::new(SILENT, 1)]);
    assert_eq!(cookies(&daemon, "ok"), 1);
}

/// As large as the first message of a TLS client, in two segments that follow the ACK at once.
fn a_request_right_behind_the_handshake_arrives_whole(by: By) {
    let lab = Lab::new();
    let daemon = listening(by, &lab, "always").start();
    for round in 1..=10 {
        for address in SERVERS {
            let request = peer::bytes(1800, round);
            peer::assert_same(&peer::exchange(&lab.connect((address, ECHO)), &request), &request);
        }
        assert_eq!(cookies(&daemon, "ok"), 2 * round);
    }
    assert_eq!(cookies(&daemon, "bad"), 0);
}

fn a_request_in_the_ack_itself_arrives(by: By) {
    let lab = Lab::new();
    let daemon = listening(by, &lab, "always").start();
    let answers = |syn| {
        lab.segments(|segment| {
            segment.source == server(ECHO) && segment.flags.syn == syn && (syn || segment.length > 0)
        })
    };
    send_syn(&lab, 9);
    let syn_ack = until("a SYN-ACK", || answers(true).pop());
    let comes_back = |segment: &mut TcpHeader| {
        (segment.sequence_number, segment.ack, segment.psh) = (syn_ack.ack, true, true);
        segment.acknowledgment_number = syn_ack.seq.wrapping_add(1);
    };
    send(&lab, 9, comes_back, b"no ACK before me");
    let echo = until("the echo", || answers(false).pop());
    assert_eq!((echo.ack, echo.length), (syn_ack.ack.wrapping_add(16), 16), "{echo}");
    assert_eq!([cookies(&daemon, "sent"), cookies(&daemon, "ok"), cookies(&daemon, "bad")], [1, 1, 0]);
}

/// The program counts: it turns to cookies while the SYN queue still has room.
#[test]
fn the_program_turns_to_cookies_when_syns_come_faster_than_the_queue_could_take_them() {
    let lab = Lab::new();
    let daemon = listening(By::Program, &lab, "auto").start();
    (1..=64).for_each(|port| send_syn(&lab, port));
    until_it("cookies", || cookies(&daemon, "sent"), |sent| *sent > 0);
    let row = listener(&daemon);
    assert_eq!((&row["cookie_mode"], &row["syn_overflows"]), (&"on".into(), &0.into()), "{row:#}");
    peer::round_trip(&mut lab.connect(server(ECHO)), b"answered by the program");
    assert_eq!(cookies(&daemon, "ok"), 1);
}

/// The daemon's word is enough: SYNs come too slowly for the program to begin by itself.
#[test]
fn the_program_sends_cookies_too_once_the_daemon_has_sent_one_because_its_syn_queue_was_full() {
    let lab = Lab::new();
    let daemon = listening(By::Program, &lab, "auto").start();
    // Four in a window are as many as the program takes for calm; two windows fill the queue.
    for half_open in [4, 8] {
        (half_open - 3..=half_open).for_each(|port| send_syn(&lab, port));
        until_it("half-open connections", || listener(&daemon), |listener| listener["syn_queue"] == half_open);
        std::thread::sleep(Duration::from_nanos(WINDOW_NS + CLOCK_LAG_NS));
    }
    assert_eq!(verdict(&daemon, "answer_cookie"), 0);
    for (port, by_program) in [(9, 0), (10, 1)] {
        send_syn(&lab, port);
        until_it("a cookie", || cookies(&daemon, "sent"), |sent| *sent == by_program + 1);
        assert_eq!(verdict(&daemon, "answer_cookie"), by_program);
    }
    for (returned, port) in (1..).zip([9, 10]) {
        let syn_ack = until("a SYN-ACK", || lab.segments(|segment| segment.destination.port() == port).pop());
        let comes_back = |segment: &mut TcpHeader| {
            (segment.sequence_number, segment.ack) = (syn_ack.ack, true);
            segment.acknowledgment_number = syn_ack.seq.wrapping_add(1);
        };
        send(&lab, port, comes_back, b"");
        until_it("the cookie back", || cookies(&daemon, "ok"), |ok| *ok == returned);
    }
    assert_eq!((verdict(&daemon, "steer_cookie"), cookies(&daemon, "bad")), (2, 0));
    let by_itself = daemon.log().into_iter().filter(|line| line.contains("too many SYNs"));
    assert_eq!(by_itself.collect::<Vec<_>>(), [""; 0]);
}

/// As when the segment that brought a cookie back is lost between the program and the daemon.
#[test]
fn an_entry_of_the_programs_without_connection_is_swept_up_and_those_with_one_stay() {
    let lab = Lab::new();
    let daemon = listening(By::Program, &lab, "always").start();
    let of_a_silent_peer = ConnectionKey::new(server(ECHO), SocketAddr::new(SILENT, 9));
    let (mut key, mut value) = ([0; 40], [0; 64]);
    key[..16].copy_from_slice(&of_a_silent_peer.local_addr);
    key[16..32].copy_from_slice(&of_a_silent_peer.remote_addr);
    key[32..34].copy_from_slice(&of_a_silent_peer.local_port.to_ne_bytes());
    key[34..36].copy_from_slice(&of_a_silent_peer.remote_port.to_ne_bytes());
    // Made by the program, when the clock showed 1 ns.
    (value[0], value[1]) = (State::SYN_RCVD as u8, FLAG_COOKIE);
    value[16..24].copy_from_slice(&1u64.to_ne_bytes());
    daemon.maps().put_connection(&key, &value);
    assert_eq!(daemon.maps().connections().len(), 1);
    let mut connection = lab.connect(server(ECHO));
    peer::round_trip(&mut connection, b"a cookie came back");
    let rows = || daemon.maps().connections().iter().map(tests::maps::Entry::remote).collect::<Vec<_>>();
    let own = connection.local_addr().expect("an address");
    until_it("one entry", rows, |remotes| *remotes == [own]);
    peer::round_trip(&mut connection, b"and stayed");
}

/// Each test once for everybody who may answer.
macro_rules! for_each_answerer {
    ($($by:ident $module:ident),*) => { $(
        mod $module {
            use super::By;

            #[test]
            fn always_serves_a_kernel_client_with_all_options() {
                super::always_serves_a_kernel_client_with_all_options(By::$by);
            }

            #[test]
            fn always_serves_those_who_wait_for_the_server_to_speak() {
                super::always_serves_those_who_wait_for_the_server_to_speak(By::$by);
            }

            #[test]
            fn a_flood_keeps_no_client_out() {
                super::a_flood_keeps_no_client_out(By::$by);
            }

            #[test]
            fn a_request_right_behind_the_handshake_arrives_whole() {
                super::a_request_right_behind_the_handshake_arrives_whole(By::$by);
            }

            #[test]
            fn a_request_in_the_ack_itself_arrives() {
                super::a_request_in_the_ack_itself_arrives(By::$by);
            }

            #[test]
            fn a_made_up_ack_is_reset_and_made_up_data_vanish() {
                super::a_made_up_ack_is_reset_and_made_up_data_vanish(By::$by);
            }
        }
    )* };
}

for_each_answerer!(Daemon by_the_daemon, Program by_the_program);
