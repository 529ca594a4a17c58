//! The xtcp library.

pub mod xdp;
