//! Path MTU discovery as it shows in segments: ICMP errors (RFC 1191), which of them are believed (RFC 5927 section 7.2),
//! and paths that swallow full-sized segments without a word (RFC 4821 section 7.7).

mod common;

use common::{Trace, plain};
use tcp_proto::TcpConfig;

const SIZE: u32 = 1460;

fn at(n: u32) -> u32 {
    1 + n * SIZE
}

/// Ten full-sized segments are on their way; with selective acknowledgments or without.
fn sending(sack: bool) -> Trace {
    let syn = if sack { "S 0:0 <mss 1460,sackOK>" } else { "S 0:0 <mss 1460>" };
    let mut t = Trace::established_with(TcpConfig { sack, ..plain() }, syn, 65_535);
    t.write(1_000_000);
    for n in 0..10 {
        t.stack(&format!(". {}:{} ack 1", at(n), at(n + 1)));
    }
    t.quiet();
    t
}

/// Sizes of the segments that the stack sends now.
fn sizes(t: &mut Trace) -> Vec<usize> {
    std::iter::from_fn(|| t.take()).map(|seg| seg.payload.len()).collect()
}

//= docs/rfc/rfc1191.md#3-reduce
//= docs/rfc/rfc1191.md#6.4-resend
//= docs/rfc/rfc9293.md#MUST-16
#[test]
fn segments_get_as_small_as_a_router_says_and_go_again_at_once() {
    for sack in [false, true] {
        let mut t = sending(sack);
        t.too_big(at(0), 1000);
        let sent = sizes(&mut t);
        assert!(!sent.is_empty() && sent.iter().all(|size| *size <= 960), "{sent:?}");
        assert!(sent.contains(&960));
        let info = t.connection().info();
        assert_eq!((info.mss, info.ssthresh), (960, None), "no sign of congestion");
    }
}

//= docs/rfc/rfc1191.md#5-old-style
#[test]
fn a_router_that_does_not_say_what_it_carries_brings_the_next_common_mtu() {
    let mut t = sending(true);
    t.too_big(at(0), 0);
    assert_eq!(t.connection().info().mss, 1492 - 40);
    while t.take().is_some() {}
    t.too_big(at(0), 0);
    assert_eq!(t.connection().info().mss, 1006 - 40);
}

//= docs/rfc/rfc1191.md#3-floor
//= docs/rfc/rfc5927.md#7.2-floor
#[test]
fn no_router_can_make_segments_tiny() {
    let mut t = sending(true);
    t.too_big(at(0), 68);
    assert_eq!(t.connection().info().mss, 552 - 40);
}

//= docs/rfc/rfc5927.md#4.1-sequence
#[test]
fn an_error_about_what_is_not_under_way_is_not_believed() {
    let mut t = sending(true);
    for seq in [at(10), at(0).wrapping_sub(1), at(0).wrapping_add(1 << 31)] {
        t.too_big(seq, 600);
        t.quiet();
    }
    t.too_big(at(0), 1500);
    t.quiet();
    assert_eq!(t.connection().info().mss, 1460);
}

//= docs/rfc/rfc5927.md#7.2-contradicted
#[test]
fn an_error_that_was_damaged_on_its_way_is_not_believed() {
    let mut t = sending(true);
    let next_hop_mtu = 14 + 20 + 6;
    t.too_big_but(at(0), 1400, |frame| frame[next_hop_mtu] ^= 0x4);
    t.quiet();
    assert_eq!((t.connection().info().mss, t.drops("bad_checksum")), (1460, 1));
}

#[test]
fn an_error_that_acknowledged_segments_contradict_counts_only_once_they_are_not_acknowledged_any_more() {
    let mut t = sending(true);
    t.peer(&format!(". 1:1 ack {}", at(1)));
    while t.take().is_some() {}
    t.too_big(at(1), 600);
    t.quiet();
    assert_eq!(t.connection().info().mss, 1460);
    while t.connection().info().ssthresh.is_none() {
        t.jump("the timeout");
        while t.take().is_some() {}
    }
    assert_eq!(t.connection().info().mss, 560);
}

//= docs/rfc/rfc1191.md#3-increase
#[test]
fn no_router_can_make_segments_larger() {
    let mut t = sending(true);
    t.too_big(at(0), 1000);
    while t.take().is_some() {}
    for mtu in [1000, 1001, 1400, 65_535] {
        t.too_big(at(0), mtu);
        t.quiet();
    }
    assert_eq!(t.connection().info().mss, 960);
}

//= docs/rfc/rfc1191.md#6.3-age
//= docs/rfc/rfc1191.md#3-patience
//= docs/rfc/rfc8201.md#4-age
#[test]
fn after_ten_minutes_the_links_mtu_is_tried_again() {
    let mut t = sending(true);
    t.too_big(at(0), 1000);
    while t.take().is_some() {}
    t.peer(&format!(". 1:1 ack {}", at(10)));
    while let Some(seg) = t.take() {
        let end = seg.seq + seg.payload.len() as u32;
        t.peer_more(&common::Seg::parse(&format!(". 1:1 ack {end}")));
    }
    t.quiet_until(598_000);
    assert_eq!(t.connection().info().mss, 960);
    t.quiet_until(601_000);
    assert_eq!(t.connection().info().mss, 1460);
}

//= docs/rfc/rfc4821.md#7.7-full-stop
#[test]
fn where_full_sized_segments_vanish_smaller_ones_are_tried_after_r1_timeouts() {
    for sack in [false, true] {
        let mut t = sending(sack);
        let mut seen = Vec::new();
        while seen.len() < 5 {
            t.jump("the timeout");
            let sent = sizes(&mut t);
            seen.extend(sent.first());
            assert!(t.clock() < 60_000);
        }
        let timeouts: Vec<usize> = seen.into_iter().skip_while(|size| *size == 1460).collect();
        assert!(timeouts.starts_with(&[1240, 536]), "{timeouts:?}");
        t.peer(". 1:1 ack 537");
        assert!(sizes(&mut t).iter().all(|size| *size == 536));
    }
}

#[test]
fn small_segments_that_are_not_acknowledged_say_nothing_about_the_path() {
    let mut t = Trace::established(plain());
    t.write(100);
    t.stack("PA 1:101 ack 1");
    for ms in [200, 600, 1400, 3000] {
        t.stack_at(ms, "PA 1:101 ack 1");
    }
    assert_eq!(t.connection().info().mss, 1460);
}

#[test]
fn what_is_left_of_a_stream_may_be_too_large_for_a_path_although_it_is_no_full_segment() {
    let mut t = Trace::established_with(plain(), "S 0:0 <mss 1460>", 65_535);
    t.write(1000);
    t.stack("PA 1:1001 ack 1");
    let mut lost = 0;
    while lost < 2 {
        t.jump("the timeout");
        lost += sizes(&mut t).iter().filter(|size| **size == 1000).count();
    }
    let mut sent = Vec::new();
    while sent.is_empty() {
        t.jump("R1");
        sent = sizes(&mut t);
    }
    assert_eq!(sent[0], 536);
}
