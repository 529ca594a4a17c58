//! From frame to segment: Ethernet, IPv4 (RFC 791) and IPv6 (RFC 8200) headers, checksums, and the
//! addresses that can't be a TCP peer's (RFC 1122 section 3.2.1.3).

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tcp_common::ConnectionKey;

use super::icmp::{self, IcmpError};
use super::tcp::Segment;
use super::{Checksum, ETHERNET_HEADER, be16};
use crate::api::LinkAddress;
use crate::drops::DropReason;

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_VLAN: u16 = 0x8100;
/// The ECN field of the traffic class, and what it says of a packet that met congestion.
const ECN: u8 = 0b11;
const CE: u8 = 0b11;
const PROTOCOL_TCP: u8 = 6;
const PROTOCOL_ICMP: u8 = 1;
const PROTOCOL_ICMPV6: u8 = 58;
/// IPv6 extension headers walked before a packet is given up.
const MAX_EXTENSION_HEADERS: usize = 4;

/// What a frame carried.
pub(crate) enum Received<'a> {
    /// A segment, with the 4-tuple seen from our side and the address of whoever sent the frame.
    Segment { key: ConnectionKey, link: LinkAddress, segment: Segment<'a> },
    /// An ICMP error about a segment that we sent.
    Icmp(IcmpError),
}

/// A packet between its IP header and what it carries.
struct Packet<'a> {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    /// Whether it is marked: congestion experienced (RFC 3168 section 5).
    ce: bool,
    body: &'a [u8],
}

/// Checks a frame down to its segment. `accept_partial`: a checksum field that holds only the pseudo-header
/// sum passes.
pub(crate) fn receive(frame: &[u8], accept_partial: bool) -> Result<Received<'_>, DropReason> {
    let (link, ethertype, body) = ethernet(frame).ok_or(DropReason::BadHeader)?;
    // The group bit: an answer would go to many.
    if link.mac[0] & 1 != 0 {
        return Err(DropReason::Martian);
    }
    let packet = match ethertype {
        ETHERTYPE_IPV4 => ipv4(body)?,
        ETHERTYPE_IPV6 => ipv6(body)?,
        _ => return Err(DropReason::NotTcp),
    };
    match packet.protocol {
        PROTOCOL_TCP => tcp(&packet, link, accept_partial),
        PROTOCOL_ICMP | PROTOCOL_ICMPV6 => {
            icmp::parse(packet.body, packet.destination.is_ipv4()).map(Received::Icmp).ok_or(DropReason::IrrelevantIcmp)
        }
        _ => Err(DropReason::NotTcp),
    }
}

fn ethernet(frame: &[u8]) -> Option<(LinkAddress, u16, &[u8])> {
    let mac = *frame.get(6..)?.first_chunk()?;
    match be16(frame, 12)? {
        ETHERTYPE_VLAN => {
            let link = LinkAddress { mac, vlan: be16(frame, ETHERNET_HEADER) };
            Some((link, be16(frame, 16)?, &frame[18..]))
        }
        ethertype => Some((LinkAddress { mac, vlan: None }, ethertype, &frame[ETHERNET_HEADER..])),
    }
}

//= docs/rfc/rfc9293.md#MUST-50
fn ipv4(bytes: &[u8]) -> Result<Packet<'_>, DropReason> {
    let header = bytes.first_chunk::<20>().ok_or(DropReason::BadHeader)?;
    let header_length = usize::from(header[0] & 0xf) * 4;
    let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
    if header[0] >> 4 != 4 || header_length < 20 || total < header_length || total > bytes.len() {
        return Err(DropReason::BadHeader);
    }
    let mut sum = Checksum::default();
    sum.add(&bytes[..header_length]);
    if sum.folded() != 0xffff {
        return Err(DropReason::BadChecksum);
    }
    // More fragments, or an offset: not a whole packet.
    if u16::from_be_bytes([header[6], header[7]]) & 0x3fff != 0 {
        return Err(DropReason::Fragment);
    }
    Ok(Packet {
        source: Ipv4Addr::new(header[12], header[13], header[14], header[15]).into(),
        destination: Ipv4Addr::new(header[16], header[17], header[18], header[19]).into(),
        protocol: header[9],
        ce: header[1] & ECN == CE,
        body: &bytes[header_length..total],
    })
}

fn ipv6(bytes: &[u8]) -> Result<Packet<'_>, DropReason> {
    let header = bytes.first_chunk::<40>().ok_or(DropReason::BadHeader)?;
    let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
    let body = bytes.get(40..40 + length).ok_or(DropReason::BadHeader)?;
    if header[0] >> 4 != 6 {
        return Err(DropReason::BadHeader);
    }
    let address =
        |at: usize| -> IpAddr { Ipv6Addr::from(header[at..].first_chunk::<16>().copied().unwrap_or_default()).into() };
    let (protocol, body) = skip_extensions(header[6], body)?;
    Ok(Packet { source: address(8), destination: address(24), protocol, ce: header[1] >> 4 & ECN == CE, body })
}

fn skip_extensions(mut next: u8, mut body: &[u8]) -> Result<(u8, &[u8]), DropReason> {
    const HOP_BY_HOP: u8 = 0;
    const ROUTING: u8 = 43;
    const FRAGMENT: u8 = 44;
    const DESTINATION: u8 = 60;
    for _ in 0..=MAX_EXTENSION_HEADERS {
        match next {
            HOP_BY_HOP | ROUTING | DESTINATION => {
                let head = body.first_chunk::<4>().ok_or(DropReason::BadHeader)?;
                // With segments left, the packet has yet to go on to others (RFC 8200 section 4.4).
                if next == ROUTING && head[3] != 0 {
                    return Err(DropReason::Martian);
                }
                next = head[0];
                body = body.get(usize::from(head[1]) * 8 + 8..).ok_or(DropReason::BadHeader)?;
            }
            // An "atomic" fragment is a whole packet (RFC 6946): no offset, no more to come.
            FRAGMENT if be16(body, 2).is_some_and(|offset| offset & 0xfff9 == 0) => {
                next = *body.first().ok_or(DropReason::BadHeader)?;
                body = body.get(8..).ok_or(DropReason::BadHeader)?;
            }
            FRAGMENT => return Err(DropReason::Fragment),
            _ => return Ok((next, body)),
        }
    }
    Err(DropReason::BadHeader)
}

fn tcp<'a>(packet: &Packet<'a>, link: LinkAddress, accept_partial: bool) -> Result<Received<'a>, DropReason> {
    let segment = Segment { ce: packet.ce, ..Segment::parse(packet.body)? };
    verify(packet, accept_partial)?;
    let source_port = be16(packet.body, 0).unwrap_or_default();
    let destination_port = be16(packet.body, 2).unwrap_or_default();
    if !may_be_peer(packet.source, packet.destination) || source_port == 0 {
        return Err(DropReason::Martian);
    }
    let local = SocketAddr::new(packet.destination, destination_port);
    let key = ConnectionKey::new(local, SocketAddr::new(packet.source, source_port));
    Ok(Received::Segment { key, link, segment })
}

//= docs/rfc/rfc9293.md#MUST-3
fn verify(packet: &Packet<'_>, accept_partial: bool) -> Result<(), DropReason> {
    let pseudo = match (packet.source, packet.destination) {
        (IpAddr::V4(s), IpAddr::V4(d)) => Checksum::pseudo_header(&s.octets(), &d.octets(), packet.body.len()),
        (IpAddr::V6(s), IpAddr::V6(d)) => Checksum::pseudo_header(&s.octets(), &d.octets(), packet.body.len()),
        _ => return Err(DropReason::BadHeader),
    };
    let mut sum = pseudo;
    sum.add(packet.body);
    let partial = accept_partial && be16(packet.body, 16) == Some(pseudo.folded());
    if sum.folded() == 0xffff || partial { Ok(()) } else { Err(DropReason::BadChecksum) }
}

/// Whether a packet between these addresses can belong to a connection (MUST-57, MUST-63; equal addresses
/// are the LAND attack).
//= docs/rfc/rfc9293.md#MUST-57
//= docs/rfc/rfc9293.md#MUST-63
fn may_be_peer(source: IpAddr, destination: IpAddr) -> bool {
    source != destination && is_unicast(source) && is_unicast(destination)
}

/// Whether an address is one host's: neither unspecified, multicast, broadcast nor loopback.
pub(crate) fn is_unicast(address: IpAddr) -> bool {
    let no_host = match address {
        IpAddr::V4(v4) => v4.is_broadcast() || v4.octets()[0] == 0,
        // On the wire a mapped address would name an IPv4 connection.
        IpAddr::V6(v6) => v6.to_ipv4_mapped().is_some(),
    };
    !(address.is_unspecified() || address.is_multicast() || address.is_loopback() || no_host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extension_headers_are_skipped_and_only_whole_packets_pass() {
        let fragment = |offset: u16| [[6, 0], offset.to_be_bytes(), [0, 1], [0, 2], *b"tc"].concat();
        assert_eq!(skip_extensions(44, &fragment(0)).ok(), Some((6, &b"tc"[..])), "an atomic fragment");
        for offset in [1, 8, 0x1239] {
            assert!(matches!(skip_extensions(44, &fragment(offset)), Err(DropReason::Fragment)), "{offset:#x}");
        }
        let chain = [&[60, 0, 0, 0, 0, 0, 0, 0][..], &[43, 1], &[0; 14], &[6, 0, 0, 0, 0, 0, 0, 0], b"tc"].concat();
        assert_eq!(skip_extensions(0, &chain).ok(), Some((6, &b"tc"[..])));
        let routed_on = [&[6, 0, 0, 1, 0, 0, 0, 0][..], b"tc"].concat();
        assert!(matches!(skip_extensions(43, &routed_on), Err(DropReason::Martian)), "segments left");
        let too_long = [[60, 0, 0, 0, 0, 0, 0, 0]; 6].concat();
        assert!(skip_extensions(60, &too_long).is_err());
    }
}
