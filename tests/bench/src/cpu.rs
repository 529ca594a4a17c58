//! Who uses the CPUs: busy time of each core, and how much of it is others'.
//!
//! Busy is wall time without idle time, from `/proc/stat`, so that interrupts and softirqs count whoever they interrupt.
//! The file counts in ticks of 10 ms: a measurement wants a second or more.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_setaffinity};

/// The core of the client, the generator and the bench itself.
pub const CLIENT_CORE: usize = 0;
/// The core of the server and of its receive work.
pub const SERVER_CORE: usize = 1;

/// Length of a tick, ns.
const TICK_NS: u64 = 10_000_000;
/// `PF_KTHREAD` among the flags of a process.
const KERNEL_THREAD: u64 = 0x0020_0000;

/// Keeps the calling thread, and what it starts from now on, on one core.
///
/// # Errors
/// When the machine has no such core.
pub fn stay_on(core: usize) -> Result<()> {
    pin(None, core)
}

/// Keeps another thread on one core.
///
/// # Errors
/// When the machine has no such core.
pub fn pin(thread: Option<Pid>, core: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    sched_setaffinity(thread, &set)
        .with_context(|| format!("can't keep a thread on core {core}: a bench wants two cores"))
}

/// Has a thread (`None`: the calling one) go before whatever else wants its core, the generator first of all.
///
/// # Errors
/// When not run as root.
pub fn go_first(thread: Option<Pid>) -> Result<()> {
    let thread = thread.or_else(|| Some(rustix::thread::gettid()));
    rustix::process::setpriority_process(thread, -20).context("can't raise a thread's priority")
}

/// Has a thread run whenever it can (SCHED_FIFO), whoever runs: it has to sleep by itself most of the time.
///
/// # Errors
/// When not run as root.
pub fn go_at_once(thread: Pid) -> Result<()> {
    let arguments = ["--fifo", "--pid", "1", &thread.as_raw_pid().to_string()];
    let status = Command::new("chrt").args(arguments).status().context("can't run chrt (package util-linux)")?;
    ensure!(status.success(), "`chrt {}` failed", arguments.join(" "));
    Ok(())
}

/// Use of the CPUs between two moments.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Usage {
    /// Wall time.
    pub wall: Duration,
    /// Busy time of the client's core.
    pub client: Duration,
    /// Busy time of the server's core.
    pub server: Duration,
    /// Share of both cores that neither we nor our children nor kernel threads used, 0 to 1.
    pub foreign: f64,
}

/// The beginning of a measurement.
#[derive(Debug)]
pub struct Meter {
    at: Instant,
    cores: [Core; 2],
    processes: Processes,
    own: Vec<u32>,
}

/// Ticks of a core.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Core {
    user: u64,
    idle: u64,
    stolen: u64,
}

/// Ticks of processes by id: in user mode, and in all.
type Processes = BTreeMap<u32, (u64, u64)>;

impl Meter {
    /// Begins. `own` are ids of processes that belong to the bench, beside itself.
    ///
    /// # Errors
    /// When /proc can't be read.
    pub fn start(own: &[u32]) -> Result<Meter> {
        let own = [own, &[std::process::id()]].concat();
        Ok(Meter { processes: processes(), cores: cores()?, at: Instant::now(), own })
    }

    /// Ends.
    ///
    /// # Errors
    /// When /proc can't be read.
    pub fn stop(self) -> Result<Usage> {
        let (wall, cores, processes) = (self.at.elapsed(), cores()?, processes());
        let busy = |core: usize| {
            let idle = ticks(cores[core].idle - self.cores[core].idle.min(cores[core].idle));
            wall.saturating_sub(idle)
        };
        let foreign = foreign_ticks(&self.cores, &cores, &self.processes, &processes, &self.own);
        let foreign = ticks(foreign).as_secs_f64() / (wall.as_secs_f64() * 2.0);
        Ok(Usage { wall, client: busy(CLIENT_CORE), server: busy(SERVER_CORE), foreign })
    }
}

/// What others used: the greater of what their processes say and of user time that is nobody's of ours (a process that
/// came and went is in no list), and what the hypervisor took.
fn foreign_ticks(from: &[Core; 2], to: &[Core; 2], before: &Processes, after: &Processes, own: &[u32]) -> u64 {
    let over =
        |of: fn(&Core) -> u64| -> u64 { to.iter().zip(from).map(|(to, from)| of(to).saturating_sub(of(from))).sum() };
    let used = |(pid, (user, all)): (&u32, &(u64, u64))| {
        let (user_before, all_before) = before.get(pid).copied().unwrap_or_default();
        (user.saturating_sub(user_before), all.saturating_sub(all_before))
    };
    let (ours, others): (Vec<_>, Vec<_>) = after.iter().partition(|(pid, _)| own.contains(pid));
    let own_user: u64 = ours.into_iter().map(|process| used(process).0).sum();
    let of_others: u64 = others.into_iter().map(|process| used(process).1).sum();
    let user = over(|core| core.user).saturating_sub(own_user);
    of_others.max(user) + over(|core| core.stolen)
}

fn ticks(ticks: u64) -> Duration {
    Duration::from_nanos(ticks * TICK_NS)
}

fn cores() -> Result<[Core; 2]> {
    let text = std::fs::read_to_string("/proc/stat").context("can't read /proc/stat")?;
    let line = |core: usize| text.lines().find_map(|line| line.strip_prefix(&format!("cpu{core} ")));
    let parse = |core: usize| line(core).and_then(parse_core);
    let cores = [parse(CLIENT_CORE), parse(SERVER_CORE)];
    ensure!(cores.iter().all(Option::is_some), "a bench wants two cores");
    Ok(cores.map(Option::unwrap_or_default))
}

fn parse_core(line: &str) -> Option<Core> {
    let ticks: Vec<u64> = line.split_whitespace().map(|word| word.parse().ok()).collect::<Option<_>>()?;
    let [user, nice, _, idle, iowait, _, _, stolen, ..] = ticks[..] else { return None };
    Some(Core { user: user + nice, idle: idle + iowait, stolen })
}

/// Every process but kernel threads.
fn processes() -> Processes {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Processes::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid: u32| Some((pid, parse_process(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?)))
        .collect()
}

/// Fields 9 (flags), 14 and 15 (ticks in user and in kernel mode) of /proc/PID/stat.
fn parse_process(stat: &str) -> Option<(u64, u64)> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = fields.split(' ').collect();
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    if number(9)? & KERNEL_THREAD != 0 {
        return None;
    }
    let (user, system) = (number(14)?, number(15)?);
    Some((user, user + system))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_core_and_a_process_are_read() {
        let core = parse_core("10 1 5 100 7 0 3 2 0 0");
        assert_eq!(core, Some(Core { user: 11, idle: 107, stolen: 2 }));
        let line = "7 (a (b) c) S 1 7 7 0 -1 4194304 5 0 0 0 30 12 0 0 20 0 1 0 9";
        assert_eq!(parse_process(line), Some((30, 42)));
        assert_eq!(parse_process(&line.replace("4194304", "69238880")), None, "a kernel thread");
    }

    #[test]
    fn what_others_use_is_told_from_what_we_use() {
        let (before, after) = ([Core::default(); 2], [Core { user: 50, ..Core::default() }; 2]);
        let now = Processes::from([(1, (60, 90)), (2, (20, 25))]);
        assert_eq!(foreign_ticks(&before, &after, &Processes::new(), &now, &[1]), 40); // 15 of which are in no list
        let now = Processes::from([(1, (100, 100)), (2, (0, 25))]);
        assert_eq!(foreign_ticks(&before, &after, &Processes::new(), &now, &[1]), 25);
    }
}
