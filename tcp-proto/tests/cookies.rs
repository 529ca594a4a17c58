//! SYN cookies (RFC 4987 section 3.6): what the SYN-ACK of a listener says that keeps nothing, and what becomes of the
//! ACKs that come back. The numbers themselves are `tcp_common::cookie`'s, and tested there.

mod common;

use std::net::SocketAddr;
use std::time::Duration;

use common::{Seg, Trace, ms, plain, stream};
use tcp_common::ConnectionKey;
use tcp_common::cookie::{CookieKeys, EPOCH_NS, epoch};
use tcp_common::gauge::HOLD_NS;
use tcp_proto::{StackConfig, State, SynCookies, TcpConfig};

const ALL_OPTIONS: &str = "S 0:0 <mss 1400,ws 7,sackOK,ts 100 0>";

/// Everything on, cookies as given.
fn all(syn_cookies: SynCookies) -> TcpConfig {
    let off = plain();
    TcpConfig { window_scale: true, timestamps: true, sack: true, ecn: true, syn_cookies, ..off }
}

fn bare(syn_cookies: SynCookies) -> TcpConfig {
    TcpConfig { syn_cookies, ..plain() }
}

/// A listener that has answered a plain SYN.
fn answered(config: TcpConfig) -> Trace {
    let mut t = Trace::listen(config).with_keys();
    let _ = t.answer_to("S 0:0 <mss 1460>");
    t
}

/// A stack that knows nothing yet beside a program that answered `syn`, and its numbers.
fn beside_a_program(config: TcpConfig, syn: &str) -> Trace {
    let mut program = Trace::listen(TcpConfig { syn_cookies: SynCookies::Always, ..config.clone() }).with_keys();
    let _ = program.answer_to(syn);
    let stack = StackConfig { program_answers: true, ..StackConfig::default() };
    let mut t = Trace::listen_with(stack, config).with_keys();
    t.our_isn = program.our_isn;
    t
}

trait Cookies: Sized {
    fn with_keys(self) -> Self;
    /// The peer's SYN; the stack's answer to it.
    fn answer_to(&mut self, syn: &str) -> Seg;
    /// The peer's segment after `answer`, with the echo that goes with it.
    fn follows(&mut self, answer: &Seg, text: &str);
    /// (sent, ok, bad).
    fn cookies(&self) -> [u64; 3];
    fn passes(&mut self, time: Duration);
}

impl Cookies for Trace {
    fn with_keys(mut self) -> Self {
        let mut keys = CookieKeys::default();
        let now = epoch(self.now.as_nanos());
        (now..now + 4).for_each(|epoch| keys.put(epoch, [epoch, 7]));
        self.stack.set_cookie_keys(keys);
        self
    }

    #[track_caller]
    fn answer_to(&mut self, syn: &str) -> Seg {
        self.peer(syn);
        self.take().expect("a SYN-ACK")
    }

    #[track_caller]
    fn follows(&mut self, answer: &Seg, text: &str) {
        let timestamps = answer.timestamps.map(|(value, echo)| (echo + 1, value));
        self.peer_seg(&Seg { timestamps, ..Seg::parse(text) });
    }

    fn cookies(&self) -> [u64; 3] {
        ["cookie_sent", "cookie_ok", "cookie_bad"].map(|name| self.figure(name))
    }

    fn passes(&mut self, time: Duration) {
        self.quiet_until(self.clock() + time.as_millis() as u64);
    }
}

// What the SYN-ACK says.

#[test]
fn a_cookie_says_what_the_syn_ack_of_a_kept_syn_says_and_leads_to_the_same_connection() {
    let syns = [ALL_OPTIONS, "SEW 0:0 <mss 1460,ws 14,ts 5 0>", "S 0:0 <mss 536,ts 9 0>", "S 0:0 <mss 1460>", "S 0:0"];
    let syns = syns.map(|syn| syn.replace("SEW", "S"));
    for (syn, ecn) in syns.iter().flat_map(|syn| [(syn, false), (syn, true)]) {
        for config in
            [all(SynCookies::Never), bare(SynCookies::Never), TcpConfig { sack: false, ..all(SynCookies::Never) }]
        {
            let outcome = |syn_cookies| {
                let mut t = Trace::listen(TcpConfig { syn_cookies, ..config.clone() }).with_keys();
                let mut seg = Seg::parse(syn);
                seg.flags |= if ecn && seg.timestamps.is_some() && config.timestamps { 0xc0 } else { 0 };
                t.peer_seg(&seg);
                let mut answer = t.take().expect("a SYN-ACK");
                assert_eq!(t.cookies()[0], u64::from(syn_cookies == SynCookies::Always));
                let stamp = answer.timestamps;
                t.follows(&answer, ". 1:1 ack 1 win 1000");
                t.accept();
                t.write(3000);
                let sent = t.take_marked();
                let info = t.connection().info();
                let agreed = (info.mss, info.snd_wnd, info.rcv_wnd, info.cwnd, info.state);
                // Options ride in the low bits of the timestamp, which is that of 20 ms ago.
                let late = stamp.map(|(ours, _)| (t.now.as_millis() as u32).wrapping_sub(ours));
                assert!(late.is_none_or(|late| late <= 20 + 64), "{late:?} ms late");
                answer.timestamps = answer.timestamps.map(|(_, echo)| (0, echo));
                (answer, sent.1, sent.0.split(" <").next().map(str::to_owned), agreed)
            };
            assert_eq!(outcome(SynCookies::Always), outcome(SynCookies::Never), "{syn}, ECN {ecn}");
        }
    }
}

#[test]
fn all_options_survive_in_the_timestamp() {
    let mut t = Trace::listen(all(SynCookies::Always)).with_keys();
    t.show_window = true;
    let answer = t.answer_to(ALL_OPTIONS);
    // 999,936 is the clock's 1,000,000 less 64; SACK and a scale of 7 are 23.
    assert_eq!(answer.text(true), "SA 0:0 ack 1 win 65535 <mss 1460,ws 5,sackOK,ts 999959 100>");
    assert_eq!(t.state(), State::CLOSED, "nothing is kept");
    t.follows(&answer, ". 1:1 ack 1 win 8");
    t.accept();
    assert_eq!((t.connection().info().snd_wnd, t.connection().info().mss), (8 << 7, 1400 - 12));
    assert_eq!(t.connection().info().srtt, None, "when the SYN-ACK left is not known");
    // A hole is reported: SACK is agreed.
    t.follows(&answer, "PA 11:21 ack 1");
    t.stack(". 1:1 ack 1 win 32768 <ts 1000000 101,sack 11:21>");
}

#[test]
fn without_timestamps_only_the_mss_is_agreed() {
    let mut t = Trace::listen(all(SynCookies::Always)).with_keys();
    let answer = t.answer_to("S 0:0 <mss 1400,ws 7,sackOK>");
    assert_eq!(answer.text(true), "SA 0:0 ack 1 win 65535 <mss 1460>");
    t.follows(&answer, ". 1:1 ack 1 win 1000");
    t.accept();
    assert_eq!((t.connection().info().snd_wnd, t.connection().info().mss), (1000, 1400));
}

// When there are cookies.

#[test]
fn a_full_syn_queue_overflows_into_cookies_and_room_ends_that() {
    let mut t = Trace::listen(TcpConfig { syn_backlog: 1, ..bare(SynCookies::Auto) }).with_keys();
    assert_eq!(t.answer_to("S 0:0 <mss 1460>").flags, 18);
    let listener = |t: &Trace| t.stack.listener(t.listener.unwrap()).unwrap();
    assert_eq!((t.cookies()[0], listener(&t).syn_queue, listener(&t).sends_cookies), (0, 1, true));
    t.speak_from(2);
    let answer = t.answer_to("S 0:0 <mss 1460>");
    assert_eq!((t.cookies()[0], listener(&t).syn_queue, listener(&t).syn_overflows), (1, 1, 0));
    t.follows(&answer, ". 1:1 ack 1");
    assert_eq!((t.cookies(), listener(&t).accept_queue, listener(&t).syn_queue_max), ([1, 1, 0], 1, 1));
    assert_eq!(listener(&t).cookie_overflows, 1);
    t.speak_from(4000);
    t.peer(". 1:1 ack 1");
    assert!(!listener(&t).sends_cookies);
    t.speak_from(3);
    let _kept = t.answer_to("S 0:0 <mss 1460>");
    assert_eq!((t.cookies()[0], listener(&t).syn_queue), (1, 1));
}

#[test]
fn the_program_is_told_before_cookies_leave_and_once_a_second() {
    let mut t = Trace::listen(TcpConfig { syn_backlog: 0, ..bare(SynCookies::Auto) }).with_keys();
    let local: SocketAddr = common::LOCAL.parse().unwrap();
    for (time, told) in [(0, 1), (500, 0), (500, 1)] {
        t.passes(ms(time));
        let _ = t.answer_to("S 0:0 <mss 1460>");
        let demands = t.stack.take_cookie_demands();
        assert_eq!(demands.len(), told);
        for demand in demands {
            // As long as the program does so after a flood that it has seen by itself.
            assert_eq!((demand.listener, demand.until.since(t.now)), (local, Duration::from_nanos(HOLD_NS)));
        }
    }
}

#[test]
fn never_means_that_a_full_queue_drops() {
    let mut t = Trace::listen(TcpConfig { syn_backlog: 0, ..bare(SynCookies::Never) }).with_keys();
    t.peer("S 0:0 <mss 1460>");
    t.quiet();
    assert_eq!((t.cookies(), t.drops("syn_queue_full")), ([0, 0, 0], 1));
    t.peer(". 1:1 ack 1");
    t.stack("R 1:1");
    assert_eq!(t.cookies()[2], 0, "nothing is checked");
}

#[test]
fn without_keys_syns_are_kept() {
    let mut t = Trace::listen(bare(SynCookies::Always));
    t.peer("S 0:0 <mss 1460>");
    t.stack("SA 0:0 ack 1 <mss 1460>");
    assert_eq!((t.state(), t.cookies()[0]), (State::SYN_RCVD, 0));
}

#[test]
fn a_flood_draws_no_more_cookies_at_once_than_replies_may_wait() {
    let mut t =
        Trace::listen_with(StackConfig { rst_rate: 1, ..StackConfig::default() }, bare(SynCookies::Always)).with_keys();
    (0..1000).for_each(|_| t.peer_more(&Seg::parse("S 0:0 <mss 1460>")));
    let sent = std::iter::from_fn(|| t.take()).count();
    assert_eq!((sent, t.drops("reply_queue_full"), t.drops("rate_limited")), (256, 1000 - 256, 0));
    assert_eq!(t.cookies()[0], 256);
    t.assert_empty();
}

#[test]
fn cookies_are_looked_for_as_long_as_one_may_come_back_and_no_longer() {
    let mut t = Trace::listen(TcpConfig { syn_backlog: 0, ..bare(SynCookies::Auto) }).with_keys();
    t.peer("PA 1:11 ack 1");
    t.stack("R 1:1");
    assert_eq!(t.cookies()[2], 0, "none was sent");
    let _ = t.answer_to("S 0:0 <mss 1460>");
    t.peer(". 1:1 ack 99");
    t.stack("R 99:99");
    assert_eq!(t.cookies(), [1, 0, 1]);
    t.passes(Duration::from_nanos(2 * EPOCH_NS) + ms(1));
    t.peer("PA 1:11 ack 99");
    t.stack("R 99:99");
    assert_eq!(t.cookies(), [1, 0, 1]);
}

#[test]
fn beside_a_program_that_answers_every_ack_may_bring_one_back() {
    let mut t = beside_a_program(bare(SynCookies::Auto), "S 0:0 <mss 1460>");
    t.peer(". 1:1 ack 1");
    assert_eq!((t.state(), t.cookies()), (State::ESTABLISHED, [0, 1, 0]));
}

#[test]
fn beside_a_program_that_answers_a_half_open_peer_is_reset_unless_a_cookie_came_back_of_late() {
    let mut t = beside_a_program(bare(SynCookies::Auto), "S 0:0 <mss 1460>");
    let cookie = t.our_isn;
    // What such a peer sends to us after we restarted, RFC 9293 figure 10.
    t.peer("PA 500:510 ack 900");
    t.stack("R 900:900");
    assert_eq!((t.drops("no_cookie"), t.cookies()), (0, [0, 0, 1]));
    t.peer(". 1:1 ack 1");
    t.speak_from(2);
    t.our_isn = cookie;
    t.peer("PA 500:510 ack 900");
    t.quiet();
    assert_eq!((t.drops("no_cookie"), t.cookies()), (1, [0, 1, 2]));
    t.passes(Duration::from_nanos(2 * EPOCH_NS) + ms(1));
    t.peer("PA 500:510 ack 900");
    t.stack("R 900:900");
}

#[test]
fn what_follows_a_cookie_that_was_lost_behind_the_program_is_not_reset() {
    let mut t = beside_a_program(bare(SynCookies::Auto), "S 0:0 <mss 1460>");
    // The program took the cookie in 1:11, which then found the ring full; nothing else told the stack of cookies.
    t.has_programs_entry = true;
    t.peer("PA 11:21 ack 1");
    t.peer("FA 21:21 ack 1");
    t.quiet();
    assert_eq!((t.drops("no_cookie"), t.cookies(), t.state()), (2, [0, 0, 2], State::CLOSED));
    t.peer("PA 1:11 ack 1");
    t.stack(". 1:1 ack 11");
    assert_eq!(t.state(), State::ESTABLISHED);
}

#[test]
fn resets_that_wait_for_a_word_of_the_programs_entries_are_no_more_than_replies_may_wait() {
    let mut t = beside_a_program(bare(SynCookies::Auto), "S 0:0 <mss 1460>");
    let data = t.frame(&Seg::parse("PA 11:21 ack 1"), &[]);
    (0..256 + 2).for_each(|_| t.stack.handle_frame(t.now, &data));
    assert_eq!(t.drops("reply_queue_full"), 2);
    t.stack.reset_strangers(t.now, |_| true);
    t.quiet();
    assert_eq!(t.drops("no_cookie"), 256);
}

// What comes back.

#[test]
fn the_ack_may_carry_data_and_more_may_follow_at_once() {
    let mut t = Trace::listen(all(SynCookies::Always)).with_keys();
    let answer = t.answer_to(ALL_OPTIONS);
    // A ClientHello of 1.8 KB.
    t.follows(&answer, "A 1:1389 ack 1");
    t.peer_more(&Seg { timestamps: Some((101, answer.timestamps.unwrap().0)), ..Seg::parse("PA 1389:1801 ack 1") });
    t.accept();
    t.stack(". 1:1 ack 1801 <ts 1000000 101>");
    assert_eq!((t.read(4000), t.state(), t.cookies()), (1800, State::ESTABLISHED, [1, 1, 0]));
}

#[test]
fn with_the_bare_ack_lost_the_first_data_bring_the_cookie_back_and_later_data_wait_for_them() {
    let mut t = answered(bare(SynCookies::Always));
    t.peer("PA 11:21 ack 1");
    t.quiet();
    t.peer("FA 21:21 ack 1");
    t.quiet();
    assert_eq!((t.drops("no_cookie"), t.cookies(), t.state()), (2, [1, 0, 2], State::CLOSED));
    t.peer("PA 1:11 ack 1");
    t.stack(". 1:1 ack 11");
    assert_eq!(t.state(), State::ESTABLISHED);
}

#[test]
fn a_fin_may_come_with_the_cookie() {
    let mut t = answered(bare(SynCookies::Always));
    t.peer("FPA 1:11 ack 1");
    t.stack(". 1:1 ack 12");
    assert_eq!(t.state(), State::CLOSE_WAIT);
    t.accept();
    assert_eq!(t.read(100), 10);
    assert!(t.at_end());
    t.close();
    t.stack("FA 1:1 ack 12");
    t.peer(". 12:12 ack 2");
    t.assert_empty();
}

#[test]
fn a_cookie_is_good_for_an_epoch_after_its_own_and_then_draws_a_reset() {
    let back_after = |epochs: u32| {
        let mut t = answered(bare(SynCookies::Always));
        t.passes(Duration::from_nanos(EPOCH_NS) * epochs);
        t.peer(". 1:1 ack 1");
        (t.take().map(|seg| seg.text(false)), t.state(), t.cookies())
    };
    assert_eq!(back_after(1), (None, State::ESTABLISHED, [1, 1, 0]));
    assert_eq!(back_after(2), (Some("R 1:1".into()), State::CLOSED, [1, 0, 1]));
}

#[test]
fn a_cookie_that_begins_an_epoch_is_good_for_whose_clock_is_still_in_the_last() {
    let at = |ms: u64| {
        let mut t = Trace::listen(all(SynCookies::Always)).with_keys();
        let begins = (epoch(t.now.as_nanos()) + 1) * EPOCH_NS / 1_000_000 + 1;
        let wait = begins - t.now.as_millis() + ms - 20;
        t.passes(Duration::from_millis(wait));
        t
    };
    for ahead in [0, 1, 19] {
        let (mut stack, mut program) = (at(20 + ahead), at(ahead));
        assert_eq!(epoch(program.now.as_nanos()) + 1, epoch(stack.now.as_nanos()));
        let answer = stack.answer_to(ALL_OPTIONS);
        program.our_isn = stack.our_isn;
        program.follows(&answer, ". 1:1 ack 1");
        assert_eq!((program.state(), program.cookies()), (State::ESTABLISHED, [0, 1, 0]), "{ahead} ms");
        stack.follows(&answer, ". 1:1 ack 1");
        assert_eq!(stack.state(), State::ESTABLISHED, "{ahead} ms");
    }
}

#[test]
fn a_silent_listener_resets_no_stranger_but_takes_cookies() {
    let mut t = answered(TcpConfig { reset_unknown: false, ..bare(SynCookies::Always) });
    t.peer(". 1:1 ack 2");
    t.quiet();
    t.peer(". 1:1 ack 1");
    assert_eq!((t.state(), t.cookies()), (State::ESTABLISHED, [1, 1, 1]));
}

#[test]
fn a_syn_ack_or_a_reset_brings_no_cookie_back() {
    let mut t = answered(bare(SynCookies::Always));
    t.peer("SA 1:1 ack 1");
    t.stack("R 1:1");
    t.peer("RA 1:1 ack 1");
    t.quiet();
    assert_eq!((t.state(), t.cookies()), (State::CLOSED, [1, 0, 0]));
}

#[test]
fn the_answer_to_a_cookie_establishes_although_a_copy_of_the_syn_was_kept_meanwhile() {
    let config = TcpConfig { syn_backlog: 1, ..bare(SynCookies::Auto) };
    let mut t = Trace::listen(config).with_keys();
    t.speak_from(2);
    let _ = t.answer_to("S 0:0 <mss 1460>");
    t.speak_from(1);
    let cookie = t.answer_to("S 0:0 <mss 1460>");
    assert_eq!(t.cookies(), [1, 0, 0]);
    let isn = t.our_isn;
    t.speak_from(2);
    t.peer("R 1:1");
    t.speak_from(1);
    let kept = t.answer_to("S 0:0 <mss 1460>");
    assert_eq!((t.cookies()[0], t.state()), (1, State::SYN_RCVD));
    assert_ne!(isn, t.our_isn);
    // The peer took the first answer; the second draws this, too.
    t.our_isn = isn;
    t.follows(&cookie, ". 1:1 ack 1");
    t.follows(&kept, ". 1:1 ack 1");
    let info = t.stack.listener(t.listener.unwrap()).unwrap();
    assert_eq!((t.state(), t.cookies(), info.syn_queue), (State::ESTABLISHED, [1, 1, 0], 0));
    t.accept();
    t.peer("PA 1:11 ack 1");
    t.stack(". 1:1 ack 11");
    t.write(10);
    t.stack("PA 1:11 ack 11");
}

#[test]
fn an_ack_of_neither_the_cookie_nor_the_syn_that_was_kept_is_refused() {
    let mut t = beside_a_program(bare(SynCookies::Auto), "S 0:0 <mss 1460>");
    let _kept = t.answer_to("S 0:0 <mss 1460>");
    t.peer(". 1:1 ack 9");
    t.stack("R 9:9");
    assert_eq!((t.state(), t.cookies()), (State::SYN_RCVD, [0, 0, 0]));
    t.peer(". 1:1 ack 1");
    assert_eq!((t.state(), t.cookies()), (State::ESTABLISHED, [0, 0, 0]));
}

#[test]
fn with_a_full_accept_queue_a_cookie_replaces_nothing() {
    let mut t = beside_a_program(TcpConfig { backlog: 0, ..bare(SynCookies::Auto) }, "S 0:0 <mss 1460>");
    let cookie = t.our_isn;
    let _kept = t.answer_to("S 0:0 <mss 1460>");
    t.our_isn = cookie;
    t.peer(". 1:1 ack 1");
    t.quiet();
    assert_eq!((t.state(), t.drops("accept_queue_full")), (State::SYN_RCVD, 1));
}

// Limits.

#[test]
fn with_a_full_accept_queue_the_ack_is_dropped_and_the_cookie_stays_good() {
    let mut t = answered(TcpConfig { backlog: 1, ..bare(SynCookies::Always) });
    t.peer(". 1:1 ack 1");
    t.speak_from(2);
    let _ = t.answer_to("S 0:0 <mss 1460>");
    t.peer("PA 1:11 ack 1");
    t.quiet();
    let info = t.stack.listener(t.listener.unwrap()).unwrap();
    assert_eq!((info.accept_queue, info.accept_overflows, t.drops("accept_queue_full")), (1, 1, 1));
    t.accept();
    t.peer("PA 1:11 ack 1");
    t.stack(". 1:1 ack 11");
    t.accept();
    assert_eq!((t.read(100), t.cookies()), (10, [2, 3, 0]));
}

#[test]
fn with_too_many_connections_the_ack_is_dropped() {
    let config = StackConfig { max_connections: 1, ..StackConfig::default() };
    let mut t = Trace::listen_with(config, bare(SynCookies::Always)).with_keys();
    let _ = t.answer_to("S 0:0 <mss 1460>");
    t.peer(". 1:1 ack 1");
    t.speak_from(2);
    let _ = t.answer_to("S 0:0 <mss 1460>");
    t.peer(". 1:1 ack 1");
    t.quiet();
    assert_eq!((t.drops("too_many_connections"), t.stack.count(State::ESTABLISHED)), (1, 1));
}

#[test]
fn a_program_that_made_an_entry_for_a_cookie_is_told_when_it_is_refused() {
    let local: SocketAddr = common::LOCAL.parse().unwrap();
    let key = ConnectionKey::new(local, common::REMOTE.parse().unwrap());
    let refused = |stack: StackConfig, backlog: u32| {
        let config = TcpConfig { backlog, ..bare(SynCookies::Always) };
        let mut t = Trace::listen_with(stack, config).with_keys();
        let _ = t.answer_to("S 0:0 <mss 1460>");
        t.peer(". 1:1 ack 1");
        t.quiet();
        assert_eq!((t.state(), t.cookies()[1]), (State::CLOSED, 1));
        t.stack.take_table_removals()
    };
    let answers = StackConfig { program_answers: true, ..StackConfig::default() };
    assert_eq!(refused(answers.clone(), 0), [key], "the accept queue is full");
    assert_eq!(refused(StackConfig { max_connections: 0, ..answers }, 1), [key], "too many connections");
    assert_eq!(refused(StackConfig::default(), 0), [], "nobody made one");
}

#[test]
fn the_entry_of_a_cookie_that_is_refused_and_then_taken_stays() {
    let mut t = beside_a_program(TcpConfig { backlog: 1, ..bare(SynCookies::Auto) }, "S 0:0 <mss 1460>");
    let cookie = t.our_isn;
    t.speak_from(2);
    let _ = t.answer_to("S 0:0 <mss 1460>");
    t.peer(". 1:1 ack 1");
    t.speak_from(4000);
    t.our_isn = cookie;
    t.peer("PA 1:11 ack 1");
    t.accept();
    t.peer_more(&Seg::parse("PA 1:11 ack 1"));
    assert_eq!(t.stack.take_table_removals(), []);
    t.stack(". 1:1 ack 11");
}

#[test]
fn a_repeated_ack_or_syn_finds_the_connection() {
    let mut t = answered(bare(SynCookies::Always));
    t.peer(". 1:1 ack 1");
    t.peer(". 1:1 ack 1");
    t.quiet();
    // The SYN was on a longer way: a challenge, and no second cookie.
    t.peer("S 0:0 <mss 1460>");
    t.stack(". 1:1 ack 1");
    assert_eq!((t.state(), t.cookies()), (State::ESTABLISHED, [1, 1, 0]));
}

#[test]
fn a_connection_in_time_wait_is_succeeded_by_one_whose_numbers_are_above_its_own() {
    let mut t = answered(bare(SynCookies::Always));
    t.peer(". 1:1 ack 1");
    t.accept();
    t.close();
    t.stack("FA 1:1 ack 1");
    t.peer("FA 1:1 ack 2");
    t.stack(". 2:2 ack 2");
    assert_eq!(t.state(), State::TIME_WAIT);
    let last = t.our_isn;
    t.peer("S 1000:1000 <mss 1460>");
    let answer = t.take().expect("a SYN-ACK");
    assert_eq!((answer.flags, t.state(), t.cookies()[0]), (18, State::SYN_RCVD, 1));
    assert!(t.our_isn.wrapping_sub(last) < 1 << 31, "above");
}

#[test]
fn a_full_syn_queue_keeps_nobody_from_succeeding_a_connection_in_time_wait() {
    for syn_cookies in [SynCookies::Auto, SynCookies::Never] {
        let mut t = answered(TcpConfig { syn_backlog: 1, ..bare(syn_cookies) });
        t.peer(". 1:1 ack 1");
        t.accept();
        t.close();
        t.stack("FA 1:1 ack 1");
        t.peer("FA 1:1 ack 2");
        t.stack(". 2:2 ack 2");
        t.speak_from(2);
        let _ = t.answer_to("S 0:0 <mss 1460>");
        t.speak_from(4000);
        t.peer("S 1000:1000 <mss 1460>");
        assert_eq!(t.take().expect("a SYN-ACK").flags, 18);
        assert_eq!((t.stack.count(State::SYN_RCVD), t.cookies()[0]), (2, 0));
        t.peer(". 1001:1001 ack 1");
        assert_eq!((t.stack.count(State::ESTABLISHED), t.stack.count(State::TIME_WAIT)), (1, 0));
        assert_eq!(t.stack.listener(t.listener.unwrap()).unwrap().syn_overflows, 0);
    }
}

#[test]
fn the_peers_stream_is_whole_whatever_the_cookie_came_with() {
    let mut t = answered(bare(SynCookies::Always));
    t.peer("A 1:1461 ack 1");
    t.stack(". 1:1 ack 1461");
    t.peer("PA 1461:2001 ack 1");
    t.stack(". 1:1 ack 2001");
    t.accept();
    assert_eq!(t.read(4000), stream(1, 2000).len());
}
