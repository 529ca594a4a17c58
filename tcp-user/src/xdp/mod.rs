//! Loads the XDP program, owns its maps and its attachment to one interface.
//!
//! Start order: [`Program::open`] (maps and program), [`Program::register_socket`] for every queue,
//! [`Program::attach`]. Stop order: [`Program::detach`], close the sockets, drop the [`Program`], which
//! removes its pins. [`load`] and [`unload`] pin program and maps without a daemon; a daemon that starts
//! later adopts them and leaves them behind.

mod connections;
mod error;

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use tcp_common::counters::Counters;

pub use connections::ConnectionTable;
pub use error::XdpError;

/// Where XDP runs the program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum XdpMode {
    /// In the driver if it can, else in the kernel's stack.
    #[default]
    Auto,
    /// In the driver, or not at all.
    Native,
    /// In the kernel's stack, on a socket buffer ("skb mode").
    Generic,
}

/// How the program was attached in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachedMode {
    /// In the driver.
    Native,
    /// In the kernel's stack.
    Generic,
}

/// What [`Program::open`] and [`load`] need to know.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Index of the interface.
    pub interface_index: u32,
    /// Name of the interface, for messages.
    pub interface_name: String,
    /// Directory of the pins, on a bpffs; see [`default_pin_path`].
    pub pin_path: PathBuf,
    /// Where to run the program.
    pub mode: XdpMode,
    /// Capacity of CONNECTIONS, preallocated; 169 bytes of kernel memory each.
    pub max_connections: u32,
    /// MAC address of the interface; frames to any other are left to the kernel.
    pub mac: [u8; 6],
    /// RX queues of the interface, 1 to [`tcp_common::layout::MAX_QUEUES`].
    pub queues: u32,
    /// VLANs (VID 1 to 4094) whose frames are taken, besides untagged ones and VID 0.
    pub vlans: Vec<u16>,
}

/// The pin directory of an interface unless configured: `/sys/fs/bpf/xtcp/INTERFACE`.
#[must_use]
pub fn default_pin_path(interface_name: &str) -> PathBuf {
    Path::new("/sys/fs/bpf/xtcp").join(interface_name)
}

/// The loaded program of one interface. Dropping it detaches and removes what it pinned, unless it was
/// adopted from [`load`]; then it owns no port any more but stays.
#[derive(Debug)]
pub struct Program {}

impl Program {
    /// Loads the program and makes or adopts its maps; nothing reaches it before [`Program::attach`].
    pub fn open(options: &LoadOptions) -> Result<Program, XdpError> {
        todo!()
    }

    /// Gives the AF_XDP socket `socket`, bound to RX queue `queue`, the segments that arrive there.
    pub fn register_socket(&mut self, queue: u32, socket: BorrowedFd<'_>) -> Result<(), XdpError> {
        todo!()
    }

    /// Attaches the program to the interface; from here on it sees every frame.
    pub fn attach(&mut self) -> Result<AttachedMode, XdpError> {
        todo!()
    }

    /// Replaces the listeners; `0.0.0.0` and `[::]` stand for the addresses of [`Program::set_addresses`].
    ///
    /// Segments of a port whose last listener is gone belong to the kernel again, except those of
    /// connections that still have an entry in CONNECTIONS.
    pub fn set_listeners(&mut self, listeners: &[SocketAddr]) -> Result<(), XdpError> {
        todo!()
    }

    /// Replaces the unicast addresses that wildcard listeners and active opens use.
    pub fn set_addresses(&mut self, addresses: &[IpAddr]) -> Result<(), XdpError> {
        todo!()
    }

    /// Sets the local ports of active opens, owned on every address of [`Program::set_addresses`].
    pub fn set_ephemeral_ports(&mut self, ports: RangeInclusive<u16>) -> Result<(), XdpError> {
        todo!()
    }

    /// Tells the program that the daemon lives; `now_ns` is CLOCK_MONOTONIC. Call it once a second.
    pub fn heartbeat(&mut self, now_ns: u64) -> Result<(), XdpError> {
        todo!()
    }

    /// What the program has counted, summed over CPUs.
    pub fn counters(&self) -> Result<Counters, XdpError> {
        todo!()
    }

    /// A handle to CONNECTIONS for a worker thread.
    pub fn connections(&self) -> Result<ConnectionTable, XdpError> {
        todo!()
    }

    /// The lines that the program logs; can be taken once.
    pub fn take_log(&mut self) -> Result<ProgramLog, XdpError> {
        todo!()
    }

    /// First step of stopping: nothing is steered any more once it returns.
    pub fn detach(&mut self) -> Result<(), XdpError> {
        todo!()
    }
}

/// The program's log (aya-log). When its descriptor is readable, [`ProgramLog::flush`] forwards the lines
/// to `tracing` with the target `xtcp::program`.
#[derive(Debug)]
pub struct ProgramLog {}

impl ProgramLog {
    /// Forwards every line that waits.
    pub fn flush(&mut self) {
        todo!()
    }
}

impl AsFd for ProgramLog {
    fn as_fd(&self) -> BorrowedFd<'_> {
        todo!()
    }
}

/// `xtcp load`: loads, attaches and pins program, link and maps, without a daemon; everything passes.
pub fn load(options: &LoadOptions) -> Result<AttachedMode, XdpError> {
    todo!()
}

/// `xtcp unload`: detaches what [`load`] (or a daemon that died) left at `pin_path` and removes its pins.
/// Refused while a daemon uses them; `Ok(false)` when there was nothing.
pub fn unload(interface_name: &str, pin_path: &Path) -> Result<bool, XdpError> {
    todo!()
}
