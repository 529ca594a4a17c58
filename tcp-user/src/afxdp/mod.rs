//! The data path between a worker and its queue: AF_XDP sockets, the batches they receive and send, and
//! the [`Device`](tcp_proto::Device) that a worker turns.
//!
//! Start order is sockets, then attaching the XDP program; stop order is detaching, then dropping the
//! sockets. One thread owns a socket; workers share nothing but the exchange of segments that arrived on
//! another queue than their connection's. Leaves out multi-buffer frames: the
//! interface's MTU must fit a frame of 4096 bytes with the kernel's headroom.

mod device;
mod error;
mod handover;
mod queue;
mod socket;

pub use crate::sys::readiness::Readable;
pub use crate::sys::rings::Received;
pub use device::{Arrivals, Table, WorkerDevice};
pub use error::XskError;
pub use handover::{Exchange, HandoverCounters, INBOX_FRAMES};
pub use queue::QueueCounters;
pub use socket::{RingStatistics, XskOptions, XskSocket};
