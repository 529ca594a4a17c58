//! Buffers that tune themselves: they start small and grow with what the connection moves, up to the configured sizes.

mod common;

use common::{Seg, Trace, plain, stream};
use tcp_proto::TcpConfig;

const FIRST: usize = 64 << 10;
const MOST: u32 = 1 << 20;

fn tuned() -> TcpConfig {
    TcpConfig { autotune: true, window_scale: true, recv_buffer: MOST, send_buffer: MOST, ..plain() }
}

fn established() -> Trace {
    Trace::established_with(tuned(), "S 0:0 <mss 1460,ws 5>", 65_535)
}

/// The peer sends windows of data of which the application reads `most` bytes each time; the window offered then.
fn window_after(t: &mut Trace, rounds: u32, most: usize) -> u32 {
    let mut next = 1;
    for _ in 0..rounds {
        let room = t.connection().info().rcv_wnd.min(1000);
        let payload = stream(next, room as usize);
        t.peer_more(&Seg { payload, ..Seg::parse(&format!(". {next}:{next} ack 1")) });
        next += room;
        t.read(most);
        while t.take().is_some() {}
    }
    t.connection().info().rcv_wnd
}

#[test]
fn the_window_offered_grows_for_an_application_that_reads() {
    let mut t = established();
    assert!(t.connection().info().rcv_wnd <= FIRST as u32);
    assert!(window_after(&mut t, 3000, 2000) > MOST - MOST / 8);
}

#[test]
fn the_window_offered_does_not_grow_for_one_that_does_not() {
    let mut t = established();
    assert!(window_after(&mut t, 3000, 0) < FIRST as u32);
    assert!(t.stack.buffer_memory() <= FIRST + 8192, "{}", t.stack.buffer_memory());
}

#[test]
fn the_send_buffer_takes_twice_the_congestion_window_and_64_kib_at_least() {
    let mut t = established();
    assert_eq!(t.connection().send_room(), FIRST);
    let mut written = 0;
    loop {
        let room = t.connection().send_room();
        let cwnd = t.connection().info().cwnd;
        if cwnd > MOST / 2 {
            assert_eq!(room as u32 + (written - t.acked_bytes()), MOST);
            break;
        }
        t.write(room);
        written += room as u32;
        let mut end = 0;
        while let Some(seg) = t.take() {
            end = seg.seq + seg.payload.len() as u32;
        }
        t.peer_more(&Seg::parse(&format!(". 1:1 ack {end}")));
        assert!(t.clock() < 1000);
    }
}
