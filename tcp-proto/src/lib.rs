//! xtcp's TCP: the whole of RFC 9293 as a sans-I/O state machine. Frames in, frames out; time and
//! randomness are arguments. It never reads a clock, never does I/O, never spawns.
//!
//! Start at [`Stack`], whose documentation is the contract with the driver, and [`turn`], the one
//! loop body that the daemon and the tests both turn.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod api;
#[cfg(feature = "bench")]
pub mod bench;
mod buffer;
pub mod config;
mod congestion;
mod connection;
mod counters;
pub mod device;
mod drops;
mod figures;
mod isn;
mod limits;
mod line;
mod listener;
mod random;
mod records;
mod recovery;
mod rtt;
mod seq;
mod shared;
mod slab;
pub mod stack;
mod table;
pub mod time;
mod timers;
mod wheel;
mod wire;

pub use api::{
    CloseReason, ConnectError, ConnectOptions, ConnectionId, ConnectionInfo, Event, LinkAddress, ListenError,
    ListenOptions, ListenerId, ListenerInfo, NoEntry, Received, SoftError,
};
pub use config::{CongestionAlgorithm, RttEstimator, StackConfig, SynCookies, TcpConfig};
pub use device::{Device, turn};
pub use stack::{ConnectionMut, CookieDemand, Stack};
pub use tcp_common::cookie::CookieKeys;
pub use tcp_common::{Cause, ConnectionKey, ConnectionValue, State};
pub use time::Instant;
