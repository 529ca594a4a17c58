//! A connection that a SYN cookie stands for (RFC 4987 section 3.6): the SYN-ACK of a listener that keeps nothing, and
//! the connection that the peer's ACK brings back. Both go the way of a SYN that is kept, so that the peer can't tell
//! the difference; the cookie itself is `tcp_common::cookie`'s.

use tcp_common::State;
use tcp_common::cookie::{CookieKeys, Offer, issue};

use super::Connection;
use super::output::Plan;
use crate::config::TcpConfig;
use crate::seq::SeqNum;
use crate::shared::Context;
use crate::wire::{Flags, Options, Outgoing, Segment, Timestamps};

/// How far the clock of the XDP program may lag behind ours, ns: it ticks 100 times a second or more often.
const COARSE_CLOCK_NS: u64 = 20_000_000;

impl Connection {
    /// The SYN-ACK that answers `syn`, after which this connection, fresh from [`Connection::new`], can be forgotten;
    /// `None`: there is no key.
    pub(crate) fn answer_with_cookie(
        mut self,
        cx: &Context<'_>,
        keys: &CookieKeys,
        syn: &Segment<'_>,
    ) -> Option<Outgoing> {
        self.state = State::LISTEN;
        self.take_syn(cx, &as_far_as_carried(syn, &self.config));
        self.state = State::SYN_RCVD;
        // A moment ago for all who check it, whatever the epoch of their clocks; so the timestamp is no later than ours.
        let issued = cx.now.as_nanos().saturating_sub(COARSE_CLOCK_NS);
        let cookie = issue(keys, issued, &self.key, syn.seq.0, &self.agreed())?;
        self.send.iss = SeqNum(cookie.isn);
        let answer = self.outgoing(cx, Plan::Syn);
        let timestamps = answer.options.timestamps.map(|ours| Timestamps { value: cookie.tsval, ..ours });
        Some(Outgoing { options: Options { timestamps, ..answer.options }, ..answer })
    }

    /// The peer's ACK `ack` brought a cookie back that agreed to `offer`: this connection is what it would have been, had
    /// the SYN been kept. The ACK itself is still to be handled.
    ///
    /// When the SYN-ACK left is not known: there is no sample of the round-trip time.
    pub(crate) fn reopen(&mut self, cx: &mut Context<'_>, offer: &Offer, ack: &Segment<'_>) {
        let flags = Flags::SYN.with(Flags::ECE.with(Flags::CWR).when(offer.ecn));
        let options = Options {
            mss: Some(offer.mss),
            window_scale: offer.window_scale,
            sack_permitted: offer.sack,
            // The SYN's own is lost, and was no later than this one.
            timestamps: ack.options.timestamps.filter(|_| offer.timestamps),
            ..Options::default()
        };
        let syn = Segment { seq: ack.seq - 1, ack: SeqNum(0), flags, options, payload: &[], ..*ack };
        self.open_passively(cx, &syn);
        self.recv.advertise_unscaled();
        self.send.syn_due = false;
        self.send.next = self.send.iss + 1;
        self.counters.segments_out += 1;
    }

    /// What SYN and SYN-ACK agree on.
    fn agreed(&self) -> Offer {
        Offer {
            mss: self.send.peer_mss,
            window_scale: self.recv.scaling.then_some(self.send.scale),
            sack: self.sack_agreed,
            ecn: self.ecn.agreed,
            timestamps: self.recv.timestamps().is_some(),
        }
    }
}

/// A SYN without what a cookie would have no place for; see [`Offer::carried`].
fn as_far_as_carried<'s>(syn: &Segment<'s>, config: &TcpConfig) -> Segment<'s> {
    if config.timestamps && syn.options.timestamps.is_some() {
        return *syn;
    }
    let options = Options { window_scale: None, sack_permitted: false, ..syn.options };
    Segment { options, flags: syn.flags.without(Flags::ECE).without(Flags::CWR), ..*syn }
}
