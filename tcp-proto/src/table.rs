//! What the connection table (the XDP program's CONNECTIONS) is to be told: new entries at once, changed states a moment
//! later, once a second the figures of those that moved, and removals.
//!
//! Each changed entry costs the driver a system call (only new ones and removals go in batches), and a short connection
//! changes its state several times within a millisecond: what it passes through so fast is not worth writing.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use tcp_common::{ConnectionKey, ConnectionValue};

use crate::api::ConnectionId;
use crate::limits::{REFRESH_BATCH, REFRESH_INTERVAL, STATE_DELAY};
use crate::time::Instant;

/// What a connection's entry is in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct EntryStatus {
    /// Whether the table has an entry of it.
    pub(crate) written: bool,
    /// Whether a write is queued.
    write_queued: bool,
    /// Whether a refresh of its figures is queued.
    refresh_queued: bool,
}

/// Queues of table changes.
#[derive(Default)]
pub(crate) struct TableChanges {
    /// Connections that have no entry yet.
    new: VecDeque<ConnectionId>,
    /// Connections whose state changed, and when that is written; in order of that time.
    changed: VecDeque<(ConnectionId, Instant)>,
    /// Connections whose figures moved, and when they are written; in order of that time.
    refreshes: VecDeque<(ConnectionId, Instant)>,
    /// Last writes of connections that are records from now on.
    finals: Vec<(ConnectionKey, ConnectionValue)>,
    removals: Vec<ConnectionKey>,
    /// Those of connections that made room for others.
    evictions: Vec<ConnectionKey>,
}

impl TableChanges {
    /// The state changed: a new entry is written with the next commit, another within [`STATE_DELAY`].
    pub(crate) fn write(&mut self, id: ConnectionId, status: &mut EntryStatus, now: Instant) {
        match core::mem::replace(&mut status.write_queued, true) {
            true => {}
            false if status.written => self.changed.push_back((id, now + STATE_DELAY)),
            false => self.new.push_back(id),
        }
    }

    /// The entry's figures moved: it is written within [`REFRESH_INTERVAL`].
    pub(crate) fn refresh(&mut self, id: ConnectionId, status: &mut EntryStatus, now: Instant) {
        if !core::mem::replace(&mut status.refresh_queued, true) {
            self.refreshes.push_back((id, now + REFRESH_INTERVAL));
        }
    }

    /// The entry is to be removed at the end of the turn.
    pub(crate) fn remove(&mut self, key: ConnectionKey, status: EntryStatus) {
        if status.written {
            self.removals.push(key);
        }
    }

    /// An entry is to be removed at the end of the turn, if there is one.
    pub(crate) fn remove_entry(&mut self, key: ConnectionKey) {
        self.removals.push(key);
    }

    /// The connection's figures do not move any more: its entry is written once again.
    pub(crate) fn finish(&mut self, key: ConnectionKey, value: ConnectionValue) {
        self.finals.push((key, value));
    }

    /// Takes the last writes.
    pub(crate) fn take_finals(&mut self, changed: &mut Vec<(ConnectionKey, ConnectionValue)>) {
        changed.append(&mut self.finals);
    }

    /// The next connection whose entry is to be written now.
    pub(crate) fn next_write(&mut self, now: Instant) -> Option<ConnectionId> {
        self.new.pop_front().or_else(|| pop_due(&mut self.changed, now))
    }

    /// The next connection whose figures are due; at most [`REFRESH_BATCH`] are asked for in a turn.
    pub(crate) fn next_refresh(&mut self, now: Instant) -> Option<ConnectionId> {
        pop_due(&mut self.refreshes, now)
    }

    /// When states or figures are due next.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        [self.changed.front(), self.refreshes.front()].into_iter().flatten().map(|&(_, due)| due).min()
    }

    /// Entries queued to be removed since there were `before` of them make room for others: they are removed before new
    /// ones are written.
    pub(crate) fn hasten_removals(&mut self, before: usize) {
        self.evictions.extend(self.removals.drain(before..));
    }

    /// How many entries are queued to be removed at the end of the turn.
    pub(crate) fn removals(&self) -> usize {
        self.removals.len()
    }

    pub(crate) fn take_evictions(&mut self) -> Vec<ConnectionKey> {
        core::mem::take(&mut self.evictions)
    }

    pub(crate) fn take_removals(&mut self) -> Vec<ConnectionKey> {
        core::mem::take(&mut self.removals)
    }

    pub(crate) const BATCH: usize = REFRESH_BATCH;
}

impl EntryStatus {
    /// The entry is being written now; whether it is a new one.
    pub(crate) fn begin_write(&mut self) -> bool {
        self.write_queued = false;
        !core::mem::replace(&mut self.written, true)
    }

    /// Whether the table has the connection's state.
    pub(crate) fn is_settled(self) -> bool {
        self.written && !self.write_queued
    }

    /// Whether the table does not have the connection's figures.
    pub(crate) fn takes_refresh(self) -> bool {
        self.refresh_queued
    }

    /// The figures are being written now.
    pub(crate) fn begin_refresh(&mut self) {
        self.refresh_queued = false;
    }
}

/// Takes the first of `queue` if it is due.
fn pop_due(queue: &mut VecDeque<(ConnectionId, Instant)>, now: Instant) -> Option<ConnectionId> {
    queue.pop_front_if(|&mut (_, due)| due <= now).map(|(id, _)| id)
}
