//! What connections do that is worth counting: timers that fired, repairs of losses, probes, answers to strangers; and
//! how often each cause changed each state. The simulator's coverage and `xtcp stats` show them. Drops have their own
//! counters ([`crate::drops`]).

use alloc::vec::Vec;
use core::cell::Cell;

use tcp_common::{Cause, State};

use crate::counters::counted;

counted! {
    /// Something that a connection did or that happened to it.
    enum Figure;
    /// How often each happened.
    struct FigureCounters;

    // Timers that expired.
    /// Our SYN or SYN-ACK was unanswered.
    EstablishTimer => "establish_timer",
    /// What was sent was unacknowledged for an RTO (RFC 6298).
    RetransmitTimer => "retransmit_timer",
    /// The retransmission timer expired early to probe the tail (RFC 8985 section 7).
    ProbeTimer => "probe_timer",
    /// A reordering window passed (RFC 8985 section 6.2).
    ReorderTimer => "reorder_timer",
    /// An ACK was held back long enough.
    DelayedAckTimer => "delayed_ack_timer",
    /// A closed window is to be probed.
    PersistTimer => "persist_timer",
    /// The connection was idle.
    KeepaliveTimer => "keepalive_timer",
    /// An orphan's peer did not close.
    FinWait2Timer => "fin_wait_2_timer",
    /// 2 x MSL passed.
    TimeWaitTimer => "time_wait_timer",
    /// The user timeout, or the time to linger, passed.
    UserTimer => "user_timer",

    // Segments.
    /// Our SYN or SYN-ACK was sent again.
    SynAgain => "syn_again",
    /// Octets were sent again.
    SentAgain => "sent_again",
    /// A probe of a closed window was sent (RFC 9293 section 3.8.6.1).
    WindowProbe => "window_probe",
    /// A keep-alive probe was sent (RFC 9293 section 3.8.4).
    KeepaliveProbe => "keepalive_probe",
    /// A challenge ACK was owed (RFC 5961).
    ChallengeAck => "challenge_ack",
    /// An unacceptable segment drew an ACK.
    UnacceptableAck => "unacceptable_ack",
    /// A reset was sent that ended a connection.
    ResetSent => "reset_sent",
    /// An ACK told by SACK of what arrived out of order (RFC 2018).
    SackSent => "sack_sent",
    /// An ACK told of what arrived twice (RFC 2883).
    DuplicateReported => "duplicate_reported",
    /// Reading opened the window enough to tell the peer of it unasked.
    WindowUpdate => "window_update",

    // Losses and what became of them.
    /// Three duplicate ACKs told of a loss (RFC 5681 section 3.2).
    FastRetransmit => "fast_retransmit",
    /// A partial ACK showed the next loss (RFC 6582).
    PartialAck => "partial_ack",
    /// New data left on the first two duplicate ACKs (RFC 3042).
    LimitedTransmit => "limited_transmit",
    /// RACK found a loss, and proportional rate reduction began (RFC 8985, RFC 9937).
    RackRecovery => "rack_recovery",
    /// RACK found more losses during a recovery, of what was sent before it or again in it.
    LostInRecovery => "lost_in_recovery",
    /// A tail loss probe was sent (RFC 8985 section 7.3).
    TailLossProbe => "tail_loss_probe",
    /// A tail loss probe repaired a loss that nothing else told of (RFC 8985 section 7.4).
    ProbeRepaired => "probe_repaired",
    /// A recovery ended with everything acknowledged that was outstanding when it began.
    Recovered => "recovered",
    /// A recovery was needless, as a timestamp showed (RFC 3522).
    EifelUndo => "eifel_undo",
    /// A recovery was needless, as reports of duplicates showed (RFC 2883).
    DuplicateUndo => "duplicate_undo",
    /// The peer forgot what it had reported (RFC 2018 section 8).
    Reneging => "reneging",

    // Congestion and path.
    /// The congestion window started over after an idle time (RFC 5681 section 4.1).
    IdleRestart => "idle_restart",
    /// Slow start slowed down because round trips got longer (RFC 9406).
    SlowStartSlowed => "slow_start_slowed",
    /// Slow start ended because round trips got longer (RFC 9406).
    SlowStartEnded => "slow_start_ended",
    /// A mark of the network arrived (RFC 3168).
    MarkSeen => "mark_seen",
    /// The peer's word of marks made us slow down (RFC 3168).
    EcnReduction => "ecn_reduction",
    /// An ICMP error made packets smaller (RFC 1191, RFC 8201).
    PathMtuLowered => "path_mtu_lowered",
    /// Packets became smaller because large ones were never acknowledged (RFC 4821).
    BlackHole => "black_hole",

    // Connections.
    /// Both sides opened at once (RFC 9293 section 3.5).
    SimultaneousOpen => "simultaneous_open",
    /// A SYN was answered with a cookie (RFC 4987 section 3.6).
    CookieSent => "cookie_sent",
    /// A cookie came back and was good.
    CookieOk => "cookie_ok",
    /// A segment without connection brought no good cookie back where one was possible.
    CookieBad => "cookie_bad",
    /// A SYN succeeded a connection in TIME_WAIT (RFC 6191).
    TimeWaitReused => "time_wait_reused",
    /// A connection was ended because somebody had deleted its entry of the connection table.
    EntryLost => "entry_lost",
    /// A writer waited for memory.
    Starved => "starved",
    /// What waited behind a gap was given up so that the bytes of the gap had memory.
    Pruned => "pruned",
    /// The receive buffer grew.
    BufferGrew => "buffer_grew",
}

/// What is counted of all connections of a stack.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    counters: FigureCounters,
    transitions: [[Cell<u64>; Cause::ALL.len()]; State::ALL.len()],
}

impl Figures {
    pub(crate) fn count(&self, figure: Figure) {
        self.counters.count(figure);
    }

    /// `cause` changed a connection's state from `state`.
    pub(crate) fn transition(&self, state: State, cause: Cause) {
        let counter = &self.transitions[state as usize][cause as usize];
        counter.set(counter.get() + 1);
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.counters.iter()
    }

    /// Each cause that changed a state, and how often.
    pub(crate) fn transitions(&self) -> Vec<(State, Cause, u64)> {
        let pairs = State::ALL.into_iter().flat_map(|state| Cause::ALL.map(|cause| (state, cause)));
        let counted = pairs.map(|(state, cause)| {
            let counter = &self.transitions[state as usize][cause as usize];
            (state, cause, counter.get())
        });
        counted.filter(|(.., count)| *count > 0).collect()
    }
}
