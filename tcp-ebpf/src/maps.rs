//! The map statics, and `tcp_common::decide::Maps` over them.
//!
//! LISTENERS, CONNECTIONS, COUNTERS, XSKS and CONFIG are pinned by the loader; the others live and die with
//! the program. BTF maps, so that bpftool prints their fields by name.

use core::hint::black_box;

use aya_ebpf::bindings::xdp_action;
use aya_ebpf::btf_maps::{Array, HashMap, PerCpuArray, XskMap};
use aya_ebpf::cty::{c_long, c_void};
use aya_ebpf::helpers::{bpf_ktime_get_coarse_ns, bpf_loop};
use aya_ebpf::macros::btf_map;
use tcp_common::counters::Counters;
use tcp_common::decide::{Connection, Decision, Maps, Sockets};
use tcp_common::layout::{
    Config, ConnectionKey, ConnectionValue, ICMP_ERROR_BURST, ICMP_ERROR_INTERVAL_NS, ListenerKey, ListenerValue,
    MAX_ADDRESSES, MAX_LISTENERS, MAX_QUEUES, PORT_WORDS, VLAN_WORDS,
};
use tcp_common::rate::RateLimit;

/// Every connection; the loader sets its capacity.
#[btf_map]
static CONNECTIONS: HashMap<ConnectionKey, ConnectionValue, 65536> = HashMap::new();

#[btf_map]
static LISTENERS: HashMap<ListenerKey, ListenerValue, { MAX_LISTENERS as usize }> = HashMap::new();

#[btf_map]
static COUNTERS: PerCpuArray<Counters, 1> = PerCpuArray::new();

/// The daemon's AF_XDP sockets by RX queue. The kernel removes a socket that is closed.
#[btf_map]
static XSKS: XskMap<{ MAX_QUEUES as usize }> = XskMap::new();

#[btf_map]
static CONFIG: Array<Config, 1> = Array::new();

/// One bit per local port that may be ours.
#[btf_map]
static PORTS: Array<u64, { PORT_WORDS as usize }> = Array::new();

/// One bit per VID whose frames are taken.
#[btf_map]
static VLANS: Array<u64, { VLAN_WORDS as usize }> = Array::new();

/// The unicast addresses of the interface.
#[btf_map]
static ADDRESSES: HashMap<[u8; 16], u32, { MAX_ADDRESSES as usize }> = HashMap::new();

/// The ICMP errors that this CPU has let through.
#[btf_map]
static ICMP_LIMIT: PerCpuArray<RateLimit, 1> = PerCpuArray::new();

/// The maps as seen by a frame of one queue.
pub struct KernelMaps {
    pub queue: u32,
}

impl Maps for KernelMaps {
    #[inline(always)]
    fn config(&self) -> Option<&Config> {
        CONFIG.get(0)
    }

    #[inline(always)]
    fn accepts_vlan(&self, vid: u16) -> bool {
        has_bit(&VLANS, vid)
    }

    #[inline(always)]
    fn owns_port(&self, port: u16) -> bool {
        has_bit(&PORTS, port)
    }

    #[inline(always)]
    fn connection(&self, key: &ConnectionKey) -> Option<Connection> {
        let value = CONNECTIONS.get_ptr(key)?;
        // SAFETY: an aligned word of a map entry. No reference to the entry is made: anybody may have written
        // anything to it, and not every byte is a `State`.
        Some(Connection { queue: unsafe { (&raw const (*value).queue).read() } })
    }

    #[inline(always)]
    fn has_listener(&self, key: &ListenerKey) -> bool {
        LISTENERS.get_ptr(key).is_some()
    }

    #[inline(always)]
    fn has_address(&self, address: &[u8; 16]) -> bool {
        ADDRESSES.get_ptr(address).is_some()
    }

    #[inline(always)]
    fn sockets(&self) -> Sockets {
        if XSKS.get(self.queue).is_some() {
            Sockets::Here
        } else if any_socket() {
            Sockets::Elsewhere
        } else {
            Sockets::Nowhere
        }
    }

    #[inline(always)]
    fn admit_icmp_error(&self) -> bool {
        match ICMP_LIMIT.get_ptr_mut(0) {
            // SAFETY: the entry is this CPU's own, and the program is not preempted on it.
            Some(limit) => unsafe { &mut *limit }.admit(now_ns(), ICMP_ERROR_INTERVAL_NS, ICMP_ERROR_BURST),
            None => false,
        }
    }
}

impl KernelMaps {
    /// Counts a frame on this CPU.
    #[inline(always)]
    pub fn count(&self, decision: &Decision) {
        let Some(counters) = COUNTERS.get_ptr_mut(0) else { return };
        for slot in decision.slots().into_iter().flatten() {
            increment(counters.cast(), slot);
        }
    }

    /// Gives the frame to the socket of its queue.
    #[inline(always)]
    pub fn steer(&self) -> u32 {
        // A socket that was closed a moment ago is the only way to miss here: the next frame finds out.
        XSKS.redirect(self.queue, 0).unwrap_or(xdp_action::XDP_DROP)
    }
}

#[inline(always)]
fn increment(slots: *mut u64, slot: usize) {
    // The compiler knows that a slot is in range and would leave out the check, which the verifier wants to see.
    let slot = black_box(slot);
    if slot < Counters::SLOTS {
        // SAFETY: `Counters` is that many numbers; the entry is this CPU's own, and the program is not preempted
        // on it.
        unsafe { *slots.add(slot) += 1 };
    }
}

/// Whether any queue has a socket.
///
/// By `bpf_loop`, because the verifier follows a loop of ours through every turn, again for each way of getting here.
fn any_socket() -> bool {
    let mut found = false;
    let found_at = (&raw mut found).cast();
    // SAFETY: the callback has the type that the helper calls, and `found` outlives the call.
    unsafe { bpf_loop(MAX_QUEUES, look_for_socket as *mut c_void, found_at, 0) };
    found
}

/// One turn: stops when `queue` has a socket.
unsafe extern "C" fn look_for_socket(queue: u64, found: *mut bool) -> c_long {
    let here = XSKS.get(queue as u32).is_some();
    if here {
        // SAFETY: `any_socket` passed the address of its variable.
        unsafe { found.write(true) };
    }
    c_long::from(here)
}

#[inline(always)]
fn has_bit<const WORDS: usize>(bits: &Array<u64, WORDS>, index: u16) -> bool {
    match bits.get(u32::from(index) / 64) {
        Some(word) => word >> (index % 64) & 1 != 0,
        None => false,
    }
}

/// CLOCK_MONOTONIC, to the last timer tick.
#[inline(always)]
pub fn now_ns() -> u64 {
    // SAFETY: the helper takes no argument and has no precondition.
    unsafe { bpf_ktime_get_coarse_ns() }
}
