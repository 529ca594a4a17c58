//! One flood against one server, measured: what was sent, received and answered, and what it cost.

use std::fmt;
use std::time::Duration;

use ::tests::net::on_a_thread;
use anyhow::Result;
use bench_ebpf::Replies;

use crate::cpu::{Meter, Usage};
use crate::frame::{self, Kind};
use crate::generator::{Bounds, Feed, Generator};
use crate::lab::BenchLab;

/// How long a flood runs before it is measured: until caches are warm and cookies are on.
const WARM_UP: Duration = Duration::from_millis(400);
/// How long the last frames and answers are waited for.
const SETTLE: Duration = Duration::from_millis(50);

/// What a flood came to.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// Frames that the generator sent.
    pub sent: u64,
    /// Frames that the server's interface took; the wire drops the others.
    pub received: u64,
    /// What came back.
    pub replies: Replies,
    /// CPUs.
    pub usage: Usage,
    /// How long the server's threads ran, whatever else was on its core.
    pub threads: Duration,
}

impl Outcome {
    /// SYN-ACKs per second.
    #[must_use]
    pub fn answered_per_second(&self) -> f64 {
        self.replies.syn_ack as f64 / self.usage.wall.as_secs_f64()
    }

    /// Busy time of the server's core for each SYN answered, us.
    #[must_use]
    pub fn cost_per_answer(&self) -> f64 {
        self.usage.server.as_secs_f64() * 1e6 / self.replies.syn_ack.max(1) as f64
    }

    /// Busy time of the server's core for each frame received, us.
    #[must_use]
    pub fn cost_per_frame(&self) -> f64 {
        self.usage.server.as_secs_f64() * 1e6 / self.received.max(1) as f64
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Outcome { sent, received, replies, usage, threads } = self;
        let seconds = usage.wall.as_secs_f64();
        let per_second = |count: u64| count as f64 / seconds / 1000.0;
        write!(
            f,
            "{:.2} s: sent {:.1} k/s, received {:.1} k/s, answered: SYN-ACK {:.1} k/s, RST {:.1} k/s, other {:.1} k/s; \
             busy: server's core {:.0} %, client's core {:.0} %, others' share {:.1} %; {:.3} us per frame received, \
             {:.3} us by the server's threads alone",
            seconds,
            per_second(*sent),
            per_second(*received),
            per_second(replies.syn_ack),
            per_second(replies.rst),
            per_second(replies.other),
            usage.server.as_secs_f64() / seconds * 100.0,
            usage.client.as_secs_f64() / seconds * 100.0,
            usage.foreign * 100.0,
            self.cost_per_frame(),
            threads.as_secs_f64() * 1e6 / (*received).max(1) as f64,
        )
    }
}

/// Floods a lab's listener and measures, after a short while at the same rate.
///
/// # Errors
/// When the generator or the meter can't be had.
pub fn measure(lab: &BenchLab, kind: Kind, feed: Feed, bounds: &Bounds) -> Result<Outcome> {
    let template = frame::template(kind, &lab.ends);
    // The generator's thread moves into a namespace for good.
    on_a_thread(|| {
        let mut generator = Generator::new(&lab.wire.client, feed, &template)?;
        generator.flood(&Bounds { time: WARM_UP.min(bounds.time), ..*bounds }, || false)?;
        std::thread::sleep(SETTLE);
        let (before, replies) = (lab.traffic()?, lab.client.replies()?);
        let ran = lab.running_time()?;
        let meter = Meter::start(&lab.processes())?;
        let sent = generator.flood(bounds, || false)?;
        let usage = meter.stop()?;
        let threads = lab.running_time()?.saturating_sub(ran);
        std::thread::sleep(SETTLE);
        let (after, now) = (lab.traffic()?, lab.client.replies()?);
        let replies = Replies {
            syn_ack: now.syn_ack - replies.syn_ack,
            rst: now.rst - replies.rst,
            other: now.other - replies.other,
        };
        Ok(Outcome { sent, received: after.received - before.received, replies, usage, threads })
    })
}
