//! `xtcp connect`: active opens to kernel listeners in the client's namespace.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::Child;

use tests::Lab;
use tests::daemon::{Daemon, output};
use tests::net::{CLIENT_V4, CLIENT_V6, EPHEMERAL_PORTS, SERVER_V4};
use tests::peer::{self, assert_same, bytes};
use tests::raw::send_port_unreachable;
use tests::wait::until;

use crate::{ECHO, KERNEL};

#[test]
fn connect_carries_a_megabyte_each_way_and_ends_with_exit_code_0() {
    let lab = Lab::new();
    let daemon = lab.daemon().listen(SERVER_V4, ECHO, "echo").start();
    for address in [CLIENT_V4, CLIENT_V6] {
        let at = SocketAddr::new(address, KERNEL);
        let kernel = peer::serve(peer::listen(&lab.client, at), 1, peer::echo);
        let (data, mut connect) = (bytes(1_000_000, 9), daemon.connect(at));
        assert_same(&peer::exchange_through(&mut connect, &data), &data);
        assert_eq!(finish(connect), (Some(0), String::new()));
        kernel.join().unwrap();
    }
}

#[test]
fn the_source_port_is_an_ephemeral_one_and_the_address_the_servers() {
    let lab = Lab::new();
    let (_daemon, mut connect, connection) = established(&lab);
    let from = connection.peer_addr().unwrap();
    assert_eq!(from.ip(), SERVER_V4);
    assert!(EPHEMERAL_PORTS.contains(&from.port()), "{from}");
    drop(connect.stdin.take());
    drop(connection);
    finish(connect);
}

#[test]
fn the_end_of_stdin_is_a_half_close_and_the_answer_still_comes() {
    let lab = Lab::new();
    let (daemon, mut connect, mut connection) = established(&lab);
    connect.stdin.take().unwrap().write_all(b"question").unwrap();
    assert_eq!(peer::read_to_end(&connection), b"question");
    let local_port = connection.peer_addr().unwrap().port();
    daemon.wait_for_state(local_port, &["FIN_WAIT_2"]);
    connection.write_all(b"answer").unwrap();
    drop(connection);
    let mut answer = Vec::new();
    connect.stdout.take().unwrap().read_to_end(&mut answer).unwrap();
    assert_eq!(answer, b"answer");
    assert_eq!(finish(connect), (Some(0), String::new()));
    daemon.wait_for_state(local_port, &["TIME_WAIT"]);
}

#[test]
fn a_peer_that_closes_first_is_seen_in_close_wait_until_stdin_ends() {
    let lab = Lab::new();
    let (daemon, mut connect, connection) = established(&lab);
    connection.shutdown(Shutdown::Write).unwrap();
    let local_port = connection.peer_addr().unwrap().port();
    daemon.wait_for_state(local_port, &["CLOSE_WAIT"]);
    drop(connect.stdin.take());
    assert_eq!(peer::read_to_end(&connection), b"");
    assert_eq!(finish(connect), (Some(0), String::new()));
    daemon.wait_for_no_connection(local_port);
}

#[test]
fn a_refused_connection_is_exit_code_1_and_one_line() {
    let lab = Lab::new();
    let daemon = lab.daemon().listen(SERVER_V4, ECHO, "echo").start();
    for address in [CLIENT_V4, CLIENT_V6] {
        let at = SocketAddr::new(address, KERNEL);
        let refused = output(&mut daemon.client("connect", &[&at.to_string()]));
        assert_one_line(&refused, &[&at.to_string(), "refused"]);
    }
}

#[test]
fn a_reset_connection_is_exit_code_1_and_one_line() {
    let lab = Lab::new();
    let (_daemon, mut connect, mut connection) = established(&lab);
    let mut stdin = connect.stdin.take().unwrap();
    stdin.write_all(b"never read").unwrap();
    until("data that nobody reads", || (connection.peek(&mut [0]).ok()? > 0).then_some(()));
    connection.flush().unwrap();
    drop(connection);
    let (code, stderr) = finish(connect);
    drop(stdin);
    assert_eq!((code, stderr.lines().count()), (Some(1), 1), "{stderr}");
    assert!(stderr.contains("reset"), "{stderr}");
}

#[test]
fn a_peer_that_does_not_answer_times_out_after_the_configured_retries() {
    let lab = Lab::new();
    let nobody = silent_neighbour(&lab);
    let tcp = "syn_retries = 1\ninitial_rto = \"300ms\"";
    let daemon = lab.daemon().listen(SERVER_V4, ECHO, "echo").tcp(tcp).start();
    let at = format!("{nobody}:{KERNEL}");
    let connect = daemon.connect(at.parse().unwrap());
    let trying = until("a row in SYN_SENT", || daemon.rows().into_iter().find(|row| row.state == "SYN_SENT"));
    assert_eq!(trying.remote, at);
    let (code, stderr) = finish(connect);
    assert_eq!((code, stderr.lines().count()), (Some(1), 1), "{stderr}");
    assert!(stderr.contains(&at), "{stderr}");
    let syns = lab.segments(|segment| segment.destination.to_string() == at);
    assert_eq!(syns.len(), 2, "{syns:#?}");
    assert!(syns.iter().all(|segment| segment.flags.syn && segment.mss == Some(1460)), "{syns:#?}");
}

#[test]
fn an_icmp_error_about_our_syn_ends_the_open_and_one_about_nothing_of_ours_does_not() {
    let lab = Lab::new();
    let nobody = silent_neighbour(&lab);
    let daemon = lab.daemon().listen(SERVER_V4, ECHO, "echo").start();
    let at = format!("{nobody}:{KERNEL}");
    let mut connect = daemon.connect(at.parse().unwrap());
    let syn = until("the SYN", || lab.segments(|segment| segment.destination.to_string() == at).pop());
    let mut other = syn.clone();
    other.destination.set_port(KERNEL + 1);
    let passed = daemon.maps().counter("pass");
    send_port_unreachable(&lab.client, &other);
    until("the other error to pass", || (daemon.maps().counter("pass") > passed).then_some(()));
    assert_eq!((daemon.maps().counter("steer_icmp"), connect.try_wait().unwrap()), (0, None));
    send_port_unreachable(&lab.client, &syn);
    let (code, stderr) = finish(connect);
    assert_eq!((code, stderr.lines().count()), (Some(1), 1), "{stderr}");
    assert_eq!((daemon.maps().counter("steer_icmp"), daemon.maps().counter("icmp")), (1, 1));
}

#[test]
fn a_peer_behind_a_gateway_is_reached_through_it() {
    let lab = Lab::new();
    lab.client.ip("address add 10.88.0.1/32 dev lo").unwrap();
    lab.server.ip(&format!("route add 10.88.0.0/24 via {CLIENT_V4}")).unwrap();
    let daemon = lab.daemon().listen(SERVER_V4, ECHO, "echo").start();
    let at: SocketAddr = "10.88.0.1:2222".parse().unwrap();
    let kernel = peer::serve(peer::listen(&lab.client, at), 1, peer::echo);
    let mut connect = daemon.connect(at);
    connect.stdin.take().unwrap().write_all(b"far away").unwrap();
    let mut reply = String::new();
    connect.stdout.take().unwrap().read_to_string(&mut reply).unwrap();
    assert_eq!((reply.as_str(), finish(connect)), ("far away", (Some(0), String::new())));
    kernel.join().unwrap();
}

#[test]
fn an_address_without_neighbour_fails_with_one_line() {
    let lab = Lab::new();
    let daemon = lab.daemon().listen(SERVER_V4, ECHO, "echo").tcp("syn_retries = 2\ninitial_rto = \"500ms\"").start();
    let unreachable = output(&mut daemon.client("connect", &["10.77.0.51:2222"]));
    assert_one_line(&unreachable, &["10.77.0.51:2222"]);
}

#[test]
fn connect_without_a_daemon_says_where_it_looked() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("control.sock");
    let mut connect = tests::daemon::xtcp(["connect", "10.77.0.1:2222", "--control-socket"]);
    assert_one_line(&output(connect.arg(&socket)), &[&socket.display().to_string()]);
}

/// A daemon, an `xtcp connect` through it, and the kernel's end of the connection.
fn established(lab: &Lab) -> (Daemon, Child, TcpStream) {
    let daemon = lab.daemon().listen(SERVER_V4, ECHO, "echo").start();
    let at = SocketAddr::new(CLIENT_V4, KERNEL);
    let listener = peer::listen(&lab.client, at);
    let connect = daemon.connect(at);
    let connection = peer::accept(&listener);
    (daemon, connect, connection)
}

/// An address whose frames reach the client, which does not know it and stays silent.
fn silent_neighbour(lab: &Lab) -> &'static str {
    let nobody = "10.77.0.50";
    let mac = lab.client.mac().unwrap().map(|byte| format!("{byte:02x}")).join(":");
    lab.server.ip(&format!("neigh add {nobody} lladdr {mac} dev {}", lab.server.interface())).unwrap();
    nobody
}

/// Waits for the end; returns exit code and stderr.
fn finish(mut connect: Child) -> (Option<i32>, String) {
    let status = until("the end of xtcp connect", || connect.try_wait().unwrap());
    let mut stderr = String::new();
    connect.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    (status.code(), stderr)
}

fn assert_one_line(output: &std::process::Output, words: &[&str]) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), stderr.lines().count()), (Some(1), 1), "{output:?}");
    assert!(words.iter().all(|word| stderr.contains(word)), "{stderr} lacks one of {words:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
}
