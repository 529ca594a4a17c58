//! What a peer, or an application, could once bring the stack to do: each test is a trace that went wrong.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::crowd::{Crowd, PEER_ISN};
use common::{LOCAL, PEER_MAC, REMOTE, Seg, Trace, frame, ms, plain};
use tcp_proto::{
    ConnectOptions, ConnectionKey, ConnectionValue, Device, LinkAddress, NoEntry, StackConfig, State, TcpConfig, turn,
};

// One connection.

#[test]
fn a_fin_that_probed_a_window_keeps_a_timer_when_the_window_opens_and_closes_again() {
    let mut t = Trace::established(plain());
    t.peer(". 1:1 ack 1 win 0");
    t.close();
    t.stack_at(200, "FA 1:1 ack 1");
    t.peer_more(&Seg::parse(". 1:1 ack 1 win 10"));
    t.peer_more(&Seg::parse(". 1:1 ack 1 win 0"));
    while t.take().is_some() {}
    assert!(!t.timers().is_empty(), "an unacknowledged FIN without a timer would stay for ever");
}

#[test]
fn an_orphan_is_not_kept_for_ever_by_a_peer_that_answers_probes() {
    let mut t = Trace::established(plain());
    t.peer(". 1:1 ack 1 win 0");
    t.write(10_000);
    t.close();
    for _ in 0..200 {
        let (mut new, mut changed) = (Vec::new(), Vec::new());
        t.stack.take_table_writes(t.now, &mut new, &mut changed);
        let Some(next) = t.stack.poll_timeout() else { break };
        t.now = t.now.max(next);
        t.stack.handle_timeout(t.now);
        while t.take().is_some() {}
        if t.state() == State::CLOSED {
            break;
        }
        t.peer_more(&Seg::parse(". 1:1 ack 1 win 0"));
    }
    while t.take().is_some() {}
    t.assert_empty();
}

#[test]
fn an_orphan_is_not_kept_for_ever_by_a_peer_that_opens_its_window_and_closes_it_again() {
    let mut t = Trace::established(plain());
    t.peer(". 1:1 ack 1 win 0");
    t.write(10_000);
    t.close();
    for _ in 0..200 {
        let (mut new, mut changed) = (Vec::new(), Vec::new());
        t.stack.take_table_writes(t.now, &mut new, &mut changed);
        let Some(next) = t.stack.poll_timeout() else { break };
        t.now = t.now.max(next);
        t.stack.handle_timeout(t.now);
        while t.take().is_some() {}
        if t.state() == State::CLOSED {
            break;
        }
        for window in [1, 0] {
            t.peer_more(&Seg { window, ..Seg::parse(". 1:1 ack 1") });
            while t.take().is_some() {}
        }
    }
    t.assert_empty();
}

#[test]
fn a_reset_that_only_reaches_into_the_window_does_not_reset() {
    let mut t = Trace::established(plain());
    t.peer(". 1:101 ack 1");
    t.stack(". 1:1 ack 101");
    t.peer("R 51:151");
    assert_eq!(t.state(), State::ESTABLISHED);
}

#[test]
fn a_rejected_segment_does_not_set_the_recent_timestamp() {
    let config = TcpConfig { timestamps: true, ..plain() };
    let mut t = Trace::established_with(config, "S 0:0 <mss 1460,ts 1000 0>", 65_535);
    t.peer(". 1:1 ack 900000 <ts 2000000000 0>");
    while t.take().is_some() {}
    t.peer("PA 1:11 ack 1 <ts 1001 1000000>");
    while t.take().is_some() {}
    assert_eq!((t.read(100), t.drops("old_timestamp")), (10, 0));
}

#[test]
fn a_half_close_before_the_answer_waits_for_it() {
    let mut t = Trace::connect(plain());
    t.stack("S 0:0 <mss 1460>");
    t.shutdown();
    assert_eq!(t.connection().state(), State::SYN_SENT);
    t.peer("SA 0:0 ack 1 <mss 1460>");
    t.stack("FA 1:1 ack 1");
}

#[test]
fn a_retransmission_that_acknowledges_new_data_brings_its_window() {
    let mut t = Trace::established(plain());
    t.write(100);
    t.stack("PA 1:101 ack 1");
    t.peer(". 101:201 ack 1 win 10000");
    t.stack(". 101:101 ack 1");
    t.peer(". 1:101 ack 101 win 9900");
    t.stack(". 101:101 ack 201");
    assert_eq!(t.connection().info().snd_wnd, 9900);
}

#[test]
fn text_past_a_fin_does_not_hide_the_fin() {
    let mut t = Trace::established(plain());
    t.peer("FA 101:101 ack 1");
    t.stack(". 1:1 ack 1");
    t.peer(". 102:202 ack 1");
    while t.take().is_some() {}
    t.peer(". 1:102 ack 1");
    while t.take().is_some() {}
    assert_eq!(t.state(), State::CLOSE_WAIT);
}

#[test]
fn the_end_of_a_linger_in_last_ack_resets() {
    let linger = Some(Duration::from_secs(3));
    let slow = Duration::from_secs(10);
    let mut t = Trace::established(TcpConfig { linger, initial_rto: slow, min_rto: slow, ..plain() });
    t.peer("FA 1:1 ack 1");
    t.stack(". 1:1 ack 2");
    t.write(100);
    t.stack("PA 1:101 ack 2");
    t.close();
    t.stack("FA 101:101 ack 2");
    t.stack_at(3000, "RA 102:102 ack 2");
}

#[test]
fn crossing_opens_do_not_count_as_a_lost_syn() {
    let mut t = Trace::connect(plain());
    t.stack("S 0:0 <mss 1460>");
    t.peer("S 0:0 <mss 1460>");
    t.stack("SA 0:0 ack 1 <mss 1460>");
    t.peer("SA 0:0 ack 1 <mss 1460>");
    t.stack(". 1:1 ack 1");
    assert_eq!(t.connection().info().rto, ms(1000));
}

// A whole stack.

#[test]
fn keep_alive_probes_of_many_peers_are_all_answered() {
    let mut crowd = Crowd::new(StackConfig::default(), plain());
    let numbers: Vec<u32> = (1..=2000).map(|port| crowd.open(port)).collect();
    crowd.sent();
    crowd.now += Duration::from_secs(75);
    for (port, number) in (1..).zip(numbers) {
        crowd.send(port, ". 0:0", PEER_ISN, number);
        assert_eq!(crowd.sent().len(), 1, "port {port}");
    }
}

#[test]
fn connections_in_time_wait_do_not_keep_new_ones_out() {
    let mut crowd = Crowd::new(StackConfig { max_connections: 4, ..StackConfig::default() }, plain());
    for port in 1..=4 {
        let number = crowd.open(port);
        let id = crowd.stack.accept(crowd.listener).unwrap();
        crowd.stack.connection(crowd.now, id).unwrap().close();
        crowd.sent();
        crowd.send(port, "FA 0:0", PEER_ISN + 1, number + 1);
        crowd.sent();
    }
    assert_eq!(crowd.stack.count(State::TIME_WAIT), 4);
    crowd.open(5);
    assert_eq!((crowd.stack.count(State::TIME_WAIT), crowd.stack.count(State::ESTABLISHED)), (3, 1));
}

#[test]
fn bytes_behind_gaps_do_not_take_the_memory_of_bytes_in_order() {
    let config = StackConfig { max_buffer_memory: 1 << 20, ..StackConfig::default() };
    let mut crowd = Crowd::new(config, TcpConfig { window_scale: true, ..plain() });
    for port in 1..=20 {
        crowd.send(port, "S 0:0 <mss 1460,ws 7>", PEER_ISN, 0);
        let number = crowd.sent()[0].seq + 1;
        crowd.send(port, ". 0:0", PEER_ISN + 1, number);
        for gap in 0..15 {
            crowd.send(port, ". 0:1", PEER_ISN + 11 + gap * 4096, number);
        }
        crowd.sent();
    }
    let number = crowd.open(500);
    crowd.send(500, "PA 0:10", PEER_ISN + 1, number);
    let last = std::iter::from_fn(|| crowd.stack.accept(crowd.listener)).last().unwrap();
    assert!(crowd.stack.connection(crowd.now, last).unwrap().is_readable());
}

#[test]
fn a_clock_that_steps_back_does_not_hang_the_timers() {
    let mut crowd = Crowd::new(StackConfig::default(), plain());
    crowd.stack.handle_timeout(crowd.now + Duration::from_secs(10));
    crowd.open(1);
    crowd.stack.handle_timeout(crowd.now + ms(500));
}

#[test]
fn a_mapped_address_on_the_wire_is_no_ipv4_connection() {
    let mut crowd = Crowd::new(StackConfig::default(), plain());
    let segment = frame(REMOTE.parse().unwrap(), LOCAL.parse().unwrap(), &Seg::parse("S 0:0"));
    let (header, tcp) = (&segment[26..34], &segment[34..]);
    let mapped = |address: &[u8]| [&[0; 10][..], &[0xff, 0xff], address].concat();
    let mut ip = vec![0x60, 0, 0, 0, 0, tcp.len() as u8, 6, 64];
    ip.extend(mapped(&header[..4]));
    ip.extend(mapped(&header[4..]));
    // The pseudo-header of the mapped addresses sums to the IPv4 one's plus twice 0xffff: the checksum stays right.
    let frame = [&segment[..12], &[0x86, 0xdd], &ip, tcp].concat();
    crowd.stack.handle_frame(crowd.now, &frame);
    let martian = crowd.stack.drops().iter().find(|(name, _)| *name == "martian").unwrap().1;
    assert_eq!((crowd.stack.count(State::SYN_RCVD), martian), (0, 1));
}

/// A device whose connection table takes nothing.
struct Full;

impl Device for Full {
    fn receive(&mut self, _: usize, _: impl FnMut(&[u8])) {}
    fn commit(
        &mut self,
        new: &[(ConnectionKey, ConnectionValue)],
        _: &[(ConnectionKey, ConnectionValue)],
        mut failed: impl FnMut(ConnectionKey, NoEntry),
    ) {
        new.iter().for_each(|(key, _)| failed(*key, NoEntry::Full));
    }
    fn transmit(&mut self, _: usize, mut build: impl FnMut(&mut [u8]) -> Option<usize>) {
        assert_eq!(build(&mut [0; 2000]), None, "nothing leaves without an entry");
    }
    fn remove(&mut self, _: &[ConnectionKey]) {}
}

#[test]
fn an_open_without_room_in_the_table_is_reported_by_the_next_turn_which_comes_at_once() {
    let mut crowd = Crowd::new(StackConfig::default(), plain());
    let link = LinkAddress { mac: PEER_MAC, vlan: None };
    let options = ConnectOptions { local: "10.0.0.1:0".parse().unwrap(), link, tcp: Arc::new(plain()) };
    crowd.stack.connect(crowd.now, REMOTE.parse().unwrap(), options).unwrap();
    let mut events = Vec::new();
    let again = turn(&mut crowd.stack, &mut Full, crowd.now, |_, event| events.push(event));
    assert_eq!((events.len(), again), (0, Some(crowd.now)));
    turn(&mut crowd.stack, &mut Full, crowd.now, |_, event| events.push(event));
    assert_eq!(events.len(), 1);
}
