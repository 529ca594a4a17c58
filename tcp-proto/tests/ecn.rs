//! Explicit congestion notification as it shows in segments (RFC 3168).

mod common;

use common::{Seg, Trace, plain};
use tcp_proto::TcpConfig;

const SIZE: u32 = 1460;
const ECE: u8 = 0x40;
const CWR: u8 = 0x80;

fn with_ecn() -> TcpConfig {
    TcpConfig { ecn: true, ..plain() }
}

/// Established, with a peer that understands marks if it `offers` to.
fn established(config: TcpConfig, offers: u8) -> Trace {
    let mut t = Trace::listen(config);
    t.peer_seg(&Seg { flags: 2 | offers, ..Seg::parse("S 0:0 <mss 1460>") });
    let answer = t.take().expect("a SYN-ACK");
    let agreed = offers == ECE | CWR;
    assert_eq!(answer.flags, 18 | if agreed { ECE } else { 0 });
    t.peer(". 1:1 ack 1");
    t.accept();
    t
}

fn ack(n: u32, flags: u8) -> Seg {
    let seg = Seg::parse(&format!(". 1:1 ack {}", 1 + n * SIZE));
    Seg { flags: seg.flags | flags, ..seg }
}

//= docs/rfc/rfc9293.md#SHLD-8
//= docs/rfc/rfc3168.md#6.1.1-offer
//= docs/rfc/rfc3168.md#6.1.1-agree
//= docs/rfc/rfc3168.md#6.1.1-reflected
#[test]
fn only_both_flags_of_a_syn_offer_it_and_only_ece_of_a_syn_ack_agrees() {
    for offers in [0, ECE, CWR, ECE | CWR] {
        established(with_ecn(), offers);
    }
    for (answer, agreed) in [(0, false), (ECE, true), (ECE | CWR, false), (CWR, false)] {
        let mut t = Trace::connect(with_ecn());
        assert_eq!(t.take().expect("a SYN").flags, 2 | ECE | CWR);
        t.peer_seg(&Seg { flags: 18 | answer, ..Seg::parse("SA 0:0 ack 1 <mss 1460>") });
        t.stack(". 1:1 ack 1");
        t.write(10);
        assert_eq!(t.take_marked().1, agreed, "{answer:#x}");
    }
}

#[test]
fn without_it_in_the_configuration_a_peers_offer_is_ignored() {
    let mut t = Trace::listen(plain());
    t.peer_seg(&Seg { flags: 2 | ECE | CWR, ..Seg::parse("S 0:0 <mss 1460>") });
    t.stack("SA 0:0 ack 1 <mss 1460>");
}

//= docs/rfc/rfc3168.md#6.1.1.1-retry
#[test]
fn a_repeated_syn_does_without() {
    let mut t = Trace::connect(with_ecn());
    assert_eq!(t.take().expect("a SYN").flags, 2 | ECE | CWR);
    t.stack_at(1000, "S 0:0 <mss 1460>");
}

//= docs/rfc/rfc3168.md#6.1.2-ect
//= docs/rfc/rfc3168.md#6.1.4-acks
//= docs/rfc/rfc3168.md#6.1.5-retransmissions
#[test]
fn new_data_may_be_marked_and_nothing_else_may() {
    let mut t = established(with_ecn(), ECE | CWR);
    t.peer(". 1:11 ack 1");
    assert_eq!(t.take_marked(), (". 1:1 ack 11".to_owned(), false), "a bare ACK");
    t.write(10);
    assert!(t.take_marked().1, "data");
    while t.clock() < 200 {
        t.jump("the timeout");
    }
    assert_eq!(t.take_marked(), ("PA 1:11 ack 11".to_owned(), false), "data sent again");
}

//= docs/rfc/rfc3168.md#6.1.1-syn-not-ect
//= docs/rfc/rfc3168.md#6.1.6-probes
#[test]
fn neither_a_syn_nor_its_answer_nor_a_probe_may_be_marked() {
    let mut t = Trace::connect(with_ecn());
    assert!(!t.take_marked().1, "SYN");
    let mut t = Trace::listen(with_ecn());
    t.peer_seg(&Seg { flags: 2 | ECE | CWR, ..Seg::parse("S 0:0 <mss 1460>") });
    assert!(!t.take_marked().1, "SYN,ACK");
    t.peer(". 1:1 ack 1 win 0");
    t.accept();
    t.write(10);
    while t.clock() < 200 {
        t.jump("the probe");
    }
    assert_eq!(t.take_marked(), (". 1:2 ack 1".to_owned(), false), "a probe");
}

//= docs/rfc/rfc3168.md#6.1.3-echo
//= docs/rfc/rfc9293.md#SHLD-8
#[test]
fn a_mark_is_echoed_until_the_peer_says_that_it_slowed_down() {
    let mut t = established(with_ecn(), ECE | CWR);
    t.peer_marked(". 1:11 ack 1");
    assert_eq!(t.take().expect("an ACK").flags, 16 | ECE);
    t.peer(". 11:21 ack 1");
    assert_eq!(t.take().expect("an ACK").flags, 16 | ECE);
    t.peer_seg(&Seg { flags: 16 | CWR, ..Seg::parse(". 21:31 ack 1") });
    t.stack(". 1:1 ack 31");
    t.peer_marked(". 31:31 ack 1");
    t.peer(". 31:41 ack 1");
    t.stack(". 1:1 ack 41");
}

//= docs/rfc/rfc3168.md#6.1.5-outside
#[test]
fn a_mark_on_what_lies_outside_of_the_window_is_not_echoed() {
    let mut t = established(with_ecn(), ECE | CWR);
    t.peer_marked(". 200000:200010 ack 1");
    t.stack(". 1:1 ack 1");
    t.peer(". 1:11 ack 1");
    t.stack(". 1:1 ack 11");
}

//= docs/rfc/rfc3168.md#6.1.2-react
//= docs/rfc/rfc3168.md#6.1.2-once
//= docs/rfc/rfc3168.md#6.1.2-cwr
//= docs/rfc/rfc9293.md#SHLD-8
#[test]
fn the_peers_word_of_marks_halves_the_window_once_per_round_trip_and_is_answered() {
    let mut t = established(with_ecn(), ECE | CWR);
    t.write(1_000_000);
    for _ in 0..10 {
        t.take().expect("data");
    }
    t.peer_seg(&ack(1, ECE));
    t.quiet();
    for n in 2..5 {
        t.peer_seg(&ack(n, ECE));
        assert!(t.take().is_none(), "six segments are in flight, and five allowed");
    }
    assert_eq!(t.connection().info().cwnd, 5 * SIZE);
    assert_eq!(t.connection().info().retransmits, 0);
    t.peer_seg(&ack(5, 0));
    assert_eq!(t.take().expect("new data").flags, 16 | CWR);
    t.peer_seg(&ack(6, 0));
    assert_eq!(t.take().expect("new data").flags, 16);
    while t.take().is_some() {}
    t.peer_seg(&ack(10, ECE));
    while t.take().is_some() {}
    let before = t.connection().info().cwnd;
    assert!(before >= 5 * SIZE);
    t.peer_seg(&ack(11, ECE));
    assert!(t.connection().info().cwnd < before, "a mark of the next round trip");
}

/// Ten segments are on their way.
fn sending() -> Trace {
    let mut t = established(with_ecn(), ECE | CWR);
    t.write(1_000_000);
    for _ in 0..10 {
        assert_eq!(t.take().expect("data").flags, 16);
    }
    t
}

//= docs/rfc/rfc3168.md#6.1.2-cwr
#[test]
fn the_first_new_segment_after_a_loss_says_that_we_slowed_down() {
    let mut t = sending();
    while t.clock() < 200 {
        t.jump("the timeout");
    }
    assert_eq!(t.take().expect("the first segment again").flags, 16);
    t.peer_seg(&ack(10, 0));
    assert_eq!(t.take().expect("new data").flags, 16 | CWR);

    let mut t = sending();
    for _ in 0..2 {
        t.peer_seg(&ack(0, 0));
        assert_eq!(t.take().expect("limited transmit").flags, 16);
    }
    t.peer_seg(&ack(0, 0));
    assert_eq!(t.take().expect("the first segment again").flags, 16);
    t.peer_seg(&ack(12, 0));
    assert_eq!(t.take().expect("new data").flags, 16 | CWR);
    assert_eq!(t.take().expect("more").flags, 16);
}

//= docs/rfc/rfc3168.md#6.1.2-once
#[test]
fn marks_in_a_window_with_a_loss_slow_us_down_no_further() {
    let mut t = sending();
    for _ in 0..3 {
        t.peer_seg(&ack(0, 0));
        assert!(t.take().is_some());
    }
    t.peer_seg(&ack(0, ECE));
    assert_eq!(t.connection().info().ssthresh, Some(5 * SIZE));
}
