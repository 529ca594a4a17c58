//! The stack: demultiplexing, listeners, and the order in which things happen. A frame or a call goes to its
//! connection; then [`Stack::settle`] does whatever follows from what it did there.

mod cookies;
mod handle;
mod time_wait;

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::SocketAddr;

use hashbrown::HashTable;
use tcp_common::cookie::CookieKeys;
use tcp_common::siphash::{SipKey, siphash};
use tcp_common::{Cause, ConnectionKey, ConnectionValue, State};

use crate::api::{
    CloseReason, ConnectError, ConnectOptions, ConnectionId, ConnectionInfo, Event, LinkAddress, ListenError,
    ListenOptions, ListenerId, ListenerInfo, NoEntry,
};
use crate::config::{StackConfig, TcpConfig};
use crate::connection::{Connection, Holder, Origin, Queue};
use crate::drops::DropReason;
use crate::figures::Figure;
use crate::isn;
use crate::limits::TABLE_FULL_EVICTIONS;
use crate::line::Line;
use crate::listener::Listeners;
use crate::records::Records;
use crate::seq::SeqNum;
use crate::shared::{Context, Shared};
use crate::slab::Slab;
use crate::table::{EntryStatus, TableChanges};
use crate::time::Instant;
use crate::wheel::Wheel;
use crate::wire::{self, Flags, IcmpError, Options, Outgoing, Segment};

pub use cookies::CookieDemand;
pub use handle::ConnectionMut;

/// How far above its predecessor's numbers a connection that succeeds one in TIME_WAIT starts, at least.
const SUCCESSOR_GAP: u32 = 128_000;

/// Of what [`Stack::by_key`] holds: the rest is the index of a record.
const RECORD: u32 = 1 << 31;

/// A connection and what the stack keeps about it.
struct Entry {
    connection: Connection,
    /// The state that the counters know of.
    counted: State,
    table: EntryStatus,
    /// Whether it is in the ready queue.
    ready: bool,
    /// The line in which it stands.
    queue: Option<Queue>,
}

const _: () = assert!(size_of::<Entry>() <= 376, "an idle connection fits in 376 bytes");

/// The TCP of one worker.
///
/// Methods are of four kinds. `handle_*`: the outside tells something. `poll_*` and `take_*`: the outside
/// fetches what followed; drain all of them after every input, in the order of [`crate::turn`], which does just
/// that. Commands (`listen`, `connect`, `accept`, those of [`ConnectionMut`]): the application acts. Getters
/// change nothing.
///
/// It leaves out what is not TCP's: fragments, routing, neighbour resolution. Who connects says where its frames
/// go; answers go to where the peer's last segment came from that knew both sides' numbers.
pub struct Stack {
    shared: Shared,
    entries: Slab<Entry>,
    /// Connections in TIME_WAIT that nobody holds.
    records: Records,
    /// Those that are to become records, and when; in order of that time.
    settling: VecDeque<(ConnectionId, Instant)>,
    /// Indices of entries and (with [`RECORD`]) of records by 4-tuple. An entry that ended but is still being read is not
    /// in it.
    by_key: HashTable<u32>,
    hash_key: SipKey,
    listeners: Listeners,
    wheel: Wheel,
    /// Connections that have something to send, each once.
    ready: VecDeque<ConnectionId>,
    /// By [`Queue`].
    lines: [Line; Queue::COUNT],
    changes: TableChanges,
    cookie_keys: CookieKeys,
    /// What the XDP program is to be told.
    cookie_demands: Vec<CookieDemand>,
    /// Resets of strangers that may be none: the XDP program may have made an entry for their cookie.
    doubtful_resets: Vec<Outgoing>,
    counts: [usize; State::ALL.len()],
}

impl Stack {
    /// A stack without listeners. `seed` keys ISNs, hashing and port choice: 32 secret random bytes, the same for all
    /// stacks of an interface, so that the ISNs of a tuple grow whichever queue its SYNs come by (RFC 6528).
    #[must_use]
    pub fn new(config: StackConfig, seed: [u8; 32], now: Instant) -> Self {
        let word = |at: usize| u64::from_le_bytes(seed[at..at + 8].try_into().unwrap_or_default());
        let derive = |purpose: u64| -> SipKey {
            core::array::from_fn(|half| {
                siphash::<2, 4>([word(0), word(8)], &[word(16), word(24), purpose, half as u64])
            })
        };
        let queue = config.queue;
        let expected = config.max_connections.min(2 * config.share(config.max_connections));
        Stack {
            // It never grows where this is all there will be: moving a million entries would hold up the worker. Nor is
            // it so full that what leaves it would have to be cleared away often. What is not used is not touched.
            // Queues that share a table get about as many connections each.
            by_key: HashTable::with_capacity(expected + expected / 4),
            // Chance is each stack's own: what one chose must tell nothing of the others' choice.
            shared: Shared::new(config, derive(1), derive(2 + (u64::from(queue) << 32))),
            entries: Slab::new(),
            records: Records::default(),
            settling: VecDeque::new(),
            hash_key: derive(3),
            listeners: Listeners::default(),
            wheel: Wheel::new(now),
            ready: VecDeque::new(),
            lines: Default::default(),
            changes: TableChanges::default(),
            cookie_keys: CookieKeys::default(),
            cookie_demands: Vec::new(),
            doubtful_resets: Vec::new(),
            counts: [0; State::ALL.len()],
        }
    }

    // What the outside tells.

    /// A frame arrived (Ethernet, whole).
    pub fn handle_frame(&mut self, now: Instant, frame: &[u8]) {
        match wire::receive(frame, self.shared.config.accept_partial_checksum) {
            Ok(wire::Received::Segment { key, link, segment }) => self.segment_arrives(now, key, link, &segment),
            Ok(wire::Received::Icmp(error)) => self.icmp_arrives(now, &error),
            Err(reason) => self.shared.drops.count(reason),
        }
    }

    /// Time has passed: serves every timer due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        // A clock read before the last turn's must not find entries that are due and timers that are not.
        let now = now.max(self.wheel.now());
        while let Some(index) = self.wheel.take_due(now) {
            self.act(now, index, |connection, cx| connection.timers_expire(cx));
        }
        self.serve_time_waits(now);
    }

    /// The connection table did not take a new entry: its connection ends in silence.
    pub fn handle_commit_failed(&mut self, now: Instant, key: ConnectionKey, why: NoEntry) {
        match why {
            NoEntry::Full => {
                self.shared.drops.count(DropReason::TableFull);
                // All stacks share the table: whoever comes next, here or there, finds room.
                (0..TABLE_FULL_EVICTIONS).take_while(|_| self.evict_time_wait(now)).for_each(drop);
            }
            NoEntry::Taken => self.shared.drops.count(DropReason::OtherStacks),
        }
        if let Some(index) = self.find(&key) {
            if let Some(entry) = self.entries.get_mut(index) {
                entry.table.written = false;
            }
            self.act(now, index, |connection, cx| connection.has_no_entry(cx, why));
        }
    }

    /// Whether a connection has this 4-tuple and its entry was written to the connection table.
    #[must_use]
    pub fn has_entry(&self, key: &ConnectionKey) -> bool {
        match self.find_slot(key) {
            Some(slot) if slot & RECORD != 0 => true,
            Some(index) => self.entries.get(index).is_some_and(|entry| entry.table.written),
            None => false,
        }
    }

    /// Somebody deleted the entry of a connection: there is none any more, and its peer is reset.
    pub fn lose_entry(&mut self, now: Instant, key: &ConnectionKey) {
        let Some(slot) = self.find_slot(key) else { return };
        self.shared.figures.count(Figure::EntryLost);
        if slot & RECORD != 0 { self.end_record(now, slot & !RECORD) } else { self.abort(now, slot) }
    }

    // What the outside fetches.

    /// The next thing the application should know.
    #[must_use]
    pub fn poll_event(&mut self) -> Option<Event> {
        if let Some(event) = self.shared.events.pop_front() {
            return Some(event);
        }
        if !self.shared.pool.has_room() {
            return None;
        }
        let id = self.take_from_line(Queue::Starving)?;
        self.entry_mut(id)?.connection.starves_no_more();
        self.note_line(id);
        Some(Event::Writable(id))
    }

    /// Appends the entries of the connection table that are to be written now: new ones and changed ones.
    pub fn take_table_writes(
        &mut self,
        now: Instant,
        new: &mut Vec<(ConnectionKey, ConnectionValue)>,
        changed: &mut Vec<(ConnectionKey, ConnectionValue)>,
    ) {
        let queue = self.shared.config.queue;
        self.changes.take_finals(changed);
        for _ in 0..TableChanges::BATCH {
            let Some(id) = self.changes.next_refresh(now) else { break };
            if let Some(entry) = self.entry_mut(id) {
                entry.table.begin_refresh();
                if entry.table.written && entry.connection.state != State::CLOSED {
                    changed.push((entry.connection.key, entry.connection.table_entry(now, queue)));
                }
            }
        }
        while let Some(id) = self.changes.next_write(now) {
            if let Some(entry) = self.entry_mut(id).filter(|entry| entry.connection.state != State::CLOSED) {
                let list = if entry.table.begin_write() { &mut *new } else { &mut *changed };
                list.push((entry.connection.key, entry.connection.table_entry(now, queue)));
            }
        }
    }

    /// Takes the keys of those that made room for others in the connection table: their entries are to be removed before
    /// new ones are written, which find no room otherwise.
    #[must_use]
    pub fn take_table_evictions(&mut self) -> Vec<ConnectionKey> {
        let keys = self.changes.take_evictions();
        self.without_successor(keys)
    }

    /// Takes the keys whose entries are to be removed from the connection table. Call it after transmitting.
    #[must_use]
    pub fn take_table_removals(&mut self) -> Vec<ConnectionKey> {
        let mut keys = self.changes.take_evictions();
        keys.append(&mut self.changes.take_removals());
        self.without_successor(keys)
    }

    /// A successor with the same 4-tuple has its own entry, or will write it over the old one.
    fn without_successor(&self, mut keys: Vec<ConnectionKey>) -> Vec<ConnectionKey> {
        keys.retain(|key| self.find_slot(key).is_none());
        keys
    }

    /// Builds the next frame to send in `frame` (at least MTU + 18 bytes); its length.
    #[must_use]
    pub fn poll_transmit(&mut self, now: Instant, frame: &mut [u8]) -> Option<usize> {
        if let Some(reply) = self.shared.replies.pop_front() {
            return Some(wire::emit(&reply, self.shared.config.mac, frame, 0, |_| {}));
        }
        while let Some(id) = self.ready.pop_front() {
            let Some(index) = self.entries.resolve(id) else { continue };
            if let Some(entry) = self.entries.get_mut(index) {
                entry.ready = false;
            }
            // One segment, and if there are more to the end of the queue: everyone gets a turn.
            if let Some(length) = self.act(now, index, |connection, cx| connection.transmit(cx, frame)).flatten() {
                return Some(length);
            }
        }
        None
    }

    /// Whether [`Stack::poll_transmit`] may have something to send.
    #[must_use]
    pub fn wants_transmit(&self) -> bool {
        !self.shared.replies.is_empty() || !self.ready.is_empty()
    }

    /// Whether [`Stack::poll_event`] may have something to tell.
    #[must_use]
    pub fn has_events(&self) -> bool {
        !self.shared.events.is_empty() || (self.line(Queue::Starving).len() > 0 && self.shared.pool.has_room())
    }

    /// When [`Stack::handle_timeout`] (or the next table write) is due at the latest.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        [self.wheel.next(), self.changes.next_due(), self.next_time_wait()].into_iter().flatten().min()
    }

    // What the application asks for.

    /// Starts to listen (passive open). A wildcard address takes every local address of its family; an exact
    /// address goes before it.
    ///
    /// # Errors
    /// [`ListenError::AddressInUse`].
    //= docs/rfc/rfc9293.md#MUST-41
    //= docs/rfc/rfc9293.md#MUST-42
    pub fn listen(&mut self, local: SocketAddr, options: ListenOptions) -> Result<ListenerId, ListenError> {
        let id = self.listeners.add(local, options.tcp, &self.shared.config)?;
        self.counts[State::LISTEN as usize] += 1;
        Ok(id)
    }

    /// Stops listening; half-open and unaccepted connections are reset, accepted ones live on.
    pub fn close_listener(&mut self, now: Instant, listener: ListenerId) {
        if self.listeners.remove(listener).is_none() {
            return;
        }
        self.counts[State::LISTEN as usize] -= 1;
        self.abort_if(now, |c| c.origin == Origin::Passive(listener) && c.holder == Holder::Listener);
    }

    /// Takes the oldest established connection off a listener's accept queue.
    pub fn accept(&mut self, listener: ListenerId) -> Option<ConnectionId> {
        let (entries, listener) = (&mut self.entries, self.listeners.get_mut(listener)?);
        let id = listener.accept_queue.take(|id| waits_to_be_accepted(entries, id))?;
        listener.accept_queue.leave();
        entries.get_mut(id.index)?.connection.holder = Holder::Application;
        Some(id)
    }

    /// Starts an active open; [`Event::Connected`] or [`Event::Closed`] follows.
    ///
    /// # Errors
    /// See [`ConnectError`]; nothing is sent then (MUST-46).
    //= docs/rfc/rfc9293.md#MUST-46
    pub fn connect(
        &mut self,
        now: Instant,
        remote: SocketAddr,
        options: ConnectOptions,
    ) -> Result<ConnectionId, ConnectError> {
        if remote.port() == 0 || !wire::is_unicast(remote.ip()) || remote.ip() == options.local.ip() {
            return Err(ConnectError::InvalidRemote);
        }
        if remote.is_ipv4() != options.local.is_ipv4() {
            return Err(ConnectError::FamilyMismatch);
        }
        if !self.make_room(now) {
            return Err(ConnectError::TooManyConnections);
        }
        let key = self.choose_port(options.local, remote)?;
        let iss = self.initial_number(now, &key, None);
        let index = self.insert(now, key, Origin::Active, options.link, options.tcp, iss).index;
        self.act(now, index, |connection, cx| {
            connection.open_actively(cx);
            cx.id
        })
        .ok_or(ConnectError::TooManyConnections)
    }

    /// Access to a connection that the application holds. Close every one, also after [`Event::Closed`]: one that
    /// ended with [`CloseReason::Finished`] keeps its memory until then, because there may be bytes to read. `None`
    /// after that, and once it ended for any other reason.
    pub fn connection(&mut self, now: Instant, id: ConnectionId) -> Option<ConnectionMut<'_>> {
        let index = self.entries.resolve(id)?;
        self.entries.get(index)?.connection.is_held().then_some(())?;
        Some(ConnectionMut { stack: self, now, index })
    }

    /// Aborts every connection (RST), also those in the background.
    pub fn abort_all(&mut self, now: Instant) {
        self.abort_if(now, |connection| connection.state != State::CLOSED);
        self.end_all_records(now);
    }

    // Getters.

    /// Number of connections in `state` (LISTEN: listeners).
    #[must_use]
    pub fn count(&self, state: State) -> usize {
        self.counts[state as usize]
    }

    /// Appends rows of connections from `cursor` on, looking at no more than `limit`; where to go on, or `None`
    /// at the end. Start at 0. Listeners are not rows.
    #[must_use]
    pub fn snapshot(&self, now: Instant, cursor: usize, limit: usize, rows: &mut Vec<ConnectionInfo>) -> Option<usize> {
        let connections_end = self.entries.end() as usize;
        let first_record = match cursor.checked_sub(RECORD as usize) {
            Some(record) => record,
            None => {
                let end = (cursor + limit).min(connections_end);
                let connections = (cursor..end).filter_map(|index| self.entries.get(index as u32));
                let alive = connections.map(|e| &e.connection).filter(|connection| connection.state != State::CLOSED);
                rows.extend(alive.map(|connection| connection.info(now, self.shared.config.mtu)));
                if end < connections_end {
                    return Some(end);
                }
                0
            }
        };
        let looked_at = connections_end.saturating_sub(cursor);
        let records_end = self.records.end() as usize;
        let end = (first_record + limit.saturating_sub(looked_at)).min(records_end);
        let records = (first_record..end).filter_map(|index| self.records.get(index as u32));
        rows.extend(records.map(|record| self.record_info(now, record)));
        (end < records_end).then_some(RECORD as usize + end)
    }

    /// Whether a connection in any state has this 4-tuple.
    #[must_use]
    pub fn has_connection(&self, key: &ConnectionKey) -> bool {
        self.find_slot(key).is_some()
    }

    /// Figures of a listener.
    #[must_use]
    pub fn listener(&self, id: ListenerId) -> Option<ListenerInfo> {
        self.listeners.get(id).map(crate::listener::Listener::info)
    }

    /// Why segments, answers and connections were dropped: every reason and how often.
    #[must_use]
    pub fn drops(&self) -> Vec<(&'static str, u64)> {
        self.shared.drops.iter().collect()
    }

    /// How often an application could not queue all that it wanted to send, because the `send_buffer` was full or
    /// because there was no `memory`.
    #[must_use]
    pub fn waits(&self) -> [(&'static str, u64); 2] {
        self.shared.waits.named()
    }

    /// What connections did and what happened to them: every figure and how often.
    #[must_use]
    pub fn figures(&self) -> Vec<(&'static str, u64)> {
        self.shared.figures.iter().collect()
    }

    /// What changed the states of connections: each state, the cause that moved a connection out of it, and how often.
    #[must_use]
    pub fn transitions(&self) -> Vec<(State, Cause, u64)> {
        self.shared.figures.transitions()
    }

    /// Bytes in send and receive buffers of all connections, with their bookkeeping.
    #[must_use]
    pub fn buffer_memory(&self) -> usize {
        self.shared.pool.in_use()
    }

    /// Bytes of buffers that went back to the allocator so far.
    #[must_use]
    pub fn buffers_freed(&self) -> u64 {
        self.shared.pool.freed()
    }

    // Segments, on their way to a connection.

    fn segment_arrives(&mut self, now: Instant, key: ConnectionKey, link: LinkAddress, segment: &Segment<'_>) {
        match self.find_slot(&key) {
            Some(slot) if slot & RECORD != 0 => self.arrives_at_record(now, slot & !RECORD, link, segment),
            Some(index) if self.is_succeeded(index, segment) => self.succeed(now, index, link, segment),
            Some(index) if self.accept_queue_is_full(index, segment) => {}
            Some(index) if self.is_replaced_by_cookie(now, index, link, segment) => {}
            Some(index) => {
                self.act(now, index, |connection, cx| connection.segment_arrives(cx, link, segment));
                self.refresh(now, index);
            }
            None => self.arrives_without_connection(now, key, link, segment),
        }
    }

    /// Whether a SYN ends a connection in TIME_WAIT because it starts the next one (RFC 6191).
    fn is_succeeded(&self, index: u32, segment: &Segment<'_>) -> bool {
        let Some(entry) = self.entries.get(index) else { return false };
        entry.connection.state == State::TIME_WAIT
            && self.is_welcome(&entry.connection.key, segment)
            && entry.connection.may_be_succeeded_by(segment)
    }

    /// Whether a segment opens a connection with a listener.
    fn is_welcome(&self, key: &ConnectionKey, segment: &Segment<'_>) -> bool {
        let opens = segment.flags.has(Flags::SYN) && !segment.flags.has(Flags::ACK) && !segment.flags.has(Flags::RST);
        opens && self.listeners.find(key.local()).is_some()
    }

    fn succeed(&mut self, now: Instant, index: u32, link: LinkAddress, syn: &Segment<'_>) {
        let Some(entry) = self.entries.get(index) else { return };
        let (key, last) = (entry.connection.key, entry.connection.last_number());
        if let Some(listener) = self.listeners.find(key.local()) {
            self.shared.figures.count(Figure::TimeWaitReused);
            self.act(now, index, |connection, cx| connection.is_succeeded(cx));
            self.syn_arrives(now, key, link, syn, listener, Some(last));
        }
    }

    /// The last ACK of a handshake is dropped when the accept queue is full: the SYN-ACK will be repeated, and
    /// the ACK with it.
    fn accept_queue_is_full(&mut self, index: u32, segment: &Segment<'_>) -> bool {
        let entry = self.entries.get(index);
        let listener = entry.and_then(|entry| entry.connection.would_be_accepted_by(segment));
        let Some(listener) = listener.and_then(|id| self.listeners.get_mut(id)) else { return false };
        let full = listener.accept_queue_is_full();
        if full {
            listener.accept_overflows += 1;
            self.shared.drops.count(DropReason::AcceptQueueFull);
        }
        full
    }

    /// RFC 9293 sections 3.10.7.1 (CLOSED) and 3.10.7.2 (LISTEN).
    //= docs/rfc/rfc9293.md#3.10.7.1-data
    //= docs/rfc/rfc9293.md#3.10.7.1-RST
    //= docs/rfc/rfc9293.md#3.10.7.2-1-RST
    //= docs/rfc/rfc9293.md#3.10.7.2-2-ACK
    //= docs/rfc/rfc9293.md#3.10.7.2-4-other
    //= docs/rfc/rfc9293.md#3.10.7.4-8-SYN-SENT
    fn arrives_without_connection(
        &mut self,
        now: Instant,
        key: ConnectionKey,
        link: LinkAddress,
        segment: &Segment<'_>,
    ) {
        let listener = self.listeners.find(key.local());
        let config = listener.and_then(|id| self.listeners.get(id)).map(|listener| listener.config.clone());
        let silent = config.as_ref().is_some_and(|config| !config.reset_unknown);
        match (listener, segment.flags) {
            (_, flags) if flags.has(Flags::RST) => self.shared.drops.count(DropReason::NoConnection),
            (Some(listener), flags) if flags.has(Flags::SYN) && !flags.has(Flags::ACK) => {
                if !self.is_answered_by_cookie(now, key, link, segment, listener) {
                    self.syn_arrives(now, key, link, segment, listener, None);
                }
            }
            (Some(_), flags) if !flags.has(Flags::ACK) => self.shared.drops.count(DropReason::Meaningless),
            (Some(listener), _) if self.is_dealt_with_as_cookie(now, key, link, segment, listener) => {}
            _ if silent => self.shared.drops.count(DropReason::NoConnection),
            _ => self.reset_stranger(now, key, link, segment, config.as_deref()),
        }
    }

    /// The RST of RFC 9293 section 3.10.7.1: it makes itself acceptable to whoever sent the segment.
    //= docs/rfc/rfc9293.md#3.10.7.1-ACK
    //= docs/rfc/rfc9293.md#3.10.7.1-no-ACK
    fn reset_stranger(
        &mut self,
        now: Instant,
        key: ConnectionKey,
        link: LinkAddress,
        segment: &Segment<'_>,
        config: Option<&TcpConfig>,
    ) {
        let (seq, ack, flags) = match segment.flags.has(Flags::ACK) {
            true => (segment.ack, SeqNum(0), Flags::RST),
            false => (SeqNum(0), segment.end(), Flags::RST.with(Flags::ACK)),
        };
        let (ttl, dscp) = config.map_or((64, 0), |config| (config.ttl, config.dscp));
        let options = Options::default();
        let reset = Outgoing { key, link, ttl, dscp, ect: false, seq, ack, flags, window: 0, options };
        let doubtful = config.is_some_and(|config| self.may_be_behind_cookie(config, segment));
        if doubtful { self.doubt(reset) } else { self.shared.reply(now, reset) }
    }

    /// A SYN to a listener makes a half-open connection, as long as there is room. `above`: numbers of a
    /// predecessor that ours must exceed; in its place there is room in any case, and a cookie would not exceed them.
    fn syn_arrives(
        &mut self,
        now: Instant,
        key: ConnectionKey,
        link: LinkAddress,
        syn: &Segment<'_>,
        listener: ListenerId,
        above: Option<SeqNum>,
    ) {
        let Some(queue) = self.listeners.get_mut(listener) else { return };
        if above.is_none() && queue.syn_queue_is_full() {
            queue.syn_overflows += 1;
            return self.shared.drops.count(DropReason::SynQueueFull);
        }
        let config = queue.config.clone();
        if !self.make_room(now) {
            return;
        }
        let iss = self.initial_number(now, &key, above);
        let index = self.insert(now, key, Origin::Passive(listener), link, config, iss).index;
        self.act(now, index, |connection, cx| connection.open_passively(cx, syn));
    }

    //= docs/rfc/rfc9293.md#MUST-54
    fn icmp_arrives(&mut self, now: Instant, error: &IcmpError) {
        match self.find(&error.key) {
            Some(index) => {
                self.act(now, index, |connection, cx| connection.icmp_arrives(cx, error));
            }
            None => self.shared.drops.count(DropReason::IrrelevantIcmp),
        }
    }

    // Tables.

    fn hash(&self, key: &ConnectionKey) -> u64 {
        hash_of(key, self.hash_key)
    }

    /// The index of a connection that is no record.
    fn find(&self, key: &ConnectionKey) -> Option<u32> {
        self.find_slot(key).filter(|slot| slot & RECORD == 0)
    }

    /// What `by_key` holds for a 4-tuple.
    fn find_slot(&self, key: &ConnectionKey) -> Option<u32> {
        let same = |&slot: &u32| key_at(&self.entries, &self.records, slot).is_some_and(|found| found == *key);
        self.by_key.find(self.hash(key), same).copied()
    }

    fn entry_mut(&mut self, id: ConnectionId) -> Option<&mut Entry> {
        let index = self.entries.resolve(id)?;
        self.entries.get_mut(index)
    }

    /// Whether there is room for one more connection, if need be at the cost of the oldest in TIME_WAIT.
    fn make_room(&mut self, now: Instant) -> bool {
        let limit = self.shared.config.max_connections;
        while self.entries.len() + self.records.len() >= limit {
            if !self.evict_time_wait(now) {
                self.shared.drops.count(DropReason::TooManyConnections);
                return false;
            }
        }
        true
    }

    /// Ends the connection that has been in TIME_WAIT longest; whether there was one.
    fn evict_time_wait(&mut self, now: Instant) -> bool {
        let removals = self.changes.removals();
        // Whoever is a record has been there for longer than those who are not yet.
        let ended = if let Some(index) = self.records.oldest(now) {
            self.end_record(now, index);
            true
        } else if let Some(id) = self.take_from_line(Queue::TimeWait) {
            self.act(now, id.index, |connection, cx| connection.is_succeeded(cx)).is_some()
        } else {
            return false;
        };
        self.shared.drops.count(DropReason::TimeWaitEvicted);
        self.changes.hasten_removals(removals);
        ended
    }

    /// Resets orphans as long as there are too many: first those that have delivered everything, whose peers lose
    /// nothing but a reply to their FIN; then those that deliver, the oldest first, because a peer that reads has
    /// read by then.
    fn limit_orphans(&mut self, now: Instant) {
        let limit = self.shared.config.share(self.shared.config.max_orphans);
        while self.line(Queue::Delivering).len() + self.line(Queue::Delivered).len() > limit {
            let oldest = self.take_from_line(Queue::Delivered).or_else(|| self.take_from_line(Queue::Delivering));
            let Some(id) = oldest else { return };
            self.shared.drops.count(DropReason::TooManyOrphans);
            self.abort(now, id.index);
        }
    }

    // Lines.

    fn line(&self, queue: Queue) -> &Line {
        &self.lines[queue as usize]
    }

    /// The first in a line, which is to leave it.
    fn take_from_line(&mut self, queue: Queue) -> Option<ConnectionId> {
        let entries = &self.entries;
        self.lines[queue as usize].take(|id| stands_in(entries, id, queue))
    }

    /// Lets a connection change its line; the line that it joins.
    fn note_line(&mut self, id: ConnectionId) -> Option<Queue> {
        let entry = self.entries.get_mut(id.index)?;
        let is = entry.connection.queue();
        let was = core::mem::replace(&mut entry.queue, is);
        if was == is {
            return None;
        }
        if let Some(was) = was {
            self.lines[was as usize].leave();
        }
        if let Some(is) = is {
            let entries = &self.entries;
            self.lines[is as usize].join(id, |id| stands_in(entries, id, is));
        }
        is
    }

    /// Where our numbers begin; `above`: numbers of a predecessor that they must exceed.
    fn initial_number(&self, now: Instant, key: &ConnectionKey, above: Option<SeqNum>) -> SeqNum {
        let clocked = isn::initial(self.shared.isn_secret, key, now);
        above.map_or(clocked, |last| clocked.latest(last + SUCCESSOR_GAP))
    }

    fn insert(
        &mut self,
        now: Instant,
        key: ConnectionKey,
        origin: Origin,
        link: LinkAddress,
        config: Arc<TcpConfig>,
        iss: SeqNum,
    ) -> ConnectionId {
        let id = self.entries.insert(|_| Entry {
            connection: Connection::new(key, origin, link, config, iss, now),
            counted: State::CLOSED,
            table: EntryStatus::default(),
            ready: false,
            queue: None,
        });
        let (entries, records, hash_key) = (&self.entries, &self.records, self.hash_key);
        let rehash = |&slot: &u32| key_at(entries, records, slot).map_or(0, |key| hash_of(&key, hash_key));
        self.by_key.insert_unique(hash_of(&key, hash_key), id.index, rehash);
        id
    }

    /// A free 4-tuple: from a random one of our ephemeral ports on, the first that is free (RFC 6056 section 3.3.1).
    //= docs/rfc/rfc6056.md#3.3-random
    //= docs/rfc/rfc6056.md#3.3-unused
    fn choose_port(&mut self, mut local: SocketAddr, remote: SocketAddr) -> Result<ConnectionKey, ConnectError> {
        if local.port() != 0 {
            let key = ConnectionKey::new(local, remote);
            return if self.find_slot(&key).is_none() { Ok(key) } else { Err(ConnectError::InUse) };
        }
        let ports = self.shared.config.own_ports();
        let start = self.shared.random.below(ports.len() as u32) as usize;
        for port in ports.clone().skip(start).chain(ports.take(start)) {
            local.set_port(port as u16);
            let key = ConnectionKey::new(local, remote);
            if self.find_slot(&key).is_none() {
                return Ok(key);
            }
        }
        Err(ConnectError::NoPort)
    }

    // Consequences.

    /// Lets a connection act, then does what follows from it.
    fn act<T>(
        &mut self,
        now: Instant,
        index: u32,
        act: impl FnOnce(&mut Connection, &mut Context<'_>) -> T,
    ) -> Option<T> {
        let id = self.entries.id(index)?;
        let mut cx = Context { now, id, shared: &mut self.shared };
        let connection = &mut self.entries.get_mut(index)?.connection;
        let result = act(connection, &mut cx);
        connection.persist_if_stuck(&cx);
        self.settle(now, id);
        Some(result)
    }

    /// Brings everything around a connection in line with what it is now: counters, queues, wheel, table.
    fn settle(&mut self, now: Instant, id: ConnectionId) {
        let Some(entry) = self.entries.get_mut(id.index) else { return };
        let (was, is) = (entry.counted, entry.connection.state);
        if was != is {
            entry.counted = is;
            self.counts[was as usize] -= usize::from(was != State::CLOSED);
            self.counts[is as usize] += usize::from(is != State::CLOSED);
            if is != State::CLOSED {
                self.changes.write(id, &mut entry.table, now);
            }
            self.note_listener(id, was);
        }
        if self.note_line(id) == Some(Queue::TimeWait) {
            self.settles(now, id);
        }
        if is == State::CLOSED {
            self.bury(now, id)
        } else {
            self.schedule(now, id)
        }
        self.limit_orphans(now);
    }

    /// Keeps the lengths of the SYN queue and the accept queue, and moves who leaves the one established to the other.
    fn note_listener(&mut self, id: ConnectionId, was: State) {
        let Some(entry) = self.entries.get(id.index) else { return };
        let Origin::Passive(listener_id) = entry.connection.origin else { return };
        let Some(listener) = self.listeners.get_mut(listener_id) else { return };
        match (was, entry.connection.state) {
            (_, State::SYN_RCVD) => listener.half_open_begins(),
            (State::SYN_RCVD, State::CLOSED) => listener.half_open_ends(),
            // From CLOSED straight on by a cookie.
            (State::SYN_RCVD | State::CLOSED, is) if is != State::CLOSED => {
                let entries = &self.entries;
                if was == State::SYN_RCVD {
                    listener.half_open_ends();
                }
                listener.is_established(id, |id| waits_to_be_accepted(entries, id));
                self.shared.events.push_back(Event::Incoming(listener_id));
            }
            (_, State::CLOSED) if entry.connection.holder == Holder::Listener => listener.accept_queue.leave(),
            _ => {}
        }
    }

    fn schedule(&mut self, now: Instant, id: ConnectionId) {
        let Some(entry) = self.entries.get_mut(id.index) else { return };
        match entry.connection.timers.next(now) {
            Some(deadline) => self.wheel.arm(id.index, deadline),
            None => self.wheel.cancel(id.index),
        }
        let cx = Context { now, id, shared: &mut self.shared };
        if !entry.ready && entry.connection.has_something_to_send(&cx) {
            entry.ready = true;
            self.ready.push_back(id);
        }
    }

    /// A connection has ended: it leaves every table. Its memory stays while the application has bytes to read.
    fn bury(&mut self, now: Instant, id: ConnectionId) {
        self.wheel.cancel(id.index);
        let Some(entry) = self.entries.get_mut(id.index) else { return };
        let key = entry.connection.key;
        self.changes.remove(key, core::mem::take(&mut entry.table));
        let (held, ended) = (entry.connection.is_held(), entry.connection.ended.take());
        let stays =
            held && entry.connection.is_readable() && ended.is_none_or(|reason| reason == CloseReason::Finished);
        if let Some(reason) = ended.filter(|_| held) {
            self.shared.events.push_back(Event::Closed(id, reason));
        }
        let hash = self.hash(&key);
        if let Ok(found) = self.by_key.find_entry(hash, |&index| index == id.index) {
            found.remove();
        }
        if !stays {
            self.forget(now, id);
        }
    }

    fn forget(&mut self, now: Instant, id: ConnectionId) {
        if let Some(mut entry) = self.entries.remove(id.index) {
            entry.connection.release(&mut Context { now, id, shared: &mut self.shared });
        }
    }

    /// Notes that a connection's figures moved.
    fn refresh(&mut self, now: Instant, index: u32) {
        let id = self.entries.id(index);
        if let Some((id, entry)) = id.zip(self.entries.get_mut(index)) {
            self.changes.refresh(id, &mut entry.table, now);
        }
    }

    fn abort_if(&mut self, now: Instant, condition: impl Fn(&Connection) -> bool) {
        for index in 0..self.entries.end() {
            if self.entries.get(index).is_some_and(|entry| condition(&entry.connection)) {
                self.abort(now, index);
            }
        }
    }

    fn abort(&mut self, now: Instant, index: u32) {
        self.act(now, index, |connection, cx| {
            connection.abort(cx, Cause::Abort, CloseReason::Aborted);
        });
    }
}

fn hash_of(key: &ConnectionKey, hash_key: SipKey) -> u64 {
    siphash::<1, 3>(hash_key, &key.words())
}

/// The 4-tuple of what `slot` of [`Stack::by_key`] names.
fn key_at(entries: &Slab<Entry>, records: &Records, slot: u32) -> Option<ConnectionKey> {
    match slot & RECORD {
        0 => entries.get(slot).map(|entry| entry.connection.key),
        _ => records.get(slot & !RECORD).map(crate::records::Record::key),
    }
}

/// Whether a connection stands in the line `queue`.
fn stands_in(entries: &Slab<Entry>, id: ConnectionId, queue: Queue) -> bool {
    entries.resolve(id).and_then(|index| entries.get(index)).is_some_and(|entry| entry.queue == Some(queue))
}

/// Whether a connection that joined an accept queue is still in it.
fn waits_to_be_accepted(entries: &Slab<Entry>, id: ConnectionId) -> bool {
    let entry = entries.resolve(id).and_then(|index| entries.get(index));
    entry.is_some_and(|entry| entry.connection.holder == Holder::Listener)
}
