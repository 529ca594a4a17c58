//! Selective acknowledgments as they show in segments: what we report of what arrived (RFC 2018, RFC 2883), and what we
//! make of the peer's reports (RACK and tail loss probes of RFC 8985, proportional rate reduction of RFC 9937, undoing
//! what was needless by RFC 3522 and RFC 2883).

mod common;

use common::{Seg, Trace, ms, plain};
use tcp_proto::TcpConfig;

/// Segments of the traces without timestamps carry so many bytes.
const SIZE: u32 = 1460;

/// The number at which segment `n` begins (the first is 0).
const fn at(n: u32) -> u32 {
    1 + n * SIZE
}

fn with_sack() -> TcpConfig {
    TcpConfig { sack: true, ..plain() }
}

impl Trace {
    /// Established at 100 ms, after a round trip of that.
    fn sacking() -> Trace {
        let mut t = Trace::listen(with_sack());
        t.peer("S 0:0 <mss 1460,sackOK>");
        t.stack("SA 0:0 ack 1 <mss 1460,sackOK>");
        t.quiet_until(100);
        t.peer(". 1:1 ack 1");
        t.accept();
        t
    }

    /// The same with ten segments on their way, sent at 100 ms.
    fn sending() -> Trace {
        let mut t = Trace::sacking();
        t.write(1_000_000);
        t.sends(0..10);
        t
    }

    /// The same with `count` segments that are all there is.
    fn sending_only(count: u32) -> Trace {
        let mut t = Trace::sacking();
        t.write((count * SIZE) as usize);
        for n in 0..count {
            let flags = if n + 1 == count { "PA" } else { "." };
            t.stack(&format!("{flags} {}:{} ack 1", at(n), at(n + 1)));
        }
        t
    }

    /// The stack sends exactly these segments of the stream now.
    #[track_caller]
    fn sends(&mut self, segments: std::ops::Range<u32>) {
        for n in segments {
            self.stack(&format!(". {}:{} ack 1", at(n), at(n + 1)));
        }
        self.quiet();
    }

    #[track_caller]
    fn sends_at(&mut self, ms: u64, n: u32) {
        self.stack_at(ms, &format!(". {}:{} ack 1", at(n), at(n + 1)));
    }

    /// The peer acknowledges everything before segment `n` and reports segments (from, to before).
    fn acks(&mut self, n: u32, reported: &[(u32, u32)]) {
        let sacks = reported.iter().map(|(first, end)| (at(*first), at(*end))).collect();
        self.peer_seg(&Seg { sacks, ..Seg::parse(&format!(". 1:1 ack {}", at(n))) });
    }

    /// The peer acknowledges the first `count` bytes.
    fn acks_bytes(&mut self, count: u32) {
        self.peer(&format!(". 1:1 ack {}", 1 + count));
    }

    fn congestion(&mut self) -> (u32, Option<u32>) {
        let info = self.connection().info();
        (info.cwnd / SIZE, info.ssthresh.map(|threshold| threshold / SIZE))
    }
}

// What we report.

//= docs/rfc/rfc2018.md#2-permitted
//= docs/rfc/rfc2018.md#4-agreed
#[test]
fn sack_is_agreed_on_only_when_both_sides_offer_it() {
    for (ours, theirs, answer) in [
        (true, "S 0:0 <mss 1460,sackOK>", "SA 0:0 ack 1 <mss 1460,sackOK>"),
        (true, "S 0:0 <mss 1460>", "SA 0:0 ack 1 <mss 1460>"),
        (false, "S 0:0 <mss 1460,sackOK>", "SA 0:0 ack 1 <mss 1460>"),
    ] {
        let mut t = Trace::listen(TcpConfig { sack: ours, ..plain() });
        t.peer(theirs);
        t.stack(answer);
        t.peer(". 1:1 ack 1");
        t.accept();
        t.peer(". 11:21 ack 1");
        let agreed = answer.contains("sackOK");
        t.stack(if agreed { ". 1:1 ack 1 <sack 11:21>" } else { ". 1:1 ack 1" });
    }
    let mut t = Trace::connect(with_sack());
    t.stack("S 0:0 <mss 1460,sackOK>");
    t.peer("SA 0:0 ack 1 <mss 1460,sackOK>");
    t.stack(". 1:1 ack 1");
    t.peer(". 11:21 ack 1");
    t.stack(". 1:1 ack 1 <sack 11:21>");
}

//= docs/rfc/rfc2018.md#4-first
//= docs/rfc/rfc2018.md#4-many
//= docs/rfc/rfc2018.md#4-recent
//= docs/rfc/rfc2018.md#4-every-ack
#[test]
fn what_arrived_last_is_reported_first_and_once_the_gap_is_filled_only_what_came_twice() {
    let mut t = Trace::sacking();
    t.peer(". 11:21 ack 1");
    t.stack(". 1:1 ack 1 <sack 11:21>");
    t.peer(". 31:41 ack 1");
    t.stack(". 1:1 ack 1 <sack 31:41 11:21>");
    t.peer(". 21:26 ack 1");
    t.stack(". 1:1 ack 1 <sack 11:26 31:41>");
    for n in 0..4 {
        t.peer(&format!(". {}:{} ack 1", 51 + 20 * n, 61 + 20 * n));
        let _ = t.take();
    }
    t.peer(". 26:31 ack 1");
    t.stack(". 1:1 ack 1 <sack 11:41 111:121 91:101 71:81>");
    t.peer(". 1:11 ack 1");
    t.stack(". 1:1 ack 41 <sack 111:121 91:101 71:81 51:61>");
    t.peer(". 41:131 ack 1");
    t.stack(". 1:1 ack 131 <sack 51:61>");
}

//= docs/rfc/rfc2018.md#3-format
//= docs/rfc/rfc2018.md#4-many
//= docs/rfc/rfc2018.md#4-every-ack
#[test]
fn with_timestamps_three_blocks_fit() {
    let config = TcpConfig { timestamps: true, ..with_sack() };
    let mut t = Trace::established_with(config, "S 0:0 <mss 1460,sackOK,ts 1 0>", 65_535);
    for n in 0..5 {
        t.peer(&format!(". {}:{} ack 1 <ts 2 0>", 11 + 20 * n, 21 + 20 * n));
        assert_eq!(t.take().expect("an ACK").sacks.len(), 3.min(n + 1));
    }
    // Data leave room for them.
    t.write(10_000);
    assert_eq!(t.take().expect("data").payload.len(), 1460 - 12 - 28);
}

//= docs/rfc/rfc2883.md#4-first
//= docs/rfc/rfc2883.md#4-once
//= docs/rfc/rfc2883.md#4.1-full
//= docs/rfc/rfc2883.md#4-larger
#[test]
fn what_arrived_twice_is_reported_once_and_first() {
    let mut t = Trace::sacking();
    t.peer(". 1:11 ack 1");
    t.stack(". 1:1 ack 11");
    t.peer(". 1:11 ack 1");
    t.stack(". 1:1 ack 11 <sack 1:11>");
    t.peer(". 31:41 ack 1");
    t.stack(". 1:1 ack 11 <sack 31:41>");
    t.peer(". 31:41 ack 1");
    t.stack(". 1:1 ack 11 <sack 31:41 31:41>");
    t.peer(". 51:61 ack 1");
    t.stack(". 1:1 ack 11 <sack 51:61 31:41>");
}

#[test]
fn what_a_stranger_sends_again_from_far_behind_is_not_reported() {
    let mut t = Trace::sacking();
    t.peer(". 1:11 ack 1");
    t.stack(". 1:1 ack 11");
    let far = 11u32.wrapping_sub(1 << 30);
    t.peer(&format!(". {far}:{} ack 1", far.wrapping_add(10)));
    t.stack(". 1:1 ack 11");
    t.peer(". 11:21 ack 1");
    t.stack(". 1:1 ack 21");
}

//= docs/rfc/rfc2883.md#4-first
#[test]
fn what_arrived_twice_is_reported_though_it_is_old_by_its_timestamp() {
    let config = TcpConfig { timestamps: true, ..with_sack() };
    let mut t = Trace::established_with(config, "S 0:0 <mss 1460,sackOK,ts 500 0>", 65_535);
    // It was overtaken, and sent again; then it arrives.
    t.peer("PA 1:11 ack 1 <ts 510 1000000>");
    t.stack(". 1:1 ack 11 <ts 1000000 510>");
    t.peer("PA 1:11 ack 1 <ts 505 1000000>");
    t.stack(". 1:1 ack 11 <ts 1000000 510,sack 1:11>");
}

#[test]
fn what_never_arrived_is_not_reported_as_having_come_twice() {
    let mut t = Trace::sacking();
    t.peer(". 1:11 ack 1");
    t.stack(". 1:1 ack 11");
    // Before the first number of the stream: an attacker's.
    t.peer(". 4294967000:4294967010 ack 1");
    t.stack(". 1:1 ack 11");
}

//= docs/rfc/rfc2883.md#4.2-partial
#[test]
fn of_a_segment_that_arrived_in_part_before_that_part_is_reported() {
    let mut t = Trace::sacking();
    t.peer(". 1:11 ack 1");
    t.stack(". 1:1 ack 11");
    t.peer(". 6:21 ack 1");
    t.stack(". 1:1 ack 21 <sack 6:11>");
    t.peer(". 31:41 ack 1");
    t.stack(". 1:1 ack 21 <sack 31:41>");
    t.peer(". 36:51 ack 1");
    t.stack(". 1:1 ack 21 <sack 36:41 31:51>");
    t.peer(". 26:36 ack 1");
    t.stack(". 1:1 ack 21 <sack 31:36 26:51>");
}

// What we make of reports.

/// Segment 0 is lost, and found to be.
fn first_lost() -> Trace {
    let mut t = Trace::sending();
    t.quiet_until(200);
    for reported in 2..=3 {
        t.acks(0, &[(1, reported)]);
        t.sends(8 + reported..9 + reported);
    }
    t.acks(0, &[(1, 4)]);
    t.sends(0..1);
    t
}

//= docs/rfc/rfc2018.md#5-scoreboard
//= docs/rfc/rfc8985.md#6.2-dupthresh
#[test]
fn after_three_reported_segments_only_what_is_missing_goes_again() {
    let mut t = Trace::sending();
    t.quiet_until(200);
    // Segments 0 and 2 are lost.
    t.acks(0, &[(1, 2)]);
    t.sends(10..11);
    t.acks(0, &[(1, 2), (3, 4)]);
    t.sends(11..12);
    t.acks(0, &[(1, 2), (3, 5)]);
    t.sends(0..1);
    assert_eq!(t.congestion(), (5, Some(5)));
    // About half of what arrives lets as much go: the second hole first, then what is new.
    t.acks(0, &[(1, 2), (3, 6)]);
    t.quiet();
    t.acks(0, &[(1, 2), (3, 7)]);
    t.sends(2..3);
    t.acks(0, &[(1, 2), (3, 8)]);
    t.quiet();
    t.acks(0, &[(1, 2), (3, 9)]);
    t.quiet();
    t.acks(0, &[(1, 2), (3, 10)]);
    t.sends(12..13);
}

//= docs/rfc/rfc9937.md#6.4-end
#[test]
fn recovery_ends_when_everything_of_before_is_acknowledged() {
    let mut t = first_lost();
    t.quiet_until(300);
    t.acks(12, &[]);
    assert_eq!(t.congestion(), (5, Some(5)));
    t.sends(12..17);
    t.quiet_until(400);
    t.acks(17, &[]);
    t.sends(17..23);
}

//= docs/rfc/rfc8985.md#4-sent
//= docs/rfc/rfc8985.md#6.2-2-newest
#[test]
fn a_segment_lost_again_is_found_without_a_timeout() {
    let mut t = first_lost();
    let mut new = Vec::new();
    for reported in 5..=10 {
        t.acks(0, &[(1, reported)]);
        new.extend(std::iter::from_fn(|| t.take()).map(|seg| seg.seq));
    }
    assert!(new.iter().all(|seq| *seq >= at(12)), "{new:?}");
    // What was sent after segment 0 was repeated arrives, and that does not.
    t.quiet_until(300);
    t.acks(0, &[(1, 13)]);
    assert_eq!(t.take().map(|seg| seg.seq), Some(at(0)));
}

//= docs/rfc/rfc8985.md#6.2-1-min-rtt
//= docs/rfc/rfc8985.md#6.2-4-window
//= docs/rfc/rfc8985.md#6.2-5-lost
//= docs/rfc/rfc8985.md#8-timer
#[test]
fn one_reported_segment_waits_a_quarter_of_a_round_trip_for_the_missing_one() {
    let mut t = Trace::sending();
    t.quiet_until(200);
    t.acks(0, &[(1, 2)]);
    t.sends(10..11);
    // Sent at 100 ms; 100 ms of round trip and 25 ms of patience.
    t.sends_at(225, 0);
    assert_eq!(t.congestion(), (5, Some(5)));
}

//= docs/rfc/rfc2018.md#5-scoreboard
#[test]
fn reports_that_come_with_data_count() {
    let mut t = Trace::sending();
    t.quiet_until(200);
    let mut sent = Vec::new();
    for n in 0..3 {
        let sacks = vec![(at(1), at(2 + n))];
        t.peer_seg(&Seg { sacks, ..Seg::parse(&format!("PA {}:{} ack 1", 1 + 10 * n, 11 + 10 * n)) });
        sent.extend(std::iter::from_fn(|| t.take()).filter(|seg| !seg.payload.is_empty()).map(|seg| seg.seq));
    }
    assert_eq!(sent, [at(10), at(11), at(0)]);
}

//= docs/rfc/rfc8985.md#6.2-3-reordering
#[test]
fn reports_of_one_ack_are_no_sign_of_reordering_though_the_latest_comes_first() {
    let mut t = Trace::sending();
    t.quiet_until(200);
    // The ACK that reported segment 1 alone was lost.
    t.acks(0, &[(3, 4), (1, 2)]);
    t.sends(10..12);
    t.acks(0, &[(5, 6), (3, 4), (1, 2)]);
    t.sends(0..1);
}

#[test]
fn a_segment_that_was_only_overtaken_is_not_sent_again() {
    let mut t = Trace::sending();
    t.quiet_until(200);
    t.acks(0, &[(1, 2)]);
    t.sends(10..11);
    t.quiet_until(220);
    t.acks(2, &[]);
    assert_eq!(t.congestion().1, None);
    t.sends(11..14);
}

//= docs/rfc/rfc8985.md#6.2-3-reordering
//= docs/rfc/rfc8985.md#6.2-4-window
#[test]
fn a_path_that_reorders_is_given_time_whatever_was_reported() {
    let mut t = Trace::sending();
    t.quiet_until(200);
    t.acks(0, &[(1, 2)]);
    t.sends(10..11);
    t.quiet_until(210);
    t.acks(2, &[]);
    t.sends(11..14);
    for reported in 4..8 {
        t.acks(2, &[(3, reported)]);
        t.sends(10 + reported..11 + reported);
    }
    t.sends_at(235, 2);
}

//= docs/rfc/rfc8985.md#7.2-pto
//= docs/rfc/rfc8985.md#7.3-probe
#[test]
fn the_loss_of_the_last_segments_is_found_by_a_probe_after_two_round_trips() {
    let mut t = Trace::sending_only(3);
    t.stack_at(300, &format!("PA {}:{} ack 1", at(2), at(3)));
    // It tells of the two before it.
    t.quiet_until(400);
    t.acks(0, &[(2, 3)]);
    t.sends(0..1);
    t.quiet_until(500);
    t.acks(1, &[(2, 3)]);
    t.sends(1..2);
    t.acks(3, &[]);
    t.quiet();
}

//= docs/rfc/rfc8985.md#7.2-pto
#[test]
fn a_single_segment_is_probed_for_later_because_its_ack_may_be_held_back() {
    let config = TcpConfig { min_rto: ms(1000), ..with_sack() };
    let mut t = Trace::listen(config);
    t.peer("S 0:0 <mss 1460,sackOK>");
    let _ = t.take();
    t.quiet_until(100);
    t.peer(". 1:1 ack 1");
    t.accept();
    t.write(100);
    t.stack("PA 1:101 ack 1");
    t.stack_at(500, "PA 1:101 ack 1");
}

//= docs/rfc/rfc8985.md#7.3-probe
//= docs/rfc/rfc8985.md#7.3-one
//= docs/rfc/rfc8985.md#8-timer
//= docs/rfc/rfc8985.md#6.3-rto
//= docs/rfc/rfc8985.md#7.3-rto
#[test]
fn a_probe_sends_new_data_if_there_are_any_and_the_timeout_follows() {
    let mut t = Trace::sending();
    t.sends_at(300, 10);
    t.sends_at(600, 0);
}

//= docs/rfc/rfc8985.md#7.4-detect
#[test]
fn a_probe_that_repaired_the_only_loss_is_a_loss() {
    let mut t = Trace::sending_only(2);
    t.stack_at(300, &format!("PA {}:{} ack 1", at(1), at(2)));
    t.quiet_until(400);
    t.acks(2, &[]);
    assert_eq!(t.congestion().1, None, "it may have been the ACK of the first sending");
    t.write(10);
    t.stack(&format!("PA {}:{} ack 1", at(2), at(2) + 10));
    t.peer(&format!(". 1:1 ack {}", at(2) + 10));
    assert_eq!(t.congestion().1, Some(2), "had it arrived twice, the peer would have said so by now");
}

//= docs/rfc/rfc8985.md#7.4-detect
#[test]
fn a_probe_of_what_had_arrived_is_no_loss() {
    let mut t = Trace::sending_only(2);
    t.stack_at(300, &format!("PA {}:{} ack 1", at(1), at(2)));
    t.quiet_until(310);
    t.acks(2, &[]);
    t.acks(2, &[(1, 2)]);
    t.write(10);
    t.stack(&format!("PA {}:{} ack 1", at(2), at(2) + 10));
    t.peer(&format!(". 1:1 ack {}", at(2) + 10));
    assert_eq!(t.congestion().1, None);
}

//= docs/rfc/rfc2018.md#5-scoreboard
#[test]
fn after_a_timeout_what_the_peer_reported_is_not_sent_again() {
    let mut t = Trace::sending();
    t.quiet_until(200);
    t.acks(0, &[(5, 8)]);
    while t.take().is_some() {}
    while t.clock() < 3_000 {
        t.jump("the timeout");
        while let Some(seg) = t.take() {
            assert!(seg.seq < at(5) || seg.seq >= at(8), "segment at {} was reported", seg.seq);
        }
    }
}

//= docs/rfc/rfc2018.md#8-keep
//= docs/rfc/rfc2018.md#5-timeout-first
//= docs/rfc/rfc2018.md#5-timeout-forget
#[test]
fn a_peer_that_forgets_what_it_reported_gets_it_again() {
    let mut t = Trace::sending();
    t.quiet_until(200);
    t.acks(0, &[(1, 4)]);
    while t.take().is_some() {}
    // It acknowledges up to what it had reported, but not that.
    t.quiet_until(300);
    t.acks(1, &[]);
    while t.take().is_some() {}
    let mut again = Vec::new();
    while again.len() < 3 {
        t.jump("the timeout");
        assert!(t.clock() < 10_000, "{again:?}");
        while let Some(seg) = t.take() {
            if (at(1)..at(4)).contains(&seg.seq) {
                again.push(seg.seq);
                t.peer_more(&Seg::parse(&format!(". 1:1 ack {}", seg.seq + SIZE)));
            }
        }
    }
    assert_eq!(again, [at(1), at(2), at(3)]);
}

//= docs/rfc/rfc3042.md#2-sack
#[test]
fn reports_of_what_was_never_sent_or_is_acknowledged_change_nothing() {
    let mut t = Trace::sending();
    t.quiet_until(150);
    for block in [(at(12), at(20)), (at(5), at(4)), (at(3), at(40)), (at(4), at(4))] {
        t.peer_seg(&Seg { sacks: vec![block; 3], ..Seg::parse(". 1:1 ack 1") });
        t.quiet();
        t.acks(0, &[]);
        t.quiet();
    }
    assert_eq!(t.congestion().1, None);
}

fn with_timestamps() -> Trace {
    let config = TcpConfig { timestamps: true, min_rto: ms(200), ..with_sack() };
    let mut t = Trace::established_with(config, "S 0:0 <mss 1460,sackOK,ts 1 0>", 65_535);
    t.write(1_000_000);
    for _ in 0..10 {
        assert!(t.take().is_some());
    }
    t.quiet();
    t
}

/// Our clock when the trace was at `ms`.
fn clock_at(t: &Trace, ms: u64) -> u32 {
    (t.now.as_millis() - t.clock() + ms) as u32
}

/// The timestamp that an ACK echoes is that of the last segment in order: it tells nothing of what the ACK reports.
//= docs/rfc/rfc8985.md#6.2-2-newest
#[test]
fn a_repetition_that_is_reported_tells_of_another_that_was_lost_again() {
    let config = TcpConfig { timestamps: true, ..with_sack() };
    let mut t = Trace::listen(config);
    t.peer("S 0:0 <mss 1460,sackOK,ts 1 0>");
    let _ = t.take();
    t.quiet_until(100);
    let echo = clock_at(&t, 0);
    t.peer(&format!(". 1:1 ack 1 <ts 2 {echo}>"));
    t.accept();
    let begins = |n: u32| 1 + n * 1448;
    t.write(10 * 1448);
    assert_eq!(std::iter::from_fn(|| t.take()).count(), 10);
    let reports = |t: &mut Trace, first, end| {
        let sacks = vec![(begins(first), begins(end))];
        t.peer_seg(&Seg { sacks, ..Seg::parse(&format!(". 1:1 ack 1 <ts 3 {echo}>")) });
        std::iter::from_fn(|| t.take()).map(|seg| seg.seq).collect::<Vec<_>>()
    };
    // Segments 0 and 1 are lost, and 0 again; there is nothing new to send.
    t.quiet_until(200);
    let again = (3..11).flat_map(|end| reports(&mut t, 2, end)).collect::<Vec<_>>();
    assert_eq!(again, [begins(0), begins(1)]);
    t.quiet_until(300);
    assert_eq!(reports(&mut t, 1, 10), [begins(0)]);
}

//= docs/rfc/rfc3522.md#3.2-timestamp
//= docs/rfc/rfc3522.md#3.2-spurious
//= docs/rfc/rfc4015.md#3.4-restore
//= docs/rfc/rfc4015.md#3.3-no-resend
#[test]
fn a_needless_timeout_is_undone_by_the_timestamp_of_the_first_sending() {
    for (echo, undone) in [(0, true), (201, false)] {
        let mut t = with_timestamps();
        while t.connection().info().ssthresh.is_none() {
            t.jump("the timeout");
            while t.take().is_some() {}
        }
        let clock = t.clock() + 1;
        t.quiet_until(clock);
        let echo = clock_at(&t, if echo == 0 { 0 } else { clock - 1 });
        t.peer(&format!(". 1:1 ack 1449 <ts 2 {echo}>"));
        let info = t.connection().info();
        assert_eq!(info.ssthresh.is_none(), undone, "echo {echo}");
        let sent = std::iter::from_fn(|| t.take()).map(|seg| seg.seq).collect::<Vec<_>>();
        let repeated = sent.iter().any(|seq| *seq < 1 + 10 * 1448);
        assert_eq!(repeated, !undone, "{sent:?}");
    }
}

//= docs/rfc/rfc2883.md#5-sender
//= docs/rfc/rfc4015.md#3.4-restore
#[test]
fn a_needless_fast_retransmit_is_undone_by_a_report_of_the_duplicate() {
    let mut t = first_lost();
    assert_eq!(t.congestion(), (5, Some(5)));
    // The first sending was only late; its repetition arrives too.
    t.quiet_until(210);
    t.acks(12, &[]);
    while t.take().is_some() {}
    t.quiet_until(300);
    t.acks(12, &[(0, 1)]);
    assert_eq!(t.congestion().1, None);
}

//= docs/rfc/rfc2883.md#5-sender
#[test]
fn duplicates_of_what_recovery_did_not_send_again_undo_nothing() {
    // The network doubled a segment of before the loss, or one that had only been reported.
    for doubled in [0, 4] {
        let mut t = Trace::sending();
        t.quiet_until(200);
        t.acks(2, &[]);
        t.sends(10..14);
        for reported in 4..=6 {
            t.acks(2, &[(3, reported)]);
            while t.take().is_some() {}
        }
        let reduced = t.congestion();
        assert!(reduced.1.is_some());
        t.acks(2, &[(doubled, doubled + 1), (3, 6)]);
        while t.take().is_some() {}
        assert_eq!(t.congestion(), reduced, "segment {doubled} was doubled");
    }
}

//= docs/rfc/rfc8985.md#6.2-4-dsack
#[test]
fn after_a_needless_fast_retransmit_what_is_missing_is_given_more_time() {
    let mut t = first_lost();
    t.quiet_until(300);
    t.acks(12, &[]);
    t.sends(12..17);
    t.quiet_until(310);
    t.acks(12, &[(0, 1)]);
    while t.take().is_some() {}
    t.quiet_until(400);
    t.acks(12, &[(13, 14)]);
    while t.take().is_some() {}
    // Sent at 300 ms; 100 ms of round trip, and two quarters of it instead of one.
    t.sends_at(450, 12);
}

#[test]
fn no_more_segments_are_under_way_than_are_remembered() {
    let config = TcpConfig { nodelay: true, ..with_sack() };
    let mut t = Trace::established_with(config, "S 0:0 <mss 1460,sackOK>", 65_535);
    let mut sent = 0;
    for _ in 0..9_000 {
        t.write(1);
        sent += std::iter::from_fn(|| t.take()).count();
    }
    assert_eq!(sent, 8192);
    t.acks_bytes(100);
    assert!(std::iter::from_fn(|| t.take()).count() > 0);
}

#[test]
fn nagle_does_not_hold_a_tail_loss_probe_back() {
    let mut t = Trace::sending_only(2);
    t.write(10);
    t.quiet();
    // Two round trips of 100 ms after the last sending at 100 ms.
    t.stack_at(300, &format!("PA {}:{} ack 1", at(2), at(2) + 10));
}

//= docs/rfc/rfc8985.md#7.2-pto
#[test]
fn what_is_sent_meanwhile_puts_a_probe_off_but_not_the_timeout() {
    let mut t = Trace::sending_only(2);
    t.connection().set_nodelay(true);
    for n in 0..5 {
        t.quiet_until(150 + 50 * n);
        t.write(10);
        assert_eq!(t.take().map(|seg| seg.seq), Some(at(2) + 10 * n as u32));
    }
    // Each of those put the probe off by two round trips of 100 ms, the last one to 550 ms.
    t.sends_at(400, 0);
}

//= docs/rfc/rfc8985.md#7.2-pto
#[test]
fn a_probe_that_a_smaller_window_forbids_does_not_put_the_timeout_off() {
    let mut t = Trace::sending_only(2);
    t.quiet_until(150);
    t.peer(". 1:1 ack 1 win 128");
    // A probe is due at 350 ms, of what the window has no room for any more.
    t.stack_at(650, ". 1:129 ack 1");
}

#[test]
fn after_a_timeout_the_first_segment_goes_again_whatever_else_is_in_flight() {
    let mut t = Trace::sacking();
    t.connection().set_nodelay(true);
    t.write(100);
    t.stack("PA 1:101 ack 1");
    t.quiet_until(200);
    t.acks_bytes(100);
    t.write(100);
    t.stack("PA 101:201 ack 1");
    t.quiet_until(490);
    t.write(2 * SIZE as usize);
    t.stack(". 201:1661 ack 1");
    t.stack("PA 1661:3121 ack 1");
    // Those were sent 10 ms ago, and are no sign of the fate of the first.
    t.stack_at(500, ". 101:201 ack 1");
}

#[test]
fn without_a_measured_round_trip_two_reports_do_not_prove_a_loss_at_once() {
    let mut t = Trace::listen(with_sack());
    t.peer("S 0:0 <mss 1460,sackOK>");
    t.stack("SA 0:0 ack 1 <mss 1460,sackOK>");
    t.stack_at(1000, "SA 0:0 ack 1 <mss 1460,sackOK>");
    t.quiet_until(1050);
    t.peer(". 1:1 ack 1");
    t.accept();
    t.write(1_000_000);
    t.sends(0..10);
    t.quiet_until(1150);
    t.peer(&format!(". 1:1 ack 1 <sack {}:{}>", at(1), at(3)));
    let again = std::iter::from_fn(|| t.take()).filter(|seg| seg.seq == at(0)).count();
    assert_eq!(again, 0, "a quarter of the round trip is left for reordering");
}

#[test]
fn a_closed_window_is_probed_with_its_first_octet_although_the_peer_reports_to_have_it() {
    let mut t = Trace::sacking();
    t.peer(". 1:1 ack 1 win 0");
    t.write(100);
    t.stack_at(400, ". 1:2 ack 1");
    t.peer_seg(&Seg { sacks: vec![(1, 2)], window: 0, ..Seg::parse(". 1:1 ack 1") });
    t.stack_at(1000, ". 1:2 ack 1");
}
