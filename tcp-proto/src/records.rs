//! Connections in TIME_WAIT that nobody holds any more, as records of 64 bytes: what "segment arrives" needs of them
//! (`connection/time_wait.rs`) and no more. Records with the same parameters stand in one line, the first to expire
//! first, because all of them last equally long: no wheel orders them. Those whose time was started over are strays, kept
//! apart in order. Leaves out counters and times, which the connection table has, and the peer's MAC address: answers go to
//! where the segment came from that draws them.

use alloc::boxed::Box;
use alloc::collections::{BTreeSet, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;

use tcp_common::ConnectionKey;

use crate::config::TcpConfig;
use crate::limits::MAX_CLASSES;
use crate::seq::SeqNum;
use crate::time::{Compact, Instant};

/// Records of a chunk; chunks never move.
const CHUNK: usize = 256;
/// Places of records that have left, kept at most beyond one for each that stands in a line.
const SLACK: usize = 64;
/// Of a place whose record has left.
const NOBODY: u32 = u32::MAX;
/// Of a record that is none.
const NO_CLASS: u16 = u16::MAX;

/// A connection in TIME_WAIT.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    local_addr: [u8; 16],
    remote_addr: [u8; 16],
    local_port: u16,
    remote_port: u16,
    /// SND.NXT, which is SND.UNA, too.
    pub(crate) send_next: SeqNum,
    /// RCV.NXT.
    pub(crate) receive_next: SeqNum,
    /// TS.Recent, if timestamps are in use.
    recent: u32,
    /// When it ends.
    deadline: Compact,
    /// Where it stands in its line.
    place: u32,
    class: u16,
    /// The window field of its answers.
    pub(crate) window_field: u16,
    /// Our clock when it was last answered what may not be answered too often, in units of 4 ms.
    answered: u16,
    /// The binary logarithm of the largest window that the peer ever offered, rounded up.
    max_window_bits: u8,
    /// The shift of the window field, and flags.
    scale_and_flags: u8,
}

const _: () = assert!(size_of::<Record>() <= 64, "a record of TIME_WAIT fits in 64 bytes");

/// Of `scale_and_flags`: the shift, whether timestamps are in use, whether marks of the network are echoed, whether it
/// is a stray.
const SCALE: u8 = 0x0f;
const TIMESTAMPS: u8 = 0x10;
const ECHO: u8 = 0x20;
const STRAY: u8 = 0x40;
/// Milliseconds of a unit of `answered`.
const ANSWERED_UNIT: u32 = 4;

/// What a record is made of.
pub(crate) struct Remains {
    pub(crate) key: ConnectionKey,
    pub(crate) send_next: SeqNum,
    pub(crate) receive_next: SeqNum,
    pub(crate) recent: Option<u32>,
    pub(crate) deadline: Instant,
    /// Whether 2 x MSL were started over.
    pub(crate) restarted: bool,
    pub(crate) window_field: u16,
    pub(crate) scale: u8,
    pub(crate) max_window: u32,
    pub(crate) echoes_marks: bool,
    /// Our clock when it last answered, ms; long ago at most 2^17 ms.
    pub(crate) answered: u32,
}

impl Record {
    fn new(remains: &Remains) -> Self {
        let ConnectionKey { local_addr, remote_addr, local_port, remote_port, .. } = remains.key;
        let flag = |is: bool, flag: u8| if is { flag } else { 0 };
        Record {
            local_addr,
            remote_addr,
            local_port,
            remote_port,
            send_next: remains.send_next,
            receive_next: remains.receive_next,
            recent: remains.recent.unwrap_or(0),
            deadline: Compact::at_or_after(remains.deadline),
            place: 0,
            class: NO_CLASS,
            window_field: remains.window_field,
            answered: (remains.answered / ANSWERED_UNIT) as u16,
            max_window_bits: remains.max_window.max(1).next_power_of_two().trailing_zeros() as u8,
            scale_and_flags: remains.scale.min(SCALE)
                | flag(remains.recent.is_some(), TIMESTAMPS)
                | flag(remains.echoes_marks, ECHO),
        }
    }

    pub(crate) fn key(&self) -> ConnectionKey {
        let Record { local_addr, remote_addr, local_port, remote_port, .. } = *self;
        ConnectionKey { local_addr, remote_addr, local_port, remote_port, pad: 0 }
    }

    /// TS.Recent, if timestamps are in use.
    pub(crate) fn recent(&self) -> Option<u32> {
        (self.scale_and_flags & TIMESTAMPS != 0).then_some(self.recent)
    }

    /// Whether its answers echo marks of the network.
    pub(crate) fn echoes_marks(&self) -> bool {
        self.scale_and_flags & ECHO != 0
    }

    /// RCV.WND.
    pub(crate) fn window(&self) -> u32 {
        u32::from(self.window_field) << (self.scale_and_flags & SCALE)
    }

    /// The largest window that the peer ever offered, rounded up to a power of two.
    pub(crate) fn max_window(&self) -> u32 {
        1 << self.max_window_bits.min(30)
    }

    /// Time since it last answered what may not be answered too often, ms of our clock, which shows `clock`.
    pub(crate) fn since_answer(&self, clock: u32) -> u32 {
        u32::from(((clock / ANSWERED_UNIT) as u16).wrapping_sub(self.answered)) * ANSWERED_UNIT
    }

    pub(crate) fn note_answer(&mut self, clock: u32) {
        self.answered = (clock / ANSWERED_UNIT) as u16;
    }

    /// When it ends, read at `now`.
    pub(crate) fn deadline(&self, now: Instant) -> Instant {
        self.deadline.near(now)
    }
}

/// Records with the same parameters.
struct Class {
    config: Arc<TcpConfig>,
    /// Indices of records in the order in which they expire; [`NOBODY`] where one has left.
    line: VecDeque<u32>,
    /// The place of the first in the line.
    first: u32,
    /// How many stand in it.
    standing: usize,
    /// How many there are, strays among them.
    len: usize,
}

/// The records of a stack.
#[derive(Default)]
pub(crate) struct Records {
    chunks: Vec<Box<[Record]>>,
    free: Vec<u32>,
    len: usize,
    classes: Vec<Class>,
    /// Deadlines and indices of those that stand in no line.
    strays: BTreeSet<(Instant, u32)>,
}

impl Records {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Indices are below this.
    pub(crate) fn end(&self) -> u32 {
        (self.chunks.len() * CHUNK) as u32
    }

    /// Adds a record of a connection with these parameters; its index, or `None` when there are too many sets of
    /// parameters.
    pub(crate) fn add(&mut self, now: Instant, remains: &Remains, config: &Arc<TcpConfig>) -> Option<u32> {
        let class = self.class_of(config)?;
        let in_order = !remains.restarted && self.is_last(class, remains.deadline, now);
        let index = self.free.pop().unwrap_or_else(|| self.grow(remains));
        *self.slot_mut(index) = Record { class, ..Record::new(remains) };
        self.len += 1;
        self.classes[usize::from(class)].len += 1;
        if in_order {
            self.join(index, class);
        } else {
            self.stray(now, index);
        }
        Some(index)
    }

    /// Adds a chunk of free records; its first index.
    fn grow(&mut self, remains: &Remains) -> u32 {
        let first = self.end();
        self.chunks.push((0..CHUNK).map(|_| Record::new(remains)).collect());
        self.free.extend((first + 1..self.end()).rev());
        first
    }

    pub(crate) fn get(&self, index: u32) -> Option<&Record> {
        let record = &self.chunks.get(index as usize / CHUNK)?[index as usize % CHUNK];
        (record.class != NO_CLASS).then_some(record)
    }

    pub(crate) fn get_mut(&mut self, index: u32) -> Option<&mut Record> {
        let record = &mut self.chunks.get_mut(index as usize / CHUNK)?[index as usize % CHUNK];
        (record.class != NO_CLASS).then_some(record)
    }

    /// The parameters of a record.
    pub(crate) fn config(&self, record: &Record) -> &Arc<TcpConfig> {
        &self.classes[usize::from(record.class)].config
    }

    pub(crate) fn remove(&mut self, now: Instant, index: u32) -> Option<Record> {
        let record = self.get(index)?.clone();
        self.leave(now, index, &record);
        self.slot_mut(index).class = NO_CLASS;
        self.free.push(index);
        self.len -= 1;
        self.classes[usize::from(record.class)].len -= 1;
        Some(record)
    }

    /// Lets a record expire at `deadline`.
    pub(crate) fn restart(&mut self, now: Instant, index: u32, deadline: Instant) {
        let Some(record) = self.get(index).cloned() else { return };
        self.leave(now, index, &record);
        self.slot_mut(index).deadline = Compact::at_or_after(deadline);
        self.stray(now, index);
    }

    /// When the next one expires, read at `now`.
    pub(crate) fn next(&self, now: Instant) -> Option<Instant> {
        self.firsts(now).map(|(deadline, _)| deadline).min()
    }

    /// One that is due at `now`.
    pub(crate) fn due(&self, now: Instant) -> Option<u32> {
        self.firsts(now).find(|(deadline, _)| *deadline <= now).map(|(_, index)| index)
    }

    /// All that are due at `now`.
    pub(crate) fn all_due(&self, now: Instant) -> Vec<u32> {
        let is_due = |index: &u32| self.get(*index).is_none_or(|record| record.deadline(now) <= now);
        let in_lines = self.classes.iter().flat_map(|class| class.line.iter().copied().take_while(is_due));
        let strays = self.strays.iter().take_while(|(deadline, _)| *deadline <= now).map(|(_, index)| *index);
        in_lines.filter(|index| *index != NOBODY).chain(strays).collect()
    }

    /// The one that began first, or was started over first.
    pub(crate) fn oldest(&self, now: Instant) -> Option<u32> {
        let age = |(deadline, index): (Instant, u32)| {
            let left = deadline.since(now);
            Some((self.config(self.get(index)?).time_wait().saturating_sub(left), index))
        };
        self.firsts(now).filter_map(age).max_by_key(|(age, _)| *age).map(|(_, index)| index)
    }

    /// The first of each line and of the strays: deadline and index.
    fn firsts(&self, now: Instant) -> impl Iterator<Item = (Instant, u32)> {
        let first = move |class: &Class| {
            let index = *class.line.front()?;
            Some((self.get(index)?.deadline(now), index))
        };
        self.classes.iter().filter_map(first).chain(self.strays.first().copied())
    }

    /// The class of records with these parameters; an empty one may take them.
    fn class_of(&mut self, config: &Arc<TcpConfig>) -> Option<u16> {
        let same = |class: &Class| Arc::ptr_eq(&class.config, config) || class.config == *config;
        let found = self.classes.iter().position(same).or_else(|| self.classes.iter().position(|class| class.len == 0));
        match found {
            Some(class) => self.classes[class].config = config.clone(),
            None if self.classes.len() == MAX_CLASSES => return None,
            None => self.classes.push(Class {
                config: config.clone(),
                line: VecDeque::new(),
                first: 0,
                standing: 0,
                len: 0,
            }),
        }
        Some(found.unwrap_or(self.classes.len() - 1) as u16)
    }

    /// Whether what expires at `deadline` would be the last of its class.
    fn is_last(&self, class: u16, deadline: Instant, now: Instant) -> bool {
        let last = self.classes[usize::from(class)].line.back().and_then(|index| self.get(*index));
        last.is_none_or(|last| last.deadline(now) <= deadline)
    }

    /// Joins the line of its class at the end.
    fn join(&mut self, index: u32, class: u16) {
        let class = &mut self.classes[usize::from(class)];
        let place = class.first.wrapping_add(class.line.len() as u32);
        class.line.push_back(index);
        class.standing += 1;
        self.slot_mut(index).place = place;
    }

    /// Joins the strays.
    fn stray(&mut self, now: Instant, index: u32) {
        let record = self.slot_mut(index);
        record.scale_and_flags |= STRAY;
        let deadline = record.deadline(now);
        self.strays.insert((deadline, index));
    }

    /// Leaves its line, whose first and last places are always somebody's, or the strays.
    fn leave(&mut self, now: Instant, index: u32, record: &Record) {
        if record.scale_and_flags & STRAY != 0 {
            self.strays.remove(&(record.deadline(now), index));
            return;
        }
        let class = &mut self.classes[usize::from(record.class)];
        class.line[record.place.wrapping_sub(class.first) as usize] = NOBODY;
        class.standing -= 1;
        while class.line.pop_front_if(|index| *index == NOBODY).is_some() {
            class.first = class.first.wrapping_add(1);
        }
        while class.line.pop_back_if(|index| *index == NOBODY).is_some() {}
        if class.line.len() > 2 * class.standing + SLACK {
            self.close_ranks(record.class);
        }
    }

    /// Forgets the places of those that have left.
    fn close_ranks(&mut self, class: u16) {
        let line = &mut self.classes[usize::from(class)];
        line.line.retain(|&index| index != NOBODY);
        let (first, indices) = (line.first, Vec::from_iter(line.line.iter().copied()));
        for (at, index) in indices.into_iter().enumerate() {
            self.slot_mut(index).place = first.wrapping_add(at as u32);
        }
    }

    fn slot_mut(&mut self, index: u32) -> &mut Record {
        &mut self.chunks[index as usize / CHUNK][index as usize % CHUNK]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeMap;
    use core::time::Duration;

    use crate::random::Random;

    fn remains(port: u16, deadline: Instant) -> Remains {
        Remains {
            key: ConnectionKey::new("10.0.0.1:80".parse().unwrap(), (core::net::Ipv4Addr::LOCALHOST, port).into()),
            send_next: SeqNum(port.into()),
            receive_next: SeqNum(7),
            recent: None,
            deadline,
            restarted: false,
            window_field: 1,
            scale: 7,
            max_window: 65_536,
            echoes_marks: false,
            answered: 0,
        }
    }

    #[test]
    fn records_of_each_class_expire_in_order_also_after_restarts_and_removals() {
        let configs =
            [1, 2, 3].map(|seconds| Arc::new(TcpConfig { msl: Duration::from_secs(seconds), ..TcpConfig::default() }));
        let (mut records, mut random, mut model) = (Records::default(), Random::new([3, 4]), BTreeMap::new());
        let mut now = Instant::from_millis((1 << 32) - 50_000);
        for step in 0..5_000u32 {
            now += Duration::from_millis(random.below(3).into());
            let config = &configs[random.below(3) as usize];
            let any = model.keys().copied().nth(random.below(model.len().max(1) as u32) as usize);
            match (step % 5, any) {
                (0, Some(index)) => {
                    assert_eq!(records.remove(now, index).map(|record| record.deadline(now)), model.remove(&index));
                }
                (1, Some(index)) => {
                    let config = records.config(records.get(index).unwrap()).clone();
                    records.restart(now, index, now + config.time_wait());
                    model.insert(index, now + config.time_wait());
                }
                _ => {
                    // Some come later than others that began after them.
                    let deadline = now + (config.time_wait() - Duration::from_millis(random.below(2).into()));
                    let remains = Remains { restarted: step % 7 == 0, ..remains(step as u16, deadline) };
                    model.insert(records.add(now, &remains, config).unwrap(), deadline);
                }
            }
            assert_eq!((records.next(now), records.len()), (model.values().min().copied(), model.len()));
            while let Some(index) = records.due(now) {
                assert!(model.remove(&index).is_some_and(|deadline| deadline <= now), "early");
                records.remove(now, index);
            }
            assert!(model.values().all(|deadline| *deadline > now), "late");
        }
        let places: usize = records.classes.iter().map(|class| class.line.len()).sum();
        assert!(places <= 2 * records.len() + 3 * (SLACK + 1), "{places} places for {}", records.len());
    }

    #[test]
    fn a_record_says_what_its_connection_said() {
        let all = Remains {
            recent: Some(9),
            echoes_marks: true,
            scale: 14,
            max_window: 65_537,
            ..remains(5, Instant::default())
        };
        let (with, without) = (Record::new(&all), Record::new(&remains(5, Instant::default())));
        assert_eq!((with.recent(), with.echoes_marks(), with.window()), (Some(9), true, 1 << 14));
        assert_eq!((without.recent(), without.echoes_marks(), without.window()), (None, false, 128));
        assert_eq!((with.max_window(), without.max_window()), (1 << 17, 1 << 16));
        assert_eq!((with.key(), with.key().pad), (all.key, 0));
    }

    #[test]
    fn parameters_that_are_equal_are_kept_once_and_there_are_never_too_many_of_them() {
        let (mut records, now) = (Records::default(), Instant::default());
        let config = |ttl: u8, dscp: u8| Arc::new(TcpConfig { ttl, dscp, ..TcpConfig::default() });
        for _ in 0..10 {
            records.add(now, &remains(1, now), &config(64, 0));
        }
        assert_eq!(records.classes.len(), 1);
        let added =
            (0..300u32).filter(|n| records.add(now, &remains(1, now), &config(*n as u8, (n >> 8) as u8 + 1)).is_some());
        assert_eq!(added.count(), MAX_CLASSES - 1);
        let only = records.get(20).map(|record| records.config(record).clone()).unwrap();
        records.remove(now, 20);
        assert!(records.add(now, &remains(1, now), &config(1, 63)).is_some(), "{only:?} are not needed any more");
    }
}
