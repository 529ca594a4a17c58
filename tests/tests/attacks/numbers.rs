//! Attacks by sequence and acknowledgment numbers (RFC 5961): resets, SYNs, data, FINs, ACKs.

use serde_json::Value;

use crate::attacker::Shot;
use crate::frames::{ACK, FIN, Forged, PSH, RST, SYN};
use crate::{Attack, figure};

/// Bytes that must never show in the victim's stream; it would notice any.
const POISON: &[u8] = b"POISON POISON POISON";

fn class(stats: &Value, name: &str) -> u64 {
    figure(stats, "classes", name)
}

fn swept_reset(shot: &Shot) -> Vec<u8> {
    let flags = if shot.n.is_multiple_of(2) { RST } else { RST | ACK };
    Forged { flags, seq: shot.swept(), ack: shot.random, ..Forged::default() }.as_client(shot)
}

#[test]
fn resets_all_over_the_sequence_space_reset_nothing() {
    Attack::new(swept_reset, |stats| class(stats, "rst")).run();
}

#[test]
fn resets_all_over_the_sequence_space_reset_nothing_over_ipv6() {
    Attack::new(swept_reset, |stats| class(stats, "rst")).over_v6().run();
}

#[test]
fn resets_in_the_window_draw_challenges_and_reset_nothing() {
    let frame = |shot: &Shot| {
        let seq = shot.rcv_nxt.wrapping_add(300_000 + shot.n % 1000);
        Forged { flags: RST, seq, ..Forged::default() }.as_client(shot)
    };
    Attack::new(frame, |stats| class(stats, "rst")).run();
}

#[test]
fn syns_of_the_victims_own_addresses_change_nothing() {
    let frame = |shot: &Shot| {
        let seq = if shot.n.is_multiple_of(3) { shot.rcv_nxt.wrapping_add(shot.n % 5000) } else { shot.swept() };
        let flags = if shot.n.is_multiple_of(5) { SYN | ACK } else { SYN };
        Forged { flags, seq, ack: shot.random, ..Forged::default() }.as_client(shot)
    };
    Attack::new(frame, |stats| class(stats, "syn") + class(stats, "syn_ack")).run();
}

#[test]
fn forged_data_never_show_in_the_stream() {
    let frame = |shot: &Shot| {
        Forged { flags: ACK | PSH, seq: shot.swept(), ack: shot.random, payload: POISON, ..Forged::default() }
            .as_client(shot)
    };
    Attack::new(frame, |stats| class(stats, "data")).run();
}

#[test]
fn forged_data_in_the_window_with_an_unknown_acknowledgment_never_show_in_the_stream() {
    let frame = |shot: &Shot| {
        let seq = shot.rcv_nxt.wrapping_add(100_000 + shot.n % 300_000);
        // Far from what was sent: the wrong half of the numbers.
        let ack = shot.snd_nxt.wrapping_add(1 << 30).wrapping_add(shot.random >> 2);
        Forged { flags: ACK | PSH, seq, ack, payload: POISON, ..Forged::default() }.as_client(shot)
    };
    Attack::new(frame, |stats| class(stats, "data")).run();
}

#[test]
fn fins_all_over_the_sequence_space_end_nothing() {
    let frame = |shot: &Shot| {
        Forged { flags: FIN | ACK, seq: shot.swept(), ack: shot.random, ..Forged::default() }.as_client(shot)
    };
    Attack::new(frame, |stats| class(stats, "fin")).run();
}

#[test]
fn a_storm_of_acknowledgments_old_new_and_from_the_future_disturbs_nothing() {
    let frame = |shot: &Shot| {
        let (seq, ack) = match shot.n % 5 {
            0 => (shot.swept(), shot.random),
            1 => (shot.rcv_nxt, shot.snd_nxt.wrapping_sub(shot.random % 100_000)),
            2 => (shot.rcv_nxt, shot.snd_nxt.wrapping_add(1 + shot.random % 100_000)),
            3 => (shot.rcv_nxt, shot.snd_nxt),
            _ => (shot.rcv_nxt.wrapping_sub(1), shot.snd_nxt),
        };
        Forged { flags: ACK, seq, ack, ..Forged::default() }.as_client(shot)
    };
    Attack::new(frame, |stats| class(stats, "ack")).run();
}
