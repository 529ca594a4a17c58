//! `xtcp`: the daemon and its client commands. Exit codes: 0, 1 failed, 2 usage (arguments, configuration);
//! an error is one line on standard error.

mod cli;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use xtcp::config::{BadPrefix, ConfigError};

fn main() -> ExitCode {
    match cli::run(cli::Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let line = error.to_string().replace('\n', " ");
            // Without standard error there is still the exit code.
            let _ = writeln!(std::io::stderr(), "xtcp: {line}");
            ExitCode::from(if error.is::<ConfigError>() || error.is::<BadPrefix>() { 2 } else { 1 })
        }
    }
}

/// Whether output went to a reader that has seen enough, such as `head`.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}
