//! A cell of the matrix: a segment, described by where its numbers lie, and what came of it.

use std::fmt;

use tcp_proto::{ConnectionInfo, Event, Received, State};

use crate::common::{Seg, Trace, stream};
use crate::situations::{OUTSTANDING, Situation};

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

/// Octets of text in a segment that has some.
pub const TEXT: u32 = 10;
/// The window that every segment carries: another one than before.
pub const NEW_WINDOW: u16 = 5000;

/// Where SEG.SEQ lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Seq {
    /// Nothing to compare it with.
    Any,
    /// 1000 below RCV.NXT.
    Old,
    /// RCV.NXT - 1.
    Before,
    /// RCV.NXT - 5: of ten octets, five are old.
    Straddles,
    /// RCV.NXT.
    Next,
    /// 100 above RCV.NXT.
    Inside,
    /// The last number of the window.
    Last,
    /// The first number above the window.
    Edge,
    /// 100,000 above the window.
    Above,
}

/// What SEG.ACK acknowledges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ack {
    /// No ACK bit.
    None,
    /// Nothing to compare it with.
    Any,
    /// SND.UNA - MAX.SND.WND - 1.
    Ancient,
    /// SND.UNA - MAX.SND.WND.
    Oldest,
    /// SND.UNA - 1.
    Old,
    /// SND.UNA.
    Una,
    /// Some of what is outstanding.
    Part,
    /// All data that are outstanding, but not our FIN.
    Data,
    /// SND.NXT, above SND.UNA.
    All,
    /// SND.NXT + 1.
    Beyond,
}

/// A segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    pub flags: u8,
    pub text: bool,
    pub seq: Seq,
    pub ack: Ack,
}

/// What a segment did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub state: State,
    pub sent: Vec<Seg>,
    /// Octets that the application could read because of it.
    pub read: usize,
    /// SND.UNA, RCV.NXT, and whether the segment's window was taken; `None` without a connection.
    pub tcb: Option<(u32, u32, bool)>,
    /// Milliseconds that TIME_WAIT still lasts.
    pub time_wait: Option<u64>,
    /// What the application was told.
    pub told: Vec<String>,
    /// Drop reasons that were counted.
    pub counted: Vec<&'static str>,
    /// In place of the connection there is a new one, whose numbers lie above the old ones.
    pub succeeded: bool,
}

impl Cell {
    /// Every cell of a situation.
    pub fn all(situation: &Situation) -> Vec<Cell> {
        let mut cells = Vec::new();
        for bits in 0..16u8 {
            let flags = bits & (FIN | SYN | RST) | if bits & 8 != 0 { ACK } else { 0 };
            for text in [false, true] {
                for seq in Seq::all(situation, text) {
                    let acks = if flags & ACK != 0 { Ack::all(situation) } else { vec![Ack::None] };
                    cells.extend(acks.into_iter().map(|ack| Cell { flags, text, seq, ack }));
                }
            }
        }
        cells
    }

    pub fn syn(&self) -> bool {
        self.flags & SYN != 0
    }

    pub fn fin(&self) -> bool {
        self.flags & FIN != 0
    }

    pub fn rst(&self) -> bool {
        self.flags & RST != 0
    }

    pub fn acks(&self) -> bool {
        self.flags & ACK != 0
    }

    /// The segment, with further bits and an urgent pointer, numbers relative.
    pub fn segment(&self, situation: &Situation, bits: u8, urgent: u16) -> Seg {
        let seq = self.seq.number(situation);
        let text = if self.text { TEXT } else { 0 };
        Seg {
            flags: self.flags | bits,
            seq,
            ack: self.ack.number(situation),
            window: NEW_WINDOW,
            urgent,
            payload: stream(seq.wrapping_add(u32::from(self.syn())), text as usize),
            ..Seg::parse(". 0:0")
        }
    }

    /// Lets the segment arrive.
    pub fn run(&self, situation: &Situation, bits: u8, urgent: u16) -> Outcome {
        let mut t = situation.reach();
        let before = t.stack.drops();
        let last = t.our_isn.wrapping_add(situation.nxt);
        let segment = self.segment(situation, bits, urgent);
        t.peer_seg(&segment);
        let sent: Vec<Seg> = std::iter::from_fn(|| t.take()).map(|seg| Seg { window: 0, mss: None, ..seg }).collect();
        let row = row(&t);
        let counted = t.stack.drops().into_iter().zip(before).filter(|(now, then)| now != then);
        let succeeded = situation.state == State::TIME_WAIT
            && row.as_ref().is_some_and(|row| row.state == State::SYN_RCVD)
            && t.our_isn.wrapping_sub(last) < 1 << 31;
        let relative = |row: &ConnectionInfo| {
            let (una, next) = (row.snd_una.wrapping_sub(t.our_isn), row.rcv_nxt.wrapping_sub(t.peer_isn));
            (una, next, row.snd_wnd == NEW_WINDOW.into())
        };
        Outcome {
            state: row.as_ref().map_or_else(|| without_connection(&t), |row| row.state),
            tcb: row.as_ref().map(relative),
            time_wait: t.timers().iter().find(|(name, _)| *name == "time_wait").map(|(_, left)| *left),
            told: t.events.drain(..).map(|event| name(&event)).collect(),
            counted: counted.map(|((reason, _), _)| reason).collect(),
            read: read(&mut t, situation.unread, &segment.payload),
            sent,
            succeeded,
        }
    }
}

impl Outcome {
    /// Whether the connection (or its absence) is what it was before, but for a window that was taken.
    pub fn is_unchanged(&self, situation: &Situation) -> bool {
        let same = self.tcb.is_none_or(|(una, rcv_nxt, _)| {
            una == situation.una && (rcv_nxt == situation.rcv_nxt || !situation.knows_the_peer())
        });
        let alive = self.tcb.is_some() == situation.is_connection();
        let quiet = self.told.is_empty() && self.read == 0 && self.time_wait.is_none_or(|left| left == 50_000);
        same && alive && quiet && self.state == situation.state
    }

    pub fn takes_a_window(&self) -> bool {
        self.tcb.is_some_and(|(_, _, took)| took)
    }
}

/// The connection, if there is one.
pub fn row(t: &Trace) -> Option<ConnectionInfo> {
    let mut rows = Vec::new();
    let _ = t.stack.snapshot(t.now, 0, 10, &mut rows);
    rows.pop()
}

fn without_connection(t: &Trace) -> State {
    if t.stack.count(State::LISTEN) > 0 { State::LISTEN } else { State::CLOSED }
}

/// Reads all there is; accepts the connection first if need be. How much of it is the segment's text, in order.
fn read(t: &mut Trace, unread: usize, text: &[u8]) -> usize {
    if t.id.is_none() {
        t.id = t.listener.and_then(|listener| t.stack.accept(listener));
    }
    let Some(mut connection) = t.id.and_then(|id| t.stack.connection(t.now, id)) else { return 0 };
    let mut into = vec![0; unread + text.len() + 1];
    let Received::Bytes(length) = connection.recv(&mut into) else { return 0 };
    let new = &into[unread.min(length.get())..length.get()];
    assert!(text.ends_with(new) || text.starts_with(new), "what is read is not what was sent");
    new.len()
}

fn name(event: &Event) -> String {
    match event {
        Event::Closed(_, reason) => format!("Closed({reason:?})"),
        other => format!("{other:?}").split('(').next().unwrap_or_default().to_owned(),
    }
}

impl Seq {
    fn all(situation: &Situation, text: bool) -> Vec<Seq> {
        if !situation.knows_the_peer() {
            return vec![Seq::Any];
        }
        let mut all = vec![Seq::Old, Seq::Before];
        all.extend(text.then_some(Seq::Straddles));
        all.push(Seq::Next);
        if situation.rcv_wnd > 0 {
            all.extend([Seq::Inside, Seq::Last, Seq::Edge]);
        }
        all.push(Seq::Above);
        all
    }

    /// SEG.SEQ, relative.
    pub fn number(self, situation: &Situation) -> u32 {
        let (next, edge) = (situation.rcv_nxt, situation.rcv_nxt + situation.rcv_wnd);
        match self {
            Seq::Any => 0,
            Seq::Old => next.wrapping_sub(1000),
            Seq::Before => next - 1,
            Seq::Straddles => next.wrapping_sub(TEXT / 2),
            Seq::Next => next,
            Seq::Inside => next + 100,
            Seq::Last => edge - 1,
            Seq::Edge => edge,
            Seq::Above => edge + 100_000,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Seq::Any => "any",
            Seq::Old => "old",
            Seq::Before => "before",
            Seq::Straddles => "straddles",
            Seq::Next => "next",
            Seq::Inside => "inside",
            Seq::Last => "last",
            Seq::Edge => "edge",
            Seq::Above => "above",
        }
    }
}

impl Ack {
    fn all(situation: &Situation) -> Vec<Ack> {
        if !situation.is_connection() {
            return vec![Ack::Any];
        }
        let outstanding = situation.nxt - situation.una;
        let mut all = vec![Ack::Ancient, Ack::Oldest, Ack::Old, Ack::Una];
        all.extend((outstanding >= OUTSTANDING).then_some(Ack::Part));
        all.extend((outstanding > OUTSTANDING).then_some(Ack::Data));
        all.extend((outstanding > 0).then_some(Ack::All));
        all.push(Ack::Beyond);
        all
    }

    /// SEG.ACK, relative.
    pub fn number(self, situation: &Situation) -> u32 {
        let (una, next) = (situation.una, situation.nxt);
        match self {
            Ack::None => 0,
            Ack::Any => 77,
            Ack::Ancient => una.wrapping_sub(situation.max_window + 1),
            Ack::Oldest => una.wrapping_sub(situation.max_window),
            Ack::Old => una.wrapping_sub(1),
            Ack::Una => una,
            Ack::Part => una + OUTSTANDING / 2,
            Ack::Data => next - 1,
            Ack::All => next,
            Ack::Beyond => next + 1,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Ack::None => "-",
            Ack::Any => "any",
            Ack::Ancient => "ancient",
            Ack::Oldest => "oldest",
            Ack::Old => "old",
            Ack::Una => "una",
            Ack::Part => "part",
            Ack::Data => "data",
            Ack::All => "all",
            Ack::Beyond => "beyond",
        }
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, seq {}, ack {}", self.shape(), self.seq.name(), self.ack.name())
    }
}

impl Cell {
    /// Flags and text.
    pub fn shape(&self) -> String {
        let names = [(SYN, "SYN"), (FIN, "FIN"), (RST, "RST"), (ACK, "ACK")];
        let mut words: Vec<&str> = names.iter().filter(|(bit, _)| self.flags & bit != 0).map(|(_, n)| *n).collect();
        if words.is_empty() {
            words.push("none");
        }
        words.join(",") + if self.text { "+text" } else { "" }
    }
}
