//! `cargo xtask fuzz`: mutates a fuzz target's corpus by a seed, fast but with every check there is, on stable Rust.

use std::process::ExitCode;

use anyhow::Result;

use crate::process::{cargo, succeed};

/// What `cargo xtask fuzz` runs when it is not told.
pub const ITERATIONS: u64 = 1_000_000;

/// Runs so many mutations, chosen by `seed`, of a target's corpus. Cargo knows the targets and names them.
pub fn run(target: &str, iterations: u64, seed: u64) -> Result<ExitCode> {
    let (iterations, seed) = (iterations.to_string(), seed.to_string());
    let build = ["run", "--quiet", "--package", "fuzz", "--profile", "sim", "--bin", target, "--"];
    succeed(&mut cargo(build.into_iter().chain(["--iterations", &iterations, "--seed", &seed])))?;
    Ok(ExitCode::SUCCESS)
}

/// Every target for a few seconds.
pub fn test() -> Result<()> {
    succeed(&mut cargo(["test", "--package", "fuzz", "--profile", "sim"]))
}
