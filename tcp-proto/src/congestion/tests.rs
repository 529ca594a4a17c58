//! Tests of slow start, Reno, and what a loss that was none gives back.

use alloc::format;

use super::*;

const MSS: u32 = 1000;

fn acked(bytes: u32, in_flight: u32) -> Acked {
    let now = Instant::from_millis(0);
    Acked { bytes, in_flight, mss: MSS, una: SeqNum(0), next: SeqNum(0), now, rtt: None, smoothed: Duration::ZERO }
}

fn reno() -> Congestion {
    Congestion::new(CongestionAlgorithm::Reno, initial_window(MSS), None)
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

//= docs/rfc/rfc3465.md#2.3-limit
//= docs/rfc/rfc3465.md#2.3-after-timeout
//= docs/rfc/rfc9406.md#4.2-limit
#[test]
fn an_ack_of_many_segments_adds_two_or_with_cubic_eight_and_after_a_timeout_one() {
    for (algorithm, limit) in [(CongestionAlgorithm::Reno, 2), (CongestionAlgorithm::Cubic, 8)] {
        let mut congestion = Congestion::new(algorithm, initial_window(MSS), None);
        congestion.on_ack(&acked(10 * MSS, 10 * MSS));
        assert_eq!(congestion.window(), (10 + limit) * MSS);
        congestion.on_timeout(12 * MSS, MSS, true);
        congestion.on_ack(&acked(10 * MSS, MSS));
        assert_eq!(congestion.window(), 2 * MSS);
    }
}

//= docs/rfc/rfc5681.md#3.1-once
//= docs/rfc/rfc5681.md#3.1-loss-window
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
            let mut congestion = Congestion::new(algorithm, initial_window(MSS), threshold);
            for _ in 0..100 {
                congestion.on_ack(&acked(100, 100));
            }
            assert_eq!(congestion.window(), 10_000, "{algorithm:?} {threshold:?}");
        }
    }
}

//= docs/rfc/rfc9293.md#MAY-18
//= docs/rfc/rfc9438.md#4.6-decrease
#[test]
fn cubic_keeps_seven_tenths() {
    let mut cubic = Congestion::new(CongestionAlgorithm::Cubic, initial_window(MSS), None);
    cubic.on_loss(10_000, MSS);
    assert_eq!((cubic.window(), cubic.threshold()), (7_000, Some(7_000)));
}

//= docs/rfc/rfc9438.md#4.8-timeout
//= docs/rfc/rfc9438.md#4.6-decrease
#[test]
fn after_a_timeout_cubic_starts_over_towards_seven_tenths() {
    let mut cubic = Congestion::new(CongestionAlgorithm::Cubic, initial_window(MSS), None);
    cubic.on_timeout(10_000, MSS, true);
    assert_eq!((cubic.window(), cubic.threshold()), (MSS, Some(7_000)));
    cubic.on_timeout(2_000, MSS, true);
    assert_eq!(cubic.threshold(), Some(2 * MSS));
}

//= docs/rfc/rfc9438.md#4.9-spurious
#[test]
fn for_cubic_a_loss_that_was_none_gives_back_the_peak_too() {
    let mut cubic = Congestion::new(CongestionAlgorithm::Cubic, 50 * MSS, None);
    cubic.on_loss(50 * MSS, MSS);
    let prior = cubic.prior();
    cubic.on_loss(30 * MSS, MSS);
    assert!(format!("{:?}", cubic.avoidance).contains("peak: 25500"));
    cubic.undo(prior, 30 * MSS, MSS);
    assert_eq!(format!("{:?}", cubic.avoidance), format!("{:?}", prior.avoidance));
    assert_eq!((cubic.window(), cubic.threshold()), (35 * MSS, Some(35 * MSS)));
}

/// Ten rounds of slow start whose round trips get longer by an eighth each; whether it is over.
fn queues_build(algorithm: CongestionAlgorithm, threshold: Option<u32>) -> Option<u32> {
    let mut congestion = Congestion::new(algorithm, initial_window(MSS), threshold);
    for round in 0..10 {
        for ack in 0..10 {
            congestion.on_ack(&Acked {
                una: SeqNum(10_000 * round + 1000 * ack),
                next: SeqNum(10_000 * (round + 1) + 1000 * ack),
                rtt: Some(Duration::from_millis(50 + 20 * u64::from(round))),
                ..acked(MSS, u32::MAX >> 1)
            });
        }
    }
    congestion.threshold()
}

//= docs/rfc/rfc9406.md#4.3-once
//= docs/rfc/rfc9438.md#4.10-slow-start
#[test]
fn cubics_first_slow_start_ends_when_queues_build_and_no_other_does() {
    assert!(queues_build(CongestionAlgorithm::Cubic, None).is_some());
    assert_eq!(queues_build(CongestionAlgorithm::Reno, None), None);
    assert_eq!(queues_build(CongestionAlgorithm::Cubic, Some(1 << 29)), Some(1 << 29), "not after a loss");
}

//= docs/rfc/rfc4015.md#3.4-restore
//= docs/rfc/rfc4015.md#3.4-no-burst
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

//= docs/rfc/rfc6928.md#2-initial
#[test]
fn the_initial_window_is_that_of_rfc_6928() {
    assert_eq!(initial_window(1460), 14_600);
    assert_eq!(initial_window(536), 5_360);
    assert_eq!(initial_window(8960), 17_920);
}

//= docs/rfc/rfc5681.md#3.1-avoidance
#[test]
fn acks_that_arrive_together_count_for_congestion_avoidance_like_others() {
    for algorithm in [CongestionAlgorithm::Reno, CongestionAlgorithm::Cubic] {
        let mut together = Congestion::new(algorithm, 10 * MSS, Some(5 * MSS));
        let mut apart = together.clone();
        for (congestion, step) in [(&mut together, MSS), (&mut apart, 0)] {
            congestion.on_sent(10 * MSS, SeqNum(0), SeqNum(10_000), MSS);
            for ack in 0..10 {
                congestion.on_ack(&acked(MSS, 10 * MSS - ack * step));
            }
        }
        assert!(apart.window() > 10 * MSS, "{algorithm:?}");
        assert_eq!(together.window(), apart.window(), "{algorithm:?}");
    }
}
