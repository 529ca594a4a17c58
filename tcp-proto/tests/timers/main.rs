//! The timers of a connection as packet traces on a virtual clock: one module per row of `docs/timers.md`, each
//! with our default and with the textbook's value set by configuration. Instants are exact to the millisecond.

#[path = "../common/mod.rs"]
mod common;

mod delayed_ack;
mod establish;
mod fin_wait_2;
mod keepalive;
mod persist;
mod retransmit;
mod rtt;
mod table;
mod time_wait;
mod user_timeout;

use common::Trace;
use tcp_proto::{CloseReason, Event, State, TcpConfig};

/// A peer's SYN without options but the MSS.
const PEER_SYN: &str = "S 0:0 <mss 1460>";
const SECOND: u64 = 1_000;
const HOUR: u64 = 3_600 * SECOND;

/// Every timer as it is by default; options that would only lengthen the traces are off.
fn defaults() -> TcpConfig {
    TcpConfig { delayed_ack: TcpConfig::default().delayed_ack, ..common::plain() }
}

/// Established by a passive open whose handshake took `rtt` ms, which is the first sample. The clock stands there.
fn established_after(config: TcpConfig, rtt: u64) -> Trace {
    let mut t = Trace::listen(config);
    t.peer(PEER_SYN);
    t.stack("SA 0:0 ack 1 <mss 1460>");
    t.quiet_until(rtt);
    t.peer(". 1:1 ack 1");
    t.accept();
    t
}

/// RTO of the connection, ms.
fn rto(t: &mut Trace) -> u64 {
    t.connection().info().rto.as_millis() as u64
}

/// Smoothed RTT of the connection, ms; `None` before the first sample.
fn srtt(t: &mut Trace) -> Option<u64> {
    t.connection().info().srtt.map(|srtt| srtt.as_millis() as u64)
}

/// The connection lives until just before `at` ms and ends there by a timeout without a word to the peer; the
/// application is told.
#[track_caller]
fn times_out_silently_at(t: &mut Trace, at: u64) {
    t.quiet_until(at - 1);
    assert_ne!(t.state(), State::CLOSED, "too early");
    t.quiet_until(at);
    assert_timed_out(t);
}

/// The connection ends at `at` ms by a timeout, with `reset` to the peer; the application is told.
#[track_caller]
fn times_out_with_a_reset_at(t: &mut Trace, at: u64, reset: &str) {
    t.stack_at(at, reset);
    t.quiet();
    assert_timed_out(t);
}

#[track_caller]
fn assert_timed_out(t: &Trace) {
    assert_eq!(t.events.back(), Some(&Event::Closed(t.id.unwrap(), CloseReason::TimedOut)));
    t.assert_empty();
}

/// A connection that the application gave up ends at `at` ms, not before, without a word to anybody.
#[track_caller]
fn is_forgotten_at(t: &mut Trace, at: u64) {
    let told = t.events.len();
    t.quiet_until(at - 1);
    assert_ne!(t.state(), State::CLOSED, "too early");
    t.quiet_until(at);
    t.assert_empty();
    assert_eq!(t.events.len(), told, "nobody is there to be told");
}
