//! The observer: sees every segment when it is sent and when it reaches a worker, knows what was said, and judges what
//! hosts send by that alone. It never asks a stack. What holds for single segments and for the right edge of windows is
//! [`tests::checker`]'s; here is what needs both ends of a connection: numbers, reports, windows, the bytes themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use tcp_common::ConnectionKey;
use tcp_common::cookie::{self, CookieKeys};
use tcp_proto::Instant;
use tests::checker::Checker;
use tests::segment::Segment;

use crate::frame::mac;
use crate::ranges::Ranges;
use crate::stream::stream;
use crate::trace;

/// One end of one connection, from its SYN on. Numbers are relative to its initial one: the SYN is 0, the stream
/// begins at 1.
#[derive(Debug)]
struct End {
    host: usize,
    ports: Ports,
    /// Which stream it sends; `None`: none was agreed on.
    talk: Option<usize>,
    iss: u32,
    /// The other end, once it is known.
    peer: Option<usize>,
    /// After everything that was sent.
    next: i64,
    fin: Option<i64>,
    /// What of it reached the other host.
    arrived: Ranges,
    /// The highest of its numbers that an ACK which reached it acknowledged; the furthest right edge that it was told.
    acked: i64,
    /// The same of ACKs that it must have believed.
    known_acked: i64,
    edge: i64,
    /// The highest acknowledgment of the other's numbers that it sent.
    acknowledges: Option<i64>,
    /// What its SYN offered.
    scale: Option<u8>,
    sack: bool,
    timestamps: bool,
    mss: u16,
    ecn: bool,
    /// The last clock value that it sent, and the latest of the other's that reached it.
    clock: Option<u32>,
    heard_clock: Option<u32>,
    /// Octets sent before anything arrived after them.
    first_flight: i64,
    answered: bool,
    /// Its SYN-ACK was a cookie: there was no connection yet.
    cookie: bool,
    /// A connection came of that cookie.
    opened: bool,
}

/// Ports of a connection, those of the first host first.
pub type Ports = (u16, u16);

/// Sees the wire.
pub struct Observer {
    checkers: [Checker; 2],
    ends: Vec<End>,
    /// The end that a worker's segments between two ports belong to: that of its last SYN.
    current: BTreeMap<(usize, u16, Ports), usize>,
    /// Workers that have a new connection between two ports of which they have sent nothing.
    fresh: BTreeSet<(usize, u16, Ports)>,
    /// The keys of each host's cookies.
    keys: [CookieKeys; 2],
    /// What is said between two ports now.
    talks: BTreeMap<Ports, usize>,
    /// What acknowledges a forged SYN: half a connection comes of it when it reaches a listener.
    strangers: BTreeSet<u32>,
    began: Instant,
    mtu: [u16; 2],
    looks_away: bool,
}

impl Observer {
    /// An observer of two hosts whose links have these MTUs.
    #[must_use]
    pub fn new(now: Instant, mtu: [u16; 2]) -> Observer {
        let checkers = [0, 1].map(|host| {
            let mut checker = Checker::new(mac(host));
            checker.own(0..=u16::MAX);
            checker
        });
        let (current, talks, strangers) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        Observer {
            checkers,
            ends: Vec::new(),
            current,
            fresh: BTreeSet::new(),
            keys: [CookieKeys::default(); 2],
            talks,
            strangers,
            began: now,
            mtu,
            looks_away: false,
        }
    }

    /// From now on nothing is judged, and nothing remembered.
    pub fn look_away(&mut self) {
        self.looks_away = true;
    }

    /// From now on what is said between `ports` is talk `talk`.
    pub fn expect(&mut self, ports: Ports, talk: usize) {
        self.talks.insert(ports, talk);
    }

    /// Cookies of `host` have these keys now.
    pub fn set_cookie_keys(&mut self, host: usize, keys: CookieKeys) {
        self.keys[host] = keys;
    }

    /// A worker of `host` has a new connection.
    pub fn opens(&mut self, host: usize, queue: u16, key: &ConnectionKey) {
        let (ours, theirs) = (key.local_port, key.remote_port);
        self.fresh.insert((host, queue, if host == 0 { (ours, theirs) } else { (theirs, ours) }));
    }

    /// Whether a SYN-ACK of `host` is a cookie.
    #[must_use]
    pub fn is_cookie(&self, now: Instant, host: usize, segment: &Segment) -> bool {
        let key = ConnectionKey::new(segment.source, segment.destination);
        let tsval = segment.timestamps.map(|(value, _)| value);
        let (seq, ack) = (segment.ack, segment.seq.wrapping_add(1));
        cookie::check(&self.keys[host], now.as_nanos(), &key, seq, ack, tsval).is_some()
    }

    /// When the run began.
    #[must_use]
    pub fn began(&self) -> Instant {
        self.began
    }

    /// A worker sent a frame: judges it. The segment, and the end that sent it.
    ///
    /// # Panics
    /// When a rule is broken.
    pub fn sent(&mut self, now: Instant, host: usize, queue: u16, bytes: &[u8]) -> (Rc<Segment>, Option<usize>) {
        let segment = self.read(now, host, Some(queue), bytes);
        if self.looks_away {
            return (segment, None);
        }
        let ports = ports(host, &segment);
        let end = match segment.flags.syn {
            true if segment.flags.ack && self.is_cookie(now, host, &segment) => {
                Some(self.cookie_sent(host, ports, &segment))
            }
            true => Some(self.syn_sent(host, queue, ports, &segment)),
            false if segment.flags.rst => None,
            false => self.end_of(host, queue, ports, &segment),
        };
        (Rc::clone(&segment), self.judge_sent(end, &segment, bytes))
    }

    /// The program of `host` answered a frame with this one: judges it.
    ///
    /// # Panics
    /// When a rule is broken.
    pub fn answered(&mut self, now: Instant, host: usize, bytes: &[u8]) -> (Rc<Segment>, Option<usize>) {
        let segment = self.read(now, host, None, bytes);
        if self.looks_away || segment.flags.rst {
            return (segment, None);
        }
        let ports = ports(host, &segment);
        let end = match segment.flags.syn {
            true => {
                assert!(self.is_cookie(now, host, &segment), "the program sends a SYN-ACK that is no cookie");
                self.cookie_sent(host, ports, &segment)
            }
            false => self.end_in_time_wait(host, ports, &segment),
        };
        (Rc::clone(&segment), self.judge_sent(Some(end), &segment, bytes))
    }

    /// A frame that `host` sends, as a segment that breaks no rule of its own.
    fn read(&mut self, now: Instant, host: usize, queue: Option<u16>, bytes: &[u8]) -> Rc<Segment> {
        let segment = Segment::parse(now.since(self.began), bytes).expect("a host sends segments only");
        let segment = Rc::new(segment);
        if self.looks_away {
            return segment;
        }
        trace::sent(now, host, queue, &segment);
        if queue.is_some_and(|queue| self.comes_again(host, queue, &segment)) {
            self.checkers.iter_mut().for_each(|checker| checker.begins_again(&segment));
        }
        for checker in &mut self.checkers {
            checker.segment(Segment::clone(&segment));
        }
        if let Some(report) = self.checkers[host].report() {
            panic!("{report}");
        }
        let longest = usize::from(self.mtu[host]) + 14;
        assert!(bytes.len() <= longest, "a frame of {} bytes on a link that takes {longest}", bytes.len());
        segment
    }

    fn judge_sent(&mut self, end: Option<usize>, segment: &Segment, bytes: &[u8]) -> Option<usize> {
        let end = end.filter(|end| !segment.flags.rst && !self.answers_stranger(*end, segment))?;
        self.judge(end, segment, &bytes[segment.payload.clone()]);
        Some(end)
    }

    /// The end that a cookie is: a new one, or one of which no connection came and that is repeated.
    fn cookie_sent(&mut self, host: usize, ports: Ports, segment: &Segment) -> usize {
        let again =
            |end: &End| end.cookie && !end.opened && (end.host, end.ports, end.iss) == (host, ports, segment.seq);
        if let Some(end) = self.ends.iter().rposition(again) {
            return end;
        }
        let end = End { cookie: true, ..self.begin(host, ports, segment) };
        self.ends.push(end);
        self.ends.len() - 1
    }

    /// The end that a segment without SYN or RST is of.
    ///
    /// # Panics
    /// When the worker never sent a SYN, nor anybody a cookie, that the segment could follow.
    fn end_of(&mut self, host: usize, queue: u16, ports: Ports, segment: &Segment) -> Option<usize> {
        if self.fresh.remove(&(host, queue, ports)) {
            let cookie = self.cookie_of(host, ports, segment).expect("a connection without SYN comes of a cookie");
            let end = self.comes_of_cookie(cookie);
            self.current.insert((host, queue, ports), end);
        }
        self.current.get(&(host, queue, ports)).copied()
    }

    /// The cookie that a connection stands for whose first segment this is.
    fn cookie_of(&self, host: usize, ports: Ports, segment: &Segment) -> Option<usize> {
        // A probe of keep-alive has the number before the next.
        let begins = |end: &End| (0..=1).contains(&relative(segment.seq, end.iss));
        self.ends.iter().rposition(|end| end.cookie && (end.host, end.ports) == (host, ports) && begins(end))
    }

    /// Whether a segment is the first of the second connection that comes of one cookie.
    fn comes_again(&self, host: usize, queue: u16, segment: &Segment) -> bool {
        let ports = ports(host, segment);
        let first = self.fresh.contains(&(host, queue, ports)) && !segment.flags.syn && !segment.flags.rst;
        first && self.cookie_of(host, ports, segment).is_some_and(|cookie| self.ends[cookie].opened)
    }

    /// A connection comes of a cookie. It may be the second: a copy of what brought the cookie back came late.
    fn comes_of_cookie(&mut self, cookie: usize) -> usize {
        if !std::mem::replace(&mut self.ends[cookie].opened, true) {
            return cookie;
        }
        let first = &self.ends[cookie];
        let second = End {
            peer: None,
            next: 1,
            fin: None,
            arrived: first.arrived.clone(),
            acked: 1,
            known_acked: 1,
            acknowledges: None,
            first_flight: 0,
            answered: false,
            ..*first
        };
        self.ends.push(second);
        self.ends.len() - 1
    }

    /// The end for which the program acknowledges.
    fn end_in_time_wait(&self, host: usize, ports: Ports, segment: &Segment) -> usize {
        let fits = |end: &End| {
            (end.host, end.ports) == (host, ports) && end.fin.is_some() && relative(segment.seq, end.iss) == end.next
        };
        self.ends.iter().rposition(fits).expect("the program acknowledges for an end that has sent everything")
    }

    /// Somebody else than the hosts sends a frame to host `1 - host`, in the name of `host`: it may draw a reset.
    pub fn forged(&mut self, now: Instant, host: usize, bytes: &[u8]) {
        let Some(segment) = Segment::parse(now.since(self.began), bytes) else { return };
        trace::say(now, || format!("forged {}", segment.to_string().trim_start()));
        if segment.flags.syn {
            self.strangers.insert(segment.seq.wrapping_add(1));
        }
        self.checkers[1 - host].segment(segment);
    }

    /// Whether the other end is certain to have left SYN_RCVD: it acknowledged more than a SYN, or sent more.
    #[must_use]
    pub fn is_heard(&self, end: usize) -> bool {
        let peer = self.ends[end].peer.map(|peer| &self.ends[peer]);
        peer.is_some_and(|peer| peer.next > 1 || peer.acknowledges.is_some_and(|ack| ack > 1))
    }

    /// A frame that an end sent reached a worker of the other host, unharmed.
    pub fn arrived(&mut self, end: usize, segment: &Segment) {
        let sender = &self.ends[end];
        let start = relative(segment.seq, sender.iss);
        let newest = start >= sender.arrived.contiguous() && start < sender.edge;
        let (peer, window) = (sender.peer, i64::from(segment.window) << self.shift(end, segment));
        let clock = segment.timestamps.map(|(value, _)| value);
        for twin in self.twins(end) {
            self.ends[twin].arrived.add(start, start + i64::from(segment.sequence_length()));
        }
        let Some(peer) = peer.filter(|_| segment.flags.ack) else {
            self.syn_arrived(end, clock);
            return;
        };
        for twin in self.twins(peer) {
            self.ends[twin].hear(segment.ack, window, clock, newest);
        }
    }

    /// The ends with the same numbers: several connections may come of one cookie, one after the other.
    fn twins(&self, end: usize) -> Vec<usize> {
        let name = |end: &End| (end.host, end.ports, end.iss);
        (0..self.ends.len()).filter(|&other| name(&self.ends[other]) == name(&self.ends[end])).collect()
    }

    /// Segments that the hosts sent.
    #[must_use]
    pub fn segments(&self) -> usize {
        self.checkers[0].segments().len()
    }

    /// Initial number of the end that a worker's segments between `ports` belong to now.
    #[must_use]
    pub fn iss(&self, host: usize, queue: u16, ports: Ports) -> Option<u32> {
        self.current.get(&(host, queue, ports)).map(|&end| self.ends[end].iss)
    }

    /// A SYN without ACK says nothing to an end that is known; its clock may be echoed by whoever answers it.
    fn syn_arrived(&mut self, end: usize, clock: Option<u32>) {
        let (host, ports) = (self.ends[end].host, self.ends[end].ports);
        for other in self.ends.iter_mut().filter(|other| other.host != host && other.ports == ports) {
            other.heard_clock = later(other.heard_clock, clock);
        }
    }

    fn syn_sent(&mut self, host: usize, queue: u16, ports: Ports, segment: &Segment) -> usize {
        self.fresh.remove(&(host, queue, ports));
        if let Some(&known) = self.current.get(&(host, queue, ports))
            && self.ends[known].iss == segment.seq
        {
            return known;
        }
        let end = self.begin(host, ports, segment);
        self.ends.push(end);
        self.current.insert((host, queue, ports), self.ends.len() - 1);
        self.ends.len() - 1
    }

    /// The end that begins with a SYN or SYN-ACK.
    fn begin(&self, host: usize, ports: Ports, segment: &Segment) -> End {
        End {
            host,
            ports,
            talk: self.talks.get(&ports).copied(),
            iss: segment.seq,
            peer: None,
            next: 0,
            fin: None,
            arrived: Ranges::default(),
            acked: 0,
            known_acked: 0,
            edge: 0,
            acknowledges: None,
            scale: segment.window_scale,
            sack: segment.sack_permitted,
            timestamps: segment.timestamps.is_some(),
            mss: segment.mss.unwrap_or(if segment.source.is_ipv4() { 536 } else { 1220 }),
            ecn: segment.flags.ece,
            clock: None,
            // Clocks that arrived before this end existed may be echoed by it.
            heard_clock: self.latest_clock(1 - host, ports),
            first_flight: 0,
            answered: false,
            cookie: false,
            opened: false,
        }
    }

    fn answers_stranger(&self, end: usize, segment: &Segment) -> bool {
        self.ends[end].peer.is_none() && segment.flags.ack && self.strangers.contains(&segment.ack)
    }

    fn latest_clock(&self, host: usize, ports: Ports) -> Option<u32> {
        self.ends.iter().rev().find(|end| end.host == host && end.ports == ports).and_then(|end| end.clock)
    }

    fn judge(&mut self, end: usize, segment: &Segment, payload: &[u8]) {
        if segment.flags.ack {
            self.judge_ack(end, segment);
        }
        self.judge_options(end, segment);
        self.judge_numbers(end, segment, payload);
    }

    /// What is acknowledged has arrived, and never less than before.
    fn judge_ack(&mut self, end: usize, segment: &Segment) {
        if self.ends[end].peer.is_none() {
            self.ends[end].peer = self.acknowledged_end(end, segment);
        }
        let Some(peer) = self.ends[end].peer else {
            panic!("acknowledges {}, which is nobody's number", segment.ack);
        };
        let ack = relative(segment.ack, self.ends[peer].iss);
        let arrived = self.ends[peer].arrived.contiguous();
        assert!(ack <= arrived, "acknowledges {ack} of the peer's octets when {arrived} have arrived");
        let before = self.ends[end].acknowledges.replace(ack);
        assert!(before.is_none_or(|before| before <= ack), "acknowledges {ack} after {before:?}");
        self.judge_reports(end, peer, ack, segment);
    }

    /// The end whose numbers a first ACK is about: the youngest of the other host whose octets up to there arrived.
    fn acknowledged_end(&self, end: usize, segment: &Segment) -> Option<usize> {
        let (host, ports) = (self.ends[end].host, self.ends[end].ports);
        let fits = |other: &End| {
            let ack = relative(segment.ack, other.iss);
            other.host != host && other.ports == ports && 0 < ack && ack <= other.arrived.contiguous()
        };
        self.ends.iter().rposition(fits)
    }

    /// SACK blocks tell of what arrived, beyond the ACK except for a report of something that came twice.
    fn judge_reports(&self, end: usize, peer: usize, ack: i64, segment: &Segment) {
        let (end, peer) = (&self.ends[end], &self.ends[peer]);
        if segment.sacks.is_empty() {
            return;
        }
        assert!(end.sack && peer.sack, "reports by SACK, which was not agreed on");
        let blocks: Vec<(i64, i64)> =
            segment.sacks.iter().map(|&(from, to)| (relative(from, peer.iss), relative(to, peer.iss))).collect();
        for (index, &(from, to)) in blocks.iter().enumerate() {
            assert!(from < to && peer.arrived.holds(from, to), "reports {from}..{to}, which has not arrived");
            let twice = index == 0 && (to <= ack || blocks.get(1).is_some_and(|next| next.0 <= from && to <= next.1));
            assert!(twice || from > ack, "reports {from}..{to} although it acknowledges {ack}");
        }
    }

    fn judge_options(&mut self, end: usize, segment: &Segment) {
        let agreed = self.ends[end].peer.map(|peer| self.ends[peer].timestamps && self.ends[end].timestamps);
        let heard = self.ends[end].heard_clock;
        let end = &mut self.ends[end];
        if let (Some(agreed), false) = (agreed, segment.flags.syn) {
            assert_eq!(segment.timestamps.is_some(), agreed, "timestamps are as agreed (RFC 7323 section 3.2)");
        }
        let Some((clock, echo)) = segment.timestamps else { return };
        let back = end.clock.is_some_and(|before| (clock.wrapping_sub(before) as i32) < 0);
        assert!(!back, "the clock goes back from {:?} to {clock}", end.clock);
        end.clock = Some(clock);
        if segment.flags.ack {
            let heard = heard.expect("an echo of something");
            assert!((echo.wrapping_sub(heard) as i32) <= 0, "echoes {echo}, and {heard} was the last to arrive");
        }
    }

    /// Numbers, windows and the stream itself.
    fn judge_numbers(&mut self, end: usize, segment: &Segment, payload: &[u8]) {
        let peer = self.ends[end].peer.map(|peer| (self.ends[peer].mss, self.ends[peer].ecn));
        let end = &mut self.ends[end];
        let start = relative(segment.seq, end.iss);
        let after = start + i64::from(segment.sequence_length());
        let text = start + i64::from(segment.flags.syn);
        let text_end = text + payload.len() as i64;
        assert!(start <= end.next, "sends {start}..{after} after {}: a hole", end.next);
        if let Some(fin) = end.fin {
            assert!(after <= fin + 1, "sends {start}..{after} although its FIN was {fin}");
        }
        if segment.flags.fin {
            assert!(end.fin.is_none_or(|fin| fin == text_end), "a FIN at {text_end} after one at {:?}", end.fin);
            end.fin = Some(text_end);
        }
        if !payload.is_empty() {
            let talk = end.talk.expect("octets of a talk");
            assert!(payload == stream(end.host, talk, (text - 1) as usize, payload.len()), "sends what was not said");
        }
        if let Some((mss, ecn)) = peer {
            let size = payload.len() + segment.option_length;
            assert!(payload.is_empty() || size <= mss.into(), "{size} bytes with options for an MSS of {mss}");
            assert!(segment.ecn == 0 || (ecn && end.ecn), "marks may be set although they were not agreed on");
        }
        let again = after > start && after <= end.known_acked && !segment.flags.syn;
        assert!(!again, "sends {start}..{after} again, acknowledged up to {}", end.known_acked);
        assert!(segment.ecn == 0 || start >= end.next, "what is sent again may be marked");
        end.judge_window(start, after, segment.flags.syn, payload.len());
        end.next = end.next.max(after);
    }

    /// By how much the window field of what `end` sends is shifted.
    fn shift(&self, end: usize, segment: &Segment) -> u8 {
        let end = &self.ends[end];
        let peer = end.peer.map(|peer| &self.ends[peer]);
        match (segment.flags.syn, end.scale, peer.and_then(|peer| peer.scale)) {
            (false, Some(shift), Some(_)) => shift,
            _ => 0,
        }
    }
}

impl End {
    /// A segment of the other end's has reached it, whose ACK it must believe if that is the `newest`.
    fn hear(&mut self, ack: u32, window: i64, clock: Option<u32>, newest: bool) {
        let ack = relative(ack, self.iss);
        self.acked = self.acked.max(ack);
        // What comes from behind the window or from the past is not believed, nor is its ACK; nor one of what was never
        // sent, but by a twin.
        let past = clock.zip(self.heard_clock).is_some_and(|(now, heard)| (now.wrapping_sub(heard) as i32) < 0);
        if newest && !past && ack <= self.next {
            self.known_acked = self.known_acked.max(ack);
        }
        self.edge = self.edge.max(ack + window);
        self.answered |= self.first_flight > 0;
        self.heard_clock = later(self.heard_clock, clock);
    }

    /// Nothing is sent beyond the right edge but the one octet of a probe; and before the first ACK no more than the
    /// initial window (RFC 6928).
    fn judge_window(&mut self, start: i64, after: i64, syn: bool, length: usize) {
        if syn {
            return;
        }
        let probe = after - start == 1 && start <= self.edge;
        assert!(after <= self.edge || probe || after == start, "sends {start}..{after} beyond the edge {}", self.edge);
        if !self.answered && after > self.next && length > 0 {
            self.first_flight += length as i64;
            // A tail loss probe may carry one segment more (RFC 8985 section 7.3).
            assert!(self.first_flight <= 14_600 + 1460, "{} octets before the first ACK", self.first_flight);
        }
    }
}

fn ports(host: usize, segment: &Segment) -> Ports {
    let (ours, theirs) = (segment.source.port(), segment.destination.port());
    if host == 0 { (ours, theirs) } else { (theirs, ours) }
}

fn relative(number: u32, iss: u32) -> i64 {
    i64::from(number.wrapping_sub(iss) as i32)
}

/// The later of two clock values.
fn later(one: Option<u32>, other: Option<u32>) -> Option<u32> {
    match (one, other) {
        (Some(one), Some(other)) if (other.wrapping_sub(one) as i32) < 0 => Some(one),
        (one, None) => one,
        (_, other) => other,
    }
}
