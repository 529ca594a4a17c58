//! Start and stop: drain, abort, sudden death, a second daemon, programs loaded without a daemon, nothing left behind.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};
use tests::Lab;
use tests::daemon::{Daemon, output, pin_path, xtcp_binary};
use tests::maps::Maps;
use tests::net::{CLIENT_V4, SECOND_V4, SERVER_V4, WireOptions};
use tests::peer::{self, assert_same, round_trip};
use tests::wait::{DEADLINE, End, until, until_it};

use crate::{DAYTIME, ECHO, KERNEL, server};

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
    assert_reset(&client);
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
    assert_reset(&client);
    daemon.wait();
    assert_nothing_left(&lab, daemon.pin_path());
}

#[test]
fn a_second_daemon_on_the_interface_is_refused_and_the_first_goes_on() {
    let lab = Lab::new();
    let first = lab.daemon().listen(SERVER_V4, ECHO, "echo").start();
    let refusal = lab.daemon().listen(SERVER_V4, DAYTIME, "daytime").try_start().unwrap_err();
    assert!(refusal.code == Some(1) && refusal.stderr.len() == 1, "{refusal:#?}");
    let who = format!("xtcp (pid {})", first.pid());
    assert!(refusal.stderr[0].contains(lab.server.interface()) && refusal.stderr[0].contains(&who), "{refusal:#?}");
    // One with the same listener does not even get that far.
    let refusal = lab.daemon().listen(SERVER_V4, ECHO, "echo").try_start().unwrap_err();
    assert!(refusal.stderr[0].contains(&format!("xtcp (pid {}", first.pid())), "{refusal:#?}");
    assert_same(&peer::exchange(&lab.connect(server(ECHO)), b"first"), b"first");
}

#[test]
fn two_daemons_on_two_interfaces_of_a_host_serve_side_by_side() {
    let lab = Lab::new();
    let second = lab.second(&WireOptions::default()).unwrap();
    let everywhere: SocketAddr = ([0, 0, 0, 0], ECHO).into();
    let service = "service = \"echo\"";
    let daemons = [
        lab.daemon().listen_with(everywhere, service).start(),
        lab.daemon().interface(second.server.interface()).listen_with(everywhere, service).start(),
    ];
    let addresses = [SERVER_V4, SECOND_V4[1]];
    let mut connections = addresses.map(|address| lab.connect((address, ECHO)));
    connections.iter_mut().for_each(|connection| round_trip(connection, b"both"));
    for (daemon, address) in daemons.iter().zip(addresses) {
        let rows = daemon.connections(ECHO);
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0].local, format!("{address}:{ECHO}"));
    }
    let (mut connects, listeners) = active_opens(&lab, &daemons);
    for (connect, listener) in connects.iter_mut().zip(&listeners) {
        let connection = peer::accept(listener);
        drop(connect.stdin.take());
        assert_eq!(peer::read_to_end(&connection), b"");
        drop(connection);
        assert!(connect.wait().unwrap().success());
    }
    let [first, mut other] = daemons;
    other.kill();
    connections.iter_mut().take(1).for_each(|connection| round_trip(connection, b"the first goes on"));
    drop(first);
}

/// An `xtcp connect` through each daemon, to a listener of the client's kernel on the daemon's own wire.
fn active_opens(lab: &Lab, daemons: &[Daemon; 2]) -> (Vec<Child>, Vec<TcpListener>) {
    let listeners = [CLIENT_V4, SECOND_V4[0]].map(|address| peer::listen(&lab.client, (address, KERNEL).into()));
    let open = |(daemon, listener): (&Daemon, &TcpListener)| daemon.connect(listener.local_addr().unwrap());
    (daemons.iter().zip(&listeners).map(open).collect(), listeners.into())
}

#[test]
fn a_host_stays_reachable_when_its_daemon_is_killed_and_restarted_under_traffic() {
    let lab = Lab::new();
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("kept.sock");
    let start = || lab.daemon().control_socket(&socket).listen(SERVER_V4, ECHO, "echo").start();
    let kernel = peer::serve(peer::listen(&lab.server, server(KERNEL)), 1, peer::echo);
    let mut kernels = lab.connect(server(KERNEL));
    let mut daemon = start();
    let end = End::default();
    let served = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let _end = end.comes();
        // The kernel's connection never rests; xtcp's clients come back whatever happens to them.
        scope.spawn(|| {
            while !end.has_come() {
                round_trip(&mut kernels, b"kernel");
            }
        });
        for _ in 0..4 {
            scope.spawn(|| {
                while !end.has_come() {
                    if try_exchange(&lab).is_ok() {
                        served.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        let serves = || {
            let before = served.load(Ordering::Relaxed);
            until("clients that are served", || (served.load(Ordering::Relaxed) > before + 50).then_some(()));
        };
        serves();
        for _ in 0..3 {
            daemon.kill();
            let restarted = Instant::now();
            daemon = start();
            assert_same(&peer::exchange(&lab.connect(server(ECHO)), b"at once"), b"at once");
            println!("served {} ms after the restart", restarted.elapsed().as_millis());
            serves();
        }
    });
    drop(kernels);
    kernel.join().unwrap();
}

/// One connection to the echo service that may fail: its daemon may be dead or die.
fn try_exchange(lab: &Lab) -> std::io::Result<()> {
    let mut connection = lab.client.enter(|| TcpStream::connect_timeout(&server(ECHO), DEADLINE))?;
    // When the daemon dies under it, nobody answers; the next one resets what is sent again.
    connection.set_read_timeout(Some(DEADLINE))?;
    connection.write_all(b"x")?;
    connection.read_exact(&mut [0])
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
    assert_reset(&client);
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

#[test]
fn a_daemon_whose_log_nobody_reads_any_more_serves_on_and_cleans_up() {
    let lab = Lab::new();
    let directory = tempfile::tempdir().unwrap();
    let control = directory.path().join("control.sock");
    let interface = lab.server.interface();
    let mut command = lab.server.command(xtcp_binary());
    command.args(["run", "--interface", interface, "--listen", &format!("{}=echo", server(ECHO)), "--control-socket"]);
    let mut daemon = command.arg(&control).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut ready = String::new();
    BufReader::new(daemon.stdout.take().unwrap()).read_line(&mut ready).unwrap();
    assert_eq!(ready, "ready\n");
    drop(daemon.stderr.take());
    peer::round_trip(&mut lab.connect(server(ECHO)), b"unheard");
    // It says that it drains, to nobody.
    kill_process(Pid::from_child(&daemon), Signal::TERM).unwrap();
    assert_eq!(daemon.wait().unwrap().code(), Some(0));
    assert!(!pin_path(interface).exists() && !control.exists());
}

fn assert_reset(connection: &TcpStream) {
    let error = peer::read(connection, &mut [0]).expect_err("the connection goes on");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
}

fn xtcp_in_server(lab: &Lab, arguments: &[&str]) {
    let done = output(lab.server.command(xtcp_binary()).args(arguments));
    assert!(done.status.success(), "xtcp {arguments:?}: {done:?}");
}

/// No program on the interface, no pins of it, and its port is free.
fn assert_nothing_left(lab: &Lab, pin_path: &Path) {
    // The kernel lets go of a link in its own time.
    until_it("an interface without a program", || lab.server.xdp_program().unwrap(), Option::is_none);
    assert!(!pin_path.exists(), "{} is left behind", pin_path.display());
    drop(peer::listen(&lab.server, server(ECHO)));
}
