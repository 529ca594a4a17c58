//! Attacks by what is around a segment: addresses that can't be, MAC addresses of others, options, fragments, lengths,
//! ICMP errors, floods from everywhere, noise.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use etherparse::{Icmpv4Type, PacketBuilder, icmpv4};
use serde_json::Value;
use tests::Lab;
use tests::net::{CLIENT_V4, SERVER_V4, WireOptions};

use crate::attacker::Shot;
use crate::frames::{ACK, FIN, Forged, PSH, RST, SYN};
use crate::{Attack, ECHO, echo, figure, frames_seen, serve};

/// Where IPv4 begins in a frame, and TCP in one without IP options.
const IP: usize = 14;
const TCP: usize = 34;

/// Addresses that no peer has.
const MARTIANS: [[u8; 4]; 8] = [
    [0, 0, 0, 0],
    [127, 0, 0, 1],
    [255, 255, 255, 255],
    [224, 0, 0, 1],
    [239, 255, 255, 250],
    [0, 1, 2, 3],
    [10, 77, 0, 2],
    [127, 255, 255, 255],
];

fn martian(shot: &Shot) -> SocketAddr {
    let address = Ipv4Addr::from(MARTIANS[shot.n as usize % MARTIANS.len()]);
    // Every other time the server itself, port included: LAND.
    let port = if shot.n.is_multiple_of(2) { ECHO } else { shot.target.client.port() };
    SocketAddr::new(address.into(), port)
}

#[test]
fn land_and_martians_are_neither_served_nor_answered() {
    let frame = |shot: &Shot| {
        let flags = [SYN, ACK, RST, ACK | PSH, FIN | ACK][shot.n as usize / 16 % 5];
        let forged = Forged { flags, seq: shot.swept(), ack: shot.random, payload: b"x", ..Forged::default() };
        forged.between(shot, martian(shot), shot.target.server)
    };
    let lab = Lab::for_load(&WireOptions::default());
    let daemon = serve(&lab, SERVER_V4);
    Attack::new(frame, frames_seen).run_in(&lab, &daemon);
    let answers = lab.segments(|segment| lab_sent_to_martian(segment.destination.ip()));
    assert!(answers.is_empty(), "{:?}", answers.first());
}

fn lab_sent_to_martian(address: IpAddr) -> bool {
    let IpAddr::V4(v4) = address else { return false };
    MARTIANS.contains(&v4.octets()) && address != SERVER_V4
}

#[test]
fn destinations_that_are_everybodys_are_not_ours() {
    let frame = |shot: &Shot| {
        let everybody = [[255, 255, 255, 255], [224, 0, 0, 1], [10, 77, 0, 255]][shot.n as usize % 3];
        let to = SocketAddr::new(Ipv4Addr::from(everybody).into(), ECHO);
        Forged { flags: SYN, seq: shot.random, ..Forged::default() }.between(shot, shot.target.client, to)
    };
    Attack::new(frame, frames_seen).run();
}

#[test]
fn frames_for_other_mac_addresses_are_not_ours() {
    let frame = |shot: &Shot| {
        let to = [[2, 0, 0, 0, 0, 99], [255; 6], [1, 0, 94, 0, 0, 1]][shot.n as usize % 3];
        let flags = [RST, ACK | PSH, SYN, FIN | ACK][shot.n as usize / 3 % 4];
        let forged = Forged { flags, seq: shot.rcv_nxt, ack: shot.snd_nxt, payload: b"x", ..Forged::default() };
        forged.frame((shot.target.client_mac, to), shot.target.client, shot.target.server)
    };
    Attack::new(frame, frames_seen).run();
}

#[test]
fn a_stranger_on_the_wire_does_not_draw_the_answers_to_itself() {
    let frame = |shot: &Shot| {
        let stranger = [2, 0, 0, 0, (shot.n >> 8) as u8, shot.n as u8];
        // In the window, but what we have sent is a guess.
        let (seq, ack) = (shot.rcv_nxt.wrapping_add(200_000), shot.random);
        let forged = Forged { flags: ACK | PSH, seq, ack, payload: b"x", ..Forged::default() };
        forged.frame((stranger, shot.target.server_mac), shot.target.client, shot.target.server)
    };
    Attack::new(frame, |stats| figure(stats, "classes", "data")).run();
}

#[test]
fn option_bombs_are_borne() {
    let frame = |shot: &Shot| {
        let mut options: Vec<u8> = (0..40).map(|at| (shot.random >> (at % 24)) as u8 ^ at).collect();
        match shot.n % 6 {
            0 => options.fill(1),
            1 => options[..2].copy_from_slice(&[(shot.random >> 3) as u8 | 2, 0]),
            2 => options[..2].copy_from_slice(&[8, 255]),
            3 => options = [8, 10, 0, 0, 0, 0, 0, 0, 0, 0].repeat(4),
            4 => options = [2, 4, 0, 0, 3, 3, 255, 1].repeat(5),
            _ => {}
        }
        options.truncate(shot.n as usize % 11 * 4);
        let forged = Forged { seq: shot.swept(), ack: shot.random, options: &options, ..Forged::default() };
        if shot.n.is_multiple_of(2) {
            return Forged { flags: ACK, ..forged }.as_client(shot);
        }
        let stranger =
            SocketAddr::new(Ipv4Addr::from(0x0a4d_0100 | (shot.random & 0xff)).into(), 1024 + shot.n as u16 / 2);
        Forged { flags: SYN, ..forged }.between(shot, stranger, shot.target.server)
    };
    Attack { newcomers: false, ..Attack::new(frame, frames_seen) }.run();
}

#[test]
fn fragments_wrong_lengths_and_wrong_checksums_are_dropped() {
    let frame = |shot: &Shot| {
        let forged = Forged {
            flags: ACK | PSH,
            seq: shot.rcv_nxt,
            ack: shot.snd_nxt,
            payload: &[b'!'; 32],
            ..Forged::default()
        };
        let mut frame = forged.as_client(shot);
        match shot.n % 7 {
            // The first fragment of many, too short for a header, and one from the middle.
            0 => frame[IP + 6] = 0x20,
            1 => {
                frame[IP + 6] = 0x20;
                frame[IP + 2..IP + 4].copy_from_slice(&28_u16.to_be_bytes());
                frame.truncate(IP + 28);
            }
            2 => frame[IP + 7] = 1 + (shot.random % 200) as u8,
            3 => frame[TCP + 12] = (shot.random % 5) as u8 * 16,
            4 => frame[IP + 2..IP + 4].copy_from_slice(&(2000 + (shot.random % 60_000) as u16).to_be_bytes()),
            5 => frame[TCP + 16] ^= 0x55,
            _ => frame.truncate(IP + (shot.random % 40) as usize),
        }
        if shot.n % 7 != 5 {
            fix_ip_checksum(&mut frame);
        }
        frame
    };
    Attack::new(frame, frames_seen).run();
}

fn fix_ip_checksum(frame: &mut [u8]) {
    let Some(header) = frame.get_mut(IP..IP + 20) else { return };
    header[10..12].fill(0);
    let words = header.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !((folded & 0xffff) + (folded >> 16)) as u16;
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
}

#[test]
fn icmp_errors_about_guessed_segments_end_nothing() {
    let frame = |shot: &Shot| {
        let (IpAddr::V4(client), IpAddr::V4(server)) = (shot.target.client.ip(), shot.target.server.ip()) else {
            panic!("over IPv4");
        };
        let seq = if shot.n.is_multiple_of(4) { shot.snd_nxt } else { shot.swept() };
        let quoted = Forged { flags: ACK, seq, ..Forged::default() };
        let quoted = quoted.between(shot, shot.target.server, shot.target.client);
        let kind = match shot.n % 5 {
            0 => icmpv4::DestUnreachableHeader::Host,
            1 => icmpv4::DestUnreachableHeader::Protocol,
            2 => icmpv4::DestUnreachableHeader::Port,
            3 => icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: (shot.random % 1500) as u16 },
            _ => icmpv4::DestUnreachableHeader::Network,
        };
        let router = [10, 77, 0, 200];
        let mut frame = Vec::new();
        PacketBuilder::ethernet2(shot.target.client_mac, shot.target.server_mac)
            .ipv4(router, server.octets(), 64)
            .icmpv4(Icmpv4Type::DestinationUnreachable(kind))
            .write(&mut frame, &quoted[IP..IP + 28])
            .expect("a small packet");
        assert_ne!(client, server);
        frame
    };
    Attack::new(frame, frames_seen).run();
}

#[test]
fn a_flood_of_syns_from_everywhere_disturbs_no_connection_that_is_there() {
    let frame = |shot: &Shot| {
        let source =
            SocketAddr::new(Ipv4Addr::from(0x0a4d_0100 | (shot.random & 0xff)).into(), (shot.random >> 8) as u16 | 1);
        Forged { flags: SYN, seq: shot.random, ..Forged::default() }.between(shot, source, shot.target.server)
    };
    let lab = Lab::for_load(&WireOptions::default());
    let daemon = serve(&lab, SERVER_V4);
    Attack { newcomers: false, ..Attack::new(frame, |stats| figure(stats, "classes", "syn")) }.run_in(&lab, &daemon);
    let full = |stats: &Value| figure(stats, "drops", "syn_queue_full");
    println!("SYNs dropped because the queue was full: {}", full(&daemon.stats()));
    tests::peer::round_trip(&mut lab.connect(echo(SERVER_V4)), b"after the flood");
}

#[test]
fn noise_is_borne() {
    let frame = |shot: &Shot| {
        let mut random = shot.random | 1;
        let mut noise: Vec<u8> = std::iter::repeat_with(|| {
            random ^= random << 13;
            random ^= random >> 17;
            random ^= random << 5;
            random as u8
        })
        .take(14 + 20 + 20 + shot.n as usize % 200)
        .collect();
        noise[..6].copy_from_slice(&shot.target.server_mac);
        noise[6..12].copy_from_slice(&shot.target.client_mac);
        noise[12..14].copy_from_slice(&[8, 0]);
        let length = (noise.len() - IP) as u16;
        noise[IP] = 0x45;
        noise[IP + 2..IP + 4].copy_from_slice(&length.to_be_bytes());
        noise[IP + 6..IP + 10].copy_from_slice(&[0, 0, 64, 6]);
        let IpAddr::V4(client) = CLIENT_V4 else { panic!("an IPv4 address") };
        noise[IP + 12..IP + 16].copy_from_slice(&client.octets());
        noise[IP + 16..IP + 20].copy_from_slice(&[10, 77, 0, 2]);
        noise[TCP + 2..TCP + 4].copy_from_slice(&ECHO.to_be_bytes());
        fix_ip_checksum(&mut noise);
        noise
    };
    Attack::new(frame, frames_seen).run();
}
