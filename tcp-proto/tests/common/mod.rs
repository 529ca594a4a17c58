//! Packet traces on a virtual clock: a stack under test, a peer that is the test itself. Segments are written as
//! text, numbers relative to each side's initial sequence number:
//!
//! ```text
//! S 0:0 <mss 1460>          flags, first:end of the payload, options
//! SA 0:0 ack 1 win 65535    an ACK number shows with the ACK flag; the window when the trace asks for it
//! PA 1:101 ack 1            "." stands for a bare ACK
//! UA 1:11 ack 1 urg 5       the urgent pointer, which only the peer uses
//! ```
//!
//! [`Trace::peer`] sends such a segment to the stack; [`Trace::stack`] expects the stack to send exactly that one
//! now, [`Trace::stack_at`] at exactly that millisecond and nothing before. Whatever the stack sends and the test
//! does not expect fails it. Frames are made and read by code of the harness's own, not by the stack's.

#![allow(dead_code, reason = "each test file uses its own part of the harness")]

pub mod crowd;
pub mod reach;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tcp_proto::{
    CongestionAlgorithm, ConnectOptions, ConnectionId, ConnectionMut, Event, Instant, LinkAddress, ListenOptions,
    ListenerId, Received, Stack, StackConfig, State, TcpConfig,
};

pub const LOCAL: &str = "10.0.0.1:80";
pub const REMOTE: &str = "10.0.0.2:4000";
pub const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
const OUR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// The peer's initial sequence number: close to the wrap, so that every trace crosses it.
const PEER_ISN: u32 = u32::MAX - 20;
/// When traces begin, on the stack's clock.
const START_MS: u64 = 1_000_000;

/// Defaults without options on the wire, with the simplest congestion control, and without delays that a trace did not
/// ask for: ACKs leave at once.
pub fn plain() -> TcpConfig {
    TcpConfig {
        window_scale: false,
        timestamps: false,
        sack: false,
        ecn: false,
        congestion: CongestionAlgorithm::Reno,
        autotune: false,
        delayed_ack: Duration::ZERO,
        ..TcpConfig::default()
    }
}

pub const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A segment, numbers relative.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seg {
    pub flags: u8,
    pub seq: u32,
    pub ack: u32,
    pub window: u16,
    pub mss: Option<u16>,
    pub scale: Option<u8>,
    pub timestamps: Option<(u32, u32)>,
    pub sack_permitted: bool,
    /// SACK blocks, numbers relative like those of the ACK.
    pub sacks: Vec<(u32, u32)>,
    /// The urgent pointer, whether or not URG is set. The stack sends none.
    pub urgent: u16,
    pub payload: Vec<u8>,
}

const FLAG_LETTERS: [(char, u8); 6] = [('S', 2), ('F', 1), ('R', 4), ('P', 8), ('A', 16), ('U', 32)];

impl Seg {
    /// Reads the text form.
    pub fn parse(text: &str) -> Seg {
        let (head, options) =
            text.split_once('<').map_or((text, ""), |(head, rest)| (head, rest.trim_end_matches('>')));
        let mut words = head.split_whitespace();
        let letters = words.next().expect("flags");
        let flags = if letters == "." { 16 } else { letters.chars().map(flag_bit).sum() };
        let (first, end) = words.next().and_then(|w| w.split_once(':')).expect("first:end");
        let (seq, end): (u32, u32) = (first.parse().expect("first"), end.parse().expect("end"));
        let mut seg = Seg {
            flags,
            seq,
            ack: 0,
            window: 65_535,
            mss: None,
            scale: None,
            timestamps: None,
            sack_permitted: false,
            sacks: Vec::new(),
            urgent: 0,
            payload: stream(seq, end.wrapping_sub(seq) as usize),
        };
        while let Some(word) = words.next() {
            let value = words.next().expect("a value").parse::<u32>().expect("a number");
            match word {
                "ack" => seg.ack = value,
                "win" => seg.window = value as u16,
                "urg" => seg.urgent = value as u16,
                other => panic!("{other}?"),
            }
        }
        options.split(',').filter(|o| !o.is_empty()).for_each(|option| seg.parse_option(option));
        seg
    }

    fn parse_option(&mut self, option: &str) {
        let words: Vec<&str> = option.split_whitespace().collect();
        let number = |at: usize| words[at].parse::<u32>().expect("a number");
        match words[0] {
            "mss" => self.mss = Some(number(1) as u16),
            "ws" => self.scale = Some(number(1) as u8),
            "ts" => self.timestamps = Some((number(1), number(2))),
            "sackOK" => self.sack_permitted = true,
            "sack" => self.sacks = words[1..].iter().map(|block| parse_block(block)).collect(),
            other => panic!("{other}?"),
        }
    }

    /// The text form, with or without the window.
    pub fn text(&self, show_window: bool) -> String {
        let letters: String = match self.flags {
            16 => ".".into(),
            _ => FLAG_LETTERS.iter().filter(|(_, bit)| self.flags & bit != 0).map(|(letter, _)| letter).collect(),
        };
        let mut text = format!("{letters} {}:{}", self.seq, self.seq.wrapping_add(self.payload.len() as u32));
        if self.flags & 16 != 0 {
            text += &format!(" ack {}", self.ack);
        }
        if show_window {
            text += &format!(" win {}", self.window);
        }
        let options = [
            self.mss.map(|mss| format!("mss {mss}")),
            self.scale.map(|scale| format!("ws {scale}")),
            self.sack_permitted.then(|| "sackOK".to_owned()),
            self.timestamps.map(|(value, echo)| format!("ts {value} {echo}")),
            (!self.sacks.is_empty()).then(|| {
                let blocks: Vec<String> = self.sacks.iter().map(|(start, end)| format!("{start}:{end}")).collect();
                format!("sack {}", blocks.join(" "))
            }),
        ];
        let options: Vec<String> = options.into_iter().flatten().collect();
        if options.is_empty() { text } else { format!("{text} <{}>", options.join(",")) }
    }

    fn options(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        if let Some(mss) = self.mss {
            bytes.extend([2, 4]);
            bytes.extend(mss.to_be_bytes());
        }
        if let Some(scale) = self.scale {
            bytes.extend([3, 3, scale, 1]);
        }
        if self.sack_permitted {
            bytes.extend([1, 1, 4, 2]);
        }
        if let Some((value, echo)) = self.timestamps {
            bytes.extend([1, 1, 8, 10]);
            bytes.extend(value.to_be_bytes());
            bytes.extend(echo.to_be_bytes());
        }
        if !self.sacks.is_empty() {
            bytes.extend([1, 1, 5, 2 + 8 * self.sacks.len() as u8]);
        }
        for (start, end) in &self.sacks {
            bytes.extend(start.to_be_bytes());
            bytes.extend(end.to_be_bytes());
        }
        bytes
    }

    fn read_options(&mut self, mut list: &[u8]) {
        while let [kind, rest @ ..] = list {
            match (kind, rest) {
                (0, _) => break,
                (1, _) => list = rest,
                (2, [4, a, b, tail @ ..]) => (self.mss, list) = (Some(u16::from_be_bytes([*a, *b])), tail),
                (3, [3, shift, tail @ ..]) => (self.scale, list) = (Some(*shift), tail),
                (8, [10, a, b, c, d, e, f, g, h, tail @ ..]) => {
                    let value = u32::from_be_bytes([*a, *b, *c, *d]);
                    (self.timestamps, list) = (Some((value, u32::from_be_bytes([*e, *f, *g, *h]))), tail);
                }
                (4, [2, tail @ ..]) => (self.sack_permitted, list) = (true, tail),
                (5, [length, tail @ ..]) => {
                    let (blocks, tail) = tail.split_at(usize::from(*length) - 2);
                    let word = |at: &[u8]| u32::from_be_bytes(at.try_into().unwrap());
                    self.sacks = blocks.chunks(8).map(|block| (word(&block[..4]), word(&block[4..]))).collect();
                    list = tail;
                }
                other => panic!("the stack sent an option the harness does not know: {other:?}"),
            }
        }
    }
}

/// Reads "start:end".
fn parse_block(text: &str) -> (u32, u32) {
    let (start, end) = text.split_once(':').expect("start:end");
    (start.parse().expect("start"), end.parse().expect("end"))
}

fn flag_bit(letter: char) -> u8 {
    FLAG_LETTERS.iter().find(|(l, _)| *l == letter).unwrap_or_else(|| panic!("flag {letter}?")).1
}

/// The bytes of either side's stream from relative number `seq` on (1 is the first).
pub fn stream(seq: u32, length: usize) -> Vec<u8> {
    (0..length as u32).map(|i| byte_at(seq.wrapping_add(i))).collect()
}

fn byte_at(seq: u32) -> u8 {
    (seq.wrapping_mul(2_654_435_761) >> 24) as u8
}

pub fn ones_complement(parts: &[&[u8]]) -> u16 {
    let bytes: Vec<u8> = parts.concat();
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    sum as u16
}

/// An Ethernet frame with an IPv4 TCP segment, from `source` to `destination`; numbers as given.
pub fn frame(source: SocketAddr, destination: SocketAddr, seg: &Seg) -> Vec<u8> {
    frame_with_options(source, destination, seg, &seg.options())
}

/// The same with options that may be anything: at most 40 bytes, a multiple of 4.
pub fn frame_with_options(source: SocketAddr, destination: SocketAddr, seg: &Seg, options: &[u8]) -> Vec<u8> {
    let mut tcp = Vec::new();
    tcp.extend(source.port().to_be_bytes());
    tcp.extend(destination.port().to_be_bytes());
    tcp.extend(seg.seq.to_be_bytes());
    tcp.extend(seg.ack.to_be_bytes());
    tcp.extend([(((20 + options.len()) / 4) << 4) as u8, seg.flags]);
    tcp.extend(seg.window.to_be_bytes());
    tcp.extend([0; 2]);
    tcp.extend(seg.urgent.to_be_bytes());
    tcp.extend(options);
    tcp.extend(&seg.payload);
    let (SocketAddr::V4(s), SocketAddr::V4(d)) = (source, destination) else { panic!("the harness speaks IPv4") };
    let length = (tcp.len() as u16).to_be_bytes();
    let sum = !ones_complement(&[&s.ip().octets(), &d.ip().octets(), &[0, 6], &length, &tcp]);
    tcp[16..18].copy_from_slice(&sum.to_be_bytes());
    let total = (20 + tcp.len() as u16).to_be_bytes();
    let mut ip = vec![0x45, 0, total[0], total[1], 0, 0, 0x40, 0, 64, 6, 0, 0];
    ip.extend(s.ip().octets());
    ip.extend(d.ip().octets());
    let sum = !ones_complement(&[&ip]);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    [&OUR_MAC[..], &PEER_MAC, &[8, 0], &ip, &tcp].concat()
}

/// Sets the traffic class of an IPv4 frame.
fn set_class(frame: &mut [u8], class: u8) {
    frame[15] = class;
    frame[24..26].fill(0);
    let sum = !ones_complement(&[&frame[14..34]]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
}

/// An ICMP message about a frame, from a router (RFC 792); `mtu` means something in the one of RFC 1191.
fn icmp_frame(about: &[u8], kind: u8, code: u8, mtu: u16) -> Vec<u8> {
    let mut icmp = vec![kind, code, 0, 0, 0, 0];
    icmp.extend(mtu.to_be_bytes());
    icmp.extend(&about[14..14 + 28]);
    let sum = !ones_complement(&[&icmp]);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    let total = (20 + icmp.len() as u16).to_be_bytes();
    let mut ip = vec![0x45, 0, total[0], total[1], 0, 0, 0, 0, 64, 1, 0, 0, 10, 9, 9, 9];
    ip.extend(&about[26..30]);
    let sum = !ones_complement(&[&ip]);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    [&OUR_MAC[..], &PEER_MAC, &[8, 0], &ip, &icmp].concat()
}

/// Reads a frame that the stack sent to [`PEER_MAC`]; checks its checksums and addresses.
pub fn read_frame(frame: &[u8]) -> (SocketAddr, SocketAddr, Seg) {
    read_frame_to(PEER_MAC, frame)
}

/// The same for a frame to another MAC address.
pub fn read_frame_to(mac: [u8; 6], frame: &[u8]) -> (SocketAddr, SocketAddr, Seg) {
    assert_eq!(&frame[..14], &[&mac[..], &OUR_MAC, &[8, 0]].concat()[..], "Ethernet header");
    let (ip, tcp) = frame[14..].split_at(20);
    assert_eq!(ones_complement(&[ip]), 0xffff, "IP header checksum");
    assert_eq!(usize::from(u16::from_be_bytes([ip[2], ip[3]])), frame.len() - 14, "IP length");
    let length = (tcp.len() as u16).to_be_bytes();
    assert_eq!(ones_complement(&[&ip[12..20], &[0, 6], &length, tcp]), 0xffff, "TCP checksum");
    assert_eq!(tcp[12] & 0xf, 0, "reserved bits");
    let word = |at: usize| u32::from_be_bytes(tcp[at..at + 4].try_into().unwrap());
    let port = |at: usize| u16::from_be_bytes([tcp[at], tcp[at + 1]]);
    let address = |at: usize| std::net::Ipv4Addr::new(ip[at], ip[at + 1], ip[at + 2], ip[at + 3]);
    let data = usize::from(tcp[12] >> 4) * 4;
    let mut seg = Seg {
        flags: tcp[13],
        seq: word(4),
        ack: word(8),
        window: port(14),
        mss: None,
        scale: None,
        timestamps: None,
        sack_permitted: false,
        sacks: Vec::new(),
        urgent: port(18),
        payload: tcp[data..].to_vec(),
    };
    seg.read_options(&tcp[20..data]);
    ((address(12), port(0)).into(), (address(16), port(2)).into(), seg)
}

/// One stack and its peer, the test.
pub struct Trace {
    pub stack: Stack,
    pub now: Instant,
    pub listener: Option<ListenerId>,
    pub id: Option<ConnectionId>,
    pub events: VecDeque<Event>,
    local: SocketAddr,
    remote: SocketAddr,
    /// Our initial sequence number, once a SYN of ours was seen.
    pub our_isn: u32,
    /// The same towards the peer's other ports.
    other_isns: BTreeMap<u16, u32>,
    /// The peer's initial sequence number.
    pub peer_isn: u32,
    /// Where the peer's frames come from, and ours must go.
    pub mac: [u8; 6],
    /// Whether expected texts carry the window.
    pub show_window: bool,
    /// Stream bytes the application wrote so far.
    written: u32,
    /// Stream bytes the application read so far.
    read: u32,
    /// Whether the peer's next segment is marked on its way.
    next_is_marked: bool,
    /// Traffic class of the last segment that the stack sent.
    last_class: u8,
    /// Whether the XDP program made an entry of the connection, for a cookie.
    pub has_programs_entry: bool,
}

impl Trace {
    /// A stack that does nothing yet.
    fn with_stack(config: StackConfig) -> Trace {
        let now = Instant::from_millis(START_MS);
        Trace {
            stack: Stack::new(StackConfig { mac: OUR_MAC, ..config }, [7; 32], now),
            now,
            listener: None,
            id: None,
            events: VecDeque::new(),
            local: LOCAL.parse().unwrap(),
            remote: REMOTE.parse().unwrap(),
            our_isn: 0,
            other_isns: BTreeMap::new(),
            peer_isn: PEER_ISN,
            mac: PEER_MAC,
            show_window: false,
            written: 0,
            read: 0,
            next_is_marked: false,
            last_class: 0,
            has_programs_entry: false,
        }
    }

    /// A stack that listens at [`LOCAL`].
    pub fn listen(config: TcpConfig) -> Trace {
        Trace::listen_with(StackConfig::default(), config)
    }

    /// The same with limits of the whole stack.
    pub fn listen_with(stack: StackConfig, config: TcpConfig) -> Trace {
        let mut trace = Trace::with_stack(stack);
        let listener = trace.stack.listen(trace.local, ListenOptions { tcp: Arc::new(config) });
        trace.listener = Some(listener.expect("nobody else listens"));
        trace
    }

    /// A stack that connects from port 40000 to [`REMOTE`]; its SYN is yet to be expected.
    pub fn connect(config: TcpConfig) -> Trace {
        Trace::connect_with(StackConfig::default(), config)
    }

    /// The same with limits of the whole stack.
    pub fn connect_with(stack: StackConfig, config: TcpConfig) -> Trace {
        let mut trace = Trace::with_stack(stack);
        trace.local.set_port(40_000);
        let link = LinkAddress { mac: PEER_MAC, vlan: None };
        let options = ConnectOptions { local: trace.local, link, tcp: Arc::new(config) };
        trace.id = Some(trace.stack.connect(trace.now, trace.remote, options).expect("a free port"));
        trace
    }

    /// Established by a passive open without options, MSS 1460 both ways, and accepted. Both streams begin at 1.
    pub fn established(config: TcpConfig) -> Trace {
        Trace::established_with(config, "S 0:0 <mss 1460>", 65_535)
    }

    /// The same with the peer's SYN and the window of its ACK as given. What the stack offers is not looked at.
    pub fn established_with(config: TcpConfig, syn: &str, window: u16) -> Trace {
        let mut trace = Trace::listen(config);
        trace.peer(syn);
        let answer = trace.take().expect("a SYN-ACK");
        assert_eq!(answer.flags, 18, "SYN-ACK");
        let mut ack = Seg { window, ..Seg::parse(". 1:1 ack 1") };
        ack.timestamps = answer.timestamps.map(|(value, echo)| (echo, value));
        trace.peer_seg(&ack);
        trace.accept();
        trace
    }

    /// Takes the connection off the accept queue.
    pub fn accept(&mut self) {
        self.id = self.stack.accept(self.listener.expect("a listener"));
        assert!(self.id.is_some(), "a connection to accept");
    }

    /// From now on the peer speaks from another of its ports, or again from one that it spoke from before.
    pub fn speak_from(&mut self, port: u16) {
        self.quiet();
        self.other_isns.insert(self.remote.port(), self.our_isn);
        self.remote.set_port(port);
        self.our_isn = self.other_isns.remove(&port).unwrap_or(0);
    }

    /// Milliseconds since the trace began.
    pub fn clock(&self) -> u64 {
        self.now.as_millis() - START_MS
    }

    /// The connection.
    pub fn connection(&mut self) -> ConnectionMut<'_> {
        self.stack.connection(self.now, self.id.expect("a connection")).expect("the connection is alive")
    }

    /// State of the only connection, whether or not the application holds it.
    pub fn state(&self) -> State {
        let mut rows = Vec::new();
        let more = self.stack.snapshot(self.now, 0, 100_000, &mut rows);
        assert!(more.is_none() && rows.len() <= 1, "one connection at most");
        rows.first().map_or(State::CLOSED, |row| row.state)
    }

    /// Armed timers of the only connection and the milliseconds each has left.
    pub fn timers(&self) -> Vec<(&'static str, u64)> {
        let mut rows = Vec::new();
        let _ = self.stack.snapshot(self.now, 0, 100_000, &mut rows);
        rows.first()
            .map_or(Vec::new(), |row| row.timers.iter().map(|(n, left)| (*n, left.as_millis() as u64)).collect())
    }

    /// The peer sends a segment. The stack must have nothing left to send from before.
    pub fn peer(&mut self, text: &str) {
        self.peer_seg(&Seg::parse(text));
    }

    /// The same with a segment, numbers relative.
    pub fn peer_seg(&mut self, seg: &Seg) {
        self.quiet();
        self.peer_more(seg);
    }

    /// The peer sends one more segment of a batch: what the stack wants to send stays queued.
    pub fn peer_more(&mut self, seg: &Seg) {
        let mut absolute = seg.clone();
        for (start, end) in &mut absolute.sacks {
            (*start, *end) = (start.wrapping_add(self.our_isn), end.wrapping_add(self.our_isn));
        }
        let mut frame = self.frame(seg, &absolute.options());
        if std::mem::take(&mut self.next_is_marked) {
            set_class(&mut frame, 3);
        }
        self.frame_arrives(&frame);
    }

    /// The frame of a segment of the peer's, with any options.
    pub fn frame(&self, seg: &Seg, options: &[u8]) -> Vec<u8> {
        let seq = seg.seq.wrapping_add(self.peer_isn);
        let ack = if seg.flags & 16 != 0 { seg.ack.wrapping_add(self.our_isn) } else { seg.ack };
        let absolute = Seg { seq, ack, ..seg.clone() };
        let mut frame = frame_with_options(self.remote, self.local, &absolute, options);
        frame[6..12].copy_from_slice(&self.mac);
        frame
    }

    /// Any frame arrives.
    pub fn frame_arrives(&mut self, frame: &[u8]) {
        self.stack.handle_frame(self.now, frame);
        self.drain();
    }

    /// The peer sends a segment that a router marks: congestion experienced (RFC 3168).
    pub fn peer_marked(&mut self, text: &str) {
        self.quiet();
        self.next_is_marked = true;
        self.peer_more(&Seg::parse(text));
    }

    /// A router on the path says that the segment whose payload begins at `seq` was too big (RFC 1191): its next link
    /// carries `mtu` bytes.
    pub fn too_big(&mut self, seq: u32, mtu: u16) {
        self.icmp(3, 4, seq, mtu);
    }

    /// The same, and something happens to the frame on its way.
    pub fn too_big_but(&mut self, seq: u32, mtu: u16, damage: impl FnOnce(&mut [u8])) {
        self.icmp_but(3, 4, seq, mtu, damage);
    }

    /// A router on the path sends an ICMP message of a kind and code about the segment whose payload begins at `seq`.
    pub fn icmp(&mut self, kind: u8, code: u8, seq: u32, mtu: u16) {
        self.icmp_but(kind, code, seq, mtu, |_| {});
    }

    fn icmp_but(&mut self, kind: u8, code: u8, seq: u32, mtu: u16, damage: impl FnOnce(&mut [u8])) {
        let seg = Seg { seq: seq.wrapping_add(self.our_isn), ..Seg::parse(". 0:0 ack 0") };
        let mut frame = icmp_frame(&frame(self.local, self.remote, &seg), kind, code, mtu);
        damage(&mut frame);
        self.stack.handle_frame(self.now, &frame);
        self.drain();
    }

    /// The next segment as text, and whether routers may mark it: ECT(0).
    pub fn take_marked(&mut self) -> (String, bool) {
        let seg = self.take().expect("a segment");
        (seg.text(self.show_window), self.last_class & 3 == 2)
    }

    /// Fetches events and table changes, as a turn does.
    fn drain(&mut self) {
        self.stack.reset_strangers(self.now, |_| self.has_programs_entry);
        while let Some(event) = self.stack.poll_event() {
            self.events.push_back(event);
        }
        let (mut new, mut changed) = (Vec::new(), Vec::new());
        self.stack.take_table_writes(self.now, &mut new, &mut changed);
    }

    /// The next segment the stack sends now, numbers relative.
    pub fn take(&mut self) -> Option<Seg> {
        let mut buffer = [0; 2000];
        let length = self.stack.poll_transmit(self.now, &mut buffer)?;
        let _ = self.stack.take_table_removals();
        self.drain();
        let (source, destination, mut seg) = read_frame_to(self.mac, &buffer[..length]);
        self.last_class = buffer[15];
        assert_eq!((source, destination), (self.local, self.remote), "addresses");
        if seg.flags & 2 != 0 {
            self.our_isn = seg.seq;
        }
        seg.seq = seg.seq.wrapping_sub(self.our_isn);
        seg.ack = if seg.flags & 16 != 0 { seg.ack.wrapping_sub(self.peer_isn) } else { seg.ack };
        for (start, end) in &mut seg.sacks {
            (*start, *end) = (start.wrapping_sub(self.peer_isn), end.wrapping_sub(self.peer_isn));
        }
        if !seg.payload.is_empty() {
            assert_eq!(seg.payload, stream(seg.seq, seg.payload.len()), "the stream's bytes at {}", seg.seq);
        }
        Some(seg)
    }

    /// The stack sends exactly this now.
    #[track_caller]
    pub fn stack(&mut self, expected: &str) {
        let sent =
            self.take().unwrap_or_else(|| panic!("at {} ms: expected {expected}, nothing is sent", self.clock()));
        assert_eq!(sent.text(self.show_window), expected, "at {} ms", self.clock());
    }

    /// The stack sends nothing now.
    #[track_caller]
    pub fn quiet(&mut self) {
        if let Some(sent) = self.take() {
            panic!("at {} ms: unexpected {}", self.clock(), sent.text(true));
        }
    }

    /// Nothing is sent before `at` ms; then exactly this is.
    #[track_caller]
    pub fn stack_at(&mut self, at: u64, expected: &str) {
        self.quiet();
        let sent = loop {
            self.jump(&format!("waiting for {expected}"));
            assert!(self.clock() <= at, "nothing was sent until {at} ms; expected {expected}");
            if let Some(sent) = self.take() {
                break sent;
            }
        };
        assert_eq!((self.clock(), sent.text(self.show_window).as_str()), (at, expected));
    }

    /// Moves to the next deadline and serves it.
    #[track_caller]
    pub fn jump(&mut self, why: &str) {
        let next = self.stack.poll_timeout().unwrap_or_else(|| panic!("{why}: no timer is armed"));
        self.now = self.now.max(next);
        self.stack.handle_timeout(self.now);
        self.drain();
    }

    /// Nothing is sent until `at` ms, where the clock stands afterwards.
    #[track_caller]
    pub fn quiet_until(&mut self, at: u64) {
        self.quiet();
        let end = Instant::from_millis(START_MS + at);
        while self.stack.poll_timeout().is_some_and(|next| next <= end) {
            self.jump("waiting");
            self.quiet();
        }
        assert!(self.now <= end, "the clock is past {at} ms already");
        self.now = end;
        self.stack.handle_timeout(self.now);
        self.drain();
        self.quiet();
    }

    /// Stream bytes of ours that the peer has acknowledged.
    pub fn acked_bytes(&mut self) -> u32 {
        let una = self.connection().info().snd_una;
        una.wrapping_sub(self.our_isn).wrapping_sub(1)
    }

    /// The application writes `length` more bytes of its stream; all must be taken.
    #[track_caller]
    pub fn write(&mut self, length: usize) {
        let bytes = stream(1 + self.written, length);
        assert_eq!(self.connection().send(&bytes), length, "room in the send buffer");
        self.written += length as u32;
        self.drain();
    }

    /// The application reads at most `length` bytes and checks them; how many it got.
    pub fn read(&mut self, length: usize) -> usize {
        let mut into = vec![0; length];
        let Received::Bytes(count) = self.connection().recv(&mut into) else { return 0 };
        assert_eq!(into[..count.get()], stream(1 + self.read, count.get()), "the peer's stream");
        self.read += count.get() as u32;
        self.drain();
        count.get()
    }

    /// Whether the application sees the end of the peer's stream.
    pub fn at_end(&mut self) -> bool {
        self.connection().recv(&mut [0; 16]) == Received::End
    }

    /// Half-close.
    pub fn shutdown(&mut self) {
        self.connection().shutdown_write();
        self.drain();
    }

    /// The application closes both ways.
    pub fn close(&mut self) {
        self.connection().close();
        self.drain();
    }

    /// The application aborts.
    pub fn abort(&mut self) {
        self.connection().abort();
        self.drain();
    }

    /// How often a drop reason struck.
    pub fn drops(&self, reason: &str) -> u64 {
        self.stack.drops().iter().find(|(name, _)| *name == reason).unwrap_or_else(|| panic!("{reason}?")).1
    }

    /// How often the stack counted `name`.
    pub fn figure(&self, name: &str) -> u64 {
        self.stack.figures().into_iter().find(|(n, _)| *n == name).unwrap_or_else(|| panic!("{name}?")).1
    }

    /// Every connection is gone and no memory is held.
    #[track_caller]
    pub fn assert_empty(&self) {
        assert_eq!((self.state(), self.stack.buffer_memory()), (State::CLOSED, 0));
    }
}
