//! `cargo xtask test`: formatting, lints, unit tests, the build, end-to-end tests as root, and nothing left behind.
//!
//! Everything is compiled as the caller; only finished test programs run as root.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::process::{cargo, read, succeed, workspace, xtcp};
use crate::{build, fuzz, rfc, root, setup, sim};

/// How often `--long` runs the end-to-end tests, and for how many seconds the first time the soak among them.
const LONG_RUNS: u32 = 5;
const SOAK_SECONDS: &str = "1200";
/// The program whose tests send at a given pace, each for ten seconds: so many run at once.
const UNHURRIED: &str = "attacks-";
const UNHURRIED_AT_ONCE: &str = "6";
const SOAK_VARIABLE: &str = "XTCP_SOAK_SECONDS";

/// Runs every check, cheapest first.
pub fn run(long: bool) -> Result<ExitCode> {
    root::ensure_available("`cargo xtask test` (its end-to-end tests make network namespaces)")?;
    setup::ensure()?;
    step("formatting", || succeed(&mut cargo(["fmt", "--all", "--check"])))?;
    step("the requirements of the RFCs", || rfc::run(true))?;
    step("unit tests of what needs neither root nor the eBPF tools", || succeed(&mut cargo(["test"])))?;
    step("the simulator", sim::test)?;
    step("the fuzz targets, for a few seconds", fuzz::test)?;
    step("lints", || with_toolchain(&["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"]))?;
    step("unit tests of the daemon", || with_toolchain(&["test", "--package", "tcp-user"]))?;
    step("unit tests of the harness", || with_toolchain(&["test", "--package", "tests", "--lib"]))?;
    step("unit tests of the benches", || with_toolchain(&["test", "--package", "bench", "--lib"]))?;
    step("the daemon and the XDP program", build::release)?;
    let programs = step("the end-to-end tests, built", test_programs)?;
    step("the end-to-end tests, as root", || raise_end_to_end(&programs, if long { LONG_RUNS } else { 1 }))?;
    println!("\nAll tests passed, and nothing is left behind.");
    Ok(ExitCode::SUCCESS)
}

/// Runs finished test programs and makes sure that they clean up. Needs root.
pub fn end_to_end(programs: &[PathBuf], times: u32) -> Result<ExitCode> {
    let before = leftovers();
    for run in 1..=times {
        if times > 1 {
            println!("\nrun {run} of {times}");
        }
        let soak = times > 1 && run == 1;
        programs.iter().try_for_each(|program| run_program(program, soak))?;
    }
    let left: Vec<String> = leftovers().difference(&before).cloned().collect();
    ensure!(left.is_empty(), "the tests passed but left behind: {}", left.join(", "));
    Ok(ExitCode::SUCCESS)
}

fn step<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    println!("\n=== {what}");
    let started = Instant::now();
    let done = work().with_context(|| format!("{what}: failed"))?;
    println!("=== {what}: {:.1} s", started.elapsed().as_secs_f64());
    Ok(done)
}

fn with_toolchain(arguments: &[&str]) -> Result<()> {
    let mut command = cargo(arguments);
    setup::choose_toolchain(&mut command)?;
    succeed(&mut command)
}

/// Builds the end-to-end tests and returns their programs.
fn test_programs() -> Result<Vec<PathBuf>> {
    let mut command = cargo(["test", "--package", "tests", "--no-run", "--message-format", "json-render-diagnostics"]);
    setup::choose_toolchain(&mut command)?;
    let messages = read(command.stderr(Stdio::inherit()))?;
    let programs = messages.lines().filter_map(|line| test_program(&serde_json::from_str(line).ok()?)).collect();
    Ok(programs)
}

/// The program that a message of cargo's announces, when it is an integration test.
fn test_program(message: &Value) -> Option<PathBuf> {
    let is_test = message["target"]["kind"].as_array()?.iter().any(|kind| kind == "test");
    let program = message["executable"].as_str()?;
    is_test.then(|| PathBuf::from(program))
}

fn raise_end_to_end(programs: &[PathBuf], times: u32) -> Result<()> {
    ensure!(!programs.is_empty(), "cargo built no end-to-end tests");
    if root::is_root() {
        return end_to_end(programs, times).map(drop);
    }
    succeed(root::xtask()?.args(["end-to-end", "--times", &times.to_string()]).args(programs))
}

/// Tests print what they want people to read, such as the size of the XDP program, also when they pass.
fn run_program(program: &Path, soak: bool) -> Result<()> {
    let mut command = Command::new(program);
    if soak {
        command.env(SOAK_VARIABLE, SOAK_SECONDS);
    }
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    if name.starts_with(UNHURRIED) {
        command.env("RUST_TEST_THREADS", UNHURRIED_AT_ONCE);
    }
    succeed(command.arg("--show-output").current_dir(workspace().join("tests")))
}

/// What a lab or a daemon should have removed: leftovers of labs, and daemons that still run.
fn leftovers() -> BTreeSet<String> {
    let mut found: BTreeSet<String> = ::tests::net::leftovers().into_iter().collect();
    let Ok(processes) = std::fs::read_dir("/proc") else { return found };
    let daemon = xtcp();
    for process in processes.flatten() {
        if std::fs::read_link(process.path().join("exe")).is_ok_and(|program| program == daemon) {
            found.insert(format!("process {} ({})", process.file_name().display(), daemon.display()));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_integration_tests_are_taken_from_cargos_messages() {
        let end_to_end = json!({"target": {"kind": ["test"]}, "executable": "/t/e2e"});
        let library = json!({"target": {"kind": ["lib"]}, "executable": "/t/lib"});
        let finished = json!({"reason": "build-finished"});
        let programs = [end_to_end, library, finished].iter().filter_map(test_program).collect::<Vec<_>>();
        assert_eq!(programs, [PathBuf::from("/t/e2e")]);
    }
}
