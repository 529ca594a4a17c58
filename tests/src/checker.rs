//! The checker: rules of RFC 9293 and RFC 7323 that hold for every segment a TCP sends, whatever the test does.
//!
//! It reads what a lab captured on the client's end of the wire, in order, and judges the segments that xtcp sent.
//! Lost capture frames never make a false alarm: a rule compares only segments that were seen.
//! Leaves out: whatever depends on timing or on what the peer's application wanted; that is for the tests.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::segment::{Mac, Segment};

/// How many segments of a flow a report shows before the one that broke a rule.
const REPORTED_SEGMENTS: usize = 30;

/// Acknowledgment numbers of a peer that are remembered, at most: a RST without ACK answers a recent segment.
const REMEMBERED_ACKS: usize = 10_000;

/// SYNs that are remembered of each end of a flow, at most, and FINs of the peer's: those that still matter are recent,
/// too.
const REMEMBERED_SYNS: usize = 16;

/// Judges captured frames as they come and keeps the segments for the tests to look at.
#[derive(Debug)]
pub struct Checker {
    sender: Mac,
    owned: Vec<RangeInclusive<u16>>,
    flows: HashMap<FlowKey, Flow>,
    segments: Vec<Segment>,
    /// How many segments are kept at least; twice as many at most.
    keep: usize,
    checked: usize,
    addressees: HashSet<(Mac, SocketAddr)>,
    violations: Vec<Violation>,
}

/// A flow as xtcp sees it: its own end first.
type FlowKey = (SocketAddr, SocketAddr);

/// A rule that a segment of xtcp's broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// RFC 9293 section 3.1: every segment after the first SYN acknowledges (a RST that answers a segment with ACK
    /// excepted: section 3.10.7.1 gives it that segment's SEG.ACK as its sequence number and no ACK).
    AckAfterSyn,
    /// RFC 9293 section 3.2, RFC 7323, RFC 2018: MSS, window scale and SACK-permitted only on a SYN.
    SynOptionsOnlyOnSyn,
    /// RFC 9293 section 3.1: reserved bits are sent as zero.
    ReservedBitsZero,
    /// The IPv4 header checksum is right.
    IpChecksum,
    /// The TCP checksum is right.
    TcpChecksum,
    /// The options can be parsed.
    OptionsWellFormed,
    /// RFC 9293 section 3.8.6: the right edge of the window never moves left, as long as the peer may have more to say:
    /// once its FIN is acknowledged no window means anything.
    WindowNeverShrinks,
}

/// A broken rule and the segment that broke it.
#[derive(Clone, Debug)]
pub struct Violation {
    /// Which rule.
    pub rule: Rule,
    /// What exactly was wrong.
    pub detail: String,
    /// The flow's last segments, the broken one at the end.
    pub segments: String,
}

/// What has been seen of a flow.
#[derive(Debug, Default)]
struct Flow {
    /// The connections that xtcp's SYNs began, the one whose segment was seen last at the end. There may be several at a
    /// time: of two copies of the peer's SYN one may be kept and the other be answered with a cookie, or each with
    /// another cookie, and only what follows tells on which of them the two ends settled.
    openings: Vec<Opening>,
    /// The peer's SYNs, the last one at the end.
    peer_syns: Vec<PeerSyn>,
    /// The numbers after the peer's FINs, that of the last one at the end.
    peer_ends: Vec<u32>,
    /// Acknowledgment numbers that the peer has sent: the sequence numbers that a RST without ACK may carry.
    peer_acks: HashSet<u32>,
}

/// A SYN of xtcp's with a number of its own, and what followed it.
#[derive(Debug)]
struct Opening {
    /// Its initial sequence number.
    isn: u32,
    /// The number after everything that was sent.
    next: u32,
    /// Whether xtcp has sent a segment with ACK.
    acknowledged: bool,
    /// Window scale that the SYN offered; scaling needs both ends' offers (RFC 7323 section 2.2).
    scale: Offer,
    /// The right edge offered last.
    right_edge: Option<u32>,
    /// The right edge that its SYN offered last.
    syn_edge: Option<u32>,
    /// The peer's SYN that xtcp acknowledges: the edges count from its number.
    peer: Option<PeerSyn>,
    /// Whether xtcp has sent a segment with ACK and without SYN: then it has settled on a SYN of the peer's.
    settled: bool,
}

/// A SYN of the peer's.
#[derive(Clone, Copy, Debug)]
struct PeerSyn {
    /// Its number.
    isn: u32,
    /// The number after what it carried.
    end: u32,
    /// Window scale that it offered.
    scale: Offer,
}

/// What a SYN said about window scaling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Offer {
    /// It had no such option.
    None,
    /// It offered this shift.
    Shift(u8),
}

impl Checker {
    /// A checker of what the interface with MAC address `sender` sends from owned ports; none is owned yet.
    #[must_use]
    pub fn new(sender: Mac) -> Checker {
        Checker {
            sender,
            owned: Vec::new(),
            flows: HashMap::new(),
            segments: Vec::new(),
            keep: usize::MAX / 2,
            checked: 0,
            addressees: HashSet::new(),
            violations: Vec::new(),
        }
    }

    /// The MAC address of xtcp's interface.
    #[must_use]
    pub fn sender(&self) -> Mac {
        self.sender
    }

    /// Segments from `ports` are xtcp's from now on.
    pub fn own(&mut self, ports: RangeInclusive<u16>) {
        self.owned.push(ports);
    }

    /// Keeps only the last `count` segments from now on, or some more: what is judged need not be kept.
    pub fn keep(&mut self, count: usize) {
        self.keep = count;
    }

    /// Takes the next captured frame.
    pub fn frame(&mut self, at: Duration, frame: &[u8]) {
        let Some(segment) = Segment::parse(at, frame) else { return };
        if let Some(mac) = frame.first_chunk::<6>().filter(|_| self.is_ours(&segment)) {
            self.addressees.insert((*mac, segment.destination));
        }
        self.segment(segment);
    }

    /// Takes a frame that an attacker sends past the capture (no packet socket sees what AF_XDP sends): it may be
    /// answered by a RST, and nothing else follows from it.
    pub fn forged(&mut self, frame: &[u8]) {
        if let Some(segment) = Segment::parse(Duration::ZERO, frame) {
            let flow = self.flows.entry((segment.destination, segment.source)).or_default();
            flow.acknowledged_by_peer(segment.ack);
        }
    }

    /// With `segment` a connection of xtcp's begins without a SYN, because an old cookie came back: windows of the one
    /// before do not bind it.
    pub fn begins_again(&mut self, segment: &Segment) {
        let flow = self.flows.get_mut(&(segment.source, segment.destination));
        if let Some(opening) = flow.and_then(|flow| flow.opening_of(segment)) {
            opening.forget_edges();
        }
    }

    /// The segments captured so far, both ways, in order: all of them, or the last ones that are kept.
    #[must_use]
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// How many segments of xtcp's have been judged.
    #[must_use]
    pub fn checked(&self) -> usize {
        self.checked
    }

    /// Everybody whom xtcp has sent a segment to, with the MAC address that it went to.
    #[must_use]
    pub fn addressees(&self) -> &HashSet<(Mac, SocketAddr)> {
        &self.addressees
    }

    /// The rules broken so far.
    #[must_use]
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// Whether a segment was sent by xtcp.
    #[must_use]
    pub fn is_ours(&self, segment: &Segment) -> bool {
        segment.source_mac == self.sender && self.owned.iter().any(|ports| ports.contains(&segment.source.port()))
    }

    /// What went wrong, with the flow's segments up to it; `None` when nothing did.
    #[must_use]
    pub fn report(&self) -> Option<String> {
        let first = self.violations.first()?;
        let more = self.violations.len() - 1;
        Some(format!("{first}\n{}\n({more} more violations)", first.segments))
    }

    /// Takes the next captured segment.
    pub fn segment(&mut self, segment: Segment) {
        let mut broken = Vec::new();
        if self.is_ours(&segment) {
            self.checked += 1;
            let flow = self.flows.entry((segment.source, segment.destination)).or_default();
            broken = flow.sent(&segment);
        } else {
            self.flows.entry((segment.destination, segment.source)).or_default().received(&segment);
        }
        self.segments.push(segment);
        for (rule, detail) in broken {
            let segments = self.last_of_flow();
            self.violations.push(Violation { rule, detail, segments });
        }
        if self.segments.len() >= 2 * self.keep {
            self.segments.drain(..self.keep);
        }
    }

    /// The last segments of the flow that the last one belongs to.
    fn last_of_flow(&self) -> String {
        let Some(last) = self.segments.last() else { return String::new() };
        let ends = [last.source, last.destination];
        let mut lines: Vec<String> = self
            .segments
            .iter()
            .filter(|segment| ends.contains(&segment.source) && ends.contains(&segment.destination))
            .map(|segment| format!("  {segment}"))
            .collect();
        let hidden = lines.len().saturating_sub(REPORTED_SEGMENTS);
        lines.drain(..hidden);
        format!("flow {} > {}, last segments:\n{}", ends[0], ends[1], lines.join("\n"))
    }
}

impl Flow {
    /// Judges a segment that xtcp sent.
    fn sent(&mut self, segment: &Segment) -> Vec<(Rule, String)> {
        let found = [
            self.check_ack(segment),
            check_syn_options(segment),
            check_header(segment),
            check_checksums(segment),
            self.follow(segment),
        ];
        found.into_iter().flatten().collect()
    }

    /// Finds what a segment that xtcp sent belongs to, and judges it by what preceded it there. A RST may be about any
    /// segment, and says nothing of windows.
    fn follow(&mut self, segment: &Segment) -> Option<(Rule, String)> {
        if segment.flags.rst {
            return None;
        }
        if segment.flags.syn && self.openings.iter().all(|opening| opening.isn != segment.seq) {
            remember(&mut self.openings, Opening::new(segment));
        }
        let syns = std::mem::take(&mut self.peer_syns);
        let peer_has_ended = segment.flags.ack && self.peer_ends.contains(&segment.ack);
        let broken = self.opening_of(segment).and_then(|opening| opening.sent(segment, &syns, peer_has_ended));
        self.peer_syns = syns;
        broken
    }

    /// The opening that a segment of xtcp's belongs to: the one whose numbers are nearest. It is the last now.
    fn opening_of(&mut self, segment: &Segment) -> Option<&mut Opening> {
        let distances = self.openings.iter().map(|opening| opening.distance(segment)).enumerate();
        // Of several the one used last.
        let (nearest, _) = distances.rev().min_by_key(|(_, distance)| *distance)?;
        self.openings[nearest..].rotate_left(1);
        self.openings.last_mut()
    }

    /// Learns from a segment that the peer sent.
    fn received(&mut self, segment: &Segment) {
        let end = segment.seq.wrapping_add(segment.sequence_length());
        if segment.flags.fin {
            self.peer_ends.retain(|known| *known != end);
            remember(&mut self.peer_ends, end);
        }
        if segment.flags.syn {
            let syn = PeerSyn { isn: segment.seq, end, scale: Offer::of(segment) };
            self.peer_syns.retain(|known| known.isn != syn.isn);
            remember(&mut self.peer_syns, syn);
        }
        if segment.flags.ack {
            self.acknowledged_by_peer(segment.ack);
        }
    }

    fn acknowledged_by_peer(&mut self, ack: u32) {
        if self.peer_acks.len() >= REMEMBERED_ACKS {
            self.peer_acks.clear();
        }
        self.peer_acks.insert(ack);
    }

    fn check_ack(&self, segment: &Segment) -> Option<(Rule, String)> {
        let flags = segment.flags;
        let acknowledged = |opening: &Opening| opening.isn == segment.seq && opening.acknowledged;
        let detail = match (flags.ack, flags.syn, flags.rst) {
            (true, ..) => return None,
            (false, true, _) if !self.openings.iter().any(acknowledged) => return None,
            (false, _, true) if self.peer_acks.contains(&segment.seq) => return None,
            (false, true, _) => "a SYN without ACK after the flow had acknowledged".to_owned(),
            (false, _, true) => format!("a RST without ACK whose SEG.SEQ {} the peer never acknowledged", segment.seq),
            _ => format!("flags [{flags}] without ACK"),
        };
        Some((Rule::AckAfterSyn, detail))
    }
}

/// Adds the latest of what is remembered, and forgets the earliest.
fn remember<T>(known: &mut Vec<T>, latest: T) {
    if known.len() >= REMEMBERED_SYNS {
        known.remove(0);
    }
    known.push(latest);
}

impl Opening {
    /// What a SYN with a new number begins: nothing of what was before binds it.
    fn new(syn: &Segment) -> Opening {
        Opening {
            isn: syn.seq,
            next: syn.seq,
            acknowledged: false,
            scale: Offer::of(syn),
            right_edge: None,
            syn_edge: None,
            peer: None,
            settled: false,
        }
    }

    /// How far the number of a segment is from what was sent.
    fn distance(&self, segment: &Segment) -> u32 {
        let from = |number: u32| segment.seq.wrapping_sub(number);
        let sent = from(self.isn) <= self.next.wrapping_sub(self.isn);
        if sent { 0 } else { from(self.next).min(self.isn.wrapping_sub(segment.seq)) }
    }

    /// Judges a segment of this connection's; whether it acknowledges the peer's FIN.
    fn sent(&mut self, segment: &Segment, syns: &[PeerSyn], peer_has_ended: bool) -> Option<(Rule, String)> {
        if segment.flags.syn {
            self.scale = Offer::of(segment);
        }
        self.follow_peer(segment, syns);
        let end = segment.seq.wrapping_add(segment.sequence_length());
        if end.wrapping_sub(self.next) as i32 > 0 {
            self.next = end;
        }
        self.acknowledged |= segment.flags.ack;
        if peer_has_ended { None } else { self.check_window(segment) }
    }

    /// Until xtcp has settled, another SYN of the peer's may prove to be the right one, with numbers of its own: edges
    /// that count from the one before do not bind.
    fn follow_peer(&mut self, segment: &Segment, peer_syns: &[PeerSyn]) {
        if self.settled || !segment.flags.ack {
            return;
        }
        let after = |syn: &&PeerSyn| segment.ack.wrapping_sub(syn.isn).wrapping_sub(1);
        let acknowledged = |syn: &&PeerSyn| after(syn) < syn.end.wrapping_sub(syn.isn);
        // The first segment may acknowledge more than the SYN, which is the nearest one then.
        let nearest = || peer_syns.iter().min_by_key(after).filter(|_| self.peer.is_none());
        if let Some(syn) = peer_syns.iter().rfind(acknowledged).or_else(nearest)
            && self.peer.replace(*syn).is_none_or(|before| before.isn != syn.isn)
        {
            self.forget_edges();
        }
        self.settled = !segment.flags.syn;
    }

    fn forget_edges(&mut self) {
        (self.right_edge, self.syn_edge) = (None, None);
    }

    fn check_window(&mut self, segment: &Segment) -> Option<(Rule, String)> {
        let shift = self.shift(segment)?;
        let edge = segment.ack.wrapping_add(u32::from(segment.window) << shift);
        if segment.flags.syn {
            self.syn_edge = Some(edge);
        }
        let before = self.right_edge.replace(edge)?;
        let moved = edge.wrapping_sub(before) as i32;
        if moved >= 0 {
            return None;
        }
        self.right_edge = Some(before);
        // A window beyond 16 bits can't be said by a SYN, which may be repeated after it was offered.
        if segment.flags.syn && segment.window == u16::MAX {
            return None;
        }
        // What a SYN offers may be no multiple of the unit of later windows, which can't repeat it exactly then.
        if self.syn_edge == Some(before) && moved > -(1 << shift) {
            return None;
        }
        let detail = format!("right window edge moved left by {} bytes, from {before} to {edge}", -i64::from(moved));
        Some((Rule::WindowNeverShrinks, detail))
    }

    /// By how many bits the window of a segment is shifted; `None` when it says nothing or can't be known.
    fn shift(&self, segment: &Segment) -> Option<u8> {
        if !segment.flags.ack {
            return None;
        }
        match (segment.flags.syn, self.scale, self.peer.map(|syn| syn.scale)) {
            (true, ..) | (_, Offer::None, _) | (_, _, Some(Offer::None)) => Some(0),
            (_, Offer::Shift(shift), Some(Offer::Shift(_))) => Some(shift),
            (_, Offer::Shift(_), None) => None,
        }
    }
}

impl Offer {
    fn of(syn: &Segment) -> Offer {
        syn.window_scale.map_or(Offer::None, |shift| Offer::Shift(shift.min(14)))
    }
}

fn check_syn_options(segment: &Segment) -> Option<(Rule, String)> {
    if segment.flags.syn {
        return None;
    }
    let present = [
        (segment.mss.is_some(), "MSS"),
        (segment.window_scale.is_some(), "window scale"),
        (segment.sack_permitted, "SACK-permitted"),
    ];
    let (_, name) = present.into_iter().find(|(present, _)| *present)?;
    Some((Rule::SynOptionsOnlyOnSyn, format!("{name} option on a segment without SYN")))
}

fn check_header(segment: &Segment) -> Option<(Rule, String)> {
    if segment.flags.reserved != 0 {
        return Some((Rule::ReservedBitsZero, format!("reserved bits {:#06b}", segment.flags.reserved)));
    }
    segment.bad_option.then(|| (Rule::OptionsWellFormed, "an option can't be parsed".to_owned()))
}

fn check_checksums(segment: &Segment) -> Option<(Rule, String)> {
    if !segment.ip_checksum_ok {
        return Some((Rule::IpChecksum, "wrong IPv4 header checksum".to_owned()));
    }
    (!segment.tcp_checksum_ok).then(|| (Rule::TcpChecksum, "wrong TCP checksum".to_owned()))
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the checker found a violation of {:?}: {}", self.rule, self.detail)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    use etherparse::{PacketBuilder, TcpHeader, TcpOptionElement};

    use super::*;

    const XTCP: Mac = [2, 0, 0, 0, 0, 2];
    const PEER: Mac = [2, 0, 0, 0, 0, 1];
    const PORT: u16 = 7;
    const PEER_PORT: u16 = 50_000;

    /// A header from xtcp's port to the peer's.
    fn header(seq: u32, ack: Option<u32>, window: u16) -> TcpHeader {
        let mut tcp = TcpHeader::new(PORT, PEER_PORT, seq, window);
        tcp.ack = ack.is_some();
        tcp.acknowledgment_number = ack.unwrap_or(0);
        tcp
    }

    fn syn(seq: u32, ack: Option<u32>, scale: Option<u8>) -> TcpHeader {
        let mut tcp = header(seq, ack, 1000);
        tcp.syn = true;
        let scale = scale.map(TcpOptionElement::WindowScale);
        let options: Vec<_> = [TcpOptionElement::MaximumSegmentSize(1460)].into_iter().chain(scale).collect();
        tcp.set_options(&options).unwrap();
        tcp
    }

    fn from_peer(mut tcp: TcpHeader) -> Vec<u8> {
        std::mem::swap(&mut tcp.source_port, &mut tcp.destination_port);
        v4(PEER, XTCP, [10, 0, 0, 1], [10, 0, 0, 2], tcp)
    }

    fn from_xtcp(tcp: TcpHeader) -> Vec<u8> {
        v4(XTCP, PEER, [10, 0, 0, 2], [10, 0, 0, 1], tcp)
    }

    fn v4(from: Mac, to: Mac, source: [u8; 4], destination: [u8; 4], tcp: TcpHeader) -> Vec<u8> {
        let mut frame = Vec::new();
        let builder = PacketBuilder::ethernet2(from, to).ipv4(source, destination, 64).tcp_header(tcp);
        builder.write(&mut frame, b"abc").unwrap();
        frame
    }

    /// What the checker says of frames captured in this order.
    fn check(frames: &[Vec<u8>]) -> Vec<Rule> {
        checker(frames).violations().iter().map(|violation| violation.rule).collect()
    }

    fn checker(frames: &[Vec<u8>]) -> Checker {
        let mut checker = Checker::new(XTCP);
        checker.own(PORT..=PORT);
        for (index, frame) in frames.iter().enumerate() {
            checker.frame(Duration::from_millis(index as u64), frame);
        }
        checker
    }

    /// A handshake with window scale 3 both ways: xtcp's ISN is 100, the peer's 500.
    fn handshake() -> Vec<Vec<u8>> {
        vec![
            from_peer(syn(500, None, Some(3))),
            from_xtcp(syn(100, Some(501), Some(3))),
            from_peer(header(101, Some(101), 1000)),
        ]
    }

    #[test]
    fn a_well_behaved_connection_breaks_no_rule() {
        let mut frames = handshake();
        frames.push(from_xtcp(header(101, Some(504), 1000)));
        let checker = checker(&frames);
        assert!(checker.violations().is_empty(), "{:?}", checker.report());
        assert_eq!((checker.checked(), checker.segments().len()), (2, 4));
        let peer = SocketAddr::new(Ipv4Addr::new(10, 0, 0, 1).into(), PEER_PORT);
        assert_eq!(checker.addressees(), &HashSet::from([(PEER, peer)]));
    }

    #[test]
    fn a_segment_without_ack_after_the_syn_is_found() {
        let mut frames = handshake();
        frames.push(from_xtcp(header(101, None, 1000)));
        assert_eq!(check(&frames), [Rule::AckAfterSyn]);
    }

    #[test]
    fn the_first_syn_of_an_active_open_needs_no_ack_even_when_repeated() {
        assert_eq!(check(&[from_xtcp(syn(100, None, None)), from_xtcp(syn(100, None, None))]), []);
    }

    #[test]
    fn a_bare_syn_after_an_acknowledgment_of_the_same_incarnation_is_found() {
        let frames =
            [from_xtcp(syn(100, None, None)), from_xtcp(header(101, Some(9), 10)), from_xtcp(syn(100, None, None))];
        assert_eq!(check(&frames), [Rule::AckAfterSyn]);
    }

    #[test]
    fn a_new_incarnation_may_begin_with_a_bare_syn() {
        let frames =
            [from_xtcp(syn(100, None, None)), from_xtcp(header(101, Some(9), 10)), from_xtcp(syn(777, None, None))];
        assert_eq!(check(&frames), []);
    }

    #[test]
    fn a_rst_without_ack_may_answer_a_segment_with_ack() {
        let mut rst = header(900, None, 0);
        rst.rst = true;
        assert_eq!(check(&[from_peer(header(1, Some(900), 10)), from_xtcp(rst)]), []);
    }

    #[test]
    fn a_rst_without_ack_and_with_another_sequence_number_is_found() {
        let mut rst = header(901, None, 0);
        rst.rst = true;
        assert_eq!(check(&[from_peer(header(1, Some(900), 10)), from_xtcp(rst)]), [Rule::AckAfterSyn]);
    }

    #[test]
    fn options_of_the_syn_on_a_later_segment_are_found() {
        for option in [
            TcpOptionElement::MaximumSegmentSize(1460),
            TcpOptionElement::WindowScale(3),
            TcpOptionElement::SelectiveAcknowledgementPermitted,
        ] {
            let mut tcp = header(101, Some(504), 1000);
            tcp.set_options(&[option]).unwrap();
            assert_eq!(check(&[from_xtcp(tcp)]), [Rule::SynOptionsOnlyOnSyn]);
        }
    }

    #[test]
    fn every_reserved_bit_is_found() {
        for bit in [1, 2, 4, 8] {
            let mut frame = from_xtcp(header(101, Some(504), 1000));
            set_byte(&mut frame, 34 + 12, |byte| byte | bit);
            assert_eq!(check(&[frame]), [Rule::ReservedBitsZero]);
        }
    }

    #[test]
    fn a_wrong_ip_checksum_is_found() {
        let mut frame = from_xtcp(header(101, Some(504), 1000));
        frame[14 + 8] -= 1;
        assert_eq!(check(&[frame]), [Rule::IpChecksum]);
    }

    #[test]
    fn a_wrong_tcp_checksum_is_found() {
        let mut frame = from_xtcp(header(101, Some(504), 1000));
        *frame.last_mut().unwrap() ^= 1;
        assert_eq!(check(&[frame]), [Rule::TcpChecksum]);
    }

    #[test]
    fn a_wrong_tcp_checksum_over_ipv6_is_found() {
        let mut frame = Vec::new();
        let builder = PacketBuilder::ethernet2(XTCP, PEER).ipv6([1; 16], [2; 16], 64);
        builder.tcp_header(header(101, Some(504), 1000)).write(&mut frame, b"abc").unwrap();
        assert_eq!(check(std::slice::from_ref(&frame)), []);
        *frame.last_mut().unwrap() ^= 1;
        assert_eq!(check(&[frame]), [Rule::TcpChecksum]);
    }

    #[test]
    fn an_option_of_impossible_length_is_found() {
        let mut tcp = header(101, Some(504), 1000);
        tcp.set_options_raw(&[2, 9, 0, 0]).unwrap();
        assert_eq!(check(&[from_xtcp(tcp)]), [Rule::OptionsWellFormed]);
    }

    #[test]
    fn the_window_of_a_syn_may_be_rounded_down_by_less_than_a_unit_and_no_other() {
        // 125 units of 8 bytes and 7 more.
        let mut offers = handshake();
        offers[1] = from_xtcp({
            let mut tcp = syn(100, Some(501), Some(3));
            tcp.window_size = 1007;
            tcp
        });
        for (next, rules) in [(125, &[][..]), (124, &[Rule::WindowNeverShrinks])] {
            assert_eq!(
                check(&[&offers[..], &[from_xtcp(header(101, Some(501), next))]].concat()),
                rules,
                "{next} units"
            );
        }
    }

    #[test]
    fn a_right_edge_that_moves_left_by_one_is_found() {
        let mut frames = handshake();
        frames.push(from_xtcp(header(101, Some(504), 1000)));
        frames.push(from_xtcp(header(101, Some(511), 999)));
        assert_eq!(check(&frames), [Rule::WindowNeverShrinks]);
    }

    #[test]
    fn a_window_means_nothing_once_the_peers_fin_is_acknowledged() {
        let ends = |last: &[TcpHeader]| {
            let mut frames = handshake();
            frames.push(from_peer({
                let mut fin = header(101, Some(101), 1000);
                (fin.sequence_number, fin.fin) = (501, true);
                fin
            }));
            frames.push(from_xtcp(header(101, Some(504), 1000)));
            frames.extend(last.iter().cloned().map(from_xtcp));
            check(&frames)
        };
        // "abc", and the FIN.
        let (before, after) = (504, 505);
        assert_eq!(ends(&[header(101, Some(before), 999)]), [Rule::WindowNeverShrinks]);
        assert_eq!(ends(&[header(101, Some(after), u16::MAX), header(101, Some(after), 999)]), []);
        let forged = [header(101, Some(after), 10), header(101, Some(after + 8), 900)];
        assert_eq!(ends(&forged), [Rule::WindowNeverShrinks], "what goes on was not ended by that FIN");
    }

    #[test]
    fn a_right_edge_does_not_bind_when_another_syn_of_the_peers_proves_right() {
        let opens = |then: &[Vec<u8>]| {
            let crossing = [from_xtcp(syn(100, None, None)), from_peer(syn(501, None, None))];
            let answered = [from_xtcp(syn(100, Some(502), None)), from_peer(syn(500, Some(101), None))];
            check(&[&crossing[..], &answered, then].concat())
        };
        let settles = from_xtcp(header(101, Some(501), 1000));
        let shrinks = from_xtcp(header(101, Some(501), 999));
        assert_eq!(opens(std::slice::from_ref(&settles)), []);
        assert_eq!(opens(&[settles.clone(), shrinks.clone()]), [Rule::WindowNeverShrinks]);
        let forged = from_peer(syn(500, Some(101), None));
        assert_eq!(opens(&[settles, forged, shrinks]), [Rule::WindowNeverShrinks], "it has settled");
    }

    #[test]
    fn a_window_that_shrinks_as_data_arrive_keeps_its_edge() {
        let mut frames = handshake();
        frames.push(from_xtcp(header(101, Some(504), 1000)));
        frames.push(from_xtcp(header(101, Some(512), 999)));
        assert_eq!(check(&frames), []);
    }

    #[test]
    fn the_window_of_a_syn_ack_is_not_scaled() {
        let mut frames = handshake();
        frames.push(from_xtcp(header(101, Some(501), 125)));
        assert_eq!(check(&frames), []);
        frames.push(from_xtcp(header(101, Some(501), 124)));
        assert_eq!(check(&frames), [Rule::WindowNeverShrinks]);
    }

    #[test]
    fn windows_are_not_scaled_when_the_peer_did_not_offer_it() {
        let frames = [
            from_peer(syn(500, None, None)),
            from_xtcp(syn(100, Some(501), Some(3))),
            from_xtcp(header(101, Some(501), 999)),
        ];
        assert_eq!(check(&frames), [Rule::WindowNeverShrinks]);
    }

    #[test]
    fn of_two_syn_acks_the_one_that_was_settled_on_says_how_windows_are_scaled() {
        // One is kept, the other is a cookie, which has no place for a window scale. Both offer 1000 bytes.
        let offers = |first: Option<u8>, second: Option<u8>| {
            let answers = [syn(100, Some(501), first), syn(9_000_000, Some(501), second)];
            [&[from_peer(syn(500, None, Some(3)))][..], &answers.map(from_xtcp)].concat()
        };
        let settles = |first, second, seq, window| {
            check(&[&offers(first, second)[..], &[from_xtcp(header(seq, Some(501), window))]].concat())
        };
        for (first, second, seq) in [(Some(3), None, 101), (None, Some(3), 9_000_001)] {
            assert_eq!(settles(first, second, seq, 125), []);
            assert_eq!(settles(first, second, seq, 124), [Rule::WindowNeverShrinks]);
        }
        for (first, second, seq) in [(None, Some(3), 101), (Some(3), None, 9_000_001)] {
            assert_eq!(settles(first, second, seq, 1000), []);
            assert_eq!(settles(first, second, seq, 999), [Rule::WindowNeverShrinks]);
        }
    }

    #[test]
    fn a_connection_is_judged_by_its_own_offers_however_many_syns_are_answered_besides() {
        let mut frames = handshake();
        frames.push(from_xtcp(header(101, Some(504), 1000)));
        for n in 1..100 {
            frames.push(from_peer(syn(500 + n * 10_000_000, None, None)));
            frames.push(from_xtcp(syn(100 + n * 20_000_000, Some(501 + n * 10_000_000), None)));
            // 8 bytes more arrive each time.
            frames.push(from_xtcp(header(104 + n * 3, Some(504 + n * 8), 1000 - n as u16)));
        }
        assert_eq!(check(&frames), []);
        frames.push(from_xtcp(header(401, Some(504 + 99 * 8), 900)));
        assert_eq!(check(&frames), [Rule::WindowNeverShrinks]);
    }

    #[test]
    fn the_peers_syn_that_is_acknowledged_says_whether_windows_are_scaled() {
        let opens = |window| {
            let mut frames = handshake();
            frames.insert(1, from_peer(syn(70_000, None, None)));
            frames.push(from_peer(syn(80_000, None, None)));
            frames.push(from_xtcp(header(101, Some(501), window)));
            check(&frames)
        };
        assert_eq!(opens(125), []);
        assert_eq!(opens(124), [Rule::WindowNeverShrinks]);
    }

    #[test]
    fn a_connection_that_begins_again_without_a_syn_is_not_bound_by_windows_before() {
        let mut checker = checker(&[&handshake()[..], &[from_xtcp(header(101, Some(504), 1000))]].concat());
        let mut says = |window, again| {
            let segment = Segment::parse(Duration::ZERO, &from_xtcp(header(101, Some(501), window))).unwrap();
            if again {
                checker.begins_again(&segment);
            }
            checker.segment(segment);
            checker.violations().len()
        };
        assert_eq!(says(125, true), 0);
        assert_eq!(says(124, false), 1);
    }

    #[test]
    fn a_right_edge_that_wraps_around_has_not_moved_left() {
        let edge = [(u32::MAX - 100, 50), (u32::MAX - 10, 50), (u32::MAX, 50), (40, 50)];
        let mut frames = vec![from_peer(syn(1, None, None)), from_xtcp(syn(100, Some(2), None))];
        frames[1] = from_xtcp(syn(100, Some(u32::MAX - 2000), None));
        frames.extend(edge.map(|(ack, window)| from_xtcp(header(101, Some(ack), window))));
        assert_eq!(check(&frames), []);
        frames.push(from_xtcp(header(101, Some(u32::MAX), 50)));
        assert_eq!(check(&frames), [Rule::WindowNeverShrinks]);
    }

    #[test]
    fn the_window_of_a_rst_means_nothing() {
        let mut frames = handshake();
        let mut rst = header(101, Some(501), 0);
        rst.rst = true;
        frames.push(from_xtcp(rst));
        assert_eq!(check(&frames), []);
    }

    #[test]
    fn segments_of_ports_that_are_not_owned_and_of_the_peer_are_not_judged() {
        let mut other = header(1, None, 0);
        other.source_port = 9999;
        assert_eq!(check(&[from_xtcp(other), from_peer(header(1, None, 0))]), []);
    }

    #[test]
    fn a_report_names_the_rule_and_shows_the_flow() {
        let mut frames = handshake();
        frames.push(from_xtcp(header(101, None, 1000)));
        let report = checker(&frames).report().unwrap();
        assert!(report.contains("AckAfterSyn"), "{report}");
        assert!(report.contains("flow 10.0.0.2:7 > 10.0.0.1:50000"), "{report}");
        assert_eq!(report.matches("10.0.0.2:7 >").count(), 3, "{report}");
    }

    #[test]
    fn addresses_of_both_families_are_parsed() {
        let mut frame = Vec::new();
        let builder = PacketBuilder::ethernet2(XTCP, PEER).ipv6([1; 16], [2; 16], 9);
        builder.tcp_header(header(1, Some(2), 3)).write(&mut frame, b"").unwrap();
        let segment = Segment::parse(Duration::ZERO, &frame).unwrap();
        assert_eq!(segment.source.ip(), IpAddr::from(Ipv6Addr::from([1; 16])));
        assert_eq!((segment.ttl, segment.length), (9, 0));
        let segment = Segment::parse(Duration::ZERO, &from_xtcp(header(1, Some(2), 3))).unwrap();
        assert_eq!(segment.source.ip(), IpAddr::from(Ipv4Addr::new(10, 0, 0, 2)));
    }

    /// Changes a byte of the TCP header and makes the checksum right again.
    fn set_byte(frame: &mut [u8], at: usize, change: impl Fn(u8) -> u8) {
        let (before, even) = (frame[at], (at - 34).is_multiple_of(2));
        frame[at] = change(before);
        let difference = u16::from(frame[at]) - u16::from(before);
        let difference = if even { difference << 8 } else { difference };
        let old = !u16::from_be_bytes([frame[34 + 16], frame[34 + 17]]);
        let (sum, carry) = old.overflowing_add(difference);
        let new = !(sum + u16::from(carry));
        frame[34 + 16..34 + 18].copy_from_slice(&new.to_be_bytes());
    }
}
