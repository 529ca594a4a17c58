//! What the kernel's network can answer "no" to, each with what to do about it.

use std::io;
use std::net::IpAddr;

/// Why the kernel's network could not be asked, or what it said no to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetError {
    /// The netlink socket failed, or the kernel refused a request for a reason not named below.
    #[error("netlink: can't {doing}: {source}")]
    Netlink {
        /// What was asked.
        doing: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// There is no interface of that name in this network namespace.
    #[error("no interface {name} here: check its name (`ip link`) and the network namespace xtcp runs in")]
    NoSuchInterface {
        /// The name asked for.
        name: String,
    },
    /// The interface went away.
    #[error("interface {name} is gone: bring it back and start xtcp again")]
    InterfaceGone {
        /// Its name.
        name: String,
    },
    /// The interface carries something else than Ethernet frames.
    #[error("{name} is not an Ethernet interface: choose one that has a MAC address (`ip link`)")]
    NotEthernet {
        /// The name asked for.
        name: String,
    },
    /// The routing table has no way there, or forbids it.
    #[error("no route to {destination} ({source}): see `ip route get {destination}`")]
    NoRoute {
        /// Where to.
        destination: IpAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// The way there leads over another interface, whose traffic xtcp does not see.
    #[error(
        "the route to {destination} leads over {other}, not over {interface}: run xtcp on {other} or change the route"
    )]
    OtherInterface {
        /// Where to.
        destination: IpAddr,
        /// The interface xtcp runs on.
        interface: String,
        /// The interface of the route.
        other: String,
    },
    /// The destination is an address of this host: its packets never reach a network interface.
    #[error("{destination} is an address of this host: xtcp reaches only other hosts, use a kernel socket for it")]
    OwnAddress {
        /// Where to.
        destination: IpAddr,
    },
    /// The destination stands for several hosts, or for none.
    #[error("{destination} is not the address of one host: TCP needs a unicast address")]
    NotUnicast {
        /// Where to.
        destination: IpAddr,
    },
    /// The interface has no address to send from.
    #[error("{interface} has no address to reach {destination} from: add one (`ip address add ... dev {interface}`)")]
    NoSource {
        /// Where to.
        destination: IpAddr,
        /// The interface.
        interface: String,
    },
    /// Nobody on the link answers for the next hop.
    #[error(
        "no route to host: {next_hop} does not answer on {interface} (ARP or neighbour discovery): \
         is it up, and is it on this link?"
    )]
    NeighbourSilent {
        /// The destination itself, or the gateway.
        next_hop: IpAddr,
        /// The interface.
        interface: String,
    },
}
