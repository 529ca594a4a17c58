//! Maps in memory: what a case says they hold, and [`Maps`] over it.

use alloc::vec;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::ops::RangeInclusive;

use crate::answer::{AnswerMaps, TimeWait};
use crate::cookie::{CookieKeys, epoch};
use crate::decide::{Connection, Maps, Sockets};
use crate::gauge::Gauge;
use crate::headers::Step;
use crate::layout::{
    Config, ConnectionKey, ConnectionValue, ICMP_ERRORS, LAYOUT_VERSION, ListenerKey, ListenerValue, OFFERS_ECN,
    OFFERS_SACK, OFFERS_TIMESTAMPS, OFFERS_WINDOW_SCALE, PrefixValue, SYNS_WITH_DATA, TIME_WAIT_ACKS, from_bytes,
    resets, to_bytes,
};
use crate::prefix::{Prefix, Rule};
use crate::rate::{Rate, RateLimit};
use crate::source::Sources;
use crate::state::State;

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
    /// What the program knows of each listener but its index.
    pub listener: ListenerValue,
    /// What the entries of the connections say, but the queue.
    pub entry: ConnectionValue,
    /// Whether the program answers by itself.
    pub answers: bool,
    /// CLOCK_MONOTONIC, ns.
    pub now_ns: u64,
    /// When the daemon last said that it lives, ns.
    pub heartbeat_ns: u64,
    /// Whether there are keys of cookies.
    pub has_keys: bool,
    /// Until when the daemon wants cookies for the listeners, ns.
    pub cookie_demand_ns: u64,
    /// Whether a checksum over the pseudo-header alone passes.
    pub accept_partial: bool,
    /// Resets in a second; 0: none.
    pub rst_rate: u32,
    /// Allowed and denied prefixes.
    pub prefixes: Vec<(Prefix, Rule)>,
    /// How many SYNs a source may send.
    pub source_limit: Rate,
    /// Sources that have sent as many as they may: IPv4 addresses, IPv6 networks.
    pub exhausted_sources: Vec<IpAddr>,
}

/// How long TIME_WAIT lasts in the ordinary world, ms.
pub const TIME_WAIT_MS: u32 = 60_000;

/// What SYN-ACKs offer in the ordinary world, and how answers look there.
pub const LISTENER: ListenerValue = ListenerValue {
    index: 0,
    syn_cookies: ListenerValue::COOKIES_AUTO,
    offers: OFFERS_TIMESTAMPS | OFFERS_WINDOW_SCALE | OFFERS_SACK | OFFERS_ECN,
    ttl: 64,
    traffic_class: 0,
    mss: 1460,
    window: 65_535,
    window_scale: 4,
    cookie_mode: 0,
    pad: 0,
    syn_limit: 2048,
    time_wait_ms: TIME_WAIT_MS,
    syn_queue: 0,
    syn_queue_max: 0,
    accept_queue: 0,
    accept_queue_max: 0,
    pad2: 0,
    overflows: 0,
    syn_overflows: 0,
    accept_overflows: 0,
};

impl World {
    /// The ordinary world at another time, in which the program answers by itself.
    #[must_use]
    pub fn that_answers(now_ns: u64) -> World {
        World { answers: true, now_ns, heartbeat_ns: now_ns, ..World::default() }
    }

    /// The keys of cookies: of this epoch, and of the two before it.
    #[must_use]
    pub fn keys(&self) -> CookieKeys {
        let mut keys = CookieKeys::default();
        let now = epoch(self.now_ns);
        let epochs = if self.has_keys { now - 2..=now } else { RangeInclusive::new(1, 0) };
        epochs.for_each(|epoch| keys.put(epoch, [epoch, !epoch]));
        keys
    }
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
            listener: LISTENER,
            entry: ConnectionValue { state: State::ESTABLISHED, ..ConnectionValue::default() },
            answers: false,
            now_ns: 1_000 << 36,
            heartbeat_ns: 1_000 << 36,
            has_keys: true,
            cookie_demand_ns: 0,
            accept_partial: false,
            rst_rate: 1_000,
            prefixes: Vec::new(),
            source_limit: Rate::default(),
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
    listeners: Vec<(ListenerKey, ListenerValue)>,
    keys: CookieKeys,
    icmp_limit: RefCell<RateLimit>,
    reset_limit: RefCell<RateLimit>,
    time_wait_limit: RefCell<RateLimit>,
    syn_data_limit: RefCell<RateLimit>,
    gauges: RefCell<[Gauge; 8]>,
    inserted: RefCell<Vec<(ConnectionKey, ConnectionValue)>>,
    deadlines: RefCell<Vec<(ConnectionKey, u64)>>,
}

impl<'a> MemoryMaps<'a> {
    /// The maps of a world.
    #[must_use]
    pub fn new(world: &'a World) -> Self {
        let mut limit = RateLimit::default();
        while world.icmp_exhausted && limit.admit(world.now_ns, &ICMP_ERRORS) {}
        let listener = |(index, local): (usize, &SocketAddr)| {
            (ListenerKey::new(*local), ListenerValue { index: index as u32, ..world.listener })
        };
        let config = Config {
            layout_version: LAYOUT_VERSION,
            mac: OUR_MAC,
            ephemeral_first: *world.ephemeral.start(),
            ephemeral_last: *world.ephemeral.end(),
            answers: world.answers.into(),
            accept_partial: world.accept_partial.into(),
            heartbeat_ns: world.heartbeat_ns,
            time_wait_ms: TIME_WAIT_MS,
            resets: resets(world.rst_rate),
            source: world.source_limit,
            prefixes: world.prefixes.len() as u32,
        };
        MemoryMaps {
            world,
            config,
            listeners: world.listeners.iter().enumerate().map(listener).collect(),
            keys: world.keys(),
            icmp_limit: RefCell::new(limit),
            reset_limit: RefCell::default(),
            time_wait_limit: RefCell::default(),
            syn_data_limit: RefCell::default(),
            gauges: RefCell::default(),
            inserted: RefCell::default(),
            deadlines: RefCell::default(),
        }
    }

    /// Whether the program answers by itself.
    #[must_use]
    pub fn answers(&self) -> bool {
        self.config.answers != 0
    }

    /// The entries that the program made.
    #[must_use]
    pub fn inserted(&self) -> Vec<(ConnectionKey, ConnectionValue)> {
        self.inserted.borrow().clone()
    }

    /// The ends of TIME_WAIT that the program set.
    #[must_use]
    pub fn deadlines(&self) -> Vec<(ConnectionKey, u64)> {
        self.deadlines.borrow().clone()
    }
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
        let inserted = self.inserted.borrow().iter().any(|(other, _)| other == key);
        let time_wait = !inserted && self.world.entry.state == State::TIME_WAIT;
        let found = inserted || self.world.connections.contains(key);
        found.then_some(Connection { queue: self.world.queue, time_wait })
    }

    fn listener(&self, key: &ListenerKey) -> Option<&ListenerValue> {
        self.listeners.iter().find(|(other, _)| other == key).map(|(_, value)| value)
    }

    fn has_address(&self, address: &[u8; 16]) -> bool {
        self.world.addresses.contains(&from_bytes(*address))
    }

    fn queue(&self) -> u16 {
        self.world.queue
    }

    fn sockets(&self) -> Sockets {
        self.world.sockets
    }

    fn admit_icmp_error(&self) -> bool {
        self.icmp_limit.borrow_mut().admit(self.world.now_ns, &ICMP_ERRORS)
    }
}

impl AnswerMaps for MemoryMaps<'_> {
    fn now_ns(&self) -> u64 {
        self.world.now_ns
    }

    fn cookie_keys(&self) -> Option<&CookieKeys> {
        Some(&self.keys)
    }

    fn gauge(&self, index: u32) -> Option<Gauge> {
        self.gauges.borrow().get(index as usize).copied()
    }

    fn set_gauge(&self, index: u32, gauge: &Gauge) {
        self.gauges.borrow_mut()[index as usize] = *gauge;
    }

    fn cookie_demand_ns(&self, _index: u32) -> u64 {
        self.world.cookie_demand_ns
    }

    fn time_wait(&self, key: &ConnectionKey) -> Option<TimeWait> {
        let ConnectionValue { snd_nxt, rcv_nxt, ts_recent, flags, .. } = self.world.entry;
        self.world.connections.contains(key).then_some(TimeWait { snd_nxt, rcv_nxt, ts_recent, flags })
    }

    fn restart_time_wait(&self, key: &ConnectionKey, deadline_ns: u64) {
        self.deadlines.borrow_mut().push((*key, deadline_ns));
    }

    fn insert(&self, key: &ConnectionKey, value: &ConnectionValue) {
        self.inserted.borrow_mut().push((*key, *value));
    }

    fn admit_reset(&self, now_ns: u64, rate: &Rate) -> bool {
        self.reset_limit.borrow_mut().admit(now_ns, rate)
    }

    fn admit_syn_data(&self, now_ns: u64) -> bool {
        self.syn_data_limit.borrow_mut().admit(now_ns, &SYNS_WITH_DATA)
    }

    fn admit_time_wait_ack(&self, now_ns: u64) -> bool {
        self.time_wait_limit.borrow_mut().admit(now_ns, &TIME_WAIT_ACKS)
    }

    fn log_cookies(&self, _key: &ConnectionKey) {}

    fn repeat<S: Step>(&self, times: u32, work: &mut S) {
        let _ = (0..times).any(|_| work.step());
    }
}

impl Sources for MemoryMaps<'_> {
    fn prefix(&self, address: &[u8; 16]) -> Option<PrefixValue> {
        let covering = self.world.prefixes.iter().filter(|(prefix, _)| prefix.is_prefix_of(address));
        covering.max_by_key(|(prefix, _)| prefix.length()).map(|(prefix, rule)| prefix.value(*rule))
    }

    fn admit_syn(&self, source: &[u8; 16], _: &Rate) -> bool {
        !self.world.exhausted_sources.iter().any(|exhausted| to_bytes(*exhausted) == *source)
    }
}
