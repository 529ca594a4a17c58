//! What all connections of a stack share, and the view of it that a connection is handed while it acts.

use alloc::collections::VecDeque;

use tcp_common::siphash::SipKey;

use crate::api::{ConnectionId, Event};
use crate::buffer::Pool;
use crate::config::StackConfig;
use crate::drops::{DropCounters, DropReason, WaitCounters};
use crate::figures::{Figure, Figures};
use crate::limits::{CHALLENGE_ACKS_PER_SECOND, MAX_REPLIES, RateLimit};
use crate::random::Random;
use crate::time::Instant;
use crate::wire::Outgoing;

/// Everything of a stack but its tables.
pub(crate) struct Shared {
    pub(crate) config: StackConfig,
    pub(crate) pool: Pool,
    pub(crate) random: Random,
    pub(crate) isn_secret: SipKey,
    pub(crate) drops: DropCounters,
    pub(crate) waits: WaitCounters,
    pub(crate) figures: Figures,
    pub(crate) events: VecDeque<Event>,
    /// Segments that belong to no connection (any more), ready to be sent.
    pub(crate) replies: VecDeque<Outgoing>,
    pub(crate) reset_limit: RateLimit,
    challenge_limit: RateLimit,
}

impl Shared {
    pub(crate) fn new(config: StackConfig, isn_secret: SipKey, random: SipKey) -> Self {
        Shared {
            pool: Pool::new(config.share(config.max_buffer_memory)),
            random: Random::new(random),
            isn_secret,
            drops: DropCounters::default(),
            waits: WaitCounters::default(),
            figures: Figures::default(),
            events: VecDeque::new(),
            replies: VecDeque::new(),
            reset_limit: RateLimit::exact(config.rst_rate),
            challenge_limit: RateLimit::randomised(config.share(CHALLENGE_ACKS_PER_SECOND as usize) as u32),
            config,
        }
    }

    /// Queues the answer to a segment without a connection, unless the limits say no.
    pub(crate) fn reply(&mut self, now: Instant, reply: Outgoing) {
        if self.replies.len() < MAX_REPLIES && !self.reset_limit.take(now, &mut self.random) {
            self.drops.count(DropReason::RateLimited);
        } else {
            self.queue_reply(reply);
        }
    }

    /// Queues a segment that belongs to no connection, if there is room; whether it did.
    pub(crate) fn queue_reply(&mut self, reply: Outgoing) -> bool {
        let room = self.replies.len() < MAX_REPLIES;
        if room {
            self.replies.push_back(reply);
        } else {
            self.drops.count(DropReason::ReplyQueueFull);
        }
        room
    }

    /// Whether one more challenge ACK may leave this second.
    pub(crate) fn may_challenge(&mut self, now: Instant) -> bool {
        let may = self.challenge_limit.take(now, &mut self.random);
        if !may {
            self.drops.count(DropReason::ChallengeRate);
        }
        may
    }
}

/// A connection's view of the world while it handles one input.
pub(crate) struct Context<'a> {
    pub(crate) now: Instant,
    pub(crate) id: ConnectionId,
    pub(crate) shared: &'a mut Shared,
}

impl Context<'_> {
    pub(crate) fn event(&mut self, event: Event) {
        self.shared.events.push_back(event);
    }

    pub(crate) fn drop(&mut self, reason: DropReason) {
        self.shared.drops.count(reason);
    }

    pub(crate) fn count(&self, figure: Figure) {
        self.shared.figures.count(figure);
    }

    /// Whether one more challenge ACK may leave this second.
    pub(crate) fn may_challenge(&mut self) -> bool {
        self.shared.may_challenge(self.now)
    }
}
