//! How much of the congestion window was used, as it shows in what follows: ACKs that arrive together, losses at the end
//! of a burst, an idle time (RFC 5681 sections 3.1 and 4.1, RFC 7661).

mod common;

use common::{Seg, Trace, plain};
use tcp_proto::TcpConfig;

/// Segments of every trace here carry so many bytes.
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
    fn begun(config: TcpConfig) -> Trace {
        let mut t = Trace::listen(config);
        t.peer("S 0:0 <mss 1460,sackOK>");
        assert!(t.take().is_some(), "a SYN-ACK");
        t.quiet_until(100);
        t.peer(". 1:1 ack 1");
        t.accept();
        t
    }

    /// The same with ten segments sent that are all there is.
    fn ten_sent(config: TcpConfig) -> Trace {
        let mut t = Trace::begun(config);
        t.write(10 * SIZE as usize);
        assert_eq!(t.sent(), (0..10).map(at).collect::<Vec<_>>());
        t
    }

    /// Where the segments begin that the stack sends now.
    fn sent(&mut self) -> Vec<u32> {
        std::iter::from_fn(|| self.take()).map(|seg| seg.seq).collect()
    }

    /// The same once a timer lets something go.
    fn sent_later(&mut self) -> Vec<u32> {
        loop {
            self.jump("a timer lets something go");
            let sent = self.sent();
            if !sent.is_empty() {
                return sent;
            }
        }
    }

    /// The peer acknowledges everything before segment `n` and reports segments (from, to before); what the stack wants to
    /// send stays queued.
    fn acks(&mut self, n: u32, reported: &[(u32, u32)]) {
        let sacks = reported.iter().map(|(first, end)| (at(*first), at(*end))).collect();
        self.peer_more(&Seg { sacks, ..Seg::parse(&format!(". 1:1 ack {}", at(n))) });
    }

    /// Congestion window and threshold, in segments.
    fn congestion(&mut self) -> (f64, Option<f64>) {
        let info = self.connection().info();
        let segments = |bytes: u32| f64::from(bytes) / f64::from(SIZE);
        (segments(info.cwnd), info.ssthresh.map(segments))
    }
}

#[test]
fn acks_that_arrive_together_open_the_window_as_far_as_one_by_one() {
    for config in [plain(), with_sack()] {
        let mut t = Trace::begun(config);
        t.write(1_000_000);
        assert_eq!(t.sent().len(), 10);
        t.quiet_until(200);
        for acked in [2, 4, 6, 8, 10] {
            t.acks(acked, &[]);
        }
        assert_eq!((t.congestion().0, t.sent().len()), (20.0, 20));
    }
}

//= docs/rfc/rfc5681.md#3.1-ssthresh
#[test]
fn a_loss_near_the_end_of_a_burst_leaves_half_of_what_the_burst_was() {
    let mut t = Trace::ten_sent(with_sack());
    t.quiet_until(200);
    t.acks(7, &[]);
    t.acks(7, &[(8, 10)]);
    assert_eq!(t.sent_later(), [at(7)]);
    assert_eq!(t.congestion(), (5.0, Some(5.0)));
}

//= docs/rfc/rfc5681.md#3.1-ssthresh
#[test]
fn a_timeout_of_the_last_segment_of_a_burst_leaves_half_of_what_the_burst_was() {
    let mut t = Trace::ten_sent(plain());
    t.quiet_until(200);
    t.acks(9, &[]);
    assert_eq!(t.sent_later(), [at(9)]);
    assert_eq!(t.congestion(), (1.0, Some(5.0)));
}

//= docs/rfc/rfc8985.md#7.4-detect
#[test]
fn a_probe_that_repaired_the_end_of_a_burst_leaves_half_of_what_the_burst_was() {
    let mut t = Trace::ten_sent(with_sack());
    t.quiet_until(200);
    t.acks(8, &[]);
    assert_eq!(t.sent_later(), [at(9)], "a probe");
    assert_eq!(t.figure("tail_loss_probe"), 1);
    let repaired = t.clock() + 100;
    t.quiet_until(repaired);
    t.acks(10, &[]);
    t.write(SIZE as usize);
    assert_eq!(t.sent(), [at(10)]);
    t.acks(11, &[]);
    assert_eq!(t.congestion(), (5.0, Some(5.0)));
}

//= docs/rfc/rfc5681.md#4.1-idle
#[test]
fn after_an_idle_time_the_threshold_is_three_quarters_of_what_the_window_was() {
    let mut t = Trace::begun(plain());
    t.write(40 * SIZE as usize);
    assert_eq!(t.sent().len(), 10);
    t.quiet_until(200);
    for _ in 0..3 {
        t.acks(0, &[]);
    }
    assert_eq!(t.sent(), [at(0)]);
    t.acks(10, &[]);
    assert_eq!(t.congestion().1, Some(5.0));
    let mut acked = 10;
    while acked < 40 {
        acked += t.sent().len() as u32;
        t.acks(acked, &[]);
    }
    let before = t.congestion();
    assert!(before.0 >= 8.0 && before.1 == Some(5.0), "{before:?}");
    t.quiet_until(5_000);
    t.write(1);
    assert_eq!(t.sent().len(), 1);
    let threshold = t.congestion().1.expect("a threshold");
    assert!((threshold - before.0 * 0.75).abs() < 0.01, "{threshold} after {before:?}");
}

#[test]
fn what_was_used_long_ago_does_not_count() {
    let mut t = Trace::ten_sent(with_sack());
    t.quiet_until(200);
    t.acks(10, &[]);
    // A segment at a time: of two such bursts the first ends the time that counts.
    for n in 10..12 {
        t.write(SIZE as usize);
        assert_eq!(t.sent(), [at(n)]);
        t.acks(n + 1, &[]);
    }
    let window = t.congestion().0;
    t.write(3 * SIZE as usize);
    assert_eq!(t.sent().len(), 3);
    t.acks(12, &[(13, 15)]);
    assert_eq!(t.sent_later(), [at(12)]);
    assert_eq!(t.congestion(), (2.0, Some(2.0)), "of {window}");
}
