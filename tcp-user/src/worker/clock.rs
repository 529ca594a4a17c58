//! The clock of every worker: CLOCK_MONOTONIC, which the XDP program reads too.

use rustix::time::{ClockId, clock_gettime};
use tcp_proto::Instant;

/// Now.
#[must_use]
pub fn now() -> Instant {
    let time = clock_gettime(ClockId::Monotonic);
    // Neither part of a monotonic clock is ever negative.
    Instant::from_nanos(time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs())
}
