//! Hand-made TCP segments from a lab's client: what no kernel would send.

use std::net::{IpAddr, SocketAddr};

use etherparse::TcpHeader;
use rustix::net::{AddressFamily, SendFlags, SocketType, ipproto, sendto, socket};

use crate::net::Namespace;

/// Sends one segment from `namespace`; the kernel adds the IP header, the checksum is filled in here.
///
/// # Panics
/// When the addresses are not of one family or the kernel refuses to send.
pub fn send_segment(
    namespace: &Namespace,
    source: IpAddr,
    destination: SocketAddr,
    mut tcp: TcpHeader,
    payload: &[u8],
) {
    tcp.destination_port = destination.port();
    let (family, checksum) = match (source, destination.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            (AddressFamily::INET, tcp.calc_checksum_ipv4_raw(from.octets(), to.octets(), payload))
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            (AddressFamily::INET6, tcp.calc_checksum_ipv6_raw(from.octets(), to.octets(), payload))
        }
        _ => panic!("{source} and {destination} are not of one family"),
    };
    tcp.checksum = checksum.expect("a payload that fits into a packet");
    let mut segment = tcp.to_bytes().to_vec();
    segment.extend_from_slice(payload);
    // A raw socket has no ports; IPv6 even insists on zero.
    let to = SocketAddr::new(destination.ip(), 0);
    namespace.enter(|| {
        let socket = socket(family, SocketType::RAW, Some(ipproto::TCP)).expect("root may open raw sockets");
        sendto(&socket, &segment, SendFlags::empty(), &to).expect("the segment can be sent");
    });
}
