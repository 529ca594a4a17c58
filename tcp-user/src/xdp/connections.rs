//! CONNECTIONS as a worker writes it: many entries by one system call.

use std::io;
use std::os::fd::AsFd;

use aya::maps::{HashMap, MapData};
use tcp_common::{ConnectionKey, ConnectionValue};

use super::XdpError;
use crate::sys::bpf::{BatchMap, Connections, Plain, Stopped};

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

    /// Overwrites those of `entries` that still exist; what somebody deleted stays deleted.
    pub fn update_batch(&mut self, entries: &[(ConnectionKey, ConnectionValue)]) -> Result<(), XdpError> {
        for (key, value) in entries {
            self.map.update_existing(key, value).map_err(XdpError::table)?;
        }
        Ok(())
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

fn is_full(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::E2BIG | libc::ENOMEM))
}
