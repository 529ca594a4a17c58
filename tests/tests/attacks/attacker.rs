//! The attacker: frames at a steady rate from the client's end of the wire.

use std::time::{Duration, Instant};

use tests::Lab;
use xtcp::afxdp::{XskOptions, XskSocket};

use crate::victim::{Numbers, Target, Victim};

/// Frames of an attack, and how many leave each millisecond.
pub const SHOTS: u32 = 100_000;
const PER_MILLISECOND: u32 = 10;
/// Numbers at least so far from where a victim's are or get to during an attack can't be right by luck.
const FAR: u32 = 1 << 26;

/// What a frame is made of.
#[derive(Clone, Copy, Debug)]
pub struct Shot {
    pub target: Target,
    /// Number of the frame.
    pub n: u32,
    /// Random bits, the same for the same number.
    pub random: u32,
    /// For attackers that know more than they should.
    pub known: Numbers,
}

impl Shot {
    /// A number that sweeps over all there are in the course of the attack.
    pub fn swept(&self) -> u32 {
        (u64::from(self.n) * (1 << 32) / u64::from(SHOTS)) as u32 ^ (self.random & 0xffff)
    }

    /// A number in the receive window that the stream does not get to soon.
    pub fn in_window(&self) -> u32 {
        let Numbers { rcv_nxt, rcv_wnd, .. } = self.known;
        rcv_nxt.wrapping_add(rcv_wnd / 2 + self.random % (rcv_wnd / 4))
    }

    /// An acknowledgment number that the attacker guesses, and guesses wrong: a test must not fail by luck.
    pub fn wrong_ack(&self) -> u32 {
        self.known.snd_nxt.wrapping_add(FAR + self.random % (u32::MAX - 2 * FAR))
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
        let index = lab.client.interface_index().expect("an index");
        let options = XskOptions::new(name, index, 1500, 0);
        let socket = lab.client.enter(|| XskSocket::bind(&options)).expect("an AF_XDP socket");
        Attacker { lab, socket }
    }

    /// Sends every frame of an attack, on the one victim or the other, at its pace.
    pub fn attack(&mut self, victims: &[&Victim], frame: impl Fn(&Shot) -> Vec<u8>) {
        self.shoot(|n, random| {
            // Not by the number of the frame: that is for the attack to choose from its variants by.
            let victim = victims[(random >> 16) as usize % victims.len()];
            frame(&Shot { target: victim.target, n, random, known: victim.numbers() })
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
