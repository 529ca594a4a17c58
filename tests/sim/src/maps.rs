//! The maps of one interface in memory: what the XDP program reads and the daemon's workers write. A write is seen by
//! the program only some time after the worker began it, so that frames are decided by what the maps held before.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use tcp_common::State;
use tcp_common::decide::{Connection, Sockets};
use tcp_common::layout::{Config, LAYOUT_VERSION, ListenerKey, ListenerValue, PrefixValue, to_bytes};
use tcp_common::source::{SourceLimit, Sources};
use tcp_proto::{ConnectionKey, ConnectionValue, Instant, NoEntry};

/// A write that the program has not seen.
#[derive(Clone, Copy, Debug)]
enum Write {
    Insert(ConnectionKey, ConnectionValue),
    /// Of an entry that still exists.
    Update(ConnectionKey, ConnectionValue),
    Remove(ConnectionKey),
}

/// The maps of one interface.
#[derive(Debug)]
pub struct Maps {
    config: Config,
    address: [u8; 16],
    listeners: Vec<(ListenerKey, ListenerValue)>,
    /// Ports that listeners have or had: a mark stays, so that what is left of their connections is still ours.
    ports: Vec<u16>,
    connections: HashMap<ConnectionKey, ConnectionValue>,
    /// Most entries.
    room: usize,
    waiting: BTreeMap<(Instant, u64), Write>,
    writes: u64,
}

impl Maps {
    /// The maps of an interface with one address, and with room for so many connections.
    #[must_use]
    pub fn new(mac: [u8; 6], address: IpAddr, ephemeral: &RangeInclusive<u16>, room: usize) -> Maps {
        let config = Config {
            layout_version: LAYOUT_VERSION,
            mac,
            ephemeral_first: *ephemeral.start(),
            ephemeral_last: *ephemeral.end(),
            ..Config::default()
        };
        Maps {
            config,
            address: to_bytes(address),
            listeners: Vec::new(),
            ports: Vec::new(),
            connections: HashMap::new(),
            room,
            waiting: BTreeMap::new(),
            writes: 0,
        }
    }

    /// A listener begins.
    pub fn listen(&mut self, local: SocketAddr) {
        self.listeners.push((ListenerKey::new(local), ListenerValue::default()));
        self.ports.push(local.port());
    }

    /// A listener ends.
    pub fn unlisten(&mut self, local: SocketAddr) {
        self.listeners.retain(|(listener, _)| *listener != ListenerKey::new(local));
    }

    /// Inserts an entry at `at`, over one with the same key and queue if there is one.
    ///
    /// # Errors
    /// When there is no room, or another queue has the entry.
    pub fn insert(&mut self, at: Instant, key: ConnectionKey, value: ConnectionValue) -> Result<(), NoEntry> {
        if self.latest(&key).is_some_and(|entry| entry.queue != value.queue) {
            return Err(NoEntry::Taken);
        }
        let arriving = self.waiting.values().filter(|write| matches!(write, Write::Insert(..))).count();
        let fits = self.connections.len() + arriving < self.room || self.connections.contains_key(&key);
        if !fits {
            return Err(NoEntry::Full);
        }
        self.write(at, Write::Insert(key, value));
        Ok(())
    }

    /// Overwrites an entry at `at` if it still exists.
    pub fn update(&mut self, at: Instant, key: ConnectionKey, value: ConnectionValue) {
        self.write(at, Write::Update(key, value));
    }

    /// Removes an entry at `at`.
    pub fn remove(&mut self, at: Instant, key: ConnectionKey) {
        self.write(at, Write::Remove(key));
    }

    /// Lets the program see what was written until `now`.
    pub fn settle(&mut self, now: Instant) {
        while let Some(first) = self.waiting.first_entry().filter(|first| first.key().0 <= now) {
            match first.remove() {
                Write::Insert(key, value) => {
                    self.connections.insert(key, value);
                }
                Write::Update(key, value) => {
                    self.connections.entry(key).and_modify(|entry| *entry = value);
                }
                Write::Remove(key) => {
                    self.connections.remove(&key);
                }
            }
        }
    }

    /// The entry of `key` once everything written is seen.
    #[must_use]
    pub fn latest(&self, key: &ConnectionKey) -> Option<ConnectionValue> {
        let mut entry = self.connections.get(key).copied();
        for write in self.waiting.values() {
            match write {
                Write::Insert(other, value) if other == key => entry = Some(*value),
                Write::Update(other, value) if other == key => entry = entry.map(|_| *value),
                Write::Remove(other) if other == key => entry = None,
                _ => {}
            }
        }
        entry
    }

    /// Entries, those that are written included.
    #[must_use]
    pub fn entries(&self) -> Vec<ConnectionKey> {
        let written = self.waiting.values().filter_map(|write| match write {
            Write::Insert(key, _) => Some(*key),
            Write::Update(..) | Write::Remove(_) => None,
        });
        let mut all: Vec<_> = self.connections.keys().copied().chain(written).collect();
        all.retain(|key| self.latest(key).is_some());
        all
    }

    fn write(&mut self, at: Instant, write: Write) {
        self.writes += 1;
        self.waiting.insert((at, self.writes), write);
    }
}

impl tcp_common::decide::Maps for Maps {
    fn config(&self) -> Option<&Config> {
        Some(&self.config)
    }

    fn accepts_vlan(&self, _vid: u16) -> bool {
        false
    }

    fn owns_port(&self, port: u16) -> bool {
        let ephemeral = self.config.ephemeral_first..=self.config.ephemeral_last;
        ephemeral.contains(&port) || self.ports.contains(&port)
    }

    fn connection(&self, key: &ConnectionKey) -> Option<Connection> {
        self.connections
            .get(key)
            .map(|value| Connection { queue: value.queue, time_wait: value.state == State::TIME_WAIT })
    }

    fn listener(&self, key: &ListenerKey) -> Option<&ListenerValue> {
        self.listeners.iter().find(|(listener, _)| listener == key).map(|(_, value)| value)
    }

    fn has_address(&self, address: &[u8; 16]) -> bool {
        *address == self.address
    }

    fn queue(&self) -> u16 {
        0
    }

    fn sockets(&self) -> Sockets {
        Sockets::Here
    }

    fn admit_icmp_error(&self) -> bool {
        true
    }
}

impl Sources for Maps {
    fn prefix(&self, _address: &[u8; 16]) -> Option<PrefixValue> {
        None
    }

    fn admit_syn(&self, _source: &[u8; 16], _limit: &SourceLimit) -> bool {
        true
    }
}
