//! ICMP errors about our own segments (RFC 792, RFC 4443, RFC 5927): the quoted 4-tuple and sequence
//! number, whether the error is a hard one, and the MTU of RFC 1191 and RFC 8201.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tcp_common::ConnectionKey;

use super::{be16, be32};
use crate::api::SoftError;
use crate::seq::SeqNum;

/// An ICMP error that quotes a segment of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IcmpError {
    /// The quoted 4-tuple, from our side.
    pub(crate) key: ConnectionKey,
    /// The quoted sequence number.
    pub(crate) seq: SeqNum,
    /// Whether the error says that nobody will ever answer (protocol, port unreachable, prohibited).
    pub(crate) hard: bool,
    /// What it says when it ends nothing.
    pub(crate) says: SoftError,
    /// What the next link carries, bytes, if the error says that our packet was too big; 0: it does not say.
    pub(crate) mtu: Option<u16>,
}

const ICMP_HEADER: usize = 8;

/// Reads an ICMP message; `None` unless it is an error that quotes a TCP segment with its ports and
/// sequence number.
//= docs/rfc/rfc9293.md#MUST-55
//= docs/rfc/rfc5927.md#6-quench
pub(crate) fn parse(message: &[u8], is_v4: bool) -> Option<IcmpError> {
    let (kind, code) = (*message.first()?, *message.get(1)?);
    let quoted = message.get(ICMP_HEADER..)?;
    if is_v4 {
        let hard = matches!((kind, code), (3, 2 | 3));
        let says = match kind {
            3 => SoftError::Unreachable,
            11 => SoftError::TimeExceeded,
            12 => SoftError::BadParameter,
            _ => return None,
        };
        let mtu = be16(message, 6).filter(|_| (kind, code) == (3, 4));
        quoted_v4(quoted).map(|error| IcmpError { hard, says, mtu, ..error })
    } else {
        let hard = matches!((kind, code), (1, 1 | 4));
        let says = match kind {
            1 | 2 => SoftError::Unreachable,
            3 => SoftError::TimeExceeded,
            4 => SoftError::BadParameter,
            _ => return None,
        };
        let mtu = be32(message, 4).filter(|_| kind == 2).map(|mtu| u16::try_from(mtu).unwrap_or(u16::MAX));
        quoted_v6(quoted).map(|error| IcmpError { hard, says, mtu, ..error })
    }
}

fn quoted_v4(packet: &[u8]) -> Option<IcmpError> {
    let header_length = usize::from(*packet.first()? & 0xf) * 4;
    let address = |at: usize| Some(IpAddr::from(Ipv4Addr::from(be32(packet, at)?)));
    let is_tcp = *packet.get(9)? == 6 && header_length >= 20;
    is_tcp.then(|| error(address(12)?, address(16)?, packet.get(header_length..)?))?
}

fn quoted_v6(packet: &[u8]) -> Option<IcmpError> {
    let address = |at: usize| Some(IpAddr::from(Ipv6Addr::from(*packet.get(at..)?.first_chunk::<16>()?)));
    let is_tcp = *packet.get(6)? == 6;
    is_tcp.then(|| error(address(8)?, address(24)?, packet.get(40..)?))?
}

fn error(source: IpAddr, destination: IpAddr, tcp: &[u8]) -> Option<IcmpError> {
    let local = SocketAddr::new(source, be16(tcp, 0)?);
    let remote = SocketAddr::new(destination, be16(tcp, 2)?);
    let (key, seq) = (ConnectionKey::new(local, remote), SeqNum(be32(tcp, 4)?));
    Some(IcmpError { key, seq, hard: false, says: SoftError::Unreachable, mtu: None })
}
