//! The XDP program as the kernel runs it: tcp-common's table of cases by BPF_PROG_TEST_RUN, on the maps that the
//! loader made, with AF_XDP sockets on a veth of its own. The program is attached nowhere.
//!
//! Leaves out what only an attached program shows: see the end-to-end tests.

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::Command;

use aya::{TestRun, TestRunOptions};
use tcp_common::cases::frames::SegmentFrame;
use tcp_common::cases::world::{OUR_MAC, World, connection_v4};
use tcp_common::cases::{Case, cases};
use tcp_common::counters::{Counters, DropReason, Outcome};
use tcp_common::decide::{Sockets, Verdict};
use tcp_common::{ConnectionKey, ConnectionValue, State};
use tests::net::{Wire, WireOptions};
use xtcp::afxdp::{XskOptions, XskSocket};
use xtcp::xdp::{LoadOptions, Program, XdpMode, default_pin_path};

const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
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
        bench.register(sockets);
        for case in cases().into_iter().filter(|case| case.world.sockets == sockets) {
            if case.frame.len() < SHORTEST_FRAME || case.world.icmp_exhausted {
                continue; // the kernel runs no program on such a frame; the limit has a test of its own below
            }
            bench.enter(&case.world);
            bench.check(&case);
            done += 1;
        }
    }
    assert!(done > 100, "only {done} cases ran");
}

#[test]
fn the_loaded_program_limits_icmp_errors_and_counts_the_rest() {
    let mut bench = Bench::new();
    bench.register(Sockets::Here);
    let case = cases().into_iter().find(|case| case.world.icmp_exhausted).expect("there is such a case");
    bench.enter(&case.world);
    let before = bench.program.counters().unwrap();
    bench.run(&case.frame, 10_000);
    let after = bench.program.counters().unwrap();
    let (steered, dropped) = (after.steer_icmp - before.steer_icmp, after.drop_icmp_rate - before.drop_icmp_rate);
    assert_eq!(steered + dropped, 10_000);
    assert!(steered >= tcp_common::layout::ICMP_ERROR_BURST && dropped > 0, "{steered} steered, {dropped} dropped");
}

#[test]
fn a_connection_entry_of_arbitrary_bytes_is_an_entry_like_any_other() {
    let mut bench = Bench::new();
    bench.register(Sockets::Here);
    bench.enter(&World { connections: Vec::new(), ..World::default() });
    let key = bytes_of_key(&connection_v4());
    let value = "0xff ".repeat(size_of::<ConnectionValue>());
    bench.bpftool(&format!("map update pinned {} key {key} value {value}", bench.pin("CONNECTIONS")));
    let (action, _) = bench.run(&SegmentFrame::v4(7, "A").build(), 1);
    assert_eq!(action, XDP_REDIRECT);
    assert_eq!(bench.program.counters().unwrap().steer_connection, 1);
}

#[test]
fn bpftool_prints_the_maps_with_the_names_of_fields_and_states() {
    let mut bench = Bench::new();
    bench.enter(&World::default());
    let connections = bench.bpftool(&format!("map dump pinned {}", bench.pin("CONNECTIONS")));
    for name in ["local_addr", "remote_port", "ESTABLISHED", "queue", "since_ns", "bytes_in"] {
        assert!(connections.contains(name), "{name} is not in {connections}");
    }
    let counters = bench.bpftool(&format!("map dump pinned {}", bench.pin("COUNTERS")));
    for name in ["syn_ack", "steer_connection", "drop_stray_rst"] {
        assert!(counters.contains(name), "{name} is not in {counters}");
    }
    assert!(bench.bpftool(&format!("map dump pinned {}", bench.pin("LISTENERS"))).contains("\"port\": 80"));
    assert!(bench.bpftool(&format!("map dump pinned {}", bench.pin("CONFIG"))).contains("layout_version"));
}

#[test]
fn the_size_of_the_program_and_its_speed_are_printed() {
    let mut bench = Bench::new();
    bench.register(Sockets::Here);
    bench.enter(&World::default());
    let size = bench.size();
    println!(
        "XDP program: {} instructions, {} bytes of stack; {} instructions followed by the verifier",
        size.instructions, size.stack_bytes, size.verified
    );
    assert!(size.instructions > 0 && size.stack_bytes <= 512, "{size:?}");

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
        let runs: Vec<_> = (0..ROUNDS).map(|_| bench.run(&frame, REPEATS)).collect();
        let (action, nanoseconds) = runs.into_iter().min_by_key(|(_, nanoseconds)| *nanoseconds).unwrap();
        println!("{name}: {nanoseconds} ns");
        assert_eq!(action, expected, "{name}");
    }
}

/// A loaded program, and a veth with a socket on each of its two queues.
struct Bench {
    program: Program,
    sockets: Vec<XskSocket>,
    wire: Wire,
    pin_path: PathBuf,
}

impl Bench {
    fn new() -> Bench {
        let wire = Wire::new(&WireOptions { queues: 2, ..WireOptions::default() }).unwrap();
        let interface = wire.server.interface();
        let pin_path = default_pin_path(interface);
        let options = LoadOptions {
            interface_index: interface_index(&wire),
            interface_name: interface.to_owned(),
            pin_path: pin_path.clone(),
            mode: XdpMode::Auto,
            max_connections: 1024,
            mac: OUR_MAC,
            queues: 2,
            vlans: World::default().vlans,
        };
        let program = Program::open(&options).unwrap_or_else(|error| panic!("{error}"));
        Bench { program, sockets: Vec::new(), wire, pin_path }
    }

    /// Frames of BPF_PROG_TEST_RUN come from queue 0.
    fn register(&mut self, sockets: Sockets) {
        let queues: &[u32] = match sockets {
            Sockets::Nowhere => &[],
            Sockets::Elsewhere => &[1],
            Sockets::Here => &[0],
        };
        for queue in queues {
            let index = interface_index(&self.wire);
            let options = XskOptions::new(self.wire.server.interface(), index, 1500, *queue);
            let socket = self.wire.server.enter(|| XskSocket::bind(&options)).unwrap();
            self.program.register_socket(*queue, socket.as_fd()).unwrap();
            self.sockets.push(socket);
        }
    }

    /// Makes the maps hold what a case says.
    fn enter(&mut self, world: &World) {
        self.program.set_addresses(&world.addresses).unwrap();
        self.program.set_listeners(&world.listeners).unwrap();
        self.program.set_ephemeral_ports(world.ephemeral.clone()).unwrap();
        let mut table = self.program.connections().unwrap();
        table.clear().unwrap();
        let value = ConnectionValue { state: State::ESTABLISHED, ..ConnectionValue::default() };
        let entries: Vec<_> = world.connections.iter().map(|key| (*key, value)).collect();
        table.insert_batch(&entries, |key| panic!("no room for {key:?}")).unwrap();
    }

    fn check(&mut self, case: &Case) {
        let before = self.program.counters().unwrap();
        let (action, _) = self.run(&case.frame, 1);
        let expected = match case.verdict {
            Verdict::Pass => XDP_PASS,
            Verdict::Drop(_) => XDP_DROP,
            Verdict::Steer(_) => XDP_REDIRECT,
        };
        assert_eq!(action, expected, "action: {}", case.name);
        let after = self.program.counters().unwrap();
        assert_eq!(moved(&before, &after), expected_moves(case), "counters: {}", case.name);
    }

    /// What the program returns for the frame, and how long it takes on average, ns.
    fn run(&mut self, frame: &[u8], repeat: u32) -> (u32, u128) {
        let program = self.program.xdp().unwrap();
        let options = TestRunOptions { data_in: Some(frame), repeat, ..TestRunOptions::default() };
        let result = program.test_run(options).unwrap();
        (result.return_value, result.duration.as_nanos())
    }

    fn pin(&self, map: &str) -> String {
        self.pin_path.join(map).display().to_string()
    }

    fn bpftool(&self, arguments: &str) -> String {
        let output = Command::new("bpftool").args(arguments.split_whitespace()).output().unwrap();
        assert!(output.status.success(), "bpftool {arguments}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn size(&mut self) -> Size {
        let info = self.program.xdp().unwrap().info().unwrap();
        let listing = self.bpftool(&format!("prog dump xlated id {}", info.id()));
        let verified = info.verified_instruction_count().unwrap();
        Size { instructions: instructions(&listing), stack_bytes: stack_bytes(&listing), verified }
    }
}

#[derive(Debug)]
struct Size {
    instructions: usize,
    stack_bytes: u64,
    verified: u32,
}

/// Instructions of a listing of `bpftool prog dump xlated`: lines that begin with their number.
fn instructions(listing: &str) -> usize {
    let is_instruction = |line: &&str| line.trim().split_once(": (").is_some_and(|(n, _)| n.parse::<u32>().is_ok());
    listing.lines().filter(is_instruction).count()
}

/// The stack that the functions of a listing use together, as if each called the next: the lowest address below
/// the frame pointer `r10` that any of its instructions names, rounded up as the verifier does.
fn stack_bytes(listing: &str) -> u64 {
    let mut frames = vec![0];
    for line in listing.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with(';')) {
        let Some((_, instruction)) = line.split_once(": (") else {
            frames.push(0); // the name of a function
            continue;
        };
        let below = instruction.split("(r10 -").nth(1).and_then(|rest| rest.split(')').next()?.parse().ok());
        let frame = frames.last_mut().expect("there is a first");
        *frame = below.unwrap_or(0).max(*frame);
    }
    frames.iter().map(|bytes: &u64| bytes.next_multiple_of(32)).sum()
}

fn moved(before: &Counters, after: &Counters) -> Vec<(&'static str, u64)> {
    let named = |counters: &Counters| -> Vec<_> {
        counters.verdicts().chain(counters.classes()).chain(counters.drops()).collect()
    };
    let differences = named(before).into_iter().zip(named(after)).map(|((name, old), (_, new))| (name, new - old));
    differences.filter(|(_, count)| *count != 0).collect()
}

fn expected_moves(case: &Case) -> Vec<(&'static str, u64)> {
    let outcome: Outcome = case.verdict.outcome();
    let reason = match case.verdict {
        Verdict::Drop(reason) => Some(DropReason::name(reason)),
        _ => None,
    };
    let names = [Some(outcome.name()), case.class.map(|class| class.name()), reason];
    names.into_iter().flatten().map(|name| (name, 1)).collect()
}

fn interface_index(wire: &Wire) -> u32 {
    let links = wire.server.ip(&format!("-json link show dev {}", wire.server.interface())).unwrap();
    let links: serde_json::Value = serde_json::from_str(&links).unwrap();
    links[0]["ifindex"].as_u64().unwrap() as u32
}

/// A key as bpftool wants it: hexadecimal bytes in the order of memory.
fn bytes_of_key(key: &ConnectionKey) -> String {
    let ports = [key.local_port.to_ne_bytes(), key.remote_port.to_ne_bytes()].concat();
    let bytes = [key.local_addr.as_slice(), &key.remote_addr, &ports, &key.pad.to_ne_bytes()].concat();
    bytes.iter().map(|byte| format!("{byte:#04x} ")).collect()
}
