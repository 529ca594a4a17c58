//! The table.

use alloc::vec::Vec;

use super::Case;
use super::frames::{SegmentFrame, arp, icmp_about, icmp_error, udp};
use super::world::{LOCAL_V4, LOCAL_V6, OTHER_V4, PEER_V4, ROUTED_V4, World, connection_v4, connection_v6};
use crate::counters::{Class, DropReason};
use crate::decide::{Sockets, Steer, Verdict};
use crate::prefix::Rule;
use crate::rate::Rate;
use crate::state::State;

/// Every case.
#[must_use]
pub fn cases() -> Vec<Case> {
    [
        not_ours(),
        connections(),
        listeners(),
        without_connection(),
        malformed(),
        vlans(),
        ipv4_headers(),
        ipv6_headers(),
        icmp(),
        liveness(),
        prefixes(),
        source_rate(),
    ]
    .concat()
}

/// Where the IPv4 header begins in an untagged frame.
const IP: usize = 14;
/// Where the TCP header begins in an untagged IPv4 frame without options.
const TCP: usize = 34;

fn not_ours() -> Vec<Case> {
    let syn = SegmentFrame::v4(7, "S").stray();
    [
        Case::passes("an empty frame passes", Vec::new()),
        Case::passes("a frame cut in its Ethernet header passes", syn.build()[..13].to_vec()),
        Case::passes("a frame cut in its IPv4 header passes", syn.build()[..33].to_vec()),
        Case::passes("a frame cut in its ports passes", syn.build()[..37].to_vec()),
        Case::passes("a frame for another MAC address passes", syn.build_with(|frame| frame[5] = 9)),
        Case::passes("a broadcast passes", syn.build_with(|frame| frame[..6].fill(0xff))),
        Case::passes("ARP passes", arp()),
        Case::passes("UDP to an owned port passes", udp(7)),
        Case::passes("TCP to another port passes", SegmentFrame::v4(22, "S").stray().build()),
        Case::passes(
            "TCP to an owned port of another address of the host passes",
            SegmentFrame::v4(7, "S").stray().to(OTHER_V4).build(),
        ),
        Case::passes(
            "TCP to a wildcard listener's port passes when the host routes it on",
            SegmentFrame::v4(80, "S").to(ROUTED_V4).build(),
        ),
        Case::passes(
            "TCP to an ephemeral port passes when the host routes it on",
            SegmentFrame::v4(40_000, "A").to(ROUTED_V4).build(),
        ),
        Case::passes("an IPv4 wildcard does not take IPv6", SegmentFrame::v6(80, "S").build()),
        Case::passes("an IPv6 wildcard does not take IPv4", SegmentFrame::v4(8080, "S").build()),
        Case::passes("a port above the ephemeral range passes", SegmentFrame::v4(41_000, "A").build()),
    ]
    .into()
}

fn connections() -> Vec<Case> {
    let own = |letters| SegmentFrame::v4(7, letters).build();
    let steered = |name, frame, class| Case::steered(name, frame, class, Steer::Connection { queue: 0 });
    let unclassed = |name, frame| Case { class: None, ..steered(name, frame, Class::Ack) };
    [
        steered("a connection's ACK is steered", own("A"), Class::Ack),
        steered("a connection's data is steered", SegmentFrame::v4(7, "PA").with_payload(b"x").build(), Class::Data),
        steered("a connection's FIN is steered", own("FA"), Class::Fin),
        steered(
            "a connection's FIN with data is a FIN",
            SegmentFrame::v4(7, "FPA").with_payload(b"x").build(),
            Class::Fin,
        ),
        steered("a connection's RST is steered", own("R"), Class::Rst),
        steered("a connection's SYN is steered as its own", own("S"), Class::Syn),
        steered("a connection's SYN-ACK is steered", own("SA"), Class::SynAck),
        steered("an IPv6 connection's ACK is steered", SegmentFrame::v6(7, "A").build(), Class::Ack),
        unclassed("a connection's segment without flags is steered", own("")),
        unclassed("a connection's segment with SYN and FIN is steered", own("SF")),
        unclassed(
            "a connection's segment with a bad header length is steered",
            SegmentFrame::v4(7, "A").build_with(|frame| frame[TCP + 12] = 0x40),
        ),
        Case {
            verdict: Verdict::Steer(Steer::Connection { queue: 7 }),
            ..steered("a connection's owner is told", own("A"), Class::Ack).when(|world| world.queue = 7)
        },
        Case::dropped(
            "a first fragment is dropped even of a connection",
            SegmentFrame::v4(7, "A").fragment(0, true).build(),
            None,
            DropReason::Fragment,
        ),
        steered(
            "a connection on a port without listener is steered",
            SegmentFrame::v4(40_001, "A").build(),
            Class::Ack,
        )
        .when(|world| world.connections[0].local_port = 40_001),
    ]
    .into()
}

fn listeners() -> Vec<Case> {
    let syn = |name, frame| Case::steered(name, frame, Class::Syn, Steer::Syn);
    [
        syn("a SYN to a listener is steered", SegmentFrame::v4(7, "S").stray().build()),
        syn("a SYN that offers ECN is a SYN", SegmentFrame::v4(7, "SEC").stray().build()),
        syn("a SYN with options is a SYN", SegmentFrame::v4(7, "S").stray().with_options(40).build()),
        syn("a SYN with data is a SYN", SegmentFrame::v4(7, "S").stray().with_payload(b"early").build()),
        syn("a SYN to an IPv6 listener is steered", SegmentFrame::v6(7, "S").stray().build()),
        syn("a SYN to an IPv4 wildcard is steered", SegmentFrame::v4(80, "S").build()),
        syn("a SYN to an IPv4 wildcard on another address is steered", SegmentFrame::v4(80, "S").to(OTHER_V4).build()),
        syn("a SYN to an IPv6 wildcard is steered", SegmentFrame::v6(8080, "S").build()),
        syn(
            "a SYN to a listener on an address that the interface does not have is steered",
            SegmentFrame::v4(7, "S").to(ROUTED_V4).build(),
        )
        .when(|world| world.listeners.push((ROUTED_V4, 7).into())),
    ]
    .into()
}

fn without_connection() -> Vec<Case> {
    let stray = |letters| SegmentFrame::v4(7, letters).stray();
    let answered = |name, frame, class| Case::steered(name, frame, class, Steer::NoConnection);
    [
        answered("an ACK without a connection is steered", stray("A").build(), Class::Ack),
        answered("data without a connection is steered", stray("PA").with_payload(b"x").build(), Class::Data),
        answered("a FIN without a connection is steered", stray("FA").build(), Class::Fin),
        answered("a SYN-ACK without a connection is steered", stray("SA").build(), Class::SynAck),
        answered("a SYN to an ephemeral port is steered", SegmentFrame::v4(40_000, "S").build(), Class::Syn),
        answered("an ACK to the last ephemeral port is steered", SegmentFrame::v4(40_999, "A").build(), Class::Ack),
        answered("an ACK without an IPv6 connection is steered", SegmentFrame::v6(7, "A").stray().build(), Class::Ack),
        answered("a segment whose connection was deleted has none", SegmentFrame::v4(7, "A").build(), Class::Ack)
            .when(|world| world.connections.clear()),
        Case::dropped(
            "a RST without a connection is dropped",
            stray("R").build(),
            Some(Class::Rst),
            DropReason::StrayRst,
        ),
        Case::dropped(
            "a RST to an ephemeral port is dropped",
            SegmentFrame::v4(40_000, "RA").build(),
            Some(Class::Rst),
            DropReason::StrayRst,
        ),
    ]
    .into()
}

fn malformed() -> Vec<Case> {
    let stray = |letters| SegmentFrame::v4(7, letters).stray();
    let dropped = |name, frame, reason| Case::dropped(name, frame, None, reason);
    let cut = |name, length: usize| {
        let frame = stray("S").build_with(|frame| {
            frame.truncate(TCP + length);
            frame[IP + 3] = (20 + length) as u8;
        });
        dropped(name, frame, DropReason::HeaderLength)
    };
    [
        dropped("no flags at all are dropped", stray("").build(), DropReason::Null),
        dropped("ECN flags alone are no flags", stray("EC").build(), DropReason::Null),
        dropped("FIN, PSH and URG without ACK are dropped", stray("FPU").build(), DropReason::Xmas),
        dropped("every flag at once is SYN and FIN", stray("FSRPAUEC").build(), DropReason::SynFin),
        dropped("SYN and FIN are dropped", stray("SF").build(), DropReason::SynFin),
        dropped("SYN and RST are dropped", stray("SR").build(), DropReason::SynRst),
        dropped("FIN without ACK is dropped", stray("F").build(), DropReason::FinWithoutAck),
        dropped("PSH alone is dropped", stray("P").with_payload(b"x").build(), DropReason::WithoutAck),
        dropped(
            "a header length below 20 is dropped",
            stray("S").build_with(|frame| frame[TCP + 12] = 0x40),
            DropReason::HeaderLength,
        ),
        dropped(
            "a header length beyond the packet is dropped",
            stray("S").build_with(|frame| frame[TCP + 12] = 0x60),
            DropReason::HeaderLength,
        ),
        cut("a header cut behind its ports is dropped", 4),
        cut("a header cut in its last byte is dropped", 19),
        dropped(
            "a header that only Ethernet padding completes is dropped",
            stray("S").build_with(|frame| frame[IP + 3] = 39),
            DropReason::HeaderLength,
        ),
        Case::steered(
            "Ethernet padding is not payload",
            stray("A").build_with(|frame| frame.extend([0; 6])),
            Class::Ack,
            Steer::NoConnection,
        ),
        dropped(
            "a malformed segment to an ephemeral port is dropped",
            SegmentFrame::v4(40_000, "").build(),
            DropReason::Null,
        ),
    ]
    .into()
}

fn vlans() -> Vec<Case> {
    let syn = SegmentFrame::v4(7, "S").stray();
    let taken = |name, frame| Case::steered(name, frame, Class::Syn, Steer::Syn);
    [
        taken("a frame of VLAN 0 is taken", syn.clone().tagged(0).build()),
        taken("a frame of VLAN 0 with a priority is taken", syn.clone().tagged(0xe000).build()),
        taken("a frame of a listed VLAN is taken", syn.clone().tagged(100).build()),
        taken("an IPv6 frame of a listed VLAN is taken", SegmentFrame::v6(7, "S").stray().tagged(100).build()),
        Case::passes("a frame of another VLAN passes", syn.clone().tagged(101).build()),
        Case::passes("a frame cut in its VLAN tag passes", syn.clone().tagged(100).build()[..17].to_vec()),
        Case::passes(
            "a frame with two VLAN tags passes",
            syn.tagged(100).build_with(|frame| frame[16..18].copy_from_slice(&[0x81, 0])),
        ),
    ]
    .into()
}

fn ipv4_headers() -> Vec<Case> {
    let syn = SegmentFrame::v4(7, "S").stray();
    let taken = |name, frame| Case::steered(name, frame, Class::Syn, Steer::Syn);
    [
        taken("IPv4 options of 4 bytes are skipped", syn.clone().with_ip_options(4).build()),
        taken("IPv4 options of 40 bytes are skipped", syn.clone().with_ip_options(40).build()),
        Case::passes("an IPv4 header length below 20 passes", syn.build_with(|frame| frame[IP] = 0x44)),
        Case::passes("an IPv4 header of another version passes", syn.build_with(|frame| frame[IP] = 0x65)),
        Case::passes("an IPv4 length beyond the frame passes", syn.build_with(|frame| frame[IP + 3] = 41)),
        Case::passes("an IPv4 length below its header passes", syn.build_with(|frame| frame[IP + 3] = 19)),
        Case::passes("a later IPv4 fragment passes", syn.clone().fragment(1, true).build()),
        Case::passes("a last IPv4 fragment passes", syn.clone().fragment(185, false).build()),
        Case::dropped(
            "a first IPv4 fragment to an owned port is dropped",
            syn.fragment(0, true).build(),
            None,
            DropReason::Fragment,
        ),
        Case::passes(
            "a first IPv4 fragment to another port passes",
            SegmentFrame::v4(22, "S").fragment(0, true).build(),
        ),
    ]
    .into()
}

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;

/// An extension header of 8 bytes without its first.
const SHORT: &[u8] = &[0, 1, 4, 0, 0, 0, 0];

fn ipv6_headers() -> Vec<Case> {
    let syn = SegmentFrame::v6(7, "S").stray();
    let taken = |name, frame| Case::steered(name, frame, Class::Syn, Steer::Syn);
    let long: Vec<u8> = [&[2], [0; 22].as_slice()].concat();
    let four = syn
        .clone()
        .extended(HOP_BY_HOP, SHORT)
        .extended(DESTINATION_OPTIONS, &long)
        .extended(ROUTING, &[0, 0, 0, 0, 0, 0, 0])
        .extended(DESTINATION_OPTIONS, SHORT);
    let fragment = |offset_and_more: u16| {
        let [high, low] = offset_and_more.to_be_bytes();
        syn.clone().extended(FRAGMENT, &[0, high, low, 0, 0, 0, 1]).build()
    };
    [
        taken("one IPv6 extension header is skipped", syn.clone().extended(HOP_BY_HOP, SHORT).build()),
        taken("four IPv6 extension headers are skipped", four.build()),
        Case::dropped(
            "what five IPv6 extension headers hide is dropped",
            four.clone().extended(DESTINATION_OPTIONS, SHORT).build(),
            None,
            DropReason::Extensions,
        ),
        Case::passes(
            "what five IPv6 extension headers hide passes on to another host",
            four.extended(DESTINATION_OPTIONS, SHORT).build_with(|frame| frame[IP + 39] ^= 0x40),
        ),
        Case::passes(
            "an IPv6 packet that still has to be routed on passes",
            syn.clone().extended(ROUTING, &[0, 0, 1, 0, 0, 0, 0]).build(),
        ),
        Case::passes("an authenticated IPv6 packet passes", syn.clone().extended(AUTHENTICATION, SHORT).build()),
        Case::passes(
            "an extension header beyond the frame passes",
            syn.clone().extended(HOP_BY_HOP, &[255, 1, 4, 0, 0, 0, 0]).build(),
        ),
        Case::dropped("a first IPv6 fragment to an owned port is dropped", fragment(1), None, DropReason::Fragment),
        Case::passes("a later IPv6 fragment passes", fragment(8)),
        taken("an atomic IPv6 fragment is a whole packet", fragment(0)),
        Case::passes("an IPv6 header of another version passes", syn.build_with(|frame| frame[IP] = 0x40)),
        Case::passes("an IPv6 length beyond the frame passes", syn.build_with(|frame| frame[IP + 5] += 1)),
        Case::dropped(
            "an IPv6 segment that only padding completes is dropped",
            syn.build_with(|frame| frame[IP + 5] -= 1),
            None,
            DropReason::HeaderLength,
        ),
        Case::passes("a frame cut in its IPv6 header passes", syn.build()[..IP + 39].to_vec()),
    ]
    .into()
}

fn icmp() -> Vec<Case> {
    let (v4, v6) = (connection_v4(), connection_v6());
    let mut strange = v4;
    strange.remote_port += 1;
    let about_v4 = |change: fn(&mut Vec<u8>)| {
        let mut quoted = SegmentFrame::between(v4.local(), v4.remote(), "A").packet();
        change(&mut quoted);
        icmp_about(&v4, 3, &quoted)
    };
    let steered = |name, frame| Case::steered(name, frame, Class::Icmp, Steer::Icmp { queue: 0 });
    [
        steered("an ICMP error about a connection is steered", icmp_error(&v4, 3)),
        Case {
            verdict: Verdict::Steer(Steer::Icmp { queue: 7 }),
            ..steered("the owner of the connection that an ICMP error is about is told", icmp_error(&v4, 3))
                .when(|world| world.queue = 7)
        },
        steered("time exceeded for a connection is steered", icmp_error(&v4, 11)),
        steered("a parameter problem of a connection is steered", icmp_error(&v4, 12)),
        steered("packet too big for an IPv6 connection is steered", icmp_error(&v6, 2)),
        steered("an ICMPv6 error about a connection is steered", icmp_error(&v6, 1)),
        steered("a quote cut to 8 bytes of TCP is enough", about_v4(|quoted| quoted.truncate(28))),
        Case::passes("an ICMP error about another connection passes", icmp_error(&strange, 3)),
        Case::passes("an echo request passes", icmp_error(&v4, 8)),
        Case::passes("a redirect passes", icmp_error(&v4, 5)),
        Case::passes("an ICMPv6 echo request passes", icmp_error(&v6, 128)),
        Case::passes("a neighbour solicitation passes", icmp_error(&v6, 135)),
        Case::passes("a quote cut in its ports passes", about_v4(|quoted| quoted.truncate(23))),
        Case::passes("a quote of UDP passes", about_v4(|quoted| quoted[9] = 17)),
        Case::passes("a quote of a later fragment passes", about_v4(|quoted| quoted[7] = 1)),
        Case::passes("a quote with IPv4 options passes", about_v4(|quoted| quoted[0] = 0x46)),
        Case::passes("a quote of what another host sent passes", about_v4(|quoted| quoted[15] = 99)),
        Case::passes("a quote of IPv4 in ICMPv6 passes", {
            icmp_about(&v6, 1, &SegmentFrame::between(v4.local(), v4.remote(), "A").packet())
        }),
        Case::dropped(
            "ICMP errors beyond the limit are dropped",
            icmp_error(&v4, 3),
            Some(Class::Icmp),
            DropReason::IcmpRate,
        )
        .when(|world| world.icmp_exhausted = true),
    ]
    .into()
}

fn liveness() -> Vec<Case> {
    let elsewhere = |case: Case| Case {
        verdict: Verdict::Drop(DropReason::NoSocket),
        ..case.when(|world| world.sockets = Sockets::Elsewhere)
    };
    let nowhere = |name, frame| Case::passes(name, frame).when(|world| world.sockets = Sockets::Nowhere);
    let own = SegmentFrame::v4(7, "A").build();
    let syn = SegmentFrame::v4(7, "S").stray();
    [
        elsewhere(Case::steered(
            "a connection's segment is dropped when only another queue has a socket",
            own.clone(),
            Class::Ack,
            Steer::Connection { queue: 0 },
        )),
        elsewhere(Case::steered(
            "a SYN is dropped when only another queue has a socket",
            syn.build(),
            Class::Syn,
            Steer::Syn,
        )),
        elsewhere(Case::steered(
            "an ICMP error is dropped when only another queue has a socket",
            icmp_error(&connection_v6(), 1),
            Class::Icmp,
            Steer::Icmp { queue: 0 },
        )),
        Case::passes(
            "unowned traffic passes when only another queue has a socket",
            SegmentFrame::v6(22, "S").to(LOCAL_V6).build(),
        )
        .when(|world| world.sockets = Sockets::Elsewhere),
        nowhere("a connection's segment passes when no daemon lives", own),
        nowhere("a SYN passes when no daemon lives", syn.build()),
        nowhere("a stray RST passes when no daemon lives", SegmentFrame::v4(7, "R").stray().build()),
        nowhere("a malformed segment passes when no daemon lives", SegmentFrame::v4(7, "").stray().build()),
        nowhere("a fragment passes when no daemon lives", syn.fragment(0, true).build()),
        nowhere("an ICMP error passes when no daemon lives", icmp_error(&connection_v4(), 3)),
    ]
    .into()
}

/// Makes a prefix of a world allowed or denied.
fn rule(prefix: &'static str, rule: Rule) -> impl FnOnce(&mut World) {
    move |world| world.prefixes.push((prefix.parse().expect("a prefix"), rule))
}

fn prefixes() -> Vec<Case> {
    let (allow, deny) = (|prefix| rule(prefix, Rule::Allow), |prefix| rule(prefix, Rule::Deny));
    let stray = |letters| SegmentFrame::v4(7, letters).stray();
    let stray_v6 = SegmentFrame::v6(7, "S").stray();
    let denied = |name, frame, class| Case::dropped(name, frame, Some(class), DropReason::Denied);
    let taken = |name, frame| Case::steered(name, frame, Class::Syn, Steer::Syn);
    let own = |name, frame| Case::steered(name, frame, Class::Ack, Steer::Connection { queue: 0 });
    [
        denied("a SYN from a denied prefix is dropped", stray("S").build(), Class::Syn).when(deny("10.77.0.0/24")),
        denied("an ACK from a denied prefix is dropped", stray("A").build(), Class::Ack).when(deny("10.77.0.1/32")),
        denied("a SYN-ACK from a denied prefix is dropped", stray("SA").build(), Class::SynAck)
            .when(deny("10.0.0.0/8")),
        denied("a FIN from a denied prefix is dropped", stray("FA").build(), Class::Fin).when(deny("0.0.0.0/0")),
        denied("a SYN from a denied IPv6 prefix is dropped", stray_v6.build(), Class::Syn).when(deny("fd00::/16")),
        denied(
            "a SYN from a denied prefix to an ephemeral port is dropped",
            SegmentFrame::v4(40_000, "S").build(),
            Class::Syn,
        )
        .when(deny("10.77.0.0/24")),
        own("a connection lives on when its peer is denied", SegmentFrame::v4(7, "A").build()).when(deny("10.0.0.0/8")),
        own("an IPv6 connection lives on when its peer is denied", SegmentFrame::v6(7, "A").build()).when(deny("::/0")),
        denied("a denied source does not reopen its connection", SegmentFrame::v4(7, "S").build(), Class::Syn)
            .when(deny("10.0.0.0/8"))
            .when(|world| world.entry.state = State::TIME_WAIT),
        own("TIME_WAIT ends as ever when its peer is denied", SegmentFrame::v4(7, "A").build())
            .when(deny("10.0.0.0/8"))
            .when(|world| world.entry.state = State::TIME_WAIT),
        taken("a SYN from beside a denied prefix is steered", stray("S").build()).when(deny("10.77.0.2/31")),
        taken("an allowed prefix in a denied one is taken", stray("S").build())
            .when(deny("10.0.0.0/8"))
            .when(allow("10.77.0.0/16")),
        denied("a denied prefix in an allowed one is dropped", stray("S").build(), Class::Syn)
            .when(deny("10.77.0.1/32"))
            .when(allow("10.77.0.0/16")),
        taken("an allowed IPv6 prefix in a denied one is taken", stray_v6.build())
            .when(deny("::/0"))
            .when(allow("fd00::/64")),
        taken("to allow a prefix denies no other", stray("S").build()).when(allow("192.0.2.0/24")),
        taken("every IPv6 address denied is no IPv4 address", stray("S").build()).when(deny("::/0")),
        taken("every IPv4 address denied is no IPv6 address", stray_v6.build()).when(deny("0.0.0.0/0")),
        Case::dropped(
            "a malformed segment is that also from a denied prefix",
            stray("SF").build(),
            None,
            DropReason::SynFin,
        )
        .when(deny("10.0.0.0/8")),
        Case::passes("what is not owned passes from a denied prefix, too", SegmentFrame::v4(22, "S").build())
            .when(deny("10.0.0.0/8")),
        Case::passes("a SYN from a denied prefix passes when no daemon lives", stray("S").build())
            .when(deny("10.0.0.0/8"))
            .when(|world| world.sockets = Sockets::Nowhere),
    ]
    .into()
}

/// Limits each source, and has one use up what it may send.
fn exhausted(source: &'static str) -> impl FnOnce(&mut World) {
    const HOUR_NS: u64 = 3_600_000_000_000;
    move |world| {
        world.source_limit = Rate { interval_ns: HOUR_NS, burst: 2, pad: 0 };
        world.exhausted_sources.push(source.parse().expect("an address"));
    }
}

fn source_rate() -> Vec<Case> {
    let dropped = |name, frame| Case::dropped(name, frame, Some(Class::Syn), DropReason::SourceRate);
    let taken = |name, frame| Case::steered(name, frame, Class::Syn, Steer::Syn);
    let syn = SegmentFrame::v4(7, "S").stray().build();
    let syn_v6 = SegmentFrame::v6(7, "S").stray().build();
    [
        dropped("a SYN of a source that sent too many is dropped", syn.clone()).when(exhausted("10.77.0.1")),
        dropped("a SYN of an IPv6 network that sent too many is dropped", syn_v6.clone()).when(exhausted("fd00::")),
        dropped("a SYN of such a source to an ephemeral port is dropped", SegmentFrame::v4(40_000, "S").build())
            .when(exhausted("10.77.0.1")),
        dropped("every IPv6 address allowed is no IPv4 source without a limit", syn.clone())
            .when(exhausted("10.77.0.1"))
            .when(rule("::/0", Rule::Allow)),
        taken("a SYN of another source is steered", syn.clone()).when(exhausted("10.77.0.9")),
        taken("a SYN of another IPv6 network is steered", syn_v6).when(exhausted("fd00:0:0:1::")),
        taken("a SYN of an allowed source has no limit", syn.clone())
            .when(exhausted("10.77.0.1"))
            .when(rule("10.77.0.0/24", Rule::Allow)),
        Case::dropped("a denied source is that whatever it sent", syn, Some(Class::Syn), DropReason::Denied)
            .when(exhausted("10.77.0.1"))
            .when(rule("10.77.0.0/24", Rule::Deny)),
        Case::steered(
            "an ACK of a source that sent too many SYNs is steered",
            SegmentFrame::between((PEER_V4, 50_999).into(), (LOCAL_V4, 7).into(), "A").build(),
            Class::Ack,
            Steer::NoConnection,
        )
        .when(exhausted("10.77.0.1")),
        Case::steered(
            "a connection's SYN is not counted",
            SegmentFrame::v4(7, "S").build(),
            Class::Syn,
            Steer::Connection { queue: 0 },
        )
        .when(exhausted("10.77.0.1")),
    ]
    .into()
}
