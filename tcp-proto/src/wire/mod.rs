//! Wire formats: what arrives becomes a [`Received`] (checked once, borrowed), what leaves is written from
//! an [`Outgoing`]. Ethernet II with an optional 802.1Q tag, IPv4 and IPv6, TCP, and the ICMP errors that
//! concern TCP. Leaves out: IP fragments (dropped) and IP options (skipped, RFC 9293 MUST-50).

mod checksum;
mod emit;
mod icmp;
mod ip;
pub(crate) mod tcp;

pub(crate) use checksum::Checksum;
pub(crate) use emit::{Outgoing, emit};
pub(crate) use icmp::IcmpError;
pub(crate) use ip::{Received, is_unicast, receive};
pub(crate) use tcp::{Flags, Options, SackBlocks, Segment, Timestamps};

/// Length of an Ethernet header without a tag, bytes.
pub(crate) const ETHERNET_HEADER: usize = 14;
/// Length of an 802.1Q tag, bytes.
pub(crate) const VLAN_TAG: usize = 4;

/// The two bytes at `offset` as a big-endian number; `None` past the end.
pub(crate) fn be16(bytes: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(offset..)?.first_chunk()?))
}

/// The four bytes at `offset` as a big-endian number; `None` past the end.
pub(crate) fn be32(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(offset..)?.first_chunk()?))
}
