//! What can go wrong between the daemon and its XDP program: what, where, and what to do.

/// Why the XDP program could not be loaded, attached or talked to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum XdpError {}
