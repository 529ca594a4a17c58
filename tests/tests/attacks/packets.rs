//! Attacks by the make of a packet: options, fragments, lengths, checksums, extension headers, noise.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use tests::net::CLIENT_V4;

use crate::attacker::{SHOTS, Shot};
use crate::frames::{ACK, Forged, IP, PSH, SYN, TCP, TCP_V6, fix_ip_checksum};
use crate::{Attack, ECHO, MOST, frames_seen};

/// Bytes that must never show in the victims' streams.
const POISON: &[u8] = &[b'!'; 32];

/// Options that cost or mislead whoever reads them without care, cut at every header length there is.
fn options(shot: &Shot) -> Vec<u8> {
    let mut options: Vec<u8> = (0..40).map(|at| (shot.random >> (at % 24)) as u8 ^ at).collect();
    let [a, b, c, d] = shot.random.to_be_bytes();
    match shot.n % 8 {
        0 => options.fill(1),
        // No length, and one that ends beyond the header.
        1 => options[..2].copy_from_slice(&[a | 2, 0]),
        2 => options[..2].copy_from_slice(&[8, 255]),
        // Timestamps over and over, the last from the far future.
        3 => options = [[8, 10, 0, 0, 0, 0, 0, 0, 0, 0], [8, 10, a, b, c, d, d, c, b, a]].repeat(2).concat(),
        4 => options = [2, 4, 0, 0, 3, 3, 255, 1].repeat(5),
        5 => options[..10].copy_from_slice(&[8, 10, 0x7f, 255, a, b, 255, 255, c, d]),
        // SACK blocks upside down.
        6 => options = [&[5, 34][..], &[a, b, c, d, d, c, b, a].repeat(4), &[0; 6]].concat(),
        _ => {}
    }
    options.truncate(shot.n as usize % 11 * 4);
    options
}

#[test]
fn option_bombs_are_borne() {
    let frame = |shot: &Shot| {
        let options = options(shot);
        let forged = Forged { seq: shot.swept(), ack: shot.wrong_ack(), options: &options, ..Forged::default() };
        match shot.random % 4 {
            0 => Forged { flags: ACK, ..forged }.as_client(shot),
            // In order: only the wrong acknowledgment keeps the timestamp from being the newest.
            1 => Forged { flags: ACK, seq: shot.known.rcv_nxt, ..forged }.as_client(shot),
            _ => {
                let stranger = Ipv4Addr::from(0x0a4d_0100 | (shot.random >> 8 & 0xff));
                let stranger = SocketAddr::new(stranger.into(), 1024 + (shot.random >> 16) as u16 / 2);
                Forged { flags: SYN, ..forged }.between(shot, stranger, shot.target.server)
            }
        }
    };
    let aftermath = Attack { newcomers: false, ..Attack::new(frame, frames_seen) }.run();
    let taken = aftermath.grew("verdicts", "steer_connection") + aftermath.grew("verdicts", "steer_syn");
    assert!(taken >= SHOTS.into(), "{:#}", aftermath.after["verdicts"]);
}

#[test]
fn fragments_wrong_lengths_and_wrong_checksums_are_dropped() {
    let frame = |shot: &Shot| {
        let mut frame = with_right_numbers(shot);
        let set_total = |frame: &mut Vec<u8>, total: u32| {
            frame[IP + 2..IP + 4].copy_from_slice(&(total as u16).to_be_bytes());
        };
        match shot.n % 10 {
            // The first fragment of many, one too short for a header, and others that overlap it or come after.
            0 => frame[IP + 6] = 0x20,
            1 => {
                frame[IP + 6] = 0x20;
                set_total(&mut frame, 28);
                frame.truncate(IP + 28);
            }
            2 => frame[IP + 7] = 1 + (shot.random % 200) as u8,
            // TCP header lengths of less than a header and of more than there is.
            3 => frame[TCP + 12] = (shot.random % 5) as u8 * 16,
            4 => {
                frame.truncate(TCP + 20);
                set_total(&mut frame, 40);
                frame[TCP + 12] = 0xf0;
            }
            // IP says there is more than there is, less than a header, and no header at all.
            5 => set_total(&mut frame, 2000 + shot.random % 60_000),
            6 => set_total(&mut frame, 20 + shot.random % 20),
            7 => frame[IP] = 0x40 | (shot.random % 5) as u8,
            8 => frame[TCP + 16] ^= 0x55,
            _ => frame.truncate(IP + (shot.random % 40) as usize),
        }
        fix_ip_checksum(&mut frame);
        frame
    };
    let aftermath = Attack::new(frame, frames_seen).run();
    let tenth = u64::from(SHOTS) / 10;
    aftermath.assert_dropped("fragment", 2 * tenth);
    aftermath.assert_dropped("bad_header", tenth);
    aftermath.assert_dropped("bad_checksum", tenth);
}

#[test]
fn fragments_and_extension_headers_of_ipv6_are_borne() {
    let frame = |shot: &Shot| {
        const FRAGMENT: u8 = 44;
        const DESTINATION_OPTIONS: u8 = 60;
        let mut frame = with_right_numbers(shot);
        match shot.n % 7 {
            // First fragments, also tiny ones, and later ones, also overlapping.
            0 => extend(&mut frame, FRAGMENT, &[6, 0, 0, 1, 0, 0, 0, 7]),
            1 => {
                frame.truncate(TCP_V6 + 8);
                extend(&mut frame, FRAGMENT, &[6, 0, 0, 1, 0, 0, 0, 8]);
            }
            2 => extend(&mut frame, FRAGMENT, &[6, 0, 0, 8, 0, 0, 0, 7]),
            3 => extend(&mut frame, FRAGMENT, &[6, 0, 0, 9, 0, 0, 0, 8]),
            // An extension header that ends beyond the packet, and too many of them.
            4 => extend(&mut frame, DESTINATION_OPTIONS, &[6, 255, 1, 4, 0, 0, 0, 0]),
            5 => {
                (0..6).for_each(|n| {
                    let next = if n == 0 { 6 } else { DESTINATION_OPTIONS };
                    extend(&mut frame, DESTINATION_OPTIONS, &[next, 0, 1, 4, 0, 0, 0, 0]);
                });
            }
            _ => frame[IP + 4..IP + 6].copy_from_slice(&(shot.random as u16 | 0x1000).to_be_bytes()),
        }
        frame
    };
    let aftermath = Attack::new(frame, frames_seen).over_v6().run();
    aftermath.assert_dropped("fragment", u64::from(SHOTS) / 7 * 2);
    aftermath.assert_dropped("extensions", u64::from(SHOTS) / 7);
}

/// Puts an extension header before what follows the IPv6 header, and makes the payload length right.
fn extend(frame: &mut Vec<u8>, kind: u8, header: &[u8]) {
    frame[IP + 6] = kind;
    frame.splice(TCP_V6..TCP_V6, header.iter().copied());
    let length = (frame.len() - TCP_V6) as u16;
    frame[IP + 4..IP + 6].copy_from_slice(&length.to_be_bytes());
}

/// Data that would be taken if the rest of the packet were in order.
fn with_right_numbers(shot: &Shot) -> Vec<u8> {
    let (seq, ack) = (shot.known.rcv_nxt, shot.known.snd_nxt);
    Forged { flags: ACK | PSH, seq, ack, payload: POISON, ..Forged::default() }.as_client(shot)
}

#[test]
fn noise_is_borne() {
    let frame = |shot: &Shot| {
        let mut noise = noise(shot, 14 + 20 + 20 + shot.n as usize % 200);
        noise[..6].copy_from_slice(&shot.target.server_mac);
        noise[6..12].copy_from_slice(&shot.target.client_mac);
        noise[12..14].copy_from_slice(&[8, 0]);
        let length = (noise.len() - IP) as u16;
        noise[IP] = 0x45;
        noise[IP + 2..IP + 4].copy_from_slice(&length.to_be_bytes());
        noise[IP + 6..IP + 10].copy_from_slice(&[0, 0, 64, 6]);
        let (IpAddr::V4(client), IpAddr::V4(server)) = (CLIENT_V4, shot.target.server.ip()) else {
            panic!("IPv4 addresses")
        };
        noise[IP + 12..IP + 16].copy_from_slice(&client.octets());
        noise[IP + 16..IP + 20].copy_from_slice(&server.octets());
        noise[TCP + 2..TCP + 4].copy_from_slice(&ECHO.to_be_bytes());
        fix_ip_checksum(&mut noise);
        noise
    };
    let aftermath = Attack::new(frame, frames_seen).run();
    let malformed = aftermath.grew("verdicts", "drop") + aftermath.grew("drops", "bad_header");
    assert!(malformed + aftermath.grew("drops", "bad_checksum") >= MOST, "{:#}", aftermath.after["drops"]);
}

#[test]
fn segments_of_random_flags_numbers_and_options_are_borne() {
    let frame = |shot: &Shot| {
        let noise = noise(shot, 256);
        let from_victim = shot.random & 1 == 0;
        let source_port =
            if from_victim { shot.target.client.port() } else { u16::from_be_bytes([noise[0], noise[1]]) };
        let seq = u32::from_be_bytes([noise[2], noise[3], noise[4], noise[5]]);
        let forged = Forged {
            flags: noise[6] & 0x3f,
            seq,
            ack: shot.wrong_ack(),
            urgent: u16::from_be_bytes([noise[7], noise[8]]),
            options: &noise[16..][..usize::from(noise[9] % 11) * 4],
            payload: &noise[56..][..usize::from(noise[10]) % 200],
        };
        forged.between(shot, SocketAddr::new(shot.target.client.ip(), source_port), shot.target.server)
    };
    let aftermath = Attack::new(frame, frames_seen).run();
    aftermath.assert_dropped("out_of_window", MOST / 4);
    aftermath.assert_dropped("syn_fin", 1);
}

fn noise(shot: &Shot, length: usize) -> Vec<u8> {
    let mut random = shot.random | 1;
    let next = || {
        random ^= random << 13;
        random ^= random >> 17;
        random ^= random << 5;
        random as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}
