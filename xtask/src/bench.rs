//! `cargo xtask bench` and `cargo xtask flood`: build the daemon and the benches' own binary, and become that, as root.

use std::os::unix::process::CommandExt;
use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::process::{cargo, succeed, target};
use crate::{build, root, setup};

/// Builds, and becomes the binary `bench` with these arguments, as root: a signal to us is one to it, and it cleans up.
pub fn run(arguments: &[String]) -> Result<ExitCode> {
    root::ensure_available("a bench (its lab is made of network namespaces)")?;
    build::release()?;
    let mut command = cargo(["build", "--quiet", "--package", "bench", "--release"]);
    setup::choose_toolchain(&mut command)?;
    succeed(&mut command)?;
    let failed = root::command(target().join("release/bench")).args(arguments).exec();
    Err(failed).context("can't run bench")
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
