//! Why a daemon does not start or stops, each with what to do about it.

use std::io;
use std::net::{IpAddr, SocketAddr};

use super::start::MIN_MTU;
use crate::afxdp::XskError;
use crate::control::SocketError;
use crate::net::{NetError, PortError};
use crate::worker::WorkerError;
use crate::xdp::XdpError;

/// Why the daemon could not start, or stopped; its text is one line.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// Capabilities are missing.
    #[error("no privilege: xtcp needs {0}; run it as root, or give it these capabilities")]
    NoPrivilege(String),
    /// The interface is switched off.
    #[error("interface {0} is down: switch it on (`ip link set {0} up`)")]
    InterfaceDown(String),
    /// The interface's MTU is below what TCP over IPv4 needs.
    #[error("MTU {mtu} of {name} is too small: at least {MIN_MTU} (`ip link set {name} mtu 1500`)")]
    MtuTooSmall {
        /// The interface.
        name: String,
        /// Its MTU.
        mtu: u32,
    },
    /// A listener's address is not on the interface.
    #[error(
        "listener {address}: {interface} has no such address (it has {}): \
         add it (`ip address add`), or set foreign_address = true",
        list(present)
    )]
    NotOnInterface {
        /// The listener's.
        address: SocketAddr,
        /// The interface.
        interface: String,
        /// Addresses that it has.
        present: Vec<IpAddr>,
    },
    /// See [`NetError`].
    #[error(transparent)]
    Net(#[from] NetError),
    /// See [`PortError`].
    #[error(transparent)]
    Port(#[from] PortError),
    /// See [`XdpError`].
    #[error(transparent)]
    Xdp(#[from] XdpError),
    /// See [`XskError`].
    #[error(transparent)]
    Xsk(#[from] XskError),
    /// See [`SocketError`].
    #[error(transparent)]
    Control(#[from] SocketError),
    /// See [`WorkerError`].
    #[error(transparent)]
    Worker(#[from] WorkerError),
    /// A second signal came before the drain had ended.
    #[error("aborted by a second signal: open connections were reset")]
    Aborted,
    /// Anything else.
    #[error("can't {doing}: {source}")]
    System {
        /// What was tried.
        doing: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

pub(super) fn list(addresses: &[IpAddr]) -> String {
    let texts: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
    if texts.is_empty() { "none".to_owned() } else { texts.join(", ") }
}

pub(super) fn system(doing: &'static str) -> impl Fn(io::Error) -> DaemonError {
    move |source| DaemonError::System { doing, source }
}
