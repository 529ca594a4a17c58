//! Where TCP meets IP (RFC 9293 sections 3.7.1 and 3.9.2): ICMP errors that end nothing or an open that is under way, IP
//! options, TTL, service class, and IPv6. Path MTU discovery is in `path_mtu.rs`.

mod common;

use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;

use common::{PEER_MAC, Seg, Trace, frame_with_options, ones_complement, plain};
use tcp_common::cookie::CookieKeys;
use tcp_proto::{
    CloseReason, ConnectOptions, ConnectionId, Event, Instant, LinkAddress, ListenOptions, SoftError, Stack,
    StackConfig, State, SynCookies, TcpConfig,
};

/// ICMP errors that may pass: type, code, and what the application hears.
const SOFT: [(u8, u8, SoftError); 6] = [
    (3, 0, SoftError::Unreachable),
    (3, 1, SoftError::Unreachable),
    (3, 5, SoftError::Unreachable),
    (11, 0, SoftError::TimeExceeded),
    (11, 1, SoftError::TimeExceeded),
    (12, 0, SoftError::BadParameter),
];

/// Data are under way: 1 to 100.
fn sending() -> Trace {
    let mut t = Trace::established(plain());
    t.write(100);
    t.stack("PA 1:101 ack 1");
    t.events.clear();
    t
}

//= docs/rfc/rfc9293.md#MUST-47
//= docs/rfc/rfc9293.md#MUST-56
//= docs/rfc/rfc9293.md#SHLD-20
//= docs/rfc/rfc9293.md#SHLD-25
#[test]
fn a_soft_error_ends_neither_a_connection_nor_an_open_and_is_told_to_who_asks() {
    for (kind, code, says) in SOFT {
        let mut t = sending();
        t.icmp(kind, code, 1, 0);
        assert_eq!((t.state(), t.events.len()), (State::ESTABLISHED, 0), "type {kind} code {code}");
        assert_eq!(t.connection().take_soft_error(), Some(says), "type {kind} code {code}");
        assert_eq!(t.connection().take_soft_error(), None, "told once");
        t.peer(". 1:1 ack 101");
        assert_eq!(t.acked_bytes(), 100);

        let mut t = Trace::connect(plain());
        t.stack("S 0:0 <mss 1460>");
        t.icmp(kind, code, 0, 0);
        assert_eq!(t.connection().take_soft_error(), Some(says));
        t.peer("SA 0:0 ack 1 <mss 1460>");
        t.stack(". 1:1 ack 1");
        assert_eq!(t.state(), State::ESTABLISHED, "type {kind} code {code}");
    }
}

//= docs/rfc/rfc9293.md#SHLD-26
//= docs/rfc/rfc5927.md#5.2-hard-soft
#[test]
fn a_hard_error_ends_an_open_and_nothing_else() {
    for code in [2, 3] {
        let mut t = Trace::connect(plain());
        t.stack("S 0:0 <mss 1460>");
        t.icmp(3, code, 0, 0);
        assert_eq!(t.events.pop_front(), Some(Event::Closed(t.id.unwrap(), CloseReason::Refused)));
        t.assert_empty();

        let mut t = sending();
        t.icmp(3, code, 1, 0);
        assert_eq!(t.state(), State::ESTABLISHED);
        assert_eq!(t.connection().take_soft_error(), Some(SoftError::Unreachable));
    }
}

//= docs/rfc/rfc9293.md#MUST-54
//= docs/rfc/rfc5927.md#4.1-sequence
#[test]
fn an_error_counts_for_the_connection_that_it_quotes_and_only_about_what_is_under_way() {
    let mut t = sending();
    for seq in [0, 101, 1000, u32::MAX] {
        t.icmp(3, 1, seq, 0);
        assert_eq!(t.connection().take_soft_error(), None, "{seq} is not under way");
    }
    assert_eq!(t.drops("irrelevant_icmp"), 4);
    let first = t.id;
    t.speak_from(4001);
    t.peer("S 0:0 <mss 1460>");
    t.stack("SA 0:0 ack 1 <mss 1460>");
    t.peer(". 1:1 ack 1");
    t.accept();
    assert_eq!(t.connection().send(&common::stream(1, 100)), 100);
    t.stack("PA 1:101 ack 1");
    t.icmp(3, 1, 1, 0);
    let second = std::mem::replace(&mut t.id, first);
    assert_eq!(t.connection().take_soft_error(), None);
    t.id = second;
    assert_eq!(t.connection().take_soft_error(), Some(SoftError::Unreachable));
}

//= docs/rfc/rfc9293.md#MUST-55
//= docs/rfc/rfc5927.md#6-quench
#[test]
fn source_quench_is_dropped() {
    let mut t = sending();
    let before = t.connection().info();
    t.icmp(4, 0, 1, 0);
    assert_eq!(t.drops("irrelevant_icmp"), 1);
    assert_eq!((t.connection().take_soft_error(), t.events.len()), (None, 0));
    assert_eq!(t.connection().info().cwnd, before.cwnd);
}

//= docs/rfc/rfc9293.md#MUST-50
#[test]
fn ip_options_are_skipped_whatever_they_are() {
    // Record route, timestamp, loose and strict source routes, one that nobody knows, and one of an impossible length.
    for option in [[7, 7], [68, 8], [131, 7], [137, 7], [222, 8], [222, 99]] {
        let mut t = Trace::listen(plain());
        for segment in ["S 0:0 <mss 1460>", "A 1:11 ack 1"] {
            let seg = Seg::parse(segment);
            let bare = t.frame(&seg, if seg.flags == 2 { &[2, 4, 5, 0xb4] } else { &[] });
            t.frame_arrives(&with_ip_option(&bare, option));
            assert!(t.take().is_some(), "{option:?}, {segment}");
        }
        t.accept();
        assert_eq!(t.read(100), 10, "{option:?}");
    }
}

/// The frame with an option of 8 bytes in its IPv4 header.
fn with_ip_option(frame: &[u8], [kind, length]: [u8; 2]) -> Vec<u8> {
    let (ethernet, ip, rest) = (&frame[..14], &frame[14..34], &frame[34..]);
    let mut header = [ip, &[kind, length, 4, 0, 0, 0, 0, 0]].concat();
    header[0] = 0x47;
    let total = (header.len() + rest.len()) as u16;
    header[2..4].copy_from_slice(&total.to_be_bytes());
    header[10..12].fill(0);
    let sum = !ones_complement(&[&header]);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    [ethernet, &header, rest].concat()
}

/// Service class (DSCP and ECN) and TTL of the next frame.
fn class_and_ttl(t: &mut Trace) -> (u8, u8) {
    let mut frame = [0; 2000];
    assert!(t.stack.poll_transmit(t.now, &mut frame).is_some());
    (frame[15], frame[22])
}

//= docs/rfc/rfc9293.md#MUST-48
//= docs/rfc/rfc9293.md#MUST-49
//= docs/rfc/rfc9293.md#SHLD-22
#[test]
fn every_segment_has_the_code_point_and_ttl_of_the_configuration() {
    let mut t = Trace::connect(TcpConfig { dscp: 46, ttl: 9, ..plain() });
    assert_eq!(class_and_ttl(&mut t), (46 << 2, 9), "SYN");
    let mut t = Trace::established(TcpConfig { dscp: 46, ttl: 9, ..plain() });
    t.peer("PA 1:11 ack 1");
    assert_eq!(class_and_ttl(&mut t), (46 << 2, 9), "ACK");
    t.write(10);
    assert_eq!(class_and_ttl(&mut t), (46 << 2, 9), "data");
    t.abort();
    assert_eq!(class_and_ttl(&mut t), (46 << 2, 9), "RST");
}

//= docs/rfc/rfc9293.md#SHLD-21
//= docs/rfc/rfc9293.md#SHLD-22
//= docs/rfc/rfc9293.md#MUST-48
//= docs/rfc/rfc3168.md#5-dscp
#[test]
fn the_code_point_can_be_changed_on_the_way_and_leaves_the_congestion_bits_alone() {
    let config = TcpConfig { ecn: true, ..plain() };
    let mut t = Trace::listen(config);
    t.peer_seg(&Seg { flags: 2 | 64 | 128, ..Seg::parse("S 0:0 <mss 1460>") });
    assert!(t.take().is_some());
    t.peer(". 1:1 ack 1");
    t.accept();
    for dscp in [46, 0, 63] {
        t.connection().set_dscp(dscp);
        t.connection().set_nodelay(true);
        t.write(10);
        assert_eq!(class_and_ttl(&mut t).0, dscp << 2 | 2, "ECT(0) beside {dscp}");
    }
}

#[test]
fn who_changes_a_connections_parameters_changes_no_others() {
    let mut t = Trace::established(plain());
    t.connection().set_dscp(46);
    t.speak_from(4001);
    t.peer("S 0:0 <mss 1460>");
    assert_eq!(class_and_ttl(&mut t).0, 0);
}

//= docs/rfc/rfc1191.md#3-df
#[test]
fn every_packet_forbids_fragmentation() {
    let mut t = Trace::established(plain());
    t.peer("PA 1:11 ack 1");
    t.write(3000);
    let mut frame = [0; 2000];
    let mut packets = 0;
    while t.stack.poll_transmit(t.now, &mut frame).is_some() {
        assert_eq!(frame[20..22], [0x40, 0], "flags and offset");
        packets += 1;
    }
    assert!(packets > 1);
}

/// A segment over IPv6 to port 80 of fd00::1.
fn frame_v6(seg: &Seg, options: &[u8]) -> Vec<u8> {
    let v4 = frame_with_options("10.0.0.2:4000".parse().unwrap(), "10.0.0.1:80".parse().unwrap(), seg, options);
    let addresses = ["fd00::2", "fd00::1"].map(|text| text.parse::<Ipv6Addr>().unwrap().octets()).concat();
    let mut tcp = v4[34..].to_vec();
    tcp[16..18].fill(0);
    let length = (tcp.len() as u16).to_be_bytes();
    let sum = !ones_complement(&[&addresses, &[0, 6], &length, &tcp]);
    tcp[16..18].copy_from_slice(&sum.to_be_bytes());
    let head = [&[0x60, 0, 0, 0][..], &length, &[6, 64]].concat();
    [&v4[..12], &[0x86, 0xdd], &head, &addresses, &tcp].concat()
}

/// Established over IPv6 with a SYN of these options: the connection, the SYN-ACK's frame, and the first of many segments.
fn established_v6(options: &[u8]) -> (Stack, ConnectionId, Vec<u8>, Vec<u8>) {
    established_v6_with(plain(), options)
}

fn established_v6_with(tcp: TcpConfig, options: &[u8]) -> (Stack, ConnectionId, Vec<u8>, Vec<u8>) {
    let now = Instant::from_millis(0);
    let mac = [2, 0, 0, 0, 0, 1];
    let mut stack = Stack::new(StackConfig { mac, ..StackConfig::default() }, [7; 32], now);
    let mut keys = CookieKeys::default();
    keys.put(0, [1, 2]);
    stack.set_cookie_keys(keys);
    let local: SocketAddr = "[fd00::1]:80".parse().unwrap();
    let listener = stack.listen(local, ListenOptions { tcp: Arc::new(tcp) }).unwrap();
    stack.handle_frame(now, &frame_v6(&Seg::parse("S 0:0"), options));
    let syn_ack = sent(&mut stack).expect("a SYN-ACK");
    let isn = u32::from_be_bytes(syn_ack[58..62].try_into().unwrap());
    stack.handle_frame(now, &frame_v6(&Seg { ack: isn.wrapping_add(1), ..Seg::parse(". 1:1 ack 1") }, &[]));
    let id = stack.accept(listener).expect("a connection");
    assert_eq!(stack.connection(now, id).unwrap().send(&[0; 50_000]), 50_000);
    let data = sent(&mut stack).expect("data");
    (stack, id, syn_ack, data)
}

fn sent(stack: &mut Stack) -> Option<Vec<u8>> {
    let mut frame = [0; 2000];
    stack.poll_transmit(Instant::from_millis(0), &mut frame).map(|length| frame[..length].to_vec())
}

//= docs/rfc/rfc9293.md#MUST-14
//= docs/rfc/rfc9293.md#MUST-15
//= docs/rfc/rfc9293.md#MUST-67
//= docs/rfc/rfc9293.md#SHLD-5
#[test]
fn over_ipv6_the_mss_is_60_less_than_the_mtu_and_a_peer_that_says_none_gets_1220() {
    for (options, size) in [(&[2, 4, 5, 0xa0][..], 1440), (&[2, 4, 4, 0], 1024), (&[], 1220)] {
        let (_, _, syn_ack, data) = established_v6(options);
        assert_eq!(&syn_ack[..6], &PEER_MAC);
        assert_eq!(&syn_ack[74..78], &[2, 4, 5, 0xa0], "MSS 1440");
        assert_eq!(data.len() - 74, size);
    }
}

#[test]
fn over_ipv6_a_cookie_leads_to_the_connection_that_a_kept_syn_leads_to() {
    for options in [&[2, 4, 5, 0xa0][..], &[2, 4, 4, 0], &[]] {
        let always = TcpConfig { syn_cookies: SynCookies::Always, ..plain() };
        let (kept, cookie) = (established_v6(options), established_v6_with(always, options));
        let figure = |stack: &Stack, name| stack.figures().into_iter().find(|(n, _)| *n == name).unwrap().1;
        assert_eq!((figure(&kept.0, "cookie_ok"), figure(&cookie.0, "cookie_ok")), (0, 1));
        assert_eq!((kept.2.len(), kept.3.len()), (cookie.2.len(), cookie.3.len()), "SYN-ACK and data");
        assert_eq!(kept.2[..58], cookie.2[..58], "all before the number");
        assert_eq!(kept.2[62..70], cookie.2[62..70], "acknowledgment, flags and window");
        assert_eq!(kept.2[74..], cookie.2[74..], "options");
    }
}

/// An ICMP error about a frame of ours (RFC 4443 section 3); `mtu` is what "packet too big" says.
fn icmp_v6(about: &[u8], kind: u8, code: u8, mtu: u32) -> Vec<u8> {
    let addresses = ["fd00::9", "fd00::1"].map(|text| text.parse::<Ipv6Addr>().unwrap().octets()).concat();
    let mut icmp = [&[kind, code, 0, 0][..], &mtu.to_be_bytes(), &about[14..14 + 60]].concat();
    let length = (icmp.len() as u16).to_be_bytes();
    let sum = !ones_complement(&[&addresses, &length, &[0, 58], &icmp]);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    let head = [&[0x60, 0, 0, 0][..], &length, &[58, 64]].concat();
    [&about[6..12], &about[..6], &[0x86, 0xdd], &head, &addresses, &icmp].concat()
}

//= docs/rfc/rfc8201.md#4-reduce
//= docs/rfc/rfc8201.md#4-floor
//= docs/rfc/rfc8201.md#4-absurd
#[test]
fn over_ipv6_packets_get_smaller_but_a_router_that_claims_less_than_1280_bytes_is_not_believed() {
    for (said, size) in [(1400, 1340), (1280, 1220), (1279, 1440), (68, 1440), (0, 1440), (u32::MAX, 1440)] {
        let (mut stack, id, _, data) = established_v6(&[2, 4, 5, 0xa0]);
        let now = Instant::from_millis(0);
        stack.handle_frame(now, &icmp_v6(&data, 2, 0, said));
        assert_eq!(stack.connection(now, id).unwrap().info().mss, size, "{said}");
    }
}

/// An open over IPv6 is under way: the connection, and the SYN's frame.
fn opening_v6() -> (Stack, ConnectionId, Vec<u8>) {
    let now = Instant::from_millis(0);
    let mut stack = Stack::new(StackConfig { mac: [2, 0, 0, 0, 0, 1], ..StackConfig::default() }, [7; 32], now);
    let local = "[fd00::1]:40123".parse().unwrap();
    let options = ConnectOptions { local, link: LinkAddress { mac: PEER_MAC, vlan: None }, tcp: Arc::new(plain()) };
    let id = stack.connect(now, "[fd00::2]:4000".parse().unwrap(), options).unwrap();
    let syn = sent(&mut stack).expect("a SYN");
    (stack, id, syn)
}

//= docs/rfc/rfc9293.md#MUST-54
//= docs/rfc/rfc9293.md#MUST-56
//= docs/rfc/rfc9293.md#SHLD-25
#[test]
fn soft_errors_of_ipv6_end_nothing_and_are_told_to_who_asks() {
    use SoftError::{BadParameter, TimeExceeded, Unreachable};
    let unreachable = [(1, 0, Unreachable), (1, 3, Unreachable)];
    let others = [(3, 0, TimeExceeded), (3, 1, TimeExceeded), (4, 0, BadParameter), (4, 1, BadParameter)];
    let now = Instant::from_millis(0);
    for (kind, code, says) in unreachable.into_iter().chain(others).chain([(4, 2, BadParameter)]) {
        let (established, id, _, data) = established_v6(&[]);
        let (opening, open, syn) = opening_v6();
        for (mut stack, id, about, state) in
            [(established, id, data, State::ESTABLISHED), (opening, open, syn, State::SYN_SENT)]
        {
            stack.handle_frame(now, &icmp_v6(&about, kind, code, 0));
            let mut connection = stack.connection(now, id).expect("it is alive");
            assert_eq!((connection.state(), connection.take_soft_error()), (state, Some(says)), "{kind} {code}");
        }
    }
}

//= docs/rfc/rfc9293.md#SHLD-26
#[test]
fn hard_errors_of_ipv6_end_an_open_and_nothing_else() {
    let now = Instant::from_millis(0);
    for code in [1, 4] {
        let (mut stack, id, syn) = opening_v6();
        stack.handle_frame(now, &icmp_v6(&syn, 1, code, 0));
        assert_eq!(stack.poll_event(), Some(Event::Closed(id, CloseReason::Refused)), "prohibited, or no such port");
        let (mut stack, id, _, data) = established_v6(&[]);
        stack.handle_frame(now, &icmp_v6(&data, 1, code, 0));
        assert_eq!(stack.connection(now, id).expect("it is alive").state(), State::ESTABLISHED);
    }
}
