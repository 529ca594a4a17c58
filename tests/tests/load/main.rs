//! Load: thousands of connections at once, a hundred thousand one after the other, gigabytes, peers that die by the
//! hundred, a wire that loses segments, and memory that comes back afterwards.
//!
//! The peer is the kernel's TCP. Tests take turns, so that one's load is not another's. Speed is printed and never
//! asserted; a soak that mixes everything runs as long as `XTCP_SOAK_SECONDS` says (`cargo xtask test --long`).

mod churn;
mod crowd;
mod death;
mod fairness;
mod soak;
mod streams;

use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tests::daemon::Daemon;
use tests::net::{SERVER_V4, SERVER_V6};
use tests::peer;
use tests::wait::until_it;

/// Port of RFC 862.
const ECHO: u16 = 7;
/// Port of RFC 867.
const DAYTIME: u16 = 13;
/// Port of RFC 864.
const CHARGEN: u16 = 19;
/// Port of a proxy.
const PROXY: u16 = 8080;

/// Both of the server's addresses.
const SERVERS: [IpAddr; 2] = [SERVER_V4, SERVER_V6];

/// Keeps other tests of this program waiting while it lives.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    // A test that failed leaves nothing that would disturb the next.
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An address of the server's, by turns of both families.
fn server(turn: usize, port: u16) -> SocketAddr {
    SocketAddr::new(SERVERS[turn % 2], port)
}

/// Lets this process open as many files as it is allowed to.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
        .expect("up to the hard limit");
}

/// Connections that the daemon counts in `state`.
fn count(daemon: &Daemon, state: &str) -> u64 {
    daemon.stats()["connections"][state].as_u64().unwrap_or(0)
}

/// Connections in any state, LISTEN aside.
fn connections(daemon: &Daemon) -> u64 {
    let stats = daemon.stats();
    let states = stats["connections"].as_object().expect("connections by state");
    states.iter().filter(|(state, _)| *state != "LISTEN").map(|(_, count)| count.as_u64().unwrap_or(0)).sum()
}

/// Waits until no connection is left, TIME_WAIT included, no buffer and no entry of CONNECTIONS.
fn wait_for_nothing_left(daemon: &Daemon) {
    until_it("no connection left", || connections(daemon), |left| *left == 0);
    assert_eq!(daemon.stats()["buffer_bytes"], 0);
    until_it("no entry left in CONNECTIONS", || daemon.maps().connections().len(), |left| *left == 0);
}

/// Resident memory of the daemon, KiB.
fn resident(daemon: &Daemon) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).expect("the daemon runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Runs `work`, and prints how long it took and how many of `what` that makes a second.
fn timed<T>(what: &str, many: u64, work: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let done = work();
    let took: Duration = began.elapsed();
    println!("{many} {what} in {:.2} s: {:.0} a second", took.as_secs_f64(), many as f64 / took.as_secs_f64());
    done
}

/// The bytes of a stream too long to keep: pieces of a block, each from another place of it.
struct Stream(Vec<u8>);

/// Bytes of a piece.
const PIECE: usize = 64 << 10;

impl Stream {
    fn new(seed: u64) -> Stream {
        Stream(peer::bytes(2 * PIECE, seed))
    }

    /// Piece number `n`.
    fn piece(&self, n: usize) -> &[u8] {
        let at = n.wrapping_mul(7919) % PIECE;
        &self.0[at..at + PIECE]
    }
}
