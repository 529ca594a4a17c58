//! What the program tells the daemon's log: the first drop of each reason in each second.

use aya_ebpf::btf_maps::Array;
use aya_ebpf::macros::btf_map;
use aya_log_ebpf::info;
use tcp_common::ConnectionKey;
use tcp_common::counters::DropReason;

use crate::maps::now_ns;

/// Quiet after a line, for each reason, ns.
const INTERVAL_NS: u64 = 1_000_000_000;

/// When the last line of each reason was written.
#[btf_map]
static LAST_LOGGED: Array<u64, { DropReason::ALL.len() }> = Array::new();

/// Writes a line if the last of this reason is a second old. Two CPUs that drop in the same instant may both
/// write one.
#[inline(always)]
pub fn drop(reason: DropReason, key: &ConnectionKey) {
    let Some(last) = LAST_LOGGED.get_ptr_mut(reason as u32) else { return };
    let now = now_ns();
    // SAFETY: an aligned word of a map entry, which stays where it is.
    if now < unsafe { last.read_volatile() } + INTERVAL_NS {
        return;
    }
    // SAFETY: as above.
    unsafe { last.write_volatile(now) };
    write(reason, key);
}

/// Not inlined: a line costs more instructions than the whole decision.
#[inline(never)]
fn write(reason: DropReason, key: &ConnectionKey) {
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
fn name(reason: DropReason) -> &'static str {
    // As for counters: without this the check that the verifier wants to see is left out.
    match NAMES.get(core::hint::black_box(reason as usize)) {
        // SAFETY: names are ASCII.
        Some(name) => unsafe { core::str::from_utf8_unchecked(name) },
        None => "",
    }
}
