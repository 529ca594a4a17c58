//! Loss recovery: what is lost, and what to send again. The connection tells it what happened (`on_*`) and asks what to
//! send next; how much may be in flight is [`crate::congestion`]'s business. With selective acknowledgments it is
//! [`sack`], without them [`newreno`].

mod newreno;
mod prr;
mod rack;
mod sack;
mod scoreboard;

use alloc::boxed::Box;
use core::time::Duration;

use crate::congestion::{Acked, Congestion};
use crate::figures::{Figure, Figures};
use crate::seq::{SeqNum, Span};
use crate::time::Instant;
use newreno::NewReno;
pub(crate) use rack::{Path, RoundTrips};
use sack::Sack;

/// Where the connection's sending side is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outstanding {
    /// SND.UNA.
    pub(crate) una: SeqNum,
    /// SND.NXT.
    pub(crate) next: SeqNum,
    /// Full-sized segment, bytes.
    pub(crate) mss: u32,
}

impl Outstanding {
    fn in_flight(&self) -> u32 {
        self.next - self.una
    }
}

/// An acceptable ACK.
#[derive(Clone, Copy, Debug)]
pub(crate) struct News<'a> {
    /// Where sending stands after it.
    pub(crate) at: Outstanding,
    pub(crate) now: Instant,
    /// Octets that it newly acknowledges.
    pub(crate) acked: u32,
    /// Whether it is a duplicate (RFC 5681 section 2).
    pub(crate) is_duplicate: bool,
    /// Its SACK blocks.
    pub(crate) sacks: &'a [Span],
    /// The timestamp that it echoes, our clock in ms.
    pub(crate) echo: Option<u32>,
    /// What is known of the path's delay.
    pub(crate) trips: RoundTrips,
    /// MAX.SND.WND, bytes.
    pub(crate) max_window: u32,
    /// Where to count what is done about it.
    pub(crate) figures: &'a Figures,
}

/// What to send next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Next {
    /// Its first octet.
    pub(crate) seq: SeqNum,
    /// Octets from there on that belong to it, at most.
    pub(crate) most: u32,
    /// Octets that congestion control lets go.
    pub(crate) budget: u32,
}

/// What the retransmission timer waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// RTO: what is outstanding is lost (RFC 6298).
    #[default]
    Timeout,
    /// A probe makes the peer tell what it has (RFC 8985 section 7).
    Probe,
    /// What looks lost had time to arrive late (RFC 8985 section 6.2).
    Reorder,
}

/// Loss recovery of a connection that has something outstanding, or had.
#[derive(Debug)]
pub(crate) enum Recovery {
    NewReno(NewReno),
    Sack(Box<Sack>),
}

impl Recovery {
    /// Nothing sent yet; `next` is SND.NXT. `path`: with selective acknowledgments, and what they showed before.
    pub(crate) fn new(next: SeqNum, path: Option<Path>) -> Self {
        match path {
            Some(path) => Recovery::Sack(Box::new(Sack::new(next, path))),
            None => Recovery::NewReno(NewReno::new(next)),
        }
    }

    /// What selective acknowledgments showed of the path.
    pub(crate) fn path(&self) -> Path {
        match self {
            Recovery::NewReno(_) => Path::default(),
            Recovery::Sack(sack) => sack.path(),
        }
    }

    /// What to send next under a congestion window of `window`; `more`: there is something new that the peer's window
    /// allows.
    pub(crate) fn next(&self, at: Outstanding, window: u32, more: bool) -> Next {
        match self {
            Recovery::NewReno(newreno) => newreno.next(at, window),
            Recovery::Sack(sack) => sack.next(at, window, more),
        }
    }

    /// Octets that count as under way.
    pub(crate) fn in_flight(&self, una: SeqNum) -> u32 {
        match self {
            Recovery::NewReno(newreno) => newreno.in_flight(una),
            Recovery::Sack(sack) => sack.in_flight(),
        }
    }

    /// Whether a loss is being repaired.
    pub(crate) fn is_active(&self) -> bool {
        match self {
            Recovery::NewReno(newreno) => newreno.is_active(),
            Recovery::Sack(sack) => sack.is_active(),
        }
    }

    /// What sending something new, or something again, counts as now; `None`: nothing special.
    pub(crate) fn figure_of_sending(&self, is_new: bool) -> Option<Figure> {
        match self {
            Recovery::NewReno(newreno) => (is_new && newreno.is_limited()).then_some(Figure::LimitedTransmit),
            Recovery::Sack(sack) if sack.is_probing() => Some(Figure::TailLossProbe),
            Recovery::Sack(sack) => (is_new && sack.is_limited()).then_some(Figure::LimitedTransmit),
        }
    }

    /// Whether a probe is what is sent next.
    pub(crate) fn is_probing(&self) -> bool {
        matches!(self, Recovery::Sack(sack) if sack.is_probing())
    }

    /// Octets were sent; `next` is SND.NXT before that.
    pub(crate) fn on_sent(&mut self, span: Span, next: SeqNum, now: Instant) {
        match self {
            Recovery::NewReno(newreno) => newreno.on_sent(span.end),
            Recovery::Sack(sack) => sack.on_sent(span, next, now),
        }
    }

    /// Everything from `una` on is to be sent again: the peer's window was closed when it was sent.
    pub(crate) fn resend_from(&mut self, una: SeqNum) {
        match self {
            Recovery::NewReno(newreno) => newreno.resend_from(una),
            Recovery::Sack(sack) => sack.resend(),
        }
    }

    /// Segments of more than `size` bytes are lost: the path does not carry them.
    pub(crate) fn resend_larger_than(&mut self, size: u32, una: SeqNum) {
        match self {
            Recovery::NewReno(newreno) => newreno.resend_from(una),
            Recovery::Sack(sack) => sack.resend_larger_than(size),
        }
    }

    /// The largest segment that an ACK newly acknowledges, bytes: at least so much of the path is known.
    pub(crate) fn largest_acked(&self, news: &News<'_>) -> u32 {
        match self {
            // Which segments they were is not remembered: one at least had its share.
            Recovery::NewReno(_) => news.acked.min(news.at.mss),
            Recovery::Sack(sack) => sack.largest_acked(news.at.una),
        }
    }

    /// An acceptable ACK arrived; the round trip that it measured, if it did.
    pub(crate) fn on_ack(&mut self, news: &News<'_>, congestion: &mut Congestion) -> Option<Duration> {
        match self {
            Recovery::NewReno(newreno) => {
                newreno.on_news(news, congestion);
                None
            }
            Recovery::Sack(sack) => sack.on_ack(news, congestion),
        }
    }

    /// The retransmission timer expired.
    pub(crate) fn on_timeout(&mut self, news: &News<'_>, congestion: &mut Congestion) {
        match self {
            Recovery::NewReno(newreno) => newreno.on_timeout(news.at, congestion),
            Recovery::Sack(sack) => sack.on_timeout(news, congestion),
        }
    }

    /// The timer expired that was not about a timeout.
    pub(crate) fn on_early_timer(&mut self, purpose: Purpose, news: &News<'_>, congestion: &mut Congestion) {
        match (self, purpose) {
            (Recovery::Sack(sack), Purpose::Probe) => sack.on_probe_timeout(congestion),
            (Recovery::Sack(sack), Purpose::Reorder) => sack.on_reorder_timeout(news, congestion),
            _ => {}
        }
    }

    /// What the retransmission timer is to wait for, and how long: no longer than `rto`, which is left of the RTO.
    //= docs/rfc/rfc8985.md#8-timer
    //= docs/rfc/rfc8985.md#7.2-pto
    pub(crate) fn timer(
        &self,
        at: Outstanding,
        rto: Duration,
        trips: Option<RoundTrips>,
        now: Instant,
    ) -> (Purpose, Duration) {
        let (Recovery::Sack(sack), Some(trips)) = (self, trips) else { return (Purpose::Timeout, rto) };
        let reorder = sack.reorder_deadline().map(|at| (Purpose::Reorder, at.since(now)));
        let probe = || sack.probe_timeout(at, trips.smoothed).map(|after| (Purpose::Probe, after));
        reorder.or_else(probe).filter(|(_, after)| *after < rto).unwrap_or((Purpose::Timeout, rto))
    }
}
