//! Runs of single seeds: equal seeds give equal runs, other seeds give others, and the simulator finds what it is there
//! to find.

use sim::{Plan, World};

#[test]
fn the_same_seed_gives_the_same_run_bit_for_bit() {
    for seed in 5_000_000..5_000_030 {
        let runs = [0, 1].map(|_| World::new(Plan::random(seed)).run());
        assert!(runs[0].segments > 0);
        assert_eq!(runs[0], runs[1], "seed {seed}");
    }
}

#[test]
fn another_seed_gives_another_run() {
    let digests: std::collections::BTreeSet<u64> =
        (6_000_000..6_000_010).map(|seed| World::new(Plan::random(seed)).run().digest).collect();
    assert_eq!(digests.len(), 10);
}
