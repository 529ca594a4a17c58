//! The matrix as text: `docs/segment-arrives.md` holds it in a block that this module writes and compares. Segments
//! that do the same everywhere share a paragraph, and cells with the same outcome a line.

use std::collections::{BTreeMap, BTreeSet};

use tcp_proto::State;

use crate::cells::{Ack, Cell, Outcome, Seq};
use crate::common::Seg;
use crate::situations::{SITUATIONS, Situation};

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/segment-arrives.md");
const BEGINS: &str = "```text\n";
const ENDS: &str = "```";
/// Environment variable: write the document instead of comparing it.
const UPDATE: &str = "UPDATE_SNAPSHOTS";
const WIDTH: usize = 120;

/// Outcomes of one shape of segment, by where its numbers lie; `None`: what it acknowledges makes no difference.
type Table = Vec<(Seq, Option<Ack>, String)>;

pub fn compare(outcomes: &[Vec<(Cell, Outcome)>]) {
    let document = std::fs::read_to_string(DOCUMENT).unwrap_or_else(|error| panic!("{DOCUMENT}: {error}"));
    let (head, rest) = document.split_once(BEGINS).expect("the block begins");
    let (recorded, tail) = rest.split_once(ENDS).expect("the block ends");
    let actual = text(outcomes);
    if std::env::var_os(UPDATE).is_some() {
        return std::fs::write(DOCUMENT, [head, BEGINS, &actual, ENDS, tail].concat()).expect("written");
    }
    assert!(
        recorded == actual,
        "docs/segment-arrives.md (-) is not what the stack does (+). If the stack is right, run \
         `{UPDATE}=1 cargo test -p tcp-proto --test matrix` and read the difference.\n{}",
        differences(recorded, actual.as_str())
    );
}

fn differences(recorded: &str, actual: &str) -> String {
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<BTreeSet<_>>();
    let (recorded, actual) = (lines(recorded), lines(actual));
    let gone = recorded.difference(&actual).map(|line| format!("- {line}\n"));
    let new = actual.difference(&recorded).map(|line| format!("+ {line}\n"));
    gone.chain(new).take(60).collect()
}

fn text(outcomes: &[Vec<(Cell, Outcome)>]) -> String {
    let paragraphs = SITUATIONS.iter().zip(outcomes).map(|(situation, cells)| {
        let groups: String = groups(situation, cells).iter().map(|(shapes, table)| group(shapes, table)).collect();
        format!("{}\n{groups}", situation.name)
    });
    paragraphs.collect::<Vec<_>>().join("\n")
}

/// Shapes of segments and what they do; shapes that do the same are together.
fn groups(situation: &Situation, cells: &[(Cell, Outcome)]) -> Vec<(Vec<String>, Table)> {
    let mut groups: Vec<(Vec<String>, Table)> = Vec::new();
    for of_shape in cells.chunk_by(|(a, _), (b, _)| a.shape() == b.shape()) {
        let (shape, table) = (of_shape[0].0.shape(), table(situation, of_shape));
        match groups.iter_mut().find(|(_, other)| *other == table) {
            Some((shapes, _)) => shapes.push(shape),
            None => groups.push((vec![shape], table)),
        }
    }
    groups
}

fn table(situation: &Situation, cells: &[(Cell, Outcome)]) -> Table {
    let of_seq = cells.chunk_by(|(a, _), (b, _)| a.seq == b.seq).map(|same| {
        let lines: Vec<_> =
            same.iter().map(|(cell, outcome)| (cell.seq, Some(cell.ack), describe(situation, cell, outcome))).collect();
        let indifferent = lines.iter().all(|line| line.2 == lines[0].2);
        if indifferent { vec![(lines[0].0, None, lines[0].2.clone())] } else { lines }
    });
    of_seq.collect::<Vec<_>>().concat()
}

fn group(shapes: &[String], table: &Table) -> String {
    let mut lines: Vec<(&str, BTreeMap<Seq, BTreeSet<Ack>>)> = Vec::new();
    for (seq, ack, outcome) in table {
        let position = lines.iter().position(|(text, _)| text == outcome).unwrap_or_else(|| {
            lines.push((outcome, BTreeMap::new()));
            lines.len() - 1
        });
        lines[position].1.entry(*seq).or_default().extend(ack);
    }
    let everywhere = lines.len() == 1;
    let lines = lines.iter().flat_map(|(outcome, cells)| where_it_happens(cells, everywhere, outcome));
    wrap(shapes) + &lines.collect::<String>()
}

/// A line for every set of acknowledgments: the numbers with which it leads to `outcome`.
fn where_it_happens(cells: &BTreeMap<Seq, BTreeSet<Ack>>, everywhere: bool, outcome: &str) -> Vec<String> {
    let mut by_acks: Vec<(&BTreeSet<Ack>, Vec<&str>)> = Vec::new();
    for (seq, acks) in cells {
        match by_acks.iter_mut().find(|(other, _)| *other == acks) {
            Some((_, seqs)) => seqs.push(seq.name()),
            None => by_acks.push((acks, vec![seq.name()])),
        }
    }
    let line = |(acks, seqs): &(&BTreeSet<Ack>, Vec<&str>)| {
        let acks: Vec<&str> = acks.iter().map(|ack| ack.name()).collect();
        let acks = if acks.is_empty() { String::new() } else { format!("; ack {}", acks.join(" ")) };
        let cells = if everywhere { "any".to_owned() } else { seqs.join(" ") };
        format!("    seq {cells}{acks}: {outcome}\n")
    };
    by_acks.iter().map(line).collect()
}

fn wrap(shapes: &[String]) -> String {
    let mut lines = vec!["  ".to_owned()];
    for shape in shapes {
        let line = lines.last_mut().expect("there is one");
        if line.len() + shape.len() + 1 > WIDTH {
            lines.push(format!("  {shape}"));
        } else {
            *line += if line.len() > 2 { " " } else { "" };
            *line += shape;
        }
    }
    lines.join("\n") + "\n"
}

/// What a cell did, in words.
fn describe(situation: &Situation, cell: &Cell, outcome: &Outcome) -> String {
    let mut words: Vec<String> = Vec::new();
    words.extend(new_state(situation, outcome));
    words.extend(outcome.sent.iter().map(|sent| format!("sends {}", symbols(situation, cell, outcome, sent))));
    words.extend((outcome.read > 0).then(|| format!("delivers {}", outcome.read)));
    if let Some((una, rcv_nxt, took_window)) = outcome.tcb.filter(|_| situation.knows_the_peer() && !outcome.succeeded)
    {
        let to = if rcv_nxt == end(situation, cell) { "SEG.SEQ+SEG.LEN" } else { "RCV.NXT+RCV.WND" };
        words.extend((rcv_nxt != situation.rcv_nxt).then(|| format!("RCV.NXT={to}")));
        words.extend((una != situation.una).then(|| "SND.UNA=SEG.ACK".to_owned()));
        words.extend(took_window.then(|| "SND.WND=SEG.WND".to_owned()));
    }
    let restarts = situation.state == State::TIME_WAIT && outcome.time_wait == Some(60_000);
    words.extend(restarts.then(|| "2 MSL restart".to_owned()));
    words.extend(outcome.succeeded.then(|| "ISS above the old SND.NXT".to_owned()));
    words.extend((!outcome.told.is_empty()).then(|| format!("tells {}", outcome.told.join(", "))));
    words.extend((!outcome.counted.is_empty()).then(|| format!("counts {}", outcome.counted.join(", "))));
    if words.is_empty() { "nothing".to_owned() } else { words.join("; ") }
}

fn new_state(situation: &Situation, outcome: &Outcome) -> Option<String> {
    let gone = situation.is_connection() && outcome.tcb.is_none();
    let state = if gone { State::CLOSED } else { outcome.state };
    (state != situation.state).then(|| format!("-> {}", state.name()))
}

/// SEG.SEQ+SEG.LEN.
fn end(situation: &Situation, cell: &Cell) -> u32 {
    let segment = cell.segment(situation, 0, 0);
    segment.seq.wrapping_add(segment.payload.len() as u32 + u32::from(cell.syn()) + u32::from(cell.fin()))
}

/// A segment of the stack's: its flags, and its numbers by name. Where an ACK and a SYN,ACK say what they always say,
/// the flags are enough.
fn symbols(situation: &Situation, cell: &Cell, outcome: &Outcome, sent: &Seg) -> String {
    let (arrived, end) = (cell.segment(situation, 0, 0), end(situation, cell));
    let rcv_nxt = outcome.tcb.map_or(situation.rcv_nxt, |(_, rcv_nxt, _)| rcv_nxt);
    match sent.flags {
        16 if (sent.seq, sent.ack) == (situation.nxt, rcv_nxt) => "ACK".to_owned(),
        18 if (sent.seq, sent.ack) == (0, rcv_nxt) => "SYN,ACK".to_owned(),
        4 if sent.seq == arrived.ack => "RST at SEG.ACK".to_owned(),
        20 if (sent.seq, sent.ack) == (situation.nxt, rcv_nxt) && situation.is_connection() => "RST,ACK".to_owned(),
        20 if (sent.seq, sent.ack) == (0, end) => "RST,ACK at 0 of SEG.SEQ+SEG.LEN".to_owned(),
        _ => sent.text(false),
    }
}
