//! A SYN flood from spoofed sources, as fast as the generator can: what a SYN-ACK costs the server's core, and how many
//! there are in a second. The kernel answers with syncookies (`tcp_syncookies = 2`), xtcp with its own.

use std::time::Duration;

use anyhow::Result;

use crate::flood::{Outcome, measure};
use crate::frame::Kind;
use crate::generator::{Bounds, Feed};
use crate::harness::{Options, Sample, pick, rounds};
use crate::lab::{BenchLab, LabOptions, Subject};
use crate::report::{Good, Report};

/// Length of a measurement.
const TIME: Duration = Duration::from_millis(1500);

const VARIANTS: [(Subject, Feed); 4] = [
    (Subject::Kernel, Feed::Socket),
    (Subject::Kernel, Feed::Live),
    (Subject::Xtcp, Feed::Socket),
    (Subject::Xtcp, Feed::Live),
];

/// Runs it: `syn`, `syn-live` and `syn-rate`.
pub fn run(options: &Options) -> Result<Vec<Report>> {
    let rounds = rounds(options, &VARIANTS, |(subject, feed)| {
        let lab = BenchLab::new(&LabOptions::flood(subject))?;
        let outcome = measure(&lab, Kind::Syn, feed, &Bounds::of(None, TIME))?;
        println!("  {subject:?} {feed:?}: {outcome}; {:.3} us per answer", outcome.cost_per_answer());
        Ok(Sample { foreign: outcome.usage.foreign, figures: outcome })
    })?;
    let cost = |subject, feed| pick(&rounds, (subject, feed), Outcome::cost_per_answer);
    let rate = |subject| -> Vec<f64> {
        let of = |feed| pick(&rounds, (subject, feed), Outcome::answered_per_second);
        of(Feed::Socket).into_iter().zip(of(Feed::Live)).map(|(socket, live)| socket.max(live)).collect()
    };
    let kernel = cost(Subject::Kernel, Feed::Socket);
    let socket = "SYN flood from an AF_XDP socket; busy time of the server's core per SYN answered";
    let live =
        "SYN flood of live frames against the kernel's from a socket; busy time of the server's core per SYN answered";
    let highest = "SYN flood, the better of both feeds; SYNs answered per second";
    Ok(vec![
        Report::new("syn", (socket, "us"), (&kernel, &cost(Subject::Xtcp, Feed::Socket)), (Good::AtMost, 0.65))?,
        Report::new("syn-live", (live, "us"), (&kernel, &cost(Subject::Xtcp, Feed::Live)), (Good::AtMost, 0.25))?,
        Report::new(
            "syn-rate",
            (highest, "1/s"),
            (&rate(Subject::Kernel), &rate(Subject::Xtcp)),
            (Good::AtLeast, 1.7),
        )?,
    ])
}
