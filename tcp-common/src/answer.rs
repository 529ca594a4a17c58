//! What the program answers by itself, so that the daemon is not asked: SYNs in cookie mode, segments that belong to
//! no connection (RFC 9293 section 3.10.7.1), and what a connection in TIME_WAIT would acknowledge (3.10.7.4). It also
//! checks the cookies that come back.
//!
//! Comes after [`crate::decide`] and only for segments that would be steered and are of one of these kinds. Before
//! anything is answered the checksums are verified and the source must be a host's. Segments with payload are never
//! answered here: that would take their whole length to verify.

use crate::cookie::{self, CookieKeys, Offer};
use crate::counters::DropReason;
use crate::decide::{Answer, Maps, Question, Steer, Verdict};
use crate::gauge::{Gauge, Reading, may_come_back};
use crate::headers::{Headers, MAX_OPTIONS, Options, Step, Sums, default_mss};
use crate::layout::{
    ConnectionKey, ConnectionValue, FLAG_COOKIE, FLAG_TIMESTAMPS, ListenerKey, ListenerValue, OFFERS_ECN, OFFERS_SACK,
    OFFERS_TIMESTAMPS, OFFERS_WINDOW_SCALE,
};
use crate::packet::{ACK, CWR, ECE, FIN, Frame, Place, RST, SYN};
use crate::rate::Rate;
use crate::reply::{Reply, ReplyFrame};
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
    /// Writes it back, but never an earlier end of cookies than is there.
    fn set_gauge(&self, index: u32, gauge: &Gauge);
    /// Until when the daemon wants cookies for the listener with this index, because its SYN queue was full; ns.
    fn cookie_demand_ns(&self, index: u32) -> u64;
    /// What an entry of CONNECTIONS says, if the connection is in TIME_WAIT.
    fn time_wait(&self, key: &ConnectionKey) -> Option<TimeWait>;
    /// Sets when TIME_WAIT ends.
    fn restart_time_wait(&self, key: &ConnectionKey, deadline_ns: u64);
    /// Inserts the entry of a connection whose cookie came back, unless there is one.
    fn insert(&self, key: &ConnectionKey, value: &ConnectionValue);
    /// Charges one reset to this CPU's limit; `false`: there were too many.
    fn admit_reset(&self, now_ns: u64, rate: &Rate) -> bool;
    /// Charges one SYN with data for a daemon that sends cookies to this CPU's limit; `false`: there were too many.
    fn admit_syn_data(&self, now_ns: u64) -> bool;
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
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(8))]
pub struct Room {
    headers: Headers,
    says: Reply,
    entry: ConnectionValue,
    /// The frame that answers.
    pub frame: ReplyFrame,
}

/// What is done about a segment that asks a [`Question`]. A number and nothing else, because functions of BPF return
/// numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Deed {
    /// The daemon gets it.
    Leave,
    /// It is answered with a cookie.
    Cookie,
    /// It is answered with a reset.
    Reset,
    /// It is acknowledged for a connection in TIME_WAIT.
    TimeWait,
    /// It brought a cookie back: the daemon gets it, and its connection has an entry.
    Accept,
    /// Dropped: [`DropReason::HeaderLength`].
    CutOff,
    /// Dropped: [`DropReason::BadChecksum`].
    BadChecksum,
    /// Dropped: [`DropReason::Martian`].
    Martian,
    /// Dropped: [`DropReason::BadCookie`].
    BadCookie,
    /// Dropped: [`DropReason::NoConnection`].
    Silence,
    /// Dropped: [`DropReason::ResetRate`].
    ResetRate,
    /// Dropped: [`DropReason::TimeWait`].
    Ignore,
    /// Dropped: [`DropReason::NoRoom`].
    NoRoom,
    /// It brought a bad cookie and is answered with a reset.
    ResetBadCookie,
    /// Dropped: [`DropReason::SynData`].
    SynData,
}

impl Deed {
    /// What becomes of the segment; `None`: what was decided before.
    #[must_use]
    #[inline(always)]
    pub const fn verdict(self) -> Option<Verdict> {
        Some(match self {
            Deed::Leave => return None,
            Deed::Cookie => Verdict::Answer(Answer::Cookie),
            Deed::Reset => Verdict::Answer(Answer::Reset),
            Deed::TimeWait => Verdict::Answer(Answer::TimeWait),
            Deed::Accept => Verdict::Steer(Steer::Cookie),
            Deed::CutOff => Verdict::Drop(DropReason::HeaderLength),
            Deed::BadChecksum => Verdict::Drop(DropReason::BadChecksum),
            Deed::Martian => Verdict::Drop(DropReason::Martian),
            Deed::BadCookie => Verdict::Drop(DropReason::BadCookie),
            Deed::Silence => Verdict::Drop(DropReason::NoConnection),
            Deed::ResetRate => Verdict::Drop(DropReason::ResetRate),
            Deed::Ignore => Verdict::Drop(DropReason::TimeWait),
            Deed::ResetBadCookie => Verdict::Answer(Answer::BadCookie),
            Deed::SynData => Verdict::Drop(DropReason::SynData),
            Deed::NoRoom => Verdict::Drop(DropReason::NoRoom),
        })
    }

    /// The deed with this number.
    #[must_use]
    #[inline(always)]
    pub const fn from_number(number: u32) -> Deed {
        match number {
            1 => Deed::Cookie,
            2 => Deed::Reset,
            3 => Deed::TimeWait,
            4 => Deed::Accept,
            5 => Deed::CutOff,
            6 => Deed::BadChecksum,
            7 => Deed::Martian,
            8 => Deed::BadCookie,
            9 => Deed::Silence,
            10 => Deed::ResetRate,
            11 => Deed::Ignore,
            12 => Deed::NoRoom,
            13 => Deed::ResetBadCookie,
            14 => Deed::SynData,
            _ => Deed::Leave,
        }
    }

    /// Whether there is a frame to be sent.
    #[must_use]
    #[inline(always)]
    pub const fn answers(self) -> bool {
        matches!(self, Deed::Cookie | Deed::Reset | Deed::ResetBadCookie | Deed::TimeWait)
    }
}

/// A segment that asks a [`Question`], and what the answer depends on.
#[derive(Debug)]
pub struct Asked<'a, F: ?Sized, M> {
    /// The frame that it is in.
    pub frame: &'a F,
    /// The maps.
    pub maps: &'a M,
    /// The connection that it belongs to, or would.
    pub key: &'a ConnectionKey,
    /// Where it lies in its frame.
    pub place: &'a Place,
    /// The listener that it is for, if it is for one.
    pub listener: Option<&'a ListenerValue>,
}

impl<F: Frame + ?Sized, M: AnswerMaps> Asked<'_, F, M> {
    /// Answers it, or leaves it to the daemon. The frame to be sent, if there is one, is in `room` then.
    #[inline(always)]
    pub fn answer(&self, question: Question, room: &mut Room) -> Deed {
        let deed = self.consider(question, room);
        if deed.answers() {
            let Some(link) = self.frame.bytes::<18>(0) else { return Deed::Leave };
            let tagged = link[12] == 0x81 && link[13] == 0;
            room.says.write(self.key, link, tagged, &mut room.frame);
        }
        deed
    }

    #[inline(always)]
    fn consider(&self, question: Question, room: &mut Room) -> Deed {
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
    fn syn(&self, headers: &mut Headers, reply: &mut Reply) -> Deed {
        let Some(listener) = self.listener else { return Deed::Leave };
        let now = self.maps.now_ns();
        if !self.wants_cookie(listener, now) || !self.daemon_lives(now) {
            return Deed::Leave;
        }
        if self.has_payload() {
            return if self.maps.admit_syn_data(now) { Deed::Leave } else { Deed::SynData };
        }
        if let Some(flaw) = self.flaw(headers) {
            return flaw;
        }
        self.read_options(headers);
        let options = &headers.options;
        let offer = self.agreed(listener, options);
        let (isn, flags) = (headers.seq(), SYN | ACK | if offer.ecn { ECE } else { 0 });
        let Some(keys) = self.maps.cookie_keys() else { return Deed::Leave };
        let Some(cookie) = cookie::issue(keys, now, self.key, isn, &offer) else { return Deed::Leave };
        begin(reply, Some(listener), flags);
        (reply.seq, reply.ack, reply.window) = (cookie.isn, isn.wrapping_add(1), listener.window);
        let scale = if offer.window_scale.is_some() { Some(listener.window_scale) } else { None };
        let timestamps = match options.timestamps() {
            Some((theirs, _)) if offer.timestamps => Some((cookie.tsval, theirs)),
            _ => None,
        };
        reply.syn_options(listener.mss, scale, offer.sack, timestamps);
        Deed::Cookie
    }

    #[inline(always)]
    fn daemon_lives(&self, now: u64) -> bool {
        match self.maps.config() {
            Some(config) => now <= config.heartbeat_ns + HEARTBEAT_NS,
            None => false,
        }
    }

    /// What is agreed of what the SYN offers: what the listener offers, too, and a cookie can carry.
    #[inline(always)]
    fn agreed(&self, listener: &ListenerValue, options: &Options) -> Offer {
        let has = |offer: u8| listener.offers & offer != 0;
        let default = default_mss(self.key);
        let offer = Offer {
            mss: match options.mss() {
                Some(mss) => mss,
                None => default,
            },
            window_scale: if has(OFFERS_WINDOW_SCALE) { options.window_scale() } else { None },
            sack: has(OFFERS_SACK) && options.sack_permitted(),
            ecn: has(OFFERS_ECN) && self.place.flags & (ECE | CWR) == ECE | CWR,
            timestamps: has(OFFERS_TIMESTAMPS) && options.timestamps().is_some(),
        };
        offer.carried()
    }

    /// Whether the listener answers SYNs with cookies. (Not inlined, for the sake of the stack.)
    #[inline(never)]
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
    fn stranger(&self, headers: &mut Headers, reply: &mut Reply, entry: &mut ConnectionValue) -> Deed {
        let now = self.maps.now_ns();
        let takes_cookies = match self.listener {
            Some(listener) => self.takes_cookies(listener, now),
            None => false,
        };
        let bad_cookie = takes_cookies && self.place.flags & (SYN | ACK) == ACK;
        if bad_cookie {
            if !headers.take(self.frame, self.place) {
                return Deed::Leave;
            }
            if self.cookie_is_good(headers, now) {
                return self.accept(headers, entry, now);
            }
            // Its sender's ACK may have been lost, and will be repeated with the first data (docs/decisions/0013).
            if self.has_payload() || self.place.flags & FIN != 0 {
                return Deed::BadCookie;
            }
        }
        if self.listener.is_some_and(|listener| !listener.resets()) {
            return if bad_cookie { Deed::BadCookie } else { Deed::Silence };
        }
        if !self.may_reset(now) {
            return if bad_cookie { Deed::BadCookie } else { Deed::ResetRate };
        }
        if self.has_payload() || !bad_cookie && !headers.take(self.frame, self.place) {
            return Deed::Leave;
        }
        if let Some(flaw) = self.flaw_of(headers) {
            return flaw;
        }
        self.reset(headers, reply);
        if bad_cookie { Deed::ResetBadCookie } else { Deed::Reset }
    }

    #[inline(always)]
    fn may_reset(&self, now: u64) -> bool {
        match self.maps.config() {
            Some(config) if config.resets.interval_ns != 0 => self.maps.admit_reset(now, &config.resets),
            _ => false,
        }
    }

    /// The reset of RFC 9293 section 3.10.7.1.
    //= docs/rfc/rfc9293.md#3.10.7.1-ACK
    //= docs/rfc/rfc9293.md#3.10.7.1-no-ACK
    #[inline(always)]
    fn reset(&self, headers: &Headers, reply: &mut Reply) {
        if self.place.flags & ACK != 0 {
            begin(reply, self.listener, RST);
            reply.seq = headers.ack();
        } else {
            let length = u32::from(self.place.flags & SYN != 0) + u32::from(self.place.flags & FIN != 0);
            begin(reply, self.listener, RST | ACK);
            reply.ack = headers.seq().wrapping_add(length);
        }
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

    #[inline(always)]
    fn cookie_is_good(&self, headers: &mut Headers, now: u64) -> bool {
        let Some(keys) = self.maps.cookie_keys() else { return false };
        self.read_options(headers);
        let echo = headers.options.timestamps().map(|(_, echo)| echo);
        cookie::check(keys, now, self.key, headers.seq(), headers.ack(), echo).is_some()
    }

    /// The handshake is complete: from here on the connection has an entry, so that what follows passes, too. A
    /// segment with payload is verified by the daemon.
    #[inline(always)]
    fn accept(&self, headers: &Headers, entry: &mut ConnectionValue, now: u64) -> Deed {
        if !self.has_payload()
            && let Some(flaw) = self.flaw_of(headers)
        {
            return flaw;
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
        Deed::Accept
    }

    /// A segment of a connection in TIME_WAIT: an ACK for what the peer repeats, nothing for its resets (RFC 1337) and
    /// for what is in order. The daemon gets what may reopen the connection, what carries data, and what is odd.
    //= docs/rfc/rfc1337.md#3-F1
    #[inline(never)]
    fn time_wait(&self, headers: &mut Headers, reply: &mut Reply) -> Deed {
        let flags = self.place.flags & (FIN | SYN | RST | ACK);
        if flags & RST != 0 {
            return Deed::Ignore;
        }
        if self.has_payload() || flags & ACK == 0 && flags != SYN || flags & (SYN | ACK) == SYN | ACK {
            return Deed::Leave;
        }
        let Some(entry) = self.maps.time_wait(self.key) else { return Deed::Leave };
        if !headers.take(self.frame, self.place) {
            return Deed::Leave;
        }
        if let Some(flaw) = self.flaw_of(headers) {
            return flaw;
        }
        self.read_options(headers);
        let timestamps = headers.options.timestamps();
        let listener = self.listener_of_connection();
        let now = self.maps.now_ns();
        match self.recognise(headers, &entry, flags, timestamps) {
            Repeated::Reopens => return Deed::Leave,
            Repeated::InOrder => return Deed::Ignore,
            Repeated::Fin => self.maps.restart_time_wait(self.key, now + self.time_wait_ns(listener)),
            Repeated::Old if !self.maps.admit_time_wait_ack(now) => return Deed::Ignore,
            Repeated::Old => {}
        }
        begin(reply, listener, ACK);
        // The peer has said that nothing follows its FIN: what the window is does not matter.
        (reply.seq, reply.ack, reply.window) = (entry.snd_nxt, entry.rcv_nxt, u16::MAX);
        if entry.flags & FLAG_TIMESTAMPS != 0 {
            reply.timestamps(cookie::timestamp_clock(now), entry.ts_recent);
        }
        Deed::TimeWait
    }

    /// The listener of a connection's port, whose parameters its answers have. (The decision did not look for it.)
    #[inline(always)]
    fn listener_of_connection(&self) -> Option<&ListenerValue> {
        let (addr, port) = (self.key.local_addr, self.key.local_port);
        if let Some(listener) = self.maps.listener(&ListenerKey { addr, port, pad: 0 }) {
            return Some(listener);
        }
        self.maps.listener(&ListenerKey { addr: self.key.local_wildcard(), port, pad: 0 })
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
    fn time_wait_ns(&self, listener: Option<&ListenerValue>) -> u64 {
        let millis = match (listener, self.maps.config()) {
            (Some(listener), _) => listener.time_wait_ms,
            (None, Some(config)) => config.time_wait_ms,
            (None, None) => 0,
        };
        u64::from(millis) * 1_000_000
    }

    #[inline(always)]
    fn has_payload(&self) -> bool {
        self.place.length > self.place.header
    }

    /// Reads the options. (Not inlined, for the sake of the stack.)
    #[inline(never)]
    fn read_options(&self, headers: &mut Headers) {
        let mut walk = headers.walk(self.place.header);
        self.maps.repeat(MAX_OPTIONS as u32, &mut walk);
        let found = walk.found;
        headers.options = found;
    }

    /// Copies the headers and tells why the segment must not be answered, if it must not.
    #[inline(always)]
    fn flaw(&self, headers: &mut Headers) -> Option<Deed> {
        if !headers.take(self.frame, self.place) {
            return Some(Deed::CutOff);
        }
        self.flaw_of(headers)
    }

    #[inline(always)]
    fn flaw_of(&self, headers: &Headers) -> Option<Deed> {
        match self.check(headers) {
            Deed::Leave => None,
            flaw => Some(flaw),
        }
    }

    /// [`Deed::Leave`]: there is nothing wrong with it. (Not inlined, for the sake of the stack.)
    #[inline(never)]
    fn check(&self, headers: &Headers) -> Deed {
        let accept_partial = match self.maps.config() {
            Some(config) => config.accept_partial != 0,
            None => false,
        };
        if headers.sums(self.key, self.place, accept_partial) == Sums::Wrong {
            return Deed::BadChecksum;
        }
        let from_a_group = match self.frame.bytes::<14>(0) {
            Some(header) => header[6] & 1 != 0,
            None => true,
        };
        let may_be_peer = is_host(self.key) && self.key.remote_port != 0 && !from_a_group;
        if may_be_peer { Deed::Leave } else { Deed::Martian }
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

/// Begins an answer: without numbers, window and options.
///
/// Field by field, because a whole one would be made on the stack first.
#[inline(always)]
fn begin(reply: &mut Reply, listener: Option<&ListenerValue>, flags: u8) {
    (reply.ttl, reply.traffic_class) = match listener {
        Some(listener) => (listener.ttl, listener.traffic_class),
        None => (DEFAULT_TTL, 0),
    };
    reply.flags = flags;
    (reply.seq, reply.ack, reply.window, reply.words) = (0, 0, 0, 0);
    reply.options = [0; 5];
}

/// TTL of answers for ports without listener.
const DEFAULT_TTL: u8 = 64;

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
    let both = u128::from_be_bytes(*source);
    let (high, low) = ((both >> 64) as u64, both as u64);
    let mapped = high == 0 && low >> 32 == 0xffff;
    source[0] != 0xff && !(high == 0 && low <= 1) && !mapped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cases::answers::{answer_cases, handle};
    use crate::cases::world::MemoryMaps;
    use crate::counters::Outcome;

    const NOW: u64 = 1_000 * cookie::EPOCH_NS + 12_345_678_901;

    #[test]
    fn every_case_is_answered_as_the_table_says() {
        for case in answer_cases(NOW) {
            let maps = MemoryMaps::new(&case.world);
            case.before.iter().for_each(|frame| drop(handle(&maps, frame)));
            let done = handle(&maps, &case.frame);
            assert_eq!(done.deed.unwrap_or(Deed::Leave), case.deed, "{}", case.name);
            assert_eq!(case.says.is_some(), done.deed.is_some_and(Deed::answers), "{}", case.name);
            if let Some(says) = &case.says {
                says.judge(case.name, &case.world, &done.reply, &(NOW..=NOW));
            }
            let inserted = maps.inserted().first().map(|(_, value)| *value);
            assert_eq!(inserted, case.entry(NOW), "{}", case.name);
            let deadline = maps.deadlines().first().map(|(_, deadline)| *deadline);
            let expected = case.time_wait_ms.map(|millis| NOW + u64::from(millis) * 1_000_000);
            assert_eq!(deadline, expected, "{}", case.name);
        }
    }

    #[test]
    fn the_cases_reach_every_deed_answer_and_reason() {
        let cases = answer_cases(NOW);
        for deed in (0..=14).map(Deed::from_number).filter(|deed| !matches!(deed, Deed::NoRoom | Deed::CutOff)) {
            assert!(cases.iter().any(|case| case.deed == deed), "{deed:?}");
        }
        let outcomes = [
            Outcome::AnswerCookie,
            Outcome::AnswerReset,
            Outcome::AnswerBadCookie,
            Outcome::AnswerTimeWait,
            Outcome::SteerCookie,
        ];
        for outcome in outcomes {
            let reached =
                cases.iter().filter_map(|case| case.deed.verdict()).any(|verdict| verdict.outcome() == outcome);
            assert!(reached, "{outcome:?}");
        }
    }

    #[test]
    fn a_deed_is_its_number() {
        for number in 0..=14 {
            assert_eq!(Deed::from_number(number) as u32, number);
        }
        assert_eq!(Deed::from_number(15), Deed::Leave);
    }
}
