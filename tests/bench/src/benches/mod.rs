//! The benches, one file each; a new one is a file and a line in [`ALL`].

mod crowd;
mod legit;
mod program;
mod stray;
mod syn;
pub mod timer;

use anyhow::Result;

use crate::harness::Options;
use crate::report::Report;

/// A bench.
#[derive(Clone, Copy, Debug)]
pub struct Bench {
    /// What it is called by.
    pub name: &'static str,
    /// What it measures, in a line.
    pub about: &'static str,
    /// Runs it.
    pub run: fn(&Options) -> Result<Vec<Report>>,
}

/// Every bench, in the order in which they run.
pub const ALL: &[Bench] = &[
    Bench { name: "syn", about: "SYN flood: CPU per SYN answered, highest rate answered", run: syn::run },
    Bench { name: "ack-flood", about: "ACKs that belong to no connection: CPU per packet", run: stray::run_acks },
    Bench { name: "rst-flood", about: "resets that belong to no connection: CPU per packet", run: stray::run_resets },
    Bench { name: "program", about: "cost of the XDP program by BPF_PROG_TEST_RUN", run: program::run },
    Bench { name: "legit", about: "200 connections/s during a SYN flood: who succeeds, and when", run: legit::run },
    Bench { name: "idle", about: "1,000,000 idle connections: memory, stalls, CPU", run: crowd::run_idle },
    Bench { name: "timer", about: "instructions to arm or cancel one of 1,000,000 timers", run: timer::run },
    Bench { name: "time-wait", about: "1,000,000 connections in TIME_WAIT: memory", run: crowd::run_time_wait },
];
