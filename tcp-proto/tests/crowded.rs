//! Many connections at once, under peers, an application and limits that know no measure: random segments aimed at
//! whatever lives, random calls, little memory, short queues, SYN cookies that come back or don't. After every step the
//! stack must be in order: queues and counters say what the rows say, whoever waits was told, whatever is outstanding has
//! a timer. In the end the application goes and the peers fall silent: everything must end by itself and give back what it
//! held.
//!
//! `SEED=n` runs one seed, `SEEDS=n` as many; a failure names its seed.

mod common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use common::{LOCAL, PEER_MAC, Seg, frame, ms, read_frame};
use tcp_common::cookie::epoch;
use tcp_proto::{
    ConnectOptions, ConnectionId, ConnectionInfo, CookieKeys, Event, Instant, LinkAddress, ListenOptions, ListenerId,
    Received, Stack, StackConfig, State, SynCookies, TcpConfig,
};

const SEEDS: u32 = 300;
const STEPS: u32 = 200;
/// Segments that the stack may send in a row, and timers that may expire once all are silent, many times what it needs.
const MANY: u32 = 20_000;

#[test]
fn whatever_peers_and_applications_do_the_stack_is_in_order_and_comes_to_an_end() {
    let number = |name: &str| std::env::var(name).ok().map(|value| value.parse().expect("a number"));
    let seeds = match number("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SEEDS").unwrap_or(SEEDS),
    };
    let (all, mut returned) = (seeds.len(), 0);
    for seed in seeds {
        let outcome = std::panic::catch_unwind(|| Crowded::new(seed).run());
        returned += outcome.unwrap_or_else(|_| panic!("the seed that fails: {seed}"));
    }
    assert!(all < SEEDS as usize || returned > SEEDS.into(), "only {returned} cookies came back");
}

/// What the application of a connection waits to be told of.
#[derive(Clone, Copy, Default)]
struct Waits {
    to_read: bool,
    to_write: bool,
}

struct Crowded {
    stack: Stack,
    now: Instant,
    chance: Chance,
    tcp: Arc<TcpConfig>,
    listener: ListenerId,
    /// What the application holds, in the order in which it got hold of it.
    held: Vec<(ConnectionId, Waits)>,
    /// Cookies that left last: to whom, and the ACK that brings each back.
    cookies: Vec<(SocketAddr, Seg)>,
    /// The same, that were brought back.
    returned: Vec<(SocketAddr, Seg)>,
}

impl Crowded {
    fn new(seed: u32) -> Crowded {
        let mut chance = Chance(u64::from(seed) * 2 + 1);
        let now = Instant::from_millis(1_000_000 + chance.below(1 << 33));
        let tcp = Arc::new(options(&mut chance));
        let config = StackConfig {
            mac: [2, 0, 0, 0, 0, 1],
            max_connections: 8,
            max_buffer_memory: chance.pick(&[1 << 14, 1 << 30]),
            ..StackConfig::default()
        };
        let mut stack = Stack::new(config, [seed as u8; 32], now);
        let mut keys = CookieKeys::default();
        let epoch = epoch(now.as_nanos());
        (epoch..epoch + 3).for_each(|epoch| keys.put(epoch, [epoch, seed.into()]));
        stack.set_cookie_keys(keys);
        let listener = stack.listen(LOCAL.parse().unwrap(), ListenOptions { tcp: tcp.clone() }).unwrap();
        Crowded { stack, now, chance, tcp, listener, held: Vec::new(), cookies: Vec::new(), returned: Vec::new() }
    }

    /// Runs; how many cookies were good.
    fn run(mut self) -> u64 {
        for _ in 0..STEPS {
            match self.chance.below(14) {
                12 | 13 => self.cookie_returns(),
                0..6 => self.segment_arrives(),
                6 => self.get_hold_of_one(),
                7..10 => self.act(),
                _ => self.pass_time(),
            }
            if self.chance.below(100) == 0 {
                self.stack.abort_all(self.now);
            }
            self.listen_to_events();
            if self.chance.below(5) > 0 {
                self.send_everything();
            }
            self.check();
        }
        let returned = self.figure("cookie_ok");
        self.everything_ends();
        returned
    }

    fn rows(&self) -> Vec<ConnectionInfo> {
        let mut rows = Vec::new();
        let more = self.stack.snapshot(self.now, 0, 1000, &mut rows);
        assert!(more.is_none());
        rows
    }

    /// A segment to one that lives, its numbers in and around the windows, or a SYN.
    fn segment_arrives(&mut self) {
        let rows = self.rows();
        let chance = &mut self.chance;
        let (remote, local, segment) = match rows.is_empty() || chance.below(6) == 0 {
            true => {
                (SocketAddr::from(([10, 0, 0, 2], 4000 + chance.below(4) as u16)), LOCAL.parse().unwrap(), syn(chance))
            }
            false => {
                let row = &rows[chance.below(rows.len() as u64) as usize];
                (row.key.remote(), row.key.local(), aimed_at(row, self.now, chance))
            }
        };
        self.stack.handle_frame(self.now, &frame(remote, local, &segment));
    }

    /// The ACK that brings a cookie back, now or again, with whatever a first segment may carry.
    fn cookie_returns(&mut self) {
        let list = if self.chance.below(4) == 0 { &self.returned } else { &self.cookies };
        let Some((remote, ack)) = list.get(self.chance.below(list.len().max(1) as u64) as usize).cloned() else {
            return;
        };
        let before = (self.figure("cookie_ok"), self.rows().len());
        let mut segment = ack.clone();
        segment.flags = self.chance.pick(&[16, 16, 16, 24, 17, 48]);
        segment.payload = vec![7; self.chance.pick(&[0, 0, 10, 1400])];
        segment.window = self.chance.pick(&[0, 1, 1000, 65_535]);
        let spoilt = self.chance.below(4) == 0;
        if spoilt {
            segment.ack = segment.ack.wrapping_add(1 + self.chance.below(u64::from(u32::MAX)) as u32);
        }
        self.stack.handle_frame(self.now, &frame(remote, LOCAL.parse().unwrap(), &segment));
        let made = (self.figure("cookie_ok") - before.0, self.rows().len() as i64 - before.1 as i64);
        assert!(!spoilt || made.0 == 0, "a cookie that never was is good");
        assert!(made.0 == 1 || made.1 <= 0, "a connection without a cookie");
        self.returned.push((remote, ack));
        if self.returned.len() > 8 {
            self.returned.remove(0);
        }
    }

    /// What left belongs to no connection and answers a SYN: a cookie.
    fn note_cookie(&mut self, sent: &[u8]) {
        let (local, remote, segment) = read_frame(sent);
        let known = self.rows().iter().any(|row| row.key.remote() == remote && row.key.local() == local);
        if segment.flags & 2 == 0 || known {
            return;
        }
        let timestamps = segment.timestamps.map(|(ours, theirs)| (theirs.wrapping_add(1), ours));
        let (seq, ack) = (segment.ack, segment.seq.wrapping_add(1));
        self.cookies.push((remote, Seg { seq, ack, timestamps, ..Seg::parse(". 0:0") }));
        if self.cookies.len() > 8 {
            self.cookies.remove(0);
        }
    }

    fn figure(&self, name: &str) -> u64 {
        self.stack.figures().into_iter().find(|(known, _)| *known == name).expect("a figure").1
    }

    fn get_hold_of_one(&mut self) {
        let accepted = self.stack.accept(self.listener);
        let got = accepted.or_else(|| {
            let remote = SocketAddr::from(([10, 0, 0, 2], 5000 + self.chance.below(3) as u16));
            let link = LinkAddress { mac: PEER_MAC, vlan: None };
            let options = ConnectOptions { local: "10.0.0.1:0".parse().unwrap(), link, tcp: self.tcp.clone() };
            self.stack.connect(self.now, remote, options).ok()
        });
        self.held.extend(got.map(|id| (id, Waits::default())));
    }

    /// The application does something with one that it holds.
    fn act(&mut self) {
        if self.held.is_empty() {
            return;
        }
        let which = self.chance.below(self.held.len() as u64) as usize;
        let (id, waits) = &mut self.held[which];
        let (what, length) = (self.chance.below(40), self.chance.pick(&[0, 1, 100, 5000, 100_000]));
        let Some(mut connection) = self.stack.connection(self.now, *id) else {
            self.held.remove(which);
            return;
        };
        match what {
            0..15 => waits.to_write = connection.send(&vec![9; length]) < length,
            15..30 if length > 0 => waits.to_read = connection.recv(&mut vec![0; length]) == Received::Nothing,
            30..36 => connection.shutdown_write(),
            36..39 => {
                connection.close();
                self.held.remove(which);
            }
            39 => {
                connection.abort();
                self.held.remove(which);
            }
            _ => {}
        }
    }

    fn pass_time(&mut self) {
        self.now += ms(self.chance.pick(&[0, 1, 10, 200, 1000, 60_000]));
        self.stack.handle_timeout(self.now);
    }

    fn listen_to_events(&mut self) {
        for _ in 0..MANY {
            let Some(event) = self.stack.poll_event() else { return };
            let mut tell = |told: ConnectionId, what: fn(&mut Waits)| {
                self.held.iter_mut().filter(|(id, _)| *id == told).for_each(|(_, waits)| what(waits));
            };
            match event {
                Event::Readable(id) => tell(id, |waits| waits.to_read = false),
                Event::Writable(id) => tell(id, |waits| waits.to_write = false),
                Event::Closed(id, _) => tell(id, |waits| *waits = Waits::default()),
                _ => {}
            }
        }
        panic!("events without end");
    }

    fn send_everything(&mut self) {
        let (mut new, mut changed, mut buffer) = (Vec::new(), Vec::new(), [0; 2000]);
        self.stack.take_table_writes(self.now, &mut new, &mut changed);
        let mut sent = 0;
        while let Some(length) = self.stack.poll_transmit(self.now, &mut buffer) {
            self.note_cookie(&buffer[..length]);
            sent += 1;
            assert!(sent < MANY, "it sends without end");
        }
        assert!(!self.stack.wants_transmit(), "it wants to send what it does not send");
        let _ = self.stack.take_table_removals();
    }

    fn check(&mut self) {
        let rows = self.rows();
        for row in &rows {
            check_row(row, &self.tcp, self.stack.wants_transmit());
        }
        for state in State::ALL.into_iter().filter(|state| !matches!(state, State::CLOSED | State::LISTEN)) {
            assert_eq!(self.stack.count(state), rows.iter().filter(|row| row.state == state).count(), "{state:?}");
        }
        let passive = |row: &&ConnectionInfo| row.key.local() == LOCAL.parse().unwrap();
        let half_open = rows.iter().filter(passive).filter(|row| row.state == State::SYN_RCVD).count();
        let listener = self.stack.listener(self.listener).expect("it listens");
        assert_eq!(listener.syn_queue as usize, half_open);
        // Whoever succeeds a connection in TIME_WAIT finds room in its place.
        let figure = |name: &str| self.stack.figures().iter().find(|(n, _)| *n == name).map(|&(_, count)| count);
        let succeeded = figure("time_wait_reused").expect("a figure");
        assert!(u64::from(listener.syn_queue) <= u64::from(self.tcp.syn_backlog) + succeeded);
        assert!(listener.accept_queue <= self.tcp.backlog);
        let memory = self.stack.buffer_memory();
        for (id, waits) in &self.held {
            let Some(connection) = self.stack.connection(self.now, *id) else { continue };
            assert!(!waits.to_read || !connection.is_readable(), "readable, and nobody told: {:?}", connection.state());
            let room = connection.may_send() && connection.send_room() > self.tcp.send_buffer as usize / 2;
            assert!(!waits.to_write || !room || memory > 8192, "writable, and nobody told: {:?}", connection.state());
        }
    }

    /// The application closes all it holds, nobody listens any more, and no segment arrives ever again.
    fn everything_ends(mut self) {
        for (id, _) in std::mem::take(&mut self.held) {
            if let Some(connection) = self.stack.connection(self.now, id) {
                connection.close();
            }
        }
        self.stack.close_listener(self.now, self.listener);
        for _ in 0..MANY {
            self.listen_to_events();
            self.send_everything();
            let Some(next) = self.stack.poll_timeout() else {
                let left: Vec<State> = self.rows().iter().map(|row| row.state).collect();
                assert_eq!((left, self.stack.buffer_memory()), (vec![], 0), "left, and no timer to end it");
                return;
            };
            self.now = self.now.max(next);
            self.stack.handle_timeout(self.now);
        }
        panic!("timers without end: {:?}", self.rows());
    }
}

fn check_row(row: &ConnectionInfo, tcp: &TcpConfig, sends: bool) {
    let armed = |name: &str| row.timers.iter().any(|(timer, _)| *timer == name);
    let in_flight = row.snd_nxt.wrapping_sub(row.snd_una);
    assert!(in_flight <= tcp.send_buffer + 2, "more in flight than there is: {row:?}");
    assert!(row.rcv_wnd <= tcp.recv_buffer.max(65_535) + (1 << 14), "more offered than there is: {row:?}");
    let waits = in_flight > 0 && row.state != State::TIME_WAIT && !sends;
    let repeats = armed("retransmit") || armed("persist") || armed("establish");
    assert!(!waits || repeats, "outstanding, and no timer: {row:?}");
    assert!(!row.state.is_synchronized() || !armed("establish"), "{row:?}");
    match row.state {
        State::TIME_WAIT => assert!(armed("time_wait") && row.timers.len() == 1, "{row:?}"),
        State::FIN_WAIT_2 => assert!(!repeats, "{row:?}"),
        _ => assert!(!armed("time_wait"), "{row:?}"),
    }
}

fn options(chance: &mut Chance) -> TcpConfig {
    TcpConfig {
        recv_buffer: chance.pick(&[4096, 65_535, 1 << 20]),
        send_buffer: chance.pick(&[4096, 1 << 20]),
        timestamps: chance.below(2) == 0,
        window_scale: chance.below(2) == 0,
        nodelay: chance.below(2) == 0,
        mss: chance.pick(&[None, Some(88)]),
        keepalive: chance.below(2) == 0,
        keepalive_time: Duration::from_secs(3),
        keepalive_interval: Duration::from_secs(1),
        linger: chance.pick(&[None, None, Some(Duration::ZERO), Some(Duration::from_secs(3))]),
        user_timeout: chance.pick(&[Duration::ZERO, Duration::from_secs(10)]),
        retries2: chance.pick(&[0, 3, 15]),
        syn_retries: chance.pick(&[0, 3]),
        synack_retries: chance.pick(&[0, 3]),
        delayed_ack: chance.pick(&[Duration::ZERO, ms(40)]),
        backlog: chance.pick(&[1, 100]),
        syn_backlog: chance.pick(&[1, 100]),
        syn_cookies: chance.pick(&[SynCookies::Auto, SynCookies::Always, SynCookies::Never]),
        ..TcpConfig::default()
    }
}

fn syn(chance: &mut Chance) -> Seg {
    Seg {
        seq: chance.below(1 << 32) as u32,
        mss: chance.pick(&[None, Some(0), Some(1460), Some(65_535)]),
        scale: chance.pick(&[None, Some(7), Some(14), Some(255)]),
        timestamps: chance.pick(&[None, Some((1000, 0)), Some((u32::MAX, 0))]),
        window: chance.pick(&[0, 1, 100, 65_535]),
        ..Seg::parse("S 0:0")
    }
}

/// A segment for a connection: its numbers are right, nearly right, or anywhere.
fn aimed_at(row: &ConnectionInfo, now: Instant, chance: &mut Chance) -> Seg {
    let in_flight = u64::from(row.snd_nxt.wrapping_sub(row.snd_una));
    let distances = [0, 0, 0, 0, u32::MAX, u32::MAX - 50, 1, 50, 1000, 4095, 1 << 30, 1 << 31, row.rcv_wnd];
    let clock = now.as_millis() as u32;
    Seg {
        flags: match chance.below(10) {
            0 => chance.below(64) as u8,
            _ => chance.pick(&[16, 16, 16, 24, 17, 17, 2, 18, 4, 20, 48]),
        },
        seq: row.rcv_nxt.wrapping_add(chance.pick(&distances)),
        ack: match chance.below(8) {
            0..3 => row.snd_nxt,
            3..5 => row.snd_una,
            5 => row.snd_una.wrapping_add(chance.below(in_flight + 1) as u32),
            6 => row.snd_nxt.wrapping_add(1),
            _ => chance.below(1 << 32) as u32,
        },
        payload: vec![7; chance.pick(&[0, 0, 0, 1, 10, 100, 1400])],
        window: chance.pick(&[0, 0, 1, 10, 1000, 65_535]),
        timestamps: chance.pick(&[None, Some((clock, clock.wrapping_sub(3)))]),
        ..Seg::parse(". 0:0")
    }
}

/// A source of chance with one seed.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let mixed = (self.0 ^ (self.0 >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        (mixed >> 20) % limit
    }

    fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len() as u64) as usize]
    }
}
