//! The data path between a worker and its queue: AF_XDP sockets, the batches they receive and send, and
//! the [`Device`](tcp_proto::Device) that a worker turns.
//!
//! Start order is sockets, then attaching the XDP program; stop order is detaching, then dropping the
//! sockets. One thread owns a socket; nothing here is shared. Leaves out multi-buffer frames: the
//! interface's MTU must fit a frame of 4096 bytes with the kernel's headroom.

mod device;
mod error;
mod queue;
mod socket;

pub use crate::sys::readiness::Readable;
pub use crate::sys::rings::Received;
pub use device::{Table, WorkerDevice};
pub use error::XskError;
pub use queue::QueueCounters;
pub use socket::{RingStatistics, XskOptions, XskSocket};
