//! Windows: what the peer offers bounds what we send, what we offer bounds what we take, and neither is offered or
//! used in crumbs (RFC 9293 sections 3.8.6 and 3.10.7.4, RFC 7323 section 2).

mod common;

use common::{Seg, Trace, plain, stream};
use tcp_proto::{State, TcpConfig};

/// Established with an MSS of 1460 both ways, the peer's window and our receive buffer as given.
fn with_window(window: u16, recv_buffer: u32) -> Trace {
    let mut t = Trace::established_with(TcpConfig { recv_buffer, ..plain() }, "S 0:0 <mss 1460>", window);
    t.show_window = true;
    t
}

// The peer's window.

//= docs/rfc/rfc5681.md#3.1-window
//= docs/rfc/rfc7323.md#2.4-first
#[test]
fn no_more_is_in_flight_than_the_peers_window_holds() {
    let mut t = Trace::established_with(plain(), "S 0:0 <mss 1460>", 4380);
    t.write(10_000);
    for first in [1, 1461, 2921] {
        t.stack(&format!(". {first}:{} ack 1", first + 1460));
    }
    t.quiet();
    t.peer(". 1:1 ack 1461 win 4380");
    t.stack(". 4381:5841 ack 1");
    t.quiet();
    // A larger window lets more go although it acknowledges nothing.
    t.peer(". 1:1 ack 1461 win 5840");
    t.stack(". 5841:7301 ack 1");
    t.quiet();
}

//= docs/rfc/rfc9293.md#REC-1
//= docs/rfc/rfc7323.md#2.2-both
#[test]
fn a_scaled_window_beyond_64_kib_is_really_filled() {
    let config = TcpConfig { window_scale: true, ..plain() };
    let mut t = Trace::established_with(config, "S 0:0 <mss 1460,ws 7>", 1000);
    assert_eq!(t.connection().info().snd_wnd, 128_000);
    t.write(1_000_000);
    let (mut sent, mut acked) = (1, 1);
    // Slow start opens the congestion window until the peer's is what limits.
    while acked < 600_000 {
        while let Some(segment) = t.take() {
            assert_eq!((segment.seq, segment.payload.len()), (sent, 1460));
            sent += 1460;
        }
        acked += 1460;
        t.peer(&format!(". 1:1 ack {acked} win 1000"));
        t.take().into_iter().for_each(|segment| sent = segment.seq + 1460);
    }
    assert!(t.connection().info().cwnd > 128_000, "the congestion window is not what limits");
    while t.take().is_some() {
        sent += 1460;
    }
    assert_eq!((sent - acked) / 1460, 128_000 / 1460, "full segments in flight");
}

//= docs/rfc/rfc7323.md#2.2-unscaled
#[test]
fn the_window_of_a_syn_is_never_scaled() {
    let mut t = Trace::connect(TcpConfig { window_scale: true, ..plain() });
    t.stack("S 0:0 <mss 1460,ws 5>");
    t.write(3000);
    t.peer("SA 0:0 ack 1 win 1000 <mss 1460,ws 7>");
    t.stack(". 1:1001 ack 1");
    t.quiet();
    t.peer(". 1:1 ack 1001 win 10");
    t.stack(". 1001:2281 ack 1");
}

#[test]
fn the_window_of_a_syn_that_crossed_ours_and_comes_again_with_an_ack_is_not_scaled_either() {
    let mut t = Trace::connect(TcpConfig { window_scale: true, ..plain() });
    t.stack("S 0:0 <mss 1460,ws 5>");
    t.peer("S 0:0 win 5000 <mss 1460,ws 7>");
    t.stack("SA 0:0 ack 1 <mss 1460,ws 5>");
    t.peer("SA 0:0 ack 1 win 5120 <mss 1460,ws 7>");
    t.stack(". 1:1 ack 1");
    assert_eq!(t.connection().info().snd_wnd, 5120);
}

//= docs/rfc/rfc7323.md#2.2-ignored
#[test]
fn a_window_scale_that_is_not_on_a_syn_is_ignored() {
    let config = TcpConfig { window_scale: true, ..plain() };
    let mut t = Trace::established_with(config, "S 0:0 <mss 1460,ws 3>", 1000);
    for _ in 0..2 {
        t.peer(". 1:1 ack 1 win 500 <ws 9>");
        assert_eq!(t.connection().info().snd_wnd, 4000);
    }
}

//= docs/rfc/rfc7323.md#2.3-limit
#[test]
fn a_window_scale_above_14_counts_as_14() {
    let config = TcpConfig { window_scale: true, ..plain() };
    let mut t = Trace::established_with(config, "S 0:0 <mss 1460,ws 15>", 4);
    assert_eq!(t.connection().info().snd_wnd, 4 << 14);
}

//= docs/rfc/rfc7323.md#2.2-both
#[test]
fn a_window_scale_that_the_peer_does_not_offer_is_not_used() {
    let mut t = Trace::connect(TcpConfig { window_scale: true, ..plain() });
    t.show_window = true;
    t.stack("S 0:0 win 65535 <mss 1460,ws 5>");
    t.peer("SA 0:0 ack 1 win 1000 <mss 1460>");
    t.stack(". 1:1 ack 1 win 65535");
    assert_eq!(t.connection().info().rcv_wnd, 65_535);
    t.peer(". 1:1 ack 1 win 900");
    assert_eq!(t.connection().info().snd_wnd, 900);
}

//= docs/rfc/rfc9293.md#MUST-38
#[test]
fn the_sender_waits_for_a_full_segment_or_half_the_largest_window() {
    let mut t = Trace::established_with(plain(), "S 0:0 <mss 1460>", 2000);
    t.write(5000);
    t.stack(". 1:1461 ack 1");
    t.quiet();
    t.peer(". 1:1 ack 1461 win 1");
    t.peer(". 1:1 ack 1461 win 999");
    t.quiet();
    t.peer(". 1:1 ack 1461 win 1000");
    t.stack(". 1461:2461 ack 1");
    t.quiet();
    t.peer(". 1:1 ack 2461 win 1460");
    t.stack(". 2461:3921 ack 1");
}

#[test]
fn a_zero_window_stops_the_sender_and_its_opening_starts_it() {
    let mut t = Trace::established_with(plain(), "S 0:0 <mss 1460>", 0);
    t.write(100);
    t.quiet();
    assert_eq!(t.timers(), [("persist", 200)]);
    t.quiet_until(150);
    t.peer(". 1:1 ack 1 win 1000");
    t.stack("PA 1:101 ack 1");
    assert_eq!(t.timers(), [("retransmit", 200)]);
}

//= docs/rfc/rfc9293.md#MUST-34
//= docs/rfc/rfc9293.md#SHLD-15
//= docs/rfc/rfc9293.md#SHLD-16
#[test]
fn a_window_that_shrinks_stops_new_data_and_what_lies_beyond_it_is_not_repeated() {
    let mut t = Trace::established(plain());
    t.write(20_000);
    while t.take().is_some() {}
    t.peer(". 1:1 ack 1461 win 2920");
    t.quiet();
    // Lost or not, only the part that lies in the window goes again.
    t.stack_at(200, ". 1461:2921 ack 1");
    t.peer(". 1:1 ack 2921 win 1460");
    t.stack(". 2921:4381 ack 1");
    t.quiet();
    // The peer had taken the rest after all.
    t.peer(". 1:1 ack 14601 win 65535");
    t.stack(". 14601:16061 ack 1");
}

//= docs/rfc/rfc9293.md#MUST-35
//= docs/rfc/rfc9293.md#SHLD-17
#[test]
fn a_window_that_shrinks_to_nothing_over_what_was_sent_does_not_end_the_connection() {
    let mut t = Trace::established(TcpConfig { retries2: 3, ..plain() });
    t.write(1460);
    t.stack("PA 1:1461 ack 1");
    t.peer(". 1:1 ack 1 win 0");
    for _ in 0..20 {
        let probe = loop {
            match t.take() {
                Some(segment) => break segment,
                None => t.jump("waiting for a probe"),
            }
        };
        assert_eq!((probe.seq, probe.payload.len()), (1, 1), "a probe of one byte");
        t.peer(". 1:1 ack 1 win 0");
    }
    t.peer(". 1:1 ack 1 win 2000");
    t.stack("PA 1:1461 ack 1");
}

//= docs/rfc/rfc9293.md#3.10.7.4-5-ESTABLISHED-window
//= docs/rfc/rfc9293.md#3.10.7.4-5-ESTABLISHED-old
#[test]
fn an_older_segment_does_not_bring_back_an_older_window() {
    let mut t = Trace::established(plain());
    t.write(2920);
    t.stack(". 1:1461 ack 1");
    t.stack("PA 1461:2921 ack 1");
    t.peer(". 1:1 ack 2921 win 5000");
    t.peer(". 1:1 ack 1461 win 6000");
    assert_eq!(t.connection().info().snd_wnd, 5000, "an older ACK");
    t.peer(". 11:21 ack 2921 win 4990");
    t.stack(". 2921:2921 ack 1");
    t.peer(". 1:11 ack 2921 win 5000");
    t.stack(". 2921:2921 ack 21");
    assert_eq!(t.connection().info().snd_wnd, 4990, "an older number");
    t.peer(". 21:31 ack 1461 win 100");
    t.stack(". 2921:2921 ack 31");
    assert_eq!(t.connection().info().snd_wnd, 4990, "an ACK of what was acknowledged before");
}

// Our window.

#[test]
fn a_receive_buffer_beyond_64_kib_is_offered_and_really_taken() {
    let config = TcpConfig { window_scale: true, ..plain() };
    let mut t = Trace::established_with(config, "S 0:0 <mss 1460,ws 0>", 65_535);
    let (mut next, mut edge) = (1u32, 65_536u32);
    while next < edge {
        let end = edge.min(next + 1460);
        t.peer(&format!(". {next}:{end} ack 1"));
        let ack = t.take().expect("an ACK");
        assert_eq!(ack.ack, end, "all of it is taken");
        next = end;
        let offered = ack.ack + (u32::from(ack.window) << 5);
        assert!(offered >= edge, "the right edge never moves left");
        edge = offered;
    }
    // Rounding to the scale lets a little more in.
    let taken = next as usize - 1;
    assert!(((1 << 20)..=(1 << 20) + SLACK).contains(&taken), "{taken} bytes");
    // A block more, because the first one is half read, and a hundredth for the list of blocks.
    assert!(t.stack.buffer_memory() <= ((1 << 20) + SLACK + 4096) * 101 / 100);
    assert_eq!(t.read(1 << 21), taken);
    let update = t.take().expect("a window update");
    assert_eq!((update.ack, u32::from(update.window) << 5), (next, 1 << 20));
    assert_eq!(t.stack.buffer_memory(), 0);
}

/// Bytes that a receive buffer may hold beyond its size, because windows are rounded to their scale.
const SLACK: usize = 1 << 14;

#[test]
fn a_peer_that_sends_crumbs_to_a_stuck_reader_sees_the_window_close_and_nothing_is_thrown_away() {
    let config = TcpConfig { window_scale: true, recv_buffer: 1 << 19, ..plain() };
    let mut t = Trace::established_with(config, "S 0:0 <mss 1460,ws 0>", 65_535);
    // One less than a multiple of the scale's 16: rounding gives back 15 of them.
    const CRUMB: u32 = 159;
    let (mut next, mut window) = (1, 65_535);
    while window > 0 {
        let length = CRUMB.min(window);
        t.peer_seg(&Seg { payload: stream(next, length as usize), ..Seg::parse(&format!(". {next}:{next} ack 1")) });
        let ack = t.take().expect("an ACK");
        assert_eq!(ack.ack, next + length, "all of it is taken");
        (next, window) = (ack.ack, u32::from(ack.window) << 4);
    }
    assert!(next as usize <= 1 + (1 << 19) + SLACK);
    assert_eq!((t.drops("no_memory"), t.drops("out_of_window")), (0, 0));
    assert_eq!(t.read(1 << 20), next as usize - 1);
}

//= docs/rfc/rfc9293.md#3.10.7.4-1-trim
#[test]
fn what_lies_beyond_the_window_is_cut_off_and_a_fin_there_with_it() {
    let mut t = with_window(65_535, 1000);
    t.peer("PA 1:1461 ack 1");
    t.stack(". 1:1 ack 1001 win 0");
    assert_eq!(t.read(2000), 1000);
    t.stack(". 1:1 ack 1001 win 1000");
    t.peer("FPA 1001:2001 ack 1");
    t.stack(". 1:1 ack 2001 win 0");
    assert_eq!((t.state(), t.read(2000)), (State::ESTABLISHED, 1000));
    t.stack(". 1:1 ack 2001 win 1000");
    t.peer("FA 2001:2001 ack 1");
    t.stack(". 1:1 ack 2002 win 999");
    assert_eq!(t.state(), State::CLOSE_WAIT);
}

//= docs/rfc/rfc9293.md#3.10.7.4-1-acceptability
//= docs/rfc/rfc9293.md#3.10.7.4-1-unacceptable
#[test]
fn segments_outside_of_the_window_draw_an_ack_and_are_dropped() {
    let mut t = with_window(65_535, 1000);
    t.peer("PA 1001:1011 ack 1");
    t.stack(". 1:1 ack 1 win 1000");
    t.peer("PA 4294967196:4294967286 ack 1");
    t.stack(". 1:1 ack 1 win 1000");
    assert_eq!((t.read(2000), t.drops("out_of_window")), (0, 2));
    t.peer("PA 991:1001 ack 1");
    t.stack(". 1:1 ack 1 win 1000");
    assert_eq!(t.drops("out_of_window"), 2, "the last bytes of the window are in it");
}

/// A trace whose window is closed: 1000 bytes wait to be read.
fn closed_window() -> Trace {
    let mut t = with_window(65_535, 1000);
    t.peer("PA 1:1001 ack 1");
    t.stack(". 1:1 ack 1001 win 0");
    t
}

//= docs/rfc/rfc9293.md#MAY-8
#[test]
fn every_probe_of_our_closed_window_is_answered() {
    let mut t = closed_window();
    for _ in 0..3 {
        t.peer("PA 1001:1002 ack 1");
        t.stack(". 1:1 ack 1001 win 0");
    }
    t.peer("FA 1001:1001 ack 1");
    t.stack(". 1:1 ack 1001 win 0");
    // The other kind of probe: an old number and nothing else.
    t.peer(". 1000:1000 ack 1");
    t.stack(". 1:1 ack 1001 win 0");
    assert_eq!(t.read(2000), 1000);
    t.stack(". 1:1 ack 1001 win 1000");
}

//= docs/rfc/rfc9293.md#MUST-66
//= docs/rfc/rfc9293.md#3.10.7.4-1-zero-window
#[test]
fn acks_and_resets_count_although_our_window_is_closed() {
    let mut t = closed_window();
    t.write(100);
    t.stack("PA 1:101 ack 1001 win 0");
    t.peer("PA 1001:1011 ack 101");
    t.stack(". 101:101 ack 1001 win 0");
    assert_eq!(t.connection().info().snd_una, t.our_isn + 101);
    t.peer("R 1001:1001");
    assert_eq!(t.state(), State::CLOSED);
}

#[test]
fn probes_of_our_window_are_no_duplicate_acks() {
    let mut t = closed_window();
    t.write(1460);
    t.stack("PA 1:1461 ack 1001 win 0");
    for _ in 0..4 {
        t.peer("PA 1001:1002 ack 1");
        t.stack(". 1461:1461 ack 1001 win 0");
    }
    t.quiet();
}

//= docs/rfc/rfc9293.md#MUST-39
#[test]
fn reading_in_crumbs_does_not_open_the_window_in_crumbs() {
    let mut t = with_window(65_535, 8000);
    for first in [1, 1461, 2921, 4381, 5841] {
        t.peer(&format!(". {first}:{} ack 1", first + 1460));
        t.take();
    }
    t.peer("PA 7301:8001 ack 1");
    t.stack(". 1:1 ack 8001 win 0");
    for _ in 0..1459 {
        t.read(1);
    }
    t.peer("PA 8001:8002 ack 1");
    t.stack(". 1:1 ack 8001 win 0");
    t.read(1);
    t.peer("PA 8001:8002 ack 1");
    t.stack(". 1:1 ack 8001 win 1460");
}

#[test]
fn a_reader_that_frees_two_segments_of_a_closed_window_tells_the_peer() {
    let mut t = with_window(65_535, 8000);
    for first in [1, 1461, 2921, 4381, 5841] {
        t.peer(&format!(". {first}:{} ack 1", first + 1460));
        t.take();
    }
    t.peer("PA 7301:8001 ack 1");
    t.stack(". 1:1 ack 8001 win 0");
    assert_eq!(t.read(2919), 2919);
    t.quiet();
    assert_eq!(t.read(1), 1);
    t.stack(". 1:1 ack 8001 win 2920");
}

//= docs/rfc/rfc9293.md#MUST-39
#[test]
fn a_buffer_smaller_than_a_segment_opens_by_halves() {
    let mut t = closed_window();
    assert_eq!(t.read(499), 499);
    t.quiet();
    assert_eq!(t.read(1), 1);
    t.stack(". 1:1 ack 1001 win 500");
}

//= docs/rfc/rfc9293.md#SHLD-14
//= docs/rfc/rfc7323.md#2.4-shrink
#[test]
fn the_right_edge_never_moves_left_whatever_arrives_and_however_it_is_read() {
    for (seed, window_scale, recv_buffer) in [(1u32, true, 100_000), (2, true, 1 << 20), (3, false, 9000)] {
        let config = TcpConfig { window_scale, recv_buffer, nodelay: true, ..plain() };
        let syn = if window_scale { "S 0:0 <mss 1460,ws 3>" } else { "S 0:0 <mss 1460>" };
        let mut t = Trace::established_with(config, syn, 65_535);
        let shift = if window_scale { (0..).find(|s| recv_buffer >> s <= 65_535).unwrap() } else { 0 };
        let (mut chance, mut next) = (seed, 1u32);
        let mut edge = 1 + recv_buffer.min(65_535);
        for _ in 0..1500 {
            let mut below = |limit: u32| {
                chance = chance.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (chance >> 8) % limit
            };
            let gap = if below(4) == 0 { below(3000) } else { 0 };
            let (first, length) = (next + gap, below(1460));
            let payload = stream(first, length as usize);
            t.peer_seg(&Seg { payload, ..Seg::parse(&format!(". {first}:{first} ack {}", t.acked())) });
            while let Some(segment) = t.take() {
                let offered = segment.ack + (u32::from(segment.window) << shift);
                assert!(offered >= edge, "seed {seed}: {offered} after {edge}");
                (next, edge) = (segment.ack, offered);
            }
            if below(3) == 0 {
                t.read(below(5000) as usize);
            }
            if let Some(update) = t.take() {
                edge = update.ack + (u32::from(update.window) << shift);
            }
        }
        assert!(next > 200_000, "seed {seed}: only {next} bytes were taken");
    }
}

impl Trace {
    /// What the peer has acknowledged: nothing but the SYN.
    fn acked(&self) -> u32 {
        1
    }
}

#[test]
fn an_ack_before_the_handshake_is_over_offers_no_more_than_a_repeated_syn_ack_can() {
    let config = TcpConfig { window_scale: true, recv_buffer: 1 << 20, ..plain() };
    let mut t = Trace::listen(config);
    t.show_window = true;
    t.peer("S 0:0 <mss 1460,ws 7>");
    t.stack("SA 0:0 ack 1 win 65535 <mss 1460,ws 5>");
    t.peer(". 2000000:2000000 ack 1");
    // 65,504 bytes.
    t.stack(". 1:1 ack 1 win 2047");
    t.stack_at(1000, "SA 0:0 ack 1 win 65535 <mss 1460,ws 5>");
    t.peer(". 1:1 ack 1");
    t.accept();
    t.peer("PA 1:11 ack 1");
    t.stack(". 1:1 ack 11 win 32768");
}
