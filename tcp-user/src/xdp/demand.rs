//! How a worker tells the program that a listener sends SYN cookies: the map COOKIE_DEMAND.

use std::net::SocketAddr;

use aya::maps::{Array, MapData, MapError};

use super::XdpError;

/// Until when the program is to send cookies for each listener because a worker does, by the listener's position. Every
/// worker has a handle of its own.
pub struct CookieDemands {
    pub(super) map: Array<MapData, u64>,
    pub(super) listeners: Vec<SocketAddr>,
}

impl CookieDemands {
    /// The program is to send cookies for `listener` until `until_ns`, CLOCK_MONOTONIC; ACKs may bring them back for two
    /// epochs more. Unknown listeners are none of the program's.
    ///
    /// # Errors
    /// When the kernel refused the write.
    pub fn demand(&mut self, listener: SocketAddr, until_ns: u64) -> Result<(), XdpError> {
        let Some(index) = self.listeners.iter().position(|known| *known == listener) else { return Ok(()) };
        let written: Result<(), MapError> = self.map.set(index as u32, until_ns, 0);
        written.map_err(XdpError::map("COOKIE_DEMAND"))
    }
}
