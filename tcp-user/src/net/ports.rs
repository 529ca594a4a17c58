//! Ports that the kernel must leave to us: sockets that hold a listener's port without listening, and the
//! check of the ephemeral range.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::os::fd::OwnedFd;

/// Why a port can't be ours.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PortError {}

/// Takes `address` away from the kernel's TCP: a bound socket that does not listen. The port is held until the
/// descriptor is closed. `foreign`: the address need not be on this host.
pub fn reserve_port(_address: SocketAddr, _foreign: bool) -> Result<OwnedFd, PortError> {
    todo!()
}

/// Checks that the kernel does not pick its own ports from `ports` (`ip_local_port_range`, unless reserved by
/// `ip_local_reserved_ports`).
pub fn check_ephemeral_ports(_ports: &RangeInclusive<u16>) -> Result<(), PortError> {
    todo!()
}
