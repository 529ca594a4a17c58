//! A bad wire: TCP segments that are lost, overtaken and doubled at random, each for itself, in both directions, by
//! what every kernel has (tc with clsact, HTB, mirred and an IFB device; no netem).
//!
//! Filters are classic BPF, which `tc` takes as numbers, so they need no compiler. On the client's end of the veth
//! pair they take segments away, copy some, and send all others through the IFB device, which gives them back to where
//! they came from. There a random share waits in a slow class of HTB while others overtake it: that is reordering as
//! parallel paths make it, and nothing is lost by it. What the client sends vanishes as it does on a link: its kernel
//! believes that it was sent. What xtcp sends is changed behind the capture, which sees it as it was sent. ARP,
//! neighbour discovery and UDP are left alone.
//! Leaves out: a delay of everything, bandwidth, corruption.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};

use crate::net::{Namespace, succeeded};

/// What shares of segments are told in: 1000 is all of them.
const PER_MILLE: u32 = 1000;
/// Verdicts of tc's filters: ask the next filter, or nothing matched; drop and tell the sender; take away in silence.
const NEXT: u32 = u32::MAX;
const SHOT: u32 = 2;
const STOLEN: u32 = 4;
/// What a filter that only picks segments says of one that it picks, and of one that it leaves.
const PICKED: u32 = u32::MAX;
const LEFT: u32 = 0;
/// Where Linux has classic BPF read a random number from.
const RANDOM: u32 = 0xffff_f038;
/// The IFB device; every namespace may have one of that name.
const DEVICE: &str = "impaired";
/// Class of HTB for those that are overtaken, as `tc` writes it and as a filter names it.
const SLOW: (&str, u32) = ("1:2", 0x1_0002);
/// How fast that class is: a full segment holds the next one of its class up for 1.2 ms.
const SLOW_RATE: &str = "10mbit";
/// Segments that may wait in the device: more than any test has under way, so that none is lost there.
const QUEUE: u32 = 16_384;
/// Segments that the kernel hands over at once by default, at most.
const MOST_AT_ONCE: u32 = 65_535;

/// How bad a wire is: shares of a thousand TCP segments, in each direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Impairment {
    /// Segments that are lost.
    pub loss: u32,
    /// Segments that others may overtake.
    pub reordering: u32,
    /// Segments that arrive twice.
    pub duplication: u32,
}

impl Impairment {
    /// Makes the wire that ends at `client` as bad as this from now on; what waited in the device is lost.
    pub(crate) fn apply(&self, client: &Namespace) -> Result<()> {
        let shares = [self.loss, self.reordering, self.duplication];
        ensure!(shares.iter().all(|share| *share <= PER_MILLE), "{self:?}: there are only {PER_MILLE} in a thousand");
        // Both go without a word when there are none.
        let _ = client.run(&format!("tc qdisc del dev {} clsact", client.interface()));
        let _ = client.ip(&format!("link del {DEVICE}"));
        // What the kernel sends reaches the filters before it is cut into segments; this has it cut at once.
        let most = if *self == Impairment::default() { MOST_AT_ONCE } else { 1 };
        client.ip(&format!("link set {} gso_max_segs {most}", client.interface()))?;
        if self.needs_device() {
            client.ip(&format!("link add {DEVICE} txqueuelen {QUEUE} type ifb"))?;
            client.set_sysctl(&format!("net.ipv4.conf.{DEVICE}.rp_filter"), "0")?;
            client.ip(&format!("link set {DEVICE} up"))?;
        }
        batch(client, &self.script(client.interface()))
    }

    fn needs_device(&self) -> bool {
        self.reordering > 0 || self.duplication > 0
    }

    /// What `tc` is told.
    fn script(&self, interface: &str) -> String {
        let mut script = String::new();
        if self.needs_device() {
            let slow = bytecode(self.reordering, SLOW.1, LEFT);
            add(&mut script, format_args!("qdisc add dev {DEVICE} root handle 1: htb default 1"));
            add(&mut script, format_args!("class add dev {DEVICE} classid 1:1 htb rate 10gbit quantum 60000"));
            let class = format_args!("classid {} htb rate {SLOW_RATE} burst 1 cburst 1 quantum 1514", SLOW.0);
            add(&mut script, format_args!("class add dev {DEVICE} {class}"));
            add(&mut script, format_args!("filter add dev {DEVICE} parent 1: prio 1 bpf bytecode {slow}"));
        }
        add(&mut script, format_args!("qdisc add dev {interface} clsact"));
        // A sender that is told of a drop does not count the segment as sent.
        for (direction, verdict) in [("egress", STOLEN), ("ingress", SHOT)] {
            let filter = format!("filter add dev {interface} {direction}");
            let lost = bytecode(self.loss, verdict, NEXT);
            add(&mut script, format_args!("{filter} prio 1 bpf direct-action bytecode {lost}"));
            if self.needs_device() {
                // The device lets only redirected segments through. A copy of what leaves leaves by itself, and one of
                // what arrives arrives on the device: on the interface the capture would see it once more.
                let copies = if direction == "egress" { interface } else { DEVICE };
                let (doubled, all) = (bytecode(self.duplication, PICKED, LEFT), bytecode(PER_MILLE, PICKED, LEFT));
                let mirror = format!("action mirred {direction} mirror dev {copies} continue");
                add(&mut script, format_args!("{filter} prio 2 bpf bytecode {doubled} {mirror}"));
                let redirect = format!("action mirred egress redirect dev {DEVICE}");
                add(&mut script, format_args!("{filter} prio 3 bpf bytecode {all} {redirect}"));
            }
        }
        script
    }
}

fn add(script: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(script, "{line}").expect("writing to a string");
}

/// Has `tc` in `namespace` do all lines of a script.
fn batch(namespace: &Namespace, script: &str) -> Result<()> {
    let mut tc = namespace.command("tc");
    tc.args(["-batch", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = tc.spawn().context("can't run nsenter (package util-linux)")?;
    let mut stdin = child.stdin.take().context("a pipe")?;
    stdin.write_all(script.as_bytes()).context("can't write to tc")?;
    drop(stdin);
    let output = child.wait_with_output().context("can't wait for tc")?;
    let what = "tc -batch (package iproute2; the kernel needs clsact, cls_bpf, mirred, HTB and IFB)";
    succeeded(what, &output).map(drop)
}

/// A filter as `tc` reads it (number of instructions, then code, jump if true, if false, operand): `picked` for a
/// random share of the TCP segments, else `otherwise`.
fn bytecode(per_mille: u32, picked: u32, otherwise: u32) -> String {
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
        (0x35, 1, 0, below as u32), // at or above: left
        (0x06, 0, 0, picked),
        (0x06, 0, 0, otherwise),
    ];
    let lines = program.map(|(code, then, otherwise, operand)| format!("{code} {then} {otherwise} {operand}"));
    format!("\"{},{}\"", lines.len(), lines.join(","))
}
