//! Tells the operator when a listener begins to answer SYNs with cookies because its SYN queue is full, and when it has
//! ceased. That the program begins to, because SYNs come too fast, the program logs itself; that it has ceased is told here,
//! too. Leaves out listeners that always or never send cookies.
//!
//! Looked at once a second with the figures of `xtcp stats`. A listener whose queue was full has ceased when it has sent none
//! for as long as the program goes on after a flood ([`HOLD`]): one that is full again and again does not fill the log.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tcp_common::gauge::HOLD_NS;

use crate::stats::{ListenerStats, Stats};

/// How long no cookie was sent before a line says so.
const HOLD: Duration = Duration::from_nanos(HOLD_NS);

/// What was logged.
#[derive(Debug, Default)]
pub(super) struct CookieLog {
    listeners: HashMap<SocketAddr, Told>,
}

/// What was told of one listener.
#[derive(Debug, Default)]
struct Told {
    /// Cookies that its workers had sent when it was last looked at.
    sent: u64,
    /// When they last had sent more.
    last: Option<Instant>,
    /// Whether they or the program did, or had of late.
    is_on: bool,
    /// Whether it was told since that the queue is full.
    is_full: bool,
}

impl CookieLog {
    /// The lines that are due at `now`.
    pub(super) fn look(&mut self, stats: &Stats, now: Instant) -> Vec<String> {
        let told = |listener: &ListenerStats| self.listeners.entry(listener.address).or_default().look(listener, now);
        stats.listeners.iter().filter_map(told).collect()
    }
}

impl Told {
    fn look(&mut self, listener: &ListenerStats, now: Instant) -> Option<String> {
        let address = listener.address;
        let overflows = listener.cookie_overflows > std::mem::replace(&mut self.sent, listener.cookie_overflows);
        if overflows {
            self.last = Some(now);
        }
        let is_on = listener.program_sends_cookies || self.last.is_some_and(|last| now.duration_since(last) < HOLD);
        let was_on = std::mem::replace(&mut self.is_on, is_on);
        if overflows && !std::mem::replace(&mut self.is_full, true) {
            return Some(format!("SYN cookies on for {address}: its SYN queue is full"));
        }
        (was_on && !is_on).then(|| {
            self.is_full = false;
            format!("SYN cookies off for {address}")
        })
    }
}

#[cfg(test)]
mod tests {
    use tcp_common::counters::Counters;

    use super::*;

    /// Lines of a log whose listener is looked at every second: with cookies of its workers so far, and whether the
    /// program sends some.
    fn lines(looks: impl IntoIterator<Item = (u64, bool)>) -> Vec<(u64, String)> {
        let (mut log, start) = (CookieLog::default(), Instant::now());
        let mut stats = Stats::gather("veth0", &Counters::default(), &[]);
        stats.listeners = vec![ListenerStats::new("10.0.0.1:7".parse().unwrap(), "echo".to_owned())];
        let mut lines = Vec::new();
        for (second, (overflows, program)) in (0..).zip(looks) {
            let listener = &mut stats.listeners[0];
            (listener.cookie_overflows, listener.program_sends_cookies) = (overflows, program);
            let told = log.look(&stats, start + Duration::from_secs(second));
            lines.extend(told.into_iter().map(|line| (second, line)));
        }
        lines
    }

    const ON: &str = "SYN cookies on for 10.0.0.1:7: its SYN queue is full";
    const OFF: &str = "SYN cookies off for 10.0.0.1:7";

    fn told(second: u64, line: &str) -> (u64, String) {
        (second, line.to_owned())
    }

    #[test]
    fn a_queue_that_is_full_again_and_again_is_told_once_and_its_end_after_five_quiet_seconds() {
        let sent = [0, 0, 3, 3, 3, 3, 9, 9, 9, 10, 10, 10, 10, 10, 10, 10, 10, 11];
        let looks = sent.into_iter().map(|sent| (sent, false));
        assert_eq!(lines(looks), [told(2, ON), told(14, OFF), told(17, ON)]);
    }

    #[test]
    fn the_end_of_the_programs_cookies_is_told_and_not_before_that_of_the_queues() {
        let program = [false, true, true, true, false, false, false, false, false, false, false];
        assert_eq!(lines(program.map(|on| (0, on))), [told(4, OFF)]);
        let both = program.map(|on| (u64::from(on), on));
        assert_eq!(lines(both), [told(1, ON), told(6, OFF)]);
    }

    #[test]
    fn whoever_sends_no_cookies_is_not_told_of() {
        assert_eq!(lines([(0, false); 20]), []);
    }
}
