//! What can go wrong when an AF_XDP socket is made, each with what to do about it.

use std::io;

/// Why an AF_XDP socket could not be made or asked.
#[derive(Debug, thiserror::Error)]
pub enum XskError {
    /// EPERM: a capability is missing.
    #[error(
        "no privilege to open an AF_XDP socket: run xtcp as root or give it CAP_NET_RAW, CAP_NET_ADMIN and CAP_BPF"
    )]
    NoPrivilege,
    /// EAFNOSUPPORT and the like: a kernel without AF_XDP.
    #[error("this kernel has no AF_XDP ({source}): it needs Linux 5.11 or later with CONFIG_XDP_SOCKETS=y")]
    Unsupported {
        /// What the kernel said.
        source: io::Error,
    },
    /// ENOMEM and ENOBUFS: packet memory could not be had or locked.
    #[error(
        "no {bytes} bytes of locked memory for packets of queue {queue} of {interface} ({source}): \
         raise the limit (`ulimit -l unlimited`, systemd: LimitMEMLOCK=infinity) or give xtcp CAP_IPC_LOCK"
    )]
    Memory {
        /// Interface.
        interface: String,
        /// Receive queue.
        queue: u32,
        /// Size of packet memory.
        bytes: usize,
        /// What the kernel said.
        source: io::Error,
    },
    /// EBUSY for longer than a closed socket needs to go away.
    #[error(
        "queue {queue} of {interface} is held by another AF_XDP socket: \
         stop the program that has it (`ss --xdp -p` lists them)"
    )]
    QueueBusy {
        /// Interface.
        interface: String,
        /// Receive queue.
        queue: u32,
    },
    /// EINVAL or ENODEV from binding: the interface has no such queue, or is gone.
    #[error(
        "can't bind to queue {queue} of {interface} ({source}): check that the interface is there and uses \
         that many queues (`ethtool -l {interface}`)"
    )]
    NoSuchQueue {
        /// Interface.
        interface: String,
        /// Receive queue.
        queue: u32,
        /// What the kernel said.
        source: io::Error,
    },
    /// The interface's frames don't fit packet memory.
    #[error("MTU {mtu} of {interface} is too large for AF_XDP: at most {max} (`ip link set {interface} mtu {max}`)")]
    MtuTooLarge {
        /// Interface.
        interface: String,
        /// Its MTU.
        mtu: u32,
        /// Largest MTU that works.
        max: u32,
    },
    /// Numbers of frames that rings can't have.
    #[error("{what} must be a power of two from {min} to {max}, not {value}")]
    FrameCount {
        /// Which number.
        what: &'static str,
        /// What it was.
        value: u32,
        /// Least.
        min: u32,
        /// Most.
        max: u32,
    },
    /// Anything else.
    #[error("can't {doing} queue {queue} of {interface}: {source}")]
    System {
        /// What was tried.
        doing: &'static str,
        /// Interface.
        interface: String,
        /// Receive queue.
        queue: u32,
        /// What the kernel said.
        source: io::Error,
    },
}
