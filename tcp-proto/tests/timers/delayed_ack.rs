//! Delayed ACK: an ACK is held back for a segment to carry it (RFC 9293 section 3.8.6.3, RFC 5681 section 4.2).

use tcp_proto::TcpConfig;

use crate::common::{Trace, ms};
use crate::defaults;

//= docs/rfc/rfc9293.md#MUST-40
//= docs/rfc/rfc9293.md#SHLD-18
//= docs/rfc/rfc5681.md#4.2-delayed-ack
//= docs/rfc/rfc5681.md#4.2-500ms
#[test]
fn an_ack_waits_40_ms_for_a_segment_to_carry_it() {
    let mut t = Trace::established(defaults());
    t.peer("PA 1:101 ack 1");
    t.quiet();
    assert_eq!(t.timers(), [("delayed_ack", 40)]);
    t.stack_at(40, ". 1:1 ack 101");
    assert_eq!(t.timers(), []);
}

#[test]
fn with_the_textbooks_delay_it_waits_200_ms() {
    let mut t = Trace::established(TcpConfig { delayed_ack: ms(200), ..defaults() });
    t.peer("PA 1:101 ack 1");
    t.stack_at(200, ". 1:1 ack 101");
}

#[test]
fn without_a_delay_it_leaves_at_once() {
    let mut t = Trace::established(TcpConfig { delayed_ack: ms(0), ..defaults() });
    t.peer("PA 1:101 ack 1");
    assert_eq!(t.timers(), []);
    t.stack(". 1:1 ack 101");
}

//= docs/rfc/rfc9293.md#3.10.7.4-7-piggyback
#[test]
fn data_sent_meanwhile_carry_the_ack_and_stop_the_timer() {
    let mut t = Trace::established(defaults());
    t.peer("PA 1:101 ack 1");
    t.quiet_until(39);
    t.write(10);
    t.stack("PA 1:11 ack 101");
    assert_eq!(t.timers(), [("retransmit", 200)]);
    t.quiet_until(200);
}

#[test]
fn so_does_a_fin() {
    let mut t = Trace::established(defaults());
    t.peer("PA 1:101 ack 1");
    t.quiet_until(39);
    t.shutdown();
    t.stack("FA 1:1 ack 101");
    assert_eq!(t.timers(), [("retransmit", 200)]);
}

//= docs/rfc/rfc9293.md#SHLD-19
//= docs/rfc/rfc5681.md#4.2-delayed-ack
//= docs/rfc/rfc9293.md#MUST-58
#[test]
fn every_second_full_segment_is_acknowledged_at_once() {
    let mut t = Trace::established(defaults());
    for pair in 0..3 {
        let at = 1 + pair * 2_920;
        t.peer(&format!(". {at}:{} ack 1", at + 1_460));
        t.quiet();
        assert_eq!(t.timers(), [("delayed_ack", 40)]);
        t.peer(&format!(". {}:{} ack 1", at + 1_460, at + 2_920));
        t.stack(&format!(". 1:1 ack {}", at + 2_920));
        assert_eq!(t.timers(), []);
    }
}

#[test]
fn further_small_segments_do_not_start_the_timer_over() {
    let mut t = Trace::established(defaults());
    t.peer("PA 1:101 ack 1");
    t.quiet_until(30);
    t.peer("PA 101:201 ack 1");
    assert_eq!(t.timers(), [("delayed_ack", 10)]);
    t.stack_at(40, ". 1:1 ack 201");
}

//= docs/rfc/rfc5681.md#4.2-out-of-order
//= docs/rfc/rfc5681.md#4.2-fill
//= docs/rfc/rfc9293.md#MAY-13
#[test]
fn what_shows_or_fills_a_gap_is_acknowledged_at_once() {
    let mut t = Trace::established(defaults());
    t.peer("PA 101:201 ack 1");
    t.stack(". 1:1 ack 1");
    t.peer("PA 201:301 ack 1");
    t.stack(". 1:1 ack 1");
    t.peer("PA 1:101 ack 1");
    t.stack(". 1:1 ack 301");
    assert_eq!(t.timers(), []);
}

#[test]
fn a_fin_is_acknowledged_at_once_and_what_came_before_with_it() {
    let mut t = Trace::established(defaults());
    t.peer("PA 1:101 ack 1");
    t.quiet_until(10);
    t.peer("FA 101:101 ack 1");
    t.stack(". 1:1 ack 102");
    assert_eq!(t.timers(), []);
}

#[test]
fn an_old_segment_is_acknowledged_at_once() {
    let mut t = Trace::established(defaults());
    t.peer("PA 1:101 ack 1");
    t.stack_at(40, ". 1:1 ack 101");
    t.peer("PA 1:101 ack 1");
    t.stack(". 1:1 ack 101");
}
