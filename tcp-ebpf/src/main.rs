//! xtcp's XDP program: gives every frame to `tcp_common::decide`, counts the decision and carries it out.
//!
//! Nothing is decided here; see `tcp-common/src/decide.rs`. Built for the host it is an empty program, so
//! that the workspace's checks reach this code.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

mod log;
mod maps;
mod sources;

use aya_ebpf::bindings::xdp_action;
use aya_ebpf::helpers::bpf_xdp_adjust_meta;
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use tcp_common::ConnectionKey;
use tcp_common::decide::{Decision, Verdict, decide};
use tcp_common::layout::Handover;
use tcp_common::packet::Frame;

use crate::maps::KernelMaps;

/// The program of one interface.
#[xdp]
fn xtcp(context: XdpContext) -> u32 {
    let maps = KernelMaps { queue: context.rx_queue_index() };
    let frame = ReceivedFrame { data: context.data(), end: context.data_end() };
    let mut key = ConnectionKey::default();
    let decision = decide(&frame, &maps, &mut key);
    maps.count(&decision);
    carry_out(&context, &decision, &maps, &key)
}

#[inline(always)]
fn carry_out(context: &XdpContext, decision: &Decision, maps: &KernelMaps, key: &ConnectionKey) -> u32 {
    match decision.verdict {
        Verdict::Pass => xdp_action::XDP_PASS,
        Verdict::Steer(steer) => {
            if let Some(queue) = steer.owner()
                && u32::from(queue) != maps.queue
            {
                hand_over(context, &Handover::new(key, queue));
            }
            maps.steer()
        }
        Verdict::Drop(reason) => {
            log::drop(reason, key);
            xdp_action::XDP_DROP
        }
    }
}

/// Puts the hint before the frame. A driver without room for it leaves it out: then the worker has to find out.
#[inline(always)]
fn hand_over(context: &XdpContext, hint: &Handover) {
    // SAFETY: `context` is the one that the kernel gave us; pointers into the frame are not used any more.
    if unsafe { bpf_xdp_adjust_meta(context.ctx, -(Handover::LENGTH as i32)) } != 0 {
        return;
    }
    let metadata = context.metadata();
    if metadata + Handover::LENGTH <= context.metadata_end() {
        // SAFETY: the bytes lie between the beginning of the metadata and the frame (checked above).
        unsafe { (metadata as *mut Handover).write_unaligned(*hint) };
    }
}

/// The frame in the driver's memory; the verifier checks the checks.
struct ReceivedFrame {
    data: usize,
    end: usize,
}

/// Above any frame; the verifier refuses to follow an offset that it can't see to be below 64 KiB.
const MAX_OFFSET: usize = 0x3fff;

impl Frame for ReceivedFrame {
    #[inline(always)]
    fn bytes<const N: usize>(&self, offset: usize) -> Option<&[u8; N]> {
        if offset > MAX_OFFSET {
            return None;
        }
        let start = self.data + offset;
        if start + N > self.end {
            return None;
        }
        // SAFETY: the bytes lie within the frame (checked above), have no alignment, and nothing writes to
        // a frame while the program has it.
        Some(unsafe { &*(start as *const [u8; N]) })
    }

    #[inline(always)]
    fn length(&self) -> usize {
        self.end - self.data
    }
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The helpers that the program calls are for GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
