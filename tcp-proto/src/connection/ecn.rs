//! Explicit congestion notification (RFC 3168): routers mark segments instead of dropping them, the receiver tells the
//! sender by ECE, the sender slows down once per window and says so by CWR.

use tcp_common::State;

use super::Connection;
use crate::figures::Figure;
use crate::shared::Context;
use crate::wire::{Flags, Segment};

/// What a connection knows of it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ecn {
    /// Whether both sides understand it.
    pub(super) agreed: bool,
    /// Whether a mark arrived that the peer has not answered by CWR.
    marked: bool,
    /// Whether the peer is to be told that we slowed down.
    pub(super) reduction_due: bool,
}

impl Ecn {
    /// The flag that tells the peer of marks.
    pub(super) fn echo(self) -> Flags {
        Flags::ECE.when(self.marked)
    }
}

impl Connection {
    /// What the peer's SYN or SYN-ACK says about it. A SYN-ACK with both flags is one that reflects ours
    /// (section 6.1.1).
    //= docs/rfc/rfc9293.md#SHLD-8
    //= docs/rfc/rfc3168.md#6.1.1-agree
    //= docs/rfc/rfc3168.md#6.1.1-reflected
    pub(super) fn agree_on_ecn(&mut self, syn: &Segment<'_>) {
        let (ece, cwr) = (syn.flags.has(Flags::ECE), syn.flags.has(Flags::CWR));
        let offered = if syn.has_ack() { ece && !cwr } else { ece && cwr && self.state == State::LISTEN };
        self.ecn.agreed = self.config.ecn && offered;
    }

    /// An acceptable segment: takes note of marks, of the peer's answer to them, and of its word of ours.
    //= docs/rfc/rfc3168.md#6.1.3-echo
    //= docs/rfc/rfc3168.md#6.1.5-outside
    pub(super) fn take_marks(&mut self, cx: &Context<'_>, segment: &Segment<'_>) {
        if !self.ecn.agreed {
            return;
        }
        if segment.flags.has(Flags::CWR) {
            self.ecn.marked = false;
        }
        if segment.ce && !segment.payload.is_empty() {
            cx.count(Figure::MarkSeen);
            self.ecn.marked = true;
        }
        if segment.flags.has(Flags::ECE) && !self.is_recovering() {
            self.slow_down(cx);
        }
    }

    /// As for a loss, without one (section 6.1.2), once per window.
    //= docs/rfc/rfc3168.md#6.1.2-react
    //= docs/rfc/rfc3168.md#6.1.2-once
    fn slow_down(&mut self, cx: &Context<'_>) {
        let at = self.outstanding(cx);
        let Some(flow) = &mut self.flow else { return };
        // Taken once it has passed: numbers come again.
        let _ = flow.reduced.take_if(|reduced| at.una.at_or_after(*reduced));
        if flow.reduced.is_some() {
            return;
        }
        cx.count(Figure::EcnReduction);
        flow.congestion.on_loss(at.next - at.una, at.mss);
        self.ecn.reduction_due = true;
        flow.reduced = Some(at.next);
    }
}
