//! What a daemon checks, reserves and makes before it serves.

use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};

use rustix::rand::{GetRandomFlags, getrandom};
use rustix::thread::{CapabilitySet, capabilities};
use tcp_proto::{CookieKeys, StackConfig};

use super::error::{DaemonError, system};
use crate::afxdp::{Exchange, WorkerDevice, XskOptions, XskSocket};
use crate::config::{Config, Listener, RxChecksum, XdpMode, XdpTx};
use crate::net::{self, Interface, Network};
use crate::worker::{ListenerOptions, Worker, WorkerOptions};
use crate::xdp::{self, Answers, Attached, LoadOptions, Program};

/// Smallest MTU that IPv4 hosts must take (RFC 791) and the stack works with.
pub(super) const MIN_MTU: u32 = 576;

pub(super) fn check_privileges() -> Result<(), DaemonError> {
    let held = capabilities(None).map_err(|error| system("ask for capabilities")(error.into()))?;
    let needed = [
        (CapabilitySet::NET_ADMIN, "CAP_NET_ADMIN"),
        (CapabilitySet::NET_RAW, "CAP_NET_RAW"),
        (CapabilitySet::BPF, "CAP_BPF"),
        (CapabilitySet::PERFMON, "CAP_PERFMON"),
    ];
    // CAP_SYS_ADMIN stands for the two younger ones.
    let stands_in = CapabilitySet::BPF | CapabilitySet::PERFMON;
    let admin = held.effective.contains(CapabilitySet::SYS_ADMIN);
    let missing: Vec<&str> = needed
        .into_iter()
        .filter(|(set, _)| !(held.effective.contains(*set) || admin && stands_in.contains(*set)))
        .map(|(_, name)| name)
        .collect();
    if missing.is_empty() { Ok(()) } else { Err(DaemonError::NoPrivilege(missing.join(", "))) }
}

pub(super) fn check_interface(interface: &Interface) -> Result<(), DaemonError> {
    let name = interface.name.clone();
    if !interface.is_up {
        return Err(DaemonError::InterfaceDown(name));
    }
    if interface.mtu < MIN_MTU {
        return Err(DaemonError::MtuTooSmall { name, mtu: interface.mtu });
    }
    Ok(())
}

pub(super) fn check_listen_addresses(config: &Config, present: &[IpAddr]) -> Result<(), DaemonError> {
    for &Listener { address, foreign_address, .. } in &config.listeners {
        let ip = address.ip();
        if !(foreign_address || ip.is_unspecified() || present.contains(&ip)) {
            let (interface, present) = (config.interface.clone(), present.to_vec());
            return Err(DaemonError::NotOnInterface { address, interface, present });
        }
    }
    Ok(())
}

pub(super) fn check_ephemeral_ports(config: &Config) -> Result<(), DaemonError> {
    net::check_ephemeral_ports(&config.ephemeral_ports)?;
    let taken = net::kernel_connections(&config.ephemeral_ports)
        .map_err(system("list the kernel's connections on ephemeral_ports"))?;
    if !taken.is_empty() {
        tracing::warn!(
            "{} connections of the kernel's TCP are on ephemeral_ports; those over {} will stall: {}",
            taken.len(),
            config.interface,
            taken[0]
        );
    }
    Ok(())
}

pub(super) fn reserve_ports(listeners: &[Listener], interface: &Interface) -> Result<Vec<OwnedFd>, DaemonError> {
    let reserve =
        |listener: &Listener| Ok(net::reserve_port(listener.address, listener.foreign_address, Some(interface))?);
    listeners.iter().map(reserve).collect()
}

/// What the program needs to know of a configuration and its interface.
fn load_options(config: &Config, interface: &Interface) -> LoadOptions {
    LoadOptions {
        interface_index: interface.index,
        interface_name: interface.name.clone(),
        pin_path: config.pin_path.clone(),
        mode: config.xdp_mode,
        max_connections: config.max_connections,
        limits_sources: config.source_limit.interval_ns != 0,
        mac: interface.mac,
        queues: interface.receive_queues,
        vlans: config.vlans.clone(),
    }
}

pub(super) fn open_program(
    config: &Config,
    interface: &Interface,
    addresses: &[IpAddr],
) -> Result<Program, DaemonError> {
    let mut program = Program::open(&load_options(config, interface))?;
    let settings = |listener: &Listener| {
        (listener.address, listener.tcp.listener_value(interface.mtu as u16, listener.address.is_ipv4()))
    };
    let listeners: Vec<_> = config.listeners.iter().map(settings).collect();
    program.set_answers(&answers(config, interface))?;
    for (prefix, rule) in &config.prefixes {
        program.set_prefix(*prefix, *rule)?;
    }
    program.set_source_limit(config.source_limit)?;
    program.set_addresses(addresses)?;
    program.set_listeners(&listeners)?;
    program.set_ephemeral_ports(config.ephemeral_ports.clone())?;
    Ok(program)
}

/// On veth an answer is lost unless the peer has an XDP program, too.
fn answers(config: &Config, interface: &Interface) -> Answers {
    Answers {
        enabled: match config.xdp_tx {
            XdpTx::On => true,
            XdpTx::Off => false,
            XdpTx::Auto => !interface.is_veth,
        },
        accept_partial: config.rx_checksum == RxChecksum::AcceptPartial,
        rst_rate: config.rst_rate,
        time_wait_ms: config.tcp.time_wait_ms(),
    }
}

pub(super) async fn start_workers(
    config: &Config,
    interface: &Interface,
    program: &mut Program,
    cookie_keys: CookieKeys,
) -> Result<Vec<Worker>, DaemonError> {
    let mut workers = Vec::new();
    let program_answers = answers(config, interface).enabled;
    let mut seed = [0; 32];
    getrandom(&mut seed, GetRandomFlags::empty()).map_err(|error| system("get random bytes")(error.into()))?;
    let addresses: Vec<_> = config.listeners.iter().map(|listener| listener.address).collect();
    // The loader has refused more queues than the program can steer to.
    let exchanges = Exchange::among(interface.receive_queues as u16);
    for (queue, exchange) in (0..interface.receive_queues).zip(exchanges) {
        let mut options = XskOptions::new(&interface.name, interface.index, interface.mtu, queue);
        options.always_copy = config.xdp_mode == XdpMode::Generic;
        let socket = XskSocket::bind(&options)?;
        program.register_socket(queue, socket.as_fd())?;
        let device = WorkerDevice::new(socket, program.connections()?, exchange)
            .with_answers(program_answers)
            .with_cookie_demands(program.cookie_demands(&addresses)?);
        let stack = stack_config(config, interface, queue, program_answers);
        let listeners = config.listeners.iter().map(listener_options).collect();
        workers.push(Worker::start(device, WorkerOptions { stack, seed, cookie_keys, listeners }).await?);
    }
    program.set_cookie_keys(&cookie_keys)?;
    Ok(workers)
}

fn listener_options(listener: &Listener) -> ListenerOptions {
    ListenerOptions { address: listener.address, tcp: listener.tcp.clone(), service: listener.service.clone() }
}

fn stack_config(config: &Config, interface: &Interface, queue: u32, program_answers: bool) -> StackConfig {
    StackConfig {
        mac: interface.mac,
        // The socket refused what does not fit.
        mtu: interface.mtu as u16,
        queue: queue as u16,
        max_connections: config.max_connections as usize,
        max_orphans: config.max_orphans as usize,
        max_buffer_memory: config.max_buffer_memory,
        ephemeral_ports: config.ephemeral_ports.clone(),
        stacks: interface.receive_queues as u16,
        accept_partial_checksum: config.rx_checksum == RxChecksum::AcceptPartial,
        program_answers,
        rst_rate: config.rst_rate,
    }
}

pub(super) fn report_attached(interface: &Interface, mode: Attached) {
    match mode {
        Attached::Native => tracing::info!("attached to {} in the driver", interface.name),
        Attached::Generic => tracing::info!("attached to {} in generic mode (slower)", interface.name),
        Attached::Adopted => tracing::info!("adopted what `xtcp load` attached to {}", interface.name),
    }
}

/// `xtcp load`: program, maps and link, pinned without a daemon.
///
/// # Errors
/// See [`DaemonError`].
pub async fn load(config: &Config) -> Result<Attached, DaemonError> {
    check_privileges()?;
    let interface = Network::open()?.interface(&config.interface).await?;
    Ok(xdp::load(&load_options(config, &interface))?)
}

/// `xtcp unload`: removes what `load` or a dead daemon left; whether there was anything.
///
/// # Errors
/// See [`DaemonError`].
pub fn unload(config: &Config) -> Result<bool, DaemonError> {
    check_privileges()?;
    Ok(xdp::unload(&config.pin_path)?)
}
