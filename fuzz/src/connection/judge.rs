//! What must be true: of every frame that the stack sends, and of what it says of itself after every step.

use tcp_proto::{ConnectionInfo, State};
use tests::segment::Segment;

use super::bench::Bench;

/// What rounding a window up to its scale may let in beyond the receive buffer, bytes.
const WINDOW_SLACK: u32 = 1 << 14;
/// Resolution of the timing wheel.
const TICK: std::time::Duration = std::time::Duration::from_millis(1);

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
            assert!(self.peer.said_up_to(segment.ack), "acknowledges {}, up to which the peer has not said all", segment.ack);
        }
        for (start, end) in &segment.sacks {
            assert!(after(*end, *start) && self.peer.said_all(*start, *end), "reports {start}:{end}, which was not said");
        }
    }

    fn judge_options(&mut self, segment: &Segment) {
        let (tcp, offers) = (&self.tcp, &self.peer.offers);
        assert!(segment.sacks.is_empty() || (tcp.sack && offers.sack), "reports that were not agreed on");
        assert!(segment.ecn == 0 || (tcp.ecn && offers.ecn), "marks that were not agreed on may be set");
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
        self.judge_counts(row.as_ref());
        match &row {
            Some(row) => {
                judge_row(row);
                self.judge_windows(row);
                self.judge_waits(row);
            }
            None => {
                let (app_is_live, entered) = (self.app_is_live(), self.entered);
                assert!(!app_is_live && !entered, "no connection, but {entered} an entry, {app_is_live} an application's");
                self.ours = Ours::default();
                self.peer.edge = None;
                // Initial numbers follow a clock: another connection needs another time.
                self.pass(TICK);
            }
        }
        self.judge_application();
        if self.app_is_live() {
            self.note_first();
        }
    }

    fn judge_counts(&self, row: Option<&ConnectionInfo>) {
        for state in State::ALL.iter().filter(|state| **state != State::LISTEN) {
            let there = usize::from(row.is_some_and(|row| row.state == *state));
            assert_eq!(self.stack.count(*state), there, "the count of {state:?}, {row:?}");
        }
    }

    fn judge_windows(&self, row: &ConnectionInfo) {
        let buffer = self.tcp.recv_buffer + WINDOW_SLACK;
        assert!(row.rcv_wnd <= buffer, "a window of {} for a buffer of {}", row.rcv_wnd, self.tcp.recv_buffer);
        let outstanding = row.snd_nxt.wrapping_sub(row.snd_una);
        assert!(outstanding <= self.tcp.send_buffer + 2, "SND.UNA is after SND.NXT: {row:?}");
        assert!(row.in_flight <= outstanding, "more in flight than outstanding: {row:?}");
        assert!(row.cwnd > 0 && row.mss > 0, "nothing may be sent: {row:?}");
    }

    /// Whether something of a connection is still to be sent or acknowledged.
    pub fn is_waiting(&mut self, row: &ConnectionInfo) -> bool {
        use State::{CLOSING, FIN_WAIT_1, LAST_ACK, SYN_RCVD, SYN_SENT, TIME_WAIT};
        let unsent = u64::from(self.ours.written) > row.bytes_out;
        let closes = matches!(row.state, SYN_SENT | SYN_RCVD | FIN_WAIT_1 | CLOSING | LAST_ACK);
        row.state != TIME_WAIT && (closes || unsent || row.snd_una != row.snd_nxt)
    }

    /// Whoever waits for something has a timer for it, or something to send at once.
    fn judge_waits(&mut self, row: &ConnectionInfo) {
        let armed = |names: &[&str]| row.timers.iter().any(|(name, _)| names.contains(name));
        let served = armed(&["establish", "retransmit", "persist"]) || self.stack.wants_transmit();
        assert!(!self.is_waiting(row) || served, "a timer is lost: {row:?}, {:?}", self.ours);
        let deadline = row.timers.iter().map(|(_, left)| self.now + *left).min();
        let wakes = self.stack.poll_timeout();
        let in_time = deadline.is_none_or(|at| wakes.is_some_and(|wakes| wakes <= at + TICK));
        assert!(in_time, "{deadline:?} is due and {wakes:?} would be served: {row:?}");
        let idles = self.tcp.keepalive && row.state.is_synchronized() && row.state != State::TIME_WAIT;
        assert!(!idles || armed(&["keepalive"]), "nobody looks after an idle connection: {row:?}");
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

/// What is true of any row.
fn judge_row(row: &ConnectionInfo) {
    let armed = |names: &[&str]| row.timers.iter().any(|(name, _)| names.contains(name));
    match row.state {
        State::TIME_WAIT => {
            let only = row.timers.len() == 1 && armed(&["time_wait"]);
            assert!(only, "the timers of TIME_WAIT: {:?}", row.timers);
        }
        State::FIN_WAIT_2 => assert!(!armed(&["establish", "retransmit", "persist", "time_wait"]), "{row:?}"),
        State::SYN_SENT | State::SYN_RCVD => assert!(!armed(&["retransmit", "persist", "time_wait"]), "{row:?}"),
        _ => assert!(!armed(&["establish", "time_wait"]), "{row:?}"),
    }
    assert!(!(armed(&["retransmit"]) && armed(&["persist"])), "retransmits and probes: {row:?}");
}
