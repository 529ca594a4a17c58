//! Finds the TCP segment or the ICMP error in an Ethernet frame and says what it is.
//!
//! Reads Ethernet II with at most one VLAN tag, IPv4 with options, IPv6 with at most
//! [`MAX_EXTENSIONS`] extension headers, the fixed TCP header (RFC 9293 section 3.1) and the packet
//! that an ICMP error quotes. Every read is bounds-checked through [`Frame`]. Leaves out checksums,
//! TCP options and reassembly: they are the daemon's.

use network_types::eth::EtherType;
use network_types::ip::IpProto;

use crate::counters::{Class, DropReason};
use crate::layout::{ConnectionKey, is_mapped};

/// Most IPv6 extension headers before the TCP header. Whose a packet with more is can't be told.
pub const MAX_EXTENSIONS: usize = 4;

/// A received Ethernet frame that can be read only within its bounds.
pub trait Frame {
    /// The `N` bytes at `offset`, or `None` where the frame has not that many.
    fn bytes<const N: usize>(&self, offset: usize) -> Option<&[u8; N]>;

    /// Length in bytes.
    fn length(&self) -> usize;

    /// Copies the `length` bytes at `offset` to the beginning of `to`; `false`: the frame has not that many, or `to`
    /// has no room for them.
    fn copy<const N: usize>(&self, offset: usize, length: usize, to: &mut [u8; N]) -> bool;
}

impl Frame for [u8] {
    fn bytes<const N: usize>(&self, offset: usize) -> Option<&[u8; N]> {
        self.get(offset..)?.first_chunk()
    }

    fn length(&self) -> usize {
        self.len()
    }

    fn copy<const N: usize>(&self, offset: usize, length: usize, to: &mut [u8; N]) -> bool {
        match (self.get(offset..offset + length), to.get_mut(..length)) {
            (Some(from), Some(to)) => {
                to.copy_from_slice(from);
                true
            }
            _ => false,
        }
    }
}

/// The Ethernet header of a frame, without its addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// VID of its VLAN tag; 0 without one.
    pub vlan: u16,
    /// What follows.
    ether_type: u16,
    /// Where that begins.
    end: usize,
}

/// What a frame carries, as far as TCP is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packet {
    /// A TCP segment, or the first fragment of one.
    Tcp(Segment),
    /// An ICMP error that quotes a TCP segment of ours.
    IcmpError,
    /// Behind more than [`MAX_EXTENSIONS`] IPv6 extension headers: whatever it may be.
    Hidden,
}

/// What of a TCP segment the decision looks at, taken out of the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Where the IP header begins.
    ip: usize,
    /// Where its header begins.
    start: usize,
    /// Bytes from the beginning of its header to the end of its packet.
    length: usize,
    /// The word of header length and flags; 0 where the frame ends before.
    word: u16,
    /// More of its packet comes in other frames.
    fragment: bool,
}

/// Where a segment lies in its frame.
///
/// Aligned, and without padding: BPF must not store words at odd places of its stack, as the compiler would to clear it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Place {
    /// Where the IP header begins.
    pub ip: u16,
    /// Length of the IPv4 header, bytes; 0 for IPv6.
    pub ip_header: u16,
    /// Where the TCP header begins.
    pub tcp: u16,
    /// Length of the TCP header, bytes; 20 to 60 of a segment that is well-formed.
    pub header: u16,
    /// Length of the segment, header and payload, bytes.
    pub length: u16,
    /// Control bits.
    pub flags: u8,
    pad: u8,
    pad2: u32,
}

impl Place {
    /// Of what is no segment.
    pub const NONE: Place = Place { ip: 0, ip_header: 0, tcp: 0, header: 0, length: 0, flags: 0, pad: 0, pad2: 0 };
}

// The crate keeps EtherTypes in network order.
const ETHER_TYPE_IPV4: u16 = u16::from_be(EtherType::Ipv4 as u16);
const ETHER_TYPE_IPV6: u16 = u16::from_be(EtherType::Ipv6 as u16);
const ETHER_TYPE_VLAN: u16 = u16::from_be(EtherType::Ieee8021q as u16);

const ICMP: u8 = IpProto::Icmp as u8;
const TCP: u8 = IpProto::Tcp as u8;
const ICMPV6: u8 = IpProto::Ipv6Icmp as u8;

const HOP_BY_HOP: u8 = IpProto::HopOpt as u8;
const ROUTING: u8 = IpProto::Ipv6Route as u8;
const FRAGMENT: u8 = IpProto::Ipv6Frag as u8;
const DESTINATION_OPTIONS: u8 = IpProto::Ipv6Opts as u8;

pub(crate) const FIN: u8 = 0x01;
pub(crate) const SYN: u8 = 0x02;
pub(crate) const RST: u8 = 0x04;
const PSH: u8 = 0x08;
pub(crate) const ACK: u8 = 0x10;
const URG: u8 = 0x20;
pub(crate) const ECE: u8 = 0x40;
pub(crate) const CWR: u8 = 0x80;

/// Bytes of an ICMP header before the packet that it quotes.
const ICMP_HEADER: usize = 8;

/// The MAC address that the frame is for; `None`: the frame is too short for one.
#[inline(always)]
pub fn destination<F: Frame + ?Sized>(frame: &F) -> Option<&[u8; 6]> {
    frame.bytes(0)
}

/// Reads the rest of the Ethernet header; `None`: the frame is too short for it.
#[inline(always)]
pub fn link<F: Frame + ?Sized>(frame: &F) -> Option<Link> {
    let header = frame.bytes::<14>(0)?;
    let ether_type = u16::from_be_bytes([header[12], header[13]]);
    if ether_type != ETHER_TYPE_VLAN {
        return Some(Link { vlan: 0, ether_type, end: 14 });
    }
    let tag = frame.bytes::<4>(14)?;
    let vlan = u16::from_be_bytes([tag[0], tag[1]]) & 0x0fff;
    Some(Link { vlan, ether_type: u16::from_be_bytes([tag[2], tag[3]]), end: 18 })
}

/// Finds what the frame carries behind `link`; `None`: nothing of ours, or nothing that can be read.
///
/// Writes to `key` the connection that a segment would belong to (our side is its destination) or that an ICMP
/// error is about. It is the caller's because the program hands its address to the map helpers: made here, it
/// would be built in registers, spilled and copied.
#[inline(always)]
pub fn classify<F: Frame + ?Sized>(frame: &F, link: &Link, key: &mut ConnectionKey) -> Option<Packet> {
    let network = match link.ether_type {
        ETHER_TYPE_IPV4 => ipv4(frame, link.end, key)?,
        ETHER_TYPE_IPV6 => ipv6(frame, link.end, key)?,
        _ => return None,
    };
    match network.protocol {
        TCP => segment(frame, link.end, &network, key),
        ICMP if link.ether_type == ETHER_TYPE_IPV4 => quoted_ipv4(frame, &network, key),
        ICMPV6 if link.ether_type == ETHER_TYPE_IPV6 => quoted_ipv6(frame, &network, key),
        HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION_OPTIONS if link.ether_type == ETHER_TYPE_IPV6 => {
            Some(Packet::Hidden)
        }
        _ => None,
    }
}

/// An IP packet without the headers of its layer; its addresses are in the key.
struct Network {
    protocol: u8,
    /// Where the payload begins.
    payload: usize,
    /// Where the packet ends; Ethernet padding may follow.
    end: usize,
    /// It is the first fragment of several. Later ones are never seen here: they carry no ports.
    fragment: bool,
}

#[inline(always)]
fn ipv4<F: Frame + ?Sized>(frame: &F, at: usize, key: &mut ConnectionKey) -> Option<Network> {
    let header = frame.bytes::<20>(at)?;
    let header_length = usize::from(header[0] & 0x0f) * 4;
    let end = at + usize::from(u16::from_be_bytes([header[2], header[3]]));
    let fragment = u16::from_be_bytes([header[6], header[7]]);
    let (more_fragments, fragment_offset) = (fragment & 0x2000 != 0, fragment & 0x1fff);
    let payload = at + header_length;
    if header[0] >> 4 != 4 || header_length < 20 || end < payload || end > frame.length() || fragment_offset != 0 {
        return None;
    }
    key.local_addr = mapped(part(header, 16)?);
    key.remote_addr = mapped(part(header, 12)?);
    Some(Network { protocol: header[9], payload, end, fragment: more_fragments })
}

#[inline(always)]
fn ipv6<F: Frame + ?Sized>(frame: &F, at: usize, key: &mut ConnectionKey) -> Option<Network> {
    let header = frame.bytes::<40>(at)?;
    let end = at + 40 + usize::from(u16::from_be_bytes([header[4], header[5]]));
    if header[0] >> 4 != 6 || end > frame.length() {
        return None;
    }
    let extensions = extensions(frame, header[6], at + 40)?;
    key.local_addr = *part(header, 24)?;
    key.remote_addr = *part(header, 8)?;
    // On the wire a mapped address is nobody's (RFC 4291 section 2.5.5.2); in the maps it would be an IPv4 host's.
    if is_mapped(&key.local_addr) {
        return None;
    }
    Some(Network { protocol: extensions.next, payload: extensions.end, end, fragment: extensions.fragment })
}

/// Where a chain of IPv6 extension headers ends.
struct Extensions {
    next: u8,
    end: usize,
    fragment: bool,
}

/// Walks the extension headers of RFC 8200 section 4 that may precede a segment that is for us.
#[inline(always)]
fn extensions<F: Frame + ?Sized>(frame: &F, first: u8, at: usize) -> Option<Extensions> {
    let mut chain = Extensions { next: first, end: at, fragment: false };
    for _ in 0..MAX_EXTENSIONS {
        let length = match chain.next {
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS | FRAGMENT => {
                let header = frame.bytes::<4>(chain.end)?;
                let length = extension_length(chain.next, header)?;
                // An atomic fragment (offset 0, no more to come: RFC 6946) is a whole packet.
                chain.fragment |= chain.next == FRAGMENT && header[3] & 1 != 0;
                chain.next = header[0];
                length
            }
            _ => break,
        };
        chain.end += length;
    }
    Some(chain)
}

/// Length in bytes of an extension header; `None`: no segment for us can follow it, because the packet is
/// a later fragment or still has to be routed on.
#[inline(always)]
fn extension_length(kind: u8, header: &[u8; 4]) -> Option<usize> {
    let offset = u16::from_be_bytes([header[2], header[3]]) & 0xfff8;
    match kind {
        FRAGMENT if offset != 0 => None,
        FRAGMENT => Some(8),
        ROUTING if header[3] != 0 => None,
        _ => Some(8 + usize::from(header[1]) * 8),
    }
}

/// Everything that is needed of the header is read here: once no pointer into the frame is left, the verifier need
/// not follow what comes next for each way of getting here.
#[inline(always)]
fn segment<F: Frame + ?Sized>(frame: &F, ip: usize, network: &Network, key: &mut ConnectionKey) -> Option<Packet> {
    if network.payload + 4 > network.end {
        return None;
    }
    let (ports, word) = match frame.bytes::<20>(network.payload) {
        Some(header) => (part(header, 0)?, [header[12], header[13]]),
        None => (frame.bytes::<4>(network.payload)?, [0, 0]),
    };
    key.local_port = u16::from_be_bytes([ports[2], ports[3]]);
    key.remote_port = u16::from_be_bytes([ports[0], ports[1]]);
    let length = network.end - network.payload;
    let (start, word, fragment) = (network.payload, u16::from_be_bytes(word), network.fragment);
    Some(Packet::Tcp(Segment { ip, start, length, word, fragment }))
}

impl Segment {
    /// What the segment is by its fixed header, or what is wrong with it.
    #[inline(always)]
    pub fn shape(&self) -> Result<Class, DropReason> {
        if self.fragment {
            return Err(DropReason::Fragment);
        }
        let header_length = usize::from(self.word >> 12) * 4;
        if header_length < 20 || header_length > self.length {
            return Err(DropReason::HeaderLength);
        }
        class(self.word as u8, header_length < self.length)
    }

    /// Where it lies.
    #[inline(always)]
    pub fn place(&self, key: &ConnectionKey) -> Place {
        Place {
            ip: self.ip as u16,
            ip_header: if key.is_ipv4() { (self.start - self.ip) as u16 } else { 0 },
            tcp: self.start as u16,
            header: (self.word >> 12) * 4,
            length: self.length as u16,
            flags: self.word as u8,
            pad: 0,
            pad2: 0,
        }
    }
}

/// What the flags say; combinations that no TCP sends are refused.
#[inline(always)]
fn class(flags: u8, has_data: bool) -> Result<Class, DropReason> {
    let has = |wanted: u8| flags & wanted == wanted;
    match flags {
        _ if flags & (FIN | SYN | RST | PSH | ACK | URG) == 0 => Err(DropReason::Null),
        _ if has(SYN | FIN) => Err(DropReason::SynFin),
        _ if has(SYN | RST) => Err(DropReason::SynRst),
        _ if has(RST) => Ok(Class::Rst),
        _ if has(SYN | ACK) => Ok(Class::SynAck),
        _ if has(SYN) => Ok(Class::Syn),
        _ if has(FIN | ACK) => Ok(Class::Fin),
        _ if has(FIN | PSH | URG) => Err(DropReason::Xmas),
        _ if has(FIN) => Err(DropReason::FinWithoutAck),
        _ if !has(ACK) => Err(DropReason::WithoutAck),
        _ if has_data => Ok(Class::Data),
        _ => Ok(Class::Ack),
    }
}

/// An ICMP error: types 3, 11 and 12 (RFC 792). Quotes with IPv4 options are not ours: we send none.
#[inline(always)]
fn quoted_ipv4<F: Frame + ?Sized>(frame: &F, network: &Network, key: &mut ConnectionKey) -> Option<Packet> {
    let kind = frame.bytes::<ICMP_HEADER>(network.payload)?[0];
    let quote = network.payload + ICMP_HEADER;
    if !matches!(kind, 3 | 11 | 12) || network.fragment || quote + 24 > network.end {
        return None;
    }
    let header = frame.bytes::<24>(quote)?;
    let fragment_offset = u16::from_be_bytes([header[6], header[7]]) & 0x1fff;
    if header[0] != 0x45 || header[9] != TCP || fragment_offset != 0 {
        return None;
    }
    quoted(mapped(part(header, 12)?), mapped(part(header, 16)?), part(header, 20)?, key)
}

/// An ICMPv6 error: types 1 to 4 (RFC 4443). Quotes with extension headers are not ours: we send none.
#[inline(always)]
fn quoted_ipv6<F: Frame + ?Sized>(frame: &F, network: &Network, key: &mut ConnectionKey) -> Option<Packet> {
    let kind = frame.bytes::<ICMP_HEADER>(network.payload)?[0];
    let quote = network.payload + ICMP_HEADER;
    if !matches!(kind, 1..=4) || network.fragment || quote + 44 > network.end {
        return None;
    }
    let header = frame.bytes::<44>(quote)?;
    if header[0] >> 4 != 6 || header[6] != TCP {
        return None;
    }
    quoted(*part(header, 8)?, *part(header, 24)?, part(header, 40)?, key)
}

/// A quote is of a segment that we sent, so the error must have come back to its source.
#[inline(always)]
fn quoted(source: [u8; 16], destination: [u8; 16], ports: &[u8; 4], key: &mut ConnectionKey) -> Option<Packet> {
    if source != key.local_addr {
        return None;
    }
    key.remote_addr = destination;
    key.local_port = u16::from_be_bytes([ports[0], ports[1]]);
    key.remote_port = u16::from_be_bytes([ports[2], ports[3]]);
    Some(Packet::IcmpError)
}

/// The `N` bytes at `at` of a header; `None` never happens where both are constants.
///
/// Not read from the frame again: the compiler would see that the bounds are checked already, the verifier not.
#[inline(always)]
fn part<const N: usize, const M: usize>(header: &[u8; M], at: usize) -> Option<&[u8; N]> {
    header.get(at..)?.first_chunk()
}

/// An IPv4 address as maps hold it.
///
/// Made by whole words, because the hash of a map reads words: put together of parts they would have to leave the
/// store buffer first.
#[inline(always)]
fn mapped(octets: &[u8; 4]) -> [u8; 16] {
    let address = u128::from(u32::from_le_bytes(*octets)) << 96 | 0xffff << 80;
    address.to_le_bytes()
}
