//! Connection establishment: our SYN or SYN-ACK is unanswered (RFC 6298, RFC 9293 section 3.8.3).

use tcp_proto::{Event, State, TcpConfig};

use crate::common::{Trace, ms};
use crate::{PEER_SYN, SECOND, defaults, times_out_silently_at};

const SYN: &str = "S 0:0 <mss 1460>";
const SYN_ACK: &str = "SA 0:0 ack 1 <mss 1460>";

//= docs/rfc/rfc9293.md#MUST-22
//= docs/rfc/rfc9293.md#MUST-23
#[test]
fn an_unanswered_syn_is_repeated_seven_times_and_given_up_after_more_than_three_minutes() {
    let mut t = Trace::connect(defaults());
    t.stack(SYN);
    assert_eq!(t.timers(), [("establish", 1_000)]);
    for at in [1, 3, 7, 15, 31, 63, 127] {
        t.stack_at(at * SECOND, SYN);
    }
    // At least 180 s (MUST-23). The last wait would be 128 s without max_rto.
    times_out_silently_at(&mut t, 247 * SECOND);
}

//= docs/rfc/rfc9293.md#MUST-22
#[test]
fn the_application_is_told_at_the_third_repeat_of_a_syn_as_of_data() {
    let mut t = Trace::connect(defaults());
    t.stack(SYN);
    t.stack_at(SECOND, SYN);
    t.stack_at(3 * SECOND, SYN);
    assert!(t.events.is_empty());
    t.stack_at(7 * SECOND, SYN);
    assert_eq!(t.events.pop_front(), Some(Event::Retransmitting(t.id.unwrap())));
    t.stack_at(15 * SECOND, SYN);
    assert!(t.events.is_empty());
}

#[test]
fn with_the_textbooks_initial_rto_the_syns_are_3_6_and_12_seconds_apart() {
    let mut t = Trace::connect(TcpConfig { initial_rto: ms(3_000), ..defaults() });
    t.stack(SYN);
    for at in [3, 9, 21, 45, 93, 189, 309] {
        t.stack_at(at * SECOND, SYN);
    }
    times_out_silently_at(&mut t, 429 * SECOND);
}

#[test]
fn an_unanswered_syn_ack_is_repeated_five_times_and_forgotten_after_63_seconds() {
    let mut t = Trace::listen(defaults());
    t.peer(PEER_SYN);
    t.stack(SYN_ACK);
    assert_eq!(t.timers(), [("establish", 1_000)]);
    for at in [1, 3, 7, 15, 31] {
        t.stack_at(at * SECOND, SYN_ACK);
    }
    t.quiet_until(63 * SECOND - 1);
    assert_eq!(t.state(), State::SYN_RCVD);
    t.quiet_until(63 * SECOND);
    t.assert_empty();
    assert!(t.events.is_empty(), "the application never knew of it");
    assert_eq!(t.stack.listener(t.listener.unwrap()).unwrap().syn_queue, 0);
}

#[test]
fn with_the_textbooks_initial_rto_the_syn_acks_are_3_6_and_12_seconds_apart() {
    let mut t = Trace::listen(TcpConfig { initial_rto: ms(3_000), synack_retries: 3, ..defaults() });
    t.peer(PEER_SYN);
    t.stack(SYN_ACK);
    for at in [3, 9, 21] {
        t.stack_at(at * SECOND, SYN_ACK);
    }
    t.quiet_until(45 * SECOND - 1);
    assert_eq!(t.state(), State::SYN_RCVD);
    t.quiet_until(45 * SECOND);
    t.assert_empty();
}

#[test]
fn without_retries_a_syn_is_given_up_when_its_timeout_expires() {
    let mut t = Trace::connect(TcpConfig { syn_retries: 0, ..defaults() });
    t.stack(SYN);
    times_out_silently_at(&mut t, 1_000);
}

#[test]
fn the_answer_stops_the_timer_on_either_side() {
    let mut t = Trace::connect(defaults());
    t.stack(SYN);
    t.peer("SA 0:0 ack 1 <mss 1460>");
    t.stack(". 1:1 ack 1");
    assert_eq!(t.timers(), []);

    let mut t = Trace::listen(defaults());
    t.peer(PEER_SYN);
    t.stack(SYN_ACK);
    t.peer(". 1:1 ack 1");
    assert_eq!(t.timers(), []);
}

#[test]
fn closing_before_the_answer_stops_the_timer() {
    let mut t = Trace::connect(defaults());
    t.stack(SYN);
    t.close();
    t.quiet();
    t.assert_empty();
    assert_eq!(t.stack.poll_timeout(), None);
}

#[test]
fn when_two_opens_cross_the_syn_ack_has_all_the_retries_of_the_syn() {
    let mut t = Trace::connect(defaults());
    t.stack(SYN);
    t.stack_at(SECOND, SYN);
    t.quiet_until(1_500);
    t.peer(PEER_SYN);
    t.stack(SYN_ACK);
    // The RTO is 2 s since the SYN was repeated.
    for at in [2, 6, 14, 30, 62, 126, 246] {
        t.stack_at(at * SECOND + 1_500, SYN_ACK);
    }
    times_out_silently_at(&mut t, 367_500);
}

#[test]
fn the_repeats_of_a_syn_do_not_count_against_the_data_behind_it() {
    let mut t = Trace::connect(TcpConfig { retries1: 1, retries2: 1, ..defaults() });
    t.stack(SYN);
    t.stack_at(SECOND, SYN);
    t.peer("SA 0:0 ack 1 <mss 1460>");
    t.stack(". 1:1 ack 1");
    t.write(100);
    t.stack("PA 1:101 ack 1");
    t.stack_at(4 * SECOND, "PA 1:101 ack 1");
    times_out_silently_at(&mut t, 10 * SECOND);
}

#[test]
fn a_repeated_syn_of_the_peer_does_not_use_up_a_retry() {
    let mut t = Trace::listen(TcpConfig { synack_retries: 1, ..defaults() });
    t.peer(PEER_SYN);
    t.stack(SYN_ACK);
    t.quiet_until(600);
    t.peer(PEER_SYN);
    t.stack(SYN_ACK);
    t.stack_at(1_600, SYN_ACK);
    t.quiet_until(3_599);
    assert_eq!(t.state(), State::SYN_RCVD);
    t.quiet_until(3_600);
    t.assert_empty();
}
