//! `sim`: runs seeds and says what they reached. `cargo xtask sim` builds and calls it.

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use sim::campaign;

/// Simulates production stacks on a bad path, seed by seed.
#[derive(Debug, Parser)]
struct Arguments {
    /// How many seeds.
    #[arg(long, default_value_t = 500)]
    seeds: u64,
    /// The first one.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Print every segment of the first seed, and run no other.
    #[arg(long)]
    trace: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.trace {
        sim::trace::print();
        return match campaign::run_seed(arguments.seed) {
            Ok(_) => ExitCode::SUCCESS,
            Err(failure) => {
                eprintln!("{}", failure.report);
                ExitCode::FAILURE
            }
        };
    }
    let started = Instant::now();
    let total = campaign::run(arguments.seed, arguments.seeds);
    for failure in &total.failures {
        eprintln!("{}\n", failure.report);
    }
    println!(
        "{} seeds, {} segments (median {}), {:.0} s of virtual time in {:.1} s",
        total.segments.len(),
        total.sum.segments,
        total.median(),
        total.sum.took.as_secs_f64(),
        started.elapsed().as_secs_f64()
    );
    for (name, count) in total.sum.figures.iter().chain(total.sum.faults.iter()).chain(total.sum.drops.iter()) {
        println!("{name:24} {count}");
    }
    let mut transitions = total.sum.transitions.clone();
    transitions.sort_by_key(|(state, cause, _)| (*state as u8, *cause as u8));
    for (state, cause, count) in transitions {
        println!("{:12} {cause:?} {count}", state.name());
    }
    if total.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
