//! The four rings of one AF_XDP socket and the packet memory (UMEM) that their entries point into.
//!
//! Packet memory is cut into frames of one size. Each frame is held either by us or by the kernel (to
//! receive into, or to send from), and this module keeps the book: bytes of a frame are reachable only
//! while we hold it, so no caller can see the kernel write under its hands. An entry from the kernel that
//! contradicts the book is refused and counted, never trusted.

use std::io;
use std::num::NonZeroU32;
use std::sync::Arc;

use super::memory::Region;
use super::ring::{Consumer, Producer};

/// Bytes that the XDP program may put before a frame (`bpf_xdp_adjust_meta`) for the daemon to read.
pub(crate) const METADATA_LEN: usize = 8;

/// A received frame, borrowed until the next one is taken.
#[derive(Debug)]
pub struct Received<'a> {
    /// The frame, from its Ethernet header on.
    pub frame: &'a [u8],
    /// What lies before it in its memory.
    before: &'a mut [u8],
}

impl Received<'_> {
    /// The 8 bytes before the frame: what the XDP program left there, or what was there before when it left
    /// nothing. All zero when the frame starts too early in its memory to have any.
    #[must_use]
    pub fn metadata(&self) -> [u8; METADATA_LEN] {
        self.before.last_chunk().copied().unwrap_or_default()
    }

    /// The same, and zeroes them: a later frame in this memory, for which the program leaves nothing, shows zero.
    pub fn take_metadata(&mut self) -> [u8; METADATA_LEN] {
        let metadata = self.metadata();
        if let Some(bytes) = self.before.last_chunk_mut::<METADATA_LEN>()
            && metadata != [0; METADATA_LEN]
        {
            bytes.fill(0);
        }
        metadata
    }
}

/// Number and size of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameCount {
    /// Frames the kernel receives into; the fill ring holds twice as many ([`FrameCount::fill_ring`]).
    pub receive: u32,
    /// Frames we send from; the completion ring holds that many.
    pub transmit: u32,
    /// Bytes of a frame: a power of two, at least 2048.
    pub size: u32,
}

impl FrameCount {
    /// Bytes of packet memory in all.
    pub(crate) fn bytes(&self) -> usize {
        (self.receive as usize + self.transmit as usize) * self.size as usize
    }

    /// Entries of the fill ring. The kernel shows what it has received a moment before it gives back the places of
    /// the frames that it received into: up to all of them may be on their way back to it by then.
    pub(crate) fn fill_ring(&self) -> u32 {
        2 * self.receive
    }
}

/// Who holds a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holder {
    Us,
    /// The kernel may write to it (fill ring, driver, receive ring).
    KernelReceives,
    /// The kernel may read from it (transmit ring, driver, completion ring).
    KernelSends,
}

/// The rings and the packet memory, with the book of who holds which frame.
pub(crate) struct Rings {
    umem: Arc<Region>,
    frames: FrameCount,
    holders: Box<[Holder]>,
    fill: Producer<u64>,
    receive: Consumer<libc::xdp_desc>,
    transmit: Producer<libc::xdp_desc>,
    completion: Consumer<u64>,
    /// Entries of the kernel that contradicted the book.
    refused: u64,
}

/// The four rings as they come from a socket.
pub(crate) struct RingSet {
    pub fill: Producer<u64>,
    pub receive: Consumer<libc::xdp_desc>,
    pub transmit: Producer<libc::xdp_desc>,
    pub completion: Consumer<u64>,
}

impl Rings {
    /// Rings over packet memory that the kernel knows as the same socket's (or no kernel at all); all
    /// frames are ours at first.
    pub(super) fn new(umem: Arc<Region>, frames: FrameCount, rings: RingSet) -> io::Result<Rings> {
        if !frames.size.is_power_of_two() || umem.len() != frames.bytes() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "packet memory does not match its frames"));
        }
        let holders = vec![Holder::Us; (frames.receive + frames.transmit) as usize].into_boxed_slice();
        let RingSet { fill, receive, transmit, completion } = rings;
        Ok(Rings { umem, frames, holders, fill, receive, transmit, completion, refused: 0 })
    }

    /// Lends frame `index` to the kernel to receive into, from the next [`Rings::publish_fill`] on.
    /// False: the ring is full.
    ///
    /// # Panics
    /// When the frame is not ours.
    #[must_use]
    pub(crate) fn fill(&mut self, index: u32) -> bool {
        self.assert_ours(index);
        let lent = self.fill.push(self.address(index));
        if lent {
            self.holders[index as usize] = Holder::KernelReceives;
        }
        lent
    }

    /// Lets the kernel have the frames of [`Rings::fill`].
    pub(crate) fn publish_fill(&mut self) {
        self.fill.publish();
    }

    /// Whether the driver asks for a system call before it takes frames to receive into.
    pub(crate) fn fill_needs_wakeup(&self) -> bool {
        self.fill.needs_wakeup()
    }

    /// Received frames that wait.
    pub(crate) fn received(&mut self) -> u32 {
        self.receive.available()
    }

    /// Takes the oldest received frame, shows it to `sink`, and makes it ours; its index.
    pub(crate) fn take(&mut self, sink: impl FnOnce(Received<'_>)) -> Option<u32> {
        loop {
            let descriptor = self.receive.pop()?;
            if let Some(index) = self.take_back(descriptor.addr, descriptor.len, Holder::KernelReceives) {
                sink(self.view(index, descriptor.addr, descriptor.len as usize));
                return Some(index);
            }
        }
    }

    /// Gives the places of what was taken back to the kernel.
    pub(crate) fn release_received(&mut self) {
        self.receive.release();
    }

    /// Lets `build` write frame `index`, then lends it to the kernel to send from the next
    /// [`Rings::publish_transmit`] on; the length that `build` returned. `None`: `build` returned `None`,
    /// or the ring is full (then `build` is not called); the frame stays ours.
    ///
    /// # Panics
    /// When the frame is not ours, or `build` returned more than fits.
    pub(crate) fn send(&mut self, index: u32, build: impl FnOnce(&mut [u8]) -> Option<usize>) -> Option<NonZeroU32> {
        if self.transmit.is_full() {
            return None;
        }
        let frame = self.frame_mut(index);
        let room = frame.len();
        let len = build(frame)?;
        assert!(len <= room, "a frame of {len} bytes was built in {room}");
        let len = NonZeroU32::new(len as u32)?;
        let descriptor = libc::xdp_desc { addr: self.address(index), len: len.get(), options: 0 };
        let lent = self.transmit.push(descriptor);
        assert!(lent, "it was not full");
        self.holders[index as usize] = Holder::KernelSends;
        Some(len)
    }

    /// Lets the kernel have the frames of [`Rings::send`].
    pub(crate) fn publish_transmit(&mut self) {
        self.transmit.publish();
    }

    /// Whether the kernel asks for a system call before it sends.
    pub(crate) fn transmit_needs_wakeup(&self) -> bool {
        self.transmit.needs_wakeup()
    }

    /// Frames in the transmit ring that the kernel has not looked at yet.
    pub(crate) fn transmit_pending(&mut self) -> u32 {
        self.transmit.outstanding()
    }

    /// The next frame that the kernel has sent; it is ours again.
    pub(crate) fn completed(&mut self) -> Option<u32> {
        loop {
            let address = self.completion.pop()?;
            if let Some(index) = self.take_back(address, 0, Holder::KernelSends) {
                return Some(index);
            }
        }
    }

    /// Gives the places of what completed back to the kernel.
    pub(crate) fn release_completed(&mut self) {
        self.completion.release();
    }

    /// Takes back, without their completion, all frames that the kernel took out of the transmit ring.
    ///
    /// The kernel only reads such frames. Should it still do so after all, what it sends of a frame that was
    /// written again is garbled, and the peer drops it for its checksum.
    pub(crate) fn give_up_on_sent(&mut self) -> Vec<u32> {
        let mut waiting: Vec<u32> = self.transmit.unconsumed().map(|d| index_of(d.addr, self.frames.size)).collect();
        waiting.sort_unstable();
        let lost =
            |index: &u32| self.holders[*index as usize] == Holder::KernelSends && waiting.binary_search(index).is_err();
        let given_up: Vec<u32> = (0..self.holders.len() as u32).filter(lost).collect();
        for &index in &given_up {
            self.holders[index as usize] = Holder::Us;
        }
        given_up
    }

    /// Entries of the kernel that made no sense: a frame it did not hold, or bytes outside a frame.
    pub(crate) fn refused(&self) -> u64 {
        self.refused
    }

    /// Makes the frame at `address` ours if the kernel holds it as `holder` and `len` bytes lie inside it.
    fn take_back(&mut self, address: u64, len: u32, holder: Holder) -> Option<u32> {
        let index = index_of(address, self.frames.size);
        let offset = address & u64::from(self.frames.size - 1);
        let fits = offset + u64::from(len) <= u64::from(self.frames.size);
        let known = address < self.umem.len() as u64 && self.holders[index as usize] == holder;
        if !fits || !known {
            self.refused += 1;
            return None;
        }
        self.holders[index as usize] = Holder::Us;
        Some(index)
    }

    fn assert_ours(&self, index: u32) {
        assert_eq!(self.holders[index as usize], Holder::Us, "frame {index}");
    }

    fn address(&self, index: u32) -> u64 {
        u64::from(index) * u64::from(self.frames.size)
    }

    /// The `len` bytes at `address`, which `take_back` found to lie in frame `index`.
    fn view(&mut self, index: u32, address: u64, len: usize) -> Received<'_> {
        let offset = (address - self.address(index)) as usize;
        let (before, rest) = self.frame_mut(index).split_at_mut(offset);
        Received { frame: &rest[..len], before }
    }

    /// All bytes of frame `index`, which is ours.
    fn frame_mut(&mut self, index: u32) -> &mut [u8] {
        self.assert_ours(index);
        let (start, len) = (self.address(index) as usize, self.frames.size as usize);
        // SAFETY: the book has an entry for `index`, so the frame lies in packet memory; it is ours, so the kernel
        // does not write to it, and `&mut self` keeps every other view of it away.
        unsafe { std::slice::from_raw_parts_mut(self.umem.base().add(start).as_ptr(), len) }
    }
}

/// Which frame of `size` bytes an address in packet memory lies in (past the end: past the last index).
fn index_of(address: u64, size: u32) -> u32 {
    u32::try_from(address / u64::from(size)).unwrap_or(u32::MAX)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::ring::tests::{pair, set_needs_wakeup};
    use super::*;

    /// The kernel's side of rings over anonymous memory.
    pub(crate) struct KernelSide {
        umem: Arc<Region>,
        pub fill: Consumer<u64>,
        pub receive: Producer<libc::xdp_desc>,
        pub transmit: Consumer<libc::xdp_desc>,
        pub completion: Producer<u64>,
    }

    /// Rings without a kernel, with the other side of each; cursors start close to the end of their range.
    pub(crate) fn without_kernel(frames: FrameCount) -> (Rings, KernelSide) {
        let start = u32::MAX - 2;
        let umem = Arc::new(Region::anonymous(frames.bytes()).expect("memory"));
        let (fill, kernel_fill) = pair(frames.fill_ring(), start);
        let (kernel_receive, receive) = pair(frames.receive, start);
        let (transmit, kernel_transmit) = pair(frames.transmit, start);
        let (kernel_completion, completion) = pair(frames.transmit, start);
        let rings = RingSet { fill, receive, transmit, completion };
        let kernel = KernelSide {
            umem: umem.clone(),
            fill: kernel_fill,
            receive: kernel_receive,
            transmit: kernel_transmit,
            completion: kernel_completion,
        };
        (Rings::new(umem, frames, rings).expect("rings"), kernel)
    }

    impl KernelSide {
        /// Receives `frame` as the kernel does: 256 bytes into a frame of the fill ring, metadata before it.
        /// False: the fill ring is empty.
        pub(crate) fn deliver(&mut self, metadata: [u8; METADATA_LEN], frame: &[u8]) -> bool {
            let Some(address) = self.fill.pop() else { return false };
            self.fill.release();
            let address = address + 256;
            self.write(address - METADATA_LEN as u64, &metadata);
            self.write(address, frame);
            self.announce(address, frame.len() as u32)
        }

        /// Puts a descriptor on the receive ring.
        pub(crate) fn announce(&mut self, addr: u64, len: u32) -> bool {
            let pushed = self.receive.push(libc::xdp_desc { addr, len, options: 0 });
            self.receive.publish();
            pushed
        }

        /// Takes the next frame out of the transmit ring: its address and bytes.
        pub(crate) fn collect(&mut self) -> Option<(u64, Vec<u8>)> {
            let descriptor = self.transmit.pop()?;
            self.transmit.release();
            let start = self.umem.base().as_ptr() as usize + descriptor.addr as usize;
            // SAFETY: tests put only descriptors of their own rings here, and no `&mut` to the frame is alive.
            let bytes = unsafe { std::slice::from_raw_parts(start as *const u8, descriptor.len as usize) };
            Some((descriptor.addr, bytes.to_vec()))
        }

        /// Says that the frame at `address` was sent.
        pub(crate) fn complete(&mut self, address: u64) {
            assert!(self.completion.push(address), "the completion ring has a place for every frame");
            self.completion.publish();
        }

        /// Asks, or stops asking, for system calls on the fill and the transmit ring.
        pub(crate) fn ask_for_wakeups(&self, fill: bool, transmit: bool) {
            set_needs_wakeup(&self.fill, fill);
            set_needs_wakeup(&self.transmit, transmit);
        }

        fn write(&self, address: u64, bytes: &[u8]) {
            assert!(address as usize + bytes.len() <= self.umem.len());
            // SAFETY: in bounds, and tests write only to frames of the fill ring, which nobody else views.
            unsafe { self.umem.base().add(address as usize).as_ptr().copy_from(bytes.as_ptr(), bytes.len()) };
        }
    }

    const FRAMES: FrameCount = FrameCount { receive: 4, transmit: 4, size: 2048 };

    #[test]
    fn a_received_frame_is_shown_with_the_metadata_before_it() {
        let (mut rings, mut kernel) = without_kernel(FRAMES);
        assert!(rings.fill(1));
        rings.publish_fill();
        assert!(kernel.deliver(*b"metadata", b"a frame"));
        let mut seen = Vec::new();
        let index = rings.take(|r| seen.push((r.frame.to_vec(), r.metadata())));
        assert_eq!((index, seen), (Some(1), vec![(b"a frame".to_vec(), *b"metadata")]));
    }

    #[test]
    fn metadata_that_was_taken_is_not_shown_before_a_later_frame() {
        let (mut rings, mut kernel) = without_kernel(FRAMES);
        for expected in [*b"metadata", [0; METADATA_LEN]] {
            assert!(rings.fill(1));
            rings.publish_fill();
            let address = kernel.fill.pop().expect("frame 1") + 256;
            kernel.fill.release();
            if expected[0] != 0 {
                kernel.write(address - METADATA_LEN as u64, &expected);
            }
            assert!(kernel.announce(address, 60));
            assert_eq!(rings.take(|mut r| assert_eq!(r.take_metadata(), expected)), Some(1));
        }
    }

    #[test]
    fn a_frame_at_the_start_of_its_memory_has_zero_metadata() {
        let (mut rings, mut kernel) = without_kernel(FRAMES);
        assert!(rings.fill(0));
        rings.publish_fill();
        assert!(kernel.announce(4, 10));
        let mut metadata = None;
        assert_eq!(rings.take(|r| metadata = Some(r.metadata())), Some(0));
        assert_eq!(metadata, Some([0; METADATA_LEN]));
    }

    #[test]
    fn entries_that_contradict_the_book_are_refused_and_counted() {
        let (mut rings, mut kernel) = without_kernel(FRAMES);
        assert!(rings.fill(0));
        rings.publish_fill();
        let refused = [(2048, 60), (256, 1793), (8 * 2048, 60), (u64::MAX, 60)];
        for (addr, len) in refused {
            assert!(kernel.announce(addr, len));
            assert_eq!(rings.take(|_| panic!("shown")), None, "{addr} {len}");
            rings.release_received();
        }
        kernel.complete(5 * 2048);
        assert_eq!(rings.completed(), None);
        assert_eq!(rings.refused(), refused.len() as u64 + 1);
        assert!(kernel.announce(256, 1792));
        assert_eq!(rings.take(|r| assert_eq!(r.frame.len(), 1792)), Some(0));
    }

    #[test]
    fn a_sent_frame_comes_back_once_when_it_completes() {
        let (mut rings, mut kernel) = without_kernel(FRAMES);
        let len = rings.send(6, |frame| {
            frame[..5].copy_from_slice(b"hello");
            Some(5)
        });
        assert_eq!(len.map(NonZeroU32::get), Some(5));
        assert!(kernel.collect().is_none(), "not published");
        rings.publish_transmit();
        assert_eq!(rings.transmit_pending(), 1);
        let (address, bytes) = kernel.collect().expect("a frame");
        assert_eq!(bytes, b"hello");
        assert_eq!((rings.transmit_pending(), rings.completed()), (0, None));
        kernel.complete(address);
        kernel.complete(address);
        assert_eq!((rings.completed(), rings.completed(), rings.refused()), (Some(6), None, 1));
    }

    #[test]
    fn a_frame_that_was_not_built_stays_ours() {
        let (mut rings, mut kernel) = without_kernel(FRAMES);
        assert_eq!(rings.send(4, |_| None), None);
        assert_eq!(rings.send(4, |_| Some(0)), None);
        assert_eq!(rings.send(4, |_| Some(60)).map(NonZeroU32::get), Some(60));
        rings.publish_transmit();
        assert!(kernel.collect().is_some() && kernel.collect().is_none());
    }

    #[test]
    fn giving_up_takes_only_what_the_kernel_took_and_never_completed() {
        let (mut rings, mut kernel) = without_kernel(FRAMES);
        for index in 4..8 {
            assert!(rings.send(index, |_| Some(60)).is_some());
        }
        rings.publish_transmit();
        let (first, _) = kernel.collect().expect("frame 4");
        kernel.collect().expect("frame 5");
        kernel.complete(first);
        assert_eq!(rings.completed(), Some(4));
        assert_eq!(rings.give_up_on_sent(), vec![5]);
        assert_eq!(rings.transmit_pending(), 2);
    }

    #[test]
    #[should_panic(expected = "frame 4")]
    fn a_frame_that_the_kernel_sends_can_not_be_written() {
        let (mut rings, _kernel) = without_kernel(FRAMES);
        assert!(rings.send(4, |_| Some(60)).is_some());
        let _ = rings.send(4, |_| Some(60));
    }

    #[test]
    #[should_panic(expected = "was built in 2048")]
    fn a_frame_longer_than_its_memory_is_a_bug_of_the_builder() {
        let (mut rings, _kernel) = without_kernel(FRAMES);
        let _ = rings.send(4, |_| Some(2049));
    }
}
