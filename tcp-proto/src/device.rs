//! One turn of a worker: receive a batch, run the stack, commit the connection table, transmit,
//! commit removals. The same function serves AF_XDP and the tests' virtual link.

use alloc::vec::Vec;

use tcp_common::layout::FLAG_COOKIE;
use tcp_common::{ConnectionKey, ConnectionValue};

use crate::api::{Event, NoEntry};
use crate::stack::{CookieDemand, Stack};
use crate::time::Instant;

/// Most frames a turn receives before it serves timers and applications.
pub const RECEIVE_BATCH: usize = 64;
/// Most frames a turn sends before it yields.
pub const TRANSMIT_BATCH: usize = 64;

/// What a worker drives: a packet interface and the connection table that the XDP program reads.
pub trait Device {
    /// Hands at most `limit` received frames (Ethernet, whole) to `sink`.
    fn receive(&mut self, limit: usize, sink: impl FnMut(&[u8]));

    /// Writes entries of the connection table: inserts `new` ones and calls `failed` with the key of each
    /// that could not be inserted; overwrites `changed` ones that still exist (BPF_EXIST: an
    /// entry that somebody deleted stays deleted).
    fn commit(
        &mut self,
        new: &[(ConnectionKey, ConnectionValue)],
        changed: &[(ConnectionKey, ConnectionValue)],
        failed: impl FnMut(ConnectionKey, NoEntry),
    );

    /// Offers free transmit frames to `build` until it returns `None` (nothing to send), `limit` frames
    /// are filled, or no frame is free; `build` returns the frame's length. Then makes the interface send.
    fn transmit(&mut self, limit: usize, build: impl FnMut(&mut [u8]) -> Option<usize>);

    /// A listener's SYN queue overflowed into SYN cookies: the XDP program, if it answers by itself, is to send them, too,
    /// for a while, and to let ACKs pass that bring one back. Called before the cookies leave, at most once a second for
    /// each listener. Without such a program there is nothing to do.
    fn demand_cookies(&mut self, _demand: CookieDemand) {}

    /// Deletes entries of the connection table; a missing one is no error.
    fn remove(&mut self, keys: &[ConnectionKey]);

    /// Whether the program may have prolonged a TIME_WAIT that has not ended: it moves an entry's `deadline_ns` when it
    /// acknowledges a repeated FIN. Asked every turn; if so, the entry of every TIME_WAIT that is due is looked up.
    fn prolongs_time_waits(&mut self) -> bool {
        false
    }

    /// Takes the connections of received frames for which the program found no entry; of ours, if there is one, somebody
    /// may have deleted the entry.
    fn take_strangers(&mut self) -> Vec<ConnectionKey> {
        Vec::new()
    }

    /// Whether the entry of `key`, which was written, is gone: then its connection is reset. A device whose table can't
    /// always be read says `false` when it can't.
    fn is_deleted(&mut self, key: &ConnectionKey) -> bool {
        self.lookup(key).is_none()
    }

    /// The entry of `key`; `None`: there is none, or the table can't be read.
    fn lookup(&mut self, _key: &ConnectionKey) -> Option<ConnectionValue> {
        None
    }
}

/// Turns once; returns when to turn again at the latest if no frame arrives and no application acts
/// (`now` or earlier: at once).
///
/// No SYN or SYN-ACK leaves before its connection's entry exists: entries are committed before anything
/// is transmitted, and a connection whose entry can't be written is dropped. Entries are removed last, so
/// that a peer's answer to our last segment is not taken for a stranger's; only those of connections in TIME_WAIT that
/// made room for others go first.
//= docs/rfc/rfc9293.md#MUST-58
//= docs/rfc/rfc9293.md#MUST-59
pub fn turn<D: Device>(
    stack: &mut Stack,
    device: &mut D,
    now: Instant,
    mut on_event: impl FnMut(&mut Stack, Event),
) -> Option<Instant> {
    device.receive(RECEIVE_BATCH, |frame| stack.handle_frame(now, frame));
    for key in device.take_strangers() {
        if stack.has_entry(&key) && device.is_deleted(&key) {
            stack.lose_entry(now, &key);
        }
    }
    stack.reset_strangers(now, |key| device.lookup(key).is_some_and(|entry| entry.flags & FLAG_COOKIE != 0));
    if device.prolongs_time_waits() {
        for key in stack.time_waits_due(now) {
            let deadline = device.lookup(&key).map_or(now, |entry| Instant::from_nanos(entry.deadline_ns));
            stack.prolong_time_wait(now, &key, deadline);
        }
    }
    stack.handle_timeout(now);
    while let Some(event) = stack.poll_event() {
        on_event(stack, event);
    }
    commit(stack, device, now);
    stack.take_cookie_demands().into_iter().for_each(|demand| device.demand_cookies(demand));
    device.transmit(TRANSMIT_BATCH, |frame| stack.poll_transmit(now, frame));
    let removals = stack.take_table_removals();
    if !removals.is_empty() {
        device.remove(&removals);
    }
    if stack.wants_transmit() || stack.has_events() { Some(now) } else { stack.poll_timeout() }
}

fn commit<D: Device>(stack: &mut Stack, device: &mut D, now: Instant) {
    let evictions = stack.take_table_evictions();
    if !evictions.is_empty() {
        device.remove(&evictions);
    }
    let (mut new, mut changed, mut failed) = (Vec::new(), Vec::new(), Vec::new());
    stack.take_table_writes(now, &mut new, &mut changed);
    if new.is_empty() && changed.is_empty() {
        return;
    }
    device.commit(&new, &changed, |key, why| failed.push((key, why)));
    for (key, why) in failed {
        stack.handle_commit_failed(now, key, why);
    }
}
