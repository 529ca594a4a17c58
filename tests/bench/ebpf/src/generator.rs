//! The generator for live frames: writes a template with another source, port and sequence number over each frame and
//! sends it out by XDP_TX, or hands it to a program that is to be measured, if there is one in NEXT.
//!
//! A frame is written as a whole each time: its memory is used again, and holds what its last receiver made of it.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

use aya_ebpf::bindings::xdp_action::{XDP_ABORTED, XDP_TX};
use aya_ebpf::btf_maps::{Array, ProgramArray};
use aya_ebpf::cty::{c_long, c_void};
use aya_ebpf::helpers::{bpf_get_prandom_u32, bpf_ktime_get_ns, bpf_loop};
use aya_ebpf::macros::{btf_map, xdp};
use aya_ebpf::programs::XdpContext;
use bench_ebpf::{MAX_FRAME, Offsets, TCP_CHECKSUM, Template, V4, V6, Varied};

#[btf_map]
static TEMPLATE: Array<Template, 1> = Array::new();

/// When the next frame is due (CLOCK_MONOTONIC, ns), and the time between two; 0: none.
#[btf_map]
static PACE: Array<[u64; 2], 1> = Array::new();

/// Looks at the clock while a frame is not due, at most: some ms.
const PATIENCE: u32 = 1 << 17;
/// How far frames may fall behind before they are given up, ns.
const MAX_LAG: u64 = 1_000_000;

#[btf_map]
static NEXT: ProgramArray<1> = ProgramArray::new();

/// Makes a frame.
#[xdp]
fn generator(context: XdpContext) -> u32 {
    let Some(template) = TEMPLATE.get(0) else { return XDP_ABORTED };
    wait();
    copy(&context, &template.bytes);
    // SAFETY: the helper takes no argument and has no precondition.
    let random = || unsafe { bpf_get_prandom_u32() };
    let varied = template.vary([random(), random(), random()]);
    let written = if template.is_v4 != 0 { fill::<true>(&context, &varied) } else { fill::<false>(&context, &varied) };
    if written.is_none() {
        return XDP_ABORTED;
    }
    // SAFETY: nothing is left to be dropped here.
    unsafe { NEXT.tail_call(&context, 0) };
    XDP_TX
}

/// Waits until the next frame is due. In the program, because a call of it takes milliseconds to set up.
#[inline(always)]
fn wait() {
    let Some(pace) = PACE.get_ptr_mut(0) else { return };
    // SAFETY: aligned words of a map entry, which stays where it is; one generator runs at a time.
    let [due, interval] = unsafe { pace.read() };
    if interval == 0 {
        return;
    }
    let mut until = due;
    // SAFETY: the callback has the type that the helper calls, and `until` outlives the call.
    unsafe { bpf_loop(PATIENCE, is_due as *mut c_void, (&raw mut until).cast(), 0) };
    // SAFETY: the helper takes no argument and has no precondition.
    let earliest = unsafe { bpf_ktime_get_ns() } - MAX_LAG;
    let next = if due > earliest { due } else { earliest } + interval;
    // SAFETY: as above.
    unsafe { pace.cast::<u64>().write(next) };
}

/// One turn: stops when the time has come.
unsafe extern "C" fn is_due(_: u64, until: *mut u64) -> c_long {
    // SAFETY: `wait` passed the address of its variable; the helper has no precondition.
    c_long::from(unsafe { bpf_ktime_get_ns() >= *until })
}

/// Writes the template over the frame, by words, then by pairs of bytes: every frame has an even length.
#[inline(always)]
fn copy(context: &XdpContext, bytes: &[u8; MAX_FRAME]) {
    let mut at = 0;
    while at < MAX_FRAME && write::<8>(context, at, part(bytes, at)).is_some() {
        at += 8;
    }
    let mut pairs = 0;
    while pairs < 3 && at < MAX_FRAME && write::<2>(context, at, part(bytes, at)).is_some() {
        at += 2;
        pairs += 1;
    }
}

#[inline(always)]
fn part<const N: usize>(bytes: &[u8; MAX_FRAME], at: usize) -> [u8; N] {
    if at > MAX_FRAME - N {
        return [0; N];
    }
    // SAFETY: the bytes lie within the array (checked above) and have no alignment.
    unsafe { bytes.as_ptr().add(at).cast::<[u8; N]>().read() }
}

#[inline(always)]
fn fill<const IS_V4: bool>(context: &XdpContext, varied: &Varied) -> Option<()> {
    let at: Offsets = if IS_V4 { V4 } else { V6 };
    write(context, at.source, varied.source)?;
    if IS_V4 {
        write(context, at.ip_checksum, varied.ip_checksum)?;
    }
    write(context, at.tcp, varied.port)?;
    write(context, at.tcp + 4, varied.sequence)?;
    write(context, at.tcp + TCP_CHECKSUM, varied.tcp_checksum)
}

#[inline(always)]
fn write<const N: usize>(context: &XdpContext, offset: usize, bytes: [u8; N]) -> Option<()> {
    let start = context.data() + offset;
    if start + N > context.data_end() {
        return None;
    }
    // SAFETY: the bytes lie within the frame (checked above) and have no alignment.
    unsafe { (start as *mut [u8; N]).write(bytes) };
    Some(())
}

bench_ebpf::program_file!();
