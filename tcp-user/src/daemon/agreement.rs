//! Whether the XDP program answers as the daemon would: the same frame at the same time to both, with the parameters
//! that the daemon gives to the program. Frames are the same byte for byte, but where a SYN-ACK leaves an option out (the
//! program puts fillers in its place) and in the window of an ACK for TIME_WAIT, which tells nobody anything.

use std::sync::Arc;

use tcp_common::ConnectionValue;
use tcp_common::answer::Deed;
use tcp_common::cases::answers::{AnswerCase, answer_cases, handle};
use tcp_common::cases::frames::SegmentFrame;
use tcp_common::cases::world::{MemoryMaps, OUR_MAC, World};
use tcp_common::layout::ListenerValue;
use tcp_proto::{Event, Instant, ListenOptions, Stack, StackConfig, State, SynCookies, TcpConfig};

/// A time well within an epoch of cookies, ns.
const NOW: u64 = (1_000 << 36) + 12_345_000_000;
const MTU: u16 = 1500;

/// A TCP with all that can be negotiated, whose answers look like nobody else's.
fn tcp(syn_cookies: SynCookies) -> TcpConfig {
    let all = TcpConfig { timestamps: true, window_scale: true, sack: true, ecn: true, ..TcpConfig::default() };
    TcpConfig { syn_cookies, ttl: 33, dscp: 10, ..all }
}

/// The world of a case with a listener on these parameters, for frames of one family.
fn world_of(world: &World, tcp: &TcpConfig, is_ipv4: bool) -> World {
    let of_family = world.listeners.iter().copied().filter(|address| address.is_ipv4() == is_ipv4);
    let listeners: Vec<_> = of_family.collect();
    World { listener: tcp.listener_value(MTU, is_ipv4), listeners, ..world.clone() }
}

fn stack_of(world: &World, tcp: &TcpConfig) -> Stack {
    let config = StackConfig {
        mac: OUR_MAC,
        mtu: MTU,
        max_connections: 8,
        ephemeral_ports: world.ephemeral.clone(),
        accept_partial_checksum: world.accept_partial,
        rst_rate: world.rst_rate,
        ..StackConfig::default()
    };
    let mut stack = Stack::new(config, [7; 32], Instant::from_nanos(NOW));
    stack.set_cookie_keys(world.keys());
    for address in &world.listeners {
        stack.listen(*address, ListenOptions { tcp: Arc::new(tcp.clone()) }).expect("a listener");
    }
    stack
}

/// What the stack sends next.
fn sent(stack: &mut Stack) -> Option<Vec<u8>> {
    let mut frame = vec![0; usize::from(MTU) + 18];
    let length = stack.poll_transmit(Instant::from_nanos(NOW), &mut frame)?;
    frame.truncate(length);
    Some(frame)
}

/// What the stack answers to a frame, if anything.
fn answered(stack: &mut Stack, frame: &[u8]) -> Option<Vec<u8>> {
    stack.handle_frame(Instant::from_nanos(NOW), frame);
    sent(stack)
}

/// Of a frame that was built with these options everything but lengths and sums; and the options without fillers.
fn without_fillers(frame: &[u8]) -> (Vec<u8>, Vec<Vec<u8>>) {
    let ip = if frame[12] == 0x81 { 18 } else { 14 };
    let is_ipv4 = frame[ip] >> 4 == 4;
    let tcp = ip + if is_ipv4 { 20 } else { 40 };
    let (mut fixed, mut list) = (frame[..tcp + 20].to_vec(), &frame[tcp + 20..]);
    let lengths = if is_ipv4 { [ip + 2, ip + 10] } else { [ip + 4, ip + 4] };
    for at in [lengths[0], lengths[1], tcp + 16] {
        fixed[at..at + 2].fill(0);
    }
    fixed[tcp + 12] = 0;
    let mut options = Vec::new();
    while let [kind, rest @ ..] = list {
        let length = if *kind < 2 { 1 } else { rest[0].into() };
        if *kind > 1 {
            options.push(list[..length].to_vec());
        }
        list = &list[length..];
    }
    options.sort_unstable();
    (fixed, options)
}

fn is_ipv4(case: &AnswerCase) -> bool {
    case.says.as_ref().is_some_and(|says| says.frame.source.is_ipv4())
}

#[test]
fn cookies_and_resets_of_program_and_daemon_are_the_same() {
    let mut compared = 0;
    // Each has a limit of its own; what one of them has used up is not about what the frames say.
    for case in answer_cases(NOW).into_iter().filter(|case| case.before.len() < 2) {
        let syn_cookies = match (case.deed, case.world.listener.syn_cookies) {
            // The program's own reasons under `auto` are not the daemon's.
            (Deed::Cookie | Deed::ResetBadCookie, _) => SynCookies::Always,
            (Deed::Reset, ListenerValue::COOKIES_AUTO) => SynCookies::Auto,
            (Deed::Reset, _) => SynCookies::Never,
            _ => continue,
        };
        let mut tcp = tcp(syn_cookies);
        tcp.timestamps = case.world.listener.offers & 1 != 0;
        let world = world_of(&case.world, &tcp, is_ipv4(&case));
        let (maps, mut stack) = (MemoryMaps::new(&world), stack_of(&world, &tcp));
        for frame in &case.before {
            let _ = (handle(&maps, frame), answered(&mut stack, frame));
        }
        let program = handle(&maps, &case.frame).reply;
        let daemon = answered(&mut stack, &case.frame).unwrap_or_else(|| panic!("{}: no answer", case.name));
        let offer = case.says.as_ref().and_then(|says| says.cookie).map(|(offer, _)| offer);
        let padded = offer.is_some_and(|offer| offer.timestamps && !(offer.window_scale.is_some() && offer.sack));
        match padded {
            true => assert_eq!(without_fillers(&program), without_fillers(&daemon), "{}", case.name),
            false => assert_eq!(program, daemon, "{}", case.name),
        }
        compared += 1;
    }
    assert!(compared > 50, "{compared}");
}

/// A connection that both sides have closed, ours first.
struct Closed {
    world: World,
    stack: Stack,
    segment: SegmentFrame,
    timestamps: bool,
}

impl Closed {
    const PEER_ISN: u32 = 1_000;
    const STAMP: u32 = 500;

    fn new(segment: SegmentFrame, timestamps: bool) -> Closed {
        let tcp = TcpConfig { timestamps, ..tcp(SynCookies::Never) };
        let mut world = world_of(&World::that_answers(NOW), &tcp, segment.source.is_ipv4());
        let stack = stack_of(&world, &tcp);
        world.connections.clear();
        let mut closed = Closed { world, stack, segment, timestamps };
        closed.open_and_close();
        closed
    }

    /// A segment of the peer's.
    fn peer(&self, letters: &str, seq: u32, ack: u32, stamp: u32) -> Vec<u8> {
        let flags = tcp_common::cases::frames::flags(letters);
        let list = [&[1, 1, 8, 10][..], &stamp.to_be_bytes(), &[0; 4]].concat();
        let segment = SegmentFrame { flags, ..self.segment.clone() }.numbered(seq, ack);
        if self.timestamps { segment.with_list(&list) } else { segment }.build()
    }

    fn take(&mut self, frame: &[u8]) -> Option<Vec<u8>> {
        self.stack.handle_frame(Instant::from_nanos(NOW), frame);
        self.write_table(NOW);
        sent(&mut self.stack)
    }

    fn write_table(&mut self, now_ns: u64) {
        let (mut new, mut changed) = (Vec::new(), Vec::new());
        self.stack.take_table_writes(Instant::from_nanos(now_ns), &mut new, &mut changed);
        for (key, value) in new.into_iter().chain(changed) {
            (self.world.connections, self.world.entry) = (vec![key], value);
        }
    }

    fn open_and_close(&mut self) {
        let now = Instant::from_nanos(NOW);
        let peer = Self::PEER_ISN;
        let syn_ack = self.take(&self.peer("S", peer, 0, Self::STAMP)).expect("a SYN-ACK");
        let tcp = if self.segment.source.is_ipv4() { 34 } else { 54 };
        let ours = u32::from_be_bytes(syn_ack[tcp + 4..tcp + 8].try_into().expect("four")).wrapping_add(1);
        self.take(&self.peer("A", peer + 1, ours, Self::STAMP));
        let id = loop {
            if let Event::Incoming(listener) = self.stack.poll_event().expect("a connection") {
                break self.stack.accept(listener).expect("it is there");
            }
        };
        self.stack.connection(now, id).expect("it is open").close();
        sent(&mut self.stack).expect("a FIN");
        self.take(&self.peer("FA", peer + 1, ours.wrapping_add(1), Self::STAMP)).expect("an ACK");
        assert_eq!(self.stack.count(State::TIME_WAIT), 1);
        // What changes is written once a second.
        self.write_table(NOW + 2_000_000_000);
        assert_eq!((self.world.entry.state, self.world.entry.snd_nxt), (State::TIME_WAIT, ours.wrapping_add(1)));
    }
}

#[test]
fn acks_for_time_wait_of_program_and_daemon_are_the_same_but_for_their_window() {
    /// Letters, SEG.SEQ beyond RCV.NXT, timestamp beyond that of the handshake.
    const REPEATED: [(&str, i32, i32); 4] = [("FA", -1, 0), ("A", -1, 0), ("A", 0, -1), ("S", 5, -1)];
    for (segment, timestamps) in [SegmentFrame::v4(7, "A"), SegmentFrame::v6(7, "A")]
        .iter()
        .flat_map(|segment| [(segment, false), (segment, true)])
    {
        for (letters, seq, stamp) in REPEATED.into_iter().filter(|(.., stamp)| timestamps || *stamp == 0) {
            // A connection for each: the daemon answers for one only so often.
            let mut closed = Closed::new(segment.clone(), timestamps);
            let ConnectionValue { snd_nxt, rcv_nxt, .. } = closed.world.entry;
            let acks = if letters == "S" { 0 } else { snd_nxt };
            let stamp = Closed::STAMP.wrapping_add_signed(stamp);
            let frame = closed.peer(letters, rcv_nxt.wrapping_add_signed(seq), acks, stamp);
            let program = handle(&MemoryMaps::new(&closed.world), &frame).reply;
            let daemon = answered(&mut closed.stack, &frame).unwrap_or_else(|| panic!("{letters}: no answer"));
            assert_eq!(without_window(&program), without_window(&daemon), "{letters}, timestamps {timestamps}");
        }
    }
}

/// A frame without the window and what depends on it.
fn without_window(frame: &[u8]) -> Vec<u8> {
    let tcp = if frame[14] >> 4 == 4 { 34 } else { 54 };
    let mut frame = frame.to_vec();
    frame[tcp + 14..tcp + 18].fill(0);
    frame
}
