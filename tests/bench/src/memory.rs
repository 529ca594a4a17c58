//! Memory that connections take: xtcp's by RSS and by what the map CONNECTIONS holds for each entry, the kernel's by the
//! slab caches that a socket of its has objects in.
//!
//! The caches that everything uses (kmalloc) are left out on the kernel's side: the kernel looks a little better for it.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Caches of a TCP socket: itself, its inode, its file, and what TIME_WAIT leaves of it.
const CACHES: [&str; 6] = ["TCP", "sock_inode_cache", "filp", "bfilp", "dentry", "tw_sock_TCP"];

/// Resident memory of a process, bytes.
///
/// # Errors
/// When there is no such process.
pub fn resident(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let text = std::fs::read_to_string(&path).with_context(|| format!("can't read {path}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().context("VmRSS is no number")?;
    Ok(kib * 1024)
}

/// Kernel memory of a pinned map for each entry that it can hold, bytes.
///
/// # Errors
/// When bpftool fails.
pub fn map_entry(pin: &Path) -> Result<f64> {
    let output = Command::new("bpftool").args(["-j", "map", "show", "pinned"]).arg(pin).output();
    let output = output.context("can't run bpftool")?;
    ensure!(output.status.success(), "bpftool: {}", String::from_utf8_lossy(&output.stderr).trim());
    let map: serde_json::Value = serde_json::from_slice(&output.stdout).context("bpftool printed no JSON")?;
    let number = |field: &str| map[field].as_u64().with_context(|| format!("bpftool shows no {field}"));
    Ok(number("bytes_memlock")? as f64 / number("max_entries")? as f64)
}

/// Bytes in the kernel's caches of TCP sockets.
///
/// # Errors
/// When /proc/slabinfo can't be read.
pub fn kernel_sockets() -> Result<u64> {
    Ok(caches(&std::fs::read_to_string("/proc/slabinfo").context("can't read /proc/slabinfo")?))
}

/// Active objects times their size.
fn caches(slabinfo: &str) -> u64 {
    let of_line = |line: &str| {
        let mut words = line.split_whitespace();
        let name = words.next()?;
        let active: u64 = words.next()?.parse().ok()?;
        let size: u64 = words.nth(1)?.parse().ok()?;
        CACHES.contains(&name).then_some(active * size)
    };
    slabinfo.lines().filter_map(of_line).sum()
}

/// Nanoseconds that the threads of a process have run.
///
/// # Errors
/// When there is no such process.
pub fn running_time_ns(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/task");
    let tasks = std::fs::read_dir(&path).with_context(|| format!("can't read {path}"))?;
    let of_task = |task: std::fs::DirEntry| {
        let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    };
    Ok(tasks.flatten().filter_map(of_task).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_caches_of_sockets_count() {
        let text = "slabinfo - version: 2.1\nTCP 100 108 2368 13 8 : t\nTCPv6 9 9 2496 1 1\ndentry 2 3 192 21 1 : t\n";
        assert_eq!(caches(text), 100 * 2368 + 2 * 192);
    }
}
