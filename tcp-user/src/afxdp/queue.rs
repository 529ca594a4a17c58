//! Batches over the rings of one queue: receiving with refill in the same turn, sending with one kick per
//! batch, and what happens when the kernel is slow to send. Bounded everywhere; nothing here sleeps.

use std::io;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::sys::rings::{FrameCount, Received, Rings};

/// Kicks in a row that may make no progress before the rest of a batch waits for the next turn.
const FRUITLESS_KICKS: u32 = 16;
/// How long we go without a free frame and without a completion before frames in the kernel's hands count as lost.
const LOST_AFTER: Duration = Duration::from_secs(1);

/// What a queue needs from outside: the two system calls, and the time.
pub(crate) trait Kernel {
    /// Makes the kernel send what the transmit ring holds.
    fn wake_transmit(&mut self) -> io::Result<()>;
    /// Makes the driver take frames off the fill ring.
    fn wake_receive(&mut self) -> io::Result<()>;
    /// The time; asked only when frames run out.
    fn now(&mut self) -> Instant;
}

/// What a queue has counted since it was bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct QueueCounters {
    /// Frames received.
    pub frames_in: u64,
    /// Their bytes.
    pub bytes_in: u64,
    /// Frames handed to the kernel to send.
    pub frames_out: u64,
    /// Their bytes.
    pub bytes_out: u64,
    /// System calls that made the kernel send.
    pub kicks: u64,
    /// Kicks repeated because the kernel could not send everything at once (EAGAIN, EBUSY, ENOBUFS).
    pub kick_retries: u64,
    /// Kicks that failed otherwise (interface down).
    pub kick_errors: u64,
    /// System calls that made the driver take frames to receive into.
    pub fill_wakeups: u64,
    /// Batches cut short because the kernel held every frame.
    pub starved: u64,
    /// Frames that the kernel took and never said to have sent.
    pub lost: u64,
}

/// One queue's rings, its free frames and its counters.
pub(crate) struct Queue {
    rings: Rings,
    /// Frames to send from that are ours.
    free: Vec<u32>,
    counters: QueueCounters,
    /// Since when we lack a free frame without having seen a completion.
    starved_since: Option<Instant>,
}

impl Queue {
    /// A queue over fresh rings; the fill ring is populated (some drivers stall otherwise, even for sending).
    pub(crate) fn new(mut rings: Rings, frames: FrameCount) -> Queue {
        for index in 0..frames.receive {
            assert!(rings.fill(index), "the fill ring has a place for every frame");
        }
        rings.publish_fill();
        let free = (frames.receive..frames.receive + frames.transmit).rev().collect();
        Queue { rings, free, counters: QueueCounters::default(), starved_since: None }
    }

    /// Hands at most `limit` received frames to `sink`, and their memory back to the kernel.
    pub(crate) fn receive(&mut self, kernel: &mut impl Kernel, limit: usize, mut sink: impl FnMut(Received<'_>)) {
        let mut taken = 0;
        while taken < limit {
            let bytes = &mut self.counters.bytes_in;
            let index = self.rings.take(|received| {
                *bytes += received.frame.len() as u64;
                sink(received);
            });
            let Some(index) = index else { break };
            assert!(self.rings.fill(index), "the fill ring has a place for every frame");
            taken += 1;
        }
        self.counters.frames_in += taken as u64;
        self.refill(kernel, taken);
    }

    /// Offers at most `limit` free frames to `build` until it returns `None`, then makes the kernel send.
    pub(crate) fn transmit(
        &mut self,
        kernel: &mut impl Kernel,
        limit: usize,
        mut build: impl FnMut(&mut [u8]) -> Option<usize>,
    ) {
        self.reap();
        for _ in 0..limit {
            let Some(index) = self.free.pop().or_else(|| self.wait_for_frame(kernel)) else { break };
            let Some(len) = self.rings.send(index, &mut build) else {
                self.free.push(index);
                break;
            };
            self.counters.frames_out += 1;
            self.counters.bytes_out += u64::from(len.get());
        }
        self.rings.publish_transmit();
        self.kick(kernel);
    }

    /// Whether received frames wait.
    pub(crate) fn has_received(&mut self) -> bool {
        self.rings.received() > 0
    }

    /// Frames that were built and that the kernel has not looked at yet; the next `transmit` kicks again.
    pub(crate) fn transmit_pending(&mut self) -> u32 {
        self.rings.transmit_pending()
    }

    /// What was counted.
    pub(crate) fn counters(&self) -> QueueCounters {
        self.counters
    }

    /// Entries of the kernel that made no sense.
    pub(crate) fn refused(&self) -> u64 {
        self.rings.refused()
    }

    fn refill(&mut self, kernel: &mut impl Kernel, taken: usize) {
        if taken > 0 {
            self.rings.release_received();
            self.rings.publish_fill();
        }
        if self.rings.fill_needs_wakeup() {
            self.counters.fill_wakeups += 1;
            // A failure (interface down) leaves the flag up, so that the next turn tries again.
            let _ = kernel.wake_receive();
        }
    }

    /// Takes back the frames that were sent; whether there were any.
    fn reap(&mut self) -> bool {
        let before = self.free.len();
        while let Some(index) = self.rings.completed() {
            self.free.push(index);
        }
        let reaped = self.free.len() > before;
        if reaped {
            self.rings.release_completed();
            self.starved_since = None;
        }
        reaped
    }

    /// Out of frames: one more look at completions after a kick, then giving up on frames held too long.
    fn wait_for_frame(&mut self, kernel: &mut impl Kernel) -> Option<u32> {
        self.rings.publish_transmit();
        self.kick(kernel);
        if !self.reap() {
            self.counters.starved += 1;
            self.give_up_on_lost(kernel.now());
        }
        self.free.pop()
    }

    fn give_up_on_lost(&mut self, now: Instant) {
        let since = *self.starved_since.get_or_insert(now);
        if now.duration_since(since) < LOST_AFTER {
            return;
        }
        let lost = self.rings.give_up_on_sent();
        self.counters.lost += lost.len() as u64;
        self.free.extend(lost);
        self.starved_since = None;
    }

    /// Makes the kernel take what the transmit ring holds; repeats while it can't take all and makes progress.
    fn kick(&mut self, kernel: &mut impl Kernel) {
        let mut pending = self.rings.transmit_pending();
        let mut fruitless = 0;
        while pending > 0 && fruitless < FRUITLESS_KICKS && self.rings.transmit_needs_wakeup() {
            self.counters.kicks += 1;
            match kernel.wake_transmit() {
                Ok(()) => return,
                Err(error) if is_backpressure(&error) => self.counters.kick_retries += 1,
                Err(_) => {
                    self.counters.kick_errors += 1;
                    return;
                }
            }
            let left = self.rings.transmit_pending();
            fruitless = if left < pending { 0 } else { fruitless + 1 };
            pending = left;
        }
    }
}

/// Whether the kernel says "not all of it now": its budget of a call is used up, the driver's queue is full,
/// or memory for socket buffers is short.
fn is_backpressure(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EBUSY | libc::ENOBUFS | libc::EINTR))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::rings::tests::{KernelSide, without_kernel};

    const FRAMES: FrameCount = FrameCount { receive: 8, transmit: 8, size: 2048 };

    /// A kernel without a kernel: what each kick does is decided by the test.
    struct Fake {
        side: KernelSide,
        /// How many frames each kick takes, and what it answers; then the default: all of them, success.
        kicks: Vec<(usize, Option<i32>)>,
        /// Whether frames complete as soon as they are taken.
        completes: bool,
        /// Frames taken.
        sent: Vec<Vec<u8>>,
        fill_wakeups: u32,
        now: Instant,
    }

    impl Kernel for Fake {
        fn wake_transmit(&mut self) -> io::Result<()> {
            let (most, errno) = if self.kicks.is_empty() { (usize::MAX, None) } else { self.kicks.remove(0) };
            for _ in 0..most {
                let Some((address, bytes)) = self.side.collect() else { break };
                self.sent.push(bytes);
                if self.completes {
                    self.side.complete(address);
                }
            }
            errno.map_or(Ok(()), |errno| Err(io::Error::from_raw_os_error(errno)))
        }

        fn wake_receive(&mut self) -> io::Result<()> {
            self.fill_wakeups += 1;
            Ok(())
        }

        fn now(&mut self) -> Instant {
            self.now
        }
    }

    fn queue() -> (Queue, Fake) {
        let (rings, side) = without_kernel(FRAMES);
        side.ask_for_wakeups(false, true);
        let fake =
            Fake { side, kicks: Vec::new(), completes: true, sent: Vec::new(), fill_wakeups: 0, now: Instant::now() };
        (Queue::new(rings, FRAMES), fake)
    }

    /// Builds frames of one byte, `count` of them: `from`, `from + 1`, ...
    fn numbered(from: u8, count: u8) -> impl FnMut(&mut [u8]) -> Option<usize> {
        let mut numbers = from..from + count;
        move |frame| {
            frame[0] = numbers.next()?;
            Some(1)
        }
    }

    fn bytes(range: std::ops::Range<u8>) -> Vec<Vec<u8>> {
        range.map(|byte| vec![byte]).collect()
    }

    #[test]
    fn frames_go_back_to_a_kernel_that_shows_them_before_it_gives_their_places_back() {
        let (mut queue, mut kernel) = queue();
        for _ in 0..FRAMES.receive {
            let address = kernel.side.fill.pop().expect("a frame to receive into");
            assert!(kernel.side.announce(address + 256, 60));
        }
        let mut received = 0;
        queue.receive(&mut kernel, 64, |_| received += 1);
        kernel.side.fill.release();
        assert_eq!(received, FRAMES.receive);
        assert_eq!(kernel.side.fill.available(), FRAMES.receive);
    }

    #[test]
    fn every_frame_of_a_batch_leaves_by_one_kick() {
        let (mut queue, mut kernel) = queue();
        queue.transmit(&mut kernel, 64, numbered(0, 5));
        assert_eq!(kernel.sent, bytes(0..5));
        let counters = queue.counters();
        assert_eq!((counters.kicks, counters.kick_retries, counters.frames_out, counters.bytes_out), (1, 0, 5, 5));
    }

    #[test]
    fn nothing_to_send_costs_no_call() {
        let (mut queue, mut kernel) = queue();
        queue.transmit(&mut kernel, 64, |_| None);
        assert_eq!(queue.counters(), QueueCounters::default());
    }

    #[test]
    fn a_driver_that_polls_by_itself_is_not_kicked() {
        let (mut queue, mut kernel) = queue();
        kernel.side.ask_for_wakeups(false, false);
        queue.transmit(&mut kernel, 64, numbered(0, 3));
        assert_eq!((queue.counters().kicks, queue.transmit_pending()), (0, 3));
    }

    #[test]
    fn the_limit_of_a_batch_is_kept() {
        let (mut queue, mut kernel) = queue();
        queue.transmit(&mut kernel, 2, numbered(0, 5));
        assert_eq!(kernel.sent, bytes(0..2));
    }

    #[test]
    fn a_kernel_that_takes_a_part_is_kicked_until_it_has_all() {
        for errno in [libc::EAGAIN, libc::EBUSY, libc::ENOBUFS] {
            let (mut queue, mut kernel) = queue();
            kernel.kicks = vec![(2, Some(errno)), (0, Some(errno)), (2, Some(errno))];
            queue.transmit(&mut kernel, 64, numbered(0, 6));
            assert_eq!(kernel.sent, bytes(0..6), "errno {errno}");
            assert_eq!((queue.counters().kicks, queue.counters().kick_retries), (4, 3), "errno {errno}");
        }
    }

    #[test]
    fn a_kernel_that_takes_nothing_is_left_alone_until_the_next_turn() {
        let (mut queue, mut kernel) = queue();
        kernel.kicks = vec![(0, Some(libc::EBUSY)); FRUITLESS_KICKS as usize];
        queue.transmit(&mut kernel, 64, numbered(0, 3));
        assert_eq!((kernel.sent.len(), queue.transmit_pending()), (0, 3));
        queue.transmit(&mut kernel, 64, |_| None);
        assert_eq!((kernel.sent, queue.transmit_pending()), (bytes(0..3), 0));
    }

    #[test]
    fn an_interface_that_is_down_costs_one_kick_a_turn_and_keeps_the_frames() {
        let (mut queue, mut kernel) = queue();
        kernel.kicks = vec![(0, Some(libc::ENETDOWN))];
        queue.transmit(&mut kernel, 64, numbered(0, 3));
        assert_eq!((queue.counters().kicks, queue.counters().kick_errors, queue.transmit_pending()), (1, 1, 3));
    }

    #[test]
    fn frames_are_used_again_and_again() {
        let (mut queue, mut kernel) = queue();
        for _ in 0..50 {
            queue.transmit(&mut kernel, 64, numbered(0, 7));
        }
        assert_eq!((kernel.sent.len(), queue.counters().starved), (350, 0));
    }

    #[test]
    fn a_batch_larger_than_all_frames_goes_on_with_those_that_completed() {
        let (mut queue, mut kernel) = queue();
        queue.transmit(&mut kernel, 64, numbered(0, 20));
        assert_eq!(kernel.sent, bytes(0..20));
        assert_eq!(queue.counters().starved, 0);
    }

    #[test]
    fn without_completions_a_batch_ends_and_nothing_waits() {
        let (mut queue, mut kernel) = queue();
        kernel.completes = false;
        queue.transmit(&mut kernel, 64, numbered(0, 20));
        assert_eq!((kernel.sent.len(), queue.counters().starved), (8, 1));
        kernel.now += LOST_AFTER / 2;
        queue.transmit(&mut kernel, 64, numbered(0, 20));
        assert_eq!((kernel.sent.len(), queue.counters().starved, queue.counters().lost), (8, 2, 0));
    }

    #[test]
    fn frames_that_never_complete_count_as_lost_and_sending_goes_on() {
        let (mut queue, mut kernel) = queue();
        kernel.completes = false;
        queue.transmit(&mut kernel, 64, numbered(0, 20));
        kernel.now += LOST_AFTER;
        kernel.completes = true;
        queue.transmit(&mut kernel, 64, numbered(100, 3));
        assert_eq!(queue.counters().lost, 8);
        assert_eq!(kernel.sent[8..], bytes(100..103));
    }

    #[test]
    fn a_completion_restarts_the_patience_with_lost_frames() {
        let (mut queue, mut kernel) = queue();
        kernel.completes = false;
        queue.transmit(&mut kernel, 64, numbered(0, 20));
        kernel.now += LOST_AFTER / 2;
        kernel.side.complete(u64::from(FRAMES.receive) * u64::from(FRAMES.size));
        queue.transmit(&mut kernel, 64, numbered(20, 20));
        kernel.now += LOST_AFTER / 2;
        queue.transmit(&mut kernel, 64, numbered(40, 20));
        assert_eq!((kernel.sent.len(), queue.counters().lost), (9, 0));
    }

    #[test]
    fn received_frames_are_handed_on_in_order_and_their_memory_goes_back() {
        let (mut queue, mut kernel) = queue();
        for round in 0..10 {
            assert!((0..8).all(|i| kernel.side.deliver([round; 8], &[i])), "memory for round {round}");
            assert!(!kernel.side.deliver([0; 8], &[9]), "all memory is used");
            assert!(queue.has_received());
            let mut seen = Vec::new();
            queue.receive(&mut kernel, 5, |r| seen.push((r.metadata()[0], r.frame[0])));
            assert_eq!(seen, Vec::from_iter((0..5).map(|i| (round, i))), "a batch of at most 5");
            queue.receive(&mut kernel, 5, |r| seen.push((r.metadata()[0], r.frame[0])));
            assert_eq!(seen.len(), 8);
            assert!(!queue.has_received());
        }
        assert_eq!((queue.counters().frames_in, queue.counters().bytes_in, queue.refused()), (80, 80, 0));
    }

    #[test]
    fn a_driver_that_ran_out_of_memory_is_woken_even_when_nothing_was_received() {
        let (mut queue, mut kernel) = queue();
        queue.receive(&mut kernel, 64, |_| {});
        assert_eq!(kernel.fill_wakeups, 0);
        kernel.side.ask_for_wakeups(true, true);
        queue.receive(&mut kernel, 64, |_| {});
        assert_eq!((kernel.fill_wakeups, queue.counters().fill_wakeups), (1, 1));
    }
}
