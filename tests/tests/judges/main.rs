//! Outside judges of xtcp's TCP: the kernel's TCP over a bad wire, what `ss` and `nstat` tell of its connections to
//! us, and nmap's scans. What they see of xtcp is compared with what xtcp says itself, and with what they see of the
//! kernel.

mod impaired;
mod nmap;
mod ss;

use std::net::IpAddr;

use tests::net::{SERVER_V4, SERVER_V6};

/// Port of RFC 862.
const ECHO: u16 = 7;
/// Port of a proxy.
const PROXY: u16 = 8080;
/// Port of a kernel listener, owned by nobody.
const KERNEL: u16 = 2222;

/// Both of the server's addresses: what holds for one family must hold for the other.
const SERVERS: [IpAddr; 2] = [SERVER_V4, SERVER_V6];
