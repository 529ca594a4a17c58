//! What the program answers by itself, so that the daemon is not asked: SYNs in cookie mode, segments that belong to
//! no connection (RFC 9293 section 3.10.7.1), and what a connection in TIME_WAIT would acknowledge (3.10.7.4). It also
//! checks the cookies that come back.
//!
//! Comes after [`crate::decide`] and only for segments that would be steered and are of one of these kinds. Before
//! anything is answered the checksums are verified and the source must be a host's. Segments with payload are never
//! answered here: that would take their whole length to verify.

use crate::cookie::{self, CookieKeys, Offer};
use crate::counters::DropReason;
use crate::decide::{Answer, Decision, Maps, Question, Steer, Verdict};
use crate::gauge::{Gauge, Reading, may_come_back};
use crate::headers::{Headers, MAX_OPTIONS, Options, Step, Sums};
use crate::layout::{
    Config, ConnectionKey, ConnectionValue, FLAG_COOKIE, FLAG_TIMESTAMPS, ListenerValue, OFFERS_ECN, OFFERS_SACK,
    OFFERS_TIMESTAMPS, OFFERS_WINDOW_SCALE,
};
use crate::packet::{ACK, CWR, ECE, FIN, Frame, Place, RST, SYN};
use crate::reply::{Extent, LinkHeader, REPLY_ROOM, Reply};
use crate::state::State;

/// The daemon is believed to live so long after it last said so, ns.
pub const HEARTBEAT_NS: u64 = 3_000_000_000;

/// The maps that answers need, beside those of the decision.
pub trait AnswerMaps: Maps {
    /// CLOCK_MONOTONIC, ns.
    fn now_ns(&self) -> u64;
    /// The keys of cookies.
    fn cookie_keys(&self) -> Option<&CookieKeys>;
    /// The SYNs of the listener with this index.
    fn gauge(&self, index: u32) -> Option<Gauge>;
    /// Writes it back.
    fn set_gauge(&self, index: u32, gauge: &Gauge);
    /// Until when the daemon wants cookies for the listener with this index, because its SYN queue was full; ns.
    fn cookie_demand_ns(&self, index: u32) -> u64;
    /// What an entry of CONNECTIONS says, if the connection is in TIME_WAIT.
    fn time_wait(&self, key: &ConnectionKey) -> Option<TimeWait>;
    /// Sets when TIME_WAIT ends.
    fn restart_time_wait(&self, key: &ConnectionKey, deadline_ns: u64);
    /// Inserts the entry of a connection whose cookie came back, unless there is one.
    fn insert(&self, key: &ConnectionKey, value: &ConnectionValue);
    /// Charges one reset to this CPU's limit, an event every `interval_ns`; `false`: there were too many.
    fn admit_reset(&self, now_ns: u64, interval_ns: u64) -> bool;
    /// Charges one ACK for a connection in TIME_WAIT to this CPU's limit; `false`: there were too many.
    fn admit_time_wait_ack(&self, now_ns: u64) -> bool;
    /// Says that SYNs to this port are answered with cookies from now on.
    fn log_cookies(&self, key: &ConnectionKey);
    /// Takes steps until one is the last, `times` at most.
    fn repeat<S: Step>(&self, times: u32, work: &mut S);
}

/// What the entry of a connection in TIME_WAIT says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeWait {
    /// SND.NXT.
    pub snd_nxt: u32,
    /// RCV.NXT.
    pub rcv_nxt: u32,
    /// TS.Recent.
    pub ts_recent: u32,
    /// [`FLAG_TIMESTAMPS`].
    pub flags: u8,
}

/// Room for the headers of the segment and for the frame that answers it; the program has no stack for them.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
pub struct Room {
    headers: Headers,
    says: Reply,
    entry: ConnectionValue,
    /// The frame; [`Extent`] says where in it.
    pub reply: [u8; REPLY_ROOM],
}

impl Default for Room {
    fn default() -> Self {
        Room {
            headers: Headers::default(),
            says: Reply::default(),
            entry: ConnectionValue::default(),
            reply: [0; REPLY_ROOM],
        }
    }
}

/// What becomes of a segment after all, and the frame if it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What becomes of it.
    pub verdict: Verdict,
    /// The answer's place in the room, with [`Verdict::Answer`].
    pub reply: Extent,
}

/// Answers the segment of a decision that asks a [`Question`], or leaves it to the daemon.
#[inline(always)]
pub fn answer<F: Frame + ?Sized, M: AnswerMaps>(
    frame: &F,
    maps: &M,
    key: &ConnectionKey,
    decision: &Decision<'_>,
    room: &mut Room,
) -> Outcome {
    let verdict = match (decision.question(), maps.config()) {
        (Some(question), Some(config)) => {
            let asked = Asked { frame, maps, key, config, place: &decision.place, listener: decision.listener };
            let verdict = asked.answer(question, room);
            verdict.unwrap_or(decision.verdict)
        }
        _ => decision.verdict,
    };
    let mut extent = Extent { start: 0, length: 0 };
    let mut outcome = verdict;
    if let Verdict::Answer(_) = verdict {
        match link_header(frame) {
            Some(link) => extent = room.says.write(key, &link, &mut room.reply),
            None => outcome = decision.verdict,
        }
    }
    Outcome { verdict: outcome, reply: extent }
}

#[inline(always)]
fn link_header<F: Frame + ?Sized>(frame: &F) -> Option<LinkHeader> {
    let header = frame.bytes::<18>(0)?;
    Some(LinkHeader { bytes: *header, tagged: header[12] == 0x81 && header[13] == 0 })
}

/// A segment that may be answered, and all that the answer depends on.
struct Asked<'a, F: ?Sized, M> {
    frame: &'a F,
    maps: &'a M,
    key: &'a ConnectionKey,
    config: &'a Config,
    place: &'a Place,
    listener: Option<&'a ListenerValue>,
}

impl<F: Frame + ?Sized, M: AnswerMaps> Asked<'_, F, M> {
    /// `None`: the daemon is to answer.
    #[inline(always)]
    fn answer(&self, question: Question, room: &mut Room) -> Option<Verdict> {
        let Room { headers, says, entry, .. } = room;
        match question {
            Question::Syn => self.syn(headers, says),
            Question::NoConnection => self.stranger(headers, says, entry),
            Question::TimeWait => self.time_wait(headers, says),
        }
    }

    /// A SYN to a listener.
    ///
    /// Not inlined, as its two siblings: none needs the stack of the others.
    #[inline(never)]
    fn syn(&self, headers: &mut Headers, reply: &mut Reply) -> Option<Verdict> {
        let listener = self.listener?;
        let now = self.maps.now_ns();
        if !self.wants_cookie(listener, now) || self.has_payload() || now > self.config.heartbeat_ns + HEARTBEAT_NS {
            return None;
        }
        if let Some(reason) = self.flaw(headers) {
            return Some(Verdict::Drop(reason));
        }
        let options = self.options(headers);
        let offer = agreed(listener, &options, self.place.flags);
        let (isn, flags) = (headers.seq(), SYN | ACK | if offer.ecn { ECE } else { 0 });
        let cookie = cookie::issue(self.maps.cookie_keys()?, now, self.key, isn, &offer)?;
        *reply = Reply {
            seq: cookie.isn,
            ack: isn.wrapping_add(1),
            flags,
            window: listener.window,
            ..blank(Some(listener))
        };
        let scale = if offer.window_scale.is_some() { Some(listener.window_scale) } else { None };
        let timestamps = match offer.timestamps {
            Some(theirs) => Some((cookie.tsval, theirs)),
            None => None,
        };
        reply.syn_options(listener.mss, scale, offer.sack, timestamps);
        Some(Verdict::Answer(Answer::Cookie))
    }

    #[inline(always)]
    fn wants_cookie(&self, listener: &ListenerValue, now: u64) -> bool {
        match listener.syn_cookies {
            ListenerValue::COOKIES_ALWAYS => true,
            ListenerValue::COOKIES_AUTO => {
                let reading = match self.maps.gauge(listener.index) {
                    Some(mut gauge) => {
                        let reading = gauge.note(now, listener.syn_limit);
                        self.maps.set_gauge(listener.index, &gauge);
                        reading
                    }
                    None => Reading::Calm,
                };
                if reading == Reading::Rises {
                    self.maps.log_cookies(self.key);
                }
                reading != Reading::Calm || now < self.maps.cookie_demand_ns(listener.index)
            }
            _ => false,
        }
    }

    /// Any other segment that belongs to no connection, but a RST.
    #[inline(never)]
    fn stranger(&self, headers: &mut Headers, reply: &mut Reply, entry: &mut ConnectionValue) -> Option<Verdict> {
        let now = self.maps.now_ns();
        let takes_cookies = match self.listener {
            Some(listener) => self.takes_cookies(listener, now),
            None => false,
        };
        let may_carry_cookie = self.place.flags & (SYN | ACK) == ACK;
        let mut fresh = true;
        if takes_cookies && may_carry_cookie {
            if !headers.take(self.frame, self.place) {
                return None;
            }
            fresh = false;
            if self.cookie_is_good(headers, now) {
                return Some(self.accept(headers, entry, now));
            }
            if self.has_payload() {
                return Some(Verdict::Drop(DropReason::BadCookie));
            }
        }
        if self.listener.is_some_and(|listener| !listener.resets()) {
            return Some(Verdict::Drop(DropReason::NoConnection));
        }
        let interval = self.config.reset_interval_ns;
        if interval == 0 || !self.maps.admit_reset(now, interval) {
            return Some(Verdict::Drop(DropReason::ResetRate));
        }
        if self.has_payload() {
            return None;
        }
        if fresh && !headers.take(self.frame, self.place) {
            return None;
        }
        if let Some(reason) = self.flaw_of(headers) {
            return Some(Verdict::Drop(reason));
        }
        self.reset(headers, reply);
        Some(Verdict::Answer(Answer::Reset))
    }

    /// The reset of RFC 9293 section 3.10.7.1.
    //= docs/rfc/rfc9293.md#3.10.7.1-ACK
    //= docs/rfc/rfc9293.md#3.10.7.1-no-ACK
    #[inline(always)]
    fn reset(&self, headers: &Headers, reply: &mut Reply) {
        let blank = blank(self.listener);
        *reply = if self.place.flags & ACK != 0 {
            Reply { seq: headers.ack(), flags: RST, ..blank }
        } else {
            let length = u32::from(self.place.flags & SYN != 0) + u32::from(self.place.flags & FIN != 0);
            Reply { ack: headers.seq().wrapping_add(length), flags: RST | ACK, ..blank }
        };
    }

    #[inline(always)]
    fn takes_cookies(&self, listener: &ListenerValue, now: u64) -> bool {
        match listener.syn_cookies {
            ListenerValue::COOKIES_ALWAYS => true,
            ListenerValue::COOKIES_AUTO => {
                let gauge = match self.maps.gauge(listener.index) {
                    Some(gauge) => gauge.was_on(now),
                    None => false,
                };
                gauge || may_come_back(self.maps.cookie_demand_ns(listener.index), now)
            }
            _ => false,
        }
    }

    #[inline(never)]
    fn cookie_is_good(&self, headers: &Headers, now: u64) -> bool {
        let Some(keys) = self.maps.cookie_keys() else { return false };
        let echo = match self.options(headers).timestamps {
            Some((_, echo)) => Some(echo),
            None => None,
        };
        cookie::check(keys, now, self.key, headers.seq(), headers.ack(), echo).is_some()
    }

    /// The handshake is complete: from here on the connection has an entry, so that what follows passes, too. A
    /// segment with payload is verified by the daemon.
    #[inline(always)]
    fn accept(&self, headers: &Headers, entry: &mut ConnectionValue, now: u64) -> Verdict {
        if !self.has_payload()
            && let Some(reason) = self.flaw_of(headers)
        {
            return Verdict::Drop(reason);
        }
        let queue = self.maps.queue();
        *entry = ConnectionValue {
            state: State::SYN_RCVD,
            flags: FLAG_COOKIE,
            queue,
            snd_nxt: headers.ack(),
            rcv_nxt: headers.seq(),
            since_ns: now,
            ..ConnectionValue::default()
        };
        self.maps.insert(self.key, entry);
        Verdict::Steer(Steer::Cookie)
    }

    /// A segment of a connection in TIME_WAIT: an ACK for what the peer repeats, nothing for its resets (RFC 1337) and
    /// for what is in order. The daemon gets what may reopen the connection, what carries data, and what is odd.
    //= docs/rfc/rfc1337.md#3-F1
    #[inline(never)]
    fn time_wait(&self, headers: &mut Headers, reply: &mut Reply) -> Option<Verdict> {
        let flags = self.place.flags & (FIN | SYN | RST | ACK);
        if flags & RST != 0 {
            return Some(Verdict::Drop(DropReason::TimeWait));
        }
        if self.has_payload() || flags & ACK == 0 && flags != SYN || flags & (SYN | ACK) == SYN | ACK {
            return None;
        }
        let entry = self.maps.time_wait(self.key)?;
        if !headers.take(self.frame, self.place) {
            return None;
        }
        if let Some(reason) = self.flaw_of(headers) {
            return Some(Verdict::Drop(reason));
        }
        let timestamps = self.options(headers).timestamps;
        let now = self.maps.now_ns();
        match self.recognise(headers, &entry, flags, timestamps) {
            Repeated::Reopens => return None,
            Repeated::InOrder => return Some(Verdict::Drop(DropReason::TimeWait)),
            Repeated::Fin => self.maps.restart_time_wait(self.key, now + self.time_wait_ns()),
            Repeated::Old if !self.maps.admit_time_wait_ack(now) => return Some(Verdict::Drop(DropReason::TimeWait)),
            Repeated::Old => {}
        }
        let window = match self.listener {
            Some(listener) => listener.window,
            None => u16::MAX,
        };
        *reply = Reply { seq: entry.snd_nxt, ack: entry.rcv_nxt, flags: ACK, window, ..blank(self.listener) };
        if entry.flags & FLAG_TIMESTAMPS != 0 {
            reply.timestamps(cookie::clock(now), entry.ts_recent);
        }
        Some(Verdict::Answer(Answer::TimeWait))
    }

    #[inline(always)]
    fn recognise(&self, headers: &Headers, entry: &TimeWait, flags: u8, timestamps: Option<(u32, u32)>) -> Repeated {
        let ahead = headers.seq().wrapping_sub(entry.rcv_nxt) as i32;
        let uses_timestamps = entry.flags & FLAG_TIMESTAMPS != 0;
        let newer = match timestamps {
            Some((value, _)) if uses_timestamps => value.wrapping_sub(entry.ts_recent) as i32,
            _ => 0,
        };
        if flags == SYN {
            // RFC 6191 section 2; the daemon decides.
            let reopens = if uses_timestamps { newer > 0 || newer == 0 && ahead > 0 } else { true };
            return if reopens { Repeated::Reopens } else { Repeated::Old };
        }
        let acks_ours = headers.ack().wrapping_sub(entry.snd_nxt) as i32 <= 0;
        if newer < 0 {
            return Repeated::Old;
        }
        match flags & FIN != 0 {
            true if ahead == -1 && acks_ours => Repeated::Fin,
            true if ahead >= 0 => Repeated::Reopens,
            false if ahead == 0 && acks_ours => Repeated::InOrder,
            false if ahead >= 0 => Repeated::Reopens,
            _ => Repeated::Old,
        }
    }

    #[inline(always)]
    fn time_wait_ns(&self) -> u64 {
        let millis = match self.listener {
            Some(listener) => listener.time_wait_ms,
            None => self.config.time_wait_ms,
        };
        u64::from(millis) * 1_000_000
    }

    #[inline(always)]
    fn has_payload(&self) -> bool {
        self.place.length > self.place.header
    }

    #[inline(always)]
    fn options(&self, headers: &Headers) -> Options {
        let mut walk = headers.walk(self.place.header);
        self.maps.repeat(MAX_OPTIONS as u32, &mut walk);
        walk.found
    }

    /// Copies the headers and tells why the segment must not be answered, if it must not.
    #[inline(always)]
    fn flaw(&self, headers: &mut Headers) -> Option<DropReason> {
        if !headers.take(self.frame, self.place) {
            return Some(DropReason::HeaderLength);
        }
        self.flaw_of(headers)
    }

    #[inline(always)]
    fn flaw_of(&self, headers: &Headers) -> Option<DropReason> {
        let accept_partial = self.config.accept_partial != 0;
        if headers.sums(self.key, self.place, accept_partial) == Sums::Wrong {
            return Some(DropReason::BadChecksum);
        }
        let from_a_group = match self.frame.bytes::<14>(0) {
            Some(header) => header[6] & 1 != 0,
            None => true,
        };
        let may_be_peer = is_host(self.key) && self.key.remote_port != 0 && !from_a_group;
        if may_be_peer { None } else { Some(DropReason::Martian) }
    }
}

/// What a segment is to a connection in TIME_WAIT.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Repeated {
    /// The peer's FIN: it did not hear our ACK of it.
    Fin,
    /// Something that was dealt with, or never belonged to the connection.
    Old,
    /// An ACK that nothing follows from.
    InOrder,
    /// The daemon has to look: a SYN that may begin the next connection, or something beyond the peer's FIN.
    Reopens,
}

/// An answer without numbers.
#[inline(always)]
fn blank(listener: Option<&ListenerValue>) -> Reply {
    let (ttl, traffic_class) = match listener {
        Some(listener) => (listener.ttl, listener.traffic_class),
        None => (DEFAULT_TTL, 0),
    };
    Reply { ttl, traffic_class, ..Reply::default() }
}

/// TTL of answers for ports without listener.
const DEFAULT_TTL: u8 = 64;

/// What is agreed of what a SYN offers: what the listener offers, too. Without timestamps there is no room for more
/// than the MSS.
#[inline(always)]
fn agreed(listener: &ListenerValue, options: &Options, flags: u8) -> Offer {
    let has = |offer: u8| listener.offers & offer != 0;
    let timestamps = match options.timestamps {
        Some((value, _)) if has(OFFERS_TIMESTAMPS) => Some(value),
        _ => None,
    };
    let with = timestamps.is_some();
    Offer {
        mss: options.mss,
        window_scale: if with && has(OFFERS_WINDOW_SCALE) { options.window_scale } else { None },
        sack: with && has(OFFERS_SACK) && options.sack_permitted,
        ecn: with && has(OFFERS_ECN) && flags & (ECE | CWR) == ECE | CWR,
        timestamps,
    }
}

/// Whether the source of a segment can be a peer: one host's address, and not ours (RFC 9293 MUST-57, MUST-63; equal
/// addresses are the LAND attack).
//= docs/rfc/rfc9293.md#MUST-63
#[inline(always)]
fn is_host(key: &ConnectionKey) -> bool {
    let source = &key.remote_addr;
    if *source == key.local_addr {
        return false;
    }
    if key.is_ipv4() {
        let first = source[12];
        let broadcast = source[12] & source[13] & source[14] & source[15] == 0xff;
        return first != 0 && first != 127 && !(224..240).contains(&first) && !broadcast;
    }
    let half = |at: usize| u64::from_be_bytes([0, 1, 2, 3, 4, 5, 6, 7].map(|byte| source[at + byte]));
    let (high, low) = (half(0), half(8));
    let mapped = high == 0 && low >> 32 == 0xffff;
    source[0] != 0xff && !(high == 0 && low <= 1) && !mapped
}
