//! The simulator: production stacks, behind the production XDP decision over maps in memory, on a seeded path that loses,
//! delays, reorders, duplicates and damages, on a virtual clock. One seed decides everything: [`Plan::random`] draws a
//! [`Plan`], [`World`] runs it, and equal seeds give equal runs, bit for bit.
//!
//! What is judged: every segment alone ([`tests::checker`]), what each end may know and send ([`Observer`], which never
//! asks a stack), what the stacks say of themselves after every turn ([`Judge`]), every byte that applications hear, and
//! that nothing is left at the end. Leaves out: the daemon around the stack (its rings, services and control socket).
#![forbid(unsafe_code)]

pub mod app;
pub mod campaign;
pub mod chance;
pub mod count;
pub mod coverage;
pub mod faults;
pub mod frame;
pub mod goodput;
pub mod host;
pub mod judge;
pub mod link;
pub mod maps;
pub mod observer;
pub mod plan;
pub mod ranges;
pub mod stream;
pub mod trace;
pub mod world;

pub use judge::Judge;
pub use observer::Observer;
pub use plan::Plan;
pub use world::{Outcome, World};
