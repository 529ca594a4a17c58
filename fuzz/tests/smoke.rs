//! Every target, on its committed corpus and some thousand seeded mutations of it: a few seconds in the profile `sim`,
//! which `cargo xtask test` uses. `cargo xtask fuzz` runs more of them.

use fuzz::{Target, driver};

const SEED: u64 = 20;

fn smoke(target: Target, iterations: u64) {
    let runs = driver::mutate_corpus(target, iterations, SEED).unwrap_or_else(|finding| panic!("{finding}"));
    assert!(runs > iterations, "the corpus itself is run too");
}

#[test]
fn mutated_frames_are_decided_as_the_contract_says() {
    smoke(Target::Decide, 200_000);
}

#[test]
fn mutated_frames_draw_answers_that_harm_nobody_or_none() {
    smoke(Target::Answer, 200_000);
}

#[test]
fn mutated_frames_and_options_are_read_as_another_parser_reads_them() {
    smoke(Target::Wire, 200_000);
}

#[test]
fn mutated_frames_to_a_listener_and_a_connection_break_nothing() {
    smoke(Target::Listener, 30_000);
}

#[test]
fn mutated_segments_times_and_calls_break_no_connection() {
    smoke(Target::Connection, 20_000);
}
