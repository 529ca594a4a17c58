//! Memory under attack, as the allocator sees it: what peers make the stack hold is bounded, for a connection and in
//! all, and [`tcp_proto::Stack::buffer_memory`] tells the truth about it.

mod common;

use std::alloc::System;

use cap::Cap;
use common::crowd::{Crowd, PEER_ISN};
use common::stream;
use tcp_proto::{ConnectionId, StackConfig, TcpConfig};

/// Counts what is allocated. One test in this file, because others would be counted, too.
#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// Connections under attack.
const CROWD: u16 = 50;
/// What the stack may allocate besides buffers while it is attacked: queues of events and segments, the pool's list.
const REST: usize = 64 << 10;
/// Blocks that a stack keeps for reuse, bytes.
const KEPT: usize = 4 << 20;

/// A stack whose peers have shaken hands; their connections.
fn crowd(max_buffer_memory: usize) -> (Crowd, Vec<(u16, u32, ConnectionId)>) {
    let stack = StackConfig { max_buffer_memory, max_connections: 1000, ..StackConfig::default() };
    let mut crowd = Crowd::new(stack, TcpConfig { timestamps: false, autotune: false, ..TcpConfig::default() });
    let peers = (1..=CROWD).map(|port| {
        crowd.send(port, "S 0:0 <mss 1460,ws 7>", PEER_ISN, 0);
        let number = crowd.sent()[0].seq + 1;
        crowd.send(port, ". 0:0", PEER_ISN + 1, number);
        (port, number, crowd.stack.accept(crowd.listener).unwrap())
    });
    let peers = peers.collect();
    drain(&mut crowd);
    (crowd, peers)
}

/// Fetches all that follows, as a turn does.
fn drain(crowd: &mut Crowd) {
    while crowd.stack.poll_event().is_some() {}
    crowd.sent();
}

/// Single bytes behind gaps, from each peer, as many as there are blocks in the window and more.
fn send_crumbs(crowd: &mut Crowd, peers: &[(u16, u32, ConnectionId)]) {
    // The window of a SYN is small; the second time round the peers know the whole one.
    for &(port, number, _) in peers.iter().chain(peers) {
        // The first one at the far end of the window.
        for gap in (0..250).rev() {
            crowd.send(port, ". 0:1", PEER_ISN + 11 + gap * 4096, number);
        }
        drain(crowd);
    }
}

/// The application writes more than a peer takes that acknowledges nothing.
fn write_much(crowd: &mut Crowd, peers: &[(u16, u32, ConnectionId)]) {
    let bytes = stream(1, 300_000);
    for &(_, _, id) in peers {
        crowd.stack.connection(crowd.now, id).unwrap().send(&bytes);
        drain(crowd);
    }
}

/// What `attack` makes a stack allocate, and what the stack says about it; then it all goes back.
#[track_caller]
fn attack(max_buffer_memory: usize, attack: fn(&mut Crowd, &[(u16, u32, ConnectionId)])) -> (usize, usize) {
    let (mut crowd, peers) = crowd(max_buffer_memory);
    let before = ALLOCATOR.allocated();
    attack(&mut crowd, &peers);
    let (allocated, told) = (ALLOCATOR.allocated() - before, crowd.stack.buffer_memory());
    crowd.stack.abort_all(crowd.now);
    drain(&mut crowd);
    assert_eq!(crowd.stack.buffer_memory(), 0);
    let left = ALLOCATOR.allocated().saturating_sub(before);
    assert!(left <= told.min(KEPT) + REST, "{left} bytes are left of {told}");
    (allocated, told)
}

#[test]
fn what_peers_make_the_stack_hold_is_what_it_says_and_no_more_than_the_limits_say() {
    let plenty = 1 << 30;
    for (name, what) in [("crumbs", send_crumbs as fn(&mut Crowd, &[_])), ("writes", write_much)] {
        let (allocated, told) = attack(plenty, what);
        println!("{name}: {allocated} bytes allocated, {told} told");
        assert!(allocated.abs_diff(told) <= REST, "{name}: {allocated} bytes allocated, {told} told");
        let each = allocated / usize::from(CROWD);
        assert!((200_000..=310_000).contains(&each), "{name}: {each} bytes for a connection");
        // In all.
        let limit = 2 << 20;
        let (allocated, told) = attack(limit, what);
        println!("{name}: {allocated} bytes allocated, {told} told, of {limit}");
        assert!(told > limit / 2 && told <= limit && allocated <= limit + REST, "{name}: {allocated} {told}");
    }
}
