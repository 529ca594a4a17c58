//! How connections end: half-close both ways, a client that dies, a client that resets.

use std::io::{Read, Write};
use std::net::Shutdown;

use tests::Lab;
use tests::net::SERVER_V4;
use tests::peer::{self, Program, assert_same, bytes};
use tests::wait::until;

use crate::{CHARGEN, DAYTIME, ECHO, PROXY, loopback, server};

const BACKEND: u16 = 8000;

#[test]
fn a_client_that_half_closes_still_receives_everything() {
    let lab = Lab::new();
    let backend = peer::listen(&lab.server, loopback(BACKEND));
    let daemon = lab.daemon().listen(SERVER_V4, PROXY, &format!("proxy:{}", loopback(BACKEND))).start();
    let mut client = lab.connect(server(PROXY));
    client.write_all(b"request").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut behind = peer::accept(&backend);
    assert_eq!(peer::read_to_end(&behind), b"request");
    daemon.wait_for_state(PROXY, &["CLOSE_WAIT"]);
    let answer = bytes(1_000_000, 8);
    let expected = answer.clone();
    let sender = std::thread::spawn(move || behind.write_all(&answer).unwrap());
    assert_same(&peer::read_to_end(&client), &expected);
    sender.join().unwrap();
    daemon.wait_for_no_connection(PROXY);
}

#[test]
fn a_server_that_closes_first_passes_through_fin_wait_2_to_time_wait() {
    let lab = Lab::new();
    let daemon = lab.daemon().listen(SERVER_V4, DAYTIME, "daytime").start();
    let client = lab.connect(server(DAYTIME));
    assert!(!peer::read_to_end(&client).is_empty());
    daemon.wait_for_state(DAYTIME, &["FIN_WAIT_2"]);
    drop(client);
    let row = daemon.wait_for_state(DAYTIME, &["TIME_WAIT"]);
    assert!(row.timers.contains_key("time_wait"), "{row:#?}");
}

#[test]
fn time_wait_ends_after_twice_the_configured_segment_lifetime() {
    let lab = Lab::new();
    let daemon = lab.daemon().listen(SERVER_V4, DAYTIME, "daytime").tcp("msl = \"700ms\"").start();
    drop(peer::read_to_end(&lab.connect(server(DAYTIME))));
    daemon.wait_for_state(DAYTIME, &["TIME_WAIT"]);
    until("the end of TIME_WAIT", || daemon.connections(DAYTIME).is_empty().then_some(()));
    until("the end of the map's entry", || daemon.maps().connections().is_empty().then_some(()));
}

#[test]
fn a_client_that_is_killed_with_data_unread_resets_the_connection() {
    let lab = Lab::new();
    let daemon = lab.daemon().listen(SERVER_V4, CHARGEN, "chargen").start();
    let mut client = client_program(&lab, CHARGEN, "sleep 1000");
    let row = daemon.wait_for_state(CHARGEN, &["ESTABLISHED"]);
    until("data that the client does not read", || {
        daemon.connections(CHARGEN).pop().filter(|row| row.number("bytes_out") > 0)
    });
    client.kill();
    until("the end of the connection", || daemon.connections(CHARGEN).is_empty().then_some(()));
    let resets = lab.segments(|segment| segment.flags.rst && segment.source.to_string() == row.remote);
    assert!(!resets.is_empty(), "the kernel sent no RST; the test did not test anything");
}

#[test]
fn a_client_that_is_killed_while_idle_closes_the_connection() {
    let lab = Lab::new();
    let daemon = lab.daemon().listen(SERVER_V4, ECHO, "echo").start();
    let mut client = client_program(&lab, ECHO, "sleep 1000");
    daemon.wait_for_state(ECHO, &["ESTABLISHED"]);
    client.kill();
    daemon.wait_for_no_connection(ECHO);
}

#[test]
fn a_reset_of_the_backend_reaches_the_client_as_a_reset() {
    let lab = Lab::new();
    let backend = peer::listen(&lab.server, loopback(BACKEND));
    let daemon = lab.daemon().listen(SERVER_V4, PROXY, &format!("proxy:{}", loopback(BACKEND))).start();
    let mut client = lab.connect(server(PROXY));
    client.write_all(b"never read").unwrap();
    let behind = peer::accept(&backend);
    until("data that the backend does not read", || (behind.peek(&mut [0]).ok()? > 0).then_some(()));
    drop(behind);
    let error = client.read_to_end(&mut Vec::new()).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    daemon.wait_for_no_connection(PROXY);
}

#[test]
fn a_segment_to_a_port_without_listener_is_the_kernels_to_refuse() {
    let lab = Lab::new();
    let _daemon = lab.daemon().listen(SERVER_V4, ECHO, "echo").start();
    let refused = lab.client.enter(|| std::net::TcpStream::connect(server(ECHO + 1))).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
}

/// A process that opens a connection and then does what `then` says, to be killed.
fn client_program(lab: &Lab, port: u16, then: &str) -> Program {
    let script = format!("exec 3<>/dev/tcp/{SERVER_V4}/{port}; exec {then}");
    Program::start(lab.client.command("bash").args(["-c", &script]))
}
