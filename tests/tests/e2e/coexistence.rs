//! xtcp and the kernel share an interface: what xtcp does not own stays the kernel's, also when xtcp dies.

use std::net::{SocketAddr, TcpStream, UdpSocket};

use tests::Lab;
use tests::net::{CLIENT_V4, SERVER_V4, SERVER_V6};
use tests::peer::{self, assert_same, bytes, round_trip};
use tests::wait::{DEADLINE, until};

use crate::{ECHO, KERNEL, SERVERS, server};

#[test]
fn a_kernel_listener_on_another_port_of_the_same_address_stays_reachable() {
    let lab = Lab::new();
    let listeners = SERVERS.map(|address| peer::listen(&lab.server, SocketAddr::new(address, KERNEL)));
    let [v4, v6] = listeners.map(|listener| peer::serve(listener, 1, peer::echo));
    let _daemon = lab.daemon().listen(SERVER_V4, ECHO, "echo").listen(SERVER_V6, ECHO, "echo").start();
    for address in SERVERS {
        let data = bytes(500_000, 10);
        assert_same(&peer::exchange(&lab.connect((address, KERNEL)), &data), &data);
        assert_same(&peer::exchange(&lab.connect((address, ECHO)), b"ours"), b"ours");
    }
    v4.join().unwrap();
    v6.join().unwrap();
}

#[test]
fn a_kernel_connection_survives_start_and_sigkill_of_the_daemon() {
    let lab = Lab::new();
    let kernel = peer::serve(peer::listen(&lab.server, server(KERNEL)), 2, peer::echo);
    let mut connection = lab.connect(server(KERNEL));
    round_trip(&mut connection, b"before");
    let mut daemon = lab.daemon().listen(SERVER_V4, ECHO, "echo").start();
    round_trip(&mut connection, b"while xtcp runs");
    daemon.kill();
    round_trip(&mut connection, b"after its death");
    assert_same(&peer::exchange(&lab.connect(server(KERNEL)), b"a new one"), b"a new one");
    drop(connection);
    kernel.join().unwrap();
}

#[test]
fn after_sigkill_the_owned_port_is_the_kernels_again() {
    let lab = Lab::new();
    let mut daemon = lab.daemon().listen(SERVER_V4, ECHO, "echo").start();
    daemon.kill();
    until("the kernel to refuse the port", || {
        let refused = lab.client.enter(|| TcpStream::connect_timeout(&server(ECHO), DEADLINE)).err()?;
        (refused.kind() == std::io::ErrorKind::ConnectionRefused).then_some(())
    });
    let kernel = peer::serve(peer::listen(&lab.server, server(ECHO)), 1, peer::echo);
    assert_same(&peer::exchange(&lab.connect(server(ECHO)), b"kernel"), b"kernel");
    kernel.join().unwrap();
}

#[test]
fn datagrams_pass_untouched() {
    let lab = Lab::new();
    let _daemon = lab.daemon().listen(SERVER_V4, ECHO, "echo").start();
    // The port is owned in TCP; UDP of the same number is another thing.
    let receiver = lab.server.enter(|| UdpSocket::bind(server(ECHO))).unwrap();
    receiver.set_read_timeout(Some(DEADLINE)).unwrap();
    let sender = lab.client.enter(|| UdpSocket::bind(SocketAddr::new(CLIENT_V4, 0))).unwrap();
    sender.send_to(b"datagram", server(ECHO)).unwrap();
    let mut buffer = [0; 16];
    let (length, _) = receiver.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"datagram");
}

#[test]
fn the_kernel_can_not_take_an_owned_port() {
    let lab = Lab::new();
    let _daemon = lab.daemon().listen(SERVER_V4, ECHO, "echo").start();
    let taken = lab.server.enter(|| std::net::TcpListener::bind(server(ECHO))).unwrap_err();
    assert_eq!(taken.kind(), std::io::ErrorKind::AddrInUse);
}

#[test]
fn a_client_on_the_same_host_is_refused() {
    let lab = Lab::new();
    let _daemon = lab.daemon().listen(SERVER_V4, ECHO, "echo").start();
    let refused = lab.server.enter(|| TcpStream::connect(server(ECHO))).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
}
