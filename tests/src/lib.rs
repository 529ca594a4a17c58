//! Harness of xtcp's end-to-end tests: a lab of two network namespaces, xtcp in one, kernel TCP in the other.
//!
//! A test makes a [`Lab`], starts a daemon in it, talks to it from the client's namespace with real programs and
//! kernel sockets, and looks at what `xtcp conns`, `bpftool` and the wire say. When the lab is dropped, the
//! [`checker`] judges every segment that xtcp sent. Labs share nothing, so tests run in parallel.
//! The wire is as good as a veth pair is, unless it is told to be bad ([`impairment`]). Leaves out: bandwidth, delay.
#![forbid(unsafe_code)]

pub mod capture;
pub mod checker;
pub mod daemon;
pub mod impairment;
pub mod maps;
pub mod net;
pub mod nstat;
pub mod peer;
pub mod raw;
pub mod segment;
pub mod wait;

use std::net::{SocketAddr, TcpStream};
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::{MutexGuard, OnceLock};

use capture::Capture;
use checker::Checker;
use daemon::DaemonBuilder;
use net::{Namespace, Wire, WireOptions};
use segment::Segment;

/// Segments that a lab for load keeps, at least.
const KEPT_UNDER_LOAD: usize = 10_000;

/// A wire, and a capture of all that xtcp sends over it.
///
/// # Panics
/// On drop, when the checker found a segment of xtcp's that breaks a rule.
#[derive(Debug)]
pub struct Lab {
    capture: Capture,
    /// What makes answers of the server's program arrive.
    peer_program: OnceLock<PeerProgram>,
    wire: Wire,
}

/// An XDP program on the client's end.
#[derive(Debug)]
struct PeerProgram {
    pins: PathBuf,
}

impl PeerProgram {
    fn load(client: &Namespace) -> PeerProgram {
        let interface = client.interface();
        let loaded = PeerProgram { pins: daemon::pin_path(interface) };
        let load = daemon::output(client.command(daemon::xtcp_binary()).args(["load", "--interface", interface]));
        assert!(load.status.success(), "xtcp load: {}", String::from_utf8_lossy(&load.stderr));
        loaded
    }
}

impl Drop for PeerProgram {
    fn drop(&mut self) {
        daemon::remove_pins(&self.pins);
    }
}

impl Default for Lab {
    fn default() -> Self {
        Lab::new()
    }
}

impl Lab {
    /// A lab with one queue at each end and an MTU of 1500 bytes.
    ///
    /// # Panics
    /// When it can't be made: not root, or a program is missing; the message says which.
    #[must_use]
    pub fn new() -> Lab {
        Lab::with(&WireOptions::default())
    }

    /// A lab whose wire is made to order.
    ///
    /// # Panics
    /// As [`Lab::new`].
    #[must_use]
    pub fn with(options: &WireOptions) -> Lab {
        let make = || {
            let wire = Wire::new(options)?;
            let capture = Capture::start(&wire.client, Checker::new(wire.server.mac()?))?;
            Ok::<_, anyhow::Error>(Lab { capture, peer_program: OnceLock::new(), wire })
        };
        make().unwrap_or_else(|error| panic!("can't make a lab: {error:#}"))
    }

    /// A lab for so much traffic that captured segments are judged but only the last thousands of them kept.
    ///
    /// # Panics
    /// As [`Lab::new`].
    #[must_use]
    pub fn for_load(options: &WireOptions) -> Lab {
        let lab = Lab::with(options);
        lab.checker().keep(KEPT_UNDER_LOAD);
        lab
    }

    /// A daemon to configure and start in the server's namespace.
    #[must_use]
    pub fn daemon(&self) -> DaemonBuilder<'_> {
        DaemonBuilder::new(self)
    }

    /// A daemon whose program answers by itself (`xdp_tx = "on"`): a veth pair loses what XDP_TX sends unless the other
    /// end has an XDP program, too. The client's gets xtcp's own, which without a daemon passes everything.
    ///
    /// # Panics
    /// When it can't be loaded.
    pub fn daemon_with_answers(&self) -> DaemonBuilder<'_> {
        self.peer_program.get_or_init(|| PeerProgram::load(&self.client));
        self.daemon().line("xdp_tx = \"on\"")
    }

    /// Opens a connection from the client's namespace by the kernel's TCP.
    ///
    /// # Panics
    /// When it can't be opened.
    #[must_use]
    pub fn connect(&self, to: impl Into<SocketAddr>) -> TcpStream {
        peer::connect(&self.client, to.into())
    }

    /// The checker with everything captured so far.
    pub fn checker(&self) -> MutexGuard<'_, Checker> {
        self.capture.checker()
    }

    /// The segments captured so far that `wanted` picks, in order.
    #[must_use]
    pub fn segments(&self, wanted: impl Fn(&Segment) -> bool) -> Vec<Segment> {
        self.checker().segments().iter().filter(|segment| wanted(segment)).cloned().collect()
    }
}

impl Deref for Lab {
    type Target = Wire;

    fn deref(&self) -> &Wire {
        &self.wire
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.capture.stop();
        if std::thread::panicking() {
            daemon::remove_pins(&daemon::pin_path(self.server.interface()));
        }
        let Some(report) = self.checker().report() else { return };
        if std::thread::panicking() {
            eprintln!("{report}");
        } else {
            panic!("{report}");
        }
    }
}
