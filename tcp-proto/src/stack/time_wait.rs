//! Connections in TIME_WAIT that nobody holds: they become records ([`crate::records`]) a moment after they got there,
//! and expire without the timing wheel.

use alloc::vec::Vec;

use tcp_common::{Cause, ConnectionKey, State};

use super::{RECORD, Stack};
use crate::api::{ConnectionId, ConnectionInfo, LinkAddress};
use crate::connection::time_wait::{Closed, Verdict};
use crate::connection::{Queue, clock};
use crate::drops::DropReason;
use crate::figures::Figure;
use crate::limits::{CONNECTION_ACK_INTERVAL_MS, SETTLE_DELAY};
use crate::records::Record;
use crate::seq::SeqNum;
use crate::shared::Context;
use crate::time::{Duration, Instant};
use crate::wire::{Flags, Options, Outgoing, Segment, Timestamps};

impl Stack {
    /// The keys of the connections whose TIME_WAIT ends at `now`, unless [`Stack::prolong_time_wait`] says otherwise:
    /// for drivers of a program that answers segments by itself.
    #[must_use]
    pub fn time_waits_due(&self, now: Instant) -> Vec<ConnectionKey> {
        self.records.all_due(now).into_iter().filter_map(|index| Some(self.records.get(index)?.key())).collect()
    }

    /// The program acknowledged a repeated FIN of a connection in TIME_WAIT, which therefore lasts until `deadline`; 2 x
    /// MSL more at most.
    pub fn prolong_time_wait(&mut self, now: Instant, key: &ConnectionKey, deadline: Instant) {
        let Some(index) = self.find_record(key).filter(|_| deadline > now) else { return };
        let Some(record) = self.records.get(index) else { return };
        let most = now + self.records.config(record).time_wait();
        self.records.restart(now, index, deadline.min(most));
    }

    /// A connection has nothing to do any more but to wait in TIME_WAIT.
    pub(super) fn settles(&mut self, now: Instant, id: ConnectionId) {
        self.settling.push_back((id, now + SETTLE_DELAY));
    }

    /// Makes records of those that have been in TIME_WAIT for a moment, and ends the records that expire.
    pub(super) fn serve_time_waits(&mut self, now: Instant) {
        while let Some((id, _)) = self.settling.pop_front_if(|(_, due)| *due <= now) {
            self.make_record(now, id);
        }
        while let Some(index) = self.records.due(now) {
            self.shared.figures.count(Figure::TimeWaitTimer);
            self.end_record(now, index);
        }
    }

    /// When [`Stack::serve_time_waits`] has something to do.
    pub(super) fn next_time_wait(&self) -> Option<Instant> {
        let settles = self.settling.front().map(|(_, due)| *due);
        [settles, self.records.next(self.wheel.now())].into_iter().flatten().min()
    }

    /// Makes a record of a connection in TIME_WAIT, once it has said everything and its entry is written.
    fn make_record(&mut self, now: Instant, id: ConnectionId) {
        let Some(index) = self.entries.resolve(id) else { return };
        let Some(entry) = self.entries.get_mut(index).filter(|entry| entry.queue == Some(Queue::TimeWait)) else {
            return;
        };
        let cx = Context { now, id, shared: &mut self.shared };
        if entry.ready || !entry.table.is_settled() || entry.connection.has_something_to_send(&cx) {
            return self.settles(now, id);
        }
        let Some(remains) = entry.connection.remains(&cx) else { return };
        let Some(record) = self.records.add(now, &remains, &entry.connection.config) else { return };
        if entry.table.takes_refresh() {
            let value = entry.connection.table_entry(now, self.shared.config.queue);
            self.changes.finish(remains.key, value);
        }
        let hash = self.hash(&remains.key);
        if let Some(slot) = self.by_key.find_mut(hash, |slot| *slot == index) {
            *slot = RECORD | record;
        }
        self.wheel.cancel(index);
        self.lines[Queue::TimeWait as usize].leave();
        self.forget(now, id);
    }

    /// A connection that is a record ends; its entry goes.
    pub(super) fn end_record(&mut self, now: Instant, index: u32) {
        let Some(record) = self.records.remove(now, index) else { return };
        let key = record.key();
        self.shared.figures.transition(State::TIME_WAIT, Cause::Expired);
        self.counts[State::TIME_WAIT as usize] -= 1;
        self.changes.remove_entry(key);
        let hash = self.hash(&key);
        if let Ok(found) = self.by_key.find_entry(hash, |slot| *slot == RECORD | index) {
            found.remove();
        }
    }

    pub(super) fn end_all_records(&mut self, now: Instant) {
        (0..self.records.end()).for_each(|index| self.end_record(now, index));
    }

    fn find_record(&self, key: &ConnectionKey) -> Option<u32> {
        self.find_slot(key).filter(|slot| slot & RECORD != 0).map(|slot| slot & !RECORD)
    }

    /// "Segment arrives" for a record; see [`Closed::judge`].
    pub(super) fn arrives_at_record(&mut self, now: Instant, index: u32, link: LinkAddress, segment: &Segment<'_>) {
        let Some(record) = self.records.get(index) else { return };
        let (key, closed, config) = (record.key(), Closed::of_record(record), self.records.config(record));
        if self.is_welcome(&key, segment) && closed.may_be_succeeded_by(config, segment) {
            let last = record.send_next;
            return self.succeed_record(now, index, link, segment, last);
        }
        match closed.judge(segment, closed.is_old(segment)) {
            Verdict::Nothing => {}
            Verdict::Drop(reason) => self.shared.drops.count(reason),
            Verdict::Restart => {
                let deadline = now + config.time_wait();
                self.records.restart(now, index, deadline);
                self.acknowledge(now, index, link);
            }
            Verdict::Answer(reason) => {
                self.shared.drops.count(reason);
                if self.may_answer(now, index) {
                    self.shared.figures.count(Figure::UnacceptableAck);
                    self.acknowledge(now, index, link);
                }
            }
            Verdict::Challenge(reason) => {
                self.shared.drops.count(reason);
                if (self.answered_lately(now, index) || self.shared.may_challenge(now)) && self.may_answer(now, index) {
                    self.shared.figures.count(Figure::ChallengeAck);
                    self.acknowledge(now, index, link);
                }
            }
        }
    }

    fn succeed_record(&mut self, now: Instant, index: u32, link: LinkAddress, syn: &Segment<'_>, last: SeqNum) {
        let Some(key) = self.records.get(index).map(Record::key) else { return };
        if let Some(listener) = self.listeners.find(key.local()) {
            self.shared.figures.count(Figure::TimeWaitReused);
            self.end_record(now, index);
            self.syn_arrives(now, key, link, syn, listener, Some(last));
        }
    }

    fn answered_lately(&self, now: Instant, index: u32) -> bool {
        self.records.get(index).is_some_and(|record| record.since_answer(clock(now)) < CONNECTION_ACK_INTERVAL_MS)
    }

    /// Whether a record may answer what may not be answered too often; takes it if so.
    fn may_answer(&mut self, now: Instant, index: u32) -> bool {
        let may = !self.answered_lately(now, index);
        match self.records.get_mut(index) {
            Some(record) if may => record.note_answer(clock(now)),
            _ => self.shared.drops.count(DropReason::AckRate),
        }
        may
    }

    /// The ACK of a record goes to where the segment came from.
    fn acknowledge(&mut self, now: Instant, index: u32, link: LinkAddress) {
        let Some(record) = self.records.get(index) else { return };
        let config = self.records.config(record);
        let timestamps = record.recent().map(|echo| Timestamps { value: clock(now), echo });
        self.shared.queue_reply(Outgoing {
            key: record.key(),
            link,
            ttl: config.ttl,
            dscp: config.dscp,
            ect: false,
            seq: record.send_next,
            ack: record.receive_next,
            flags: Flags::ACK.with(Flags::ECE.when(record.echoes_marks())),
            window: record.window_field,
            options: Options { timestamps, ..Options::default() },
        });
    }

    /// The row of a record. Times and counters are what the connection table's entry says.
    pub(super) fn record_info(&self, now: Instant, record: &Record) -> ConnectionInfo {
        let config = self.records.config(record);
        let left = record.deadline(now).since(now);
        let age = config.time_wait().saturating_sub(left);
        ConnectionInfo {
            key: record.key(),
            state: State::TIME_WAIT,
            is_record: true,
            age,
            state_age: age,
            timers: Vec::from([("time_wait", left)]),
            mss: 0,
            srtt: None,
            rto: Duration::ZERO,
            cwnd: 0,
            in_flight: 0,
            ssthresh: None,
            snd_una: record.send_next.0,
            snd_nxt: record.send_next.0,
            rcv_nxt: record.receive_next.0,
            snd_wnd: 0,
            rcv_wnd: record.window(),
            bytes_in: 0,
            bytes_out: 0,
            retransmits: 0,
            congestion: config.congestion.name(),
        }
    }
}
