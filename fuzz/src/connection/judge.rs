//! What must be true: of every frame that the stack sends, and of what it says of itself after every step.

use tcp_proto::{ConnectionInfo, State};
use tests::segment::Segment;

use super::bench::Bench;
use crate::rows;

/// What rounding a window up to its scale may let in beyond the receive buffer, bytes.
const WINDOW_SLACK: u32 = 1 << 14;

/// Our side of the present connection, as the wire shows it.
#[derive(Debug, Default)]
pub struct Ours {
    /// Its initial number, once its SYN was sent.
    pub iss: Option<u32>,
    /// After everything that was sent.
    pub next: u32,
    /// Octets that the application wrote.
    pub written: u32,
    /// Whether the application closed.
    pub closed: bool,
    /// First numbers of the segments that were sent, for reports to begin and end there.
    pub cuts: Vec<u32>,
    /// The last clock value that was sent.
    pub clock: Option<u32>,
}

/// Prints what happens, when `FUZZ_TRACE` is set.
pub fn trace(what: impl FnOnce() -> String) {
    static ON: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    if *ON.get_or_init(|| std::env::var_os("FUZZ_TRACE").is_some()) {
        eprintln!("{}", what());
    }
}

/// The octets of our stream from `offset` on.
pub fn our_stream(offset: u32, length: usize) -> Vec<u8> {
    (0..length as u32).map(|at| (offset.wrapping_add(at).wrapping_mul(0x9e37_79b1) >> 23) as u8).collect()
}

/// Whether `a` is after `b`.
fn after(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) > 0
}

impl Bench {
    /// Judges a frame that was just sent; `row` is what the connection was before.
    pub fn judge_sent(&mut self, row: Option<&ConnectionInfo>, frame: &[u8], segment: &Segment) {
        assert_eq!((segment.source, segment.destination), (self.local, self.remote));
        let link = 14 + if self.vlan.is_some() { 4 } else { 0 };
        assert!(frame.len() <= link + usize::from(self.limits.mtu), "{} bytes are too many for the link", frame.len());
        if segment.flags.rst {
            return;
        }
        let row = row.expect("only a reset is of no connection");
        assert!(self.entered, "a segment of a connection that the table does not have");
        if segment.flags.syn {
            self.syn_sent(segment);
        }
        self.judge_acknowledgment(segment);
        self.judge_options(segment);
        self.judge_numbers(row, &frame[segment.payload.clone()], segment);
    }

    fn syn_sent(&mut self, segment: &Segment) {
        if self.ours.iss.is_some_and(|iss| iss != segment.seq) {
            self.ours = Ours::default();
            self.peer.edge = None;
        }
        if self.ours.iss.is_none() {
            (self.ours.iss, self.ours.next) = (Some(segment.seq), segment.seq.wrapping_add(1));
        }
    }

    /// What is acknowledged or reported was said.
    fn judge_acknowledgment(&self, segment: &Segment) {
        if segment.flags.ack {
            assert!(
                self.peer.said_up_to(segment.ack),
                "acknowledges {}, up to which the peer has not said all",
                segment.ack
            );
        }
        for (start, end) in &segment.sacks {
            assert!(
                after(*end, *start) && self.peer.said_all(*start, *end),
                "reports {start}:{end}, which was not said"
            );
        }
    }

    fn judge_options(&mut self, segment: &Segment) {
        let (tcp, offers) = (&self.tcp, &self.peer.offers);
        assert!(segment.sacks.is_empty() || (tcp.sack && offers.sack), "reports that were not agreed on");
        assert!(segment.ecn == 0 || (tcp.ecn && self.peer.offered_ecn), "marks that were not agreed on may be set");
        if let Some((value, echo)) = segment.timestamps {
            assert!(tcp.timestamps && (offers.timestamps || segment.flags.syn), "timestamps that were not agreed on");
            assert_eq!(value, self.now.as_millis() as u32, "our clock");
            assert!(!segment.flags.ack || self.peer.showed(echo), "echoes {echo}, which was never shown");
            self.ours.clock = Some(value);
        }
    }

    /// Numbers, windows, and the stream itself.
    fn judge_numbers(&mut self, row: &ConnectionInfo, payload: &[u8], segment: &Segment) {
        let iss = self.ours.iss.expect("a SYN comes first");
        let end = segment.seq.wrapping_add(segment.sequence_length());
        assert!(!after(segment.seq, self.ours.next), "a hole: {} is next, {segment}", self.ours.next);
        if segment.flags.syn || end == segment.seq {
            return;
        }
        let offset = segment.seq.wrapping_sub(iss).wrapping_sub(1);
        let text_end = offset.wrapping_add(payload.len() as u32);
        assert!(text_end <= self.ours.written, "{text_end} octets sent of {} written", self.ours.written);
        assert!(payload == our_stream(offset, payload.len()), "the stream's octets from {offset} on");
        if segment.flags.fin {
            assert!(self.ours.closed && text_end == self.ours.written, "a FIN before the end: {:?}", self.ours);
        }
        let size = payload.len() + segment.option_length;
        let mss = self.peer.offers.mss.unwrap_or(if self.local.is_ipv4() { 536 } else { 1220 }).max(64);
        assert!(payload.is_empty() || size <= mss.into(), "{size} bytes with options for an MSS of {mss}");
        assert!(after(end, row.snd_una), "sent again although acknowledged: {segment}, {row:?}");
        // Whoever probes a closed window sends one octet past it.
        let allowed = row.snd_una.wrapping_add(row.snd_wnd.max(1));
        assert!(!after(end, allowed), "beyond the peer's window: {segment}, {row:?}");
        let edge = self.peer.edge.expect("the peer has acknowledged our SYN");
        let probe = row.snd_una.wrapping_add(1);
        assert!(!after(end, edge) || end == probe, "beyond {edge}, the furthest that the peer ever allowed: {segment}");
        if after(end, self.ours.next) {
            self.ours.next = end;
            self.ours.cuts.push(segment.seq);
        }
    }

    /// Judges what the stack says of itself.
    pub fn judge(&mut self) {
        let limit = self.limits.max_buffer_memory;
        assert!(self.stack.buffer_memory() <= limit, "{} bytes in buffers", self.stack.buffer_memory());
        let row = self.row();
        rows::judge_counts(&self.stack, row.as_slice());
        match &row {
            Some(row) => {
                rows::judge(row, &self.stack, self.now, self.has_unsent(row), self.tcp.send_buffer);
                self.judge_windows(row);
            }
            None => {
                let (app_is_live, entered) = (self.app_is_live(), self.entered);
                assert!(
                    !app_is_live && !entered,
                    "no connection, but {entered} an entry, {app_is_live} an application's"
                );
                self.ours = Ours::default();
                self.peer.edge = None;
                // Initial numbers follow a clock: another connection needs another time.
                self.pass(rows::TICK);
            }
        }
        self.judge_application();
        if self.app_is_live() {
            self.note_first();
        }
    }

    fn judge_windows(&self, row: &ConnectionInfo) {
        let buffer = self.tcp.recv_buffer + WINDOW_SLACK;
        assert!(row.rcv_wnd <= buffer, "a window of {} for a buffer of {}", row.rcv_wnd, self.tcp.recv_buffer);
        let idles = self.tcp.keepalive && row.state.is_synchronized() && row.state != State::TIME_WAIT;
        let looked_after = row.timers.iter().any(|(name, _)| *name == "keepalive");
        assert!(!idles || looked_after, "nobody looks after an idle connection: {row:?}");
    }

    /// Whether the application wrote what was not sent yet.
    pub fn has_unsent(&self, row: &ConnectionInfo) -> bool {
        u64::from(self.ours.written) > row.bytes_out
    }

    /// Whoever waits to be told was told.
    fn judge_application(&mut self) {
        let row = self.row();
        let Some(connection) = self.app.id.and_then(|id| self.stack.connection(self.now, id)) else { return };
        assert!(!(self.app.waits_to_read && connection.is_readable()), "readable, and nobody was told: {row:?}");
        let empty = connection.may_send() && row.as_ref().is_some_and(|row| row.snd_una == row.snd_nxt);
        let written = row.is_some_and(|row| row.bytes_out == u64::from(self.ours.written));
        let memory = self.stack.buffer_memory() == 0;
        assert!(!(self.app.waits_to_write && empty && written && memory), "writable, and nobody was told");
    }
}
