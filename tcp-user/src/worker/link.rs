//! What a worker waits for besides its timers and applications: a device that says when frames arrived.

use std::future::Future;
use std::io;

use tcp_common::{ConnectionKey, ConnectionValue};
use tcp_proto::{CookieDemand, Device, NoEntry};

use crate::afxdp::{Arrivals, RingStatistics, WorkerDevice};

/// A [`Device`] that can be waited for.
pub trait Link: Device {
    /// Waits until frames may have arrived. May return early; frames that arrived before the last
    /// [`Device::receive`] are not waited for, so look at [`Link::work`] first.
    fn arrival(&self) -> impl Future<Output = io::Result<()>>;

    /// What is left after a turn; ask once a turn.
    fn work(&mut self) -> Work;

    /// Figures for `xtcp stats`.
    fn statistics(&mut self) -> io::Result<RingStatistics>;
}

/// What a turn left over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Frames to receive.
    Receive,
    /// Frames that were built but that the kernel has not taken yet.
    Transmit,
    /// The same, and it has taken none since the last turn.
    Stuck,
    /// Nothing.
    None,
}

/// The AF_XDP socket of a worker, registered with the worker's runtime.
pub struct AfXdpLink {
    device: WorkerDevice,
    arrivals: Arrivals,
    /// Frames that the kernel had taken when we last looked.
    sent: u64,
}

impl AfXdpLink {
    /// Registers the socket; call it inside the runtime that drives it.
    pub fn new(device: WorkerDevice) -> io::Result<Self> {
        let arrivals = device.arrivals()?;
        Ok(AfXdpLink { device, arrivals, sent: 0 })
    }
}

impl Link for AfXdpLink {
    async fn arrival(&self) -> io::Result<()> {
        self.arrivals.wait().await
    }

    fn work(&mut self) -> Work {
        let before = std::mem::replace(&mut self.sent, self.device.frames_sent());
        if self.device.has_received() {
            Work::Receive
        } else if self.device.transmit_pending() == 0 {
            Work::None
        } else if self.sent > before {
            Work::Transmit
        } else {
            Work::Stuck
        }
    }

    fn statistics(&mut self) -> io::Result<RingStatistics> {
        self.device.statistics()
    }
}

impl Device for AfXdpLink {
    fn receive(&mut self, limit: usize, sink: impl FnMut(&[u8])) {
        self.device.receive(limit, sink);
    }

    fn commit(
        &mut self,
        new: &[(ConnectionKey, ConnectionValue)],
        changed: &[(ConnectionKey, ConnectionValue)],
        failed: impl FnMut(ConnectionKey, NoEntry),
    ) {
        self.device.commit(new, changed, failed);
    }

    fn transmit(&mut self, limit: usize, build: impl FnMut(&mut [u8]) -> Option<usize>) {
        self.device.transmit(limit, build);
    }

    fn demand_cookies(&mut self, demand: CookieDemand) {
        self.device.demand_cookies(demand);
    }

    fn remove(&mut self, keys: &[ConnectionKey]) {
        self.device.remove(keys);
    }

    fn take_strangers(&mut self) -> Vec<ConnectionKey> {
        self.device.take_strangers()
    }

    fn prolongs_time_waits(&mut self) -> bool {
        self.device.prolongs_time_waits()
    }

    fn is_deleted(&mut self, key: &ConnectionKey) -> bool {
        self.device.is_deleted(key)
    }

    fn lookup(&mut self, key: &ConnectionKey) -> Option<ConnectionValue> {
        self.device.lookup(key)
    }
}
