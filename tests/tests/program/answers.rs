//! tcp-common's table of answers by BPF_PROG_TEST_RUN: the same frames as on the host draw the same frames, byte for
//! byte but for what the kernel's clock enters. Leaves out answers without room: the buffers of these runs have room.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use rustix::thread::{CpuSet, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};
use tcp_common::ConnectionKey;
use tcp_common::cases::answers::{AnswerCase, Done, answer_cases, handle};
use tcp_common::cases::frames::SegmentFrame;
use tcp_common::cases::world::{LISTENER, LOCAL_V4, MemoryMaps, OUR_MAC, PEER_V4, World};
use tcp_common::cookie::{CookieKeys, EPOCH_NS, Offer, epoch, issue};
use tcp_common::layout::{ListenerValue, SYNS_WITH_DATA, TIME_WAIT_ACKS};
use tcp_common::rate::Rate;
use tcp_proto::{Instant, ListenOptions, Stack, StackConfig, SynCookies, TcpConfig};
use xtcp::daemon::KeyRing;

use crate::bench::Bench;
use crate::decision::{expected_action, expected_moves, moved};

/// The program's clock stops between timer ticks: it is so late at most, ns.
const TICK_NS: u64 = 10_000_000;

fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// The limits are each CPU's own.
fn stay_on_one_cpu() {
    let mut first = CpuSet::new();
    first.set(0);
    sched_setaffinity(None, &first).unwrap();
}

#[test]
fn the_loaded_program_answers_every_case_as_the_table_says() {
    stay_on_one_cpu();
    let (mut shared, count) = (registered(), answer_cases(0x10_0000_0000_0000).len());
    for number in 0..count {
        // Made anew for each, because cookies and timestamps have a time; and again if an epoch began meanwhile.
        while !is_right(&mut shared, number) {}
    }
    assert!(count > 100, "only {count} cases ran");
}

fn registered() -> Bench {
    let mut bench = Bench::new();
    bench.register(0);
    bench
}

/// `false`: the case has to be tried again.
fn is_right(shared: &mut Bench, number: usize) -> bool {
    let start = now_ns();
    let case = answer_cases(start).swap_remove(number);
    let maps = MemoryMaps::new(&case.world);
    case.before.iter().for_each(|frame| drop(handle(&maps, frame)));
    let done = handle(&maps, &case.frame);
    if case.is_about_a_fast_limit() {
        return true; // tests of their own are below
    }
    let mut own = case.leaves_traces().then(registered);
    let bench = own.as_mut().unwrap_or(shared);
    bench.enter(&case.world);
    for frame in &case.before {
        bench.run(frame, 1);
    }
    let before = bench.program.counters().unwrap();
    let (action, reply) = bench.answer(&case.frame);
    let after = bench.program.counters().unwrap();
    let times = start.saturating_sub(TICK_NS)..=now_ns();
    if epoch(*times.start()) != epoch(*times.end()) {
        return false;
    }
    assert_eq!(action, expected_action(done.verdict), "action: {}", case.name);
    assert_eq!(moved(&before, &after), expected_moves(done.class, done.verdict), "counters: {}", case.name);
    match &case.says {
        Some(says) => says.judge(case.name, &case.world, &reply, &times),
        // A hint for the worker may come before it.
        None => assert!(reply.ends_with(&case.frame), "{}: nothing is written to what is not answered", case.name),
    }
    check_entry(bench, &case, &maps, &done, &times);
    true
}

/// What the program wrote to CONNECTIONS.
fn check_entry(bench: &Bench, case: &AnswerCase, maps: &MemoryMaps<'_>, done: &Done, times: &RangeInclusive<u64>) {
    let entry = |key: &ConnectionKey| bench.maps().connection(key.local(), key.remote()).expect("an entry");
    let name = case.name;
    for (key, value) in maps.inserted() {
        let entry = entry(&key);
        assert_eq!(entry.state(), "SYN_RCVD", "{name}");
        let numbers = ["flags", "queue", "snd_nxt", "rcv_nxt", "deadline_ns"].map(|field| entry.number(field));
        let expected = [value.flags.into(), value.queue.into(), value.snd_nxt.into(), value.rcv_nxt.into(), 0];
        assert_eq!(numbers, expected, "{name}");
        assert!(times.contains(&entry.number("since_ns")), "{name}");
    }
    for key in &case.world.connections {
        let deadline = case.time_wait_ms.map_or(0, |millis| u64::from(millis) * 1_000_000);
        let of_frame = maps.deadlines().iter().any(|(moved, _)| moved == key);
        let actual = entry(key).number("deadline_ns");
        match of_frame {
            true => assert!(times.contains(&(actual - deadline)), "{name}: {done:?}"),
            false => assert_eq!(actual, 0, "{name}"),
        }
    }
}

/// Runs a case's frame so often; how many milliseconds that took, with the clock's lag, and what was counted.
fn repeat(bench: &mut Bench, name: &str, times: usize) -> (u64, Vec<(&'static str, u64)>) {
    let case = answer_cases(now_ns()).into_iter().find(|case| case.name == name).expect("there is such a case");
    bench.enter(&case.world);
    let (before, start) = (bench.program.counters().unwrap(), now_ns());
    for _ in 0..times {
        bench.run(&case.frame, 1);
    }
    let millis = (now_ns() - start + TICK_NS) / 1_000_000;
    (millis, moved(&before, &bench.program.counters().unwrap()))
}

/// So many passed at once, one for each millisecond, and the others were dropped.
fn assert_limited(millis: u64, counted: &[(&str, u64)], passed: &str, dropped: &str, rate: Rate) {
    let count = |wanted| counted.iter().find(|(name, _)| *name == wanted).map_or(0, |(_, count)| *count);
    let (passed, burst) = (count(passed), u64::from(rate.burst));
    assert_eq!(passed + count(dropped), 5000, "{counted:?}");
    assert!((burst..=burst + millis + 1).contains(&passed), "{passed} in {millis} ms");
}

#[test]
fn old_segments_to_time_wait_are_limited_and_repeated_fins_are_not() {
    stay_on_one_cpu();
    let mut bench = registered();
    let (millis, counted) = repeat(&mut bench, "an old segment is acknowledged", 5000);
    assert_limited(millis, &counted, "answer_time_wait", "time_wait", TIME_WAIT_ACKS);
    let (_, counted) = repeat(&mut bench, "a repeated FIN is acknowledged and begins TIME_WAIT anew", 5000);
    assert!(counted.contains(&("answer_time_wait", 5000)), "{counted:?}");
}

#[test]
fn syns_with_payload_are_limited_while_cookies_are_sent() {
    stay_on_one_cpu();
    let (millis, counted) = repeat(&mut registered(), "a SYN with payload is left to the daemon", 5000);
    assert_limited(millis, &counted, "steer_syn", "syn_data", SYNS_WITH_DATA);
}

/// Where cookies are sent, and who brings one back that was made so many epochs ago.
const AT: SocketAddr = SocketAddr::new(LOCAL_V4, 7);
const RETURNS: [u16; 3] = [60_000, 60_001, 60_002];

/// The ACK that brings a cookie back which was issued at `then_ns` with the keys of that time.
fn ack_of_cookie(keys: &CookieKeys, then_ns: u64, port: u16) -> Vec<u8> {
    const PEER_ISN: u32 = 1000;
    let offer = Offer { mss: 1460, window_scale: None, sack: false, ecn: false, timestamps: false };
    let peer = SocketAddr::new(PEER_V4, port);
    let cookie = issue(keys, then_ns, &ConnectionKey::new(AT, peer), PEER_ISN, &offer).expect("there is a key");
    SegmentFrame::between(peer, AT, "A").numbered(PEER_ISN + 1, cookie.isn.wrapping_add(1)).build()
}

/// The stack of a worker that has these keys.
fn stack_with(keys: CookieKeys, now_ns: u64) -> Stack {
    let config = StackConfig { mac: OUR_MAC, ..StackConfig::default() };
    let mut stack = Stack::new(config, [0; 32], Instant::from_nanos(now_ns));
    stack.set_cookie_keys(keys);
    let tcp = TcpConfig { syn_cookies: SynCookies::Always, ..TcpConfig::default() };
    stack.listen(AT, ListenOptions { tcp: Arc::new(tcp) }).expect("a listener");
    stack
}

fn figure(stack: &Stack, name: &str) -> u64 {
    stack.figures().into_iter().find(|(known, _)| *known == name).expect("there is such a figure").1
}

#[test]
fn a_cookie_is_good_until_the_daemon_has_renewed_its_keys_twice_since() {
    stay_on_one_cpu();
    let mut bench = registered();
    // Again if an epoch began meanwhile.
    while !is_good_for_one_renewal(&mut bench) {}
}

/// `false`: it has to be tried again.
fn is_good_for_one_renewal(bench: &mut Bench) -> bool {
    let now = now_ns() - TICK_NS;
    let times = [now - 2 * EPOCH_NS, now - EPOCH_NS, now];
    let listener = ListenerValue { syn_cookies: ListenerValue::COOKIES_ALWAYS, ..LISTENER };
    bench.enter(&World { listener, ..World::that_answers(now) });
    let mut ring = KeyRing::new(times[0]).unwrap();
    let mut acks = Vec::new();
    for (time, port) in times.into_iter().zip(RETURNS) {
        assert_eq!(ring.renew(time).unwrap(), time != times[0]);
        acks.push(ack_of_cookie(&ring.keys(), time, port));
    }
    bench.program.set_cookie_keys(&ring.keys()).unwrap();
    let mut stack = stack_with(ring.keys(), now);
    let before = bench.program.counters().unwrap();
    for ack in &acks {
        bench.run(ack, 1);
        stack.handle_frame(Instant::from_nanos(now), ack);
    }
    let after = bench.program.counters().unwrap();
    if epoch(now) != epoch(now_ns()) {
        return false;
    }
    assert_eq!(moved(&before, &after), [("steer_cookie", 2), ("answer_bad_cookie", 1), ("ack", 3)]);
    let accepted = RETURNS.map(|port| bench.maps().connection(AT, SocketAddr::new(PEER_V4, port)).is_some());
    assert_eq!(accepted, [false, true, true], "the last two");
    assert_eq!((figure(&stack, "cookie_bad"), figure(&stack, "cookie_ok")), (1, 2));
    true
}
