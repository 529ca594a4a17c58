//! Every target, on its committed corpus and a few thousand seeded mutations of it.

use fuzz::{Target, driver};

const SEED: u64 = 20;

fn smoke(target: Target, iterations: u64) {
    let runs = driver::mutate_corpus(target, iterations, SEED).unwrap_or_else(|finding| panic!("{finding}"));
    assert!(runs > iterations, "the corpus itself is run too");
}

#[test]
fn mutated_frames_are_decided_as_the_contract_says() {
    smoke(Target::Decide, 20_000);
}

#[test]
fn mutated_frames_and_options_are_read_as_another_parser_reads_them() {
    smoke(Target::Wire, 20_000);
}

#[test]
fn mutated_frames_to_a_listener_and_a_connection_break_nothing() {
    smoke(Target::Listener, 3000);
}

#[test]
fn mutated_segments_times_and_calls_break_no_connection() {
    smoke(Target::Connection, 3000);
}
