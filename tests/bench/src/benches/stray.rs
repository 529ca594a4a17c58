//! Floods of ACKs and of resets to a listener's port that belong to no connection: what one costs the server's core, and
//! that no connection comes of them. Beside it what a frame costs that an XDP program drops unseen: nothing is cheaper.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::flood::{Outcome, measure};
use crate::frame::Kind;
use crate::generator::{Bounds, Feed};
use crate::harness::{Options, Sample, pick, rounds};
use crate::lab::{BenchLab, LabOptions, Server, Subject};
use crate::report::{Good, Report, Summary};

/// Length of a measurement.
const TIME: Duration = Duration::from_millis(1500);
const VARIANTS: [(Subject, Feed); 5] = [
    (Subject::Kernel, Feed::Socket),
    (Subject::Xtcp, Feed::Socket),
    (Subject::Xtcp, Feed::Live),
    (Subject::Discard, Feed::Socket),
    (Subject::Discard, Feed::Live),
];

/// `ack-flood` and `ack-flood-live`.
pub fn run_acks(options: &Options) -> Result<Vec<Report>> {
    run(options, Kind::Ack, ["ack-flood", "ack-flood-live"])
}

/// `rst-flood` and `rst-flood-live`.
pub fn run_resets(options: &Options) -> Result<Vec<Report>> {
    run(options, Kind::Rst, ["rst-flood", "rst-flood-live"])
}

fn run(options: &Options, kind: Kind, [socket, live]: [&str; 2]) -> Result<Vec<Report>> {
    let rounds = rounds(options, &VARIANTS, |(subject, feed)| {
        let lab = BenchLab::new(&LabOptions::flood(subject))?;
        let outcome = measure(&lab, kind, feed, &Bounds::of(None, TIME))?;
        println!("  {subject:?} {feed:?}: {outcome}");
        ensure_nothing_changed(&lab)?;
        Ok(Sample { foreign: outcome.usage.foreign, figures: outcome })
    })?;
    let cost = |subject, feed| pick(&rounds, (subject, feed), Outcome::cost_per_frame);
    let kernel = cost(Subject::Kernel, Feed::Socket);
    let xtcp = |feed| cost(Subject::Xtcp, feed);
    let what = |how: &str, feed| -> Result<_> {
        let least = Summary::of(&cost(Subject::Discard, feed))?.median;
        let text = format!(
            "flood of stray {kind:?} {how}; busy time of the server's core per frame (dropped unseen: {least:.3})"
        );
        Ok((text, "us"))
    };
    let from_socket = what("from an AF_XDP socket", Feed::Socket)?;
    let from_live = what("as live frames, against the kernel's from a socket", Feed::Live)?;
    Ok(vec![
        Report::new(socket, from_socket, (&kernel, &xtcp(Feed::Socket)), (Good::AtMost, 0.7))?,
        Report::new(live, from_live, (&kernel, &xtcp(Feed::Live)), (Good::AtMost, 0.125))?,
    ])
}

/// No connection came of the flood.
fn ensure_nothing_changed(lab: &BenchLab) -> Result<()> {
    let Server::Xtcp(daemon) = &lab.server else { return Ok(()) };
    let rows = daemon.connections(lab.ends.listener.port());
    ensure!(rows.is_empty(), "stray segments made {} connections: {:?}", rows.len(), rows.first());
    Ok(())
}
