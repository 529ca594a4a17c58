//! Congestion control and loss recovery as they show in segments: slow start, congestion avoidance, limited transmit,
//! fast retransmit and NewReno, timeouts (RFC 5681, 6582, 3042, 3465 and 6928; the timer itself is in timers/).

mod common;

use common::{Trace, ms, plain};
use tcp_proto::{State, TcpConfig};

/// Segments of every trace here carry so many bytes.
const SIZE: u32 = 1460;

/// The number at which segment `n` begins (the first is 0).
const fn at(n: u32) -> u32 {
    1 + n * SIZE
}

impl Trace {
    /// A trace that has a million bytes to send, its first ten segments on their way.
    fn sending() -> Trace {
        let mut t = Trace::established(plain());
        t.write(1_000_000);
        t.sends(0..10);
        t
    }

    /// The stack sends exactly these segments of the stream now.
    #[track_caller]
    fn sends(&mut self, segments: std::ops::Range<u32>) {
        for n in segments {
            self.stack(&format!(". {}:{} ack 1", at(n), at(n + 1)));
        }
        self.quiet();
    }

    /// The stack sends segment `n` at `ms`, and nothing else until then.
    #[track_caller]
    fn sends_at(&mut self, ms: u64, n: u32) {
        self.stack_at(ms, &format!(". {}:{} ack 1", at(n), at(n + 1)));
    }

    /// The peer acknowledges everything before segment `n`.
    fn acks(&mut self, n: u32) {
        self.peer(&format!(". 1:1 ack {}", at(n)));
    }

    /// Congestion window and threshold, in segments.
    fn congestion(&mut self) -> (f64, Option<f64>) {
        let info = self.connection().info();
        let segments = |bytes: u32| f64::from(bytes) / f64::from(SIZE);
        (segments(info.cwnd), info.ssthresh.map(segments))
    }
}

//= docs/rfc/rfc5681.md#3.1-window
//= docs/rfc/rfc6928.md#2-initial
//= docs/rfc/rfc5681.md#3.1-first-threshold
#[test]
fn a_connection_starts_with_ten_segments() {
    let mut t = Trace::sending();
    t.quiet_until(100);
    assert_eq!(t.congestion(), (10.0, None));
}

//= docs/rfc/rfc6928.md#2-syn-loss
#[test]
fn after_more_than_one_lost_syn_it_starts_with_one_segment_until_it_rests() {
    for lost in 0..4 {
        let mut t = Trace::connect(plain());
        t.stack("S 0:0 <mss 1460>");
        for n in 0..lost {
            t.stack_at(1000 * ((2 << n) - 1), "S 0:0 <mss 1460>");
        }
        t.peer("SA 0:0 ack 1 <mss 1460>");
        t.stack(". 1:1 ack 1");
        t.write(1_000_000);
        t.sends(0..if lost > 1 { 1 } else { 10 });
    }
}

//= docs/rfc/rfc9293.md#MUST-1
//= docs/rfc/rfc9293.md#MUST-19
//= docs/rfc/rfc5681.md#3.1-slow-start
//= docs/rfc/rfc3465.md#2.2-slow-start
//= docs/rfc/rfc3465.md#2.3-limit
//= docs/rfc/rfc9293.md#SHLD-28
#[test]
fn in_slow_start_every_acknowledged_segment_lets_two_go() {
    let mut t = Trace::sending();
    for n in 0..10 {
        t.acks(n + 1);
        t.sends(10 + 2 * n..12 + 2 * n);
    }
    assert_eq!(t.congestion(), (20.0, None), "doubled in one round trip");
    // An ACK of two segments lets four go, one of twenty no more than those and two.
    t.acks(12);
    t.sends(30..34);
    t.acks(32);
    t.sends(34..56);
}

#[test]
fn a_window_that_is_not_used_does_not_grow() {
    let mut t = Trace::established(plain());
    for n in 0..20 {
        t.write(SIZE as usize);
        t.stack(&format!("PA {}:{} ack 1", at(n), at(n + 1)));
        t.acks(n + 1);
    }
    assert_eq!(t.congestion(), (10.0, None));
}

//= docs/rfc/rfc5681.md#4.1-idle
#[test]
fn after_an_idle_time_of_more_than_an_rto_sending_starts_over_with_ten_segments() {
    // The window grows by a segment with each of nine ACKs, and by two with that of all the rest.
    for (idle, burst) in [(200, 21), (201, 10)] {
        let mut t = Trace::established(plain());
        t.write((28 * SIZE) as usize);
        t.sends(0..10);
        for n in 0..8 {
            t.acks(n + 1);
            t.sends(10 + 2 * n..12 + 2 * n);
        }
        t.acks(9);
        t.stack(&format!(". {}:{} ack 1", at(26), at(27)));
        t.stack(&format!("PA {}:{} ack 1", at(27), at(28)));
        t.acks(28);
        t.quiet_until(idle);
        t.write(1_000_000);
        t.sends(28..28 + burst);
    }
}

//= docs/rfc/rfc5681.md#4.1-idle
#[test]
fn after_an_idle_time_a_window_smaller_than_ten_segments_stays_as_it_was() {
    let mut t = Trace::established(plain());
    t.write((10 * SIZE) as usize);
    for n in 0..9 {
        t.stack(&format!(". {}:{} ack 1", at(n), at(n + 1)));
    }
    t.stack(&format!("PA {}:{} ack 1", at(9), at(10)));
    t.sends_at(200, 0);
    t.acks(10);
    assert_eq!(t.congestion(), (2.0, Some(5.0)));
    t.quiet_until(2000);
    assert_eq!(t.congestion(), (2.0, Some(5.0)));
    t.write(1_000_000);
    t.sends(10..12);
    t.acks(11);
    t.sends(12..14);
}

/// Segment 0 is lost: the traces that follow go on from the first duplicate ACKs.
fn first_segment_lost() -> Trace {
    let mut t = Trace::sending();
    t.acks(0);
    t.sends(10..11);
    t.acks(0);
    t.sends(11..12);
    t
}

//= docs/rfc/rfc3042.md#2-new-data
//= docs/rfc/rfc3042.md#2-budget
//= docs/rfc/rfc3042.md#2-cwnd
//= docs/rfc/rfc5681.md#3.2-fast-retransmit
//= docs/rfc/rfc5681.md#3.1-ssthresh
//= docs/rfc/rfc5681.md#3.2-limited
#[test]
fn the_first_two_duplicate_acks_let_a_new_segment_go_each_and_the_third_repeats_the_lost_one() {
    let mut t = first_segment_lost();
    t.acks(0);
    t.sends(0..1);
    assert_eq!(t.congestion(), (5.0, Some(5.0)), "half of what was in flight before limited transmit");
}

//= docs/rfc/rfc5681.md#3.2-inflate
#[test]
fn during_fast_recovery_further_duplicate_acks_let_new_segments_go() {
    let mut t = first_segment_lost();
    t.acks(0);
    t.sends(0..1);
    // 12 segments are in flight and 5 allowed: the window is inflated by one with each, the third counting three.
    for _ in 4..8 {
        t.acks(0);
        t.quiet();
    }
    t.acks(0);
    t.sends(12..13);
    t.acks(0);
    t.sends(13..14);
}

//= docs/rfc/rfc5681.md#3.2-deflate
//= docs/rfc/rfc6582.md#3.2-full
#[test]
fn the_ack_of_everything_ends_fast_recovery_with_half_the_window() {
    let mut t = first_segment_lost();
    t.acks(0);
    t.sends(0..1);
    for _ in 4..=8 {
        t.acks(0);
    }
    t.stack(&format!(". {}:{} ack 1", at(12), at(13)));
    t.acks(12);
    // One segment is in flight: no more than a burst of one over it leaves at once (RFC 6582 section 3.2, step 3).
    assert_eq!(t.congestion(), (2.0, Some(5.0)));
    t.sends(13..14);
    t.acks(13);
    t.sends(14..16);
}

//= docs/rfc/rfc6582.md#3.2-partial
#[test]
fn a_partial_ack_repeats_the_next_lost_segment_at_once() {
    let mut t = first_segment_lost();
    t.acks(0);
    t.sends(0..1);
    // Segments 3 and 7 are lost as well: each partial ACK shows the next one.
    t.acks(3);
    t.sends(3..4);
    t.acks(7);
    t.sends(7..8);
    assert_eq!(t.congestion().1, Some(5.0), "all of it is one loss");
    t.acks(12);
    assert_eq!(t.congestion(), (2.0, Some(5.0)));
    t.sends(12..14);
}

//= docs/rfc/rfc8985.md#4-sack
#[test]
fn a_segment_lost_again_during_fast_recovery_waits_for_the_timer_that_its_repetition_started() {
    let mut t = first_segment_lost();
    t.quiet_until(100);
    t.acks(0);
    t.sends(0..1);
    t.sends_at(300, 0);
    assert_eq!(t.congestion().0, 1.0);
}

//= docs/rfc/rfc9293.md#3.10.7.4-5-ESTABLISHED-old
//= docs/rfc/rfc5681.md#2-duplicate
#[test]
fn acks_that_say_anything_else_are_no_duplicates() {
    let mut t = Trace::sending();
    for win in [60_000, 50_000, 60_000, 50_000] {
        t.peer(&format!(". 1:1 ack 1 win {win}"));
        t.quiet();
    }
    for n in 0..4 {
        t.peer(&format!("PA {}:{} ack 1 win 50000", 1 + 10 * n, 11 + 10 * n));
        t.stack(&format!(". {}:{} ack {}", at(10), at(10), 11 + 10 * n));
    }
    t.quiet();
}

#[test]
fn two_duplicate_acks_and_progress_are_reordering_and_no_loss() {
    let mut t = first_segment_lost();
    t.acks(3);
    assert_eq!(t.congestion(), (12.0, None), "slow start went on");
    t.sends(12..15);
}

//= docs/rfc/rfc9293.md#MUST-19
//= docs/rfc/rfc5681.md#3.1-avoidance
//= docs/rfc/rfc3465.md#2.1-avoidance
#[test]
fn in_congestion_avoidance_a_window_of_acks_lets_one_segment_more_go() {
    let mut t = first_segment_lost();
    t.acks(0);
    t.sends(0..1);
    t.acks(12);
    t.sends(12..14);
    // Slow start takes the window from 2 back to the threshold of 5.
    let mut next = 14;
    for n in 13..16 {
        t.acks(n);
        t.sends(next..next + 2);
        next += 2;
    }
    assert_eq!(t.congestion(), (5.0, Some(5.0)));
    // From there on it grows by a segment per window: after 5 ACKs, then after 6.
    let mut acked = 15;
    for window in 5..9 {
        for ack in 1..=window {
            acked += 1;
            t.acks(acked);
            let more = if ack == window { 2 } else { 1 };
            t.sends(next..next + more);
            next += more;
        }
        assert_eq!(t.congestion().0, f64::from(window + 1));
    }
}

//= docs/rfc/rfc5681.md#3.1-loss-window
#[test]
fn a_timeout_goes_back_to_the_first_unacknowledged_segment_and_starts_slowly() {
    let mut t = Trace::sending();
    t.sends_at(200, 0);
    assert_eq!(t.congestion(), (1.0, Some(5.0)));
    t.acks(1);
    t.sends(1..3);
    t.acks(2);
    t.sends(3..5);
    // The peer had segments 3 to 9 already: its ACK jumps, and one segment is all that the window grows by.
    t.acks(10);
    assert_eq!(t.congestion(), (4.0, Some(5.0)));
    t.sends(10..14);
}

//= docs/rfc/rfc6582.md#3.2-timeout
//= docs/rfc/rfc6582.md#3.2-enter
#[test]
fn duplicate_acks_after_a_timeout_are_of_what_it_repeated_and_mean_no_loss() {
    let mut t = Trace::sending();
    t.sends_at(200, 0);
    t.acks(1);
    t.sends(1..3);
    for _ in 0..5 {
        t.acks(1);
        t.quiet();
    }
    assert_eq!(t.congestion().1, Some(5.0));
}

//= docs/rfc/rfc6582.md#3.2-enter
#[test]
fn duplicate_acks_of_what_a_timeout_repeated_needlessly_mean_no_loss_until_more_is_acknowledged() {
    let mut t = Trace::sending();
    t.sends_at(200, 0);
    // Everything had arrived; the ACKs were late.
    for (n, next) in [(1, 1), (2, 3), (3, 5), (4, 7)] {
        t.acks(n);
        t.sends(next..next + 2);
    }
    t.acks(10);
    t.sends(10..16);
    // What was repeated arrives again.
    for _ in 1..9 {
        t.acks(10);
        t.quiet();
    }
    assert_eq!(t.congestion(), (6.0, Some(5.0)));
    // From the next ACK on duplicates tell of a loss again.
    t.acks(11);
    t.sends(16..17);
    for new in 17..19 {
        t.acks(11);
        t.sends(new..new + 1);
    }
    t.acks(11);
    t.sends(11..12);
}

//= docs/rfc/rfc5681.md#3.1-once
#[test]
fn a_second_timeout_of_the_same_data_does_not_halve_the_threshold_again() {
    let mut t = Trace::established(TcpConfig { retries1: 5, ..plain() });
    t.write(1_000_000);
    t.sends(0..10);
    t.sends_at(200, 0);
    t.sends_at(600, 0);
    t.sends_at(1400, 0);
    assert_eq!(t.congestion(), (1.0, Some(5.0)));
}

#[test]
fn a_timeout_joins_small_segments_into_full_ones() {
    let mut t = Trace::established(TcpConfig { nodelay: true, ..plain() });
    for n in 0..20 {
        t.write(100);
        t.stack(&format!("PA {}:{} ack 1", 1 + 100 * n, 101 + 100 * n));
    }
    t.stack_at(200, ". 1:1461 ack 1");
    t.peer(". 1:1 ack 2001");
    t.quiet();
}

#[test]
fn the_fin_is_repeated_like_data() {
    let mut t = Trace::established(plain());
    t.write(2 * SIZE as usize);
    t.close();
    t.stack(&format!(". {}:{} ack 1", at(0), at(1)));
    t.stack(&format!("FPA {}:{} ack 1", at(1), at(2)));
    t.sends_at(200, 0);
    t.acks(1);
    t.stack(&format!("FPA {}:{} ack 1", at(1), at(2)));
    t.peer(&format!("FA 1:1 ack {}", at(2) + 1));
    t.stack(&format!(". {0}:{0} ack 2", at(2) + 1));
    assert_eq!(t.state(), State::TIME_WAIT);
}

//= docs/rfc/rfc5681.md#3.1-ssthresh
#[test]
fn fast_retransmit_works_on_the_peers_window_and_not_beyond() {
    let mut t = Trace::established_with(plain(), "S 0:0 <mss 1460>", 4 * SIZE as u16);
    t.write(100_000);
    t.sends(0..4);
    for duplicate in 1..=3 {
        t.peer(&format!(". 1:1 ack 1 win {}", 4 * SIZE));
        t.sends(if duplicate == 3 { 0..1 } else { 0..0 });
    }
    for _ in 0..10 {
        t.peer(&format!(". 1:1 ack 1 win {}", 4 * SIZE));
        t.quiet();
    }
    t.peer(&format!(". 1:1 ack {} win {}", at(4), 4 * SIZE));
    // Half of four is the smallest threshold there is: two segments, of which one is allowed over none in flight.
    assert_eq!(t.congestion(), (2.0, Some(2.0)));
    t.sends(4..6);
}

#[test]
fn a_delayed_repeat_is_no_reason_to_repeat_more() {
    let mut t = Trace::established(TcpConfig { min_rto: ms(1000), ..plain() });
    t.write(3 * SIZE as usize);
    t.stack(&format!(". {}:{} ack 1", at(0), at(1)));
    t.stack(&format!(". {}:{} ack 1", at(1), at(2)));
    t.stack(&format!("PA {}:{} ack 1", at(2), at(3)));
    t.acks(3);
    for _ in 0..5 {
        t.acks(3);
        t.quiet();
    }
    t.write(10);
    t.stack(&format!("PA {}:{} ack 1", at(3), at(3) + 10));
}

/// A trace like [`Trace::sending`] whose numbers start over at zero in its fourth segment.
fn sending_across_the_wrap() -> Trace {
    let mut probe = Trace::in_state(State::SYN_RCVD);
    probe.quiet();
    // Initial numbers grow by 250 a millisecond.
    let wait = u64::from((u32::MAX - 5000 - probe.our_isn) / 250);
    let mut t = Trace::listen(plain());
    t.quiet_until(wait);
    t.peer("S 0:0 <mss 1460>");
    t.stack("SA 0:0 ack 1 <mss 1460>");
    assert!((3 * SIZE..4 * SIZE).contains(&t.our_isn.wrapping_neg()), "{} is not before the wrap", t.our_isn);
    t.peer(". 1:1 ack 1");
    t.accept();
    t.write(1_000_000);
    t.sends(0..10);
    t
}

#[test]
fn losses_are_repaired_where_our_numbers_start_over() {
    let mut t = sending_across_the_wrap();
    for n in 0..2 {
        t.acks(0);
        t.sends(10 + n..11 + n);
    }
    t.acks(0);
    t.sends(0..1);
    t.acks(3);
    t.sends(3..4);
    t.acks(12);
    t.sends(12..14);
    let mut t = sending_across_the_wrap();
    let began = t.clock();
    t.acks(2);
    t.sends(10..14);
    t.sends_at(began + 200, 2);
    t.acks(3);
    t.sends(3..5);
    t.acks(14);
    t.sends(14..17);
}
