//! Tests of slow start, Reno, and what a loss that was none gives back.

use super::*;

const MSS: u32 = 1000;

fn acked(bytes: u32, in_flight: u32) -> Acked {
    let now = Instant::from_millis(0);
    Acked { bytes, in_flight, mss: MSS, una: SeqNum(0), next: SeqNum(0), now, rtt: None }
}

fn reno() -> Congestion {
    Congestion::new(CongestionAlgorithm::Reno, MSS, None)
}

#[test]
fn slow_start_doubles_per_round_trip_and_avoidance_adds_a_segment() {
    let mut reno = reno();
    assert_eq!((reno.window(), reno.threshold()), (10_000, None));
    for _ in 0..10 {
        reno.on_ack(&acked(MSS, reno.window()));
    }
    assert_eq!(reno.window(), 20_000);
    reno.on_loss(20_000, MSS);
    assert_eq!((reno.window(), reno.threshold()), (10_000, Some(10_000)));
    for _ in 0..10 {
        reno.on_ack(&acked(MSS, reno.window()));
    }
    assert_eq!(reno.window(), 11_000);
}

#[test]
fn an_ack_of_many_segments_adds_two_and_after_a_timeout_one() {
    let mut reno = reno();
    reno.on_ack(&acked(5 * MSS, 10 * MSS));
    assert_eq!(reno.window(), 12 * MSS);
    reno.on_timeout(12 * MSS, MSS, true);
    reno.on_ack(&acked(5 * MSS, MSS));
    assert_eq!(reno.window(), 2 * MSS);
}

#[test]
fn a_timeout_starts_over_and_a_second_one_does_not_halve_again() {
    let mut reno = reno();
    reno.on_timeout(10_000, MSS, true);
    assert_eq!((reno.window(), reno.threshold()), (MSS, Some(5_000)));
    reno.on_timeout(MSS, MSS, false);
    assert_eq!(reno.threshold(), Some(5_000));
}

#[test]
fn an_unused_window_does_not_grow() {
    for algorithm in [CongestionAlgorithm::Reno, CongestionAlgorithm::Cubic] {
        for threshold in [None, Some(5_000)] {
            let mut congestion = Congestion::new(algorithm, MSS, threshold);
            for _ in 0..100 {
                congestion.on_ack(&acked(100, 100));
            }
            assert_eq!(congestion.window(), 10_000, "{algorithm:?} {threshold:?}");
        }
    }
}

#[test]
fn cubic_keeps_seven_tenths() {
    let mut cubic = Congestion::new(CongestionAlgorithm::Cubic, MSS, None);
    cubic.on_loss(10_000, MSS);
    assert_eq!((cubic.window(), cubic.threshold()), (7_000, Some(7_000)));
}

#[test]
fn a_loss_that_was_none_gives_back_what_it_took_without_a_burst() {
    let mut reno = reno();
    for _ in 0..40 {
        reno.on_ack(&acked(MSS, reno.window()));
    }
    let prior = reno.prior();
    reno.on_timeout(50 * MSS, MSS, true);
    reno.undo(prior, 45 * MSS, MSS);
    assert_eq!((reno.window(), reno.threshold()), (50 * MSS, None));
    reno.on_loss(50 * MSS, MSS);
    let prior = reno.prior();
    reno.on_timeout(25 * MSS, MSS, true);
    reno.undo(prior, 2 * MSS, MSS);
    assert_eq!((reno.window(), reno.threshold()), (12 * MSS, Some(25 * MSS)));
}

#[test]
fn the_initial_window_is_that_of_rfc_6928() {
    assert_eq!(initial_window(1460), 14_600);
    assert_eq!(initial_window(536), 5_360);
    assert_eq!(initial_window(8960), 17_920);
}
