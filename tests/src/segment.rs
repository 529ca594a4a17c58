//! One captured TCP segment, parsed by `etherparse` so that the checker shares no code with the stack it checks.
//!
//! Leaves out: payloads (only where they are is kept), VLAN tags beyond skipping them, and fragments.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::time::Duration;

use etherparse::{LinkSlice, NetSlice, SlicedPacket, TcpOptionElement, TcpSlice, TransportSlice};

/// A MAC address.
pub type Mac = [u8; 6];

/// The flags of RFC 9293 section 3.1 plus the four bits left of CWR, as they stand in the header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// FIN.
    pub fin: bool,
    /// SYN.
    pub syn: bool,
    /// RST.
    pub rst: bool,
    /// PSH.
    pub psh: bool,
    /// ACK.
    pub ack: bool,
    /// URG.
    pub urg: bool,
    /// ECE (RFC 3168).
    pub ece: bool,
    /// CWR (RFC 3168).
    pub cwr: bool,
    /// The four reserved bits.
    pub reserved: u8,
}

/// A segment as it stood on the wire, and what was wrong with its checksums.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// When it was captured, since the capture began.
    pub at: Duration,
    /// Source MAC address.
    pub source_mac: Mac,
    /// Who sent it.
    pub source: SocketAddr,
    /// Whom it was for.
    pub destination: SocketAddr,
    /// SEG.SEQ.
    pub seq: u32,
    /// SEG.ACK; meaningless without the ACK flag.
    pub ack: u32,
    /// SEG.WND as it stands in the header, unscaled.
    pub window: u16,
    /// Flags and reserved bits.
    pub flags: Flags,
    /// Payload length in bytes.
    pub length: usize,
    /// Where in the frame the payload is.
    pub payload: Range<usize>,
    /// MSS option.
    pub mss: Option<u16>,
    /// Window scale option (RFC 7323).
    pub window_scale: Option<u8>,
    /// SACK-permitted option (RFC 2018).
    pub sack_permitted: bool,
    /// Timestamps option: TSval and TSecr (RFC 7323).
    pub timestamps: Option<(u32, u32)>,
    /// SACK blocks: first number and the one after the last (RFC 2018).
    pub sacks: Vec<(u32, u32)>,
    /// Bytes of options.
    pub option_length: usize,
    /// The two ECN bits of the IP header (RFC 3168).
    pub ecn: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Whether the IPv4 header checksum is right (always true of IPv6, which has none).
    pub ip_checksum_ok: bool,
    /// Whether the TCP checksum is right.
    pub tcp_checksum_ok: bool,
    /// Whether an option could not be parsed.
    pub bad_option: bool,
}

impl Segment {
    /// Parses an Ethernet frame; `None` when it does not carry a whole TCP segment.
    #[must_use]
    pub fn parse(at: Duration, frame: &[u8]) -> Option<Segment> {
        let packet = SlicedPacket::from_ethernet(frame).ok()?;
        let Some(LinkSlice::Ethernet2(link)) = &packet.link else { return None };
        let Some(TransportSlice::Tcp(tcp)) = &packet.transport else { return None };
        let ip = Ip::of(packet.net.as_ref()?, tcp)?;
        let mut segment = Segment {
            at,
            source_mac: link.source(),
            source: SocketAddr::new(ip.source, tcp.source_port()),
            destination: SocketAddr::new(ip.destination, tcp.destination_port()),
            seq: tcp.sequence_number(),
            ack: tcp.acknowledgment_number(),
            window: tcp.window_size(),
            flags: flags(tcp),
            length: tcp.payload().len(),
            payload: place(frame, tcp.payload()),
            mss: None,
            window_scale: None,
            sack_permitted: false,
            timestamps: None,
            sacks: Vec::new(),
            option_length: tcp.options().len(),
            ecn: ip.ecn,
            ttl: ip.ttl,
            ip_checksum_ok: ip.checksum_ok,
            tcp_checksum_ok: ip.tcp_checksum == Some(tcp.checksum()),
            bad_option: false,
        };
        segment.read_options(tcp);
        Some(segment)
    }

    /// How much sequence space the segment takes: payload, SYN and FIN.
    #[must_use]
    pub fn sequence_length(&self) -> u32 {
        self.length as u32 + u32::from(self.flags.syn) + u32::from(self.flags.fin)
    }

    fn read_options(&mut self, tcp: &TcpSlice) {
        for option in tcp.options_iterator() {
            match option {
                Ok(TcpOptionElement::Noop) => {}
                Ok(TcpOptionElement::MaximumSegmentSize(mss)) => self.mss = Some(mss),
                Ok(TcpOptionElement::WindowScale(shift)) => self.window_scale = Some(shift),
                Ok(TcpOptionElement::SelectiveAcknowledgementPermitted) => self.sack_permitted = true,
                Ok(TcpOptionElement::SelectiveAcknowledgement(first, more)) => {
                    self.sacks = [Some(first)].iter().chain(&more).copied().flatten().collect();
                }
                Ok(TcpOptionElement::Timestamp(value, echo)) => self.timestamps = Some((value, echo)),
                Err(_) => self.bad_option = true,
            }
        }
    }
}

/// What the network layer says about a segment.
struct Ip {
    source: IpAddr,
    destination: IpAddr,
    ttl: u8,
    ecn: u8,
    checksum_ok: bool,
    tcp_checksum: Option<u16>,
}

impl Ip {
    fn of(net: &NetSlice, tcp: &TcpSlice) -> Option<Ip> {
        match net {
            NetSlice::Ipv4(packet) => {
                let header = packet.header();
                let tcp_checksum = tcp.calc_checksum_ipv4(header.source(), header.destination()).ok();
                Some(Ip {
                    source: header.source_addr().into(),
                    destination: header.destination_addr().into(),
                    ttl: header.ttl(),
                    ecn: header.ecn().value(),
                    checksum_ok: header.to_header().calc_header_checksum() == header.header_checksum(),
                    tcp_checksum,
                })
            }
            NetSlice::Ipv6(packet) => {
                let header = packet.header();
                Some(Ip {
                    source: header.source_addr().into(),
                    destination: header.destination_addr().into(),
                    ttl: header.hop_limit(),
                    ecn: header.traffic_class() & 3,
                    checksum_ok: true,
                    tcp_checksum: tcp.calc_checksum_ipv6(header.source(), header.destination()).ok(),
                })
            }
            NetSlice::Arp(_) => None,
        }
    }
}

/// Where `part` lies in `whole`.
fn place(whole: &[u8], part: &[u8]) -> Range<usize> {
    let start = (part.as_ptr() as usize).saturating_sub(whole.as_ptr() as usize);
    start..start + part.len()
}

fn flags(tcp: &TcpSlice) -> Flags {
    Flags {
        fin: tcp.fin(),
        syn: tcp.syn(),
        rst: tcp.rst(),
        psh: tcp.psh(),
        ack: tcp.ack(),
        urg: tcp.urg(),
        ece: tcp.ece(),
        cwr: tcp.cwr(),
        reserved: tcp.slice()[12] & 0x0f,
    }
}

impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letters = [
            (self.syn, 'S'),
            (self.fin, 'F'),
            (self.rst, 'R'),
            (self.psh, 'P'),
            (self.ack, '.'),
            (self.urg, 'U'),
            (self.ece, 'E'),
            (self.cwr, 'W'),
        ];
        let text: String = letters.iter().filter(|(set, _)| *set).map(|(_, letter)| *letter).collect();
        write!(f, "{}", if text.is_empty() { "none" } else { &text })?;
        if self.reserved != 0 { write!(f, " reserved {:#06b}", self.reserved) } else { Ok(()) }
    }
}

/// One line, close to what tcpdump prints, with absolute sequence numbers.
impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.at.as_secs_f64();
        write!(f, "{seconds:10.6} {} > {} [{}] seq {}", self.source, self.destination, self.flags, self.seq)?;
        if self.flags.ack {
            write!(f, " ack {}", self.ack)?;
        }
        write!(f, " win {} len {}", self.window, self.length)?;
        if let Some(mss) = self.mss {
            write!(f, " mss {mss}")?;
        }
        if let Some(shift) = self.window_scale {
            write!(f, " wscale {shift}")?;
        }
        if let Some((value, echo)) = self.timestamps {
            write!(f, " ts {value}/{echo}")?;
        }
        for (start, end) in &self.sacks {
            write!(f, " sack {start}:{end}")?;
        }
        match self.ecn {
            0 => Ok(()),
            3 => f.write_str(" CE"),
            _ => f.write_str(" ECT"),
        }
    }
}
