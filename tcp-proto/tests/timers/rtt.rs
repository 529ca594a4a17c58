//! The RTT estimator: what the RTO is, and which segments tell (RFC 6298 sections 2 to 4, Karn's rule,
//! RFC 7323 section 4).

use tcp_proto::{RttEstimator, TcpConfig};

use crate::common::{Trace, ms};
use crate::{PEER_SYN, defaults, established_after, rto, srtt};

/// Writes a segment and has it acknowledged after `rtt` ms; `at` is the number of its first byte.
fn round_trip(t: &mut Trace, at: u32, rtt: u64) {
    t.write(100);
    t.stack(&format!("PA {at}:{} ack 1", at + 100));
    let end = t.clock() + rtt;
    t.quiet_until(end);
    t.peer(&format!(". 1:1 ack {}", at + 100));
}

//= docs/rfc/rfc9293.md#MUST-18
//= docs/rfc/rfc6298.md#2.2-first
//= docs/rfc/rfc6298.md#2.3-next
//= docs/rfc/rfc6298.md#2.3-gains
#[test]
fn the_rto_is_srtt_plus_four_times_the_variation() {
    let mut t = established_after(defaults(), 100);
    // RTTVAR = 50.
    assert_eq!((srtt(&mut t), rto(&mut t)), (Some(100), 300));
    round_trip(&mut t, 1, 180);
    // RTTVAR = 3/4 x 50 + 1/4 x 80 = 57.5; SRTT = 7/8 x 100 + 1/8 x 180 = 110.
    assert_eq!((srtt(&mut t), rto(&mut t)), (Some(110), 340));
    t.write(100);
    t.stack("PA 101:201 ack 1");
    t.stack_at(280 + 340, "PA 101:201 ack 1");
    t.stack_at(280 + 340 + 680, "PA 101:201 ack 1");
}

#[test]
fn with_the_textbooks_estimator_the_rto_is_twice_a_slow_average() {
    let mut t = established_after(TcpConfig { rtt_estimator: RttEstimator::Rfc793, ..defaults() }, 200);
    assert_eq!((srtt(&mut t), rto(&mut t)), (Some(200), 400));
    round_trip(&mut t, 1, 300);
    // 0.9 x 200 + 0.1 x 300.
    assert_eq!((srtt(&mut t), rto(&mut t)), (Some(210), 420));
    t.write(100);
    t.stack("PA 101:201 ack 1");
    t.stack_at(500 + 420, "PA 101:201 ack 1");
    t.stack_at(500 + 420 + 840, "PA 101:201 ack 1");
}

#[test]
fn min_rto_bounds_the_variation_term_so_that_a_steady_path_keeps_a_margin() {
    let mut t = established_after(defaults(), 100);
    for segment in 0..40 {
        round_trip(&mut t, 1 + 100 * segment, 100);
    }
    // Not max(200, 100 + nearly nothing): every ACK a little late would be taken for a loss.
    assert_eq!((srtt(&mut t), rto(&mut t)), (Some(100), 300));

    let mut t = established_after(TcpConfig { min_rto: ms(10), ..defaults() }, 100);
    for segment in 0..40 {
        round_trip(&mut t, 1 + 100 * segment, 100);
    }
    assert_eq!(rto(&mut t), 110);
}

#[test]
fn min_rto_is_the_textbooks_estimators_lower_bound_and_max_rto_the_upper() {
    let textbook = TcpConfig { rtt_estimator: RttEstimator::Rfc793, ..defaults() };
    let mut t = established_after(textbook.clone(), 50);
    assert_eq!(rto(&mut t), 200);
    let mut t = established_after(TcpConfig { max_rto: ms(500), initial_rto: ms(500), ..textbook }, 400);
    assert_eq!(rto(&mut t), 500);
}

//= docs/rfc/rfc9293.md#MUST-18
//= docs/rfc/rfc6298.md#3-karn
#[test]
fn karn_a_repeated_segment_is_no_sample_and_the_rto_stays_backed_off_until_there_is_one() {
    let mut t = established_after(defaults(), 100);
    t.write(100);
    t.stack("PA 1:101 ack 1");
    t.stack_at(400, "PA 1:101 ack 1");
    t.quiet_until(450);
    t.peer(". 1:1 ack 101");
    assert_eq!((srtt(&mut t), rto(&mut t)), (Some(100), 600), "no sample");
    // The next segment is lost as well: it is repeated after the RTO as it was, not after a fresh one.
    t.write(100);
    t.stack("PA 101:201 ack 1");
    t.stack_at(1_050, "PA 101:201 ack 1");
    t.peer(". 1:1 ack 201");
    assert_eq!((srtt(&mut t), rto(&mut t)), (Some(100), 1_200));
    // One that was sent once tells, and ends the backoff.
    round_trip(&mut t, 201, 100);
    assert_eq!((srtt(&mut t), rto(&mut t)), (Some(100), 300));
}

//= docs/rfc/rfc6298.md#3-karn
#[test]
fn karn_a_segment_repeated_because_of_duplicate_acks_is_no_sample_either() {
    let mut t = established_after(TcpConfig { nodelay: true, ..defaults() }, 100);
    for segment in 0..4 {
        t.write(100);
        t.stack(&format!("PA {}:{} ack 1", 1 + 100 * segment, 101 + 100 * segment));
    }
    t.quiet_until(250);
    for _ in 0..3 {
        t.peer(". 1:1 ack 1");
    }
    t.stack("PA 1:401 ack 1");
    t.peer(". 1:1 ack 401");
    assert_eq!((srtt(&mut t), rto(&mut t)), (Some(100), 300));
}

#[test]
fn a_probe_of_a_closed_window_is_no_sample() {
    let mut t = Trace::established_with(defaults(), PEER_SYN, 0);
    t.write(100);
    t.stack_at(200, ". 1:2 ack 1");
    t.quiet_until(500);
    t.peer(". 1:1 ack 2 win 0");
    assert_eq!((srtt(&mut t), rto(&mut t)), (Some(0), 200));
}

//= docs/rfc/rfc6298.md#3-once
#[test]
fn without_a_loss_one_segment_of_a_flight_is_timed_also_with_timestamps() {
    let mut t = Trace::listen(TcpConfig { window_scale: false, nodelay: true, ..TcpConfig::default() });
    t.peer("S 0:0 <mss 1460,ts 500 0>");
    t.stack("SA 0:0 ack 1 <mss 1460,ts 1000000 500>");
    t.peer(". 1:1 ack 1 <ts 500 1000000>");
    t.accept();
    for segment in ["1:101", "101:201"] {
        t.write(100);
        t.stack(&format!("PA {segment} ack 1 <ts 1000000 500>"));
    }
    t.quiet_until(80);
    t.peer(". 1:1 ack 101 <ts 501 1000000>");
    assert_eq!(srtt(&mut t), Some(10));
    t.quiet_until(160);
    t.peer(". 1:1 ack 201 <ts 502 1000000>");
    assert_eq!(srtt(&mut t), Some(10));
}

/// Established with timestamps and no round trip time; 100 bytes were sent at 0 ms and again at 200 ms.
fn repeated_with_timestamps() -> Trace {
    let mut t = Trace::listen(TcpConfig { window_scale: false, ..TcpConfig::default() });
    t.peer("S 0:0 <mss 1460,ts 500 0>");
    t.stack("SA 0:0 ack 1 <mss 1460,ts 1000000 500>");
    t.peer(". 1:1 ack 1 <ts 500 1000000>");
    t.accept();
    t.write(100);
    t.stack("PA 1:101 ack 1 <ts 1000000 500>");
    t.stack_at(200, "PA 1:101 ack 1 <ts 1000200 500>");
    t.quiet_until(350);
    assert_eq!((srtt(&mut t), rto(&mut t)), (Some(0), 400));
    t
}

#[test]
fn with_timestamps_the_ack_of_a_repeated_segment_is_a_sample_of_the_sending_that_it_echoes() {
    let mut t = repeated_with_timestamps();
    t.peer(". 1:1 ack 101 <ts 501 1000200>");
    // 150 ms: SRTT = 150 / 8, 4 x RTTVAR = 150 and min_rto more.
    assert_eq!((srtt(&mut t), rto(&mut t)), (Some(18), 218));

    let mut t = repeated_with_timestamps();
    t.peer(". 1:1 ack 101 <ts 501 1000000>");
    // 350 ms: SRTT = 350 / 8, 4 x RTTVAR = 350.
    assert_eq!((srtt(&mut t), rto(&mut t)), (Some(43), 393));
}

//= docs/rfc/rfc7323.md#4.1-sample
#[test]
fn an_echo_on_an_ack_of_nothing_new_is_no_sample() {
    let mut t = repeated_with_timestamps();
    t.peer(". 1:1 ack 1 <ts 501 1000200>");
    assert_eq!((srtt(&mut t), rto(&mut t)), (Some(0), 400));
}

#[test]
fn an_echo_of_what_our_clock_did_not_show_yet_is_no_sample() {
    let mut t = repeated_with_timestamps();
    t.peer(". 1:1 ack 101 <ts 501 1000351>");
    assert_eq!((srtt(&mut t), rto(&mut t)), (Some(0), 400));
}

//= docs/rfc/rfc6298.md#5.7-syn
#[test]
fn after_a_repeated_syn_the_rto_is_three_seconds_until_there_is_a_sample() {
    let mut t = Trace::connect(defaults());
    t.stack("S 0:0 <mss 1460>");
    t.stack_at(1_000, "S 0:0 <mss 1460>");
    t.peer("SA 0:0 ack 1 <mss 1460>");
    t.stack(". 1:1 ack 1");
    assert_eq!((srtt(&mut t), rto(&mut t)), (None, 3_000));
    t.write(100);
    t.stack("PA 1:101 ack 1");
    t.stack_at(4_000, "PA 1:101 ack 1");
    t.peer(". 1:1 ack 101");
    round_trip(&mut t, 101, 100);
    assert_eq!((srtt(&mut t), rto(&mut t)), (Some(100), 300));

    let mut t = Trace::listen(defaults());
    t.peer(PEER_SYN);
    t.stack("SA 0:0 ack 1 <mss 1460>");
    t.stack_at(1_000, "SA 0:0 ack 1 <mss 1460>");
    t.peer(". 1:1 ack 1");
    t.accept();
    assert_eq!((srtt(&mut t), rto(&mut t)), (None, 3_000));
}

#[test]
fn a_longer_initial_rto_is_not_cut_to_three_seconds() {
    let mut t = Trace::connect(TcpConfig { initial_rto: ms(5_000), ..defaults() });
    t.stack("S 0:0 <mss 1460>");
    t.stack_at(5_000, "S 0:0 <mss 1460>");
    t.peer("SA 0:0 ack 1 <mss 1460>");
    t.stack(". 1:1 ack 1");
    assert_eq!(rto(&mut t), 5_000);
}
