//! What a worker waits for besides its timers and applications: a device that says when frames arrived.

use std::future::Future;
use std::io;

use tcp_common::{ConnectionKey, ConnectionValue};
use tcp_proto::Device;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::afxdp::{RingStatistics, WorkerDevice};

/// A [`Device`] that can be waited for.
pub trait Link: Device {
    /// Waits until frames may have arrived. May return early; frames that arrived before the last
    /// [`Device::receive`] are not waited for, so look at [`Link::work`] first.
    fn arrival(&self) -> impl Future<Output = io::Result<()>>;

    /// What is left after a turn.
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
    /// Nothing.
    None,
}

/// The AF_XDP socket of a worker, registered with the worker's runtime.
pub struct AfXdpLink(AsyncFd<WorkerDevice>);

impl AfXdpLink {
    /// Registers the socket; call it inside the runtime that drives it.
    pub fn new(device: WorkerDevice) -> io::Result<Self> {
        AsyncFd::with_interest(device, Interest::READABLE).map(AfXdpLink)
    }
}

impl Link for AfXdpLink {
    async fn arrival(&self) -> io::Result<()> {
        self.0.readable().await?.clear_ready();
        Ok(())
    }

    fn work(&mut self) -> Work {
        let socket = self.0.get_mut().socket();
        if socket.has_received() {
            Work::Receive
        } else if socket.transmit_pending() > 0 {
            Work::Transmit
        } else {
            Work::None
        }
    }

    fn statistics(&mut self) -> io::Result<RingStatistics> {
        self.0.get_mut().socket().statistics()
    }
}

impl Device for AfXdpLink {
    fn receive(&mut self, limit: usize, sink: impl FnMut(&[u8])) {
        self.0.get_mut().receive(limit, sink);
    }

    fn commit(
        &mut self,
        new: &[(ConnectionKey, ConnectionValue)],
        changed: &[(ConnectionKey, ConnectionValue)],
        failed: impl FnMut(ConnectionKey),
    ) {
        self.0.get_mut().commit(new, changed, failed);
    }

    fn transmit(&mut self, limit: usize, build: impl FnMut(&mut [u8]) -> Option<usize>) {
        self.0.get_mut().transmit(limit, build);
    }

    fn remove(&mut self, keys: &[ConnectionKey]) {
        self.0.get_mut().remove(keys);
    }
}
