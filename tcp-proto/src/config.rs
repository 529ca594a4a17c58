//! What can be tuned: per connection ([`TcpConfig`], the `tcp` keys of the configuration file) and
//! per stack ([`StackConfig`]).

use core::iter::StepBy;
use core::ops::{Range, RangeInclusive};
use core::time::Duration;

use tcp_common::layout::{
    ListenerValue, OFFERS_ECN, OFFERS_SACK, OFFERS_TIMESTAMPS, OFFERS_WINDOW_SCALE, STAYS_SILENT,
};

use crate::connection::receiver;
use crate::time::Compact;

/// Parameters of a listener's connections or of an active open. Defaults are the contract's.
//= docs/rfc/rfc9293.md#MUST-27
//= docs/rfc/rfc9293.md#MUST-49
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpConfig {
    /// Retransmissions of our SYN before an active open fails; 0 to 30. RFC 9293 section 3.8.3.
    pub syn_retries: u32,
    /// Retransmissions of our SYN-ACK before a half-open connection is forgotten; 0 to 30.
    pub synack_retries: u32,
    /// RTO before the first RTT sample; at least 1 ms. RFC 6298 section 2.1.
    pub initial_rto: Duration,
    /// Smallest RTO; at least 1 ms. RFC 6298 section 2.4 asks for 1 s; like Linux we go lower.
    pub min_rto: Duration,
    /// Largest RTO; at least `min_rto`. RFC 6298 section 2.5.
    pub max_rto: Duration,
    /// R1: retransmissions of one segment after which the application is told; RFC 9293 section 3.8.3.
    pub retries1: u32,
    /// R2: retransmissions of one segment after which the connection is aborted; RFC 9293 section 3.8.3.
    pub retries2: u32,
    /// R2 once the application has closed and nobody waits for the outcome.
    pub orphan_retries: u32,
    /// Abort when sent data stay unacknowledged this long; zero: off. RFC 5482.
    pub user_timeout: Duration,
    /// Longest wait before a segment is acknowledged; below 500 ms; zero: at once. RFC 9293 section 3.8.6.3.
    pub delayed_ack: Duration,
    /// First interval of the persist timer; `None`: the current RTO. RFC 9293 section 3.8.6.1.
    pub persist_initial: Option<Duration>,
    /// Largest interval of the persist timer.
    pub persist_max: Duration,
    /// Whether idle connections are probed. RFC 9293 section 3.8.4.
    pub keepalive: bool,
    /// Idle time before the first keep-alive probe.
    pub keepalive_time: Duration,
    /// Interval between keep-alive probes.
    pub keepalive_interval: Duration,
    /// Unanswered keep-alive probes after which the connection is aborted; at least 1.
    pub keepalive_probes: u32,
    /// How long FIN_WAIT_2 may last once the application has closed both ways.
    pub fin_wait2_timeout: Duration,
    /// Maximum segment lifetime; TIME_WAIT lasts twice as long. RFC 9293 section 3.4.2.
    pub msl: Duration,
    /// Whether a new SYN may reopen a connection in TIME_WAIT. RFC 6191.
    pub time_wait_reuse: bool,
    /// Whether Nagle's algorithm is off. RFC 9293 section 3.7.4.
    pub nodelay: bool,
    /// What close does: `None`: returns at once and delivers in the background; zero: sends RST;
    /// longer: waits that long for delivery, then sends RST.
    pub linger: Option<Duration>,
    /// Capacity of the accept queue, connections; of all stacks together, each has its share.
    pub backlog: u32,
    /// Capacity of the SYN queue (SYN_RCVD), connections; of all stacks together, each has its share.
    pub syn_backlog: u32,
    /// When SYNs are answered with cookies. RFC 4987 section 3.6.
    pub syn_cookies: SynCookies,
    /// Largest MSS we announce, bytes; `None`: what the interface's MTU allows. RFC 9293 section 3.7.1.
    pub mss: Option<u16>,
    /// Whether window scaling is offered and accepted. RFC 7323 section 2.
    pub window_scale: bool,
    /// Whether timestamps are offered and accepted. RFC 7323 section 3.
    pub timestamps: bool,
    /// Whether selective acknowledgments are offered and accepted. RFC 2018.
    pub sack: bool,
    /// Whether explicit congestion notification is offered and accepted. RFC 3168.
    pub ecn: bool,
    /// How the congestion window grows and shrinks.
    pub congestion: CongestionAlgorithm,
    /// Whether a segment without connection draws a reset (else silence) at this listener.
    pub reset_unknown: bool,
    /// Whether buffers start small and grow with what the connection moves, up to `recv_buffer` and `send_buffer`.
    pub autotune: bool,
    /// Largest receive buffer, bytes: the most we announce as window.
    pub recv_buffer: u32,
    /// Largest send buffer, bytes.
    pub send_buffer: u32,
    /// TTL or hop limit of what we send; 1 to 255.
    pub ttl: u8,
    /// Differentiated services code point of what we send; 0 to 63.
    pub dscp: u8,
    /// How the RTO follows from round-trip times.
    pub rtt_estimator: RttEstimator,
}

/// When a listener answers a SYN with a cookie instead of keeping it. Without keys
/// ([`crate::Stack::set_cookie_keys`]) it never does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SynCookies {
    /// When its SYN queue is full.
    #[default]
    Auto,
    /// Always; but a SYN that succeeds a connection in TIME_WAIT is kept, because its number must be above that one's.
    Always,
    /// Never: with a full SYN queue it is dropped.
    Never,
}

/// How round-trip times become a retransmission timeout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RttEstimator {
    /// SRTT and RTTVAR; RTO = SRTT + 4 x RTTVAR. RFC 6298.
    #[default]
    Rfc6298,
    /// The textbook's: RTT = 0.9 old + 0.1 new; RTO = 2 x RTT. RFC 793 section 3.7.
    Rfc793,
}

/// A congestion control algorithm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CongestionAlgorithm {
    /// CUBIC with HyStart++. RFC 9438, RFC 9406.
    #[default]
    Cubic,
    /// Reno. RFC 5681.
    Reno,
}

impl CongestionAlgorithm {
    /// The contract's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            CongestionAlgorithm::Cubic => "cubic",
            CongestionAlgorithm::Reno => "reno",
        }
    }
}

impl Default for TcpConfig {
    //= docs/rfc/rfc9293.md#MUST-23
    //= docs/rfc/rfc9293.md#MUST-25
    //= docs/rfc/rfc9293.md#MUST-28
    //= docs/rfc/rfc9293.md#SHLD-10
    //= docs/rfc/rfc9293.md#SHLD-11
    fn default() -> Self {
        TcpConfig {
            syn_retries: 7,
            synack_retries: 5,
            initial_rto: Duration::from_secs(1),
            min_rto: Duration::from_millis(200),
            max_rto: Duration::from_secs(120),
            retries1: 3,
            retries2: 15,
            orphan_retries: 8,
            user_timeout: Duration::ZERO,
            delayed_ack: Duration::from_millis(40),
            persist_initial: None,
            persist_max: Duration::from_secs(60),
            keepalive: false,
            keepalive_time: Duration::from_secs(7200),
            keepalive_interval: Duration::from_secs(75),
            keepalive_probes: 9,
            fin_wait2_timeout: Duration::from_secs(60),
            msl: Duration::from_secs(30),
            time_wait_reuse: true,
            nodelay: false,
            linger: None,
            backlog: 4096,
            syn_backlog: 4096,
            syn_cookies: SynCookies::default(),
            mss: None,
            window_scale: true,
            timestamps: true,
            sack: true,
            ecn: true,
            congestion: CongestionAlgorithm::default(),
            reset_unknown: true,
            autotune: true,
            recv_buffer: 1 << 20,
            send_buffer: 1 << 20,
            ttl: 64,
            dscp: 0,
            rtt_estimator: RttEstimator::Rfc6298,
        }
    }
}

impl TcpConfig {
    /// MSS that a SYN announces on a link with this MTU, bytes (RFC 9293 section 3.7.1).
    //= docs/rfc/rfc9293.md#MUST-67
    #[must_use]
    pub fn announced_mss(&self, mtu: u16, is_ipv4: bool) -> u16 {
        let link = mtu - if is_ipv4 { 40 } else { 60 };
        self.mss.unwrap_or(link).min(link)
    }

    /// Window that a SYN announces, bytes; never scaled.
    #[must_use]
    pub fn initial_window(&self) -> u16 {
        receiver::initial_capacity(self).min(u16::MAX.into()) as u16
    }

    /// Window scale that a SYN offers, 0 to 14 (RFC 7323 section 2).
    #[must_use]
    pub fn window_shift(&self) -> u8 {
        receiver::scale_for(self.recv_buffer)
    }

    /// What the XDP program needs to know of a listener with these parameters on a link with this MTU, to answer for it as
    /// the stack would: its entry of LISTENERS, without index and figures.
    #[must_use]
    pub fn listener_value(&self, mtu: u16, is_ipv4: bool) -> ListenerValue {
        ListenerValue {
            syn_cookies: match self.syn_cookies {
                SynCookies::Auto => ListenerValue::COOKIES_AUTO,
                SynCookies::Always => ListenerValue::COOKIES_ALWAYS,
                SynCookies::Never => ListenerValue::COOKIES_NEVER,
            },
            offers: self.offers(),
            ttl: self.ttl,
            traffic_class: self.dscp << 2,
            mss: self.announced_mss(mtu, is_ipv4),
            window: self.initial_window(),
            window_scale: self.window_shift(),
            // Half the room of the SYN queue: the other half is for what comes until the program's mode is on everywhere.
            syn_limit: self.syn_backlog / 2,
            time_wait_ms: self.time_wait_ms(),
            ..ListenerValue::default()
        }
    }

    /// How long TIME_WAIT lasts, ms.
    #[must_use]
    pub fn time_wait_ms(&self) -> u32 {
        self.time_wait().as_millis() as u32
    }

    /// How long TIME_WAIT lasts: 2 x MSL, 24 days at most.
    pub(crate) fn time_wait(&self) -> Duration {
        (2 * self.msl).min(Compact::REACH)
    }

    fn offers(&self) -> u8 {
        let offers = [
            (self.timestamps, OFFERS_TIMESTAMPS),
            (self.window_scale, OFFERS_WINDOW_SCALE),
            (self.sack, OFFERS_SACK),
            (self.ecn, OFFERS_ECN),
            (!self.reset_unknown, STAYS_SILENT),
        ];
        offers.into_iter().filter(|(on, _)| *on).map(|(_, bit)| bit).sum()
    }
}

/// Parameters of a whole stack (one worker, one RX queue). What is said to be of all stacks together is divided
/// between them in equal shares, rounded up, because stacks share nothing.
#[derive(Clone, Debug)]
pub struct StackConfig {
    /// MAC address of the interface.
    pub mac: [u8; 6],
    /// IP MTU of the interface, bytes; 576 to 9000.
    pub mtu: u16,
    /// RX queue this stack serves; shown in the connection table.
    pub queue: u16,
    /// Most connections in any state; of this stack alone, because the connection table bounds all stacks together.
    pub max_connections: usize,
    /// Most orphans: connections in FIN_WAIT_1, FIN_WAIT_2, CLOSING or LAST_ACK that the application has closed.
    /// Of all stacks together. Beyond it orphans are reset.
    pub max_orphans: usize,
    /// Most memory in send and receive buffers of all connections, bytes; of all stacks together.
    pub max_buffer_memory: usize,
    /// Local ports for active opens, of all stacks together.
    pub ephemeral_ports: RangeInclusive<u16>,
    /// Stacks that divide the ephemeral ports and the limits, by their queues from 0 on; at least 1. Each chooses only
    /// ports of its own, so that no two choose the same 4-tuple.
    pub stacks: u16,
    /// Whether a checksum field that holds only the pseudo-header sum is accepted
    /// (veth peers that leave checksums to hardware that does not exist).
    pub accept_partial_checksum: bool,
    /// Whether the XDP program, too, issues cookies and resets strangers: every ACK that gets here may bring one back.
    pub program_answers: bool,
    /// Resets per second sent for segments without a connection.
    pub rst_rate: u32,
}

impl Default for StackConfig {
    fn default() -> Self {
        StackConfig {
            mac: [0; 6],
            mtu: 1500,
            queue: 0,
            max_connections: 65_536,
            max_orphans: 16_384,
            max_buffer_memory: 1 << 30,
            ephemeral_ports: 40_000..=49_999,
            stacks: 1,
            accept_partial_checksum: false,
            program_answers: false,
            rst_rate: 1000,
        }
    }
}

impl StackConfig {
    /// This stack's share of a limit of all stacks together, rounded up.
    pub(crate) fn share(&self, limit: usize) -> usize {
        limit.div_ceil(usize::from(self.stacks.max(1)))
    }

    /// The ephemeral ports of this stack: every `stacks`-th, none when there are fewer ports than stacks.
    pub(crate) fn own_ports(&self) -> StepBy<Range<u32>> {
        let (first, last) = (u32::from(*self.ephemeral_ports.start()), u32::from(*self.ephemeral_ports.end()));
        (first + u32::from(self.queue)..last + 1).step_by(usize::from(self.stacks.max(1)))
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    /// All ports of `stacks` stacks, stack by stack.
    fn ports(ephemeral_ports: RangeInclusive<u16>, stacks: u16) -> Vec<Vec<u32>> {
        let of = |queue| StackConfig { ephemeral_ports: ephemeral_ports.clone(), stacks, queue, ..Default::default() };
        (0..stacks).map(|queue| of(queue).own_ports().collect()).collect()
    }

    #[test]
    fn every_ephemeral_port_belongs_to_exactly_one_stack() {
        for (range, stacks) in [(40_000..=49_999, 1), (40_000..=49_999, 4), (10..=16, 3), (65_530..=65_535, 5)] {
            let mut all = ports(range.clone(), stacks).concat();
            all.sort_unstable();
            assert!(all.into_iter().eq(range.map(u32::from)), "{stacks} stacks");
        }
    }

    #[test]
    fn shares_differ_by_one_port_at_most_and_may_be_empty() {
        assert_eq!(ports(10..=16, 3), [[10, 13, 16].as_slice(), &[11, 14], &[12, 15]]);
        assert_eq!(ports(65_534..=65_535, 3), [[65_534].as_slice(), &[65_535], &[]]);
    }
}
