//! Long streams, every byte of them compared.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use tests::Lab;
use tests::impairment::Impairment;
use tests::net::WireOptions;
use tests::peer;

use crate::{ECHO, PIECE, PROXY, SERVERS, Stream, alone, server, timed, wait_for_nothing_left};

/// Pieces that make a gigabyte, and a hundred megabytes.
const GIGABYTE: usize = 1_000_000_000 / PIECE;
const HUNDRED_MEGABYTES: usize = 100_000_000 / PIECE;
/// Segments that get lost, of a thousand.
const LOSS: u32 = 10;

/// Sends so many pieces of one stream, half-closes, and compares what comes with another, both at once.
fn send_and_compare(connection: &TcpStream, sent: &Stream, expected: &Stream, pieces: usize) {
    std::thread::scope(|scope| {
        let sender = scope.spawn(move || {
            let mut connection = connection;
            (0..pieces).for_each(|n| connection.write_all(sent.piece(n)).expect("the peer takes the data"));
            connection.shutdown(Shutdown::Write).expect("the connection can be half-closed");
        });
        let (mut connection, mut piece) = (connection, vec![0; PIECE]);
        for n in 0..pieces {
            connection.read_exact(&mut piece).unwrap_or_else(|error| panic!("piece {n} of {pieces}: {error}"));
            assert!(piece == expected.piece(n), "piece {n} of {pieces} differs");
        }
        assert_eq!(peer::read(connection, &mut piece).expect("the end"), 0, "more came than was sent");
        sender.join().expect("everything is sent");
    });
}

#[test]
fn a_gigabyte_each_way_arrives_as_it_was_sent() {
    let _turn = alone();
    let lab = Lab::for_load(&WireOptions::default());
    let [v4, v6] = SERVERS;
    let daemon = lab.daemon().tcp("msl = \"50ms\"").listen(v4, ECHO, "echo").listen(v6, ECHO, "echo").start();
    let connection = peer::connect(&lab.client, server(0, ECHO));
    let stream = Stream::new(1);
    timed("pieces of 64 KiB each way", GIGABYTE as u64, || send_and_compare(&connection, &stream, &stream, GIGABYTE));
    drop(connection);
    wait_for_nothing_left(&daemon);
}

#[test]
fn a_gigabyte_each_way_through_the_proxy_arrives_as_it_was_sent() {
    let _turn = alone();
    let lab = Lab::for_load(&WireOptions::default());
    let backend = SocketAddr::from(([127, 0, 0, 1], 8000));
    let listener = peer::listen(&lab.server, backend);
    let daemon = lab.daemon().tcp("msl = \"50ms\"").listen(SERVERS[0], PROXY, &format!("proxy:{backend}")).start();
    let (up, down) = (Stream::new(3), Stream::new(4));
    let client = peer::connect(&lab.client, server(0, PROXY));
    timed("pieces of 64 KiB each way through the proxy", GIGABYTE as u64, || {
        std::thread::scope(|scope| {
            scope.spawn(|| send_and_compare(&peer::accept(&listener), &down, &up, GIGABYTE));
            send_and_compare(&client, &up, &down, GIGABYTE);
        });
    });
    drop(client);
    wait_for_nothing_left(&daemon);
}

#[test]
fn a_hundred_megabytes_each_way_arrive_over_a_wire_that_loses_one_segment_in_a_hundred() {
    let _turn = alone();
    let [v4, v6] = SERVERS;
    for turn in 0..2 {
        let lab = Lab::for_load(&WireOptions {
            impairment: Impairment { loss: LOSS, ..Impairment::default() },
            ..WireOptions::default()
        });
        let daemon = lab.daemon().tcp("msl = \"50ms\"").listen(v4, ECHO, "echo").listen(v6, ECHO, "echo").start();
        let connection = peer::connect(&lab.client, server(turn, ECHO));
        let (stream, pieces) = (Stream::new(2), HUNDRED_MEGABYTES);
        let what = format!("pieces of 64 KiB each way to {} over a bad wire", server(turn, ECHO));
        timed(&what, pieces as u64, || send_and_compare(&connection, &stream, &stream, pieces));
        let repeated = tests::nstat::retransmits(&lab.client);
        println!("the client's kernel has sent {repeated} segments again");
        assert!(repeated > 0, "nothing was lost");
        drop(connection);
        lab.lose(0).expect("a wire that loses nothing");
        wait_for_nothing_left(&daemon);
    }
}
