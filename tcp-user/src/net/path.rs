//! How packets reach a destination: the kernel's route, and the link address of its next hop, which the
//! kernel is asked to find (ARP, RFC 826; neighbour discovery, RFC 4861) when it does not know it.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use netlink_packet_core::NLM_F_CREATE;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType, RouteVia};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use tcp_proto::LinkAddress;
use tokio::time::{Instant, sleep};

use super::error::NetError;
use super::kernel::Network;
use super::link::Interface;

/// How long a neighbour may take to answer: the kernel asks three times, a second apart.
pub const NEIGHBOUR_TIMEOUT: Duration = Duration::from_secs(4);
/// First and longest pause between two looks at the neighbour table.
const PAUSES: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));

/// The kernel's route to a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Our address to send from.
    pub source: IpAddr,
    /// The destination itself, or the gateway (which may be of the other family).
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

impl Network {
    /// The route to `destination` and the link address of its next hop; takes at most [`NEIGHBOUR_TIMEOUT`].
    ///
    /// # Errors
    /// No route, a route over another interface, our own or no unicast address, a neighbour that does not answer.
    pub async fn resolve(&self, interface: &Interface, destination: IpAddr) -> Result<Path, NetError> {
        let route = self.route(interface, destination).await?;
        let mac = self.neighbour(interface, route.next_hop).await?;
        Ok(Path { route, link: LinkAddress { mac, vlan: None } })
    }

    /// The route to `destination`, which must lead over `interface`.
    ///
    /// # Errors
    /// As [`Network::resolve`], except for the neighbour.
    pub async fn route(&self, interface: &Interface, destination: IpAddr) -> Result<Route, NetError> {
        if !is_one_host(destination) {
            return Err(NetError::NotUnicast { destination });
        }
        let request = route_request(interface, destination);
        let answer = self.ask(RouteNetlinkMessage::GetRoute(request), 0).await;
        let messages = answer.map_err(|source| NetError::NoRoute { destination, source })?;
        let found = messages.into_iter().find_map(|message| match message {
            RouteNetlinkMessage::NewRoute(route) => Some(route),
            _ => None,
        });
        let found = found.ok_or_else(|| unreachable(destination))?;
        match output_interface(&found) {
            _ if found.header.kind != RouteType::Unicast => Err(refusal(found.header.kind, destination)),
            Some(index) if index != interface.index => Err(NetError::OtherInterface {
                destination,
                interface: interface.name.clone(),
                other: self.interface_name(index).await,
            }),
            _ => route_of(&found, interface, destination),
        }
    }

    /// The MAC address of neighbour `next_hop`; waits for it at most [`NEIGHBOUR_TIMEOUT`].
    ///
    /// An entry that the kernel knows is used at once; one that it no longer trusts is used too, as the kernel
    /// itself does, while it is asked to prove it.
    ///
    /// # Errors
    /// The neighbour does not answer, or the kernel can't be asked.
    pub async fn neighbour(&self, interface: &Interface, next_hop: IpAddr) -> Result<[u8; 6], NetError> {
        let deadline = Instant::now() + NEIGHBOUR_TIMEOUT;
        let (mut pause, longest) = PAUSES;
        let mut asked = false;
        loop {
            let found = self.look_up_neighbour(interface, next_hop).await?;
            if !asked && !found.is_fresh() {
                self.use_neighbour(interface, next_hop).await?;
            }
            match found {
                Neighbour::Fresh(mac) | Neighbour::Doubtful(mac) => return Ok(mac),
                // An old failure does not count: the kernel has just been asked to try again.
                Neighbour::Failed if asked => break,
                Neighbour::Failed | Neighbour::Unknown if Instant::now() >= deadline => break,
                Neighbour::Failed | Neighbour::Unknown => {}
            }
            asked = true;
            sleep(pause).await;
            pause = (pause * 2).min(longest);
        }
        Err(NetError::NeighbourSilent { next_hop, interface: interface.name.clone() })
    }

    async fn look_up_neighbour(&self, interface: &Interface, next_hop: IpAddr) -> Result<Neighbour, NetError> {
        let request = RouteNetlinkMessage::GetNeighbour(neighbour_message(interface, next_hop));
        match self.ask(request, 0).await {
            Ok(messages) => Ok(messages.iter().find_map(neighbour_of).unwrap_or(Neighbour::Unknown)),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(Neighbour::Unknown),
            Err(source) => Err(NetError::Netlink { doing: "look up a neighbour", source }),
        }
    }

    /// Makes the kernel do what it does when it sends a packet to `next_hop`: find it, or prove it again.
    async fn use_neighbour(&self, interface: &Interface, next_hop: IpAddr) -> Result<(), NetError> {
        let mut message = neighbour_message(interface, next_hop);
        message.header.flags = NeighbourFlags::Use;
        let request = RouteNetlinkMessage::NewNeighbour(message);
        let answer = self.ask(request, NLM_F_CREATE | netlink_packet_core::NLM_F_ACK).await;
        answer.map(drop).map_err(|source| NetError::Netlink { doing: "have a neighbour resolved", source })
    }
}

/// What the kernel knows about a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Neighbour {
    /// Proven, static, or being proven again.
    Fresh([u8; 6]),
    /// Not heard of for a while.
    Doubtful([u8; 6]),
    /// Was asked for and did not answer.
    Failed,
    /// No entry, or the answer is still awaited.
    Unknown,
}

impl Neighbour {
    fn is_fresh(self) -> bool {
        matches!(self, Neighbour::Fresh(_))
    }
}

fn route_request(interface: &Interface, destination: IpAddr) -> RouteMessage {
    let mut request = RouteMessage::default();
    request.header.address_family = family(destination);
    request.header.destination_prefix_length = if destination.is_ipv4() { 32 } else { 128 };
    request.attributes.push(RouteAttribute::Destination(destination.into()));
    // A link-local address means nothing without its link.
    if matches!(destination, IpAddr::V6(v6) if v6.is_unicast_link_local()) {
        request.attributes.push(RouteAttribute::Oif(interface.index));
    }
    request
}

//= docs/rfc/rfc9293.md#MUST-44
fn route_of(found: &RouteMessage, interface: &Interface, destination: IpAddr) -> Result<Route, NetError> {
    let no_source = || NetError::NoSource { destination, interface: interface.name.clone() };
    let source = found.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::PrefSource(address) => ip(address),
        _ => None,
    });
    let gateway = found.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(address) => ip(address),
        RouteAttribute::Via(RouteVia::Inet(v4)) => Some(IpAddr::V4(*v4)),
        RouteAttribute::Via(RouteVia::Inet6(v6)) => Some(IpAddr::V6(*v6)),
        _ => None,
    });
    Ok(Route { source: source.ok_or_else(no_source)?, next_hop: gateway.unwrap_or(destination) })
}

/// Whether the address can be one host's; broadcast addresses of a subnet only the kernel can tell.
fn is_one_host(address: IpAddr) -> bool {
    let broadcast = address == IpAddr::V4(Ipv4Addr::BROADCAST);
    !(broadcast || address.is_multicast() || address.is_unspecified())
}

fn output_interface(found: &RouteMessage) -> Option<u32> {
    found.attributes.iter().find_map(|a| if let RouteAttribute::Oif(index) = a { Some(*index) } else { None })
}

fn refusal(kind: RouteType, destination: IpAddr) -> NetError {
    match kind {
        RouteType::Local => NetError::OwnAddress { destination },
        RouteType::Broadcast | RouteType::Multicast | RouteType::Anycast => NetError::NotUnicast { destination },
        _ => unreachable(destination),
    }
}

fn unreachable(destination: IpAddr) -> NetError {
    NetError::NoRoute { destination, source: std::io::Error::from_raw_os_error(libc::EHOSTUNREACH) }
}

fn neighbour_message(interface: &Interface, next_hop: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(next_hop);
    message.header.ifindex = interface.index;
    message.attributes.push(NeighbourAttribute::Destination(match next_hop {
        IpAddr::V4(v4) => NeighbourAddress::Inet(v4),
        IpAddr::V6(v6) => NeighbourAddress::Inet6(v6),
    }));
    message
}

fn neighbour_of(message: &RouteNetlinkMessage) -> Option<Neighbour> {
    let RouteNetlinkMessage::NewNeighbour(message) = message else { return None };
    let mac = message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(bytes) => bytes.as_slice().try_into().ok(),
        _ => None,
    });
    Some(match (message.header.state, mac) {
        (NeighbourState::Failed, _) => Neighbour::Failed,
        (NeighbourState::Stale, Some(mac)) => Neighbour::Doubtful(mac),
        (NeighbourState::Incomplete | NeighbourState::None, _) | (_, None) => Neighbour::Unknown,
        (_, Some(mac)) => Neighbour::Fresh(mac),
    })
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some(IpAddr::V4(*v4)),
        RouteAddress::Inet6(v6) => Some(IpAddr::V6(*v6)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(state: NeighbourState, mac: Option<[u8; 6]>) -> Option<Neighbour> {
        let mut message = NeighbourMessage::default();
        message.header.state = state;
        message.attributes.extend(mac.map(|m| NeighbourAttribute::LinkLayerAddress(m.to_vec())));
        neighbour_of(&RouteNetlinkMessage::NewNeighbour(message))
    }

    #[test]
    fn a_neighbours_entry_is_used_as_the_kernel_would_use_it() {
        const MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];
        use NeighbourState::{Delay, Failed, Incomplete, None as Nothing, Permanent, Probe, Reachable, Stale};
        for state in [Reachable, Delay, Probe, Permanent] {
            assert_eq!(entry(state, Some(MAC)), Some(Neighbour::Fresh(MAC)), "{state:?}");
        }
        assert_eq!(entry(Stale, Some(MAC)), Some(Neighbour::Doubtful(MAC)));
        assert_eq!(entry(Failed, Some(MAC)), Some(Neighbour::Failed));
        assert_eq!(entry(Incomplete, None), Some(Neighbour::Unknown));
        assert_eq!(entry(Nothing, None), Some(Neighbour::Unknown));
        assert_eq!(entry(Reachable, None), Some(Neighbour::Unknown), "an entry without an address is no use");
    }

    #[test]
    fn what_is_no_unicast_route_is_refused_by_its_name() {
        let destination = IpAddr::from([10, 0, 0, 1]);
        assert!(matches!(refusal(RouteType::Local, destination), NetError::OwnAddress { .. }));
        assert!(matches!(refusal(RouteType::Broadcast, destination), NetError::NotUnicast { .. }));
        assert!(matches!(refusal(RouteType::Multicast, destination), NetError::NotUnicast { .. }));
        assert!(matches!(refusal(RouteType::BlackHole, destination), NetError::NoRoute { .. }));
    }
}
