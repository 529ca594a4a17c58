//! The peer: keeps what it said, so that what the stack claims to have heard can be compared with it. Its stream is a
//! function of sequence numbers, so that however often and in whatever pieces it says something, it says the same.

use super::setup::Offers;
use crate::frames::{self, Segment};

/// Where the peer's clock begins: shortly before it wraps.
const CLOCK: u32 = u32::MAX - 5000;

pub const FIN: u8 = 1;
pub const SYN: u8 = 2;
pub const RST: u8 = 4;
pub const ACK: u8 = 16;
pub const ECE: u8 = 64;

/// A segment that was said: octets from `start` on.
#[derive(Clone, Copy, Debug)]
struct Said {
    start: u32,
    length: u32,
    syn: bool,
    fin: bool,
}

#[derive(Clone, Debug)]
pub struct Peer {
    pub offers: Offers,
    /// The number of its next SYN.
    pub isn: u32,
    said: Vec<Said>,
    /// Every clock value that it showed; the latest is the last.
    clocks: Vec<u32>,
    latest: u32,
    /// The furthest right edge that it offered to the stack's present connection.
    pub edge: Option<u32>,
    /// Whether a SYN of its offered ECN.
    pub offered_ecn: bool,
}

/// The octet of the peer's stream with this number.
pub fn octet(seq: u32) -> u8 {
    (seq.wrapping_mul(2_654_435_761) >> 24) as u8
}

impl Peer {
    pub fn new(offers: Offers, isn: u32) -> Peer {
        Peer { offers, isn, said: Vec::new(), clocks: Vec::new(), latest: CLOCK, edge: None, offered_ecn: false }
    }

    /// Its clock, `elapsed` ms after the beginning: never behind what it showed.
    pub fn clock(&self, elapsed: u64) -> u32 {
        let clock = CLOCK.wrapping_add(elapsed as u32);
        if clock.wrapping_sub(self.latest) as i32 > 0 { clock } else { self.latest }
    }

    /// Says a segment: from here on it counts as said.
    pub fn says(&mut self, segment: &Segment, clock: Option<u32>) {
        let (syn, fin) = (segment.flags & SYN != 0, segment.flags & FIN != 0);
        let length = segment.payload.len() as u32 + u32::from(syn) + u32::from(fin);
        self.offered_ecn |= syn && segment.flags & ECE != 0;
        self.said.push(Said { start: segment.seq, length, syn, fin });
        if let Some(clock) = clock {
            self.clocks.push(clock);
            self.latest = if clock.wrapping_sub(self.latest) as i32 > 0 { clock } else { self.latest };
        }
    }

    pub fn showed(&self, clock: u32) -> bool {
        self.clocks.contains(&clock)
    }

    /// Whether it said all octets from a SYN of its own up to before `ack`.
    pub fn said_up_to(&self, ack: u32) -> bool {
        self.said.iter().filter(|said| said.syn).any(|syn| self.said_all(syn.start, ack))
    }

    /// Whether it said all octets from `start` up to before `end`.
    pub fn said_all(&self, start: u32, end: u32) -> bool {
        let length = end.wrapping_sub(start);
        let mut reached = 0;
        while reached < length && length < 1 << 31 {
            // The end of a segment that begins at or before what is reached, if it reaches further.
            let further = |said: &Said| {
                let from = start.wrapping_sub(said.start).wrapping_add(reached);
                (from < said.length).then(|| reached + (said.length - from))
            };
            match self.said.iter().filter_map(further).max() {
                Some(next) => reached = next,
                None => return false,
            }
        }
        length < 1 << 31
    }

    /// Whether one of its SYNs had this number.
    pub fn said_syn(&self, seq: u32) -> bool {
        self.said.iter().any(|said| said.syn && said.start == seq)
    }

    /// Whether one of its FINs had a number from `first` to `last`. (Whoever says more after a FIN contradicts itself.)
    pub fn said_fin(&self, first: u32, last: u32) -> bool {
        let at = |said: &Said| said.start.wrapping_add(said.length).wrapping_sub(1);
        self.said.iter().any(|said| said.fin && at(said).wrapping_sub(first) <= last.wrapping_sub(first))
    }

    /// Options of a segment: those of a SYN, timestamps, reports.
    pub fn options(&self, syn: bool, timestamps: Option<(u32, u32)>, sacks: &[(u32, u32)]) -> Vec<u8> {
        let mut list = Vec::new();
        if syn {
            list.extend(self.offers.mss.into_iter().flat_map(|mss| [2, 4, (mss >> 8) as u8, mss as u8]));
            list.extend(self.offers.scale.into_iter().flat_map(|scale| [1, 3, 3, scale]));
            list.extend(self.offers.sack.then_some([1, 1, 4, 2]).into_iter().flatten());
        }
        if let Some((value, echo)) = timestamps {
            list.extend([1, 1, 8, 10]);
            list.extend(value.to_be_bytes());
            list.extend(echo.to_be_bytes());
        }
        let room = (40 - list.len()).saturating_sub(4) / 8;
        let sacks = &sacks[..sacks.len().min(room)];
        if !sacks.is_empty() {
            list.extend([1, 1, 5, 2 + 8 * sacks.len() as u8]);
            list.extend(sacks.iter().flat_map(|(start, end)| [start.to_be_bytes(), end.to_be_bytes()]).flatten());
        }
        frames::pad_options(&list)
    }
}

/// So many octets of the peer's stream.
pub fn stream(seq: u32, length: usize) -> Vec<u8> {
    (0..length as u32).map(|offset| octet(seq.wrapping_add(offset))).collect()
}
