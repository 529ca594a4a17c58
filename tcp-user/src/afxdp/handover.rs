//! Segments that arrive on another queue than their connection's: a flow can change its queue (a sender that
//! rehashes, an RSS table that moved), and every connection belongs to one worker.
//!
//! The program says whose a segment is by the hint it puts before the frame ([`tcp_common::layout::Handover`]).
//! The worker that received it copies it to the owner's inbox: bounded, and counted both ways. Leaves out drivers
//! without room for the hint: there the worker that received a segment answers it as one without a connection.

use std::sync::Arc;

use serde::Serialize;
use tcp_common::ConnectionKey;
use tcp_common::layout::Handover;
use tcp_common::packet;
use tokio::sync::Notify;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use crate::sys::rings::Received;

/// Most frames that wait for one worker; more are dropped, which TCP repairs.
pub const INBOX_FRAMES: usize = 1024;

/// One worker's end of the exchange between all workers of an interface.
#[derive(Debug)]
pub struct Exchange {
    queue: u16,
    inbox: Receiver<Box<[u8]>>,
    /// Every worker's inbox by queue, our own too.
    workers: Arc<[Address]>,
    counters: HandoverCounters,
    /// Connections of kept frames for which the program found no entry; no more than a turn receives.
    strangers: Vec<ConnectionKey>,
}

/// Where a worker gets what others received for it.
#[derive(Debug)]
struct Address {
    inbox: Sender<Box<[u8]>>,
    bell: Arc<Notify>,
}

/// What a worker has handed over and was handed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct HandoverCounters {
    /// Frames given to the worker of another queue.
    pub handed_over: u64,
    /// Frames got from the workers of other queues.
    pub handed_in: u64,
    /// Frames dropped because the inbox of their owner was full.
    pub handover_full: u64,
}

impl Exchange {
    /// The ends of the workers of `queues` queues, in the order of the queues.
    #[must_use]
    pub fn among(queues: u16) -> Vec<Exchange> {
        let (senders, inboxes): (Vec<_>, Vec<_>) = (0..queues).map(|_| channel(INBOX_FRAMES)).unzip();
        let workers: Arc<[Address]> =
            senders.into_iter().map(|inbox| Address { inbox, bell: Arc::default() }).collect();
        let end = |(queue, inbox)| Exchange {
            queue,
            inbox,
            workers: Arc::clone(&workers),
            counters: HandoverCounters::default(),
            strangers: Vec::new(),
        };
        (0..).zip(inboxes).map(end).collect()
    }

    /// What was counted.
    #[must_use]
    pub fn counters(&self) -> HandoverCounters {
        self.counters
    }

    /// Whether there are other workers.
    pub(super) fn has_others(&self) -> bool {
        self.workers.len() > 1
    }

    /// Rings when something was put into our inbox.
    pub(super) fn bell(&self) -> Arc<Notify> {
        Arc::clone(&self.workers[usize::from(self.queue)].bell)
    }

    /// Whether frames wait in our inbox.
    pub(super) fn has_waiting(&self) -> bool {
        !self.inbox.is_empty()
    }

    /// Hands at most `limit` frames that others received for us to `sink`; how many.
    pub(super) fn take(&mut self, limit: usize, sink: &mut impl FnMut(&[u8])) -> usize {
        let mut taken = 0;
        while taken < limit
            && let Ok(frame) = self.inbox.try_recv()
        {
            sink(&frame);
            taken += 1;
        }
        self.counters.handed_in += taken as u64;
        taken
    }

    /// Gives a received frame back unless it is another worker's; then passes it on. Notes whom the program knows nothing
    /// of.
    pub(super) fn keep<'a>(&mut self, mut received: Received<'a>) -> Option<Received<'a>> {
        // Taken, so that no later frame in the same memory can be mistaken for one of this connection.
        let hint = received.take_metadata();
        let Some(key) = hinted_at(hint, received.frame) else { return Some(received) };
        match Handover::owner(hint, &key) {
            Some(queue) if queue != self.queue && usize::from(queue) < self.workers.len() => {
                self.pass_on(queue, received.frame);
                return None;
            }
            _ if Handover::is_stranger(hint, &key) => self.strangers.push(key),
            _ => {}
        }
        Some(received)
    }

    /// Takes the connections that the program knew nothing of when it steered frames that were kept since.
    pub(super) fn take_strangers(&mut self) -> Vec<ConnectionKey> {
        std::mem::take(&mut self.strangers)
    }

    /// Copies a frame to the inbox of the worker of `queue`.
    fn pass_on(&mut self, queue: u16, frame: &[u8]) {
        let worker = &self.workers[usize::from(queue)];
        // Only a full inbox refuses: a worker that ends takes the process with it.
        if worker.inbox.try_send(frame.into()).is_ok() {
            worker.bell.notify_one();
            self.counters.handed_over += 1;
        } else {
            self.counters.handover_full += 1;
        }
    }
}

/// The connection that `frame` belongs to, if there is a hint before it that may be about it.
fn hinted_at(hint: [u8; Handover::LENGTH], frame: &[u8]) -> Option<ConnectionKey> {
    if hint == [0; Handover::LENGTH] {
        return None;
    }
    let link = packet::link(frame)?;
    let mut key = ConnectionKey::default();
    packet::classify(frame, &link, &mut key)?;
    Some(key)
}

#[cfg(test)]
mod tests {
    use tcp_common::cases::frames::{SegmentFrame, icmp_error};

    use super::*;
    use crate::sys::rings::tests::{KernelSide, without_kernel};
    use crate::sys::rings::{FrameCount, Rings};

    const FRAMES: FrameCount = FrameCount { receive: 4, transmit: 4, size: 2048 };

    /// A queue's rings and its end of the exchange; the other workers' ends.
    struct Worker {
        rings: Rings,
        kernel: KernelSide,
        exchange: Exchange,
        others: Vec<Exchange>,
    }

    impl Worker {
        /// The worker of queue 0 of `queues`.
        fn among(queues: u16) -> Worker {
            let (rings, kernel) = without_kernel(FRAMES);
            let mut others = Exchange::among(queues);
            let exchange = others.remove(0);
            Worker { rings, kernel, exchange, others }
        }

        /// Receives a frame with a hint before it; whether it was kept.
        fn receive(&mut self, hint: [u8; Handover::LENGTH], frame: &[u8]) -> bool {
            assert!(self.rings.fill(0));
            self.rings.publish_fill();
            assert!(self.kernel.deliver(hint, frame));
            let mut kept = None;
            let exchange = &mut self.exchange;
            self.rings.take(|received| kept = Some(exchange.keep(received).is_some()));
            self.rings.release_received();
            kept.expect("a frame")
        }
    }

    fn taken(exchange: &mut Exchange) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        exchange.take(usize::MAX, &mut |frame| frames.push(frame.to_vec()));
        frames
    }

    /// The hint that the program puts before a segment of the connection of `frame`.
    fn hint(frame: &SegmentFrame, queue: u16) -> [u8; Handover::LENGTH] {
        let handover = Handover::new(&ConnectionKey::new(frame.destination, frame.source), queue);
        let words = [handover.mark, handover.queue, handover.local_port, handover.remote_port];
        words.map(u16::to_ne_bytes).concat().try_into().expect("eight bytes")
    }

    #[test]
    fn a_segment_of_another_workers_connection_goes_to_that_worker_and_to_nobody_else() {
        let mut worker = Worker::among(3);
        for segment in [SegmentFrame::v4(7, "A"), SegmentFrame::v6(7, "A").tagged(5)] {
            let segment = segment.with_payload(b"for another");
            let frame = segment.build();
            assert!(!worker.receive(hint(&segment, 2), &frame));
            assert_eq!((taken(&mut worker.others[1]), taken(&mut worker.others[0])), (vec![frame], vec![]));
        }
        assert_eq!(worker.exchange.counters().handed_over, 2);
        assert_eq!(worker.others[1].counters().handed_in, 2);
    }

    #[test]
    fn an_icmp_error_goes_to_the_worker_whose_connection_it_is_about() {
        for (segment, kind) in [(SegmentFrame::v4(7, "A"), 3), (SegmentFrame::v6(7, "A"), 2)] {
            let mut worker = Worker::among(2);
            let frame = icmp_error(&ConnectionKey::new(segment.destination, segment.source), kind);
            assert!(!worker.receive(hint(&segment, 1), &frame));
            assert_eq!(taken(&mut worker.others[0]), [frame]);
        }
    }

    #[test]
    fn a_segment_without_a_hint_or_with_one_that_does_not_fit_is_kept() {
        let mut worker = Worker::among(2);
        let segment = SegmentFrame::v4(7, "A");
        let frame = segment.build();
        assert!(worker.receive([0; Handover::LENGTH], &frame));
        assert!(worker.receive(hint(&segment, 0), &frame), "our own");
        assert!(worker.receive(hint(&segment, 2), &frame), "nobody's");
        assert!(worker.receive(hint(&SegmentFrame::v4(80, "A"), 1), &frame), "another connection's");
        assert!(worker.receive([0xff; Handover::LENGTH], &frame), "no hint at all");
        assert!(worker.receive(hint(&segment, 1), &[0; 60]), "no segment");
        assert_eq!(taken(&mut worker.others[0]), Vec::<Vec<u8>>::new());
        assert_eq!(worker.exchange.counters(), HandoverCounters::default());
    }

    #[test]
    fn a_hint_counts_for_one_frame_only() {
        let mut worker = Worker::among(2);
        let segment = SegmentFrame::v4(7, "A");
        let frame = segment.build();
        assert!(!worker.receive(hint(&segment, 1), &frame));
        assert!(worker.rings.fill(0));
        worker.rings.publish_fill();
        let address = worker.kernel.fill.pop().expect("the same memory") + 256;
        assert!(worker.kernel.announce(address, frame.len() as u32));
        let exchange = &mut worker.exchange;
        let index = worker.rings.take(|received| assert!(exchange.keep(received).is_some(), "no hint of its own"));
        assert_eq!(index, Some(0));
    }

    #[test]
    fn a_full_inbox_drops_and_counts() {
        let mut worker = Worker::among(2);
        let segment = SegmentFrame::v4(7, "A");
        let frame = segment.build();
        for _ in 0..INBOX_FRAMES + 3 {
            assert!(!worker.receive(hint(&segment, 1), &frame));
        }
        let counters = worker.exchange.counters();
        assert_eq!((counters.handed_over, counters.handover_full), (INBOX_FRAMES as u64, 3));
        assert!(worker.others[0].has_waiting());
        assert_eq!(taken(&mut worker.others[0]).len(), INBOX_FRAMES);
        assert!(!worker.others[0].has_waiting());
    }

    #[test]
    fn a_single_worker_keeps_everything() {
        let mut worker = Worker::among(1);
        let segment = SegmentFrame::v4(7, "A");
        assert!(worker.receive(hint(&segment, 1), &segment.build()));
    }

    #[tokio::test]
    async fn a_handover_rings_the_owners_bell() {
        let mut worker = Worker::among(2);
        let bell = worker.others[0].bell();
        let segment = SegmentFrame::v4(7, "A");
        assert!(!worker.receive(hint(&segment, 1), &segment.build()));
        bell.notified().await;
        assert!(worker.others[0].has_waiting());
    }
}
