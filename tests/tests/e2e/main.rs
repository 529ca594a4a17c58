//! End-to-end tests: the `xtcp` binary in a lab, the kernel's TCP and real programs as its peers.
//!
//! They need root and the built binary: `cargo xtask test`. One module per subject; they run in parallel.

mod harness;
