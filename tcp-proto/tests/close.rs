//! Closing, half-closing, aborting and being reset, in every state and from either side (RFC 9293 sections 3.6,
//! 3.10.4, 3.10.5 and 3.10.7.4; RFC 1337, 2525, 5961 and 6191).

mod common;

use common::reach::CONNECTED;
use common::{Trace, ms, plain};
use tcp_proto::{CloseReason, Event, State, TcpConfig};

impl Trace {
    /// The events since the last call.
    fn told(&mut self) -> Vec<Event> {
        self.events.drain(..).collect()
    }
}

// Orderly closes.

//= docs/rfc/rfc9293.md#3.10.7.4-5-FIN-WAIT-1
//= docs/rfc/rfc9293.md#3.10.7.4-8-FIN-WAIT-2
#[test]
fn closing_first_takes_four_segments_when_the_peer_acknowledges_before_it_closes() {
    let mut t = Trace::established(plain());
    t.close();
    t.stack("FA 1:1 ack 1");
    assert_eq!(t.state(), State::FIN_WAIT_1);
    t.peer(". 1:1 ack 2");
    assert_eq!(t.state(), State::FIN_WAIT_2);
    t.peer("FA 1:1 ack 2");
    assert_eq!(t.state(), State::TIME_WAIT);
    t.stack(". 2:2 ack 2");
    t.quiet_until(59_999);
    assert_eq!(t.state(), State::TIME_WAIT);
    t.quiet_until(60_000);
    t.assert_empty();
}

//= docs/rfc/rfc9293.md#3.10.7.4-8-FIN-WAIT-1
#[test]
fn closing_first_takes_three_segments_when_the_peer_closes_as_it_acknowledges() {
    let mut t = Trace::established(plain());
    t.close();
    t.stack("FA 1:1 ack 1");
    t.peer("FA 1:1 ack 2");
    assert_eq!(t.state(), State::TIME_WAIT);
    t.stack(". 2:2 ack 2");
    t.quiet_until(60_000);
    t.assert_empty();
}

//= docs/rfc/rfc9293.md#3.10.7.4-5-LAST-ACK
//= docs/rfc/rfc9293.md#3.10.7.4-8-ESTABLISHED
#[test]
fn closing_second_takes_four_segments_when_the_application_takes_its_time() {
    let mut t = Trace::established(plain());
    t.peer("FA 1:1 ack 1");
    t.stack(". 1:1 ack 2");
    assert_eq!(t.state(), State::CLOSE_WAIT);
    assert!(t.at_end());
    t.quiet_until(5_000);
    t.close();
    t.stack("FA 1:1 ack 2");
    assert_eq!(t.state(), State::LAST_ACK);
    t.peer(". 2:2 ack 2");
    t.quiet();
    t.assert_empty();
}

#[test]
fn closing_second_takes_three_segments_when_the_application_closes_before_the_ack_leaves() {
    let mut t = Trace::established(plain());
    t.peer("FA 1:1 ack 1");
    t.close();
    t.stack("FA 1:1 ack 2");
    assert_eq!(t.state(), State::LAST_ACK);
    t.peer(". 2:2 ack 2");
    t.quiet();
    t.assert_empty();
}

#[test]
fn a_fin_rides_on_the_last_data_segment_when_data_are_queued() {
    let mut t = Trace::established(plain());
    t.write(2000);
    t.close();
    t.stack(". 1:1461 ack 1");
    t.stack("FPA 1461:2001 ack 1");
    assert_eq!(t.state(), State::FIN_WAIT_1);
    t.peer(". 1:1 ack 2001");
    assert_eq!(t.state(), State::FIN_WAIT_1, "the data are acknowledged, the FIN is not");
    t.peer(". 1:1 ack 2002");
    assert_eq!(t.state(), State::FIN_WAIT_2);
}

#[test]
fn a_fin_rides_on_a_last_data_segment_that_is_full() {
    let mut t = Trace::established(plain());
    t.write(2920);
    t.close();
    t.stack(". 1:1461 ack 1");
    t.stack("FPA 1461:2921 ack 1");
    t.peer("FA 1:1 ack 2922");
    t.stack(". 2922:2922 ack 2");
    assert_eq!(t.state(), State::TIME_WAIT);
}

#[test]
fn a_fin_waits_for_the_data_before_it_that_the_window_holds_back() {
    let mut t = Trace::established_with(plain(), "S 0:0 <mss 1000>", 2000);
    t.write(3000);
    t.close();
    t.stack(". 1:1001 ack 1");
    t.stack(". 1001:2001 ack 1");
    t.peer(". 1:1 ack 2001 win 1000");
    t.stack("PA 2001:3001 ack 1");
    t.peer(". 1:1 ack 3001 win 1");
    t.stack("FA 3001:3001 ack 1");
    t.peer(". 1:1 ack 3002 win 0");
    assert_eq!(t.state(), State::FIN_WAIT_2);
}

#[test]
fn a_lost_fin_is_sent_again() {
    let mut t = Trace::established(plain());
    t.write(10);
    t.close();
    t.stack("FPA 1:11 ack 1");
    t.stack_at(200, "FPA 1:11 ack 1");
    t.peer(". 1:1 ack 11");
    t.quiet();
    t.stack_at(600, "FA 11:11 ack 1");
    t.peer(". 1:1 ack 12");
    assert_eq!(t.state(), State::FIN_WAIT_2);
}

// Half-closes.

#[test]
fn after_our_half_close_the_peers_data_still_arrive_and_are_acknowledged() {
    let mut t = Trace::in_state(State::FIN_WAIT_2);
    t.peer("PA 1:101 ack 2");
    t.stack(". 2:2 ack 101");
    t.quiet_until(600_000);
    t.peer("FPA 101:201 ack 2");
    t.stack(". 2:2 ack 202");
    assert_eq!(t.state(), State::TIME_WAIT);
    assert_eq!(t.read(1000), 200);
    assert!(t.at_end());
    assert!(!t.connection().may_send());
}

//= docs/rfc/rfc9293.md#3.10.7.4-5-CLOSE-WAIT
#[test]
fn after_the_peers_half_close_our_data_still_flow() {
    let mut t = Trace::established(plain());
    t.peer("FPA 1:101 ack 1");
    t.stack(". 1:1 ack 102");
    assert_eq!(t.read(1000), 100);
    assert!(t.at_end());
    t.write(3000);
    t.stack(". 1:1461 ack 102");
    t.stack(". 1461:2921 ack 102");
    t.peer(". 102:102 ack 2921");
    t.stack("PA 2921:3001 ack 102");
    t.quiet_until(100);
    t.peer(". 102:102 ack 3001");
    t.shutdown();
    t.stack("FA 3001:3001 ack 102");
    t.peer(". 102:102 ack 3002");
    t.quiet();
    assert_eq!(t.state(), State::CLOSED);
}

//= docs/rfc/rfc9293.md#3.10.7.4-5-FIN-WAIT-2
//= docs/rfc/rfc9293.md#3.10.7.4-7-ESTABLISHED
#[test]
fn data_of_the_peer_between_its_ack_of_our_fin_and_its_own_are_delivered() {
    let mut t = Trace::in_state(State::FIN_WAIT_1);
    t.peer(". 1:1001 ack 1");
    t.stack(". 2:2 ack 1001");
    assert_eq!(t.state(), State::FIN_WAIT_1);
    t.peer("FPA 1001:1501 ack 2");
    t.stack(". 2:2 ack 1502");
    assert_eq!(t.state(), State::TIME_WAIT);
    assert_eq!(t.read(2000), 1500);
    assert!(t.at_end());
}

// Crossing and out-of-order FINs.

//= docs/rfc/rfc9293.md#3.10.7.4-5-CLOSING
//= docs/rfc/rfc9293.md#3.10.7.4-8-FIN-WAIT-1
#[test]
fn fins_that_cross_lead_through_closing_to_time_wait_on_both_sides() {
    let mut t = Trace::established(plain());
    t.close();
    t.stack("FA 1:1 ack 1");
    t.peer("FA 1:1 ack 1");
    assert_eq!(t.state(), State::CLOSING);
    t.stack(". 2:2 ack 2");
    t.peer(". 2:2 ack 2");
    assert_eq!(t.state(), State::TIME_WAIT);
    t.quiet_until(60_000);
    t.assert_empty();
}

#[test]
fn fins_that_cross_with_data_deliver_the_data() {
    let mut t = Trace::established(plain());
    t.write(100);
    t.shutdown();
    t.stack("FPA 1:101 ack 1");
    t.peer("FPA 1:51 ack 1");
    t.stack(". 102:102 ack 52");
    assert_eq!(t.state(), State::CLOSING);
    t.peer(". 52:52 ack 102");
    assert_eq!(t.state(), State::TIME_WAIT);
    assert_eq!(t.read(100), 50);
}

#[test]
fn in_closing_a_lost_fin_is_sent_again() {
    let mut t = Trace::in_state(State::CLOSING);
    t.stack_at(200, "FA 1:1 ack 2");
    t.peer(". 2:2 ack 2");
    assert_eq!(t.state(), State::TIME_WAIT);
}

#[test]
fn a_fin_that_arrives_before_the_data_it_follows_is_remembered() {
    let mut t = Trace::established(plain());
    t.peer("FPA 101:201 ack 1");
    t.stack(". 1:1 ack 1");
    assert_eq!(t.state(), State::ESTABLISHED);
    t.peer(". 1:101 ack 1");
    t.stack(". 1:1 ack 202");
    assert_eq!(t.state(), State::CLOSE_WAIT);
    assert_eq!(t.read(1000), 200);
    assert!(t.at_end());
}

#[test]
fn a_bare_fin_that_arrives_before_the_data_it_follows_is_remembered_and_draws_a_duplicate_ack() {
    let mut t = Trace::established(plain());
    t.peer("FA 101:101 ack 1");
    t.stack(". 1:1 ack 1");
    t.peer(". 1:101 ack 1");
    t.stack(". 1:1 ack 102");
    assert_eq!(t.state(), State::CLOSE_WAIT);
}

//= docs/rfc/rfc9293.md#3.10.7.4-8-CLOSE-WAIT
#[test]
fn a_repeated_fin_is_acknowledged_again_in_every_state_after_it() {
    for (state, ack) in [
        (State::CLOSE_WAIT, ". 1:1 ack 2"),
        (State::CLOSING, ". 2:2 ack 2"),
        (State::LAST_ACK, ". 2:2 ack 2"),
        (State::TIME_WAIT, ". 2:2 ack 2"),
    ] {
        let mut t = Trace::in_state(state);
        for _ in 0..3 {
            t.peer("FA 1:1 ack 1");
            t.stack(ack);
            assert_eq!(t.state(), state);
        }
    }
}

// What the application finds after the end.

//= docs/rfc/rfc9293.md#3.10.7.4-8-FIN
#[test]
fn what_arrived_before_the_peers_end_is_read_after_it_also_once_the_connection_is_gone() {
    let mut t = Trace::established(plain());
    t.peer("FPA 1:101 ack 1");
    t.stack(". 1:1 ack 102");
    t.shutdown();
    t.stack("FA 1:1 ack 102");
    t.told();
    t.peer(". 102:102 ack 2");
    let id = t.id.unwrap();
    assert_eq!(t.told(), [Event::Closed(id, CloseReason::Finished)]);
    assert_eq!((t.state(), t.connection().state()), (State::CLOSED, State::CLOSED));
    assert_eq!(t.read(60), 60);
    assert_eq!(t.read(60), 40);
    assert!(t.at_end() && t.at_end());
    t.close();
    assert!(t.stack.connection(t.now, id).is_none());
    t.quiet();
    t.assert_empty();
}

#[test]
fn what_is_left_unread_when_time_wait_ends_can_still_be_read() {
    let mut t = Trace::in_state(State::FIN_WAIT_2);
    t.peer("FPA 1:101 ack 2");
    t.stack(". 2:2 ack 102");
    t.quiet_until(60_000);
    assert_eq!(t.told().last(), Some(&Event::Closed(t.id.unwrap(), CloseReason::Finished)));
    assert_eq!(t.read(1000), 100);
    assert!(t.at_end());
    t.close();
    t.assert_empty();
}

//= docs/rfc/rfc9293.md#MUST-12
//= docs/rfc/rfc9293.md#3.10.7.4-8-FIN
#[test]
fn the_application_is_told_of_data_and_of_the_end() {
    let mut t = Trace::established(plain());
    t.told();
    t.peer("PA 1:11 ack 1");
    assert_eq!(t.told(), [Event::Readable(t.id.unwrap())]);
    t.stack(". 1:1 ack 11");
    t.peer("FA 11:11 ack 1");
    assert_eq!(t.told(), [Event::Readable(t.id.unwrap())]);
    t.stack(". 1:1 ack 12");
}

// Aborts and what closing becomes when data would be lost.

#[test]
fn an_abort_resets_the_peer_in_every_state_in_which_it_would_wait_for_us() {
    for (state, reset) in [
        (State::SYN_SENT, None),
        (State::ESTABLISHED, Some("RA 1:1 ack 1")),
        (State::FIN_WAIT_1, Some("RA 2:2 ack 1")),
        (State::FIN_WAIT_2, Some("RA 2:2 ack 1")),
        (State::CLOSE_WAIT, Some("RA 1:1 ack 2")),
        (State::CLOSING, None),
        (State::LAST_ACK, None),
        (State::TIME_WAIT, None),
    ] {
        let mut t = Trace::in_state(state);
        t.abort();
        reset.into_iter().for_each(|reset| t.stack(reset));
        t.quiet();
        t.assert_empty();
        assert_eq!(t.told(), [], "in {state:?} whoever aborts need not be told");
    }
}

#[test]
fn an_abort_in_syn_rcvd_resets_the_peer_whichever_side_opened() {
    let mut t = Trace::in_state(State::SYN_SENT);
    t.peer("S 0:0 <mss 1460>");
    t.stack("SA 0:0 ack 1 <mss 1460>");
    t.abort();
    t.stack("RA 1:1 ack 1");
    t.assert_empty();

    // Nobody holds a half-open connection of a listener: it ends with the listener.
    let mut t = Trace::in_state(State::SYN_RCVD);
    t.stack.close_listener(t.now, t.listener.unwrap());
    t.stack("RA 1:1 ack 1");
    t.quiet();
    t.assert_empty();
}

#[test]
fn an_abort_with_data_queued_before_the_fin_resets_the_peer_whatever_the_state_is_called() {
    let mut t = Trace::established_with(plain(), "S 0:0 <mss 1000>", 1000);
    t.peer("FA 1:1 ack 1 win 1000");
    t.stack(". 1:1 ack 2");
    t.write(3000);
    t.shutdown();
    t.stack(". 1:1001 ack 2");
    assert_eq!(t.state(), State::LAST_ACK);
    t.abort();
    t.stack("RA 1001:1001 ack 2");
    t.assert_empty();
}

#[test]
fn stopping_to_listen_resets_who_waits_to_be_accepted_and_leaves_accepted_connections_alone() {
    let mut t = Trace::listen(plain());
    t.peer("S 0:0 <mss 1460>");
    t.stack("SA 0:0 ack 1 <mss 1460>");
    t.peer(". 1:1 ack 1");
    t.stack.close_listener(t.now, t.listener.unwrap());
    t.stack("RA 1:1 ack 1");
    t.assert_empty();

    let mut t = Trace::established(plain());
    t.stack.close_listener(t.now, t.listener.unwrap());
    t.quiet();
    t.peer("PA 1:11 ack 1");
    t.stack(". 1:1 ack 11");
    t.read(10);
    t.write(10);
    t.close();
    t.stack("FPA 1:11 ack 11");
}

#[test]
fn stopping_to_listen_lets_a_closed_connection_deliver_what_it_holds() {
    let mut t = Trace::established(plain());
    t.write(10);
    t.close();
    t.stack("FPA 1:11 ack 1");
    t.stack.close_listener(t.now, t.listener.unwrap());
    t.stack_at(200, "FPA 1:11 ack 1");
    t.peer("FA 1:1 ack 12");
    t.stack(". 12:12 ack 2");
    assert_eq!(t.state(), State::TIME_WAIT);
}

//= docs/rfc/rfc9293.md#SHLD-3
#[test]
fn closing_with_unread_data_resets_the_peer_because_they_are_lost() {
    for (peers, reset) in [("PA 1:101 ack 1", "RA 1:1 ack 101"), ("FPA 1:101 ack 1", "RA 1:1 ack 102")] {
        let mut t = Trace::established(plain());
        t.peer(peers);
        t.take();
        t.close();
        t.stack(reset);
        t.quiet();
        t.assert_empty();
    }
}

#[test]
fn closing_with_unread_data_after_our_fin_resets_the_peer_too() {
    let mut t = Trace::established(plain());
    t.peer("FPA 1:101 ack 1");
    t.stack(". 1:1 ack 102");
    t.shutdown();
    t.stack("FA 1:1 ack 102");
    t.close();
    t.stack("RA 2:2 ack 102");
    t.assert_empty();
}

#[test]
fn closing_with_only_out_of_order_data_is_an_orderly_close() {
    let mut t = Trace::established(plain());
    t.peer("PA 11:21 ack 1");
    t.stack(". 1:1 ack 1");
    t.close();
    t.stack("FA 1:1 ack 1");
    assert_eq!(t.stack.buffer_memory(), 0);
}

//= docs/rfc/rfc9293.md#SHLD-3
//= docs/rfc/rfc9293.md#MAY-1
#[test]
fn data_that_arrive_after_the_application_closed_draw_a_reset() {
    for state in [State::FIN_WAIT_1, State::FIN_WAIT_2] {
        let mut t = Trace::in_state(state);
        t.close();
        t.peer("PA 1:11 ack 2");
        t.stack("RA 2:2 ack 1");
        t.quiet();
        t.assert_empty();
    }
}

#[test]
fn a_linger_of_zero_makes_closing_an_abort() {
    let mut t = Trace::established(TcpConfig { linger: Some(ms(0)), ..plain() });
    t.write(10);
    t.stack("PA 1:11 ack 1");
    t.close();
    t.stack("RA 11:11 ack 1");
    t.quiet();
    t.assert_empty();
}

// Closing during the handshake.

#[test]
fn closing_before_an_answer_to_our_syn_ends_it_in_silence() {
    let mut t = Trace::in_state(State::SYN_SENT);
    t.close();
    t.quiet();
    t.assert_empty();
}

#[test]
fn closing_between_the_crossing_syns_sends_the_fin_once_our_syn_is_acknowledged() {
    let mut t = Trace::in_state(State::SYN_SENT);
    t.peer("S 0:0 <mss 1460>");
    t.stack("SA 0:0 ack 1 <mss 1460>");
    t.shutdown();
    assert!(!t.connection().may_send());
    t.stack_at(1000, "SA 0:0 ack 1 <mss 1460>");
    t.peer(". 1:1 ack 1");
    t.stack("FA 1:1 ack 1");
    assert_eq!(t.state(), State::FIN_WAIT_1);
    assert_eq!(t.told(), [Event::Connected(t.id.unwrap())]);
    t.peer("FA 1:1 ack 2");
    t.stack(". 2:2 ack 2");
    assert_eq!(t.state(), State::TIME_WAIT);
}

#[test]
fn data_written_before_closing_between_the_crossing_syns_are_delivered() {
    let mut t = Trace::in_state(State::SYN_SENT);
    t.peer("S 0:0 <mss 1460>");
    t.stack("SA 0:0 ack 1 <mss 1460>");
    t.write(10);
    t.close();
    t.quiet();
    t.peer(". 1:1 ack 1");
    t.stack("FPA 1:11 ack 1");
    assert_eq!((t.state(), t.told()), (State::FIN_WAIT_1, vec![]));
}

// Resets from the peer.

//= docs/rfc/rfc9293.md#MUST-12
//= docs/rfc/rfc9293.md#3.10.7.4-2-exact
//= docs/rfc/rfc9293.md#3.10.7.4-2-ESTABLISHED
//= docs/rfc/rfc9293.md#3.10.7.4-2-CLOSING
//= docs/rfc/rfc5961.md#3.2-exact
#[test]
fn a_reset_at_the_next_number_ends_every_state_but_time_wait() {
    for (state, seq, reason) in [
        (State::ESTABLISHED, 1, CloseReason::Reset),
        (State::FIN_WAIT_1, 1, CloseReason::Reset),
        (State::FIN_WAIT_2, 1, CloseReason::Reset),
        (State::CLOSE_WAIT, 2, CloseReason::Reset),
        (State::CLOSING, 2, CloseReason::Finished),
        (State::LAST_ACK, 2, CloseReason::Finished),
    ] {
        for flags in ["R", "RA"] {
            let mut t = Trace::in_state(state);
            t.peer(&format!("{flags} {seq}:{seq} ack 1"));
            t.quiet();
            assert_eq!(t.state(), State::CLOSED, "{state:?}");
            assert_eq!(t.told(), [Event::Closed(t.id.unwrap(), reason)], "{state:?}");
            // An orderly end may have left something to read; the application's handle keeps it.
            if reason == CloseReason::Finished {
                assert!(t.at_end());
                t.close();
            }
            t.assert_empty();
        }
    }
}

//= docs/rfc/rfc9293.md#SHLD-2
#[test]
fn a_reset_with_text_resets() {
    let mut t = Trace::established(plain());
    t.peer("RA 1:11 ack 1");
    t.quiet();
    assert_eq!(t.events.back(), Some(&Event::Closed(t.id.unwrap(), CloseReason::Reset)));
    t.assert_empty();
}

//= docs/rfc/rfc9293.md#3.10.7.4-2-ESTABLISHED
#[test]
fn a_reset_throws_away_what_was_not_read() {
    let mut t = Trace::established(plain());
    t.write(2000);
    t.stack(". 1:1461 ack 1");
    t.peer("PA 1:101 ack 1");
    t.stack(". 1461:1461 ack 101");
    t.peer("R 101:101");
    t.assert_empty();
    assert!(t.stack.connection(t.now, t.id.unwrap()).is_none());
}

#[test]
fn a_reset_in_last_ack_gives_back_what_was_not_delivered_and_keeps_what_was_not_read() {
    let mut t = Trace::established(plain());
    t.peer("FPA 1:101 ack 1");
    t.stack(". 1:1 ack 102");
    let unread = t.stack.buffer_memory();
    t.write(100);
    t.shutdown();
    t.stack("FPA 1:101 ack 102");
    assert!(t.stack.buffer_memory() > unread);
    t.peer("R 102:102");
    assert_eq!((t.stack.buffer_memory(), t.read(1000)), (unread, 100));
}

//= docs/rfc/rfc9293.md#3.10.7.4-2-challenge
//= docs/rfc/rfc9293.md#3.10.7.4-2-outside
//= docs/rfc/rfc5961.md#3.2-challenge
//= docs/rfc/rfc5961.md#3.2-outside
#[test]
fn a_reset_elsewhere_in_the_window_draws_a_challenge_and_outside_of_it_nothing() {
    for state in CONNECTED.into_iter().filter(|s| s.is_synchronized() && *s != State::TIME_WAIT) {
        let mut t = Trace::in_state(state);
        t.peer("R 500:500");
        let challenge = t.take().expect("a challenge ACK");
        assert_eq!(challenge.flags, 16, "{state:?}");
        t.quiet_until(100);
        for outside in ["R 0:0", "R 70000:70000", "R 4000000000:4000000000"] {
            t.peer(outside);
            t.quiet();
        }
        assert_eq!(t.state(), state);
        assert_eq!(t.drops("challenged"), 1);
    }
}

//= docs/rfc/rfc5961.md#7-throttle
#[test]
fn challenges_of_one_connection_are_half_a_second_apart() {
    let mut t = Trace::established(plain());
    t.peer("R 500:500");
    t.stack(". 1:1 ack 1");
    t.quiet_until(499);
    t.peer("R 500:500");
    t.peer("S 500:500");
    t.quiet_until(500);
    t.peer("S 500:500");
    t.stack(". 1:1 ack 1");
}

//= docs/rfc/rfc9293.md#3.10.7.4-4-synchronized
//= docs/rfc/rfc5961.md#4.2-syn
#[test]
fn a_syn_on_a_connection_draws_a_challenge_and_changes_nothing() {
    for state in CONNECTED.into_iter().filter(|s| s.is_synchronized() && *s != State::TIME_WAIT) {
        for syn in ["S 0:0", "S 3:3", "S 100000:100000", "SA 3:3 ack 1"] {
            let mut t = Trace::in_state(state);
            t.peer(syn);
            let challenge = t.take().expect("a challenge ACK");
            assert_eq!((challenge.flags, t.state()), (16, state), "{syn}");
        }
    }
}

// TIME_WAIT.

//= docs/rfc/rfc9293.md#3.10.7.4-5-TIME-WAIT
//= docs/rfc/rfc9293.md#3.10.7.4-8-TIME-WAIT
#[test]
fn a_repeated_fin_in_time_wait_starts_the_wait_over() {
    let mut t = Trace::in_state(State::TIME_WAIT);
    t.quiet_until(50_000);
    t.peer("FA 1:1 ack 2");
    t.stack(". 2:2 ack 2");
    assert_eq!(t.timers(), [("time_wait", 60_000)]);
    t.quiet_until(110_000);
    assert_eq!(t.state(), State::CLOSED);
}

#[test]
fn old_segments_in_time_wait_draw_an_ack_twice_a_second_and_do_not_prolong_it() {
    let mut t = Trace::in_state(State::TIME_WAIT);
    t.quiet_until(10_000);
    t.peer(". 0:0 ack 2");
    t.stack(". 2:2 ack 2");
    t.peer("S 0:0");
    t.peer("PA 4294967290:4294967295 ack 2");
    t.quiet_until(10_500);
    t.peer("S 0:0");
    t.stack(". 2:2 ack 2");
    assert_eq!(t.timers(), [("time_wait", 49_500)]);
    t.peer(". 2:2 ack 2");
    t.quiet();
}

//= docs/rfc/rfc1337.md#3-F1
#[test]
fn a_reset_does_not_end_time_wait() {
    let mut t = Trace::in_state(State::TIME_WAIT);
    t.peer("R 2:2");
    t.peer("RA 2:2 ack 2");
    t.quiet();
    assert_eq!(t.state(), State::TIME_WAIT);
    t.quiet_until(60_000);
    assert_eq!(t.state(), State::CLOSED);
}

/// A trace in TIME_WAIT with timestamps; the last of the peer's was 900.
fn time_wait_with_timestamps(config: TcpConfig) -> Trace {
    let config = TcpConfig { timestamps: true, ..config };
    let mut t = Trace::established_with(config, "S 0:0 <mss 1460,ts 800 0>", 65_535);
    t.close();
    t.stack("FA 1:1 ack 1 <ts 1000000 800>");
    t.peer("FA 1:1 ack 2 <ts 900 1000000>");
    t.stack(". 2:2 ack 2 <ts 1000000 900>");
    assert_eq!(t.state(), State::TIME_WAIT);
    t
}

//= docs/rfc/rfc9293.md#SHLD-4
//= docs/rfc/rfc9293.md#MAY-2
//= docs/rfc/rfc9293.md#3.10.7.4-1-TIME-WAIT
//= docs/rfc/rfc9293.md#3.10.7.4-4-TIME-WAIT
//= docs/rfc/rfc6191.md#2-newer
#[test]
fn a_syn_with_a_newer_timestamp_reopens_time_wait_whatever_its_number() {
    let mut t = time_wait_with_timestamps(plain());
    let last = t.our_isn + 2;
    t.peer("S 4294000000:4294000000 <mss 1460,ts 901 0>");
    let answer = t.take().expect("a SYN-ACK");
    assert_eq!(answer.flags, 18);
    assert!(t.our_isn.wrapping_sub(last) < 1 << 31, "our new numbers lie above the old ones");
    assert_eq!(answer.ack, 4_294_000_001);
    assert_eq!(t.state(), State::SYN_RCVD);
    t.peer(". 4294000001:4294000001 ack 1 <ts 902 1000000>");
    t.quiet();
    assert_eq!(t.state(), State::ESTABLISHED);
}

//= docs/rfc/rfc9293.md#SHLD-4
//= docs/rfc/rfc6191.md#2-same
//= docs/rfc/rfc6191.md#2-older
#[test]
fn a_syn_with_an_older_timestamp_does_not_reopen_time_wait_and_with_the_same_only_above_the_old_numbers() {
    let mut t = time_wait_with_timestamps(plain());
    t.peer("S 100000:100000 <mss 1460,ts 899 0>");
    t.stack(". 2:2 ack 2 <ts 1000000 900>");
    t.quiet_until(1000);
    t.peer("S 1:1 <mss 1460,ts 900 0>");
    t.stack(". 2:2 ack 2 <ts 1001000 900>");
    t.peer("S 3:3 <mss 1460,ts 900 0>");
    assert_eq!((t.take().map(|s| s.flags), t.state()), (Some(18), State::SYN_RCVD));
}

//= docs/rfc/rfc9293.md#MAY-2
//= docs/rfc/rfc6191.md#2-number
#[test]
fn without_timestamps_a_syn_above_the_old_numbers_reopens_time_wait() {
    let mut t = Trace::in_state(State::TIME_WAIT);
    t.close();
    let last = t.our_isn + 2;
    t.peer("S 2:2 <mss 1460>");
    t.stack(". 2:2 ack 2");
    t.peer("S 3:3 <mss 1460>");
    t.stack("SA 0:0 ack 4 <mss 1460>");
    assert!(t.our_isn.wrapping_sub(last) < 1 << 31, "our new numbers lie above the old ones");
    t.peer(". 4:4 ack 1");
    assert_eq!((t.state(), t.stack.count(State::TIME_WAIT)), (State::ESTABLISHED, 0));
    t.accept();
    t.write(5);
    t.stack("PA 1:6 ack 4");
}

//= docs/rfc/rfc6191.md#2-without
#[test]
fn a_syn_with_timestamps_reopens_a_time_wait_that_had_none() {
    let mut t = Trace::in_state_with(State::TIME_WAIT, plain());
    t.peer("S 0:0 <mss 1460,ts 5 0>");
    t.stack(". 2:2 ack 2");
    // Timestamps are off here: they would not be used.
    assert_eq!(t.state(), State::TIME_WAIT);

    let mut t = Trace::in_state_with(State::TIME_WAIT, TcpConfig { timestamps: true, ..plain() });
    t.peer("S 0:0 <mss 1460,ts 5 0>");
    t.stack("SA 0:0 ack 1 <mss 1460,ts 1000000 5>");
    assert_eq!(t.state(), State::SYN_RCVD);
}

#[test]
fn time_wait_is_not_reopened_when_told_so_nor_without_a_listener() {
    let mut t = time_wait_with_timestamps(TcpConfig { time_wait_reuse: false, ..plain() });
    t.peer("S 100000:100000 <mss 1460,ts 901 0>");
    t.stack(". 2:2 ack 2 <ts 1000000 900>");
    assert_eq!(t.state(), State::TIME_WAIT);

    let mut t = time_wait_with_timestamps(plain());
    t.stack.close_listener(t.now, t.listener.unwrap());
    t.peer("S 100000:100000 <mss 1460,ts 901 0>");
    t.stack(". 2:2 ack 2 <ts 1000000 900>");
    assert_eq!(t.state(), State::TIME_WAIT);
}
