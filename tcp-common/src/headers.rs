//! The headers of one segment, copied out of its frame: checksums (RFC 9293 section 3.1), fields, and the options of
//! a SYN (section 3.2, RFC 7323, RFC 2018).
//!
//! A copy has a size that does not depend on the segment and zeros behind the header's end, so that it can be summed
//! and searched without a bound that the verifier would have to be shown.

use crate::layout::ConnectionKey;
use crate::packet::{Frame, Place};

/// Longest IPv4 or TCP header, bytes.
pub const MAX_HEADER: usize = 60;
/// Room of a copy of a TCP header: what an option says of its length may lead behind the header, but not behind this.
const ROOM: usize = MAX_HEADER + 20;
/// TCP header without options, bytes.
const FIXED: usize = 20;
/// Most bytes of options, and most steps that a walk through them takes.
pub const MAX_OPTIONS: usize = MAX_HEADER - FIXED;

const END: u8 = 0;
const NOP: u8 = 1;
const MSS: u8 = 2;
const WINDOW_SCALE: u8 = 3;
const SACK_PERMITTED: u8 = 4;
const TIMESTAMPS: u8 = 8;

/// Largest shift of a window (RFC 7323 section 2.3).
pub const MAX_WINDOW_SCALE: u8 = 14;

/// What a checksum says.
///
/// No `bool`: with one the compiler keeps more of the sums on BPF's stack, of which there is just enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sums {
    /// Both are right.
    Right,
    /// One is wrong.
    Wrong,
}

/// MSS of a peer that does not say one, bytes (RFC 9293 section 3.7.1).
//= docs/rfc/rfc9293.md#MUST-15
#[must_use]
#[inline(always)]
pub fn default_mss(key: &ConnectionKey) -> u16 {
    if key.is_ipv4() { 536 } else { 1220 }
}

/// Copies of the headers of a segment.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
pub struct Headers {
    ip: [u8; MAX_HEADER + 4],
    tcp: [u8; ROOM],
    /// The options, once they were read.
    pub options: Options,
}

impl Default for Headers {
    fn default() -> Self {
        Headers { ip: [0; MAX_HEADER + 4], tcp: [0; ROOM], options: Options::default() }
    }
}

impl Headers {
    /// Copies the headers of the segment at `place`; `false`: the frame has not got them.
    #[inline(always)]
    pub fn take<F: Frame + ?Sized>(&mut self, frame: &F, place: &Place) -> bool {
        self.ip = [0; MAX_HEADER + 4];
        self.tcp = [0; ROOM];
        // An IPv6 header has no checksum.
        let has_ip = place.ip_header == 0 || frame.copy(place.ip.into(), place.ip_header.into(), &mut self.ip);
        has_ip && frame.copy(place.tcp.into(), place.header.into(), &mut self.tcp)
    }

    /// Verifies the checksums of the IPv4 header and of a segment without payload. `accept_partial`: a sum over the
    /// pseudo-header alone, not inverted, passes, too.
    //= docs/rfc/rfc9293.md#MUST-3
    #[inline(always)]
    pub fn sums(&self, key: &ConnectionKey, place: &Place, accept_partial: bool) -> Sums {
        let pseudo = pseudo_header(key, place.length);
        let tcp = fold(pseudo + sum(&self.tcp));
        let ip = fold(sum(&self.ip));
        let partial = accept_partial && fold(pseudo) == u16::from_ne_bytes([self.tcp[16], self.tcp[17]]);
        let ip_is_right = place.ip_header == 0 || ip == 0xffff;
        if ip_is_right && (tcp == 0xffff || partial) { Sums::Right } else { Sums::Wrong }
    }

    /// SEG.SEQ.
    #[inline(always)]
    pub fn seq(&self) -> u32 {
        u32::from_be_bytes([self.tcp[4], self.tcp[5], self.tcp[6], self.tcp[7]])
    }

    /// SEG.ACK.
    #[inline(always)]
    pub fn ack(&self) -> u32 {
        u32::from_be_bytes([self.tcp[8], self.tcp[9], self.tcp[10], self.tcp[11]])
    }

    /// A walk through the options of a TCP header of `header` bytes.
    #[inline(always)]
    pub fn walk(&self, header: u16) -> Walk<'_> {
        Walk { tcp: &self.tcp, at: FIXED, end: header.into(), found: Options::default() }
    }
}

/// The options that negotiate something, and timestamps.
///
/// Numbers and bits of which are there, not `Option`s: those would be copied as words at odd places of BPF's stack, which
/// the verifier refuses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Options {
    value: u32,
    echo: u32,
    mss: u16,
    window_scale: u8,
    present: u8,
    pad: u32,
}

const HAS_MSS: u8 = 1;
const HAS_WINDOW_SCALE: u8 = 2;
const HAS_SACK_PERMITTED: u8 = 4;
const HAS_TIMESTAMPS: u8 = 8;

impl Options {
    /// Maximum segment size, bytes.
    #[must_use]
    #[inline(always)]
    pub fn mss(&self) -> Option<u16> {
        if self.present & HAS_MSS != 0 { Some(self.mss) } else { None }
    }

    /// Window scale, 0 to 14.
    #[must_use]
    #[inline(always)]
    pub fn window_scale(&self) -> Option<u8> {
        if self.present & HAS_WINDOW_SCALE != 0 { Some(self.window_scale) } else { None }
    }

    /// SACK-permitted.
    #[must_use]
    #[inline(always)]
    pub fn sack_permitted(&self) -> bool {
        self.present & HAS_SACK_PERMITTED != 0
    }

    /// TSval and TSecr.
    #[must_use]
    #[inline(always)]
    pub fn timestamps(&self) -> Option<(u32, u32)> {
        if self.present & HAS_TIMESTAMPS != 0 { Some((self.value, self.echo)) } else { None }
    }

    #[inline(always)]
    fn read(&mut self, kind: u8, length: usize, body: &[u8; 8]) {
        match (kind, length) {
            (MSS, 4) => {
                self.mss = u16::from_be_bytes([body[0], body[1]]);
                self.present |= HAS_MSS;
            }
            (WINDOW_SCALE, 3) => {
                self.window_scale = if body[0] > MAX_WINDOW_SCALE { MAX_WINDOW_SCALE } else { body[0] };
                self.present |= HAS_WINDOW_SCALE;
            }
            (SACK_PERMITTED, 2) => self.present |= HAS_SACK_PERMITTED,
            (TIMESTAMPS, 10) => {
                self.value = u32::from_be_bytes([body[0], body[1], body[2], body[3]]);
                self.echo = u32::from_be_bytes([body[4], body[5], body[6], body[7]]);
                self.present |= HAS_TIMESTAMPS;
            }
            _ => {}
        }
    }
}

/// Something done again and again until it says that it is done. A trait and not a closure: the kernel calls it by
/// its address.
pub trait Step {
    /// One step; `true`: it was the last.
    fn step(&mut self) -> bool;
}

/// A walk through a list of options, an option a step. At most [`MAX_OPTIONS`] steps are needed.
///
/// Options that are not known are skipped by their length; a length that can't be ends the walk, and what came before
/// it counts (RFC 9293 MUST-5 to MUST-7).
#[derive(Debug)]
pub struct Walk<'a> {
    tcp: &'a [u8; ROOM],
    at: usize,
    /// Where the header ends.
    end: usize,
    /// What was found so far.
    pub found: Options,
}

impl Step for Walk<'_> {
    //= docs/rfc/rfc9293.md#MUST-5
    //= docs/rfc/rfc9293.md#MUST-6
    //= docs/rfc/rfc9293.md#MUST-7
    #[inline(always)]
    fn step(&mut self) -> bool {
        let at = core::hint::black_box(self.at);
        if at >= MAX_HEADER || at >= self.end {
            return true;
        }
        let Some(option) = self.tcp.get(at..).and_then(|rest| rest.first_chunk::<10>()) else { return true };
        let [kind, length, ref body @ ..] = *option;
        let length = usize::from(length);
        match kind {
            END => return true,
            NOP => self.at = at + 1,
            _ if length < 2 || at + length > self.end => return true,
            _ => {
                self.found.read(kind, length, body);
                self.at = at + length;
            }
        }
        false
    }
}

/// The ones' complement sum of the pseudo-header, not folded (RFC 9293 section 3.1, RFC 8200 section 8.1). A mapped
/// IPv4 address sums to the same as its four bytes: `ffff` adds nothing.
#[inline(always)]
pub(crate) fn pseudo_header(key: &ConnectionKey, length: u16) -> u64 {
    const PROTOCOL: u16 = 6;
    let rest = u64::from(PROTOCOL.to_be()) + u64::from(length.to_be());
    sum(&key.local_addr) + sum(&key.remote_addr) + rest
}

/// The sum of the words of `bytes` (a multiple of four of them) in the machine's order: ones' complement sums come out
/// right in either (RFC 1071).
#[inline(always)]
pub(crate) fn sum<const N: usize>(bytes: &[u8; N]) -> u64 {
    let mut sum = 0;
    let mut at = 0;
    while at + 4 <= N {
        sum += u64::from(u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]));
        at += 4;
    }
    sum
}

/// Folds a sum to 16 bits, in the machine's order.
#[inline(always)]
pub(crate) fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use proptest::prelude::*;

    use super::*;
    use crate::cases::frames::SegmentFrame;
    use crate::cases::world::{MemoryMaps, World};
    use crate::decide::decide;

    /// What a reader finds who takes the list apart with slices: MSS, window scale, SACK-permitted, timestamps.
    type Found = (Option<u16>, Option<u8>, bool, Option<(u32, u32)>);

    fn naive(mut list: &[u8]) -> Found {
        let mut found = (None, None, false, None);
        loop {
            let (option, rest) = match list {
                [] | [0, ..] => return found,
                [1, rest @ ..] => (&list[..1], rest),
                [_, length, ..] if *length >= 2 && usize::from(*length) <= list.len() => {
                    list.split_at((*length).into())
                }
                _ => return found,
            };
            match option {
                [2, 4, a, b] => found.0 = Some(u16::from_be_bytes([*a, *b])),
                [3, 3, shift] => found.1 = Some(*shift.min(&14)),
                [4, 2] => found.2 = true,
                [8, 10, a, b, c, d, e, f, g, h] => {
                    found.3 = Some((u32::from_be_bytes([*a, *b, *c, *d]), u32::from_be_bytes([*e, *f, *g, *h])));
                }
                _ => {}
            }
            list = rest;
        }
    }

    /// What the walk finds in a SYN with this list.
    fn walked(list: &[u8]) -> Found {
        let frame = SegmentFrame::v4(7, "S").stray().with_list(list).with_payload(&[8, 10, 2, 4, 5, 6]).build();
        let (world, mut key, mut headers) = (World::default(), ConnectionKey::default(), Headers::default());
        let place = decide(frame.as_slice(), &MemoryMaps::new(&world), &mut key).place;
        assert!(headers.take(frame.as_slice(), &place));
        let mut walk = headers.walk(place.header);
        assert!((0..MAX_OPTIONS + 1).any(|_| walk.step()), "it ends");
        let found = walk.found;
        (found.mss(), found.window_scale(), found.sack_permitted(), found.timestamps())
    }

    /// An option as it should be, or with another length, or not an option at all.
    fn option() -> impl Strategy<Value = Vec<u8>> {
        let known = prop::sample::select(&[(1, 0), (0, 0), (2, 4), (3, 3), (4, 2), (8, 10), (5, 10), (254, 6)][..]);
        let right = (known, any::<[u8; 8]>()).prop_map(|((kind, length), body)| {
            let option = [&[kind, length][..], &body].concat();
            option[..usize::from(length).max(1)].to_vec()
        });
        let wrong = (0..9_u8, 0..45_u8).prop_map(|(kind, length)| [kind, length].into());
        prop_oneof![6 => right, 1 => wrong, 1 => prop::collection::vec(any::<u8>(), 0..5)]
    }

    proptest! {
        #[test]
        fn the_walk_finds_what_a_reader_finds(options in prop::collection::vec(option(), 0..12)) {
            let mut list = options.concat();
            list.truncate(MAX_OPTIONS);
            list.resize(list.len().next_multiple_of(4), 0);
            prop_assert_eq!(walked(&list), naive(&list), "{:?}", list);
        }

        /// Any list without a byte to pad it: an option may be cut off by the header's end.
        #[test]
        fn the_walk_stays_within_the_header(words in prop::collection::vec(any::<[u8; 4]>(), 0..=10)) {
            let list = words.concat();
            prop_assert_eq!(walked(&list), naive(&list), "{:?}", list);
        }
    }

    #[test]
    fn forty_fillers_take_no_more_steps_than_there_are() {
        assert_eq!(walked(&[1; 40]), (None, None, false, None));
        let mut list = [1; 40];
        list[36..].copy_from_slice(&[2, 4, 5, 180]);
        assert_eq!(walked(&list).0, Some(1460));
    }
}
