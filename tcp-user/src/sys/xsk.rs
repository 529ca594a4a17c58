//! The AF_XDP socket: packet memory, rings, binding to a queue, the calls that wake the kernel
//! (Documentation/networking/af_xdp.rst). Leaves out shared packet memory, multi-buffer frames, busy
//! polling and transmit metadata.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::Arc;

use super::memory::Region;
use super::ring::{Consumer, Entry, Layout, Producer};
use super::rings::{FrameCount, RingSet, Rings};

/// Socket option of Linux 6.18: frames that one `sendto` may send in copy mode (32 without it).
const XDP_MAX_TX_SKB_BUDGET: libc::c_int = 9;

/// An AF_XDP socket.
#[derive(Debug)]
pub(crate) struct Socket {
    fd: OwnedFd,
}

/// How [`Socket::bind`] attaches to the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Copying {
    /// Zero-copy where the driver has it, else copies.
    IfNeeded,
    /// The kernel copies every frame.
    Always,
}

impl Socket {
    /// A socket without memory, rings or queue. Needs CAP_NET_RAW.
    pub(crate) fn new() -> io::Result<Socket> {
        // SAFETY: no pointers are involved.
        let fd = check(unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) })?;
        // SAFETY: the call returned a new descriptor that nobody else owns.
        Ok(Socket { fd: unsafe { OwnedFd::from_raw_fd(fd) } })
    }

    /// Registers fresh packet memory for `frames` and makes the four rings; once per socket, before binding.
    ///
    /// Counts must be powers of two. The kernel pins the memory: without CAP_IPC_LOCK it must fit
    /// RLIMIT_MEMLOCK, else ENOBUFS.
    pub(crate) fn rings(&self, frames: FrameCount) -> io::Result<Rings> {
        let umem = Arc::new(Region::anonymous(frames.bytes())?);
        self.register(&umem, frames.size)?;
        self.set_option(libc::XDP_UMEM_FILL_RING, frames.fill_ring())?;
        self.set_option(libc::XDP_UMEM_COMPLETION_RING, frames.transmit)?;
        self.set_option(libc::XDP_RX_RING, frames.receive)?;
        self.set_option(libc::XDP_TX_RING, frames.transmit)?;
        Rings::new(umem, frames, self.map_rings(frames)?)
    }

    /// Binds to queue `queue` of interface `ifindex`; after [`Socket::rings`], once.
    pub(crate) fn bind(&self, ifindex: u32, queue: u32, copying: Copying) -> io::Result<()> {
        let copy = if copying == Copying::Always { libc::XDP_COPY } else { 0 };
        let address = libc::sockaddr_xdp {
            sxdp_family: libc::AF_XDP as u16,
            sxdp_flags: libc::XDP_USE_NEED_WAKEUP | copy,
            sxdp_ifindex: ifindex,
            sxdp_queue_id: queue,
            sxdp_shared_umem_fd: 0,
        };
        let len = size_of_val(&address) as libc::socklen_t;
        // SAFETY: the pointer and length are those of a live `sockaddr_xdp`; the kernel only reads it.
        check(unsafe { libc::bind(self.fd.as_raw_fd(), (&raw const address).cast(), len) }).map(drop)
    }

    /// Whether the bound queue shares frames with the driver without copying.
    pub(crate) fn is_zero_copy(&self) -> io::Result<bool> {
        let options: libc::xdp_options = self.option(libc::XDP_OPTIONS)?;
        Ok(options.flags & libc::XDP_OPTIONS_ZEROCOPY != 0)
    }

    /// Lets one [`Socket::wake_transmit`] send up to `frames` frames (a kernel without the option: 32), and as
    /// many bytes wait in the driver.
    ///
    /// Both are improvements: where the kernel refuses one, sending takes more calls.
    pub(crate) fn raise_send_limits(&self, frames: u32, frame_size: u32) {
        let _ = self.set_option(XDP_MAX_TX_SKB_BUDGET, frames);
        // The kernel doubles the figure; a frame costs its memory and about a kilobyte of bookkeeping.
        let bytes = frames.saturating_mul(frame_size).min(i32::MAX as u32);
        if self.set(libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, &bytes).is_err() {
            let _ = self.set(libc::SOL_SOCKET, libc::SO_SNDBUF, &bytes);
        }
    }

    /// Makes the kernel send what the transmit ring holds.
    pub(crate) fn wake_transmit(&self) -> io::Result<()> {
        // SAFETY: no data and no address: both pointers are null with length zero.
        let sent =
            unsafe { libc::sendto(self.fd.as_raw_fd(), std::ptr::null(), 0, libc::MSG_DONTWAIT, std::ptr::null(), 0) };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Makes the driver take frames off the fill ring.
    pub(crate) fn wake_receive(&self) -> io::Result<()> {
        let none = std::ptr::null_mut();
        // SAFETY: no buffer and no address: the pointers are null, the length is zero.
        let received = unsafe {
            libc::recvfrom(self.fd.as_raw_fd(), none, 0, libc::MSG_DONTWAIT, none.cast(), std::ptr::null_mut())
        };
        if received < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// The kernel's own counters of the socket.
    pub(crate) fn statistics(&self) -> io::Result<libc::xdp_statistics> {
        self.option(libc::XDP_STATISTICS)
    }

    fn register(&self, umem: &Region, frame_size: u32) -> io::Result<()> {
        let registration = libc::xdp_umem_reg {
            addr: umem.base().as_ptr() as u64,
            len: umem.len() as u64,
            chunk_size: frame_size,
            headroom: 0,
            flags: 0,
            tx_metadata_len: 0,
        };
        // The kernel pins the pages for as long as the socket lives, so that they outlive the mapping if need be,
        // and writes only to frames of the fill ring, which `Rings` guards.
        self.set(libc::SOL_XDP, libc::XDP_UMEM_REG, &registration)
    }

    fn map_rings(&self, frames: FrameCount) -> io::Result<RingSet> {
        let offsets: libc::xdp_mmap_offsets = self.option(libc::XDP_MMAP_OFFSETS)?;
        let (receive, transmit) = (frames.receive, frames.transmit);
        let fill = self.map::<u64>(libc::XDP_UMEM_PGOFF_FILL_RING as i64, &offsets.fr, frames.fill_ring())?;
        let completion = self.map::<u64>(libc::XDP_UMEM_PGOFF_COMPLETION_RING as i64, &offsets.cr, transmit)?;
        let receive = self.map::<libc::xdp_desc>(libc::XDP_PGOFF_RX_RING, &offsets.rx, receive)?;
        let transmit = self.map::<libc::xdp_desc>(libc::XDP_PGOFF_TX_RING, &offsets.tx, transmit)?;
        Ok(RingSet {
            fill: Producer::new(fill.0, fill.1).map_err(io::Error::other)?,
            receive: Consumer::new(receive.0, receive.1).map_err(io::Error::other)?,
            transmit: Producer::new(transmit.0, transmit.1).map_err(io::Error::other)?,
            completion: Consumer::new(completion.0, completion.1).map_err(io::Error::other)?,
        })
    }

    fn map<T: Entry>(
        &self,
        at: libc::off_t,
        ring: &libc::xdp_ring_offset,
        capacity: u32,
    ) -> io::Result<(Arc<Region>, Layout)> {
        let layout = Layout {
            producer: ring.producer as usize,
            consumer: ring.consumer as usize,
            flags: ring.flags as usize,
            entries: ring.desc as usize,
            capacity,
        };
        let len = layout.entries + capacity as usize * size_of::<T>();
        Ok((Arc::new(Region::shared(self.fd.as_fd(), len, at)?), layout))
    }

    fn set_option(&self, option: libc::c_int, value: u32) -> io::Result<()> {
        self.set(libc::SOL_XDP, option, &value)
    }

    fn set<T>(&self, level: libc::c_int, option: libc::c_int, value: &T) -> io::Result<()> {
        let (pointer, len) = (std::ptr::from_ref(value).cast(), size_of::<T>() as libc::socklen_t);
        // SAFETY: pointer and length are those of a live value; the kernel only reads it.
        check(unsafe { libc::setsockopt(self.fd.as_raw_fd(), level, option, pointer, len) }).map(drop)
    }

    fn option<T: Answer>(&self, option: libc::c_int) -> io::Result<T> {
        let mut value = MaybeUninit::<T>::zeroed();
        let mut len = size_of::<T>() as libc::socklen_t;
        // SAFETY: pointer and length are those of `value`; the kernel writes at most `len` bytes.
        check(unsafe {
            libc::getsockopt(self.fd.as_raw_fd(), libc::SOL_XDP, option, value.as_mut_ptr().cast(), &mut len)
        })?;
        // SAFETY: the bytes are zero or the kernel's, and `Answer` says that any are a valid value.
        Ok(unsafe { value.assume_init() })
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// What the kernel answers to `getsockopt`.
///
/// # Safety
/// Every bit pattern is a valid value.
unsafe trait Answer {}

// SAFETY: integers only.
unsafe impl Answer for libc::xdp_mmap_offsets {}
// SAFETY: integers only.
unsafe impl Answer for libc::xdp_options {}
// SAFETY: integers only.
unsafe impl Answer for libc::xdp_statistics {}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
