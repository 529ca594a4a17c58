//! Two production stacks joined by [`turn`] over a link that loses, delays, duplicates and reorders, on a virtual clock.
//! One seed decides everything: options, faults, how much is sent and how it is read. Beside some of the links sits an
//! attacker who knows addresses and ports, and forges segments with numbers by chance. What is checked: the streams
//! arrive whole both ways, connections end, memory and table entries come back, no SYN leaves before its entry exists,
//! and no turn asks to be repeated when it did nothing. Run one seed alone with `SEED=n cargo test -p tcp-proto --test
//! pair`. What this leaves out: the XDP program's decisions, and delays of the table.

mod common;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tcp_proto::{
    CloseReason, ConnectOptions, ConnectionId, ConnectionKey, ConnectionValue, Device, Event, Instant, LinkAddress,
    ListenOptions, ListenerId, Received, Stack, StackConfig, State, TcpConfig, turn,
};

const SEEDS: u64 = 300;
/// Turns of both sides that a seed may take, many times what any needs.
const MAX_TURNS: usize = 1_000_000;
const LISTEN_PORT: u16 = 80;
/// Bytes that an application writes or reads at once, at most.
const LARGEST_PIECE: usize = 20_000;
/// Connection `n` is opened from this port + `n`.
const FIRST_PORT: u16 = 5000;

#[test]
fn streams_arrive_whole_over_bad_links_and_nothing_is_left_behind() {
    let one: Option<u64> = std::env::var("SEED").ok().map(|seed| seed.parse().expect("SEED is a number"));
    for seed in one.map_or(0..SEEDS, |seed| seed..seed + 1) {
        let shown = ShownOnPanic(seed);
        let mut world = World::new(seed, 60_000);
        world.run();
        world.assert_nothing_is_left();
        drop(shown);
    }
}

#[test]
fn megabytes_both_ways_arrive_whole() {
    for seed in 1_000_000..1_000_004 {
        let shown = ShownOnPanic(seed);
        let mut world = World::new(seed, 4_000_000);
        world.run();
        world.assert_nothing_is_left();
        drop(shown);
    }
}

/// Names the seed when a check fails.
struct ShownOnPanic(u64);

impl Drop for ShownOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the seed that fails: {}", self.0);
        }
    }
}

/// Both hosts and the link between them.
struct World {
    chance: Chance,
    began: Instant,
    now: Instant,
    faults: Faults,
    hosts: [Host; 2],
    frames: u64,
    idle_turns: u64,
}

impl World {
    /// `most`: bytes that a stream has at most.
    fn new(seed: u64, most: u64) -> World {
        let mut chance = Chance(seed);
        let ipv6 = chance.once_in(3);
        let faults = Faults::random(&mut chance);
        let now = Instant::from_millis(chance.below(1 << 40));
        let hosts = [0, 1].map(|side| Host::new(&mut chance, side, ipv6, now));
        let mut world = World { chance, began: now, now, faults, hosts, frames: 0, idle_turns: 0 };
        for n in 0..1 + world.chance.below(4) as u16 {
            world.open(n, most);
        }
        world
    }

    /// Either host opens connection `n`; how much each will send is agreed on beforehand.
    fn open(&mut self, n: u16, most: u64) {
        let opener = self.chance.below(2) as usize;
        let lengths = [0, 1].map(|_| if self.chance.once_in(8) { 0 } else { self.chance.below(most) as usize });
        let remote = SocketAddr::new(self.hosts[1 - opener].address, LISTEN_PORT);
        for (side, host) in self.hosts.iter_mut().enumerate() {
            host.app.agreed.insert(FIRST_PORT + n, Talk::new(side, lengths[side], lengths[1 - side]));
        }
        let host = &mut self.hosts[opener];
        let local = SocketAddr::new(host.address, FIRST_PORT + n);
        let options = ConnectOptions { local, link: link_to(1 - opener), tcp: host.tcp.clone() };
        let id = host.stack.connect(self.now, remote, options).expect("the address is free");
        host.app.begin(id, FIRST_PORT + n);
    }

    /// Turns both hosts, each when it asks for it, until nobody does.
    fn run(&mut self) {
        for _ in 0..MAX_TURNS {
            let Some(next) = self.hosts.iter().filter_map(Host::wakes_at).min() else { return };
            self.now = self.now.max(next);
            for side in 0..2 {
                if self.hosts[side].wakes_at().is_some_and(|at| at <= self.now) {
                    self.turn(side);
                }
            }
        }
        panic!("no end after {MAX_TURNS} turns, {} of them idle, at {:?}", self.idle_turns, self.now);
    }

    fn turn(&mut self, side: usize) {
        let host = &mut self.hosts[side];
        if !host.turn(self.now, &mut self.chance) {
            self.idle_turns += 1;
        }
        let sent = std::mem::take(&mut host.device.sent);
        for frame in sent {
            for after in self.faults.fates(&mut self.chance) {
                self.deliver(side, after, frame.clone());
            }
            for _ in 0..self.faults.forgeries(&mut self.chance, &frame) {
                let after = self.faults.delay + self.faults.late(&mut self.chance);
                let forged = forge(&frame, &mut self.chance);
                self.deliver(side, after, forged);
            }
        }
    }

    fn deliver(&mut self, from: usize, after: Duration, frame: Vec<u8>) {
        self.frames += 1;
        self.hosts[1 - from].device.arriving.insert((self.now + after, self.frames), frame);
    }

    fn assert_nothing_is_left(&self) {
        for host in &self.hosts {
            assert!(host.app.talks.is_empty() && host.app.agreed.is_empty(), "every stream has ended");
            assert_eq!(host.stack.buffer_memory(), 0);
            assert_eq!(host.device.table, BTreeMap::new(), "every entry was removed");
            for state in State::ALL {
                assert_eq!(host.stack.count(state), usize::from(state == State::LISTEN), "{state:?}");
            }
        }
        // Timers may find nothing to do (keepalive while data are outstanding), but not often.
        let most = 100 + self.frames + 10 * self.now.since(self.began).as_secs();
        assert!(self.idle_turns < most, "{} idle turns for {} frames", self.idle_turns, self.frames);
    }
}

/// How the link mistreats frames.
struct Faults {
    /// In thousandths.
    loss: u64,
    duplication: u64,
    reordering: u64,
    /// Of the frames, those that the attacker sees reason to forge a few of.
    forgery: u64,
    delay: Duration,
    /// Added at random; more than a frame's distance to the next reorders.
    jitter: Duration,
}

impl Faults {
    fn random(chance: &mut Chance) -> Faults {
        Faults {
            loss: if chance.once_in(4) { 0 } else { chance.below(120) },
            duplication: if chance.once_in(2) { 0 } else { chance.below(100) },
            reordering: if chance.once_in(2) { 0 } else { chance.below(200) },
            forgery: if chance.once_in(2) { 0 } else { chance.below(60) },
            delay: Duration::from_micros(50 + chance.below(100_000)),
            jitter: Duration::from_micros(1 + chance.below(30_000)),
        }
    }

    /// After how long each copy of a frame arrives.
    fn fates(&self, chance: &mut Chance) -> Vec<Duration> {
        let copies =
            if chance.below(1000) < self.loss { 0 } else { 1 + usize::from(chance.below(1000) < self.duplication) };
        (0..copies)
            .map(|_| match chance.below(1000) < self.reordering {
                true => self.delay + self.late(chance),
                false => self.delay,
            })
            .collect()
    }

    fn late(&self, chance: &mut Chance) -> Duration {
        Duration::from_nanos(chance.below(self.jitter.as_nanos() as u64))
    }

    /// How many segments the attacker makes of a frame. Opens are left alone: one that is lost while a forged SYN
    /// arrives is refused, as the RFC has it.
    fn forgeries(&self, chance: &mut Chance, frame: &[u8]) -> u64 {
        let opens = frame[tcp_header(frame) + 13] & 2 != 0;
        if chance.below(1000) < self.forgery && !opens { 1 + chance.below(8) } else { 0 }
    }
}

/// Where a frame's TCP header begins: behind IPv4 or IPv6 without options.
fn tcp_header(frame: &[u8]) -> usize {
    if frame[12] == 8 { 34 } else { 54 }
}

/// What an attacker makes of a frame who knows its addresses and ports only: its numbers, flags and window are chance.
fn forge(frame: &[u8], chance: &mut Chance) -> Vec<u8> {
    let mut forged = frame.to_vec();
    let (head, tcp) = forged.split_at_mut(tcp_header(frame));
    tcp[4..8].copy_from_slice(&(chance.below(1 << 32) as u32).to_be_bytes());
    tcp[8..12].copy_from_slice(&(chance.below(1 << 32) as u32).to_be_bytes());
    tcp[13] = [4, 4, 20, 2, 18, 16, 24, 17, 25, 48][chance.below(10) as usize];
    tcp[14..18].copy_from_slice(&[chance.below(256) as u8, 0, 0, 0]);
    let addresses = if frame[12] == 8 { &head[26..34] } else { &head[22..54] };
    let length = (tcp.len() as u32).to_be_bytes();
    let sum = !common::ones_complement(&[addresses, &length, &[0, 0, 0, 6], tcp]);
    tcp[16..18].copy_from_slice(&sum.to_be_bytes());
    forged
}

/// A stack, its device and its application.
struct Host {
    stack: Stack,
    device: Link,
    app: App,
    address: IpAddr,
    tcp: Arc<TcpConfig>,
    /// When the stack wants to be turned.
    deadline: Option<Instant>,
}

impl Host {
    fn new(chance: &mut Chance, side: usize, ipv6: bool, now: Instant) -> Host {
        let config = StackConfig { mac: mac(side), mtu: 1500 - chance.below(400) as u16, ..StackConfig::default() };
        let mut stack = Stack::new(config, std::array::from_fn(|_| chance.below(256) as u8), now);
        let tcp = Arc::new(options(chance));
        let address = address(side, ipv6);
        let listener = stack.listen(SocketAddr::new(address, LISTEN_PORT), ListenOptions { tcp: tcp.clone() });
        let app = App { listener: listener.unwrap(), agreed: BTreeMap::new(), talks: Vec::new(), rests_until: None };
        Host { stack, device: Link::default(), app, address, tcp, deadline: Some(now) }
    }

    /// When something is to be done: a frame arrives, a timer is due, the application has rested.
    fn wakes_at(&self) -> Option<Instant> {
        let arrival = self.device.arriving.first_key_value().map(|(&(at, _), _)| at);
        [arrival, self.deadline, self.app.rests_until].into_iter().flatten().min()
    }

    /// One turn; whether anything was done in it.
    fn turn(&mut self, now: Instant, chance: &mut Chance) -> bool {
        let rested = self.app.rests_until.take_if(|until| *until <= now).is_some();
        if rested {
            self.app.act_on_all(&mut self.stack, now, chance);
        }
        self.device.now = now;
        let before = self.device.work;
        let mut events = 0;
        self.deadline = turn(&mut self.stack, &mut self.device, now, |stack, event| {
            events += 1;
            self.app.handle(stack, now, event, chance);
        });
        let busy = rested || events > 0 || self.device.work != before;
        assert!(busy || self.deadline.is_none_or(|at| at > now), "a turn that did nothing asks for another at once");
        busy
    }
}

/// Options of a connection, any that must work together.
fn options(chance: &mut Chance) -> TcpConfig {
    let buffer = |chance: &mut Chance| 1 << (11 + chance.below(9));
    TcpConfig {
        syn_retries: 30,
        synack_retries: 30,
        retries2: 30,
        orphan_retries: 30,
        delayed_ack: Duration::from_millis(if chance.once_in(3) { 0 } else { 40 }),
        nodelay: chance.once_in(2),
        window_scale: !chance.once_in(3),
        timestamps: !chance.once_in(3),
        keepalive: chance.once_in(4),
        keepalive_time: Duration::from_millis(500),
        mss: chance.once_in(4).then(|| 100 + chance.below(1400) as u16),
        recv_buffer: buffer(chance),
        send_buffer: buffer(chance),
        ..TcpConfig::default()
    }
}

fn mac(side: usize) -> [u8; 6] {
    [2, 0, 0, 0, 0, side as u8]
}

fn link_to(side: usize) -> LinkAddress {
    LinkAddress { mac: mac(side), vlan: None }
}

fn address(side: usize, ipv6: bool) -> IpAddr {
    match ipv6 {
        true => Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1 + side as u16).into(),
        false => Ipv4Addr::new(10, 0, 0, 1 + side as u8).into(),
    }
}

/// A host's end of the link, and its connection table.
#[derive(Default)]
struct Link {
    now: Instant,
    /// Frames under way to us, by arrival and the order in which they were sent.
    arriving: BTreeMap<(Instant, u64), Vec<u8>>,
    sent: Vec<Vec<u8>>,
    table: BTreeMap<[u8; 36], State>,
    /// How often anything was asked of the device.
    work: u64,
}

impl Device for Link {
    fn receive(&mut self, limit: usize, mut sink: impl FnMut(&[u8])) {
        for _ in 0..limit {
            let Some(first) = self.arriving.first_entry().filter(|first| first.key().0 <= self.now) else { return };
            sink(&first.remove());
            self.work += 1;
        }
    }

    fn commit(
        &mut self,
        new: &[(ConnectionKey, ConnectionValue)],
        changed: &[(ConnectionKey, ConnectionValue)],
        _failed: impl FnMut(ConnectionKey),
    ) {
        self.work += 1;
        for (key, value) in new {
            assert!(matches!(value.state, State::SYN_SENT | State::SYN_RCVD), "an entry begins with the connection");
            let before = self.table.insert(bytes(key), value.state);
            // In place of one in TIME_WAIT there may be the next connection, before its entry was removed.
            assert!(before.is_none_or(|state| state == State::TIME_WAIT), "an entry is new once");
        }
        for (key, value) in changed {
            let state = self.table.get_mut(&bytes(key)).expect("a change is of an entry that is there");
            *state = value.state;
        }
    }

    fn transmit(&mut self, limit: usize, mut build: impl FnMut(&mut [u8]) -> Option<usize>) {
        let mut frame = [0; 2048];
        for _ in 0..limit {
            let Some(length) = build(&mut frame) else { return };
            let (key, reset) = read(&frame[..length]);
            assert!(reset || self.table.contains_key(&bytes(&key)), "a segment leaves before its connection's entry");
            self.sent.push(frame[..length].to_vec());
            self.work += 1;
        }
    }

    fn remove(&mut self, keys: &[ConnectionKey]) {
        self.work += 1;
        for key in keys {
            assert!(self.table.remove(&bytes(key)).is_some(), "an entry is removed once");
        }
    }
}

/// A key that has an order.
fn bytes(key: &ConnectionKey) -> [u8; 36] {
    let mut bytes = [0; 36];
    bytes[..16].copy_from_slice(&key.local_addr);
    bytes[16..32].copy_from_slice(&key.remote_addr);
    bytes[32..34].copy_from_slice(&key.local_port.to_be_bytes());
    bytes[34..].copy_from_slice(&key.remote_port.to_be_bytes());
    bytes
}

/// The connection that a frame we send belongs to, and whether it is a reset.
fn read(frame: &[u8]) -> (ConnectionKey, bool) {
    let ip = &frame[14..];
    let v6 = ip[0] >> 4 == 6;
    let address = |at: usize| -> IpAddr {
        match v6 {
            true => <[u8; 16]>::try_from(&ip[8 + 16 * at..24 + 16 * at]).unwrap().into(),
            false => <[u8; 4]>::try_from(&ip[12 + 4 * at..16 + 4 * at]).unwrap().into(),
        }
    };
    let tcp = if v6 { &ip[40..] } else { &ip[20..] };
    let port = |at: usize| u16::from_be_bytes([tcp[at], tcp[at + 1]]);
    let key = ConnectionKey::new(SocketAddr::new(address(0), port(0)), SocketAddr::new(address(1), port(2)));
    (key, tcp[13] & 4 != 0)
}

/// What one side of a connection has to say and to hear.
struct Talk {
    side: usize,
    port: u16,
    to_send: usize,
    sent: usize,
    to_hear: usize,
    heard: usize,
    shut: bool,
}

impl Talk {
    fn new(side: usize, to_send: usize, to_hear: usize) -> Talk {
        Talk { side, port: 0, to_send, sent: 0, to_hear, heard: 0, shut: false }
    }
}

/// Bytes of the stream that `side` sends, from `offset` on.
fn stream(side: usize, port: u16, offset: usize, length: usize) -> &'static [u8] {
    /// A prime, so that no piece of a stream is like its neighbours.
    const PERIOD: usize = 65_521;
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    let bytes = BYTES.get_or_init(|| {
        let mut chance = Chance(1);
        let period: Vec<u8> = (0..PERIOD).map(|_| chance.next() as u8).collect();
        period.iter().cycle().take(PERIOD + LARGEST_PIECE).copied().collect()
    });
    let start = (offset + 9973 * usize::from(port) + 104_729 * side) % PERIOD;
    &bytes[start..start + length]
}

/// An application that says what was agreed on, checks what it hears, and reads at its own pace.
struct App {
    listener: ListenerId,
    /// Talks that have not begun, by the opener's port.
    agreed: BTreeMap<u16, Talk>,
    talks: Vec<(ConnectionId, Talk)>,
    /// When it goes on, if it has stopped reading.
    rests_until: Option<Instant>,
}

impl App {
    fn begin(&mut self, id: ConnectionId, port: u16) {
        let talk = self.agreed.remove(&port).expect("each connection begins once");
        self.talks.push((id, Talk { port, ..talk }));
    }

    fn handle(&mut self, stack: &mut Stack, now: Instant, event: Event, chance: &mut Chance) {
        match event {
            Event::Incoming(_) => {
                let id = stack.accept(self.listener).expect("the event says so");
                let port = stack.connection(now, id).expect("just accepted").remote().port();
                self.begin(id, port);
                self.act(stack, now, id, chance);
            }
            Event::Connected(id) | Event::Readable(id) | Event::Writable(id) => self.act(stack, now, id, chance),
            Event::Closed(id, CloseReason::Finished) => self.act(stack, now, id, chance),
            Event::Closed(_, reason) => panic!("a connection ended with {reason:?}"),
            Event::Retransmitting(_) | Event::Urgent(_) => {}
        }
    }

    fn act_on_all(&mut self, stack: &mut Stack, now: Instant, chance: &mut Chance) {
        let ids: Vec<ConnectionId> = self.talks.iter().map(|(id, _)| *id).collect();
        ids.into_iter().for_each(|id| self.act(stack, now, id, chance));
    }

    /// Says and hears as much as goes now; closes when both are done.
    fn act(&mut self, stack: &mut Stack, now: Instant, id: ConnectionId, chance: &mut Chance) {
        let Some(place) = self.talks.iter().position(|(other, _)| *other == id) else { return };
        say(stack, now, id, &mut self.talks[place].1, chance);
        if self.rests_until.is_none() && chance.once_in(20) {
            self.rests_until = Some(now + Duration::from_millis(chance.below(300)));
        }
        if self.rests_until.is_some() {
            return;
        }
        let talk = &mut self.talks[place].1;
        if hear(stack, now, id, talk, chance) && talk.shut {
            assert_eq!((talk.sent, talk.heard), (talk.to_send, talk.to_hear), "both streams are whole");
            stack.connection(now, id).expect("we hold it").close();
            self.talks.swap_remove(place);
        }
    }
}

fn say(stack: &mut Stack, now: Instant, id: ConnectionId, talk: &mut Talk, chance: &mut Chance) {
    let Some(mut connection) = stack.connection(now, id) else { panic!("we hold it") };
    while talk.sent < talk.to_send {
        let length = (1 + chance.below(LARGEST_PIECE as u64) as usize).min(talk.to_send - talk.sent);
        let taken = connection.send(stream(talk.side, talk.port, talk.sent, length));
        talk.sent += taken;
        if taken < length {
            return;
        }
    }
    if !talk.shut && !matches!(connection.state(), State::SYN_SENT | State::SYN_RCVD) {
        talk.shut = true;
        connection.shutdown_write();
    }
}

/// Reads what there is; whether the stream has ended.
fn hear(stack: &mut Stack, now: Instant, id: ConnectionId, talk: &mut Talk, chance: &mut Chance) -> bool {
    let Some(mut connection) = stack.connection(now, id) else { panic!("we hold it") };
    let mut into = vec![0; 1 + chance.below(LARGEST_PIECE as u64) as usize];
    loop {
        match connection.recv(&mut into) {
            Received::Bytes(count) => {
                let sent = stream(1 - talk.side, talk.port, talk.heard, count.get());
                assert!(
                    into[..count.get()] == *sent,
                    "the stream is what was sent, up to byte {} at least",
                    talk.heard
                );
                talk.heard += count.get();
            }
            Received::Nothing => return false,
            Received::End => return true,
        }
    }
}

/// SplitMix64: all the chance there is, from one seed.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`.
    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }
}
