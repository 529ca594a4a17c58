//! `cargo xtask bench` and `cargo xtask flood`: build the daemon and the benches' own binary, and run that as root.

use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::process::{cargo, succeed, target};
use crate::{build, root, setup};

/// Builds, and runs the binary `bench` with these arguments, as root; its exit code is ours.
pub fn run(arguments: &[String]) -> Result<ExitCode> {
    root::ensure_available("a bench (its lab is made of network namespaces)")?;
    build::release()?;
    let mut command = cargo(["build", "--quiet", "--package", "bench", "--release"]);
    setup::choose_toolchain(&mut command)?;
    succeed(&mut command)?;
    let status = root::command(target().join("release/bench")).args(arguments).status().context("can't run bench")?;
    Ok(ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
}

/// Runs benches: names and options as the binary takes them.
pub fn benches(arguments: &[String]) -> Result<ExitCode> {
    let output = target().join("bench").display().to_string();
    run(&[&["run".to_owned(), "--output".to_owned(), output], arguments].concat())
}

/// Runs one flood.
pub fn flood(arguments: &[String]) -> Result<ExitCode> {
    run(&[&["flood".to_owned()], arguments].concat())
}
