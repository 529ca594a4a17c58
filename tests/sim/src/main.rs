//! `sim`: runs seeds and says what they reached. `cargo xtask sim` builds and calls it.

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use sim::{campaign, coverage};

/// Simulates production stacks on a bad path, seed by seed.
#[derive(Debug, Parser)]
struct Arguments {
    /// How many seeds.
    #[arg(long, default_value_t = 500)]
    seeds: u64,
    /// The first one.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Print the matrix of goodput instead.
    #[arg(long)]
    goodput: bool,
    /// Print every segment of the first seed, and run no other.
    #[arg(long)]
    trace: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.goodput {
        print!("{}", sim::goodput::matrix());
        return ExitCode::SUCCESS;
    }
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
    let (table, missed) = coverage::table(&total);
    println!("{table}");
    let judged = arguments.seeds >= coverage::ENOUGH;
    if judged && !missed.is_empty() {
        eprintln!("never reached: {}", missed.join("; "));
    }
    let passed = total.failures.is_empty() && (!judged || missed.is_empty());
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
