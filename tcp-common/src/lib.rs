//! What the XDP program and the daemon must agree on.
//!
//! Map keys and values, connection states, the classification of a segment and the whole XDP
//! decision live here, so that one source is compiled for BPF and for the host, where it is tested.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(any(test, feature = "cases"))]
extern crate alloc;

pub mod answer;
#[cfg(any(test, feature = "cases"))]
pub mod cases;
pub mod cookie;
pub mod counters;
pub mod decide;
pub mod gauge;
pub mod headers;
pub mod layout;
pub mod packet;
pub mod prefix;
pub mod rate;
pub mod reply;
pub mod siphash;
pub mod source;
pub mod state;

pub use counters::Counters;
pub use decide::{Answer, Decision, Steer, Verdict};
pub use layout::{ConnectionKey, ConnectionValue};
pub use state::{Cause, State};
