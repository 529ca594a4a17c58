//! Hand-made segments from a lab's client: what no kernel would send, from any address.

use std::net::{IpAddr, SocketAddr};

use etherparse::{Icmpv4Type, IpNumber, PacketBuilder, TcpHeader, icmpv4};
use rustix::net::{AddressFamily, SendFlags, SocketType, ipproto, sendto, socket};

use crate::net::Namespace;
use crate::segment::Segment;

/// TTL and hop limit of what is sent.
const HOPS: u8 = 64;
/// What an ICMP error quotes: an IPv4 header without options and 8 bytes.
const QUOTED_BYTES: usize = 28;

/// Sends one TCP segment from `namespace`; the checksums are filled in. No socket knows of it, so the kernel answers
/// what comes back with a RST, unless `source` is an address that it does not have.
///
/// # Panics
/// When the addresses are not of one family, and when the kernel refuses to send.
pub fn send_segment(
    namespace: &Namespace,
    source: IpAddr,
    destination: SocketAddr,
    mut tcp: TcpHeader,
    payload: &[u8],
) {
    tcp.destination_port = destination.port();
    let mut packet = Vec::new();
    let written = match (source, destination.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            PacketBuilder::ipv4(from.octets(), to.octets(), HOPS).tcp_header(tcp).write(&mut packet, payload)
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            PacketBuilder::ipv6(from.octets(), to.octets(), HOPS).tcp_header(tcp).write(&mut packet, payload)
        }
        _ => panic!("{source} and {destination} are not of one family"),
    };
    written.expect("a payload that fits into a packet");
    send_packet(namespace, destination.ip(), &packet);
}

/// Sends a first fragment (IPv4, more to come) that carries the head of a TCP segment and `payload`.
///
/// # Panics
/// When the kernel refuses to send.
pub fn send_first_fragment(
    namespace: &Namespace,
    source: [u8; 4],
    destination: [u8; 4],
    tcp: &TcpHeader,
    payload: &[u8],
) {
    let content = [&tcp.to_bytes()[..], payload].concat();
    assert!(content.len().is_multiple_of(8), "a fragment that is not the last has a multiple of 8 bytes");
    let length = u16::try_from(content.len()).expect("a payload that fits into a packet");
    let mut ip = etherparse::Ipv4Header::new(length, HOPS, IpNumber::TCP, source, destination).expect("a packet");
    ip.more_fragments = true;
    ip.identification = 1;
    ip.header_checksum = ip.calc_header_checksum();
    let packet = [&ip.to_bytes()[..], &content].concat();
    send_packet(namespace, IpAddr::from(destination), &packet);
}

/// Sends an ICMP "port unreachable" to the sender of `about`, quoting its IP header and first 8 bytes (RFC 792).
///
/// # Panics
/// When `about` is not of IPv4, and when the kernel refuses to send.
pub fn send_port_unreachable(namespace: &Namespace, about: &Segment) {
    let (IpAddr::V4(from), IpAddr::V4(to)) = (about.source.ip(), about.destination.ip()) else {
        panic!("{about} is not of IPv4");
    };
    let mut tcp = TcpHeader::new(about.source.port(), about.destination.port(), about.seq, about.window);
    (tcp.syn, tcp.ack) = (about.flags.syn, about.flags.ack);
    let mut quoted = Vec::new();
    let builder = PacketBuilder::ipv4(from.octets(), to.octets(), HOPS);
    builder.tcp_header(tcp).write(&mut quoted, b"").expect("a small packet");
    quoted.truncate(QUOTED_BYTES);
    let unreachable = Icmpv4Type::DestinationUnreachable(icmpv4::DestUnreachableHeader::Port);
    let mut packet = Vec::new();
    let builder = PacketBuilder::ipv4(to.octets(), from.octets(), HOPS);
    builder.icmpv4(unreachable).write(&mut packet, &quoted).expect("a small packet");
    send_packet(namespace, about.source.ip(), &packet);
}

/// Sends an IP packet as it is; the kernel fills in the checksum of an IPv4 header.
///
/// # Panics
/// When the kernel refuses to send.
pub fn send_packet(namespace: &Namespace, destination: IpAddr, packet: &[u8]) {
    let family = if destination.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    namespace.enter(|| {
        // With this protocol number the kernel takes the IP header from the packet.
        let socket = socket(family, SocketType::RAW, Some(ipproto::RAW)).expect("root may open raw sockets");
        let to = SocketAddr::new(destination, 0);
        sendto(&socket, packet, SendFlags::empty(), &to).expect("the packet can be sent");
    });
}
