//! Attacks on what is left of a connection (RFC 1337).

use std::net::SocketAddr;

use tests::Lab;
use tests::net::{SERVER_V4, WireOptions};
use tests::peer;
use tests::wait::until_it;

use crate::attacker::{Attacker, SHOTS};
use crate::frames::{ACK, FIN, Forged, PSH, RST, SYN};
use crate::victim::Target;
use crate::{figure, frames_seen};

/// Port of RFC 867: the server closes first.
const DAYTIME: u16 = 13;

#[test]
fn a_connection_in_time_wait_stays_there_whatever_a_stranger_sends() {
    let lab = Lab::for_load(&WireOptions::default());
    let daemon = lab.daemon().tcp("msl = \"60s\"").listen(SERVER_V4, DAYTIME, "daytime").start();
    let mut clients = Vec::new();
    for _ in 0..10 {
        let client = lab.connect((SERVER_V4, DAYTIME));
        let _ = peer::read_to_end(&client);
        clients.push(Target::new(&lab, &client));
    }
    let in_time_wait = || figure(&daemon.stats(), "connections", "TIME_WAIT");
    until_it("all in TIME_WAIT", in_time_wait, |count| *count == 10);
    let rows = daemon.connections(DAYTIME);
    let numbers = |client: SocketAddr| {
        let row = rows.iter().find(|row| row.remote == client.to_string()).expect("its row");
        (row.number("rcv_nxt") as u32, row.number("snd_nxt") as u32)
    };
    let known: Vec<_> = clients.iter().map(|target| (*target, numbers(target.client))).collect();
    let before = frames_seen(&daemon.stats());
    Attacker::new(&lab).shoot(|n, random| {
        let (target, (rcv_nxt, snd_nxt)) = known[n as usize % known.len()];
        let flags = [RST, RST | ACK, ACK, ACK | PSH, FIN | ACK, SYN][random as usize % 6];
        // The exact numbers, around them, and anywhere; a SYN only with old ones: a newer one may reopen.
        let seq = match n / 10 % 3 {
            0 => rcv_nxt.wrapping_sub(u32::from(flags == SYN)),
            1 => rcv_nxt.wrapping_sub(random % 5000),
            _ => rcv_nxt.wrapping_sub(random >> 1),
        };
        let payload: &[u8] = if flags == ACK | PSH { b"late" } else { b"" };
        let macs = (target.client_mac, target.server_mac);
        Forged { flags, seq, ack: snd_nxt, payload, ..Forged::default() }.frame(macs, target.client, target.server)
    });
    until_it("every frame", || frames_seen(&daemon.stats()) - before, |frames| *frames >= u64::from(SHOTS));
    assert_eq!(in_time_wait(), 10);
}
