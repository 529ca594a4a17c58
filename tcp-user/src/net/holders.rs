//! Who has a TCP port: the kernel's sockets by sock_diag, their processes by /proc.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::inet::nlas::Nla;
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, InetResponse, SocketId, StateFlags};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;

use crate::process;

/// Most sockets that are looked at; a host with more has its answer cut off.
const MAX_SOCKETS: usize = 1 << 20;
/// Names of the kernel's states by its numbers. A closed socket is told (by Linux 6.8 and later) when it is bound.
const STATES: [&str; 14] = [
    "UNKNOWN",
    "ESTABLISHED",
    "SYN_SENT",
    "SYN_RCVD",
    "FIN_WAIT_1",
    "FIN_WAIT_2",
    "TIME_WAIT",
    "BOUND",
    "CLOSE_WAIT",
    "LAST_ACK",
    "LISTEN",
    "CLOSING",
    "SYN_RCVD",
    "BOUND",
];

/// A TCP socket of the kernel and the process it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its own address.
    pub local: SocketAddr,
    /// Its state; `BOUND` when it has only a port.
    pub state: &'static str,
    /// Process id and name; `None`: no process holds it any more (a closing connection), or another PID
    /// namespace does.
    pub process: Option<(u32, String)>,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.process {
            Some((pid, name)) => write!(f, "{name} (pid {pid}, {})", self.state),
            None => write!(f, "a kernel socket without a process here ({})", self.state),
        }
    }
}

/// A socket as sock_diag tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Socket {
    pub local: SocketAddr,
    pub state: &'static str,
    /// 0: no process holds it.
    pub inode: u32,
    /// Index of the interface that it is for; 0: of all.
    pub interface: u32,
    v6_only: bool,
}

impl Socket {
    /// Whether nothing but the end of the connection is awaited: nobody loses data when its segments are
    /// answered by a reset.
    pub(super) fn is_leftover(&self) -> bool {
        self.inode == 0 && matches!(self.state, "TIME_WAIT" | "FIN_WAIT_2")
    }

    /// Whether binding `address` can collide with this socket.
    fn collides(&self, address: SocketAddr) -> bool {
        let (ours, theirs) = (address.ip(), self.local.ip());
        let wildcard = ours.is_unspecified() || theirs.is_unspecified();
        match (ours, theirs) {
            (IpAddr::V4(_), IpAddr::V4(_)) | (IpAddr::V6(_), IpAddr::V6(_)) => wildcard || ours == theirs,
            // A socket for both families.
            (IpAddr::V4(_), IpAddr::V6(v6)) => v6.is_unspecified() && !self.v6_only,
            // Ours is for IPv6 only.
            (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

/// The kernel's sockets that can keep `address` from being bound.
pub(super) fn sockets_at(address: SocketAddr) -> io::Result<Vec<Socket>> {
    let mut sockets = all_sockets(address.port())?;
    sockets.retain(|socket| socket.local.port() == address.port() && socket.collides(address));
    Ok(sockets)
}

/// Live TCP sockets of the kernel whose own port is one of `ports`: their connections would be cut off if
/// those ports became ours. Sockets of loopback addresses don't count.
///
/// # Errors
/// When the kernel can't be asked.
pub fn kernel_connections(ports: &RangeInclusive<u16>) -> io::Result<Vec<Holder>> {
    let mut sockets = all_sockets(0)?;
    sockets.retain(|s| ports.contains(&s.local.port()) && !s.local.ip().is_loopback() && !s.is_leftover());
    Ok(name(sockets))
}

/// Finds the processes that hold `sockets`.
pub(super) fn name(sockets: Vec<Socket>) -> Vec<Holder> {
    let mut processes = HashMap::new();
    if sockets.iter().any(|socket| socket.inode != 0) {
        processes = processes_by_inode();
    }
    let holder = |socket: Socket| Holder {
        local: socket.local,
        state: socket.state,
        process: processes.get(&socket.inode).cloned(),
    };
    sockets.into_iter().map(holder).collect()
}

/// TCP sockets of both families whose own port is `port` (0: any).
fn all_sockets(port: u16) -> io::Result<Vec<Socket>> {
    let mut sockets = dump(SocketId::new_v4(), libc::AF_INET as u8, port)?;
    sockets.extend(dump(SocketId::new_v6(), libc::AF_INET6 as u8, port)?);
    Ok(sockets)
}

fn dump(mut socket_id: SocketId, family: u8, port: u16) -> io::Result<Vec<Socket>> {
    socket_id.source_port = port;
    let request = InetRequest {
        family,
        protocol: libc::IPPROTO_TCP as u8,
        extensions: ExtensionFlags::empty(),
        states: StateFlags::from_bits_retain(!0),
        socket_id,
    };
    let mut message = NetlinkMessage::from(SockDiagMessage::InetRequest(request));
    message.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    let mut netlink = netlink_sys::Socket::new(NETLINK_SOCK_DIAG)?;
    netlink.bind_auto()?;
    netlink.send_to(&bytes, &netlink_sys::SocketAddr::new(0, 0), 0)?;
    collect(&netlink)
}

/// Reads the answer to a dump to its end.
fn collect(netlink: &netlink_sys::Socket) -> io::Result<Vec<Socket>> {
    let mut sockets = Vec::new();
    while sockets.len() < MAX_SOCKETS {
        let (datagram, _) = netlink.recv_from_full()?;
        let mut rest = datagram.as_slice();
        while !rest.is_empty() {
            let message = NetlinkMessage::<SockDiagMessage>::deserialize(rest).map_err(io::Error::other)?;
            match message.payload {
                NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(response)) => {
                    sockets.push(socket_of(&response));
                }
                NetlinkPayload::Done(_) => return Ok(sockets),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                _ => {}
            }
            rest = rest.get(aligned(message.header.length as usize)..).unwrap_or_default();
        }
    }
    Ok(sockets)
}

fn socket_of(response: &InetResponse) -> Socket {
    let header = &response.header;
    let ip = match header.socket_id.source_address {
        IpAddr::V6(v6) => unmapped(v6),
        v4 @ IpAddr::V4(_) => v4,
    };
    Socket {
        local: SocketAddr::new(ip, header.socket_id.source_port),
        state: STATES.get(usize::from(header.state)).copied().unwrap_or(STATES[0]),
        inode: header.inode,
        interface: header.socket_id.interface_id,
        v6_only: response.nlas.iter().any(|nla| matches!(nla, Nla::SkV6Only(true))),
    }
}

/// An IPv4-mapped address as what it stands for.
fn unmapped(address: Ipv6Addr) -> IpAddr {
    address.to_ipv4_mapped().map_or(IpAddr::V6(address), IpAddr::V4)
}

/// Netlink messages start at multiples of four bytes, and none is empty.
fn aligned(len: usize) -> usize {
    len.max(16).next_multiple_of(4)
}

/// Process id and name by the inode of each socket that the process has open.
fn processes_by_inode() -> HashMap<u32, (u32, String)> {
    let mut found = HashMap::new();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    for pid in processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()) {
        for inode in socket_inodes(pid) {
            found.entry(inode).or_insert_with(|| (pid, process::name(pid)));
        }
    }
    found
}

fn socket_inodes(pid: u32) -> Vec<u32> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let inode = |target: std::path::PathBuf| target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok();
    descriptors.filter_map(|entry| fs::read_link(entry.path()).ok().and_then(inode)).collect()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn socket(local: &str, v6_only: bool) -> Socket {
        Socket { local: local.parse().expect("an address"), state: "LISTEN", inode: 1, interface: 0, v6_only }
    }

    #[test]
    fn sockets_collide_as_the_kernel_binds() {
        let cases = [
            ("10.0.0.1:7", "10.0.0.1:7", false, true),
            ("10.0.0.1:7", "10.0.0.2:7", false, false),
            ("10.0.0.1:7", "0.0.0.0:7", false, true),
            ("0.0.0.0:7", "10.0.0.2:7", false, true),
            ("10.0.0.1:7", "[::]:7", false, true),
            ("10.0.0.1:7", "[::]:7", true, false),
            ("10.0.0.1:7", "[fd00::1]:7", false, false),
            ("[fd00::1]:7", "[::]:7", true, true),
            ("[fd00::1]:7", "[fd00::2]:7", false, false),
            ("[::]:7", "0.0.0.0:7", false, false),
        ];
        for (ours, theirs, v6_only, expected) in cases {
            let ours = ours.parse().expect("an address");
            assert_eq!(socket(theirs, v6_only).collides(ours), expected, "{ours} {theirs} v6only={v6_only}");
        }
    }

    #[test]
    fn a_listener_of_this_process_is_found_with_its_process() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let address = listener.local_addr().expect("its address");
        let holders = name(sockets_at(address).expect("sock_diag"));
        let found = holders.iter().find(|h| h.state == "LISTEN").expect("the listener");
        assert_eq!(found.local, address);
        assert_eq!(found.process.as_ref().map(|(pid, _)| *pid), Some(std::process::id()));
        assert!(found.to_string().contains(&format!("pid {}", std::process::id())), "{found}");
    }

    #[test]
    fn only_an_orphan_that_awaits_its_end_is_a_leftover() {
        let with = |state, inode| Socket { state, inode, ..socket("10.0.0.1:7", false) };
        assert!(with("TIME_WAIT", 0).is_leftover());
        assert!(with("FIN_WAIT_2", 0).is_leftover());
        assert!(!with("FIN_WAIT_2", 5).is_leftover(), "a process still reads from it");
        assert!(!with("LAST_ACK", 0).is_leftover(), "it still has data to deliver");
        assert!(!with("LISTEN", 5).is_leftover());
    }

    #[test]
    fn a_loopback_connection_is_not_cut_off_by_owning_its_port() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let port = listener.local_addr().expect("its address").port();
        assert_eq!(kernel_connections(&(port..=port)).expect("sock_diag"), Vec::new());
    }
}
