//! Maps in memory: what a case says they hold, and [`Maps`] over it.

use alloc::vec;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::ops::RangeInclusive;

use crate::decide::{Connection, Maps, Sockets};
use crate::layout::{
    Config, ConnectionKey, ICMP_ERROR_BURST, ICMP_ERROR_INTERVAL_NS, LAYOUT_VERSION, ListenerKey, PrefixValue,
    from_bytes, to_bytes,
};
use crate::prefix::{Prefix, Rule};
use crate::rate::RateLimit;
use crate::source::{SourceLimit, Sources};

/// MAC address of the interface.
pub const OUR_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x02];
/// MAC address of the peer.
pub const PEER_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x01];

/// The interface's first IPv4 address.
pub const LOCAL_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 2));
/// The interface's other IPv4 address.
pub const OTHER_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 3));
/// The interface's IPv6 address.
pub const LOCAL_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2));
/// The peer's IPv4 address.
pub const PEER_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 1));
/// The peer's IPv6 address.
pub const PEER_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1));
/// An IPv4 address that the interface does not have: the host would route a packet for it on.
pub const ROUTED_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 9));

/// What the maps hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct World {
    /// VLANs that are taken.
    pub vlans: Vec<u16>,
    /// Unicast addresses of the interface.
    pub addresses: Vec<IpAddr>,
    /// Listeners.
    pub listeners: Vec<SocketAddr>,
    /// Ports of active opens.
    pub ephemeral: RangeInclusive<u16>,
    /// Connections.
    pub connections: Vec<ConnectionKey>,
    /// The RX queue that owns them.
    pub queue: u16,
    /// Queues with a socket.
    pub sockets: Sockets,
    /// Whether this CPU has let through as many ICMP errors as it may.
    pub icmp_exhausted: bool,
    /// Allowed and denied prefixes.
    pub prefixes: Vec<(Prefix, Rule)>,
    /// How many SYNs a source may send.
    pub source_limit: SourceLimit,
    /// Sources that have sent as many as they may: IPv4 addresses, IPv6 networks.
    pub exhausted_sources: Vec<IpAddr>,
}

impl Default for World {
    /// Two listeners on one address, wildcards of both families, an ephemeral range, a connection of each
    /// family; the daemon listens on the queue.
    fn default() -> World {
        let wildcard_v4 = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let wildcard_v6 = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        World {
            vlans: vec![100],
            addresses: vec![LOCAL_V4, OTHER_V4, LOCAL_V6],
            listeners: vec![
                (LOCAL_V4, 7).into(),
                (LOCAL_V6, 7).into(),
                (wildcard_v4, 80).into(),
                (wildcard_v6, 8080).into(),
            ],
            ephemeral: 40_000..=40_999,
            connections: vec![connection_v4(), connection_v6()],
            queue: 0,
            sockets: Sockets::Here,
            icmp_exhausted: false,
            prefixes: Vec::new(),
            source_limit: SourceLimit::default(),
            exhausted_sources: Vec::new(),
        }
    }
}

/// The IPv4 connection of the ordinary world.
#[must_use]
pub fn connection_v4() -> ConnectionKey {
    ConnectionKey::new((LOCAL_V4, 7).into(), (PEER_V4, 50_001).into())
}

/// The IPv6 connection of the ordinary world.
#[must_use]
pub fn connection_v6() -> ConnectionKey {
    ConnectionKey::new((LOCAL_V6, 7).into(), (PEER_V6, 50_001).into())
}

/// [`Maps`] over a [`World`].
#[derive(Debug)]
pub struct MemoryMaps<'a> {
    world: &'a World,
    config: Config,
    icmp_limit: RefCell<RateLimit>,
}

impl<'a> MemoryMaps<'a> {
    /// The maps of a world, at the time 1 s.
    #[must_use]
    pub fn new(world: &'a World) -> Self {
        let mut limit = RateLimit::default();
        while world.icmp_exhausted && limit.admit(Self::NOW_NS, ICMP_ERROR_INTERVAL_NS, ICMP_ERROR_BURST) {}
        let config = Config {
            layout_version: LAYOUT_VERSION,
            mac: OUR_MAC,
            ephemeral_first: *world.ephemeral.start(),
            ephemeral_last: *world.ephemeral.end(),
            source: world.source_limit,
            prefixes: world.prefixes.len() as u32,
            ..Config::default()
        };
        MemoryMaps { world, config, icmp_limit: RefCell::new(limit) }
    }

    const NOW_NS: u64 = 1_000_000_000;
}

impl Maps for MemoryMaps<'_> {
    fn config(&self) -> Option<&Config> {
        Some(&self.config)
    }

    fn accepts_vlan(&self, vid: u16) -> bool {
        self.world.vlans.contains(&vid)
    }

    fn owns_port(&self, port: u16) -> bool {
        self.world.ephemeral.contains(&port) || self.world.listeners.iter().any(|listener| listener.port() == port)
    }

    fn connection(&self, key: &ConnectionKey) -> Option<Connection> {
        self.world.connections.contains(key).then_some(Connection { queue: self.world.queue })
    }

    fn has_listener(&self, key: &ListenerKey) -> bool {
        self.world.listeners.iter().any(|listener| ListenerKey::new(*listener) == *key)
    }

    fn has_address(&self, address: &[u8; 16]) -> bool {
        self.world.addresses.contains(&from_bytes(*address))
    }

    fn sockets(&self) -> Sockets {
        self.world.sockets
    }

    fn admit_icmp_error(&self) -> bool {
        self.icmp_limit.borrow_mut().admit(Self::NOW_NS, ICMP_ERROR_INTERVAL_NS, ICMP_ERROR_BURST)
    }
}

impl Sources for MemoryMaps<'_> {
    fn prefix(&self, address: &[u8; 16]) -> Option<PrefixValue> {
        let covering = self.world.prefixes.iter().filter(|(prefix, _)| prefix.is_prefix_of(address));
        covering.max_by_key(|(prefix, _)| prefix.length()).map(|(prefix, rule)| prefix.value(*rule))
    }

    fn admit_syn(&self, source: &[u8; 16], _: &SourceLimit) -> bool {
        !self.world.exhausted_sources.iter().any(|exhausted| to_bytes(*exhausted) == *source)
    }
}
