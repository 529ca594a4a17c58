//! From segment to frame: Ethernet, IPv4 or IPv6, TCP with options, checksums. The caller has put the
//! payload in place already, so that it is copied only once.

use tcp_common::ConnectionKey;

use super::tcp::{Flags, HEADER, Options};
use super::{Checksum, ETHERNET_HEADER, VLAN_TAG};
use crate::api::LinkAddress;
use crate::seq::SeqNum;

/// ECN codepoint of a transport that understands marks (RFC 3168 section 5).
const ECT_0: u8 = 0b10;

/// A segment to send.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outgoing {
    pub(crate) key: ConnectionKey,
    pub(crate) link: LinkAddress,
    pub(crate) ttl: u8,
    pub(crate) dscp: u8,
    /// Whether routers may mark it instead of dropping it: ECT(0) (RFC 3168 section 5).
    pub(crate) ect: bool,
    pub(crate) seq: SeqNum,
    pub(crate) ack: SeqNum,
    pub(crate) flags: Flags,
    pub(crate) window: u16,
    pub(crate) options: Options,
}

impl Outgoing {
    /// Where the payload starts in the frame, bytes.
    fn payload_offset(&self) -> usize {
        self.tcp_offset() + HEADER + self.options.length()
    }

    /// The traffic class byte: DSCP and ECN.
    //= docs/rfc/rfc9293.md#SHLD-22
    //= docs/rfc/rfc3168.md#5-dscp
    fn traffic_class(&self) -> u8 {
        self.dscp << 2 | if self.ect { ECT_0 } else { 0 }
    }

    fn ip_offset(&self) -> usize {
        ETHERNET_HEADER + if self.link.vlan.is_some() { VLAN_TAG } else { 0 }
    }

    fn tcp_offset(&self) -> usize {
        self.ip_offset() + ip_header(&self.key)
    }
}

/// Length of the IP header a connection's segments carry, bytes.
pub(crate) fn ip_header(key: &ConnectionKey) -> usize {
    if key.is_ipv4() { 20 } else { 40 }
}

/// Writes a segment into `frame`; `payload` copies at most `length` bytes of payload into what it is given.
/// Returns the length of the frame. `source` is our MAC address.
pub(crate) fn emit(
    out: &Outgoing,
    source: [u8; 6],
    frame: &mut [u8],
    length: usize,
    payload: impl FnOnce(&mut [u8]),
) -> usize {
    let start = out.payload_offset();
    let end = start + length;
    debug_assert!(frame.len() >= end, "transmit frames hold a whole MTU");
    payload(&mut frame[start..end]);
    ethernet(out, source, frame);
    let (head, tcp) = frame[..end].split_at_mut(out.tcp_offset());
    let ip = &mut head[out.ip_offset()..];
    let pseudo = if out.key.is_ipv4() { ipv4(out, ip, tcp.len()) } else { ipv6(out, ip, tcp.len()) };
    tcp_header(out, tcp, pseudo);
    end
}

fn ethernet(out: &Outgoing, source: [u8; 6], frame: &mut [u8]) {
    frame[..6].copy_from_slice(&out.link.mac);
    frame[6..12].copy_from_slice(&source);
    let ethertype: [u8; 2] = if out.key.is_ipv4() { [0x08, 0x00] } else { [0x86, 0xdd] };
    match out.link.vlan {
        Some(tag) => {
            frame[12..14].copy_from_slice(&[0x81, 0x00]);
            frame[14..16].copy_from_slice(&tag.to_be_bytes());
            frame[16..18].copy_from_slice(&ethertype);
        }
        None => frame[12..14].copy_from_slice(&ethertype),
    }
}

//= docs/rfc/rfc1191.md#3-df
fn ipv4(out: &Outgoing, ip: &mut [u8], tcp_length: usize) -> Checksum {
    let total = (20 + tcp_length) as u16;
    ip[0] = 0x45;
    ip[1] = out.traffic_class();
    ip[2..4].copy_from_slice(&total.to_be_bytes());
    // Identification 0, don't fragment: an atomic datagram needs no identification (RFC 6864).
    ip[4..8].copy_from_slice(&[0, 0, 0x40, 0]);
    ip[8] = out.ttl;
    ip[9] = 6;
    ip[10..12].fill(0);
    ip[12..16].copy_from_slice(&out.key.local_addr[12..]);
    ip[16..20].copy_from_slice(&out.key.remote_addr[12..]);
    let mut sum = Checksum::default();
    sum.add(ip);
    ip[10..12].copy_from_slice(&sum.finish().to_be_bytes());
    Checksum::pseudo_header(&out.key.local_addr[12..], &out.key.remote_addr[12..], tcp_length)
}

fn ipv6(out: &Outgoing, ip: &mut [u8], tcp_length: usize) -> Checksum {
    ip[0] = 0x60 | out.traffic_class() >> 4;
    ip[1] = out.traffic_class() << 4;
    ip[2..4].fill(0);
    ip[4..6].copy_from_slice(&(tcp_length as u16).to_be_bytes());
    ip[6] = 6;
    ip[7] = out.ttl;
    ip[8..24].copy_from_slice(&out.key.local_addr);
    ip[24..40].copy_from_slice(&out.key.remote_addr);
    Checksum::pseudo_header(&out.key.local_addr, &out.key.remote_addr, tcp_length)
}

//= docs/rfc/rfc9293.md#MUST-2
//= docs/rfc/rfc9293.md#SHLD-13
//= docs/rfc/rfc9293.md#MUST-68
//= docs/rfc/rfc9293.md#MUST-69
fn tcp_header(out: &Outgoing, tcp: &mut [u8], pseudo: Checksum) {
    let options = out.options.length();
    tcp[0..2].copy_from_slice(&out.key.local_port.to_be_bytes());
    tcp[2..4].copy_from_slice(&out.key.remote_port.to_be_bytes());
    tcp[4..8].copy_from_slice(&out.seq.0.to_be_bytes());
    tcp[8..12].copy_from_slice(&out.ack.0.to_be_bytes());
    tcp[12] = ((HEADER + options) as u8 / 4) << 4;
    tcp[13] = out.flags.0;
    tcp[14..16].copy_from_slice(&out.window.to_be_bytes());
    tcp[16..20].fill(0);
    out.options.write(&mut tcp[HEADER..HEADER + options]);
    let mut sum = pseudo;
    sum.add(tcp);
    let checksum = sum.finish();
    tcp[16..18].copy_from_slice(&checksum.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::super::{Received, Timestamps, receive};
    use super::*;

    fn outgoing(local: &str, remote: &str, vlan: Option<u16>) -> Outgoing {
        Outgoing {
            key: ConnectionKey::new(local.parse().unwrap(), remote.parse().unwrap()),
            link: LinkAddress { mac: [2; 6], vlan },
            ttl: 64,
            dscp: 46,
            ect: true,
            seq: SeqNum(1),
            ack: SeqNum(2),
            flags: Flags::ACK.with(Flags::PSH),
            window: 1000,
            options: Options { timestamps: Some(Timestamps { value: 3, echo: 4 }), ..Options::default() },
        }
    }

    /// Sends `out` and reads the frame back as its receiver would.
    fn there_and_back(out: &Outgoing, payload: &[u8]) -> alloc::vec::Vec<u8> {
        let mut frame = [0xeeu8; 1600];
        let end = emit(out, [4; 6], &mut frame, payload.len(), |into| into.copy_from_slice(payload));
        let Ok(Received::Segment { key, link, segment }) = receive(&frame[..end], false) else {
            panic!("the frame we sent is not one we would accept");
        };
        assert_eq!((key.local(), key.remote()), (out.key.remote(), out.key.local()));
        assert_eq!(link, LinkAddress { mac: [4; 6], vlan: out.link.vlan });
        assert_eq!((segment.seq, segment.ack, segment.flags), (out.seq, out.ack, out.flags));
        assert_eq!((segment.window, segment.options), (out.window, out.options));
        segment.payload.to_vec()
    }

    //= docs/rfc/rfc9293.md#MUST-2
    #[test]
    fn what_is_sent_is_accepted_for_both_families_tagged_or_not_and_any_length() {
        for (local, remote) in [("10.0.0.1:80", "10.0.0.2:4000"), ("[fd00::1]:80", "[fd00::2]:4000")] {
            for vlan in [None, Some(0x0123)] {
                for length in [0usize, 1, 2, 7, 8, 9, 1447, 1448] {
                    let payload: alloc::vec::Vec<u8> = (0..length).map(|i| i as u8).collect();
                    assert_eq!(there_and_back(&outgoing(local, remote, vlan), &payload), payload);
                }
            }
        }
    }

    //= docs/rfc/rfc3168.md#5-dscp
    //= docs/rfc/rfc9293.md#SHLD-22
    #[test]
    fn the_traffic_class_holds_dscp_and_ecn_and_a_mark_is_read() {
        for (local, remote) in [("10.0.0.1:80", "10.0.0.2:4000"), ("[fd00::1]:80", "[fd00::2]:4000")] {
            let mut frame = [0u8; 200];
            let end = emit(&outgoing(local, remote, None), [4; 6], &mut frame, 0, |_| {});
            let v6 = local.starts_with('[');
            let class = if v6 { frame[14] << 4 | frame[15] >> 4 } else { frame[15] };
            assert_eq!(class, 46 << 2 | 0b10);
            if v6 {
                frame[15] |= 0x30;
            } else {
                // The checksum of the header changes with the mark: one more in the sum, one less in its complement.
                frame[15] |= 1;
                let sum = u16::from_be_bytes([frame[24], frame[25]]) - 1;
                frame[24..26].copy_from_slice(&sum.to_be_bytes());
            }
            let Ok(Received::Segment { segment, .. }) = receive(&frame[..end], false) else { panic!("{local}") };
            assert!(segment.ce, "{local}");
        }
    }

    //= docs/rfc/rfc9293.md#MUST-3
    #[test]
    fn a_flipped_bit_anywhere_past_the_ethernet_header_never_passes_as_the_same_segment() {
        let out = outgoing("10.0.0.1:80", "10.0.0.2:4000", None);
        let mut frame = [0u8; 200];
        let end = emit(&out, [4; 6], &mut frame, 5, |into| into.copy_from_slice(b"hello"));
        for byte in ETHERNET_HEADER..end {
            frame[byte] ^= 0x10;
            assert!(receive(&frame[..end], false).is_err(), "byte {byte}");
            frame[byte] ^= 0x10;
        }
    }

    #[test]
    fn a_partial_checksum_passes_only_when_it_may() {
        let out = outgoing("10.0.0.1:80", "10.0.0.2:4000", None);
        let mut frame = [0u8; 200];
        let end = emit(&out, [4; 6], &mut frame, 0, |_| {});
        let pseudo = Checksum::pseudo_header(&[10, 0, 0, 1], &[10, 0, 0, 2], end - 34).folded();
        frame[34 + 16..34 + 18].copy_from_slice(&pseudo.to_be_bytes());
        assert!(receive(&frame[..end], false).is_err());
        assert!(receive(&frame[..end], true).is_ok());
    }

    //= docs/rfc/rfc9293.md#MUST-63
    #[test]
    fn addresses_that_cannot_be_a_peers_are_refused() {
        let v4 = ["0.0.0.0:1", "255.255.255.255:1", "224.0.0.1:1", "127.0.0.1:1", "10.0.0.2:1", "10.0.0.9:0"];
        let v6 = ["[::]:1", "[::1]:1", "[ff02::1]:1", "[fd00::2]:1", "[fd00::9]:0"];
        let v4 = v4.map(|remote| (remote, "10.0.0.2:80"));
        let v6 = v6.map(|remote| (remote, "[fd00::2]:80"));
        for (remote, local) in v4.into_iter().chain(v6) {
            let out = outgoing(remote, local, None);
            let mut frame = [0u8; 200];
            let end = emit(&out, [4; 6], &mut frame, 0, |_| {});
            let refused = receive(&frame[..end], false);
            assert!(matches!(refused, Err(crate::drops::DropReason::Martian)), "{remote} to {local}");
        }
    }
}
