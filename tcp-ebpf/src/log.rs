//! What the program tells the daemon's log: the first drop of each reason in each second, and when it turns to SYN
//! cookies.

use aya_ebpf::btf_maps::Array;
use aya_ebpf::macros::btf_map;
use aya_log_ebpf::info;
use tcp_common::ConnectionKey;
use tcp_common::counters::DropReason;

use crate::maps::now_ns;

/// Quiet after a line, for each reason, ns.
const INTERVAL_NS: u64 = 1_000_000_000;

/// The last line of a reason.
#[repr(C)]
struct Last {
    at_ns: u64,
    reason: u64,
}

#[btf_map]
static LAST_LOGGED: Array<Last, { DropReason::ALL.len() }> = Array::new();

/// Writes a line if the last of this reason is a second old. Two CPUs that drop in the same instant may both
/// write one.
#[inline(always)]
pub fn drop(reason: DropReason, key: &ConnectionKey) {
    let Some(last) = LAST_LOGGED.get_ptr_mut(reason as u32) else { return };
    let now = now_ns();
    // SAFETY: aligned words of a map entry, which stays where it is.
    unsafe {
        if now < (&raw const (*last).at_ns).read_volatile() + INTERVAL_NS {
            return;
        }
        (&raw mut (*last).at_ns).write_volatile(now);
        // Out of the map and back the verifier takes it for any number, and follows `write` once instead of once
        // for each reason.
        (&raw mut (*last).reason).write_volatile(reason as u64);
        write((&raw const (*last).reason).read_volatile() as usize, key);
    }
}

/// Says that SYNs are answered with cookies from now on.
#[inline(never)]
pub fn cookies(key: &ConnectionKey) {
    info!((), "SYN cookies on for {:i} {}: too many SYNs", key.local_addr, key.local_port);
}

/// Not inlined: a line costs more instructions than the whole decision.
#[inline(never)]
fn write(reason: usize, key: &ConnectionKey) {
    info!(
        (),
        "dropped {:i} {} > {:i} {}: {}",
        key.remote_addr,
        key.remote_port,
        key.local_addr,
        key.local_port,
        name(reason)
    );
}

/// Length to which names are padded: the verifier wants to know how much is copied.
const NAME_LENGTH: usize = 16;

static NAMES: [[u8; NAME_LENGTH]; DropReason::ALL.len()] = {
    let mut names = [[b' '; NAME_LENGTH]; DropReason::ALL.len()];
    let mut reason = 0;
    while reason < names.len() {
        let name = DropReason::ALL[reason].name().as_bytes();
        let mut at = 0;
        while at < name.len() {
            names[reason][at] = name[at];
            at += 1;
        }
        reason += 1;
    }
    names
};

#[inline(always)]
fn name(reason: usize) -> &'static str {
    match NAMES.get(reason) {
        // SAFETY: names are ASCII.
        Some(name) => unsafe { core::str::from_utf8_unchecked(name) },
        None => "",
    }
}
