//! Ports that the kernel must leave to us: sockets that hold a listener's port without listening on it, and
//! the check of the ephemeral range.

use std::fmt;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::os::fd::OwnedFd;

use socket2::{Domain, Protocol, Socket, Type};

use super::holders::{Holder, name, sockets_at};
use super::link::Interface;

/// Ports from which the kernel picks one for a connection that names none.
const LOCAL_RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";
/// Ports that the kernel never picks.
const RESERVED: &str = "/proc/sys/net/ipv4/ip_local_reserved_ports";

/// Why a port can't be ours.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PortError {
    /// Another socket has the address.
    #[error("{address} is in use by {}: stop it or listen on another port", List(holders))]
    InUse {
        /// What was asked for.
        address: SocketAddr,
        /// Who has it; empty when the kernel does not tell.
        holders: Vec<Holder>,
    },
    /// Connections of a server that is gone are not finished, and their data could still get lost.
    #[error(
        "{address}: the kernel's TCP is still closing {count} connections of a former server: try again in a minute"
    )]
    Closing {
        /// What was asked for.
        address: SocketAddr,
        /// How many connections.
        count: usize,
    },
    /// The address is not on this host.
    #[error("{address} is not an address of this host: add it to the interface, or set `foreign_address = true`")]
    NotLocal {
        /// What was asked for.
        address: SocketAddr,
    },
    /// Ports below 1024 (`ip_unprivileged_port_start`) need a capability.
    #[error("no privilege to take {address}: run xtcp as root or give it CAP_NET_BIND_SERVICE")]
    NoPrivilege {
        /// What was asked for.
        address: SocketAddr,
    },
    /// The kernel picks ports of its own connections from our ephemeral range.
    #[error(
        "ephemeral_ports {}-{} overlaps the ports that the kernel takes for its own connections ({}-{}): \
         run `sysctl -w net.ipv4.ip_local_reserved_ports={reserve}`, or set ephemeral_ports outside of them",
        ports.start(), ports.end(), kernel.start(), kernel.end()
    )]
    EphemeralOverlap {
        /// Our ports.
        ports: RangeInclusive<u16>,
        /// The kernel's.
        kernel: RangeInclusive<u16>,
        /// What the kernel must be told to reserve, what it reserves already included.
        reserve: String,
    },
    /// A file under /proc/sys can't be read or understood.
    #[error("can't tell the kernel's own port range from {file}: {source}")]
    Sysctl {
        /// The file.
        file: &'static str,
        /// What went wrong.
        source: io::Error,
    },
    /// Anything else.
    #[error("can't take {address}: {source}")]
    System {
        /// What was asked for.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Takes `address` away from the kernel's TCP: a bound socket that does not listen. Nobody else can listen
/// there and the kernel refuses local clients, until the descriptor is closed. A wildcard takes the port on
/// every address of its family, an IPv6 one on IPv6 only. `foreign`: the address need not be on this host.
/// `interface`: a wildcard takes the port from the kernel all the same, but leaves it to a process that serves another
/// interface.
///
/// Connections of a former server in TIME_WAIT (or orphaned in FIN_WAIT_2) don't stand in the way if that
/// server had set SO_REUSEADDR, as servers do: they have nothing left to lose.
///
/// # Errors
/// The address is in use (by whom), not on this host, or privileged.
pub fn reserve_port(address: SocketAddr, foreign: bool, interface: Option<&Interface>) -> Result<OwnedFd, PortError> {
    let place = Place { address, foreign, interface: interface.filter(|_| address.ip().is_unspecified()) };
    match place.bind(false) {
        Err(error) if error.raw_os_error() == Some(libc::EADDRINUSE) => place.take_over(),
        other => other.map_err(|error| port_error(address, error)),
    }
}

/// Checks that the kernel does not pick ports of its own connections from `ports`.
///
/// # Errors
/// With the sysctl line to run when it does.
pub fn check_ephemeral_ports(ports: &RangeInclusive<u16>) -> Result<(), PortError> {
    let read = |file| fs::read_to_string(file).map_err(|source| PortError::Sysctl { file, source });
    compare(ports, &read(LOCAL_RANGE)?, &read(RESERVED)?)
}

/// Compares our ports with the contents of the two files under /proc/sys.
fn compare(ports: &RangeInclusive<u16>, local_range: &str, reserved: &str) -> Result<(), PortError> {
    let malformed = |file| PortError::Sysctl { file, source: io::Error::from(io::ErrorKind::InvalidData) };
    let kernel = parse_range(local_range, char::is_whitespace).ok_or_else(|| malformed(LOCAL_RANGE))?;
    let ranges = parse_ranges(reserved).ok_or_else(|| malformed(RESERVED))?;
    if !ports.clone().any(|port| kernel.contains(&port) && !ranges.iter().any(|r| r.contains(&port))) {
        return Ok(());
    }
    let ours = format!("{}-{}", ports.start(), ports.end());
    let reserve = if ranges.is_empty() { ours } else { format!("{},{ours}", reserved.trim()) };
    Err(PortError::EphemeralOverlap { ports: ports.clone(), kernel, reserve })
}

/// What is to be reserved.
struct Place<'a> {
    address: SocketAddr,
    foreign: bool,
    interface: Option<&'a Interface>,
}

impl Place<'_> {
    fn bind(&self, reuse: bool) -> io::Result<OwnedFd> {
        let socket = Socket::new(Domain::for_address(self.address), Type::STREAM, Some(Protocol::TCP))?;
        match self.address {
            SocketAddr::V4(_) if self.foreign => socket.set_freebind_v4(true)?,
            SocketAddr::V4(_) => {}
            SocketAddr::V6(_) => {
                socket.set_only_v6(true)?;
                socket.set_freebind_v6(self.foreign)?;
            }
        }
        // Sockets of two interfaces don't collide; one without an interface collides with both.
        socket.bind_device(self.interface.map(|interface| interface.name.as_bytes()))?;
        socket.set_reuse_address(reuse)?;
        socket.bind(&self.address.into())?;
        // Whoever binds or listens from now on is measured against this: no sharing.
        socket.set_reuse_address(false)?;
        Ok(socket.into())
    }

    /// Binds where only connections without an owner stand in the way; otherwise says who does.
    fn take_over(&self) -> Result<OwnedFd, PortError> {
        let address = self.address;
        let mut sockets = sockets_at(address).map_err(|error| port_error(address, error))?;
        sockets.retain(|socket| self.interface.is_none_or(|ours| [0, ours.index].contains(&socket.interface)));
        if sockets.is_empty() {
            // Whoever had it has just let go, or the kernel is too old to tell.
            return self.bind(false).map_err(|error| port_error(address, error));
        }
        let (orphans, held): (Vec<_>, Vec<_>) = sockets.into_iter().partition(|socket| socket.inode == 0);
        if !held.is_empty() {
            return Err(PortError::InUse { address, holders: name(held) });
        }
        let closing = PortError::Closing { address, count: orphans.len() };
        if !orphans.iter().all(|socket| socket.is_leftover()) {
            return Err(closing);
        }
        self.bind(true).map_err(|error| match error.raw_os_error() {
            Some(libc::EADDRINUSE) => closing,
            _ => port_error(address, error),
        })
    }
}

fn port_error(address: SocketAddr, source: io::Error) -> PortError {
    match source.raw_os_error() {
        Some(libc::EADDRINUSE) => PortError::InUse { address, holders: Vec::new() },
        Some(libc::EADDRNOTAVAIL) => PortError::NotLocal { address },
        Some(libc::EACCES | libc::EPERM) => PortError::NoPrivilege { address },
        _ => PortError::System { address, source },
    }
}

/// "80,8000-8010"; `None`: malformed.
fn parse_ranges(text: &str) -> Option<Vec<RangeInclusive<u16>>> {
    let parts = text.trim().split(',').filter(|part| !part.is_empty());
    parts.map(|part| parse_range(part, |c| c == '-')).collect()
}

/// Two numbers, or one that stands for both.
fn parse_range(text: &str, separator: impl Fn(char) -> bool) -> Option<RangeInclusive<u16>> {
    let mut numbers = text.trim().split(separator).filter(|part| !part.is_empty()).map(|n| n.parse().ok());
    let first = numbers.next()??;
    let last = numbers.next().unwrap_or(Some(first))?;
    Some(first..=last)
}

/// Holders in one line; those of one process once.
struct List<'a>(&'a [Holder]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("a socket that the kernel does not name (`ss -tanp` may)");
        }
        let mut names: Vec<String> = self.0.iter().map(Holder::to_string).collect();
        names.sort_unstable();
        names.dedup();
        f.write_str(&names.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;

    use super::*;

    const ANY_PORT: &str = "127.0.0.1:0";

    fn address_of(socket: &impl AsFd) -> SocketAddr {
        let address = socket2::SockRef::from(socket).local_addr().expect("its address");
        address.as_socket().expect("an internet address")
    }

    fn message(result: Result<OwnedFd, PortError>) -> String {
        result.err().map_or_else(String::new, |error| error.to_string())
    }

    /// A listener's port after it accepted one connection, closed first (so that TIME_WAIT is on its side), and ended.
    fn port_in_time_wait(reuse: bool) -> SocketAddr {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        listener.set_reuse_address(reuse).expect("SO_REUSEADDR");
        listener.bind(&ANY_PORT.parse::<SocketAddr>().expect("an address").into()).expect("bind");
        listener.listen(1).expect("listen");
        let address = address_of(&listener);
        let mut client = TcpStream::connect(address).expect("connect");
        drop(TcpListener::from(listener).accept().expect("accept"));
        assert_eq!(client.read(&mut [0]).expect("the end"), 0);
        address
    }

    #[test]
    fn a_reserved_port_can_not_be_listened_on_and_refuses_clients() {
        let held = reserve_port(ANY_PORT.parse().expect("an address"), false, None).expect("a port");
        let address = address_of(&held);
        // std sets SO_REUSEADDR, as most servers do.
        let error = TcpListener::bind(address).expect_err("taken");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        let error = TcpStream::connect(address).expect_err("nobody listens");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        drop(held);
        TcpListener::bind(address).expect("free again");
    }

    #[test]
    fn a_port_in_use_names_who_has_it() {
        let listener = TcpListener::bind(ANY_PORT).expect("a listener");
        let text = message(reserve_port(address_of(&listener), false, None));
        assert!(text.contains(&format!("pid {}, LISTEN)", std::process::id())), "{text}");
        assert!(text.contains("stop it or listen on another port"), "{text}");
    }

    #[test]
    fn a_port_reserved_twice_names_who_has_it() {
        let held = reserve_port(ANY_PORT.parse().expect("an address"), false, None).expect("a port");
        let text = message(reserve_port(address_of(&held), false, None));
        assert!(text.contains(&format!("pid {}, BOUND)", std::process::id())), "{text}");
    }

    #[test]
    fn a_live_connection_on_the_port_keeps_it_from_being_taken() {
        let listener = TcpListener::bind(ANY_PORT).expect("a listener");
        let address = address_of(&listener);
        let _client = TcpStream::connect(address).expect("connect");
        let _server = listener.accept().expect("accept");
        drop(listener);
        let text = message(reserve_port(address, false, None));
        assert!(text.contains("ESTABLISHED"), "{text}");
    }

    #[test]
    fn time_wait_of_a_former_server_does_not_keep_the_port_from_being_taken() {
        let address = port_in_time_wait(true);
        let states: Vec<_> = sockets_at(address).expect("sock_diag").into_iter().map(|s| s.state).collect();
        assert!(states.iter().all(|s| matches!(*s, "TIME_WAIT" | "FIN_WAIT_2")) && !states.is_empty(), "{states:?}");
        let _held = reserve_port(address, false, None).expect("the port");
        let error = TcpListener::bind(address).expect_err("taken, although bound with SO_REUSEADDR for a moment");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn time_wait_of_a_server_that_did_not_share_its_address_is_reported() {
        let address = port_in_time_wait(false);
        let error = reserve_port(address, false, None).expect_err("kept by TIME_WAIT");
        assert!(matches!(error, PortError::Closing { count: 1, .. }), "{error}");
    }

    #[test]
    fn an_address_of_another_host_needs_to_be_called_foreign() {
        for text in ["192.0.2.1:0", "[2001:db8::1]:0"] {
            let address = text.parse().expect("an address");
            let error = reserve_port(address, false, None).expect_err("not here");
            assert!(matches!(error, PortError::NotLocal { .. }), "{error}");
            reserve_port(address, true, None).expect("foreign");
        }
    }

    #[test]
    fn an_ipv6_wildcard_leaves_ipv4_alone() {
        let six = reserve_port("[::]:0".parse().expect("an address"), false, None).expect("a port");
        let port = address_of(&six).port();
        let _four = reserve_port(SocketAddr::from(([0, 0, 0, 0], port)), false, None).expect("the same port on IPv4");
    }

    #[test]
    fn ports_that_the_kernel_may_pick_are_refused_until_they_are_reserved() {
        let check = |local, reserved| compare(&(40_000..=49_999), local, reserved);
        let text = check("32768\t60999\n", "8080,9000-9010\n").expect_err("overlap").to_string();
        assert!(text.contains("ip_local_reserved_ports=8080,9000-9010,40000-49999`"), "{text}");
        let text = check("49999\t60999\n", "\n").expect_err("overlap by one").to_string();
        assert!(text.contains("ip_local_reserved_ports=40000-49999`"), "{text}");
        assert!(check("32768\t60999\n", "40000-44999,45000-49999\n").is_ok());
        assert!(check("32768\t60999\n", "40000-44999,45001-49999\n").is_err(), "one port is left out");
        assert!(check("50000\t60999\n", "\n").is_ok());
        assert!(matches!(check("", ""), Err(PortError::Sysctl { file: LOCAL_RANGE, .. })));
    }

    #[test]
    fn ranges_are_read_as_the_kernel_writes_them() {
        assert_eq!(parse_range("32768\t60999\n", char::is_whitespace), Some(32768..=60999));
        assert_eq!(parse_ranges("\n"), Some(vec![]));
        assert_eq!(parse_ranges("80,8000-8010\n"), Some(vec![80..=80, 8000..=8010]));
        assert_eq!(parse_ranges("80,x"), None);
        assert_eq!(parse_ranges("80-70000"), None);
    }
}
