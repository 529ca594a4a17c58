//! How many queues an interface uses, by the ethtool ioctl; it answers for the network namespace of the
//! calling thread, which /sys/class/net does not.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;

const ETHTOOL_GCHANNELS: u32 = 0x3c;
const SIOCETHTOOL: u64 = 0x8946;

/// `struct ethtool_channels`.
#[repr(C)]
#[derive(Default)]
struct Channels {
    command: u32,
    max_receive: u32,
    max_transmit: u32,
    max_other: u32,
    max_combined: u32,
    receive: u32,
    transmit: u32,
    other: u32,
    combined: u32,
}

/// `struct ifreq` as SIOCETHTOOL uses it.
#[repr(C)]
struct Request {
    name: [u8; libc::IFNAMSIZ],
    data: *mut Channels,
    _rest: [u8; size_of::<libc::ifreq>() - libc::IFNAMSIZ - size_of::<*mut Channels>()],
}

const _: () = assert!(size_of::<Request>() == size_of::<libc::ifreq>());

/// Receive queues that interface `name` uses now. EOPNOTSUPP: the driver can't tell (it has one, as a rule).
pub(crate) fn receive_queues(name: &str) -> io::Result<u32> {
    let mut channels = Channels { command: ETHTOOL_GCHANNELS, ..Channels::default() };
    let mut request = Request { name: interface_name(name)?, data: &raw mut channels, _rest: Default::default() };
    // Any socket names a network namespace; this kind exists in every kernel and touches no network.
    let socket = UnixDatagram::unbound()?;
    // SAFETY: the request is laid out as the kernel expects, its name ends in a zero byte, and its data pointer
    // leads to a live `ethtool_channels`, which is what ETHTOOL_GCHANNELS reads and writes.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(channels.receive + channels.combined) }
}

fn interface_name(name: &str) -> io::Result<[u8; libc::IFNAMSIZ]> {
    let mut bytes = [0; libc::IFNAMSIZ];
    if name.len() >= bytes.len() || name.as_bytes().contains(&0) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not an interface name"));
    }
    bytes[..name.len()].copy_from_slice(name.as_bytes());
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_that_does_not_exist_is_an_error() {
        assert_eq!(receive_queues("no-such-link0").err().and_then(|e| e.raw_os_error()), Some(libc::ENODEV));
    }

    #[test]
    fn a_name_too_long_for_an_interface_is_refused() {
        assert_eq!(receive_queues("sixteen-letters!").err().map(|e| e.kind()), Some(io::ErrorKind::InvalidInput));
    }

    #[test]
    fn the_loopback_interface_has_no_channels_to_tell() {
        assert_eq!(receive_queues("lo").err().and_then(|e| e.raw_os_error()), Some(libc::EOPNOTSUPP));
    }
}
