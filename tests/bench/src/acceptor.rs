//! What accepts the kernel's connections: processes of this binary that share the listening socket, as many as it takes,
//! because a process may have but so many files.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ::tests::net::on_a_thread;
use anyhow::{Context, Result};
use clap::ValueEnum;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::cpu::{self, SERVER_CORE};

/// Name of the hidden command of the binary that becomes such a process.
pub const COMMAND: &str = "accept";
/// Files that a process has beside connections.
const OTHER_FILES: u64 = 64;

/// What becomes of a connection that is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Fate {
    /// It is kept.
    Keep,
    /// It is closed at once.
    Close,
    /// What it sends is sent back until it closes; one connection after the other.
    Echo,
}

/// Longest time that an echo waits for what a connection sends.
const ECHO_PATIENCE: Duration = Duration::from_secs(1);

/// Processes that accept; they end on drop, and their connections with them.
#[derive(Debug)]
pub struct Acceptors(Vec<Child>);

impl Acceptors {
    /// Has connections of `listener` accepted on the server's core, `count` of them if they are kept.
    ///
    /// # Errors
    /// When they can't be started.
    pub fn start(listener: &TcpListener, count: u64, fate: Fate) -> Result<Acceptors> {
        let processes = if fate == Fate::Keep { count.div_ceil(room()) } else { 1 };
        on_a_thread(|| {
            cpu::stay_on(SERVER_CORE)?;
            (0..processes).map(|_| spawn(listener, fate)).collect::<Result<_>>().map(Acceptors)
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
pub fn accept(fate: Fate) -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })
        .context("can't raise the number of files")?;
    let listener = TcpListener::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    let (mut kept, room) = (Vec::new(), room() as usize);
    while kept.len() < room {
        let (connection, _) = listener.accept().context("can't accept from the standard input")?;
        match fate {
            Fate::Keep => kept.push(connection),
            Fate::Close => {}
            // A client without a stack may leave at any time.
            Fate::Echo => drop(echo(connection)),
        }
    }
    loop {
        std::thread::park();
    }
}

fn echo(mut connection: TcpStream) -> io::Result<()> {
    connection.set_read_timeout(Some(ECHO_PATIENCE))?;
    let mut request = Vec::new();
    connection.read_to_end(&mut request)?;
    connection.write_all(&request)
}

/// Connections that one process may have.
fn room() -> u64 {
    getrlimit(Resource::Nofile).maximum.unwrap_or(1 << 20).saturating_sub(OTHER_FILES).max(1)
}

fn spawn(listener: &TcpListener, fate: Fate) -> Result<Child> {
    let fate = fate.to_possible_value().context("a fate without a name")?;
    let mut command = Command::new(std::env::current_exe().context("can't tell where this program is")?);
    command.args([COMMAND, fate.get_name()]).stdin(Stdio::from(listener.as_fd().try_clone_to_owned()?));
    command.stdout(Stdio::null()).spawn().context("can't start a process that accepts")
}
