//! The frame that answers a segment without any connection's help: back to where it came from, Ethernet (with its tag,
//! if it had one), IPv4 without options or IPv6 without extension headers, a TCP header, no payload.

use crate::headers::{fold, pseudo_header, sum};
use crate::layout::ConnectionKey;

/// Where the TCP header begins in the room: behind the longest headers that can come before it.
const TCP: usize = 18 + 40;
/// Longest TCP header that is written, bytes: with the options of a SYN-ACK.
const TCP_ROOM: usize = 40;
/// Longest frame, bytes.
pub const MAX_REPLY: usize = TCP + TCP_ROOM;
/// Room for a frame: wherever it may begin, the longest would fit.
pub const REPLY_ROOM: usize = 24 + MAX_REPLY + 6;

/// What is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    /// SEG.SEQ.
    pub seq: u32,
    /// SEG.ACK.
    pub ack: u32,
    /// Control bits.
    pub flags: u8,
    /// SEG.WND, as on the wire.
    pub window: u16,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Traffic class: DSCP, and an ECN field of zero.
    pub traffic_class: u8,
    /// Options in whole words, as on the wire.
    pub options: [u32; 5],
    /// How many of them there are.
    pub words: u8,
}

/// Where a frame lies in its room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Where it begins.
    pub start: usize,
    /// Its length in bytes.
    pub length: usize,
}

/// The beginning of a frame that is to be answered: MAC addresses, tag, EtherType.
#[derive(Clone, Copy, Debug)]
pub struct LinkHeader {
    /// Its bytes; behind the end they mean nothing.
    pub bytes: [u8; 18],
    /// Whether it has a tag.
    pub tagged: bool,
}

impl Reply {
    /// Adds the option list of a SYN-ACK; SACK and window scale only with timestamps.
    #[inline(always)]
    pub fn syn_options(&mut self, mss: u16, scale: Option<u8>, sack: bool, timestamps: Option<(u32, u32)>) {
        self.options[0] = u32::from_be_bytes([2, 4, (mss >> 8) as u8, mss as u8]).to_be();
        self.words = 1;
        let Some((value, echo)) = timestamps else { return };
        self.options[1] = match scale {
            Some(shift) => u32::from_be_bytes([1, 3, 3, shift]),
            None => u32::from_be_bytes([1; 4]),
        }
        .to_be();
        let padding = if sack { [4, 2] } else { [1, 1] };
        self.options[2] = u32::from_be_bytes([padding[0], padding[1], 8, 10]).to_be();
        self.options[3] = value.to_be();
        self.options[4] = echo.to_be();
        self.words = 5;
    }

    /// Adds timestamps.
    #[inline(always)]
    pub fn timestamps(&mut self, value: u32, echo: u32) {
        self.options[0] = u32::from_be_bytes([1, 1, 8, 10]).to_be();
        self.options[1] = value.to_be();
        self.options[2] = echo.to_be();
        self.words = 3;
    }

    /// Writes the frame to `room`; `key` is our side's view of the segment that it answers, `link` that one's header.
    #[inline(always)]
    pub fn write(&self, key: &ConnectionKey, link: &LinkHeader, room: &mut [u8; REPLY_ROOM]) -> Extent {
        let length = 20 + u16::from(self.words) * 4;
        self.tcp(key, length, room);
        let ip = if key.is_ipv4() { self.ipv4(key, length, room) } else { self.ipv6(key, length, room) };
        let start = ip - if link.tagged { 18 } else { 14 };
        let link_end = if link.tagged { 18 } else { 14 };
        let mut at = 0;
        while at < 6 {
            room[start + at] = link.bytes[6 + at];
            room[start + 6 + at] = link.bytes[at];
            at += 1;
        }
        at = 12;
        while at < link_end {
            room[start + at] = link.bytes[at];
            at += 1;
        }
        Extent { start, length: TCP - start + usize::from(length) }
    }

    #[inline(always)]
    fn tcp(&self, key: &ConnectionKey, length: u16, room: &mut [u8; REPLY_ROOM]) {
        let Some(tcp) = part::<TCP_ROOM>(room, TCP) else { return };
        *tcp = [0; TCP_ROOM];
        tcp[0..2].copy_from_slice(&key.local_port.to_be_bytes());
        tcp[2..4].copy_from_slice(&key.remote_port.to_be_bytes());
        tcp[4..8].copy_from_slice(&self.seq.to_be_bytes());
        tcp[8..12].copy_from_slice(&self.ack.to_be_bytes());
        tcp[12] = (length as u8 / 4) << 4;
        tcp[13] = self.flags;
        tcp[14..16].copy_from_slice(&self.window.to_be_bytes());
        let mut word = 0;
        while word < 5 {
            // Those that are not used are zeros, and lie behind the frame's end.
            tcp[20 + 4 * word..24 + 4 * word].copy_from_slice(&self.options[word].to_ne_bytes());
            word += 1;
        }
        let checksum = !fold(pseudo_header(key, length) + sum(tcp));
        tcp[16..18].copy_from_slice(&checksum.to_ne_bytes());
    }

    /// Where the header begins.
    #[inline(always)]
    fn ipv4(&self, key: &ConnectionKey, length: u16, room: &mut [u8; REPLY_ROOM]) -> usize {
        const AT: usize = TCP - 20;
        let Some(ip) = part::<20>(room, AT) else { return AT };
        *ip = [0; 20];
        ip[0] = 0x45;
        ip[1] = self.traffic_class;
        ip[2..4].copy_from_slice(&(20 + length).to_be_bytes());
        // Identification 0, don't fragment: an atomic datagram needs no identification (RFC 6864).
        ip[6] = 0x40;
        ip[8] = self.ttl;
        ip[9] = 6;
        ip[12..16].copy_from_slice(&key.local_addr[12..]);
        ip[16..20].copy_from_slice(&key.remote_addr[12..]);
        let checksum = !fold(sum(ip));
        ip[10..12].copy_from_slice(&checksum.to_ne_bytes());
        AT
    }

    #[inline(always)]
    fn ipv6(&self, key: &ConnectionKey, length: u16, room: &mut [u8; REPLY_ROOM]) -> usize {
        const AT: usize = TCP - 40;
        let Some(ip) = part::<40>(room, AT) else { return AT };
        ip[0] = 0x60 | self.traffic_class >> 4;
        ip[1] = self.traffic_class << 4;
        ip[2] = 0;
        ip[3] = 0;
        ip[4..6].copy_from_slice(&length.to_be_bytes());
        ip[6] = 6;
        ip[7] = self.ttl;
        ip[8..24].copy_from_slice(&key.local_addr);
        ip[24..40].copy_from_slice(&key.remote_addr);
        AT
    }
}

/// `N` bytes of the room; `None` never happens, because `at` is a constant.
#[inline(always)]
fn part<const N: usize>(room: &mut [u8; REPLY_ROOM], at: usize) -> Option<&mut [u8; N]> {
    room.get_mut(at..)?.first_chunk_mut()
}
