//! The generator of raw frames: a template, spoofed sources, a bound in rate, time and number, and two ways to the
//! server.
//!
//! Through an AF_XDP socket (`socket`) each frame becomes a socket buffer, as on any veth. Live frames (`live`,
//! BPF_PROG_TEST_RUN) enter the server's XDP program as a driver's would, at a fraction of the cost. It sends nowhere but
//! into a namespace that this process has made.

use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use ::tests::net::Namespace;
use anyhow::{Context, Result, bail, ensure};
use bench_ebpf::Template;
use xtcp::afxdp::{XskOptions, XskSocket};

use crate::cpu::{self, CLIENT_CORE};
use crate::frame;
use crate::programs::GeneratorProgram;

/// Longest flood, and most frames of one.
pub const MAX_TIME: Duration = Duration::from_secs(600);
/// See [`MAX_TIME`].
pub const MAX_COUNT: u64 = 1_000_000_000;
/// Frames that are sent at once, at most: a quarter of a veth's ring.
const BATCH: u64 = 64;
/// Length of a call that sends live frames, frames of a paced one that are made at once, the least rate, and the rate
/// that a generator without one is taken to have before its first call has ended.
const LIVE_CALL: Duration = Duration::from_millis(400);
const PACED_BATCH: u32 = 16;
const MIN_LIVE_RATE: f64 = 2000.0;
const FIRST_SPEED: f64 = 500_000.0;
/// How far the generator may fall behind its rate before it gives up catching up: the frames of so much time.
const MAX_LAG: Duration = Duration::from_millis(5);

/// How frames get to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Feed {
    /// From an AF_XDP socket.
    Socket,
    /// As live frames of BPF_PROG_TEST_RUN.
    Live,
}

/// How much is sent. A flood ends at the first bound that it meets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds {
    /// Frames per second; `None`: as fast as it goes.
    pub rate: Option<f64>,
    /// How long.
    pub time: Duration,
    /// How many frames.
    pub count: u64,
}

impl Bounds {
    /// So long, at a rate.
    #[must_use]
    pub fn of(rate: Option<f64>, time: Duration) -> Bounds {
        Bounds { rate, time, count: MAX_COUNT }
    }

    /// Whether a flood may be so long and so large.
    ///
    /// # Errors
    /// When a bound is beyond what is allowed.
    pub fn check(&self) -> Result<()> {
        ensure!(self.time <= MAX_TIME, "a flood lasts {} s at most", MAX_TIME.as_secs());
        ensure!(self.count <= MAX_COUNT, "a flood has {MAX_COUNT} frames at most");
        ensure!(self.rate.is_none_or(|rate| rate > 0.0), "a rate is above 0 frames per second");
        Ok(())
    }

    /// Frames that should have been sent after `elapsed`.
    pub(crate) fn due(&self, elapsed: Duration) -> u64 {
        self.rate.map_or(u64::MAX, |rate| (elapsed.as_secs_f64() * rate) as u64).min(self.count)
    }
}

/// Sends frames into the wire from the client's end.
pub struct Generator {
    template: Template,
    way: Way,
    random: Random,
}

enum Way {
    Socket(Box<XskSocket>),
    Live { program: Box<GeneratorProgram>, index: u32 },
}

impl Generator {
    /// A generator at the client's end of a wire. The calling thread moves there for good, to the client's core.
    ///
    /// # Errors
    /// When `client` is not a namespace that this process has made, and when the kernel refuses.
    pub fn new(client: &Namespace, feed: Feed, template: &Template) -> Result<Generator> {
        client.move_in()?;
        refuse_others(client.name())?;
        let index = client.interface_index()?;
        cpu::stay_on(CLIENT_CORE)?;
        let way = match feed {
            Feed::Socket => {
                let options = XskOptions::new(client.interface(), index, 1500, 0);
                Way::Socket(Box::new(XskSocket::bind(&options)?))
            }
            Feed::Live => Way::Live { program: Box::new(GeneratorProgram::load(template)?), index },
        };
        Ok(Generator { template: *template, way, random: Random(0x9e37_79b9_7f4a_7c15) })
    }

    /// Sends until a bound is met or `enough` says so, and returns how many frames were sent.
    ///
    /// # Errors
    /// When the bounds are none, and when the kernel refuses.
    pub fn flood(&mut self, bounds: &Bounds, enough: impl Fn() -> bool) -> Result<u64> {
        bounds.check()?;
        match &mut self.way {
            Way::Socket(socket) => Ok(flood_socket(socket, &self.template, &mut self.random, bounds, enough)),
            Way::Live { program, index } => flood_live(program, *index, &self.template, bounds, enough),
        }
    }
}

/// By batches, each when it is due.
fn flood_socket(
    socket: &mut XskSocket,
    template: &Template,
    random: &mut Random,
    bounds: &Bounds,
    enough: impl Fn() -> bool,
) -> u64 {
    let (start, mut sent, mut skipped) = (Instant::now(), 0, 0);
    let behind = bounds.due(MAX_LAG).max(BATCH);
    while sent < bounds.count && start.elapsed() < bounds.time && !enough() {
        let due = bounds.due(start.elapsed()).saturating_sub(sent + skipped);
        if bounds.rate.is_some() {
            skipped += due.saturating_sub(behind);
        }
        let now = due.min(BATCH).min(bounds.count - sent);
        if now == 0 {
            pause(bounds.rate);
            continue;
        }
        socket.transmit(now as usize, |memory| {
            sent += 1;
            Some(frame::fill(memory, template, &template.vary(random.next())))
        });
    }
    sent
}

/// By calls that last a fraction of a second each: the program itself keeps the rate, the calls the other bounds.
fn flood_live(
    program: &mut GeneratorProgram,
    index: u32,
    template: &Template,
    bounds: &Bounds,
    enough: impl Fn() -> bool,
) -> Result<u64> {
    let slow = bounds.rate.is_some_and(|rate| rate < MIN_LIVE_RATE);
    ensure!(!slow, "live frames come at {MIN_LIVE_RATE} a second or more; slower ones from a socket");
    program.pace(bounds.rate)?;
    let batch = if bounds.rate.is_some() { PACED_BATCH } else { BATCH as u32 };
    let (start, mut sent, mut speed) = (Instant::now(), 0, bounds.rate.unwrap_or(FIRST_SPEED));
    while sent < bounds.count && !enough() {
        let left = bounds.time.saturating_sub(start.elapsed());
        let count = ((left.min(LIVE_CALL).as_secs_f64() * speed) as u64).min(bounds.count - sent);
        if count < u64::from(batch) && left < LIVE_CALL {
            break;
        }
        let call = Instant::now();
        program.send_live(template, index, count as u32, batch)?;
        sent += count;
        if bounds.rate.is_none() {
            speed = (count as f64 / call.elapsed().as_secs_f64()).max(FIRST_SPEED / 100.0);
        }
    }
    Ok(sent)
}

/// Between two batches of a slow flood; a fast one only lets others go first.
fn pause(rate: Option<f64>) {
    if rate.is_some_and(|rate| rate < 20_000.0) {
        std::thread::sleep(Duration::from_micros(200));
    } else {
        std::thread::yield_now();
    }
}

/// Refuses to go on anywhere but in a namespace that bears this process's id in its name.
fn refuse_others(name: &str) -> Result<()> {
    let own = format!("xtcp-{}-", std::process::id());
    ensure!(name.starts_with(&own), "a flood runs only in a namespace that it made itself, and {name} is not one");
    let inode = |path: &str| std::fs::metadata(path).map(|m| m.ino()).with_context(|| format!("can't look at {path}"));
    let here = inode("/proc/thread-self/ns/net")?;
    if here != inode(&format!("/run/netns/{name}"))? || inode("/proc/1/ns/net").is_ok_and(|first| first == here) {
        bail!("a flood runs only in a namespace that it made itself: this thread is not in {name}");
    }
    Ok(())
}

/// xorshift64*.
struct Random(u64);

impl Random {
    fn next(&mut self) -> [u32; 3] {
        let (first, second) = (self.step(), self.step());
        [(first >> 32) as u32, (second >> 32) as u32, second as u32 ^ first as u32]
    }

    fn step(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_follows_the_rate_up_to_the_number() {
        let bounds = Bounds { rate: Some(1000.0), time: Duration::from_secs(9), count: 1500 };
        assert_eq!(bounds.due(Duration::from_millis(10)), 10);
        assert_eq!(bounds.due(Duration::from_secs(2)), 1500);
        assert_eq!(Bounds { rate: None, ..bounds }.due(Duration::ZERO), 1500);
    }

    #[test]
    fn bounds_beyond_what_is_allowed_are_refused() {
        let bounds = Bounds::of(Some(1.0), Duration::from_secs(1));
        assert!(bounds.check().is_ok());
        assert!(Bounds { time: MAX_TIME * 2, ..bounds }.check().is_err());
        assert!(Bounds { count: MAX_COUNT + 1, ..bounds }.check().is_err());
        assert!(Bounds { rate: Some(0.0), ..bounds }.check().is_err());
    }

    #[test]
    fn a_namespace_of_another_process_is_refused() {
        for name in ["xtcp-client", "xtcp-1-0-client", "default"] {
            let text = refuse_others(name).expect_err("not ours").to_string();
            assert!(text.contains("that it made itself") && text.contains(name), "{text}");
        }
        // Nor is a name enough: this thread has not moved.
        assert!(refuse_others(&format!("xtcp-{}-0-client", std::process::id())).is_err());
    }
}
