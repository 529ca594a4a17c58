//! The maps of one interface in memory: what the XDP program reads and the daemon's workers write. A write is seen by
//! the program only some time after the worker began it, so that frames are decided by what the maps held before. What
//! the program writes itself (entries for cookies, deadlines of TIME_WAIT, gauges) is there at once.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use tcp_common::State;
use tcp_common::answer::{AnswerMaps, TimeWait};
use tcp_common::cookie::CookieKeys;
use tcp_common::decide::{Connection, Sockets};
use tcp_common::gauge::Gauge;
use tcp_common::headers::Step;
use tcp_common::layout::{
    Config, FLAG_COOKIE, LAYOUT_VERSION, ListenerKey, ListenerValue, PrefixValue, SYNS_WITH_DATA, TIME_WAIT_ACKS,
    resets, to_bytes,
};
use tcp_common::rate::{Rate, RateLimit};
use tcp_common::source::Sources;
use tcp_proto::{ConnectionKey, ConnectionValue, Instant, NoEntry};

use crate::chance::Chance;

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
    connections: RefCell<HashMap<ConnectionKey, ConnectionValue>>,
    /// Connections whose entries somebody deleted, for good: the worker that had one may not have heard of it, and go on
    /// beside a successor of another worker's.
    deleted: HashSet<ConnectionKey>,
    /// Most entries.
    room: usize,
    waiting: BTreeMap<(Instant, u64), Write>,
    writes: u64,
    /// Where the frame that is looked at arrived, and when.
    queue: u16,
    now: Instant,
    keys: CookieKeys,
    gauge: Cell<Gauge>,
    cookie_demand_ns: u64,
    resets: Cell<RateLimit>,
    time_wait_acks: Cell<RateLimit>,
    syns_with_data: Cell<RateLimit>,
}

/// What the program answers by itself.
#[derive(Clone, Copy, Debug)]
pub struct Answers {
    /// Whether it does.
    pub enabled: bool,
    /// Resets a second.
    pub rst_rate: u32,
    /// How long TIME_WAIT lasts, ms.
    pub time_wait_ms: u32,
}

impl Maps {
    /// The maps of an interface with one address, and with room for so many connections.
    #[must_use]
    pub fn new(mac: [u8; 6], address: IpAddr, ephemeral: &RangeInclusive<u16>, room: usize, answers: Answers) -> Maps {
        let config = Config {
            layout_version: LAYOUT_VERSION,
            mac,
            ephemeral_first: *ephemeral.start(),
            ephemeral_last: *ephemeral.end(),
            answers: answers.enabled.into(),
            resets: resets(answers.rst_rate),
            time_wait_ms: answers.time_wait_ms,
            ..Config::default()
        };
        Maps {
            config,
            address: to_bytes(address),
            listeners: Vec::new(),
            ports: Vec::new(),
            connections: RefCell::default(),
            deleted: HashSet::new(),
            room,
            waiting: BTreeMap::new(),
            writes: 0,
            queue: 0,
            now: Instant::default(),
            keys: CookieKeys::default(),
            gauge: Cell::default(),
            cookie_demand_ns: 0,
            resets: Cell::default(),
            time_wait_acks: Cell::default(),
            syns_with_data: Cell::default(),
        }
    }

    /// A listener begins.
    pub fn listen(&mut self, local: SocketAddr, value: ListenerValue) {
        self.listeners.push((ListenerKey::new(local), value));
        self.ports.push(local.port());
    }

    /// A listener ends.
    pub fn unlisten(&mut self, local: SocketAddr) {
        self.listeners.retain(|(listener, _)| *listener != ListenerKey::new(local));
    }

    /// Inserts an entry at `at`, over one with the same key and queue if there is one.
    ///
    /// # Errors
    /// When there is no room, or another queue has the entry (perhaps because the program gave it to that queue).
    pub fn insert(&mut self, at: Instant, key: ConnectionKey, value: ConnectionValue) -> Result<(), NoEntry> {
        if self.latest(&key).is_some_and(|entry| entry.queue != value.queue) {
            return Err(NoEntry::Taken);
        }
        let arriving = self.waiting.values().filter(|write| matches!(write, Write::Insert(..))).count();
        let connections = self.connections.get_mut();
        let fits = connections.len() + arriving < self.room || connections.contains_key(&key);
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

    /// Somebody who is neither the daemon nor the program deletes an entry; whether there was one.
    pub fn delete(&mut self, key: &ConnectionKey) -> bool {
        let found = self.connections.get_mut().remove(key).is_some();
        found && self.deleted.insert(*key)
    }

    /// Whether somebody deleted the entry of `key`, which may be there again since.
    #[must_use]
    pub fn was_deleted(&self, key: &ConnectionKey) -> bool {
        self.deleted.contains(key)
    }

    /// The SYNs of the listener.
    #[must_use]
    pub fn syns(&self) -> Gauge {
        self.gauge.get()
    }

    /// Lets the program see what was written until `now`.
    pub fn settle(&mut self, now: Instant) {
        self.now = now;
        self.config.heartbeat_ns = now.as_nanos();
        let connections = self.connections.get_mut();
        while let Some(first) = self.waiting.first_entry().filter(|first| first.key().0 <= now) {
            match first.remove() {
                Write::Insert(key, value) => {
                    connections.insert(key, value);
                }
                Write::Update(key, value) => {
                    connections.entry(key).and_modify(|entry| *entry = value);
                }
                Write::Remove(key) => {
                    connections.remove(&key);
                }
            }
        }
    }

    /// The entry of `key` once everything written is seen.
    #[must_use]
    pub fn latest(&self, key: &ConnectionKey) -> Option<ConnectionValue> {
        let mut entry = self.connections.borrow().get(key).copied();
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
        let mut all: Vec<_> = self.connections.borrow().keys().copied().chain(written).collect();
        all.retain(|key| self.latest(key).is_some());
        all
    }

    /// The frame that is looked at next arrived on `queue`.
    pub fn arrives_on(&mut self, queue: usize) {
        self.queue = queue as u16;
    }

    /// Gives the program the keys of cookies.
    pub fn set_cookie_keys(&mut self, keys: CookieKeys) {
        self.keys = keys;
    }

    /// Whether there is an entry of `key`, or on its way, or no room for one.
    #[must_use]
    pub fn knows_or_is_full(&self, key: &ConnectionKey) -> bool {
        let connections = self.connections.borrow();
        self.latest(key).is_some() || connections.contains_key(key) || connections.len() >= self.room
    }

    /// A worker wants the program to send cookies until then.
    pub fn demand_cookies(&mut self, until: Instant) {
        self.cookie_demand_ns = until.as_nanos();
    }

    /// Whether the program answers anything.
    #[must_use]
    pub fn answers(&self) -> bool {
        self.config.answers != 0
    }

    /// Entries that the program made and no worker has written, with their queues and when they were made.
    #[must_use]
    pub fn made_by_program(&self) -> Vec<(ConnectionKey, u16, Instant)> {
        let connections = self.connections.borrow();
        let made = connections.iter().filter(|(_, value)| value.flags & FLAG_COOKIE != 0);
        let mut made: Vec<_> =
            made.map(|(key, value)| (*key, value.queue, Instant::from_nanos(value.since_ns))).collect();
        made.retain(|(key, ..)| self.latest(key).is_some_and(|value| value.flags & FLAG_COOKIE != 0));
        made.sort_by_key(|(key, ..)| (key.local_port, key.remote_port));
        made
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
        let connections = self.connections.borrow();
        connections.get(key).map(|value| Connection { queue: value.queue, time_wait: value.state == State::TIME_WAIT })
    }

    fn listener(&self, key: &ListenerKey) -> Option<&ListenerValue> {
        self.listeners.iter().find(|(listener, _)| listener == key).map(|(_, value)| value)
    }

    fn has_address(&self, address: &[u8; 16]) -> bool {
        *address == self.address
    }

    fn queue(&self) -> u16 {
        self.queue
    }

    fn sockets(&self) -> Sockets {
        Sockets::Here
    }

    fn admit_icmp_error(&self) -> bool {
        true
    }
}

impl AnswerMaps for Maps {
    fn now_ns(&self) -> u64 {
        self.now.as_nanos()
    }

    fn cookie_keys(&self) -> Option<&CookieKeys> {
        Some(&self.keys)
    }

    fn gauge(&self, _index: u32) -> Option<Gauge> {
        Some(self.gauge.get())
    }

    fn set_gauge(&self, _index: u32, gauge: &Gauge) {
        self.gauge.set(*gauge);
    }

    fn cookie_demand_ns(&self, _index: u32) -> u64 {
        self.cookie_demand_ns
    }

    fn time_wait(&self, key: &ConnectionKey) -> Option<TimeWait> {
        self.connections.borrow().get(key).map(|entry| TimeWait {
            snd_nxt: entry.snd_nxt,
            rcv_nxt: entry.rcv_nxt,
            ts_recent: entry.ts_recent,
            flags: entry.flags,
        })
    }

    fn restart_time_wait(&self, key: &ConnectionKey, deadline_ns: u64) {
        self.connections.borrow_mut().entry(*key).and_modify(|entry| entry.deadline_ns = deadline_ns);
    }

    /// A worker's insert that is under way came first: it was already told that nobody else's entry is there.
    fn insert(&self, key: &ConnectionKey, value: &ConnectionValue) {
        if self.latest(key).is_none() && self.connections.borrow().len() < self.room {
            self.connections.borrow_mut().entry(*key).or_insert(*value);
        }
    }

    fn admit_reset(&self, now_ns: u64, rate: &Rate) -> bool {
        admit(&self.resets, now_ns, rate)
    }

    fn admit_time_wait_ack(&self, now_ns: u64) -> bool {
        admit(&self.time_wait_acks, now_ns, &TIME_WAIT_ACKS)
    }

    fn admit_syn_data(&self, now_ns: u64) -> bool {
        admit(&self.syns_with_data, now_ns, &SYNS_WITH_DATA)
    }

    fn log_cookies(&self, _key: &ConnectionKey) {}

    fn repeat<S: Step>(&self, times: u32, work: &mut S) {
        let _ = (0..times).any(|_| work.step());
    }
}

fn admit(limit: &Cell<RateLimit>, now_ns: u64, rate: &Rate) -> bool {
    let mut charged = limit.get();
    let admitted = charged.admit(now_ns, rate);
    limit.set(charged);
    admitted
}

/// The ring of keys, as the daemon's main thread keeps it.
#[derive(Debug)]
pub struct KeyRing {
    /// The ring.
    pub keys: CookieKeys,
    chance: Chance,
}

impl KeyRing {
    /// Nobody's ring so far.
    #[must_use]
    pub fn new(chance: Chance) -> KeyRing {
        KeyRing { keys: CookieKeys::default(), chance }
    }

    /// See [`CookieKeys::renew`].
    pub fn renew(&mut self, now: Instant) -> bool {
        let key = || Ok::<_, Infallible>([self.chance.draw(), self.chance.draw() | 1]);
        self.keys.renew(now.as_nanos(), key).unwrap_or_else(|never| match never {})
    }
}

impl Sources for Maps {
    fn prefix(&self, _address: &[u8; 16]) -> Option<PrefixValue> {
        None
    }

    fn admit_syn(&self, _source: &[u8; 16], _limit: &Rate) -> bool {
        true
    }
}
