//! The observer finds what it is there to find: hand-made segments, each with one thing wrong.

use std::time::Duration;

use etherparse::{PacketBuilder, TcpHeader, TcpOptionElement};
use sim::Observer;
use sim::frame::mac;
use tcp_proto::Instant;

const CLIENT: u16 = 40_000;
const SERVER: u16 = 80;
/// Initial numbers of the two hosts.
const ISS: [u32; 2] = [1000, 5000];
const WINDOW: u16 = 3000;
const SYN_OPTIONS: [TcpOptionElement; 2] =
    [TcpOptionElement::MaximumSegmentSize(1460), TcpOptionElement::SelectiveAcknowledgementPermitted];

/// An observer and a clock.
struct Wire {
    observer: Observer,
    now: Instant,
}

impl Wire {
    /// A connection of host 0 with host 1, established, with SACK.
    fn established() -> Wire {
        let now = Instant::from_millis(1);
        let mut wire = Wire { observer: Observer::new(now, [1500, 1500]), now };
        wire.observer.expect((CLIENT, SERVER), 0);
        wire.passes(0, |tcp| {
            (tcp.syn, tcp.ack, tcp.sequence_number) = (true, false, ISS[0]);
            tcp.set_options(&SYN_OPTIONS).unwrap();
        });
        wire.passes(1, |tcp| {
            (tcp.syn, tcp.sequence_number) = (true, ISS[1]);
            tcp.set_options(&SYN_OPTIONS).unwrap();
        });
        wire.passes(0, |_| {});
        wire
    }

    /// Host `host` sends a segment, by default a bare ACK at the beginning of both streams, and it arrives.
    fn passes(&mut self, host: usize, change: impl Fn(&mut TcpHeader)) {
        self.sends(host, b"", change, true);
    }

    /// Host `host` sends `text`, which arrives or not.
    fn sends(&mut self, host: usize, text: &[u8], change: impl Fn(&mut TcpHeader), arrives: bool) {
        let ports = [CLIENT, SERVER];
        let mut tcp = TcpHeader::new(ports[host], ports[1 - host], ISS[host] + 1, WINDOW);
        (tcp.ack, tcp.acknowledgment_number) = (true, ISS[1 - host] + 1);
        change(&mut tcp);
        let addresses = [[10, 0, 0, 1], [10, 0, 0, 2]];
        let builder = PacketBuilder::ethernet2(mac(host), mac(1 - host)).ipv4(addresses[host], addresses[1 - host], 64);
        let mut frame = Vec::new();
        builder.tcp_header(tcp).write(&mut frame, text).unwrap();
        self.now += Duration::from_millis(1);
        let (segment, end) = self.observer.sent(self.now, host, 0, &frame);
        if let Some(end) = end.filter(|_| arrives) {
            self.observer.arrived(end, &segment);
        }
    }

    /// Host 0 sends bytes of its stream from `offset` on.
    fn speaks(&mut self, offset: u32, length: usize, arrives: bool) {
        let text = sim::stream::stream(0, 0, offset as usize, length);
        self.sends(0, text, |tcp| tcp.sequence_number += offset, arrives);
    }
}

#[test]
fn what_is_right_breaks_no_rule() {
    let mut wire = Wire::established();
    wire.speaks(0, 1000, true);
    wire.speaks(1000, 1000, false);
    wire.speaks(2000, 1000, true);
    wire.passes(1, |tcp| {
        tcp.acknowledgment_number += 1000;
        let block = (ISS[0] + 2001, ISS[0] + 3001);
        tcp.set_options(&[TcpOptionElement::SelectiveAcknowledgement(block, [None; 3])]).unwrap();
    });
    wire.speaks(1000, 1000, true);
    wire.passes(1, |tcp| tcp.acknowledgment_number += 3000);
}

#[test]
#[should_panic(expected = "a hole")]
fn a_hole_in_what_is_sent_is_found() {
    Wire::established().speaks(500, 100, true);
}

#[test]
#[should_panic(expected = "sends what was not said")]
fn bytes_that_nobody_said_are_found() {
    Wire::established().sends(0, b"something else", |_| {}, true);
}

#[test]
#[should_panic(expected = "beyond the edge")]
fn text_beyond_the_right_edge_is_found() {
    let mut wire = Wire::established();
    (0..4).for_each(|n| wire.speaks(1000 * n, 1000, true));
}

#[test]
#[should_panic(expected = "when 1001 have arrived")]
fn an_ack_of_what_was_lost_is_found() {
    let mut wire = Wire::established();
    wire.speaks(0, 1000, true);
    wire.speaks(1000, 1000, false);
    wire.passes(1, |tcp| tcp.acknowledgment_number += 2000);
}

#[test]
#[should_panic(expected = "which has not arrived")]
fn a_report_of_what_was_lost_is_found() {
    let mut wire = Wire::established();
    wire.speaks(0, 1000, false);
    wire.speaks(1000, 1000, false);
    wire.passes(1, |tcp| {
        let block = (ISS[0] + 1001, ISS[0] + 2001);
        tcp.set_options(&[TcpOptionElement::SelectiveAcknowledgement(block, [None; 3])]).unwrap();
    });
}

#[test]
#[should_panic(expected = "acknowledges 1001 after")]
fn an_ack_that_goes_back_is_found() {
    let mut wire = Wire::established();
    wire.speaks(0, 1000, true);
    wire.speaks(1000, 1000, true);
    wire.passes(1, |tcp| tcp.acknowledgment_number += 2000);
    wire.passes(1, |tcp| {
        tcp.acknowledgment_number += 1000;
        tcp.window_size = WINDOW + 1000;
    });
}

#[test]
#[should_panic(expected = "again, acknowledged up to")]
fn repeating_what_was_acknowledged_is_found() {
    let mut wire = Wire::established();
    wire.speaks(0, 1000, true);
    wire.passes(1, |tcp| tcp.acknowledgment_number += 1000);
    wire.speaks(0, 1000, true);
}

#[test]
#[should_panic(expected = "although its FIN was")]
fn text_after_a_fin_is_found() {
    let mut wire = Wire::established();
    wire.passes(0, |tcp| tcp.fin = true);
    wire.sends(0, sim::stream::stream(0, 0, 0, 10), |tcp| tcp.sequence_number += 1, true);
}

#[test]
#[should_panic(expected = "WindowNeverShrinks")]
fn a_right_edge_that_moves_left_is_found() {
    let mut wire = Wire::established();
    wire.passes(0, |tcp| tcp.window_size = WINDOW - 1);
}
