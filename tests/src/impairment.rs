//! A wire that loses segments: a small filter on the client's end of a lab's veth pair (tc, clsact) that takes TCP
//! segments away at random, each for itself, in both directions.
//!
//! The filter is classic BPF, which `tc` takes as numbers, so it needs neither a compiler nor a kernel module. What the
//! client sends vanishes as it does on a link: its kernel believes that it was sent. What xtcp sends is taken away
//! behind the capture, so that the checker sees all of it. ARP, neighbour discovery and UDP are left alone.
//! Leaves out: delay, reordering and duplicates.

use anyhow::{Context, Result, ensure};

use crate::net::{Namespace, succeeded};

/// What shares of segments are told in: 1000 is all of them.
const PER_MILLE: u32 = 1000;
/// Verdicts of tc: go on; drop and tell the sender; take away in silence.
const OK: u32 = 0;
const SHOT: u32 = 2;
const STOLEN: u32 = 4;
/// Where Linux has classic BPF read a random number from.
const RANDOM: u32 = 0xffff_f038;

/// Has the end `client` of a wire lose `per_mille` of a thousand TCP segments each way from now on; 0 ends it.
///
/// # Errors
/// When `per_mille` is above 1000, and when `tc` fails (package iproute2; the kernel needs clsact and cls_bpf).
pub fn lose(client: &Namespace, per_mille: u32) -> Result<()> {
    ensure!(per_mille <= PER_MILLE, "{per_mille} of {PER_MILLE} segments can't be lost");
    let interface = client.interface();
    client.run(&format!("tc qdisc replace dev {interface} clsact"))?;
    // A sender that is told of a drop does not count the segment as sent.
    for (direction, verdict) in [("egress", STOLEN), ("ingress", SHOT)] {
        let filter = format!("filter replace dev {interface} {direction} prio 1 handle 1 bpf direct-action bytecode");
        let mut tc = client.command("tc");
        tc.args(filter.split(' ')).arg(bytecode(per_mille, verdict));
        succeeded(&format!("tc {filter}"), &tc.output().context("can't run nsenter (package util-linux)")?)?;
    }
    Ok(())
}

/// The filter as `tc` reads it: number of instructions, then code, jump if true, if false, operand.
fn bytecode(per_mille: u32, verdict: u32) -> String {
    let below = u64::from(per_mille) * u64::from(u32::MAX) / u64::from(PER_MILLE);
    let load = |width: u32, offset: u32| (0x20 + width, 0, 0, offset);
    let (word, half, byte) = (0, 8, 16);
    let if_equal = |value: u32, otherwise: u32| (0x15, 0, otherwise, value);
    let program = [
        load(half, 12), // EtherType
        if_equal(0x0800, 2),
        load(byte, 23), // IPv4's protocol
        (0x05, 0, 0, 2),
        if_equal(0x86dd, 5),
        load(byte, 20), // IPv6's next header
        if_equal(6, 3),
        load(word, RANDOM),
        (0x35, 1, 0, below as u32), // at or above: passes
        (0x06, 0, 0, verdict),
        (0x06, 0, 0, OK),
    ];
    let lines = program.map(|(code, then, otherwise, operand)| format!("{code} {then} {otherwise} {operand}"));
    format!("{},{}", lines.len(), lines.join(","))
}
