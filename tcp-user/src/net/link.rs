//! Interfaces and their addresses, and what becomes of them.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use futures_util::StreamExt;
use netlink_packet_core::{NLM_F_DUMP, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage};
use rtnetlink::MulticastGroup;

use super::error::NetError;
use super::kernel::{Network, Notices, connect};
use crate::sys::ethtool;

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
    /// Whether there is a link to somebody (IFF_LOWER_UP).
    pub has_carrier: bool,
    /// Whether it is one end of a veth pair.
    pub is_veth: bool,
    /// Receive queues in use, at least 1.
    pub receive_queues: u32,
}

impl Network {
    /// The interface called `name`.
    ///
    /// # Errors
    /// No such interface, not Ethernet, or the kernel does not answer.
    pub async fn interface(&self, name: &str) -> Result<Interface, NetError> {
        let mut request = LinkMessage::default();
        request.attributes.push(LinkAttribute::IfName(name.to_owned()));
        let no_such = || NetError::NoSuchInterface { name: name.to_owned() };
        let message = self.link(request).await.map_err(|error| match error.raw_os_error() {
            // ERANGE and EINVAL: longer than a name can be.
            Some(libc::ENODEV | libc::ERANGE | libc::EINVAL) => no_such(),
            _ => NetError::Netlink { doing: "look up the interface", source: error },
        })?;
        interface_of(message.ok_or_else(no_such)?)
    }

    /// Unicast addresses on the interface in the kernel's order; tentative and failed ones left out.
    ///
    /// # Errors
    /// The interface is gone, or the kernel does not answer.
    pub async fn addresses(&self, interface: &Interface) -> Result<Vec<IpAddr>, NetError> {
        let mut request = AddressMessage::default();
        request.header.index = interface.index;
        let answer = self.ask(RouteNetlinkMessage::GetAddress(request), NLM_F_DUMP).await;
        let messages = answer.map_err(|error| match error.raw_os_error() {
            Some(libc::ENODEV) => NetError::InterfaceGone { name: interface.name.clone() },
            _ => NetError::Netlink { doing: "list the addresses", source: error },
        })?;
        let ours = |message| match message {
            RouteNetlinkMessage::NewAddress(m) if m.header.index == interface.index => usable_address(&m),
            _ => None,
        };
        Ok(messages.into_iter().filter_map(ours).collect())
    }

    /// Follows the interface; call it inside a tokio runtime with I/O and time.
    ///
    /// # Errors
    /// When netlink sockets can't be had.
    pub fn watch(&self, interface: &Interface) -> Result<InterfaceWatch, NetError> {
        let (network, notices) = connect(&WATCHED)?;
        let looks = tokio::time::interval(QUEUES_INTERVAL);
        Ok(InterfaceWatch { interface: interface.clone(), network, notices, looks, last: None, stale: true })
    }

    /// Name of interface `index`; its number when it has none (any more).
    pub(super) async fn interface_name(&self, index: u32) -> String {
        let mut request = LinkMessage::default();
        request.header.index = index;
        let message = self.link(request).await.ok().flatten();
        let name = message.and_then(|m| m.attributes.into_iter().find_map(name_of));
        name.unwrap_or_else(|| format!("interface {index}"))
    }

    /// The interface as it is now, also when it has got another name.
    async fn look_again(&self, interface: &Interface) -> Result<Interface, NetError> {
        let mut request = LinkMessage::default();
        request.header.index = interface.index;
        let gone = || NetError::InterfaceGone { name: interface.name.clone() };
        let message = self.link(request).await.map_err(|error| match error.raw_os_error() {
            Some(libc::ENODEV) => gone(),
            _ => NetError::Netlink { doing: "look at the interface", source: error },
        })?;
        interface_of(message.ok_or_else(gone)?)
    }

    async fn link(&self, request: LinkMessage) -> io::Result<Option<LinkMessage>> {
        let answer = self.ask(RouteNetlinkMessage::GetLink(request), 0).await?;
        Ok(answer.into_iter().find_map(|message| match message {
            RouteNetlinkMessage::NewLink(link) => Some(link),
            _ => None,
        }))
    }
}

const WATCHED: [MulticastGroup; 3] = [MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr];

/// How often the number of queues is looked at: the kernel does not tell of its changes.
const QUEUES_INTERVAL: Duration = Duration::from_secs(1);

/// An interface and its addresses at one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The interface.
    pub interface: Interface,
    /// Its unicast addresses; see [`Network::addresses`].
    pub addresses: Vec<IpAddr>,
}

/// One interface and its addresses, as they change.
pub struct InterfaceWatch {
    /// As last seen.
    interface: Interface,
    network: Network,
    notices: Notices,
    looks: tokio::time::Interval,
    last: Option<Seen>,
    /// A notice came since the last look; kept here so that a dropped `changed` loses nothing.
    stale: bool,
}

impl InterfaceWatch {
    /// Waits until something differs from the last call's (the first call returns at once). May be dropped and
    /// called again at any time. What changes and changes back meanwhile is not seen.
    ///
    /// # Errors
    /// The interface is gone, or the kernel does not answer.
    pub async fn changed(&mut self) -> Result<Seen, NetError> {
        loop {
            self.notice().await?;
            let interface = self.network.look_again(&self.interface).await?;
            let addresses = self.network.addresses(&interface).await?;
            // What arrived while we looked still waits in `notices`.
            self.stale = false;
            self.interface = interface.clone();
            let now = Seen { interface, addresses };
            if self.last.as_ref() != Some(&now) {
                self.last = Some(now.clone());
                return Ok(now);
            }
        }
    }

    /// Waits until something may have changed.
    async fn notice(&mut self) -> Result<(), NetError> {
        while !self.stale {
            tokio::select! {
                notice = self.notices.next() => match notice {
                    Some(notice) => self.stale = concerns(&notice, self.interface.index),
                    None => {
                        (self.network, self.notices) = connect(&WATCHED)?;
                        self.stale = true;
                    }
                },
                _ = self.looks.tick() => self.stale = self.queues_differ(),
            }
        }
        Ok(())
    }

    /// Whether the number of queues may differ from the last one seen.
    fn queues_differ(&self) -> bool {
        match ethtool::receive_queues(&self.interface.name) {
            Ok(queues) => queues.max(1) != self.interface.receive_queues,
            // Renamed or gone. A driver that can't tell can't change it either.
            Err(error) => error.raw_os_error() == Some(libc::ENODEV),
        }
    }
}

fn interface_of(message: LinkMessage) -> Result<Interface, NetError> {
    let name = message.attributes.iter().find_map(|a| name_of(a.clone())).unwrap_or_default();
    let not_ethernet = || NetError::NotEthernet { name: name.clone() };
    let header = &message.header;
    if header.link_layer_type != LinkLayerType::Ether {
        return Err(not_ethernet());
    }
    let attribute = |wanted: fn(&LinkAttribute) -> Option<u32>| message.attributes.iter().find_map(wanted);
    let queues = attribute(|a| if let LinkAttribute::NumRxQueues(n) = a { Some(*n) } else { None });
    let mac = message.attributes.iter().find_map(mac_of).ok_or_else(not_ethernet)?;
    Ok(Interface {
        index: header.index,
        mac,
        mtu: attribute(|a| if let LinkAttribute::Mtu(mtu) = a { Some(*mtu) } else { None }).unwrap_or_default(),
        is_up: header.flags.contains(LinkFlags::Up),
        has_carrier: header.flags.contains(LinkFlags::LowerUp),
        is_veth: message.attributes.iter().any(is_veth),
        receive_queues: receive_queues(&name, queues.unwrap_or(1))?,
        name,
    })
}

/// Queues in use; `allocated` is what netlink tells, which a driver without ethtool channels uses all of.
fn receive_queues(name: &str, allocated: u32) -> Result<u32, NetError> {
    match ethtool::receive_queues(name) {
        Ok(queues) => Ok(queues.max(1)),
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(allocated.max(1)),
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {
            Err(NetError::InterfaceGone { name: name.to_owned() })
        }
        Err(source) => Err(NetError::Netlink { doing: "ask ethtool for the number of queues", source }),
    }
}

fn mac_of(attribute: &LinkAttribute) -> Option<[u8; 6]> {
    if let LinkAttribute::Address(bytes) = attribute { bytes.as_slice().try_into().ok() } else { None }
}

fn name_of(attribute: LinkAttribute) -> Option<String> {
    if let LinkAttribute::IfName(name) = attribute { Some(name) } else { None }
}

fn is_veth(attribute: &LinkAttribute) -> bool {
    matches!(attribute, LinkAttribute::LinkInfo(infos) if infos.contains(&LinkInfo::Kind(InfoKind::Veth)))
}

/// The address a message tells, unless it can't be used (yet).
fn usable_address(message: &AddressMessage) -> Option<IpAddr> {
    let mut flags = AddressFlags::from_bits_retain(message.header.flags.bits().into());
    let (mut local, mut address) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(a) => local = Some(*a),
            // On a point-to-point link this is the peer's, and `Local` is ours.
            AddressAttribute::Address(a) => address = Some(*a),
            AddressAttribute::Flags(f) => flags = *f,
            _ => {}
        }
    }
    let waits = flags.contains(AddressFlags::Tentative) && !flags.contains(AddressFlags::Optimistic);
    if waits || flags.contains(AddressFlags::Dadfailed) { None } else { local.or(address) }
}

/// Whether a notice may mean that interface `index` or its addresses changed.
fn concerns(notice: &NetlinkPayload<RouteNetlinkMessage>, index: u32) -> bool {
    use RouteNetlinkMessage::{DelAddress, DelLink, NewAddress, NewLink};
    match notice {
        NetlinkPayload::InnerMessage(NewAddress(m) | DelAddress(m)) => m.header.index == index,
        NetlinkPayload::InnerMessage(NewLink(m) | DelLink(m)) => m.header.index == index,
        // Notices were lost: anything may have happened.
        NetlinkPayload::Overrun(_) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use netlink_packet_route::address::AddressHeaderFlags;

    use super::*;

    fn message(attributes: Vec<AddressAttribute>) -> AddressMessage {
        let mut message = AddressMessage::default();
        message.attributes = attributes;
        message
    }

    #[test]
    fn the_local_address_of_a_point_to_point_link_is_ours() {
        let (ours, peer) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let both = message(vec![AddressAttribute::Address(peer), AddressAttribute::Local(ours)]);
        assert_eq!(usable_address(&both), Some(ours));
        assert_eq!(usable_address(&message(vec![AddressAttribute::Address(peer)])), Some(peer));
    }

    #[test]
    fn an_address_that_is_not_proven_unique_is_not_usable() {
        let with = |flags| {
            message(vec![AddressAttribute::Address(Ipv4Addr::LOCALHOST.into()), AddressAttribute::Flags(flags)])
        };
        assert_eq!(usable_address(&with(AddressFlags::Tentative)), None);
        assert_eq!(usable_address(&with(AddressFlags::Dadfailed | AddressFlags::Permanent)), None);
        assert!(usable_address(&with(AddressFlags::Tentative | AddressFlags::Optimistic)).is_some());
        assert!(usable_address(&with(AddressFlags::Permanent)).is_some());
        let mut old = message(vec![AddressAttribute::Address(Ipv4Addr::LOCALHOST.into())]);
        old.header.flags = AddressHeaderFlags::Tentative;
        assert_eq!(usable_address(&old), None);
    }

    #[test]
    fn only_notices_about_the_interface_or_lost_ones_matter() {
        let about = |index| {
            let mut m = AddressMessage::default();
            m.header.index = index;
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelAddress(m))
        };
        assert!(concerns(&about(7), 7));
        assert!(!concerns(&about(8), 7));
        assert!(concerns(&NetlinkPayload::Overrun(Vec::new()), 7));
        assert!(!concerns(&NetlinkPayload::Noop, 7));
    }
}
