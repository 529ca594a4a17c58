//! The configuration file as it is written: every key, documented where it is declared. Anything left
//! out stays `None`; the defaults are applied in [`super`].

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Deserialize;

use super::service::Service;
use super::values::{Bounded, ByteSize, Cidr, Interval, PortRange};

/// 30 days in milliseconds: the longest duration any key takes.
const LONGEST_MS: u64 = 30 * 86_400_000;
/// One hour in milliseconds.
const HOUR_MS: u64 = 3_600_000;

/// A whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Network interface to serve. Required here or as `--interface`.
    pub interface: Option<String>,
    /// UNIX socket for `xtcp conns`, `stats` and `connect`. Default `/run/xtcp/control.sock`.
    pub control_socket: Option<PathBuf>,
    /// Group that may use the control socket besides its owner (mode 0660). Unset: nobody else (0600).
    pub control_group: Option<String>,
    /// Directory on bpffs for the pinned maps. Default `/sys/fs/bpf/xtcp/INTERFACE`, with an
    /// underscore in place of a dot in the name.
    pub pin_path: Option<PathBuf>,
    /// Address of Prometheus metrics and the status page. Unset: off. Without effect yet.
    pub metrics: Option<SocketAddr>,
    /// Where the XDP program runs. Default `auto`: native, generic when the driver can't.
    pub xdp_mode: Option<XdpMode>,
    /// Whether the program answers by itself. Default `auto`: on, except on veth.
    pub xdp_tx: Option<XdpTx>,
    /// What to do with received checksums. Default `verify`.
    pub rx_checksum: Option<RxChecksum>,
    /// VLAN ids (1 to 4094) whose frames are served besides untagged ones. Default none.
    pub vlans: Option<Vec<Bounded<1, 4094>>>,
    /// Local ports of active opens. Default `40000-49999`; must not overlap with the kernel's own range.
    pub ephemeral_ports: Option<PortRange>,
    /// Most connections in any state, 1 to 16,777,216. Default 65536. Sizes CONNECTIONS (169 bytes each, up
    /// to 16 more between two powers of two; allocated at start), which bounds all workers together. One in TIME_WAIT
    /// makes room for a new one, the oldest first.
    pub max_connections: Option<Bounded<1, 16_777_216>>,
    /// Most orphans, 1 to 16,777,216: connections that their application has closed and that still deliver its last
    /// bytes or wait for the peer's FIN (FIN_WAIT_1, FIN_WAIT_2, CLOSING, LAST_ACK). Beyond it the oldest is reset,
    /// first one that has delivered everything. Default 16384. Of the whole daemon: each worker (RX queue) has an
    /// equal share, rounded up.
    pub max_orphans: Option<Bounded<1, 16_777_216>>,
    /// Most memory in send and receive buffers of all connections together, 16 MiB to 1 TiB; taken only as needed. The
    /// last quarter is kept for data that arrive in order. Default 1 GiB. Of the whole daemon: each worker has an equal
    /// share, rounded up.
    pub max_buffer_memory: Option<ByteSize<{ 16 << 20 }, { 1 << 40 }>>,
    /// Resets per second and CPU, that is for each worker, for segments without a connection, 0 to 1,000,000. Default
    /// 1000.
    pub rst_rate: Option<Bounded<0, 1_000_000>>,
    /// Prefixes whose segments are taken also where `deny` has a shorter one around them, and whose SYNs
    /// `source_syn_rate` does not limit: `"10.0.0.0/8"`, `"2001:db8::/32"`, or an address alone. Default none. With
    /// `deny` at most 65,536. `xtcp allow` changes them at run time.
    pub allow: Option<Vec<Cidr>>,
    /// Prefixes from which nobody may connect: the XDP program drops their segments unless they belong to a
    /// connection. The longest prefix of `allow` and `deny` decides; what none covers is taken. Default none. `xtcp
    /// deny` changes them at run time.
    pub deny: Option<Vec<Cidr>>,
    /// SYNs per second that a source may send, 0 to 1,000,000; 0: without limit. Default 0. A source is an IPv4
    /// address or an IPv6 network of 64 bits; SYNs of connections do not count. The XDP program drops the others.
    pub source_syn_rate: Option<Bounded<0, 1_000_000>>,
    /// SYNs that a source may send at once, 1 to 1,000,000, after a pause. Default: those of a second,
    /// `source_syn_rate`. The program's clock moves up to every 10 ms, so a hundredth of the rate is the least that
    /// allows it.
    pub source_syn_burst: Option<Bounded<1, 1_000_000>>,
    /// How long SIGTERM waits for connections to end before they are reset, 0 to 24 h. Default 30 s.
    pub drain_timeout: Option<Interval<0, { 24 * HOUR_MS }>>,
    /// Defaults of every listener and active open.
    pub tcp: Option<TcpTable>,
    /// Listeners.
    #[serde(default)]
    pub listen: Vec<ListenTable>,
}

/// One `[[listen]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListenTable {
    /// `ADDR:PORT`; `0.0.0.0:PORT` every IPv4 and `[::]:PORT` every IPv6 address of the interface.
    pub address: SocketAddr,
    /// `echo`, `discard`, `daytime`, `chargen`, `http`, `proxy:HOST:PORT`, `proxy:unix:PATH`, or a table.
    pub service: Service,
    /// Whether the address need not be on the interface. Default false.
    pub foreign_address: Option<bool>,
    /// Overrides of the `[tcp]` table for this listener.
    pub tcp: Option<TcpTable>,
}

/// A `tcp` table. Durations are strings such as `"40ms"`; sizes are bytes or strings such as `"64KiB"`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TcpTable {
    /// Retransmissions of our SYN before an active open fails, 0 to 30. Default 7.
    pub syn_retries: Option<Bounded<0, 30>>,
    /// Retransmissions of our SYN-ACK before a half-open connection is forgotten, 0 to 30. Default 5.
    pub synack_retries: Option<Bounded<0, 30>>,
    /// Retransmission timeout before the first measured round trip, 1 ms to 1 h. Default 1 s.
    pub initial_rto: Option<Interval<1, HOUR_MS>>,
    /// Smallest retransmission timeout, 1 ms to 1 h. Default 200 ms.
    pub min_rto: Option<Interval<1, HOUR_MS>>,
    /// Largest retransmission timeout, 1 ms to 1 h, at least `min_rto`. Default 120 s.
    pub max_rto: Option<Interval<1, HOUR_MS>>,
    /// Retransmissions of one segment after which it is logged at level debug (R1), 0 to 255. Default 3.
    pub retries1: Option<Bounded<0, 255>>,
    /// Retransmissions of one segment after which the connection is aborted (R2), 0 to 255, at least `retries1`. Default 15.
    pub retries2: Option<Bounded<0, 255>>,
    /// The same once the application has closed, 0 to 255. Default 8.
    pub orphan_retries: Option<Bounded<0, 255>>,
    /// Abort when sent data stay unacknowledged this long, up to 30 days; 0: off. Default 0.
    pub user_timeout: Option<Interval<0, LONGEST_MS>>,
    /// Longest wait before a segment is acknowledged, 0 to 499 ms. Default 40 ms.
    pub delayed_ack: Option<Interval<0, 499>>,
    /// First interval of the persist timer, 1 ms to 1 h, at most `persist_max`. Unset: the current RTO.
    pub persist_initial: Option<Interval<1, HOUR_MS>>,
    /// Largest interval of the persist timer, 1 ms to 1 h. Default 60 s.
    pub persist_max: Option<Interval<1, HOUR_MS>>,
    /// Whether idle connections are probed. Default false.
    pub keepalive: Option<bool>,
    /// Idle time before the first keep-alive probe, 1 ms to 30 days. Default 7200 s.
    pub keepalive_time: Option<Interval<1, LONGEST_MS>>,
    /// Interval between keep-alive probes, 1 ms to 30 days. Default 75 s.
    pub keepalive_interval: Option<Interval<1, LONGEST_MS>>,
    /// Unanswered probes after which the connection is aborted, 1 to 255. Default 9.
    pub keepalive_probes: Option<Bounded<1, 255>>,
    /// How long FIN_WAIT_2 lasts once the application has closed both ways, 1 ms to 1 h. Default 60 s.
    pub fin_wait2_timeout: Option<Interval<1, HOUR_MS>>,
    /// Maximum segment lifetime, 1 ms to 1 h; TIME_WAIT lasts twice as long. Default 30 s.
    pub msl: Option<Interval<1, HOUR_MS>>,
    /// Whether a new SYN may reopen a connection in TIME_WAIT. Default true.
    pub time_wait_reuse: Option<bool>,
    /// Whether small segments are sent at once (Nagle's algorithm off). Default false.
    pub nodelay: Option<bool>,
    /// What close does, 0 to 1 h: `"0s"` resets; longer waits so long for delivery, then resets. Unset: delivers in the background.
    pub linger: Option<Interval<0, HOUR_MS>>,
    /// Capacity of the accept queue, connections, 1 to 16,777,216. Default 4096. Of the whole listener: each worker (RX
    /// queue) has an equal share, rounded up.
    pub backlog: Option<Bounded<1, 16_777_216>>,
    /// Capacity of the SYN queue, connections, 1 to 16,777,216. Default 4096. Of the whole listener, as `backlog`.
    pub syn_backlog: Option<Bounded<1, 16_777_216>>,
    /// When SYNs are answered with cookies, and nothing is kept of them. Default `auto`: while the SYN queue is full,
    /// and while SYNs come faster than it could take them.
    pub syn_cookies: Option<SynCookies>,
    /// What answers a segment without a connection: `reset` or `drop` (silence). Default `reset`.
    pub no_connection: Option<NoConnection>,
    /// Largest MSS we announce, bytes, 88 to 65495. Unset: what the interface's MTU allows.
    pub mss: Option<Bounded<88, 65_495>>,
    /// Whether window scaling is offered and accepted. Default true.
    pub window_scale: Option<bool>,
    /// Whether timestamps are offered and accepted. Default true.
    pub timestamps: Option<bool>,
    /// Whether selective acknowledgements are offered and accepted. Default true.
    pub sack: Option<bool>,
    /// Whether explicit congestion notification is offered and accepted. Default true.
    pub ecn: Option<bool>,
    /// Congestion control: `cubic` (with HyStart++) or `reno`. Default `cubic`.
    pub congestion: Option<Congestion>,
    /// Whether buffers start at 64 KiB and grow with what a connection moves, up to `recv_buffer` and `send_buffer`.
    /// Default true; false: they have these sizes from the start.
    pub autotune: Option<bool>,
    /// Largest receive buffer, 4 KiB to 1 GiB; memory is taken only as needed. Default 1 MiB.
    pub recv_buffer: Option<ByteSize<4096, { 1 << 30 }>>,
    /// Largest send buffer, 4 KiB to 1 GiB; memory is taken only as needed. Default 1 MiB.
    pub send_buffer: Option<ByteSize<4096, { 1 << 30 }>>,
    /// TTL or hop limit of what is sent, 1 to 255. Default 64.
    pub ttl: Option<Bounded<1, 255>>,
    /// Differentiated services code point of what is sent, 0 to 63. Default 0.
    pub dscp: Option<Bounded<0, 63>>,
    /// How the RTO follows from round-trip times. Default `rfc6298`.
    pub rtt_estimator: Option<RttEstimator>,
}

/// Where the XDP program runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum XdpMode {
    /// In the driver if it can, else generic.
    #[default]
    Auto,
    /// In the driver, or not at all.
    Native,
    /// On socket buffers, on any driver.
    Generic,
}

/// Whether the XDP program answers by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum XdpTx {
    /// On, except on veth.
    #[default]
    Auto,
    /// Always.
    On,
    /// Never: the daemon gives the answers.
    Off,
}

/// What to do with received checksums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RxChecksum {
    /// Drop segments whose checksum is wrong.
    #[default]
    Verify,
    /// Also accept the bare sum of the pseudo-header (veth peers that leave checksums to hardware).
    AcceptPartial,
}

/// When SYNs are answered with cookies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SynCookies {
    /// Under a flood.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// What answers a segment to a listener's port that belongs to no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NoConnection {
    /// A RST.
    Reset,
    /// Nothing.
    Drop,
}

/// Congestion control.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Congestion {
    /// RFC 9438.
    Cubic,
    /// RFC 5681 and 6582.
    Reno,
}

/// The estimators of `rtt_estimator`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RttEstimator {
    /// RFC 6298.
    Rfc6298,
    /// RFC 793 section 3.7.
    Rfc793,
}
