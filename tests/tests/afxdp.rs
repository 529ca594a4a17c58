//! AF_XDP sockets on a veth: binding, sending, receiving through the XDP program, statistics.
//!
//! Needs root.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_recv_buffer_size_force, set_socket_timeout};
use rustix::net::{AddressFamily, Protocol, RecvFlags, SocketFlags, SocketType, recv, socket_with};
use tcp_common::cases::frames::SegmentFrame;
use tcp_common::layout::ListenerValue;
use tcp_common::{ConnectionKey, ConnectionValue};
use tcp_proto::{Device, NoEntry};
use tests::net::{CLIENT_V4, Namespace, SERVER_V4, Wire, WireOptions};
use tests::wait::{DEADLINE, until};
use xtcp::afxdp::{Exchange, Table, WorkerDevice, XskError, XskOptions, XskSocket};
use xtcp::xdp::{LoadOptions, Program, XdpError, XdpMode, default_pin_path};

/// Ethertype for local experiments (IEEE 802): no kernel cares for it.
const ETHERTYPE: u16 = 0x88b5;
/// Bytes of packets that the peer's socket keeps while the test is not scheduled.
const PEER_BUFFER: usize = 64 << 20;

fn wire(queues: u32) -> Wire {
    Wire::new(&WireOptions { queues, mtu: 1500, ..WireOptions::default() }).expect("a wire")
}

/// Options for `queue` of the namespace's interface, as it is.
fn options(namespace: &Namespace, queue: u32) -> XskOptions {
    let facts = namespace.ip(&format!("-json link show dev {}", namespace.interface())).expect("ip");
    let facts: serde_json::Value = serde_json::from_str(&facts).expect("JSON");
    let fact = |name: &str| facts[0][name].as_u64().expect("a number") as u32;
    XskOptions::new(namespace.interface(), fact("ifindex"), fact("mtu"), queue)
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
    /// The wire drops what the client's kernel does not take in time: no more are under way than its queue holds.
    const UNDER_WAY: u32 = 128;
    let wire = wire(1);
    let macs = (wire.server.mac().expect("a MAC address"), wire.client.mac().expect("a MAC address"));
    let peer = peer(&wire.client);
    let mut socket = bind(&wire.server, 0).expect("a socket");
    let arrived = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&arrived);
    let receiver = std::thread::spawn(move || {
        let mut buffer = [0; 2048];
        let mut seen = HashSet::new();
        while seen.len() < FRAMES as usize {
            let (length, _) = recv(&peer, &mut buffer[..], RecvFlags::empty()).expect("a frame");
            assert!(seen.insert(read_frame(&buffer[..length])), "a frame came twice");
            counted.store(seen.len() as u32, Ordering::Relaxed);
        }
        set_socket_timeout(&peer, Timeout::Recv, Some(Duration::from_millis(10))).expect("a deadline");
        recv(&peer, &mut buffer[..], RecvFlags::empty()).map(|(length, _)| length)
    });
    let mut numbers = 0..FRAMES;
    while !numbers.is_empty() || socket.transmit_pending() > 0 {
        let ahead = numbers.start - arrived.load(Ordering::Relaxed);
        if ahead > UNDER_WAY && socket.transmit_pending() == 0 && !receiver.is_finished() {
            std::thread::yield_now();
            continue;
        }
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
fn binding_waits_for_a_socket_that_is_about_to_close() {
    let wire = wire(1);
    let held = bind(&wire.server, 0).expect("a socket");
    std::thread::scope(|scope| {
        let binder = scope.spawn(|| bind(&wire.server, 0));
        // Long enough for the first attempt as a rule; if not, there is nothing to wait for and the test passes too.
        std::thread::sleep(Duration::from_millis(200));
        drop(held);
        binder.join().expect("the binder").expect("bound in the end");
    });
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

/// The server's end with the XDP program attached and one listener, and a socket at the client's end to send from.
struct Steered {
    server: XskSocket,
    client: XskSocket,
    program: Program,
    macs: [u8; 12],
    // Last: the link must outlive what is attached to it.
    _wire: Wire,
}

const LISTENER: SocketAddr = SocketAddr::new(SERVER_V4, 7);

impl Steered {
    fn new(mode: XdpMode, receive_frames: u32) -> Steered {
        Steered::over(wire(1), mode, receive_frames)
    }

    fn over(wire: Wire, mode: XdpMode, receive_frames: u32) -> Steered {
        let mut options = options(&wire.server, 0);
        options.receive_frames = receive_frames;
        let mac = wire.server.mac().expect("a MAC address");
        let load = LoadOptions {
            interface_index: options.index,
            interface_name: options.interface.clone(),
            pin_path: default_pin_path(&options.interface),
            mode,
            max_connections: 1024,
            limits_sources: false,
            mac,
            queues: 1,
            vlans: Vec::new(),
        };
        let (server, program) = wire.server.enter(|| {
            let server = XskSocket::bind(&options).expect("a socket");
            let mut program = Program::open(&load).expect("the program");
            program.register_socket(0, server.as_fd()).expect("registered");
            program.set_addresses(&[SERVER_V4]).expect("addresses");
            program.set_listeners(&[(LISTENER, ListenerValue::default())]).expect("listeners");
            program.attach().expect("attached");
            (server, program)
        });
        let client = bind(&wire.client, 0).expect("a socket");
        let macs = [mac, wire.client.mac().expect("a MAC address")].concat();
        Steered { server, client, program, macs: macs.try_into().expect("two MAC addresses"), _wire: wire }
    }

    /// A segment to the listener that carries `number`; its payload grows with it.
    fn segment(&self, number: u32) -> Vec<u8> {
        self.segment_of(number, 4 + number as usize % 1400)
    }

    /// A segment to the listener that carries `number` in a payload of `len` bytes.
    fn segment_of(&self, number: u32, len: usize) -> Vec<u8> {
        let source = SocketAddr::new(CLIENT_V4, 1024 + (number % 60_000) as u16);
        let mut payload = number.to_be_bytes().to_vec();
        payload.resize(len, number as u8);
        let mut frame = SegmentFrame::between(source, LISTENER, "S").with_payload(&payload).build();
        frame[..12].copy_from_slice(&self.macs);
        frame
    }

    /// Sends segments from the client's end.
    fn send(&mut self, numbers: std::ops::Range<u32>) {
        let frames: Vec<_> = numbers.map(|number| self.segment(number)).collect();
        self.send_frames(&frames);
    }

    fn send_frames(&mut self, frames: &[Vec<u8>]) {
        let mut waiting = frames.iter();
        while !waiting.as_slice().is_empty() || self.client.transmit_pending() > 0 {
            self.client.transmit(64, |frame| {
                let segment = waiting.next()?;
                frame[..segment.len()].copy_from_slice(segment);
                Some(segment.len())
            });
        }
    }
}

#[test]
fn segments_of_a_listener_arrive_whole_and_in_order() {
    for mode in [XdpMode::Native, XdpMode::Generic] {
        let mut wire = Steered::new(mode, 4096);
        const SEGMENTS: u32 = 6_400;
        let mut seen = Vec::new();
        for first in (0..SEGMENTS).step_by(64) {
            wire.send(first..first + 64);
            until("a batch of segments", || {
                wire.server.receive(16, |received| seen.push(received.frame.to_vec()));
                (seen.len() == first as usize + 64).then_some(())
            });
        }
        for (number, frame) in (0..).zip(&seen) {
            assert_eq!(*frame, wire.segment(number), "segment {number}, {mode:?}");
        }
        let statistics = wire.server.statistics().expect("statistics");
        assert_eq!(statistics.counters.frames_in, u64::from(SEGMENTS));
        assert_eq!(statistics.counters.bytes_in, seen.iter().map(|frame| frame.len() as u64).sum::<u64>());
        assert_eq!((statistics.rx_dropped, statistics.rx_ring_full, statistics.refused), (0, 0, 0));
        assert_eq!(wire.program.counters().expect("counters").syn, u64::from(SEGMENTS));
    }
}

#[test]
fn a_daemon_that_does_not_receive_loses_frames_counts_them_and_recovers() {
    const MEMORY: u32 = 64;
    let mut wire = Steered::new(XdpMode::Native, MEMORY);
    wire.send(0..200);
    until("200 segments at the program", || (wire.program.counters().ok()?.syn == 200).then_some(()));
    let mut seen = 0;
    wire.server.receive(1000, |_| seen += 1);
    assert_eq!(seen, MEMORY, "what there was memory for");
    let statistics = wire.server.statistics().expect("statistics");
    assert_eq!(statistics.rx_dropped + statistics.rx_ring_full, u64::from(200 - MEMORY), "{statistics:?}");
    assert!(statistics.fill_ring_empty > 0, "{statistics:?}");
    wire.send(200..200 + MEMORY);
    until("segments after the loss", || {
        wire.server.receive(1000, |_| seen += 1);
        (seen == 2 * MEMORY).then_some(())
    });
}

#[test]
fn a_segment_as_long_as_a_large_mtu_allows_passes_whole() {
    // The most that a veth's driver lets an XDP program of single-buffer frames have.
    let wire = Wire::new(&WireOptions { queues: 1, mtu: 3506, ..WireOptions::default() }).expect("a wire");
    let mut wire = Steered::over(wire, XdpMode::Native, 64);
    let frame = wire.segment_of(7, 3506 - 20 - 20);
    assert_eq!(frame.len(), 14 + 3506);
    wire.send_frames(std::slice::from_ref(&frame));
    let received = until("the segment", || {
        let mut received = None;
        wire.server.receive(1, |r| received = Some(r.frame.to_vec()));
        received
    });
    assert_eq!(received, frame);
}

#[test]
fn a_device_becomes_readable_when_a_frame_arrives() {
    let mut wire = Steered::new(XdpMode::Native, 64);
    let segment = wire.segment(1);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let Steered { server, ref mut client, .. } = wire;
    runtime.block_on(async {
        let mut device = WorkerDevice::new(server, Recorder::default(), alone());
        let arrivals = device.arrivals().expect("registered");
        for round in 0..3 {
            let mut once = Some(());
            client.transmit(1, |frame| {
                once.take()?;
                frame[..segment.len()].copy_from_slice(&segment);
                Some(segment.len())
            });
            let mut received = 0;
            while received == 0 {
                arrivals.wait().await.expect("readable");
                device.receive(64, |frame| {
                    assert_eq!(frame, segment);
                    received += 1;
                });
            }
            assert_eq!(received, 1, "round {round}");
        }
    });
}

/// The exchange of a worker without others.
fn alone() -> Exchange {
    Exchange::among(1).remove(0)
}

/// A table that notes the calls and refuses what it is told to.
#[derive(Default)]
struct Recorder {
    calls: Vec<(&'static str, usize)>,
    no_room_for: Option<ConnectionKey>,
    broken: bool,
}

impl Recorder {
    fn answer(&mut self, call: &'static str, entries: usize) -> Result<(), XdpError> {
        self.calls.push((call, entries));
        if self.broken { Err(XdpError::NoPrivilege { doing: "commit".to_owned() }) } else { Ok(()) }
    }
}

impl Table for Recorder {
    fn insert(
        &mut self,
        entries: &[(ConnectionKey, ConnectionValue)],
        _others: bool,
        mut failed: impl FnMut(ConnectionKey, NoEntry),
    ) -> Result<(), XdpError> {
        self.no_room_for.into_iter().for_each(|key| failed(key, NoEntry::Full));
        self.answer("insert", entries.len())
    }

    fn update_batch(&mut self, entries: &[(ConnectionKey, ConnectionValue)]) -> Result<(), XdpError> {
        self.answer("update", entries.len())
    }

    fn delete_batch(&mut self, keys: &[ConnectionKey]) -> Result<(), XdpError> {
        self.answer("delete", keys.len())
    }

    fn lookup(&mut self, _key: &ConnectionKey) -> Result<Option<ConnectionValue>, XdpError> {
        self.answer("lookup", 1).map(|()| None)
    }
}

#[test]
fn the_table_is_called_once_per_kind_of_change_and_not_at_all_without_one() {
    let wire = wire(1);
    let mut device = WorkerDevice::new(bind(&wire.server, 0).expect("a socket"), Recorder::default(), alone());
    let [a, b] = [1, 2].map(|port| ConnectionKey::new(LISTENER, SocketAddr::new(CLIENT_V4, port)));
    let [entry_a, entry_b] = [a, b].map(|key| (key, ConnectionValue::default()));
    let mut failed = Vec::new();
    device.commit(&[], &[], |key, _| failed.push(key));
    device.remove(&[]);
    assert_eq!(device.table().calls, []);
    device.table().no_room_for = Some(b);
    device.commit(&[entry_a, entry_b], &[entry_a], |key, _| failed.push(key));
    device.remove(&[a, b]);
    assert_eq!(device.table().calls, [("insert", 2), ("update", 1), ("delete", 2)]);
    assert_eq!((failed.as_slice(), device.table_errors()), ([b].as_slice(), 0));
}

#[test]
fn a_table_that_is_broken_fails_every_new_entry_once_and_is_counted() {
    let wire = wire(1);
    let table = Recorder { broken: true, ..Recorder::default() };
    let mut device = WorkerDevice::new(bind(&wire.server, 0).expect("a socket"), table, alone());
    let [a, b] = [1, 2].map(|port| ConnectionKey::new(LISTENER, SocketAddr::new(CLIENT_V4, port)));
    let [entry_a, entry_b] = [a, b].map(|key| (key, ConnectionValue::default()));
    device.table().no_room_for = Some(b);
    let mut failed = Vec::new();
    device.commit(&[entry_a, entry_b], &[entry_a], |key, _| failed.push(key));
    device.remove(&[a]);
    assert_eq!((failed, device.table_errors()), (vec![a, b], 3));
}

#[test]
fn an_entry_of_a_table_that_cannot_be_read_does_not_count_as_deleted() {
    let wire = wire(1);
    let mut device = WorkerDevice::new(bind(&wire.server, 0).expect("a socket"), Recorder::default(), alone());
    let key = ConnectionKey::new(LISTENER, SocketAddr::new(CLIENT_V4, 1));
    assert_eq!((device.is_deleted(&key), device.table_errors()), (true, 0));
    device.table().broken = true;
    assert_eq!((device.is_deleted(&key), device.lookup(&key), device.table_errors()), (false, None, 2));
}
