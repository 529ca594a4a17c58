//! Attacks by sequence and acknowledgment numbers (RFC 5961): resets, SYNs, data, FINs, ACKs.

use crate::attacker::{SHOTS, Shot};
use crate::frames::{ACK, FIN, Forged, PSH, RST, SYN};
use crate::{Attack, MOST, class};

/// Bytes that must never show in the victims' streams; they would notice any.
const POISON: &[u8] = b"POISON POISON POISON";

fn swept_reset(shot: &Shot) -> Vec<u8> {
    let flags = if shot.n.is_multiple_of(2) { RST } else { RST | ACK };
    Forged { flags, seq: shot.swept(), ack: shot.random, ..Forged::default() }.as_client(shot)
}

#[test]
fn resets_all_over_the_sequence_space_reset_nothing() {
    Attack::new(swept_reset, |stats| class(stats, "rst")).run().assert_dropped("out_of_window", MOST);
}

#[test]
fn resets_all_over_the_sequence_space_reset_nothing_over_ipv6() {
    Attack::new(swept_reset, |stats| class(stats, "rst")).over_v6().run().assert_dropped("out_of_window", MOST);
}

#[test]
fn resets_in_the_window_draw_challenges_and_reset_nothing() {
    let frame = |shot: &Shot| {
        let flags = if shot.n.is_multiple_of(2) { RST } else { RST | ACK };
        Forged { flags, seq: shot.in_window(), ack: shot.random, ..Forged::default() }.as_client(shot)
    };
    let aftermath = Attack::new(frame, |stats| class(stats, "rst")).run();
    aftermath.assert_dropped("challenged", MOST);
    let answers = aftermath.challenge_acks();
    assert!((2..1000).contains(&answers), "{answers} challenge ACKs");
}

#[test]
fn syns_of_the_victims_own_addresses_change_nothing() {
    let frame = |shot: &Shot| {
        let seq = if shot.n.is_multiple_of(3) { shot.known.rcv_nxt.wrapping_add(shot.n % 5000) } else { shot.swept() };
        let flags = if shot.n.is_multiple_of(5) { SYN | ACK } else { SYN };
        Forged { flags, seq, ack: shot.random, ..Forged::default() }.as_client(shot)
    };
    let aftermath = Attack::new(frame, |stats| class(stats, "syn") + class(stats, "syn_ack")).run();
    aftermath.assert_dropped("challenged", MOST / 3);
    aftermath.assert_dropped("out_of_window", MOST * 2 / 3);
}

#[test]
fn forged_data_never_show_in_the_stream() {
    let frame = |shot: &Shot| {
        let (seq, ack) = (shot.swept(), shot.wrong_ack());
        Forged { flags: ACK | PSH, seq, ack, payload: POISON, ..Forged::default() }.as_client(shot)
    };
    Attack::new(frame, |stats| class(stats, "data")).run().assert_dropped("out_of_window", MOST);
}

#[test]
fn forged_data_in_the_window_with_an_unknown_acknowledgment_never_show_in_the_stream() {
    let frame = |shot: &Shot| {
        // Every other one at the very number that comes next.
        let seq = if shot.n.is_multiple_of(2) { shot.known.rcv_nxt } else { shot.in_window() };
        let ack = shot.wrong_ack();
        Forged { flags: ACK | PSH, seq, ack, payload: POISON, ..Forged::default() }.as_client(shot)
    };
    Attack::new(frame, |stats| class(stats, "data")).run().assert_dropped("bad_ack", MOST);
}

#[test]
fn fins_all_over_the_sequence_space_end_nothing() {
    let frame = |shot: &Shot| {
        let seq = if shot.n.is_multiple_of(4) { shot.known.rcv_nxt } else { shot.swept() };
        Forged { flags: FIN | ACK, seq, ack: shot.wrong_ack(), ..Forged::default() }.as_client(shot)
    };
    let aftermath = Attack::new(frame, |stats| class(stats, "fin")).run();
    aftermath.assert_dropped("out_of_window", MOST * 3 / 4);
    aftermath.assert_dropped("bad_ack", MOST / 4);
}

#[test]
fn a_storm_of_acknowledgments_old_new_and_from_the_future_disturbs_nothing() {
    let frame = |shot: &Shot| {
        let known = shot.known;
        let (seq, ack) = match shot.n % 6 {
            0 => (shot.swept(), shot.random),
            1 => (known.rcv_nxt, known.snd_nxt.wrapping_sub(shot.random % 100_000)),
            // Optimistic: of what will be sent in a moment.
            2 => (known.rcv_nxt, known.snd_max.wrapping_add(50_000 + shot.random % 100_000)),
            3 => (known.rcv_nxt, known.snd_nxt),
            4 => (known.rcv_nxt, shot.wrong_ack()),
            _ => (known.rcv_nxt.wrapping_sub(1), known.snd_nxt),
        };
        Forged { flags: ACK, seq, ack, ..Forged::default() }.as_client(shot)
    };
    let aftermath = Attack::new(frame, |stats| class(stats, "ack")).run();
    aftermath.assert_dropped("bad_ack", MOST * 2 / 6);
    aftermath.assert_dropped("out_of_window", u64::from(SHOTS) / 6);
}
