//! xtcp's TCP: the whole of RFC 9293 as a sans-I/O state machine. Frames in, frames out; time and
//! randomness are arguments. It never reads a clock, never does I/O, never spawns.
//!
//! Start at [`Stack`], whose documentation is the contract with the driver, and [`turn`], the one
//! loop body that the daemon and the tests both turn.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod config;
pub mod device;
pub mod stack;
pub mod time;

pub use config::{RttEstimator, StackConfig, TcpConfig};
pub use device::{Device, turn};
pub use stack::{
    Change, CloseReason, ConnectError, ConnectOptions, ConnectionId, ConnectionInfo, ConnectionMut, Event, LinkAddress,
    ListenError, ListenOptions, ListenerId, ListenerInfo, Received, Stack,
};
pub use time::Instant;
