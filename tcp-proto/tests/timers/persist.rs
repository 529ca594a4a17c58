//! Persist: the peer's window is why nothing can be sent (RFC 9293 sections 3.8.6.1 and 3.8.6.2.1).

use tcp_proto::{Event, State, TcpConfig};

use crate::common::{Trace, ms};
use crate::{HOUR, PEER_SYN, defaults, times_out_with_a_reset_at};

/// Established without round trip time (RTO = 200 ms), and the peer's window is closed.
fn closed_window(config: TcpConfig) -> Trace {
    let mut t = Trace::established_with(config, PEER_SYN, 0);
    t.events.clear();
    t
}

/// Expects a probe of the first byte at each instant, in ms, and answers it without opening the window.
fn probes_at(t: &mut Trace, instants: &[u64]) {
    for &at in instants {
        t.stack_at(at, ". 1:2 ack 1");
        t.peer(". 1:1 ack 1 win 0");
    }
}

//= docs/rfc/rfc9293.md#MUST-36
//= docs/rfc/rfc9293.md#SHLD-29
//= docs/rfc/rfc9293.md#SHLD-30
#[test]
fn the_window_is_probed_after_an_rto_and_then_at_doubling_intervals_of_at_most_a_minute() {
    let mut t = closed_window(defaults());
    t.write(100);
    t.quiet();
    assert_eq!(t.timers(), [("persist", 200)]);
    probes_at(&mut t, &[200, 600, 1_400, 3_000, 6_200, 12_600, 25_400, 51_000]);
    assert_eq!(t.timers(), [("persist", 51_200)]);
    probes_at(&mut t, &[102_200, 162_200, 222_200]);
}

#[test]
fn with_the_textbooks_first_interval_the_probes_are_1_5_and_3_and_6_seconds_apart() {
    let mut t = closed_window(TcpConfig { persist_initial: Some(ms(1_500)), ..defaults() });
    t.write(100);
    probes_at(&mut t, &[1_500, 4_500, 10_500, 22_500, 46_500, 94_500, 154_500, 214_500]);
}

//= docs/rfc/rfc9293.md#MUST-37
#[test]
fn probing_never_ends_as_long_as_probes_are_answered() {
    let mut t = closed_window(defaults());
    t.write(100);
    probes_at(&mut t, &[200, 600, 1_400, 3_000, 6_200, 12_600, 25_400, 51_000]);
    let a_day: Vec<u64> = (102_200..24 * HOUR).step_by(60_000).collect();
    probes_at(&mut t, &a_day);
    assert_eq!(t.state(), State::ESTABLISHED);
    assert!(t.events.is_empty());
    t.peer(". 1:1 ack 1 win 1000");
    t.stack("PA 1:101 ack 1");
}

#[test]
fn unanswered_probes_end_the_connection_after_fifteen() {
    let mut t = closed_window(defaults());
    t.write(100);
    let sums = [200, 600, 1_400, 3_000, 6_200, 12_600, 25_400, 51_000, 102_200];
    for at in sums.into_iter().chain((1..=6).map(|minute| 102_200 + minute * 60_000)) {
        t.stack_at(at, ". 1:2 ack 1");
    }
    // Number 2, where the probe's byte would have gone, is beyond the window.
    times_out_with_a_reset_at(&mut t, 522_200, "RA 1:1 ack 1");
}

#[test]
fn one_answer_gives_the_probes_all_their_retries_back() {
    let mut t = closed_window(TcpConfig { retries2: 3, ..defaults() });
    t.write(100);
    for at in [200, 600, 1_400] {
        t.stack_at(at, ". 1:2 ack 1");
    }
    t.quiet_until(2_999);
    t.peer(". 1:1 ack 1 win 0");
    for at in [3_000, 6_200, 12_600] {
        t.stack_at(at, ". 1:2 ack 1");
    }
    times_out_with_a_reset_at(&mut t, 25_400, "RA 1:1 ack 1");
}

#[test]
fn an_orphans_unanswered_probes_end_with_orphan_retries() {
    let mut t = closed_window(TcpConfig { orphan_retries: 2, ..defaults() });
    t.write(100);
    t.close();
    t.stack_at(200, ". 1:2 ack 1");
    t.stack_at(600, ". 1:2 ack 1");
    t.stack_at(1_400, "RA 1:1 ack 1");
    t.assert_empty();
    assert!(t.events.is_empty(), "nobody is there to be told");
}

#[test]
fn when_the_window_opens_probing_stops_and_what_the_probe_carried_goes_again() {
    let mut t = closed_window(defaults());
    t.write(100);
    probes_at(&mut t, &[200, 600]);
    t.quiet_until(1_000);
    t.peer(". 1:1 ack 1 win 65535");
    t.stack("PA 1:101 ack 1");
    assert_eq!(t.timers(), [("retransmit", 200)]);
    t.peer(". 1:1 ack 101");
    assert_eq!(t.timers(), []);
}

#[test]
fn the_next_closed_window_is_probed_from_the_first_interval_on() {
    let mut t = closed_window(defaults());
    t.write(100);
    probes_at(&mut t, &[200, 600]);
    t.peer(". 1:1 ack 1 win 65535");
    t.stack("PA 1:101 ack 1");
    t.peer(". 1:1 ack 101 win 0");
    t.write(100);
    t.stack_at(800, ". 101:102 ack 1");
    t.stack_at(1_200, ". 101:102 ack 1");
}

#[test]
fn a_peer_that_takes_the_probes_byte_is_probed_with_the_next_one() {
    let mut t = closed_window(defaults());
    t.write(100);
    t.stack_at(200, ". 1:2 ack 1");
    t.peer(". 1:1 ack 2 win 0");
    assert_eq!(t.timers(), [("persist", 200)]);
    t.stack_at(400, ". 2:3 ack 1");
    t.peer(". 1:1 ack 3 win 65535");
    t.stack("PA 3:101 ack 1");
}

#[test]
fn a_probe_that_delivers_the_last_byte_leaves_nothing_to_probe_for() {
    let mut t = closed_window(defaults());
    t.write(1);
    t.stack_at(200, "PA 1:2 ack 1");
    t.peer(". 1:1 ack 2 win 0");
    assert_eq!(t.timers(), []);
    t.quiet_until(HOUR);
    // What is written then waits for the timer as it did the first time.
    t.write(1);
    t.quiet();
    t.stack_at(HOUR + 200, "PA 2:3 ack 1");
}

//= docs/rfc/rfc9293.md#MUST-35
#[test]
fn a_window_that_closes_over_sent_data_is_probed_instead_of_retransmitted_into() {
    let mut t = Trace::established(defaults());
    t.write(2_920);
    t.stack(". 1:1461 ack 1");
    t.stack("PA 1461:2921 ack 1");
    t.peer(". 1:1 ack 1461 win 0");
    assert_eq!(t.timers(), [("retransmit", 200)]);
    t.stack_at(200, ". 1461:1462 ack 1");
    assert_eq!(t.timers(), [("persist", 400)]);
    t.peer(". 1:1 ack 1461 win 0");
    t.stack_at(600, ". 1461:1462 ack 1");
    t.peer(". 1:1 ack 1461 win 65535");
    t.stack("PA 1461:2921 ack 1");
    assert_eq!(t.connection().info().ssthresh, None, "that was no congestion");
}

#[test]
fn nothing_to_send_is_nothing_to_probe_for() {
    let mut t = closed_window(defaults());
    assert_eq!(t.timers(), []);
    t.quiet_until(24 * HOUR);
}

#[test]
fn a_fin_waits_for_the_window_like_data() {
    let mut t = closed_window(defaults());
    t.shutdown();
    t.quiet();
    assert_eq!(t.timers(), [("persist", 200)]);
    t.stack_at(200, "FA 1:1 ack 1");
    t.peer(". 1:1 ack 1 win 0");
    t.stack_at(600, "FA 1:1 ack 1");
    t.peer(". 1:1 ack 2 win 0");
    assert_eq!((t.state(), t.timers()), (State::FIN_WAIT_2, vec![]));
}

//= docs/rfc/rfc9293.md#MUST-60
#[test]
fn a_window_too_small_to_bother_is_used_when_the_timer_expires() {
    let mut t = Trace::established(defaults());
    t.peer(". 1:1 ack 1 win 100");
    t.write(300);
    t.quiet();
    assert_eq!(t.timers(), [("persist", 200)]);
    t.stack_at(200, ". 1:101 ack 1");
    t.peer(". 1:1 ack 101 win 65535");
    t.stack("PA 101:301 ack 1");
}

#[test]
fn our_acks_stay_inside_a_closed_window_while_it_is_probed() {
    let mut t = closed_window(TcpConfig { delayed_ack: ms(0), ..defaults() });
    t.write(100);
    t.stack_at(200, ". 1:2 ack 1");
    // The peer refused byte 1. An ACK with number 2 would be beyond its window, and not be looked at.
    t.peer("PA 1:101 ack 1 win 0");
    t.stack(". 1:1 ack 101");
    t.abort();
    t.stack("RA 1:1 ack 101");
}

#[test]
fn two_that_probe_each_other_learn_that_their_probes_were_taken() {
    let mut t = closed_window(TcpConfig { delayed_ack: ms(0), ..defaults() });
    t.write(100);
    t.stack_at(200, ". 1:2 ack 1");
    t.peer(". 1:2 ack 1 win 0");
    t.stack(". 1:1 ack 2");
    // The peer took our octet, does not know that we took its own, and has room now.
    t.peer(". 1:1 ack 2 win 1000");
    t.stack("PA 2:101 ack 2");
    t.peer(". 2:2 ack 101 win 1000");
    assert_eq!(t.timers(), []);
}

#[test]
fn who_did_not_probe_takes_no_ack_of_a_segment_before_the_window() {
    let mut t = Trace::established_with(TcpConfig { delayed_ack: ms(0), ..defaults() }, PEER_SYN, 1000);
    t.write(100);
    t.stack("PA 1:101 ack 1");
    t.peer(". 1:2 ack 1");
    t.stack(". 101:101 ack 2");
    t.peer(". 1:1 ack 101");
    t.stack(". 101:101 ack 2");
    assert_eq!(t.timers(), [("retransmit", 200)]);
}

#[test]
fn probes_are_no_retransmissions_for_the_application_nor_for_what_follows_them() {
    let mut t = closed_window(TcpConfig { retries1: 2, ..defaults() });
    t.write(100);
    probes_at(&mut t, &[200, 600, 1_400]);
    t.peer(". 1:1 ack 1 win 65535");
    t.stack("PA 1:101 ack 1");
    t.stack_at(1_600, "PA 1:101 ack 1");
    assert!(t.events.is_empty());
    t.stack_at(2_000, "PA 1:101 ack 1");
    assert_eq!(t.events.pop_front(), Some(Event::Retransmitting(t.id.unwrap())));
}

#[test]
fn a_window_that_closes_during_retransmission_is_probed_from_the_first_interval_on() {
    let mut t = Trace::established(defaults());
    t.write(100);
    t.stack("PA 1:101 ack 1");
    t.stack_at(200, "PA 1:101 ack 1");
    t.quiet_until(300);
    t.peer(". 1:1 ack 1 win 0");
    t.stack_at(600, ". 1:2 ack 1");
    // Twice the RTO, which is 400 ms since the retransmission.
    t.stack_at(1_400, ". 1:2 ack 1");
}

#[test]
fn a_probe_that_the_open_window_holds_is_repeated_as_data_are() {
    let mut t = Trace::established_with(TcpConfig { sack: true, ..defaults() }, "S 0:0 <mss 1460,sackOK>", 0);
    t.write(100);
    t.stack_at(200, ". 1:2 ack 1");
    // Reported and never acknowledged: Nagle's algorithm waits for it, and there is nothing to repeat.
    t.peer(". 1:1 ack 1 win 1000 <sack 1:2>");
    t.quiet();
    assert_eq!(t.timers(), [("persist", 200)]);
    t.stack_at(400, "PA 1:101 ack 1");
    assert_eq!(t.timers(), [("retransmit", 200)]);
    // The peer has forgotten what it reported (RFC 2018 section 8).
    t.stack_at(600, "PA 1:101 ack 1");
    assert_eq!(t.figure("reneging"), 1);
}
