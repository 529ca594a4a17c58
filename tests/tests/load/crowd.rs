//! Many connections at once.

use std::net::TcpStream;

use tests::Lab;
use tests::net::WireOptions;
use tests::peer;
use tests::wait::until_it;

use crate::{CHARGEN, ECHO, SERVERS, alone, count, raise_file_limit, resident, server, wait_for_nothing_left};

const CROWD: usize = 5_000;
/// Memory for the buffers of all connections, KiB, and what the daemon may need besides, for a crowd's connections and
/// the copies of its services.
const BUFFERS: u64 = 128 << 10;
const BESIDES: u64 = 64 << 10;

#[test]
fn five_thousand_connections_live_side_by_side() {
    let _turn = alone();
    raise_file_limit();
    let lab = Lab::for_load(&WireOptions::default());
    let [v4, v6] = SERVERS;
    let daemon = lab.daemon().tcp("msl = \"50ms\"").listen(v4, ECHO, "echo").listen(v6, ECHO, "echo").start();
    let open = |n| TcpStream::connect(server(n, ECHO)).expect("a connection");
    let mut crowd: Vec<TcpStream> = lab.client.enter(|| (0..CROWD).map(open).collect());
    for (n, connection) in crowd.iter_mut().enumerate() {
        peer::round_trip(connection, &peer::bytes(200, n as u64));
    }
    assert_eq!(count(&daemon, "ESTABLISHED"), CROWD as u64);
    assert_eq!(daemon.maps().connections().len(), CROWD);
    assert_eq!(daemon.stats()["buffer_bytes"], 0, "idle connections own no buffer");
    for (n, connection) in crowd.iter_mut().enumerate().rev() {
        peer::round_trip(connection, &peer::bytes(2000, n as u64));
    }
    drop(crowd);
    wait_for_nothing_left(&daemon);
}

#[test]
fn five_thousand_peers_that_read_nothing_take_what_is_allowed_and_it_comes_back() {
    let _turn = alone();
    raise_file_limit();
    let lab = Lab::for_load(&WireOptions::default());
    let daemon = lab.daemon().tcp("msl = \"50ms\"").line(&format!("max_buffer_memory = {}", BUFFERS << 10));
    let daemon = daemon.listen(SERVERS[0], CHARGEN, "chargen").listen(SERVERS[1], CHARGEN, "chargen").start();
    let start = resident(&daemon);
    let open = |n| TcpStream::connect(server(n, CHARGEN)).expect("a connection");
    let crowd: Vec<TcpStream> = lab.client.enter(|| (0..CROWD).map(open).collect());
    assert_eq!(count(&daemon, "ESTABLISHED"), CROWD as u64);
    let waits = |cause| daemon.stats()["waits"][cause].as_u64().expect("a number");
    until_it("all that write wait", || waits("memory") + waits("send_buffer"), |waits| *waits >= CROWD as u64);
    assert!(waits("memory") > 0, "there was memory for everybody");
    let peak = resident(&daemon);
    assert!(peak <= start + BUFFERS + BESIDES, "{peak} KiB, {start} before");
    drop(crowd);
    wait_for_nothing_left(&daemon);
    let back = until_it("memory given back", || resident(&daemon), |now| *now <= start + (peak - start) / 5);
    println!(
        "resident memory: {start} KiB at first, {peak} with {CROWD} peers that read nothing, {back} after their end"
    );
}
