//! What a person with a hex dump would find in a frame: the parser that the targets compare the product's with. It
//! shares no line with them, copies where it likes, and does not care how long it takes.

use std::net::{IpAddr, SocketAddr};

use tcp_common::ConnectionKey;

/// What a frame carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// VID of its tag; 0 without one.
    pub vlan: u16,
    /// The connection, our side being the destination of a segment and the source of a quoted one.
    pub key: ConnectionKey,
    pub what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// The first fragment of a packet whose first bytes are ports.
    Fragment,
    /// A packet that ends before its TCP header does, or whose header length can't be.
    Malformed,
    /// Flags, and whether there is payload.
    Segment { flags: u8, payload: bool },
    /// An ICMP error about a segment.
    IcmpError,
}

/// An IP packet.
struct Packet {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    more_fragments: bool,
    body: Vec<u8>,
}

/// Reads a frame; `None`: nothing about TCP.
pub fn find(frame: &[u8]) -> Option<Found> {
    let (header, rest) = frame.split_at_checked(14)?;
    let (vlan, kind, rest) = match be(header, 12)? {
        0x8100 => (be(rest, 0)? & 0xfff, be(rest, 2)?, &rest[4..]),
        kind => (0, kind, rest),
    };
    let packet = match kind {
        0x0800 => v4(rest)?,
        0x86dd => v6(rest)?,
        _ => return None,
    };
    let (key, what) = match (packet.protocol, packet.source.is_ipv4()) {
        (6, _) => segment(&packet)?,
        (1, true) | (58, false) => (icmp_error(&packet)?, What::IcmpError),
        _ => return None,
    };
    Some(Found { vlan, key, what })
}

fn v4(bytes: &[u8]) -> Option<Packet> {
    let header_length = usize::from(bytes.first()? & 0xf) * 4;
    let packet = bytes.get(..be(bytes, 2)?.into())?;
    if bytes[0] >> 4 != 4 || header_length < 20 || bytes.len() < 20 || be(bytes, 6)? & 0x1fff != 0 {
        return None;
    }
    let address = |at: usize| Some(<[u8; 4]>::try_from(bytes.get(at..at + 4)?).ok()?.into());
    Some(Packet {
        source: address(12)?,
        destination: address(16)?,
        protocol: bytes[9],
        more_fragments: bytes[6] & 0x20 != 0,
        body: packet.get(header_length..)?.to_vec(),
    })
}

fn v6(bytes: &[u8]) -> Option<Packet> {
    let (header, rest) = bytes.split_at_checked(40)?;
    let mut body = rest.get(..be(header, 4)?.into())?;
    if header[0] >> 4 != 6 {
        return None;
    }
    let (mut protocol, mut more_fragments) = (header[6], false);
    for _ in 0..4 {
        let length = match protocol {
            0 | 60 => 8 + 8 * usize::from(*body.get(1)?),
            // Somebody else's, as long as it has segments left.
            43 if *body.get(3)? == 0 => 8 + 8 * usize::from(body[1]),
            44 if be(body, 2)? < 8 => 8,
            43 | 44 => return None,
            _ => break,
        };
        more_fragments |= protocol == 44 && body[3] & 1 != 0;
        (protocol, body) = (body[0], body.get(length..)?);
    }
    let address = |at: usize| Some(<[u8; 16]>::try_from(header.get(at..at + 16)?).ok()?.into());
    Some(Packet { source: address(8)?, destination: address(24)?, protocol, more_fragments, body: body.to_vec() })
}

fn segment(packet: &Packet) -> Option<(ConnectionKey, What)> {
    let body = &packet.body;
    let remote = SocketAddr::new(packet.source, be(body, 0)?);
    let local = SocketAddr::new(packet.destination, be(body, 2)?);
    let header_length = body.get(12).map_or(0, |byte| usize::from(byte >> 4) * 4);
    let what = match body.get(13) {
        _ if packet.more_fragments => What::Fragment,
        Some(flags) if body.len() >= 20 && header_length >= 20 && header_length <= body.len() => {
            What::Segment { flags: *flags, payload: body.len() > header_length }
        }
        _ => What::Malformed,
    };
    Some((key(local, remote), what))
}

fn icmp_error(packet: &Packet) -> Option<ConnectionKey> {
    let is_v4 = packet.source.is_ipv4();
    let kind = *packet.body.first()?;
    let quote = packet.body.get(8..)?;
    let errors: &[u8] = if is_v4 { &[3, 11, 12] } else { &[1, 2, 3, 4] };
    if !errors.contains(&kind) || packet.more_fragments {
        return None;
    }
    // The quote may be cut off anywhere behind the ports.
    let header_length = if is_v4 { 20 } else { 40 };
    let tcp = quote.get(header_length..)?;
    let (source, destination, protocol) = if is_v4 {
        let plain = quote[0] == 0x45 && be(quote, 6)? & 0x1fff == 0;
        let address = |at: usize| IpAddr::from(<[u8; 4]>::try_from(&quote[at..at + 4]).expect("four"));
        plain.then(|| (address(12), address(16), quote[9]))?
    } else {
        let address = |at: usize| IpAddr::from(<[u8; 16]>::try_from(&quote[at..at + 16]).expect("sixteen"));
        (quote[0] >> 4 == 6).then(|| (address(8), address(24), quote[6]))?
    };
    let quoted = key(SocketAddr::new(source, be(tcp, 0)?), SocketAddr::new(destination, be(tcp, 2)?));
    (protocol == 6 && source == packet.destination).then_some(quoted)
}

/// A key by the addresses as they stand in packets: an IPv4-mapped IPv6 address is one with `::ffff:`.
fn key(local: SocketAddr, remote: SocketAddr) -> ConnectionKey {
    let bytes = |address: IpAddr| match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    };
    ConnectionKey {
        local_addr: bytes(local.ip()),
        remote_addr: bytes(remote.ip()),
        local_port: local.port(),
        remote_port: remote.port(),
        pad: 0,
    }
}

fn be(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

/// The options of a segment that say something to us.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    pub mss: Option<u16>,
    pub scale: Option<u8>,
    pub sack_permitted: bool,
    pub timestamps: Option<(u32, u32)>,
}

/// Reads a list of options until one makes no sense.
pub fn options(list: &[u8]) -> Options {
    let mut options = Options::default();
    let mut at = 0;
    while at < list.len() && list[at] != 0 {
        let length = if list[at] == 1 { 1 } else { list.get(at + 1).copied().unwrap_or(0) };
        let end = at + usize::from(length);
        if length == 0 || (length == 1 && list[at] != 1) || end > list.len() {
            break;
        }
        let word = |from: usize| u32::from_be_bytes(list[from..from + 4].try_into().expect("four"));
        match (list[at], length) {
            (2, 4) => options.mss = be(list, at + 2),
            (3, 3) => options.scale = Some(list[at + 2]),
            (4, 2) => options.sack_permitted = true,
            (8, 10) => options.timestamps = Some((word(at + 2), word(at + 6))),
            _ => {}
        }
        at = end;
    }
    options
}
