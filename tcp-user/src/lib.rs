//! The xtcp daemon as a library: configuration, workers, services, control socket, XDP and AF_XDP.

pub mod config;
pub mod xdp;
