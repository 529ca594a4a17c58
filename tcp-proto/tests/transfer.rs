//! Data in both directions as long as nothing is lost: segment sizes, options, reassembly, ACKs, PSH, Nagle
//! (RFC 9293 sections 3.7, 3.8.6.3, 3.10.7.4 and RFC 7323). Windows are in window.rs, losses in recovery.rs.

mod common;

use common::{Seg, Trace, ms, plain, stream};
use tcp_proto::{Event, State, TcpConfig};

// Segment sizes.

//= docs/rfc/rfc9293.md#MUST-14
//= docs/rfc/rfc9293.md#MUST-16
//= docs/rfc/rfc9293.md#MUST-65
//= docs/rfc/rfc9293.md#SHLD-28
#[test]
fn segments_are_as_large_as_the_peer_takes_and_the_link_carries() {
    for (peers_mss, size) in [(536, 536), (1000, 1000), (1460, 1460), (9000, 1460), (1, 64)] {
        let mut t = Trace::established_with(plain(), &format!("S 0:0 <mss {peers_mss}>"), 65_535);
        t.write(2 * size);
        t.stack(&format!(". 1:{} ack 1", 1 + size));
        t.stack(&format!("PA {}:{} ack 1", 1 + size, 1 + 2 * size));
        t.quiet();
    }
}

//= docs/rfc/rfc9293.md#MUST-15
#[test]
fn a_peer_that_says_no_mss_gets_536_bytes() {
    let mut t = Trace::established_with(plain(), "S 0:0", 65_535);
    t.write(2 * 536);
    t.stack(". 1:537 ack 1");
    t.stack("PA 537:1073 ack 1");
}

#[test]
fn the_mss_we_announce_can_be_capped_and_does_not_limit_what_we_send() {
    let mut t = Trace::listen(TcpConfig { mss: Some(500), ..plain() });
    t.peer("S 0:0 <mss 1460>");
    t.stack("SA 0:0 ack 1 <mss 500>");
    t.peer(". 1:1 ack 1");
    t.accept();
    t.write(1460);
    t.stack("PA 1:1461 ack 1");
}

//= docs/rfc/rfc9293.md#MUST-61
#[test]
fn the_last_segment_of_what_is_queued_carries_psh() {
    let mut t = Trace::established(plain());
    t.write(3000);
    t.stack(". 1:1461 ack 1");
    t.stack(". 1461:2921 ack 1");
    t.quiet();
    t.peer(". 1:1 ack 2921");
    t.stack("PA 2921:3001 ack 1");
    t.peer(". 1:1 ack 3001");
    t.write(1460);
    t.stack("PA 3001:4461 ack 1");
}

// Nagle's algorithm.

//= docs/rfc/rfc9293.md#SHLD-7
//= docs/rfc/rfc9293.md#SHLD-27
//= docs/rfc/rfc9293.md#MUST-60
//= docs/rfc/rfc9293.md#MAY-16
#[test]
fn with_nagle_a_small_segment_waits_until_everything_before_it_is_acknowledged() {
    let mut t = Trace::established(plain());
    t.write(10);
    t.stack("PA 1:11 ack 1");
    t.write(10);
    t.write(10);
    t.quiet_until(100);
    t.peer(". 1:1 ack 11");
    t.stack("PA 11:31 ack 1");
    t.quiet();
}

//= docs/rfc/rfc9293.md#SHLD-27
#[test]
fn with_nagle_a_full_segment_waits_for_nothing() {
    let mut t = Trace::established(plain());
    t.write(10);
    t.stack("PA 1:11 ack 1");
    t.write(1459);
    t.quiet();
    t.write(1);
    t.stack("PA 11:1471 ack 1");
    t.write(5);
    t.quiet();
    t.peer(". 1:1 ack 1471");
    t.stack("PA 1471:1476 ack 1");
}

//= docs/rfc/rfc9293.md#MUST-17
#[test]
fn without_nagle_every_write_leaves_at_once() {
    let mut t = Trace::established(TcpConfig { nodelay: true, ..plain() });
    for i in 0..5 {
        t.write(10);
        t.stack(&format!("PA {}:{} ack 1", 1 + 10 * i, 11 + 10 * i));
    }
}

//= docs/rfc/rfc9293.md#MUST-17
#[test]
fn nagle_can_be_switched_off_and_on_while_data_wait() {
    let mut t = Trace::established(plain());
    t.write(10);
    t.stack("PA 1:11 ack 1");
    t.write(10);
    t.quiet();
    t.connection().set_nodelay(true);
    t.stack("PA 11:21 ack 1");
    t.connection().set_nodelay(false);
    t.write(10);
    t.quiet();
}

// Reassembly and ACKs.

//= docs/rfc/rfc9293.md#3.10.7.4-7-ESTABLISHED
#[test]
fn segments_in_order_are_delivered_and_acknowledged() {
    let mut t = Trace::established(plain());
    t.peer(". 1:1461 ack 1");
    t.stack(". 1:1 ack 1461");
    t.peer("PA 1461:2000 ack 1");
    t.stack(". 1:1 ack 2000");
    assert_eq!(t.read(10_000), 1999);
    assert_eq!(t.read(10_000), 0);
    assert_eq!(t.stack.buffer_memory(), 0);
}

//= docs/rfc/rfc9293.md#SHLD-31
//= docs/rfc/rfc9293.md#MAY-13
//= docs/rfc/rfc5681.md#4.2-out-of-order
#[test]
fn every_out_of_order_segment_draws_one_duplicate_ack_and_the_missing_one_acknowledges_all() {
    let mut t = Trace::established(plain());
    for i in [1, 3, 2, 4] {
        t.peer(&format!(". {}:{} ack 1", 1 + 100 * i, 101 + 100 * i));
        t.stack(". 1:1 ack 1");
    }
    assert_eq!(t.read(1000), 0);
    t.peer(". 1:101 ack 1");
    t.stack(". 1:1 ack 501");
    assert_eq!(t.read(1000), 500);
}

#[test]
fn out_of_order_segments_of_one_batch_draw_a_duplicate_ack_each() {
    let mut t = Trace::established(plain());
    for i in 1..=3 {
        t.peer_more(&Seg::parse(&format!(". {}:{} ack 1", 1 + 100 * i, 101 + 100 * i)));
    }
    for _ in 0..3 {
        t.stack(". 1:1 ack 1");
    }
    t.quiet();
}

//= docs/rfc/rfc9293.md#MUST-58
//= docs/rfc/rfc9293.md#MUST-59
#[test]
fn a_batch_that_fills_its_own_gap_draws_a_single_ack_that_no_peer_takes_for_a_loss() {
    let mut t = Trace::established(plain());
    for i in [1, 2, 3, 4, 0] {
        t.peer_more(&Seg::parse(&format!(". {}:{} ack 1", 1 + 100 * i, 101 + 100 * i)));
    }
    t.stack(". 1:1 ack 501");
    t.quiet();
}

//= docs/rfc/rfc9293.md#SHLD-31
//= docs/rfc/rfc9293.md#3.10.7.4-1-trim
#[test]
fn overlapping_segments_are_joined_whichever_way_they_overlap() {
    let mut t = Trace::established(plain());
    for (segment, ack) in [
        (". 101:301 ack 1", 1),   // behind a gap
        (". 51:151 ack 1", 1),    // overlaps its left end
        (". 251:401 ack 1", 1),   // overlaps its right end
        (". 151:201 ack 1", 1),   // lies inside
        (". 501:601 ack 1", 1),   // behind another gap
        (". 41:701 ack 1", 1),    // covers everything there is
        (". 1:61 ack 1", 701),    // fills the gap, and overlaps
        (". 651:801 ack 1", 801), // begins before RCV.NXT
        (". 1:801 ack 1", 801),   // nothing new at all
    ] {
        t.peer(segment);
        t.stack(&format!(". 1:1 ack {ack}"));
    }
    assert_eq!(t.read(10_000), 800);
}

#[test]
fn old_data_draw_an_ack_and_are_not_delivered_again() {
    let mut t = Trace::established(plain());
    t.peer("PA 1:101 ack 1");
    t.stack(". 1:1 ack 101");
    for _ in 0..3 {
        t.peer("PA 1:101 ack 1");
        t.stack(". 1:1 ack 101");
    }
    assert_eq!((t.read(1000), t.read(1000)), (100, 0));
    assert_eq!(t.drops("out_of_window"), 3);
}

//= docs/rfc/rfc9293.md#3.10.7.4-7-piggyback
#[test]
fn an_ack_rides_on_data_that_are_ready_and_else_every_second_full_segment_draws_one() {
    let mut t = Trace::established(TcpConfig { delayed_ack: ms(40), ..plain() });
    t.peer("PA 1:101 ack 1");
    t.quiet();
    t.write(10);
    t.stack("PA 1:11 ack 101");
    t.quiet_until(100);
    t.peer(". 101:1561 ack 11");
    t.quiet();
    t.peer(". 1561:3021 ack 11");
    t.stack(". 11:11 ack 3021");
    t.quiet_until(200);
}

#[test]
fn data_that_come_with_the_last_ack_of_the_handshake_are_delivered() {
    let mut t = Trace::in_state(State::SYN_RCVD);
    t.peer("PA 1:101 ack 1");
    t.stack(". 1:1 ack 101");
    t.accept();
    assert_eq!(t.read(1000), 100);
}

#[test]
fn a_request_and_a_close_that_come_with_the_last_ack_of_the_handshake_are_delivered() {
    let mut t = Trace::in_state(State::SYN_RCVD);
    t.peer("FPA 1:101 ack 1");
    t.stack(". 1:1 ack 102");
    assert_eq!(t.state(), State::CLOSE_WAIT);
    t.accept();
    assert_eq!(t.read(1000), 100);
    assert!(t.at_end());
}

//= docs/rfc/rfc9293.md#3.10.7.3-4-text
#[test]
fn data_and_fin_on_a_syn_ack_are_delivered() {
    let mut t = Trace::in_state(State::SYN_SENT);
    let syn_ack = Seg { payload: stream(1, 5), ..Seg::parse("SFA 0:0 ack 1 <mss 1460>") };
    t.peer_seg(&syn_ack);
    t.stack(". 1:1 ack 7");
    assert_eq!((t.state(), t.read(10)), (State::CLOSE_WAIT, 5));
}

#[test]
fn a_syn_ack_that_comes_again_is_acknowledged_again() {
    let mut t = Trace::in_state(State::SYN_SENT);
    t.peer("SA 0:0 ack 1 <mss 1460>");
    t.stack(". 1:1 ack 1");
    t.peer("SA 0:0 ack 1 <mss 1460>");
    t.stack(". 1:1 ack 1");
    t.quiet_until(1000);
    t.peer("SA 0:0 ack 1 <mss 1460>");
    t.stack(". 1:1 ack 1");
    assert_eq!(t.state(), State::ESTABLISHED);
}

#[test]
fn data_on_a_syn_are_left_to_be_sent_again() {
    let mut t = Trace::listen(plain());
    t.peer_seg(&Seg { payload: stream(1, 5), ..Seg::parse("S 0:0 <mss 1460>") });
    t.stack("SA 0:0 ack 1 <mss 1460>");
    t.peer("PA 1:6 ack 1");
    t.stack(". 1:1 ack 6");
    t.accept();
    assert_eq!(t.read(10), 5);
}

#[test]
fn urgent_data_are_delivered_in_line() {
    let mut t = Trace::established(plain());
    t.peer("PAU 1:11 ack 1");
    t.stack(". 1:1 ack 11");
    assert_eq!(t.read(100), 10);
}

//= docs/rfc/rfc9293.md#3.10.7.4-5-no-ACK
#[test]
fn a_segment_without_ack_is_dropped() {
    let mut t = Trace::established(plain());
    t.peer("P 1:11");
    t.quiet();
    assert_eq!((t.read(100), t.drops("meaningless")), (0, 1));
}

//= docs/rfc/rfc9293.md#3.10.7.4-5-range
//= docs/rfc/rfc9293.md#3.10.7.4-5-ESTABLISHED-unsent
//= docs/rfc/rfc5961.md#5.2-ack
#[test]
fn an_ack_of_what_was_never_sent_draws_an_ack_and_its_segment_is_dropped() {
    let mut t = Trace::established(plain());
    t.write(10);
    t.stack("PA 1:11 ack 1");
    t.peer("PA 1:5 ack 12");
    t.stack(". 11:11 ack 1");
    assert_eq!((t.read(100), t.drops("bad_ack")), (0, 1));
    t.stack_at(200, "PA 1:11 ack 1");
}

//= docs/rfc/rfc9293.md#MAY-12
//= docs/rfc/rfc9293.md#3.10.7.4-5-range
//= docs/rfc/rfc5961.md#5.2-ack
#[test]
fn an_ack_older_than_any_window_the_peer_offered_is_taken_for_forged() {
    let mut t = Trace::established_with(plain(), "S 0:0 <mss 1000>", 1000);
    t.peer("PA 1:11 ack 4294966000 win 1000");
    t.stack(". 1:1 ack 1");
    assert_eq!((t.read(100), t.drops("bad_ack")), (0, 1));
    // An ACK that is merely old is harmless, and what comes with it counts.
    t.peer("PA 1:11 ack 0 win 1000");
    t.stack(". 1:1 ack 11");
    assert_eq!(t.read(100), 10);
}

// Timestamps.

/// Established with timestamps: ours stand at 1000000 (the trace's clock), the peer's at 500.
fn with_timestamps() -> Trace {
    let config = TcpConfig { timestamps: true, ..plain() };
    Trace::established_with(config, "S 0:0 <mss 1460,ts 500 0>", 65_535)
}

//= docs/rfc/rfc9293.md#MUST-5
//= docs/rfc/rfc7323.md#3.2-agreed
//= docs/rfc/rfc7323.md#5.4-clock
#[test]
fn timestamps_show_our_clock_and_echo_the_peers_and_cost_twelve_bytes() {
    let mut t = with_timestamps();
    t.quiet_until(70);
    t.write(1448);
    t.stack("PA 1:1449 ack 1 <ts 1000070 500>");
    t.quiet_until(90);
    t.peer("PA 1:11 ack 1449 <ts 520 1000070>");
    t.stack(". 1449:1449 ack 11 <ts 1000090 520>");
    t.close_read();
    t.stack("FA 1449:1449 ack 11 <ts 1000090 520>");
}

impl Trace {
    /// Reads everything and closes.
    fn close_read(&mut self) {
        while self.read(10_000) > 0 {}
        self.close();
    }
}

//= docs/rfc/rfc7323.md#3.2-rst
#[test]
fn a_reset_carries_timestamps_too() {
    let config = TcpConfig { timestamps: true, ..plain() };
    let mut t = Trace::established_with(config, "S 0:0 <mss 1460,ts 500 0>", 65_535);
    t.abort();
    t.stack("RA 1:1 ack 1 <ts 1000000 500>");
}

//= docs/rfc/rfc7323.md#4.3-echo
#[test]
fn the_timestamp_of_the_segment_that_moved_the_window_is_echoed_not_of_one_behind_a_gap() {
    let mut t = with_timestamps();
    t.peer(". 101:201 ack 1 <ts 510 1000000>");
    t.stack(". 1:1 ack 1 <ts 1000000 500>");
    t.peer(". 1:101 ack 1 <ts 505 1000000>");
    t.stack(". 1:1 ack 201 <ts 1000000 505>");
    t.peer(". 201:301 ack 1 <ts 511 1000000>");
    t.stack(". 1:1 ack 301 <ts 1000000 511>");
}

//= docs/rfc/rfc7323.md#5.3-paws
#[test]
fn a_segment_with_an_older_timestamp_is_dropped_and_draws_an_ack() {
    let mut t = with_timestamps();
    t.peer("PA 1:11 ack 1 <ts 600 1000000>");
    t.stack(". 1:1 ack 11 <ts 1000000 600>");
    t.peer("PA 11:21 ack 1 <ts 599 1000000>");
    t.stack(". 1:1 ack 11 <ts 1000000 600>");
    assert_eq!((t.drops("old_timestamp"), t.read(100)), (1, 10));
    t.peer("PA 11:21 ack 1 <ts 600 1000000>");
    t.stack(". 1:1 ack 21 <ts 1000000 600>");
}

#[test]
fn a_timestamp_may_wrap() {
    let config = TcpConfig { timestamps: true, ..plain() };
    let mut t = Trace::established_with(config, "S 0:0 <mss 1460,ts 4294967290 0>", 65_535);
    t.peer("PA 1:11 ack 1 <ts 5 1000000>");
    t.stack(". 1:1 ack 11 <ts 1000000 5>");
    t.peer("PA 11:21 ack 1 <ts 4294967295 1000000>");
    t.stack(". 1:1 ack 11 <ts 1000000 5>");
}

//= docs/rfc/rfc7323.md#5.2-rst
#[test]
fn a_reset_counts_whatever_its_timestamp() {
    for reset in ["R 1:1 <ts 1 0>", "R 1:1"] {
        let mut t = with_timestamps();
        t.peer(reset);
        assert_eq!(t.state(), State::CLOSED, "{reset}");
    }
}

//= docs/rfc/rfc7323.md#5.5-outdated
#[test]
fn after_24_idle_days_an_older_timestamp_proves_nothing() {
    let days = |n: u64| n * 24 * 3600 * 1000;
    for (idle, accepted) in [(days(24) - 1000, 0), (days(24), 10)] {
        let mut t = with_timestamps();
        t.quiet_until(idle);
        t.peer("PA 1:11 ack 1 <ts 400 1000000>");
        assert!(t.take().is_some());
        assert_eq!(t.read(100), accepted, "after {idle} ms");
    }
}

//= docs/rfc/rfc7323.md#3.2-no-abort
#[test]
fn a_segment_that_lacks_the_timestamp_that_was_agreed_is_taken() {
    // Against RFC 7323 section 3.2, with Linux: docs/decisions/0001.
    let mut t = with_timestamps();
    t.peer("PA 1:11 ack 1");
    t.stack(". 1:1 ack 11 <ts 1000000 500>");
    assert_eq!(t.read(100), 10);
    t.peer("S 7:7");
    t.stack(". 1:1 ack 11 <ts 1000000 500>");
}

//= docs/rfc/rfc7323.md#3.2-unagreed
#[test]
fn timestamps_that_were_not_agreed_are_not_sent_and_mean_nothing() {
    let mut t = Trace::established(plain());
    t.peer("PA 1:11 ack 1 <ts 600 1000000>");
    t.stack(". 1:1 ack 11");
    t.peer("PA 11:21 ack 1 <ts 5 1000000>");
    t.stack(". 1:1 ack 21");
    assert_eq!(t.read(100), 20);
}

// The application's side.

#[test]
fn a_full_send_buffer_takes_what_fits_and_the_writer_is_told_when_half_of_it_is_free() {
    let mut t = Trace::established(TcpConfig { send_buffer: 4000, ..plain() });
    t.events.clear();
    assert_eq!(t.connection().send(&stream(1, 5000)), 4000);
    assert_eq!((t.connection().send_room(), t.connection().send(b"x")), (0, 0));
    t.stack(". 1:1461 ack 1");
    t.stack(". 1461:2921 ack 1");
    t.peer(". 1:1 ack 1461");
    assert!(t.events.is_empty(), "2540 of 4000 bytes are still queued");
    t.peer(". 1:1 ack 2921");
    assert_eq!(t.events.pop_front(), Some(Event::Writable(t.id.unwrap())));
    assert_eq!(t.connection().send_room(), 2920);
    t.stack("PA 2921:4001 ack 1");
    t.peer(". 1:1 ack 4001");
    assert!(t.events.is_empty(), "told once");
    assert_eq!(t.stack.buffer_memory(), 0);
}
