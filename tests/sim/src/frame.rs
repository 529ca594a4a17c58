//! Frames as routers see and change them: marks, flipped bits, reports that a peer takes back, and the ICMP errors of
//! packets that were too big. Checksums are mended by RFC 1624, so that only what is to be wrong is.

use std::net::IpAddr;

use tests::segment::Segment;

use crate::chance::Chance;

/// Bytes before the IP header.
const ETHERNET: usize = 14;

fn is_v6(frame: &[u8]) -> bool {
    frame[ETHERNET] >> 4 == 6
}

/// Where the TCP header begins.
fn tcp(frame: &[u8]) -> usize {
    ETHERNET + if is_v6(frame) { 40 } else { 20 }
}

/// Length of the IP packet.
#[must_use]
pub fn packet_length(frame: &[u8]) -> usize {
    frame.len() - ETHERNET
}

/// Sets "congestion experienced" if the sender allows marks; whether it does.
pub fn mark(frame: &mut [u8], segment: &Segment) -> bool {
    if segment.ecn == 0 {
        return false;
    }
    if is_v6(frame) {
        // The traffic class straddles the first two bytes; its two lowest bits are ECN's.
        frame[ETHERNET + 1] |= 0x30;
    } else {
        let word = ETHERNET;
        patch(frame, ETHERNET + 10, word, |[first, second]| [first, second | 3]);
    }
    true
}

/// Flips one bit of the packet (never of the Ethernet header: a link layer has a check of its own); whether the receiver
/// must notice. No checksum covers traffic class, flow label and hop limit of IPv6.
pub fn flip(frame: &mut [u8], bit: u64) -> bool {
    let bits = (frame.len() - ETHERNET) as u64 * 8;
    let bit = (bit % bits) as usize;
    let covered = !is_v6(frame) || !matches!((bit / 8, bit % 8), (0, 0..4) | (1..=3 | 7, _));
    frame[ETHERNET + bit / 8] ^= 1 << (bit % 8);
    covered
}

/// Makes an ACK report what follows its acknowledgment number, as if the peer had had it and forgotten it; whether
/// there was a report to change.
pub fn renege(frame: &mut [u8], segment: &Segment) -> bool {
    let Some((start, end)) = segment.sacks.first().copied() else { return false };
    let sane = end.wrapping_sub(segment.ack) < 1 << 24 && start.wrapping_sub(segment.ack) < 1 << 24;
    let header = tcp(frame);
    let options = header + 20..header + 20 + segment.option_length;
    let Some(at) = options.clone().find(|&at| frame[at..].starts_with(&start.to_be_bytes())).filter(|_| sane) else {
        return false;
    };
    let to = segment.ack.to_be_bytes();
    // Words of the checksum are aligned to the header; the option may not be.
    for (offset, byte) in to.into_iter().enumerate() {
        let word = (at + offset - header) / 2 * 2 + header;
        let odd = at + offset != word;
        patch(frame, header + 16, word, |[first, second]| if odd { [first, byte] } else { [byte, second] });
    }
    true
}

/// What an attacker makes of a frame who knows its addresses, ports and clock, and who may guess well where the window
/// is if that is `near`; but not which numbers the receiver acknowledges (RFC 5961 assumes the same). Flags and window
/// are chance.
#[must_use]
pub fn forge(frame: &[u8], near: bool, chance: &mut Chance) -> Vec<u8> {
    const FAR: u64 = 1 << 28;
    let mut forged = frame.to_vec();
    let (head, segment) = forged.split_at_mut(tcp(frame));
    let flags = chance.pick(&[4, 4, 20, 2, 18, 16, 24, 17, 25, 48]);
    // A reset with the exact number resets, so that it must not be hit by chance.
    let reach = if flags & 4 == 0 { 1 << 16 } else { 1 << 24 };
    add(&mut segment[4..8], if near && chance.once_in(2) { chance.below(reach) } else { chance.draw() });
    add(&mut segment[8..12], chance.between(FAR, (1 << 32) - FAR));
    segment[13] = flags;
    segment[14..18].copy_from_slice(&[chance.draw() as u8, 0, 0, 0]);
    let addresses = if is_v6(frame) { &head[22..54] } else { &head[26..34] };
    let length = (segment.len() as u32).to_be_bytes();
    let sum = checksum(&[addresses, &length, &[0, 0, 0, 6], segment]);
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    forged
}

/// Adds to a number of 32 bits.
fn add(number: &mut [u8], more: u64) {
    let sum = number.iter().fold(0, |sum: u32, byte| sum << 8 | u32::from(*byte)).wrapping_add(more as u32);
    number.copy_from_slice(&sum.to_be_bytes());
}

/// Changes a word and mends the checksum at `checksum`.
fn patch(frame: &mut [u8], checksum: usize, word: usize, change: impl Fn([u8; 2]) -> [u8; 2]) {
    let read = |frame: &[u8], at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
    let before = read(frame, word);
    let [first, second] = change(before.to_be_bytes());
    (frame[word], frame[word + 1]) = (first, second);
    let after = read(frame, word);
    let mut sum = u32::from(!read(frame, checksum)) + u32::from(!before) + u32::from(after);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    let mended = !(sum as u16);
    frame[checksum..checksum + 2].copy_from_slice(&mended.to_be_bytes());
}

/// The ICMP error about `frame`, which its next link of `mtu` bytes did not take, from a router to its sender.
#[must_use]
pub fn too_big(frame: &[u8], mtu: u16) -> Vec<u8> {
    let mut error = Vec::with_capacity(ETHERNET + 40 + 8 + 48);
    error.extend_from_slice(&frame[6..12]);
    error.extend_from_slice(&frame[..6]);
    error.extend_from_slice(&frame[12..14]);
    let v6 = is_v6(frame);
    let quote = &frame[ETHERNET..tcp(frame) + 8];
    let mut message = if v6 { vec![2, 0, 0, 0, 0, 0] } else { vec![3, 4, 0, 0, 0, 0] };
    message.extend_from_slice(&mtu.to_be_bytes());
    message.extend_from_slice(quote);
    if v6 {
        let (router, to) = (std::net::Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 9), &quote[8..24]);
        let length = (message.len() as u16).to_be_bytes();
        let sum = checksum(&[&router.octets(), to, &[0, 0], &length, &[0, 0, 0, 58], &message]);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        error.extend_from_slice(&[0x60, 0, 0, 0, length[0], length[1], 58, 64]);
        error.extend_from_slice(&router.octets());
        error.extend_from_slice(to);
    } else {
        let sum = checksum(&[&message]);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        let length = ((20 + message.len()) as u16).to_be_bytes();
        let mut ip = vec![0x45, 0, length[0], length[1], 0, 0, 0x40, 0, 64, 1, 0, 0, 10, 0, 0, 9];
        ip.extend_from_slice(&quote[12..16]);
        let sum = checksum(&[&ip]);
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
        error.extend_from_slice(&ip);
    }
    error.extend_from_slice(&message);
    error
}

/// RFC 1071 over parts of even length (the last may be odd).
fn checksum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let sum: u64 = words.map(|word| u64::from(word[0]) << 8 | u64::from(word.get(1).copied().unwrap_or(0))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    !((folded & 0xffff) as u16 + (folded >> 16) as u16)
}

/// Addresses of the hosts.
#[must_use]
pub fn address(host: usize, ipv6: bool) -> IpAddr {
    match ipv6 {
        true => std::net::Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1 + host as u16).into(),
        false => std::net::Ipv4Addr::new(10, 0, 0, 1 + host as u8).into(),
    }
}

/// MAC addresses of the hosts.
#[must_use]
pub fn mac(host: usize) -> [u8; 6] {
    [2, 0, 0, 0, 0, host as u8]
}
