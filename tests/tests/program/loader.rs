//! Attaching and pinning: whose pins are kept, whose are replaced, what an interface may have against a program.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use etherparse::TcpHeader;
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};
use tcp_common::cases::frames::icmp_error;
use tcp_common::layout::{Config, Handover, ListenerValue};
use tcp_common::{ConnectionKey, ConnectionValue, State};
use tests::net::{CLIENT_V4, SERVER_V4, Wire, WireOptions};
use tests::raw::{send_packet, send_segment};
use tests::wait::until;
use xtcp::xdp::{Attached, LoadOptions, Program, XdpError, XdpMode, default_pin_path, load, unload};

use crate::bench::{bpftool, open, options, socket, wire};

/// The pinned maps, which the contract names, and the pinned link.
const PINS: [&str; 5] = ["CONFIG", "CONNECTIONS", "COUNTERS", "LISTENERS", "XSKS"];

const PORT: u16 = 7;
const ETHERNET_HEADER: usize = 14;

#[test]
fn an_attached_program_steers_to_its_socket_until_it_is_dropped() {
    let wire = wire();
    let options = own_options(&wire);
    let mut program = open(&options);
    let sockets = [socket(&wire, 0), socket(&wire, 1)];
    for socket in &sockets {
        program.register_socket(socket.queue(), socket.as_fd()).unwrap();
    }
    program.set_listeners(&[((SERVER_V4, PORT).into(), ListenerValue::default())]).unwrap();
    assert_eq!(attach(&wire, &mut program).unwrap(), Attached::Native);
    assert!(has_xdp(&wire));
    assert_eq!(pins(&options.pin_path), PINS);

    knock(&wire);
    until("a steered SYN", || (program.counters().unwrap().steer_syn > 0).then_some(()));

    drop(program);
    assert!(!has_xdp(&wire));
    assert!(!options.pin_path.exists());
}

#[test]
fn generic_mode_attaches_on_a_socket_buffer_and_steers_too() {
    let wire = wire();
    let options = LoadOptions { mode: XdpMode::Generic, ..own_options(&wire) };
    let mut program = open(&options);
    let sockets = [socket(&wire, 0), socket(&wire, 1)];
    for socket in &sockets {
        program.register_socket(socket.queue(), socket.as_fd()).unwrap();
    }
    program.set_addresses(&[SERVER_V4]).unwrap();
    program.set_listeners(&[("0.0.0.0:7".parse().unwrap(), ListenerValue::default())]).unwrap();
    assert_eq!(attach(&wire, &mut program).unwrap(), Attached::Generic);
    knock(&wire);
    until("a steered SYN", || (program.counters().unwrap().steer_syn > 0).then_some(()));
}

#[test]
fn a_segment_of_another_queues_connection_and_an_icmp_error_about_it_carry_the_owner_before_them() {
    for mode in [XdpMode::Native, XdpMode::Generic] {
        let wire = wire();
        let mut program = open(&LoadOptions { mode, ..own_options(&wire) });
        let mut sockets = [socket(&wire, 0), socket(&wire, 1)];
        for socket in &sockets {
            program.register_socket(socket.queue(), socket.as_fd()).unwrap();
        }
        program.set_listeners(&[((SERVER_V4, PORT).into(), ListenerValue::default())]).unwrap();
        attach(&wire, &mut program).unwrap();

        let key = ConnectionKey::new((SERVER_V4, PORT).into(), (CLIENT_V4, 50_001).into());
        let value = ConnectionValue { state: State::ESTABLISHED, queue: 9, ..ConnectionValue::default() };
        program.connections().unwrap().insert_batch(&[(key, value)], |key| panic!("no room for {key:?}")).unwrap();
        let ack = TcpHeader { ack: true, ..TcpHeader::new(key.remote_port, key.local_port, 1, 1000) };
        send_segment(&wire.client, CLIENT_V4, key.local(), ack, &[]);
        let mut owner = |what| {
            until(what, || {
                let mut metadata = None;
                for socket in &mut sockets {
                    socket.receive(1, |received| metadata = Some(received.metadata()));
                }
                metadata
            })
        };
        assert_eq!(Handover::owner(owner("the segment"), &key), Some(9), "{mode:?}");
        send_packet(&wire.client, SERVER_V4, &icmp_error(&key, 3)[ETHERNET_HEADER..]);
        assert_eq!(Handover::owner(owner("the ICMP error"), &key), Some(9), "{mode:?}");
    }
}

#[test]
fn a_program_without_sockets_leaves_everything_to_the_kernel() {
    let wire = wire();
    let mut program = open(&own_options(&wire));
    program.set_listeners(&[((SERVER_V4, PORT).into(), ListenerValue::default())]).unwrap();
    attach(&wire, &mut program).unwrap();
    let refused = wire.client.enter(|| TcpStream::connect(SocketAddr::new(SERVER_V4, PORT))).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
}

#[test]
fn the_first_drop_of_a_reason_becomes_a_line_of_the_log() {
    let wire = wire();
    let mut program = open(&LoadOptions { queues: 3, ..own_options(&wire) });
    let mut log = program.take_log().expect("it is there once");
    assert!(program.take_log().is_none());
    // The only socket is on a queue that nothing arrives on.
    let socket = socket(&wire, 0);
    program.register_socket(2, socket.as_fd()).unwrap();
    program.set_listeners(&[((SERVER_V4, PORT).into(), ListenerValue::default())]).unwrap();
    attach(&wire, &mut program).unwrap();
    knock(&wire);
    knock(&wire);
    until("two drops", || (program.counters().unwrap().drop_no_socket >= 2).then_some(()));

    let lines = logged(|| log.flush());
    let client = CLIENT_V4.to_string();
    assert_eq!(lines.lines().count(), 1, "{lines}");
    assert!(lines.contains("INFO xtcp::program: dropped") && lines.contains(&client), "{lines}");
    assert!(lines.trim_end().ends_with("> 10.77.0.2 7: no_socket"), "{lines}");
}

/// What `work` logs.
fn logged(work: impl FnOnce()) -> String {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let writer = Arc::clone(&lines);
    let write = move || Written(Arc::clone(&writer));
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(write).finish();
    tracing::subscriber::with_default(subscriber, work);
    String::from_utf8(lines.lock().unwrap().clone()).unwrap()
}

struct Written(Arc<Mutex<Vec<u8>>>);

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_second_program_on_the_same_pins_is_refused_and_leaves_them_alone() {
    let wire = wire();
    let options = own_options(&wire);
    let _first = open(&options);
    let second = Program::open(&options).unwrap_err();
    assert!(matches!(second, XdpError::Locked { .. }), "{second}");
    let unloaded = unload(&options.pin_path).unwrap_err();
    assert!(matches!(unloaded, XdpError::Locked { .. }), "{unloaded}");
    assert_eq!(pins(&options.pin_path), PINS);
}

#[test]
fn pins_that_nobody_holds_are_replaced() {
    let wire = wire();
    let options = own_options(&wire);
    drop(open(&options)); // mounts a bpffs where there is none
    std::fs::create_dir_all(&options.pin_path).unwrap();
    for name in ["CONNECTIONS", "STRAY"] {
        let pin = options.pin_path.join(name);
        bpftool(&format!("map create {} type hash key 4 value 4 entries 1 name old", pin.display()));
    }
    let program = open(&options);
    assert_eq!(pins(&options.pin_path), PINS);
    assert!(program.connections().is_ok());
}

#[test]
fn loaded_pins_are_adopted_and_left_behind() {
    let wire = wire();
    let options = own_options(&wire);
    assert_eq!(wire.server.enter(|| load(&options)).unwrap(), Attached::Native);
    assert!(has_xdp(&wire));
    assert_eq!(pins(&options.pin_path), ["CONFIG", "CONNECTIONS", "COUNTERS", "LISTENERS", "XSKS", "link"]);

    let counters = id_of(&options, "COUNTERS");
    let mut program = open(&options);
    let socket = socket(&wire, 0);
    program.register_socket(0, socket.as_fd()).unwrap();
    program.set_listeners(&[((SERVER_V4, PORT).into(), ListenerValue::default())]).unwrap();
    assert_eq!(attach(&wire, &mut program).unwrap(), Attached::Adopted);
    assert_eq!(id_of(&options, "COUNTERS"), counters);
    knock(&wire);
    until("a steered or dropped SYN", || {
        let counters = program.counters().unwrap();
        (counters.steer_syn + counters.drop_no_socket > 0).then_some(())
    });

    drop(program);
    drop(socket);
    assert!(has_xdp(&wire));
    let refused = wire.client.enter(|| TcpStream::connect(SocketAddr::new(SERVER_V4, PORT))).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);

    assert!(unload(&options.pin_path).unwrap());
    assert!(!has_xdp(&wire));
    assert!(!options.pin_path.exists());
    assert!(!unload(&options.pin_path).unwrap());
}

#[test]
fn a_loaded_table_of_another_size_is_replaced_and_the_rest_adopted() {
    let wire = wire();
    let options = own_options(&wire);
    wire.server.enter(|| load(&options)).unwrap();
    let (connections, counters) = (id_of(&options, "CONNECTIONS"), id_of(&options, "COUNTERS"));
    let larger = LoadOptions { max_connections: options.max_connections * 2, ..options.clone() };
    let mut program = open(&larger);
    assert_eq!(attach(&wire, &mut program).unwrap(), Attached::Adopted);
    assert_ne!(id_of(&options, "CONNECTIONS"), connections);
    assert_eq!(id_of(&options, "COUNTERS"), counters);
    drop(program);
    unload(&options.pin_path).unwrap();
}

#[test]
fn loaded_pins_of_another_layout_are_replaced() {
    let wire = wire();
    let options = own_options(&wire);
    wire.server.enter(|| load(&options)).unwrap();
    let config = options.pin_path.join("CONFIG");
    let other_version = format!("0xff {}", "0x00 ".repeat(size_of::<Config>() - 1));
    bpftool(&format!("map update pinned {} key 0 0 0 0 value {other_version}", config.display()));
    let mut program = open(&options);
    assert!(!has_xdp(&wire));
    assert_eq!(attach(&wire, &mut program).unwrap(), Attached::Native);
    drop(program);
    assert!(!options.pin_path.exists());
}

#[test]
fn an_interface_with_another_xdp_program_is_refused() {
    let wire = wire();
    let mut first = open(&own_options(&wire));
    attach(&wire, &mut first).unwrap();
    let beside = own_options(&wire).pin_path.with_file_name(format!("{}-beside", wire.server.interface()));
    let mut second = open(&LoadOptions { pin_path: beside, ..own_options(&wire) });
    let error = attach(&wire, &mut second).unwrap_err();
    assert!(matches!(error, XdpError::OtherProgram { .. }), "{error}");
    assert!(error.to_string().contains(wire.server.interface()), "{error}");
}

#[test]
fn a_driver_without_xdp_gets_the_generic_mode_unless_native_is_asked_for() {
    let wire = wire();
    let loopback = LoadOptions { interface_index: 1, ..own_options(&wire) };
    assert_eq!(attach(&wire, &mut open(&loopback)).unwrap(), Attached::Generic);
    let native = LoadOptions { mode: XdpMode::Native, ..loopback };
    let error = attach(&wire, &mut open(&native)).unwrap_err();
    assert!(matches!(error, XdpError::NoNativeXdp { .. }), "{error}");
}

#[test]
fn an_mtu_too_large_is_refused() {
    let wire = Wire::new(&WireOptions { queues: 2, mtu: 9000, ..WireOptions::default() }).unwrap();
    let error = attach(&wire, &mut open(&own_options(&wire))).unwrap_err();
    assert!(matches!(error, XdpError::MtuTooLarge { .. }), "{error}");
}

#[test]
fn fewer_rx_queues_than_the_peer_has_tx_queues_are_refused() {
    let wire = wire();
    let server = &wire.server;
    server.run(&format!("ethtool -L {} rx 1 tx 1", server.interface())).unwrap();
    let error = attach(&wire, &mut open(&own_options(&wire))).unwrap_err();
    assert!(matches!(error, XdpError::TooFewQueues { .. }), "{error}");
}

#[test]
fn where_bpffs_is_hidden_one_is_mounted() {
    let wire = wire();
    // `ip netns exec` gives its program a fresh /sys without one.
    let mut command = Command::new("ip");
    command.args(["netns", "exec", wire.server.name()]).arg(std::env::current_exe().unwrap());
    let output = command.args(["--exact", "loader::pins_that_nobody_holds_are_replaced"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

#[test]
fn a_pin_path_that_is_on_no_bpffs_is_refused() {
    let wire = wire();
    let error = Program::open(&LoadOptions { pin_path: "/tmp/xtcp-pins".into(), ..own_options(&wire) }).unwrap_err();
    assert!(matches!(error, XdpError::NotBpffs { .. }), "{error}");
    assert!(!Path::new("/tmp/xtcp-pins").exists());
}

#[test]
fn a_pin_path_with_a_dot_is_refused_and_no_default_has_one() {
    let wire = wire();
    let pin_path = default_pin_path(wire.server.interface()).join("eth0.100");
    let error = Program::open(&LoadOptions { pin_path, ..own_options(&wire) }).unwrap_err();
    assert!(matches!(error, XdpError::DotInPinPath { .. }), "{error}");
    assert_eq!(default_pin_path("eth0.100"), Path::new("/sys/fs/bpf/xtcp/eth0_100"));
}

#[test]
fn a_socket_for_a_queue_that_is_not_there_is_refused() {
    let wire = wire();
    let mut program = open(&own_options(&wire));
    let socket = socket(&wire, 0);
    let error = program.register_socket(2, socket.as_fd()).unwrap_err();
    assert!(matches!(error, XdpError::NoSuchQueue { queue: 2, queues: 2, .. }), "{error}");
}

#[test]
fn without_privilege_nothing_is_loaded_and_nothing_left_behind() {
    let wire = wire();
    let options = own_options(&wire);
    let refused = std::thread::scope(|scope| {
        let unprivileged = scope.spawn(|| {
            let none = CapabilitySet::empty();
            set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none }).unwrap();
            Program::open(&options).map(drop)
        });
        unprivileged.join().unwrap()
    });
    let error = refused.unwrap_err();
    assert!(matches!(error, XdpError::NoPrivilege { .. }), "{error}");
    assert!(!options.pin_path.exists());
}

/// Options with the interface's own MAC address.
fn own_options(wire: &Wire) -> LoadOptions {
    LoadOptions { mac: wire.server.mac().unwrap(), ..options(wire) }
}

/// Interfaces are found by their index in the namespace of the caller.
fn attach(wire: &Wire, program: &mut Program) -> Result<Attached, XdpError> {
    wire.server.enter(|| program.attach())
}

/// Sends a SYN from the client to the port; nobody answers.
fn knock(wire: &Wire) {
    let to = SocketAddr::new(SERVER_V4, PORT);
    let answer = wire.client.enter(|| TcpStream::connect_timeout(&to, Duration::from_millis(1)));
    assert_eq!(answer.unwrap_err().kind(), std::io::ErrorKind::TimedOut);
}

fn has_xdp(wire: &Wire) -> bool {
    wire.server.ip(&format!("link show dev {}", wire.server.interface())).unwrap().contains("prog/xdp")
}

fn pins(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort_unstable();
    names
}

/// The kernel's number of a pinned map.
fn id_of(options: &LoadOptions, map: &str) -> String {
    let shown = bpftool(&format!("map show pinned {}", options.pin_path.join(map).display()));
    shown.split(':').next().unwrap().to_owned()
}
