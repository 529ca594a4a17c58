//! The applications of a host: they say what their scripts tell them, check every byte that they hear, rest, and end.

use std::time::Duration;

use tcp_proto::{CloseReason, ConnectionId, Event, Instant, ListenerId, Received, Stack, State, SynCookies};

use crate::chance::Chance;
use crate::plan::{Ending, Opener, Plan, Script};
use crate::stream::stream;
use crate::trace;

/// Where a side of a talk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Not opened yet.
    Before,
    /// It holds a connection.
    Open(ConnectionId),
    /// It gave the connection back, or lost it.
    Over,
}

/// One side of a talk.
#[derive(Debug)]
pub struct Side {
    script: Script,
    /// Bytes that it is to hear.
    hears: usize,
    /// Whether anything but two whole streams may be the outcome.
    may_fail: bool,
    opens: bool,
    /// Whether the other end may be a listener in cookie mode.
    cookies: bool,
    /// Its connection was reset before anything was heard on it; and only an ACK that brought no cookie back explains it.
    pub reset_early: bool,
    /// The worker that has its connection.
    pub queue: u16,
    /// Where it is.
    pub stage: Stage,
    /// Local and remote port of its connection.
    pub port_pair: Option<(u16, u16)>,
    /// Bytes that were taken from it.
    pub said: usize,
    /// Bytes that it heard.
    pub heard: usize,
    shut: bool,
    /// Heard the end of the other's stream.
    ended: bool,
    /// Its connection has ended, and may have something to be read.
    finished: bool,
    /// It says nothing before, and reads nothing before.
    writes_at: Option<Instant>,
    reads_at: Option<Instant>,
    /// Bytes said when it rested or paused last.
    rested: usize,
    paused: bool,
    paused_at_end: bool,
}

/// The applications of one host.
#[derive(Debug)]
pub struct Apps {
    host: usize,
    /// Sides of talks, by the talk's number.
    pub sides: Vec<Side>,
    ports: Vec<u16>,
    chance: Chance,
    /// Listeners, one for each worker.
    pub listeners: Vec<ListenerId>,
    accepts_after: Duration,
    /// Connections that wait to be accepted: when they are, on which worker, from which listener.
    incoming: Vec<(Instant, u16, ListenerId)>,
}

impl Apps {
    /// The applications of `host` in a plan.
    #[must_use]
    pub fn new(plan: &Plan, host: usize, chance: Chance) -> Apps {
        let sides = plan.talks.iter().map(|talk| {
            let opens = talk.opener == Opener::Both || talk.opener == Opener::One(host);
            let (script, other) = (talk.sides[host].clone(), &talk.sides[1 - host]);
            let opens = opens || talk.opener == Opener::Refused(host);
            let cookies = plan.hosts[1 - host].tcp.syn_cookies != SynCookies::Never;
            Side::new(script, other.says, talk.may_fail, opens, cookies && talk.opener == Opener::One(host))
        });
        let ports = plan.talks.iter().map(|talk| talk.port).collect();
        let accepts_after = plan.hosts[host].accepts_after;
        let sides = sides.collect();
        Apps { host, sides, ports, chance, listeners: Vec::new(), accepts_after, incoming: Vec::new() }
    }

    /// Something happened on worker `queue`.
    pub fn handle(&mut self, stack: &mut Stack, now: Instant, queue: u16, event: Event) {
        match event {
            Event::Incoming(listener) => {
                let after = self.chance.time(self.accepts_after);
                if after.is_zero() {
                    self.accept(stack, now, queue, listener);
                } else {
                    self.incoming.push((now + after, queue, listener));
                }
            }
            Event::Connected(id) | Event::Readable(id) | Event::Writable(id) => self.act(stack, now, queue, id),
            Event::Closed(id, reason) => self.closed(stack, now, queue, id, reason),
            Event::Retransmitting(_) | Event::Urgent(_) => {}
        }
    }

    /// When worker `queue` is to be turned because somebody has rested.
    #[must_use]
    pub fn next(&self, queue: u16) -> Option<Instant> {
        let open = self.sides.iter().filter(|side| side.queue == queue && matches!(side.stage, Stage::Open(_)));
        let incoming = self.incoming.iter().filter(|(_, of, _)| *of == queue).map(|(at, ..)| *at);
        open.flat_map(|side| [side.writes_at, side.reads_at]).flatten().chain(incoming).min()
    }

    /// Lets everybody of worker `queue` act whose rest ends now; whether anybody did.
    pub fn wake(&mut self, stack: &mut Stack, now: Instant, queue: u16) -> bool {
        let rested: Vec<_> =
            self.sides.iter_mut().filter(|side| side.queue == queue).filter_map(|s| s.rested(now)).collect();
        rested.iter().for_each(|&id| self.act(stack, now, queue, id));
        let due: Vec<_> = self.incoming.extract_if(.., |(at, of, _)| *of == queue && *at <= now).collect();
        due.iter().for_each(|&(.., listener)| self.accept(stack, now, queue, listener));
        !rested.is_empty() || !due.is_empty()
    }

    /// The connection of talk `talk` begins on worker `queue`.
    pub fn begin(&mut self, stack: &mut Stack, now: Instant, talk: usize, queue: u16, id: ConnectionId) {
        let side = &mut self.sides[talk];
        (side.stage, side.queue) = (Stage::Open(id), queue);
        let connection = stack.connection(now, id).expect("it has just begun");
        side.port_pair = Some((connection.local().port(), connection.remote().port()));
        if matches!(side.script.ending, Ending::AtOnce) {
            side.give_back(stack, now, id, false);
        } else {
            self.act(stack, now, queue, id);
        }
    }

    /// Aborts whoever's script says so in the state that its connection is in now.
    pub fn abort_where_due(&mut self, stack: &mut Stack, now: Instant, queue: u16) -> bool {
        let mut aborted = false;
        for side in self.sides.iter_mut().filter(|side| side.queue == queue) {
            let (Stage::Open(id), Ending::AbortIn(state)) = (side.stage, side.script.ending) else { continue };
            if stack.connection(now, id).is_some_and(|connection| connection.state() == state) {
                side.give_back(stack, now, id, true);
                aborted = true;
            }
        }
        aborted
    }

    fn accept(&mut self, stack: &mut Stack, now: Instant, queue: u16, listener: ListenerId) {
        let Some(id) = stack.accept(listener) else { return };
        let port = stack.connection(now, id).expect("just accepted").remote().port();
        let waiting = |(side, of): &(&Side, &u16)| **of == port && side.stage == Stage::Before && !side.opens;
        match self.sides.iter().zip(&self.ports).position(|pair| waiting(&pair)) {
            Some(talk) => self.begin(stack, now, talk, queue, id),
            // The opener gave up and opened again, or an old SYN came back: nobody talks here.
            None => stack.connection(now, id).expect("just accepted").abort(),
        }
    }

    fn find(&self, queue: u16, id: ConnectionId) -> Option<usize> {
        self.sides.iter().position(|side| side.queue == queue && side.stage == Stage::Open(id))
    }

    /// Says and hears as much as goes now.
    fn act(&mut self, stack: &mut Stack, now: Instant, queue: u16, id: ConnectionId) {
        let Some(talk) = self.find(queue, id) else { return };
        let (host, side) = (self.host, &mut self.sides[talk]);
        if side.reads_at.is_none() && !side.ended {
            side.hear(stack, now, id, (1 - host, talk), &mut self.chance);
        }
        if side.writes_at.is_none() && !side.shut {
            side.say(stack, now, id, (host, talk), &mut self.chance);
        }
        side.end_if_done(stack, now, id);
    }

    fn closed(&mut self, stack: &mut Stack, now: Instant, queue: u16, id: ConnectionId, reason: CloseReason) {
        let Some(talk) = self.find(queue, id) else { return };
        trace::say(now, || format!("host {} talk {talk}: closed, {reason:?}", self.host));
        if reason == CloseReason::Finished {
            // What has arrived can still be read.
            (self.sides[talk].finished, self.sides[talk].reads_at) = (true, None);
            self.act(stack, now, queue, id);
        }
        let side = &mut self.sides[talk];
        if side.stage != Stage::Open(id) {
            return;
        }
        if reason == CloseReason::Reset && side.heard_nothing_of_opener() {
            // An old cookie came back (docs/decisions/0013): the opener is still to come.
            *side = side.before();
            return;
        }
        // Neither its ACK nor what it said first had arrived when a bare ACK did, which is answered with a reset.
        side.reset_early = !side.may_fail && side.cookies && side.heard == 0 && reason == CloseReason::Reset;
        side.may_fail |= side.reset_early;
        assert!(side.may_fail || reason == CloseReason::Finished, "talk {talk} ended with {reason:?}");
        // Who rests reads the rest of it later.
        if reason != CloseReason::Finished || side.reads_at.is_none() {
            side.give_back(stack, now, id, false);
        }
    }
}

impl Side {
    fn new(script: Script, hears: usize, may_fail: bool, opens: bool, cookies: bool) -> Side {
        Side {
            script,
            hears,
            may_fail,
            opens,
            cookies,
            reset_early: false,
            queue: 0,
            port_pair: None,
            stage: Stage::Before,
            said: 0,
            heard: 0,
            shut: false,
            ended: false,
            finished: false,
            writes_at: None,
            reads_at: None,
            rested: 0,
            paused: false,
            paused_at_end: false,
        }
    }

    fn heard_nothing_of_opener(&self) -> bool {
        !self.opens && !self.may_fail && self.heard == 0
    }

    /// The same before anything has happened to it.
    fn before(&self) -> Side {
        Side::new(self.script.clone(), self.hears, self.may_fail, self.opens, self.cookies)
    }

    /// Anything may become of its talk from now on.
    pub fn may_fail(&mut self) {
        self.may_fail = true;
    }

    /// Whether it has said and heard everything.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.said == self.script.says && self.heard == self.hears
    }

    /// It will never open.
    pub fn forgo(&mut self) {
        if self.stage == Stage::Before {
            self.stage = Stage::Over;
        }
    }

    /// Its connection, if a rest of it ends now.
    fn rested(&mut self, now: Instant) -> Option<ConnectionId> {
        let Stage::Open(id) = self.stage else { return None };
        let rests = [self.writes_at.take_if(|at| *at <= now), self.reads_at.take_if(|at| *at <= now)];
        rests.iter().any(Option::is_some).then_some(id)
    }

    /// How far it may speak now.
    fn may_say(&self) -> usize {
        let Some((mine, theirs)) = self.script.answers else { return self.script.says };
        let rounds = self.heard / theirs + usize::from(self.opens);
        (rounds * mine).min(self.script.says)
    }

    fn say(&mut self, stack: &mut Stack, now: Instant, id: ConnectionId, of: (usize, usize), chance: &mut Chance) {
        let Some(mut connection) = stack.connection(now, id) else { return };
        while self.said < self.may_say() {
            if let Some((at, rest)) = self.script.pause.filter(|(at, _)| self.said >= *at && !self.paused) {
                self.paused = true;
                self.writes_at = Some(now + rest);
                trace::say(now, || format!("host {} talk {} is silent from {at} on", of.0, of.1));
                return;
            }
            if let Some((_, rest)) = self.script.burst.filter(|(burst, _)| self.said >= self.rested + burst) {
                self.rested = self.said;
                self.writes_at = Some(now + rest);
                return;
            }
            let length = (chance.between(1, self.script.piece as u64) as usize).min(self.may_say() - self.said);
            let taken = connection.send(stream(of.0, of.1, self.said, length));
            self.said += taken;
            if let Ending::AbortAfter(bytes) = self.script.ending
                && self.said >= bytes
            {
                self.give_back(stack, now, id, true);
                return;
            }
            if taken < length {
                return;
            }
        }
    }

    fn hear(&mut self, stack: &mut Stack, now: Instant, id: ConnectionId, from: (usize, usize), chance: &mut Chance) {
        let Some(mut connection) = stack.connection(now, id) else { return };
        let (most, rarely, rest) = self.script.reads;
        let mut into = vec![0; most];
        loop {
            if rarely > 0 && chance.once_in(rarely) {
                self.reads_at = Some(now + chance.time(rest) + Duration::from_nanos(1));
                return;
            }
            let length = if rarely > 0 { 1 + chance.below(most as u64) as usize } else { most };
            match connection.recv(&mut into[..length]) {
                Received::Bytes(count) => self.check(&into[..count.get()], from),
                Received::Nothing => return,
                Received::End => {
                    self.ended = true;
                    return;
                }
            }
        }
    }

    /// What is heard is what was said.
    fn check(&mut self, bytes: &[u8], (host, talk): (usize, usize)) {
        assert!(self.heard + bytes.len() <= self.hears, "talk {talk}: more is heard than host {host} ever says");
        assert!(bytes == stream(host, talk, self.heard, bytes.len()), "talk {talk}: wrong bytes after {}", self.heard);
        self.heard += bytes.len();
    }

    fn end_if_done(&mut self, stack: &mut Stack, now: Instant, id: ConnectionId) {
        if self.stage != Stage::Open(id) {
            return;
        }
        let Some(mut connection) = stack.connection(now, id) else { return };
        let said = self.said == self.script.says;
        let opened = !matches!(connection.state(), State::SYN_SENT | State::SYN_RCVD);
        if !said || !opened {
            return;
        }
        assert!(self.may_fail || !self.ended || self.heard == self.hears, "the stream ended after {}", self.heard);
        match self.script.ending {
            Ending::WhenSaid => return self.give_back(stack, now, id, false),
            Ending::WhenHeard if self.heard == self.hears => return self.give_back(stack, now, id, false),
            _ => {}
        }
        if let Ending::AfterEnd(rest) = self.script.ending {
            if self.ended && !std::mem::replace(&mut self.paused_at_end, true) {
                self.writes_at = Some(now + rest);
            }
            if !self.ended || self.writes_at.is_some() && !self.finished {
                return;
            }
        }
        if !self.shut && !matches!(self.script.ending, Ending::WhenHeard) {
            self.shut = true;
            connection.shutdown_write();
        }
        // Whoever wants to abort in a state waits for it.
        if self.ended && (self.finished || !matches!(self.script.ending, Ending::AbortIn(_))) {
            self.give_back(stack, now, id, false);
        }
    }

    fn give_back(&mut self, stack: &mut Stack, now: Instant, id: ConnectionId, abort: bool) {
        if let Some(connection) = stack.connection(now, id) {
            if abort { connection.abort() } else { connection.close() }
        }
        self.stage = Stage::Over;
    }
}
