//! The one table of a connection's deadlines. Arming overwrites, and nothing else keeps a deadline: what
//! the worker waits for is the earliest entry here. `docs/timers.md` says what arms, stops and fires each.

use core::time::Duration;

use crate::time::{Compact, Instant};

/// The timers of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timer {
    /// Connection establishment: our SYN or SYN-ACK is unanswered. RFC 6298, RFC 9293 section 3.8.3.
    Establish,
    /// Data or FIN is unacknowledged. RFC 6298.
    Retransmit,
    /// An ACK is held back for a segment to carry it. RFC 9293 section 3.8.6.3.
    DelayedAck,
    /// The peer's window is too small for what waits. RFC 9293 section 3.8.6.1.
    Persist,
    /// The connection is idle. RFC 9293 section 3.8.4.
    Keepalive,
    /// Closed both ways by the application, and the peer's FIN is missing.
    FinWait2,
    /// Closed, and repeated segments may still arrive. RFC 9293 section 3.4.2.
    TimeWait,
    /// Sent data is unacknowledged for too long for the application. RFC 9293 section 3.8.3, RFC 5482.
    UserTimeout,
}

impl Timer {
    /// Every timer, in declaration order: the order in which timers due at one instant are served.
    pub(crate) const ALL: [Timer; 8] = [
        Timer::Establish,
        Timer::Retransmit,
        Timer::DelayedAck,
        Timer::Persist,
        Timer::Keepalive,
        Timer::FinWait2,
        Timer::TimeWait,
        Timer::UserTimeout,
    ];

    /// The contract's name.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Timer::Establish => "establish",
            Timer::Retransmit => "retransmit",
            Timer::DelayedAck => "delayed_ack",
            Timer::Persist => "persist",
            Timer::Keepalive => "keepalive",
            Timer::FinWait2 => "fin_wait_2",
            Timer::TimeWait => "time_wait",
            Timer::UserTimeout => "user_timeout",
        }
    }
}

/// Deadlines of a connection. They are rounded up to whole milliseconds, like those of the wheel, and no further away
/// than 24 days: what is armed for later expires then.
#[derive(Clone, Debug, Default)]
pub(crate) struct Timers {
    deadlines: [Compact; Timer::ALL.len()],
    /// A bit for each timer.
    armed: u8,
}

impl Timers {
    /// Arms `timer` to expire `after` from `now`, whether or not it was armed.
    pub(crate) fn arm(&mut self, timer: Timer, now: Instant, after: Duration) {
        self.deadlines[timer as usize] = Compact::at_or_after(now + after.min(Compact::REACH));
        self.armed |= 1 << timer as u8;
    }

    /// Arms `timer` unless it is armed already.
    pub(crate) fn arm_if_idle(&mut self, timer: Timer, now: Instant, after: Duration) {
        if !self.is_armed(timer) {
            self.arm(timer, now, after);
        }
    }

    /// Stops `timer`.
    pub(crate) fn stop(&mut self, timer: Timer) {
        self.armed &= !(1 << timer as u8);
    }

    /// Stops every timer.
    pub(crate) fn stop_all(&mut self) {
        self.armed = 0;
    }

    pub(crate) fn is_armed(&self, timer: Timer) -> bool {
        self.armed & 1 << timer as u8 != 0
    }

    /// Time that `timer` has left at `now`; `None`: it is not armed.
    pub(crate) fn left(&self, timer: Timer, now: Instant) -> Option<Duration> {
        self.deadline(timer, now).map(|deadline| deadline.since(now))
    }

    /// The earliest deadline, read at `now`.
    pub(crate) fn next(&self, now: Instant) -> Option<Instant> {
        let far = |timer: Timer| if self.is_armed(timer) { self.deadlines[timer as usize].from(now) } else { i32::MAX };
        let nearest = Timer::ALL.into_iter().min_by_key(|&timer| far(timer))?;
        self.deadline(nearest, now)
    }

    /// Takes the first timer that is due at `now`: it is stopped.
    pub(crate) fn take_due(&mut self, now: Instant) -> Option<Timer> {
        let is_due = |timer: &Timer| self.deadline(*timer, now).is_some_and(|deadline| deadline <= now);
        let due = Timer::ALL.into_iter().find(is_due)?;
        self.stop(due);
        Some(due)
    }

    /// Armed timers and the time each has left at `now`.
    pub(crate) fn armed(&self, now: Instant) -> impl Iterator<Item = (&'static str, Duration)> + '_ {
        Timer::ALL.into_iter().filter_map(move |timer| Some((timer.name(), self.left(timer, now)?)))
    }

    fn deadline(&self, timer: Timer, now: Instant) -> Option<Instant> {
        self.is_armed(timer).then(|| self.deadlines[timer as usize].near(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_deadline_counts_and_due_timers_are_served_once() {
        let mut timers = Timers::default();
        assert_eq!(timers.next(Instant::default()), None);
        let now = Instant::from_millis(10);
        timers.arm(Timer::Keepalive, now, Duration::from_millis(50));
        timers.arm(Timer::DelayedAck, now, Duration::from_millis(40));
        timers.arm_if_idle(Timer::DelayedAck, now, Duration::from_millis(1));
        assert_eq!(timers.next(now), Some(Instant::from_millis(50)));
        assert_eq!(timers.take_due(Instant::from_millis(49)), None);
        assert_eq!(timers.take_due(Instant::from_millis(70)), Some(Timer::DelayedAck));
        assert_eq!(timers.take_due(Instant::from_millis(70)), Some(Timer::Keepalive));
        assert_eq!(timers.next(now), None);
    }

    #[test]
    fn deadlines_are_right_when_their_milliseconds_start_over_and_no_more_than_24_days_away() {
        let now = Instant::from_nanos((1 << 32) * 1_000_000 - 999_999);
        let mut timers = Timers::default();
        timers.arm(Timer::Keepalive, now, Duration::from_millis(5));
        assert_eq!(timers.next(now), Some(Instant::from_millis((1 << 32) + 5)));
        assert_eq!(timers.take_due(now), None);
        assert_eq!(timers.take_due(now + Duration::from_millis(6)), Some(Timer::Keepalive));
        timers.arm(Timer::Keepalive, now, Duration::MAX);
        assert_eq!(timers.next(now), Some(Instant::from_millis(1 << 32) + Compact::REACH));
    }
}
