//! Loads the XDP program, owns its maps and its attachment to one interface.
//!
//! Start order: [`Program::open`] (maps and program), [`Program::register_socket`] for every queue,
//! [`Program::attach`]. Stop order: [`Program::detach`], close the sockets, drop the [`Program`], which
//! removes its pins. [`load`] and [`unload`] pin program and maps without a daemon; a daemon that starts
//! later adopts them and leaves them behind. What the program decides is `tcp_common::decide`.

mod attach;
mod connections;
mod demand;
mod error;
mod log;
mod maps;
mod pins;

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use aya::programs::{ProgramError, Xdp};
use aya::{Ebpf, EbpfLoader};
use tcp_common::cookie::CookieKeys;
use tcp_common::counters::Counters;
use tcp_common::layout::{ListenerValue, MAX_CONNECTIONS, MAX_QUEUES, MAX_SOURCES};
use tcp_common::prefix::{Prefix, Rule};
use tcp_common::rate::Rate;

pub use crate::config::XdpMode;
pub use attach::Attached;
pub use connections::ConnectionTable;
pub use demand::CookieDemands;
pub use error::XdpError;
pub use log::ProgramLog;

use attach::Attachment;
use maps::ProgramMaps;
use pins::Pins;

/// The XDP program, as this crate's build script left it.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/xtcp-xdp"));

/// Name of the program in the object.
const PROGRAM: &str = "xtcp";

/// How often the kernel is asked to verify the program before a signal that interrupts it counts as a failure.
const VERIFIER_ATTEMPTS: u32 = 5;

/// What [`Program::open`] and [`load`] need to know.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Index of the interface.
    pub interface_index: u32,
    /// Name of the interface, for messages.
    pub interface_name: String,
    /// Directory of the pins, on a bpffs; see [`default_pin_path`].
    pub pin_path: PathBuf,
    /// Where to run the program.
    pub mode: XdpMode,
    /// Capacity of CONNECTIONS, preallocated: 1 to [`MAX_CONNECTIONS`], 169 bytes of kernel memory each.
    pub max_connections: u32,
    /// Whether [`Program::set_source_limit`] will be asked for a limit: makes room for [`MAX_SOURCES`] sources, 6 MB.
    pub limits_sources: bool,
    /// MAC address of the interface; frames to any other are left to the kernel.
    pub mac: [u8; 6],
    /// RX queues of the interface: 1 to [`MAX_QUEUES`].
    pub queues: u32,
    /// VLANs (VID 1 to 4094) whose frames are taken, besides untagged ones and VID 0. A tag that the driver strips
    /// never reaches the program, and the frame looks untagged: `ethtool -K INTERFACE rxvlan off` keeps tags.
    pub vlans: Vec<u16>,
}

/// What the program answers by itself, and how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    /// Whether it answers at all (`xdp_tx`).
    pub enabled: bool,
    /// Whether a checksum over the pseudo-header alone passes.
    pub accept_partial: bool,
    /// Resets a second and CPU for segments without connection.
    pub rst_rate: u32,
    /// How long TIME_WAIT lasts on ports without listener, ms.
    pub time_wait_ms: u32,
}

/// The pin directory of an interface unless configured: `/sys/fs/bpf/xtcp/INTERFACE`, a dot in the name replaced by
/// an underscore: a BPF filesystem takes no name with a dot.
#[must_use]
pub fn default_pin_path(interface_name: &str) -> PathBuf {
    Path::new("/sys/fs/bpf/xtcp").join(interface_name.replace('.', "_"))
}

/// The loaded program of one interface. Dropping it detaches it and removes its pins, unless it was adopted
/// from [`load`]; then it stays, but owns nothing any more.
#[derive(Debug)]
pub struct Program {
    options: LoadOptions,
    maps: ProgramMaps,
    log: Option<ProgramLog>,
    attachment: Attachment,
    /// Keeps the program itself.
    ebpf: Ebpf,
    /// `xtcp load` made the pins, so they outlive us.
    keep_pins: bool,
    /// Dropped last: it carries the lock.
    pins: Pins,
}

impl Program {
    /// Loads the program and makes or adopts its maps; nothing reaches it before [`Program::attach`].
    ///
    /// Pins that `xtcp load` left for the interface are adopted if they have our layout; a dead daemon's are
    /// replaced; a live one's are an error.
    pub fn open(options: &LoadOptions) -> Result<Program, XdpError> {
        check(options)?;
        let pins = Pins::acquire(&options.pin_path)?;
        let adopted = pins.adopt(options.interface_index, &maps::shapes(options))?;
        match Program::open_pinned(options, &pins) {
            Ok((ebpf, maps, log)) => Ok(Program {
                options: options.clone(),
                maps,
                log: Some(log),
                attachment: Attachment::new(adopted),
                ebpf,
                keep_pins: adopted,
                pins,
            }),
            Err(error) => {
                // What a failed start pinned must not look like a dead daemon's.
                if !adopted {
                    let _ = pins.remove_directory();
                }
                Err(error)
            }
        }
    }

    fn open_pinned(options: &LoadOptions, pins: &Pins) -> Result<(Ebpf, ProgramMaps, ProgramLog), XdpError> {
        let mut loader = EbpfLoader::new();
        for shape in maps::shapes(options) {
            loader.map_pin_path(shape.name, pins.path(shape.name)).map_max_entries(shape.name, shape.max_entries);
        }
        loader.map_max_entries("SOURCES", if options.limits_sources { MAX_SOURCES } else { 1 });
        let mut ebpf = loader.load(OBJECT).map_err(|source| load_error(options, source))?;
        verify(program(&mut ebpf)?)?;
        let mut maps = ProgramMaps::take(&mut ebpf)?;
        maps.reset(options)?;
        let log = ProgramLog::take(&mut ebpf)?;
        Ok((ebpf, maps, log))
    }

    /// Gives the AF_XDP socket `socket`, bound to RX queue `queue`, the segments that arrive there.
    pub fn register_socket(&mut self, queue: u32, socket: BorrowedFd<'_>) -> Result<(), XdpError> {
        if queue >= self.options.queues {
            let interface = self.options.interface_name.clone();
            return Err(XdpError::NoSuchQueue { interface, queue, queues: self.options.queues });
        }
        self.maps.set_socket(queue, socket)
    }

    /// Attaches the program to the interface; from here on it sees every frame.
    pub fn attach(&mut self) -> Result<Attached, XdpError> {
        self.attachment.attach(program(&mut self.ebpf)?, &self.options, &self.pins.link())
    }

    /// Replaces the listeners; `0.0.0.0` and `[::]` stand for the addresses of [`Program::set_addresses`].
    ///
    /// Segments of a port whose last listener is gone belong to the kernel again, except those of
    /// connections that still have an entry in CONNECTIONS.
    ///
    /// Each comes with what the program needs to answer for it; its index is its position.
    pub fn set_listeners(&mut self, listeners: &[(SocketAddr, ListenerValue)]) -> Result<(), XdpError> {
        self.maps.set_listeners(listeners)
    }

    /// Brings the figures of listeners up to date; they are only there to be looked at.
    pub fn set_listener_figures(
        &mut self,
        figures: impl IntoIterator<Item = (SocketAddr, ListenerValue)>,
    ) -> Result<(), XdpError> {
        self.maps.set_listener_figures(figures)
    }

    /// Sets what the program answers by itself; nothing before this is called.
    pub fn set_answers(&mut self, answers: &Answers) -> Result<(), XdpError> {
        self.maps.set_answers(answers)
    }

    /// Sets the keys of SYN cookies; without any the program sends none.
    pub fn set_cookie_keys(&mut self, keys: &CookieKeys) -> Result<(), XdpError> {
        self.maps.set_cookie_keys(keys)
    }

    /// Whether the program answers SYNs to the listener at position `index` with cookies, because there are many or
    /// because a worker asked it to ([`CookieDemands`]); `now_ns` is CLOCK_MONOTONIC.
    pub fn sends_cookies(&self, index: u32, now_ns: u64) -> Result<bool, XdpError> {
        self.maps.sends_cookies(index, now_ns)
    }

    /// A handle for a worker thread by which it tells the program of listeners that send cookies; `listeners` as given to
    /// [`Program::set_listeners`], in the same order.
    pub fn cookie_demands(&self, listeners: &[SocketAddr]) -> Result<CookieDemands, XdpError> {
        self.maps.cookie_demands(listeners)
    }

    /// Replaces the unicast addresses that wildcard listeners and active opens use.
    pub fn set_addresses(&mut self, addresses: &[IpAddr]) -> Result<(), XdpError> {
        self.maps.set_addresses(addresses)
    }

    /// Sets the local ports of active opens, owned on every address of [`Program::set_addresses`].
    pub fn set_ephemeral_ports(&mut self, ports: RangeInclusive<u16>) -> Result<(), XdpError> {
        self.maps.set_ephemeral_ports(ports)
    }

    /// Allows or denies segments without a connection by their source; the longest prefix decides, and what none
    /// covers is allowed. A prefix is one or the other.
    ///
    /// # Errors
    /// There are [`MAX_PREFIXES`](tcp_common::layout::MAX_PREFIXES) others, or the map can't be written.
    pub fn set_prefix(&mut self, prefix: Prefix, rule: Rule) -> Result<(), XdpError> {
        self.maps.set_prefix(prefix, rule)
    }

    /// Neither allows nor denies a prefix any more.
    ///
    /// # Errors
    /// The map can't be written.
    pub fn remove_prefix(&mut self, prefix: &Prefix) -> Result<(), XdpError> {
        self.maps.remove_prefix(prefix)
    }

    /// The prefixes that are allowed or denied, by address.
    #[must_use]
    pub fn prefixes(&self) -> &BTreeMap<Prefix, Rule> {
        self.maps.prefixes()
    }

    /// Limits the SYNs without a connection that each source may send, and counts all sources anew. With
    /// [`LoadOptions::limits_sources`] unset there is room for one source, the others are not limited.
    pub fn set_source_limit(&mut self, limit: Rate) -> Result<(), XdpError> {
        self.maps.set_source_limit(limit)
    }

    /// Tells the program that the daemon lives; `now_ns` is CLOCK_MONOTONIC. Call it once a second.
    pub fn heartbeat(&mut self, now_ns: u64) -> Result<(), XdpError> {
        self.maps.heartbeat(now_ns)
    }

    /// What the program has counted, summed over CPUs.
    pub fn counters(&self) -> Result<Counters, XdpError> {
        self.maps.counters()
    }

    /// A handle to CONNECTIONS for a worker thread.
    pub fn connections(&self) -> Result<ConnectionTable, XdpError> {
        self.maps.connections()
    }

    /// The lines that the program logs; `None` the second time.
    pub fn take_log(&mut self) -> Option<ProgramLog> {
        self.log.take()
    }

    /// The loaded program, to inspect it or to run it on frames of one's own.
    pub fn xdp(&mut self) -> Result<&mut Xdp, XdpError> {
        program(&mut self.ebpf)
    }

    /// First step of stopping: nothing is steered any more once it returns. The frames that the sockets
    /// already hold can still be read.
    pub fn detach(&mut self) -> Result<(), XdpError> {
        if self.attachment.detach() {
            return Ok(());
        }
        self.maps.disown_all()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let detached = self.detach();
        let removed = if self.keep_pins { Ok(()) } else { self.pins.remove_directory() };
        for error in [detached.err(), removed.err()].into_iter().flatten() {
            tracing::warn!("stopping on {}: {error}", self.options.interface_name);
        }
    }
}

/// `xtcp load`: loads, attaches and pins program, link and maps, without a daemon; everything passes.
pub fn load(options: &LoadOptions) -> Result<Attached, XdpError> {
    let mut program = Program::open(options)?;
    let attached = program.attach()?;
    program.attachment.pin(&program.pins.link())?;
    program.keep_pins = true;
    Ok(attached)
}

/// `xtcp unload`: detaches what [`load`] (or a daemon that died) left at `pin_path` and removes its pins.
/// Refused while a daemon uses them; `Ok(false)` when there was nothing.
pub fn unload(pin_path: &Path) -> Result<bool, XdpError> {
    match Pins::acquire_existing(pin_path)? {
        Some(pins) => pins.remove_directory().map(|()| true),
        None => Ok(false),
    }
}

fn check(options: &LoadOptions) -> Result<(), XdpError> {
    let limits = [
        ("RX queues", options.queues, MAX_QUEUES),
        ("connections (max_connections)", options.max_connections, MAX_CONNECTIONS),
    ];
    for (what, given, limit) in limits {
        if given == 0 || given > limit {
            return Err(XdpError::OutOfRange { what, given, limit });
        }
    }
    Ok(())
}

/// Has the kernel verify the program. It gives up when a signal for this thread comes meanwhile, and is asked again.
fn verify(program: &mut Xdp) -> Result<(), XdpError> {
    let mut loaded = program.load();
    for _ in 1..VERIFIER_ATTEMPTS {
        match &loaded {
            Err(ProgramError::LoadError { io_error, .. }) if io_error.kind() == ErrorKind::WouldBlock => {
                loaded = program.load();
            }
            _ => break,
        }
    }
    loaded.map_err(XdpError::verifier)
}

fn program(ebpf: &mut Ebpf) -> Result<&mut Xdp, XdpError> {
    let program = ebpf.program_mut(PROGRAM).ok_or(XdpError::Missing { name: PROGRAM })?;
    program.try_into().map_err(|_: ProgramError| XdpError::Missing { name: PROGRAM })
}

fn load_error(options: &LoadOptions, source: aya::EbpfError) -> XdpError {
    let interface = options.interface_name.clone();
    match error::errno(&source) {
        Some(libc::EPERM) => XdpError::NoPrivilege { doing: format!("load an XDP program for {interface}") },
        _ => XdpError::Load { interface, source: source.into() },
    }
}
