//! Blind attacks on live connections: ten thousand forged segments a second for ten seconds, while the victims' streams
//! go on and must arrive whole, and new clients are served.
//!
//! The attacker sits on the client's end of the wire and sends whole frames through an AF_XDP socket. It knows the
//! victims' addresses and ports; their sequence numbers only where an attack says so. Frames are made with `etherparse`
//! or by hand, not with the stack's own code. How fast they really left is printed; what is asserted is their number,
//! that they reached xtcp, and that they came to what they should.

mod addresses;
mod attacker;
mod flood;
mod frames;
mod icmp;
mod numbers;
mod packets;
mod time_wait;
mod urgent;
mod victim;

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;
use tests::Lab;
use tests::daemon::{Daemon, DaemonBuilder};
use tests::net::{SERVER_V4, SERVER_V6, WireOptions};
use tests::peer;
use tests::segment::Mac;
use tests::wait::{End, until_it};

use attacker::{Attacker, SHOTS, Shot};
use victim::Victim;

/// Port of RFC 862.
const ECHO: u16 = 7;
/// Port of the proxy, and where it finds an echo of the kernel's TCP in the server's namespace.
const PROXY: u16 = 8080;
const BACKEND: u16 = 7000;
/// Port of RFC 863, on every address of either family.
const DISCARD: u16 = 9;
/// Nearly all of an attack: a few frames meet a connection at another moment than they were made for.
const MOST: u64 = SHOTS as u64 * 9 / 10;
/// Bytes that come back to each victim at least while it is attacked.
const STREAMED: u32 = 250_000;
/// Pause between two new clients, and how many are served at least.
const CLIENT_PAUSE: Duration = Duration::from_millis(50);
const NEWCOMERS: usize = 10;

/// An attack on two victims: a conversation with echo and a bulk stream through the proxy.
struct Attack {
    /// The victims' address family.
    server: IpAddr,
    /// Makes a frame.
    frame: fn(&Shot) -> Vec<u8>,
    /// Frames of the attack that reached xtcp, as its figures tell.
    reached: fn(&Value) -> u64,
    /// Whether new clients are served meanwhile: not when the attack is about their places in the queue.
    newcomers: bool,
    /// Whether the server's interface takes frames for everybody.
    promiscuous: bool,
}

/// What an attack left behind.
struct Aftermath {
    /// `xtcp stats` before the attack and after the victims were gone.
    before: Value,
    after: Value,
    /// Whom xtcp has sent segments to.
    addressees: HashSet<(Mac, SocketAddr)>,
}

impl Attack {
    fn new(frame: fn(&Shot) -> Vec<u8>, reached: fn(&Value) -> u64) -> Attack {
        Attack { server: SERVER_V4, frame, reached, newcomers: true, promiscuous: false }
    }

    fn over_v6(self) -> Attack {
        Attack { server: SERVER_V6, ..self }
    }

    fn run(self) -> Aftermath {
        let lab = Lab::for_load(&WireOptions::default());
        if self.promiscuous {
            lab.server.ip(&format!("link set dev {} promisc on", lab.server.interface())).expect("ip");
        }
        let backend = start_backend(&lab, self.server);
        let daemon = serve(&lab, self.server).start();
        let aftermath = self.run_in(&lab, &daemon);
        backend.join().expect("the backend's connection has ended");
        aftermath
    }

    fn run_in(self, lab: &Lab, daemon: &Daemon) -> Aftermath {
        let [talker, streamer] = [ECHO, PROXY].map(|port| Victim::connect(lab, daemon, (self.server, port).into()));
        let end = End::default();
        let before = daemon.stats();
        std::thread::scope(|scope| {
            let comes = end.comes();
            let conversation = scope.spawn(|| talker.converse(&end));
            let stream = scope.spawn(|| streamer.stream(&end));
            let newcomers = self.newcomers.then(|| scope.spawn(|| come_and_go(lab, self.server, &end)));
            Attacker::new(lab).attack(&[&talker, &streamer], self.frame);
            let arrived = || (self.reached)(&daemon.stats()) - (self.reached)(&before);
            until_it("every frame of the attack", arrived, |frames| *frames >= u64::from(SHOTS));
            drop(comes);
            for victim in [conversation, stream] {
                let streamed = victim.join().expect("the victim's stream arrives whole");
                assert!(streamed >= STREAMED, "{streamed} bytes echoed under attack");
            }
            let served = newcomers.map(|newcomers| newcomers.join().expect("new clients are served"));
            assert!(served.is_none_or(|served| served >= NEWCOMERS), "{served:?} new clients");
        });
        for victim in [&talker, &streamer] {
            assert_established(daemon, victim);
            victim.close();
        }
        peer::round_trip(&mut lab.connect((self.server, ECHO)), b"after the attack");
        wait_for_nothing_left(daemon);
        let addressees = lab.checker().addressees().clone();
        Aftermath { before, after: daemon.stats(), addressees }
    }
}

impl Aftermath {
    /// By how much a figure of `xtcp stats` grew.
    fn grew(&self, group: &str, name: &str) -> u64 {
        figure(&self.after, group, name) - figure(&self.before, group, name)
    }

    /// Sends that were due to forged segments and not held back by the limits of challenge ACKs.
    fn challenge_acks(&self) -> u64 {
        self.grew("drops", "challenged") - self.grew("drops", "ack_rate") - self.grew("drops", "challenge_rate")
    }

    /// Asserts that drops of a kind grew by nearly all the frames of the attack, or a part of them.
    fn assert_dropped(&self, reason: &str, at_least: u64) {
        let dropped = self.grew("drops", reason);
        assert!(dropped >= at_least, "{dropped} dropped as {reason}, not {at_least}: {:#}", self.after["drops"]);
    }
}

/// Half-open connections that an attack leaves behind are given up soon.
fn serve(lab: &Lab, address: IpAddr) -> DaemonBuilder<'_> {
    let quick = ["msl = \"50ms\"", "initial_rto = \"200ms\"", "synack_retries = 2"];
    let daemon = quick.into_iter().fold(lab.daemon(), DaemonBuilder::tcp);
    let everywhere: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    let daemon = everywhere.into_iter().fold(daemon, |daemon, any| daemon.listen(any, DISCARD, "discard"));
    let backend = SocketAddr::new(backend_address(address), BACKEND);
    daemon.listen(address, ECHO, "echo").listen(address, PROXY, &format!("proxy:{backend}"))
}

/// An echo of the kernel's TCP for one connection of the proxy's.
fn start_backend(lab: &Lab, server: IpAddr) -> JoinHandle<()> {
    let listener = peer::listen(&lab.server, SocketAddr::new(backend_address(server), BACKEND));
    peer::serve(listener, 1, peer::echo)
}

fn backend_address(server: IpAddr) -> IpAddr {
    if server.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() }
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

fn assert_established(daemon: &Daemon, victim: &Victim) {
    let remote = victim.target.client.to_string();
    let rows = daemon.connections(victim.target.server.port());
    let states: Vec<_> = rows.iter().filter(|row| row.remote == remote).map(|row| row.state.as_str()).collect();
    assert_eq!(states, ["ESTABLISHED"], "{remote}");
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

/// Segments of a class that the program saw.
fn class(stats: &Value, name: &str) -> u64 {
    figure(stats, "classes", name)
}

/// Everything that the program saw.
fn frames_seen(stats: &Value) -> u64 {
    stats["verdicts"].as_object().expect("verdicts").values().filter_map(Value::as_u64).sum()
}
