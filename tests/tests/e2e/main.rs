//! End-to-end tests: the `xtcp` binary in a lab, the kernel's TCP and real programs as its peers.
//!
//! They need root and the built binary: `cargo xtask test`. One module per subject; they run in parallel.

mod answers;
mod close;
mod coexistence;
mod connect;
mod control;
mod cookies;
mod harness;
mod http;
mod interface;
mod lifecycle;
mod limits;
mod maps;
mod program;
mod queues;
mod refusal;
mod sequences;
mod services;
mod sources;
mod timers;
mod transfer;

use std::net::{IpAddr, SocketAddr};

use tests::net::{SERVER_V4, SERVER_V6};

/// Port of RFC 862.
const ECHO: u16 = 7;
/// Port of RFC 863.
const DISCARD: u16 = 9;
/// Port of RFC 867.
const DAYTIME: u16 = 13;
/// Port of RFC 864.
const CHARGEN: u16 = 19;
/// Port of a proxy.
const PROXY: u16 = 8080;
/// Port of a kernel listener, owned by nobody.
const KERNEL: u16 = 2222;

/// Both of the server's addresses: what holds for one family must hold for the other.
const SERVERS: [IpAddr; 2] = [SERVER_V4, SERVER_V6];

/// The server's IPv4 address with a port.
fn server(port: u16) -> SocketAddr {
    SocketAddr::new(SERVER_V4, port)
}

/// Where backends of a proxy listen: the server's own loopback address.
fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}
