//! `cargo xtask sim`: builds the simulator, fast but with every check there is, and runs it on all cores.

use std::process::ExitCode;

use anyhow::Result;

use crate::process::{cargo, succeed};

/// Seeds that `cargo xtask test` runs; as many as reach everything that the coverage table asks for.
pub const SEEDS: u64 = 500;

/// Runs the simulator with these arguments of its own.
pub fn run(arguments: &[&str]) -> Result<ExitCode> {
    let command = ["run", "--quiet", "--package", "sim", "--profile", "sim", "--"];
    succeed(&mut cargo(command.iter().chain(arguments)))?;
    Ok(ExitCode::SUCCESS)
}

/// Runs so many seeds from `first` on, or shows one of them.
pub fn seeds(seeds: u64, first: u64, trace: bool) -> Result<ExitCode> {
    let (seeds, first) = (seeds.to_string(), first.to_string());
    let mut arguments = vec!["--seeds", &seeds, "--seed", &first];
    arguments.extend(trace.then_some("--trace"));
    run(&arguments)
}

/// The simulator's own tests, the bars of goodput among them, and the seeds.
pub fn test() -> Result<()> {
    succeed(&mut cargo(["test", "--package", "sim", "--profile", "sim"]))?;
    seeds(SEEDS, 0, false).map(drop)
}
