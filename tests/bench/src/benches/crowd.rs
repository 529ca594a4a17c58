//! Very many connections that do nothing: 1,000,000 established ones, and more in TIME_WAIT than the kernel keeps by
//! default. The client has no stack; figures are bytes per connection, all in.
//!
//! The kernel is measured with 100,000 established ones, by its slab caches; each costs it a file besides.

use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Resource, Rlimit, setrlimit};

use crate::client::{Opened, with_client};
use crate::cpu::{self, SERVER_CORE};
use crate::frame::Script;
use crate::harness::Options;
use crate::lab::{BenchLab, LabOptions, Server, Subject};
use crate::memory::{kernel_sockets, map_entry, resident, running_time_ns};
use crate::programs::ClientEnd;
use crate::report::{Good, Report};

const IDLE: usize = 1_000_000;
const IDLE_KERNEL: usize = 100_000;
const TIME_WAITS: usize = 140_000;
/// How long idle connections are watched.
const WATCHED: Duration = Duration::from_secs(3);
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
    /// Of the server's process while nothing happens, % of a core.
    idle_cpu: f64,
}

/// `idle`, `idle-stall` and `idle-cpu`; one round, because it takes long.
pub fn run_idle(_: &Options) -> Result<Vec<Report>> {
    let lab = |subject| lab(subject, "echo", IDLE, "keepalive = true, keepalive_time = \"7200s\"");
    let kernel = measure(lab(Subject::Kernel)?, Script::Hold, IDLE_KERNEL)?;
    let xtcp = measure(lab(Subject::Xtcp)?, Script::Hold, IDLE)?;
    let stall = |crowd: &Crowd| [crowd.opened.longest_stall.as_secs_f64() * 1e3];
    let memory = "1,000,000 idle connections (the kernel: 100,000); memory per connection";
    let stalls = "opening them; longest time without a SYN-ACK";
    let cpu = "1,000,000 idle connections with keepalive at 7,200 s; CPU of the daemon (the reference: 1 % of a core)";
    Ok(vec![
        Report::absolute("idle", (memory, "B"), (&[kernel.bytes], &[xtcp.bytes]), (Good::AtMost, IDLE_BAR))?,
        Report::absolute("idle-stall", (stalls, "ms"), (&stall(&kernel), &stall(&xtcp)), (Good::AtMost, STALL_BAR))?,
        Report::absolute("idle-cpu", (cpu, "%"), (&[CPU_BAR], &[xtcp.idle_cpu]), (Good::AtMost, CPU_BAR))?,
    ])
}

/// `time-wait`; one round.
pub fn run_time_wait(_: &Options) -> Result<Vec<Report>> {
    let lab = |subject| lab(subject, "daytime", TIME_WAITS, "");
    let kernel = measure(lab(Subject::Kernel)?, Script::CloseAfter, TIME_WAITS)?;
    let xtcp = measure(lab(Subject::Xtcp)?, Script::CloseAfter, TIME_WAITS)?;
    let what = ("140,000 connections in TIME_WAIT (the server closed first); memory per connection", "B");
    Ok(vec![Report::absolute("time-wait", what, (&[kernel.bytes], &[xtcp.bytes]), (Good::AtMost, TIME_WAIT_BAR))?])
}

fn lab(subject: Subject, service: &str, connections: usize, tcp: &str) -> Result<BenchLab> {
    let more = if tcp.is_empty() { "" } else { ", " };
    BenchLab::new(&LabOptions {
        subject,
        client: ClientEnd::Steer,
        v6: false,
        // Room for the slots of a table that is not to be filled to its end.
        top: format!("max_connections = {}", connections + connections / 20),
        tcp: format!("backlog = 16384, syn_backlog = 16384{more}{tcp}"),
        service: service.to_owned(),
    })
}

fn measure(mut lab: BenchLab, script: Script, count: usize) -> Result<Crowd> {
    let listener = match &lab.server {
        Server::Kernel(listener) => Some(listener.try_clone().context("can't clone the listener")?),
        Server::Xtcp(_) => None,
    };
    let (stop, close) = (AtomicBool::new(false), script == Script::CloseAfter);
    let stop = &stop;
    let crowd = std::thread::scope(|scope| {
        let acceptor = listener.map(|listener| scope.spawn(move || accept(listener, close, stop)));
        let crowd = with_client(&mut lab, script, |client, lab| {
            let before = memory(lab)?;
            let opened = client.open(count)?;
            ensure_there(lab, script, count)?;
            let taken = memory(lab)?.saturating_sub(before) as f64 / count as f64;
            Ok(Crowd { bytes: taken + entry(lab)?, opened, idle_cpu: idle_cpu(lab)? })
        });
        stop.store(true, Ordering::Relaxed);
        if let Some(acceptor) = acceptor {
            acceptor.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        crowd
    })?;
    describe(&lab, count, &crowd);
    Ok(crowd)
}

fn describe(lab: &BenchLab, count: usize, crowd: &Crowd) {
    let Opened { time, longest_stall, rates, repeated } = &crowd.opened;
    let rates: Vec<String> = rates.iter().map(|rate| format!("{:.1}", rate / 1000.0)).collect();
    let who = if matches!(lab.server, Server::Xtcp(_)) { "xtcp" } else { "kernel" };
    println!(
        "  {who}: {count} connections in {:.1} s, thousands/s by tenths: {}; longest stall {:.1} ms, {repeated} SYNs \
         repeated; {:.0} B each; idle CPU {:.2} %",
        time.as_secs_f64(),
        rates.join(" "),
        longest_stall.as_secs_f64() * 1e3,
        crowd.bytes,
        crowd.idle_cpu,
    );
}

/// Bytes that grow with connections, the map aside.
fn memory(lab: &BenchLab) -> Result<u64> {
    match &lab.server {
        Server::Xtcp(daemon) => resident(daemon.pid()),
        Server::Kernel(_) => kernel_sockets(),
    }
}

/// Bytes of a connection's entry in CONNECTIONS.
fn entry(lab: &BenchLab) -> Result<f64> {
    match &lab.server {
        Server::Xtcp(daemon) => map_entry(&daemon.pin_path().join("CONNECTIONS")),
        Server::Kernel(_) => Ok(0.0),
    }
}

fn idle_cpu(lab: &BenchLab) -> Result<f64> {
    let Server::Xtcp(daemon) = &lab.server else { return Ok(0.0) };
    let (before, start) = (running_time_ns(daemon.pid())?, Instant::now());
    std::thread::sleep(WATCHED);
    let ran = running_time_ns(daemon.pid())? - before;
    Ok(ran as f64 / start.elapsed().as_nanos() as f64 * 100.0)
}

/// The server says that all of them are there, in the state that is measured.
fn ensure_there(lab: &BenchLab, script: Script, count: usize) -> Result<()> {
    let state = if script == Script::CloseAfter { "TIME_WAIT" } else { "ESTABLISHED" };
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let there = match &lab.server {
            Server::Xtcp(daemon) => daemon.stats()["connections"][state].as_u64().unwrap_or_default(),
            Server::Kernel(_) => kernel_connections(lab, state)?,
        };
        if there as usize >= count {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("{there} of {count} connections are in {state}");
        }
        std::thread::sleep(Duration::from_millis(100));
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

/// Takes the kernel's connections, and keeps or closes them.
fn accept(listener: TcpListener, close: bool, stop: &AtomicBool) -> Result<()> {
    cpu::stay_on(SERVER_CORE)?;
    let files = Some(2 * IDLE_KERNEL as u64);
    setrlimit(Resource::Nofile, Rlimit { current: files, maximum: files }).context("can't have that many files")?;
    listener.set_nonblocking(true)?;
    let mut kept = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok(_) if close => {}
            Ok((connection, _)) => kept.push(connection),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                std::thread::sleep(Duration::from_micros(200))
            }
            Err(error) => return Err(error).context("can't accept"),
        }
    }
    ensure!(close || !kept.is_empty(), "nothing was accepted");
    Ok(())
}
