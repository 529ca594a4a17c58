//! What the kernel knows about the network: interfaces, addresses, routes and neighbours by netlink, and
//! the sockets that hold ports. Everything is asked in the network namespace of the calling thread.

mod ports;

use std::net::IpAddr;
use std::time::Duration;

use tcp_proto::LinkAddress;

pub use ports::{PortError, check_ephemeral_ports, reserve_port};

/// How long a neighbour may take to answer: the kernel asks three times, a second apart.
pub const NEIGHBOUR_TIMEOUT: Duration = Duration::from_secs(4);

/// An Ethernet interface, as it was when it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Index.
    pub index: u32,
    /// Name.
    pub name: String,
    /// MAC address.
    pub mac: [u8; 6],
    /// MTU, bytes.
    pub mtu: u32,
    /// Whether it is switched on (IFF_UP).
    pub is_up: bool,
    /// Whether it is one end of a veth pair.
    pub is_veth: bool,
    /// Receive queues in use, at least 1.
    pub receive_queues: u32,
}

/// How packets reach a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Our address to send from.
    pub source: IpAddr,
    /// The destination itself, or the gateway.
    pub next_hop: IpAddr,
}

/// A route with its next hop resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// The route.
    pub route: Route,
    /// The next hop on the link.
    pub link: LinkAddress,
}

/// Why the kernel's network could not be asked, or what it said no to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetError {}

/// A connection to the kernel's routing tables (rtnetlink). Clones share it.
#[derive(Clone, Debug)]
pub struct Network {}

impl Network {
    /// Opens the connection; call it inside a tokio runtime with I/O, whose task serves it from then on.
    pub fn open() -> Result<Network, NetError> {
        todo!()
    }

    /// The interface called `name`.
    ///
    /// # Errors
    /// No such interface, not Ethernet, or the kernel does not answer.
    pub async fn interface(&self, _name: &str) -> Result<Interface, NetError> {
        todo!()
    }

    /// Unicast addresses on the interface, in the kernel's order; tentative and failed ones left out.
    pub async fn addresses(&self, _interface: &Interface) -> Result<Vec<IpAddr>, NetError> {
        todo!()
    }

    /// Follows the interface's addresses.
    pub fn watch_addresses(&self, _interface: &Interface) -> Result<AddressWatch, NetError> {
        todo!()
    }

    /// The route to `destination` and the link address of its next hop, which the kernel is asked to find if
    /// it does not know it; takes at most [`NEIGHBOUR_TIMEOUT`].
    ///
    /// # Errors
    /// No route, a route over another interface, the destination is ourselves, a neighbour that does not answer.
    pub async fn resolve(&self, _interface: &Interface, _destination: IpAddr) -> Result<Path, NetError> {
        todo!()
    }
}

/// The addresses of one interface, as they change.
#[derive(Debug)]
pub struct AddressWatch {}

impl AddressWatch {
    /// Waits until the addresses differ from those of the last call (the first call returns at once); all of them.
    ///
    /// # Errors
    /// The interface is gone, or the kernel does not answer.
    pub async fn changed(&mut self) -> Result<Vec<IpAddr>, NetError> {
        todo!()
    }
}
