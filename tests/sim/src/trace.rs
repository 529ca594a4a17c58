//! What happened on the wire lately, as lines much like tcpdump's, for whoever must find out why a check failed. Kept
//! per thread, so that also a panic inside the stack can be explained.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use tcp_proto::Instant;
use tests::segment::Segment;

use crate::link::Flying;

/// Events that are kept, at most.
const KEPT: usize = 4000;

/// What became of a frame.
#[derive(Clone, Copy, Debug)]
pub enum Fate {
    /// A worker sent it, or the program.
    Sent(usize, Option<u16>),
    /// The path lost it.
    Lost(&'static str),
    /// The path will deliver it twice.
    Twice,
    /// A worker received it.
    Received(usize, u16),
    /// The XDP program did not let it through to a worker.
    Refused(&'static str),
}

enum Line {
    Frame(Fate, Option<Rc<Segment>>, bool),
    Text(String),
}

#[derive(Default)]
struct Trace {
    began: Instant,
    lines: VecDeque<(Instant, Line)>,
    /// Whether everything is printed as it happens.
    live: bool,
}

thread_local! {
    static TRACE: RefCell<Trace> = RefCell::default();
}

/// Forgets everything; time counts from `now`.
pub fn begin(now: Instant) {
    TRACE.with_borrow_mut(|trace| (trace.began, trace.lines) = (now, VecDeque::new()));
}

/// From now on prints everything as it happens, on this thread.
pub fn print() {
    TRACE.with_borrow_mut(|trace| trace.live = true);
}

/// Notes that a worker sends a segment, or the program.
pub fn sent(at: Instant, host: usize, queue: Option<u16>, segment: &Rc<Segment>) {
    push(at, Line::Frame(Fate::Sent(host, queue), Some(Rc::clone(segment)), false));
}

/// Notes what became of a frame.
pub fn note(at: Instant, fate: Fate, flying: &Flying) {
    let segment = flying.segment.as_ref().map(|(segment, _)| Rc::clone(segment));
    push(at, Line::Frame(fate, segment, flying.corrupted));
}

/// Notes anything else that matters.
pub fn say(at: Instant, text: impl FnOnce() -> String) {
    push(at, Line::Text(text()));
}

fn push(at: Instant, line: Line) {
    TRACE.with_borrow_mut(|trace| {
        if trace.live {
            println!("{}", line.show(at.since(trace.began)));
        }
        if trace.lines.len() >= KEPT {
            trace.lines.pop_front();
        }
        trace.lines.push_back((at, line));
    });
}

/// The last `most` lines that concern the connection of the last segment that was sent.
#[must_use]
pub fn last(most: usize) -> String {
    TRACE.with_borrow(|trace| {
        let ports = trace.lines.iter().rev().find_map(|(_, line)| match line {
            Line::Frame(Fate::Sent(..), Some(segment), _) => Some((segment.source.port(), segment.destination.port())),
            _ => None,
        });
        let concerns = |segment: &Segment| {
            ports.is_none_or(|(a, b)| [(a, b), (b, a)].contains(&(segment.source.port(), segment.destination.port())))
        };
        let lines = trace.lines.iter().filter(|(_, line)| match line {
            Line::Frame(_, Some(segment), _) => concerns(segment),
            Line::Frame(_, None, _) | Line::Text(_) => true,
        });
        let mut shown: Vec<String> =
            lines.rev().take(most).map(|(at, line)| line.show(at.since(trace.began))).collect();
        shown.reverse();
        shown.join("\n")
    })
}

impl Line {
    fn show(&self, at: std::time::Duration) -> String {
        let at = at.as_secs_f64();
        match self {
            Line::Text(text) => format!("{at:12.6} -- {text}"),
            Line::Frame(fate, segment, corrupted) => {
                let what = segment.as_ref().map_or_else(|| "forged, or ICMP".to_owned(), |segment| segment.to_string());
                // The segment's own time is when it was sent.
                let what = what.trim_start();
                let corrupted = if *corrupted { " CORRUPTED" } else { "" };
                match fate {
                    Fate::Sent(host, Some(queue)) => {
                        format!("{at:12.6} host {host}.{queue} sends    {what}{corrupted}")
                    }
                    Fate::Sent(host, None) => format!("{at:12.6} host {host}'s program sends {what}"),
                    Fate::Received(host, queue) => format!("{at:12.6} host {host}.{queue} receives {what}{corrupted}"),
                    Fate::Lost(why) => format!("{at:12.6} lost ({why}) {what}"),
                    Fate::Twice => format!("{at:12.6} twice {what}"),
                    Fate::Refused(why) => format!("{at:12.6} refused ({why}) {what}{corrupted}"),
                }
            }
        }
    }
}
