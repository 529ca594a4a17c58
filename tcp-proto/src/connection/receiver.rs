//! The receiving half of a connection: the RFC's RCV variables, the window we offer, the ACKs we owe.

use alloc::boxed::Box;

use tcp_common::headers::MAX_WINDOW_SCALE;

use crate::buffer::{NoRoom, Pool, ReceiveBuffer};
use crate::config::TcpConfig;
use crate::limits::{INITIAL_BUFFER, MAX_DUPLICATE_ACKS, WINDOW_SLACK};
use crate::seq::{SeqNum, Span};
use crate::time::Instant;
use crate::wire::SackBlocks;

/// A timestamp this old, in seconds, proves nothing any more (RFC 7323 section 5.5): the sender's clock may
/// have wrapped. 24 days.
const TIMESTAMP_LIFETIME: u32 = 24 * 24 * 3600;

/// Largest window there is, bytes (RFC 7323 section 2.3).
const MAX_WINDOW: u32 = (u16::MAX as u32) << MAX_WINDOW_SCALE;

/// ACKs that are owed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Owed {
    /// An ACK is due now.
    pub(super) now: bool,
    /// Duplicate ACKs due: one per out-of-order segment, so that the peer can count them (RFC 5681 section 4.2).
    pub(super) duplicates: u8,
}

/// The timestamps the peer sends.
#[derive(Clone, Copy)]
struct Recent {
    /// TS.Recent.
    value: u32,
    /// When it was taken, in seconds.
    at: u32,
}

fn seconds(now: Instant) -> u32 {
    (now.as_millis() / 1000) as u32
}

/// RCV variables (RFC 9293 section 3.3.1).
pub(super) struct Receiver {
    /// IRS.
    pub(super) irs: SeqNum,
    /// RCV.NXT.
    pub(super) next: SeqNum,
    /// RCV.NXT + RCV.WND: the right edge we offered, which never moves left (SHLD-14).
    edge: SeqNum,
    /// Size of the receive buffer, bytes.
    capacity: u32,
    /// Where the round ends after which the buffer may grow.
    round_end: SeqNum,
    /// Shift of the windows we send.
    scale: u8,
    /// Whether both sides offered window scaling.
    pub(super) scaling: bool,
    /// Where the peer's FIN is; `None` before one was seen.
    pub(super) fin: Option<SeqNum>,
    recent: Option<Recent>,
    /// Last.ACK.sent.
    pub(super) last_ack: SeqNum,
    /// Bytes that arrived since we last acknowledged.
    pub(super) unacknowledged: u32,
    pub(super) owed: Owed,
    /// RCV.UP: the octet after the peer's urgent data; no later than the first unread octet when there are none.
    urgent: SeqNum,
    /// What arrived twice last and the peer was not told of yet (RFC 2883); empty: nothing.
    twice: Span,
    /// Bytes that arrived and nobody read; none: no buffer.
    buffer: Option<Box<ReceiveBuffer>>,
}

impl Receiver {
    pub(super) fn new(config: &TcpConfig) -> Self {
        Receiver {
            irs: SeqNum(0),
            next: SeqNum(0),
            edge: SeqNum(0),
            capacity: initial_capacity(config),
            round_end: SeqNum(0),
            scale: scale_for(config.recv_buffer),
            scaling: false,
            fin: None,
            recent: None,
            last_ack: SeqNum(0),
            unacknowledged: 0,
            owed: Owed::default(),
            urgent: SeqNum(0),
            twice: Span::default(),
            buffer: None,
        }
    }

    /// The peer's SYN had number `irs`.
    pub(super) fn start(&mut self, irs: SeqNum) {
        let offered = self.window();
        self.irs = irs;
        self.next = irs + 1;
        self.edge = self.next + offered;
        self.last_ack = self.next;
        self.urgent = self.next;
        self.round_end = self.next + self.capacity;
    }

    /// The SYN that began this was not the peer's: what it agreed to is forgotten. The window that we offered stands.
    pub(super) fn restart(&mut self, config: &TcpConfig, irs: SeqNum) {
        let offered = self.window();
        *self = Receiver::new(config);
        self.edge = self.next + offered;
        self.start(irs);
    }

    /// The shift we offer in our SYN.
    pub(super) fn offered_scale(&self) -> u8 {
        self.scale
    }

    /// Whether both sides offered window scaling; without it 16 bits are all there is.
    pub(super) fn scale_agreed(&mut self, agreed: bool) {
        self.scaling = agreed;
        if !agreed {
            self.scale = 0;
            self.capacity = self.capacity.min(u16::MAX.into());
        }
    }

    pub(super) fn timestamps_agreed(&mut self, value: u32, now: Instant) {
        self.recent = Some(Recent { value, at: seconds(now) });
    }

    /// TS.Recent, if timestamps are in use.
    pub(super) fn timestamps(&self) -> Option<u32> {
        self.recent.map(|recent| recent.value)
    }

    /// Whether a timestamp comes from the past (PAWS, RFC 7323 section 5.3).
    //= docs/rfc/rfc7323.md#5.5-outdated
    //= docs/rfc/rfc7323.md#3.2-unagreed
    pub(super) fn is_old(&self, timestamp: u32, now: Instant) -> bool {
        self.recent.is_some_and(|recent| {
            (timestamp.wrapping_sub(recent.value) as i32) < 0
                && seconds(now).wrapping_sub(recent.at) < TIMESTAMP_LIFETIME
        })
    }

    /// Takes the timestamp of a segment that covers Last.ACK.sent (RFC 7323 section 4.3).
    //= docs/rfc/rfc7323.md#4.3-echo
    pub(super) fn note_timestamp(&mut self, timestamp: u32, seq: SeqNum, now: Instant) {
        if seq.at_or_before(self.last_ack) && self.recent.is_some() && !self.is_old(timestamp, now) {
            self.recent = Some(Recent { value: timestamp, at: seconds(now) });
        }
    }

    /// RCV.WND.
    //= docs/rfc/rfc9293.md#MAY-8
    pub(super) fn window(&self) -> u32 {
        self.edge - self.next
    }

    /// Whether a number lies so closely before RCV.NXT that the peer may be repeating it: what it had under way.
    pub(super) fn has_recently_had(&self, seq: SeqNum) -> bool {
        seq.at_or_before(self.next) && seq.at_or_after(self.next - self.capacity)
    }

    /// Bytes that can be read.
    pub(super) fn readable(&self) -> usize {
        self.buffer.as_ref().map_or(0, |buffer| buffer.len())
    }

    /// Whether the peer's FIN was reached: nothing more will come.
    pub(super) fn finished(&self) -> bool {
        self.fin.is_some_and(|fin| self.next.after(fin))
    }

    /// Whether data wait behind a gap.
    pub(super) fn has_gaps(&self) -> bool {
        self.buffer.as_ref().is_some_and(|buffer| buffer.has_gaps())
            || self.fin.is_some_and(|fin| self.next.before(fin))
    }

    /// SACK blocks that the next ACK could carry.
    pub(super) fn sack_count(&self) -> usize {
        usize::from(!self.twice.is_empty()) + self.buffer.as_ref().map_or(0, |buffer| buffer.run_count())
    }

    /// The first `most` of them (RFC 2018 section 4; what arrived twice goes first, RFC 2883 section 4).
    //= docs/rfc/rfc2883.md#4-first
    //= docs/rfc/rfc2883.md#4-larger
    pub(super) fn sacks(&self, most: usize) -> SackBlocks {
        let mut blocks = SackBlocks::default();
        let runs = self.buffer.iter().flat_map(|buffer| {
            // What arrived twice is followed by the run that it is in.
            let around = buffer.run_around(self.twice).filter(|_| !self.twice.is_empty());
            around.into_iter().chain(buffer.runs_to_report().filter(move |run| Some(*run) != around))
        });
        let twice = (!self.twice.is_empty()).then_some(self.twice);
        twice.into_iter().chain(runs).take(most).for_each(|span| blocks.push(span));
        blocks
    }

    /// Bytes arrived: notes the first of them that are here already (RFC 2883), if the peer may have repeated them: a
    /// report of what a stranger made up would mislead the peer about its losses. `had`: bytes of the stream so far.
    //= docs/rfc/rfc2883.md#4.1-full
    //= docs/rfc/rfc2883.md#4.2-partial
    pub(super) fn note_twice(&mut self, span: Span, had: u64) {
        let delivered = Span { start: span.start, end: span.end.earliest(self.next) };
        let was_here = || {
            let back = u64::from(self.next - span.start);
            self.has_recently_had(span.start) && back <= had + u64::from(self.finished())
        };
        let twice = match delivered.start.before(delivered.end) {
            true => was_here().then_some(delivered),
            false => self.buffer.as_ref().and_then(|buffer| buffer.overlap(span)),
        };
        self.twice = twice.unwrap_or(self.twice);
    }

    /// Whether something arrived twice that the peer is to be told of.
    pub(super) fn has_duplicate(&self) -> bool {
        !self.twice.is_empty()
    }

    /// The peer was told of what arrived twice.
    //= docs/rfc/rfc2883.md#4-once
    pub(super) fn reported(&mut self) {
        self.twice = Span::default();
    }

    /// Stores bytes that start at `seq`, at or after RCV.NXT and inside the window; how far RCV.NXT moved.
    //= docs/rfc/rfc9293.md#SHLD-31
    pub(super) fn insert(&mut self, pool: &mut Pool, seq: SeqNum, bytes: &[u8]) -> Result<u32, NoRoom> {
        if (seq + bytes.len() as u32).after(self.limit()) {
            return Err(NoRoom::Buffer);
        }
        let buffer = self.buffer.get_or_insert_default();
        let advance = buffer.insert(pool, self.next, seq, bytes);
        if buffer.is_empty() {
            buffer.release(pool);
            self.buffer = None;
        }
        let advance = advance?;
        self.next += advance;
        Ok(advance)
    }

    /// Gives up what waits behind gaps; whether there was any.
    pub(super) fn forget_behind_gaps(&mut self, pool: &mut Pool) -> bool {
        let Some(buffer) = &mut self.buffer else { return false };
        let some = buffer.forget_behind_gaps(pool);
        if buffer.is_empty() {
            self.buffer = None;
        }
        some
    }

    pub(super) fn read(&mut self, pool: &mut Pool, into: &mut [u8]) -> usize {
        let Some(buffer) = &mut self.buffer else { return 0 };
        let length = buffer.read(pool, into);
        if buffer.is_empty() {
            self.buffer = None;
        }
        // What was read is not urgent any more. Numbers come again: without this, 2 GiB later it would seem to be.
        self.urgent = self.urgent.latest(self.first_unread());
        length
    }

    /// The peer says that its urgent data end before `end`; whether that is news.
    //= docs/rfc/rfc9293.md#MUST-31
    //= docs/rfc/rfc9293.md#MUST-32
    pub(super) fn note_urgent(&mut self, end: SeqNum) -> bool {
        let advances = end.after(self.urgent.latest(self.first_unread()));
        if advances {
            self.urgent = end;
        }
        advances
    }

    /// Octets from the first unread one to the end of the urgent data; they may not all have arrived.
    //= docs/rfc/rfc9293.md#MUST-33
    pub(super) fn urgent_remaining(&self) -> u32 {
        self.urgent.distance_from(self.first_unread()).max(0) as u32
    }

    fn first_unread(&self) -> SeqNum {
        self.next - self.readable() as u32 - u32::from(self.finished())
    }

    pub(super) fn discard(&mut self, pool: &mut Pool) {
        if let Some(mut buffer) = self.buffer.take() {
            buffer.clear(pool);
        }
    }

    /// One more out-of-order segment wants its own ACK.
    //= docs/rfc/rfc9293.md#MAY-13
    //= docs/rfc/rfc5681.md#4.2-out-of-order
    pub(super) fn owe_duplicate(&mut self) {
        self.owed.duplicates = (self.owed.duplicates + 1).min(MAX_DUPLICATE_ACKS);
    }

    /// The application read: a buffer that a whole window went through while hardly anything stayed in it may be what
    /// limits the rate. It doubles, up to `most` bytes. Whether it did.
    pub(super) fn tune(&mut self, most: u32) -> bool {
        if self.next.before(self.round_end) {
            return false;
        }
        let before = self.capacity;
        let most = most.min(if self.scaling { MAX_WINDOW } else { u16::MAX.into() });
        if self.readable() as u32 <= self.capacity / 4 && self.capacity < most {
            self.capacity = self.capacity.saturating_mul(2).min(most);
        }
        self.round_end = self.next + self.capacity;
        self.capacity > before
    }

    /// The last right edge that can be honoured.
    fn limit(&self) -> SeqNum {
        self.next + (self.capacity + WINDOW_SLACK).saturating_sub(self.readable() as u32)
    }

    /// The right edge that the free space allows: it moves in steps of at least a segment or half the buffer
    /// (silly window avoidance, RFC 9293 section 3.8.6.2.2), and never left.
    fn allowed_edge(&self, mss: u32) -> SeqNum {
        let free = self.capacity.saturating_sub(self.readable() as u32);
        let allowed = self.next + free;
        let step = mss.min(self.capacity / 2) as i32;
        if allowed.distance_from(self.edge) >= step { allowed } else { self.edge.latest(self.next) }
    }

    /// Whether reading freed enough to tell the peer without being asked: the window was less than half the
    /// buffer, and grows by two segments or half the buffer.
    //= docs/rfc/rfc9293.md#MUST-39
    pub(super) fn window_update_is_due(&self, mss: u32) -> bool {
        let grows = self.allowed_edge(mss).distance_from(self.edge);
        let half = self.capacity / 2;
        grows > 0 && self.window() < half && grows as u32 >= half.min(2 * mss)
    }

    /// The window field of a segment that leaves now, and the edge it stands for. A window that is no
    /// multiple of the scale is rounded up, because rounding down would move the edge left. Many small segments
    /// push the edge ahead of them that way; where it could not be honoured any more the field is rounded down,
    /// and the edge offered before still counts (RFC 7323 section 2.4).
    //= docs/rfc/rfc9293.md#MUST-39
    //= docs/rfc/rfc9293.md#SHLD-14
    //= docs/rfc/rfc7323.md#2.4-shrink
    pub(super) fn advertise(&mut self, mss: u32) -> u16 {
        self.edge = self.allowed_edge(mss);
        let up = self.window().div_ceil(1 << self.scale).min(u16::MAX.into());
        let units = if (self.next + (up << self.scale)).after(self.limit()) { self.window() >> self.scale } else { up };
        self.edge = self.edge.latest(self.next + (units << self.scale));
        units as u16
    }

    /// The window field of a SYN, which is never scaled.
    //= docs/rfc/rfc7323.md#2.2-unscaled
    pub(super) fn advertise_unscaled(&mut self) -> u16 {
        let window = self.capacity.min(u16::MAX.into());
        self.edge = self.edge.latest(self.next + window);
        window as u16
    }

    /// The window field of a segment between our SYN and its acknowledgment: no more than the SYN offered, because that
    /// may have to be sent again, and its field reaches no further.
    pub(super) fn repeat_window(&self) -> u16 {
        (self.window() >> self.scale).min(u16::MAX.into()) as u16
    }
}

pub(crate) fn initial_capacity(config: &TcpConfig) -> u32 {
    let most = if config.autotune { INITIAL_BUFFER } else { MAX_WINDOW };
    config.recv_buffer.min(most)
}

/// The smallest shift that lets 16 bits reach `capacity` (RFC 7323 section 2.3).
pub(crate) fn scale_for(capacity: u32) -> u8 {
    (0..MAX_WINDOW_SCALE).find(|shift| capacity >> shift <= u16::MAX.into()).unwrap_or(MAX_WINDOW_SCALE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receiver(capacity: u32) -> Receiver {
        let mut receiver = Receiver::new(&TcpConfig { recv_buffer: capacity, autotune: false, ..TcpConfig::default() });
        receiver.start(SeqNum(u32::MAX - 500));
        receiver
    }

    #[test]
    fn the_scale_is_the_smallest_that_reaches_the_buffer() {
        for (capacity, scale) in [(65_535, 0), (65_536, 1), (1 << 20, 5), (u32::MAX, 14)] {
            assert_eq!(scale_for(capacity), scale, "{capacity}");
        }
    }

    //= docs/rfc/rfc9293.md#SHLD-14
    //= docs/rfc/rfc7323.md#2.4-shrink
    #[test]
    fn the_right_edge_never_moves_left_whatever_arrives_and_is_read() {
        let mut pool = Pool::new(1 << 24);
        let mut receiver = receiver(1 << 20);
        let mut edge = receiver.next + u32::from(receiver.advertise_unscaled());
        for step in 0..5_000u32 {
            let bytes = alloc::vec![0; (step as usize * 7) % 1400];
            let fits = bytes.len().min(receiver.window() as usize);
            let _ = receiver.insert(&mut pool, receiver.next, &bytes[..fits]);
            if step % 3 == 0 {
                receiver.read(&mut pool, &mut alloc::vec![0; (step as usize * 5) % 3000]);
            }
            let field = receiver.advertise(1448);
            let offered = receiver.next + (u32::from(field) << receiver.scale);
            assert!(offered.at_or_after(edge), "step {step}");
            edge = offered;
        }
    }

    #[test]
    fn the_buffer_grows_for_a_reader_who_keeps_up_and_for_nobody_else() {
        let config = TcpConfig { recv_buffer: 1 << 20, ..TcpConfig::default() };
        for (keeps_up, grown) in [(true, 1 << 20), (false, INITIAL_BUFFER)] {
            let mut pool = Pool::new(1 << 24);
            let mut receiver = Receiver::new(&config);
            receiver.scale_agreed(true);
            receiver.start(SeqNum(7));
            for _ in 0..4_000 {
                receiver.advertise(1000);
                let fits = receiver.window().min(1000) as usize;
                receiver.insert(&mut pool, receiver.next, &[0; 1000][..fits]).unwrap();
                let spare = if keeps_up { 0 } else { receiver.capacity as usize / 2 };
                let read = receiver.readable().saturating_sub(spare);
                receiver.read(&mut pool, &mut alloc::vec![0; read]);
                receiver.tune(1 << 20);
            }
            assert_eq!(receiver.capacity, grown, "keeps up: {keeps_up}");
        }
    }

    #[test]
    fn urgent_data_that_were_read_do_not_come_back_when_numbers_do() {
        let mut pool = Pool::new(1 << 24);
        let mut receiver = receiver(8000);
        assert!(receiver.note_urgent(receiver.next + 5));
        for _ in 0..8 {
            receiver.insert(&mut pool, receiver.next, &[0; 10]).unwrap();
            assert_eq!(receiver.read(&mut pool, &mut [0; 10]), 10);
            assert_eq!(receiver.urgent_remaining(), 0);
            // As if so many more had come and gone.
            receiver.next += 1 << 30;
            receiver.edge += 1 << 30;
        }
    }

    #[test]
    fn a_reader_of_single_bytes_does_not_open_the_window_in_single_bytes() {
        let mut pool = Pool::new(1 << 24);
        let mut receiver = receiver(8000);
        receiver.advertise_unscaled();
        assert_eq!(receiver.insert(&mut pool, receiver.next, &[1; 8000]), Ok(8000));
        assert_eq!(receiver.advertise(1000), 0);
        for _ in 0..999 {
            receiver.read(&mut pool, &mut [0]);
            assert_eq!(receiver.advertise(1000), 0);
        }
        receiver.read(&mut pool, &mut [0]);
        assert_eq!(receiver.advertise(1000), 1000);
    }
}
