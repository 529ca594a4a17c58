//! The lab of a bench: a wire, the program at the client's end, and a server (xtcp or the kernel's TCP) on its own core.
//!
//! Receive work is done by threaded NAPI at both ends, each thread on its end's core, for both servers: RPS acts behind
//! XDP and can't move its work. The kernel's variant has GRO on at the server's end, which is what gives a veth without
//! an XDP program NAPI. The kernel answers generated sources through a route and a fixed neighbour.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use ::tests::daemon::{Daemon, DaemonBuilder};
use ::tests::net::{CLIENT_V4, CLIENT_V6, Namespace, SERVER_V4, SERVER_V6, Wire, WireOptions, on_a_thread};
use anyhow::{Context, Result, bail, ensure};
use rustix::net::{AddressFamily, SocketType, listen, sockopt};
use rustix::process::Pid;

use crate::cpu::{self, CLIENT_CORE, SERVER_CORE};
use crate::frame::Ends;
use crate::memory::running_time_ns;
use crate::programs::{ClientEnd, ClientProgram};

/// Where the server listens.
pub const PORT: u16 = 7;

/// Connections of the kernel's listener that wait, in both queues.
const BACKLOG: i32 = 65_535;
/// How often the client's end looks for frames, ns: the wire holds 256.
const CLIENT_POLL_NS: &str = "50000";
/// How long the threads of NAPI are waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// Whose TCP is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Subject {
    /// xtcp.
    Xtcp,
    /// The kernel's.
    Kernel,
    /// Nobody's: an XDP program drops every frame. What remains is the cost of the wire.
    Discard,
}

/// How a lab is made.
#[derive(Clone, Debug)]
pub struct LabOptions {
    /// Whose TCP serves.
    pub subject: Subject,
    /// What the client's end does.
    pub client: ClientEnd,
    /// Serve over IPv6.
    pub v6: bool,
    /// Lines of the daemon's configuration, before any table.
    pub top: String,
    /// A line of its listener's `tcp` table: `syn_cookies = "always"`.
    pub tcp: String,
    /// The daemon's service.
    pub service: String,
}

impl LabOptions {
    /// A lab for a flood: cookies on, the client's end counts.
    #[must_use]
    pub fn flood(subject: Subject) -> Self {
        LabOptions {
            subject,
            client: ClientEnd::Count,
            v6: false,
            top: "xdp_tx = \"on\"".to_owned(),
            tcp: "syn_cookies = \"always\"".to_owned(),
            service: "echo".to_owned(),
        }
    }
}

/// A lab in which a server runs. All of it goes on drop.
#[derive(Debug)]
pub struct BenchLab {
    /// What serves.
    pub server: Server,
    /// The program at the client's end.
    pub client: ClientProgram,
    /// The addresses of both ends.
    pub ends: Ends,
    /// Threads of the server's receive work.
    receivers: Vec<u32>,
    /// The wire; dropped last.
    pub wire: Wire,
}

/// What serves.
#[derive(Debug)]
pub enum Server {
    /// The daemon.
    Xtcp(Box<Daemon>),
    /// A listening socket of the kernel's, and what accepts from it.
    Kernel(std::net::TcpListener),
    /// What drops every frame.
    Discard(ClientProgram),
}

/// Counters of an interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Frames that came in, whatever XDP made of them.
    pub received: u64,
    /// Frames that went out.
    pub sent: u64,
}

impl BenchLab {
    /// Makes a lab and starts its server.
    ///
    /// # Errors
    /// When not run as root, when a program is missing, when a server does not start.
    pub fn new(options: &LabOptions) -> Result<BenchLab> {
        let wire = Wire::new(&WireOptions::default())?;
        prepare(&wire)?;
        let interface = wire.client.interface();
        let client = wire.client.enter(|| ClientProgram::attach(options.client, interface))?;
        let (server_v4, server_v6) = (SocketAddr::new(SERVER_V4, PORT), SocketAddr::new(SERVER_V6, PORT));
        let listener = if options.v6 { server_v6 } else { server_v4 };
        let server = start(&wire, options, listener)?;
        // The client's end looks for answers by a timer: else the server's core would pay for waking it, by an
        // interrupt to the other core for nearly every answer.
        set(&wire.client, "gro_flush_timeout", CLIENT_POLL_NS)?;
        set(&wire.client, "napi_defer_hard_irqs", "1000000")?;
        thread_napi(&wire.client, CLIENT_CORE)?;
        let receivers = thread_napi(&wire.server, SERVER_CORE)?;
        let ends = Ends { client: wire.client.mac()?, server: wire.server.mac()?, listener };
        Ok(BenchLab { server, client, ends, receivers, wire })
    }

    /// Processes of the lab beside the bench itself.
    #[must_use]
    pub fn processes(&self) -> Vec<u32> {
        match &self.server {
            Server::Xtcp(daemon) => vec![daemon.pid()],
            Server::Kernel(_) | Server::Discard(_) => Vec::new(),
        }
    }

    /// How long the server's threads have run: those of its receive work, and the daemon's. Unlike busy time of a core
    /// this leaves out what others do on it, and what interrupts do.
    ///
    /// # Errors
    /// When one of them is gone.
    pub fn running_time(&self) -> Result<Duration> {
        let threads = self.receivers.iter().copied().chain(self.processes());
        let times = threads.map(running_time_ns).collect::<Result<Vec<_>>>()?;
        Ok(Duration::from_nanos(times.into_iter().sum()))
    }

    /// What the server's interface has counted.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn traffic(&self) -> Result<Traffic> {
        let end = &self.wire.server;
        let output = end.ip(&format!("-json -statistics link show dev {}", end.interface()))?;
        let links: serde_json::Value = serde_json::from_str(&output).context("`ip -json` printed no JSON")?;
        let packets = |way: &str| links[0]["stats64"][way]["packets"].as_u64().context("`ip -json` shows no counters");
        Ok(Traffic { received: packets("rx")?, sent: packets("tx")? })
    }
}

/// Routes, neighbours and what the kernel's TCP is told, the same for both servers.
fn prepare(wire: &Wire) -> Result<()> {
    let (client, server) = (&wire.client, &wire.server);
    let (client_has, server_has) = ([CLIENT_V4, CLIENT_V6], [SERVER_V4, SERVER_V6]);
    for (end, has, peer, peer_has) in
        [(client, client_has, server, server_has), (server, server_has, client, client_has)]
    {
        let mac = peer.mac()?.map(|byte| format!("{byte:02x}")).join(":");
        for address in peer_has {
            end.ip(&format!("neigh replace {address} lladdr {mac} dev {} nud permanent", end.interface()))?;
        }
        // The wire's own tests steer receive work by RPS; here NAPI's threads stay where they are put.
        set(end, "queues/rx-0/rps_cpus", "0")?;
        end.set_sysctl("net.ipv4.conf.all.rp_filter", "0")?;
        // By route: the sysctl takes only what the host allows to everybody.
        let interface = end.interface();
        end.ip(&format!(
            "route change 10.77.0.0/24 dev {interface} proto kernel scope link src {} congctl cubic",
            has[0]
        ))?;
        end.ip(&format!("-6 route add fd00:77::/64 dev {interface} metric 128 congctl cubic"))?;
    }
    server.ip(&format!("route add 198.18.0.0/15 via {CLIENT_V4} dev {} congctl cubic", server.interface()))?;
    server.ip(&format!("route add 2001:2::/48 via {CLIENT_V6} dev {} congctl cubic", server.interface()))?;
    let backlog = BACKLOG.to_string();
    let told = [
        ("net.ipv4.tcp_syncookies", "2"),
        ("net.core.somaxconn", &backlog),
        ("net.ipv4.tcp_max_syn_backlog", &backlog),
        ("net.ipv4.tcp_max_tw_buckets", "2000000"),
    ];
    told.into_iter().try_for_each(|(name, value)| server.set_sysctl(name, value))
}

fn start(wire: &Wire, options: &LabOptions, at: SocketAddr) -> Result<Server> {
    match options.subject {
        Subject::Xtcp => start_daemon(wire, options, at),
        Subject::Kernel => {
            let interface = wire.server.interface();
            wire.server.run(&format!("ethtool -K {interface} gro on"))?;
            Ok(Server::Kernel(wire.server.enter(|| kernel_listener(at))?))
        }
        Subject::Discard => {
            let interface = wire.server.interface();
            Ok(Server::Discard(wire.server.enter(|| ClientProgram::attach(ClientEnd::Discard, interface))?))
        }
    }
}

/// Starts the daemon from a thread on the server's core: its threads stay there.
fn start_daemon(wire: &Wire, options: &LabOptions, at: SocketAddr) -> Result<Server> {
    let listener = format!("service = \"{}\"\ntcp = {{ {} }}", options.service, options.tcp);
    let builder = DaemonBuilder::on(&wire.server).line(&options.top).listen_with(at, &listener);
    let started = on_a_thread(|| {
        cpu::stay_on(SERVER_CORE)?;
        Ok::<_, anyhow::Error>(builder.try_start())
    })?;
    match started {
        Ok(daemon) => Ok(Server::Xtcp(Box::new(daemon))),
        Err(refusal) => bail!("xtcp did not start: {}", refusal.stderr.join("\n")),
    }
}

/// A listening socket with a backlog that std would not give it.
fn kernel_listener(at: SocketAddr) -> Result<std::net::TcpListener> {
    let family = if at.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = rustix::net::socket(family, SocketType::STREAM, None).context("can't make a socket")?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    rustix::net::bind(&socket, &at).with_context(|| format!("can't bind to {at}"))?;
    listen(&socket, BACKLOG).context("can't listen")?;
    Ok(socket.into())
}

/// Has threads do an interface's receive work, on one core, and returns their ids.
fn thread_napi(end: &Namespace, core: usize) -> Result<Vec<u32>> {
    set(end, "threaded", "1")?;
    let prefix = format!("napi/{}-", end.interface());
    let deadline = Instant::now() + PATIENCE;
    loop {
        let threads = kernel_threads(&prefix);
        if !threads.is_empty() {
            threads.iter().try_for_each(|thread| place(*thread, core))?;
            return Ok(threads.into_iter().map(|thread| thread.as_raw_pid() as u32).collect());
        }
        ensure!(Instant::now() < deadline, "no thread {prefix}* appears: does the kernel have threaded NAPI?");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Before whatever else wants the core, as a softirq: the wire holds 256 frames, and the generator or the server would
/// keep them from being taken. At the client's end at once, because an answer that finds no room there says nothing of
/// the server.
fn place(thread: Pid, core: usize) -> Result<()> {
    cpu::pin(Some(thread), core)?;
    if core == CLIENT_CORE { cpu::go_at_once(thread) } else { cpu::go_first(Some(thread)) }
}

fn kernel_threads(prefix: &str) -> Vec<Pid> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let named = |path: &Path| std::fs::read_to_string(path.join("comm")).is_ok_and(|name| name.starts_with(prefix));
    let matching = entries.flatten().filter(|entry| named(&entry.path()));
    matching.filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?)).collect()
}

/// Writes a file of the interface's in /sys, which shows a namespace's links only to what `ip netns exec` runs.
fn set(end: &Namespace, file: &str, value: &str) -> Result<()> {
    let line = format!("echo {value} > /sys/class/net/{}/{file}", end.interface());
    let output =
        end.command_without_bpffs("sh").args(["-ec", &line]).output().context("can't run ip (package iproute2)")?;
    ensure!(output.status.success(), "`{line}` failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}
