//! The sending half of a connection: the RFC's SND variables and the bytes behind them.

use alloc::boxed::Box;
use core::time::Duration;

use crate::buffer::{Pool, SendBuffer};
use crate::seq::SeqNum;
use crate::time::Instant;

/// What an application that could not queue all of its bytes waits for, to be told of by an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WriterWaits {
    No,
    /// Room in the send buffer.
    ForRoom,
    /// Memory: the connection stands in the stack's line of those that starve.
    ForMemory,
}

/// SND variables (RFC 9293 section 3.3.1). Windows are scaled already: 32 bits throughout (REC-1).
//= docs/rfc/rfc9293.md#MUST-1
//= docs/rfc/rfc9293.md#REC-1
pub(super) struct Sender {
    /// ISS.
    pub(super) iss: SeqNum,
    /// SND.UNA.
    pub(super) una: SeqNum,
    /// SND.NXT: after everything that was ever sent.
    pub(super) next: SeqNum,
    /// SND.WND.
    pub(super) window: u32,
    /// SND.WL1.
    window_seq: SeqNum,
    /// SND.WL2.
    window_ack: SeqNum,
    /// MAX.SND.WND: the largest window the peer ever offered.
    pub(super) max_window: u32,
    /// Shift of the windows the peer sends.
    pub(super) scale: u8,
    /// MSS that the peer announced.
    pub(super) peer_mss: u16,
    /// Whether our SYN is to be sent, first or again.
    pub(super) syn_due: bool,
    /// Whether our SYN was acknowledged.
    syn_acked: bool,
    /// Whether our FIN was sent; SND.NXT is past it then.
    pub(super) fin_sent: bool,
    pub(super) writer_waits: WriterWaits,
    /// Our clock when a piece of the stream was sent last, ms.
    pub(super) last_sent: u32,
    /// The segment that times the round trip: the number after it, and when it was sent, us of our clock (Karn's rule).
    timed: Option<(SeqNum, u32)>,
    /// Bytes not acknowledged or not sent yet; none: no buffer.
    buffer: Option<Box<SendBuffer>>,
}

impl Sender {
    pub(super) fn new(iss: SeqNum, peer_mss: u16) -> Self {
        Sender {
            iss,
            una: iss,
            next: iss,
            window: 0,
            window_seq: SeqNum(0),
            window_ack: iss,
            max_window: 0,
            scale: 0,
            peer_mss,
            syn_due: false,
            syn_acked: false,
            fin_sent: false,
            writer_waits: WriterWaits::No,
            last_sent: 0,
            timed: None,
            buffer: None,
        }
    }

    /// Bytes queued: unacknowledged and unsent ones.
    pub(super) fn queued(&self) -> u32 {
        self.buffer.as_ref().map_or(0, |buffer| buffer.len() as u32)
    }

    /// The number of the first queued byte: SND.UNA, but never the SYN's. (SND.UNA can't tell by itself: it comes by
    /// every number again after 4 GiB.)
    fn base(&self) -> SeqNum {
        self.una + u32::from(!self.syn_acked)
    }

    /// The number after the last queued byte: where a FIN goes.
    pub(super) fn data_end(&self) -> SeqNum {
        self.base() + self.queued()
    }

    /// The number of a segment without text: SND.NXT, unless that lies beyond the peer's window, because the window
    /// was probed or shrank. There the peer would not look at the segment (RFC 9293 section 3.10.7.4, first step),
    /// so that its own data would stay unacknowledged.
    pub(super) fn acceptable_seq(&self) -> SeqNum {
        self.next.earliest(self.base() + self.window)
    }

    /// Whether something sent is unacknowledged.
    pub(super) fn is_outstanding(&self) -> bool {
        self.una != self.next
    }

    pub(super) fn append(&mut self, pool: &mut Pool, bytes: &[u8]) -> usize {
        if bytes.is_empty() {
            return 0;
        }
        let buffer = self.buffer.get_or_insert_default();
        let taken = buffer.append(pool, bytes);
        if buffer.len() == 0 {
            self.buffer = None;
        }
        taken
    }

    /// Copies the bytes from number `seq` on into all of `into`.
    pub(super) fn copy(&self, seq: SeqNum, into: &mut [u8]) {
        if let Some(buffer) = &self.buffer {
            buffer.copy((seq - self.base()) as usize, into);
        }
    }

    /// Everything before `ack` (after SND.UNA, not after SND.NXT) is acknowledged; how many stream bytes.
    pub(super) fn acknowledge(&mut self, pool: &mut Pool, ack: SeqNum) -> u32 {
        let base = self.base();
        let bytes = if ack.after(base) { (ack - base).min(self.queued()) } else { 0 };
        self.una = ack;
        self.syn_acked = true;
        if let Some(buffer) = &mut self.buffer {
            buffer.release(pool, bytes as usize);
            if buffer.len() == 0 {
                self.buffer = None;
            }
        }
        bytes
    }

    pub(super) fn release_all(&mut self, pool: &mut Pool) {
        if let Some(mut buffer) = self.buffer.take() {
            let length = buffer.len();
            buffer.release(pool, length);
        }
    }

    /// Takes the window that a segment carries unless an older segment (SND.WL1, SND.WL2); whether it was
    /// taken.
    //= docs/rfc/rfc9293.md#3.10.7.4-5-ESTABLISHED-window
    pub(super) fn update_window(&mut self, seq: SeqNum, ack: SeqNum, window: u32, advances: bool) -> bool {
        let newer =
            advances || seq.after(self.window_seq) || (seq == self.window_seq && ack.at_or_after(self.window_ack));
        if newer {
            self.set_window(seq, ack, window);
        }
        newer
    }

    pub(super) fn set_window(&mut self, seq: SeqNum, ack: SeqNum, window: u32) {
        self.window = window;
        self.window_seq = seq;
        self.window_ack = ack;
        self.max_window = self.max_window.max(window);
    }

    /// Times the segment that ends before `end`, unless one is being timed.
    //= docs/rfc/rfc6298.md#3-once
    pub(super) fn time(&mut self, end: SeqNum, now: Instant) {
        self.timed.get_or_insert((end, micros(now)));
    }

    /// Something was sent twice: its acknowledgment tells nothing about time (Karn).
    //= docs/rfc/rfc6298.md#3-karn
    pub(super) fn stop_timing(&mut self) {
        self.timed = None;
    }

    /// The round trip of the timed segment, once `ack` acknowledges it.
    pub(super) fn round_trip(&mut self, ack: SeqNum, now: Instant) -> Option<Duration> {
        let (_, sent) = self.timed.take_if(|(end, _)| end.at_or_before(ack))?;
        Some(Duration::from_micros(micros(now).wrapping_sub(sent).into()))
    }
}

/// Our clock, us: it starts over every 71 minutes, and no round trip takes that long.
fn micros(now: Instant) -> u32 {
    (now.as_nanos() / 1000) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_queued_byte_keeps_its_number_however_much_was_sent_before() {
        let mut pool = Pool::new(1 << 20);
        let mut sender = Sender::new(SeqNum(5), 1460);
        assert_eq!(sender.append(&mut pool, b"abc"), 3);
        assert_eq!(sender.data_end(), SeqNum(9), "the SYN comes first");
        // In steps of less than half the number space: to and beyond where the numbers start over.
        for ack in [9, 1 << 30, 2 << 30, (2 << 30) + 100, 3 << 30, 4, 5, 6, 100] {
            sender.acknowledge(&mut pool, SeqNum(ack));
            assert_eq!(sender.data_end(), SeqNum(ack));
            assert_eq!(sender.append(&mut pool, b"defg"), 4);
            let mut sent = [0; 2];
            sender.copy(SeqNum(ack) + 1, &mut sent);
            assert_eq!((&sent, sender.data_end()), (b"ef", SeqNum(ack) + 4));
            sender.acknowledge(&mut pool, SeqNum(ack) + 4);
            assert_eq!(pool.in_use(), 0);
        }
    }
}
