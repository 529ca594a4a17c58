//! Running other programs: where the workspace is, and errors that name the command that failed.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// The top directory of the workspace.
pub fn workspace() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().map_or_else(|| package.to_owned(), Path::to_owned)
}

/// Where builds go: the contract names `target/release/xtcp`, so `CARGO_TARGET_DIR` does not move it.
pub fn target() -> PathBuf {
    workspace().join("target")
}

/// The release build of the daemon.
pub fn xtcp() -> PathBuf {
    target().join("release/xtcp")
}

/// A cargo command in the workspace.
pub fn cargo<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new("cargo");
    command.args(arguments).current_dir(workspace()).env("CARGO_TARGET_DIR", target());
    // Set by .cargo/config.toml for build scripts only; this build's progress is to be seen.
    command.env_remove("CARGO_TERM_QUIET");
    command
}

/// Runs a command to its end; its output is the caller's.
///
/// # Errors
/// When it can't be started or fails.
pub fn succeed(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("can't run `{}`", line(command)))?;
    if status.success() { Ok(()) } else { bail!("`{}` failed ({status})", line(command)) }
}

/// Runs a command to its end and returns what it wrote to stdout.
///
/// # Errors
/// When it can't be started or fails; the message holds what it wrote to stderr.
pub fn read(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("can't run `{}`", line(command)))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("`{}` failed ({}): {}", line(command), output.status, said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The first of the directories where programs are that has `name`.
pub fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // A caller who is not root may lack these in PATH, although sudo has them.
    let system = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(system).map(|directory| directory.join(name)).find(|file| file.is_file())
}

fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
