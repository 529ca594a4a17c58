//! References for the cost of a program: `nothing`, which takes the frame as it is, and `bare_lookup`, which parses
//! nothing and looks one key up that differs from frame to frame, in a map with keys and values of CONNECTIONS' sizes.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS};
use aya_ebpf::btf_maps::HashMap;
use aya_ebpf::macros::{btf_map, xdp};
use aya_ebpf::programs::XdpContext;
use bench_ebpf::V4;

/// Its capacity is set when it is loaded.
#[btf_map]
static TABLE: HashMap<[u64; 5], [u64; 8], 1024> = HashMap::new();

/// Looks at nothing.
#[xdp]
fn nothing(_: XdpContext) -> u32 {
    XDP_PASS
}

/// Looks up the frame's source and source port, as they stand in it. XDP_PASS: there is such an entry.
#[xdp]
fn bare_lookup(context: XdpContext) -> u32 {
    let data = context.data();
    if data + V4.tcp + 2 > context.data_end() {
        return XDP_DROP;
    }
    // SAFETY: both lie within the frame (checked above).
    let (source, port) = unsafe {
        (((data + V4.source) as *const u32).read_unaligned(), ((data + V4.tcp) as *const u16).read_unaligned())
    };
    match TABLE.get_ptr([u64::from(source), u64::from(port), 0, 0, 0]) {
        Some(_) => XDP_PASS,
        None => XDP_DROP,
    }
}

bench_ebpf::program_file!();
