//! What a stack says of its connections, and what is true of all of them whatever their peers say.

use std::time::Duration;

use tcp_proto::{ConnectionInfo, Instant, Stack, State};

/// Resolution of the timing wheel.
pub const TICK: Duration = Duration::from_millis(1);

/// Every connection that has not ended.
pub fn rows(stack: &Stack, now: Instant) -> Vec<ConnectionInfo> {
    let mut rows = Vec::new();
    assert_eq!(stack.snapshot(now, 0, usize::MAX / 2, &mut rows), None, "a snapshot of all is whole");
    rows
}

/// Whether something of a connection is still to be sent or acknowledged; `unsent`: the application wrote more.
pub fn is_waiting(row: &ConnectionInfo, unsent: bool) -> bool {
    use State::{CLOSING, FIN_WAIT_1, LAST_ACK, SYN_RCVD, SYN_SENT, TIME_WAIT};
    let closes = matches!(row.state, SYN_SENT | SYN_RCVD | FIN_WAIT_1 | CLOSING | LAST_ACK);
    row.state != TIME_WAIT && (closes || unsent || row.snd_una != row.snd_nxt)
}

fn is_armed(row: &ConnectionInfo, names: &[&str]) -> bool {
    row.timers.iter().any(|(name, _)| names.contains(name))
}

/// Judges a connection of a stack that has been told everything. `send_buffer` is its largest.
pub fn judge(row: &ConnectionInfo, stack: &Stack, now: Instant, unsent: bool, send_buffer: u32) {
    let outstanding = row.snd_nxt.wrapping_sub(row.snd_una);
    assert!(outstanding <= send_buffer + 2, "SND.UNA is after SND.NXT: {row:?}");
    assert!(row.in_flight <= outstanding, "more in flight than outstanding: {row:?}");
    assert!(row.is_record || (row.cwnd > 0 && row.mss > 0), "nothing may be sent: {row:?}");
    // Whoever waits for something has a timer for it, or something to send at once.
    let served = is_armed(row, &["establish", "retransmit", "persist"]) || stack.wants_transmit();
    assert!(!is_waiting(row, unsent) || served, "a timer is lost: {row:?}");
    // What the peer's window holds is repeated. What fills it may be a probe, and so may what the peer has reported.
    let probed = outstanding >= row.snd_wnd || row.in_flight == 0;
    let repeats = is_armed(row, &["establish", "retransmit"]) || stack.wants_transmit();
    assert!(outstanding == 0 || probed || repeats, "outstanding, and not timed: {row:?}");
    let deadline = row.timers.iter().map(|(_, left)| now + *left).min();
    let wakes = stack.poll_timeout();
    let in_time = deadline.is_none_or(|at| wakes.is_some_and(|wakes| wakes <= at + TICK));
    assert!(in_time, "{deadline:?} is due and {wakes:?} would be served: {row:?}");
    judge_timers(row);
}

/// Which timers may run in which state.
fn judge_timers(row: &ConnectionInfo) {
    let armed = |names: &[&str]| is_armed(row, names);
    match row.state {
        State::TIME_WAIT => {
            let only = row.timers.len() == 1 && armed(&["time_wait"]);
            assert!(only, "the timers of TIME_WAIT: {:?}", row.timers);
        }
        State::FIN_WAIT_2 => assert!(!armed(&["establish", "retransmit", "persist", "time_wait"]), "{row:?}"),
        State::SYN_SENT | State::SYN_RCVD => assert!(!armed(&["retransmit", "persist", "time_wait"]), "{row:?}"),
        _ => assert!(!armed(&["establish", "time_wait"]), "{row:?}"),
    }
    assert!(!(armed(&["retransmit"]) && armed(&["persist"])), "retransmits and probes: {row:?}");
}

/// The counters of states say what the rows say.
pub fn judge_counts(stack: &Stack, rows: &[ConnectionInfo]) {
    for state in State::ALL.iter().filter(|state| **state != State::LISTEN) {
        let there = rows.iter().filter(|row| row.state == *state).count();
        assert_eq!(stack.count(*state), there, "the count of {state:?} in {rows:?}");
    }
}
