//! The world: two hosts, the path between them, and a virtual clock that jumps from one thing that happens to the next.
//! Runs a plan to its end, and after every turn judges what the stack says of itself ([`Judge`]); what it sends is
//! judged by the [`Observer`].

use std::time::Duration;

use tcp_proto::{Instant, State, SynCookies};

use crate::app::Stage;
use crate::chance::Chance;
use crate::count::Counts;
use crate::faults::Trouble;
use crate::host::{Host, Worker};
use crate::judge::Judge;
use crate::link::{Flying, Link, Weather};
use crate::observer::{Observer, Ports};
use crate::plan::{Opener, Plan};
use crate::{frame, host, trace};

/// Turns of all workers that a run may take, many times what any needs.
const MAX_TURNS: u64 = 3_000_000;
/// Turns in which nothing is done that a run may take beyond one for each segment and some a second.
const IDLE_TURNS: u64 = 1000;
/// Timers may find nothing to do (keep-alive while data are outstanding), but not often: of all connections together.
const IDLE_TURNS_A_SECOND: u64 = 60;
/// How long an opener waits before it tries again to use a 4-tuple that is still in use.
const RETRY: Duration = Duration::from_millis(50);
/// How often, longer than any TIME_WAIT lasts.
const RETRIES: u32 = 2000;
/// The same with a listener in cookie mode, which answers no FIN of a connection that it has forgotten (decision 13): as
/// long as an orphan repeats it.
const RETRIES_IN_SILENCE: u32 = 60_000;

/// What came of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Segments that the hosts sent.
    pub segments: u64,
    /// A hash over every frame and when it was sent: equal for equal runs.
    pub digest: u64,
    /// Virtual time that it took.
    pub took: Duration,
    /// What the stacks counted, and how often each cause changed each state.
    pub figures: Counts,
    /// Why stacks dropped segments.
    pub drops: Counts,
    /// Faults, and what the XDP program decided.
    pub faults: Counts,
    /// State and cause (by their numbers), and how often.
    pub transitions: Vec<(State, tcp_proto::Cause, u64)>,
}

/// A run under way.
pub struct World {
    plan: Plan,
    now: Instant,
    began: Instant,
    hosts: [Host; 2],
    /// To the first host, to the second.
    links: [Link; 2],
    observer: Observer,
    judge: Judge,
    chance: Chance,
    counts: Counts,
    sent: u64,
    digest: u64,
    turns: u64,
    idle: u64,
    /// Talks that are still to be opened, when, and how often that was tried.
    openings: Vec<(usize, Instant, u32)>,
    /// The episodes that run, until when.
    running: Vec<(Trouble, Instant)>,
    /// Episodes that have begun.
    begun: usize,
    deaf_at: Option<(usize, Instant)>,
}

impl World {
    /// The world of a plan, before anything has happened.
    #[must_use]
    pub fn new(plan: Plan) -> World {
        let mut chance = Chance::new(plan.seed ^ 0x5eed);
        let now = Instant::from_millis(plan.begins);
        trace::begin(now);
        let hosts = [0, 1].map(|number| Host::new(&plan, number, now, &mut chance));
        let links = [1, 0].map(|way: usize| Link::new(plan.faults.ways[way].clone(), chance.fork(), now));
        let openings = plan.talks.iter().enumerate().map(|(number, talk)| (number, now + talk.opens, 0)).collect();
        World {
            chance: chance.fork(),
            observer: Observer::new(now, plan.hosts.each_ref().map(|host| host.mtu)),
            judge: Judge::new(&plan),
            now,
            began: now,
            hosts,
            links,
            counts: Counts::default(),
            sent: 0,
            digest: 0,
            turns: 0,
            idle: 0,
            openings,
            running: Vec::new(),
            begun: 0,
            deaf_at: plan.deaf_after.map(|(host, after)| (host, now + after)),
            plan,
        }
    }

    /// The same, but nobody watches the wire: for runs that measure.
    #[must_use]
    pub fn unwatched(plan: Plan) -> World {
        let mut world = World::new(plan);
        world.observer.look_away();
        world
    }

    /// Runs until nothing will ever happen again.
    ///
    /// # Panics
    /// When a rule is broken.
    pub fn run(mut self) -> Outcome {
        while self.step(Instant::MAX) || self.wake_the_forsaken() {}
        self.assert_all_is_over();
        self.outcome()
    }

    /// Runs until `after` has passed since the beginning.
    ///
    /// # Panics
    /// When a rule is broken.
    pub fn run_for(&mut self, after: Duration) {
        while self.step(self.began + after) {}
    }

    /// Bytes that `host` has heard in talk `talk`.
    #[must_use]
    pub fn heard(&self, host: usize, talk: usize) -> usize {
        self.hosts[host].apps.sides[talk].heard
    }

    /// Goes on to the next thing that happens, unless that is after `end`; whether there was one.
    fn step(&mut self, end: Instant) -> bool {
        let Some(next) = self.next().filter(|next| *next <= end) else { return false };
        self.now = self.now.max(next);
        self.change_weather();
        self.deliver();
        self.open();
        for host in 0..2 {
            self.hosts[host].sweep(self.now, &mut self.counts);
            for queue in 0..self.hosts[host].workers.len() {
                if self.hosts[host].wakes_at(queue).is_some_and(|at| at <= self.now) {
                    self.turn(host, queue);
                }
            }
        }
        self.judge.meet_demands(self.now, &self.hosts);
        assert!(
            self.turns < MAX_TURNS || end != Instant::MAX,
            "no end after {MAX_TURNS} turns, {} of them idle",
            self.idle
        );
        true
    }

    fn next(&self) -> Option<Instant> {
        let workers = self.hosts.iter().flat_map(|host| (0..host.workers.len()).map(|queue| host.wakes_at(queue)));
        let openings = self.openings.iter().filter(|(talk, ..)| self.may_open(*talk)).map(|(_, at, _)| Some(*at));
        let episodes = self.running.iter().map(|(_, until)| Some(*until));
        let others = [self.deaf_at.map(|(_, at)| at), self.judge.next_demand()];
        let sweeps = self.hosts.iter().map(Host::sweeps_at);
        let own = openings.chain(episodes).chain(others).chain(sweeps);
        let all = workers.chain(self.links.iter().map(Link::next)).chain(own);
        all.flatten().min()
    }

    fn deliver(&mut self) {
        for host in 0..2 {
            self.hosts[host].nic.clean = self.judge.demands_progress();
            while let Some((at, flying)) = self.links[host].take(self.now) {
                let at = at.max(self.now);
                let answer = self.hosts[host].receive(at, flying, &mut self.observer, &mut self.counts);
                if let Some(answer) = answer {
                    self.send(host, at, answer);
                }
            }
        }
    }

    /// Whether a talk's turn has come: the one before on the same ports is over.
    fn may_open(&self, talk: usize) -> bool {
        let port = self.plan.talks[talk].port;
        let before = (0..talk).rev().find(|&other| self.plan.talks[other].port == port);
        let over = |other: usize| self.hosts.iter().all(|host| host.apps.sides[other].stage == Stage::Over);
        before.is_none_or(over)
    }

    fn open(&mut self) {
        if let Some((host, _)) = self.deaf_at.take_if(|(_, at)| *at <= self.now) {
            self.hosts[host].unlisten(self.now);
        }
        let mut waiting = std::mem::take(&mut self.openings);
        waiting.retain_mut(|(number, at, tries)| {
            if *at > self.now || !self.may_open(*number) {
                return true;
            }
            let talk = self.plan.talks[*number].clone();
            let openers: &[usize] = match talk.opener {
                Opener::One(host) | Opener::Refused(host) => &[host],
                Opener::Both => &[0, 1],
            };
            let ports = ports(talk.opener, talk.port);
            self.observer.expect(ports, *number);
            let untried = |host: &&usize| self.hosts[**host].apps.sides[*number].stage == Stage::Before;
            let openers: Vec<usize> = openers.iter().filter(untried).copied().collect();
            let opened = openers.into_iter().all(|host| self.hosts[host].open(self.now, *number, &talk));
            (*at, *tries) = (self.now + RETRY, *tries + 1);
            if *tries > RETRIES && talk.may_fail {
                self.hosts.iter_mut().for_each(|host| host.apps.sides[*number].forgo());
                return false;
            }
            let most = if self.listens_with_cookies(talk.opener) { RETRIES_IN_SILENCE } else { RETRIES };
            assert!(*tries <= most, "talk {number} finds its 4-tuple in use for ever");
            !opened
        });
        self.openings = waiting;
    }

    /// Whether the listener of a talk may be in cookie mode.
    fn listens_with_cookies(&self, opener: Opener) -> bool {
        matches!(opener, Opener::One(host) if self.hosts[1 - host].tcp().syn_cookies != SynCookies::Never)
    }

    fn turn(&mut self, host: usize, queue: usize) {
        self.turns += 1;
        let turned = self.hosts[host].turn(self.now, queue, &mut self.observer, &mut self.counts);
        let again = self.hosts[host].workers[queue].due.is_some_and(|due| due <= self.now);
        if !turned.busy {
            self.idle += 1;
            assert!(!again, "a turn that did nothing asks for another at once");
        }
        self.judge.after_turn(self.now, &self.hosts[host], queue);
        self.forgive_early_resets(host);
        for flying in turned.sent {
            self.send(host, turned.at, flying);
        }
    }

    /// A listener in cookie mode knows nothing of a peer until an ACK brings the cookie back, and resets it if another
    /// one comes first (docs/decisions/0013).
    fn forgive_early_resets(&mut self, host: usize) {
        for number in 0..self.plan.talks.len() {
            if std::mem::take(&mut self.hosts[host].apps.sides[number].reset_early) {
                self.counts.count("reset before the cookie came");
                self.plan.talks[number].may_fail = true;
                self.hosts.iter_mut().for_each(|host| host.apps.sides[number].may_fail());
            }
        }
    }

    fn send(&mut self, host: usize, at: Instant, flying: Flying) {
        self.sent += 1;
        self.digest = digest(self.digest, at, host, &flying.bytes);
        self.begin_episodes();
        let to = 1 - host;
        self.forge(host, at, &flying);
        let weather = self.weather(to);
        if let Some(error) = self.links[to].send(at, flying, weather, &mut self.counts) {
            let error = Flying { bytes: error, segment: None, corrupted: false };
            let weather = self.weather(host);
            self.links[host].send(at, error, weather, &mut self.counts);
        }
    }

    /// An attacker sees a frame, and sends some of its own. Opens are left alone: a forged SYN can end one, as the RFC has
    /// it (docs/decisions/0011).
    fn forge(&mut self, host: usize, at: Instant, seen: &Flying) {
        let opening = |worker: &Worker| worker.stack.count(State::SYN_SENT) > 0;
        let opens = seen.segment.as_ref().is_none_or(|(segment, _)| segment.flags.syn)
            || self.hosts[1 - host].workers.iter().any(opening);
        // What comes after a FIN finds a connection in TIME_WAIT.
        let fin = seen.segment.as_ref().is_some_and(|(segment, _)| segment.flags.fin);
        let odds = if fin { 20 } else { 1 } * self.plan.faults.forgery;
        if opens || !self.chance.happens(odds) {
            return;
        }
        // A SYN in the window ends what is half open, as the RFC has it (section 3.10.7.4, fourth).
        let near = seen.segment.as_ref().and_then(|(_, end)| *end).is_some_and(|end| self.observer.is_heard(end));
        for _ in 0..self.chance.between(1, 8) {
            let bytes = frame::forge(&seen.bytes, near, &mut self.chance);
            self.observer.forged(at, host, &bytes);
            self.counts.count("forgery");
            self.links[1 - host].slip_in(at, Flying { bytes, segment: None, corrupted: true });
        }
    }

    fn weather(&self, to: usize) -> Weather {
        let mut weather = Weather { clean: self.judge.demands_progress(), ..Weather::default() };
        for (trouble, _) in &self.running {
            match *trouble {
                Trouble::Blackout => weather.blackout = true,
                Trouble::OneWay(way) => weather.blackout |= way == to,
                Trouble::Spike(extra) => weather.spike = weather.spike.max(extra),
                Trouble::Mtu { .. } => {}
            }
        }
        weather
    }

    fn begin_episodes(&mut self) {
        while let Some(episode) = self.plan.faults.episodes.get(self.begun).copied() {
            // While progress is demanded nothing gets worse.
            if episode.after > self.sent || self.judge.demands_progress() {
                return;
            }
            self.begun += 1;
            trace::say(self.now, || format!("{:?} begins and lasts {:?}", episode.what, episode.lasts));
            match episode.what {
                Trouble::Mtu { mtu, silent } => self.links.iter_mut().for_each(|link| link.shrink(mtu, silent)),
                Trouble::Blackout => self.counts.count("blackout"),
                Trouble::OneWay(_) => self.counts.count("one-way blackout"),
                Trouble::Spike(_) => self.counts.count("delay spike"),
            }
            if !matches!(episode.what, Trouble::Mtu { .. }) {
                self.running.push((episode.what, self.now + episode.lasts));
            }
        }
    }

    /// Ends episodes. When nothing is wrong any more, whoever waits for an answer must get on soon.
    fn change_weather(&mut self) {
        let now = self.now;
        let before = self.running.len();
        self.running.retain(|(_, until)| *until > now);
        if self.running.len() < before && self.running.is_empty() {
            trace::say(now, || "the path has healed".to_owned());
            let queued = self.links.iter().map(|link| link.queued(now)).sum();
            self.judge.demand_progress(now, &self.hosts, queued);
        }
    }

    /// Nothing will ever happen: whoever still holds a connection must be one whose peer has gone without a word, who
    /// has nothing to say, and who did not ask for keep-alive. They abort; whether there were any.
    fn wake_the_forsaken(&mut self) -> bool {
        let mut found = false;
        let talks = self.plan.talks.iter().enumerate().filter(|(_, talk)| talk.may_fail);
        for (number, host) in talks.flat_map(|(number, _)| [(number, 0), (number, 1)]) {
            let gone = !matches!(self.hosts[1 - host].apps.sides[number].stage, Stage::Open(_));
            found |= gone && self.hosts[host].give_up(self.now, number);
        }
        found
    }

    fn assert_all_is_over(&self) {
        for (number, talk) in self.plan.talks.iter().enumerate() {
            for host in &self.hosts {
                let side = &host.apps.sides[number];
                let over = side.stage == Stage::Over;
                let never = talk.may_fail && side.stage == Stage::Before;
                let host = host.number;
                assert!(over || never, "talk {number} of host {host} is {:?} for ever: {side:?}", side.stage);
                assert!(talk.may_fail || side.is_whole(), "talk {number} of host {host} is not whole: {side:?}");
            }
        }
        for host in &self.hosts {
            host.assert_nothing_is_left();
        }
        let most = IDLE_TURNS + self.sent + IDLE_TURNS_A_SECOND * self.now.since(self.began).as_secs();
        assert!(self.idle < most, "{} idle turns for {} frames", self.idle, self.sent);
    }

    fn outcome(self) -> Outcome {
        let mut outcome = Outcome {
            segments: self.sent,
            digest: self.digest,
            took: self.now.since(self.began),
            faults: self.counts,
            ..Outcome::default()
        };
        for worker in self.hosts.iter().flat_map(|host| &host.workers) {
            outcome.figures.merge(worker.stack.figures());
            outcome.drops.merge(worker.stack.drops());
            outcome.transitions.extend(worker.stack.transitions());
        }
        outcome
    }
}

/// Ports of a talk, those of the first host first.
fn ports(opener: Opener, port: u16) -> Ports {
    match opener {
        Opener::One(0) => (port, host::LISTEN_PORT),
        Opener::One(_) => (host::LISTEN_PORT, port),
        Opener::Both => (port, port),
        Opener::Refused(0) => (port, host::CLOSED_PORT),
        Opener::Refused(_) => (host::CLOSED_PORT, port),
    }
}

fn digest(before: u64, at: Instant, host: usize, bytes: &[u8]) -> u64 {
    let mix = |hash: u64, word: u64| (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    let start = mix(mix(before, at.as_nanos()), bytes.len() as u64 * 2 + host as u64);
    let words = bytes.chunks(8).map(|chunk| chunk.iter().fold(0, |word, &byte| word << 8 | u64::from(byte)));
    words.fold(start, mix)
}
