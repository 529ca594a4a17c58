//! The xtcp daemon as a library: configuration, workers, services, control socket, XDP and AF_XDP.
#![deny(unsafe_code)]

pub mod afxdp;
pub mod config;
pub mod control;
pub mod daemon;
pub mod net;
mod process;
pub mod services;
pub mod stats;
pub mod stream;
pub mod worker;
pub mod xdp;

#[expect(
    unsafe_code,
    reason = "the one place for it: memory shared with the kernel, and system calls without a wrapper"
)]
mod sys;
