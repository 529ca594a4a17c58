//! The attacker: frames at a steady rate from the client's end of the wire.

use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tests::Lab;
use tests::daemon::Daemon;
use tests::segment::Mac;
use tests::wait::End;
use xtcp::afxdp::{XskOptions, XskSocket};

/// Frames of an attack, and how many leave each millisecond.
pub const SHOTS: u32 = 100_000;
const PER_MILLISECOND: u32 = 10;
/// How often the attacker that knows numbers looks for the newest.
const LOOK: Duration = Duration::from_millis(100);

/// Whom an attack is on.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// MAC addresses of both ends.
    pub client_mac: Mac,
    pub server_mac: Mac,
    /// The victim's connection.
    pub client: SocketAddr,
    pub server: SocketAddr,
}

impl Target {
    pub fn new(lab: &Lab, victim: &TcpStream) -> Target {
        Target {
            client_mac: lab.client.mac().expect("a MAC address"),
            server_mac: lab.server.mac().expect("a MAC address"),
            client: victim.local_addr().expect("an address"),
            server: victim.peer_addr().expect("an address"),
        }
    }
}

/// What a frame is made of.
#[derive(Clone, Copy, Debug)]
pub struct Shot {
    pub target: Target,
    /// Number of the frame.
    pub n: u32,
    /// Random bits, the same for the same number.
    pub random: u32,
    /// The victim's RCV.NXT and SND.NXT, a fraction of a second old: for attackers that know more than they should.
    pub rcv_nxt: u32,
    pub snd_nxt: u32,
}

impl Shot {
    /// A number that sweeps over all there are in the course of the attack.
    pub fn swept(&self) -> u32 {
        (u64::from(self.n) * (1 << 32) / u64::from(SHOTS)) as u32 ^ (self.random & 0xffff)
    }
}

/// An AF_XDP socket on the client's end.
pub struct Attacker<'lab> {
    lab: &'lab Lab,
    socket: XskSocket,
}

impl<'lab> Attacker<'lab> {
    pub fn new(lab: &'lab Lab) -> Attacker<'lab> {
        let name = lab.client.interface();
        let link = lab.client.ip(&format!("-json link show dev {name}")).expect("ip");
        let link: serde_json::Value = serde_json::from_str(&link).expect("JSON");
        let index = link[0]["ifindex"].as_u64().expect("an index") as u32;
        let options = XskOptions::new(name, index, 1500, 0);
        let socket = lab.client.enter(|| XskSocket::bind(&options)).expect("an AF_XDP socket");
        Attacker { lab, socket }
    }

    /// Sends every frame of an attack on a conversation, at its pace.
    pub fn attack(&mut self, target: &Target, daemon: &Daemon, frame: fn(&Shot) -> Vec<u8>) {
        let (rcv_nxt, snd_nxt, end) = (AtomicU32::new(0), AtomicU32::new(0), End::default());
        let look = || {
            let remote = target.client.to_string();
            let rows = daemon.connections(target.server.port());
            let row = rows.iter().find(|row| row.remote == remote).expect("the victim's connection");
            rcv_nxt.store(row.number("rcv_nxt") as u32, Ordering::Relaxed);
            snd_nxt.store(row.number("snd_nxt") as u32, Ordering::Relaxed);
        };
        look();
        std::thread::scope(|scope| {
            let comes = end.comes();
            scope.spawn(|| {
                while !end.has_come() {
                    look();
                    std::thread::sleep(LOOK);
                }
            });
            self.shoot(|n, random| {
                let (rcv_nxt, snd_nxt) = (rcv_nxt.load(Ordering::Relaxed), snd_nxt.load(Ordering::Relaxed));
                frame(&Shot { target: *target, n, random, rcv_nxt, snd_nxt })
            });
            drop(comes);
        });
    }

    /// Sends [`SHOTS`] frames, [`PER_MILLISECOND`] at a time.
    pub fn shoot(&mut self, mut frame: impl FnMut(u32, u32) -> Vec<u8>) {
        let (began, mut random) = (Instant::now(), 0x9e37_79b9_u32);
        for first in (0..SHOTS).step_by(PER_MILLISECOND as usize) {
            let due = began + Duration::from_millis(u64::from(first / PER_MILLISECOND));
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let mut numbers = first..first + PER_MILLISECOND;
            while !numbers.is_empty() || self.socket.transmit_pending() > 0 {
                self.socket.transmit(PER_MILLISECOND as usize, |into| {
                    let n = numbers.next()?;
                    random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    let bytes = frame(n, random ^ (random >> 15));
                    into[..bytes.len()].copy_from_slice(&bytes);
                    self.lab.checker().forged(&bytes);
                    Some(bytes.len())
                });
            }
        }
        let took = began.elapsed();
        println!(
            "{SHOTS} frames in {:.1} s: {:.0} a second",
            took.as_secs_f64(),
            f64::from(SHOTS) / took.as_secs_f64()
        );
    }
}
