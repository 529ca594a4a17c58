//! Traces that lead to each state, for tests that begin there. Every step on the way is expected exactly.

use tcp_proto::{State, TcpConfig};

use super::{Trace, plain};

/// The states that a connection can be in, CLOSED and LISTEN aside: those are not connections.
pub const CONNECTED: [State; 9] = [
    State::SYN_SENT,
    State::SYN_RCVD,
    State::ESTABLISHED,
    State::FIN_WAIT_1,
    State::FIN_WAIT_2,
    State::CLOSE_WAIT,
    State::CLOSING,
    State::LAST_ACK,
    State::TIME_WAIT,
];

impl Trace {
    /// A connection in `state`, nothing left to send and nothing ever sent but SYN and FIN: our next number is 1,
    /// or 2 after our FIN; the peer's likewise. Passively opened and accepted, except SYN_SENT (actively) and
    /// SYN_RCVD (not accepted yet).
    pub fn in_state(state: State) -> Trace {
        Trace::in_state_with(state, plain())
    }

    /// The same with a configuration that puts no options on the wire.
    pub fn in_state_with(state: State, config: TcpConfig) -> Trace {
        let mut trace = match state {
            State::SYN_SENT => Trace::connect(config),
            State::SYN_RCVD => Trace::listen(config),
            _ => Trace::established(config),
        };
        match state {
            State::CLOSED | State::LISTEN => panic!("{state:?} is no connection's state"),
            State::SYN_SENT => trace.stack("S 0:0 <mss 1460>"),
            State::SYN_RCVD => trace.syn_arrives(),
            State::ESTABLISHED => {}
            State::FIN_WAIT_1 | State::FIN_WAIT_2 | State::CLOSING | State::TIME_WAIT => trace.we_close_first(state),
            State::CLOSE_WAIT | State::LAST_ACK => trace.peer_closes_first(state),
        }
        trace.events.clear();
        assert_eq!(trace.state(), state);
        trace
    }

    fn syn_arrives(&mut self) {
        self.peer("S 0:0 <mss 1460>");
        self.stack("SA 0:0 ack 1 <mss 1460>");
    }

    fn we_close_first(&mut self, until: State) {
        self.shutdown();
        self.stack("FA 1:1 ack 1");
        if until == State::CLOSING {
            self.peer("FA 1:1 ack 1");
            return self.stack(". 2:2 ack 2");
        }
        if until != State::FIN_WAIT_1 {
            self.peer(". 1:1 ack 2");
        }
        if until == State::TIME_WAIT {
            self.peer("FA 1:1 ack 2");
            self.stack(". 2:2 ack 2");
        }
    }

    fn peer_closes_first(&mut self, until: State) {
        self.peer("FA 1:1 ack 1");
        self.stack(". 1:1 ack 2");
        if until == State::LAST_ACK {
            self.shutdown();
            self.stack("FA 1:1 ack 2");
        }
    }
}
