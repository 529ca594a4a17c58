//! The XDP program and its loader in the kernel: [`decision`] runs the loaded program on the frames of a table,
//! [`answers`] on those of another that it answers, [`loader`] attaches, pins, adopts and removes it, [`connections`] writes its table in batches.

mod answers;
mod bench;
mod connections;
mod decision;
mod loader;
