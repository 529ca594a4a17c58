//! What the kernel knows about the network: interfaces, addresses, routes and neighbours by netlink, and
//! the sockets that hold ports. Everything is asked in the network namespace of the calling thread (which
//! /sys/class/net does not show). Leaves out changing anything, except that the kernel is asked to find
//! neighbours.

mod error;
mod holders;
mod kernel;
mod link;
mod path;
mod ports;

pub use error::NetError;
pub use holders::{Holder, kernel_connections};
pub use kernel::Network;
pub use link::{Interface, InterfaceWatch, Seen};
pub use path::{NEIGHBOUR_TIMEOUT, Path, Route};
pub use ports::{PortError, check_ephemeral_ports, reserve_port};
