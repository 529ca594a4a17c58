//! TIME_WAIT: closed, and repeated segments may still arrive (RFC 9293 section 3.4.2 and 3.10.7.4, RFC 1337).

use tcp_proto::{CloseReason, Event, State, TcpConfig};

use crate::common::{Trace, ms};
use crate::{SECOND, defaults, is_forgotten_at};

/// We closed first, the application is gone; TIME_WAIT begins at 10 ms.
fn time_wait(config: TcpConfig) -> Trace {
    let mut t = Trace::established(config);
    t.close();
    t.stack("FA 1:1 ack 1");
    t.quiet_until(10);
    t.peer("FA 1:1 ack 2");
    t.stack(". 2:2 ack 2");
    assert_eq!(t.state(), State::TIME_WAIT);
    t
}

//= docs/rfc/rfc9293.md#MUST-13
//= docs/rfc/rfc9293.md#3.10.7.4-8-FIN-WAIT-2
//= docs/rfc/rfc9293.md#3.10.8-TIME-WAIT
#[test]
fn it_lasts_twice_30_seconds_and_every_other_timer_is_stopped() {
    let all = TcpConfig { keepalive: true, user_timeout: ms(100_000), ..defaults() };
    let mut t = time_wait(all);
    assert_eq!(t.timers(), [("time_wait", 60 * SECOND)]);
    is_forgotten_at(&mut t, 60 * SECOND + 10);
}

#[test]
fn with_the_textbooks_msl_it_lasts_one_two_or_four_minutes() {
    for (msl, minutes) in [(30, 1), (60, 2), (120, 4)] {
        let mut t = time_wait(TcpConfig { msl: ms(msl * SECOND), ..defaults() });
        assert_eq!(t.timers(), [("time_wait", minutes * 60 * SECOND)]);
        is_forgotten_at(&mut t, minutes * 60 * SECOND + 10);
    }
}

#[test]
fn a_repeated_fin_is_acknowledged_and_starts_it_over() {
    let mut t = time_wait(defaults());
    t.quiet_until(50 * SECOND);
    t.peer("FA 1:1 ack 2");
    t.stack(". 2:2 ack 2");
    assert_eq!(t.timers(), [("time_wait", 60 * SECOND)]);
    is_forgotten_at(&mut t, 110 * SECOND);
}

#[test]
fn other_old_segments_are_acknowledged_and_do_not_start_it_over() {
    let mut t = time_wait(defaults());
    t.quiet_until(50 * SECOND);
    t.peer("PA 0:1 ack 2");
    t.stack(". 2:2 ack 2");
    t.peer(". 2:2 ack 2");
    t.quiet();
    is_forgotten_at(&mut t, 60 * SECOND + 10);
}

#[test]
fn a_reset_is_ignored() {
    let mut t = time_wait(defaults());
    t.quiet_until(30 * SECOND);
    t.peer("R 2:2");
    t.peer("RA 2:2 ack 2");
    assert_eq!(t.timers(), [("time_wait", 30 * SECOND + 10)]);
    is_forgotten_at(&mut t, 60 * SECOND + 10);
}

#[test]
fn closing_at_once_ends_in_it_too() {
    let mut t = Trace::established(defaults());
    t.close();
    t.stack("FA 1:1 ack 1");
    t.peer("FA 1:1 ack 1");
    t.stack(". 2:2 ack 2");
    assert_eq!((t.state(), t.timers()), (State::CLOSING, vec![("retransmit", 200)]));
    t.quiet_until(100);
    t.peer(". 2:2 ack 2");
    assert_eq!((t.state(), t.timers()), (State::TIME_WAIT, vec![("time_wait", 60 * SECOND)]));
    is_forgotten_at(&mut t, 60 * SECOND + 100);
}

#[test]
fn an_application_that_still_holds_the_connection_is_told_when_it_is_over() {
    let mut t = Trace::established(defaults());
    t.shutdown();
    t.stack("FA 1:1 ack 1");
    t.peer("FA 1:1 ack 2");
    t.stack(". 2:2 ack 2");
    t.events.clear();
    t.quiet_until(60 * SECOND);
    assert_eq!(t.events.pop_front(), Some(Event::Closed(t.id.unwrap(), CloseReason::Finished)));
}

#[test]
fn who_closes_last_has_no_time_wait() {
    let mut t = Trace::established(defaults());
    t.peer("FA 1:1 ack 1");
    t.stack(". 1:1 ack 2");
    t.close();
    t.stack("FA 1:1 ack 2");
    t.peer(". 2:2 ack 2");
    t.assert_empty();
}
