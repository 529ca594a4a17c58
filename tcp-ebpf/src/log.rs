//! What the program tells the daemon's log: the first drop of each reason in each second.

use aya_ebpf::btf_maps::Array;
use aya_ebpf::macros::btf_map;
use aya_log_ebpf::info;
use tcp_common::counters::DropReason;

use crate::ReceivedFrame;

pub fn drop(_reason: DropReason, _frame: &ReceivedFrame) {}
