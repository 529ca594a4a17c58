//! `cargo xtask lab`: the lab of the demo and the tests, kept until it is taken down.
//!
//! It is a wire and nothing else; what runs on it is up to the user, one `lab exec` at a time.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use tests::net::{CLIENT_V4, CLIENT_V6, Namespace, SERVER_V4, SERVER_V6, Wire, WireOptions};

use crate::process::xtcp;
use crate::{End, LabCommand, root, setup};

/// Runs one of the lab's commands, as root.
pub fn run(command: &LabCommand, raised: bool) -> Result<ExitCode> {
    if !raised {
        root::ensure_available("a lab")?;
        setup::ensure()?;
    }
    if !root::is_root() {
        return root::rerun();
    }
    match command {
        LabCommand::Up => up(),
        LabCommand::Down => down(),
        LabCommand::Exec { end, command } => exec(*end, command),
    }
}

fn up() -> Result<ExitCode> {
    let wire = Wire::new_kept(&WireOptions::default())?;
    describe("client", &wire.client, &format!("{CLIENT_V4} and {CLIENT_V6}"));
    describe("server", &wire.server, &format!("{SERVER_V4} and {SERVER_V6}"));
    let (interface, xtcp) = (wire.server.interface(), xtcp());
    println!(
        "Serve in it:  cargo xtask lab exec server -- {} run --interface {interface} --listen '{SERVER_V4}:7=echo'",
        xtcp.display()
    );
    println!("Talk to it:   cargo xtask lab exec client -- curl -i http://{SERVER_V4}/");
    println!("Take it down: cargo xtask lab down");
    Ok(ExitCode::SUCCESS)
}

fn describe(role: &str, end: &Namespace, addresses: &str) {
    println!("{role}: namespace {}, interface {}, {addresses}", end.name(), end.interface());
}

fn down() -> Result<ExitCode> {
    let wire = Wire::kept();
    let existed = wire.exists();
    wire.take_down()?;
    println!("{}", if existed { "The lab is taken down." } else { "There is no lab; nothing to do." });
    Ok(ExitCode::SUCCESS)
}

/// Becomes the command, inside the namespace.
fn exec(end: End, command: &[OsString]) -> Result<ExitCode> {
    let wire = Wire::kept();
    ensure!(wire.exists(), "there is no lab: make it with `cargo xtask lab up`");
    let end = match end {
        End::Client => &wire.client,
        End::Server => &wire.server,
    };
    let (program, arguments) = command.split_first().context("no command")?;
    end.move_in()?;
    let error = Command::new(program).args(arguments).exec();
    Err(error).with_context(|| format!("can't run {}", program.display()))
}
