//! Goodput in the simulator: one bulk stream over a path whose bandwidth is no limit, so that loss, delay and the
//! algorithm decide. The matrix is loss x round trip x algorithm, with and without SACK, in a committed snapshot; next to
//! it what the algorithms' response functions predict (RFC 9438 section 5, and for Reno Mathis et al. 1997), and the
//! bars of what selective repair must bring.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use tcp_proto::{CongestionAlgorithm, TcpConfig};

use crate::World;
use crate::faults::{Faults, Way};
use crate::plan::{Ending, HostPlan, Opener, Plan, Script, Talk};

/// Payload of a full-sized segment of these runs, bytes.
pub const SEGMENT: f64 = 1448.0;
/// What is not counted: slow start.
const WARM_UP: Duration = Duration::from_secs(20);

/// How one stream is sent.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// The algorithm.
    pub congestion: CongestionAlgorithm,
    /// Whether losses are reported selectively.
    pub sack: bool,
    /// Round-trip time.
    pub rtt: Duration,
    /// Buffers of both sides, bytes: the most that is in flight.
    pub window: u32,
}

/// Goodput of a stream over `way` (its delay is half the setting's round trip), bytes per second: the mean of `seeds`
/// runs of `lasts` each.
#[must_use]
pub fn goodput(setting: Setting, way: &Way, seeds: u64, lasts: Duration) -> f64 {
    let run = |seed| {
        let mut world = World::unwatched(plan(setting, way, seed));
        world.run_for(WARM_UP);
        let before = world.heard(1, 0);
        world.run_for(WARM_UP + lasts);
        (world.heard(1, 0) - before) as f64 / lasts.as_secs_f64()
    };
    let runs: Vec<f64> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..seeds).map(|seed| scope.spawn(move || run(seed))).collect();
        threads.into_iter().map(|thread| thread.join().expect("a run that breaks no rule")).collect()
    });
    runs.iter().sum::<f64>() / runs.len() as f64
}

/// A bulk stream from the first host to the second.
fn plan(setting: Setting, way: &Way, seed: u64) -> Plan {
    let tcp = TcpConfig {
        congestion: setting.congestion,
        sack: setting.sack,
        ecn: false,
        recv_buffer: setting.window,
        send_buffer: setting.window,
        autotune: false,
        ..TcpConfig::default()
    };
    let host = HostPlan {
        workers: 1,
        mtu: 1500,
        memory: 1 << 30,
        entries: 64,
        connections: 16,
        accepts_after: Duration::ZERO,
        answers: false,
        tcp: Arc::new(tcp),
    };
    let script = |says| Script {
        says,
        piece: 65_000,
        burst: None,
        reads: (65_000, 0, Duration::ZERO),
        answers: None,
        pause: None,
        ending: Ending::HalfClose,
    };
    let talk = Talk {
        opener: Opener::One(0),
        opens: Duration::ZERO,
        port: 40_000,
        // More than any run takes, less than numbers can tell apart.
        sides: [script(1 << 30), script(0)],
        may_fail: true,
    };
    let mut faults = Faults::none(setting.rtt / 2);
    faults.ways[0] = Way { delay: setting.rtt / 2, ..way.clone() };
    Plan {
        seed,
        ipv6: false,
        begins: 1_000_000,
        hosts: [host.clone(), host],
        faults,
        talks: vec![talk],
        deaf_after: None,
    }
}

/// What the response function of an algorithm predicts for a loss probability `p`, bytes per second.
#[must_use]
pub fn model(congestion: CongestionAlgorithm, p: f64, rtt: Duration) -> f64 {
    let rtt = rtt.as_secs_f64();
    let reno = (3.0 / (2.0 * p)).sqrt();
    let window = match congestion {
        CongestionAlgorithm::Reno => reno,
        // RFC 9438 section 5.1: with beta 0.7 and C 0.4. Where Reno would be faster, CUBIC is as fast.
        CongestionAlgorithm::Cubic => (0.4_f64 * 3.7 / 1.2).powf(0.25) * (rtt.powi(3) / p.powi(3)).powf(0.25),
    };
    window.max(reno) * SEGMENT / rtt
}

/// The matrix as text: the same on every machine.
#[must_use]
pub fn matrix() -> String {
    let mut text = String::from(
        "Goodput of one stream, MB/s; in parentheses the share of what the model of the algorithm predicts.\n\
         Mean of 2 seeds of 60 s after 20 s; random loss, no other limit; segments of 1448 bytes.\n\n\
         loss    RTT     reno            reno, SACK      cubic           cubic, SACK\n",
    );
    for loss in [10, 50, 100, 300] {
        for rtt in [10, 50, 200].map(Duration::from_millis) {
            let _ =
                write!(text, "{:<8}{:<8}", format!("{}%", f64::from(loss) / 100.0), format!("{}ms", rtt.as_millis()));
            for (congestion, sack) in [CongestionAlgorithm::Reno, CongestionAlgorithm::Cubic]
                .into_iter()
                .flat_map(|c| [(c, false), (c, true)])
            {
                let way = Way { loss, ..Way::default() };
                let rate =
                    goodput(Setting { congestion, sack, rtt, window: 8 << 20 }, &way, 2, Duration::from_secs(60));
                let share = rate / model(congestion, f64::from(loss) / 10_000.0, rtt);
                let _ = write!(text, "{:<16}", format!("{:.3} ({share:.2})", rate / 1e6));
            }
            text.truncate(text.trim_end().len());
            text.push('\n');
        }
    }
    text
}
