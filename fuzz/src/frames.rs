//! Frames that hold together: lengths and checksums put right in whatever bytes there are, and segments written from
//! their parts. The layout of headers comes from the cases of the XDP decision.

use std::net::{IpAddr, SocketAddr};

use tcp_common::ConnectionKey;
use tcp_common::cases::frames::{SegmentFrame, icmp_about};

/// What a segment says, beside its addresses.
#[derive(Clone, Debug, Default)]
pub struct Segment {
    pub flags: u8,
    pub seq: u32,
    pub ack: u32,
    pub window: u16,
    /// A multiple of 4 bytes, at most 40.
    pub options: Vec<u8>,
    pub payload: Vec<u8>,
    /// The two ECN bits of the IP header.
    pub ecn: u8,
    /// Tag control information.
    pub vlan: Option<u16>,
}

/// The frame of a segment.
pub fn segment(source: SocketAddr, destination: SocketAddr, segment: &Segment) -> Vec<u8> {
    let mut frame = SegmentFrame {
        options: segment.options.clone(),
        payload: segment.payload.clone(),
        vlan: segment.vlan,
        ..SegmentFrame::between(source, destination, "")
    }
    .build();
    let place = place(&frame).expect("a segment");
    let tcp = &mut frame[place.body..];
    tcp[4..8].copy_from_slice(&segment.seq.to_be_bytes());
    tcp[8..12].copy_from_slice(&segment.ack.to_be_bytes());
    tcp[13] = segment.flags;
    tcp[14..16].copy_from_slice(&segment.window.to_be_bytes());
    match source {
        SocketAddr::V4(_) => frame[place.ip + 1] |= segment.ecn,
        SocketAddr::V6(_) => frame[place.ip + 1] |= segment.ecn << 4,
    }
    seal(&mut frame);
    frame
}

/// The frame of an ICMP error of this type, code and last header word about a segment of ours with the number `seq`.
pub fn icmp(key: &ConnectionKey, (kind, code): (u8, u8), word: u32, seq: u32) -> Vec<u8> {
    let quoted = SegmentFrame::between(key.local(), key.remote(), "A").packet();
    let mut frame = icmp_about(key, kind, &quoted);
    let place = place(&frame).expect("a message");
    let ip_header = if key.is_ipv4() { 20 } else { 40 };
    let message = &mut frame[place.body..];
    message[1] = code;
    message[4..8].copy_from_slice(&word.to_be_bytes());
    message[8 + ip_header + 4..][..4].copy_from_slice(&seq.to_be_bytes());
    seal(&mut frame);
    frame
}

/// Where things are in a frame, bytes from its beginning.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub ip: usize,
    /// What the IP packet carries, and where that ends.
    pub body: usize,
    pub end: usize,
    is_v4: bool,
    protocol: u8,
}

/// Finds the parts of a frame with an IP packet; its lengths are believed as far as the frame goes.
pub fn place(frame: &[u8]) -> Option<Place> {
    let tagged = be(frame, 12)? == 0x8100;
    let ip = if tagged { 18 } else { 14 };
    match be(frame, ip - 2)? {
        0x0800 => {
            let header = frame.get(ip..ip + 20)?;
            let body = ip + usize::from(header[0] & 0xf).max(5) * 4;
            let end = (ip + usize::from(be(header, 2)?)).min(frame.len());
            (body <= end).then_some(Place { ip, body, end, is_v4: true, protocol: header[9] })
        }
        0x86dd => {
            let header = frame.get(ip..ip + 40)?;
            let end = (ip + 40 + usize::from(be(header, 4)?)).min(frame.len());
            let (protocol, body) = skip_extensions(&frame[..end], header[6], ip + 40)?;
            Some(Place { ip, body, end, is_v4: false, protocol })
        }
        _ => None,
    }
}

fn skip_extensions(packet: &[u8], mut next: u8, mut at: usize) -> Option<(u8, usize)> {
    while matches!(next, 0 | 43 | 44 | 60) {
        let length = if next == 44 { 8 } else { 8 + 8 * usize::from(*packet.get(at + 1)?) };
        (next, at) = (*packet.get(at)?, at + length);
    }
    (at <= packet.len()).then_some((next, at))
}

/// Makes the IP packet end where the frame does.
pub fn fit(frame: &mut [u8]) {
    let Some(ip) = be(frame, 12).map(|kind| if kind == 0x8100 { 18 } else { 14 }) else { return };
    let (at, header) = match be(frame, ip - 2) {
        Some(0x0800) => (ip + 2, 0),
        Some(0x86dd) => (ip + 4, 40),
        _ => return,
    };
    let length = frame.len().saturating_sub(ip + header) as u16;
    if let Some(field) = frame.get_mut(at..at + 2) {
        field.copy_from_slice(&length.to_be_bytes());
    }
}

/// Puts the checksums right: of the IPv4 header and of what it or IPv6 carries, TCP or ICMP.
pub fn seal(frame: &mut [u8]) {
    let Some(place) = place(frame) else { return };
    if place.is_v4 {
        set_sum(frame, place.ip + 10, place.ip, place.body, 0);
    }
    let length = place.end - place.body;
    let addresses = if place.is_v4 { place.ip + 12..place.ip + 20 } else { place.ip + 8..place.ip + 40 };
    let pseudo = u32::from(sum(&frame[addresses], 0)) + u32::from(place.protocol) + length as u32;
    match place.protocol {
        6 => set_sum(frame, place.body + 16, place.body, place.end, pseudo),
        58 => set_sum(frame, place.body + 2, place.body, place.end, pseudo),
        1 => set_sum(frame, place.body + 2, place.body, place.end, 0),
        _ => {}
    }
}

fn set_sum(frame: &mut [u8], field: usize, from: usize, end: usize, start: u32) {
    if field + 2 <= end {
        frame[field..field + 2].fill(0);
        let complement = !sum(&frame[from..end], start);
        frame[field..field + 2].copy_from_slice(&complement.to_be_bytes());
    }
}

/// The one's complement sum (RFC 1071), word by word.
fn sum(bytes: &[u8], start: u32) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum: u32 = start + words.sum::<u32>();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    sum as u16
}

fn be(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

/// Reads options: pads what is no multiple of 4 with the end of the list, and cuts what is too long.
pub fn pad_options(list: &[u8]) -> Vec<u8> {
    let mut options = list[..list.len().min(40)].to_vec();
    options.resize(options.len().next_multiple_of(4), 0);
    options
}

/// Where both sides of the targets' connections are.
pub fn addresses(v6: bool) -> (SocketAddr, SocketAddr) {
    use tcp_common::cases::world::{LOCAL_V4, LOCAL_V6, PEER_V4, PEER_V6};
    let (local, remote): (IpAddr, IpAddr) = if v6 { (LOCAL_V6, PEER_V6) } else { (LOCAL_V4, PEER_V4) };
    (SocketAddr::new(local, 80), SocketAddr::new(remote, 4000))
}
