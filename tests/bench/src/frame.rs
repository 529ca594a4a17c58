//! Frames as the generator sends them: a SYN as Linux makes it (MSS, SACK permitted, timestamps, window scale: 74 bytes
//! over IPv4), an ACK, a RST; and the stackless client's answers to what a server sends.
//!
//! Leaves out IPv4 options, IPv6 extension headers and VLAN tags: nothing here makes them.

use std::net::{IpAddr, SocketAddr};

use ::tests::segment::Mac;
use bench_ebpf::{
    MAX_FRAME, Offsets, SOURCE_BITS_V4, SOURCES_V4, SOURCES_V6, TCP_CHECKSUM, TEMPLATE_WORDS, Template, V4, V6, Varied,
};

/// TTL and hop limit.
const HOPS: u8 = 64;
/// What every segment offers, unscaled.
const WINDOW: u16 = 64_240;
/// MSS 1460, SACK permitted, timestamps, window scale 7: the options of a SYN as Linux orders them.
const SYN_OPTIONS: [u8; 20] = [2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0x10, 0, 0, 0, 0, 0, 1, 3, 3, 7];
/// Lowest source port, and the bits of it that vary.
const FIRST_PORT: u16 = 0x4000;
const PORT_MASK: u16 = 0x3fff;
/// The acknowledgment number of an ACK that belongs to no connection.
const STRAY_ACK: u32 = 0x1234_5678;

pub(crate) const FIN: u8 = 0x01;
pub(crate) const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const PSH: u8 = 0x08;
pub(crate) const ACK: u8 = 0x10;

/// What the generator sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// Connection requests.
    Syn,
    /// Acknowledgments that belong to no connection.
    Ack,
    /// Resets that belong to no connection.
    Rst,
}

/// What the client without a stack does once its SYN is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Script {
    /// Opens the connection and leaves it so; a server's FIN is acknowledged.
    Hold,
    /// Sends a request and its FIN with the ACK.
    Request(&'static [u8]),
    /// Opens the connection, and closes it when the server has.
    CloseAfter,
}

/// Both ends of a wire.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    /// MAC address that frames come from.
    pub client: Mac,
    /// MAC address that they go to.
    pub server: Mac,
    /// Where the server listens.
    pub listener: SocketAddr,
}

/// The offsets of a family.
#[must_use]
pub fn offsets(is_v4: bool) -> Offsets {
    if is_v4 { V4 } else { V6 }
}

/// The frame of `kind` from every source to a listener.
#[must_use]
pub fn template(kind: Kind, ends: &Ends) -> Template {
    let (flags, ack, options): (u8, u32, &[u8]) = match kind {
        Kind::Syn => (SYN, 0, &SYN_OPTIONS),
        Kind::Ack => (ACK, STRAY_ACK, &[]),
        Kind::Rst => (RST, 0, &[]),
    };
    let segment = Head { ports: [0, ends.listener.port()], sequence: 0, ack, flags, options };
    let is_v4 = ends.listener.is_ipv4();
    let mut frame = Vec::new();
    write_frame(&mut frame, [ends.client, ends.server], source(is_v4, 0), ends.listener.ip(), &segment, &[]);
    as_template(frame, is_v4)
}

/// Fills the varying fields of a frame in; `frame` has at least the template's length. Returns that.
pub fn fill(frame: &mut [u8], template: &Template, varied: &Varied) -> usize {
    let (length, at) = (template.length as usize, offsets(template.is_v4 != 0));
    frame[..length].copy_from_slice(&template.bytes[..length]);
    put(frame, at.source, varied.source);
    if template.is_v4 != 0 {
        put(frame, at.ip_checksum, varied.ip_checksum);
    }
    put(frame, at.tcp, varied.port);
    put(frame, at.tcp + 4, varied.sequence);
    put(frame, at.tcp + TCP_CHECKSUM, varied.tcp_checksum);
    length
}

/// A template as its map has it.
#[must_use]
pub fn words(template: &Template) -> [u64; TEMPLATE_WORDS] {
    let numbers = [
        [template.length, template.is_v4],
        [template.ip_sum, template.tcp_sum],
        [template.source_base, template.source_mask],
        [template.port_base, template.port_mask],
        [template.sequence_mask, template.pad],
    ];
    let mut words = [0; TEMPLATE_WORDS];
    let (bytes, _) = template.bytes.as_chunks::<8>();
    for (word, bytes) in words.iter_mut().zip(bytes) {
        *word = u64::from_ne_bytes(*bytes);
    }
    for (word, [first, second]) in words[MAX_FRAME / 8..].iter_mut().zip(numbers) {
        let ([a, b, c, d], [e, f, g, h]) = (first.to_ne_bytes(), second.to_ne_bytes());
        *word = u64::from_ne_bytes([a, b, c, d, e, f, g, h]);
    }
    words
}

/// What the client without a stack answers to a frame, if anything: an ACK to a SYN-ACK, to data and to a FIN, with what
/// its script adds. It remembers nothing, and takes what comes to be in order.
#[must_use]
pub fn answer(received: &[u8], script: Script) -> Option<Vec<u8>> {
    let segment = Received::parse(received)?;
    if segment.flags & RST != 0 || segment.flags & ACK == 0 {
        return None;
    }
    let taken = segment.payload + u32::from(segment.flags & (SYN | FIN) != 0);
    if taken == 0 {
        return None;
    }
    let (more, payload) = script.adds(segment.flags);
    let options = segment.timestamp.map(|theirs| timestamps(segment.echo, theirs));
    let head = Head {
        ports: [segment.ports[1], segment.ports[0]],
        sequence: segment.ack,
        ack: segment.sequence.wrapping_add(taken),
        flags: ACK | more,
        options: options.as_ref().map_or(&[], |options| options),
    };
    let mut frame = Vec::with_capacity(MAX_FRAME);
    write_frame(&mut frame, segment.macs, segment.destination, segment.source, &head, payload);
    Some(frame)
}

impl Script {
    /// Flags and data of the answer to a segment with `flags`, beside the ACK.
    fn adds(self, flags: u8) -> (u8, &'static [u8]) {
        match self {
            Script::Request(request) if flags & SYN != 0 => (PSH | FIN, request),
            Script::CloseAfter if flags & FIN != 0 => (FIN, &[]),
            _ => (0, &[]),
        }
    }
}

/// The `number`th source address.
fn source(is_v4: bool, number: u32) -> IpAddr {
    if is_v4 {
        return IpAddr::from((u32::from_be_bytes(SOURCES_V4) | number).to_be_bytes());
    }
    let mut address = [0; 16];
    address[..12].copy_from_slice(&SOURCES_V6);
    address[12..].copy_from_slice(&number.to_be_bytes());
    IpAddr::from(address)
}

/// A segment to be written.
struct Head<'a> {
    ports: [u16; 2],
    sequence: u32,
    ack: u32,
    flags: u8,
    options: &'a [u8],
}

/// What is read of a segment.
struct Received {
    /// From us to the sender.
    macs: [Mac; 2],
    source: IpAddr,
    destination: IpAddr,
    ports: [u16; 2],
    sequence: u32,
    ack: u32,
    flags: u8,
    /// The sender's timestamp, and the one of ours that it echoes.
    timestamp: Option<u32>,
    echo: u32,
    /// Bytes.
    payload: u32,
}

impl Received {
    fn parse(frame: &[u8]) -> Option<Received> {
        let is_v4 = frame.get(12..14)? == [8, 0];
        let tcp = frame.get(offsets(is_v4).tcp..)?;
        let word = |at: usize| tcp.get(at..at + 4).map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]));
        let ports = word(0)?;
        let header = usize::from(tcp.get(12)? >> 4) * 4;
        let (source, destination) = addresses(frame, is_v4)?;
        let options = tcp.get(20..header)?;
        let stamps = timestamps_in(options);
        Some(Received {
            macs: [frame[..6].try_into().ok()?, frame[6..12].try_into().ok()?],
            source,
            destination,
            ports: [(ports >> 16) as u16, ports as u16],
            sequence: word(4)?,
            ack: word(8)?,
            flags: tcp[13],
            timestamp: stamps.map(|(theirs, _)| theirs),
            echo: stamps.map_or(0, |(_, ours)| ours),
            payload: (tcp_length(frame, is_v4)?).checked_sub(header)? as u32,
        })
    }
}

fn addresses(frame: &[u8], is_v4: bool) -> Option<(IpAddr, IpAddr)> {
    if is_v4 {
        let at = |from: usize| Some(IpAddr::from(<[u8; 4]>::try_from(frame.get(from..from + 4)?).ok()?));
        return Some((at(26)?, at(30)?));
    }
    let at = |from: usize| Some(IpAddr::from(<[u8; 16]>::try_from(frame.get(from..from + 16)?).ok()?));
    Some((at(22)?, at(38)?))
}

/// Bytes of TCP in a frame, by its IP header: short frames are padded.
fn tcp_length(frame: &[u8], is_v4: bool) -> Option<usize> {
    let at = if is_v4 { 16 } else { 18 };
    let length = usize::from(u16::from_be_bytes([*frame.get(at)?, *frame.get(at + 1)?]));
    length.checked_sub(if is_v4 { 20 } else { 0 })
}

/// The sender's timestamp, and the one that it echoes.
fn timestamps_in(mut options: &[u8]) -> Option<(u32, u32)> {
    loop {
        match options {
            [8, 10, a, b, c, d, e, f, g, h, ..] => {
                return Some((u32::from_be_bytes([*a, *b, *c, *d]), u32::from_be_bytes([*e, *f, *g, *h])));
            }
            [1, rest @ ..] => options = rest,
            [2..=255, length @ 2..=255, ..] => options = options.get(usize::from(*length)..)?,
            _ => return None,
        }
    }
}

fn timestamps(ours: u32, theirs: u32) -> [u8; 12] {
    let mut option = [1, 1, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0];
    put(&mut option, 4, ours.to_be_bytes());
    put(&mut option, 8, theirs.to_be_bytes());
    option
}

fn write_frame(frame: &mut Vec<u8>, macs: [Mac; 2], from: IpAddr, to: IpAddr, head: &Head<'_>, payload: &[u8]) {
    let tcp = [&write_head(head)[..], payload].concat();
    frame.extend(macs[1]);
    frame.extend(macs[0]);
    let length = tcp.len() as u16;
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            frame.extend([8, 0, 0x45, 0]);
            frame.extend((20 + length).to_be_bytes());
            frame.extend([0, 0, 0x40, 0, HOPS, 6, 0, 0]);
            frame.extend(from.octets());
            frame.extend(to.octets());
        }
        (from, to) => {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend(length.to_be_bytes());
            frame.extend([6, HOPS]);
            frame.extend(v6(from));
            frame.extend(v6(to));
        }
    }
    frame.extend(tcp);
    fill_checksums(frame, from.is_ipv4());
}

fn v6(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

fn write_head(head: &Head<'_>) -> Vec<u8> {
    let mut tcp = Vec::with_capacity(20 + head.options.len());
    tcp.extend(head.ports[0].to_be_bytes());
    tcp.extend(head.ports[1].to_be_bytes());
    tcp.extend(head.sequence.to_be_bytes());
    tcp.extend(head.ack.to_be_bytes());
    tcp.push(((20 + head.options.len()) / 4) as u8 * 16);
    tcp.push(head.flags);
    tcp.extend(WINDOW.to_be_bytes());
    tcp.extend([0; 4]);
    tcp.extend(head.options);
    tcp
}

fn fill_checksums(frame: &mut [u8], is_v4: bool) {
    let at = offsets(is_v4);
    if is_v4 {
        let checksum = bench_ebpf::checksum(ip_sum(frame));
        put(frame, at.ip_checksum, checksum);
    }
    let checksum = bench_ebpf::checksum(tcp_sum(frame, is_v4));
    put(frame, at.tcp + TCP_CHECKSUM, checksum);
}

fn as_template(mut frame: Vec<u8>, is_v4: bool) -> Template {
    let at = offsets(is_v4);
    let base = u32::from_be_bytes([frame[at.source], frame[at.source + 1], frame[at.source + 2], frame[at.source + 3]]);
    put(&mut frame, at.source, [0; 4]);
    put(&mut frame, at.tcp, [0; 2]);
    put(&mut frame, at.tcp + TCP_CHECKSUM, [0; 2]);
    if is_v4 {
        put(&mut frame, at.ip_checksum, [0; 2]);
    }
    let mut bytes = [0; MAX_FRAME];
    bytes[..frame.len()].copy_from_slice(&frame);
    Template {
        bytes,
        length: frame.len() as u32,
        is_v4: u32::from(is_v4),
        ip_sum: if is_v4 { ip_sum(&frame) } else { 0 },
        tcp_sum: tcp_sum(&frame, is_v4),
        source_base: base,
        source_mask: if is_v4 { (1 << SOURCE_BITS_V4) - 1 } else { u32::MAX },
        port_base: FIRST_PORT.into(),
        port_mask: PORT_MASK.into(),
        sequence_mask: u32::MAX,
        pad: 0,
    }
}

fn ip_sum(frame: &[u8]) -> u32 {
    sum(&frame[14..34])
}

/// The sum of the segment and its pseudo-header.
fn tcp_sum(frame: &[u8], is_v4: bool) -> u32 {
    let tcp = &frame[offsets(is_v4).tcp..];
    let addresses = if is_v4 { &frame[26..34] } else { &frame[22..54] };
    sum(addresses) + 6 + tcp.len() as u32 + sum(tcp)
}

/// Adds 16-bit words up; a last byte alone is the high half of one.
fn sum(bytes: &[u8]) -> u32 {
    bytes.chunks(2).map(|word| u32::from(word[0]) << 8 | word.get(1).copied().map_or(0, u32::from)).sum()
}

fn put<const N: usize>(bytes: &mut [u8], at: usize, value: [u8; N]) {
    bytes[at..at + N].copy_from_slice(&value);
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use etherparse::{NetHeaders, PacketHeaders, TransportHeader};

    use super::*;

    fn ends(is_v4: bool) -> Ends {
        let server: IpAddr = if is_v4 { Ipv4Addr::new(10, 77, 0, 2).into() } else { Ipv6Addr::LOCALHOST.into() };
        Ends { client: [2, 0, 0, 0, 0, 1], server: [2, 0, 0, 0, 0, 2], listener: (server, 80).into() }
    }

    /// Reads a frame with etherparse and holds its checksums against etherparse's.
    fn checked(frame: &[u8]) -> etherparse::TcpHeader {
        let packet = PacketHeaders::from_ethernet_slice(frame).expect("a frame");
        let payload = packet.payload.slice();
        let Some(TransportHeader::Tcp(tcp)) = packet.transport else { panic!("not TCP") };
        let expected = match packet.net.expect("IP") {
            NetHeaders::Ipv4(ip, _) => {
                assert_eq!(ip.header_checksum, ip.calc_header_checksum());
                tcp.calc_checksum_ipv4(&ip, payload)
            }
            NetHeaders::Ipv6(ip, _) => tcp.calc_checksum_ipv6(&ip, payload),
            NetHeaders::Arp(_) => panic!("not IP"),
        };
        assert_eq!(tcp.checksum, expected.expect("a checksum"));
        tcp
    }

    #[test]
    fn varied_frames_have_right_checksums_in_both_families() {
        for is_v4 in [true, false] {
            for kind in [Kind::Syn, Kind::Ack, Kind::Rst] {
                let template = template(kind, &ends(is_v4));
                for seed in [0, 1, 0xffff_ffff, 0x9e37_79b9] {
                    let mut frame = [0; MAX_FRAME];
                    let varied = template.vary([seed, seed ^ 0x5555, !seed]);
                    let length = fill(&mut frame, &template, &varied);
                    let tcp = checked(&frame[..length]);
                    assert_eq!(tcp.sequence_number, !seed);
                    assert_eq!((tcp.syn, tcp.ack, tcp.rst), (kind == Kind::Syn, kind == Kind::Ack, kind == Kind::Rst));
                }
            }
        }
    }

    #[test]
    fn a_syn_is_as_long_as_one_of_linux_and_offers_what_it_offers() {
        let template = template(Kind::Syn, &ends(true));
        let mut frame = [0; MAX_FRAME];
        let length = fill(&mut frame, &template, &template.vary([7, 7, 7]));
        assert_eq!(length, 74);
        let options: Vec<_> = checked(&frame[..length]).options_iterator().map(Result::unwrap).collect();
        assert_eq!(options.len(), 5, "{options:?}"); // one is a NOP
    }

    #[test]
    fn sources_stay_in_the_prefix_for_benchmarks() {
        let template = template(Kind::Syn, &ends(true));
        for random in [0, 1, 0x1_ffff, u32::MAX] {
            let [a, b, ..] = template.vary([random, 0, 0]).source;
            assert_eq!((a, b & 0xfe), (198, 18));
        }
    }

    /// A server's segment to the client: what the client would send, turned round.
    fn from_server(is_v4: bool, flags: u8, payload: &[u8], options: &[u8]) -> Vec<u8> {
        let ends = ends(is_v4);
        let head = Head { ports: [80, 0x4001], sequence: 1000, ack: 501, flags, options };
        let mut frame = Vec::new();
        write_frame(&mut frame, [ends.server, ends.client], ends.listener.ip(), source(is_v4, 9), &head, payload);
        frame
    }

    #[test]
    fn a_syn_ack_is_answered_with_the_request_and_its_timestamp() {
        for is_v4 in [true, false] {
            let options = timestamps(77, 4096);
            let frame =
                answer(&from_server(is_v4, SYN | ACK, &[], &options), Script::Request(b"GET")).expect("an answer");
            let tcp = checked(&frame);
            assert_eq!((tcp.source_port, tcp.destination_port), (0x4001, 80));
            assert_eq!((tcp.sequence_number, tcp.acknowledgment_number), (501, 1001));
            assert!(tcp.ack && tcp.psh && tcp.fin && !tcp.syn);
            assert_eq!(timestamps_in(tcp.options.as_slice()), Some((4096, 77)));
            assert!(frame.ends_with(b"GET"));
        }
    }

    #[test]
    fn data_and_fin_are_acknowledged_and_pure_acks_and_resets_are_not() {
        let frame = answer(&from_server(true, ACK | FIN, b"abc", &[]), Script::Request(b"GET")).expect("an answer");
        let tcp = checked(&frame);
        assert_eq!((tcp.acknowledgment_number, tcp.fin, tcp.psh), (1004, false, false));
        let script = Script::CloseAfter;
        assert!(checked(&answer(&from_server(true, ACK | FIN, b"abc", &[]), script).expect("an answer")).fin);
        assert!(!checked(&answer(&from_server(true, ACK, b"abc", &[]), script).expect("an answer")).fin);
        assert_eq!(answer(&from_server(true, ACK, &[], &[]), script), None);
        assert_eq!(answer(&from_server(true, RST | ACK, &[], &[]), script), None);
        assert_eq!(answer(&[0; 20], script), None);
    }
}
