//! What accepts the kernel's connections: processes of this binary that share the listening socket, as many as it takes,
//! because a process may have but so many files.

use std::net::TcpListener;
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};

use ::tests::net::on_a_thread;
use anyhow::{Context, Result};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::cpu::{self, SERVER_CORE};

/// Name of the hidden command of the binary that becomes such a process.
pub const COMMAND: &str = "accept";
/// Its flag that has it close what it accepts.
pub const CLOSE: &str = "--close";
/// Files that a process has beside connections.
const OTHER_FILES: u64 = 64;

/// Processes that accept; they end on drop, and their connections with them.
#[derive(Debug)]
pub struct Acceptors(Vec<Child>);

impl Acceptors {
    /// Has connections of `listener` accepted on the server's core: `count` of them kept, or all closed at once.
    ///
    /// # Errors
    /// When they can't be started.
    pub fn start(listener: &TcpListener, count: u64, close: bool) -> Result<Acceptors> {
        let processes = if close { 1 } else { count.div_ceil(room()) };
        on_a_thread(|| {
            cpu::stay_on(SERVER_CORE)?;
            (0..processes).map(|_| spawn(listener, close)).collect::<Result<_>>().map(Acceptors)
        })
    }
}

impl Drop for Acceptors {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Accepts from the listening socket that is the standard input, until the process is killed.
///
/// # Errors
/// When the standard input is no listening socket.
pub fn accept(close: bool) -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })
        .context("can't raise the number of files")?;
    let listener = TcpListener::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    let (mut kept, room) = (Vec::new(), room() as usize);
    while kept.len() < room {
        let (connection, _) = listener.accept().context("can't accept from the standard input")?;
        if !close {
            kept.push(connection);
        }
    }
    loop {
        std::thread::park();
    }
}

/// Connections that one process may have.
fn room() -> u64 {
    getrlimit(Resource::Nofile).maximum.unwrap_or(1 << 20).saturating_sub(OTHER_FILES).max(1)
}

fn spawn(listener: &TcpListener, close: bool) -> Result<Child> {
    let mut command = Command::new(std::env::current_exe().context("can't tell where this program is")?);
    command.arg(COMMAND).args(close.then_some(CLOSE)).stdin(Stdio::from(listener.as_fd().try_clone_to_owned()?));
    command.stdout(Stdio::null()).spawn().context("can't start a process that accepts")
}
