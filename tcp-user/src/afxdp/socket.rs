//! An AF_XDP socket bound to one queue of an interface.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::error::XskError;
use super::handover::HandoverCounters;
use super::queue::{Kernel, Queue, QueueCounters};
use crate::sys::rings::{FrameCount, Received};
use crate::sys::xsk::{Copying, Socket};

/// Bytes that the kernel keeps free before a received frame (`XDP_PACKET_HEADROOM`).
const HEADROOM: u32 = 256;
/// Ethernet header and one VLAN tag, bytes.
const LINK_HEADER: u32 = 18;
/// Largest MTU that fits a frame of 4096 bytes.
pub(crate) const MAX_MTU: u32 = 4096 - HEADROOM - LINK_HEADER;
/// Least and most frames per direction.
const FRAMES: (u32, u32) = (64, 32_768);
/// How long binding is repeated while a closed socket still holds the queue (its end is asynchronous).
const BIND_PATIENCE: Duration = Duration::from_secs(2);
/// First and longest pause between two attempts.
const BIND_PAUSES: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(100));

/// What an AF_XDP socket is bound to, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XskOptions {
    /// Interface's name; for messages.
    pub interface: String,
    /// Interface's index.
    pub index: u32,
    /// Interface's MTU, bytes; decides the size of a frame (2048 or 4096 bytes). At most 3822.
    pub mtu: u32,
    /// Receive queue.
    pub queue: u32,
    /// Frames to receive into; a power of two from 64 to 32,768.
    pub receive_frames: u32,
    /// Frames to send from; a power of two from 64 to 32,768.
    pub transmit_frames: u32,
    /// Copy even where the driver could do without (generic mode, drivers whose zero-copy is broken).
    pub always_copy: bool,
}

impl XskOptions {
    /// Queue `queue` of an interface with the usual number of frames (4096 in, 2048 out), zero-copy if possible.
    #[must_use]
    pub fn new(interface: &str, index: u32, mtu: u32, queue: u32) -> Self {
        XskOptions {
            interface: interface.to_owned(),
            index,
            mtu,
            queue,
            receive_frames: 4096,
            transmit_frames: 2048,
            always_copy: false,
        }
    }

    fn frames(&self) -> Result<FrameCount, XskError> {
        check_count("the number of frames to receive into", self.receive_frames)?;
        check_count("the number of frames to send from", self.transmit_frames)?;
        let need = self.mtu.saturating_add(HEADROOM + LINK_HEADER);
        let size = match need {
            0..=2048 => 2048,
            2049..=4096 => 4096,
            _ => {
                return Err(XskError::MtuTooLarge { interface: self.interface.clone(), mtu: self.mtu, max: MAX_MTU });
            }
        };
        Ok(FrameCount { receive: self.receive_frames, transmit: self.transmit_frames, size })
    }

    fn system(&self, doing: &'static str, source: io::Error) -> XskError {
        XskError::System { doing, interface: self.interface.clone(), queue: self.queue, source }
    }
}

/// One entry of `rings[]` in `xtcp stats --json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RingStatistics {
    /// Receive queue.
    pub queue: u32,
    /// Whether frames pass between us and the driver without a copy.
    pub zero_copy: bool,
    /// What we counted.
    #[serde(flatten)]
    pub counters: QueueCounters,
    /// Segments exchanged with the workers of other queues.
    #[serde(flatten)]
    pub handover: HandoverCounters,
    /// Frames built and not yet taken by the kernel, now.
    pub transmit_pending: u32,
    /// Entries of the kernel that made no sense.
    pub refused: u64,
    /// The kernel dropped a frame: it did not fit, or it could not be copied.
    pub rx_dropped: u64,
    /// The kernel dropped a frame: we were too slow to take what it received.
    pub rx_ring_full: u64,
    /// The kernel dropped a frame: it had no memory of ours to receive into.
    pub fill_ring_empty: u64,
    /// The kernel refused an entry of our fill ring.
    pub rx_invalid: u64,
    /// The kernel refused an entry of our transmit ring.
    pub tx_invalid: u64,
    /// The driver could have sent more but our transmit ring was empty.
    pub tx_ring_empty: u64,
}

/// An AF_XDP socket with its packet memory, bound to one queue.
///
/// Dropping it frees the queue; the kernel does so a little later, which [`XskSocket::bind`] waits for.
pub struct XskSocket {
    socket: Socket,
    rings: Queue,
    queue: u32,
    zero_copy: bool,
}

impl XskSocket {
    /// Makes a socket and binds it. Blocks for up to 2 s while a closed socket still holds the queue.
    ///
    /// # Errors
    /// Each names what is missing and what to do; see [`XskError`].
    pub fn bind(options: &XskOptions) -> Result<XskSocket, XskError> {
        let frames = options.frames()?;
        let socket = Socket::new().map_err(|source| open_error(options, source))?;
        let rings = socket.rings(frames).map_err(|source| memory_error(options, frames, source))?;
        // Populated before binding: zero-copy drivers take frames as soon as they have the queue.
        let rings = Queue::new(rings, frames);
        let copying = if options.always_copy { Copying::Always } else { Copying::IfNeeded };
        patiently(|| socket.bind(options.index, options.queue, copying), std::thread::sleep)
            .map_err(|error| bind_error(options, error))?;
        socket.raise_send_limits(frames.transmit, frames.size);
        let zero_copy = socket.is_zero_copy().map_err(|e| options.system("ask for the mode of", e))?;
        Ok(XskSocket { socket, rings, queue: options.queue, zero_copy })
    }

    /// Receive queue it is bound to.
    #[must_use]
    pub fn queue(&self) -> u32 {
        self.queue
    }

    /// Whether frames pass between us and the driver without a copy.
    #[must_use]
    pub fn is_zero_copy(&self) -> bool {
        self.zero_copy
    }

    /// Hands at most `limit` received frames to `sink` and their memory back to the kernel; no system call
    /// unless the driver asks for one.
    pub fn receive(&mut self, limit: usize, sink: impl FnMut(Received<'_>)) {
        self.rings.receive(&mut Calls(&self.socket), limit, sink);
    }

    /// Offers at most `limit` free frames to `build` until it returns `None`; it returns the length of what it
    /// wrote. Then makes the kernel send with one system call, a few when it can't take all at once, none when
    /// there is nothing.
    ///
    /// # Panics
    /// When `build` returns more than the length of the frame.
    pub fn transmit(&mut self, limit: usize, build: impl FnMut(&mut [u8]) -> Option<usize>) {
        self.rings.transmit(&mut Calls(&self.socket), limit, build);
    }

    /// Whether received frames wait. After a poll's readiness was cleared, look here once before sleeping.
    pub fn has_received(&mut self) -> bool {
        self.rings.has_received()
    }

    /// Frames that were built and not yet taken by the kernel: when above 0, call [`XskSocket::transmit`] again
    /// soon, even with nothing to build.
    pub fn transmit_pending(&mut self) -> u32 {
        self.rings.transmit_pending()
    }

    /// Frames that the kernel has taken to send since the socket was bound.
    pub fn frames_sent(&mut self) -> u64 {
        self.rings.counters().frames_out - u64::from(self.rings.transmit_pending())
    }

    /// Our counters and the kernel's; those of the handover are its owner's ([`super::WorkerDevice`]).
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn statistics(&mut self) -> io::Result<RingStatistics> {
        let kernel = self.socket.statistics()?;
        Ok(RingStatistics {
            queue: self.queue,
            zero_copy: self.zero_copy,
            counters: self.rings.counters(),
            handover: HandoverCounters::default(),
            transmit_pending: self.rings.transmit_pending(),
            refused: self.rings.refused(),
            rx_dropped: kernel.rx_dropped,
            rx_ring_full: kernel.rx_ring_full,
            fill_ring_empty: kernel.rx_fill_ring_empty_descs,
            rx_invalid: kernel.rx_invalid_descs,
            tx_invalid: kernel.tx_invalid_descs,
            tx_ring_empty: kernel.tx_ring_empty_descs,
        })
    }
}

impl AsFd for XskSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The real kernel.
struct Calls<'a>(&'a Socket);

impl Kernel for Calls<'_> {
    fn wake_transmit(&mut self) -> io::Result<()> {
        self.0.wake_transmit()
    }

    fn wake_receive(&mut self) -> io::Result<()> {
        self.0.wake_receive()
    }

    fn now(&mut self) -> Instant {
        Instant::now()
    }
}

fn check_count(what: &'static str, value: u32) -> Result<(), XskError> {
    let (min, max) = FRAMES;
    if value.is_power_of_two() && (min..=max).contains(&value) {
        return Ok(());
    }
    Err(XskError::FrameCount { what, value, min, max })
}

/// Repeats `attempt` while it finds the queue busy, with pauses that add up to no more than [`BIND_PATIENCE`].
fn patiently(mut attempt: impl FnMut() -> io::Result<()>, mut sleep: impl FnMut(Duration)) -> io::Result<()> {
    let (mut pause, longest) = BIND_PAUSES;
    let mut patience = BIND_PATIENCE;
    loop {
        match attempt() {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && !patience.is_zero() => {
                pause = pause.min(patience);
                sleep(pause);
                patience -= pause;
                pause = (pause * 2).min(longest);
            }
            outcome => return outcome,
        }
    }
}

fn open_error(options: &XskOptions, source: io::Error) -> XskError {
    match source.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => XskError::NoPrivilege,
        Some(libc::EAFNOSUPPORT | libc::EPROTONOSUPPORT | libc::ESOCKTNOSUPPORT) => XskError::Unsupported { source },
        _ => options.system("open an AF_XDP socket for", source),
    }
}

fn memory_error(options: &XskOptions, frames: FrameCount, source: io::Error) -> XskError {
    match source.raw_os_error() {
        Some(libc::ENOMEM | libc::ENOBUFS) => XskError::Memory {
            interface: options.interface.clone(),
            queue: options.queue,
            bytes: frames.bytes(),
            source,
        },
        Some(libc::EPERM) => XskError::NoPrivilege,
        Some(libc::ENOPROTOOPT) => XskError::Unsupported { source },
        _ => options.system("make rings for", source),
    }
}

fn bind_error(options: &XskOptions, source: io::Error) -> XskError {
    let (interface, queue) = (options.interface.clone(), options.queue);
    match source.raw_os_error() {
        Some(libc::EBUSY) => XskError::QueueBusy { interface, queue },
        Some(libc::EPERM) => XskError::NoPrivilege,
        Some(libc::EINVAL | libc::ENODEV) => XskError::NoSuchQueue { interface, queue, source },
        _ => options.system("bind to", source),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(mtu: u32) -> XskOptions {
        XskOptions::new("test0", 7, mtu, 3)
    }

    #[test]
    fn a_frame_holds_headroom_link_header_and_mtu() {
        let size = |mtu| options(mtu).frames().map(|frames| frames.size).ok();
        assert_eq!((size(1500), size(1774), size(1775)), (Some(2048), Some(2048), Some(4096)));
        assert_eq!((size(MAX_MTU), size(MAX_MTU + 1), size(u32::MAX)), (Some(4096), None, None));
        let text = options(9000).frames().expect_err("too large").to_string();
        assert_eq!(text, "MTU 9000 of test0 is too large for AF_XDP: at most 3822 (`ip link set test0 mtu 3822`)");
    }

    #[test]
    fn numbers_of_frames_that_rings_can_not_have_are_refused() {
        for frames in [0, 32, 63, 1000, 65_536] {
            assert!(XskOptions { receive_frames: frames, ..options(1500) }.frames().is_err(), "{frames} in");
            assert!(XskOptions { transmit_frames: frames, ..options(1500) }.frames().is_err(), "{frames} out");
        }
        assert!(XskOptions { receive_frames: 64, transmit_frames: 32_768, ..options(1500) }.frames().is_ok());
    }

    #[test]
    fn binding_is_repeated_while_the_queue_is_busy_and_given_up_in_the_end() {
        let busy = || Err(io::Error::from_raw_os_error(libc::EBUSY));
        let (mut attempts, mut pauses) = (0, Vec::new());
        let freed = |attempts: u32| if attempts < 5 { busy() } else { Ok(()) };
        let attempt = || {
            attempts += 1;
            freed(attempts)
        };
        patiently(attempt, |pause| pauses.push(pause.as_millis())).expect("free in the end");
        assert_eq!((attempts, pauses), (5, vec![1, 2, 4, 8]));
        let mut waited = Duration::ZERO;
        let error = patiently(busy, |pause| waited += pause).expect_err("never free");
        assert_eq!((error.raw_os_error(), waited), (Some(libc::EBUSY), BIND_PATIENCE));
        let invalid = || Err(io::Error::from_raw_os_error(libc::EINVAL));
        patiently(invalid, |_| panic!("waits")).expect_err("no such queue");
    }

    #[test]
    fn errors_of_the_kernel_say_what_to_do() {
        let error = |errno| io::Error::from_raw_os_error(errno);
        let frames = options(1500).frames().expect("frames");
        assert!(matches!(open_error(&options(1500), error(libc::EPERM)), XskError::NoPrivilege));
        assert!(matches!(open_error(&options(1500), error(libc::EAFNOSUPPORT)), XskError::Unsupported { .. }));
        let text = memory_error(&options(1500), frames, error(libc::ENOBUFS)).to_string();
        assert!(text.contains("12582912 bytes") && text.contains("LimitMEMLOCK"), "{text}");
        let text = bind_error(&options(1500), error(libc::EBUSY)).to_string();
        assert!(text.contains("queue 3 of test0") && text.contains("ss --xdp -p"), "{text}");
        let text = bind_error(&options(1500), error(libc::EINVAL)).to_string();
        assert!(text.contains("ethtool -l test0"), "{text}");
        let text = bind_error(&options(1500), error(libc::ENETDOWN)).to_string();
        assert!(text.starts_with("can't bind to queue 3 of test0: Network is down"), "{text}");
    }
}
