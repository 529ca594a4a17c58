//! The bench: the stack under test and what surrounds it, and how it is turned: events, table writes, frames, table
//! removals, as a driver turns it. What the steps of an input do is in [`super::steps`].

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tcp_common::ConnectionKey;
use tcp_common::cases::world::PEER_MAC;
use tcp_proto::{
    ConnectOptions, ConnectionId, ConnectionInfo, Event, Instant, LinkAddress, ListenOptions, ListenerId, Stack,
    StackConfig, State, TcpConfig,
};
use tests::checker::Checker;

use super::judge::{Ours, trace};
use super::peer::{ACK, FIN, Peer, SYN};
use super::setup::Setup;
use crate::frames::{self, Segment};
use crate::rows;
use crate::wire::{read, transmitted};

/// Frames that the stack sends in a row, at most: more than fit its send buffer.
const MAX_FRAMES: usize = 4000;
/// Deadlines that pass in a row without anything sent and without time passing, at most.
const MAX_IDLE_DEADLINES: usize = 20;
/// Deadlines until everything has ended by itself, at most.
const MAX_LAST_DEADLINES: usize = 3000;
/// Rounds in which an honest peer must have heard everything, at most.
const MAX_HEALING_ROUNDS: usize = 3000;
/// Segments that are kept to be shown when a rule is broken.
const SHOWN: usize = 50;

pub struct Bench {
    pub stack: Stack,
    pub now: Instant,
    began: Instant,
    pub tcp: Arc<TcpConfig>,
    pub limits: StackConfig,
    pub listener: Option<ListenerId>,
    pub local: SocketAddr,
    pub remote: SocketAddr,
    pub vlan: Option<u16>,
    pub mac: [u8; 6],
    pub peer: Peer,
    pub app: App,
    pub ours: Ours,
    pub checker: Checker,
    /// Whether the connection table has the connection's entry.
    pub entered: bool,
    /// When time last passed or something was sent, in deadlines.
    idle_deadlines: usize,
}

/// The application: holds one connection at most.
#[derive(Debug, Default)]
pub struct App {
    pub id: Option<ConnectionId>,
    /// The first number of the stream that it reads, once the peer was heard.
    pub first: Option<u32>,
    /// Octets read of it.
    pub read: u32,
    /// What it waits to be told of.
    pub waits_to_read: bool,
    pub waits_to_write: bool,
}

impl Bench {
    pub fn new(setup: &Setup) -> Bench {
        let (local, remote) = frames::addresses(setup.v6);
        let seed = [setup.seed; 32];
        let mut now = Instant::from_millis(setup.start_ms);
        if setup.wraps {
            now += until_numbers_wrap(setup, now, local, remote, seed);
        }
        let mut checker = Checker::new(setup.stack.mac);
        checker.own(local.port()..=local.port());
        checker.keep(SHOWN);
        let mut bench = Bench {
            stack: Stack::new(setup.stack.clone(), seed, now),
            now,
            began: now,
            tcp: Arc::new(setup.tcp.clone()),
            limits: setup.stack.clone(),
            listener: None,
            local,
            remote,
            vlan: setup.vlan,
            mac: PEER_MAC,
            peer: Peer::new(setup.offers, u32::MAX - 2000 * u32::from(setup.seed)),
            app: App::default(),
            ours: Ours::default(),
            checker,
            entered: false,
            idle_deadlines: 0,
        };
        if setup.active {
            bench.connect();
        } else {
            let options = ListenOptions { tcp: bench.tcp.clone() };
            bench.listener = Some(bench.stack.listen(local, options).expect("nobody else listens"));
        }
        bench.turn(usize::MAX);
        bench
    }

    /// Opens actively, unless there is a connection already.
    pub fn connect(&mut self) {
        let link = LinkAddress { mac: self.mac, vlan: self.vlan };
        let options = ConnectOptions { local: self.local, link, tcp: self.tcp.clone() };
        if self.app.id.is_none()
            && let Ok(id) = self.stack.connect(self.now, self.remote, options)
        {
            trace(|| format!("connects, {id:?}"));
            self.app = App { id: Some(id), ..App::default() };
            self.ours = Ours::default();
            self.peer.edge = None;
        }
    }

    /// Milliseconds since the beginning.
    pub fn elapsed(&self) -> u64 {
        self.now.since(self.began).as_millis() as u64
    }

    /// The connection, if there is one that has not ended.
    pub fn row(&self) -> Option<ConnectionInfo> {
        let mut rows = rows::rows(&self.stack, self.now);
        assert!(rows.len() <= 1, "two connections with one 4-tuple: {rows:?}");
        rows.pop()
    }

    pub fn key(&self) -> ConnectionKey {
        ConnectionKey::new(self.local, self.remote)
    }

    /// Whether the connection that the application holds has not ended.
    pub fn app_is_live(&mut self) -> bool {
        let Some(id) = self.app.id else { return false };
        self.stack.connection(self.now, id).is_some_and(|connection| connection.state() != State::CLOSED)
    }

    /// The peer says a segment.
    pub fn says(&mut self, segment: &Segment, timestamp: Option<u32>) {
        trace(|| format!("{:6} peer {}", self.elapsed(), describe(segment)));
        self.peer.says(segment, timestamp);
        self.note_edge(segment);
        let mut frame = frames::segment(self.remote, self.local, segment);
        frame[6..12].copy_from_slice(&self.mac);
        self.checker.frame(Duration::from_millis(self.elapsed()), &frame);
        self.stack.handle_frame(self.now, &frame);
    }

    /// The furthest right edge that the peer offers with an ACK of what we may have sent.
    fn note_edge(&mut self, segment: &Segment) {
        let Some(iss) = self.ours.iss.filter(|_| segment.flags & ACK != 0) else { return };
        if segment.ack.wrapping_sub(iss) > self.ours.next.wrapping_sub(iss) {
            return;
        }
        let scales = segment.flags & SYN == 0 && self.tcp.window_scale;
        let shift = if scales { self.peer.offers.scale.unwrap_or(0).min(14) } else { 0 };
        let edge = segment.ack.wrapping_add(u32::from(segment.window) << shift);
        let further = self.peer.edge.is_none_or(|before| (edge.wrapping_sub(before) as i32) > 0);
        if further {
            self.peer.edge = Some(edge);
        }
    }

    /// A turn of the driver, which sends at most so many frames; whether it sent any.
    pub fn turn(&mut self, most: usize) -> bool {
        self.hear_events();
        self.write_table();
        let mut sent = 0;
        while sent < most && self.transmit() {
            sent += 1;
            assert!(sent < MAX_FRAMES, "the stack does not come to rest");
            self.hear_events();
            self.write_table();
        }
        assert!(sent == most || !self.stack.wants_transmit(), "it wants to send, and does not");
        if !self.stack.take_table_removals().is_empty() {
            self.entered = false;
        }
        self.idle_deadlines *= usize::from(sent == 0);
        self.judge();
        sent > 0
    }

    fn hear_events(&mut self) {
        while let Some(event) = self.stack.poll_event() {
            trace(|| format!("{:6} {event:?}", self.elapsed()));
            match event {
                Event::Readable(id) if Some(id) == self.app.id => self.app.waits_to_read = false,
                Event::Writable(id) if Some(id) == self.app.id => self.app.waits_to_write = false,
                Event::Closed(id, _) if Some(id) == self.app.id => {
                    (self.app.waits_to_read, self.app.waits_to_write) = (false, false);
                }
                _ => {}
            }
        }
    }

    pub fn write_table(&mut self) {
        let (mut new, mut changed) = (Vec::new(), Vec::new());
        self.stack.take_table_writes(self.now, &mut new, &mut changed);
        self.entered |= !new.is_empty();
    }

    fn transmit(&mut self) -> bool {
        let row = self.row();
        let Some(frame) = transmitted(&mut self.stack, self.now) else { return false };
        let segment = read(&frame);
        trace(|| format!("{:6}      {segment} sacks {:?} ecn {}", self.elapsed(), segment.sacks, segment.ecn));
        self.checker.frame(Duration::from_millis(self.elapsed()), &frame);
        if let Some(report) = self.checker.report() {
            panic!("{report}");
        }
        self.judge_sent(row.as_ref(), &frame, &segment);
        true
    }

    /// Time passes.
    pub fn pass(&mut self, time: Duration) {
        self.now += time;
        self.stack.handle_timeout(self.now);
    }

    /// Time passes until something is due; whether anything is.
    pub fn jump(&mut self) -> bool {
        let Some(deadline) = self.stack.poll_timeout() else { return false };
        if deadline > self.now {
            (self.now, self.idle_deadlines) = (deadline, 0);
        }
        self.idle_deadlines += 1;
        assert!(self.idle_deadlines <= MAX_IDLE_DEADLINES, "deadlines that do nothing: {:?}", self.row());
        trace(|| format!("{:6} the next deadline", self.elapsed()));
        self.stack.handle_timeout(self.now);
        true
    }

    /// A handshake without accidents. The application then holds the connection, unless limits are in the way.
    pub fn shake_hands(&mut self) {
        let timestamps = self.peer.offers.timestamps.then(|| (self.peer.clock(0), self.ours.clock.unwrap_or(0)));
        let isn = self.peer.isn;
        let is_active = self.listener.is_none();
        let ecn = if self.peer.offers.ecn { [0xc0, 0x40][usize::from(is_active)] } else { 0 };
        let syn = Segment {
            flags: SYN | if is_active { ACK } else { 0 } | ecn,
            seq: isn,
            ack: self.ours.next,
            window: 60_000,
            options: self.peer.options(true, timestamps, &[]),
            vlan: self.vlan,
            ..Segment::default()
        };
        self.says(&syn, timestamps.map(|(value, _)| value));
        self.turn(usize::MAX);
        if !is_active {
            self.says_honestly(0);
            self.turn(usize::MAX);
            self.accept();
        }
    }

    /// Takes a connection off the accept queue.
    pub fn accept(&mut self) {
        if self.app.id.is_none()
            && let Some(id) = self.listener.and_then(|listener| self.stack.accept(listener))
        {
            trace(|| format!("{:6} accepts {id:?}", self.elapsed()));
            self.app = App { id: Some(id), ..App::default() };
            self.note_first();
        }
    }

    /// Notes where the stream begins that the application reads: what came in, and a FIN behind it, do not count. (A FIN
    /// that text follows has no number of its own.)
    pub fn note_first(&mut self) {
        use State::{CLOSE_WAIT, CLOSING, LAST_ACK, TIME_WAIT};
        let shows = |row: &ConnectionInfo| row.state.is_synchronized() && !row.is_record;
        let Some(row) = self.row().filter(|row| self.app.first.is_none() && shows(row)) else { return };
        let before = row.rcv_nxt.wrapping_sub(row.bytes_in as u32);
        let finished = matches!(row.state, CLOSE_WAIT | CLOSING | LAST_ACK | TIME_WAIT);
        let candidates = if finished { [before.wrapping_sub(1), before] } else { [before; 2] };
        self.app.first = candidates.into_iter().find(|first| self.peer.said_syn(first.wrapping_sub(1)));
    }

    /// The peer acknowledges all that we sent, truthfully, in whatever state the connection is, with `length` octets.
    pub fn says_honestly(&mut self, length: usize) {
        let Some(row) = self.row() else { return };
        let opens = row.state == State::SYN_SENT;
        let seq = if opens { self.peer.isn } else { row.rcv_nxt };
        let agreed = self.tcp.timestamps && self.peer.offers.timestamps;
        let timestamps = agreed.then(|| (self.peer.clock(self.elapsed()), self.ours.clock.unwrap_or(0)));
        let segment = Segment {
            flags: ACK | if opens { SYN } else { 0 },
            seq,
            ack: row.snd_nxt,
            window: 60_000,
            options: self.peer.options(opens, timestamps, &[]),
            payload: super::peer::stream(seq, if opens { 0 } else { length }),
            vlan: self.vlan,
            ecn: 0,
        };
        self.says(&segment, timestamps.map(|(value, _)| value));
    }

    /// From now on the peer is honest: it acknowledges whatever arrives. All that was written, and a FIN, must get there.
    pub fn heal(&mut self) {
        trace(|| "the peer comes to its senses".to_owned());
        self.says_honestly(0);
        for _ in 0..MAX_HEALING_ROUNDS {
            let sent = self.turn(usize::MAX);
            let Some(row) = self.row() else { return };
            if !rows::is_waiting(&row, self.has_unsent(&row)) {
                return;
            }
            if sent {
                self.says_honestly(0);
            } else {
                assert!(self.jump(), "it waits for ever: {row:?}");
            }
        }
        panic!("the peer acknowledges everything, and still something waits: {:?}", self.row());
    }

    /// The application goes and the peer falls silent: all must end by itself and give back what it held.
    pub fn finish(&mut self, aborts: bool) {
        trace(|| "the application goes".to_owned());
        if let Some(connection) = self.app.id.take().and_then(|id| self.stack.connection(self.now, id)) {
            self.ours.closed = true;
            if aborts { connection.abort() } else { connection.close() }
        }
        if let Some(listener) = self.listener.take() {
            self.stack.close_listener(self.now, listener);
        }
        self.turn(usize::MAX);
        for _ in 0..MAX_LAST_DEADLINES {
            if !self.jump() {
                break;
            }
            self.turn(usize::MAX);
        }
        assert_eq!(self.stack.poll_timeout(), None, "timers without end: {:?}", self.row());
        let left = self.row();
        assert!(left.is_none() && self.stack.buffer_memory() == 0, "left: {left:?}, {} B", self.stack.buffer_memory());
        assert!(State::ALL.iter().all(|state| self.stack.count(*state) == 0), "counters of states");
        assert!(!self.entered, "an entry of the connection table is left");
    }
}

fn describe(segment: &Segment) -> String {
    let letters: String = "FSRPAUEC"
        .chars()
        .enumerate()
        .filter(|(bit, _)| segment.flags >> bit & 1 == 1)
        .map(|(_, letter)| letter)
        .collect();
    let Segment { seq, ack, window, payload, ecn, options, .. } = segment;
    let fin = if segment.flags & FIN != 0 { "+1" } else { "" };
    format!("{letters} {seq}:+{}{fin} ack {ack} win {window} ecn {ecn} options {options:?}", payload.len())
}

/// How long until a connection that begins then has numbers that wrap soon: initial numbers follow a clock.
fn until_numbers_wrap(setup: &Setup, now: Instant, local: SocketAddr, remote: SocketAddr, seed: [u8; 32]) -> Duration {
    let mut probe = Stack::new(setup.stack.clone(), seed, now);
    let link = LinkAddress { mac: PEER_MAC, vlan: None };
    let options = ConnectOptions { local, link, tcp: Arc::new(setup.tcp.clone()) };
    probe.connect(now, remote, options).expect("a free port");
    let frame = transmitted(&mut probe, now).expect("a SYN");
    Duration::from_micros(4 * u64::from((u32::MAX - 3000).wrapping_sub(read(&frame).seq)))
}
