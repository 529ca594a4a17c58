//! Everything in user space that needs `unsafe`: the AF_XDP binding, memory shared with the kernel,
//! and the few system calls no library wraps. What leaves this module is safe to use in any order;
//! each block says why it is sound.

pub(crate) mod bpf;
pub(crate) mod ethtool;
pub(crate) mod memory;
pub(crate) mod readiness;
pub(crate) mod ring;
pub(crate) mod rings;
pub(crate) mod xsk;
