//! Very many connections that do nothing: 1,000,000 established ones, and as many in TIME_WAIT. The client has no stack;
//! figures are bytes per connection, all in.
//!
//! The kernel is measured with 100,000 established ones, by its slab caches (each costs it a file besides), and with more
//! in TIME_WAIT than it keeps by default.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::acceptor::{Acceptors, Fate};
use crate::client::{Client, Opened, with_client};
use crate::frame::Script;
use crate::harness::Options;
use crate::lab::{BenchLab, LabOptions, Server, Subject};
use crate::memory::{kernel_sockets, map_entry, resident, running_time_ns};
use crate::programs::ClientEnd;
use crate::report::{Good, Report};

const IDLE: usize = 1_000_000;
const IDLE_KERNEL: usize = 100_000;
const TIME_WAITS: usize = 1_000_000;
const TIME_WAITS_KERNEL: usize = 140_000;
/// Capacity of CONNECTIONS. A power of two wastes least: its buckets are one.
const CAPACITY: usize = 1 << 20;
/// How long the last ones are waited for.
const SETTLE: Duration = Duration::from_secs(5);
/// How long idle connections are left alone before they are watched: the entries of cookies are looked through until
/// all are known to have a connection, and memory that is free is given back.
const REST: Duration = Duration::from_secs(25);
/// How long they are watched.
const WATCHED: Duration = Duration::from_secs(10);
/// Bars: bytes, ms, % of a core.
const IDLE_BAR: f64 = 640.0;
const STALL_BAR: f64 = 100.0;
const CPU_BAR: f64 = 1.0;
const TIME_WAIT_BAR: f64 = 256.0;

/// What a crowd came to.
struct Crowd {
    /// Per connection.
    bytes: f64,
    opened: Opened,
}

/// `idle`, `idle-stall` and `idle-cpu`; one round, because it takes long.
pub fn run_idle(_: &Options) -> Result<Vec<Report>> {
    let lab = |subject| lab(subject, "echo", "keepalive = true, keepalive_time = \"7200s\"");
    let kernel = measure(lab(Subject::Kernel)?, Script::Hold, IDLE_KERNEL, |_| Ok(()))?.0;
    let (xtcp, idle_cpu) = measure(lab(Subject::Xtcp)?, Script::Hold, IDLE, idle_cpu)?;
    let stall = |crowd: &Crowd| [crowd.opened.longest_stall.as_secs_f64() * 1e3];
    let memory = "1,000,000 idle connections (the kernel: 100,000); memory per connection";
    let stalls = "opening them; longest time without a SYN-ACK";
    let cpu = "1,000,000 idle connections with keepalive at 7,200 s; CPU of the daemon (the reference: 1 % of a core)";
    Ok(vec![
        Report::absolute("idle", (memory, "B"), (&[kernel.bytes], &[xtcp.bytes]), (Good::AtMost, IDLE_BAR))?,
        Report::absolute("idle-stall", (stalls, "ms"), (&stall(&kernel), &stall(&xtcp)), (Good::AtMost, STALL_BAR))?
            .unsteady(),
        Report::absolute("idle-cpu", (cpu, "%"), (&[CPU_BAR], &[idle_cpu]), (Good::AtMost, CPU_BAR))?.unsteady(),
    ])
}

/// `time-wait`; one round.
pub fn run_time_wait(_: &Options) -> Result<Vec<Report>> {
    // Twice the usual, so that a slow machine gets there before the first ones leave.
    let lab = |subject| lab(subject, "daytime", "msl = \"60s\"");
    let kernel = measure(lab(Subject::Kernel)?, Script::CloseAfter, TIME_WAITS_KERNEL, |_| Ok(()))?.0;
    let xtcp = measure(lab(Subject::Xtcp)?, Script::CloseAfter, TIME_WAITS, |_| Ok(()))?.0;
    let what = "1,000,000 connections in TIME_WAIT, closed by the server (the kernel: 140,000); memory per connection";
    let what = (what, "B");
    Ok(vec![Report::absolute("time-wait", what, (&[kernel.bytes], &[xtcp.bytes]), (Good::AtMost, TIME_WAIT_BAR))?])
}

fn lab(subject: Subject, service: &str, tcp: &str) -> Result<BenchLab> {
    BenchLab::new(&LabOptions {
        subject,
        client: ClientEnd::Steer,
        v6: false,
        top: format!("max_connections = {CAPACITY}"),
        tcp: format!("backlog = 16384, syn_backlog = 16384, {tcp}"),
        service: service.to_owned(),
    })
}

/// What a crowd comes to, and what `watch` sees of it.
fn measure<T: Send>(
    mut lab: BenchLab,
    script: Script,
    count: usize,
    watch: impl FnOnce(&BenchLab) -> Result<T> + Send,
) -> Result<(Crowd, T)> {
    let _acceptors = match &lab.server {
        Server::Kernel(listener) => {
            let fate = if script == Script::CloseAfter { Fate::Close } else { Fate::Keep };
            Some(Acceptors::start(listener, count as u64, fate)?)
        }
        Server::Xtcp(_) | Server::Discard(_) => None,
    };
    with_client(&mut lab, script, |client, lab| {
        let before = memory(lab)?;
        let opened = client.open(count)?;
        let there = ensure_there(lab, client, script, count)?;
        let taken = memory(lab)?.saturating_sub(before) as f64 / there as f64;
        let crowd = Crowd { bytes: taken + entry(lab)?, opened };
        describe(lab, &crowd);
        Ok((crowd, watch(lab)?))
    })
}

fn describe(lab: &BenchLab, crowd: &Crowd) {
    let rates: Vec<String> = crowd.opened.rates.iter().map(|rate| format!("{:.1}", rate / 1000.0)).collect();
    let who = if matches!(lab.server, Server::Xtcp(_)) { "xtcp" } else { "kernel" };
    println!("  {who}: {}; thousands/s by tenths: {}; {:.0} B each", crowd.opened, rates.join(" "), crowd.bytes);
}

/// Bytes that grow with connections, the map aside.
fn memory(lab: &BenchLab) -> Result<u64> {
    match &lab.server {
        Server::Xtcp(daemon) => resident(daemon.pid()),
        Server::Kernel(_) | Server::Discard(_) => kernel_sockets(),
    }
}

/// Bytes of a connection's entry in CONNECTIONS.
fn entry(lab: &BenchLab) -> Result<f64> {
    match &lab.server {
        Server::Xtcp(daemon) => map_entry(&daemon.pin_path().join("CONNECTIONS")),
        Server::Kernel(_) | Server::Discard(_) => Ok(0.0),
    }
}

/// What the server's process takes while nothing happens, % of a core.
fn idle_cpu(lab: &BenchLab) -> Result<f64> {
    let Server::Xtcp(daemon) = &lab.server else { return Ok(0.0) };
    std::thread::sleep(REST);
    let (before, start) = (running_time_ns(daemon.pid())?, Instant::now());
    std::thread::sleep(WATCHED);
    let ran = running_time_ns(daemon.pid())? - before;
    Ok(ran as f64 / start.elapsed().as_nanos() as f64 * 100.0)
}

/// How many are there, in the state that is measured: all but a twentieth at least (on a slow machine the first have
/// left TIME_WAIT when the last get there, and of what the wire loses the client repeats only its SYNs).
fn ensure_there(lab: &BenchLab, client: &mut Client, script: Script, count: usize) -> Result<u64> {
    let state = if script == Script::CloseAfter { "TIME_WAIT" } else { "ESTABLISHED" };
    let deadline = Instant::now() + SETTLE;
    loop {
        let there = match &lab.server {
            Server::Xtcp(daemon) => daemon.stats()["connections"][state].as_u64().unwrap_or_default(),
            Server::Kernel(_) | Server::Discard(_) => kernel_connections(lab, state)?,
        };
        if there as usize >= count {
            return Ok(there);
        }
        if Instant::now() > deadline {
            if there as usize >= count - count / 20 {
                return Ok(there);
            }
            bail!("{there} of {count} connections are in {state}");
        }
        client.serve(Duration::from_millis(100));
    }
}

fn kernel_connections(lab: &BenchLab, state: &str) -> Result<u64> {
    let text = lab.wire.server.enter(|| std::fs::read_to_string("/proc/thread-self/net/sockstat"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("TCP: ")).context("no line `TCP:` in sockstat")?;
    let words: Vec<&str> = line.split(' ').collect();
    let field = if state == "TIME_WAIT" { "tw" } else { "inuse" };
    let at = words.iter().position(|word| *word == field).context("sockstat has other fields")?;
    words.get(at + 1).and_then(|word| word.parse().ok()).context("sockstat has other fields")
}
