//! The map statics, and `tcp_common::decide::Maps` over them.
//!
//! LISTENERS, CONNECTIONS, COUNTERS, XSKS and CONFIG are pinned by the loader; the others live and die with
//! the program. BTF maps, so that bpftool prints their fields by name.

use core::hint::black_box;

use aya_ebpf::bindings::{BPF_NOEXIST, xdp_action};
use aya_ebpf::btf_maps::{Array, HashMap, PerCpuArray, XskMap};
use aya_ebpf::cty::{c_long, c_void};
use aya_ebpf::helpers::{bpf_ktime_get_coarse_ns, bpf_loop};
use aya_ebpf::macros::btf_map;
use tcp_common::State;
use tcp_common::answer::{AnswerMaps, Room, TimeWait};
use tcp_common::cookie::CookieKeys;
use tcp_common::counters::Counters;
use tcp_common::decide::{Connection, Decision, Maps, Sockets};
use tcp_common::gauge::Gauge;
use tcp_common::headers::Step;
use tcp_common::layout::{
    Config, ConnectionKey, ConnectionValue, ICMP_ERRORS, ListenerKey, ListenerValue, MAX_ADDRESSES, MAX_LISTENERS,
    MAX_QUEUES, PORT_WORDS, SYNS_WITH_DATA, TIME_WAIT_ACKS, VLAN_WORDS,
};
use tcp_common::rate::{Rate, RateLimit};

use crate::log;

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

/// The resets that this CPU has sent.
#[btf_map]
static RESET_LIMIT: PerCpuArray<RateLimit, 1> = PerCpuArray::new();

/// The ACKs for connections in TIME_WAIT that this CPU has sent.
#[btf_map]
static TIME_WAIT_LIMIT: PerCpuArray<RateLimit, 1> = PerCpuArray::new();

/// The SYNs with data that this CPU has let through to a daemon that sends cookies.
#[btf_map]
static SYN_DATA_LIMIT: PerCpuArray<RateLimit, 1> = PerCpuArray::new();

/// The keys of cookies. Not pinned: nobody else has to know them.
#[btf_map]
static COOKIE_KEYS: Array<CookieKeys, 1> = Array::new();

/// The SYNs of each listener, by its index.
#[btf_map]
static GAUGES: Array<Gauge, { MAX_LISTENERS as usize }> = Array::new();

/// Until when the daemon wants cookies for a listener, by its index; CLOCK_MONOTONIC, ns.
#[btf_map]
static COOKIE_DEMAND: Array<u64, { MAX_LISTENERS as usize }> = Array::new();

/// Room for an answer, which the stack has not got.
#[btf_map]
static ROOM: PerCpuArray<Room, 1> = PerCpuArray::new();

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
        // SAFETY: aligned words of a map entry. No reference to the entry is made: anybody may have written
        // anything to it, and not every byte is a `State`.
        let (queue, state) = unsafe { ((&raw const (*value).queue).read(), value.cast::<u8>().read()) };
        Some(Connection { queue, time_wait: state == State::TIME_WAIT as u8 })
    }

    #[inline(always)]
    fn listener(&self, key: &ListenerKey) -> Option<&ListenerValue> {
        let value = LISTENERS.get_ptr(key)?;
        // SAFETY: integers only, so that any bytes are a value; the entry's memory is not given to another type.
        Some(unsafe { &*value })
    }

    #[inline(always)]
    fn has_address(&self, address: &[u8; 16]) -> bool {
        ADDRESSES.get_ptr(address).is_some()
    }

    #[inline(always)]
    fn queue(&self) -> u16 {
        self.queue as u16
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
        admit(&ICMP_LIMIT, now_ns(), &ICMP_ERRORS)
    }
}

impl AnswerMaps for KernelMaps {
    #[inline(always)]
    fn now_ns(&self) -> u64 {
        now_ns()
    }

    #[inline(always)]
    fn cookie_keys(&self) -> Option<&CookieKeys> {
        COOKIE_KEYS.get(0)
    }

    #[inline(always)]
    fn gauge(&self, index: u32) -> Option<Gauge> {
        // SAFETY: an entry of an array map, which stays where it is; other CPUs may write to it meanwhile, word by word.
        GAUGES.get_ptr(index).map(|gauge| unsafe { gauge.read_volatile() })
    }

    #[inline(always)]
    fn set_gauge(&self, index: u32, gauge: &Gauge) {
        if let Some(entry) = GAUGES.get_ptr_mut(index) {
            // SAFETY: as in `gauge`.
            unsafe {
                (&raw mut (*entry).window_ns).write_volatile(gauge.window_ns);
                (&raw mut (*entry).syns).write_volatile(gauge.syns);
                // Another CPU may have turned cookies on since this one looked.
                if gauge.until_ns > (&raw const (*entry).until_ns).read_volatile() {
                    (&raw mut (*entry).until_ns).write_volatile(gauge.until_ns);
                }
            }
        }
    }

    #[inline(always)]
    fn cookie_demand_ns(&self, index: u32) -> u64 {
        match COOKIE_DEMAND.get(index) {
            Some(until) => *until,
            None => 0,
        }
    }

    #[inline(always)]
    fn time_wait(&self, key: &ConnectionKey) -> Option<TimeWait> {
        let value = CONNECTIONS.get_ptr(key)?;
        // SAFETY: an aligned word of a map entry, as in `connection`.
        if unsafe { value.cast::<u8>().read() } != State::TIME_WAIT as u8 {
            return None; // it has a successor by now
        }
        // SAFETY: as above.
        let entry = unsafe {
            TimeWait {
                snd_nxt: (&raw const (*value).snd_nxt).read(),
                rcv_nxt: (&raw const (*value).rcv_nxt).read(),
                ts_recent: (&raw const (*value).ts_recent).read(),
                flags: (&raw const (*value).flags).read(),
            }
        };
        Some(entry)
    }

    #[inline(always)]
    fn restart_time_wait(&self, key: &ConnectionKey, deadline_ns: u64) {
        if let Some(value) = CONNECTIONS.get_ptr_mut(key) {
            // SAFETY: an aligned word of a map entry, as in `connection`.
            unsafe { (&raw mut (*value).deadline_ns).write(deadline_ns) };
        }
    }

    #[inline(always)]
    fn insert(&self, key: &ConnectionKey, value: &ConnectionValue) {
        // With no room the daemon makes some, or ends the connection; a copy of the segment finds the entry there.
        let _ = CONNECTIONS.insert(key, value, BPF_NOEXIST.into());
    }

    #[inline(always)]
    fn admit_reset(&self, now_ns: u64, rate: &Rate) -> bool {
        admit(&RESET_LIMIT, now_ns, rate)
    }

    #[inline(always)]
    fn admit_syn_data(&self, now_ns: u64) -> bool {
        admit(&SYN_DATA_LIMIT, now_ns, &SYNS_WITH_DATA)
    }

    #[inline(always)]
    fn admit_time_wait_ack(&self, now_ns: u64) -> bool {
        admit(&TIME_WAIT_LIMIT, now_ns, &TIME_WAIT_ACKS)
    }

    #[inline(always)]
    fn log_cookies(&self, key: &ConnectionKey) {
        log::cookies(key);
    }

    #[inline(always)]
    fn repeat<S: Step>(&self, times: u32, work: &mut S) {
        let work = core::ptr::from_mut(work).cast();
        // SAFETY: the callback has the type that the helper calls, and `work` outlives the call.
        unsafe { bpf_loop(times, turn::<S> as *mut c_void, work, 0) };
    }
}

/// One step.
unsafe extern "C" fn turn<S: Step>(_turn: u64, work: *mut S) -> c_long {
    // SAFETY: `repeat` passed the address of a step that nobody else has.
    c_long::from(unsafe { &mut *work }.step())
}

#[inline(always)]
fn admit(limits: &PerCpuArray<RateLimit, 1>, now_ns: u64, rate: &Rate) -> bool {
    match limits.get_ptr_mut(0) {
        // SAFETY: the entry is this CPU's own, and the program is not preempted on it.
        Some(limit) => unsafe { &mut *limit }.admit(now_ns, rate),
        None => false,
    }
}

/// This CPU's room for an answer.
#[inline(always)]
pub fn room<'a>() -> Option<&'a mut Room> {
    // SAFETY: the entry is this CPU's own, the program is not preempted on it, and asks once for each frame.
    ROOM.get_ptr_mut(0).map(|room| unsafe { &mut *room })
}

impl KernelMaps {
    /// Counts a frame on this CPU.
    #[inline(always)]
    pub fn count_decision(&self, decision: &Decision) {
        let Some(counters) = COUNTERS.get_ptr_mut(0) else { return };
        for slot in decision.slots().into_iter().flatten() {
            increment(counters.cast(), slot);
        }
    }

    /// Moves one counter of this CPU.
    #[inline(always)]
    pub fn count(&self, slot: usize) {
        if let Some(counters) = COUNTERS.get_ptr_mut(0) {
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
