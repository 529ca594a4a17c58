//! Retransmission: data or a FIN is unacknowledged (RFC 6298 section 5, RFC 9293 section 3.8.3).

use tcp_proto::{CloseReason, Event, State, TcpConfig};

use crate::common::{Trace, ms};
use crate::{SECOND, defaults, is_forgotten_at, times_out_silently_at};

/// A round trip of no time: RTO = min_rto, the smallest there is.
fn established(config: TcpConfig) -> Trace {
    let mut t = Trace::established(config);
    t.events.clear();
    t
}

//= docs/rfc/rfc9293.md#MUST-19
//= docs/rfc/rfc9293.md#MUST-20
//= docs/rfc/rfc9293.md#SHLD-11
//= docs/rfc/rfc9293.md#3.10.8-retransmission
//= docs/rfc/rfc6298.md#5.4-resend
//= docs/rfc/rfc6298.md#5.5-back-off
//= docs/rfc/rfc6298.md#5.6-rearm
#[test]
fn unacknowledged_data_are_repeated_fifteen_times_at_doubling_intervals_and_given_up_after_924_seconds() {
    let mut t = established(defaults());
    t.write(100);
    t.stack("PA 1:101 ack 1");
    assert_eq!(t.timers(), [("retransmit", 200)]);
    for at in [200, 600, 1_400, 3_000, 6_200, 12_600, 25_400, 51_000, 102_200, 204_600] {
        t.stack_at(at, "PA 1:101 ack 1");
    }
    // From here on the interval is max_rto.
    for at in [324_600, 444_600, 564_600, 684_600, 804_600] {
        t.stack_at(at, "PA 1:101 ack 1");
    }
    assert_eq!(t.connection().info().retransmits, 15);
    // R2 is at least 100 s (SHLD-11).
    times_out_silently_at(&mut t, 924_600);
}

#[test]
fn with_the_textbooks_bounds_the_intervals_double_from_1_to_64_seconds_and_twelve_repeats_are_all() {
    let textbook = TcpConfig { min_rto: ms(1_000), max_rto: ms(64_000), retries2: 12, ..defaults() };
    let mut t = established(textbook);
    t.write(100);
    t.stack("PA 1:101 ack 1");
    for at in [1, 3, 7, 15, 31, 63, 127, 191, 255, 319, 383, 447] {
        t.stack_at(at * SECOND, "PA 1:101 ack 1");
    }
    times_out_silently_at(&mut t, 511 * SECOND);
}

//= docs/rfc/rfc9293.md#MUST-47
//= docs/rfc/rfc9293.md#SHLD-9
//= docs/rfc/rfc9293.md#SHLD-10
#[test]
fn the_application_is_told_at_the_third_repeat_and_once() {
    let mut t = established(defaults());
    t.write(100);
    t.stack("PA 1:101 ack 1");
    t.stack_at(200, "PA 1:101 ack 1");
    t.stack_at(600, "PA 1:101 ack 1");
    assert!(t.events.is_empty(), "R1 is three repeats (SHLD-10)");
    t.stack_at(1_400, "PA 1:101 ack 1");
    assert_eq!(t.events.pop_front(), Some(Event::Retransmitting(t.id.unwrap())));
    t.stack_at(3_000, "PA 1:101 ack 1");
    assert!(t.events.is_empty());
}

#[test]
fn retries1_and_retries2_are_what_the_configuration_says() {
    let mut t = established(TcpConfig { retries1: 1, retries2: 2, ..defaults() });
    t.write(100);
    t.stack("PA 1:101 ack 1");
    t.stack_at(200, "PA 1:101 ack 1");
    assert_eq!(t.events.pop_front(), Some(Event::Retransmitting(t.id.unwrap())));
    t.stack_at(600, "PA 1:101 ack 1");
    times_out_silently_at(&mut t, 1_400);
}

//= docs/rfc/rfc9293.md#3.10.7.4-5-ESTABLISHED-new
#[test]
fn progress_gives_the_next_segment_all_its_retries() {
    let mut t = established(TcpConfig { retries2: 2, timestamps: false, ..defaults() });
    t.write(100);
    t.stack("PA 1:101 ack 1");
    t.stack_at(200, "PA 1:101 ack 1");
    t.stack_at(600, "PA 1:101 ack 1");
    t.peer(". 1:1 ack 101");
    t.write(100);
    t.stack("PA 101:201 ack 1");
    // The RTO is still backed off (Karn): 800 ms.
    t.stack_at(1_400, "PA 101:201 ack 1");
    t.stack_at(3_000, "PA 101:201 ack 1");
    times_out_silently_at(&mut t, 6_200);
}

//= docs/rfc/rfc6298.md#5.1-start
//= docs/rfc/rfc6298.md#5.3-restart
//= docs/rfc/rfc6298.md#5.2-stop
#[test]
fn the_timer_starts_with_the_first_outstanding_segment_and_over_when_some_of_it_is_acknowledged() {
    let mut t = established(TcpConfig { nodelay: true, ..defaults() });
    t.write(100);
    t.stack("PA 1:101 ack 1");
    t.quiet_until(150);
    t.write(100);
    t.stack("PA 101:201 ack 1");
    assert_eq!(t.timers(), [("retransmit", 50)], "another segment does not start it over");
    t.peer(". 1:1 ack 101");
    let [("retransmit", left)] = t.timers()[..] else { panic!("{:?}", t.timers()) };
    assert!(left > 200, "RFC 6298 section 5.3: {left}");
    t.peer(". 1:1 ack 201");
    assert_eq!(t.timers(), [], "RFC 6298 section 5.2");
}

#[test]
fn an_ack_of_nothing_new_does_not_start_the_timer_over() {
    let mut t = established(defaults());
    t.write(100);
    t.stack("PA 1:101 ack 1");
    t.quiet_until(150);
    t.peer(". 1:1 ack 1");
    t.peer(". 1:1 ack 1 win 60000");
    t.stack_at(200, "PA 1:101 ack 1");
}

#[test]
fn after_a_timeout_one_segment_is_repeated_and_the_rest_as_the_peer_acknowledges() {
    let mut t = established(defaults());
    t.write(4_380);
    for segment in [". 1:1461 ack 1", ". 1461:2921 ack 1", "PA 2921:4381 ack 1"] {
        t.stack(segment);
    }
    t.stack_at(200, ". 1:1461 ack 1");
    t.quiet_until(300);
    t.peer(". 1:1 ack 1461");
    t.stack(". 1461:2921 ack 1");
    t.stack("PA 2921:4381 ack 1");
    t.peer(". 1:1 ack 4381");
    assert_eq!(t.timers(), []);
}

#[test]
fn an_orphans_fin_is_repeated_eight_times_and_forgotten_after_102_seconds() {
    let mut t = established(defaults());
    t.close();
    t.stack("FA 1:1 ack 1");
    assert_eq!(t.timers(), [("retransmit", 200)]);
    for at in [200, 600, 1_400, 3_000, 6_200, 12_600, 25_400, 51_000] {
        t.stack_at(at, "FA 1:1 ack 1");
    }
    is_forgotten_at(&mut t, 102_200);
    assert!(t.events.is_empty(), "nobody is there to be told, of the retransmissions either");
}

#[test]
fn an_orphan_has_the_retries_the_configuration_says_but_never_more_than_retries2() {
    let mut t = established(TcpConfig { orphan_retries: 2, retries1: 1, ..defaults() });
    t.close();
    t.stack("FA 1:1 ack 1");
    t.stack_at(200, "FA 1:1 ack 1");
    t.stack_at(600, "FA 1:1 ack 1");
    is_forgotten_at(&mut t, 1_400);

    let mut t = established(TcpConfig { orphan_retries: 8, retries2: 1, ..defaults() });
    t.close();
    t.stack("FA 1:1 ack 1");
    t.stack_at(200, "FA 1:1 ack 1");
    is_forgotten_at(&mut t, 600);
}

#[test]
fn a_half_closed_connection_is_no_orphan() {
    let mut t = established(defaults());
    t.shutdown();
    t.stack("FA 1:1 ack 1");
    for at in [200, 600, 1_400, 3_000, 6_200, 12_600, 25_400, 51_000, 102_200] {
        t.stack_at(at, "FA 1:1 ack 1");
    }
    assert_eq!(t.state(), State::FIN_WAIT_1);
}

#[test]
fn a_fin_in_last_ack_is_repeated_until_it_is_acknowledged() {
    let mut t = established(defaults());
    t.peer("FA 1:1 ack 1");
    t.stack(". 1:1 ack 2");
    t.close();
    t.stack("FA 1:1 ack 2");
    t.stack_at(200, "FA 1:1 ack 2");
    assert_eq!(t.state(), State::LAST_ACK);
    t.peer(". 2:2 ack 2");
    t.quiet();
    t.assert_empty();
}

#[test]
fn a_reset_stops_the_timer() {
    let mut t = established(defaults());
    t.write(100);
    t.stack("PA 1:101 ack 1");
    t.peer("R 1:1");
    assert_eq!(t.events.back(), Some(&Event::Closed(t.id.unwrap(), CloseReason::Reset)));
    t.quiet_until(1_000);
    t.assert_empty();
}

//= docs/rfc/rfc9293.md#MUST-21
#[test]
fn an_application_can_set_r2_of_one_connection_lower_higher_or_to_never() {
    let mut t = established(defaults());
    t.connection().set_retries2(1);
    t.write(100);
    t.stack("PA 1:101 ack 1");
    t.stack_at(200, "PA 1:101 ack 1");
    times_out_silently_at(&mut t, 600);

    let mut t = established(TcpConfig { retries2: 1, max_rto: ms(200), ..defaults() });
    t.write(100);
    t.stack("PA 1:101 ack 1");
    t.connection().set_retries2(u32::MAX);
    for repeat in 1..=1_000 {
        t.stack_at(repeat * 200, "PA 1:101 ack 1");
    }
    t.peer(". 1:1 ack 101");
    assert_eq!(t.acked_bytes(), 100);
}
