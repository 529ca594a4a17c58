//! Strangers: who does not see a connection and guesses (RFC 5961, RFC 6528), who is on the link and forges addresses,
//! and frames that no honest peer sends. Whatever they do, the stream arrives whole, and what we send stays little.

mod common;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use common::crowd::{Crowd, PEER_ISN};
use common::{PEER_MAC, REMOTE, Seg, Trace, frame, ms, ones_complement, plain, stream};
use tcp_proto::{
    CloseReason, ConnectError, ConnectOptions, Event, Instant, LinkAddress, ListenOptions, Stack, StackConfig, State,
    TcpConfig,
};

/// A source of chance with one seed.
struct Chance(u32);

impl Chance {
    fn number(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0
    }
}

// Blind attackers.

/// Genuine segments both ways, and before each of them what `forge` makes of a count. The attacker knows the addresses
/// and ports and nothing else. How often the stack answered the forged ones.
fn stream_under(rounds: u32, per_round: u32, mut forge: impl FnMut(u32) -> Seg) -> u32 {
    let mut t = Trace::established(plain());
    let mut answers = 0;
    for round in 0..rounds {
        for count in 0..per_round {
            t.peer_more(&forge(round * per_round + count));
            answers += std::iter::from_fn(|| t.take()).count() as u32;
        }
        let (seq, ack) = (1 + round * 10, 1 + round * 10);
        t.peer(&format!("PA {seq}:{} ack {ack}", seq + 10));
        t.stack(&format!(". {ack}:{ack} ack {}", seq + 10));
        assert_eq!(t.read(100), 10, "round {round}");
        t.write(10);
        t.stack(&format!("PA {ack}:{} ack {}", ack + 10, seq + 10));
        t.peer(&format!(". {}:{} ack {}", seq + 10, seq + 10, ack + 10));
        t.now += ms(10);
        t.stack.handle_timeout(t.now);
    }
    assert_eq!(t.state(), State::ESTABLISHED);
    answers
}

#[test]
fn resets_and_syns_in_every_window_of_the_number_space_do_not_harm_a_stream() {
    for kinds in [["R", "RA"], ["S", "SA"]] {
        // A window is 65,535 long: one number in each. That it is exactly the next one is left to chance.
        let forge = |count: u32| Seg {
            seq: count.wrapping_mul(65_000).wrapping_add(777),
            ack: count.wrapping_mul(2_654_435_761),
            ..Seg::parse(&format!("{} 0:0", kinds[count as usize % 2]))
        };
        let answers = stream_under(100, 670, forge);
        // A second has passed: answers are half a second apart.
        assert!((1..=4).contains(&answers), "{kinds:?}: {answers} answers to 67,000 forged segments");
    }
}

#[test]
fn text_and_fins_whose_acks_are_guessed_do_not_get_into_a_stream() {
    // The attacker has the right sequence numbers, even, but not what we have sent.
    let mut chance = Chance(9);
    for flags in ["PA", "FPA", "A"] {
        let mut forge = |count: u32| Seg {
            ack: 200_000 + chance.number() % 4_000_000_000,
            payload: vec![0x66; 8],
            ..Seg::parse(&format!("{flags} {0}:{0}", 1 + (count / 20) * 10))
        };
        stream_under(100, 20, &mut forge);
    }
}

#[test]
fn segments_of_pure_chance_do_not_harm_a_stream() {
    let mut chance = Chance(77);
    let forge = |_| {
        let kind = ["R", "S", "SA", "FA", "PA", "FPAU", "A", "SF", "F", "U"][chance.number() as usize % 10];
        let (seq, ack) = (chance.number(), chance.number());
        let payload = vec![0x66; (chance.number() % 3) as usize * 7];
        Seg { seq, ack, payload, window: chance.number() as u16, ..Seg::parse(&format!("{kind} 0:0")) }
    };
    let answers = stream_under(200, 100, forge);
    assert!((1..=8).contains(&answers), "in two seconds {answers} answers to 20,000 forged segments");
}

#[test]
fn a_stranger_cannot_make_us_send_duplicate_acks_but_what_the_peer_repeats_is_answered_each_time() {
    let mut t = Trace::established_with(TcpConfig { timestamps: true, ..plain() }, "S 0:0 <mss 1460,ts 500 0>", 65_535);
    let mut chance = Chance(3);
    let mut acks = 0;
    for count in 0..10_000 {
        let timestamps = [None, Some((1, 1_000_000))][count % 2];
        t.peer_more(&Seg { seq: chance.number(), payload: vec![0x66; 100], timestamps, ..Seg::parse("PA 1:1 ack 1") });
        acks += std::iter::from_fn(|| t.take()).count();
    }
    assert!((1..=4).contains(&acks), "{acks} ACKs at once");
    t.peer("PA 1:101 ack 1 <ts 501 1000000>");
    t.stack(". 1:1 ack 101 <ts 1000000 501>");
    for _ in 0..10 {
        t.peer("PA 1:101 ack 1 <ts 501 1000000>");
        t.stack(". 1:1 ack 101 <ts 1000000 501>");
    }
}

//= docs/rfc/rfc5961.md#7-throttle
#[test]
fn challenges_of_all_connections_together_are_limited_and_nobody_can_count_on_how_many_there_are() {
    let mut crowd = Crowd::new(StackConfig::default(), plain());
    let peers: Vec<(u16, u32)> = (1..=2000).map(|port| (port, crowd.open(port))).collect();
    let mut seconds = Vec::new();
    for _ in 0..8 {
        crowd.now += Duration::from_secs(1);
        peers.iter().for_each(|(port, _)| crowd.send(*port, "R 0:0", PEER_ISN + 100, 0));
        seconds.push(crowd.sent().len());
    }
    assert!(seconds.iter().all(|count| (500..=1500).contains(count)), "{seconds:?}");
    assert!(seconds.iter().any(|count| *count != seconds[0]), "drawn anew each second: {seconds:?}");
    let refused = crowd.stack.drops().iter().find(|(reason, _)| *reason == "challenge_rate").unwrap().1;
    assert_eq!(refused as usize, 8 * 2000 - seconds.iter().sum::<usize>());
    assert_eq!(crowd.stack.count(State::ESTABLISHED), 2000);
}

#[test]
fn a_syn_repeated_ten_thousand_times_draws_two_syn_acks_a_second() {
    let mut t = Trace::listen(plain());
    t.peer("S 0:0 <mss 1460>");
    t.stack("SA 0:0 ack 1 <mss 1460>");
    let mut answers = 0;
    for _ in 0..10 {
        for _ in 0..1000 {
            t.peer_more(&Seg::parse("S 0:0 <mss 1460>"));
            answers += std::iter::from_fn(|| t.take()).count();
        }
        t.now += ms(100);
    }
    assert_eq!((answers, t.stack.count(State::SYN_RCVD)), (2, 1));
    t.peer(". 1:1 ack 1");
    assert_eq!(t.state(), State::ESTABLISHED);
}

// Initial sequence numbers.

/// Our ISN for a connection from `port`, which a reset ends again.
fn isn(crowd: &mut Crowd, port: u16) -> u32 {
    let next = crowd.open(port);
    crowd.send(port, "R 0:0", PEER_ISN + 1, next);
    next - 1
}

#[test]
fn a_tuple_that_comes_back_begins_above_where_it_began_before() {
    let mut crowd = Crowd::new(StackConfig::default(), plain());
    for port in [1, 40_000] {
        let mut last = isn(&mut crowd, port);
        for wait in [1, 10, 1000, 60_000, 600_000] {
            crowd.now += ms(wait);
            let next = isn(&mut crowd, port);
            assert_eq!(u64::from(next.wrapping_sub(last)), wait * 250, "a tick is 4 us");
            last = next;
        }
    }
}

//= docs/rfc/rfc9293.md#MUST-9
//= docs/rfc/rfc6528.md#3-prf
#[test]
fn the_number_of_one_tuple_tells_nothing_of_another_nor_of_the_same_with_another_secret() {
    let numbers = |seed| {
        let mut crowd = Crowd::seeded(StackConfig::default(), plain(), seed);
        (1..=64).map(|port| isn(&mut crowd, port)).collect::<Vec<u32>>()
    };
    let steps = |numbers: &[u32]| numbers.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])).collect::<Vec<_>>();
    let (one, other) = (steps(&numbers(7)), steps(&numbers(8)));
    let distinct = one.iter().chain(&other).collect::<std::collections::BTreeSet<_>>().len();
    assert_eq!(distinct, 126, "no two ports, and no two secrets, have the same distance");
    let quarters = |steps: &[u32]| (0..4).all(|quarter| steps.iter().any(|step| step >> 30 == quarter));
    assert!(quarters(&one) && quarters(&other), "steps of any size: {one:?} {other:?}");
}

// Old duplicates.

#[test]
fn an_old_duplicate_syn_is_recovered_from_as_in_figure_9() {
    let mut t = Trace::listen(plain());
    t.peer("S 90000:90000 <mss 1460>");
    t.stack("SA 0:0 ack 90001 <mss 1460>");
    // The peer never sent that SYN now.
    t.peer("R 90001:90001");
    t.quiet();
    assert_eq!((t.state(), t.stack.count(State::LISTEN)), (State::CLOSED, 1));
    t.peer("S 0:0 <mss 1460>");
    t.stack("SA 0:0 ack 1 <mss 1460>");
    t.peer(". 1:1 ack 1");
    assert_eq!(t.state(), State::ESTABLISHED);
}

#[test]
fn a_peer_that_lost_its_memory_gets_rid_of_the_old_connection_by_the_challenge() {
    let mut t = Trace::established(plain());
    t.peer("S 500000:500000 <mss 1460>");
    t.stack(". 1:1 ack 1");
    // It knows nothing of that ACK, and resets where it points.
    t.peer("R 1:1");
    assert_eq!(t.events.pop_back(), Some(Event::Closed(t.id.unwrap(), CloseReason::Reset)));
    t.peer("S 500000:500000 <mss 1460>");
    t.stack("SA 0:0 ack 500001 <mss 1460>");
}

//= docs/rfc/rfc9293.md#3.10.7.3-1-ACK
#[test]
fn an_old_syn_ack_in_syn_sent_draws_a_reset_and_the_open_goes_on() {
    let mut t = Trace::connect(plain());
    t.stack("S 0:0 <mss 1460>");
    t.peer("SA 70000:70000 ack 4294000000 <mss 1460>");
    t.stack("R 4294000000:4294000000");
    t.peer("SA 0:0 ack 1 <mss 1460>");
    t.stack(". 1:1 ack 1");
}

#[test]
fn a_blind_syn_that_seems_to_cross_ours_does_not_keep_us_from_connecting() {
    let config = TcpConfig { window_scale: true, timestamps: true, ..plain() };
    for blind in ["S 123456789:123456789", "S 7:7 <mss 100,ws 0,ts 77 0>"] {
        let mut t = Trace::connect(config.clone());
        t.stack("S 0:0 <mss 1460,ws 5,ts 1000000 0>");
        t.peer(blind);
        assert_eq!(t.state(), State::SYN_RCVD);
        assert!(t.take().is_some_and(|sent| sent.flags == 18), "{blind}");
        // The peer knows nothing of that SYN; its answer to ours comes.
        t.peer("SA 0:0 ack 1 win 60000 <mss 1460,ws 7,ts 500 1000000>");
        t.stack(". 1:1 ack 1 <ts 1000000 500>");
        assert_eq!(t.state(), State::ESTABLISHED);
        t.peer("PA 1:11 ack 1 win 500 <ts 501 1000000>");
        t.show_window = true;
        t.stack(". 1:1 ack 11 win 32768 <ts 1000000 501>");
        assert_eq!((t.read(100), t.connection().info().snd_wnd), (10, 64_000));
        t.write(2000);
        t.stack(". 1:1449 ack 11 win 32768 <ts 1000000 501>");
    }
}

#[test]
fn an_old_fin_without_a_believable_ack_or_with_an_old_timestamp_does_not_prolong_time_wait() {
    for config in [plain(), TcpConfig { timestamps: true, ..plain() }] {
        let stamp = |value: u32| if config.timestamps { format!(" <ts {value} 1000000>") } else { String::new() };
        let syn = format!("S 0:0 <mss 1460{}>", if config.timestamps { ",ts 800 0" } else { "" });
        let mut t = Trace::established_with(config.clone(), &syn, 65_535);
        t.close();
        t.take();
        t.peer(&format!("FA 1:1 ack 2{}", stamp(900)));
        t.take();
        t.quiet_until(10_000);
        let old = if config.timestamps { stamp(899) } else { String::new() };
        let forged = ["F 1:1".to_owned() + &stamp(900), "FA 1:1 ack 3".to_owned() + &stamp(900)];
        let aged = config.timestamps.then(|| format!("FA 1:1 ack 2{old}"));
        for segment in forged.into_iter().chain(aged) {
            t.peer_more(&Seg::parse(&segment));
            while t.take().is_some() {}
            assert_eq!(t.timers(), [("time_wait", 50_000)], "{segment}");
        }
        t.peer(&format!("FA 1:1 ack 2{}", stamp(900)));
        assert_eq!(t.timers(), [("time_wait", 60_000)]);
    }
}

//= docs/rfc/rfc6056.md#3.3-unused
#[test]
fn a_tuple_in_time_wait_is_not_used_for_an_active_open() {
    let mut t =
        Trace::connect_with(StackConfig { ephemeral_ports: 40_000..=40_001, ..StackConfig::default() }, plain());
    t.stack("S 0:0 <mss 1460>");
    t.peer("SA 0:0 ack 1 <mss 1460>");
    t.close();
    t.stack("FA 1:1 ack 1");
    t.peer("FA 1:1 ack 2");
    t.stack(". 2:2 ack 2");
    assert_eq!(t.state(), State::TIME_WAIT);
    let (now, remote) = (t.now, REMOTE.parse().unwrap());
    let mut open = |port: u16| {
        let local = SocketAddr::from(([10, 0, 0, 1], port));
        let link = LinkAddress { mac: PEER_MAC, vlan: None };
        let id = t.stack.connect(now, remote, ConnectOptions { local, link, tcp: Arc::new(plain()) })?;
        Ok(t.stack.connection(now, id).unwrap().local().port())
    };
    assert_eq!(open(40_000), Err(ConnectError::InUse));
    assert_eq!(open(0), Ok(40_001));
    assert_eq!(open(0), Err(ConnectError::NoPort));
}

// On the link.

const STRANGER: [u8; 6] = [2, 0, 0, 0, 0, 0x66];

#[test]
fn a_segment_that_does_not_know_both_sides_numbers_does_not_redirect_our_answers() {
    for forged in [
        "R 500:500",
        "R 0:0",
        "S 0:0",
        "SA 1:1 ack 101",
        ". 1:1 ack 102",
        ". 1:1 ack 0",
        ". 1:1 ack 4294901762",
        "PA 2:12 ack 101",
        "PA 60000:60010 ack 101",
        ". 4294901761:4294901761 ack 101",
        "P 1:11",
    ] {
        let mut t = Trace::established(TcpConfig { nodelay: true, ..plain() });
        t.write(100);
        t.stack("PA 1:101 ack 1");
        t.mac = STRANGER;
        t.peer(forged);
        t.mac = PEER_MAC;
        // Whatever is sent now goes to the peer: the answer, if there is one, and new data.
        while t.take().is_some() {}
        t.write(10);
        assert!(t.take().is_some_and(|sent| sent.payload.len() == 10), "{forged}");
    }
}

#[test]
fn answers_follow_the_peer_to_another_mac_address() {
    for moved in
        [". 11:11 ack 1", "PA 11:21 ack 1", "PA 1:11 ack 1", ". 10:10 ack 1", "FA 11:11 ack 1", "PA 5:15 ack 1"]
    {
        let mut t = Trace::established(plain());
        t.peer("PA 1:11 ack 1");
        t.stack(". 1:1 ack 11");
        t.mac = STRANGER;
        t.peer(moved);
        // The answer to it, if it draws one: what was repeated because our ACK went astray is acknowledged again.
        let answered = t.take().is_some();
        assert_eq!(answered, moved != ". 11:11 ack 1", "{moved}");
        t.write(10);
        assert!(t.take().is_some(), "{moved}");
    }
}

#[test]
fn answers_follow_a_peer_that_moved_with_a_whole_window_in_flight() {
    let mut t = received_much();
    t.mac = STRANGER;
    t.peer(". 1:1001 ack 1");
    t.stack(". 1:1 ack 200001");
}

#[test]
fn with_data_in_flight_such_an_old_segment_counts_only_when_they_seem_not_to_be_heard() {
    let mut t = received_much();
    t.write(100);
    t.stack("PA 1:101 ack 200001");
    t.mac = STRANGER;
    t.peer(". 1:1001 ack 1");
    t.mac = PEER_MAC;
    t.stack(". 101:101 ack 200001");
    t.stack_at(200, "PA 1:101 ack 200001");
    t.mac = STRANGER;
    t.peer(". 1:1001 ack 1");
    t.stack(". 101:101 ack 200001");
}

/// A connection that has received 200 kB and acknowledged all of it.
fn received_much() -> Trace {
    let scaled = TcpConfig { window_scale: true, ..plain() };
    let mut t = Trace::established_with(scaled, "S 0:0 <mss 1460,ws 5>", 2000);
    for first in (1..200_001).step_by(1000) {
        t.peer(&format!(". {first}:{} ack 1", first + 1000));
        t.read(1000);
        while t.take().is_some() {}
    }
    t
}

#[test]
fn the_handshake_goes_to_whoever_answers_it() {
    let mut t = Trace::connect(plain());
    t.stack("S 0:0 <mss 1460>");
    t.mac = STRANGER;
    t.peer("S 0:0 <mss 1460>");
    t.mac = PEER_MAC;
    t.stack("SA 0:0 ack 1 <mss 1460>");

    let mut t = Trace::connect(plain());
    t.stack("S 0:0 <mss 1460>");
    t.mac = STRANGER;
    t.peer("SA 0:0 ack 1 <mss 1460>");
    t.stack(". 1:1 ack 1");
}

#[test]
fn what_comes_from_a_group_address_of_the_link_is_not_answered() {
    for mac in [[0xff; 6], [1, 0, 0x5e, 0, 0, 1], [0x33, 0x33, 0, 0, 0, 1]] {
        let mut t = Trace::listen(plain());
        t.mac = mac;
        t.peer("S 0:0 <mss 1460>");
        t.peer(". 5:5 ack 77");
        t.quiet();
        assert_eq!((t.state(), t.drops("martian")), (State::CLOSED, 2));
    }
}

// Addresses.

//= docs/rfc/rfc9293.md#MUST-57
//= docs/rfc/rfc9293.md#MUST-63
#[test]
fn between_addresses_that_are_no_two_hosts_nothing_is_answered_and_nothing_begins() {
    let (us, peer) = ([10, 0, 0, 1], [10, 0, 0, 2]);
    let nobody = [[0, 0, 0, 0], [0, 1, 2, 3], [127, 0, 0, 1], [224, 0, 0, 1], [239, 255, 0, 1], [255; 4]];
    let mut pairs: Vec<(SocketAddr, SocketAddr)> = Vec::new();
    for no_host in nobody {
        pairs.push(((no_host, 4000).into(), (us, 80).into()));
        pairs.push(((peer, 4000).into(), (no_host, 80).into()));
    }
    // LAND: our own address, with the same port and with another one.
    pairs.push(((us, 80).into(), (us, 80).into()));
    pairs.push(((us, 4000).into(), (us, 80).into()));
    pairs.push(((peer, 0).into(), (us, 80).into()));
    for (source, destination) in pairs {
        let mut stack = Stack::new(StackConfig::default(), [7; 32], Instant::from_millis(0));
        let options = ListenOptions { tcp: Arc::new(plain()) };
        stack.listen((Ipv4Addr::UNSPECIFIED, 80).into(), options).unwrap();
        for segment in ["S 0:0", ". 0:0 ack 5", "PA 0:9 ack 5", "SA 0:0 ack 5", "FA 0:0 ack 5", "R 0:0"] {
            stack.handle_frame(Instant::from_millis(0), &frame(source, destination, &Seg::parse(segment)));
        }
        let martian = stack.drops().iter().find(|(name, _)| *name == "martian").unwrap().1;
        assert_eq!((martian, stack.wants_transmit()), (6, false), "{source} to {destination}");
    }
}

// Fragments, and frames that end too early.

/// Sets the field of flags and offset in a frame's IPv4 header, and cuts the packet to `length` bytes of payload.
fn fragment(frame: &[u8], field: u16, payload: std::ops::Range<usize>) -> Vec<u8> {
    let (head, body) = frame.split_at(34);
    let mut cut = [head, &body[payload.start..payload.end.min(body.len())]].concat();
    let total = (cut.len() - 14) as u16;
    cut[16..18].copy_from_slice(&total.to_be_bytes());
    cut[20..22].copy_from_slice(&field.to_be_bytes());
    cut[24..26].fill(0);
    let sum = !ones_complement(&[&cut[14..34]]);
    cut[24..26].copy_from_slice(&sum.to_be_bytes());
    cut
}

#[test]
fn no_fragment_reaches_a_connection_however_tiny() {
    const MORE: u16 = 0x2000;
    let mut t = Trace::established(plain());
    let whole = t.frame(&Seg::parse("PA 1:101 ack 1"), &[]);
    let before = t.drops("fragment");
    // Eight octets hold the ports only; the next fragment brings the flags, or overwrites them (RFC 1858).
    let pieces =
        [(MORE, 0..8), (1, 8..120), (MORE | 1, 8..16), (MORE, 0..120), (MORE, 0..24), (3, 24..120), (0x1fff, 0..8)];
    for (field, payload) in pieces.clone() {
        t.frame_arrives(&fragment(&whole, field, payload));
    }
    t.quiet();
    assert_eq!(t.drops("fragment") - before, pieces.len() as u64);
    t.frame_arrives(&fragment(&whole, 0x4000, 0..120));
    t.stack(". 1:1 ack 101");
    assert_eq!(t.read(1000), 100);
}

#[test]
fn a_frame_that_ends_too_early_or_lies_about_its_lengths_is_dropped() {
    let mut t = Trace::established(plain());
    let whole = t.frame(&Seg::parse("PA 1:101 ack 1"), &[1; 40]);
    for end in 0..whole.len() {
        t.frame_arrives(&whole[..end]);
        t.quiet();
    }
    // Whatever the IP header says is there, and what the TCP header says of itself.
    for length in 0..whole.len() - 34 {
        t.frame_arrives(&fragment(&whole, 0x4000, 0..length));
    }
    for words in 0..5u8 {
        let mut lies = whole.clone();
        // The checksum is right: what the first byte loses, another one of the same parity gains.
        let lost = lies[46] - (words << 4);
        lies[46] = words << 4;
        lies[54] = lies[54].wrapping_add(lost);
        t.frame_arrives(&lies);
    }
    t.quiet();
    t.frame_arrives(&whole);
    t.stack(". 1:1 ack 101");
}

// Options.

/// Lists of options that no honest peer sends, 40 bytes each.
fn bombs() -> Vec<Vec<u8>> {
    let cycle = |pattern: &[u8]| pattern.iter().copied().cycle().take(40).collect::<Vec<u8>>();
    let mut bombs = vec![cycle(&[1]), cycle(&[0]), cycle(&[0xff]), cycle(&[2]), cycle(&[8]), cycle(&[3, 3, 14])];
    for kind in [2, 3, 4, 5, 8, 19, 28, 29, 34, 69, 253] {
        for length in [0, 1, 2, 3, 4, 5, 10, 11, 34, 39, 40, 41, 255] {
            bombs.push(cycle(&[kind, length]));
            // In the last two bytes: it would go on behind the header.
            bombs.push([&[1; 38][..], &[kind, length]].concat());
        }
        bombs.push([&[1; 39][..], &[kind]].concat());
    }
    bombs.push(cycle(&[2, 4, 0, 0]));
    bombs.push(cycle(&[2, 4, 0xff, 0xff]));
    bombs.push(cycle(&[2, 4, 0, 1, 2, 4, 5, 0xb4]));
    bombs.push(cycle(&[8, 10, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]));
    bombs
}

#[test]
fn option_bombs_on_a_syn_neither_stop_it_nor_make_it_mean_nonsense() {
    for bomb in bombs() {
        for config in [plain(), TcpConfig::default()] {
            let mut t = Trace::listen(config);
            let syn = t.frame(&Seg::parse("S 0:0"), &bomb);
            t.frame_arrives(&syn);
            let answer = t.take().expect("a SYN-ACK");
            let ack =
                Seg { timestamps: answer.timestamps.map(|(ours, theirs)| (theirs, ours)), ..Seg::parse(". 1:1 ack 1") };
            t.peer_seg(&ack);
            t.accept();
            t.write(5000);
            let sent: Vec<Seg> = std::iter::from_fn(|| t.take()).collect();
            assert!(!sent.is_empty(), "{bomb:?}");
            assert!(sent.iter().all(|seg| (40..=1460).contains(&seg.payload.len())), "{bomb:?}");
        }
    }
}

//= docs/rfc/rfc9293.md#MUST-5
//= docs/rfc/rfc9293.md#MUST-7
#[test]
fn option_bombs_on_data_change_nothing_and_thousands_of_them_cost_nothing() {
    let bombs: Vec<Vec<u8>> = bombs().into_iter().cycle().take(5000).collect();
    let mut t = Trace::established(plain());
    for (at, bomb) in (1u32..).zip(&bombs) {
        let frame = t.frame(&Seg::parse(&format!("PA {at}:{} ack 1", at + 1)), bomb);
        t.frame_arrives(&frame);
        t.stack(&format!(". 1:1 ack {}", at + 1));
        assert_eq!(t.read(10), 1, "{bomb:?}");
    }
    assert_eq!(t.stack.buffer_memory(), 0);
}

#[test]
fn with_timestamps_agreed_an_option_bomb_does_not_poison_the_recent_one() {
    let mut t = Trace::established_with(TcpConfig { timestamps: true, ..plain() }, "S 0:0 <mss 1460,ts 500 0>", 65_535);
    for (at, bomb) in (1u32..).zip(bombs()) {
        let frame = t.frame(&Seg::parse(&format!("PA {at}:{} ack 900000", at + 1)), &bomb);
        t.frame_arrives(&frame);
        while t.take().is_some() {}
        t.peer(&format!("PA {at}:{} ack 1 <ts 500 1000000>", at + 1));
        assert_eq!(t.read(10), 1, "{bomb:?}");
        t.take();
    }
}

// Crumbs.

#[test]
fn single_bytes_in_any_order_and_many_times_arrive_as_the_stream_and_hold_little_memory() {
    const LENGTH: u32 = 3000;
    let mut t = Trace::established(plain());
    let mut chance = Chance(5);
    let mut received = 0;
    for _ in 0..100_000 {
        // Some byte not far ahead, one to three long, so that they overlap.
        let seq = 1 + received + chance.number() % 120;
        let end = (seq + 1 + chance.number() % 3).min(LENGTH + 1);
        if seq < end {
            t.peer_more(&Seg {
                payload: stream(seq, (end - seq) as usize),
                ..Seg::parse(&format!("PA {seq}:{seq} ack 1"))
            });
        }
        while t.take().is_some() {}
        assert!(t.stack.buffer_memory() <= 16 * 1024, "{} bytes held for {LENGTH}", t.stack.buffer_memory());
        received += t.read(10_000) as u32;
        if received == LENGTH {
            break;
        }
    }
    assert_eq!((received, t.stack.buffer_memory()), (LENGTH, 0));
}

#[test]
fn bytes_that_contradict_what_was_acknowledged_do_not_replace_it() {
    let mut t = Trace::established(plain());
    t.peer("PA 1:21 ack 1");
    t.stack(". 1:1 ack 21");
    for (seq, length) in [(1, 20), (5, 10), (10, 11)] {
        t.peer_seg(&Seg { payload: vec![0x66; length], ..Seg::parse(&format!("PA {seq}:{seq} ack 1")) });
        t.stack(". 1:1 ack 21");
    }
    // Beside old bytes that lie, a new one that counts: as little as the window takes of it.
    let lies = [&[0x66; 20][..], &stream(21, 10)].concat();
    t.peer_seg(&Seg { payload: lies, ..Seg::parse("PA 1:1 ack 1") });
    t.stack(". 1:1 ack 31");
    assert_eq!(t.read(100), 30);
}

// Urgent data.

//= docs/rfc/rfc9293.md#MUST-30
#[test]
fn urgent_data_are_delivered_in_line_wherever_the_pointer_points() {
    let mut t = Trace::established(plain());
    let mut at = 1;
    for pointer in [0, 1, 9, 10, 11, 5000, u16::MAX] {
        for flags in ["UA", "PUA", "A"] {
            t.peer(&format!("{flags} {at}:{} ack 1 urg {pointer}", at + 10));
            t.stack(&format!(". 1:1 ack {}", at + 10));
            at += 10;
        }
        t.peer(&format!("UA {at}:{at} ack 1 urg {pointer}"));
        t.quiet();
    }
    // Behind a gap, and on the FIN.
    t.peer(&format!("UA {}:{} ack 1 urg 3", at + 10, at + 20));
    t.take();
    t.peer(&format!("FUA {at}:{} ack 1 urg 10", at + 10));
    t.take();
    assert_eq!(t.read(1000) as u32, at - 1 + 20);
}

#[test]
fn urgent_data_before_a_closed_window_wait_like_any_others_and_their_ack_counts() {
    let mut t = Trace::established(TcpConfig { recv_buffer: 1000, ..plain() });
    t.peer("PA 1:1001 ack 1");
    t.stack(". 1:1 ack 1001");
    t.write(10);
    t.stack("PA 1:11 ack 1001");
    t.peer("UA 1001:1011 ack 11 urg 10");
    t.stack(". 11:11 ack 1001");
    assert_eq!(t.connection().info().snd_una.wrapping_sub(t.our_isn), 11);
    assert_eq!(t.read(2000), 1000);
    while t.take().is_some() {}
    t.peer("UA 1001:1011 ack 11 urg 10");
    t.stack(". 11:11 ack 1011");
    assert_eq!(t.read(2000), 10);
}

//= docs/rfc/rfc9293.md#SHLD-13
#[test]
fn what_we_send_is_never_urgent() {
    let mut t = Trace::established(plain());
    t.peer("UA 1:11 ack 1 urg 5");
    t.read(10);
    t.write(4000);
    let sent: Vec<Seg> = std::iter::from_fn(|| t.take()).collect();
    assert!(sent.iter().all(|seg| seg.flags & 32 == 0 && seg.urgent == 0), "{sent:?}");
}
