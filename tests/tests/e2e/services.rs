//! A client of each classic service, over IPv4 and IPv6.

use std::io::{Read, Write};
use std::net::SocketAddr;

use tests::Lab;
use tests::net::{SERVER_V4, SERVER_V6};
use tests::peer::{self, assert_same};
use tests::wait::{until, until_it};

use crate::{CHARGEN, DAYTIME, DISCARD, ECHO, SERVERS};

/// A line of chargen's pattern without its end, in bytes (RFC 864).
const CHARGEN_LINE: usize = 72;

#[test]
fn echo_sends_back_what_it_receives_and_closes_when_the_client_has() {
    let lab = Lab::new();
    let _daemon = lab.daemon().listen(SERVER_V4, ECHO, "echo").listen(SERVER_V6, ECHO, "echo").start();
    for address in SERVERS {
        let mut connection = lab.connect((address, ECHO));
        connection.write_all(b"one").unwrap();
        let mut reply = [0; 3];
        connection.read_exact(&mut reply).unwrap();
        assert_eq!(&reply, b"one");
        assert_same(&peer::exchange(&connection, b" and two"), b" and two");
    }
}

#[test]
fn discard_takes_everything_and_sends_nothing() {
    let lab = Lab::new();
    let daemon = lab.daemon().listen(SERVER_V4, DISCARD, "discard").listen(SERVER_V6, DISCARD, "discard").start();
    for address in SERVERS {
        let mut connection = lab.connect((address, DISCARD));
        let data = peer::bytes(300_000, 2);
        connection.write_all(&data).unwrap();
        let received = || daemon.connections(DISCARD).iter().map(|row| row.number("bytes_in")).max();
        until_it("all bytes to be received", received, |bytes| *bytes == Some(data.len() as u64));
        assert_eq!(peer::exchange(&connection, b"end"), b"");
        daemon.wait_for_no_connection(DISCARD);
    }
}

#[test]
fn daytime_sends_one_line_and_closes() {
    let lab = Lab::new();
    let _daemon = lab.daemon().listen(SERVER_V4, DAYTIME, "daytime").listen(SERVER_V6, DAYTIME, "daytime").start();
    for address in SERVERS {
        let line = String::from_utf8(peer::read_to_end(&lab.connect((address, DAYTIME)))).unwrap();
        let text = line.strip_suffix("\r\n").unwrap_or_else(|| panic!("{line:?} does not end with CRLF"));
        assert!(text.chars().all(|character| (' '..='~').contains(&character)), "{line:?}");
        let year = |word: &str| word.len() == 4 && word.parse().is_ok_and(|year: u32| year >= 2026);
        assert!(text.split(' ').any(year) && text.contains(':'), "{line:?} is no date and time");
    }
}

#[test]
fn chargen_sends_the_rotating_pattern_until_the_client_closes() {
    let lab = Lab::new();
    let daemon = lab.daemon().listen(SERVER_V4, CHARGEN, "chargen").listen(SERVER_V6, CHARGEN, "chargen").start();
    for address in SERVERS {
        let mut connection = lab.connect((address, CHARGEN));
        let mut received = vec![0; 500 * (CHARGEN_LINE + 2)];
        connection.read_exact(&mut received).unwrap();
        assert_chargen(&received);
        drop(connection);
        daemon.wait_for_no_connection(CHARGEN);
    }
}

#[test]
fn a_wildcard_listener_serves_every_address_of_its_family() {
    let lab = Lab::new();
    lab.server.ip(&format!("address add 10.77.0.3/24 dev {}", lab.server.interface())).unwrap();
    let any_v4 = "0.0.0.0".parse().unwrap();
    let any_v6 = "::".parse().unwrap();
    let _daemon = lab.daemon().listen(any_v4, ECHO, "echo").listen(any_v6, DISCARD, "discard").start();
    for address in ["10.77.0.2:7", "10.77.0.3:7"] {
        let at: SocketAddr = address.parse().unwrap();
        assert_same(&peer::exchange(&lab.connect(at), b"any"), b"any");
    }
    assert_eq!(peer::exchange(&lab.connect((SERVER_V6, DISCARD)), b"any"), b"");
}

#[test]
fn a_wildcard_listener_serves_an_address_that_the_interface_gets_later_until_it_loses_it() {
    let lab = Lab::new();
    let _daemon = lab.daemon().listen("0.0.0.0".parse().unwrap(), ECHO, "echo").start();
    let later: SocketAddr = "10.77.0.4:7".parse().unwrap();
    let connect = || lab.client.enter(|| std::net::TcpStream::connect(later)).ok();
    let change = |what: &str| lab.server.ip(&format!("address {what} 10.77.0.4/24 dev {}", lab.server.interface()));
    change("add").unwrap();
    let connection = until("the new address to be served", connect);
    assert_same(&peer::exchange(&connection, b"later"), b"later");
    change("del").unwrap();
    until("the address to be gone", || lab.client.enter(|| is_unreachable(later)).then_some(()));
}

/// Whether no connection to an address can be had within a moment.
fn is_unreachable(address: SocketAddr) -> bool {
    std::net::TcpStream::connect_timeout(&address, std::time::Duration::from_millis(100)).is_err()
}

/// Whether these are the first lines of RFC 864's pattern.
pub fn assert_chargen(received: &[u8]) {
    for (number, line) in received.chunks_exact(CHARGEN_LINE + 2).enumerate() {
        let expected: Vec<u8> = (0..CHARGEN_LINE).map(|column| b' ' + ((number + column) % 95) as u8).collect();
        assert_same(line, &[&expected[..], b"\r\n"].concat());
    }
}
