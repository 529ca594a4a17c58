//! One direction of the path between the hosts: frames go in when they are sent and come out when they arrive, if they
//! do. What happens to them is [`crate::faults`]'s; whether it may happen now is the world's.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use tcp_proto::Instant;
use tests::segment::Segment;

use crate::chance::Chance;
use crate::count::Counts;
use crate::faults::Way;
use crate::frame;
use crate::trace::{self, Fate};

/// Frames of a burst of losses, at most: few of the repeats and probes before a connection is given up.
const LONGEST_BURST: u32 = 20;
/// How many times as often as others what follows a FIN is lost or doubled: it decides what becomes of TIME_WAIT.
const CLOSING: u32 = 5;

/// A frame and what the simulator knows of it.
#[derive(Clone, Debug)]
pub struct Flying {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// The segment as it was sent, and which end of which connection sent it; `None` of ICMP errors.
    pub segment: Option<(Rc<Segment>, Option<usize>)>,
    /// Whether a bit was flipped: it must not be believed.
    pub corrupted: bool,
}

/// What is wrong with a direction now.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weather {
    /// Nothing passes.
    pub blackout: bool,
    /// Frames take so much longer.
    pub spike: Duration,
    /// Nothing random happens, so that progress can be demanded.
    pub clean: bool,
}

/// One direction of the path.
#[derive(Debug)]
pub struct Link {
    way: Way,
    chance: Chance,
    /// Largest packet, and whether nobody says so when one is larger.
    mtu: Option<(u16, bool)>,
    flying: BTreeMap<(Instant, u64), Flying>,
    /// Frames that wait for others to overtake them, and how many.
    displaced: Vec<((Instant, u64), u32)>,
    serial: u64,
    /// Frames since the burst of losses began that goes on now.
    in_burst: u32,
    /// Flows of which nothing passes any more, by their ports.
    forgotten: BTreeSet<(u16, u16)>,
    volley: Option<(u32, Instant)>,
    /// Flows of which a FIN was seen.
    closing: BTreeSet<(u16, u16)>,
    /// When the last bit of what was sent has left.
    busy_until: Instant,
    last_arrival: Instant,
}

impl Link {
    /// A direction that treats frames in this way.
    #[must_use]
    pub fn new(way: Way, chance: Chance, now: Instant) -> Link {
        Link {
            volley: way.volley.map(|(_, every)| (0, now + every)),
            way,
            chance,
            mtu: None,
            flying: BTreeMap::new(),
            displaced: Vec::new(),
            serial: 0,
            in_burst: 0,
            forgotten: BTreeSet::new(),
            closing: BTreeSet::new(),
            busy_until: now,
            last_arrival: now,
        }
    }

    /// From now on larger packets do not pass.
    pub fn shrink(&mut self, mtu: u16, silent: bool) {
        let smaller = self.mtu.is_none_or(|(now, _)| mtu < now);
        if smaller {
            self.mtu = Some((mtu, silent));
        }
    }

    /// Until everything that was sent has arrived.
    #[must_use]
    pub fn queued(&self, now: Instant) -> Duration {
        self.flying.last_key_value().map_or(Duration::ZERO, |(&(at, _), _)| at.since(now))
    }

    /// When the next frame arrives.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        self.flying.first_key_value().map(|(&(at, _), _)| at)
    }

    /// Takes the next frame that has arrived by `now`.
    pub fn take(&mut self, now: Instant) -> Option<(Instant, Flying)> {
        let first = self.flying.first_entry().filter(|first| first.key().0 <= now)?;
        let at = first.key().0;
        let flying = first.remove();
        if !self.displaced.is_empty() {
            self.displaced.retain(|(key, _)| key.0 > at);
        }
        Some((at, flying))
    }

    /// Sends a frame; the ICMP error that it draws, if it does.
    pub fn send(&mut self, now: Instant, mut flying: Flying, weather: Weather, counts: &mut Counts) -> Option<Vec<u8>> {
        if weather.blackout {
            return self.lose(now, &flying, "blackout", counts);
        }
        if let Some((mtu, silent)) = self.mtu.filter(|(mtu, _)| frame::packet_length(&flying.bytes) > (*mtu).into()) {
            counts.count("MTU change");
            counts.count(if silent { "silent MTU" } else { "ICMP too big" });
            trace::note(now, Fate::Lost("too big"), &flying);
            return (!silent && flying.segment.is_some()).then(|| frame::too_big(&flying.bytes, mtu));
        }
        if self.is_forgotten(&flying) {
            return self.lose(now, &flying, "forgotten flow", counts);
        }
        if !weather.clean {
            if self.is_lost(now, &flying, counts) {
                return None;
            }
            self.damage(&mut flying, counts);
        }
        let Some(depart) = self.depart(now, flying.bytes.len() as u64, weather.clean, counts) else {
            return self.lose(now, &flying, "overflow", counts);
        };
        self.arrive(depart + weather.spike, flying, weather.clean, counts);
        None
    }

    /// A frame comes in beside those that were sent.
    pub fn slip_in(&mut self, at: Instant, flying: Flying) {
        let late = self.chance.time(self.way.late);
        self.put(at + self.way.delay + late, flying);
    }

    fn lose(&mut self, now: Instant, flying: &Flying, why: &'static str, counts: &mut Counts) -> Option<Vec<u8>> {
        counts.count(why);
        trace::note(now, Fate::Lost(why), flying);
        None
    }

    /// Whether a frame is of a flow that is forgotten. A SYN or FIN still passes.
    fn is_forgotten(&mut self, flying: &Flying) -> bool {
        let Some((segment, _)) = flying.segment.as_ref().filter(|_| self.way.forgetting > 0) else { return false };
        let flow = (segment.source.port(), segment.destination.port());
        if self.forgotten.contains(&flow) {
            return true;
        }
        if (segment.flags.syn || segment.flags.fin) && self.chance.happens(self.way.forgetting) {
            self.forgotten.insert(flow);
        }
        false
    }

    /// Whether a frame is of a flow that has sent its FIN.
    fn is_closing(&mut self, flying: &Flying) -> bool {
        let Some((segment, _)) = flying.segment.as_ref() else { return false };
        let flow = (segment.source.port(), segment.destination.port());
        if segment.flags.syn {
            self.closing.remove(&flow);
        } else if segment.flags.fin {
            self.closing.insert(flow);
        }
        self.closing.contains(&flow)
    }

    fn is_lost(&mut self, now: Instant, flying: &Flying, counts: &mut Counts) -> bool {
        if let Some(burst) = self.way.burst {
            let odds = if self.in_burst > 0 { 10_000 - burst.ends } else { burst.begins };
            let goes_on = self.chance.happens(odds) && self.in_burst < LONGEST_BURST;
            self.in_burst = if goes_on { self.in_burst + 1 } else { 0 };
            if goes_on && self.chance.happens(burst.loss) {
                self.lose(now, flying, "burst loss", counts);
                return true;
            }
        }
        let odds = if self.is_closing(flying) { CLOSING * self.way.loss } else { self.way.loss };
        if self.is_volley(now, flying) || self.chance.happens(odds) {
            self.lose(now, flying, "loss", counts);
            return true;
        }
        false
    }

    /// Whether a frame with payload falls to the volley that is due.
    fn is_volley(&mut self, now: Instant, flying: &Flying) -> bool {
        let carries = flying.segment.as_ref().is_some_and(|(segment, _)| segment.length > 0);
        let (Some((frames, every)), Some((left, next))) = (self.way.volley, &mut self.volley) else { return false };
        if now >= *next {
            *next += every;
            *left = frames;
        }
        let falls = carries && *left > 0;
        *left -= u32::from(falls);
        falls
    }

    fn damage(&mut self, flying: &mut Flying, counts: &mut Counts) {
        let Some((segment, _)) = flying.segment.clone() else { return };
        if self.chance.happens(self.way.mark) && frame::mark(&mut flying.bytes, &segment) {
            counts.count("mark");
        }
        if self.chance.happens(self.way.reneging) && frame::renege(&mut flying.bytes, &segment) {
            counts.count("reneging");
        }
        if self.chance.happens(self.way.corruption) {
            flying.corrupted = frame::flip(&mut flying.bytes, self.chance.draw());
            counts.count("corruption");
        }
    }

    /// When a frame has left the queue; `None`: it had no room in it. In clean weather nothing holds it up.
    fn depart(&mut self, now: Instant, length: u64, clean: bool, counts: &mut Counts) -> Option<Instant> {
        let Some((rate, room)) = self.way.rate.filter(|_| !clean) else { return Some(now) };
        let waits = self.busy_until.since(now);
        let queued = waits.as_nanos() as u64 / 1000 * rate / 1_000_000;
        if queued + length > room.max(length) {
            return None;
        }
        if queued > length {
            counts.count("queueing");
        }
        self.busy_until = self.busy_until.max(now) + Duration::from_nanos(length * 1_000_000_000 / rate);
        Some(self.busy_until)
    }

    fn arrive(&mut self, depart: Instant, flying: Flying, clean: bool, counts: &mut Counts) {
        let jitter = if clean { Duration::ZERO } else { self.chance.time(self.way.jitter) };
        if !jitter.is_zero() {
            counts.count("jitter");
        }
        let in_order = (depart + self.way.delay + jitter).max(self.last_arrival);
        self.let_overtake(in_order);
        let odds = if self.is_closing(&flying) { CLOSING * self.way.duplication } else { self.way.duplication };
        if !clean && self.chance.happens(odds) {
            counts.count("duplication");
            trace::note(in_order, Fate::Twice, &flying);
            let late = self.chance.time(self.way.late);
            self.put(in_order + late, flying.clone());
        }
        if !clean && self.chance.happens(self.way.displacement) {
            counts.count("displacement");
            let places = self.chance.between(1, self.way.places.max(1).into()) as u32;
            // Should nothing follow, it arrives late all the same.
            let key = self.put(in_order + self.way.delay + Duration::from_millis(2), flying);
            self.displaced.push((key, places));
        } else if !clean && self.chance.happens(self.way.reordering) {
            counts.count("reordering");
            let late = self.chance.time(self.way.late);
            self.put(in_order + late, flying);
        } else {
            self.last_arrival = in_order;
            self.put(in_order, flying);
        }
    }

    fn put(&mut self, at: Instant, flying: Flying) -> (Instant, u64) {
        self.serial += 1;
        self.flying.insert((at, self.serial), flying);
        (at, self.serial)
    }

    /// One more frame overtakes those that are displaced; whoever was overtaken by enough arrives before it.
    fn let_overtake(&mut self, at: Instant) {
        let mut free = Vec::new();
        self.displaced.retain_mut(|(key, places)| {
            *places -= 1;
            let stays = *places > 0;
            free.extend((!stays).then_some(*key));
            stays
        });
        for key in free {
            if let Some(flying) = self.flying.remove(&key) {
                self.put(at.min(key.0), flying);
            }
        }
    }
}
