//! xtcp's XDP program: gives every frame to `tcp_common::decide`, counts the decision and carries it out.
//!
//! Nothing is decided here; see `tcp-common/src/decide.rs`. Built for the host it is an empty program, so
//! that the workspace's checks reach this code.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

mod log;
mod maps;
mod sources;

use core::hint::black_box;

use aya_ebpf::bindings::{xdp_action, xdp_md};
use aya_ebpf::helpers::{bpf_xdp_adjust_meta, bpf_xdp_adjust_tail, bpf_xdp_load_bytes, bpf_xdp_store_bytes};
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use tcp_common::ConnectionKey;
use tcp_common::answer::{Asked, Deed, Room};
use tcp_common::counters::Outcome;
use tcp_common::decide::{Decision, Maps, Question, Steer, Verdict, ours};
use tcp_common::headers::MAX_HEADER;
use tcp_common::layout::{Handover, ListenerValue};
use tcp_common::packet::{Frame, Place};
use tcp_common::reply::{MAX_REPLY, REPLY_ROOM};

use crate::maps::{KernelMaps, room};

/// The program of one interface.
#[xdp]
fn xtcp(context: XdpContext) -> u32 {
    let maps = KernelMaps { queue: context.rx_queue_index() };
    let frame = ReceivedFrame::new(&context);
    let mut key = ConnectionKey::default();
    let Some(mut decision) = ours(&frame, &maps, &mut key) else {
        maps.count(Outcome::Pass.slot());
        return xdp_action::XDP_PASS;
    };
    if let Some(question) = decision.question()
        && let Some(config) = maps.config()
        && config.answers != 0
    {
        let listener = match decision.listener {
            Some(listener) => core::ptr::from_ref(listener),
            None => core::ptr::null(),
        };
        // SAFETY: `context` is the one that the kernel gave us, and the others are references or null.
        let deed =
            unsafe { consider(context.ctx, &raw const key, &raw const decision.place, listener, question as u32) };
        if let Some(verdict) = Deed::from_number(deed).verdict() {
            decision.verdict = verdict;
        }
    }
    maps.count_decision(&decision);
    carry_out(&context, &decision, &maps, &key)
}

/// Answers a segment that the program may answer by itself; the answer is in the frame then. Returns a [`Deed`].
///
/// A function with a name of its own, which the verifier looks at once, by its arguments' types alone, and not again for
/// each way of getting here. That is why it takes pointers and numbers, and returns a number.
///
/// # Safety
/// `context` is that of the frame; the other pointers are null or point to what their types say.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn consider(
    context: *mut xdp_md,
    key: *const ConnectionKey,
    place: *const Place,
    listener: *const ListenerValue,
    question: u32,
) -> u32 {
    let context = XdpContext::new(context);
    // SAFETY: promised by the caller.
    let (key, place, listener) = unsafe { (key.as_ref(), place.as_ref(), listener.as_ref()) };
    let (Some(key), Some(place), Some(question)) = (key, place, Question::from_number(question)) else {
        return Deed::Leave as u32;
    };
    let Some(room) = room() else { return Deed::Leave as u32 };
    let maps = KernelMaps { queue: context.rx_queue_index() };
    let frame = ReceivedFrame::new(&context);
    let deed = Asked { frame: &frame, maps: &maps, key, place, listener }.answer(question, room);
    if deed.answers() && !put(&context, room) { Deed::NoRoom as u32 } else { deed as u32 }
}

/// Replaces the frame by the answer.
#[inline(always)]
fn put(context: &XdpContext, room: &Room) -> bool {
    let (start, length) = (black_box(room.frame.start as usize), black_box(room.frame.length as usize));
    if start > REPLY_ROOM - MAX_REPLY || length == 0 || length > MAX_REPLY {
        return false;
    }
    let longer = length as i32 - (context.data_end() - context.data()) as i32;
    // SAFETY: `context` is the one that the kernel gave us; pointers into the frame are not used any more. The room
    // has `length` bytes from `start` on (checked above).
    unsafe {
        (longer == 0 || bpf_xdp_adjust_tail(context.ctx, longer) == 0)
            && bpf_xdp_store_bytes(context.ctx, 0, room.frame.room.as_ptr().add(start).cast_mut().cast(), length as u32)
                == 0
    }
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
            if steer == Steer::NoConnection {
                hand_over(context, &Handover::stranger(key));
            }
            maps.steer()
        }
        Verdict::Answer(_) => xdp_action::XDP_TX,
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
    context: *mut xdp_md,
    data: usize,
    end: usize,
}

impl ReceivedFrame {
    #[inline(always)]
    fn new(context: &XdpContext) -> Self {
        ReceivedFrame { context: context.ctx, data: context.data(), end: context.data_end() }
    }
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

    #[inline(always)]
    fn copy<const N: usize>(&self, offset: usize, length: usize, to: &mut [u8; N]) -> bool {
        let length = black_box(length);
        if length == 0 || length > MAX_HEADER || length > N {
            return false;
        }
        // SAFETY: `to` has room for `length` bytes (checked above); the kernel checks that the frame has them.
        unsafe { bpf_xdp_load_bytes(self.context, offset as u32, to.as_mut_ptr().cast(), length as u32) == 0 }
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
