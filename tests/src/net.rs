//! The wire of a lab: two network namespaces, `client` and `server`, and the veth pair between them.
//!
//! The names carry the process id, so that any number of labs live side by side and a leftover can be told from a
//! lab in use. Everything is undone on drop, also when a test panics, unless the wire was kept. What a process leaves that
//! was killed, another may remove by its id ([`remove_labs_of`]).
//! Leaves out: what runs in the namespaces.

use std::fmt;
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::daemon::{pin_path, remove_pins};
use crate::impairment::Impairment;
use crate::segment::Mac;
use crate::wait::DEADLINE;

/// The client's IPv4 address.
pub const CLIENT_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 1));
/// The server's IPv4 address: what xtcp serves.
pub const SERVER_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 2));
/// The client's IPv6 address.
pub const CLIENT_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0x77, 0, 0, 0, 0, 0, 1));
/// The server's IPv6 address: what xtcp serves.
pub const SERVER_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0x77, 0, 0, 0, 0, 0, 2));

/// IPv4 addresses of a second wire, the client's and the server's; see [`Wire::second`].
pub const SECOND_V4: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::new(10, 78, 0, 1)), IpAddr::V4(Ipv4Addr::new(10, 78, 0, 2))];
/// Its IPv6 addresses.
const SECOND_V6: [IpAddr; 2] = [
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0x78, 0, 0, 0, 0, 0, 1)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0x78, 0, 0, 0, 0, 0, 2)),
];

/// Local ports that the kernel of the server's namespace leaves to xtcp's active opens.
pub const EPHEMERAL_PORTS: std::ops::RangeInclusive<u16> = 40_000..=49_999;

/// Namespaces, links and pins of labs begin with this (a link has room for 15 bytes only).
const NAMESPACE_PREFIX: &str = "xtcp-";
const LINK_PREFIX: &str = "xt";

/// How a wire is made.
#[derive(Clone, Debug)]
pub struct WireOptions {
    /// RX and TX queues of both ends.
    pub queues: u32,
    /// MTU of both ends in bytes.
    pub mtu: u32,
    /// What becomes of TCP segments on it.
    pub impairment: Impairment,
}

impl Default for WireOptions {
    fn default() -> Self {
        WireOptions { queues: 1, mtu: 1500, impairment: Impairment::default() }
    }
}

/// Two namespaces and a veth pair.
#[derive(Debug)]
pub struct Wire {
    /// Where the kernel's TCP plays the peer.
    pub client: Namespace,
    /// Where xtcp runs.
    pub server: Namespace,
    kept: bool,
}

/// One end of a wire.
#[derive(Clone, Debug)]
pub struct Namespace {
    name: String,
    interface: String,
}

impl Wire {
    /// Makes a wire with names of its own.
    ///
    /// # Errors
    /// When not run as root, or when `ip` or `ethtool` fails; the message names the command and what it said.
    pub fn new(options: &WireOptions) -> Result<Wire> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let (pid, number) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let end = |role: &str| Namespace {
            name: format!("{NAMESPACE_PREFIX}{pid}-{number}-{role}"),
            interface: format!("{LINK_PREFIX}{pid}-{number}{}", &role[..1]),
        };
        Wire::make(Wire { client: end("client"), server: end("server"), kept: false }, options)
    }

    /// Makes the wire that stays until it is taken down: `xtcp-client` and `xtcp-server`, their links named likewise.
    ///
    /// # Errors
    /// As [`Wire::new`], and when it exists already.
    pub fn new_kept(options: &WireOptions) -> Result<Wire> {
        let mut wire = Wire::kept();
        ensure!(!wire.exists(), "the lab is up already; take it down with `cargo xtask lab down`");
        wire.kept = false; // so that a wire made halfway is undone
        let mut wire = Wire::make(wire, options)?;
        wire.kept = true;
        Ok(wire)
    }

    /// The kept wire, whether it exists or not.
    #[must_use]
    pub fn kept() -> Wire {
        let end = |role: &str| {
            let name = format!("{NAMESPACE_PREFIX}{role}");
            Namespace { interface: name.clone(), name }
        };
        Wire { client: end("client"), server: end("server"), kept: true }
    }

    /// Whether both namespaces are there.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.client.path().exists() && self.server.path().exists()
    }

    /// Takes a kept wire down; one that is not there is no error.
    ///
    /// # Errors
    /// When a program still runs in it: its namespace would live on without a name.
    pub fn take_down(mut self) -> Result<()> {
        let ends = [&self.client, &self.server].into_iter().filter(|end| end.path().exists());
        let pids = ends.map(|end| ip(&format!("netns pids {}", end.name))).collect::<Result<String>>()?;
        let pids = pids.split_whitespace().collect::<Vec<_>>().join(", ");
        ensure!(pids.is_empty(), "still running in the lab, stop it first: process {pids}");
        self.kept = false;
        Ok(())
    }

    /// Loses `per_mille` of a thousand TCP segments each way from now on, at random, and does nothing else to them;
    /// 0 ends it. See [`Wire::impair`].
    ///
    /// # Errors
    /// When `per_mille` is above 1000, and when `tc` fails.
    pub fn lose(&self, per_mille: u32) -> Result<()> {
        self.impair(Impairment { loss: per_mille, ..Impairment::default() })
    }

    /// Makes the wire as bad as `impairment` says from now on; nothing of an earlier impairment stays. Connections that
    /// the client's kernel has already lose, reorder and double several segments at once.
    ///
    /// # Errors
    /// When a share is above 1000 of a thousand, and when `ip` or `tc` fails (package iproute2; the kernel needs
    /// clsact, cls_bpf, mirred, HTB and IFB).
    pub fn impair(&self, impairment: Impairment) -> Result<()> {
        impairment.apply(&self.client)
    }

    fn make(wire: Wire, options: &WireOptions) -> Result<Wire> {
        ensure!(rustix::process::geteuid().is_root(), "a lab needs root (network namespaces): run `cargo xtask test`");
        let (client, server) = (&wire.client, &wire.server);
        ip(&format!("netns add {}", client.name))?;
        ip(&format!("netns add {}", server.name))?;
        wire.link(options, [CLIENT_V4, CLIENT_V6], [SERVER_V4, SERVER_V6])?;
        server.set_sysctl("net.ipv4.ip_local_reserved_ports", &reserved_ports())?;
        Ok(wire)
    }

    /// A second veth pair between the same namespaces, with addresses of its own ([`SECOND_V4`]). It lives as long as
    /// the first one's namespaces; a lab's capture and checker leave its traffic alone.
    ///
    /// # Errors
    /// As [`Wire::new`].
    pub fn second(&self, options: &WireOptions) -> Result<Wire> {
        let end = |end: &Namespace| Namespace { interface: format!("{}b", end.interface), ..end.clone() };
        let wire = Wire { client: end(&self.client), server: end(&self.server), kept: true };
        wire.link(options, [SECOND_V4[0], SECOND_V6[0]], [SECOND_V4[1], SECOND_V6[1]])?;
        Ok(wire)
    }

    /// Makes the veth pair.
    fn link(&self, options: &WireOptions, client_has: [IpAddr; 2], server_has: [IpAddr; 2]) -> Result<()> {
        let WireOptions { queues, mtu, impairment } = options;
        let end = |end: &Namespace| {
            format!("{} netns {} mtu {mtu} numrxqueues {queues} numtxqueues {queues}", end.interface, end.name)
        };
        ip(&format!("link add {} type veth peer name {}", end(&self.client), end(&self.server)))?;
        self.client.bring_up(*queues, client_has)?;
        self.client.keep_order(*queues)?;
        self.server.bring_up(*queues, server_has)?;
        if *impairment == Impairment::default() { Ok(()) } else { self.impair(*impairment) }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        for end in [&self.client, &self.server] {
            if end.path().exists()
                && let Err(error) = ip(&format!("netns del {}", end.name))
            {
                eprintln!("the lab's namespace {} is left behind: {error:#}", end.name);
            }
        }
    }
}

impl Namespace {
    /// Its name under `/run/netns`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name of its end of the veth pair.
    #[must_use]
    pub fn interface(&self) -> &str {
        &self.interface
    }

    /// A command that will run in the namespace. Unlike `ip netns exec` this hides neither bpffs nor `/sys`.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path().display())).arg("--").arg(program);
        command
    }

    /// A command that will run in the namespace as `ip netns exec` runs it: with a /sys of its own, without bpffs.
    #[must_use]
    pub fn command_without_bpffs(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// Runs a command in the namespace: words separated by blanks, no quoting.
    ///
    /// # Errors
    /// When it can't be started or fails; the message holds what it wrote to stderr.
    pub fn run(&self, command_line: &str) -> Result<String> {
        let mut words = command_line.split_whitespace();
        let program = words.next().context("an empty command line")?;
        let output = self.command(program).args(words).output().context("can't run nsenter (package util-linux)")?;
        succeeded(command_line, &output)
    }

    /// Runs `work` on a thread inside the namespace; sockets that it makes belong to the namespace for good.
    ///
    /// # Panics
    /// When the namespace can't be entered, and when `work` panics.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        on_a_thread(|| {
            self.move_in().expect("the namespace can be entered");
            work()
        })
    }

    /// Moves the calling thread into the namespace.
    ///
    /// # Errors
    /// When the namespace does not exist or the caller is not root.
    pub fn move_in(&self) -> Result<()> {
        let path = self.path();
        let file = File::open(&path).with_context(|| format!("can't open {}", path.display()))?;
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
            .with_context(|| format!("can't enter the namespace {}", self.name))
    }

    /// Sets a sysctl of the namespace (one under `net.`).
    ///
    /// # Errors
    /// When there is no such sysctl or it refuses the value.
    pub fn set_sysctl(&self, name: &str, value: &str) -> Result<()> {
        let path = PathBuf::from("/proc/sys").join(name.replace('.', "/"));
        self.enter(|| std::fs::write(&path, value)).with_context(|| format!("can't set {name} = {value}"))
    }

    /// The MAC address of its end of the veth pair.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn mac(&self) -> Result<Mac> {
        let address = &self.link()?.address;
        let mut mac = Mac::default();
        for (byte, digits) in mac.iter_mut().zip(address.split(':')) {
            *byte = u8::from_str_radix(digits, 16).with_context(|| format!("{address} is no MAC address"))?;
        }
        Ok(mac)
    }

    /// Index of its end of the veth pair.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn interface_index(&self) -> Result<u32> {
        Ok(self.link()?.ifindex)
    }

    /// Id of the XDP program on its end of the veth pair.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn xdp_program(&self) -> Result<Option<u64>> {
        Ok(self.link()?.xdp.map(|attached| attached.prog.id))
    }

    fn link(&self) -> Result<Link> {
        let output = self.ip(&format!("-json link show dev {}", self.interface))?;
        let links: Vec<Link> = serde_json::from_str(&output).context("can't parse the output of `ip -json link`")?;
        links.into_iter().next().context("`ip link` shows no link")
    }

    /// Runs `ip` in the namespace.
    ///
    /// # Errors
    /// When it fails; the message holds what it wrote to stderr.
    pub fn ip(&self, arguments: &str) -> Result<String> {
        ip(&format!("-n {} {arguments}", self.name))
    }

    fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }

    fn bring_up(&self, queues: u32, addresses: [IpAddr; 2]) -> Result<()> {
        let interface = &self.interface;
        // Duplicate address detection would keep addresses from use for a second.
        self.set_sysctl(&format!("net.ipv6.conf.{interface}.accept_dad"), "0")?;
        for address in addresses {
            let length = if address.is_ipv4() { 24 } else { 64 };
            let nodad = if address.is_ipv4() { "" } else { "nodad" };
            self.ip(&format!("address add {address}/{length} dev {interface} {nodad}"))?;
        }
        if queues > 1 {
            self.run(&format!("ethtool -L {interface} rx {queues} tx {queues}"))?;
        }
        // AF_XDP sees frames as the peer's driver leaves them: checksums filled in, one segment each.
        self.run(&format!("ethtool -K {interface} tx off tso off gso off gro off"))?;
        self.ip("link set lo up")?;
        self.ip(&format!("link set {interface} up"))?;
        Ok(())
    }

    /// Has one CPU receive everything: a veth pair hands frames over on the CPU that sends them, so that a sender
    /// that moves to another CPU overtakes itself, and a capture shows what was never sent in that order.
    fn keep_order(&self, queues: u32) -> Result<()> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let cpus = std::thread::available_parallelism().map_or(1, |count| count.get().min(32) as u32);
        let mask = 1_u32 << (NEXT.fetch_add(1, Ordering::Relaxed) % cpus);
        let lines: Vec<String> = (0..queues)
            .map(|queue| format!("echo {mask:x} > /sys/class/net/{}/queues/rx-{queue}/rps_cpus", self.interface))
            .collect();
        // `ip netns exec` mounts the /sys that shows the namespace's links; nsenter would leave the old one.
        let output = self.command_without_bpffs("sh").args(["-ec", &lines.join("\n")]).output();
        succeeded("setting rps_cpus", &output.context("can't run ip (package iproute2)")?).map(drop)
    }
}

/// What `ip -json link` says of a link.
#[derive(serde::Deserialize)]
struct Link {
    ifindex: u32,
    address: String,
    xdp: Option<Xdp>,
}

#[derive(serde::Deserialize)]
struct Xdp {
    prog: XdpProgram,
}

#[derive(serde::Deserialize)]
struct XdpProgram {
    id: u64,
}

/// Value of `net.ipv4.ip_local_reserved_ports` in the server's namespace.
#[must_use]
pub fn reserved_ports() -> String {
    format!("{}-{}", EPHEMERAL_PORTS.start(), EPHEMERAL_PORTS.end())
}

/// Namespaces, links and pins of labs whose process has ended: there is nobody left to clean them up.
#[must_use]
pub fn leftovers() -> Vec<String> {
    Trace::all().filter(|trace| !is_alive(trace.maker)).map(|trace| trace.to_string()).collect()
}

/// Kills what runs in the labs of a process that was ended before it could clean up, removes what they left, and says
/// what that was.
///
/// # Errors
/// When something of it stays; the message names it.
pub fn remove_labs_of(pid: u32) -> Result<Vec<String>> {
    let mut removed = Vec::new();
    for trace in Trace::all().filter(|trace| trace.maker == pid).collect::<Vec<_>>() {
        trace.remove().with_context(|| format!("can't remove the {trace}"))?;
        removed.push(trace.to_string());
    }
    Ok(removed)
}

/// Something of a lab's that does not end with the process that made it.
#[derive(Debug)]
struct Trace {
    kind: Kind,
    name: String,
    maker: u32,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Namespace,
    Link,
    Pins,
}

impl Kind {
    /// Which there are, and where and how named they are found. Daemons go with their namespaces, pins are left then.
    const ALL: [(Kind, &str, &str); 3] = [
        (Kind::Namespace, "/run/netns", NAMESPACE_PREFIX),
        (Kind::Link, "/sys/class/net", LINK_PREFIX),
        (Kind::Pins, "/sys/fs/bpf/xtcp", LINK_PREFIX),
    ];
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Namespace => "network namespace",
            Kind::Link => "link",
            Kind::Pins => "pinned maps",
        };
        write!(f, "{kind} {}", self.name)
    }
}

impl Trace {
    /// Those of all labs, in the order in which they are to be removed.
    fn all() -> impl Iterator<Item = Trace> {
        Kind::ALL.into_iter().flat_map(|(kind, directory, prefix)| {
            let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
            let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
            names.filter_map(move |name| Some(Trace { kind, maker: maker(&name, prefix)?, name }))
        })
    }

    fn remove(&self) -> Result<()> {
        match self.kind {
            Kind::Namespace => {
                empty_namespace(&self.name)?;
                ip(&format!("netns del {}", self.name)).map(drop)
            }
            Kind::Link => ip(&format!("link del {}", self.name)).map(drop),
            Kind::Pins => {
                remove_pins(&pin_path(&self.name));
                Ok(())
            }
        }
    }
}

/// Kills what runs in a namespace, and waits until that has left it.
fn empty_namespace(name: &str) -> Result<()> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let pids = ip(&format!("netns pids {name}"))?;
        let pids: Vec<_> = pids.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect();
        if pids.is_empty() {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "still running after SIGKILL: {pids:?}");
        // One that has ended meanwhile is no error.
        for pid in pids {
            let _ = kill_process(pid, Signal::KILL);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The process that made the lab which something is named after.
fn maker(name: &str, prefix: &str) -> Option<u32> {
    let (pid, _) = name.strip_prefix(prefix)?.split_once('-')?;
    pid.parse().ok()
}

fn is_alive(pid: u32) -> bool {
    PathBuf::from(format!("/proc/{pid}")).exists()
}

/// Runs `ip` with words separated by blanks.
fn ip(arguments: &str) -> Result<String> {
    let output = Command::new("ip").args(arguments.split_whitespace()).output();
    succeeded(&format!("ip {arguments}"), &output.context("can't run ip (package iproute2)")?)
}

/// Runs `work` on a thread of its own and waits for it: a thread that moves into a namespace, or to a core, stays there.
///
/// # Panics
/// When `work` panics.
pub fn on_a_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(work);
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// What a command wrote to stdout, if it succeeded.
pub(crate) fn succeeded(what: &str, output: &Output) -> Result<String> {
    if !output.status.success() {
        bail!("`{what}` failed ({}): {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_maker_of_a_lab_is_read_from_its_names() {
        assert_eq!(maker("xtcp-123-4-client", NAMESPACE_PREFIX), Some(123));
        assert_eq!(maker("xt4194304-12s", LINK_PREFIX), Some(4_194_304));
        assert_eq!(maker("xtcp-client", NAMESPACE_PREFIX), None);
        assert_eq!(maker("eth0", LINK_PREFIX), None);
    }

    #[test]
    fn link_names_fit_into_the_kernels_fifteen_bytes() {
        let longest = format!("{LINK_PREFIX}{}-{}s", 4_194_304, 9999);
        assert!(longest.len() <= 15, "{longest}");
    }
}
