//! What a worker turns: one AF_XDP socket and the connection table of the XDP program.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use tcp_common::{ConnectionKey, ConnectionValue};
use tcp_proto::{CookieDemand, Device, NoEntry};
use tokio::sync::Notify;

use super::handover::Exchange;
use super::socket::{RingStatistics, XskSocket};
use crate::sys::readiness::Readable;
use crate::xdp::{self, XdpError};

type Entry = (ConnectionKey, ConnectionValue);

/// The table of connections that the XDP program reads.
pub trait Table {
    /// Inserts entries and calls `failed` with the key of each that found no room. With `others` other workers write
    /// the table, too: what is theirs stays theirs.
    ///
    /// # Errors
    /// When the kernel refused the call as a whole; then any entry may be missing.
    fn insert(
        &mut self,
        entries: &[Entry],
        others: bool,
        failed: impl FnMut(ConnectionKey, NoEntry),
    ) -> Result<(), XdpError>;

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

    /// The entry of `key`; `None`: there is none.
    ///
    /// # Errors
    /// When the kernel refused the call.
    fn lookup(&mut self, key: &ConnectionKey) -> Result<Option<ConnectionValue>, XdpError>;
}

impl Table for xdp::ConnectionTable {
    fn insert(
        &mut self,
        entries: &[Entry],
        others: bool,
        mut failed: impl FnMut(ConnectionKey, NoEntry),
    ) -> Result<(), XdpError> {
        if others {
            self.insert_beside_others(entries, failed)
        } else {
            self.insert_batch(entries, |key| failed(key, NoEntry::Full))
        }
    }

    fn update_batch(&mut self, entries: &[Entry]) -> Result<(), XdpError> {
        xdp::ConnectionTable::update_batch(self, entries)
    }

    fn delete_batch(&mut self, keys: &[ConnectionKey]) -> Result<(), XdpError> {
        xdp::ConnectionTable::delete_batch(self, keys)
    }

    fn lookup(&mut self, key: &ConnectionKey) -> Result<Option<ConnectionValue>, XdpError> {
        xdp::ConnectionTable::lookup(self, key)
    }
}

/// A worker's packet interface and connection table.
pub struct WorkerDevice<T = xdp::ConnectionTable> {
    socket: XskSocket,
    table: T,
    exchange: Exchange,
    demands: Option<xdp::CookieDemands>,
    /// Whether the program answers by itself.
    program_answers: bool,
    table_errors: u64,
}

impl<T: Table> WorkerDevice<T> {
    /// The device of the worker of the socket's queue; `exchange` is that queue's end of [`Exchange::among`].
    pub fn new(socket: XskSocket, table: T, exchange: Exchange) -> Self {
        WorkerDevice { socket, table, exchange, demands: None, program_answers: false, table_errors: 0 }
    }

    /// The same for a program that answers by itself (or not): it acknowledges repeated FINs, which prolongs TIME_WAIT.
    #[must_use]
    pub fn with_answers(self, program_answers: bool) -> Self {
        WorkerDevice { program_answers, ..self }
    }

    /// The same for a program that issues SYN cookies, too: it is told through `demands` when the stack does.
    #[must_use]
    pub fn with_cookie_demands(self, demands: xdp::CookieDemands) -> Self {
        WorkerDevice { demands: Some(demands), ..self }
    }

    /// Tells when frames arrive or are handed over; call it inside the runtime that will wait. Before a wait,
    /// receive until [`WorkerDevice::has_received`] says that nothing is left.
    ///
    /// # Errors
    /// When the socket can't be polled.
    pub fn arrivals(&self) -> io::Result<Arrivals> {
        Ok(Arrivals { frames: Readable::new(self.socket.as_fd())?, bell: self.exchange.bell() })
    }

    /// Whether frames wait to be received.
    pub fn has_received(&mut self) -> bool {
        self.exchange.has_waiting() || self.socket.has_received()
    }

    /// Frames that were built and not yet taken by the kernel; see [`XskSocket::transmit_pending`].
    pub fn transmit_pending(&mut self) -> u32 {
        self.socket.transmit_pending()
    }

    /// Frames that the kernel has taken to send; see [`XskSocket::frames_sent`].
    pub fn frames_sent(&mut self) -> u64 {
        self.socket.frames_sent()
    }

    /// Figures of the socket and the exchange.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn statistics(&mut self) -> io::Result<RingStatistics> {
        Ok(RingStatistics { handover: self.exchange.counters(), ..self.socket.statistics()? })
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

    fn insert(&mut self, new: &[Entry], mut failed: impl FnMut(ConnectionKey, NoEntry)) {
        let mut refused = Vec::new();
        let result = self.table.insert(new, self.exchange.has_others(), |key, why| refused.push((key, why)));
        if let Err(error) = result {
            self.complain("insert into", &error);
            refused = new.iter().map(|(key, _)| (*key, NoEntry::Full)).collect();
        }
        refused.into_iter().for_each(|(key, why)| failed(key, why));
    }

    fn find(&mut self, key: &ConnectionKey) -> Result<Option<ConnectionValue>, XdpError> {
        self.table.lookup(key).inspect_err(|error| self.complain("look into", error))
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
        // Half at most for what others received, so that neither of the two keeps the other waiting.
        let handed_in = self.exchange.take(limit.div_ceil(2), &mut sink);
        self.socket.receive(limit - handed_in, |received| {
            if let Some(received) = self.exchange.keep(received) {
                sink(received.frame);
            }
        });
    }

    fn commit(&mut self, new: &[Entry], changed: &[Entry], failed: impl FnMut(ConnectionKey, NoEntry)) {
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

    fn demand_cookies(&mut self, demand: CookieDemand) {
        let Some(demands) = &mut self.demands else { return };
        if let Err(error) = demands.demand(demand.listener, demand.until.as_nanos()) {
            // It comes again in a second.
            tracing::warn!("can't tell the program of cookies: {error}");
        }
    }

    fn remove(&mut self, keys: &[ConnectionKey]) {
        if !keys.is_empty()
            && let Err(error) = self.table.delete_batch(keys)
        {
            self.complain("delete from", &error);
        }
    }

    fn take_strangers(&mut self) -> Vec<ConnectionKey> {
        self.exchange.take_strangers()
    }

    fn prolongs_time_waits(&mut self) -> bool {
        self.program_answers
    }

    fn is_deleted(&mut self, key: &ConnectionKey) -> bool {
        self.find(key).is_ok_and(|entry| entry.is_none())
    }

    fn lookup(&mut self, key: &ConnectionKey) -> Option<ConnectionValue> {
        self.find(key).ok().flatten()
    }
}

/// Tells when a device has something to receive.
#[derive(Debug)]
pub struct Arrivals {
    frames: Readable,
    bell: Arc<Notify>,
}

impl Arrivals {
    /// Waits until frames have arrived or were handed over since the last wait. May return early. Can be dropped
    /// and called again at any time.
    ///
    /// # Errors
    /// When the runtime is shutting down.
    pub async fn wait(&self) -> io::Result<()> {
        tokio::select! {
            outcome = self.frames.wait() => outcome,
            () = self.bell.notified() => Ok(()),
        }
    }
}

impl<T> AsFd for WorkerDevice<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
