//! A hierarchical timing wheel (Varghese and Lauck, 1987) that orders connections by their next deadline.
//! Arming and cancelling are O(1) however many are armed; the resolution is one millisecond, rounded up, so
//! that nothing fires early but what is armed for more than 24 days: that comes due then, to be armed again. Entries are
//! the indices of connections; each is armed at most once.

use alloc::vec::Vec;

use crate::time::{Compact, Instant};

const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;
/// Six levels of 64 slots reach 2^36 ms; a link's four bytes reach 24 days.
const LEVELS: usize = 6;
const NANOS_PER_TICK: u64 = 1_000_000;
const NONE: u32 = u32::MAX;
/// List of entries that are due; the wheel's own lists come before it.
const DUE: u16 = (LEVELS * SLOTS) as u16;
/// The list of what is not armed.
const NO_LIST: u16 = u16::MAX;

/// Where an entry is.
#[derive(Clone, Copy, Debug)]
struct Link {
    /// Deadline.
    at: Compact,
    previous: u32,
    next: u32,
    /// The list it is on; [`NO_LIST`]: not armed.
    list: u16,
}

const _: () = assert!(size_of::<Link>() == 16);

const UNARMED: Link = Link { at: Compact::NEVER, previous: NONE, next: NONE, list: NO_LIST };

/// The wheel.
pub(crate) struct Wheel {
    links: Vec<Link>,
    heads: [u32; LEVELS * SLOTS + 1],
    /// Per level, a bit for each slot that holds something.
    occupied: [u64; LEVELS],
    /// Every tick up to and with this one has been served.
    elapsed: u64,
}

impl Wheel {
    pub(crate) fn new(now: Instant) -> Self {
        Wheel {
            links: Vec::new(),
            heads: [NONE; LEVELS * SLOTS + 1],
            occupied: [0; LEVELS],
            elapsed: now.as_nanos() / NANOS_PER_TICK,
        }
    }

    /// Arms `entry` for `deadline`, wherever it was before.
    pub(crate) fn arm(&mut self, entry: u32, deadline: Instant) {
        let now = self.now();
        let deadline = deadline.max(now);
        let at = Compact::at_or_after(now + deadline.since(now).min(Compact::REACH));
        if self.links.len() <= entry as usize {
            self.links.resize(entry as usize + 1, UNARMED);
        }
        let link = &self.links[entry as usize];
        if link.list == NO_LIST || link.at != at {
            self.cancel(entry);
            self.insert(entry, at);
        }
    }

    /// Disarms `entry`; nothing happens when it is not armed.
    pub(crate) fn cancel(&mut self, entry: u32) {
        let Some(&Link { previous, next, list, .. }) = self.links.get(entry as usize) else { return };
        if list == NO_LIST {
            return;
        }
        match previous {
            NONE => self.heads[list as usize] = next,
            _ => self.links[previous as usize].next = next,
        }
        if next != NONE {
            self.links[next as usize].previous = previous;
        }
        self.links[entry as usize] = UNARMED;
        self.note_emptied(list);
    }

    /// Up to when everything has been served.
    pub(crate) fn now(&self) -> Instant {
        Instant::from_nanos(self.elapsed * NANOS_PER_TICK)
    }

    /// The next instant at which something may be due. It may be early (an entry far off is looked at a few
    /// times on its way), never late.
    pub(crate) fn next(&self) -> Option<Instant> {
        if self.heads[DUE as usize] != NONE {
            return Some(Instant::from_nanos(self.elapsed * NANOS_PER_TICK));
        }
        self.next_slot().map(|(_, tick)| Instant::from_nanos(tick.saturating_mul(NANOS_PER_TICK)))
    }

    /// Takes an entry that is due at `now`; it is disarmed.
    pub(crate) fn take_due(&mut self, now: Instant) -> Option<u32> {
        let now_tick = now.as_nanos() / NANOS_PER_TICK;
        loop {
            let head = self.heads[DUE as usize];
            if head != NONE {
                self.cancel(head);
                return Some(head);
            }
            match self.next_slot() {
                Some((list, tick)) if tick <= now_tick => self.serve(list, tick),
                _ => {
                    self.elapsed = self.elapsed.max(now_tick);
                    return None;
                }
            }
        }
    }

    /// Moves every entry of a slot that time has reached: to the due list, or down the levels.
    fn serve(&mut self, list: u16, tick: u64) {
        self.elapsed = tick;
        while self.heads[list as usize] != NONE {
            let entry = self.heads[list as usize];
            let at = self.links[entry as usize].at;
            self.cancel(entry);
            self.insert(entry, at);
        }
    }

    fn insert(&mut self, entry: u32, at: Compact) {
        let list = self.list_for(at.near(self.now()).as_millis());
        let next = self.heads[list as usize];
        if next != NONE {
            self.links[next as usize].previous = entry;
        }
        self.heads[list as usize] = entry;
        self.links[entry as usize] = Link { at, previous: NONE, next, list };
        if list != DUE {
            self.occupied[list as usize / SLOTS] |= 1 << (list as usize % SLOTS);
        }
    }

    /// The list for a deadline: the level is that of the highest digit (base 64) in which it differs from now.
    fn list_for(&self, tick: u64) -> u16 {
        if tick <= self.elapsed {
            return DUE;
        }
        let highest_bit = 63 - (tick ^ self.elapsed).leading_zeros();
        let level = (highest_bit / SLOT_BITS).min(LEVELS as u32 - 1);
        let slot = (tick >> (SLOT_BITS * level)) as u32 % SLOTS as u32;
        (level * SLOTS as u32 + slot) as u16
    }

    fn note_emptied(&mut self, list: u16) {
        if list != DUE && self.heads[list as usize] == NONE {
            self.occupied[list as usize / SLOTS] &= !(1 << (list as usize % SLOTS));
        }
    }

    /// The slot that time reaches next, and when. A lower level's next slot always comes before a higher one's.
    fn next_slot(&self) -> Option<(u16, u64)> {
        let level = self.occupied.iter().position(|&slots| slots != 0)?;
        let shift = SLOT_BITS * level as u32;
        let current = (self.elapsed >> shift) as u32 % SLOTS as u32;
        let ahead = self.occupied[level].rotate_right(current).trailing_zeros();
        let slot = (current + ahead) % SLOTS as u32;
        let tick = ((self.elapsed >> shift) + u64::from(ahead)) << shift;
        Some(((level as u32 * SLOTS as u32 + slot) as u16, tick))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;
    use alloc::collections::BTreeMap;

    fn millis(ms: u64) -> Instant {
        Instant::from_millis(ms)
    }

    #[test]
    fn deadlines_are_served_in_order_never_early_and_at_most_one_tick_late() {
        let mut random = Random::new([1, 2]);
        let mut wheel = Wheel::new(millis(1_000_003));
        let mut armed = BTreeMap::new();
        let mut now = millis(1_000_003);
        for step in 0..20_000u32 {
            let entry = random.below(500);
            let reach = 1u64 << random.below(39);
            match step % 5 {
                0 => {
                    wheel.cancel(entry);
                    armed.remove(&entry);
                }
                1..4 => {
                    let deadline =
                        Instant::from_nanos(now.as_nanos() + u64::from(random.below(1 << 20)) * reach / 1000);
                    wheel.arm(entry, deadline);
                    armed.insert(entry, deadline);
                }
                _ => {
                    let next = wheel.next();
                    let earliest = armed.values().min().copied();
                    assert_eq!(next.is_some(), earliest.is_some());
                    assert!(next <= earliest.map(|at| at.max(now) + core::time::Duration::from_millis(1)));
                    now = next.unwrap_or(now).max(now);
                    while let Some(entry) = wheel.take_due(now) {
                        let deadline = armed.remove(&entry).expect("only armed entries come due");
                        assert!(deadline <= now, "early");
                    }
                    assert!(armed.values().all(|&at| at + core::time::Duration::from_millis(1) > now), "late");
                }
            }
        }
    }

    #[test]
    fn a_deadline_that_has_passed_is_due_at_once() {
        let mut wheel = Wheel::new(millis(100));
        wheel.arm(0, millis(50));
        assert_eq!(wheel.next(), Some(millis(100)));
        assert_eq!(wheel.take_due(millis(100)), Some(0));
        assert_eq!(wheel.next(), None);
    }

    #[test]
    fn a_far_deadline_is_reached_in_few_steps() {
        let mut wheel = Wheel::new(millis(0));
        wheel.arm(0, millis(7_200_000));
        let mut steps = 0;
        let mut now = millis(0);
        while wheel.take_due(now).is_none() {
            now = wheel.next().expect("still armed");
            steps += 1;
        }
        assert_eq!(now, millis(7_200_000));
        assert!(steps <= LEVELS, "{steps} steps");
    }
}
