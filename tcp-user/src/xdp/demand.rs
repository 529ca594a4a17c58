//! How a worker tells the program that a listener sends SYN cookies: the map COOKIE_DEMAND.

use std::net::SocketAddr;

use aya::maps::{Array, MapData, MapError};

use super::XdpError;

/// Until when ACKs to each listener may bring cookies back that a worker sent, by the listener's position. Every worker
/// has a handle of its own.
pub struct CookieDemands {
    pub(super) map: Array<MapData, u64>,
    pub(super) listeners: Vec<SocketAddr>,
}

impl CookieDemands {
    /// ACKs to `listener` may bring cookies back until `until_ns`, CLOCK_MONOTONIC. Unknown listeners are none of the
    /// program's.
    ///
    /// # Errors
    /// When the kernel refused the write.
    pub fn demand(&mut self, listener: SocketAddr, until_ns: u64) -> Result<(), XdpError> {
        let Some(index) = self.listeners.iter().position(|known| *known == listener) else { return Ok(()) };
        let written: Result<(), MapError> = self.map.set(index as u32, until_ns, 0);
        written.map_err(XdpError::map("COOKIE_DEMAND"))
    }
}
