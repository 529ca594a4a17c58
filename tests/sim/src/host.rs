//! A host: an interface with queues, the XDP program's decision about every frame and what it answers by itself, and a
//! worker with a production stack for each queue. Frames that arrive on another queue than their connection's are handed
//! over as the daemon does it; the main thread's part in SYN cookies (keys, and the sweep of entries without connection)
//! is here, too.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tcp_common::answer::{Asked, Room};
use tcp_common::cookie;
use tcp_common::counters::DropReason;
use tcp_common::decide::{self, Answer, Decision, Steer, Verdict};
use tcp_common::gauge::Gauge;
use tcp_common::layout::{FLAG_COOKIE, Handover};
use tcp_common::packet;
use tcp_proto::{
    ConnectOptions, ConnectionKey, ConnectionValue, CookieDemand, Device, Instant, LinkAddress, ListenOptions, NoEntry,
    Stack, StackConfig, State, TcpConfig, turn,
};

use crate::app::{Apps, Stage};
use crate::chance::Chance;
use crate::count::Counts;
use crate::frame::{address, mac};
use crate::link::Flying;
use crate::maps::{Answers, KeyRing, Maps};
use crate::observer::Observer;
use crate::plan::{Opener, Plan, Talk};
use crate::trace::{self, Fate};

/// Where every host listens.
pub const LISTEN_PORT: u16 = 80;
/// An owned port where nobody listens.
pub const CLOSED_PORT: u16 = 49_999;
/// Frames that wait for one worker from others, at most (as in the daemon).
const INBOX_FRAMES: usize = 1024;
/// Frames that a queue holds.
const RING_FRAMES: usize = 2048;
/// How old an entry of the program's is before it is taken for one without connection, and how often the daemon looks.
const ENTRY_PATIENCE: Duration = Duration::from_secs(3);
const SWEEP_INTERVAL: Duration = Duration::from_secs(10);

/// A frame in a queue, and the hint before it.
type Queued = (Flying, [u8; Handover::LENGTH]);

/// An interface with its queues and maps.
#[derive(Debug)]
pub struct Nic {
    host: usize,
    /// What the program reads.
    pub maps: Maps,
    rings: Vec<VecDeque<Queued>>,
    inboxes: Vec<VecDeque<Flying>>,
    /// Flows that left the queue that their hash names.
    moved: BTreeMap<(u16, u16), u64>,
    migration: u32,
    /// How often a frame finds its ring full, of 10,000; one that brings a cookie back does more often.
    ring_loss: u32,
    /// How often the entry of a frame's connection is deleted, of 10,000.
    deletion: u32,
    /// Nothing random happens now, so that progress can be demanded.
    pub clean: bool,
    chance: Chance,
}

/// A worker.
pub struct Worker {
    /// Its stack.
    pub stack: Stack,
    /// When it is to be turned.
    pub due: Option<Instant>,
    /// Until when its last turn takes.
    pub busy_until: Instant,
}

/// A host.
pub struct Host {
    /// Which.
    pub number: usize,
    /// Its interface.
    pub nic: Nic,
    /// Its workers, by queue.
    pub workers: Vec<Worker>,
    /// Its applications.
    pub apps: Apps,
    address: IpAddr,
    plan: crate::plan::HostPlan,
    commit: std::time::Duration,
    wake: std::time::Duration,
    chance: Chance,
    ring: KeyRing,
    swept: Option<Instant>,
}

/// What came of a frame that arrived.
enum Steered {
    /// Nobody gets it.
    Nobody,
    /// The worker of this queue gets it.
    To(usize),
    /// The program answered it with this frame.
    Answered(Vec<u8>),
}

/// What a turn did.
pub struct Turned {
    /// Frames that left, and when.
    pub sent: Vec<Flying>,
    /// When they left.
    pub at: Instant,
    /// Whether anything was done.
    pub busy: bool,
}

impl Host {
    /// Host `number` of a plan, listening.
    #[must_use]
    pub fn new(plan: &Plan, number: usize, now: Instant, chance: &mut Chance) -> Host {
        let own = &plan.hosts[number];
        let address = address(number, plan.ipv6);
        let ephemeral = 40_000..=CLOSED_PORT;
        let answers = Answers {
            enabled: own.answers,
            rst_rate: StackConfig::default().rst_rate,
            time_wait_ms: own.tcp.time_wait_ms(),
        };
        let maps = Maps::new(mac(number), address, &ephemeral, own.entries, answers);
        let workers = (0..own.workers).map(|queue| {
            let config = StackConfig {
                mac: mac(number),
                mtu: own.mtu,
                queue,
                max_connections: own.connections,
                max_buffer_memory: own.memory,
                ephemeral_ports: ephemeral.clone(),
                stacks: own.workers,
                program_answers: own.answers,
                ..StackConfig::default()
            };
            let stack = Stack::new(config, std::array::from_fn(|_| chance.below(256) as u8), now);
            Worker { stack, due: Some(now), busy_until: now }
        });
        let mut host = Host {
            number,
            workers: workers.collect(),
            nic: Nic {
                host: number,
                maps,
                rings: (0..own.workers).map(|_| VecDeque::new()).collect(),
                inboxes: (0..own.workers).map(|_| VecDeque::new()).collect(),
                moved: BTreeMap::new(),
                migration: if own.workers > 1 { plan.faults.migration } else { 0 },
                ring_loss: plan.faults.ring_loss,
                deletion: plan.faults.deletion,
                clean: false,
                chance: chance.fork(),
            },
            apps: Apps::new(plan, number, chance.fork()),
            address,
            plan: own.clone(),
            commit: plan.faults.commit,
            wake: plan.faults.wake,
            chance: chance.fork(),
            ring: KeyRing::new(Chance::new(plan.seed ^ (0xc00c1e + number as u64))),
            swept: None,
        };
        host.renew_keys(now);
        host.listen();
        host
    }

    fn listen(&mut self) {
        let local = SocketAddr::new(self.address, LISTEN_PORT);
        self.nic.maps.listen(local, self.plan.tcp.listener_value(self.plan.mtu, local.is_ipv4()));
        for worker in &mut self.workers {
            let listener = worker.stack.listen(local, ListenOptions { tcp: self.plan.tcp.clone() });
            self.apps.listeners.push(listener.expect("nobody else listens"));
        }
    }

    /// Parameters of its connections.
    #[must_use]
    pub fn tcp(&self) -> &TcpConfig {
        &self.plan.tcp
    }

    /// The application of talk `number` gives up a connection of which nothing will ever be heard again, if it holds
    /// one; whether it does.
    ///
    /// # Panics
    /// When the connection waits for something.
    pub fn give_up(&mut self, now: Instant, number: usize) -> bool {
        let Stage::Open(id) = self.apps.sides[number].stage else { return false };
        let queue = usize::from(self.apps.sides[number].queue);
        let worker = &mut self.workers[queue];
        let Some(connection) = worker.stack.connection(now, id) else { return false };
        let row = connection.info();
        assert!(row.timers.is_empty() && row.snd_una == row.snd_nxt, "rests for ever: {row:?}");
        trace::say(now, || format!("host {} talk {number} gives up", self.number));
        connection.abort();
        self.apps.sides[number].stage = Stage::Over;
        worker.due = Some(now);
        true
    }

    /// Nothing is left of any connection.
    ///
    /// # Panics
    /// When something is.
    pub fn assert_nothing_is_left(&self) {
        let number = self.number;
        for worker in &self.workers {
            assert_eq!(worker.stack.buffer_memory(), 0, "memory of host {number}");
            for state in State::ALL.into_iter().filter(|state| *state != State::LISTEN) {
                assert_eq!(worker.stack.count(state), 0, "{} of host {number}", state.name());
            }
        }
        assert_eq!(self.nic.maps.entries(), [], "entries of host {number}");
    }

    /// Closes every listener.
    pub fn unlisten(&mut self, now: Instant) {
        self.nic.maps.unlisten(SocketAddr::new(self.address, LISTEN_PORT));
        for (worker, listener) in self.workers.iter_mut().zip(self.apps.listeners.drain(..)) {
            worker.stack.close_listener(now, listener);
            worker.due = Some(now);
        }
    }

    /// Opens talk `number`, if its 4-tuple is free; whether it is.
    pub fn open(&mut self, now: Instant, number: usize, talk: &Talk) -> bool {
        let queue = (talk.port - 40_000) % self.workers.len() as u16;
        let remote = match talk.opener {
            Opener::One(_) => LISTEN_PORT,
            Opener::Both => talk.port,
            Opener::Refused(_) => CLOSED_PORT,
        };
        let peer = 1 - self.number;
        let options = ConnectOptions {
            local: SocketAddr::new(self.address, talk.port),
            link: LinkAddress { mac: mac(peer), vlan: None },
            tcp: self.plan.tcp.clone(),
        };
        let remote = SocketAddr::new(address(peer, self.address.is_ipv6()), remote);
        let worker = &mut self.workers[usize::from(queue)];
        let Ok(id) = worker.stack.connect(now, remote, options) else { return false };
        self.apps.begin(&mut worker.stack, now, number, queue, id);
        worker.due = Some(now);
        true
    }

    /// A frame arrived on the wire; the program's answer to it, if it has one.
    pub fn receive(
        &mut self,
        now: Instant,
        flying: Flying,
        observer: &mut Observer,
        counts: &mut Counts,
    ) -> Option<Flying> {
        if self.renew_keys(now) {
            counts.count("keys renewed");
        }
        observer.set_cookie_keys(self.number, self.ring.keys);
        self.nic.maps.settle(now);
        match self.nic.steer(now, flying, observer, counts) {
            Steered::Nobody => None,
            Steered::To(queue) => {
                let wake = now + self.chance.time(self.wake);
                let due = &mut self.workers[queue].due;
                *due = Some(due.map_or(wake, |due| due.min(wake)));
                None
            }
            Steered::Answered(bytes) => {
                let segment = observer.answered(now, self.number, &bytes);
                Some(Flying { bytes, segment: Some(segment), corrupted: false })
            }
        }
    }

    /// Makes the keys of cookies that are missing; whether there were any. Workers check what the program lets through,
    /// so they get them first.
    fn renew_keys(&mut self, now: Instant) -> bool {
        let renewed = self.ring.renew(now);
        if renewed {
            self.workers.iter_mut().for_each(|worker| worker.stack.set_cookie_keys(self.ring.keys));
            self.nic.maps.set_cookie_keys(self.ring.keys);
        }
        renewed
    }

    /// When the daemon has to look for entries of the program's without connection.
    #[must_use]
    pub fn sweeps_at(&self) -> Option<Instant> {
        let oldest = self.nic.maps.made_by_program().into_iter().map(|(.., since)| since).min()?;
        let ripe = oldest + ENTRY_PATIENCE + Duration::from_millis(1);
        Some(self.swept.map_or(ripe, |swept| ripe.max(swept + SWEEP_INTERVAL)))
    }

    /// Looks for entries that the program made for a cookie and that no worker has a connection for, and removes them.
    ///
    /// # Panics
    /// When a worker has a connection and never wrote its entry.
    pub fn sweep(&mut self, now: Instant, counts: &mut Counts) {
        if self.sweeps_at().is_none_or(|at| at > now) {
            return;
        }
        self.nic.maps.settle(now);
        self.swept = Some(now);
        for (key, queue, since) in self.nic.maps.made_by_program() {
            if since + ENTRY_PATIENCE >= now {
                continue;
            }
            let known = self.workers[usize::from(queue)].stack.has_connection(&key);
            let deleted = self.nic.maps.was_deleted(&key);
            assert!(!known || deleted, "the connection {} {} has the program's entry", key.local(), key.remote());
            if known {
                continue;
            }
            trace::say(now, || format!("host {}: sweeps up {} {}", self.number, key.local(), key.remote()));
            counts.count("swept");
            self.nic.maps.remove(now + self.chance.time(self.commit), key);
        }
    }

    /// When worker `queue` wants to be turned next.
    #[must_use]
    pub fn wakes_at(&self, queue: usize) -> Option<Instant> {
        let worker = &self.workers[queue];
        let at = [worker.due, self.apps.next(queue as u16)].into_iter().flatten().min()?;
        Some(at.max(worker.busy_until))
    }

    /// Turns worker `queue`.
    pub fn turn(&mut self, now: Instant, queue: usize, observer: &mut Observer, counts: &mut Counts) -> Turned {
        if self.renew_keys(now) {
            counts.count("keys renewed");
        }
        observer.set_cookie_keys(self.number, self.ring.keys);
        let (worker, apps) = (&mut self.workers[queue], &mut self.apps);
        let mut busy = apps.wake(&mut worker.stack, now, queue as u16);
        let commit = self.chance.time(self.commit);
        let removal = self.chance.time(self.commit);
        let mut port = Port {
            nic: &mut self.nic,
            observer,
            counts,
            now,
            queue: queue as u16,
            commit,
            removal,
            sent: Vec::new(),
            busy: false,
            rung: Vec::new(),
            strangers: Vec::new(),
            committed: false,
            removed: false,
        };
        worker.due = turn(&mut worker.stack, &mut port, now, |stack, event| {
            busy = true;
            apps.handle(stack, now, queue as u16, event);
        });
        busy |= port.busy;
        let at = if port.committed { now + commit } else { now };
        let Port { sent, rung, removed, .. } = port;
        if apps.abort_where_due(&mut worker.stack, now, queue as u16) {
            worker.due = Some(now);
        }
        worker.busy_until = if removed { now + commit + removal } else { at };
        if self.nic.has_waiting(queue) {
            worker.due = Some(now);
        }
        for owner in rung {
            let due = &mut self.workers[owner].due;
            *due = Some(due.map_or(now, |due| due.min(now)));
        }
        Turned { sent, at, busy }
    }
}

impl Nic {
    /// What the program does with a frame.
    fn steer(&mut self, now: Instant, flying: Flying, observer: &mut Observer, counts: &mut Counts) -> Steered {
        let mut key = ConnectionKey::default();
        let mut room = Room::default();
        self.delete_entry(now, &flying, counts);
        let decision = decide::decide(flying.bytes.as_slice(), &self.maps, &mut key);
        let (verdict, asks) = (decision.verdict, decision.question().is_some());
        let is_steered = matches!(verdict, Verdict::Steer(_));
        let syn = flying.segment.as_ref().is_some_and(|(segment, _)| segment.flags.syn);
        let queue = if is_steered { self.queue(&key, syn || self.has_cookie(&key), counts) } else { 0 };
        self.maps.arrives_on(queue);
        let before = self.maps.syns();
        let verdict = match asks && self.maps.answers() {
            true => self.answer(&flying, &mut key, &mut room).unwrap_or(verdict),
            false => verdict,
        };
        count_mode(now, before, self.maps.syns(), counts);
        counts.count(verdict.outcome().name());
        match verdict {
            Verdict::Steer(steer) => self.queue_up(now, flying, steer, &key, queue, counts),
            Verdict::Answer(answer) => {
                trace::note(now, Fate::Refused("answered"), &flying);
                count_answer(answer, &flying, counts);
                if let (Answer::Cookie | Answer::TimeWait, Some((segment, Some(end))), false) =
                    (answer, flying.segment.as_ref(), flying.corrupted)
                {
                    observer.arrived(*end, segment);
                }
                Steered::Answered(room.frame.bytes().to_vec())
            }
            Verdict::Pass => {
                trace::note(now, Fate::Refused("pass"), &flying);
                Steered::Nobody
            }
            Verdict::Drop(reason) => {
                trace::note(now, Fate::Refused(reason.name()), &flying);
                count_refusal(reason, counts);
                Steered::Nobody
            }
        }
    }

    /// Somebody may delete the entry of the connection that a frame belongs to.
    fn delete_entry(&mut self, now: Instant, flying: &Flying, counts: &mut Counts) {
        if self.chance.happens(self.deletion)
            && let Some((segment, _)) = &flying.segment
            && self.maps.delete(&ConnectionKey::new(segment.destination, segment.source))
        {
            counts.count("deleted entry");
            trace::say(now, || format!("host {}: somebody deletes the entry of {}", self.host, segment.source));
        }
    }

    /// What the program does by itself about a frame that it may answer; `None`: nothing. The answer is in `room` then.
    fn answer(&self, flying: &Flying, key: &mut ConnectionKey, room: &mut Room) -> Option<Verdict> {
        let frame = flying.bytes.as_slice();
        let decision: Decision<'_> = decide::decide(frame, &self.maps, key);
        let Decision { place, listener, .. } = &decision;
        let asked = Asked { frame, maps: &self.maps, key, place, listener: *listener };
        asked.answer(decision.question()?, room).verdict()
    }

    fn queue_up(
        &mut self,
        now: Instant,
        flying: Flying,
        steer: Steer,
        key: &ConnectionKey,
        queue: usize,
        counts: &mut Counts,
    ) -> Steered {
        let hint = match steer.owner() {
            Some(owner) if usize::from(owner) != queue => metadata(&Handover::new(key, owner)),
            _ if matches!(steer, Steer::NoConnection) => metadata(&Handover::stranger(key)),
            _ => [0; Handover::LENGTH],
        };
        if let Steer::Connection { queue: owner } = steer
            && self.has_cookie(key)
        {
            let here = usize::from(owner) == queue;
            counts.count(if here { "behind a cookie" } else { "behind a cookie, elsewhere" });
        }
        if matches!(steer, Steer::Cookie) {
            assert!(self.maps.knows_or_is_full(key), "the program accepts a cookie and makes no entry");
            trace::say(now, || format!("host {}: the program accepts a cookie on queue {queue}", self.host));
            count_epoch(now, &flying, counts);
        }
        let missed = 10 * u32::from(matches!(steer, Steer::Cookie)) * self.ring_loss + self.ring_loss;
        if self.rings[queue].len() >= RING_FRAMES || !self.clean && self.chance.happens(missed) {
            counts.count("full ring");
            trace::note(now, Fate::Lost("full ring"), &flying);
            return Steered::Nobody;
        }
        self.rings[queue].push_back((flying, hint));
        Steered::To(queue)
    }

    /// Whether the entry of `key` is the program's, for a cookie.
    fn has_cookie(&self, key: &ConnectionKey) -> bool {
        self.maps.latest(key).is_some_and(|entry| entry.flags & FLAG_COOKIE != 0)
    }

    /// The queue that a frame arrives on: its flow's, which may change. That of one that opens does more often: who repeats
    /// a SYN may choose another way, and what follows a cookie is where a change matters.
    fn queue(&mut self, key: &ConnectionKey, opens: bool, counts: &mut Counts) -> usize {
        let queues = self.rings.len() as u64;
        let flow = (key.local_port, key.remote_port);
        if self.chance.happens(if opens { 10 * self.migration } else { self.migration }) {
            counts.count("queue migration");
            *self.moved.entry(flow).or_default() += self.chance.between(1, queues - 1);
        }
        let moved = self.moved.get(&flow).copied().unwrap_or(0);
        ((u64::from(flow.0) + u64::from(flow.1) + moved) % queues) as usize
    }

    fn has_waiting(&self, queue: usize) -> bool {
        !self.rings[queue].is_empty() || !self.inboxes[queue].is_empty()
    }
}

/// Answers that coverage wants told apart.
fn count_answer(answer: Answer, flying: &Flying, counts: &mut Counts) {
    let fin = flying.segment.as_ref().is_some_and(|(segment, _)| segment.flags.fin);
    if answer == Answer::TimeWait {
        counts.count(if fin { "TIME_WAIT starts over" } else { "TIME_WAIT answers what is old" });
    }
}

/// Counts when SYNs begin to be answered with cookies for their number, and when they are kept again.
fn count_mode(now: Instant, before: Gauge, after: Gauge, counts: &mut Counts) {
    match (before.is_on(now.as_nanos()), after.is_on(now.as_nanos())) {
        (false, true) => counts.count("cookies turned on"),
        (false, false) if before != after && after.until_ns != 0 => counts.count("cookies turned off"),
        _ => {}
    }
}

/// Counts a cookie that comes back when the next epoch has begun: its last bit is that of its epoch.
fn count_epoch(now: Instant, flying: &Flying, counts: &mut Counts) {
    let cookie = flying.segment.as_ref().map(|(segment, _)| u64::from(segment.ack.wrapping_sub(1)));
    if cookie.is_some_and(|cookie| (cookie ^ cookie::epoch(now.as_nanos())) & 1 != 0) {
        counts.count("cookie of the last epoch");
    }
}

fn count_refusal(reason: DropReason, counts: &mut Counts) {
    match reason {
        DropReason::TimeWait => counts.count("ignored in TIME_WAIT"),
        DropReason::BadCookie => counts.count("bad cookie, not answered"),
        _ => {}
    }
}

fn metadata(handover: &Handover) -> [u8; Handover::LENGTH] {
    let Handover { mark, queue, local_port, remote_port } = *handover;
    let mut bytes = [0; Handover::LENGTH];
    for (at, word) in [mark, queue, local_port, remote_port].into_iter().enumerate() {
        bytes[2 * at..2 * at + 2].copy_from_slice(&word.to_ne_bytes());
    }
    bytes
}

/// The connection that `frame` belongs to, if there is a hint before it that may be about it.
fn hinted_at(hint: [u8; Handover::LENGTH], frame: &[u8]) -> Option<ConnectionKey> {
    if hint == [0; Handover::LENGTH] {
        return None;
    }
    let link = packet::link(frame)?;
    let mut key = ConnectionKey::default();
    packet::classify(frame, &link, &mut key)?;
    Some(key)
}

/// A worker's view of its interface during a turn.
struct Port<'a> {
    nic: &'a mut Nic,
    observer: &'a mut Observer,
    counts: &'a mut Counts,
    now: Instant,
    queue: u16,
    /// How long commits and removals of this turn take.
    commit: std::time::Duration,
    removal: std::time::Duration,
    committed: bool,
    removed: bool,
    sent: Vec<Flying>,
    busy: bool,
    /// Queues of the workers that something was handed to.
    rung: Vec<usize>,
    /// Connections of kept frames for which the program found no entry.
    strangers: Vec<ConnectionKey>,
}

impl Port<'_> {
    fn deliver(&mut self, flying: &Flying, sink: &mut impl FnMut(&[u8])) {
        self.busy = true;
        trace::note(self.now, Fate::Received(self.nic.host, self.queue), flying);
        if let Some((segment, Some(end))) = flying.segment.as_ref().filter(|_| !flying.corrupted) {
            self.observer.arrived(*end, segment);
        }
        sink(&flying.bytes);
    }

    /// Gives a frame back unless it is another worker's; then hands it over.
    fn keep(&mut self, (mut flying, hint): Queued) -> Option<Flying> {
        let Some(key) = hinted_at(hint, &flying.bytes) else { return Some(flying) };
        if Handover::is_stranger(hint, &key) {
            self.strangers.push(key);
            if self.nic.maps.was_deleted(&key) {
                // It ends the connection here, or comes to a worker that has none.
                flying.segment = flying.segment.map(|(segment, _)| (segment, None));
            }
        }
        let other = Handover::owner(hint, &key).map(usize::from).filter(|&owner| owner != usize::from(self.queue));
        let Some(owner) = other.filter(|&owner| owner < self.nic.inboxes.len()) else { return Some(flying) };
        self.busy = true;
        let inbox = &mut self.nic.inboxes[owner];
        if inbox.len() < INBOX_FRAMES {
            self.counts.count("handover");
            inbox.push_back(flying);
            self.rung.push(owner);
        }
        None
    }
}

impl Device for Port<'_> {
    fn receive(&mut self, limit: usize, mut sink: impl FnMut(&[u8])) {
        let queue = usize::from(self.queue);
        let mut left = limit;
        while left > limit / 2
            && let Some(flying) = self.nic.inboxes[queue].pop_front()
        {
            self.deliver(&flying, &mut sink);
            left -= 1;
        }
        while left > 0
            && let Some(queued) = self.nic.rings[queue].pop_front()
        {
            left -= 1;
            if let Some(flying) = self.keep(queued) {
                self.deliver(&flying, &mut sink);
            }
        }
    }

    fn commit(
        &mut self,
        new: &[(ConnectionKey, ConnectionValue)],
        changed: &[(ConnectionKey, ConnectionValue)],
        mut failed: impl FnMut(ConnectionKey, NoEntry),
    ) {
        (self.busy, self.committed) = (true, true);
        let seen = self.now + self.commit;
        for (key, value) in new {
            self.observer.opens(self.nic.host, self.queue, key);
            trace::say(self.now, || {
                format!("host {}.{}: inserts {} {}", self.nic.host, self.queue, key.local(), key.remote())
            });
            // One that a cookie stands for begins with the ACK that brought it back, and whatever that carries.
            let begins = matches!(value.state, State::SYN_SENT | State::SYN_RCVD) || key.local_port == LISTEN_PORT;
            assert!(begins, "an entry begins with the connection");
            if !matches!(value.state, State::SYN_SENT | State::SYN_RCVD) {
                let program = self.nic.has_cookie(key);
                self.counts.count(if program { "cookie taken by the program" } else { "cookie taken by the stack" });
            }
            if let Err(why) = self.nic.maps.insert(seen, *key, *value) {
                failed(*key, why);
            }
        }
        for (key, value) in changed {
            self.nic.maps.update(seen, *key, *value);
        }
    }

    fn transmit(&mut self, limit: usize, mut build: impl FnMut(&mut [u8]) -> Option<usize>) {
        let mut frame = [0; 2048];
        for _ in 0..limit {
            let Some(length) = build(&mut frame) else { return };
            self.busy = true;
            let bytes = frame[..length].to_vec();
            let segment = self.observer.sent(self.now, self.nic.host, self.queue, &bytes);
            let key = ConnectionKey::new(segment.0.source, segment.0.destination);
            let cookie = segment.0.flags.syn && segment.0.flags.ack;
            let cookie = cookie && self.observer.is_cookie(self.now, self.nic.host, &segment.0);
            let keeps_nothing = segment.0.flags.rst || cookie;
            let maps = &self.nic.maps;
            let known = keeps_nothing || maps.latest(&key).is_some() || maps.was_deleted(&key);
            assert!(known, "a segment leaves before its connection's entry");
            let flying = Flying { bytes, segment: Some(segment), corrupted: false };
            self.sent.push(flying);
        }
    }

    fn prolongs_time_waits(&mut self) -> bool {
        self.nic.maps.answers()
    }

    fn take_strangers(&mut self) -> Vec<ConnectionKey> {
        std::mem::take(&mut self.strangers)
    }

    fn lookup(&mut self, key: &ConnectionKey) -> Option<ConnectionValue> {
        self.nic.maps.latest(key)
    }

    fn demand_cookies(&mut self, demand: CookieDemand) {
        self.counts.count("cookies demanded");
        self.nic.maps.demand_cookies(demand.until);
    }

    fn remove(&mut self, keys: &[ConnectionKey]) {
        (self.busy, self.removed) = (true, true);
        for key in keys {
            trace::say(self.now, || {
                format!("host {}.{}: removes {} {}", self.nic.host, self.queue, key.local(), key.remote())
            });
            self.nic.maps.remove(self.now + self.commit + self.removal, *key);
        }
    }
}
