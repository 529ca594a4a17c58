//! Attacks by addresses: those that no peer has, those that are everybody's, and MAC addresses of others.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tests::net::{CLIENT_V4, CLIENT_V6, SERVER_V4, SERVER_V6};

use crate::attacker::{SHOTS, Shot};
use crate::frames::{ACK, FIN, Forged, PSH, RST, SYN};
use crate::{Aftermath, Attack, DISCARD, ECHO, MOST, class, frames_seen};

/// Addresses that no peer of the server has; the last is the server's own.
const MARTIANS_V4: [IpAddr; 8] = [
    IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    IpAddr::V4(Ipv4Addr::LOCALHOST),
    IpAddr::V4(Ipv4Addr::BROADCAST),
    IpAddr::V4(Ipv4Addr::new(224, 0, 0, 1)),
    IpAddr::V4(Ipv4Addr::new(239, 255, 255, 250)),
    IpAddr::V4(Ipv4Addr::new(0, 1, 2, 3)),
    IpAddr::V4(Ipv4Addr::new(127, 255, 255, 255)),
    SERVER_V4,
];
const MARTIANS_V6: [IpAddr; 5] = [
    IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    IpAddr::V6(Ipv6Addr::LOCALHOST),
    IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1)),
    // ::ffff:10.77.0.1, which maps would take for the IPv4 client.
    IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0x0a4d, 1)),
    SERVER_V6,
];

fn from_martian(shot: &Shot) -> Vec<u8> {
    let martians: &[IpAddr] = if shot.target.server.is_ipv4() { &MARTIANS_V4 } else { &MARTIANS_V6 };
    let martian = martians[shot.n as usize % martians.len()];
    let to = SocketAddr::new(shot.target.server.ip(), ECHO);
    // Every other time from the port that it goes to. From the server's own address that is LAND.
    let port = if shot.random & 1 == 0 { ECHO } else { shot.target.client.port() };
    let flags = [SYN, SYN, ACK, ACK | PSH, FIN | ACK][shot.n as usize / 16 % 5];
    let forged = Forged { flags, seq: shot.swept(), ack: shot.random, payload: b"x", ..Forged::default() };
    forged.between(shot, SocketAddr::new(martian, port), to)
}

#[test]
fn land_and_martians_are_neither_served_nor_answered() {
    let aftermath = Attack::new(from_martian, frames_seen).run();
    aftermath.assert_dropped("martian", SHOTS.into());
    assert_only_client_is_addressed(&aftermath, CLIENT_V4);
}

#[test]
fn land_and_martians_are_neither_served_nor_answered_over_ipv6() {
    let aftermath = Attack::new(from_martian, frames_seen).over_v6().run();
    aftermath.assert_dropped("martian", SHOTS.into());
    assert_only_client_is_addressed(&aftermath, CLIENT_V6);
}

fn assert_only_client_is_addressed(aftermath: &Aftermath, client: IpAddr) {
    let others: Vec<_> = aftermath.addressees.iter().filter(|(_, to)| to.ip() != client).collect();
    assert!(others.is_empty(), "segments to {others:?}");
}

/// A port of the client's that is nobody's.
const NOBODYS_PORT: u16 = 9;

#[test]
fn destinations_that_are_everybodys_are_not_ours() {
    let frame = |shot: &Shot| {
        let everybody: [(IpAddr, IpAddr); 5] = [
            (CLIENT_V4, Ipv4Addr::BROADCAST.into()),
            (CLIENT_V4, Ipv4Addr::new(224, 0, 0, 1).into()),
            (CLIENT_V4, Ipv4Addr::new(10, 77, 0, 255).into()),
            (CLIENT_V4, Ipv4Addr::UNSPECIFIED.into()),
            (CLIENT_V6, Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1).into()),
        ];
        let (from, to) = everybody[shot.n as usize % everybody.len()];
        let flags = if shot.random & 1 == 0 { SYN } else { ACK };
        Forged { flags, seq: shot.random, ..Forged::default() }.between(
            shot,
            SocketAddr::new(from, NOBODYS_PORT),
            SocketAddr::new(to, DISCARD),
        )
    };
    let aftermath = Attack::new(frame, frames_seen).run();
    // A wildcard listener's own entry is found for 0.0.0.0; the daemon drops what is sent there.
    assert!(aftermath.grew("verdicts", "pass") + aftermath.grew("drops", "martian") >= SHOTS.into());
    let answers = aftermath.addressees.iter().filter(|(_, to)| to.port() == NOBODYS_PORT).count();
    assert_eq!(answers, 0);
}

fn with_foreign_mac(shot: &Shot) -> Vec<u8> {
    let to = [[2, 0, 0, 0, 0, 99], [255; 6], [1, 0, 94, 0, 0, 1]][shot.n as usize % 3];
    let flags = [RST, ACK | PSH, SYN, FIN | ACK][shot.n as usize / 3 % 4];
    let (seq, ack) = (shot.known.rcv_nxt, shot.known.snd_nxt);
    let forged = Forged { flags, seq, ack, payload: b"x", ..Forged::default() };
    forged.frame((shot.target.client_mac, to), shot.target.client, shot.target.server)
}

#[test]
fn frames_for_other_mac_addresses_are_not_ours_though_they_have_the_right_numbers() {
    let aftermath = Attack::new(with_foreign_mac, frames_seen).run();
    assert!(aftermath.grew("verdicts", "pass") >= SHOTS.into());
}

#[test]
fn frames_for_other_mac_addresses_are_not_ours_on_a_promiscuous_interface_either() {
    let aftermath = Attack { promiscuous: true, ..Attack::new(with_foreign_mac, frames_seen) }.run();
    assert!(aftermath.grew("verdicts", "pass") >= SHOTS.into());
}

#[test]
fn a_stranger_on_the_wire_does_not_draw_the_answers_to_itself() {
    let frame = |shot: &Shot| {
        let stranger = [2, 0, 0, 0, (shot.n >> 8) as u8, shot.n as u8];
        let known = shot.known;
        // One of the two sides' numbers is right, or both are in the window, but never are both right.
        let (seq, ack, payload): (_, _, &[u8]) = match shot.n % 4 {
            0 => (shot.in_window(), shot.wrong_ack(), b"x"),
            1 => (known.rcv_nxt, shot.wrong_ack(), b"x"),
            2 => (known.rcv_nxt.wrapping_add(1 << 26).wrapping_add(shot.random >> 2), known.snd_nxt, b"x"),
            _ => (shot.in_window(), known.snd_nxt, b""),
        };
        let forged = Forged { flags: ACK, seq, ack, payload, ..Forged::default() };
        forged.frame((stranger, shot.target.server_mac), shot.target.client, shot.target.server)
    };
    let aftermath = Attack::new(frame, |stats| class(stats, "data") + class(stats, "ack")).run();
    aftermath.assert_dropped("bad_ack", MOST / 2);
    aftermath.assert_dropped("out_of_window", MOST / 4);
    let macs: HashSet<_> = aftermath.addressees.iter().map(|(mac, _)| mac).collect();
    assert_eq!(macs.len(), 1, "{macs:02x?}");
}
