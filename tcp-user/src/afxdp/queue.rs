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
