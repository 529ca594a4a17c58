//! What draws an answer without any connection's help, whoever gives it: the daemon, or the XDP program for it
//! (`xdp_tx`). The counters of the program's verdicts say who it was.

use std::io::{ErrorKind, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};

use etherparse::{TcpHeader, TcpOptionElement};
use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
use tests::Lab;
use tests::daemon::{Connection, Daemon};
use tests::maps::Entry;
use tests::net::{CLIENT_V4, CLIENT_V6, EPHEMERAL_PORTS};
use tests::peer;
use tests::raw::send_segment;
use tests::segment::Segment;
use tests::wait::{until, until_it};

use crate::cookies::{By, verdict};
use crate::{DAYTIME, ECHO, SERVERS, server};

/// Port of a stranger.
const STRANGER: u16 = 5555;

/// Waits until the program has answered `count` segments in this way, or, if it is not to, none.
fn assert_answered(by: By, daemon: &Daemon, name: &str, count: u64) {
    match by {
        By::Program => drop(until_it(name, || verdict(daemon, name), |answered| *answered == count)),
        By::Daemon => assert_eq!(verdict(daemon, name), 0, "{name}"),
    }
}

/// What the server sent to a port of the client.
fn sent_to(lab: &Lab, port: u16) -> Vec<Segment> {
    lab.segments(|segment| segment.destination.port() == port)
}

fn client_of(server: IpAddr) -> IpAddr {
    if server.is_ipv4() { CLIENT_V4 } else { CLIENT_V6 }
}

/// Sends an ACK of no connection.
fn send_stray_ack(lab: &Lab, port: u16, to: SocketAddr) {
    let ack = TcpHeader { ack: true, acknowledgment_number: 4242, ..TcpHeader::new(port, 0, 1, 100) };
    send_segment(&lab.client, client_of(to.ip()), to, ack, b"");
}

fn refused_is_who_knocks_where_nobody_listens(by: By) {
    let lab = Lab::new();
    let daemon = SERVERS.iter().fold(by.daemon(&lab), |daemon, address| daemon.listen(*address, ECHO, "echo")).start();
    for address in SERVERS {
        let nobody = SocketAddr::new(address, *EPHEMERAL_PORTS.start());
        let refused = lab.client.enter(|| TcpStream::connect(nobody)).expect_err("nobody listens");
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        send_stray_ack(&lab, STRANGER, SocketAddr::new(address, ECHO));
        let from_server = |segment: &Segment| segment.source.ip() == address;
        let reset = until("the reset", || sent_to(&lab, STRANGER).into_iter().find(from_server));
        assert!(reset.flags.rst && !reset.flags.ack && reset.seq == 4242, "{reset}");
    }
    assert_answered(by, &daemon, "answer_reset", 4);
}

fn silence_is_kept_where_it_is_configured(by: By) {
    let lab = Lab::new();
    let quiet = "service = \"echo\"\ntcp = { no_connection = \"drop\" }";
    let daemon = by.daemon(&lab).listen_with(server(ECHO), quiet).listen(SERVERS[1], ECHO, "echo").start();
    send_stray_ack(&lab, STRANGER, server(ECHO));
    // The answer to the one after it proves that there is none to the first.
    send_stray_ack(&lab, STRANGER + 1, SocketAddr::new(SERVERS[1], ECHO));
    until("a reset", || sent_to(&lab, STRANGER + 1).pop());
    assert_eq!(sent_to(&lab, STRANGER), []);
    assert_answered(by, &daemon, "answer_reset", 1);
}

fn resets_are_no_more_than_configured(by: By) {
    let lab = Lab::new();
    let daemon = by.daemon(&lab).line("rst_rate = 1").listen(SERVERS[0], ECHO, "echo").start();
    (0..500).for_each(|number| send_stray_ack(&lab, STRANGER + number, server(ECHO)));
    peer::round_trip(&mut lab.connect(server(ECHO)), b"after all of them");
    let resets = lab.segments(|segment| segment.flags.rst).len();
    // One at once, and one in a second (the program: for each CPU); and no fewer than one.
    assert!((1..=50).contains(&resets), "{resets} resets");
    match by {
        By::Program => assert_eq!(verdict(&daemon, "answer_reset"), resets as u64),
        By::Daemon => assert_eq!(verdict(&daemon, "answer_reset"), 0),
    }
}

fn none_is_reset_if_none_shall_be(by: By) {
    let lab = Lab::new();
    let daemon = by.daemon(&lab).line("rst_rate = 0").listen(SERVERS[0], ECHO, "echo").start();
    (0..10).for_each(|number| send_stray_ack(&lab, STRANGER + number, server(ECHO)));
    peer::round_trip(&mut lab.connect(server(ECHO)), b"after all of them");
    assert_eq!(lab.segments(|segment| segment.flags.rst), []);
    assert_answered(by, &daemon, "answer_reset", 0);
}

/// The map is the truth: the next segment, data here, belongs to no connection.
fn a_connection_whose_entry_is_deleted_is_reset(by: By) {
    let lab = Lab::new();
    let daemon = by.daemon(&lab).listen(SERVERS[0], ECHO, "echo").start();
    let mut connection = lab.connect(server(ECHO));
    peer::round_trip(&mut connection, b"x");
    let client = connection.local_addr().expect("it is connected");
    // The daemon has written what there is to write once the figures are up to date.
    let find = || daemon.maps().connection(server(ECHO), client).filter(|entry| entry.number("bytes_out") == 1);
    let entry = until("the figures", find);
    daemon.maps().delete_connection(&entry);
    connection.write_all(b"y").expect("the client knows nothing yet");
    let mut ends = || peer::read(&connection, &mut [0; 8]).err();
    assert_eq!(until("the end", &mut ends).kind(), ErrorKind::ConnectionReset);
    until_it("no connection", || daemon.connections(ECHO), Vec::is_empty);
}

/// A connection in TIME_WAIT, and what a peer knows of it.
struct Closed {
    client: SocketAddr,
    row: Connection,
    entry: Entry,
}

impl Closed {
    fn new(lab: &Lab, daemon: &Daemon) -> Closed {
        let connection = lab.connect(server(DAYTIME));
        let client = connection.local_addr().expect("it is connected");
        let _ = peer::read_to_end(&connection);
        drop(connection);
        let row = daemon.wait_for_state(DAYTIME, &["TIME_WAIT"]);
        let find = || daemon.maps().connection(server(DAYTIME), client).filter(|entry| entry.state() == "TIME_WAIT");
        let entry = until("its entry", find);
        Closed { client, row, entry }
    }

    fn rcv_nxt(&self) -> u32 {
        self.row.number("rcv_nxt") as u32
    }

    /// Sends a segment of the connection: `seq` beyond RCV.NXT, and a timestamp so much beyond TS.Recent.
    fn send(&self, lab: &Lab, shape: fn(&mut TcpHeader), seq: i32, stamp: i32) {
        let seq = self.rcv_nxt().wrapping_add_signed(seq);
        let mut tcp = TcpHeader::new(self.client.port(), 0, seq, 60_000);
        shape(&mut tcp);
        if tcp.ack {
            tcp.acknowledgment_number = self.row.number("snd_nxt") as u32;
        }
        let value = (self.entry.number("ts_recent") as u32).wrapping_add_signed(stamp);
        let timestamps = TcpOptionElement::Timestamp(value, 0);
        // The checker takes what a SYN offers for what is agreed.
        let options = if tcp.syn { vec![timestamps, TcpOptionElement::WindowScale(7)] } else { vec![timestamps] };
        tcp.set_options(&options).expect("there is room");
        send_segment(&lab.client, CLIENT_V4, server(DAYTIME), tcp, b"");
    }
}

fn time_wait_acknowledges_what_is_repeated_and_nothing_else(by: By) {
    let lab = Lab::new();
    let daemon = by.daemon(&lab).listen(SERVERS[0], DAYTIME, "daytime").tcp("msl = \"60s\"").start();
    let closed = Closed::new(&lab, &daemon);
    let before = sent_to(&lab, closed.client.port()).len();
    let answers = || sent_to(&lab, closed.client.port()).split_off(before);
    closed.send(&lab, |tcp| tcp.rst = true, 0, 0);
    closed.send(&lab, |tcp| (tcp.rst, tcp.ack) = (true, true), 0, 0);
    closed.send(&lab, |tcp| (tcp.fin, tcp.ack) = (true, true), -1, 0);
    until_it("the answer to the FIN", answers, |answers| answers.len() == 1);
    closed.send(&lab, |tcp| tcp.syn = true, -100, -1);
    until_it("the answer to the old SYN", answers, |answers| answers.len() == 2);
    for answer in answers() {
        assert!(answer.flags.ack && !answer.flags.rst && !answer.flags.syn, "{answer}");
        assert_eq!((answer.ack, answer.seq), (closed.rcv_nxt(), closed.row.number("snd_nxt") as u32), "{answer}");
        let echo = answer.timestamps.map(|(_, echo)| u64::from(echo));
        assert_eq!(echo, Some(closed.entry.number("ts_recent")), "{answer}");
    }
    assert_answered(by, &daemon, "answer_time_wait", 2);
    let entry = daemon.maps().connection(closed.entry.local(), closed.client).expect("it stays in TIME_WAIT");
    let (then, now) = (closed.entry.number("deadline_ns"), entry.number("deadline_ns"));
    if matches!(by, By::Program) {
        assert!(now > then, "TIME_WAIT began anew: from {then} to {now}");
        assert_eq!(verdict(&daemon, "answer_cookie"), 0);
    }
}

fn a_new_syn_reopens_time_wait(by: By) {
    let lab = Lab::new();
    let daemon = by.daemon(&lab).listen(SERVERS[0], DAYTIME, "daytime").tcp("msl = \"60s\"").start();
    let closed = Closed::new(&lab, &daemon);
    let again = lab.client.enter(|| {
        let socket = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
        bind(&socket, &closed.client).expect("the client has no TIME_WAIT");
        connect(&socket, &server(DAYTIME)).expect("the server takes the same port again");
        TcpStream::from(socket)
    });
    assert!(!peer::read_to_end(&again).is_empty());
    assert_eq!(again.local_addr().expect("it was connected"), closed.client);
    assert_answered(by, &daemon, "answer_time_wait", 0);
}

/// Each test once for everybody who may answer.
macro_rules! for_each_answerer {
    ($by:ident $module:ident: $($test:ident)*) => {
        mod $module {
            use super::By;

            $(
                #[test]
                fn $test() {
                    super::$test(By::$by);
                }
            )*
        }
    };
    ($($test:ident)*) => {
        for_each_answerer!(Daemon by_the_daemon: $($test)*);
        for_each_answerer!(Program by_the_program: $($test)*);
    };
}

for_each_answerer! {
    refused_is_who_knocks_where_nobody_listens
    silence_is_kept_where_it_is_configured
    resets_are_no_more_than_configured
    none_is_reset_if_none_shall_be
    a_connection_whose_entry_is_deleted_is_reset
    time_wait_acknowledges_what_is_repeated_and_nothing_else
    a_new_syn_reopens_time_wait
}
