//! The application's OPEN (RFC 9293 section 3.9.1.1): addresses that are its own, remote ones that are no host's, and
//! listeners beside connections with the same port.

mod common;

use std::net::SocketAddr;
use std::sync::Arc;

use common::{PEER_MAC, REMOTE, Seg, Trace, frame, ms, plain, read_frame};
use tcp_proto::{ConnectError, ConnectOptions, Instant, LinkAddress, ListenOptions, Stack, StackConfig, State};

fn stack() -> Stack {
    let mac = [2, 0, 0, 0, 0, 1];
    Stack::new(StackConfig { mac, ..StackConfig::default() }, [7; 32], Instant::from_millis(0))
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn open(local: &str) -> ConnectOptions {
    ConnectOptions { local: address(local), link: LinkAddress { mac: PEER_MAC, vlan: None }, tcp: Arc::new(plain()) }
}

/// The next segment of a stack and the addresses it is from and to.
fn next(stack: &mut Stack, now: Instant) -> Option<(SocketAddr, SocketAddr, Seg)> {
    let mut buffer = [0; 2000];
    stack.poll_transmit(now, &mut buffer).map(|length| read_frame(&buffer[..length]))
}

//= docs/rfc/rfc9293.md#MUST-41
#[test]
fn listening_disturbs_no_connection_of_the_same_port() {
    let mut t = Trace::connect(plain());
    t.stack("S 0:0 <mss 1460>");
    t.peer("SA 0:0 ack 1 <mss 1460>");
    t.stack(". 1:1 ack 1");
    let before = t.connection().info();
    let local = t.connection().local();
    let listener = t.stack.listen(local, ListenOptions { tcp: Arc::new(plain()) });
    t.quiet();
    assert_eq!(t.connection().info().snd_nxt, before.snd_nxt);
    t.peer("PA 1:11 ack 1");
    t.stack(". 1:1 ack 11");
    assert_eq!((t.state(), t.read(100)), (State::ESTABLISHED, 10));
    let now = t.now;
    t.stack.close_listener(now, listener.unwrap());
    t.quiet();
    assert_eq!(t.state(), State::ESTABLISHED);
}

//= docs/rfc/rfc9293.md#MUST-42
#[test]
fn a_port_whose_connection_is_being_opened_can_be_listened_at() {
    for crossing in [false, true] {
        let mut t = Trace::connect(plain());
        t.stack("S 0:0 <mss 1460>");
        if crossing {
            t.peer("S 0:0 <mss 1460>");
            t.stack("SA 0:0 ack 1 <mss 1460>");
        }
        assert_eq!(t.state(), if crossing { State::SYN_RCVD } else { State::SYN_SENT });
        let local = t.connection().local();
        t.listener = t.stack.listen(local, ListenOptions { tcp: Arc::new(plain()) }).ok();
        assert!(t.listener.is_some());
        t.speak_from(4001);
        t.peer("S 0:0 <mss 1460>");
        t.stack("SA 0:0 ack 1 <mss 1460>");
        t.speak_from(4000);
        t.peer("SA 0:0 ack 1 <mss 1460>");
        t.stack(". 1:1 ack 1");
        assert_eq!(t.connection().state(), State::ESTABLISHED, "the open is not disturbed");
    }
}

//= docs/rfc/rfc9293.md#MUST-43
//= docs/rfc/rfc9293.md#MUST-45
#[test]
fn the_address_of_an_open_is_the_one_that_was_asked_for_from_the_first_segment_to_the_last() {
    let (mut stack, mut now) = (stack(), Instant::from_millis(0));
    let id = stack.connect(now, address(REMOTE), open("10.0.0.77:40123")).unwrap();
    let (source, _, syn) = next(&mut stack, now).unwrap();
    assert_eq!(source, address("10.0.0.77:40123"));
    let answer = Seg { ack: syn.seq.wrapping_add(1), ..Seg::parse("SA 0:0 ack 1 <mss 1460>") };
    stack.handle_frame(now, &frame(address(REMOTE), source, &answer));
    stack.connection(now, id).unwrap().send(b"data");
    now += ms(1);
    stack.connection(now, id).unwrap().abort();
    let sources: Vec<_> =
        std::iter::from_fn(|| next(&mut stack, now)).map(|(from, _, seg)| (from, seg.flags)).collect();
    assert!(!sources.is_empty() && sources.iter().all(|(from, _)| *from == source), "{sources:?}");
}

//= docs/rfc/rfc6056.md#3.3-random
#[test]
fn ephemeral_ports_are_not_taken_in_order() {
    let (mut stack, now) = (stack(), Instant::from_millis(0));
    let mut ports = |_| {
        stack.connect(now, address(REMOTE), open("10.0.0.1:0")).unwrap();
        next(&mut stack, now).unwrap().0.port()
    };
    let ports: Vec<u16> = (0..20).map(&mut ports).collect();
    assert!(ports.iter().all(|port| (40_000..50_000).contains(port)));
    let distinct: std::collections::BTreeSet<_> = ports.iter().collect();
    assert_eq!(distinct.len(), 20, "{ports:?}");
    let near = ports.windows(2).filter(|pair| pair[0].abs_diff(pair[1]) < 50).count();
    assert!(near < 3, "one in a hundred lies so near by chance: {ports:?}");
}

//= docs/rfc/rfc9293.md#MUST-45
#[test]
fn a_listener_at_every_address_answers_from_the_one_that_was_spoken_to() {
    let (mut stack, now) = (stack(), Instant::from_millis(0));
    stack.listen(address("0.0.0.0:80"), ListenOptions { tcp: Arc::new(plain()) }).unwrap();
    for local in ["10.0.0.1:80", "10.0.0.99:80", "192.0.2.5:80"] {
        stack.handle_frame(now, &frame(address(REMOTE), address(local), &Seg::parse("S 0:0 <mss 1460>")));
        let (from, to, syn_ack) = next(&mut stack, now).unwrap();
        assert_eq!((from, to, syn_ack.flags), (address(local), address(REMOTE), 18));
        let ack = Seg { ack: syn_ack.seq.wrapping_add(1), ..Seg::parse("A 1:11 ack 1") };
        stack.handle_frame(now, &frame(address(REMOTE), address(local), &ack));
        assert_eq!(next(&mut stack, now).unwrap().0, address(local));
    }
}

//= docs/rfc/rfc9293.md#MUST-43
#[test]
fn a_listener_at_one_address_takes_no_others() {
    let (mut stack, now) = (stack(), Instant::from_millis(0));
    stack.listen(address("10.0.0.1:80"), ListenOptions { tcp: Arc::new(plain()) }).unwrap();
    stack.handle_frame(now, &frame(address(REMOTE), address("10.0.0.2:80"), &Seg::parse("S 0:0 <mss 1460>")));
    assert!(next(&mut stack, now).is_none_or(|(_, _, seg)| seg.flags & 4 != 0), "at most a reset");
}

//= docs/rfc/rfc9293.md#MUST-46
#[test]
fn an_open_to_what_is_no_host_fails_at_once_and_sends_nothing() {
    let v4 = ["0.0.0.0:80", "255.255.255.255:80", "224.0.0.1:80", "239.1.2.3:80", "127.0.0.1:80", "10.0.0.5:0"];
    let v6 = ["[::]:80", "[ff02::1]:80", "[ff0e::1]:80", "[::1]:80", "[::ffff:10.0.0.5]:80", "[fd00::5]:0"];
    let all = v4.map(|remote| ("10.0.0.1:0", remote)).into_iter().chain(v6.map(|remote| ("[fd00::1]:0", remote)));
    for (local, remote) in all {
        let (mut stack, now) = (stack(), Instant::from_millis(0));
        let refused = stack.connect(now, address(remote), open(local));
        assert_eq!(refused, Err(ConnectError::InvalidRemote), "{remote}");
        assert!(next(&mut stack, now).is_none() && !stack.wants_transmit());
    }
}
