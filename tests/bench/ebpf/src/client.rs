//! The client's end of the wire: `pass` is there so that XDP_TX reaches it, `count` ends what comes back to generated
//! sources and counts it, `steer` gives it to an AF_XDP socket. All else goes to the kernel. `discard` is a server that
//! does nothing: what a frame costs whatever becomes of it.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS};
use aya_ebpf::btf_maps::{PerCpuArray, XskMap};
use aya_ebpf::macros::{btf_map, xdp};
use aya_ebpf::programs::XdpContext;
use bench_ebpf::{REPLY_KINDS, SOURCES_V4, SOURCES_V6, V4, V6};

/// [`bench_ebpf::Replies`], one for each CPU.
#[btf_map]
static REPLIES: PerCpuArray<[u64; REPLY_KINDS], 1> = PerCpuArray::new();

#[btf_map]
static SOCKETS: XskMap<64> = XskMap::new();

/// Offset of the flags in a TCP header, and two of them.
const FLAGS: usize = 13;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;

/// Leaves everything to the kernel.
#[xdp]
fn pass(_: XdpContext) -> u32 {
    XDP_PASS
}

/// Drops everything.
#[xdp]
fn discard(_: XdpContext) -> u32 {
    XDP_DROP
}

/// Counts and drops what comes back to generated sources.
#[xdp]
fn count(context: XdpContext) -> u32 {
    let Some(flags) = flags_of_reply(&context) else { return XDP_PASS };
    let Some(replies) = REPLIES.get_ptr_mut(0) else { return XDP_DROP };
    // SAFETY: the entry is this CPU's own, and the program is not preempted on it.
    let replies = unsafe { &mut *replies };
    if flags & SYN != 0 {
        replies[0] += 1;
    } else if flags & RST != 0 {
        replies[1] += 1;
    } else {
        replies[2] += 1;
    }
    XDP_DROP
}

/// Gives what comes back to generated sources to the socket of its queue.
#[xdp]
fn steer(context: XdpContext) -> u32 {
    match flags_of_reply(&context) {
        Some(_) => SOCKETS.redirect(context.rx_queue_index(), 0).unwrap_or(XDP_DROP),
        None => XDP_PASS,
    }
}

/// The TCP flags of a segment to one of the generator's sources. There are neither options nor extension headers: both
/// ends of the wire are known.
#[inline(always)]
fn flags_of_reply(context: &XdpContext) -> Option<u8> {
    let kind = bytes::<2>(context, 12)?;
    if kind == [0x08, 0x00] {
        let [a, b, ..] = bytes::<4>(context, 30)?;
        let ours = a == SOURCES_V4[0] && b & 0xfe == SOURCES_V4[1];
        return if ours { bytes::<1>(context, V4.tcp + FLAGS).map(|[flags]| flags) } else { None };
    }
    if kind == [0x86, 0xdd] {
        let [a, b, c, d, e, f] = bytes::<6>(context, 38)?;
        let ours = [a, b, c, d] == [SOURCES_V6[0], SOURCES_V6[1], SOURCES_V6[2], SOURCES_V6[3]] && [e, f] == [0, 0];
        return if ours { bytes::<1>(context, V6.tcp + FLAGS).map(|[flags]| flags) } else { None };
    }
    None
}

#[inline(always)]
fn bytes<const N: usize>(context: &XdpContext, offset: usize) -> Option<[u8; N]> {
    let start = context.data() + offset;
    if start + N > context.data_end() {
        return None;
    }
    // SAFETY: the bytes lie within the frame (checked above) and have no alignment.
    Some(unsafe { (start as *const [u8; N]).read() })
}

bench_ebpf::program_file!();
