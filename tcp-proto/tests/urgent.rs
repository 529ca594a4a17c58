//! Urgent data (RFC 9293 section 3.8.5): delivered in line, and the application is told where they end. We send none.

mod common;

use common::{Trace, plain};
use tcp_proto::{Event, State, TcpConfig};

/// Whether the application was told of urgent data since it last looked; other events pass by.
fn told(t: &mut Trace) -> bool {
    let urgent = Event::Urgent(t.id.unwrap());
    t.events.drain(..).filter(|event| *event == urgent).count() == 1
}

/// What is left to read until the end of urgent data.
fn left(t: &mut Trace) -> u32 {
    t.connection().urgent_remaining()
}

//= docs/rfc/rfc9293.md#MUST-30
//= docs/rfc/rfc9293.md#MUST-32
//= docs/rfc/rfc9293.md#3.10.7.4-6-ESTABLISHED
#[test]
fn the_application_is_told_once_of_each_advance_of_the_pointer() {
    let mut t = Trace::established(plain());
    t.peer("UA 1:11 ack 1 urg 5");
    t.stack(". 1:1 ack 11");
    assert!(told(&mut t));
    // Nothing new: the same end again, an older one, a pointer without the flag.
    for quiet in ["UA 1:11 ack 1 urg 0", "UA 1:11 ack 1 urg 5", "A 11:21 ack 1 urg 9"] {
        t.peer(quiet);
        t.take();
        assert!(!told(&mut t), "{quiet}");
    }
    t.peer("UA 21:31 ack 1 urg 6");
    t.stack(". 1:1 ack 31");
    assert!(told(&mut t));
}

//= docs/rfc/rfc9293.md#MUST-33
//= docs/rfc/rfc9293.md#MUST-62
#[test]
fn the_pointer_names_the_octet_after_the_urgent_data_and_reading_counts_down_to_it() {
    let mut t = Trace::established(plain());
    assert_eq!(left(&mut t), 0);
    t.peer("UA 1:11 ack 1 urg 5");
    t.stack(". 1:1 ack 11");
    assert_eq!(left(&mut t), 5);
    assert_eq!((t.read(3), left(&mut t)), (3, 2));
    assert_eq!((t.read(2), left(&mut t)), (2, 0));
    assert_eq!((t.read(10), left(&mut t)), (5, 0));
}

//= docs/rfc/rfc9293.md#MUST-31
#[test]
fn urgent_data_may_be_longer_than_a_segment_a_window_and_the_pointer() {
    let mut t = Trace::established(plain());
    t.peer("UA 1:1 ack 1 urg 65535");
    t.quiet();
    assert!(told(&mut t), "before any of them arrive");
    assert_eq!(left(&mut t), 65_535);
    let mut at = 1;
    while at < 200_001 {
        t.peer(&format!("UA {at}:{} ack 1 urg 65535", at + 1000));
        t.take();
        assert_eq!(t.read(1000), 1000);
        at += 1000;
    }
    assert_eq!(left(&mut t), 64_535, "the last pointer less what was read with it");
}

//= docs/rfc/rfc9293.md#MUST-66
//= docs/rfc/rfc9293.md#3.10.7.4-1-zero-window
#[test]
fn a_closed_window_keeps_nobody_from_hearing_of_urgent_data() {
    let mut t = Trace::established(TcpConfig { recv_buffer: 1000, ..plain() });
    t.peer("PA 1:1001 ack 1");
    t.stack(". 1:1 ack 1001");
    t.events.clear();
    t.peer("UA 1001:1001 ack 1 urg 10");
    assert!(told(&mut t), "a bare segment");
    t.peer("UA 1001:1011 ack 1 urg 20");
    t.stack(". 1:1 ack 1001");
    assert!(told(&mut t), "with data that find no room");
    assert_eq!(left(&mut t), 1020);
}

//= docs/rfc/rfc9293.md#3.10.7.4-6-CLOSE-WAIT
#[test]
fn after_the_peers_end_and_outside_of_the_window_a_pointer_means_nothing() {
    let mut t = Trace::established(plain());
    t.peer("UA 100001:100011 ack 1 urg 10");
    t.stack(". 1:1 ack 1");
    assert!(!told(&mut t));
    t.peer("FUA 1:11 ack 1 urg 10");
    t.stack(". 1:1 ack 12");
    assert!(told(&mut t), "on the FIN it counts");
    assert_eq!((t.state(), left(&mut t)), (State::CLOSE_WAIT, 10));
    t.peer("UA 12:12 ack 1 urg 1000");
    assert!(!told(&mut t));
    assert_eq!((left(&mut t), t.read(100), left(&mut t)), (10, 10, 0));
}

#[test]
fn urgent_data_of_a_handshake_wait_for_who_accepts() {
    let mut t = Trace::listen(plain());
    t.peer("S 0:0 <mss 1460>");
    t.stack("SA 0:0 ack 1 <mss 1460>");
    t.peer("UA 1:11 ack 1 urg 4");
    t.stack(". 1:1 ack 11");
    t.accept();
    assert_eq!(left(&mut t), 4);
}
