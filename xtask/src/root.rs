//! Raising what needs root: directly when the caller is root, else through `sudo`.

use std::ffi::OsStr;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, ensure};

use crate::process::find;

/// A command that will run as root.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    if is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.arg("--").arg(program);
    command
}

/// Whether the caller is root already.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Makes sure that root can be had for `what`, before any work is spent on it.
///
/// # Errors
/// When the caller is neither root nor able to use sudo.
pub fn ensure_available(what: &str) -> Result<()> {
    if is_root() {
        return Ok(());
    }
    ensure!(find("sudo").is_some(), "{what} needs root, and there is no sudo: run it as root");
    let without_password = Command::new("sudo").args(["-n", "true"]).stderr(Stdio::null()).status();
    let silent = without_password.is_ok_and(|status| status.success());
    let may_ask = rustix::termios::isatty(std::io::stdin());
    ensure!(
        silent || may_ask,
        "{what} needs root, and sudo would ask for a password where nobody can answer: run it as root"
    );
    Ok(())
}

/// Runs this very xtask command again as root, and returns its exit code.
///
/// # Errors
/// When it can't be started.
pub fn rerun() -> Result<ExitCode> {
    let status = xtask()?.args(std::env::args_os().skip(1)).status().context("can't run sudo")?;
    Ok(ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
}

/// An xtask command that will run as root and knows that everything is built.
///
/// # Errors
/// When this program can't tell where it is.
pub fn xtask() -> Result<Command> {
    let mut command = command(std::env::current_exe().context("can't tell where xtask is")?);
    command.arg("--raised");
    Ok(command)
}
