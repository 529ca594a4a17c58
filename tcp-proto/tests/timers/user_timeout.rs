//! User timeout: what was sent is unacknowledged for too long for the application (RFC 9293 section 3.8.3,
//! RFC 5482). The same timer limits how long `linger` tries to deliver.

use tcp_proto::{CloseReason, Event, State, TcpConfig};

use crate::common::{Trace, ms};
use crate::{HOUR, PEER_SYN, SECOND, defaults, is_forgotten_at, times_out_with_a_reset_at};

fn impatient(seconds: u64) -> TcpConfig {
    TcpConfig { user_timeout: ms(seconds * SECOND), ..defaults() }
}

fn lingers(seconds: u64) -> TcpConfig {
    TcpConfig { linger: Some(ms(seconds * SECOND)), ..defaults() }
}

#[test]
fn without_a_user_timeout_only_the_retries_limit_a_connection() {
    let mut t = Trace::established(defaults());
    t.write(100);
    t.stack("PA 1:101 ack 1");
    assert_eq!(t.timers(), [("retransmit", 200)]);
}

//= docs/rfc/rfc9293.md#3.10.8-user
//= docs/rfc/rfc5482.md#3.1-local
#[test]
fn with_the_textbooks_five_minutes_it_ends_the_connection_before_the_retries_do() {
    let mut t = Trace::established(impatient(300));
    t.write(100);
    t.stack("PA 1:101 ack 1");
    assert_eq!(t.timers(), [("retransmit", 200), ("user_timeout", 300 * SECOND)]);
    for at in [200, 600, 1_400, 3_000, 6_200, 12_600, 25_400, 51_000, 102_200, 204_600] {
        t.stack_at(at, "PA 1:101 ack 1");
    }
    times_out_with_a_reset_at(&mut t, 300 * SECOND, "RA 101:101 ack 1");
}

//= docs/rfc/rfc6298.md#5.2-stop
#[test]
fn it_is_armed_only_while_something_is_unacknowledged_and_progress_starts_it_over() {
    let mut t = Trace::established(TcpConfig { nodelay: true, ..impatient(1) });
    assert_eq!(t.timers(), []);
    t.write(100);
    t.stack("PA 1:101 ack 1");
    t.quiet_until(100);
    t.write(100);
    t.stack("PA 101:201 ack 1");
    t.peer(". 1:1 ack 101");
    assert_eq!(t.timers()[1], ("user_timeout", SECOND));
    t.peer(". 1:1 ack 201");
    assert_eq!(t.timers(), []);
    t.quiet_until(HOUR);
    assert_eq!(t.state(), State::ESTABLISHED);
}

#[test]
fn it_limits_how_long_a_closed_window_is_probed_even_if_the_peer_answers() {
    let mut t = Trace::established_with(impatient(30), PEER_SYN, 0);
    t.write(100);
    for at in [200, 600, 1_400, 3_000, 6_200, 12_600, 25_400] {
        t.stack_at(at, ". 1:2 ack 1");
        t.peer(". 1:1 ack 1 win 0");
    }
    // From the first probe on.
    times_out_with_a_reset_at(&mut t, 30_200, "RA 1:1 ack 1");
}

#[test]
fn without_linger_close_delivers_in_the_background() {
    let mut t = Trace::established(defaults());
    t.write(100);
    t.stack("PA 1:101 ack 1");
    t.close();
    t.stack("FA 101:101 ack 1");
    assert_eq!(t.timers(), [("retransmit", 200)]);
    t.stack_at(200, "FPA 1:101 ack 1");
    t.peer(". 1:1 ack 102");
    assert_eq!(t.state(), State::FIN_WAIT_2);
}

#[test]
fn linger_zero_resets_at_once() {
    let mut t = Trace::established(lingers(0));
    t.write(100);
    t.stack("PA 1:101 ack 1");
    t.close();
    t.stack("RA 101:101 ack 1");
    t.assert_empty();
}

#[test]
fn linger_waits_as_long_as_it_says_and_then_resets() {
    let mut t = Trace::established(lingers(5));
    t.write(100);
    t.stack("PA 1:101 ack 1");
    t.close();
    t.stack("FA 101:101 ack 1");
    assert_eq!(t.timers(), [("retransmit", 200), ("user_timeout", 5 * SECOND)]);
    for at in [200, 600, 1_400, 3_000] {
        t.stack_at(at, "FPA 1:101 ack 1");
    }
    // Progress does not prolong it.
    t.peer(". 1:1 ack 51");
    assert_eq!(t.timers()[1], ("user_timeout", 2 * SECOND));
    t.stack_at(5 * SECOND, "RA 102:102 ack 1");
    t.assert_empty();
}

#[test]
fn linger_ends_when_everything_is_delivered() {
    let mut t = Trace::established(lingers(5));
    t.close();
    t.stack("FA 1:1 ack 1");
    t.quiet_until(SECOND / 10);
    t.peer(". 1:1 ack 2");
    assert_eq!(t.timers(), [("fin_wait_2", 60 * SECOND)]);
    is_forgotten_at(&mut t, 60_100);

    let mut t = Trace::established(lingers(5));
    t.peer("FA 1:1 ack 1");
    t.stack(". 1:1 ack 2");
    t.close();
    t.stack("FA 1:1 ack 2");
    t.peer(". 2:2 ack 2");
    t.assert_empty();
}

#[test]
fn an_application_that_waits_for_the_end_is_told_of_the_timeout() {
    let mut t = Trace::established(impatient(1));
    t.shutdown();
    t.stack("FA 1:1 ack 1");
    t.stack_at(200, "FA 1:1 ack 1");
    t.stack_at(600, "FA 1:1 ack 1");
    t.stack_at(SECOND, "RA 2:2 ack 1");
    assert_eq!(t.events.back(), Some(&Event::Closed(t.id.unwrap(), CloseReason::TimedOut)));
}

//= docs/rfc/rfc9293.md#MUST-21
//= docs/rfc/rfc5482.md#3.1-local
#[test]
fn an_application_can_set_it_for_one_connection_also_while_data_are_unacknowledged() {
    let mut t = Trace::established(defaults());
    t.connection().set_user_timeout(ms(10 * SECOND));
    assert_eq!(t.timers(), [], "nothing is unacknowledged");
    t.write(100);
    t.stack("PA 1:101 ack 1");
    assert_eq!(t.timers(), [("retransmit", 200), ("user_timeout", 10 * SECOND)]);
    t.quiet_until(100);
    t.connection().set_user_timeout(ms(0));
    assert_eq!(t.timers(), [("retransmit", 100)]);
    t.connection().set_user_timeout(ms(SECOND));
    t.stack_at(200, "PA 1:101 ack 1");
    t.stack_at(600, "PA 1:101 ack 1");
    times_out_with_a_reset_at(&mut t, 1_100, "RA 101:101 ack 1");
}
