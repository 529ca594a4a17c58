//! Making frames: TCP segments with everything in them free to choose.

use std::net::{IpAddr, SocketAddr};

use etherparse::{PacketBuilder, TcpHeader};
use tests::segment::Mac;

use crate::attacker::Shot;
use crate::victim::Target;

const HOPS: u8 = 64;
/// Where IP begins in a frame, and TCP behind a header of IPv4 without options or of IPv6.
pub const IP: usize = 14;
pub const TCP: usize = IP + 20;
pub const TCP_V6: usize = IP + 40;

/// Flags of a forged segment.
pub const FIN: u8 = 1;
pub const SYN: u8 = 2;
pub const RST: u8 = 4;
pub const PSH: u8 = 8;
pub const ACK: u8 = 16;
pub const URG: u8 = 32;

/// A segment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Forged<'a> {
    pub flags: u8,
    pub seq: u32,
    pub ack: u32,
    pub urgent: u16,
    /// A whole number of words.
    pub options: &'a [u8],
    pub payload: &'a [u8],
}

impl Forged<'_> {
    /// A frame that seems to come from the victim's client.
    pub fn as_client(&self, shot: &Shot) -> Vec<u8> {
        let Target { client, server, .. } = shot.target;
        self.between(shot, client, server)
    }

    /// A frame between any two addresses of one family, with the MAC addresses of the wire.
    pub fn between(&self, shot: &Shot, source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
        self.frame((shot.target.client_mac, shot.target.server_mac), source, destination)
    }

    /// A frame between any two addresses of one family and any MAC addresses.
    pub fn frame(&self, (from, to): (Mac, Mac), source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
        let mut tcp = TcpHeader::new(source.port(), destination.port(), self.seq, 60_000);
        tcp.acknowledgment_number = self.ack;
        tcp.urgent_pointer = self.urgent;
        let has = |flag: u8| self.flags & flag != 0;
        (tcp.fin, tcp.syn, tcp.rst) = (has(FIN), has(SYN), has(RST));
        (tcp.psh, tcp.ack, tcp.urg) = (has(PSH), has(ACK), has(URG));
        tcp.set_options_raw(self.options).expect("at most 40 bytes of options");
        let link = PacketBuilder::ethernet2(from, to);
        let mut frame = Vec::new();
        let written = match (source.ip(), destination.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                link.ipv4(from.octets(), to.octets(), HOPS).tcp_header(tcp).write(&mut frame, self.payload)
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                link.ipv6(from.octets(), to.octets(), HOPS).tcp_header(tcp).write(&mut frame, self.payload)
            }
            _ => panic!("{source} and {destination} are not of one family"),
        };
        written.expect("a small packet");
        frame
    }
}

/// Makes the checksum of an IPv4 header right again, if there is a whole header.
pub fn fix_ip_checksum(frame: &mut [u8]) {
    let Some(header) = frame.get_mut(IP..TCP) else { return };
    header[10..12].fill(0);
    let words = header.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !((folded & 0xffff) + (folded >> 16)) as u16;
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
}
