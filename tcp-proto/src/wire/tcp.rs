//! The TCP header and its options (RFC 9293 sections 3.1 and 3.2, RFC 7323 sections 2.2 and 3.2, RFC 2018).

use core::fmt;

use tcp_common::headers::MAX_WINDOW_SCALE;

use super::{be16, be32};
use crate::drops::DropReason;
use crate::seq::{SeqNum, Span};

/// Length of a TCP header without options, bytes.
pub(crate) const HEADER: usize = 20;

/// Control bits of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Flags(pub(crate) u8);

impl Flags {
    pub(crate) const FIN: Flags = Flags(0x01);
    pub(crate) const SYN: Flags = Flags(0x02);
    pub(crate) const RST: Flags = Flags(0x04);
    pub(crate) const PSH: Flags = Flags(0x08);
    pub(crate) const ACK: Flags = Flags(0x10);
    pub(crate) const URG: Flags = Flags(0x20);
    pub(crate) const ECE: Flags = Flags(0x40);
    pub(crate) const CWR: Flags = Flags(0x80);

    /// Whether every bit of `other` is set.
    pub(crate) const fn has(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    /// These bits and those of `other`.
    pub(crate) const fn with(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }

    /// These bits without those of `other`.
    pub(crate) const fn without(self, other: Flags) -> Flags {
        Flags(self.0 & !other.0)
    }

    /// `self` if `condition` holds, else nothing.
    pub(crate) const fn when(self, condition: bool) -> Flags {
        if condition { self } else { Flags(0) }
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names =
            [("FIN", 1), ("SYN", 2), ("RST", 4), ("PSH", 8), ("ACK", 16), ("URG", 32), ("ECE", 64), ("CWR", 128)];
        let mut first = true;
        for (name, bit) in names {
            if self.0 & bit != 0 {
                write!(f, "{}{name}", if first { "" } else { "," })?;
                first = false;
            }
        }
        if first { write!(f, "none") } else { Ok(()) }
    }
}

/// The timestamps option. RFC 7323 section 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Timestamps {
    /// TSval: the sender's clock.
    pub(crate) value: u32,
    /// TSecr: the clock value that the sender saw last.
    pub(crate) echo: u32,
}

/// The blocks of a SACK option, in the order in which they were reported (RFC 2018 section 3).
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct SackBlocks {
    spans: [Span; MAX_SACK_BLOCKS],
    count: u8,
}

/// SACK blocks that an option list has room for, at most.
pub(crate) const MAX_SACK_BLOCKS: usize = 4;

impl SackBlocks {
    /// Adds a block, if there is room.
    pub(crate) fn push(&mut self, span: Span) {
        if let Some(free) = self.spans.get_mut(usize::from(self.count)) {
            *free = span;
            self.count += 1;
        }
    }

    pub(crate) fn as_slice(&self) -> &[Span] {
        &self.spans[..usize::from(self.count)]
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Length of the option with two NOPs before it, bytes.
    fn length(&self) -> usize {
        sack_length(usize::from(self.count))
    }

    fn parse(body: &[u8]) -> SackBlocks {
        let mut blocks = SackBlocks::default();
        for block in body.chunks_exact(8) {
            if let Some((start, end)) = be32(block, 0).zip(be32(block, 4)) {
                blocks.push(Span { start: SeqNum(start), end: SeqNum(end) });
            }
        }
        blocks
    }
}

impl fmt::Debug for SackBlocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.as_slice()).finish()
    }
}

/// The options we understand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// Maximum segment size, bytes; only on SYN.
    pub(crate) mss: Option<u16>,
    /// Window scale; only on SYN. Above 14 it counts as 14 (RFC 7323 section 2.3).
    pub(crate) window_scale: Option<u8>,
    /// SACK-permitted; only on SYN.
    pub(crate) sack_permitted: bool,
    /// Timestamps.
    pub(crate) timestamps: Option<Timestamps>,
    /// SACK blocks.
    pub(crate) sacks: SackBlocks,
}

const END: u8 = 0;
const NOP: u8 = 1;
const MSS: u8 = 2;
const WINDOW_SCALE: u8 = 3;
const SACK_PERMITTED: u8 = 4;
const SACK: u8 = 5;
const TIMESTAMPS: u8 = 8;

impl Options {
    /// Reads an option list. Unknown options are skipped by their length; a length that can't be
    /// ends the list (MUST-5, MUST-6, MUST-7): what came before it counts.
    //= docs/rfc/rfc9293.md#MUST-4
    //= docs/rfc/rfc9293.md#MUST-5
    //= docs/rfc/rfc9293.md#MUST-6
    //= docs/rfc/rfc9293.md#MUST-7
    //= docs/rfc/rfc9293.md#MUST-64
    pub(crate) fn parse(mut list: &[u8]) -> Options {
        let mut options = Options::default();
        while let Some((&kind, rest)) = list.split_first() {
            match kind {
                END => break,
                NOP => list = rest,
                _ => match Self::body(list) {
                    Some(body) => {
                        options.read(kind, body);
                        list = &list[body.len() + 2..];
                    }
                    None => break,
                },
            }
        }
        options
    }

    fn body(list: &[u8]) -> Option<&[u8]> {
        let length = usize::from(*list.get(1)?);
        list.get(2..length)
    }

    //= docs/rfc/rfc7323.md#2.3-limit
    fn read(&mut self, kind: u8, body: &[u8]) {
        match (kind, body.len()) {
            (MSS, 2) => self.mss = be16(body, 0),
            (WINDOW_SCALE, 1) => self.window_scale = Some(body[0].min(MAX_WINDOW_SCALE)),
            (TIMESTAMPS, 8) => {
                self.timestamps = be32(body, 0).zip(be32(body, 4)).map(|(value, echo)| Timestamps { value, echo });
            }
            (SACK_PERMITTED, 0) => self.sack_permitted = true,
            (SACK, length) if length % 8 == 0 => self.sacks = SackBlocks::parse(body),
            _ => {}
        }
    }

    /// Length of these options as [`Options::write`] lays them out, bytes: a multiple of 4.
    pub(crate) fn length(&self) -> usize {
        let mss = if self.mss.is_some() { 4 } else { 0 };
        let window_scale = if self.window_scale.is_some() { 4 } else { 0 };
        let timestamps = if self.timestamps.is_some() { TIMESTAMPS_LENGTH } else { 0 };
        mss + window_scale + timestamps + self.sack_permitted_length() + self.sacks.length()
    }

    /// SACK-permitted takes the place of the padding before timestamps.
    fn sack_permitted_length(&self) -> usize {
        if self.sack_permitted && self.timestamps.is_none() { 4 } else { 0 }
    }

    /// Writes the options, each padded with NOPs to whole words, into [`Options::length`] bytes.
    //= docs/rfc/rfc2018.md#3-format
    pub(crate) fn write(&self, mut out: &mut [u8]) {
        let mut put = |bytes: &[u8]| {
            let (head, tail) = core::mem::take(&mut out).split_at_mut(bytes.len());
            head.copy_from_slice(bytes);
            out = tail;
        };
        if let Some(mss) = self.mss {
            put(&[MSS, 4]);
            put(&mss.to_be_bytes());
        }
        if let Some(shift) = self.window_scale {
            put(&[NOP, WINDOW_SCALE, 3, shift]);
        }
        let padding = if self.sack_permitted { [SACK_PERMITTED, 2] } else { [NOP, NOP] };
        if self.sack_permitted && self.timestamps.is_none() {
            put(&[NOP, NOP, SACK_PERMITTED, 2]);
        }
        if let Some(timestamps) = self.timestamps {
            put(&padding);
            put(&[TIMESTAMPS, 10]);
            put(&timestamps.value.to_be_bytes());
            put(&timestamps.echo.to_be_bytes());
        }
        if !self.sacks.is_empty() {
            put(&[NOP, NOP, SACK, 2 + 8 * self.sacks.count]);
        }
        for span in self.sacks.as_slice() {
            put(&span.start.0.to_be_bytes());
            put(&span.end.0.to_be_bytes());
        }
    }
}

/// Bytes that timestamps take from every segment.
pub(crate) const TIMESTAMPS_LENGTH: usize = 12;
/// Bytes that a SACK option with so many blocks takes.
pub(crate) const fn sack_length(blocks: usize) -> usize {
    if blocks == 0 { 0 } else { 4 + 8 * blocks }
}

/// A segment, its numbers in the RFC's terms.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment<'a> {
    /// SEG.SEQ.
    pub(crate) seq: SeqNum,
    /// SEG.ACK; means something only with the ACK bit.
    pub(crate) ack: SeqNum,
    pub(crate) flags: Flags,
    /// Whether a router marked it: congestion experienced (RFC 3168 section 5).
    pub(crate) ce: bool,
    /// SEG.WND, as on the wire (not scaled).
    pub(crate) window: u16,
    /// The octet after the urgent data; `None` without URG.
    pub(crate) urgent: Option<SeqNum>,
    pub(crate) options: Options,
    pub(crate) payload: &'a [u8],
}

impl<'a> Segment<'a> {
    /// Reads a segment from a TCP header and what follows it.
    //= docs/rfc/rfc9293.md#MUST-62
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, DropReason> {
        let header = bytes.first_chunk::<HEADER>().ok_or(DropReason::BadHeader)?;
        let length = usize::from(header[12] >> 4) * 4;
        let list = bytes.get(HEADER..length).ok_or(DropReason::BadHeader)?;
        let (seq, flags) = (SeqNum(be32(header, 4).unwrap_or_default()), Flags(header[13]));
        let pointer = be16(header, 18).filter(|_| flags.has(Flags::URG));
        Ok(Segment {
            seq,
            ack: SeqNum(be32(header, 8).unwrap_or_default()),
            flags,
            ce: false,
            window: be16(header, 14).unwrap_or_default(),
            urgent: pointer.map(|pointer| seq + u32::from(pointer)),
            options: Options::parse(list),
            payload: &bytes[length..],
        })
    }

    /// SEG.LEN: payload, SYN and FIN.
    pub(crate) fn length(&self) -> u32 {
        self.payload.len() as u32 + u32::from(self.syn()) + u32::from(self.fin())
    }

    /// The sequence number after the segment.
    pub(crate) fn end(&self) -> SeqNum {
        self.seq + self.length()
    }

    pub(crate) fn syn(&self) -> bool {
        self.flags.has(Flags::SYN)
    }
    pub(crate) fn fin(&self) -> bool {
        self.flags.has(Flags::FIN)
    }
    pub(crate) fn rst(&self) -> bool {
        self.flags.has(Flags::RST)
    }
    pub(crate) fn has_ack(&self) -> bool {
        self.flags.has(Flags::ACK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    //= docs/rfc/rfc9293.md#MUST-4
    //= docs/rfc/rfc9293.md#MUST-64
    #[test]
    fn options_are_read_on_any_alignment() {
        for pad in 0..4 {
            let mut list = [NOP; 24];
            list[pad..pad + 4].copy_from_slice(&[2, 4, 5, 0xb4]);
            list[pad + 4..pad + 7].copy_from_slice(&[3, 3, 7]);
            list[pad + 7..pad + 17].copy_from_slice(&[8, 10, 0, 0, 0, 1, 0, 0, 0, 2]);
            let options = Options::parse(&list);
            assert_eq!((options.mss, options.window_scale), (Some(1460), Some(7)), "{pad} bytes of padding");
            assert_eq!(options.timestamps, Some(Timestamps { value: 1, echo: 2 }));
        }
    }

    //= docs/rfc/rfc9293.md#MUST-4
    //= docs/rfc/rfc9293.md#MUST-6
    #[test]
    fn unknown_options_are_skipped_by_their_length() {
        for kind in [9u8, 28, 69, 253, 254] {
            for length in 2..=34u8 {
                let mut list = [0xaau8; 40];
                list[0] = kind;
                list[1] = length;
                list[usize::from(length)..][..4].copy_from_slice(&[2, 4, 1, 2]);
                list[usize::from(length) + 4] = END;
                assert_eq!(Options::parse(&list).mss, Some(0x102), "kind {kind} length {length}");
            }
        }
    }

    //= docs/rfc/rfc9293.md#MUST-4
    //= docs/rfc/rfc9293.md#MUST-69
    #[test]
    fn what_follows_the_end_of_the_list_is_ignored() {
        assert_eq!(Options::parse(&[NOP, END, MSS, 4, 5, 0xb4, NOP, NOP]), Options::default());
    }

    //= docs/rfc/rfc9293.md#MUST-7
    #[test]
    fn an_impossible_length_ends_the_list_and_keeps_what_came_before() {
        for bad in [&[9u8, 0][..], &[9, 1], &[9, 9, 0], &[9], &[2, 3, 5], &[2, 5, 1, 2, 3]] {
            let mut list = [2u8, 4, 5, 0xb4].to_vec();
            list.extend_from_slice(bad);
            assert_eq!(Options::parse(&list).mss, Some(1460), "{bad:?}");
        }
        for length in [0, 1, 41] {
            let list = [9, length, 3, 3, 7, 1];
            assert_eq!(Options::parse(&list), Options::default(), "length {length}: where the next begins is unknown");
        }
    }

    //= docs/rfc/rfc9293.md#MUST-68
    //= docs/rfc/rfc9293.md#MUST-69
    #[test]
    fn what_is_written_is_read_back() {
        let timestamps = Some(Timestamps { value: 7, echo: 8 });
        let of_syn = Options { mss: Some(1460), window_scale: Some(9), sack_permitted: true, ..Options::default() };
        let mut sacks = SackBlocks::default();
        for start in [100, 300, 500] {
            sacks.push(Span { start: SeqNum(start), end: SeqNum(start + 50) });
        }
        let cases = [
            (Options { timestamps, ..of_syn }, 20),
            (of_syn, 12),
            (Options { timestamps, sacks, ..Options::default() }, 40),
            (Options { sacks, ..Options::default() }, 28),
        ];
        for (options, length) in cases {
            let mut bytes = [0u8; 44];
            assert_eq!(options.length(), length, "{options:?}");
            options.write(&mut bytes[..length]);
            assert_eq!(Options::parse(&bytes[..length]), options);
            bytes[length..][..4].copy_from_slice(&[MSS, 4, 1, 2]);
            assert_eq!(Options::parse(&bytes).mss, Some(0x102), "no end before the header's, so nothing behind one");
        }
    }

    #[test]
    fn a_sack_option_that_is_no_list_of_blocks_is_skipped() {
        for length in [2u8, 9, 11, 17] {
            let mut list = [7u8; 40];
            (list[0], list[1]) = (SACK, length);
            list[usize::from(length)..][..4].copy_from_slice(&[2, 4, 1, 2]);
            let options = Options::parse(&list);
            assert_eq!((options.sacks.is_empty(), options.mss), (true, Some(0x102)), "length {length}");
        }
    }

    #[test]
    fn a_header_length_below_five_words_or_past_the_end_is_refused() {
        let mut bytes = [0u8; 24];
        for (words, good) in [(4, false), (5, true), (6, true), (7, false)] {
            bytes[12] = words << 4;
            assert_eq!(Segment::parse(&bytes).is_ok(), good, "{words} words");
        }
        assert!(Segment::parse(&bytes[..19]).is_err());
    }
}
