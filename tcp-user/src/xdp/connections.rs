//! CONNECTIONS as a worker writes it: many entries by one system call.

use std::io;
use std::mem::offset_of;
use std::os::fd::AsFd;

use aya::maps::{HashMap, MapData};
use tcp_common::{ConnectionKey, ConnectionValue, State};
use tcp_proto::NoEntry;

use super::XdpError;
use crate::sys::bpf::{BPF_EXIST, BPF_NOEXIST, BatchMap, Connections, Plain, Stopped};

/// Most elements that one system call deletes when the map is cleared.
const CLEAR_BATCH: usize = 256;

/// A handle to the map CONNECTIONS; every worker thread has its own.
#[derive(Debug)]
pub struct ConnectionTable {
    map: BatchMap<Connections>,
    /// The keys and values of a batch, each contiguous as the kernel wants them; kept for their memory.
    keys: Vec<ConnectionKey>,
    values: Vec<ConnectionValue>,
}

impl ConnectionTable {
    pub(super) fn new(map: &MapData) -> Result<Self, XdpError> {
        let info = map.info().map_err(XdpError::map("CONNECTIONS"))?;
        let fd = map.fd().as_fd().try_clone_to_owned().map_err(XdpError::table)?;
        let map = BatchMap::new(fd, info.key_size(), info.value_size()).map_err(XdpError::table)?;
        Ok(ConnectionTable { map, keys: Vec::new(), values: Vec::new() })
    }

    /// Inserts entries (or overwrites ones with the same key) and calls `failed` with the key of each that
    /// found no room.
    ///
    /// One system call, and one more for each entry without room.
    pub fn insert_batch(
        &mut self,
        entries: &[(ConnectionKey, ConnectionValue)],
        mut failed: impl FnMut(ConnectionKey),
    ) -> Result<(), XdpError> {
        self.stage(entries);
        let mut next = 0;
        while let Err(Stopped { done, error }) = self.map.update(&self.keys[next..], &self.values[next..]) {
            if !is_full(&error) {
                return Err(XdpError::table(error));
            }
            failed(self.keys[next + done]);
            next += done + 1;
        }
        Ok(())
    }

    /// The same, but leaves entries alone that belong to another queue: a SYN that is repeated may change its queue while
    /// its first copy is being answered.
    ///
    /// One system call for each entry, because the kernel takes no such flag for a batch.
    pub fn insert_beside_others(
        &mut self,
        entries: &[(ConnectionKey, ConnectionValue)],
        mut failed: impl FnMut(ConnectionKey, NoEntry),
    ) -> Result<(), XdpError> {
        for (key, value) in entries {
            match self.insert_own(key, value) {
                Ok(true) => {}
                Ok(false) => failed(*key, NoEntry::Taken),
                Err(error) if is_full(&error) => failed(*key, NoEntry::Full),
                Err(error) => return Err(XdpError::table(error)),
            }
        }
        Ok(())
    }

    /// Inserts an entry, or overwrites one of the same queue; `Ok(false)`: another queue has it.
    fn insert_own(&self, key: &ConnectionKey, value: &ConnectionValue) -> io::Result<bool> {
        const QUEUE: usize = offset_of!(ConnectionValue, queue);
        loop {
            if self.map.update_one(key, value, BPF_NOEXIST)? {
                return Ok(true);
            }
            let Some(bytes) = self.map.lookup::<{ size_of::<ConnectionValue>() }>(key)? else { continue };
            if bytes[QUEUE..QUEUE + size_of_val(&value.queue)] != value.queue.to_ne_bytes() {
                return Ok(false);
            }
            if self.map.update_one(key, value, BPF_EXIST)? {
                return Ok(true);
            }
        }
    }

    /// Overwrites those of `entries` that still exist; what somebody deleted stays deleted.
    pub fn update_batch(&mut self, entries: &[(ConnectionKey, ConnectionValue)]) -> Result<(), XdpError> {
        for (key, value) in entries {
            self.map.update_one(key, value, BPF_EXIST).map_err(XdpError::table)?;
        }
        Ok(())
    }

    /// The entry of `key`; `None`: there is none.
    pub fn lookup(&self, key: &ConnectionKey) -> Result<Option<ConnectionValue>, XdpError> {
        Ok(self.map.lookup(key).map_err(XdpError::table)?.map(value_of))
    }

    /// Deletes entries; a missing one is no error.
    ///
    /// One system call, and one more for each missing entry.
    pub fn delete_batch(&mut self, keys: &[ConnectionKey]) -> Result<(), XdpError> {
        let mut rest = keys;
        while let Err(Stopped { done, error }) = self.map.delete(rest) {
            if error.raw_os_error() != Some(libc::ENOENT) {
                return Err(XdpError::table(error));
            }
            rest = &rest[done + 1..];
        }
        Ok(())
    }

    /// Looks at about `count` entries from `cursor` on (`None`: the first) and calls `found` with the queue and the key of
    /// each that the program made for a cookie before `made_before` (CLOCK_MONOTONIC, ns) and no worker wrote since. Where
    /// to go on; `None`: that was the end.
    pub fn made_by_program(
        &self,
        cursor: Option<u32>,
        count: usize,
        made_before: u64,
        mut found: impl FnMut(u16, ConnectionKey),
    ) -> Result<Option<u32>, XdpError> {
        let mut entries = Vec::new();
        let next = self.map.slice::<{ size_of::<ConnectionValue>() }>(cursor, count, &mut entries);
        for (key, bytes) in entries {
            let value = value_of(bytes);
            if value.is_unclaimed_since(made_before) {
                found(value.queue, key);
            }
        }
        next.map_err(XdpError::table)
    }

    /// Deletes every entry and says how many there were.
    pub fn clear(&mut self) -> Result<usize, XdpError> {
        let fd = self.map.fd().try_clone().map_err(XdpError::table)?;
        let map = MapData::from_fd(fd).map_err(XdpError::map("CONNECTIONS"))?;
        let map = HashMap::<_, Plain<ConnectionKey>, [u8; size_of::<ConnectionValue>()]>::try_from(
            aya::maps::Map::HashMap(map),
        )
        .map_err(XdpError::map("CONNECTIONS"))?;
        let mut cleared = 0;
        loop {
            let keys: Result<Vec<_>, _> = map.keys().take(CLEAR_BATCH).collect();
            let keys: Vec<_> = keys.map_err(XdpError::map("CONNECTIONS"))?.into_iter().map(|Plain(key)| key).collect();
            if keys.is_empty() {
                return Ok(cleared);
            }
            self.delete_batch(&keys)?;
            cleared += keys.len();
        }
    }

    /// Another handle to the same map.
    pub fn try_clone(&self) -> Result<ConnectionTable, XdpError> {
        let map = self.map.try_clone().map_err(XdpError::table)?;
        Ok(ConnectionTable { map, keys: Vec::new(), values: Vec::new() })
    }

    fn stage(&mut self, entries: &[(ConnectionKey, ConnectionValue)]) {
        self.keys.clear();
        self.values.clear();
        self.keys.extend(entries.iter().map(|(key, _)| key));
        self.values.extend(entries.iter().map(|(_, value)| value));
    }
}

/// The value that the bytes of an element are. What lies in the map need not be a valid [`ConnectionValue`]: a state that
/// is none becomes the default.
fn value_of(bytes: [u8; size_of::<ConnectionValue>()]) -> ConnectionValue {
    let short = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
    let word = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap_or_default());
    let long = |at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap_or_default());
    let state = usize::from(bytes[offset_of!(ConnectionValue, state)]);
    ConnectionValue {
        state: State::ALL.get(state).copied().unwrap_or_default(),
        flags: bytes[offset_of!(ConnectionValue, flags)],
        queue: short(offset_of!(ConnectionValue, queue)),
        snd_nxt: word(offset_of!(ConnectionValue, snd_nxt)),
        rcv_nxt: word(offset_of!(ConnectionValue, rcv_nxt)),
        ts_recent: word(offset_of!(ConnectionValue, ts_recent)),
        since_ns: long(offset_of!(ConnectionValue, since_ns)),
        deadline_ns: long(offset_of!(ConnectionValue, deadline_ns)),
        segments_in: long(offset_of!(ConnectionValue, segments_in)),
        segments_out: long(offset_of!(ConnectionValue, segments_out)),
        bytes_in: long(offset_of!(ConnectionValue, bytes_in)),
        bytes_out: long(offset_of!(ConnectionValue, bytes_out)),
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::E2BIG | libc::ENOMEM))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_of_an_element_are_read_field_by_field() {
        let long = |n: u8| u64::from_ne_bytes([n; 8]);
        let mut bytes = [0; size_of::<ConnectionValue>()];
        bytes[..2].copy_from_slice(&[State::TIME_WAIT as u8, 1]);
        bytes[2..4].copy_from_slice(&3u16.to_ne_bytes());
        for (at, word) in [4, 5, 6].into_iter().enumerate() {
            bytes[4 + 4 * at..][..4].copy_from_slice(&u32::to_ne_bytes(word));
        }
        (0..6).for_each(|at| bytes[16 + 8 * at..][..8].fill(10 + at as u8));
        let value = ConnectionValue {
            state: State::TIME_WAIT,
            flags: 1,
            queue: 3,
            snd_nxt: 4,
            rcv_nxt: 5,
            ts_recent: 6,
            since_ns: long(10),
            deadline_ns: long(11),
            segments_in: long(12),
            segments_out: long(13),
            bytes_in: long(14),
            bytes_out: long(15),
        };
        assert_eq!(value_of(bytes), value);
    }
}
