//! The eleven states of RFC 9293 section 3.3.2 and the one function that changes them (figure 5).
//!
//! Leaves out: what a change makes the connection send or arm; that is `tcp-proto`'s.

/// State of a connection. The variants carry the names that maps, JSON and metrics print.
#[expect(
    non_camel_case_types,
    reason = "bpftool prints a variant by its Rust name, and the contract's names are the RFC's"
)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(u8)]
pub enum State {
    /// No connection: the state before an open and after the end.
    #[default]
    CLOSED = 0,
    /// A listener waits for a SYN.
    LISTEN = 1,
    /// We sent a SYN and wait for the peer's.
    SYN_SENT = 2,
    /// Both SYNs have been seen; ours is not acknowledged yet.
    SYN_RCVD = 3,
    /// Data flows both ways.
    ESTABLISHED = 4,
    /// We closed; our FIN is not acknowledged yet.
    FIN_WAIT_1 = 5,
    /// Our FIN is acknowledged; the peer may still send.
    FIN_WAIT_2 = 6,
    /// The peer closed; we may still send.
    CLOSE_WAIT = 7,
    /// Both closed at once; our FIN is not acknowledged yet.
    CLOSING = 8,
    /// The peer closed, then we did; our FIN is not acknowledged yet.
    LAST_ACK = 9,
    /// Both FINs are acknowledged; we stay 2 x MSL to answer repeated ones.
    TIME_WAIT = 10,
}

/// What can move a connection from one state to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The application listens.
    PassiveOpen,
    /// The application connects.
    ActiveOpen,
    /// A SYN without ACK arrived.
    Syn,
    /// A SYN that also acknowledges ours arrived.
    SynAck,
    /// An acceptable ACK of our SYN arrived.
    SynAcked,
    /// The peer's FIN arrived in order.
    Fin,
    /// An acceptable ACK of our FIN arrived.
    FinAcked,
    /// The application closed its sending side.
    Close,
    /// An acceptable RST arrived.
    Reset,
    /// The application gave the connection up.
    Abort,
    /// A timer ended the connection (user timeout, retries used up, FIN_WAIT_2, 2 x MSL).
    Expired,
}

impl Cause {
    /// Every cause, in declaration order.
    pub const ALL: [Cause; 11] = [
        Cause::PassiveOpen,
        Cause::ActiveOpen,
        Cause::Syn,
        Cause::SynAck,
        Cause::SynAcked,
        Cause::Fin,
        Cause::FinAcked,
        Cause::Close,
        Cause::Reset,
        Cause::Abort,
        Cause::Expired,
    ];
}

impl State {
    /// Every state, in the order of their numbers.
    pub const ALL: [State; 11] = [
        State::CLOSED,
        State::LISTEN,
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

    /// The state that follows `cause`, per RFC 9293 figure 5 and section 3.10.
    ///
    /// A cause that means nothing in a state leaves it as it is. A FIN that also acknowledges ours
    /// is two causes, `FinAcked` then `Fin`, in the order of the steps of section 3.10.7.4.
    #[must_use]
    pub const fn next(self, cause: Cause) -> State {
        use State::*;
        match (self, cause) {
            (CLOSED, Cause::PassiveOpen) => LISTEN,
            (CLOSED | LISTEN, Cause::ActiveOpen) => SYN_SENT,
            (LISTEN | SYN_SENT, Cause::Syn) => SYN_RCVD,
            (SYN_SENT, Cause::SynAck) | (SYN_RCVD, Cause::SynAcked) => ESTABLISHED,
            (SYN_RCVD | ESTABLISHED, Cause::Close) => FIN_WAIT_1,
            (SYN_RCVD | ESTABLISHED, Cause::Fin) => CLOSE_WAIT,
            (FIN_WAIT_1, Cause::FinAcked) => FIN_WAIT_2,
            (FIN_WAIT_1, Cause::Fin) => CLOSING,
            (FIN_WAIT_2, Cause::Fin) | (CLOSING, Cause::FinAcked) => TIME_WAIT,
            (CLOSE_WAIT, Cause::Close) => LAST_ACK,
            (LISTEN | SYN_SENT, Cause::Close) | (LAST_ACK, Cause::FinAcked) => CLOSED,
            // RFC 1337: a RST does not end TIME_WAIT. A listener has no peer that could reset it.
            (TIME_WAIT | LISTEN, Cause::Reset) => self,
            (_, Cause::Reset | Cause::Abort | Cause::Expired) => CLOSED,
            _ => self,
        }
    }

    /// Whether both SYNs have been exchanged and acknowledged (a "synchronized" state).
    #[must_use]
    pub const fn is_synchronized(self) -> bool {
        self as u8 >= State::ESTABLISHED as u8
    }

    /// Whether our FIN has not been asked for yet, so that the application may still send.
    #[must_use]
    pub const fn may_send(self) -> bool {
        matches!(self, State::SYN_SENT | State::SYN_RCVD | State::ESTABLISHED | State::CLOSE_WAIT)
    }

    /// Whether the peer's FIN has not arrived yet, so that more of its data may come.
    #[must_use]
    pub const fn may_receive(self) -> bool {
        matches!(self, State::SYN_SENT | State::SYN_RCVD | State::ESTABLISHED | State::FIN_WAIT_1 | State::FIN_WAIT_2)
    }

    /// The name every map, JSON document and metric prints.
    #[must_use]
    pub const fn name(self) -> &'static str {
        use State::*;
        match self {
            CLOSED => "CLOSED",
            LISTEN => "LISTEN",
            SYN_SENT => "SYN_SENT",
            SYN_RCVD => "SYN_RCVD",
            ESTABLISHED => "ESTABLISHED",
            FIN_WAIT_1 => "FIN_WAIT_1",
            FIN_WAIT_2 => "FIN_WAIT_2",
            CLOSE_WAIT => "CLOSE_WAIT",
            CLOSING => "CLOSING",
            LAST_ACK => "LAST_ACK",
            TIME_WAIT => "TIME_WAIT",
        }
    }
}
