//! The situations in which a segment can arrive: each of the eleven states, the two ways into SYN_RCVD, and those
//! states in which more than their name decides (the application is gone, the window is closed). What a situation
//! knows of its TCB comes from the trace that leads to it, not from the stack.

use crate::common::reach::CONNECTED;
use crate::common::{Trace, plain};
use tcp_proto::{StackConfig, State, TcpConfig};

/// A connection before a segment arrives, or none. Numbers are relative to each side's first one.
#[derive(Clone, Copy, Debug)]
pub struct Situation {
    pub name: &'static str,
    pub state: State,
    /// SND.UNA.
    pub una: u32,
    /// SND.NXT.
    pub nxt: u32,
    /// MAX.SND.WND.
    pub max_window: u32,
    /// RCV.NXT.
    pub rcv_nxt: u32,
    /// RCV.WND: up to the right edge that was offered last.
    pub rcv_wnd: u32,
    /// Whether it came from LISTEN.
    pub passive: bool,
    /// Whether the application still holds it.
    pub held: bool,
    /// Whether a SYN may end it and begin the next connection.
    pub reusable: bool,
    /// What the application has not read yet.
    pub unread: usize,
    reach: fn() -> Trace,
}

/// Octets that we sent and that are not acknowledged, where there are such.
pub const OUTSTANDING: u32 = 100;
const WINDOW: u32 = 65_535;

/// No connection, and none possible.
const NONE: Situation = Situation {
    name: "CLOSED",
    state: State::CLOSED,
    una: 0,
    nxt: 0,
    max_window: 0,
    rcv_nxt: 0,
    rcv_wnd: 0,
    passive: false,
    held: false,
    unread: 0,
    reusable: false,
    reach: nobody_listens,
};

/// We sent data that are not acknowledged; the peer sent nothing.
const OPEN: Situation = Situation {
    name: "ESTABLISHED",
    state: State::ESTABLISHED,
    una: 1,
    nxt: 1 + OUTSTANDING,
    max_window: WINDOW,
    rcv_nxt: 1,
    rcv_wnd: WINDOW,
    passive: true,
    held: true,
    unread: 0,
    reusable: false,
    reach: established,
};

/// Everything is sent, our FIN too, and nothing of it is acknowledged.
const SHUT: Situation =
    Situation { name: "FIN_WAIT_1", state: State::FIN_WAIT_1, nxt: OPEN.nxt + 1, reach: shut, ..OPEN };

/// All of that is acknowledged.
const HALF: Situation =
    Situation { name: "FIN_WAIT_2", state: State::FIN_WAIT_2, una: SHUT.nxt, reach: half_closed, ..SHUT };

pub const SITUATIONS: [Situation; 16] = [
    NONE,
    Situation { name: "LISTEN", state: State::LISTEN, reach: listens, ..NONE },
    Situation { name: "SYN_SENT", state: State::SYN_SENT, nxt: 1, held: true, reach: syn_sent, ..NONE },
    Situation {
        name: "SYN_RCVD from LISTEN",
        state: State::SYN_RCVD,
        una: 0,
        nxt: 1,
        held: false,
        reach: syn_rcvd_passive,
        ..OPEN
    },
    Situation {
        name: "SYN_RCVD from SYN_SENT",
        state: State::SYN_RCVD,
        una: 0,
        nxt: 1,
        passive: false,
        reach: syn_rcvd_active,
        ..OPEN
    },
    OPEN,
    Situation {
        name: "ESTABLISHED, RCV.WND = 0",
        rcv_nxt: 1001,
        rcv_wnd: 0,
        unread: 1000,
        reach: established_and_full,
        ..OPEN
    },
    SHUT,
    Situation { name: "FIN_WAIT_1, the application is gone", held: false, reach: closed, ..SHUT },
    HALF,
    Situation { name: "FIN_WAIT_2, the application is gone", held: false, reach: closed_and_acked, ..HALF },
    Situation {
        name: "CLOSE_WAIT",
        state: State::CLOSE_WAIT,
        rcv_nxt: 2,
        rcv_wnd: WINDOW - 1,
        reach: close_wait,
        ..OPEN
    },
    Situation { name: "CLOSING", state: State::CLOSING, rcv_nxt: 2, rcv_wnd: WINDOW - 1, reach: closing, ..SHUT },
    Situation { name: "LAST_ACK", state: State::LAST_ACK, rcv_nxt: 2, rcv_wnd: WINDOW - 1, reach: last_ack, ..SHUT },
    Situation {
        name: "TIME_WAIT",
        state: State::TIME_WAIT,
        rcv_nxt: 2,
        rcv_wnd: WINDOW - 1,
        reusable: true,
        reach: time_wait,
        ..HALF
    },
    Situation {
        name: "TIME_WAIT, time_wait_reuse = false",
        state: State::TIME_WAIT,
        rcv_nxt: 2,
        rcv_wnd: WINDOW - 1,
        reach: time_wait_for_good,
        ..HALF
    },
];

impl Situation {
    /// A fresh trace that has come here, with nothing left to send and no event left to see.
    pub fn reach(&self) -> Trace {
        let mut trace = (self.reach)();
        trace.quiet();
        trace.events.clear();
        trace
    }

    /// Whether there is a connection.
    pub fn is_connection(&self) -> bool {
        CONNECTED.contains(&self.state)
    }

    /// Whether the peer's numbers are known.
    pub fn knows_the_peer(&self) -> bool {
        self.is_connection() && self.state != State::SYN_SENT
    }
}

/// Small tables: a matrix makes very many stacks.
fn small() -> StackConfig {
    StackConfig { max_connections: 4, ..StackConfig::default() }
}

fn listens() -> Trace {
    Trace::listen_with(small(), plain())
}

fn nobody_listens() -> Trace {
    let mut t = listens();
    let listener = t.listener.take().expect("a listener");
    t.stack.close_listener(t.now, listener);
    t
}

fn syn_sent() -> Trace {
    let mut t = Trace::connect_with(small(), plain());
    t.stack("S 0:0 <mss 1460>");
    t
}

fn syn_rcvd_active() -> Trace {
    let mut t = syn_sent();
    t.peer("S 0:0 <mss 1460>");
    t.stack("SA 0:0 ack 1 <mss 1460>");
    t
}

fn syn_rcvd_passive() -> Trace {
    let mut t = listens();
    t.peer("S 0:0 <mss 1460>");
    t.stack("SA 0:0 ack 1 <mss 1460>");
    t
}

fn accepted(config: TcpConfig) -> Trace {
    let mut t = Trace::listen_with(small(), config);
    t.peer("S 0:0 <mss 1460>");
    t.stack("SA 0:0 ack 1 <mss 1460>");
    t.peer(". 1:1 ack 1");
    t.accept();
    t
}

fn established() -> Trace {
    let mut t = accepted(plain());
    t.write(OUTSTANDING as usize);
    t.stack("PA 1:101 ack 1");
    t
}

fn established_and_full() -> Trace {
    let mut t = accepted(TcpConfig { recv_buffer: 1000, ..plain() });
    t.peer("PA 1:1001 ack 1");
    t.stack(". 1:1 ack 1001");
    t.write(OUTSTANDING as usize);
    t.stack("PA 1:101 ack 1001");
    t
}

fn shut() -> Trace {
    let mut t = accepted(plain());
    t.write(OUTSTANDING as usize);
    t.shutdown();
    t.stack("FPA 1:101 ack 1");
    t
}

fn closed() -> Trace {
    let mut t = shut();
    t.close();
    t
}

fn half_closed() -> Trace {
    let mut t = shut();
    t.peer(". 1:1 ack 102");
    t
}

fn closed_and_acked() -> Trace {
    let mut t = half_closed();
    t.close();
    t
}

fn close_wait() -> Trace {
    let mut t = accepted(plain());
    t.peer("FA 1:1 ack 1");
    t.stack(". 1:1 ack 2");
    t.write(OUTSTANDING as usize);
    t.stack("PA 1:101 ack 2");
    t
}

fn closing() -> Trace {
    let mut t = shut();
    t.peer("FA 1:1 ack 1");
    t.stack(". 102:102 ack 2");
    t
}

fn last_ack() -> Trace {
    let mut t = accepted(plain());
    t.peer("FA 1:1 ack 1");
    t.stack(". 1:1 ack 2");
    t.write(OUTSTANDING as usize);
    t.shutdown();
    t.stack("FPA 1:101 ack 2");
    t
}

/// Ten seconds into it, so that a restart shows.
fn time_wait_with(config: TcpConfig) -> Trace {
    let mut t = accepted(config);
    t.write(OUTSTANDING as usize);
    t.shutdown();
    t.stack("FPA 1:101 ack 1");
    t.peer("FA 1:1 ack 102");
    t.stack(". 102:102 ack 2");
    t.quiet_until(10_000);
    t
}

fn time_wait() -> Trace {
    time_wait_with(plain())
}

fn time_wait_for_good() -> Trace {
    time_wait_with(TcpConfig { time_wait_reuse: false, ..plain() })
}
