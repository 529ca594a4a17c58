//! What must come of a segment: RFC 9293 section 3.10.7 with RFC 5961 (blind attacks) and RFC 1337 (TIME-WAIT), said
//! over again as a list of rules in the order of the RFC's steps, of which the first that applies judges. Written from
//! the RFCs and from the situation's numbers alone; where the stack departs from them, the rule says so and why.

use tcp_proto::State;

use crate::cells::{Cell, Outcome, TEXT};
use crate::common::Seg;
use crate::situations::Situation;

/// 2 MSL, and what is left of it in the situations, ms.
const TWO_MSL: u64 = 60_000;
const TIME_WAIT_LEFT: u64 = 50_000;

pub struct Rule {
    pub says: &'static str,
    applies: fn(&Situation, &Arriving) -> bool,
    demands: fn(&Situation, &Arriving) -> Expected,
}

/// The segment in the RFC's terms, numbers relative.
#[derive(Clone, Copy)]
struct Arriving {
    syn: bool,
    acks: bool,
    fin: bool,
    rst: bool,
    seq: u32,
    ack: u32,
    text: u32,
}

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Nothing,
    /// SEQ=SND.NXT, ACK=RCV.NXT, CTL=ACK.
    Ack,
    /// The same or nothing: the RFCs do not say.
    MaybeAck,
    /// SEQ=ISS, ACK=RCV.NXT, CTL=SYN,ACK.
    SynAck,
    /// SEQ, CTL=RST.
    Reset(u32),
    /// SEQ, ACK, CTL=RST,ACK.
    ResetAck(u32, u32),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Expected {
    state: State,
    answer: Answer,
    una: u32,
    rcv_nxt: u32,
    /// Octets of text that reach the application.
    delivers: u32,
    takes_window: bool,
    restarts_time_wait: bool,
    told: Vec<&'static str>,
}

pub const RULES: &[Rule] = &[
    // 3.10.7.1
    Rule {
        says: "3.10.7.1 CLOSED: a RST is discarded",
        applies: |s, g| s.state == State::CLOSED && g.rst,
        demands: |s, _| nothing(s),
    },
    Rule {
        says: "3.10.7.1 CLOSED: without ACK, a reset that acknowledges the segment",
        applies: |s, g| s.state == State::CLOSED && !g.acks,
        demands: |s, g| answer(s, Answer::ResetAck(0, g.end())),
    },
    Rule {
        says: "3.10.7.1 CLOSED: with ACK, a reset where that points",
        applies: |s, _| s.state == State::CLOSED,
        demands: |s, g| answer(s, Answer::Reset(g.ack)),
    },
    // 3.10.7.2
    Rule {
        says: "3.10.7.2 LISTEN first: a RST is ignored",
        applies: |s, g| s.state == State::LISTEN && g.rst,
        demands: |s, _| nothing(s),
    },
    Rule {
        says: "3.10.7.2 LISTEN second: an ACK draws a reset",
        applies: |s, g| s.state == State::LISTEN && g.acks,
        demands: |s, g| answer(s, Answer::Reset(g.ack)),
    },
    Rule {
        says: "3.10.7.2 LISTEN third: a SYN begins a connection; what else it carries may come again",
        applies: |s, g| s.state == State::LISTEN && g.syn,
        demands: begins,
    },
    Rule {
        says: "3.10.7.2 LISTEN fourth: the rest is dropped",
        applies: |s, _| s.state == State::LISTEN,
        demands: |s, _| nothing(s),
    },
    // 3.10.7.3
    Rule {
        says: "3.10.7.3 SYN-SENT first: an ACK of anything but our SYN draws a reset, unless it is one",
        applies: |s, g| s.state == State::SYN_SENT && g.acks && !g.acks_something_new(s),
        demands: |s, g| if g.rst { nothing(s) } else { answer(s, Answer::Reset(g.ack)) },
    },
    Rule {
        says: "3.10.7.3 SYN-SENT second: a RST counts only if it acknowledges our SYN",
        applies: |s, g| s.state == State::SYN_SENT && g.rst,
        demands: |s, g| if g.acks { ends(s, "Closed(Refused)") } else { nothing(s) },
    },
    Rule {
        says: "3.10.7.3 SYN-SENT fourth: a SYN that acknowledges ours establishes; text and FIN count",
        applies: |s, g| s.state == State::SYN_SENT && g.syn && g.acks,
        demands: answers_our_syn,
    },
    Rule {
        says: "3.10.7.3 SYN-SENT fourth: a bare SYN crosses ours",
        applies: |s, g| s.state == State::SYN_SENT && g.syn,
        demands: |s, g| Expected { takes_window: true, ..begins(s, g) },
    },
    Rule {
        says: "3.10.7.3 SYN-SENT fifth: without SYN or RST it is dropped",
        applies: |s, _| s.state == State::SYN_SENT,
        demands: |s, _| nothing(s),
    },
    // What differs in TIME-WAIT.
    Rule {
        says: "RFC 1337: a RST does not end TIME-WAIT",
        applies: |s, g| s.state == State::TIME_WAIT && g.rst,
        demands: |s, _| nothing(s),
    },
    Rule {
        says: "3.6.1 MAY-2: a SYN above the old numbers begins the next connection, if it may",
        applies: |s, g| s.state == State::TIME_WAIT && s.reusable && g.opens() && after(g.seq, s.rcv_nxt),
        demands: |s, g| Expected { una: 0, told: vec!["Closed(Finished)"], ..begins(s, g) },
    },
    Rule {
        says: "3.10.7.4 TIME-WAIT: the FIN again is acknowledged and restarts 2 MSL",
        applies: |s, g| s.state == State::TIME_WAIT && g.repeats_the_fin(s),
        demands: |s, _| Expected { restarts_time_wait: true, ..answer(s, Answer::Ack) },
    },
    // What differs in SYN-RECEIVED.
    Rule {
        says: "SYN-RECEIVED: the SYN again tells that our SYN-ACK was lost, so that is the ACK which 3.10.7.4 first asks for",
        applies: |s, g| s.state == State::SYN_RCVD && s.passive && g.opens() && !g.fin && g.seq == 0,
        demands: |s, _| answer(s, Answer::SynAck),
    },
    Rule {
        says: "decision 4: a SYN that acknowledges ours, other than the one that crossed it, is the peer's; that was not",
        applies: |s, g| s.state == State::SYN_RCVD && !s.passive && g.seq != 0 && g.answers_our_syn(s),
        demands: answers_our_syn,
    },
    Rule {
        says: "figure 8: the SYN of a simultaneous open comes again with the ACK of ours; it is old, the rest counts",
        applies: |s, g| s.state == State::SYN_RCVD && !s.passive && g.seq == 0 && g.answers_our_syn(s),
        demands: |s, g| Expected { answer: Answer::Ack, ..counts(s, &Arriving { seq: 1, syn: false, ..*g }) },
    },
    // 3.10.7.4, first to fourth.
    Rule {
        says: "RFC 5961 3.2: a RST outside of the window is dropped in silence",
        applies: |s, g| g.rst && !g.starts_in_window(s),
        demands: |s, _| nothing(s),
    },
    Rule {
        says: "3.10.7.4 first: what is outside of the window draws an ACK and nothing else",
        applies: |s, g| !g.rst && !g.is_acceptable(s),
        demands: |s, _| answer(s, Answer::Ack),
    },
    Rule {
        says: "RFC 5961 3.2: a RST in the window, but not at RCV.NXT, draws a challenge ACK",
        applies: |s, g| g.rst && g.seq != s.rcv_nxt,
        demands: |s, _| answer(s, Answer::Ack),
    },
    Rule {
        says: "3.10.7.4 second, SYN-RECEIVED: a RST ends it; only who opened actively is told",
        applies: |s, g| g.rst && s.state == State::SYN_RCVD,
        demands: |s, _| if s.passive { ends(s, "") } else { ends(s, "Closed(Refused)") },
    },
    Rule {
        says: "3.10.7.4 second: a RST at RCV.NXT resets",
        applies: |s, g| g.rst && !matches!(s.state, State::CLOSING | State::LAST_ACK),
        demands: |s, _| ends(s, "Closed(Reset)"),
    },
    Rule {
        says: "3.10.7.4 second, CLOSING and LAST-ACK: a RST at RCV.NXT ends it without a signal",
        applies: |_, g| g.rst,
        demands: |s, _| ends(s, "Closed(Finished)"),
    },
    Rule {
        says: "3.10.7.4 fourth, SYN-RECEIVED from LISTEN: another SYN in the window forgets the first",
        applies: |s, g| g.syn && s.state == State::SYN_RCVD && s.passive && g.starts_in_window(s),
        demands: |s, _| ends(s, ""),
    },
    Rule {
        says: "RFC 5961 4.2: a SYN draws a challenge ACK",
        applies: |_, g| g.syn,
        demands: |s, _| answer(s, Answer::Ack),
    },
    // Fifth to eighth.
    Rule { says: "3.10.7.4 fifth: without ACK it is dropped", applies: |_, g| !g.acks, demands: |s, _| nothing(s) },
    Rule {
        says: "3.10.7.4 fifth, SYN-RECEIVED: an ACK of anything but our SYN draws a reset",
        applies: |s, g| s.state == State::SYN_RCVD && !g.acks_something_new(s),
        demands: |s, g| answer(s, Answer::Reset(g.ack)),
    },
    Rule {
        says: "3.10.7.4 fifth: an ACK of what was never sent draws an ACK and is dropped",
        applies: |s, g| after(g.ack, s.nxt),
        demands: |s, _| answer(s, Answer::Ack),
    },
    Rule {
        says: "RFC 5961 5.2: an ACK older than any window was large draws an ACK and is dropped",
        applies: |s, g| after(s.una.wrapping_sub(s.max_window), g.ack),
        demands: |s, _| answer(s, Answer::Ack),
    },
    Rule {
        says: "3.10.7.4 TIME-WAIT: for an acceptable segment there is nothing left to do",
        applies: |s, _| s.state == State::TIME_WAIT,
        demands: |s, _| nothing(s),
    },
    Rule {
        says: "3.6.1: text for an application that is gone resets the connection",
        applies: |s, g| !s.held && s.state != State::SYN_RCVD && g.text > 0,
        demands: |s, _| Expected { answer: Answer::ResetAck(s.nxt, s.rcv_nxt), ..ends(s, "") },
    },
    Rule { says: "3.10.7.4 fifth to eighth: ACK, text and FIN count", applies: |_, _| true, demands: counts },
];

/// Judges a cell: which rule did, and what was wrong.
pub fn judge(situation: &Situation, cell: &Cell, outcome: &Outcome) -> (&'static str, Result<(), String>) {
    let segment = Arriving::new(situation, cell);
    let rule = RULES.iter().find(|rule| (rule.applies)(situation, &segment)).expect("the last rule always applies");
    let expected = (rule.demands)(situation, &segment);
    (rule.says, expected.compare(situation, outcome))
}

impl Arriving {
    fn new(situation: &Situation, cell: &Cell) -> Arriving {
        let (seq, ack) = (cell.seq.number(situation), cell.ack.number(situation));
        let text = if cell.text { TEXT } else { 0 };
        Arriving { syn: cell.syn(), acks: cell.acks(), fin: cell.fin(), rst: cell.rst(), seq, ack, text }
    }

    /// SEG.LEN.
    fn length(&self) -> u32 {
        self.text + u32::from(self.syn) + u32::from(self.fin)
    }

    fn end(&self) -> u32 {
        self.seq.wrapping_add(self.length())
    }

    /// SND.UNA < SEG.ACK =< SND.NXT.
    fn acks_something_new(&self, s: &Situation) -> bool {
        self.acks && after(self.ack, s.una) && !after(self.ack, s.nxt)
    }

    /// Whether it is a SYN from someone who has seen ours.
    fn answers_our_syn(&self, s: &Situation) -> bool {
        self.syn && !self.rst && self.acks_something_new(s)
    }

    /// Whether it asks for a connection.
    fn opens(&self) -> bool {
        self.syn && !self.acks && !self.rst
    }

    fn starts_in_window(&self, s: &Situation) -> bool {
        self.seq == s.rcv_nxt || in_window(s, self.seq)
    }

    /// The table of 3.10.7.4 first; with a closed window, ACKs and RSTs are looked at too, and so is a segment's ACK
    /// whose text is not. Decision 10: so is a bare ACK at the right edge.
    fn is_acceptable(&self, s: &Situation) -> bool {
        if s.rcv_wnd == 0 {
            return self.seq == s.rcv_nxt;
        }
        self.is_at_the_edge(s)
            || in_window(s, self.seq)
            || (self.length() > 0 && in_window(s, self.end().wrapping_sub(1)))
    }

    fn is_at_the_edge(&self, s: &Situation) -> bool {
        let bare = self.acks && !self.rst && self.length() == 0;
        let synchronized = s.state.is_synchronized() && s.state != State::TIME_WAIT;
        bare && synchronized && self.seq == s.rcv_nxt.wrapping_add(s.rcv_wnd)
    }

    fn repeats_the_fin(&self, s: &Situation) -> bool {
        let believable = self.acks && !after(self.ack, s.nxt) && !after(s.una.wrapping_sub(s.max_window), self.ack);
        self.fin && !self.syn && believable && self.end() == s.rcv_nxt
    }
}

/// Whether `a` comes after `b`, modulo 2^32.
fn after(a: u32, b: u32) -> bool {
    a != b && a.wrapping_sub(b) < 1 << 31
}

/// RCV.NXT =< `number` < RCV.NXT+RCV.WND.
fn in_window(s: &Situation, number: u32) -> bool {
    number.wrapping_sub(s.rcv_nxt) < s.rcv_wnd
}

fn nothing(s: &Situation) -> Expected {
    Expected {
        state: s.state,
        answer: Answer::Nothing,
        una: s.una,
        rcv_nxt: s.rcv_nxt,
        delivers: 0,
        takes_window: false,
        restarts_time_wait: false,
        told: Vec::new(),
    }
}

fn answer(s: &Situation, answer: Answer) -> Expected {
    Expected { answer, ..nothing(s) }
}

/// The connection is gone. Of one that came from LISTEN and nobody accepted, the listener remains.
fn ends(s: &Situation, told: &'static str) -> Expected {
    let told = if s.held { vec![told] } else { Vec::new() };
    Expected { state: State::CLOSED, told, ..nothing(s) }
}

/// A SYN makes the TCB: SYN-RECEIVED.
fn begins(s: &Situation, g: &Arriving) -> Expected {
    Expected { state: State::SYN_RCVD, rcv_nxt: g.seq + 1, ..answer(s, Answer::SynAck) }
}

/// SYN and ACK, in SYN-SENT.
fn answers_our_syn(s: &Situation, g: &Arriving) -> Expected {
    let mut known = *s;
    (known.rcv_nxt, known.rcv_wnd) = (g.seq.wrapping_add(1), 65_535);
    let rest = Arriving { seq: known.rcv_nxt, syn: false, ..*g };
    Expected { answer: Answer::Ack, ..counts(&known, &rest) }
}

/// Fifth to eighth step, for a segment that passed the checks.
fn counts(s: &Situation, g: &Arriving) -> Expected {
    let mut e = nothing(s);
    if after(g.ack, s.una) {
        e.una = g.ack;
    }
    e.takes_window = !after(s.una, g.ack);
    let ours_is_acked = e.una == s.nxt;
    e.state = match s.state {
        State::SYN_SENT | State::SYN_RCVD => State::ESTABLISHED,
        State::FIN_WAIT_1 if ours_is_acked => State::FIN_WAIT_2,
        State::CLOSING if ours_is_acked => State::TIME_WAIT,
        State::LAST_ACK if ours_is_acked => return Expected { una: e.una, ..ends(s, "Closed(Finished)") },
        other => other,
    };
    if matches!(s.state, State::SYN_SENT | State::SYN_RCVD) {
        e.told.push(if s.passive { "Incoming" } else { "Connected" });
    }
    e.restarts_time_wait = e.state == State::TIME_WAIT;
    let receives = matches!(e.state, State::ESTABLISHED | State::FIN_WAIT_1 | State::FIN_WAIT_2);
    if receives {
        text_and_fin_count(s, g, &mut e);
    } else if g.length() > 0 {
        e.answer = Answer::MaybeAck;
    }
    e
}

/// Seventh and eighth step, where the peer may still send.
fn text_and_fin_count(s: &Situation, g: &Arriving, e: &mut Expected) {
    if g.length() > 0 {
        e.answer = Answer::Ack;
    }
    let edge = s.rcv_nxt.wrapping_add(s.rcv_wnd);
    let (first, end) = (later(g.seq, s.rcv_nxt), g.seq.wrapping_add(g.text));
    let in_order = first == s.rcv_nxt;
    if in_order && after(end, s.rcv_nxt) {
        e.rcv_nxt = if after(end, edge) { edge } else { end };
        e.delivers = e.rcv_nxt.wrapping_sub(s.rcv_nxt);
    }
    let fin_counts = g.fin && in_order && end == e.rcv_nxt && after(edge, end);
    if fin_counts {
        e.rcv_nxt = e.rcv_nxt.wrapping_add(1);
        e.state = match e.state {
            State::FIN_WAIT_1 => State::CLOSING,
            State::FIN_WAIT_2 => State::TIME_WAIT,
            _ => State::CLOSE_WAIT,
        };
        e.restarts_time_wait = e.state == State::TIME_WAIT;
    }
    if s.held && (e.delivers > 0 || fin_counts) {
        e.told.extend((e.delivers > 0).then_some("Readable"));
        e.told.extend(fin_counts.then_some("Readable"));
    }
}

fn later(a: u32, b: u32) -> u32 {
    if after(b, a) { b } else { a }
}

impl Expected {
    fn compare(&self, s: &Situation, outcome: &Outcome) -> Result<(), String> {
        let from_listen = s.passive || s.state == State::LISTEN;
        let gone = if from_listen { State::LISTEN } else { State::CLOSED };
        let state = if self.state == State::CLOSED { gone } else { self.state };
        same("state", &state, &outcome.state)?;
        same("what was delivered", &(self.delivers as usize), &outcome.read)?;
        same("what was told", &self.told, &outcome.told.iter().map(String::as_str).collect())?;
        let left = if self.restarts_time_wait { Some(TWO_MSL) } else { Some(TIME_WAIT_LEFT) };
        same("time_wait", &left.filter(|_| state == State::TIME_WAIT), &outcome.time_wait)?;
        if let Some((una, rcv_nxt, took_window)) = outcome.tcb {
            same("SND.UNA", &self.una, &una)?;
            same("whether the window was taken", &self.takes_window, &took_window)?;
            let knows = !matches!(state, State::SYN_SENT);
            same("RCV.NXT", &Some(self.rcv_nxt).filter(|_| knows), &Some(rcv_nxt).filter(|_| knows))?;
        }
        self.compare_answer(s, outcome)
    }

    fn compare_answer(&self, s: &Situation, outcome: &Outcome) -> Result<(), String> {
        let segment = |flags, seq, ack| Seg { flags, seq, ack, window: 0, ..Seg::parse(". 0:0") };
        let ack = segment(16, s.nxt, self.rcv_nxt);
        let sent = match self.answer {
            Answer::MaybeAck if outcome.sent.is_empty() => vec![],
            Answer::Nothing => vec![],
            Answer::Ack | Answer::MaybeAck => vec![ack],
            Answer::SynAck => vec![segment(18, 0, self.rcv_nxt)],
            Answer::Reset(seq) => vec![segment(4, seq, 0)],
            Answer::ResetAck(seq, ack) => vec![segment(20, seq, ack)],
        };
        let text = |sent: &[Seg]| sent.iter().map(|seg| seg.text(false)).collect::<Vec<_>>();
        same("what was sent", &text(&sent), &text(&outcome.sent))?;
        same("the fields of what was sent", &sent, &outcome.sent)?;
        let succeeds = s.state == State::TIME_WAIT && self.answer == Answer::SynAck;
        same("whether a successor's numbers lie above", &succeeds, &outcome.succeeded)
    }
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, expected: &T, actual: &T) -> Result<(), String> {
    if expected == actual { Ok(()) } else { Err(format!("{what}: expected {expected:?}, was {actual:?}")) }
}
