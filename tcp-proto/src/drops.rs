//! Why something was dropped: every reason has a name and a counter. How often an application had to wait.

use crate::buffer::NoRoom;
use crate::counters::counted;

counted! {
    /// Reason of a drop in the stack: of a segment, of an answer, of a connection (the XDP program counts its own).
    enum DropReason;
    /// How often each reason struck.
    struct DropCounters;

    /// Ethernet, IP or TCP header inconsistent or cut short.
    BadHeader => "bad_header",
    /// IP, TCP or ICMP checksum wrong.
    BadChecksum => "bad_checksum",
    /// An IP fragment.
    Fragment => "fragment",
    /// Neither TCP nor ICMP.
    NotTcp => "not_tcp",
    /// An ICMP message that is no error about a connection of ours.
    IrrelevantIcmp => "irrelevant_icmp",
    /// Source or destination address (IP, or the source's MAC) can't be a peer's.
    Martian => "martian",
    /// A flag combination that means nothing where it arrived, or text past the peer's FIN.
    Meaningless => "meaningless",
    /// No connection, and no answer is due (RST, silent listener).
    NoConnection => "no_connection",
    /// Carries something, but no SYN cookie, at a listener that checks them: may belong to a handshake whose ACK is lost.
    NoCookie => "no_cookie",
    /// A reset or stateless ACK was due, but the rate limit is used up.
    RateLimited => "rate_limited",
    /// SYN queue of the listener full.
    SynQueueFull => "syn_queue_full",
    /// Accept queue of the listener full.
    AcceptQueueFull => "accept_queue_full",
    /// The stack holds `max_connections` already.
    TooManyConnections => "too_many_connections",
    /// The connection table had no room.
    TableFull => "table_full",
    /// A copy of the SYN made a connection of another stack at the same time: the SYN changed its queue.
    OtherStacks => "other_stacks",
    /// In TIME_WAIT, ended early to make room for another.
    TimeWaitEvicted => "time_wait_evicted",
    /// An orphan, reset because there were `max_orphans` already.
    TooManyOrphans => "too_many_orphans",
    /// Outside the receive window (RFC 9293 section 3.10.7.4, first step).
    OutOfWindow => "out_of_window",
    /// Timestamp older than the last one (PAWS, RFC 7323 section 5).
    OldTimestamp => "old_timestamp",
    /// Acknowledges what was never sent, or nothing recent (RFC 5961 section 5).
    BadAck => "bad_ack",
    /// In window but not exact RST, or a SYN in a synchronized state (RFC 5961 sections 3 and 4).
    Challenged => "challenged",
    /// No memory for received data (`max_buffer_memory`).
    NoMemory => "no_memory",
    /// Too many gaps in received data.
    TooManyGaps => "too_many_gaps",
    /// Not answered: the connection has answered just before.
    AckRate => "ack_rate",
    /// Not answered: all connections together sent as many challenge ACKs this second as they may.
    ChallengeRate => "challenge_rate",
    /// Not answered: too many answers wait to be sent.
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
