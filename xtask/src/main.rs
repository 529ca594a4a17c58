//! `cargo xtask`: what a person types to build xtcp, see it work and test it. One file per command.
//!
//! Builds run as the caller; only the steps that need root are raised, through `sudo` when the caller is not root.
//! It depends on nothing of the daemon, so that it builds with a plain stable toolchain and sets up the rest.
#![forbid(unsafe_code)]

mod bench;
mod build;
mod demo;
mod fuzz;
mod lab;
mod load;
mod process;
mod rfc;
mod root;
mod setup;
mod sim;
mod test;
mod unload;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand, ValueEnum};

/// Build xtcp, see it work, test it.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// Everything is built: this is the same command, raised to root.
    #[arg(long, global = true, hide = true)]
    raised: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check what a build needs, install what is missing, say what was done.
    Setup,
    /// Build the XDP program and the daemon: target/release/xtcp.
    Build {
        /// Without optimisation: target/debug/xtcp.
        #[arg(long)]
        debug: bool,
    },
    /// Build, then load and pin program, link and maps without a daemon.
    Load {
        /// Network interface to attach to.
        #[arg(long)]
        interface: String,
    },
    /// Remove what `load` pinned, and the program from the interface.
    Unload {
        /// Network interface to detach from.
        #[arg(long)]
        interface: String,
    },
    /// Show the whole path in a lab of its own: curl fetches pages over xtcp, the tables show the connections.
    Demo,
    /// A lab that stays: two network namespaces, `client` and `server`, and a veth pair between them.
    Lab {
        #[command(subcommand)]
        command: LabCommand,
    },
    /// Run the simulator: production stacks on a bad path, seed by seed; prints what they reached.
    Sim {
        /// How many seeds; from 500 on, not reaching everything fails.
        #[arg(long, default_value_t = sim::SEEDS)]
        seeds: u64,
        /// The first one.
        #[arg(long, default_value_t = 0)]
        seed: u64,
        /// Print every segment of the first seed, and run no other.
        #[arg(long)]
        trace: bool,
        /// Print the matrix of goodput instead (the snapshot tests/sim/goodput.txt).
        #[arg(long)]
        goodput: bool,
    },
    /// Mutate the corpus of a fuzz target; an input that fails is kept in fuzz/artifacts.
    Fuzz {
        /// decide, wire, listener or connection.
        target: String,
        /// How many mutations.
        #[arg(long, default_value_t = fuzz::ITERATIONS)]
        iterations: u64,
        /// What chooses them.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Compare xtcp with the kernel's TCP in labs of their own.
    Bench {
        /// Names of benches (none: all), and options: --rounds N, --noisy, --update-baseline.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Flood a server in a lab of its own with raw frames, and say what was sent, answered and spent.
    Flood {
        /// syn, ack or rst; --rate N, --seconds N, --count N, --feed socket|live, --against xtcp|kernel, --v6.
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Run every check and test; fails when anything is left behind.
    Test {
        /// Run the end-to-end tests five times over, and a soak of 20 minutes.
        #[arg(long)]
        long: bool,
    },
    /// Show which requirements of the RFCs are implemented and tested, write docs/CONFORMANCE.md, fail on a gap.
    Rfc {
        /// Write nothing: fail when docs/CONFORMANCE.md is out of date.
        #[arg(long)]
        check: bool,
    },
    /// The part of `test` that runs as root: test programs that are built already.
    #[command(hide = true)]
    EndToEnd {
        /// How often to run each.
        #[arg(long)]
        times: u32,
        /// The test programs.
        programs: Vec<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
enum LabCommand {
    /// Make it.
    Up,
    /// Remove it.
    Down,
    /// Run a command in one of its namespaces, as root.
    Exec {
        /// Which namespace.
        end: End,
        /// The command and its arguments.
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<OsString>,
    },
}

/// An end of the lab's wire.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum End {
    /// Where the kernel's TCP plays the peer: 10.77.0.1, fd00:77::1.
    Client,
    /// Where xtcp runs: 10.77.0.2, fd00:77::2.
    Server,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("cargo xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<ExitCode> {
    let raised = arguments.raised;
    match &arguments.command {
        Command::Setup => setup::run(),
        Command::Build { debug } => build::run(*debug),
        Command::Load { interface } => load::run(interface),
        Command::Unload { interface } => unload::run(interface),
        Command::Demo => demo::run(raised),
        Command::Lab { command } => lab::run(command, raised),
        Command::Fuzz { target, iterations, seed } => fuzz::run(target, *iterations, *seed),
        Command::Sim { goodput: true, .. } => sim::run(&["--goodput"]),
        Command::Sim { seeds, seed, trace, .. } => sim::seeds(*seeds, *seed, *trace),
        Command::Bench { arguments } => bench::benches(arguments),
        Command::Flood { arguments } => bench::flood(arguments),
        Command::Test { long } => test::run(*long),
        Command::Rfc { check } => rfc::run(*check),
        Command::EndToEnd { times, programs } => test::end_to_end(programs, *times),
    }
}
