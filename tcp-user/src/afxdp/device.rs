//! What a worker turns: one AF_XDP socket and the connection table of the XDP program.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use tcp_common::{ConnectionKey, ConnectionValue};
use tcp_proto::Device;

use super::socket::XskSocket;
use crate::sys::readiness::Readable;
use crate::xdp::{self, XdpError};

type Entry = (ConnectionKey, ConnectionValue);

/// The table of connections that the XDP program reads; one system call per method.
pub trait Table {
    /// Inserts entries and calls `failed` with the key of each that found no room.
    ///
    /// # Errors
    /// When the kernel refused the call as a whole; then any entry may be missing.
    fn insert_batch(&mut self, entries: &[Entry], failed: impl FnMut(ConnectionKey)) -> Result<(), XdpError>;

    /// Overwrites those of `entries` that still exist.
    ///
    /// # Errors
    /// When the kernel refused the call as a whole.
    fn update_batch(&mut self, entries: &[Entry]) -> Result<(), XdpError>;

    /// Deletes entries; a missing one is no error.
    ///
    /// # Errors
    /// When the kernel refused the call as a whole.
    fn delete_batch(&mut self, keys: &[ConnectionKey]) -> Result<(), XdpError>;
}

impl Table for xdp::ConnectionTable {
    fn insert_batch(&mut self, entries: &[Entry], failed: impl FnMut(ConnectionKey)) -> Result<(), XdpError> {
        xdp::ConnectionTable::insert_batch(self, entries, failed)
    }

    fn update_batch(&mut self, entries: &[Entry]) -> Result<(), XdpError> {
        xdp::ConnectionTable::update_batch(self, entries)
    }

    fn delete_batch(&mut self, keys: &[ConnectionKey]) -> Result<(), XdpError> {
        xdp::ConnectionTable::delete_batch(self, keys)
    }
}

/// A worker's packet interface and connection table.
pub struct WorkerDevice<T = xdp::ConnectionTable> {
    socket: XskSocket,
    table: T,
    table_errors: u64,
}

impl<T: Table> WorkerDevice<T> {
    /// Puts the two together.
    pub fn new(socket: XskSocket, table: T) -> Self {
        WorkerDevice { socket, table, table_errors: 0 }
    }

    /// The socket, for statistics and [`XskSocket::has_received`].
    pub fn socket(&mut self) -> &mut XskSocket {
        &mut self.socket
    }

    /// Tells when frames arrive; call it inside the runtime that will wait. After a wait, and before the next one,
    /// receive until [`XskSocket::has_received`] says that nothing is left.
    ///
    /// # Errors
    /// When the socket can't be polled.
    pub fn arrivals(&self) -> io::Result<Readable> {
        Readable::new(self.socket.as_fd())
    }

    /// The table.
    pub fn table(&mut self) -> &mut T {
        &mut self.table
    }

    /// Calls to the table that the kernel refused as a whole; each is logged.
    #[must_use]
    pub fn table_errors(&self) -> u64 {
        self.table_errors
    }

    fn insert(&mut self, new: &[Entry], mut failed: impl FnMut(ConnectionKey)) {
        let mut refused = Vec::new();
        let result = self.table.insert_batch(new, |key| refused.push(key));
        if let Err(error) = result {
            self.complain("insert into", &error);
            refused = new.iter().map(|(key, _)| *key).collect();
        }
        refused.into_iter().for_each(&mut failed);
    }

    fn complain(&mut self, doing: &str, error: &XdpError) {
        self.table_errors += 1;
        // The first and then ever rarer ones: a table that is gone would otherwise fill the log.
        if self.table_errors.is_power_of_two() {
            tracing::error!(errors = self.table_errors, "can't {doing} the connection table: {error}");
        }
    }
}

impl<T: Table> Device for WorkerDevice<T> {
    fn receive(&mut self, limit: usize, mut sink: impl FnMut(&[u8])) {
        self.socket.receive(limit, |received| sink(received.frame));
    }

    fn commit(&mut self, new: &[Entry], changed: &[Entry], failed: impl FnMut(ConnectionKey)) {
        if !new.is_empty() {
            self.insert(new, failed);
        }
        if !changed.is_empty()
            && let Err(error) = self.table.update_batch(changed)
        {
            self.complain("update", &error);
        }
    }

    fn transmit(&mut self, limit: usize, build: impl FnMut(&mut [u8]) -> Option<usize>) {
        self.socket.transmit(limit, build);
    }

    fn remove(&mut self, keys: &[ConnectionKey]) {
        if !keys.is_empty()
            && let Err(error) = self.table.delete_batch(keys)
        {
            self.complain("delete from", &error);
        }
    }
}

impl<T> AsFd for WorkerDevice<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// For other poll loops than tokio's.
impl<T> AsRawFd for WorkerDevice<T> {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}
