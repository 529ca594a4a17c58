//! The benches, one file each; a new one is a file and a line in [`ALL`].

mod stray;
mod syn;

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
];
