//! Builds the frames of the cases: a correct segment first, of which a case then changes what it is about. Shares no
//! line with the code that writes and verifies the product's frames, so that it can judge it.

use alloc::vec;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};

use super::world::{LOCAL_V4, LOCAL_V6, OUR_MAC, PEER_MAC, PEER_V4, PEER_V6};
use crate::layout::ConnectionKey;

/// TCP flags by their letters: `FSRPAUEC`, any of them in any order.
#[must_use]
pub fn flags(letters: &str) -> u8 {
    letters.chars().map(|letter| 1 << "FSRPAUEC".find(letter).expect("a letter of FSRPAUEC")).sum()
}

/// A TCP segment and how it is wrapped.
#[derive(Clone, Debug)]
pub struct SegmentFrame {
    /// Where it comes from.
    pub source: SocketAddr,
    /// Where it goes.
    pub destination: SocketAddr,
    /// Flags, see [`flags`].
    pub flags: u8,
    /// SEG.SEQ.
    pub seq: u32,
    /// SEG.ACK.
    pub ack: u32,
    /// SEG.WND.
    pub window: u16,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Traffic class.
    pub traffic_class: u8,
    /// MAC addresses: destination, source.
    pub macs: [[u8; 6]; 2],
    /// TCP options, a multiple of 4 bytes.
    pub options: Vec<u8>,
    /// Payload.
    pub payload: Vec<u8>,
    /// VLAN tag.
    pub vlan: Option<u16>,
    /// IPv4 options, a multiple of 4 bytes.
    pub ip_options: Vec<u8>,
    /// The IPv4 word of flags and fragment offset.
    pub ip_fragment: u16,
    /// IPv6 extension headers: the number of each, and its bytes but the first, which tells the next.
    pub extensions: Vec<(u8, Vec<u8>)>,
}

impl SegmentFrame {
    /// A segment without payload from the peer to our port `port`, over IPv4.
    #[must_use]
    pub fn v4(port: u16, letters: &str) -> SegmentFrame {
        SegmentFrame::between((PEER_V4, 50_001).into(), (LOCAL_V4, port).into(), letters)
    }

    /// The same over IPv6.
    #[must_use]
    pub fn v6(port: u16, letters: &str) -> SegmentFrame {
        SegmentFrame::between((PEER_V6, 50_001).into(), (LOCAL_V6, port).into(), letters)
    }

    /// A segment without payload.
    #[must_use]
    pub fn between(source: SocketAddr, destination: SocketAddr, letters: &str) -> SegmentFrame {
        SegmentFrame {
            source,
            destination,
            flags: flags(letters),
            seq: 1_000,
            ack: 2_000,
            window: 65_535,
            ttl: 64,
            traffic_class: 0,
            macs: [OUR_MAC, PEER_MAC],
            options: Vec::new(),
            payload: Vec::new(),
            vlan: None,
            ip_options: Vec::new(),
            ip_fragment: 0x4000,
            extensions: Vec::new(),
        }
    }

    /// From another port, so that it is of no connection.
    #[must_use]
    pub fn stray(mut self) -> SegmentFrame {
        self.source.set_port(50_999);
        self
    }

    /// With this payload.
    #[must_use]
    pub fn with_payload(mut self, payload: &[u8]) -> SegmentFrame {
        self.payload = payload.to_vec();
        self
    }

    /// To this address.
    #[must_use]
    pub fn to(mut self, address: IpAddr) -> SegmentFrame {
        self.destination.set_ip(address);
        self
    }

    /// With a VLAN tag.
    #[must_use]
    pub fn tagged(mut self, vid: u16) -> SegmentFrame {
        self.vlan = Some(vid);
        self
    }

    /// With these numbers.
    #[must_use]
    pub fn numbered(mut self, seq: u32, ack: u32) -> SegmentFrame {
        (self.seq, self.ack) = (seq, ack);
        self
    }

    /// With this option list, padded to a multiple of 4 bytes with the end of the list.
    #[must_use]
    pub fn with_list(mut self, list: &[u8]) -> SegmentFrame {
        self.options = list.to_vec();
        self.options.resize(list.len().next_multiple_of(4), 0);
        self
    }

    /// A segment back to where this one came from, as our answers look: a bare header, all else being the default.
    #[must_use]
    pub fn answered(&self, letters: &str) -> SegmentFrame {
        let answer = SegmentFrame::between(self.destination, self.source, letters);
        SegmentFrame { vlan: self.vlan, macs: [self.macs[1], self.macs[0]], ..answer }
    }

    /// With TCP options of this length in bytes, a multiple of 4 up to 40.
    #[must_use]
    pub fn with_options(mut self, length: usize) -> SegmentFrame {
        self.options = vec![1; length];
        self
    }

    /// With IPv4 options of this length in bytes, a multiple of 4 up to 40.
    #[must_use]
    pub fn with_ip_options(mut self, length: usize) -> SegmentFrame {
        self.ip_options = vec![1; length];
        self
    }

    /// As an IPv4 fragment: offset in units of 8 bytes, whether more follow.
    #[must_use]
    pub fn fragment(mut self, offset: u16, more: bool) -> SegmentFrame {
        self.ip_fragment = offset | if more { 0x2000 } else { 0 };
        self
    }

    /// With one more IPv6 extension header; `rest` is all of it but its first byte.
    #[must_use]
    pub fn extended(mut self, number: u8, rest: &[u8]) -> SegmentFrame {
        self.extensions.push((number, rest.to_vec()));
        self
    }

    /// The frame.
    #[must_use]
    pub fn build(&self) -> Vec<u8> {
        ethernet(self.macs, self.vlan, self.source.is_ipv4(), &self.packet())
    }

    /// The frame after `change` was made to it.
    #[must_use]
    pub fn build_with(&self, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut frame = self.build();
        change(&mut frame);
        frame
    }

    /// The IP packet.
    #[must_use]
    pub fn packet(&self) -> Vec<u8> {
        match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let addresses = [source.octets(), destination.octets()].concat();
                let mut packet = ipv4(6, self.ip_fragment, &addresses, &self.ip_options, &self.segment(&addresses));
                (packet[1], packet[8]) = (self.traffic_class, self.ttl);
                seal(&mut packet[..20 + self.ip_options.len()], 10, 0);
                packet
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let addresses = [source.octets(), destination.octets()].concat();
                let mut packet = ipv6(6, &addresses, &self.extensions, &self.segment(&addresses));
                (packet[0], packet[1]) = (0x60 | self.traffic_class >> 4, self.traffic_class << 4);
                packet[7] = self.ttl;
                packet
            }
            _ => panic!("a segment is of one family"),
        }
    }

    fn segment(&self, addresses: &[u8]) -> Vec<u8> {
        let mut segment = Vec::new();
        segment.extend_from_slice(&self.source.port().to_be_bytes());
        segment.extend_from_slice(&self.destination.port().to_be_bytes());
        segment.extend_from_slice(&self.seq.to_be_bytes());
        segment.extend_from_slice(&self.ack.to_be_bytes());
        segment.push(((20 + self.options.len()) / 4) as u8 * 16);
        segment.push(self.flags);
        segment.extend_from_slice(&self.window.to_be_bytes());
        segment.extend_from_slice(&[0; 4]);
        segment.extend_from_slice(&self.options);
        segment.extend_from_slice(&self.payload);
        let pseudo_header = words(addresses) + 6 + segment.len() as u32;
        seal(&mut segment, 16, pseudo_header);
        segment
    }
}

/// An ICMP error of type `kind` about a segment that we sent on the connection `key`.
#[must_use]
pub fn icmp_error(key: &ConnectionKey, kind: u8) -> Vec<u8> {
    let quoted = SegmentFrame::between(key.local(), key.remote(), "A").packet();
    icmp_about(key, kind, &quoted)
}

/// An ICMP message of type `kind` to our side of `key` that quotes `quoted`.
#[must_use]
pub fn icmp_about(key: &ConnectionKey, kind: u8, quoted: &[u8]) -> Vec<u8> {
    let message = [&[kind, 0, 0, 0, 0, 0, 0, 0], quoted].concat();
    match (key.local().ip(), key.remote().ip()) {
        (IpAddr::V4(local), IpAddr::V4(remote)) => {
            let addresses = [remote.octets(), local.octets()].concat();
            ethernet([OUR_MAC, PEER_MAC], None, true, &ipv4(1, 0, &addresses, &[], &message))
        }
        (IpAddr::V6(local), IpAddr::V6(remote)) => {
            let addresses = [remote.octets(), local.octets()].concat();
            ethernet([OUR_MAC, PEER_MAC], None, false, &ipv6(58, &addresses, &[], &message))
        }
        _ => panic!("a connection is of one family"),
    }
}

/// A UDP datagram to our port `port`, over IPv4.
#[must_use]
pub fn udp(port: u16) -> Vec<u8> {
    SegmentFrame::v4(port, "S").build_with(|frame| frame[23] = 17)
}

/// An ARP request for our address.
#[must_use]
pub fn arp() -> Vec<u8> {
    let mut frame = [OUR_MAC, PEER_MAC].concat();
    frame.extend_from_slice(&[0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend_from_slice(&[0; 20]);
    frame
}

/// Puts the checksum at `at` right; `before`: the words that count beside those of `bytes`.
fn seal(bytes: &mut [u8], at: usize, before: u32) {
    bytes[at..at + 2].fill(0);
    let mut sum = before + words(bytes);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    bytes[at..at + 2].copy_from_slice(&(!(sum as u16)).to_be_bytes());
}

/// The sum of the 16-bit words.
fn words(bytes: &[u8]) -> u32 {
    bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0))).sum()
}

fn ethernet(macs: [[u8; 6]; 2], vlan: Option<u16>, is_ipv4: bool, packet: &[u8]) -> Vec<u8> {
    let mut frame = macs.concat();
    if let Some(tag) = vlan {
        frame.extend_from_slice(&[0x81, 0]);
        frame.extend_from_slice(&tag.to_be_bytes());
    }
    frame.extend_from_slice(if is_ipv4 { &[0x08, 0] } else { &[0x86, 0xdd] });
    frame.extend_from_slice(packet);
    frame
}

fn ipv4(protocol: u8, fragment: u16, addresses: &[u8], options: &[u8], payload: &[u8]) -> Vec<u8> {
    let header_length = 20 + options.len();
    let mut packet = vec![0x40 | (header_length / 4) as u8, 0];
    packet.extend_from_slice(&((header_length + payload.len()) as u16).to_be_bytes());
    packet.extend_from_slice(&[0, 0]);
    packet.extend_from_slice(&fragment.to_be_bytes());
    packet.extend_from_slice(&[64, protocol, 0, 0]);
    packet.extend_from_slice(addresses);
    packet.extend_from_slice(options);
    packet.extend_from_slice(payload);
    packet
}

fn ipv6(protocol: u8, addresses: &[u8], extensions: &[(u8, Vec<u8>)], payload: &[u8]) -> Vec<u8> {
    let mut chain = Vec::new();
    for (index, (_, rest)) in extensions.iter().enumerate() {
        chain.push(extensions.get(index + 1).map_or(protocol, |(next, _)| *next));
        chain.extend_from_slice(rest);
    }
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend_from_slice(&((chain.len() + payload.len()) as u16).to_be_bytes());
    packet.extend_from_slice(&[extensions.first().map_or(protocol, |(first, _)| *first), 64]);
    packet.extend_from_slice(addresses);
    packet.extend_from_slice(&chain);
    packet.extend_from_slice(payload);
    packet
}
