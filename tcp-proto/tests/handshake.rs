//! Opens: passive, active, crossing, refused, repeated (RFC 9293 sections 3.5 and 3.10.7.1 to 3.10.7.3).

mod common;

use common::{Trace, plain};
use tcp_proto::{CloseReason, Event, State, TcpConfig};

//= docs/rfc/rfc9293.md#MUST-67
//= docs/rfc/rfc9293.md#MAY-3
//= docs/rfc/rfc9293.md#SHLD-5
//= docs/rfc/rfc9293.md#3.10.7.2-3-SYN
//= docs/rfc/rfc9293.md#3.10.7.4-5-SYN-RECEIVED
#[test]
fn a_passive_open_is_three_segments_and_one_connection_to_accept() {
    let mut t = Trace::listen(plain());
    t.peer("S 0:0 <mss 1460>");
    assert_eq!(t.state(), State::SYN_RCVD);
    t.stack("SA 0:0 ack 1 <mss 1460>");
    t.peer(". 1:1 ack 1");
    t.quiet();
    assert_eq!(t.state(), State::ESTABLISHED);
    assert_eq!(t.events.pop_front(), Some(Event::Incoming(t.listener.unwrap())));
    t.accept();
}

//= docs/rfc/rfc9293.md#3.10.7.3-4-SYN-ACK
#[test]
fn an_active_open_is_three_segments_and_the_application_is_told() {
    let mut t = Trace::connect(plain());
    t.stack("S 0:0 <mss 1460>");
    assert_eq!(t.state(), State::SYN_SENT);
    t.peer("SA 0:0 ack 1 <mss 1460>");
    t.stack(". 1:1 ack 1");
    assert_eq!(t.state(), State::ESTABLISHED);
    assert_eq!(t.events.pop_front(), Some(Event::Connected(t.id.unwrap())));
}

//= docs/rfc/rfc9293.md#MUST-16
//= docs/rfc/rfc6691.md#2-announced
//= docs/rfc/rfc6691.md#2-sent
//= docs/rfc/rfc7323.md#2.2-syn
//= docs/rfc/rfc7323.md#2.2-both
//= docs/rfc/rfc7323.md#3.2-agreed
#[test]
fn options_are_used_only_when_both_sides_offer_them() {
    let mut t = Trace::listen(TcpConfig::default());
    t.peer("S 0:0 <mss 1000,ws 7,ts 500 0>");
    t.stack("SA 0:0 ack 1 <mss 1460,ws 5,ts 1000000 500>");
    t.peer(". 1:1 ack 1 <ts 501 1000000>");
    t.accept();
    t.write(2000);
    // MSS 1000 less 12 bytes of timestamps.
    t.stack(". 1:989 ack 1 <ts 1000000 501>");

    let mut t = Trace::listen(TcpConfig::default());
    t.peer("S 0:0");
    t.stack("SA 0:0 ack 1 <mss 1460>");
    t.peer(". 1:1 ack 1");
    t.accept();
    t.write(600);
    // A peer that says no MSS takes 536 bytes (MUST-15).
    t.stack(". 1:537 ack 1");
}

//= docs/rfc/rfc9293.md#MUST-10
//= docs/rfc/rfc9293.md#3.10.7.3-4-SYN
#[test]
fn both_ends_open_at_once_and_are_established() {
    let mut t = Trace::connect(plain());
    t.stack("S 0:0 <mss 1460>");
    t.peer("S 0:0 <mss 1460>");
    assert_eq!(t.state(), State::SYN_RCVD);
    t.stack("SA 0:0 ack 1 <mss 1460>");
    t.peer("SA 0:0 ack 1 <mss 1460>");
    assert_eq!(t.state(), State::ESTABLISHED);
    t.stack(". 1:1 ack 1");
    assert_eq!(t.events.pop_front(), Some(Event::Connected(t.id.unwrap())));
}

//= docs/rfc/rfc9293.md#3.10.7.3-2-RST
#[test]
fn a_refused_open_says_so() {
    let mut t = Trace::connect(plain());
    t.stack("S 0:0 <mss 1460>");
    t.peer("RA 0:0 ack 1");
    assert_eq!(t.events.pop_front(), Some(Event::Closed(t.id.unwrap(), CloseReason::Refused)));
    t.assert_empty();
}

//= docs/rfc/rfc9293.md#3.10.7.3-1-ACK
//= docs/rfc/rfc9293.md#3.10.7.3-1-ACK-RST
//= docs/rfc/rfc9293.md#3.10.7.3-2-RST-no-ACK
#[test]
fn a_reset_or_answer_that_does_not_acknowledge_our_syn_changes_nothing() {
    let mut t = Trace::connect(plain());
    t.stack("S 0:0 <mss 1460>");
    t.peer("R 0:0");
    t.peer("RA 0:0 ack 7");
    t.peer("SA 0:0 ack 0 <mss 1460>");
    t.stack("R 0:0");
    t.peer(". 0:0 ack 9");
    t.stack("R 9:9");
    assert_eq!(t.state(), State::SYN_SENT);
}

//= docs/rfc/rfc9293.md#MUST-11
//= docs/rfc/rfc9293.md#3.10.7.4-2-SYN-RECEIVED-passive
//= docs/rfc/rfc9293.md#3.10.7.4-2-SYN-RECEIVED-active
#[test]
fn a_reset_in_syn_rcvd_forgets_a_passive_open_silently_and_fails_an_active_one() {
    let mut t = Trace::listen(plain());
    t.peer("S 0:0 <mss 1460>");
    t.stack("SA 0:0 ack 1 <mss 1460>");
    t.peer("R 1:1");
    t.quiet();
    t.assert_empty();
    assert!(t.events.is_empty());

    let mut t = Trace::connect(plain());
    t.stack("S 0:0 <mss 1460>");
    t.peer("S 0:0 <mss 1460>");
    t.stack("SA 0:0 ack 1 <mss 1460>");
    t.peer("R 1:1");
    assert_eq!(t.events.pop_front(), Some(Event::Closed(t.id.unwrap(), CloseReason::Refused)));
}

#[test]
fn a_repeated_syn_draws_the_syn_ack_again() {
    let mut t = Trace::listen(plain());
    t.peer("S 0:0 <mss 1460>");
    t.stack("SA 0:0 ack 1 <mss 1460>");
    t.quiet_until(700);
    t.peer("S 0:0 <mss 1460>");
    t.stack("SA 0:0 ack 1 <mss 1460>");
    t.peer(". 1:1 ack 1");
    assert_eq!(t.state(), State::ESTABLISHED);
}

//= docs/rfc/rfc9293.md#3.10.7.1-data
//= docs/rfc/rfc9293.md#3.10.7.1-RST
//= docs/rfc/rfc9293.md#3.10.7.1-ACK
//= docs/rfc/rfc9293.md#3.10.7.1-no-ACK
#[test]
fn segments_without_a_connection_draw_the_reset_that_fits_them() {
    // To a port nobody listens on: the trace's remote talks to the connection's port after it is gone.
    let mut t = Trace::connect(plain());
    t.stack("S 0:0 <mss 1460>");
    t.peer("RA 0:0 ack 1");
    t.our_isn = 0;
    t.peer(". 5:9 ack 77");
    t.stack("R 77:77");
    t.peer("S 5:5");
    t.stack("RA 0:0 ack 6");
    t.peer("R 5:5");
    t.quiet();
}

//= docs/rfc/rfc9293.md#3.10.7.2-2-ACK
#[test]
fn a_listener_answers_an_ack_with_a_reset_unless_it_is_told_to_be_silent() {
    let mut t = Trace::listen(plain());
    t.peer(". 5:5 ack 77");
    t.stack("R 77:77");
    t.peer("F 5:5");
    t.peer("P 5:5");
    t.quiet();

    let mut t = Trace::listen(TcpConfig { reset_unknown: false, ..plain() });
    t.peer(". 5:5 ack 77");
    t.quiet();
    assert_eq!(t.drops("no_connection"), 1);
}

//= docs/rfc/rfc9293.md#3.10.7.4-5-SYN-RECEIVED-bad
#[test]
fn an_ack_of_something_else_in_syn_rcvd_draws_a_reset_and_the_connection_waits_on() {
    let mut t = Trace::listen(plain());
    t.peer("S 0:0 <mss 1460>");
    t.stack("SA 0:0 ack 1 <mss 1460>");
    t.peer(". 1:1 ack 500");
    t.stack("R 500:500");
    t.peer(". 1:1 ack 1");
    assert_eq!(t.state(), State::ESTABLISHED);
}

#[test]
fn data_written_before_the_answer_leaves_with_the_handshake() {
    let mut t = Trace::connect(plain());
    t.stack("S 0:0 <mss 1460>");
    t.write(10);
    t.quiet();
    t.peer("SA 0:0 ack 1 <mss 1460>");
    t.stack("PA 1:11 ack 1");
}
