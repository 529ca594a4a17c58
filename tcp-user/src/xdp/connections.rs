//! CONNECTIONS as a worker writes it: many entries by one system call.

use tcp_common::{ConnectionKey, ConnectionValue};

use super::XdpError;

/// A handle to the map CONNECTIONS; every worker thread has its own.
#[derive(Debug)]
pub struct ConnectionTable {}

impl ConnectionTable {
    /// Inserts entries (or overwrites ones with the same key) and calls `failed` with the key of each that
    /// found no room.
    pub fn insert_batch(
        &mut self,
        entries: &[(ConnectionKey, ConnectionValue)],
        failed: impl FnMut(ConnectionKey),
    ) -> Result<(), XdpError> {
        todo!()
    }

    /// Overwrites those of `entries` that still exist; what somebody deleted stays deleted.
    pub fn update_batch(&mut self, entries: &[(ConnectionKey, ConnectionValue)]) -> Result<(), XdpError> {
        todo!()
    }

    /// Deletes entries; a missing one is no error.
    pub fn delete_batch(&mut self, keys: &[ConnectionKey]) -> Result<(), XdpError> {
        todo!()
    }

    /// Deletes every entry and says how many there were.
    pub fn clear(&mut self) -> Result<usize, XdpError> {
        todo!()
    }

    /// Another handle to the same map.
    pub fn try_clone(&self) -> Result<ConnectionTable, XdpError> {
        todo!()
    }
}
