//! One side of a single-producer, single-consumer ring shared with the kernel (AF_XDP, `if_xdp.h`).
//!
//! A ring is two free-running 32-bit cursors, a flags word and a power of two of entries. The producer
//! writes entries, then moves its cursor (release); the consumer sees the cursor (acquire), reads the
//! entries, then moves its own. Cursors wrap at 2^32, so only differences of them mean anything.
//! The rings work over any mapped memory, which is how they are tested without a kernel.

use std::fmt;
use std::marker::PhantomData;
use std::num::Wrapping;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering, fence};

use super::memory::Region;

/// What a ring holds.
///
/// # Safety
/// Every bit pattern is a valid value: the other side writes them.
pub(crate) unsafe trait Entry: Copy + fmt::Debug + 'static {}

// SAFETY: an integer takes any bit pattern.
unsafe impl Entry for u64 {}
// SAFETY: three integers without padding take any bit pattern.
unsafe impl Entry for libc::xdp_desc {}

/// Where the parts of a ring lie in its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Byte offset of the producer's cursor.
    pub producer: usize,
    /// Byte offset of the consumer's cursor.
    pub consumer: usize,
    /// Byte offset of the flags word.
    pub flags: usize,
    /// Byte offset of the first entry.
    pub entries: usize,
    /// Number of entries; a power of two.
    pub capacity: u32,
}

/// Why memory can't hold a ring of that layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("ring of {} entries does not fit {len} bytes of memory as {layout:?}", layout.capacity)]
pub(crate) struct BadLayout {
    layout: Layout,
    len: usize,
}

/// The side that writes entries.
pub(crate) struct Producer<T> {
    ring: Ring<T>,
    /// Next entry to write; ahead of the shared cursor by what is not published yet.
    next: Wrapping<u32>,
    /// The consumer's cursor when we last looked.
    consumed: Wrapping<u32>,
}

impl<T: Entry> Producer<T> {
    /// The producing side of the ring in `region`; goes on where the cursors stand.
    pub(super) fn new(region: Arc<Region>, layout: Layout) -> Result<Self, BadLayout> {
        let ring = Ring::new(region, layout)?;
        let next = Wrapping(ring.producer().load(Ordering::Relaxed));
        let consumed = Wrapping(ring.consumer().load(Ordering::Acquire));
        Ok(Producer { ring, next, consumed })
    }

    /// Writes an entry that the consumer sees after the next [`Producer::publish`]; false: the ring is full.
    #[must_use]
    pub(crate) fn push(&mut self, entry: T) -> bool {
        if self.is_full() {
            return false;
        }
        // SAFETY: `is_full` saw (acquire) that the consumer is past this entry, and it stays ours until published.
        unsafe { self.ring.entry(self.next).write(entry) };
        self.next += 1;
        true
    }

    /// Lets the consumer see what was pushed.
    pub(crate) fn publish(&mut self) {
        self.ring.producer().store(self.next.0, Ordering::Release);
    }

    /// Entries that were pushed and that the consumer has not taken yet.
    pub(crate) fn outstanding(&mut self) -> u32 {
        self.consumed = Wrapping(self.ring.consumer().load(Ordering::Acquire));
        self.ring.distance(self.consumed, self.next)
    }

    /// Copies of the entries that the consumer has not taken yet.
    pub(crate) fn unconsumed(&mut self) -> impl Iterator<Item = T> {
        let count = self.outstanding();
        let (ring, first) = (&self.ring, self.consumed);
        // SAFETY: only the producer writes entries, and that is us; the consumer at most reads them.
        (0..count).map(move |i| unsafe { ring.entry(first + Wrapping(i)).read() })
    }

    /// Whether the consumer asks for a system call before it goes on (`XDP_RING_NEED_WAKEUP`).
    pub(crate) fn needs_wakeup(&self) -> bool {
        self.ring.needs_wakeup()
    }

    /// Whether there is no place for another entry.
    pub(crate) fn is_full(&mut self) -> bool {
        self.ring.distance(self.consumed, self.next) == self.ring.capacity && self.outstanding() == self.ring.capacity
    }
}

/// The side that reads entries.
pub(crate) struct Consumer<T> {
    ring: Ring<T>,
    /// Next entry to read; ahead of the shared cursor by what is not released yet.
    next: Wrapping<u32>,
    /// The producer's cursor when we last looked.
    produced: Wrapping<u32>,
}

impl<T: Entry> Consumer<T> {
    /// The consuming side of the ring in `region`; goes on where the cursors stand.
    pub(super) fn new(region: Arc<Region>, layout: Layout) -> Result<Self, BadLayout> {
        let ring = Ring::new(region, layout)?;
        let next = Wrapping(ring.consumer().load(Ordering::Relaxed));
        let produced = Wrapping(ring.producer().load(Ordering::Acquire));
        Ok(Consumer { ring, next, produced })
    }

    /// Takes the oldest entry; its place stays taken until the next [`Consumer::release`].
    pub(crate) fn pop(&mut self) -> Option<T> {
        if self.next == self.produced && self.available() == 0 {
            return None;
        }
        // SAFETY: the producer published this entry (seen with acquire) and does not touch it before we release it.
        let entry = unsafe { self.ring.entry(self.next).read() };
        self.next += 1;
        Some(entry)
    }

    /// Gives the places of what was taken back to the producer.
    pub(crate) fn release(&mut self) {
        self.ring.consumer().store(self.next.0, Ordering::Release);
    }

    /// Entries that wait to be taken.
    pub(crate) fn available(&mut self) -> u32 {
        self.produced = Wrapping(self.ring.producer().load(Ordering::Acquire));
        self.ring.distance(self.next, self.produced)
    }
}

/// The memory of a ring, checked once so that every later access is in bounds.
struct Ring<T> {
    /// Keeps the memory mapped that the pointers lead into.
    _region: Arc<Region>,
    producer: NonNull<u32>,
    consumer: NonNull<u32>,
    flags: NonNull<u32>,
    entries: NonNull<T>,
    capacity: u32,
    _entries: PhantomData<T>,
}

// SAFETY: the pointers lead into `_region`, which is kept alive and not tied to a thread; entries are plain data.
unsafe impl<T: Entry> Send for Ring<T> {}

impl<T: Entry> Ring<T> {
    fn new(region: Arc<Region>, layout: Layout) -> Result<Self, BadLayout> {
        let bad = BadLayout { layout, len: region.len() };
        if !layout.capacity.is_power_of_two() {
            return Err(bad);
        }
        let word = |offset| part::<u32>(&region, offset, 1).ok_or(bad);
        let (producer, consumer, flags) = (word(layout.producer)?, word(layout.consumer)?, word(layout.flags)?);
        let entries = part::<T>(&region, layout.entries, layout.capacity as usize).ok_or(bad)?;
        Ok(Ring {
            _region: region,
            producer,
            consumer,
            flags,
            entries,
            capacity: layout.capacity,
            _entries: PhantomData,
        })
    }

    fn producer(&self) -> &AtomicU32 {
        self.word(self.producer)
    }

    fn consumer(&self) -> &AtomicU32 {
        self.word(self.consumer)
    }

    fn needs_wakeup(&self) -> bool {
        // The other side raises the flag, then looks at the cursor once more; we moved the cursor and look at the
        // flag. A full barrier between our store and our load keeps both from missing the other.
        fence(Ordering::SeqCst);
        self.word(self.flags).load(Ordering::Relaxed) & libc::XDP_RING_NEED_WAKEUP != 0
    }

    fn word(&self, pointer: NonNull<u32>) -> &AtomicU32 {
        // SAFETY: `new` checked bounds and alignment, the region lives as long as `self`, and both sides access the
        // word only atomically.
        unsafe { AtomicU32::from_ptr(pointer.as_ptr()) }
    }

    /// The entry that cursor `at` stands for; in bounds whatever the cursor.
    fn entry(&self, at: Wrapping<u32>) -> NonNull<T> {
        let index = at.0 & (self.capacity - 1);
        // SAFETY: `index` is below `capacity`, and `new` checked that so many entries lie inside the region.
        unsafe { self.entries.add(index as usize) }
    }

    /// How far `to` is ahead of `from`; never more than the ring holds, whatever the other side wrote.
    fn distance(&self, from: Wrapping<u32>, to: Wrapping<u32>) -> u32 {
        (to - from).0.min(self.capacity)
    }
}

/// The `count` values of type `T` at byte `offset`, if they lie inside the region and are aligned.
fn part<T>(region: &Region, offset: usize, count: usize) -> Option<NonNull<T>> {
    let end = count.checked_mul(size_of::<T>())?.checked_add(offset)?;
    if end > region.len() {
        return None;
    }
    // SAFETY: `offset` is at most the region's length, so the result points into it or one past its end.
    let pointer = unsafe { region.base().add(offset) }.cast::<T>();
    pointer.is_aligned().then_some(pointer)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A ring over anonymous memory whose cursors both stand at `start`.
    pub(crate) fn pair<T: Entry>(capacity: u32, start: u32) -> (Producer<T>, Consumer<T>) {
        let layout = Layout { producer: 0, consumer: 64, flags: 128, entries: 192, capacity };
        let region = Arc::new(Region::anonymous(192 + capacity as usize * size_of::<T>()).expect("memory"));
        let ring = Ring::<T>::new(region.clone(), layout).expect("layout");
        ring.producer().store(start, Ordering::Relaxed);
        ring.consumer().store(start, Ordering::Relaxed);
        (Producer::new(region.clone(), layout).expect("producer"), Consumer::new(region, layout).expect("consumer"))
    }

    /// Raises or lowers the flag by which the consumer asks to be woken.
    pub(crate) fn set_needs_wakeup<T: Entry>(consumer: &Consumer<T>, needed: bool) {
        let flags = if needed { libc::XDP_RING_NEED_WAKEUP } else { 0 };
        consumer.ring.word(consumer.ring.flags).store(flags, Ordering::Relaxed);
    }

    #[test]
    fn what_is_pushed_is_seen_only_after_publishing_and_in_order() {
        let (mut producer, mut consumer) = pair::<u64>(8, 0);
        assert!(producer.push(1) && producer.push(2));
        assert_eq!(consumer.pop(), None);
        producer.publish();
        assert_eq!((consumer.available(), consumer.pop(), consumer.pop(), consumer.pop()), (2, Some(1), Some(2), None));
    }

    #[test]
    fn a_full_ring_refuses_until_the_consumer_releases() {
        let (mut producer, mut consumer) = pair::<u64>(4, 0);
        assert!((0..4).all(|i| producer.push(i)));
        assert!(!producer.push(4));
        producer.publish();
        assert_eq!(consumer.pop(), Some(0));
        assert!(!producer.push(4), "taken but not released");
        consumer.release();
        assert!(producer.push(4));
        assert!(!producer.push(5));
    }

    #[test]
    fn an_empty_ring_gives_nothing_and_owes_nothing() {
        let (mut producer, mut consumer) = pair::<u64>(4, 0);
        assert_eq!((consumer.pop(), consumer.available(), producer.outstanding()), (None, 0, 0));
        assert_eq!(producer.unconsumed().count(), 0);
    }

    #[test]
    fn cursors_wrap_at_the_end_of_their_range() {
        for start in [u32::MAX - 5, u32::MAX - 1, u32::MAX] {
            let (mut producer, mut consumer) = pair::<u64>(4, start);
            for round in 0..10 {
                assert!((0..4).all(|i| producer.push(round * 4 + i)), "start {start}, round {round}");
                assert!(!producer.push(99), "full at start {start}, round {round}");
                producer.publish();
                assert_eq!(producer.unconsumed().collect::<Vec<_>>(), Vec::from_iter(round * 4..round * 4 + 4));
                assert!((0..4).all(|i| consumer.pop() == Some(round * 4 + i)), "start {start}, round {round}");
                assert_eq!(consumer.pop(), None);
                consumer.release();
                assert_eq!(producer.outstanding(), 0);
            }
        }
    }

    #[test]
    fn a_side_that_starts_late_goes_on_at_the_cursors() {
        let (mut producer, _) = pair::<u64>(4, 7);
        assert!(producer.push(70));
        producer.publish();
        let region = producer.ring._region.clone();
        let layout = Layout { producer: 0, consumer: 64, flags: 128, entries: 192, capacity: 4 };
        let mut consumer = Consumer::<u64>::new(region, layout).expect("consumer");
        assert_eq!((consumer.pop(), consumer.pop()), (Some(70), None));
    }

    #[test]
    fn a_cursor_that_jumped_too_far_never_counts_as_more_than_the_ring_holds() {
        let (producer, mut consumer) = pair::<u64>(4, 0);
        producer.ring.producer().store(1_000, Ordering::Release);
        assert_eq!(consumer.available(), 4);
    }

    #[test]
    fn the_wakeup_flag_is_the_consumers_word() {
        let (producer, consumer) = pair::<u64>(4, 0);
        assert!(!producer.needs_wakeup());
        set_needs_wakeup(&consumer, true);
        assert!(producer.needs_wakeup());
    }

    #[test]
    fn memory_that_can_not_hold_the_layout_is_refused() {
        let good = Layout { producer: 0, consumer: 64, flags: 128, entries: 192, capacity: 8 };
        let bad = [
            Layout { capacity: 0, ..good },
            Layout { capacity: 6, ..good },
            Layout { capacity: 1024, ..good },
            Layout { producer: 2, ..good },
            Layout { consumer: 4096, ..good },
            Layout { flags: usize::MAX, ..good },
            Layout { entries: usize::MAX - 8, ..good },
            Layout { entries: 196, ..good },
        ];
        let region = Arc::new(Region::anonymous(4096).expect("a page"));
        assert!(Producer::<u64>::new(region.clone(), good).is_ok());
        for layout in bad {
            assert!(Producer::<u64>::new(region.clone(), layout).is_err(), "{layout:?}");
        }
    }

    #[test]
    fn two_threads_pass_every_entry_once_and_in_order() {
        const ENTRIES: u64 = 200_000;
        let (mut producer, mut consumer) = pair::<libc::xdp_desc>(64, u32::MAX - 1_000);
        let sender = std::thread::spawn(move || {
            for addr in 0..ENTRIES {
                while !producer.push(libc::xdp_desc { addr, len: addr as u32, options: !(addr as u32) }) {
                    producer.publish();
                    std::thread::yield_now();
                }
                if addr % 7 == 0 {
                    producer.publish();
                }
            }
            producer.publish();
        });
        for expected in 0..ENTRIES {
            let entry = loop {
                match consumer.pop() {
                    Some(entry) => break entry,
                    None => {
                        consumer.release();
                        std::thread::yield_now();
                    }
                }
            };
            assert_eq!((entry.addr, entry.len, entry.options), (expected, expected as u32, !(expected as u32)));
        }
        sender.join().expect("the sender ends");
        assert_eq!(consumer.pop().map(|e| e.addr), None);
    }
}
