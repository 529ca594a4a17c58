//! What selective repair must bring: the bars of goodput, on simulated paths. The matrix itself is a snapshot; after a
//! change that is meant, `cargo xtask sim --goodput > tests/sim/goodput.txt` renews it.

use std::time::Duration;

use sim::faults::Way;
use sim::goodput::{Setting, goodput, matrix, model};
use tcp_proto::CongestionAlgorithm::{self, Cubic, Reno};

const RTT: Duration = Duration::from_millis(50);
const MINUTE: Duration = Duration::from_secs(60);

fn rate(congestion: CongestionAlgorithm, sack: bool, way: &Way) -> f64 {
    goodput(Setting { congestion, sack, rtt: RTT, window: 8 << 20 }, way, 6, MINUTE)
}

#[test]
fn at_one_percent_loss_sack_is_faster_than_newreno_and_as_fast_as_the_models_say() {
    let way = Way { loss: 100, ..Way::default() };
    let without = rate(Reno, false, &way);
    for congestion in [Reno, Cubic] {
        let with = rate(congestion, true, &way);
        let (gain, share) = (with / without, with / model(congestion, 0.01, RTT));
        println!("{}: {gain:.2} x NewReno, {share:.2} of the model", congestion.name());
        assert!(gain >= 1.1, "{congestion:?}: {gain}");
        assert!((0.8..=1.2).contains(&share), "{congestion:?}: {share}");
    }
}

#[test]
fn the_matrix_is_that_of_the_snapshot() {
    assert_eq!(matrix(), include_str!("../goodput.txt"));
}

#[test]
fn bursts_of_twenty_losses_cost_sack_a_third_of_what_they_cost_newreno() {
    let way = Way { volley: Some((20, Duration::from_secs(2))), ..Way::default() };
    let without = rate(Reno, false, &way);
    for congestion in [Reno, Cubic] {
        let gain = rate(congestion, true, &way) / without;
        println!("{}: {gain:.2} x NewReno", congestion.name());
        assert!(gain >= 3.0, "{congestion:?}: {gain}");
    }
}

#[test]
fn reordering_by_up_to_ten_places_costs_a_tenth_at_most() {
    let way = Way { displacement: 500, places: 10, ..Way::default() };
    for congestion in [Reno, Cubic] {
        let setting = Setting { congestion, sack: true, rtt: RTT, window: 256 << 10 };
        let share = goodput(setting, &way, 4, MINUTE) / goodput(setting, &Way::default(), 1, MINUTE);
        println!("{}: {share:.2} of the undisturbed rate", congestion.name());
        assert!(share >= 0.9, "{congestion:?}: {share}");
    }
}
