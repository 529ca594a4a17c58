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

/// A frame to be sent.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
pub struct ReplyFrame {
    /// Where it begins in the room.
    pub start: u32,
    /// Its length in bytes.
    pub length: u32,
    /// The room.
    pub room: [u8; REPLY_ROOM],
}

impl Default for ReplyFrame {
    fn default() -> Self {
        ReplyFrame { start: 0, length: 0, room: [0; REPLY_ROOM] }
    }
}

impl ReplyFrame {
    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        let start = self.start as usize;
        self.room.get(start..start + self.length as usize).unwrap_or_default()
    }
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

    /// Writes the frame; `key` is our side's view of the segment that it answers, `link` the beginning of that one's
    /// frame, in which MAC addresses come first, and behind them, if it is `tagged`, a VLAN tag.
    #[inline(never)]
    pub fn write(&self, key: &ConnectionKey, link: &[u8; 18], tagged: bool, frame: &mut ReplyFrame) {
        let length = 20 + u16::from(self.words) * 4;
        let room = &mut frame.room;
        self.tcp(key, length, room);
        // Four places that are constants: of one that is computed the verifier would want to be shown its bounds.
        let start = match (key.is_ipv4(), tagged) {
            (true, false) => self.ipv4(key, length, room).before::<14>(room, link),
            (true, true) => self.ipv4(key, length, room).before::<18>(room, link),
            (false, false) => self.ipv6(key, length, room).before::<14>(room, link),
            (false, true) => self.ipv6(key, length, room).before::<18>(room, link),
        };
        (frame.start, frame.length) = (start as u32, (TCP - start) as u32 + u32::from(length));
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

    #[inline(always)]
    fn ipv4(&self, key: &ConnectionKey, length: u16, room: &mut [u8; REPLY_ROOM]) -> Ip<20> {
        let Some(ip) = part::<20>(room, Ip::<20>::START) else { return Ip };
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
        Ip
    }

    #[inline(always)]
    fn ipv6(&self, key: &ConnectionKey, length: u16, room: &mut [u8; REPLY_ROOM]) -> Ip<40> {
        let Some(ip) = part::<40>(room, Ip::<40>::START) else { return Ip };
        ip[0] = 0x60 | self.traffic_class >> 4;
        ip[1] = self.traffic_class << 4;
        ip[2] = 0;
        ip[3] = 0;
        ip[4..6].copy_from_slice(&length.to_be_bytes());
        ip[6] = 6;
        ip[7] = self.ttl;
        ip[8..24].copy_from_slice(&key.local_addr);
        ip[24..40].copy_from_slice(&key.remote_addr);
        Ip
    }
}

/// An IP header of that many bytes, which is in the room.
struct Ip<const LENGTH: usize>;

impl<const LENGTH: usize> Ip<LENGTH> {
    const START: usize = TCP - LENGTH;

    /// Writes the link's header of `N` bytes before it, back to where `link` came from; where it begins.
    #[inline(always)]
    fn before<const N: usize>(self, room: &mut [u8; REPLY_ROOM], link: &[u8; 18]) -> usize {
        let start = Self::START - N;
        if let (Some(header), Some(theirs)) = (part::<N>(room, start), link.first_chunk::<N>()) {
            header[..6].copy_from_slice(&theirs[6..12]);
            header[6..12].copy_from_slice(&theirs[..6]);
            header[12..].copy_from_slice(&theirs[12..]);
        }
        start
    }
}

/// `N` bytes of the room; `None` never happens, because `at` is a constant.
#[inline(always)]
fn part<const N: usize>(room: &mut [u8; REPLY_ROOM], at: usize) -> Option<&mut [u8; N]> {
    room.get_mut(at..)?.first_chunk_mut()
}
