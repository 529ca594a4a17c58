//! Start and stop: drain, abort, sudden death, a second daemon, programs loaded without a daemon, nothing left behind.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;

use tests::Lab;
use tests::daemon::{output, pin_path, xtcp_binary};
use tests::maps::Maps;
use tests::net::SERVER_V4;
use tests::peer::{self, assert_same, round_trip};
use tests::wait::until;

use crate::{DAYTIME, ECHO, server};

#[test]
fn sigterm_refuses_new_connections_and_waits_for_open_ones() {
    let lab = Lab::new();
    let mut daemon = lab.daemon().listen(SERVER_V4, ECHO, "echo").start();
    let mut client = lab.connect(server(ECHO));
    round_trip(&mut client, b"before");
    daemon.terminate();
    until("new connections to be refused", || lab.client.enter(|| TcpStream::connect(server(ECHO))).err());
    round_trip(&mut client, b"while it drains");
    assert!(daemon.is_running(), "it did not wait for the open connection");
    assert_same(&peer::exchange(&client, b"last"), b"last");
    assert_eq!(daemon.wait().code(), Some(0));
    assert_nothing_left(&lab, daemon.pin_path());
}

#[test]
fn a_drain_does_not_wait_for_time_wait() {
    let lab = Lab::new();
    let mut daemon = lab.daemon().listen(SERVER_V4, DAYTIME, "daytime").tcp("msl = \"1h\"").start();
    drop(peer::read_to_end(&lab.connect(server(DAYTIME))));
    daemon.wait_for_state(DAYTIME, &["TIME_WAIT"]);
    daemon.terminate();
    assert_eq!(daemon.wait().code(), Some(0));
}

#[test]
fn a_drain_that_takes_too_long_resets_what_is_open() {
    let lab = Lab::new();
    let mut daemon = lab.daemon().line("drain_timeout = \"200ms\"").listen(SERVER_V4, ECHO, "echo").start();
    let mut client = lab.connect(server(ECHO));
    round_trip(&mut client, b"x");
    daemon.terminate();
    assert_reset(&mut client);
    daemon.wait();
}

#[test]
fn a_second_signal_aborts_the_drain() {
    let lab = Lab::new();
    let mut daemon = lab.daemon().listen(SERVER_V4, ECHO, "echo").start();
    let mut client = lab.connect(server(ECHO));
    round_trip(&mut client, b"x");
    daemon.terminate();
    until("the drain to begin", || lab.client.enter(|| TcpStream::connect(server(ECHO))).err());
    daemon.terminate();
    assert_reset(&mut client);
    daemon.wait();
    assert_nothing_left(&lab, daemon.pin_path());
}

#[test]
fn a_second_daemon_on_the_interface_is_refused_and_the_first_goes_on() {
    let lab = Lab::new();
    let _first = lab.daemon().listen(SERVER_V4, ECHO, "echo").start();
    let refusal = lab.daemon().listen(SERVER_V4, DAYTIME, "daytime").try_start().unwrap_err();
    assert!(refusal.code == Some(1) && refusal.stderr.len() == 1, "{refusal:#?}");
    assert!(refusal.stderr[0].contains(lab.server.interface()), "{refusal:#?}");
    assert_same(&peer::exchange(&lab.connect(server(ECHO)), b"first"), b"first");
}

#[test]
fn a_control_socket_that_a_live_daemon_serves_is_not_taken_over() {
    let (lab, other) = (Lab::new(), Lab::new());
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("shared.sock");
    let first = lab.daemon().control_socket(&socket).listen(SERVER_V4, ECHO, "echo").start();
    let refusal = other.daemon().control_socket(&socket).listen(SERVER_V4, ECHO, "echo").try_start().unwrap_err();
    assert!(refusal.code == Some(1) && refusal.stderr.len() == 1, "{refusal:#?}");
    assert!(refusal.stderr[0].contains("shared.sock"), "{refusal:#?}");
    assert_eq!(first.rows().len(), 1);
}

#[test]
fn a_daemon_starts_again_over_what_a_killed_one_left() {
    let lab = Lab::new();
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("kept.sock");
    let start = || lab.daemon().control_socket(&socket).listen(SERVER_V4, ECHO, "echo").start();
    let mut first = start();
    let _client = lab.connect(server(ECHO));
    first.wait_for_state(ECHO, &["ESTABLISHED"]);
    first.kill();
    assert!(
        first.pin_path().join("CONNECTIONS").exists() && socket.exists(),
        "nothing was left; the test tests nothing"
    );
    let second = start();
    assert_eq!(second.maps().connections().len(), 0, "the dead daemon's connections are still there");
    assert_same(&peer::exchange(&lab.connect(server(ECHO)), b"again"), b"again");
}

#[test]
fn a_connection_of_a_killed_daemon_is_reset_by_the_next_one() {
    let lab = Lab::new();
    let mut first = lab.daemon().listen(SERVER_V4, ECHO, "echo").start();
    let mut client = lab.connect(server(ECHO));
    round_trip(&mut client, b"x");
    first.kill();
    let _second = lab.daemon().listen(SERVER_V4, ECHO, "echo").start();
    client.write_all(b"who are you").unwrap();
    assert_reset(&mut client);
}

#[test]
fn a_loaded_program_is_adopted_and_outlives_the_daemon_until_it_is_unloaded() {
    let lab = Lab::new();
    let interface = lab.server.interface();
    xtcp_in_server(&lab, &["load", "--interface", interface]);
    assert!(lab.server.xdp_program().unwrap().is_some(), "load attached nothing");
    let maps = Maps::at(&pin_path(interface));
    let loaded = ["CONNECTIONS", "COUNTERS"].map(|map| maps.id(map));
    let mut daemon = lab.daemon().listen(SERVER_V4, ECHO, "echo").start();
    assert_same(&peer::exchange(&lab.connect(server(ECHO)), b"adopted"), b"adopted");
    daemon.terminate();
    assert_eq!(daemon.wait().code(), Some(0));
    assert!(lab.server.xdp_program().unwrap().is_some(), "the end of the daemon detached the program");
    assert_eq!(["CONNECTIONS", "COUNTERS"].map(|map| maps.id(map)), loaded, "the maps are not the loaded ones");
    assert_eq!(maps.counter("steer_syn"), 1, "the adopted map did not count the connection");
    xtcp_in_server(&lab, &["unload", "--interface", interface]);
    assert_nothing_left(&lab, daemon.pin_path());
}

#[test]
fn a_loaded_program_without_a_daemon_leaves_all_traffic_to_the_kernel() {
    let lab = Lab::new();
    let interface = lab.server.interface();
    xtcp_in_server(&lab, &["load", "--interface", interface]);
    let kernel = peer::serve(peer::listen(&lab.server, server(ECHO)), 1, peer::echo);
    assert_same(&peer::exchange(&lab.connect(server(ECHO)), b"kernel"), b"kernel");
    kernel.join().unwrap();
    xtcp_in_server(&lab, &["unload", "--interface", interface]);
}

#[test]
fn nothing_is_left_behind_after_a_normal_end() {
    let lab = Lab::new();
    let mut daemon = lab.daemon().listen(SERVER_V4, ECHO, "echo").start();
    assert_same(&peer::exchange(&lab.connect(server(ECHO)), b"x"), b"x");
    assert!(lab.server.xdp_program().unwrap().is_some() && daemon.pin_path().exists());
    daemon.terminate();
    assert_eq!(daemon.wait().code(), Some(0));
    assert_nothing_left(&lab, daemon.pin_path());
}

#[test]
fn inside_ip_netns_exec_which_hides_bpffs_the_daemon_mounts_its_own() {
    let lab = Lab::new();
    let _daemon = lab.daemon().inside_ip_netns_exec().listen(SERVER_V4, ECHO, "echo").start();
    assert_same(&peer::exchange(&lab.connect(server(ECHO)), b"hidden"), b"hidden");
}

fn assert_reset(connection: &mut TcpStream) {
    let error = connection.read(&mut [0]).expect_err("the connection goes on");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
}

fn xtcp_in_server(lab: &Lab, arguments: &[&str]) {
    let done = output(lab.server.command(xtcp_binary()).args(arguments));
    assert!(done.status.success(), "xtcp {arguments:?}: {done:?}");
}

/// No program on the interface, no pins of it, and its port is free.
fn assert_nothing_left(lab: &Lab, pin_path: &Path) {
    assert_eq!(lab.server.xdp_program().unwrap(), None);
    assert!(!pin_path.exists(), "{} is left behind", pin_path.display());
    drop(peer::listen(&lab.server, server(ECHO)));
}
