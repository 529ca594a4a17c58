//! Many connections at once.

use std::net::TcpStream;

use tests::Lab;
use tests::net::WireOptions;
use tests::peer;

use crate::{ECHO, SERVERS, alone, count, raise_file_limit, server, wait_for_nothing_left};

const CROWD: usize = 5_000;

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
