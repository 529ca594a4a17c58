//! FIN_WAIT_2: the application closed both ways, the peer acknowledged our FIN, and its own is missing.

use tcp_proto::{State, TcpConfig};

use crate::common::{Trace, ms};
use crate::{HOUR, SECOND, defaults, is_forgotten_at};

/// The application closed at 0 ms; our FIN is acknowledged at 10 ms.
fn closed(config: TcpConfig) -> Trace {
    let mut t = Trace::established(config);
    t.close();
    t.stack("FA 1:1 ack 1");
    t.quiet_until(10);
    t.peer(". 1:1 ack 2");
    assert_eq!(t.state(), State::FIN_WAIT_2);
    t
}

#[test]
fn a_peer_that_never_closes_is_forgotten_after_60_seconds() {
    let mut t = closed(defaults());
    assert_eq!(t.timers(), [("fin_wait_2", 60 * SECOND)]);
    is_forgotten_at(&mut t, 60 * SECOND + 10);
}

#[test]
fn with_the_textbooks_timeout_after_ten_minutes_and_75_seconds() {
    let mut t = closed(TcpConfig { fin_wait2_timeout: ms(675 * SECOND), ..defaults() });
    assert_eq!(t.timers(), [("fin_wait_2", 675 * SECOND)]);
    is_forgotten_at(&mut t, 675 * SECOND + 10);
}

#[test]
fn a_half_closed_connection_waits_for_ever_and_the_timer_begins_when_the_application_closes_the_rest() {
    let mut t = Trace::established(defaults());
    t.shutdown();
    t.stack("FA 1:1 ack 1");
    t.peer(". 1:1 ack 2");
    assert_eq!((t.state(), t.timers()), (State::FIN_WAIT_2, vec![]));
    t.quiet_until(24 * HOUR);
    t.peer("PA 1:101 ack 2");
    t.stack_at(24 * HOUR + 40, ". 2:2 ack 101");
    assert_eq!(t.read(1_000), 100);
    t.close();
    assert_eq!(t.timers(), [("fin_wait_2", 60 * SECOND)]);
    is_forgotten_at(&mut t, 24 * HOUR + 40 + 60 * SECOND);
}

#[test]
fn the_peers_fin_stops_the_timer() {
    let mut t = closed(defaults());
    t.quiet_until(59 * SECOND);
    t.peer("FA 1:1 ack 2");
    t.stack(". 2:2 ack 2");
    assert_eq!((t.state(), t.timers()), (State::TIME_WAIT, vec![("time_wait", 60 * SECOND)]));
}

#[test]
fn an_ack_of_nothing_new_does_not_start_the_timer_over() {
    let mut t = closed(defaults());
    t.quiet_until(30 * SECOND);
    t.peer(". 1:1 ack 2");
    assert_eq!(t.timers(), [("fin_wait_2", 30 * SECOND + 10)]);
}

#[test]
fn a_fin_that_comes_too_late_is_answered_by_a_reset() {
    let mut t = closed(defaults());
    is_forgotten_at(&mut t, 60 * SECOND + 10);
    t.peer("FA 1:1 ack 2");
    t.stack("R 2:2");
}
