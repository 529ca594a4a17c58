//! tcp-common's table of cases by BPF_PROG_TEST_RUN, on the maps that the loader made. The program is attached
//! nowhere. Leaves out what only an attached program shows: see the end-to-end tests.

use std::net::{IpAddr, Ipv4Addr};

use tcp_common::cases::frames::SegmentFrame;
use tcp_common::cases::world::{LOCAL_V4, World, connection_v4};
use tcp_common::cases::{Case, cases};
use tcp_common::counters::{Class, Counters, DropReason, Outcome};
use tcp_common::decide::{Sockets, Verdict};
use tcp_common::layout::{ICMP_ERRORS, MAX_PREFIXES, MAX_SOURCES};
use tcp_common::prefix::{Prefix, Rule};
use tcp_common::rate::Rate;
use tcp_common::{ConnectionKey, ConnectionValue};

use tests::wait::until;
use xtcp::xdp::XdpError;

use crate::bench::{Bench, bpftool};

const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const XDP_TX: u32 = 3;
const XDP_REDIRECT: u32 = 4;

/// Shortest frame that BPF_PROG_TEST_RUN takes: an Ethernet header.
const SHORTEST_FRAME: usize = 14;

/// Runs of one frame where a figure is wanted: the best average of so many rounds, of so many runs each.
const ROUNDS: u32 = 20;
const REPEATS: u32 = 100_000;

#[test]
fn the_loaded_program_decides_every_case_as_the_table_says() {
    let mut bench = Bench::new();
    let mut done = 0;
    // Sockets are registered once and stay, so the worlds without come first.
    for sockets in [Sockets::Nowhere, Sockets::Elsewhere, Sockets::Here] {
        match sockets {
            Sockets::Nowhere => {}
            Sockets::Elsewhere => bench.register(1),
            Sockets::Here => bench.register(0),
        }
        for case in cases().into_iter().filter(|case| case.world.sockets == sockets) {
            if case.frame.len() < SHORTEST_FRAME || case.world.icmp_exhausted {
                continue; // the kernel runs no program on such a frame; the limit has a test of its own below
            }
            bench.enter(&case.world);
            check(&mut bench, &case);
            done += 1;
        }
    }
    assert!(done > 100, "only {done} cases ran");
}

#[test]
fn the_loaded_program_limits_icmp_errors_and_counts_the_rest() {
    let mut bench = Bench::new();
    bench.register(0);
    let case = cases().into_iter().find(|case| case.world.icmp_exhausted).expect("there is such a case");
    bench.enter(&case.world);
    let before = bench.program.counters().unwrap();
    bench.run(&case.frame, 10_000);
    let after = bench.program.counters().unwrap();
    let (steered, dropped) = (after.steer_icmp - before.steer_icmp, after.drop_icmp_rate - before.drop_icmp_rate);
    assert_eq!(steered + dropped, 10_000);
    assert!(steered >= u64::from(ICMP_ERRORS.burst) && dropped > 0, "{steered} steered, {dropped} dropped");
}

/// A SYN to a listener from the address of a number.
fn syn_of(source: u32) -> Vec<u8> {
    let source = IpAddr::V4(Ipv4Addr::from_bits(0xac10_0000 + source));
    SegmentFrame::between((source, 9).into(), (LOCAL_V4, 7).into(), "S").build()
}

/// A program whose sources may send `burst` SYNs at once and one in each `interval_ns`.
fn limited(interval_ns: u64, burst: u32) -> Bench {
    let mut bench = Bench::new();
    bench.register(0);
    bench.enter(&World { source_limit: Rate { interval_ns, burst, pad: 0 }, ..World::default() });
    bench
}

const HOUR_NS: u64 = 3_600_000_000_000;

#[test]
fn a_source_earns_syns_by_the_clock_and_others_do_not_notice() {
    let mut bench = limited(HOUR_NS, 10);
    bench.run(&syn_of(1), 1000);
    let counters = bench.program.counters().unwrap();
    // A signal may have the kernel run it once more.
    assert!(counters.steer_syn == 10 && counters.drop_source_rate >= 990, "{counters:?}");
    assert_eq!(bench.run(&syn_of(2), 1).0, XDP_REDIRECT);
    let mut bench = limited(10_000_000, 1);
    bench.run(&syn_of(1), 1000);
    assert!(bench.program.counters().unwrap().drop_source_rate > 0);
    until("one more SYN to be earned", || (bench.run(&syn_of(1), 1).0 == XDP_REDIRECT).then_some(()));
}

#[test]
fn more_sources_than_are_counted_are_taken_and_those_forgotten_that_sent_one_syn_long_ago() {
    let mut bench = limited(HOUR_NS, 1);
    for source in 0..=2 * MAX_SOURCES {
        assert_eq!(bench.run(&syn_of(source), 1).0, XDP_REDIRECT, "source {source}");
    }
    assert_eq!(bench.run(&syn_of(0), 1).0, XDP_REDIRECT, "it is still known");
    assert_eq!(bench.run(&syn_of(0), 1).0, XDP_DROP, "it is counted anew");
}

#[test]
fn a_prefix_too_many_is_refused_and_the_others_stay() {
    let mut bench = Bench::new();
    let prefix = |number: u32| Prefix::new(Ipv4Addr::from_bits(number << 8).into(), 24).unwrap();
    for number in 0..MAX_PREFIXES {
        bench.program.set_prefix(prefix(number), Rule::Deny).unwrap();
    }
    let error = bench.program.set_prefix(prefix(MAX_PREFIXES), Rule::Deny).unwrap_err();
    assert!(matches!(error, XdpError::TooMany { limit: 65_536, .. }), "{error}");
    assert_eq!(error.to_string(), "65537 prefixes are too many: at most 65536");
    bench.program.set_prefix(prefix(1), Rule::Allow).unwrap();
    assert_eq!(bench.program.prefixes().len(), MAX_PREFIXES as usize);
    bench.program.remove_prefix(&prefix(1)).unwrap();
    bench.program.set_prefix(prefix(MAX_PREFIXES), Rule::Deny).unwrap();
}

#[test]
fn a_connection_entry_of_arbitrary_bytes_is_an_entry_like_any_other() {
    let mut bench = Bench::new();
    bench.register(0);
    bench.enter(&World { connections: Vec::new(), ..World::default() });
    let key = bytes_of_key(&connection_v4());
    let value = "0xff ".repeat(size_of::<ConnectionValue>());
    bench.bpftool_map("update", "CONNECTIONS", &format!("key {key} value {value}"));
    let (action, _) = bench.run(&SegmentFrame::v4(7, "A").build(), 1);
    assert_eq!(action, XDP_REDIRECT);
    assert_eq!(bench.program.counters().unwrap().steer_connection, 1);
}

#[test]
fn bpftool_prints_the_maps_with_the_names_of_fields_and_states() {
    let mut bench = Bench::new();
    bench.enter(&World::default());
    let connections = bench.bpftool_map("dump", "CONNECTIONS", "");
    for name in ["local_addr", "remote_port", "ESTABLISHED", "queue", "since_ns", "bytes_in"] {
        assert!(connections.contains(name), "{name} is not in {connections}");
    }
    let counters = bench.bpftool_map("dump", "COUNTERS", "");
    for name in ["syn_ack", "steer_connection", "drop_stray_rst"] {
        assert!(counters.contains(name), "{name} is not in {counters}");
    }
    assert!(bench.bpftool_map("dump", "LISTENERS", "").contains("\"port\": 80"));
    assert!(bench.bpftool_map("dump", "CONFIG", "").contains("layout_version"));
}

#[test]
fn the_size_of_the_program_and_its_speed_are_printed() {
    let mut bench = Bench::new();
    bench.register(0);
    bench.enter(&World::default());
    let size = size(&mut bench);
    println!(
        "XDP program: {} instructions; {} instructions followed by the verifier",
        size.instructions, size.verified
    );
    assert!(size.instructions > 0, "{size:?}");

    let unowned = SegmentFrame::v4(22, "A").build();
    let cases = [
        ("for another MAC address", SegmentFrame::v4(7, "A").build_with(|frame| frame[0] = 4), XDP_PASS),
        ("unowned", unowned, XDP_PASS),
        ("steered, of a connection", SegmentFrame::v4(7, "A").build(), XDP_REDIRECT),
        ("steered, of an IPv6 connection", SegmentFrame::v6(7, "A").build(), XDP_REDIRECT),
        ("steered, SYN to a listener", SegmentFrame::v4(7, "S").stray().build(), XDP_REDIRECT),
        ("steered, SYN to a wildcard", SegmentFrame::v4(80, "S").build(), XDP_REDIRECT),
        ("dropped, malformed", SegmentFrame::v4(7, "").stray().build(), XDP_DROP),
    ];
    for (name, frame, expected) in cases {
        print_speed(&mut bench, name, &frame, expected);
    }
    let counted = World {
        source_limit: Rate { interval_ns: 1, burst: 1_000_000, pad: 0 },
        prefixes: vec![("10.77.0.0/30".parse().unwrap(), Rule::Deny), ("10.0.0.0/8".parse().unwrap(), Rule::Allow)],
        ..World::default()
    };
    bench.enter(&counted);
    print_speed(&mut bench, "dropped, from a denied prefix", &SegmentFrame::v4(7, "S").stray().build(), XDP_DROP);
    print_speed(&mut bench, "steered, SYN of a counted source", &syn_of(1), XDP_REDIRECT);
    print_speed(
        &mut bench,
        "steered, of a connection with a denied peer",
        &SegmentFrame::v4(7, "A").build(),
        XDP_REDIRECT,
    );
}

/// The best average of several rounds.
fn print_speed(bench: &mut Bench, name: &str, frame: &[u8], expected: u32) {
    let runs: Vec<_> = (0..ROUNDS).map(|_| bench.run(frame, REPEATS)).collect();
    let (action, nanoseconds) = runs.into_iter().min_by_key(|(_, nanoseconds)| *nanoseconds).unwrap();
    println!("{name}: {nanoseconds} ns");
    assert_eq!(action, expected, "{name}");
}

fn check(bench: &mut Bench, case: &Case) {
    let before = bench.program.counters().unwrap();
    let (action, _) = bench.run(&case.frame, 1);
    assert_eq!(action, expected_action(case.verdict), "action: {}", case.name);
    let after = bench.program.counters().unwrap();
    assert_eq!(moved(&before, &after), expected_moves(case.class, case.verdict), "counters: {}", case.name);
}

pub const fn expected_action(verdict: Verdict) -> u32 {
    match verdict {
        Verdict::Pass => XDP_PASS,
        Verdict::Drop(_) => XDP_DROP,
        Verdict::Steer(_) => XDP_REDIRECT,
        Verdict::Answer(_) => XDP_TX,
    }
}

fn size(bench: &mut Bench) -> Size {
    let info = bench.program.xdp().unwrap().info().unwrap();
    let listing = bpftool(&format!("prog dump xlated id {}", info.id()));
    let verified = info.verified_instruction_count().unwrap();
    Size { instructions: instructions(&listing), verified }
}

#[derive(Debug)]
struct Size {
    instructions: usize,
    verified: u32,
}

/// Instructions of a listing of `bpftool prog dump xlated`: lines that begin with their number.
fn instructions(listing: &str) -> usize {
    let is_instruction = |line: &&str| line.trim().split_once(": (").is_some_and(|(n, _)| n.parse::<u32>().is_ok());
    listing.lines().filter(is_instruction).count()
}

pub fn moved(before: &Counters, after: &Counters) -> Vec<(&'static str, u64)> {
    let named = |counters: &Counters| -> Vec<_> {
        counters.verdicts().chain(counters.classes()).chain(counters.drops()).collect()
    };
    let differences = named(before).into_iter().zip(named(after)).map(|((name, old), (_, new))| (name, new - old));
    differences.filter(|(_, count)| *count != 0).collect()
}

/// The counters that a decision moves, each by one.
pub fn expected_moves(class: Option<Class>, verdict: Verdict) -> Vec<(&'static str, u64)> {
    let outcome: Outcome = verdict.outcome();
    let reason = match verdict {
        Verdict::Drop(reason) => Some(DropReason::name(reason)),
        _ => None,
    };
    let names = [Some(outcome.name()), class.map(Class::name), reason];
    names.into_iter().flatten().map(|name| (name, 1)).collect()
}

/// A key as bpftool wants it: hexadecimal bytes in the order of memory.
fn bytes_of_key(key: &ConnectionKey) -> String {
    let ports = [key.local_port.to_ne_bytes(), key.remote_port.to_ne_bytes()].concat();
    let bytes = [key.local_addr.as_slice(), &key.remote_addr, &ports, &key.pad.to_ne_bytes()].concat();
    bytes.iter().map(|byte| format!("{byte:#04x} ")).collect()
}
