//! The xtcp daemon as a library: configuration, workers, services, control socket, XDP and AF_XDP.
#![deny(unsafe_code)]

pub mod afxdp;
pub mod config;
pub mod net;
pub mod xdp;

#[expect(
    unsafe_code,
    reason = "the one place for it: memory shared with the kernel, and system calls without a wrapper"
)]
mod sys;
