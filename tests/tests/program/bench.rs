//! A veth of its own for each test, a program loaded for it, and AF_XDP sockets.

use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::process::Command;

use aya::programs::{ProgramError, TestRunResult};
use aya::{TestRun, TestRunOptions};
use tcp_common::ConnectionValue;
use tcp_common::cases::frames::SegmentFrame;
use tcp_common::cases::world::{LOCAL_V4, LOCAL_V6, OUR_MAC, TIME_WAIT_MS, World};
use tests::maps::Maps;
use tests::net::{Wire, WireOptions};
use xtcp::afxdp::{XskOptions, XskSocket};
use xtcp::xdp::{Answers, LoadOptions, Program, XdpMode, default_pin_path};

/// Capacity of CONNECTIONS in these tests.
pub const MAX_CONNECTIONS: u32 = 1024;

/// A wire with two queues at each end.
pub fn wire() -> Wire {
    Wire::new(&WireOptions { queues: 2, ..WireOptions::default() }).unwrap()
}

/// How to load the program for the server's end of a wire, with the MAC address of the cases.
pub fn options(wire: &Wire) -> LoadOptions {
    let interface = wire.server.interface();
    LoadOptions {
        interface_index: wire.server.interface_index().unwrap(),
        interface_name: interface.to_owned(),
        pin_path: default_pin_path(interface),
        mode: XdpMode::Auto,
        max_connections: MAX_CONNECTIONS,
        limits_sources: true,
        mac: OUR_MAC,
        queues: 2,
        vlans: World::default().vlans,
    }
}

/// Opens the program.
pub fn open(options: &LoadOptions) -> Program {
    Program::open(options).unwrap_or_else(|error| panic!("{error}"))
}

/// Binds a socket to a queue of the server's end.
pub fn socket(wire: &Wire, queue: u32) -> XskSocket {
    let options = XskOptions::new(wire.server.interface(), wire.server.interface_index().unwrap(), 1500, queue);
    wire.server.enter(|| XskSocket::bind(&options)).unwrap()
}

/// Runs bpftool with words separated by blanks.
pub fn bpftool(arguments: &str) -> String {
    let output = Command::new("bpftool").args(arguments.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "bpftool {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A loaded program that is attached nowhere.
pub struct Bench {
    pub program: Program,
    sockets: Vec<XskSocket>,
    options: LoadOptions,
    wire: Wire,
}

impl Bench {
    pub fn new() -> Bench {
        let wire = wire();
        let options = options(&wire);
        Bench { program: open(&options), sockets: Vec::new(), options, wire }
    }

    /// Registers a socket for a queue. Frames of BPF_PROG_TEST_RUN come from queue 0.
    pub fn register(&mut self, queue: u32) {
        let socket = socket(&self.wire, queue);
        self.program.register_socket(queue, socket.as_fd()).unwrap();
        self.sockets.push(socket);
    }

    /// Makes the maps hold what a case says.
    pub fn enter(&mut self, world: &World) {
        self.program.set_addresses(&world.addresses).unwrap();
        let listeners: Vec<_> = world.listeners.iter().map(|local| (*local, world.listener)).collect();
        self.program.set_listeners(&listeners).unwrap();
        self.enter_answers(world);
        self.program.set_ephemeral_ports(world.ephemeral.clone()).unwrap();
        self.enter_prefixes(world);
        let mut table = self.program.connections().unwrap();
        table.clear().unwrap();
        let value = ConnectionValue { queue: world.queue, ..world.entry };
        let entries: Vec<_> = world.connections.iter().map(|key| (*key, value)).collect();
        table.insert_batch(&entries, |key| panic!("no room for {key:?}")).unwrap();
        self.exhaust_sources(world);
    }

    fn enter_answers(&mut self, world: &World) {
        let World { answers: enabled, accept_partial, rst_rate, .. } = *world;
        let answers = Answers { enabled, accept_partial, rst_rate, time_wait_ms: TIME_WAIT_MS };
        self.program.set_answers(&answers).unwrap();
        self.program.set_cookie_keys(&world.keys()).unwrap();
        self.program.heartbeat(world.heartbeat_ns).unwrap();
        let mut demands = self.program.cookie_demands(&world.listeners).unwrap();
        world.listeners.iter().for_each(|listener| demands.demand(*listener, world.cookie_demand_ns).unwrap());
    }

    fn enter_prefixes(&mut self, world: &World) {
        let stale: Vec<_> = self.program.prefixes().keys().copied().collect();
        stale.iter().for_each(|prefix| self.program.remove_prefix(prefix).unwrap());
        for (prefix, rule) in &world.prefixes {
            self.program.set_prefix(*prefix, *rule).unwrap();
        }
    }

    /// Has each exhausted source send what it may, before anybody is denied or allowed.
    fn exhaust_sources(&mut self, world: &World) {
        self.program.set_source_limit(world.source_limit).unwrap();
        if world.exhausted_sources.is_empty() {
            return;
        }
        self.enter_prefixes(&World::default());
        for source in &world.exhausted_sources {
            let local = if source.is_ipv4() { LOCAL_V4 } else { LOCAL_V6 };
            let syn = SegmentFrame::between((*source, 9).into(), (local, 7).into(), "S").build();
            self.run(&syn, world.source_limit.burst);
        }
        self.enter_prefixes(world);
    }

    /// What the program returns for the frame, and how long it takes on average, ns.
    pub fn run(&mut self, frame: &[u8], repeat: u32) -> (u32, u128) {
        let result = self.test_run(frame, repeat, None);
        (result.return_value, result.duration.as_nanos())
    }

    /// What the program returns for the frame, and makes of it.
    pub fn answer(&mut self, frame: &[u8]) -> (u32, Vec<u8>) {
        let mut after = vec![0; 4096];
        let result = self.test_run(frame, 1, Some(&mut after));
        after.truncate(result.data_size_out as usize);
        (result.return_value, after)
    }

    fn test_run(&mut self, frame: &[u8], repeat: u32, mut after: Option<&mut [u8]>) -> TestRunResult {
        let program = self.program.xdp().unwrap();
        loop {
            let data_out = after.as_deref_mut();
            let options = TestRunOptions { data_in: Some(frame), data_out, repeat, ..TestRunOptions::default() };
            match program.test_run(options) {
                Ok(result) => return result,
                Err(error) if is_interruption(&error) => {} // a signal to this process, for example a child's end
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// The pinned maps.
    pub fn maps(&self) -> Maps {
        Maps::at(&self.options.pin_path)
    }

    /// What bpftool says about a pinned map; `what` is its verb and, after the path, its further arguments.
    pub fn bpftool_map(&self, verb: &str, map: &str, arguments: &str) -> String {
        bpftool(&format!("map {verb} pinned {} {arguments}", self.options.pin_path.join(map).display()))
    }
}

fn is_interruption(error: &ProgramError) -> bool {
    matches!(error, ProgramError::SyscallError(error) if error.io_error.kind() == ErrorKind::Interrupted)
}
