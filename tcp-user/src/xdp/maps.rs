//! The program's maps but CONNECTIONS, as the daemon's main thread writes them.
//!
//! Each setter takes the whole of what should be and writes only what changed. An order of writes is chosen so
//! that the program never sees a port as owned before it can tell whose it is.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::hash::Hash;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, BorrowedFd};

use aya::Ebpf;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, XskMap};
use tcp_common::cookie::CookieKeys;
use tcp_common::counters::Counters;
use tcp_common::gauge::Gauge;
use tcp_common::layout::{
    Config, ConnectionKey, ConnectionValue, LAYOUT_VERSION, ListenerKey, ListenerValue, MAX_ADDRESSES, MAX_LISTENERS,
    MAX_PREFIXES, PORT_WORDS, PrefixValue, resets, to_bytes,
};
use tcp_common::prefix::{Prefix, Rule};
use tcp_common::rate::{Rate, RateLimit};

use super::demand::CookieDemands;
use super::pins::MapShape;
use super::{Answers, ConnectionTable, LoadOptions, XdpError};
use crate::sys::bpf::{BPF_EXIST, Plain};

/// The pinned maps.
pub(super) fn shapes(options: &LoadOptions) -> [MapShape; 5] {
    let shape = |name, key_size, value_size, max_entries| MapShape { name, key_size, value_size, max_entries };
    let index = size_of::<u32>();
    [
        shape("CONNECTIONS", size_of::<ConnectionKey>(), size_of::<ConnectionValue>(), options.max_connections),
        shape("LISTENERS", size_of::<ListenerKey>(), size_of::<ListenerValue>(), MAX_LISTENERS),
        shape("COUNTERS", index, size_of::<Counters>(), 1),
        shape("XSKS", index, size_of::<u32>(), options.queues),
        shape("CONFIG", index, size_of::<Config>(), 1),
    ]
}

/// Handles to the maps, and what was last written to them.
pub(super) struct ProgramMaps {
    connections: MapData,
    listeners: HashMap<MapData, Plain<ListenerKey>, Plain<ListenerValue>>,
    counters: PerCpuArray<MapData, Plain<Counters>>,
    sockets: XskMap<MapData>,
    config: Array<MapData, Plain<Config>>,
    ports: Array<MapData, u64>,
    vlans: Array<MapData, u64>,
    addresses: HashMap<MapData, [u8; 16], u32>,
    cookie_keys: Array<MapData, Plain<CookieKeys>>,
    /// A handle by which others are made.
    cookie_demand_fd: MapData,
    cookie_demand: Array<MapData, u64>,
    gauges: Array<MapData, Plain<Gauge>>,
    prefixes: LpmTrie<MapData, [u8; 16], Plain<PrefixValue>>,
    sources: HashMap<MapData, [u8; 16], Plain<RateLimit>>,
    written: Written,
}

impl fmt::Debug for ProgramMaps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProgramMaps").field("written", &self.written).finish_non_exhaustive()
    }
}

/// What was last written.
#[derive(Debug)]
struct Written {
    config: Config,
    /// Each with the value that it has there.
    listeners: std::collections::HashMap<Plain<ListenerKey>, ListenerValue>,
    addresses: HashSet<[u8; 16]>,
    prefixes: BTreeMap<Prefix, Rule>,
    ports: Vec<u64>,
}

impl ProgramMaps {
    /// Takes the maps out of a loaded object.
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<ProgramMaps, XdpError> {
        let written = Written {
            config: Config::default(),
            listeners: std::collections::HashMap::new(),
            addresses: HashSet::new(),
            prefixes: BTreeMap::new(),
            ports: vec![0; PORT_WORDS as usize],
        };
        let connections = match ebpf.take_map("CONNECTIONS") {
            Some(Map::HashMap(data)) => data,
            _ => return Err(XdpError::Missing { name: "CONNECTIONS" }),
        };
        let cookie_demand_fd = match ebpf.take_map("COOKIE_DEMAND") {
            Some(Map::Array(data)) => data,
            _ => return Err(XdpError::Missing { name: "COOKIE_DEMAND" }),
        };
        Ok(ProgramMaps {
            connections,
            listeners: map(ebpf, "LISTENERS")?,
            counters: map(ebpf, "COUNTERS")?,
            sockets: map(ebpf, "XSKS")?,
            config: map(ebpf, "CONFIG")?,
            ports: map(ebpf, "PORTS")?,
            vlans: map(ebpf, "VLANS")?,
            addresses: map(ebpf, "ADDRESSES")?,
            cookie_keys: map(ebpf, "COOKIE_KEYS")?,
            cookie_demand: demands(&cookie_demand_fd)?,
            cookie_demand_fd,
            gauges: map(ebpf, "GAUGES")?,
            prefixes: map(ebpf, "PREFIXES")?,
            sources: map(ebpf, "SOURCES")?,
            written,
        })
    }

    /// Brings maps that may have been adopted to the state of new ones (COUNTERS keep counting), and writes what
    /// stays as it is while the program runs.
    pub(super) fn reset(&mut self, options: &LoadOptions) -> Result<(), XdpError> {
        for stale in self.listeners.keys() {
            self.written.listeners.insert(stale.map_err(XdpError::map("LISTENERS"))?, ListenerValue::default());
        }
        self.disown_all()?;
        for vid in &options.vlans {
            let word = u32::from(*vid) / 64;
            let bits = self.vlans.get(&word, 0).map_err(XdpError::map("VLANS"))?;
            self.vlans.set(word, bits | 1 << (vid % 64), 0).map_err(XdpError::map("VLANS"))?;
        }
        self.write_config(|config| {
            config.layout_version = LAYOUT_VERSION;
            config.mac = options.mac;
        })
    }

    /// Makes the program leave everything to the kernel.
    pub(super) fn disown_all(&mut self) -> Result<(), XdpError> {
        for word in 0..PORT_WORDS {
            self.set_port_word(word, 0)?;
        }
        self.set_listeners(&[])?;
        self.set_addresses(&[])?;
        self.connections()?.clear().map(drop)
    }

    pub(super) fn set_socket(&mut self, queue: u32, socket: BorrowedFd<'_>) -> Result<(), XdpError> {
        self.sockets.set(queue, socket, 0).map_err(XdpError::map("XSKS"))
    }

    pub(super) fn set_listeners(&mut self, listeners: &[(SocketAddr, ListenerValue)]) -> Result<(), XdpError> {
        limit("listeners", listeners.len(), MAX_LISTENERS)?;
        let wanted: HashSet<_> = listeners.iter().map(|(local, _)| Plain(ListenerKey::new(*local))).collect();
        for gone in difference(&self.written.listeners.keys().copied().collect(), &wanted) {
            tolerate_missing(self.listeners.remove(&gone)).map_err(XdpError::map("LISTENERS"))?;
            self.written.listeners.remove(&gone);
        }
        for (index, (local, value)) in listeners.iter().enumerate() {
            let key = Plain(ListenerKey::new(*local));
            let value = ListenerValue { index: index as u32, ..*value };
            self.listeners.insert(key, Plain(value), 0).map_err(XdpError::map("LISTENERS"))?;
            self.written.listeners.insert(key, value);
            self.own_ports(local.port()..=local.port())?;
        }
        Ok(())
    }

    /// Writes the figures of listeners that changed. What is no listener any more, or was deleted by somebody, stays
    /// away.
    pub(super) fn set_listener_figures(
        &mut self,
        figures: impl IntoIterator<Item = (SocketAddr, ListenerValue)>,
    ) -> Result<(), XdpError> {
        for (local, figures) in figures {
            let key = Plain(ListenerKey::new(local));
            let Some(written) = self.written.listeners.get_mut(&key) else { continue };
            let value = written.with_figures_of(&figures);
            if core::mem::replace(written, value) == value {
                continue;
            }
            let updated = self.listeners.insert(key, Plain(value), BPF_EXIST);
            tolerate_missing(updated).map_err(XdpError::map("LISTENERS"))?;
        }
        Ok(())
    }

    pub(super) fn set_addresses(&mut self, addresses: &[IpAddr]) -> Result<(), XdpError> {
        limit("addresses", addresses.len(), MAX_ADDRESSES)?;
        let wanted: HashSet<_> = addresses.iter().map(|address| to_bytes(*address)).collect();
        for gone in difference(&self.written.addresses, &wanted) {
            tolerate_missing(self.addresses.remove(&gone)).map_err(XdpError::map("ADDRESSES"))?;
            self.written.addresses.remove(&gone);
        }
        for new in difference(&wanted, &self.written.addresses) {
            self.addresses.insert(new, 1, 0).map_err(XdpError::map("ADDRESSES"))?;
            self.written.addresses.insert(new);
        }
        Ok(())
    }

    pub(super) fn set_prefix(&mut self, prefix: Prefix, rule: Rule) -> Result<(), XdpError> {
        if !self.written.prefixes.contains_key(&prefix) {
            limit("prefixes", self.written.prefixes.len() + 1, MAX_PREFIXES)?;
        }
        let inserted = self.prefixes.insert(&trie_key(&prefix), Plain(prefix.value(rule)), 0);
        inserted.map_err(XdpError::map("PREFIXES"))?;
        self.written.prefixes.insert(prefix, rule);
        self.count_prefixes()
    }

    pub(super) fn remove_prefix(&mut self, prefix: &Prefix) -> Result<(), XdpError> {
        tolerate_missing(self.prefixes.remove(&trie_key(prefix))).map_err(XdpError::map("PREFIXES"))?;
        self.written.prefixes.remove(prefix);
        self.count_prefixes()
    }

    pub(super) fn prefixes(&self) -> &BTreeMap<Prefix, Rule> {
        &self.written.prefixes
    }

    fn count_prefixes(&mut self) -> Result<(), XdpError> {
        let count = self.written.prefixes.len() as u32;
        self.write_config(|config| config.prefixes = count)
    }

    /// Limits the SYNs of each source, and forgets those that were counted.
    pub(super) fn set_source_limit(&mut self, limit: Rate) -> Result<(), XdpError> {
        let counted: Result<Vec<_>, _> = self.sources.keys().collect();
        for source in counted.map_err(XdpError::map("SOURCES"))? {
            tolerate_missing(self.sources.remove(&source)).map_err(XdpError::map("SOURCES"))?;
        }
        self.write_config(|config| config.source = limit)
    }

    pub(super) fn set_ephemeral_ports(&mut self, ports: RangeInclusive<u16>) -> Result<(), XdpError> {
        self.write_config(|config| {
            (config.ephemeral_first, config.ephemeral_last) = (*ports.start(), *ports.end());
        })?;
        self.own_ports(ports)
    }

    pub(super) fn set_answers(&mut self, answers: &Answers) -> Result<(), XdpError> {
        self.write_config(|config| {
            config.answers = answers.enabled.into();
            config.accept_partial = answers.accept_partial.into();
            config.time_wait_ms = answers.time_wait_ms;
            config.resets = resets(answers.rst_rate);
        })
    }

    pub(super) fn set_cookie_keys(&mut self, keys: &CookieKeys) -> Result<(), XdpError> {
        self.cookie_keys.set(0, Plain(*keys), 0).map_err(XdpError::map("COOKIE_KEYS"))
    }

    /// Whether the program answers SYNs to the listener with this index with cookies: because there are many, or because
    /// a worker asked it to.
    pub(super) fn sends_cookies(&self, index: u32, now_ns: u64) -> Result<bool, XdpError> {
        let Plain(gauge) = self.gauges.get(&index, 0).map_err(XdpError::map("GAUGES"))?;
        let demanded = self.cookie_demand.get(&index, 0).map_err(XdpError::map("COOKIE_DEMAND"))?;
        Ok(self.written.config.answers != 0 && (gauge.is_on(now_ns) || now_ns < demanded))
    }

    pub(super) fn cookie_demands(&self, listeners: &[SocketAddr]) -> Result<CookieDemands, XdpError> {
        Ok(CookieDemands { map: demands(&self.cookie_demand_fd)?, listeners: listeners.to_vec() })
    }

    pub(super) fn heartbeat(&mut self, now_ns: u64) -> Result<(), XdpError> {
        self.write_config(|config| config.heartbeat_ns = now_ns)
    }

    pub(super) fn counters(&self) -> Result<Counters, XdpError> {
        let of_cpus = self.counters.get(&0, 0).map_err(XdpError::map("COUNTERS"))?;
        let mut sum = Counters::default();
        for Plain(of_cpu) in of_cpus.iter() {
            sum += *of_cpu;
        }
        Ok(sum)
    }

    pub(super) fn connections(&self) -> Result<ConnectionTable, XdpError> {
        ConnectionTable::new(&self.connections)
    }

    fn write_config(&mut self, change: impl FnOnce(&mut Config)) -> Result<(), XdpError> {
        change(&mut self.written.config);
        self.config.set(0, Plain(self.written.config), 0).map_err(XdpError::map("CONFIG"))
    }

    /// Marks ports as possibly ours. A mark stays when its listener goes: the program then finds neither
    /// listener nor connection and leaves the segment to the kernel, one lookup later.
    fn own_ports(&mut self, ports: RangeInclusive<u16>) -> Result<(), XdpError> {
        let mut wanted = self.written.ports.clone();
        for port in ports {
            wanted[usize::from(port / 64)] |= 1 << (port % 64);
        }
        for (word, bits) in wanted.into_iter().enumerate() {
            self.set_port_word(word as u32, bits)?;
        }
        Ok(())
    }

    fn set_port_word(&mut self, word: u32, bits: u64) -> Result<(), XdpError> {
        let written = &mut self.written.ports[word as usize];
        if *written != bits {
            self.ports.set(word, bits, 0).map_err(XdpError::map("PORTS"))?;
            *written = bits;
        }
        Ok(())
    }
}

fn map<T>(ebpf: &mut Ebpf, name: &'static str) -> Result<T, XdpError>
where
    T: TryFrom<Map, Error = MapError>,
{
    ebpf.take_map(name).ok_or(XdpError::Missing { name })?.try_into().map_err(XdpError::map(name))
}

/// Another handle to COOKIE_DEMAND.
fn demands(map: &MapData) -> Result<Array<MapData, u64>, XdpError> {
    let fd = map.fd().as_fd().try_clone_to_owned().map_err(XdpError::table)?;
    let map = MapData::from_fd(fd).and_then(|data| Map::Array(data).try_into());
    map.map_err(XdpError::map("COOKIE_DEMAND"))
}

fn trie_key(prefix: &Prefix) -> Key<[u8; 16]> {
    Key::new(prefix.length().into(), prefix.address())
}

fn difference<T: Copy + Eq + Hash>(minuend: &HashSet<T>, subtrahend: &HashSet<T>) -> Vec<T> {
    minuend.difference(subtrahend).copied().collect()
}

fn limit(what: &'static str, given: usize, limit: u32) -> Result<(), XdpError> {
    if given > limit as usize {
        return Err(XdpError::TooMany { what, given, limit: limit as usize });
    }
    Ok(())
}

/// Somebody may have deleted the element with bpftool.
fn tolerate_missing(removed: Result<(), MapError>) -> Result<(), MapError> {
    match removed {
        Err(error) if super::error::errno(&error) == Some(libc::ENOENT) => Ok(()),
        other => other,
    }
}
