//! AF_XDP sockets on a veth: binding, sending, receiving through the XDP program, statistics.
//!
//! Needs root.

use std::collections::HashSet;
use std::num::NonZeroU32;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_recv_buffer_size_force, set_socket_timeout};
use rustix::net::{AddressFamily, Protocol, RecvFlags, SocketFlags, SocketType, recv, socket_with};
use tests::net::{Namespace, Wire, WireOptions};
use tests::wait::DEADLINE;
use xtcp::afxdp::{XskError, XskOptions, XskSocket};

/// Ethertype for local experiments (IEEE 802): no kernel cares for it.
const ETHERTYPE: u16 = 0x88b5;
/// Bytes of packets that the peer's socket keeps while the test is not scheduled.
const PEER_BUFFER: usize = 64 << 20;

fn wire(queues: u32) -> Wire {
    Wire::new(&WireOptions { queues, mtu: 1500 }).expect("a wire")
}

fn options(namespace: &Namespace, queue: u32) -> XskOptions {
    let facts = namespace.ip(&format!("-json link show dev {}", namespace.interface())).expect("ip");
    let facts: serde_json::Value = serde_json::from_str(&facts).expect("JSON");
    let index = facts[0]["ifindex"].as_u64().expect("an index") as u32;
    XskOptions::new(namespace.interface(), index, 1500, queue)
}

fn bind(namespace: &Namespace, queue: u32) -> Result<XskSocket, XskError> {
    let options = options(namespace, queue);
    namespace.enter(|| XskSocket::bind(&options))
}

/// A packet socket that sees the frames of our ethertype arrive in `namespace`.
fn peer(namespace: &Namespace) -> OwnedFd {
    let protocol = NonZeroU32::new(u32::from(ETHERTYPE.to_be())).map(Protocol::from_raw);
    namespace.enter(|| {
        let socket = socket_with(AddressFamily::PACKET, SocketType::RAW, SocketFlags::CLOEXEC, protocol)
            .expect("root may open packet sockets");
        set_socket_recv_buffer_size_force(&socket, PEER_BUFFER).expect("a large buffer");
        set_socket_timeout(&socket, Timeout::Recv, Some(DEADLINE)).expect("a deadline");
        socket
    })
}

/// Writes a frame of `len` bytes that carries `number` from one end of the wire to the other.
fn write_frame(frame: &mut [u8], wire_macs: ([u8; 6], [u8; 6]), number: u32, len: usize) -> usize {
    let (from, to) = wire_macs;
    frame[..6].copy_from_slice(&to);
    frame[6..12].copy_from_slice(&from);
    frame[12..14].copy_from_slice(&ETHERTYPE.to_be_bytes());
    frame[14..18].copy_from_slice(&number.to_be_bytes());
    frame[18..len].fill(number as u8);
    len
}

/// The number that a frame carries, when it is whole.
fn read_frame(frame: &[u8]) -> u32 {
    let number = u32::from_be_bytes(frame[14..18].try_into().expect("four bytes"));
    assert!(frame[18..].iter().all(|byte| *byte == number as u8), "frame {number} is garbled");
    number
}

#[test]
fn ten_thousand_frames_of_all_sizes_arrive_once_each() {
    const FRAMES: u32 = 10_000;
    let wire = wire(1);
    let macs = (wire.server.mac().expect("a MAC address"), wire.client.mac().expect("a MAC address"));
    let peer = peer(&wire.client);
    let mut socket = bind(&wire.server, 0).expect("a socket");
    let receiver = std::thread::spawn(move || {
        let mut buffer = [0; 2048];
        let mut seen = HashSet::new();
        while seen.len() < FRAMES as usize {
            let (length, _) = recv(&peer, &mut buffer[..], RecvFlags::empty()).expect("a frame");
            assert!(seen.insert(read_frame(&buffer[..length])), "a frame came twice");
        }
        set_socket_timeout(&peer, Timeout::Recv, Some(Duration::from_millis(10))).expect("a deadline");
        recv(&peer, &mut buffer[..], RecvFlags::empty()).map(|(length, _)| length)
    });
    let mut numbers = 0..FRAMES;
    while !numbers.is_empty() || socket.transmit_pending() > 0 {
        socket.transmit(64, |frame| {
            let number = numbers.next()?;
            Some(write_frame(frame, macs, number, 60 + number as usize % 1455))
        });
    }
    assert_eq!(receiver.join().expect("the receiver"), Err(rustix::io::Errno::AGAIN), "more frames than were sent");
    let statistics = socket.statistics().expect("statistics");
    assert_eq!((statistics.counters.frames_out, statistics.counters.lost), (u64::from(FRAMES), 0));
    assert_eq!((statistics.tx_invalid, statistics.refused, statistics.transmit_pending), (0, 0, 0));
    assert!(!statistics.zero_copy, "veth has no zero-copy");
    let batches = u64::from(FRAMES).div_ceil(64);
    assert!(statistics.counters.kicks < 3 * batches, "{} kicks for {batches} batches", statistics.counters.kicks);
}

#[test]
fn a_queue_can_be_bound_again_as_soon_as_its_socket_is_dropped() {
    let wire = wire(2);
    for round in 0..20 {
        for queue in 0..2 {
            let socket = bind(&wire.server, queue).unwrap_or_else(|error| panic!("round {round}: {error}"));
            assert_eq!(socket.queue(), queue);
        }
    }
}

#[test]
fn a_queue_that_stays_busy_is_reported_and_the_next_one_is_not() {
    let wire = wire(2);
    let _held = bind(&wire.server, 0).expect("a socket");
    let error = bind(&wire.server, 0).err().expect("busy");
    assert!(matches!(error, XskError::QueueBusy { queue: 0, .. }), "{error}");
    bind(&wire.server, 1).expect("the other queue");
}

#[test]
fn a_queue_that_does_not_exist_is_reported() {
    let wire = wire(1);
    let error = bind(&wire.server, 1).err().expect("no such queue");
    assert!(matches!(error, XskError::NoSuchQueue { queue: 1, .. }), "{error}");
    let gone = XskOptions { index: 999_999, ..options(&wire.server, 0) };
    let error = wire.server.enter(|| XskSocket::bind(&gone)).err().expect("no such interface");
    assert!(matches!(error, XskError::NoSuchQueue { .. }), "{error}");
}

#[test]
fn an_interface_that_is_down_keeps_frames_until_it_is_up_again() {
    let wire = wire(1);
    let name = wire.server.interface();
    let macs = (wire.server.mac().expect("a MAC address"), wire.client.mac().expect("a MAC address"));
    let peer = peer(&wire.client);
    let mut socket = bind(&wire.server, 0).expect("a socket");
    wire.server.ip(&format!("link set {name} down")).expect("ip");
    let mut numbers = 0..3;
    socket.transmit(64, |frame| numbers.next().map(|n| write_frame(frame, macs, n, 60)));
    assert_eq!(socket.transmit_pending(), 3);
    assert_eq!(socket.statistics().expect("statistics").counters.kick_errors, 1);
    wire.server.ip(&format!("link set {name} up")).expect("ip");
    while socket.transmit_pending() > 0 {
        socket.transmit(64, |_| None);
    }
    let mut buffer = [0; 2048];
    for expected in 0..3 {
        let (length, _) = recv(&peer, &mut buffer[..], RecvFlags::empty()).expect("a frame");
        assert_eq!(read_frame(&buffer[..length]), expected);
    }
}

#[test]
fn without_privilege_the_error_says_what_is_missing() {
    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
    let wire = wire(1);
    let options = options(&wire.server, 0);
    let error = wire.server.enter(|| {
        // Capabilities belong to the thread, which ends here.
        let mut mine = capabilities(None).expect("capabilities");
        mine.effective.remove(CapabilitySet::NET_RAW);
        set_capabilities(None, mine).expect("fewer capabilities");
        XskSocket::bind(&options).err()
    });
    let error = error.expect("no privilege");
    assert!(matches!(error, XskError::NoPrivilege), "{error}");
}
