//! SYN cookies of a stack (RFC 4987 section 3.6): when a SYN is answered without keeping it, whose ACKs are checked, and
//! what comes of them ([docs/decisions/0013](../../../docs/decisions/0013-cookies.md)). The XDP program issues and checks
//! the same cookies; what it lets through is checked here again.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::SocketAddr;

use tcp_common::ConnectionKey;
use tcp_common::cookie::{CookieKeys, Offer, check};

use super::Stack;
use crate::api::{ConnectionId, LinkAddress, ListenerId};
use crate::config::{SynCookies, TcpConfig};
use crate::connection::{Connection, Origin};
use crate::drops::DropReason;
use crate::figures::Figure;
use crate::limits::{COOKIE_DEMAND_HOLD, COOKIE_DEMAND_INTERVAL, COOKIE_LIFETIME, MAX_REPLIES};
use crate::listener::Listener;
use crate::seq::SeqNum;
use crate::shared::Context;
use crate::time::Instant;
use crate::wire::{Flags, Outgoing, Segment};

/// Whose turn it is while a SYN is answered that makes no connection.
const NO_CONNECTION: ConnectionId = ConnectionId { index: u32::MAX, generation: u32::MAX };

/// That a listener sends cookies, because its SYN queue is full: the XDP program is to send them for it, and to look for
/// them in ACKs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CookieDemand {
    /// Where it listens (the address may be a wildcard).
    pub listener: SocketAddr,
    /// Until when the program is to send them; they come back for two epochs more.
    pub until: Instant,
}

/// What was found in a segment.
enum Found {
    /// It was not looked for a cookie.
    Nothing,
    /// A good one, and what it stands for.
    Cookie(Offer),
    /// None, or a bad one.
    NoCookie {
        /// Whether cookies are known to be out.
        awaited: bool,
    },
}

impl Stack {
    /// Sets the keys of SYN cookies, the same for all stacks of an interface and the XDP program. Before, none are issued:
    /// a SYN is kept or dropped.
    pub fn set_cookie_keys(&mut self, keys: CookieKeys) {
        self.cookie_keys = keys;
    }

    /// Takes the listeners that sent cookies of late because their SYN queues were full; each at most once a second.
    #[must_use]
    pub fn take_cookie_demands(&mut self) -> Vec<CookieDemand> {
        core::mem::take(&mut self.cookie_demands)
    }

    /// Resets the strangers of late, but for those whose cookie the XDP program knows to be good: `is_behind_cookie`
    /// tells whether it made the entry of a connection. There is one without a connection when the segment that brought
    /// the cookie back was lost between program and stack; whoever sent it repeats it.
    pub fn reset_strangers(&mut self, now: Instant, mut is_behind_cookie: impl FnMut(&ConnectionKey) -> bool) {
        for reset in core::mem::take(&mut self.doubtful_resets) {
            if is_behind_cookie(&reset.key) {
                self.shared.drops.count(DropReason::NoCookie);
            } else {
                self.shared.reply(now, reset);
            }
        }
    }

    /// Whether what belongs to no connection here may follow a cookie that the program took.
    pub(super) fn may_be_behind_cookie(&self, config: &TcpConfig, segment: &Segment<'_>) -> bool {
        let takes_cookies = self.shared.config.program_answers && config.syn_cookies == SynCookies::Auto;
        takes_cookies && segment.length() > 0
    }

    /// Keeps a reset until it is known whether it is due.
    pub(super) fn doubt(&mut self, reset: Outgoing) {
        if self.doubtful_resets.len() < MAX_REPLIES {
            self.doubtful_resets.push(reset);
        } else {
            self.shared.drops.count(DropReason::ReplyQueueFull);
        }
    }

    /// Answers a SYN to `listener` with a cookie, if that is what it does now; whether it did.
    pub(super) fn is_answered_by_cookie(
        &mut self,
        now: Instant,
        key: ConnectionKey,
        link: LinkAddress,
        syn: &Segment<'_>,
        listener: ListenerId,
    ) -> bool {
        let Some(queue) = self.listeners.get_mut(listener).filter(|queue| queue.sends_cookies()) else { return false };
        let config = queue.config.clone();
        // The number is replaced by the cookie.
        let connection = Connection::new(key, Origin::Passive(listener), link, config, SeqNum(0), now);
        let id = NO_CONNECTION;
        let cx = Context { now, id, shared: &mut self.shared };
        let Some(answer) = connection.answer_with_cookie(&cx, &self.cookie_keys, syn) else { return false };
        if self.shared.queue_reply(answer) {
            self.shared.figures.count(Figure::CookieSent);
        }
        queue.cookies_until = Some(now + COOKIE_LIFETIME);
        queue.cookie_overflows += u64::from(queue.config.syn_cookies == SynCookies::Auto);
        if let Some(demand) = queue.cookie_demand(now) {
            self.cookie_demands.push(demand);
        }
        true
    }

    /// A segment without a connection came to `listener`: checks it for a cookie, if it may bring one back; whether it
    /// was dealt with. If not, it draws a reset.
    pub(super) fn is_dealt_with_as_cookie(
        &mut self,
        now: Instant,
        key: ConnectionKey,
        link: LinkAddress,
        segment: &Segment<'_>,
        listener: ListenerId,
    ) -> bool {
        match self.look_for_cookie(now, &key, segment, listener) {
            Found::Nothing => false,
            Found::Cookie(offer) => {
                self.cookie_returns(now, key, link, segment, listener, &offer);
                true
            }
            Found::NoCookie { awaited } => self.cookie_is_bad(segment, awaited),
        }
    }

    /// The half-open connection `index` got `segment`: an ACK of something else than its SYN may bring a cookie back that
    /// answered an earlier copy of the peer's. Then the peer knows of no other connection, and this one is replaced;
    /// whether it was.
    pub(super) fn is_replaced_by_cookie(
        &mut self,
        now: Instant,
        index: u32,
        link: LinkAddress,
        segment: &Segment<'_>,
    ) -> bool {
        let Some(connection) = self.entries.get(index).map(|entry| &entry.connection) else { return false };
        let key = connection.key;
        let Some(listener) = connection.would_be_accepted_by(segment).filter(|_| !connection.acks_our_syn(segment))
        else {
            return false;
        };
        let Found::Cookie(offer) = self.look_for_cookie(now, &key, segment, listener) else { return false };
        self.act(now, index, |connection, cx| connection.is_succeeded(cx));
        self.cookie_returns(now, key, link, segment, listener, &offer);
        true
    }

    /// What a segment to `listener` brings.
    fn look_for_cookie(&self, now: Instant, key: &ConnectionKey, segment: &Segment<'_>, listener: ListenerId) -> Found {
        let answered_for = self.shared.config.program_answers;
        let queue = self.listeners.get(listener).filter(|queue| queue.checks_cookies(now, answered_for));
        let Some(queue) = queue.filter(|_| !segment.flags.has(Flags::SYN)) else { return Found::Nothing };
        let tsecr = segment.options.timestamps.filter(|_| queue.config.timestamps).map(|theirs| theirs.echo);
        let offer = check(&self.cookie_keys, now.as_nanos(), key, segment.seq.0, segment.ack.0, tsecr);
        offer.map_or_else(|| Found::NoCookie { awaited: queue.awaits_cookies(now) }, Found::Cookie)
    }

    /// Builds the connection that a cookie stands for, if there is room. If not, nothing is said, and the cookie stays
    /// good: the peer will repeat what it sends.
    fn cookie_returns(
        &mut self,
        now: Instant,
        key: ConnectionKey,
        link: LinkAddress,
        ack: &Segment<'_>,
        listener: ListenerId,
        offer: &Offer,
    ) {
        self.shared.figures.count(Figure::CookieOk);
        let Some(config) = self.make_room_for_cookie(now, listener) else {
            // The program made an entry for it, which would keep the place of others.
            if self.shared.config.program_answers {
                self.changes.remove_entry(key);
            }
            return;
        };
        let index = self.insert(now, key, Origin::Passive(listener), link, config, ack.ack - 1).index;
        self.act(now, index, |connection, cx| {
            connection.reopen(cx, offer, ack);
            connection.segment_arrives(cx, link, ack);
        });
    }

    /// Notes that a cookie of `listener` came back; what its connection is configured with, if there is room for one.
    fn make_room_for_cookie(&mut self, now: Instant, listener: ListenerId) -> Option<Arc<TcpConfig>> {
        let queue = self.listeners.get_mut(listener)?;
        // The program may have sent it, and others with it.
        queue.cookies_until = Some(now + COOKIE_LIFETIME);
        if queue.accept_queue_is_full() {
            queue.accept_overflows += 1;
            self.shared.drops.count(DropReason::AcceptQueueFull);
            return None;
        }
        let config = queue.config.clone();
        self.make_room(now).then_some(config)
    }

    /// What brings no cookie back draws a reset, unless cookies are awaited and it carries something: then the ACK before
    /// it may be lost, and with it the connection that this belongs to. Whoever sent it repeats it, in the order in which
    /// it counts. Whether nothing is left to do.
    fn cookie_is_bad(&mut self, segment: &Segment<'_>, awaited: bool) -> bool {
        self.shared.figures.count(Figure::CookieBad);
        let spared = awaited && segment.length() > 0;
        if spared {
            self.shared.drops.count(DropReason::NoCookie);
        }
        spared
    }
}

impl Listener {
    /// Whether the next SYN is answered by a cookie.
    pub(crate) fn sends_cookies(&self) -> bool {
        match self.config.syn_cookies {
            SynCookies::Always => true,
            SynCookies::Auto => self.syn_queue_is_full(),
            SynCookies::Never => false,
        }
    }

    /// Whether a stranger's ACK is checked for a cookie. The program tells not which it issued (`program_answers`).
    fn checks_cookies(&self, now: Instant, program_answers: bool) -> bool {
        self.awaits_cookies(now) || program_answers && self.config.syn_cookies == SynCookies::Auto
    }

    /// Whether cookies are known to be out. While the program alone sends them, it keeps what brings none back to itself.
    fn awaits_cookies(&self, now: Instant) -> bool {
        match self.config.syn_cookies {
            SynCookies::Always => true,
            SynCookies::Auto => self.cookies_until.is_some_and(|until| now < until),
            SynCookies::Never => false,
        }
    }

    /// What to tell the program, if it is time to tell it again.
    fn cookie_demand(&mut self, now: Instant) -> Option<CookieDemand> {
        let due = self.cookie_demand_due.is_none_or(|due| now >= due);
        if !due || self.config.syn_cookies == SynCookies::Always {
            return None;
        }
        self.cookie_demand_due = Some(now + COOKIE_DEMAND_INTERVAL);
        Some(CookieDemand { listener: self.address, until: now + COOKIE_DEMAND_HOLD })
    }
}
