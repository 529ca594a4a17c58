//! Runs benches, or one flood: what `cargo xtask bench` and `cargo xtask flood` start, as root. It does so in a process
//! of its own that it watches over.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bench::acceptor::{self, Acceptors, Fate};
use bench::benches::{ALL, Bench};
use bench::client::{MAX_REQUESTS, with_client};
use bench::cpu::{self, CLIENT_CORE};
use bench::flood::measure;
use bench::frame::{Kind, Script};
use bench::generator::{Bounds, Feed, MAX_COUNT};
use bench::harness::Options;
use bench::lab::{BenchLab, LabOptions, Server, Subject};
use bench::programs::ClientEnd;
use bench::report::{Baseline, Report};
use bench::supervisor::supervise;
use clap::builder::{PossibleValue, PossibleValuesParser};
use clap::{Args, Parser, Subcommand};

/// xtcp against the kernel's TCP.
#[derive(Debug, Parser)]
#[command(name = "bench")]
struct Arguments {
    /// Do the work, and leave it to whoever started this to clean up.
    #[arg(long, hide = true)]
    supervised: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Compare both, and hold the ratios against the baseline.
    Run(RunArguments),
    /// Flood a server in a lab of its own, and say what came of it.
    Flood(FloodArguments),
    /// The part of the bench `timer` that valgrind watches.
    #[command(hide = true)]
    Wheel {
        /// Timers that are armed.
        armed: u32,
        /// Operations on another.
        operations: u32,
    },
    /// Accept connections of the socket that is the standard input.
    #[command(hide = true)]
    Accept {
        /// What becomes of them.
        fate: Fate,
    },
}

#[derive(Debug, Args)]
struct RunArguments {
    /// Which benches; none: all.
    #[arg(value_parser = names())]
    names: Vec<String>,
    /// Rounds of each variant.
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Take measurements as they are, whoever else uses the CPUs.
    #[arg(long)]
    noisy: bool,
    /// Make the measured ratios the baseline.
    #[arg(long)]
    update_baseline: bool,
    /// Where NAME.json is written.
    #[arg(long, default_value = "target/bench")]
    output: PathBuf,
}

/// What a flood is made of.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum What {
    /// Connection requests.
    Syn,
    /// Acknowledgments that belong to no connection.
    Ack,
    /// Resets that belong to no connection.
    Rst,
    /// Whole connections: SYN, ACK, a request of 64 bytes and FIN, from a client without a stack.
    Request,
}

#[derive(Debug, Args)]
struct FloodArguments {
    /// What is sent.
    kind: What,
    /// Frames per second; unset: as fast as it goes.
    #[arg(long)]
    rate: Option<f64>,
    /// How long, seconds.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// How many frames at most.
    #[arg(long, default_value_t = MAX_COUNT)]
    count: u64,
    /// How they get to the server.
    #[arg(long, default_value = "socket")]
    feed: Feed,
    /// Who serves.
    #[arg(long, default_value = "xtcp")]
    against: Subject,
    /// Over IPv6.
    #[arg(long)]
    v6: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match &arguments.command {
        Command::Run(_) | Command::Flood(_) if !arguments.supervised => supervised(),
        Command::Run(run) => benches(run),
        Command::Flood(flood) => one_flood(flood),
        Command::Wheel { armed, operations } => {
            bench::benches::timer::drive(*armed, *operations);
            Ok(ExitCode::SUCCESS)
        }
        Command::Accept { fate } => acceptor::accept(*fate).map(|()| ExitCode::SUCCESS),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs this program again, and cleans up behind it.
fn supervised() -> Result<ExitCode> {
    let program = std::env::current_exe().context("can't tell where this program is")?;
    let mut work = std::process::Command::new(program);
    work.arg("--supervised").args(std::env::args_os().skip(1));
    supervise(work)
}

fn one_flood(arguments: &FloodArguments) -> Result<ExitCode> {
    let FloodArguments { kind, rate, seconds, count, feed, against, v6 } = arguments;
    let time = Duration::try_from_secs_f64(*seconds).context("--seconds is no length of time")?;
    let bounds = Bounds { rate: *rate, time, count: *count };
    bounds.check()?;
    cpu::stay_on(CLIENT_CORE)?;
    let options = LabOptions { v6: *v6, ..LabOptions::flood(*against) };
    let kind = match kind {
        What::Syn => Kind::Syn,
        What::Ack => Kind::Ack,
        What::Rst => Kind::Rst,
        What::Request => return flood_of_requests(&options, *feed, &bounds),
    };
    let lab = BenchLab::new(&options)?;
    println!("{kind:?} flood of {against:?} at {} ({feed:?})", lab.ends.listener);
    println!("{}", measure(&lab, kind, *feed, &bounds)?);
    Ok(ExitCode::SUCCESS)
}

fn flood_of_requests(options: &LabOptions, feed: Feed, bounds: &Bounds) -> Result<ExitCode> {
    ensure!(feed == Feed::Socket, "whole connections come from a socket only: leave --feed out");
    let tcp = "backlog = 16384, syn_backlog = 16384".to_owned();
    let options = LabOptions { client: ClientEnd::Steer, tcp, top: String::new(), ..options.clone() };
    let mut lab = BenchLab::new(&options)?;
    let bounds = Bounds { count: bounds.count.min(MAX_REQUESTS), ..*bounds };
    println!("Flood of requests to {:?} at {}", options.subject, lab.ends.listener);
    let _acceptors = match &lab.server {
        Server::Kernel(listener) => Some(Acceptors::start(listener, bounds.count, Fate::Echo)?),
        Server::Xtcp(_) | Server::Discard(_) => None,
    };
    let opened = with_client(&mut lab, Script::Request(&[b'x'; 64]), |client, _| Ok(client.flood(&bounds)))?;
    println!("{opened}");
    Ok(ExitCode::SUCCESS)
}

fn benches(arguments: &RunArguments) -> Result<ExitCode> {
    let options = Options { rounds: arguments.rounds.max(1), noisy: arguments.noisy };
    cpu::stay_on(CLIENT_CORE)?;
    let mut reports = Vec::new();
    for bench in ALL.iter().filter(|bench| is_chosen(bench, &arguments.names)) {
        println!("{}: {}", bench.name, bench.about);
        let measured = (bench.run)(&options).with_context(|| format!("bench {}", bench.name))?;
        // At once: what took minutes is not lost when a later bench fails.
        measured.iter().try_for_each(|report| report.write(&arguments.output).map(drop))?;
        reports.extend(measured);
    }
    conclude(&reports, arguments)
}

fn names() -> PossibleValuesParser {
    PossibleValuesParser::new(ALL.iter().map(|bench| PossibleValue::new(bench.name).help(bench.about)))
}

fn is_chosen(bench: &Bench, names: &[String]) -> bool {
    names.is_empty() || names.iter().any(|name| name == bench.name)
}

/// Prints the reports; only a regression fails.
fn conclude(reports: &[Report], arguments: &RunArguments) -> Result<ExitCode> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("baseline.json");
    let baseline = Baseline::read(&path)?;
    println!();
    for report in reports {
        println!("{report}");
    }
    let missed = reports.iter().filter(|report| !report.met).count();
    println!("{} of {} bars met; figures in {}", reports.len() - missed, reports.len(), arguments.output.display());
    if arguments.update_baseline {
        baseline.update(reports, &path)?;
        println!("the baseline is {}", path.display());
        return Ok(ExitCode::SUCCESS);
    }
    let worse: Vec<String> = reports.iter().filter_map(|report| baseline.regression(report)).collect();
    if worse.is_empty() { Ok(ExitCode::SUCCESS) } else { bail!("{}", worse.join("; ")) }
}
