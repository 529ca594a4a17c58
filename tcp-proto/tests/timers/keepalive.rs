//! Keepalive: the connection is idle (RFC 9293 section 3.8.4).

use tcp_proto::{CloseReason, Event, State, TcpConfig};

use crate::common::{Trace, ms};
use crate::{HOUR, PEER_SYN, SECOND, defaults, times_out_with_a_reset_at};

/// The textbook's 2 hours, 75 seconds and 9 probes are the defaults; only `keepalive` itself is off.
fn kept_alive() -> TcpConfig {
    TcpConfig { keepalive: true, ..defaults() }
}

fn quick() -> TcpConfig {
    let second = ms(SECOND);
    TcpConfig { keepalive: true, keepalive_time: second, keepalive_interval: second, keepalive_probes: 3, ..defaults() }
}

//= docs/rfc/rfc9293.md#MUST-25
#[test]
fn an_idle_connection_is_left_alone_unless_keepalive_is_switched_on() {
    let mut t = Trace::established(defaults());
    assert_eq!(t.timers(), []);
    t.quiet_until(30 * 24 * HOUR);
    assert_eq!(t.state(), State::ESTABLISHED);
}

//= docs/rfc/rfc9293.md#MUST-28
#[test]
fn nine_unanswered_probes_75_seconds_apart_after_two_hours_end_the_connection() {
    let mut t = Trace::established(kept_alive());
    assert_eq!(t.timers(), [("keepalive", 2 * HOUR)]);
    for probe in 0..9 {
        t.stack_at(2 * HOUR + probe * 75 * SECOND, ". 0:0 ack 1");
        assert_eq!(t.timers(), [("keepalive", 75 * SECOND)]);
    }
    times_out_with_a_reset_at(&mut t, 2 * HOUR + 9 * 75 * SECOND, "RA 1:1 ack 1");
}

//= docs/rfc/rfc9293.md#MUST-27
//= docs/rfc/rfc9293.md#MAY-5
#[test]
fn time_interval_and_probes_are_what_the_configuration_says() {
    let mut t = Trace::established(quick());
    for probe in 1..=3 {
        t.stack_at(probe * SECOND, ". 0:0 ack 1");
    }
    times_out_with_a_reset_at(&mut t, 4 * SECOND, "RA 1:1 ack 1");
}

#[test]
fn an_active_open_is_kept_alive_too() {
    let mut t = Trace::connect(kept_alive());
    t.stack("S 0:0 <mss 1460>");
    assert_eq!(t.timers(), [("establish", SECOND)], "not before it is established");
    t.quiet_until(100);
    t.peer("SA 0:0 ack 1 <mss 1460>");
    t.stack(". 1:1 ack 1");
    assert_eq!(t.timers(), [("keepalive", 2 * HOUR)]);
}

//= docs/rfc/rfc9293.md#SHLD-12
#[test]
fn a_probe_repeats_the_last_number_without_data() {
    let mut t = Trace::established(quick());
    t.write(100);
    t.stack("PA 1:101 ack 1");
    t.peer("PA 1:51 ack 101");
    t.stack_at(40, ". 101:101 ack 51");
    t.stack_at(SECOND, ". 100:100 ack 51");
}

//= docs/rfc/rfc9293.md#MUST-29
#[test]
fn a_lost_probe_does_not_end_the_connection_and_an_answer_starts_the_count_over() {
    let mut t = Trace::established(quick());
    for round in 0..3 {
        let idle_since = round * 3_500;
        t.stack_at(idle_since + 1_000, ". 0:0 ack 1");
        t.stack_at(idle_since + 2_000, ". 0:0 ack 1");
        t.stack_at(idle_since + 3_000, ". 0:0 ack 1");
        t.quiet_until(idle_since + 3_500);
        t.peer(". 1:1 ack 1");
        assert_eq!(t.timers(), [("keepalive", SECOND)]);
    }
    assert_eq!(t.state(), State::ESTABLISHED);
}

//= docs/rfc/rfc9293.md#MUST-26
#[test]
fn whatever_arrives_starts_the_idle_time_over() {
    let mut t = Trace::established(quick());
    t.quiet_until(900);
    t.peer("PA 1:101 ack 1");
    t.stack_at(940, ". 1:1 ack 101");
    t.quiet_until(1_800);
    t.peer(". 101:101 ack 1");
    t.stack_at(2_800, ". 0:0 ack 101");
}

#[test]
fn an_unacceptable_segment_does_not_start_the_idle_time_over() {
    let mut t = Trace::established(quick());
    t.quiet_until(900);
    t.peer(". 70000:70000 ack 1");
    t.stack(". 1:1 ack 1");
    t.stack_at(1_000, ". 0:0 ack 1");
}

//= docs/rfc/rfc9293.md#MUST-26
#[test]
fn while_sent_data_are_unacknowledged_there_are_no_probes() {
    let mut t = Trace::established(TcpConfig { keepalive_interval: ms(100), ..quick() });
    t.quiet_until(500);
    t.write(100);
    t.stack("PA 1:101 ack 1");
    // Only retransmissions, until the data are acknowledged and the connection idles again.
    t.stack_at(700, "PA 1:101 ack 1");
    t.stack_at(1_100, "PA 1:101 ack 1");
    assert_eq!(t.timers(), [("retransmit", 800), ("keepalive", 900)]);
    t.stack_at(1_900, "PA 1:101 ack 1");
    t.stack_at(3_500, "PA 1:101 ack 1");
    t.peer(". 1:1 ack 101");
    t.stack_at(4_500, ". 100:100 ack 1");
}

#[test]
fn while_a_closed_window_is_probed_there_are_no_other_probes() {
    let mut t = Trace::established_with(TcpConfig { keepalive_time: ms(150), ..quick() }, PEER_SYN, 0);
    t.write(100);
    for at in [200, 600, 1_400, 3_000, 6_200] {
        t.stack_at(at, ". 1:2 ack 1");
    }
}

#[test]
fn a_peer_that_lost_its_state_answers_a_probe_with_a_reset() {
    let mut t = Trace::established(kept_alive());
    t.stack_at(2 * HOUR, ". 0:0 ack 1");
    t.peer("R 1:1");
    assert_eq!(t.events.back(), Some(&Event::Closed(t.id.unwrap(), CloseReason::Reset)));
    t.assert_empty();
}

#[test]
fn a_half_closed_connection_is_kept_alive_from_either_end() {
    let mut t = Trace::established(quick());
    t.shutdown();
    t.stack("FA 1:1 ack 1");
    t.peer(". 1:1 ack 2");
    assert_eq!(t.state(), State::FIN_WAIT_2);
    t.stack_at(SECOND, ". 1:1 ack 1");

    let mut t = Trace::established(quick());
    t.peer("FA 1:1 ack 1");
    t.stack(". 1:1 ack 2");
    assert_eq!(t.state(), State::CLOSE_WAIT);
    t.stack_at(SECOND, ". 0:0 ack 2");
}

//= docs/rfc/rfc9293.md#MUST-24
#[test]
fn an_application_can_switch_it_on_and_off_for_one_connection() {
    let mut t = Trace::established(TcpConfig { keepalive: false, ..quick() });
    t.quiet_until(5 * SECOND);
    t.connection().set_keepalive(true);
    assert_eq!(t.timers(), [("keepalive", SECOND)], "the idle time begins now");
    t.stack_at(6 * SECOND, ". 0:0 ack 1");
    t.stack_at(7 * SECOND, ". 0:0 ack 1");
    t.connection().set_keepalive(false);
    assert_eq!(t.timers(), []);
    t.quiet_until(HOUR);
    t.connection().set_keepalive(true);
    for probe in 1..=3 {
        t.stack_at(HOUR + probe * SECOND, ". 0:0 ack 1");
    }
    times_out_with_a_reset_at(&mut t, HOUR + 4 * SECOND, "RA 1:1 ack 1");
}

#[test]
fn a_probe_does_not_count_as_the_ack_that_is_owed() {
    let mut t = Trace::established(TcpConfig { keepalive_time: ms(30), ..quick() });
    t.peer("PA 1:51 ack 1");
    t.stack_at(30, ". 0:0 ack 51");
    t.stack_at(40, ". 1:1 ack 51");
}
