//! ICMP errors about guessed segments (RFC 5927): none ends a connection.

use std::net::{IpAddr, Ipv6Addr};

use etherparse::{Icmpv4Type, Icmpv6Type, PacketBuilder};

use crate::attacker::Shot;
use crate::frames::{ACK, Forged, IP};
use crate::{Aftermath, Attack, MOST, frames_seen};

/// A router on the way, or so it says.
const ROUTER_V4: [u8; 4] = [10, 77, 0, 200];
const ROUTER_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x77, 0, 0, 0, 0, 0, 200);
/// Type and code: host, net, protocol, port unreachable, fragmentation needed, prohibited, time exceeded, parameter
/// problem, source quench. The last is no error that anybody acts on any more (RFC 6633).
const KINDS_V4: [(u8, u8); 9] = [(3, 1), (3, 0), (3, 2), (3, 3), (3, 4), (3, 13), (11, 0), (12, 0), (4, 0)];
/// No route, prohibited, address, port unreachable, packet too big, time exceeded, unknown next header.
const KINDS_V6: [(u8, u8); 7] = [(1, 0), (1, 1), (1, 3), (1, 4), (2, 0), (3, 0), (4, 1)];

/// Every fourth quotes the number that is sent next, the others sweep.
fn error(shot: &Shot) -> Vec<u8> {
    let seq = if shot.n.is_multiple_of(4) { shot.known.snd_nxt } else { shot.swept() };
    let quoted = Forged { flags: ACK, seq, ..Forged::default() };
    let quoted = quoted.between(shot, shot.target.server, shot.target.client);
    // Everything that a next hop may say of its MTU.
    let mtu = shot.random % 1500;
    let link = PacketBuilder::ethernet2(shot.target.client_mac, shot.target.server_mac);
    let mut frame = Vec::new();
    let written = match shot.target.server.ip() {
        IpAddr::V4(server) => {
            let (type_u8, code_u8) = KINDS_V4[shot.n as usize % KINDS_V4.len()];
            let kind = Icmpv4Type::Unknown { type_u8, code_u8, bytes5to8: mtu.to_be_bytes() };
            let quote = &quoted[IP..IP + 28];
            link.ipv4(ROUTER_V4, server.octets(), 64).icmpv4(kind).write(&mut frame, quote)
        }
        IpAddr::V6(server) => {
            let (type_u8, code_u8) = KINDS_V6[shot.n as usize % KINDS_V6.len()];
            let kind = Icmpv6Type::Unknown { type_u8, code_u8, bytes5to8: mtu.to_be_bytes() };
            link.ipv6(ROUTER_V6.octets(), server.octets(), 64).icmpv6(kind).write(&mut frame, &quoted[IP..])
        }
    };
    written.expect("a small packet");
    frame
}

#[test]
fn icmp_errors_about_guessed_segments_end_nothing() {
    assert_limited(&Attack::new(error, frames_seen).run());
}

#[test]
fn icmp_errors_about_guessed_segments_end_nothing_over_ipv6() {
    assert_limited(&Attack::new(error, frames_seen).over_v6().run());
}

/// Most are dropped by the XDP program's limit, and those that it lets through are about nothing that matters.
fn assert_limited(aftermath: &Aftermath) {
    assert!(aftermath.grew("classes", "icmp") >= MOST * 8 / 9, "{:#}", aftermath.after["classes"]);
    aftermath.assert_dropped("icmp_rate", 1);
    aftermath.assert_dropped("irrelevant_icmp", 1);
}
