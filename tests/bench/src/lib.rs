//! xtcp's benchmarks against the kernel's TCP, and the generator of raw frames that feeds them.
//!
//! A bench runs both in labs of the same make in one run: two namespaces and a veth pair, the server's side on one core,
//! client and generator on the other. `cargo xtask bench` and `cargo xtask flood` run the binary of this package.
//! Leaves out tests of correctness: those are in `tests`.
#![forbid(unsafe_code)]

pub mod acceptor;
pub mod benches;
pub mod client;
pub mod cpu;
pub mod flood;
pub mod frame;
pub mod generator;
pub mod harness;
pub mod lab;
pub mod memory;
pub mod programs;
pub mod report;
pub mod supervisor;
