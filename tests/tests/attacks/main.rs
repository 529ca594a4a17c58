//! Blind attacks on live connections: ten thousand forged segments a second for ten seconds, while the victim's stream
//! goes on and must arrive whole, and new clients are served.
//!
//! The attacker sits on the client's end of the wire and sends whole frames through an AF_XDP socket. It knows the
//! victim's addresses and ports; its sequence numbers only where an attack says so. Frames are made with `etherparse`
//! or by hand, not with the stack's own code. How fast they really left is printed; what is asserted is their number.

mod attacker;
mod frames;
mod headers;
mod numbers;
mod time_wait;
mod urgent;

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;
use tests::Lab;
use tests::daemon::Daemon;
use tests::net::{SERVER_V4, SERVER_V6, WireOptions};
use tests::peer::{self, bytes};
use tests::wait::{End, until_it};

use attacker::{Attacker, Shot, Target};

/// Port of RFC 862.
const ECHO: u16 = 7;
/// Pause between two exchanges of the victim: a conversation, not a bulk transfer.
const PAUSE: Duration = Duration::from_millis(2);
/// Pause between two new clients.
const CLIENT_PAUSE: Duration = Duration::from_millis(50);
/// Exchanges that the victim makes at least while it is attacked.
const EXCHANGES: usize = 200;

/// An attack on a conversation with echo.
struct Attack {
    /// The victim's address family.
    server: IpAddr,
    /// Makes a frame.
    frame: fn(&Shot) -> Vec<u8>,
    /// Frames of the attack that reached xtcp, as its figures tell.
    reached: fn(&Value) -> u64,
    /// Whether new clients are served meanwhile: not when the attack is about their places in the queue.
    newcomers: bool,
}

impl Attack {
    fn new(frame: fn(&Shot) -> Vec<u8>, reached: fn(&Value) -> u64) -> Attack {
        Attack { server: SERVER_V4, frame, reached, newcomers: true }
    }

    fn over_v6(self) -> Attack {
        Attack { server: SERVER_V6, ..self }
    }

    /// Runs it; the lab and the daemon with the victim gone are left to look at.
    fn run(self) {
        let lab = Lab::for_load(&WireOptions::default());
        let daemon = serve(&lab, self.server);
        self.run_in(&lab, &daemon);
    }

    fn run_in(self, lab: &Lab, daemon: &Daemon) {
        let victim = lab.connect((self.server, ECHO));
        let target = Target::new(lab, &victim);
        let end = End::default();
        let exchanges = std::thread::scope(|scope| {
            let comes = end.comes();
            let conversation = scope.spawn(|| converse(&victim, &end));
            let newcomers = self.newcomers.then(|| scope.spawn(|| come_and_go(lab, self.server, &end)));
            let before = (self.reached)(&daemon.stats());
            Attacker::new(lab).attack(&target, daemon, self.frame);
            let arrived = || (self.reached)(&daemon.stats()) - before;
            until_it("every frame of the attack", arrived, |frames| *frames >= u64::from(attacker::SHOTS));
            drop(comes);
            let served = newcomers.map(|newcomers| newcomers.join().expect("new clients are served"));
            assert!(served.is_none_or(|served| served > 10), "{served:?} new clients");
            conversation.join().expect("the victim's stream arrives whole")
        });
        assert!(exchanges >= EXCHANGES, "{exchanges} exchanges under attack");
        let row = daemon.wait_for_state(ECHO, &["ESTABLISHED"]);
        assert_eq!(row.remote, victim.local_addr().expect("an address").to_string());
        victim.shutdown(Shutdown::Write).expect("a half-close");
        assert_eq!(peer::read_to_end(&victim), b"");
        wait_for_nothing_left(daemon);
    }
}

/// Half-open connections that an attack leaves behind are given up soon.
fn serve(lab: &Lab, address: IpAddr) -> Daemon {
    let quick = ["msl = \"50ms\"", "initial_rto = \"200ms\"", "synack_retries = 1"];
    let daemon = quick.into_iter().fold(lab.daemon(), tests::daemon::DaemonBuilder::tcp);
    daemon.listen(address, ECHO, "echo").start()
}

/// Exchanges of all sizes until the end comes; how many.
fn converse(connection: &TcpStream, end: &End) -> usize {
    let (mut connection, data) = (connection, bytes(20_000, 77));
    for exchange in 0.. {
        if end.has_come() {
            return exchange;
        }
        let sent = &data[exchange % 100..][..1 + exchange * exchange % 4000];
        let mut answer = vec![0; sent.len()];
        connection.write_all(sent).expect("the connection takes data");
        connection.read_exact(&mut answer).expect("the connection answers");
        assert!(answer == sent, "another answer in exchange {exchange}");
        std::thread::sleep(PAUSE);
    }
    unreachable!("exchanges have no end")
}

/// New clients, one after the other, until the end comes; how many were served.
fn come_and_go(lab: &Lab, server: IpAddr, end: &End) -> usize {
    let mut served = 0;
    while !end.has_come() {
        peer::round_trip(&mut lab.connect((server, ECHO)), b"hello");
        served += 1;
        std::thread::sleep(CLIENT_PAUSE);
    }
    served
}

fn wait_for_nothing_left(daemon: &Daemon) {
    let left = || {
        let stats = daemon.stats();
        let states = stats["connections"].as_object().expect("connections").clone();
        states.iter().filter(|(state, _)| *state != "LISTEN").filter_map(|(_, count)| count.as_u64()).sum::<u64>()
    };
    until_it("no connection left", left, |left| *left == 0);
    assert_eq!(daemon.stats()["buffer_bytes"], 0);
}

/// A figure of `xtcp stats`.
fn figure(stats: &Value, group: &str, name: &str) -> u64 {
    stats[group][name].as_u64().unwrap_or_else(|| panic!("no {name} in {}", stats[group]))
}

/// Everything that the program saw.
fn frames_seen(stats: &Value) -> u64 {
    stats["verdicts"].as_object().expect("verdicts").values().filter_map(Value::as_u64).sum()
}

/// The server's echo port.
fn echo(server: IpAddr) -> SocketAddr {
    SocketAddr::new(server, ECHO)
}
