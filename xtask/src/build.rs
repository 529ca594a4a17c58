//! `cargo xtask build`: the XDP program and the daemon, in one binary.

use std::process::ExitCode;

use anyhow::Result;

use crate::process::{cargo, succeed, target};
use crate::setup;

/// Builds and says where the binary is.
pub fn run(debug: bool) -> Result<ExitCode> {
    build(debug)?;
    println!("{}", target().join(if debug { "debug/xtcp" } else { "release/xtcp" }).display());
    Ok(ExitCode::SUCCESS)
}

/// The release build that every other command uses.
pub fn release() -> Result<()> {
    build(false)
}

/// The build script of `tcp-user` compiles the XDP program, which the binary then carries.
fn build(debug: bool) -> Result<()> {
    setup::ensure()?;
    let mut command = cargo(["build", "--package", "tcp-user", "--bin", "xtcp"]);
    if !debug {
        command.arg("--release");
    }
    setup::choose_toolchain(&mut command)?;
    succeed(&mut command)
}
