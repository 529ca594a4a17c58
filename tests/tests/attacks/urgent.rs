//! Urgent data: forged, and a client's own (RFC 9293 section 3.8.5).

use std::io::Read;
use std::net::Shutdown;

use rustix::net::{SendFlags, send};
use tests::Lab;
use tests::net::SERVER_V4;

use crate::attacker::Shot;
use crate::frames::{ACK, Forged, PSH, URG};
use crate::{Attack, ECHO, MOST, class, serve};

#[test]
fn forged_urgent_pointers_disturb_nothing() {
    let frame = |shot: &Shot| {
        let urgent = [0, 1, 5, 1000, 0x7fff, 0xffff][shot.n as usize % 6];
        let seq = if shot.n.is_multiple_of(2) { shot.swept() } else { shot.in_window() };
        Forged { flags: ACK | PSH | URG, seq, ack: shot.wrong_ack(), urgent, payload: b"!", ..Forged::default() }
            .as_client(shot)
    };
    let aftermath = Attack::new(frame, |stats| class(stats, "data")).run();
    aftermath.assert_dropped("out_of_window", MOST / 2);
    aftermath.assert_dropped("bad_ack", MOST / 2);
}

#[test]
fn a_clients_urgent_data_are_delivered_in_line() {
    let lab = Lab::new();
    let _daemon = serve(&lab, SERVER_V4).start();
    let mut client = lab.connect((SERVER_V4, ECHO));
    let mut expected = Vec::new();
    for turn in 0..100_u8 {
        for (flags, bytes) in [(SendFlags::empty(), [turn; 700]), (SendFlags::OOB, [turn ^ 0xff; 700])] {
            assert_eq!(send(&client, &bytes, flags), Ok(bytes.len()));
            expected.extend(bytes);
        }
    }
    client.shutdown(Shutdown::Write).expect("a half-close");
    let mut echoed = Vec::new();
    client.read_to_end(&mut echoed).expect("the echo");
    tests::peer::assert_same(&echoed, &expected);
    let urgent = lab.segments(|segment| segment.flags.urg);
    assert!(!urgent.is_empty(), "the client's kernel sent no urgent data");
}
