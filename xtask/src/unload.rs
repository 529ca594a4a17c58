//! `cargo xtask unload`: has `xtcp unload` remove what `load` pinned.

use std::process::ExitCode;

use anyhow::Result;

use crate::process::{succeed, xtcp};
use crate::{build, root};

/// Removes the program from an interface.
pub fn run(interface: &str) -> Result<ExitCode> {
    root::ensure_available("removing an XDP program")?;
    build::release()?;
    succeed(root::command(xtcp()).args(["unload", "--interface", interface]))?;
    Ok(ExitCode::SUCCESS)
}
