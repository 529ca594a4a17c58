//! Many connections one after the other: connect, ask, be answered, close.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};

use tests::Lab;
use tests::daemon::Daemon;
use tests::net::WireOptions;
use tests::wait::until_it;

use crate::{
    DAYTIME, ECHO, SERVERS, alone, connections, raise_file_limit, resident, server, timed, wait_for_nothing_left,
};

/// Cycles before memory is looked at for the first time, and those that must not make it grow.
const WARM_UP: usize = 20_000;
/// And connections at once, more than cycles ever leave in TIME_WAIT: what a peak takes is kept for the next.
const CROWD: usize = 4_000;
const CYCLES: usize = 100_000;
/// Clients at once.
const CLIENTS: usize = 8;
/// What memory may have grown by afterwards, percent.
const GROWTH: u64 = 2;

/// The client asks, takes the answer, and closes first.
fn ask_echo(to: SocketAddr) -> std::io::Result<()> {
    let mut connection = TcpStream::connect(to)?;
    connection.write_all(&[b'x'; 64])?;
    let mut answer = [0; 64];
    connection.read_exact(&mut answer)?;
    if answer == [b'x'; 64] { Ok(()) } else { Err(std::io::Error::other("another answer")) }
}

/// The server answers and closes first.
fn ask_daytime(to: SocketAddr) -> std::io::Result<()> {
    let mut answer = String::new();
    TcpStream::connect(to)?.read_to_string(&mut answer)?;
    if answer.ends_with("\r\n") { Ok(()) } else { Err(std::io::Error::other(format!("cut short: {answer:?}"))) }
}

/// So many cycles, half of them closed by either side; how many failed.
fn cycles(lab: &Lab, many: usize) -> usize {
    let (next, failed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let client = || {
        lab.client.move_in().expect("the client's namespace");
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            if n >= many {
                return;
            }
            let done = if n % 4 < 2 { ask_echo(server(n, ECHO)) } else { ask_daytime(server(n, DAYTIME)) };
            if let Err(error) = done {
                println!("cycle {n}: {error}");
                failed.fetch_add(1, Ordering::Relaxed);
            }
        }
    };
    std::thread::scope(|scope| (0..CLIENTS).for_each(|_| drop(scope.spawn(client))));
    failed.into_inner()
}

fn serve(lab: &Lab) -> Daemon {
    // Every port of the client's comes again within its TIME_WAIT otherwise.
    lab.client.set_sysctl("net.ipv4.ip_local_port_range", "1024 65535").expect("a sysctl");
    lab.client.set_sysctl("net.ipv4.tcp_tw_reuse", "1").expect("a sysctl");
    let daemon = lab.daemon().tcp("msl = \"100ms\"");
    let [v4, v6] = SERVERS;
    let daemon = daemon.listen(v4, ECHO, "echo").listen(v6, ECHO, "echo");
    daemon.listen(v4, DAYTIME, "daytime").listen(v6, DAYTIME, "daytime").start()
}

#[test]
fn a_hundred_thousand_connections_come_and_go_and_leave_nothing() {
    let _turn = alone();
    raise_file_limit();
    let lab = Lab::for_load(&WireOptions::default());
    let daemon = serve(&lab);
    let first = resident(&daemon);
    let open = |n| TcpStream::connect(server(n, ECHO)).expect("a connection");
    drop(lab.client.enter(|| (0..CROWD).map(open).collect::<Vec<_>>()));
    assert_eq!(cycles(&lab, WARM_UP), 0);
    wait_for_nothing_left(&daemon);
    let before = resident(&daemon);
    let failed = timed("connections", CYCLES as u64, || cycles(&lab, CYCLES));
    assert_eq!(failed, 0, "of {CYCLES}");
    wait_for_nothing_left(&daemon);
    let after = resident(&daemon);
    println!(
        "resident memory: {first} KiB at start, {before} after {CROWD} at once and {WARM_UP} cycles, {after} after {CYCLES} more"
    );
    assert!(after * 100 <= before * (100 + GROWTH), "{after} KiB, {before} before");
    let stats = daemon.stats();
    let drops = stats["drops"].as_object().expect("drops");
    println!("drops: {:?}", drops.iter().filter(|(_, count)| **count != 0).collect::<Vec<_>>());
    assert!(stats["listeners"].as_array().expect("listeners").iter().all(|listener| listener["overflows"] == 0));
    until_it("the last of TIME_WAIT", || connections(&daemon), |left| *left == 0);
}
