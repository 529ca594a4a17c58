//! One connection: the RFC's TCB, and what the files beside this one do with it. [`arrives`] is "segment
//! arrives", [`output`] decides what to send and writes it, [`expires`] serves timers, [`user`] the
//! application's calls. Whoever calls in passes a [`Context`]; afterwards the stack settles what changed.

pub(crate) mod arrives;
mod cookie;
mod ecn;
mod expires;
mod flow;
pub(crate) mod output;
mod path;
pub(crate) mod receiver;
mod sender;
mod synchronized;
pub(crate) mod time_wait;
mod user;

use alloc::boxed::Box;
use alloc::sync::Arc;

use tcp_common::headers::default_mss;
use tcp_common::layout::FLAG_TIMESTAMPS;
use tcp_common::{Cause, ConnectionKey, ConnectionValue, State};

use crate::api::{CloseReason, ConnectionInfo, Event, LinkAddress, ListenerId, NoEntry, SoftError};
use crate::config::TcpConfig;
use crate::drops::DropReason;
use crate::figures::Figure;
use crate::limits::CONNECTION_ACK_INTERVAL_MS;
use crate::rtt::Rtt;
use crate::seq::SeqNum;
use crate::shared::Context;
use crate::time::Instant;
use crate::timers::{Timer, Timers};
use crate::wire::Options;

use ecn::Ecn;
use flow::{Flow, Memory};
pub(crate) use output::clock;
use path::PathMtu;
use receiver::Receiver;
use sender::Sender;

/// Smallest MSS we believe a peer: less would multiply the cost of every byte.
const MIN_MSS: u16 = 64;

/// How a connection came to be (RFC 9293 MUST-11).
//= docs/rfc/rfc9293.md#MUST-11
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The application connected.
    Active,
    /// A SYN came to a listener.
    Passive(ListenerId),
}

/// Who would miss a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holder {
    /// Its listener: it is half-open or waits to be accepted.
    Listener,
    /// The application has a handle.
    Application,
    /// Nobody any more: the application has closed it.
    Nobody,
}

/// The lines of a stack's connections; each connection stands in one at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Queue {
    /// Its application waits for memory to write to.
    Starving,
    /// An orphan that still delivers what the application left, or its FIN.
    Delivering,
    /// An orphan that has delivered everything and waits for the peer's FIN.
    Delivered,
    /// In TIME_WAIT, and the application does not need it any more.
    TimeWait,
}

impl Queue {
    /// How many there are.
    pub(crate) const COUNT: usize = Queue::TimeWait as usize + 1;
}

/// A probe that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Probe {
    /// Of the peer's window: carries data, and breaks the window and silly-window rules.
    Window,
    /// Of an idle peer's life: carries nothing.
    Idle,
}

/// Stream and segment counters.
#[derive(Clone, Copy, Debug, Default)]
struct Counters {
    segments_in: u64,
    segments_out: u64,
    bytes_in: u64,
    bytes_out: u64,
    retransmits: u32,
}

/// A connection.
pub(crate) struct Connection {
    pub(crate) key: ConnectionKey,
    pub(crate) state: State,
    pub(crate) origin: Origin,
    pub(crate) config: Arc<TcpConfig>,
    pub(crate) timers: Timers,
    pub(crate) holder: Holder,
    /// Why it ended; `None` before.
    pub(crate) ended: Option<CloseReason>,
    link: LinkAddress,
    send: Sender,
    recv: Receiver,
    rtt: Rtt,
    /// The congestion window and loss recovery, while the connection sends.
    flow: Option<Box<Flow>>,
    memory: Memory,
    /// Whether both sides understand selective acknowledgments.
    sack_agreed: bool,
    ecn: Ecn,
    path: PathMtu,
    /// Repetitions of what the establish or retransmit timer repeats, since the peer last got on.
    retries: u8,
    /// Probes of window or idleness since the peer last answered.
    probes: u8,
    probe_due: Option<Probe>,
    nodelay: bool,
    /// The last soft error, until the application asks for it.
    soft_error: Option<SoftError>,
    /// Whether the application closed in SYN_RCVD: the close follows once our SYN is acknowledged.
    close_waits: bool,
    counters: Counters,
    /// When a challenge or out-of-window ACK left last, ms of our clock.
    last_challenge: u32,
    created: Instant,
    since: Instant,
}

impl Connection {
    /// A connection in CLOSED, before its open.
    pub(crate) fn new(
        key: ConnectionKey,
        origin: Origin,
        link: LinkAddress,
        config: Arc<TcpConfig>,
        iss: SeqNum,
        now: Instant,
    ) -> Self {
        let mss = default_mss(&key);
        Connection {
            key,
            state: State::CLOSED,
            origin,
            timers: Timers::default(),
            holder: if origin == Origin::Active { Holder::Application } else { Holder::Listener },
            ended: None,
            link,
            send: Sender::new(iss, mss),
            recv: Receiver::new(&config),
            rtt: Rtt::new(&config),
            flow: None,
            memory: Memory::default(),
            sack_agreed: false,
            ecn: Ecn::default(),
            path: PathMtu::default(),
            retries: 0,
            probes: 0,
            probe_due: None,
            nodelay: config.nodelay,
            soft_error: None,
            close_waits: false,
            counters: Counters::default(),
            last_challenge: clock(now).wrapping_sub(CONNECTION_ACK_INTERVAL_MS),
            created: now,
            since: now,
            config,
        }
    }

    /// Whether the application has a handle.
    pub(crate) fn is_held(&self) -> bool {
        self.holder == Holder::Application
    }

    /// Whether nobody waits for the outcome: the application has closed it.
    pub(crate) fn is_orphan(&self) -> bool {
        self.holder == Holder::Nobody
    }

    /// The line in which it stands.
    pub(crate) fn queue(&self) -> Option<Queue> {
        match (self.holder, self.state) {
            (_, State::CLOSED) => None,
            (Holder::Application, _) => self.starves().then_some(Queue::Starving),
            (Holder::Nobody, State::FIN_WAIT_1 | State::CLOSING | State::LAST_ACK) => Some(Queue::Delivering),
            (Holder::Nobody, State::FIN_WAIT_2) => Some(Queue::Delivered),
            (Holder::Nobody, State::TIME_WAIT) => Some(Queue::TimeWait),
            _ => None,
        }
    }

    /// Moves to the state that follows `cause`, with what entering that state entails.
    fn advance(&mut self, cx: &mut Context<'_>, cause: Cause) {
        let next = self.state.next(cause);
        if next == self.state {
            return;
        }
        cx.shared.figures.transition(self.state, cause);
        self.state = next;
        self.since = cx.now;
        match next {
            State::ESTABLISHED => self.on_established(cx),
            State::FIN_WAIT_2 if self.is_orphan() => {
                self.timers.stop(Timer::UserTimeout);
                self.arm(cx, Timer::FinWait2, self.config.fin_wait2_timeout);
            }
            State::TIME_WAIT => self.on_time_wait(cx),
            State::CLOSED => self.timers.stop_all(),
            _ => {}
        }
    }

    fn on_established(&mut self, cx: &mut Context<'_>) {
        self.restart_keepalive(cx);
        if self.origin == Origin::Active && self.is_held() {
            cx.event(Event::Connected(cx.id));
        }
        if self.close_waits {
            self.advance(cx, Cause::Close);
        }
    }

    /// Every other timer stops, and 2 x MSL begins (RFC 9293 section 3.10.7.4, eighth step).
    //= docs/rfc/rfc9293.md#3.10.7.4-8-FIN-WAIT-2
    fn on_time_wait(&mut self, cx: &mut Context<'_>) {
        self.timers.stop_all();
        self.restart_time_wait(cx);
        self.send.release_all(&mut cx.shared.pool);
    }

    /// Ends the connection without a word to the peer.
    fn end(&mut self, cx: &mut Context<'_>, cause: Cause, reason: CloseReason) {
        self.advance(cx, cause);
        self.ended = Some(reason);
        self.send.release_all(&mut cx.shared.pool);
        if reason != CloseReason::Finished {
            self.recv.discard(&mut cx.shared.pool);
        }
    }

    /// Ends the connection and, if the peer waits for more from us, tells it by a RST.
    pub(crate) fn abort(&mut self, cx: &mut Context<'_>, cause: Cause, reason: CloseReason) {
        if self.peer_is_to_be_reset() {
            cx.count(Figure::ResetSent);
            let reset = self.reset_segment(cx);
            cx.shared.replies.push_back(reset);
            self.counters.segments_out += 1;
        }
        self.end(cx, cause, reason);
    }

    /// RFC 9293 section 3.10.5. Its CLOSING and LAST-ACK begin when the FIN is sent; ours begin when it is queued,
    /// and until it leaves the peer waits for data. It must also learn of its own data that nobody reads (SHLD-3).
    fn peer_is_to_be_reset(&self) -> bool {
        match self.state {
            State::CLOSED | State::LISTEN | State::SYN_SENT | State::TIME_WAIT => false,
            State::CLOSING | State::LAST_ACK => {
                !self.send.fin_sent || self.send.queued() > 0 || self.recv.readable() > 0
            }
            _ => true,
        }
    }

    /// The application's memory of the connection is gone: everything it may still own goes back.
    pub(crate) fn release(&mut self, cx: &mut Context<'_>) {
        self.send.release_all(&mut cx.shared.pool);
        self.recv.discard(&mut cx.shared.pool);
    }

    /// The connection table had no room for it: it ends in silence.
    pub(crate) fn has_no_entry(&mut self, cx: &mut Context<'_>, why: NoEntry) {
        let reason = match why {
            NoEntry::Full => CloseReason::TableFull,
            NoEntry::Taken => CloseReason::InUse,
        };
        self.end(cx, Cause::Abort, reason);
    }

    fn arm(&mut self, cx: &Context<'_>, timer: Timer, after: core::time::Duration) {
        self.timers.arm(timer, cx.now, after);
    }

    fn rto(&self) -> core::time::Duration {
        self.rtt.rto(&self.config)
    }

    /// The parameters, for this connection alone: it has its own from the first change on.
    fn config_mut(&mut self) -> &mut TcpConfig {
        Arc::make_mut(&mut self.config)
    }

    /// An acceptable segment arrived: the peer lives, and the idle time starts over (MUST-26).
    //= docs/rfc/rfc9293.md#MUST-26
    fn restart_keepalive(&mut self, cx: &Context<'_>) {
        self.probes = 0;
        self.arm_keepalive(cx);
    }

    fn arm_keepalive(&mut self, cx: &Context<'_>) {
        let idles = self.state.is_synchronized() && !matches!(self.state, State::TIME_WAIT | State::CLOSED);
        if self.config.keepalive && idles {
            self.arm(cx, Timer::Keepalive, self.config.keepalive_time);
        }
    }

    //= docs/rfc/rfc9293.md#MUST-13
    fn restart_time_wait(&mut self, cx: &Context<'_>) {
        self.arm(cx, Timer::TimeWait, self.config.time_wait());
    }

    /// Takes what the peer's SYN offers. What we did not offer ourselves is not used.
    //= docs/rfc/rfc9293.md#MUST-15
    //= docs/rfc/rfc2018.md#4-agreed
    //= docs/rfc/rfc7323.md#2.2-both
    //= docs/rfc/rfc7323.md#2.2-ignored
    fn take_syn_options(&mut self, cx: &Context<'_>, options: &Options) {
        self.send.peer_mss = options.mss.unwrap_or(default_mss(&self.key)).max(MIN_MSS);
        let scales = options.window_scale.filter(|_| self.config.window_scale);
        self.send.scale = scales.unwrap_or(0);
        self.recv.scale_agreed(scales.is_some());
        if let Some(timestamps) = options.timestamps.filter(|_| self.config.timestamps) {
            self.recv.timestamps_agreed(timestamps.value, cx.now);
        }
        self.sack_agreed = self.config.sack && options.sack_permitted;
    }

    /// Largest payload of a segment: what the peer takes and the link carries, less our options (MUST-16).
    //= docs/rfc/rfc9293.md#MUST-14
    //= docs/rfc/rfc9293.md#MUST-16
    //= docs/rfc/rfc6691.md#2-sent
    //= docs/rfc/rfc1191.md#3-reduce
    fn segment_size(&self, cx: &Context<'_>) -> u16 {
        let link = self.path_mtu(cx.shared.config.mtu, cx.now) - self.headers();
        self.send.peer_mss.min(link) - self.option_length()
    }

    fn option_length(&self) -> u16 {
        if self.recv.timestamps().is_some() { crate::wire::tcp::TIMESTAMPS_LENGTH as u16 } else { 0 }
    }

    /// Length of the IP and TCP headers without options, bytes.
    fn headers(&self) -> u16 {
        if self.key.is_ipv4() { 40 } else { 60 }
    }

    /// MSS that we announce (MUST-14, MUST-67).
    //= docs/rfc/rfc9293.md#MUST-14
    //= docs/rfc/rfc9293.md#MUST-67
    //= docs/rfc/rfc9293.md#SHLD-5
    //= docs/rfc/rfc9293.md#MAY-3
    //= docs/rfc/rfc6691.md#2-announced
    fn announced_mss(&self, cx: &Context<'_>) -> u16 {
        self.config.announced_mss(cx.shared.config.mtu, self.key.is_ipv4())
    }

    /// Whether a challenge ACK may leave now (RFC 5961 section 7); takes it if so.
    //= docs/rfc/rfc5961.md#7-throttle
    fn may_challenge(&mut self, cx: &mut Context<'_>) -> bool {
        let too_soon = !self.answers_again(cx);
        (too_soon || cx.may_challenge()) && self.may_answer(cx)
    }

    /// Whether an out-of-window ACK may leave now; takes it if so. The limit is this connection's own: others'
    /// segments must not keep it from answering keep-alive probes.
    fn may_answer(&mut self, cx: &mut Context<'_>) -> bool {
        let may = self.answers_again(cx);
        if may {
            self.last_challenge = clock(cx.now);
        } else {
            cx.drop(DropReason::AckRate);
        }
        may
    }

    fn answers_again(&self, cx: &Context<'_>) -> bool {
        clock(cx.now).wrapping_sub(self.last_challenge) >= CONNECTION_ACK_INTERVAL_MS
    }

    /// The connection table's entry.
    pub(crate) fn table_entry(&self, now: Instant, queue: u16) -> ConnectionValue {
        let timestamps = self.recv.timestamps();
        ConnectionValue {
            state: self.state,
            flags: if timestamps.is_some() { FLAG_TIMESTAMPS } else { 0 },
            queue,
            snd_nxt: self.send.next.0,
            rcv_nxt: self.recv.next.0,
            ts_recent: timestamps.unwrap_or(0),
            since_ns: self.since.as_nanos(),
            deadline_ns: self.timers.next(now).map_or(0, Instant::as_nanos),
            segments_in: self.counters.segments_in,
            segments_out: self.counters.segments_out,
            bytes_in: self.counters.bytes_in,
            bytes_out: self.counters.bytes_out,
        }
    }

    /// The row of `xtcp conns`.
    pub(crate) fn info(&self, now: Instant, mtu: u16) -> ConnectionInfo {
        let mss = self.send.peer_mss.min(self.path_mtu(mtu, now) - self.headers()) - self.option_length();
        ConnectionInfo {
            key: self.key,
            state: self.state,
            is_record: false,
            age: now.since(self.created),
            state_age: now.since(self.since),
            timers: self.timers.armed(now).collect(),
            mss,
            srtt: self.rtt.smoothed(),
            rto: self.rto(),
            cwnd: self.congestion_window(mss.into()),
            in_flight: self.in_flight(),
            ssthresh: self.threshold(),
            snd_una: self.send.una.0,
            snd_nxt: self.send.next.0,
            rcv_nxt: self.recv.next.0,
            snd_wnd: self.send.window,
            rcv_wnd: self.recv.window(),
            bytes_in: self.counters.bytes_in,
            bytes_out: self.counters.bytes_out,
            retransmits: self.counters.retransmits.into(),
            congestion: self.config.congestion.name(),
        }
    }
}
