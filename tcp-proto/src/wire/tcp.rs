//! The TCP header and its options (RFC 9293 sections 3.1 and 3.2, RFC 7323 sections 2.2 and 3.2).

use core::fmt;

use super::{be16, be32};
use crate::drops::DropReason;
use crate::seq::SeqNum;

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

/// The options we understand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// Maximum segment size, bytes; only on SYN.
    pub(crate) mss: Option<u16>,
    /// Window scale; only on SYN. Above 14 it counts as 14 (RFC 7323 section 2.3).
    pub(crate) window_scale: Option<u8>,
    /// Timestamps.
    pub(crate) timestamps: Option<Timestamps>,
}

const END: u8 = 0;
const NOP: u8 = 1;
const MSS: u8 = 2;
const WINDOW_SCALE: u8 = 3;
const TIMESTAMPS: u8 = 8;

impl Options {
    /// Reads an option list. Unknown options are skipped by their length; a length that can't be
    /// ends the list (MUST-5, MUST-6, MUST-7): what came before it counts.
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

    fn read(&mut self, kind: u8, body: &[u8]) {
        match (kind, body.len()) {
            (MSS, 2) => self.mss = be16(body, 0),
            (WINDOW_SCALE, 1) => self.window_scale = Some(body[0].min(14)),
            (TIMESTAMPS, 8) => {
                self.timestamps = be32(body, 0).zip(be32(body, 4)).map(|(value, echo)| Timestamps { value, echo });
            }
            _ => {}
        }
    }

    /// Length of these options as [`Options::write`] lays them out, bytes: a multiple of 4.
    pub(crate) fn length(&self) -> usize {
        let mss = if self.mss.is_some() { 4 } else { 0 };
        let window_scale = if self.window_scale.is_some() { 4 } else { 0 };
        let timestamps = if self.timestamps.is_some() { TIMESTAMPS_LENGTH } else { 0 };
        mss + window_scale + timestamps
    }

    /// Writes the options, each padded with NOPs to whole words, into [`Options::length`] bytes.
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
        if let Some(timestamps) = self.timestamps {
            put(&[NOP, NOP, TIMESTAMPS, 10]);
            put(&timestamps.value.to_be_bytes());
            put(&timestamps.echo.to_be_bytes());
        }
    }
}

/// Bytes that timestamps take from every segment.
pub(crate) const TIMESTAMPS_LENGTH: usize = 12;

/// A segment, its numbers in the RFC's terms.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment<'a> {
    /// SEG.SEQ.
    pub(crate) seq: SeqNum,
    /// SEG.ACK; means something only with the ACK bit.
    pub(crate) ack: SeqNum,
    pub(crate) flags: Flags,
    /// SEG.WND, as on the wire (not scaled).
    pub(crate) window: u16,
    pub(crate) options: Options,
    pub(crate) payload: &'a [u8],
}

impl<'a> Segment<'a> {
    /// Reads a segment from a TCP header and what follows it.
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, DropReason> {
        let header = bytes.first_chunk::<HEADER>().ok_or(DropReason::BadHeader)?;
        let length = usize::from(header[12] >> 4) * 4;
        let list = bytes.get(HEADER..length).ok_or(DropReason::BadHeader)?;
        Ok(Segment {
            seq: SeqNum(be32(header, 4).unwrap_or_default()),
            ack: SeqNum(be32(header, 8).unwrap_or_default()),
            flags: Flags(header[13]),
            window: be16(header, 14).unwrap_or_default(),
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

    #[test]
    fn what_is_written_is_read_back() {
        let options =
            Options { mss: Some(1460), window_scale: Some(9), timestamps: Some(Timestamps { value: 7, echo: 8 }) };
        let mut bytes = [0u8; 20];
        assert_eq!(options.length(), bytes.len());
        options.write(&mut bytes);
        assert_eq!(Options::parse(&bytes), options);
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
