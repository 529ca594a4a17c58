//! "Segment arrives" (RFC 9293 section 3.10.7), all of it: every situation that a connection can be in, times every
//! combination of SYN, ACK, FIN and RST, with and without text, times where the segment's number lies, times what it
//! acknowledges. What the stack does in each cell is judged by [`oracle`], which is written from the RFCs, and
//! recorded in `docs/segment-arrives.md` by [`snapshot`].
//!
//! Left out: timestamps, rate limits and what takes more than one segment; those have traces of their own.

#[path = "../common/mod.rs"]
mod common;

mod cells;
mod oracle;
mod situations;
mod snapshot;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use cells::{Ack, Cell, Outcome, Seq};
use situations::{SITUATIONS, Situation};
use tcp_proto::State;

/// Every cell and what came of it, by situation.
static MATRIX: LazyLock<Vec<Vec<(Cell, Outcome)>>> = LazyLock::new(|| {
    let run = |situation: &Situation| -> Vec<(Cell, Outcome)> {
        Cell::all(situation).into_iter().map(|cell| (cell, cell.run(situation, 0, 0))).collect()
    };
    SITUATIONS.iter().map(run).collect()
});

fn cells() -> impl Iterator<Item = (&'static Situation, &'static Cell, &'static Outcome)> {
    let of = |(situation, cells): (&'static Situation, &'static Vec<(Cell, Outcome)>)| {
        cells.iter().map(move |(cell, outcome)| (situation, cell, outcome))
    };
    SITUATIONS.iter().zip(MATRIX.iter()).flat_map(of)
}

//= docs/rfc/rfc9293.md#3.10.7.2-1-RST
//= docs/rfc/rfc9293.md#3.10.7.2-4-other
//= docs/rfc/rfc9293.md#3.10.7.3-5-other
//= docs/rfc/rfc9293.md#3.10.7.3-2-RST-no-ACK
//= docs/rfc/rfc9293.md#3.10.7.4-1-acceptability
//= docs/rfc/rfc9293.md#3.10.7.4-1-unacceptable
//= docs/rfc/rfc9293.md#3.10.7.4-1-unacceptable-RST
//= docs/rfc/rfc9293.md#3.10.7.4-2-outside
//= docs/rfc/rfc9293.md#3.10.7.4-4-SYN-RECEIVED
//= docs/rfc/rfc9293.md#3.10.7.4-4-synchronized
//= docs/rfc/rfc9293.md#3.10.7.4-5-no-ACK
//= docs/rfc/rfc9293.md#3.10.7.4-5-FIN-WAIT-2
//= docs/rfc/rfc9293.md#3.10.7.4-5-CLOSE-WAIT
//= docs/rfc/rfc9293.md#3.10.7.4-7-CLOSE-WAIT
//= docs/rfc/rfc9293.md#3.10.7.4-8-SYN-SENT
//= docs/rfc/rfc9293.md#3.10.7.4-8-CLOSE-WAIT
#[test]
fn every_segment_in_every_situation_does_what_the_rfcs_say() {
    let mut judged: BTreeMap<&str, u32> = oracle::RULES.iter().map(|rule| (rule.says, 0)).collect();
    let mut wrong = Vec::new();
    for (situation, cell, outcome) in cells() {
        let (rule, verdict) = oracle::judge(situation, cell, outcome);
        *judged.entry(rule).or_default() += 1;
        wrong.extend(verdict.err().map(|what| format!("{}, {cell}: {what}\n    [{rule}]", situation.name)));
    }
    assert!(wrong.is_empty(), "{} cells:\n{}", wrong.len(), wrong.join("\n"));
    assert!(judged.values().all(|count| *count > 0), "a rule that judges nothing: {judged:#?}");
}

#[test]
fn what_the_document_records_is_what_the_stack_does() {
    snapshot::compare(&MATRIX);
}

#[test]
fn no_segment_outside_of_the_window_changes_anything_but_what_opens() {
    let outside = |cell: &Cell| matches!(cell.seq, Seq::Old | Seq::Edge | Seq::Above);
    for (situation, cell, outcome) in cells().filter(|(_, cell, _)| outside(cell)) {
        // Decision 10.
        let bare_ack = cell.acks() && !cell.rst() && !cell.syn() && !cell.fin() && !cell.text;
        let flows = situation.state.is_synchronized() && situation.state != State::TIME_WAIT;
        if bare_ack && cell.seq == Seq::Edge && flows {
            continue;
        }
        let reopens = situation.reusable && cell.syn() && !cell.acks() && !cell.rst();
        let crosses = situation.state == State::SYN_RCVD && !situation.passive;
        let opens = reopens || crosses && cell.syn() && !cell.rst() && cell.ack == Ack::All;
        assert!(opens || outcome.is_unchanged(situation), "{}, {cell}: {outcome:?}", situation.name);
    }
}

#[test]
fn no_segment_with_an_impossible_ack_changes_anything_but_by_a_reset_or_a_syn_before_the_connection_exists() {
    for (situation, cell, outcome) in cells().filter(|(_, cell, _)| matches!(cell.ack, Ack::Ancient | Ack::Beyond)) {
        let resets = cell.rst() && cell.seq == Seq::Next;
        let opens = cell.syn() && situation.state == State::SYN_RCVD && situation.passive;
        assert!(resets || opens || outcome.is_unchanged(situation), "{}, {cell}: {outcome:?}", situation.name);
    }
}

#[test]
fn only_a_reset_at_the_next_number_or_one_that_acknowledges_our_syn_resets() {
    for (situation, cell, outcome) in cells().filter(|(_, cell, _)| cell.rst()) {
        let refuses = situation.state == State::SYN_SENT && cell.ack == Ack::All;
        let resets = cell.seq == Seq::Next && situation.state != State::TIME_WAIT || refuses;
        assert_eq!(outcome.is_unchanged(situation), !resets, "{}, {cell}: {outcome:?}", situation.name);
    }
}

//= docs/rfc/rfc5681.md#4.2-one
//= docs/rfc/rfc9293.md#3.10.7.4-1-unacceptable-RST
#[test]
fn a_segment_draws_one_answer_at_most_and_a_reset_never_draws_another() {
    for (situation, cell, outcome) in cells() {
        let resets = outcome.sent.iter().filter(|sent| sent.flags & 4 != 0).count();
        assert!(outcome.sent.len() <= 1, "{}, {cell}: {:?}", situation.name, outcome.sent);
        assert!(!cell.rst() || resets == 0, "{}, {cell}: {:?}", situation.name, outcome.sent);
    }
}

#[test]
fn what_is_counted_as_dropped_changes_nothing_unless_it_is_only_the_text_past_the_fin() {
    for (situation, cell, outcome) in cells().filter(|(_, _, outcome)| !outcome.counted.is_empty()) {
        let past_the_fin = !situation.state.may_receive() && (cell.text || cell.fin()) && cell.acks();
        let dropped = outcome.is_unchanged(situation) && !outcome.takes_a_window();
        assert!(dropped || past_the_fin, "{}, {cell}: {outcome:?}", situation.name);
        assert_eq!(outcome.counted.len(), 1, "{}, {cell}: {:?}", situation.name, outcome.counted);
    }
}

#[test]
fn what_changes_nothing_and_is_not_answered_is_counted_unless_it_is_a_bare_ack() {
    for (situation, cell, outcome) in cells().filter(|(_, cell, _)| cell.flags != 16 || cell.text) {
        let silent = outcome.is_unchanged(situation) && outcome.sent.is_empty();
        assert!(!silent || !outcome.counted.is_empty(), "{}, {cell}: {outcome:?}", situation.name);
    }
}

#[test]
fn neither_push_nor_urgent_nor_congestion_bits_change_what_a_segment_does() {
    // PSH, ECE, CWR, and URG with a pointer at nothing, into the text, at its end, past it, and as far as one can.
    let dresses = [(8, 0), (64, 0), (128, 0), (32, 0), (32, 1), (32, 10), (32, 11), (32, u16::MAX)];
    for ((situation, cell, bare), (bits, pointer)) in cells().zip(dresses.into_iter().cycle()) {
        let mut dressed = cell.run(situation, bits, pointer);
        // The application is told of urgent data, and that is all.
        dressed.told.retain(|event| *event != "Urgent");
        assert_eq!(*bare, dressed, "{}, {cell}, bits {bits}, urgent pointer {pointer}", situation.name);
    }
}

#[test]
fn a_situation_is_what_its_trace_says() {
    for situation in SITUATIONS.iter().filter(|situation| situation.is_connection()) {
        let row = cells::row(&situation.reach()).expect("a connection");
        assert_eq!(row.state, situation.state, "{}", situation.name);
        if situation.knows_the_peer() {
            assert_eq!(row.rcv_wnd, situation.rcv_wnd, "{}", situation.name);
        }
        assert_eq!(row.snd_nxt.wrapping_sub(row.snd_una), situation.nxt - situation.una, "{}", situation.name);
    }
}
