//! What the XDP program does with a frame: the whole decision, generic over the maps it reads.

use crate::counters::{Class, DropReason, Outcome};

/// What becomes of a frame, and how it is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What the segment is, if it is ours and well-formed.
    pub class: Option<Class>,
    /// What becomes of it.
    pub verdict: Verdict,
}

/// What becomes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The kernel gets it.
    Pass,
    /// Nobody gets it.
    Drop(DropReason),
    /// The daemon gets it, through the socket of the queue that it arrived on.
    Steer(Steer),
}

/// Why the daemon gets a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Steer {
    /// It belongs to a connection.
    Connection,
    /// It is a SYN to a listener.
    Syn,
    /// It is another segment of an owned port, to be answered per RFC 9293 sections 3.10.7.1 and 3.10.7.2.
    NoConnection,
    /// It is an ICMP error that quotes a segment of a connection.
    Icmp,
}

impl Verdict {
    /// Which counter it moves.
    #[must_use]
    #[inline(always)]
    pub const fn outcome(self) -> Outcome {
        match self {
            Verdict::Pass => Outcome::Pass,
            Verdict::Drop(_) => Outcome::Drop,
            Verdict::Steer(Steer::Connection) => Outcome::SteerConnection,
            Verdict::Steer(Steer::Syn) => Outcome::SteerSyn,
            Verdict::Steer(Steer::NoConnection) => Outcome::SteerNoConnection,
            Verdict::Steer(Steer::Icmp) => Outcome::SteerIcmp,
        }
    }
}
