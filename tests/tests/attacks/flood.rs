//! SYNs from everywhere, more than a SYN queue holds (RFC 4987 section 2): the rest is answered with cookies.

use std::net::{Ipv4Addr, SocketAddr};

use tests::net::SERVER_V4;

use crate::attacker::Shot;
use crate::frames::{Forged, SYN};
use crate::{Attack, ECHO, class};

#[test]
fn a_flood_of_syns_from_everywhere_disturbs_no_connection_and_keeps_nobody_out() {
    let frame = |shot: &Shot| {
        let source = Ipv4Addr::from(0x0a4d_0100 | (shot.random & 0xff));
        let source = SocketAddr::new(source.into(), (shot.random >> 8) as u16 | 1);
        let to = SocketAddr::new(SERVER_V4, ECHO);
        Forged { flags: SYN, seq: shot.random, ..Forged::default() }.between(shot, source, to)
    };
    let aftermath = Attack::new(frame, |stats| class(stats, "syn")).run();
    let (sent, returned) = (aftermath.grew("cookies", "sent"), aftermath.grew("cookies", "ok"));
    println!("SYNs answered with cookies: {sent}; came back: {returned}");
    assert!(sent > 0 && returned > 0);
    let listeners = aftermath.after["listeners"].as_array().expect("listeners");
    let address = SocketAddr::new(SERVER_V4, ECHO).to_string();
    let echo = listeners.iter().find(|listener| listener["address"] == address).expect("the listener");
    assert_eq!((&echo["syn_queue_max"], &echo["syn_queue"]), (&4096.into(), &0.into()), "{echo:#}");
    assert_eq!(echo["syn_overflows"], 0, "{echo:#}");
}
