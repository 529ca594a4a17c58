//! The timing wheel for whoever counts what an operation costs (the bench `timer`); not part of the library's contract.

use crate::time::{Duration, Instant};
use crate::wheel;

/// Longest time that entries are armed for, ms: what retransmission timers and idle times are, 2 h.
const LONGEST: u32 = 7_200_000;

/// A timing wheel on which entries are armed.
pub struct Wheel {
    wheel: wheel::Wheel,
    armed: u32,
}

impl Wheel {
    /// A wheel with so many entries, each armed for another time.
    #[must_use]
    pub fn armed(armed: u32) -> Self {
        let mut wheel = wheel::Wheel::new(Instant::default());
        (0..armed).for_each(|entry| wheel.arm(entry, deadline(entry)));
        Wheel { wheel, armed }
    }

    /// Arms an entry for another time; every other time it is cancelled first, as if its connection had ended.
    pub fn operate(&mut self, operation: u32) {
        let entry = scatter(operation) % self.armed.max(1);
        if operation.is_multiple_of(2) {
            self.wheel.cancel(entry);
        }
        self.wheel.arm(entry, deadline(operation));
    }
}

fn deadline(of: u32) -> Instant {
    Instant::default() + Duration::from_millis((1 + scatter(of) % LONGEST).into())
}

/// Numbers in an order that caches do not foresee.
fn scatter(number: u32) -> u32 {
    number.wrapping_mul(2_654_435_761).rotate_left(15).wrapping_mul(2_246_822_519)
}
