//! Why something was dropped: every reason has a name and a counter. How often an application had to wait.

use crate::buffer::NoRoom;

/// Reason of a drop in the stack: of a segment, of an answer, of a connection (the XDP program counts its own).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DropReason {
    /// Ethernet, IP or TCP header inconsistent or cut short.
    BadHeader,
    /// IP or TCP checksum wrong.
    BadChecksum,
    /// An IP fragment.
    Fragment,
    /// Neither TCP nor ICMP.
    NotTcp,
    /// An ICMP message that is no error about a connection of ours.
    IrrelevantIcmp,
    /// Source or destination address (IP, or the source's MAC) can't be a peer's.
    Martian,
    /// A flag combination that means nothing where it arrived, or text past the peer's FIN.
    Meaningless,
    /// No connection, and no answer is due (RST, silent listener).
    NoConnection,
    /// A reset or stateless ACK was due, but the rate limit is used up.
    RateLimited,
    /// SYN queue of the listener full.
    SynQueueFull,
    /// Accept queue of the listener full.
    AcceptQueueFull,
    /// The stack holds `max_connections` already.
    TooManyConnections,
    /// The connection table had no room.
    TableFull,
    /// In TIME_WAIT, ended early to make room for another.
    TimeWaitEvicted,
    /// An orphan, reset because there were `max_orphans` already.
    TooManyOrphans,
    /// Outside the receive window (RFC 9293 section 3.10.7.4, first step).
    OutOfWindow,
    /// Timestamp older than the last one (PAWS, RFC 7323 section 5).
    OldTimestamp,
    /// Acknowledges what was never sent, or nothing recent (RFC 5961 section 5).
    BadAck,
    /// In window but not exact RST, or a SYN in a synchronized state (RFC 5961 sections 3 and 4).
    Challenged,
    /// No memory for received data (`max_buffer_memory`).
    NoMemory,
    /// Too many gaps in received data.
    TooManyGaps,
    /// Not answered: the connection has answered just before.
    AckRate,
    /// Not answered: all connections together sent as many challenge ACKs this second as they may.
    ChallengeRate,
    /// Not answered: too many answers wait to be sent.
    ReplyQueueFull,
}

macro_rules! names {
    ($($variant:ident => $name:literal),+ $(,)?) => {
        impl DropReason {
            /// Every reason, in declaration order.
            pub(crate) const ALL: &'static [DropReason] = &[$(DropReason::$variant),+];

            /// The name that `xtcp stats` prints.
            pub(crate) const fn name(self) -> &'static str {
                match self { $(DropReason::$variant => $name),+ }
            }
        }
    };
}

names! {
    BadHeader => "bad_header",
    BadChecksum => "bad_checksum",
    Fragment => "fragment",
    NotTcp => "not_tcp",
    IrrelevantIcmp => "irrelevant_icmp",
    Martian => "martian",
    Meaningless => "meaningless",
    NoConnection => "no_connection",
    RateLimited => "rate_limited",
    SynQueueFull => "syn_queue_full",
    AcceptQueueFull => "accept_queue_full",
    TooManyConnections => "too_many_connections",
    TableFull => "table_full",
    TimeWaitEvicted => "time_wait_evicted",
    TooManyOrphans => "too_many_orphans",
    OutOfWindow => "out_of_window",
    OldTimestamp => "old_timestamp",
    BadAck => "bad_ack",
    Challenged => "challenged",
    NoMemory => "no_memory",
    TooManyGaps => "too_many_gaps",
    AckRate => "ack_rate",
    ChallengeRate => "challenge_rate",
    ReplyQueueFull => "reply_queue_full",
}

impl From<NoRoom> for DropReason {
    fn from(why: NoRoom) -> Self {
        match why {
            NoRoom::Memory => DropReason::NoMemory,
            NoRoom::Gaps => DropReason::TooManyGaps,
            NoRoom::Buffer => DropReason::OutOfWindow,
        }
    }
}

/// How often each reason struck.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct DropCounters([u64; DropReason::ALL.len()]);

impl DropCounters {
    pub(crate) fn count(&mut self, reason: DropReason) {
        self.0[reason as usize] += 1;
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        DropReason::ALL.iter().map(|&reason| (reason.name(), self.0[reason as usize]))
    }
}

/// How often an application could not queue all that it wanted to send.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct WaitCounters {
    /// The send buffer was full.
    pub(crate) send_buffer: u64,
    /// There was no memory.
    pub(crate) memory: u64,
}

impl WaitCounters {
    /// Each with the name that `xtcp stats` prints.
    pub(crate) fn named(&self) -> [(&'static str, u64); 2] {
        [("send_buffer", self.send_buffer), ("memory", self.memory)]
    }
}
