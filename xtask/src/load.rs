//! `cargo xtask load`: builds, then has `xtcp load` pin program, link and maps without a daemon.

use std::process::ExitCode;

use anyhow::Result;

use crate::process::{succeed, xtcp};
use crate::{build, root};

/// Loads the program on an interface.
pub fn run(interface: &str) -> Result<ExitCode> {
    root::ensure_available("loading an XDP program")?;
    build::release()?;
    succeed(root::command(xtcp()).args(["load", "--interface", interface]))?;
    Ok(ExitCode::SUCCESS)
}
