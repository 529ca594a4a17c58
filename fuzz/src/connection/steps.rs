//! What the eight bytes of a step mean. The first chooses what happens, the last how many frames may leave afterwards,
//! those between the details. Most choices are near to what a connection is at, because what is far off is refused at
//! once; a few are anything.

use std::time::Duration;

use tcp_proto::{ConnectionInfo, Received, State};

use super::bench::{App, Bench};
use super::judge::{our_stream, trace};
use super::peer::{ACK, ECE, FIN, RST, SYN, octet, stream};
use crate::frames::{self, Segment};
use crate::input::{bit, pick};

const PSH: u8 = 8;
const CWR: u8 = 0x80;
const USUAL_FLAGS: [u8; 15] = [
    ACK,
    ACK,
    ACK,
    ACK,
    ACK | PSH,
    ACK | PSH,
    FIN | ACK,
    FIN | PSH | ACK,
    SYN,
    SYN | ACK,
    RST,
    RST | ACK,
    ACK | ECE,
    ACK | CWR,
    SYN | ECE | CWR,
];
const WINDOWS: [u16; 8] = [65_535, 20_000, 5000, 1000, 100, 1, 0, 0];
const LENGTHS: [usize; 8] = [0, 0, 0, 1, 10, 536, 1448, 1000];
const TIMES_MS: [u64; 16] =
    [0, 1, 2, 5, 10, 20, 40, 100, 200, 500, 1000, 3000, 10_000, 60_000, 600_000, 25 * 24 * 3_600_000];
const SIZES: [usize; 8] = [1, 10, 100, 1000, 1448, 5000, 20_000, 100_000];
/// Types and codes of ICMP errors: what is too big, unreachable, too far.
const ICMP_V4: [(u8, u8); 8] = [(3, 4), (3, 4), (3, 4), (3, 1), (3, 3), (3, 2), (11, 0), (12, 0)];
const ICMP_V6: [(u8, u8); 8] = [(2, 0), (2, 0), (2, 0), (1, 0), (1, 4), (1, 1), (3, 0), (4, 0)];
const MTUS: [u32; 8] = [1400, 1280, 576, 0, 68, 1499, 9000, u32::MAX];

impl Bench {
    pub fn step(&mut self, step: [u8; 8]) {
        let [what, detail, .., most] = step;
        match what & 15 {
            0..=4 => self.peer_says(step),
            5 => self.repeated_acks(step),
            6 => self.says_honestly(pick(detail, &LENGTHS)),
            7 | 8 => drop(self.jump()),
            9 => self.pass(Duration::from_millis(pick(detail, &TIMES_MS))),
            10 | 11 => self.write(pick(detail, &SIZES)),
            12 => self.read(pick(detail, &SIZES)),
            13 => self.command(detail),
            14 => self.icmp_arrives(step),
            _ => self.rarity(detail),
        }
        let all = bit(most, 7);
        self.turn(if all { usize::from(most & 0x1f) } else { usize::MAX });
    }

    /// A segment of the peer's, aimed at where the connection is.
    fn peer_says(&mut self, step: [u8; 8]) {
        let [_, flags, numbers, shape, reports, high, low, _] = step;
        let parameter = u16::from_be_bytes([high, low]);
        let row = self.row();
        let flags = if flags >= 0xf0 { high } else { pick(flags, &USUAL_FLAGS) };
        let seq = self.sequence_number(row.as_ref(), numbers & 15, parameter, flags);
        let ack = self.acknowledgment_number(row.as_ref(), numbers >> 4, parameter);
        let length = pick(shape >> 3, &LENGTHS);
        let length = if flags & (SYN | RST) != 0 && !bit(reports, 6) { 0 } else { length };
        let timestamps = self.timestamps(flags, bit(shape, 7), parameter);
        let sacks = if reports == 0 { Vec::new() } else { self.reports(row.as_ref(), reports, parameter) };
        let segment = Segment {
            flags,
            seq,
            ack,
            window: pick(shape, &WINDOWS),
            options: self.peer.options(flags & SYN != 0, timestamps, &sacks),
            payload: stream(seq, length),
            ecn: if bit(shape, 6) { 3 } else { 0 },
            vlan: self.vlan,
        };
        self.says(&segment, timestamps.map(|(value, _)| value));
    }

    /// At, shortly before or after RCV.NXT, at the right edge, or anywhere.
    fn sequence_number(&self, row: Option<&ConnectionInfo>, choice: u8, parameter: u16, flags: u8) -> u32 {
        let far = u32::from(parameter) << 16;
        let opens = flags & SYN != 0 && choice < 8;
        let Some(row) = row.filter(|row| row.state != State::SYN_SENT && !opens) else {
            return if choice == 15 { far } else { self.peer.isn.wrapping_add(u32::from(choice / 8)) };
        };
        let next = row.rcv_nxt;
        match choice {
            0..=6 => next,
            7 => next.wrapping_sub(1),
            8 => next.wrapping_add(1),
            9 => next.wrapping_add(u32::from(parameter)),
            10 => next.wrapping_sub(u32::from(parameter)),
            11 => next.wrapping_add(row.rcv_wnd),
            12 => next.wrapping_add(row.rcv_wnd).wrapping_sub(1),
            13 => next.wrapping_add(u32::from(parameter % 16) * 1000),
            14 => self.peer.isn,
            _ => far,
        }
    }

    /// SND.NXT, SND.UNA, or between two segments that were sent; shortly before or after; or anywhere.
    fn acknowledgment_number(&self, row: Option<&ConnectionInfo>, choice: u8, parameter: u16) -> u32 {
        let far = u32::from(parameter) << 16;
        let Some(row) = row else { return if choice < 8 { self.ours.next } else { far } };
        let (una, next) = (row.snd_una, row.snd_nxt);
        let cut = |index: usize| self.outstanding_cuts(row).get(index).copied().unwrap_or(next);
        match choice {
            0..=4 => next,
            5 => una,
            6 => cut(1),
            7 => cut(2),
            8 => cut(usize::from(parameter) % (1 + self.outstanding_cuts(row).len())),
            9 => cut(self.outstanding_cuts(row).len().saturating_sub(1)),
            10 => una.wrapping_add(u32::from(parameter) % next.wrapping_sub(una).max(1)),
            11 => next.wrapping_sub(1),
            12 => next.wrapping_add(1),
            13 => una.wrapping_sub(1 + u32::from(parameter)),
            14 => una.wrapping_sub(1),
            _ => far,
        }
    }

    /// First numbers of the segments that are outstanding.
    fn outstanding_cuts<'a>(&'a self, row: &ConnectionInfo) -> &'a [u32] {
        let first = self.ours.cuts.iter().rposition(|cut| (cut.wrapping_sub(row.snd_una) as i32) < 0);
        &self.ours.cuts[first.map_or(0, |first| first + 1)..]
    }

    /// As agreed; or from the past, from the future, without sense, or missing.
    fn timestamps(&self, flags: u8, odd: bool, parameter: u16) -> Option<(u32, u32)> {
        let agreed = self.peer.offers.timestamps && (self.tcp.timestamps || flags & SYN != 0);
        let (clock, echo) = (self.peer.clock(self.elapsed()), self.ours.clock.unwrap_or(0));
        let by = u32::from(parameter);
        // Every SYN offers the same.
        let odd = odd && (flags & SYN == 0 || self.peer.offers.timestamps && parameter & 7 < 5);
        match (agreed, odd, parameter & 7) {
            (false, false, _) => None,
            (true, false, _) => Some((clock, echo)),
            (_, true, 0) => Some((clock.wrapping_sub(by), echo)),
            (_, true, 1) => Some((clock.wrapping_add(by), echo)),
            (_, true, 2) => Some((clock, echo.wrapping_sub(by))),
            (_, true, 3) => Some((clock, echo.wrapping_add(by))),
            (_, true, 4) => Some((clock, 0)),
            (_, true, _) => None,
        }
    }

    /// SACK blocks: most begin and end where segments do; the first may tell of something old.
    fn reports(&self, row: Option<&ConnectionInfo>, choice: u8, parameter: u16) -> Vec<(u32, u32)> {
        let Some(row) = row else { return Vec::new() };
        let cuts = self.outstanding_cuts(row);
        let cut = |index: usize| cuts.get(index).copied().unwrap_or(row.snd_nxt);
        let places = cuts.len() + 1;
        let [step, start] = parameter.to_be_bytes().map(usize::from);
        let block = |index: usize| {
            let from = (1 + start + index * step) % places;
            match choice >> 2 & 3 {
                0 | 1 => (cut(from), cut(from + 1 + step % 4)),
                2 => (cut(from), row.snd_nxt),
                _ => (row.snd_una.wrapping_add(start as u32), row.snd_una.wrapping_add((start + 16 * step) as u32)),
            }
        };
        let mut blocks: Vec<(u32, u32)> = (0..=usize::from(choice & 3)).map(block).collect();
        match choice >> 4 & 3 {
            // What came twice goes first: old, or a part of the next.
            1 => blocks.insert(0, (row.snd_una.wrapping_sub(1 + u32::from(parameter & 0x7ff)), row.snd_una)),
            2 => blocks.insert(0, blocks[0]),
            3 => blocks[0] = (blocks[0].1, blocks[0].0),
            _ => {}
        }
        blocks
    }

    /// The same ACK several times, with or without growing reports: what losses look like.
    fn repeated_acks(&mut self, step: [u8; 8]) {
        let [_, count, .., reports, high, low, _] = step;
        for index in 0..1 + count % 5 {
            let Some(row) = self.row().filter(|row| row.state != State::SYN_SENT) else { return };
            let timestamps = self.timestamps(ACK, false, 0);
            let parameter = u16::from_be_bytes([high, low.wrapping_add(index)]);
            let sacks = if reports == 0 { Vec::new() } else { self.reports(Some(&row), reports, parameter) };
            let segment = Segment {
                flags: ACK,
                seq: row.rcv_nxt,
                ack: row.snd_una,
                window: 60_000,
                options: self.peer.options(false, timestamps, &sacks),
                vlan: self.vlan,
                ..Segment::default()
            };
            self.says(&segment, timestamps.map(|(value, _)| value));
        }
    }

    fn write(&mut self, length: usize) {
        let live = self.app_is_live();
        let bytes = our_stream(self.ours.written, length);
        let Some(mut connection) = self.app.id.and_then(|id| self.stack.connection(self.now, id)) else { return };
        let room = connection.send_room();
        let taken = connection.send(&bytes);
        trace(|| format!("writes {taken} of {length} bytes"));
        assert!(taken <= length.min(room), "{taken} bytes taken where {room} had room");
        assert!(taken == 0 || live, "a connection that has ended takes bytes");
        self.app.waits_to_write =
            taken < length && self.stack.connection(self.now, self.app.id.expect("held")).is_some_and(|c| c.may_send());
        self.ours.written += taken as u32;
    }

    fn read(&mut self, length: usize) {
        let Some(mut connection) = self.app.id.and_then(|id| self.stack.connection(self.now, id)) else { return };
        let mut into = vec![0; length];
        let received = connection.recv(&mut into);
        trace(|| format!("reads {received:?}"));
        self.app.waits_to_read = received == Received::Nothing;
        if received == Received::Nothing {
            return;
        }
        let first = self.app.first.expect("the peer was heard");
        let next = first.wrapping_add(self.app.read);
        match received {
            Received::Bytes(count) => {
                let said = (0..count.get() as u32).map(|at| octet(next.wrapping_add(at)));
                assert!(said.eq(into[..count.get()].iter().copied()), "reads what the peer did not say");
                self.app.read += count.get() as u32;
            }
            Received::End => assert!(self.peer.said_fin(first, next), "the end, where the peer had said no FIN"),
            Received::Nothing => {}
        }
    }

    fn command(&mut self, which: u8) {
        trace(|| format!("command {}", which % 12));
        match which % 12 {
            0..=2 => self.accept(),
            3 | 4 => self.connect(),
            9..=11 if self.app.id.is_none() => self.accept(),
            which => {
                let live = self.app_is_live();
                let Some(mut connection) = self.app.id.and_then(|id| self.stack.connection(self.now, id)) else {
                    self.app = App::default();
                    return;
                };
                self.ours.closed |= live && matches!(which, 7..=10);
                match which {
                    5 => connection.set_nodelay(true),
                    6 => connection.set_nodelay(false),
                    7 | 8 => connection.shutdown_write(),
                    9 => connection.close(),
                    _ => connection.abort(),
                }
                if which >= 9 {
                    self.app = App::default();
                }
            }
        }
    }

    fn icmp_arrives(&mut self, step: [u8; 8]) {
        let [_, kind, number, mtu, _, high, low, _] = step;
        let parameter = u16::from_be_bytes([high, low]);
        let row = self.row();
        let seq = self.acknowledgment_number(row.as_ref(), number, parameter);
        let error = pick(kind, if self.local.is_ipv4() { &ICMP_V4 } else { &ICMP_V6 });
        let mtu = if bit(mtu, 7) { parameter.into() } else { pick(mtu, &MTUS) };
        trace(|| format!("{:6} ICMP error {error:?} about {seq}, MTU {mtu}", self.elapsed()));
        self.stack.handle_frame(self.now, &frames::icmp(&self.key(), error, mtu, seq));
    }

    fn rarity(&mut self, which: u8) {
        trace(|| format!("rarity {}", which % 8));
        match which % 8 {
            // The peer comes with another MAC address, and maybe back.
            0 | 1 => self.mac[5] ^= 0x10,
            2 => {
                self.write_table();
                self.entered = false;
                self.ours.closed = true;
                self.stack.handle_commit_failed(self.now, self.key());
            }
            3 => self.stack.abort_all(self.now),
            // The peer starts anew.
            4 | 5 => self.peer.isn = self.peer.isn.wrapping_add(100_000),
            6 => self.peer.isn = self.peer.isn.wrapping_sub(100_000),
            _ => self.pass(Duration::from_secs(61)),
        }
    }
}
