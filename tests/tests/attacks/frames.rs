//! Making frames: TCP segments with everything in them free to choose.

use std::net::{IpAddr, SocketAddr};

use etherparse::{PacketBuilder, TcpHeader};
use tests::segment::Mac;

use crate::attacker::{Shot, Target};

const HOPS: u8 = 64;

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
