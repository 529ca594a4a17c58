//! What a SYN flood does to others: 200 connections a second by the client's kernel, each with a request and its echo,
//! while SYNs come as live frames at 600,000 and 1,000,000 a second. A connection that has no answer within a second
//! has failed. xtcp's 99th percentile is held against its own without a flood.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::cpu::{self, CLIENT_CORE, Meter, SERVER_CORE};
use crate::frame::{self, Kind};
use crate::generator::{Bounds, Feed, Generator, MAX_TIME};
use crate::harness::{Options, Sample, pick, rounds};
use crate::lab::{BenchLab, LabOptions, Server, Subject};
use crate::report::{Good, Report};

/// Connections of a measurement, and the time between two.
const CONNECTIONS: u32 = 400;
const INTERVAL: Duration = Duration::from_millis(5);
/// Within which a connection has to succeed.
const PATIENCE: Duration = Duration::from_secs(1);
const REQUEST: [u8; 64] = [b'x'; 64];
/// SYNs per second offered.
const RATES: [u32; 2] = [600_000, 1_000_000];

type Variant = (Subject, u32);
const VARIANTS: [Variant; 5] = [
    (Subject::Xtcp, 0),
    (Subject::Xtcp, RATES[0]),
    (Subject::Xtcp, RATES[1]),
    (Subject::Kernel, RATES[0]),
    (Subject::Kernel, RATES[1]),
];

/// Share of the rate that has to be offered for a measurement to mean anything.
const MIN_OFFERED: f64 = 0.9;

/// How connections fared.
#[derive(Clone, Copy, Debug)]
struct Service {
    /// Share that succeeded, %.
    succeeded: f64,
    /// 99th percentile of the time to the echo, ms; a failure counts as [`PATIENCE`].
    p99: f64,
}

/// Runs it: for each rate the share that succeeds (the kernel's beside) and the percentile.
pub fn run(options: &Options) -> Result<Vec<Report>> {
    let rounds = rounds(options, &VARIANTS, |(subject, rate)| {
        let lab = BenchLab::new(&LabOptions::flood(subject))?;
        let (service, sent, foreign) = measure(&lab, rate)?;
        let Service { succeeded, p99 } = service;
        println!("  {subject:?} at {rate} SYN/s ({sent:.0} sent): {succeeded:.1} % in time, p99 {p99:.2} ms");
        if sent < f64::from(rate) * MIN_OFFERED {
            println!("  TOO FEW SYNs: the generator did not have its core to itself");
        }
        Ok(Sample { figures: service, foreign })
    })?;
    let p99 = |variant| pick(&rounds, variant, |service: &Service| service.p99);
    let succeeded = |variant| pick(&rounds, variant, |service: &Service| service.succeeded);
    let unflooded = p99((Subject::Xtcp, 0));
    let mut reports = Vec::new();
    for rate in RATES {
        let (kernel, xtcp) = ((Subject::Kernel, rate), (Subject::Xtcp, rate));
        let name = format!("legit-{}k", rate / 1000);
        let what = (format!("200 connections/s during {rate} SYN/s; in time"), "%");
        // A kernel that serves nobody has no ratio.
        let served: Vec<f64> = succeeded(kernel).into_iter().map(|share| share.max(0.1)).collect();
        reports.push(Report::absolute(&name, what, (&served, &succeeded(xtcp)), (Good::AtLeast, 100.0))?);
        let kernel_p99 = crate::report::Summary::of(&p99(kernel))?.median;
        let what =
            format!("the same; p99 against xtcp's own without a flood (the kernel's in the flood: {kernel_p99:.1} ms)");
        reports.push(
            Report::new(&format!("{name}-p99"), (what, "ms"), (&unflooded, &p99(xtcp)), (Good::AtMost, 2.0))?
                .unsteady(),
        );
    }
    Ok(reports)
}

/// The service, SYNs sent per second, and what others used of the CPUs.
fn measure(lab: &BenchLab, rate: u32) -> Result<(Service, f64, f64)> {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let flood = (rate > 0).then(|| scope.spawn(|| flood(lab, rate, &stop)));
        let echo = scope.spawn(|| serve_by_kernel(lab, &stop));
        let meter = Meter::start(&lab.processes());
        let client = scope.spawn(|| connect_all(lab));
        let service = client.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let usage = meter.and_then(Meter::stop);
        // Whatever went wrong: the others wait for this.
        stop.store(true, Ordering::Relaxed);
        let sent = flood.map(|flood| flood.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        echo.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        Ok((service?, sent.transpose()?.unwrap_or_default(), usage?.foreign))
    })
}

fn flood(lab: &BenchLab, rate: u32, stop: &AtomicBool) -> Result<f64> {
    let mut generator = Generator::new(&lab.wire.client, Feed::Live, &frame::template(Kind::Syn, &lab.ends))?;
    let bounds = Bounds::of(Some(rate.into()), MAX_TIME.min(Duration::from_secs(30)));
    let start = Instant::now();
    let sent = generator.flood(&bounds, || stop.load(Ordering::Relaxed))?;
    Ok(sent as f64 / start.elapsed().as_secs_f64())
}

/// Opens connections at their times and sums up.
fn connect_all(lab: &BenchLab) -> Result<Service> {
    lab.wire.client.move_in()?;
    cpu::stay_on(CLIENT_CORE)?;
    cpu::go_first(None)?;
    let times = runtime()?.block_on(async {
        // The flood is under way when the first one comes.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let (mut clock, mut running) = (interval(INTERVAL), JoinSet::new());
        clock.set_missed_tick_behavior(MissedTickBehavior::Burst);
        for _ in 0..CONNECTIONS {
            clock.tick().await;
            running.spawn(timeout(PATIENCE, converse(lab.ends.listener)));
        }
        running.join_all().await
    });
    let taken: Vec<Duration> = times.into_iter().filter_map(|time| time.ok()?.ok()).collect();
    Ok(sum_up(taken, CONNECTIONS as usize))
}

/// One connection: how long until its request has come back.
async fn converse(server: SocketAddr) -> io::Result<Duration> {
    let start = Instant::now();
    let mut connection = TcpStream::connect(server).await?;
    connection.write_all(&REQUEST).await?;
    let mut reply = [0; REQUEST.len()];
    connection.read_exact(&mut reply).await?;
    Ok(start.elapsed())
}

fn sum_up(mut taken: Vec<Duration>, of: usize) -> Service {
    let succeeded = taken.len() as f64 / of as f64 * 100.0;
    taken.resize(of, PATIENCE);
    taken.sort_unstable();
    let p99 = taken.get((of * 99).div_ceil(100).saturating_sub(1)).copied().unwrap_or(PATIENCE);
    Service { succeeded, p99: p99.as_secs_f64() * 1e3 }
}

/// Echoes on the server's core, when the kernel serves.
fn serve_by_kernel(lab: &BenchLab, stop: &AtomicBool) -> Result<()> {
    let Server::Kernel(listener) = &lab.server else { return Ok(()) };
    cpu::stay_on(SERVER_CORE)?;
    let listener = listener.try_clone().context("can't clone the listener")?;
    listener.set_nonblocking(true)?;
    runtime()?.block_on(async {
        let listener = TcpListener::from_std(listener)?;
        while !stop.load(Ordering::Relaxed) {
            if let Ok(accepted) = timeout(Duration::from_millis(50), listener.accept()).await {
                let (mut connection, _) = accepted?;
                tokio::spawn(async move {
                    let (mut input, mut output) = connection.split();
                    tokio::io::copy(&mut input, &mut output).await
                });
            }
        }
        Ok(())
    })
}

fn runtime() -> Result<Runtime> {
    Builder::new_current_thread().enable_all().build().context("can't make a runtime")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_count_as_the_longest_times() {
        let fast = vec![Duration::from_millis(1); 400];
        let Service { succeeded, p99 } = sum_up(fast.clone(), 400);
        assert_eq!((succeeded, p99), (100.0, 1.0));
        let Service { succeeded, p99 } = sum_up(fast[..390].to_vec(), 400);
        assert_eq!((succeeded, p99), (97.5, 1000.0));
    }
}
