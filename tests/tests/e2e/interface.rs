//! What happens to the interface under a running daemon: down and up, more and fewer queues, addresses that come and
//! go, and its end.

use std::net::SocketAddr;

use tests::Lab;
use tests::daemon::Daemon;
use tests::net::{SERVER_V4, WireOptions};
use tests::peer::{self, assert_same, bytes, round_trip};
use tests::wait::{End, until, until_it};

use crate::{CHARGEN, DISCARD, ECHO, server};

#[test]
fn connections_outlive_an_interface_that_is_down_for_a_while() {
    let lab = Lab::new();
    let mut daemon = lab.daemon().listen(SERVER_V4, ECHO, "echo").start();
    let name = lab.server.interface();
    let mut idle = lab.connect(server(ECHO));
    round_trip(&mut idle, b"before");
    while_it_talks(&lab, || {
        lab.server.ip(&format!("link set {name} down")).unwrap();
        daemon.wait_for_log(&[name, "is down"]);
        assert!(daemon.is_running());
        assert_eq!(daemon.connections(ECHO).len(), 2);
        lab.server.ip(&format!("link set {name} up")).unwrap();
        daemon.wait_for_log(&[name, "is up"]);
    });
    round_trip(&mut idle, b"after");
    assert_same(&peer::exchange(&lab.connect(server(ECHO)), b"a new one"), b"a new one");
}

#[test]
fn connections_fail_by_their_timers_while_the_interface_is_down() {
    let lab = Lab::new();
    let tcp = "user_timeout = \"300ms\"";
    let mut daemon = lab.daemon().listen(SERVER_V4, CHARGEN, "chargen").tcp(tcp).start();
    let name = lab.server.interface();
    let client = lab.connect(server(CHARGEN));
    std::thread::scope(|scope| {
        scope.spawn(|| std::io::copy(&mut &client, &mut std::io::sink()));
        until("a stream", || daemon.connections(CHARGEN).pop().filter(|row| row.number("bytes_out") > 100_000));
        lab.server.ip(&format!("link set {name} down")).unwrap();
        until_it("the connection's end", || daemon.connections(CHARGEN), |rows| rows.is_empty());
        lab.server.ip(&format!("link set {name} up")).unwrap();
        client.shutdown(std::net::Shutdown::Both).unwrap();
    });
    assert!(daemon.is_running());
    drop(lab.connect(server(CHARGEN)));
}

#[test]
fn an_interface_whose_peer_is_down_is_told_to_have_no_carrier() {
    let lab = Lab::new();
    let daemon = lab.daemon().listen(SERVER_V4, ECHO, "echo").start();
    let mut connection = lab.connect(server(ECHO));
    let (name, peer) = (lab.server.interface(), lab.client.interface());
    lab.client.ip(&format!("link set {peer} down")).unwrap();
    daemon.wait_for_log(&[name, "no carrier"]);
    lab.client.ip(&format!("link set {peer} up")).unwrap();
    daemon.wait_for_log(&[name, "is up"]);
    round_trip(&mut connection, b"after");
}

#[test]
fn an_interface_that_is_deleted_ends_the_daemon_with_a_line_that_says_so() {
    let lab = Lab::new();
    let mut daemon = lab.daemon().listen(SERVER_V4, ECHO, "echo").start();
    let mut connection = lab.connect(server(ECHO));
    round_trip(&mut connection, b"before");
    lab.server.ip(&format!("link del {}", lab.server.interface())).unwrap();
    assert_eq!(daemon.wait().code(), Some(1));
    let last = daemon.log().pop().expect("a line");
    assert!(last.contains(lab.server.interface()) && last.contains("is gone"), "{last}");
    assert!(!daemon.pin_path().exists(), "{} is left behind", daemon.pin_path().display());
}

#[test]
fn another_number_of_queues_is_told_and_what_works_goes_on_working() {
    let lab = Lab::with(&WireOptions { queues: 3, ..WireOptions::default() });
    let queues = |count: u32| {
        lab.client.run(&format!("ethtool -L {} tx {count}", lab.client.interface())).map(drop)?;
        lab.server.run(&format!("ethtool -L {} rx {count}", lab.server.interface())).map(drop)
    };
    queues(2).unwrap();
    let daemon = lab.daemon().listen(SERVER_V4, ECHO, "echo").start();
    let name = lab.server.interface();
    while_it_talks(&lab, || {
        // The kernel does not take away a queue that has an AF_XDP socket.
        lab.server.run(&format!("ethtool -L {name} rx 1")).unwrap_err();
        lab.server.run(&format!("ethtool -L {name} rx 3")).unwrap();
        daemon.wait_for_log(&[name, "3 RX queues", "queues 0 to 1"]);
        assert_same(&peer::exchange(&lab.connect(server(ECHO)), b"as before"), b"as before");
        queues(2).unwrap();
        daemon.wait_for_log(&[name, "2 RX queues again"]);
    });
    assert_same(&peer::exchange(&lab.connect(server(ECHO)), b"after"), b"after");
}

#[test]
fn an_address_that_goes_and_comes_back_takes_its_connections_along() {
    let lab = Lab::new();
    let wildcard: SocketAddr = ([0, 0, 0, 0], DISCARD).into();
    let daemon = lab.daemon().listen(SERVER_V4, ECHO, "echo").listen_with(wildcard, "service = \"echo\"").start();
    let mut connections = [ECHO, DISCARD].map(|port| lab.connect(server(port)));
    connections.iter_mut().for_each(|connection| round_trip(connection, b"before"));
    let address = format!("{SERVER_V4}/24 dev {}", lab.server.interface());
    lab.server.ip(&format!("address del {address}")).unwrap();
    wait_for_address(&daemon, false);
    lab.server.ip(&format!("address add {address}")).unwrap();
    wait_for_address(&daemon, true);
    connections.iter_mut().for_each(|connection| round_trip(connection, b"after"));
    for port in [ECHO, DISCARD] {
        assert_same(&peer::exchange(&lab.connect(server(port)), b"a new one"), b"a new one");
    }
}

#[test]
fn a_stream_goes_on_when_its_peer_gets_another_mac_address() {
    let lab = Lab::new();
    let _daemon = lab.daemon().listen(SERVER_V4, ECHO, "echo").start();
    let connection = lab.connect(server(ECHO));
    let data = bytes(20_000_000, 60);
    std::thread::scope(|scope| {
        let mover = scope.spawn(|| {
            for last in 0..10 {
                lab.client
                    .ip(&format!("link set {} address 02:77:00:00:00:{last:02x}", lab.client.interface()))
                    .unwrap();
            }
        });
        assert_same(&peer::exchange(&connection, &data), &data);
        assert!(mover.is_finished(), "the stream was over too early; the test did not test anything");
    });
}

/// Does `work` while a connection to the echo service goes back and forth, and sees that it still does afterwards.
fn while_it_talks(lab: &Lab, work: impl FnOnce()) {
    let mut talk = lab.connect(server(ECHO));
    let end = End::default();
    std::thread::scope(|scope| {
        let _end = end.comes();
        scope.spawn(|| {
            let mut numbers = 0_u32..;
            while !end.has_come() {
                round_trip(&mut talk, &numbers.next().expect("not so many").to_be_bytes());
            }
            round_trip(&mut talk, b"to the end");
        });
        work();
    });
}

/// Waits until the addresses that the daemon has told last are (not) to include the server's.
fn wait_for_address(daemon: &Daemon, is_there: bool) {
    let told = || daemon.log().into_iter().rfind(|line| line.contains("addresses now"));
    let what = if is_there { "the address to come" } else { "the address to go" };
    until_it(what, told, |line| line.as_ref().is_some_and(|line| line.contains("10.77.0.2") == is_there));
}
