//! What happens at the limits: full queues of a listener, too many connections, no buffer memory, a full connection
//! table, the rate of resets.

mod common;

use std::collections::VecDeque;
use std::sync::Arc;

use common::{LOCAL, PEER_MAC, REMOTE, Seg, Trace, frame, plain, stream};
use tcp_proto::{
    CloseReason, ConnectError, ConnectOptions, ConnectionKey, ConnectionValue, Device, Event, LinkAddress,
    ListenOptions, Stack, StackConfig, State, TcpConfig, turn,
};

impl Trace {
    /// A SYN from the peer's port `port`, and the SYN-ACK.
    #[track_caller]
    fn half_open(&mut self, port: u16) {
        self.speak_from(port);
        self.peer("S 0:0 <mss 1460>");
        self.stack("SA 0:0 ack 1 <mss 1460>");
    }

    /// A whole handshake from the peer's port `port`.
    #[track_caller]
    fn open(&mut self, port: u16) {
        self.half_open(port);
        self.peer(". 1:1 ack 1");
    }

    /// Lengths of the listener's SYN queue and accept queue, and what overflowed.
    fn queues(&self) -> (u32, u32, u64) {
        let info = self.stack.listener(self.listener.unwrap()).unwrap();
        (info.syn_queue, info.accept_queue, info.syn_overflows + info.accept_overflows)
    }
}

// Queues of a listener.

#[test]
fn with_a_full_accept_queue_the_last_ack_is_dropped_and_the_syn_ack_repeated_until_there_is_room() {
    let mut t = Trace::listen(TcpConfig { backlog: 2, ..plain() });
    t.open(1);
    t.open(2);
    t.half_open(3);
    t.peer("PA 1:11 ack 1");
    t.quiet();
    assert_eq!((t.queues(), t.drops("accept_queue_full")), ((1, 2, 1), 1));
    t.stack_at(1000, "SA 0:0 ack 1 <mss 1460>");
    t.peer("PA 1:11 ack 1");
    t.quiet();
    t.accept();
    assert_eq!(t.queues(), (1, 1, 2));
    t.peer("PA 1:11 ack 1");
    t.stack(". 1:1 ack 11");
    assert_eq!((t.queues(), t.stack.count(State::ESTABLISHED)), ((0, 2, 2), 3));
}

#[test]
fn connections_are_accepted_in_the_order_in_which_they_were_established() {
    let mut t = Trace::listen(plain());
    t.half_open(1);
    t.open(2);
    t.speak_from(1);
    t.peer(". 1:1 ack 1");
    for port in [2, 1] {
        t.accept();
        assert_eq!(t.connection().remote().port(), port);
    }
    assert!(t.stack.accept(t.listener.unwrap()).is_none());
}

#[test]
fn who_is_reset_before_being_accepted_leaves_the_queue() {
    let mut t = Trace::listen(plain());
    t.open(1);
    t.open(2);
    t.speak_from(1);
    t.peer("R 1:1");
    assert_eq!(t.queues(), (0, 1, 0));
    t.accept();
    assert_eq!(t.connection().remote().port(), 2);
}

#[test]
fn with_a_full_syn_queue_a_syn_is_dropped_in_silence_until_there_is_room() {
    let mut t = Trace::listen(TcpConfig { syn_backlog: 2, ..plain() });
    t.half_open(1);
    t.half_open(2);
    t.speak_from(3);
    t.peer("S 0:0 <mss 1460>");
    t.quiet();
    assert_eq!((t.queues(), t.drops("syn_queue_full")), ((2, 0, 1), 1));
    t.speak_from(1);
    t.peer(". 1:1 ack 1");
    t.half_open(3);
    assert_eq!((t.queues(), t.stack.count(State::SYN_RCVD)), ((2, 1, 1), 2));
    assert_eq!(t.stack.listener(t.listener.unwrap()).unwrap().syn_queue_max, 2);
}

#[test]
fn a_syn_makes_one_half_open_connection_however_often_it_is_repeated() {
    let mut t = Trace::listen(TcpConfig { syn_backlog: 2, ..plain() });
    t.half_open(1);
    for _ in 0..5 {
        t.peer_more(&Seg::parse("S 0:0 <mss 1460>"));
    }
    assert_eq!(t.sent(), [(1, "SA".to_owned())]);
    assert_eq!((t.queues(), t.stack.count(State::SYN_RCVD)), ((1, 0, 0), 1));
    t.half_open(2);
}

#[test]
fn a_reset_or_the_last_repeat_makes_room_in_the_syn_queue() {
    let mut t = Trace::listen(TcpConfig { syn_backlog: 1, synack_retries: 0, ..plain() });
    t.half_open(1);
    t.peer("R 1:1");
    assert_eq!(t.queues(), (0, 0, 0));
    t.half_open(2);
    t.quiet_until(1000);
    assert_eq!(t.queues(), (0, 0, 0));
    t.half_open(3);
}

#[test]
fn the_longest_that_each_queue_ever_was_is_remembered() {
    let mut t = Trace::listen(plain());
    for port in 1..=3 {
        t.open(port);
    }
    t.half_open(4);
    t.half_open(5);
    (0..3).for_each(|_| t.accept());
    let info = t.stack.listener(t.listener.unwrap()).unwrap();
    assert_eq!((info.syn_queue, info.syn_queue_max), (2, 2));
    assert_eq!((info.accept_queue, info.accept_queue_max), (0, 3));
}

#[test]
fn who_left_the_accept_queue_leaves_room_however_many_came_and_went() {
    let mut t = Trace::listen(TcpConfig { backlog: 2, ..plain() });
    t.open(1);
    for port in 2..2000 {
        t.open(port);
        t.peer("R 1:1");
    }
    assert_eq!((t.queues(), t.drops("accept_queue_full")), ((0, 1, 0), 0));
    t.open(2000);
    for port in [1, 2000] {
        t.accept();
        assert_eq!(t.connection().remote().port(), port);
    }
    assert_eq!(t.queues(), (0, 0, 0));
}

#[test]
fn a_closed_listener_resets_who_waits_in_its_queues_and_nobody_else() {
    let mut t = Trace::listen(plain());
    for port in 1..=3 {
        t.open(port);
    }
    t.accept();
    t.speak_from(2);
    t.peer("R 1:1");
    t.half_open(4);
    t.stack.close_listener(t.now, t.listener.unwrap());
    assert_eq!([State::ESTABLISHED, State::SYN_RCVD].map(|state| t.stack.count(state)), [1, 0]);
    assert_eq!(t.connection().remote().port(), 1);
}

#[test]
fn each_of_several_stacks_has_its_share_of_the_queues_rounded_up() {
    let mut t = Trace::listen_with(
        StackConfig { stacks: 2, ..StackConfig::default() },
        TcpConfig { backlog: 3, syn_backlog: 5, ..plain() },
    );
    (1..=2).for_each(|port| t.open(port));
    (3..=5).for_each(|port| t.half_open(port));
    t.speak_from(6);
    t.peer("S 0:0 <mss 1460>");
    t.quiet();
    t.speak_from(3);
    t.peer(". 1:1 ack 1");
    assert_eq!((t.queues(), t.drops("syn_queue_full"), t.drops("accept_queue_full")), ((3, 2, 2), 1, 1));
}

// The stack's limits.

/// Room for two orphans.
fn with_two_orphans(config: TcpConfig) -> Trace {
    Trace::listen_with(StackConfig { max_orphans: 2, ..StackConfig::default() }, config)
}

impl Trace {
    /// A connection from the peer's port `port` that the application accepts and closes at once.
    #[track_caller]
    fn orphan(&mut self, port: u16) {
        self.open(port);
        self.accept();
        self.close();
    }

    /// What is sent now: the peer's port, the flags.
    fn sent(&mut self) -> Vec<(u16, String)> {
        let mut buffer = [0; 2000];
        let mut sent = Vec::new();
        while let Some(length) = self.stack.poll_transmit(self.now, &mut buffer) {
            let (_, to, segment) = common::read_frame(&buffer[..length]);
            let text = segment.text(false);
            sent.push((to.port(), text.split(' ').next().unwrap().to_owned()));
        }
        sent
    }

    /// States of all connections by the peer's port.
    fn states(&self) -> Vec<(u16, State)> {
        let mut rows = Vec::new();
        let _ = self.stack.snapshot(self.now, 0, 100_000, &mut rows);
        let mut states: Vec<_> = rows.iter().map(|row| (row.key.remote_port, row.state)).collect();
        states.sort_unstable_by_key(|(port, _)| *port);
        states
    }
}

#[test]
fn beyond_max_orphans_the_oldest_is_reset() {
    let mut t = with_two_orphans(plain());
    for port in 1..=2 {
        t.orphan(port);
        t.stack("FA 1:1 ack 1");
    }
    assert_eq!(t.drops("too_many_orphans"), 0);
    t.orphan(3);
    assert_eq!(t.sent(), [(1, "RA".to_owned()), (3, "FA".to_owned())]);
    assert_eq!(t.drops("too_many_orphans"), 1);
    assert_eq!(t.states(), [(2, State::FIN_WAIT_1), (3, State::FIN_WAIT_1)]);
}

#[test]
fn an_orphan_that_only_waits_for_a_fin_is_reset_before_one_that_still_delivers() {
    let mut t = with_two_orphans(plain());
    for port in 1..=2 {
        t.orphan(port);
        t.stack("FA 1:1 ack 1");
    }
    t.peer(". 1:1 ack 2");
    assert_eq!(t.states(), [(1, State::FIN_WAIT_1), (2, State::FIN_WAIT_2)]);
    t.orphan(3);
    assert_eq!(t.sent(), [(2, "RA".to_owned()), (3, "FA".to_owned())]);
    assert_eq!(t.states(), [(1, State::FIN_WAIT_1), (3, State::FIN_WAIT_1)]);
}

#[test]
fn orphans_in_last_ack_and_closing_count_and_those_in_time_wait_do_not() {
    let mut t = with_two_orphans(plain());
    t.open(1);
    t.accept();
    t.peer("FA 1:1 ack 1");
    t.stack(". 1:1 ack 2");
    t.close();
    t.stack("FA 1:1 ack 2");
    t.orphan(2);
    t.stack("FA 1:1 ack 1");
    t.peer("FA 1:1 ack 1");
    t.stack(". 2:2 ack 2");
    assert_eq!(t.states(), [(1, State::LAST_ACK), (2, State::CLOSING)]);
    t.orphan(3);
    assert_eq!(t.sent(), [(3, "FA".to_owned())], "whoever only waits for an ACK of its FIN has no more to say");
    assert_eq!(t.states(), [(2, State::CLOSING), (3, State::FIN_WAIT_1)]);
    t.speak_from(2);
    t.peer(". 2:2 ack 2");
    t.orphan(4);
    t.stack("FA 1:1 ack 1");
    assert_eq!(t.states(), [(2, State::TIME_WAIT), (3, State::FIN_WAIT_1), (4, State::FIN_WAIT_1)]);
    assert_eq!(t.drops("too_many_orphans"), 1);
}

#[test]
fn what_the_application_still_holds_is_no_orphan() {
    let mut t = with_two_orphans(plain());
    for port in 1..=4 {
        t.open(port);
        t.accept();
        t.shutdown();
        t.stack("FA 1:1 ack 1");
    }
    assert_eq!((t.stack.count(State::FIN_WAIT_1), t.drops("too_many_orphans")), (4, 0));
}

#[test]
fn the_oldest_in_time_wait_makes_room_for_a_new_connection() {
    let mut t = Trace::listen_with(StackConfig { max_connections: 2, ..StackConfig::default() }, plain());
    for port in 1..=2 {
        t.orphan(port);
        t.stack("FA 1:1 ack 1");
        t.peer("FA 1:1 ack 2");
        t.stack(". 2:2 ack 2");
    }
    t.half_open(3);
    assert_eq!(t.states(), [(2, State::TIME_WAIT), (3, State::SYN_RCVD)]);
    assert_eq!((t.drops("time_wait_evicted"), t.drops("too_many_connections")), (1, 0));
}

#[test]
fn beyond_max_connections_syns_are_dropped_in_silence_and_active_opens_fail() {
    let mut t = Trace::listen_with(StackConfig { max_connections: 2, ..StackConfig::default() }, plain());
    t.open(1);
    t.half_open(2);
    t.speak_from(3);
    t.peer("S 0:0 <mss 1460>");
    t.quiet();
    assert_eq!(t.drops("too_many_connections"), 1);
    let link = LinkAddress { mac: PEER_MAC, vlan: None };
    let options = ConnectOptions { local: "10.0.0.1:0".parse().unwrap(), link, tcp: Arc::new(plain()) };
    let opened = t.stack.connect(t.now, REMOTE.parse().unwrap(), options);
    assert_eq!((opened, t.drops("too_many_connections")), (Err(ConnectError::TooManyConnections), 2));
    t.speak_from(2);
    t.peer("R 1:1");
    t.open(3);
}

//= docs/rfc/rfc6056.md#3.3-unused
#[test]
fn an_active_open_takes_only_ports_of_its_own_stack_and_fails_when_they_are_used_up() {
    let config = StackConfig { ephemeral_ports: 100..=109, stacks: 4, queue: 2, ..StackConfig::default() };
    let mut t = Trace::listen_with(config, plain());
    let link = LinkAddress { mac: PEER_MAC, vlan: None };
    let options = ConnectOptions { local: "10.0.0.1:0".parse().unwrap(), link, tcp: Arc::new(plain()) };
    let mut open = |remote: &str| {
        let id = t.stack.connect(t.now, remote.parse().unwrap(), options.clone())?;
        Ok(t.stack.connection(t.now, id).expect("it was just opened").local().port())
    };
    let mut ports = [open(REMOTE).unwrap(), open(REMOTE).unwrap()];
    ports.sort_unstable();
    assert_eq!(ports, [102, 106]);
    assert_eq!(open(REMOTE), Err(ConnectError::NoPort));
    assert!([102, 106].contains(&open("10.0.0.2:4001").unwrap()), "another peer's connections may share the ports");
}

#[test]
fn answers_that_nobody_sends_are_kept_up_to_a_number() {
    let mut t = Trace::listen(plain());
    for _ in 0..300 {
        t.peer_more(&Seg::parse(". 5:5 ack 77"));
    }
    assert_eq!((t.sent().len(), t.drops("reply_queue_full"), t.drops("rate_limited")), (256, 44, 0));
}

#[test]
fn a_connection_answers_nonsense_twice_a_second() {
    let mut t = Trace::established(plain());
    for second in [0, 500] {
        t.quiet_until(second);
        t.peer(". 100000:100000 ack 1");
        t.stack(". 1:1 ack 1");
        t.peer(". 100000:100000 ack 1");
        t.quiet();
    }
    assert_eq!(t.drops("ack_rate"), 2);
}

#[test]
fn duplicate_acks_that_nobody_sends_are_owed_up_to_a_number() {
    let mut t = Trace::established(plain());
    for n in 0..100 {
        t.peer_more(&Seg::parse(&format!(". {}:{} ack 1", 11 + 10 * n, 21 + 10 * n)));
    }
    assert_eq!(t.sent().len(), 64);
}

#[test]
fn so_many_resets_and_no_more_are_sent_to_strangers_in_a_second() {
    let mut t = Trace::listen_with(StackConfig { rst_rate: 3, ..StackConfig::default() }, plain());
    for second in [0, 1000] {
        t.quiet_until(second);
        for _ in 0..3 {
            t.peer(". 5:5 ack 77");
            t.stack("R 77:77");
        }
        t.peer(". 5:5 ack 77");
        t.quiet();
    }
    assert_eq!(t.drops("rate_limited"), 2);
}

// Memory.

const MEMORY: usize = 16 << 10;
/// What a buffer of so many bytes needs besides them, at most.
const BOOKKEEPING: usize = 512;

/// Memory for 16 KiB in buffers.
fn with_little_memory(config: TcpConfig) -> Trace {
    let max_buffer_memory = MEMORY + BOOKKEEPING;
    let mut t = Trace::listen_with(StackConfig { max_buffer_memory, ..StackConfig::default() }, config);
    t.open(4000);
    t.accept();
    t.events.clear();
    t
}

#[test]
fn data_for_which_there_is_no_memory_are_dropped_and_taken_once_there_is() {
    let mut t = with_little_memory(plain());
    for n in 0..11 {
        t.peer(&format!(". {}:{} ack 1", 1 + 1460 * n, 1461 + 1460 * n));
        t.stack(&format!(". 1:1 ack {}", 1461 + 1460 * n));
    }
    for _ in 0..2 {
        t.peer(". 16061:17521 ack 1");
        t.stack(". 1:1 ack 16061");
    }
    assert_eq!(t.drops("no_memory"), 2);
    assert!((MEMORY + 1..=MEMORY + BOOKKEEPING).contains(&t.stack.buffer_memory()));
    assert_eq!(t.read(8192), 8192);
    t.peer(". 16061:17521 ack 1");
    t.stack(". 1:1 ack 17521");
    assert_eq!(t.read(100_000), 17520 - 8192);
    assert_eq!(t.stack.buffer_memory(), 0);
}

#[test]
fn a_writer_without_memory_is_told_once_there_is_some() {
    let mut t = with_little_memory(plain());
    // The last quarter is kept for what arrives.
    assert_eq!(t.connection().send(&stream(1, 20_000)), 12 << 10);
    assert_eq!(t.stack.waits(), [("send_buffer", 0), ("memory", 1)]);
    for n in 0..8 {
        t.stack(&format!(". {}:{} ack 1", 1 + 1460 * n, 1461 + 1460 * n));
    }
    t.peer(". 1:1 ack 1461");
    assert!(t.events.is_empty(), "no block is free yet");
    t.peer(". 1:1 ack 4381");
    assert_eq!(t.events.pop_front(), Some(Event::Writable(t.id.unwrap())));
    assert_eq!(t.connection().send(&stream(12_289, 5000)), 4096);
    t.stack(". 11681:13141 ack 1");
}

#[test]
fn a_full_send_buffer_cuts_writes_short() {
    let mut t = Trace::established(TcpConfig { send_buffer: 5000, ..plain() });
    assert_eq!(t.connection().send(&stream(1, 6000)), 5000);
    assert_eq!(t.connection().send(&stream(5001, 1000)), 0);
    assert_eq!(t.stack.waits(), [("send_buffer", 2), ("memory", 0)]);
    for n in 0..3 {
        t.stack(&format!(". {}:{} ack 1", 1 + 1460 * n, 1461 + 1460 * n));
    }
    t.peer(". 1:1 ack 4381");
    assert_eq!(t.events.pop_back(), Some(Event::Writable(t.id.unwrap())));
}

#[test]
fn more_gaps_than_a_connection_keeps_are_refused_and_nothing_is_lost() {
    let mut t = Trace::established(plain());
    for gap in 0..65 {
        t.peer(&format!(". {}:{} ack 1", 11 + 20 * gap, 21 + 20 * gap));
        t.stack(". 1:1 ack 1");
    }
    assert_eq!((t.drops("too_many_gaps"), t.drops("no_memory")), (1, 0));
    for gap in 0..64 {
        t.peer(&format!(". {}:{} ack 1", 1 + 20 * gap, 11 + 20 * gap));
        t.stack(&format!(". 1:1 ack {}", 21 + 20 * gap));
    }
    t.peer(". 1281:1301 ack 1");
    t.stack(". 1:1 ack 1301");
    assert_eq!(t.read(2000), 1300);
}

// The connection table.

/// A device whose connection table has room for so many entries, and which keeps what is sent.
#[derive(Default)]
struct SmallTable {
    room: usize,
    entries: Vec<ConnectionKey>,
    arriving: VecDeque<Vec<u8>>,
    sent: Vec<Vec<u8>>,
}

impl Device for SmallTable {
    fn receive(&mut self, limit: usize, mut sink: impl FnMut(&[u8])) {
        let count = limit.min(self.arriving.len());
        self.arriving.drain(..count).for_each(|frame| sink(&frame));
    }

    fn commit(
        &mut self,
        new: &[(ConnectionKey, ConnectionValue)],
        _changed: &[(ConnectionKey, ConnectionValue)],
        mut failed: impl FnMut(ConnectionKey),
    ) {
        for (key, _) in new {
            if self.entries.len() < self.room { self.entries.push(*key) } else { failed(*key) }
        }
    }

    fn transmit(&mut self, limit: usize, mut build: impl FnMut(&mut [u8]) -> Option<usize>) {
        let mut frame = [0; 2048];
        while self.sent.len() < limit {
            let Some(length) = build(&mut frame) else { return };
            self.sent.push(frame[..length].to_vec());
        }
    }

    fn remove(&mut self, keys: &[ConnectionKey]) {
        self.entries.retain(|entry| !keys.contains(entry));
    }
}

#[test]
fn a_syn_for_which_the_connection_table_has_no_room_is_dropped_in_silence() {
    let mut t = Trace::listen(plain());
    let mut device = SmallTable { room: 1, ..SmallTable::default() };
    let syn = |port: u16| {
        let mut remote: std::net::SocketAddr = REMOTE.parse().unwrap();
        remote.set_port(port);
        frame(remote, LOCAL.parse().unwrap(), &Seg::parse("S 0:0 <mss 1460>"))
    };
    device.arriving.extend([syn(1), syn(2), syn(3)]);
    turn(&mut t.stack, &mut device, t.now, |_, event| panic!("{event:?}"));
    assert_eq!((device.sent.len(), device.entries.len()), (1, 1), "one SYN-ACK, and its entry");
    assert_eq!((t.drops("table_full"), t.queues()), (2, (1, 0, 0)));
    // When the first is gone there is room for another.
    device.arriving.push_back(frame(
        format!("10.0.0.2:{}", 1).parse().unwrap(),
        LOCAL.parse().unwrap(),
        &Seg::parse("R 1:1"),
    ));
    turn(&mut t.stack, &mut device, t.now, |_, event| panic!("{event:?}"));
    assert_eq!(device.entries, []);
    device.arriving.push_back(syn(2));
    turn(&mut t.stack, &mut device, t.now, |_, event| panic!("{event:?}"));
    assert_eq!((device.sent.len(), device.entries.len()), (2, 1));
}

#[test]
fn a_full_connection_table_ends_those_in_time_wait_so_that_a_repeated_syn_finds_room() {
    let mut t = Trace::listen(plain());
    for port in 1..=2 {
        t.orphan(port);
        t.stack("FA 1:1 ack 1");
        t.peer("FA 1:1 ack 2");
        t.stack(". 2:2 ack 2");
    }
    t.speak_from(3);
    t.peer("S 0:0 <mss 1460>");
    let key = ConnectionKey::new(LOCAL.parse().unwrap(), "10.0.0.2:3".parse().unwrap());
    t.stack.handle_commit_failed(t.now, key);
    t.quiet();
    assert_eq!((t.states(), t.drops("time_wait_evicted"), t.drops("table_full")), (vec![], 2, 1));
    assert_eq!(t.stack.take_table_removals().len(), 2, "so much room is in the table");
    t.half_open(3);
}

#[test]
fn an_active_open_for_which_the_connection_table_has_no_room_fails_before_anything_is_sent() {
    let mut t = Trace::connect(plain());
    let mut device = SmallTable::default();
    let mut events = Vec::new();
    for _ in 0..2 {
        turn(&mut t.stack, &mut device, t.now, |_, event| events.push(event));
    }
    assert_eq!(events, [Event::Closed(t.id.unwrap(), CloseReason::TableFull)]);
    assert!(device.sent.is_empty());
    t.assert_empty();
}

#[test]
fn two_listeners_never_share_an_address() {
    let mut t = Trace::listen(plain());
    let again = |stack: &mut Stack, address: &str| {
        stack.listen(address.parse().unwrap(), ListenOptions { tcp: Arc::new(plain()) }).is_ok()
    };
    assert!(!again(&mut t.stack, LOCAL));
    assert!(again(&mut t.stack, "0.0.0.0:80"));
    assert_eq!(t.stack.count(State::LISTEN), 2);
    t.stack.close_listener(t.now, t.listener.unwrap());
    // The wildcard takes what the exact address took before.
    t.half_open(1);
    assert!(again(&mut t.stack, LOCAL));
}
