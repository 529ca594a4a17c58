//! What the program remembers of where segments come from: allowed and denied prefixes, which the daemon writes, and
//! the SYNs of each source. `tcp_common::source` asks them, and only for segments without a connection.

use core::hint::black_box;

use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::btf_maps::{LpmTrie, LruHashMap};
use aya_ebpf::macros::btf_map;
use tcp_common::layout::{MAX_PREFIXES, MAX_SOURCES, PrefixValue};
use tcp_common::rate::{Rate, RateLimit};
use tcp_common::source::Sources;

use crate::maps::{KernelMaps, now_ns};

/// Allowed and denied prefixes; memory is taken as they come.
#[btf_map]
static PREFIXES: LpmTrie<[u8; 16], PrefixValue, { MAX_PREFIXES as usize }> = LpmTrie::new();

/// The SYNs of each source; the loader sets its capacity.
#[btf_map]
static SOURCES: LruHashMap<[u8; 16], RateLimit, { MAX_SOURCES as usize }> = LruHashMap::new();

impl Sources for KernelMaps {
    #[inline(always)]
    fn prefix(&self, address: &[u8; 16]) -> Option<PrefixValue> {
        let lookup = AlignedKey { pad: 0, key: Key::new(u128::BITS, *address) };
        PREFIXES.get(&black_box(&lookup).key).copied()
    }

    /// A source may reach several CPUs at once: then a charge may be lost, and one SYN more let through.
    #[inline(always)]
    fn admit_syn(&self, source: &[u8; 16], limit: &Rate) -> bool {
        let now = now_ns();
        match SOURCES.get_ptr_mut(source) {
            Some(sent) => {
                // SAFETY: aligned words of a map entry, of which any value is a limit.
                let mut charged = unsafe { sent.read_volatile() };
                let admitted = charged.admit(now, limit);
                // SAFETY: as above.
                unsafe { sent.write_volatile(charged) };
                admitted
            }
            None => {
                let mut charged = RateLimit::default();
                let admitted = charged.admit(now, limit);
                // Without room for it, which only a burst on all CPUs makes so, this one is not counted.
                let _ = SOURCES.insert(source, charged, 0);
                admitted
            }
        }
    }
}

/// A key of PREFIXES whose address is aligned: it is copied by words, and the verifier takes no others. Behind
/// `black_box` the compiler can't leave out what aligns it.
#[repr(C, align(8))]
struct AlignedKey {
    pad: u32,
    key: Key<[u8; 16]>,
}
