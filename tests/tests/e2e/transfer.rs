//! Megabytes each way, compared byte by byte.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixListener;

use tests::Lab;
use tests::net::{SERVER_V4, SERVER_V6};
use tests::peer::{self, assert_same, bytes};

use crate::{ECHO, PROXY, SERVERS, loopback, server};

/// 10 MB.
const MUCH: usize = 10_000_000;
const BACKEND: u16 = 8000;

#[test]
fn ten_megabytes_each_way_through_echo_are_the_same() {
    let lab = Lab::new();
    let _daemon = lab.daemon().listen(SERVER_V4, ECHO, "echo").listen(SERVER_V6, ECHO, "echo").start();
    for address in SERVERS {
        let data = bytes(MUCH, 4);
        assert_same(&peer::exchange(&lab.connect((address, ECHO)), &data), &data);
    }
}

#[test]
fn ten_megabytes_each_way_through_the_proxy_are_the_same() {
    let lab = Lab::new();
    let (upload, download) = (bytes(MUCH, 5), bytes(MUCH, 6));
    let backend = peer::listen(&lab.server, loopback(BACKEND));
    let _daemon = lab.daemon().listen(SERVER_V4, PROXY, &format!("proxy:{}", loopback(BACKEND))).start();
    let (to_client, from_client) = (download.clone(), upload.clone());
    let backend = peer::serve(backend, 1, move |connection| {
        assert_same(&peer::exchange(&connection, &to_client), &from_client);
    });
    assert_same(&peer::exchange(&lab.connect(server(PROXY)), &upload), &download);
    backend.join().unwrap();
}

#[test]
fn a_backend_may_listen_on_a_unix_socket() {
    let lab = Lab::new();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("backend.sock");
    let backend = UnixListener::bind(&path).unwrap();
    let _daemon = lab.daemon().listen(SERVER_V4, PROXY, &format!("proxy:unix:{}", path.display())).start();
    let backend = std::thread::spawn(move || {
        let (mut connection, _) = backend.accept().unwrap();
        let mut received = Vec::new();
        connection.read_to_end(&mut received).unwrap();
        connection.write_all(&received).unwrap();
    });
    let data = bytes(500_000, 11);
    assert_same(&peer::exchange(&lab.connect(server(PROXY)), &data), &data);
    backend.join().unwrap();
}

#[test]
fn the_program_serves_in_generic_mode_too() {
    let lab = Lab::new();
    let daemon = lab.daemon().line("xdp_mode = \"generic\"").listen(SERVER_V4, ECHO, "echo").start();
    let data = bytes(1_000_000, 12);
    assert_same(&peer::exchange(&lab.connect(server(ECHO)), &data), &data);
    let link = lab.server.ip(&format!("link show dev {}", lab.server.interface())).unwrap();
    assert!(link.contains("xdpgeneric"), "{link}; log: {:#?}", daemon.log());
}

#[test]
fn a_client_whose_mac_address_changes_is_answered_at_the_new_one() {
    let lab = Lab::new();
    let _daemon = lab.daemon().listen(SERVER_V4, ECHO, "echo").start();
    let mut client = lab.connect(server(ECHO));
    peer::round_trip(&mut client, b"before");
    lab.client.ip(&format!("link set {} address 02:77:00:00:00:99", lab.client.interface())).unwrap();
    peer::round_trip(&mut client, b"after");
}

#[test]
fn a_hundred_connections_at_once_keep_their_streams_apart() {
    let lab = Lab::new();
    let _daemon = lab.daemon().listen(SERVER_V4, ECHO, "echo").start();
    std::thread::scope(|scope| {
        for seed in 0..100 {
            let connection = lab.connect(server(ECHO));
            scope.spawn(move || {
                let data = bytes(50_000, 1000 + 2 * seed);
                assert_same(&peer::exchange(&connection, &data), &data);
            });
        }
    });
}

#[test]
fn five_hundred_short_connections_in_a_row_are_all_served() {
    let lab = Lab::new();
    let daemon = lab.daemon().listen(SERVER_V4, ECHO, "echo").start();
    for number in 0..500_u32 {
        let data = number.to_be_bytes();
        assert_same(&peer::exchange(&lab.connect(server(ECHO)), &data), &data);
    }
    daemon.wait_for_no_connection(ECHO);
}

#[test]
fn a_slow_backend_slows_the_client_down_instead_of_filling_memory() {
    let lab = Lab::new();
    let backend = peer::listen(&lab.server, loopback(BACKEND));
    let daemon = lab.daemon().listen(SERVER_V4, PROXY, &format!("proxy:{}", loopback(BACKEND))).start();
    let mut client = lab.connect(server(PROXY));
    let stalled = peer::accept(&backend);
    let data = bytes(40 << 20, 7);
    let sender = std::thread::spawn(move || {
        client.write_all(&data).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        data
    });
    let closed = |row: &Option<tests::daemon::Connection>| row.as_ref().is_some_and(|row| row.number("rcv_wnd") == 0);
    tests::wait::until_it("a closed receive window", || daemon.connections(PROXY).pop(), closed);
    let received = peer::read_to_end(&stalled);
    assert_same(&received, &sender.join().unwrap());
}
