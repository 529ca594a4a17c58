//! The types of the boundary: what the application names, asks for and is told.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::net::SocketAddr;
use core::num::NonZeroUsize;
use core::time::Duration;

use tcp_common::{ConnectionKey, State};

use crate::config::TcpConfig;

/// Names a connection for as long as the application holds it; never reused for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnectionId {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

/// Names a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ListenerId(pub(crate) u32);

/// What happened, for the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A connection waits to be accepted.
    Incoming(ListenerId),
    /// An active open succeeded.
    Connected(ConnectionId),
    /// Data or the end of the stream can be read.
    Readable(ConnectionId),
    /// Room in the send buffer again.
    Writable(ConnectionId),
    /// The peer has urgent data, or more of them than it said before; [`ConnectionMut::urgent_remaining`] tells how
    /// many. They are delivered in line.
    ///
    /// [`ConnectionMut::urgent_remaining`]: crate::ConnectionMut::urgent_remaining
    Urgent(ConnectionId),
    /// R1 was reached: the peer has not acknowledged for a while. [`ConnectionMut::take_soft_error`] may tell why.
    ///
    /// [`ConnectionMut::take_soft_error`]: crate::ConnectionMut::take_soft_error
    Retransmitting(ConnectionId),
    /// The connection has ended. Received data may still be read if the reason is `Finished`.
    Closed(ConnectionId, CloseReason),
}

/// Why a connection ended.
//= docs/rfc/rfc9293.md#MUST-12
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// Both sides closed and everything was acknowledged.
    Finished,
    /// The peer refused our SYN.
    Refused,
    /// The peer reset the connection.
    Reset,
    /// Retries, the user timeout or keep-alive probes were used up.
    TimedOut,
    /// The application aborted it.
    Aborted,
    /// The connection table had no room.
    TableFull,
    /// Another stack's connection has the same addresses and ports.
    InUse,
}

/// Why the connection table did not take an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoEntry {
    /// It is full.
    Full,
    /// The entry is another stack's.
    Taken,
}

/// What an ICMP error says that does not end a connection, because it may pass (RFC 9293 section 3.9.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SoftError {
    /// A router or the peer's host says that segments do not get through: no route, prohibited, or nobody there.
    Unreachable,
    /// A segment was under way for too long: the path has a loop, or the TTL is too small.
    TimeExceeded,
    /// Something in the header was not understood.
    BadParameter,
}

/// What [`ConnectionMut::recv`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// So many bytes were copied out.
    Bytes(NonZeroUsize),
    /// Nothing now; wait for [`Event::Readable`].
    Nothing,
    /// The peer closed and everything was read.
    End,
}

/// Where frames to a peer go on the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LinkAddress {
    /// The peer's (or the gateway's) MAC address.
    pub mac: [u8; 6],
    /// 802.1Q tag control information; `None`: untagged.
    pub vlan: Option<u16>,
}

/// How to listen.
#[derive(Clone, Debug)]
pub struct ListenOptions {
    /// Parameters of the connections.
    pub tcp: Arc<TcpConfig>,
}

/// How to connect.
//= docs/rfc/rfc9293.md#MUST-43
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    /// Our address; port 0: an ephemeral one.
    pub local: SocketAddr,
    /// Where the SYN goes on the link.
    pub link: LinkAddress,
    /// Parameters of the connection.
    pub tcp: Arc<TcpConfig>,
}

/// Why a listener could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenError {
    /// Another listener has the address.
    AddressInUse,
}

/// Why an active open could not start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectError {
    /// The remote address is unspecified, multicast or broadcast, or its port is 0 (RFC 9293 MUST-46).
    InvalidRemote,
    /// The two addresses are of different families.
    FamilyMismatch,
    /// A connection with this 4-tuple exists.
    InUse,
    /// Every ephemeral port of this stack is taken for this remote address, or it has none.
    NoPort,
    /// The stack holds `max_connections` already.
    TooManyConnections,
}

/// One row of `xtcp conns`; taken at one instant.
#[derive(Clone, Debug)]
pub struct ConnectionInfo {
    /// 4-tuple.
    pub key: ConnectionKey,
    /// State.
    pub state: State,
    /// Whether only a record is left of it (in TIME_WAIT): the connection table's entry has its counters and when it
    /// entered the state. Here they are zero, like whatever else a record does not have.
    pub is_record: bool,
    /// Since the connection was made.
    pub age: Duration,
    /// Since the state was entered.
    pub state_age: Duration,
    /// Armed timers: contract name and time left.
    pub timers: Vec<(&'static str, Duration)>,
    /// Effective send MSS, bytes of payload before options.
    pub mss: u16,
    /// Smoothed RTT; `None` before the first sample.
    pub srtt: Option<Duration>,
    /// Retransmission timeout now (backed off if it is).
    pub rto: Duration,
    /// Congestion window, bytes.
    pub cwnd: u32,
    /// What loss recovery counts as under way, bytes: sent, and neither acknowledged nor reported nor lost.
    pub in_flight: u32,
    /// Slow-start threshold, bytes; `None` before the first loss.
    pub ssthresh: Option<u32>,
    /// SND.UNA.
    pub snd_una: u32,
    /// SND.NXT.
    pub snd_nxt: u32,
    /// RCV.NXT.
    pub rcv_nxt: u32,
    /// SND.WND, bytes.
    pub snd_wnd: u32,
    /// RCV.WND, bytes.
    pub rcv_wnd: u32,
    /// Stream bytes received in order, each once.
    pub bytes_in: u64,
    /// Stream bytes sent, each once.
    pub bytes_out: u64,
    /// Segments retransmitted.
    pub retransmits: u64,
    /// Name of the congestion control.
    pub congestion: &'static str,
}

/// Figures of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenerInfo {
    /// Where it listens (the address may be a wildcard).
    pub address: SocketAddr,
    /// Half-open connections now (SYN_RCVD).
    pub syn_queue: u32,
    /// Most half-open connections ever.
    pub syn_queue_max: u32,
    /// Connections waiting to be accepted now.
    pub accept_queue: u32,
    /// Most connections that ever waited to be accepted.
    pub accept_queue_max: u32,
    /// Whether the next SYN is answered with a cookie.
    pub sends_cookies: bool,
    /// SYNs dropped because the SYN queue was full.
    pub syn_overflows: u64,
    /// Last ACKs dropped because the accept queue was full.
    pub accept_overflows: u64,
    /// SYNs answered with cookies because the SYN queue was full.
    pub cookie_overflows: u64,
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ConnectError::InvalidRemote => "the remote address is not one host's, or its port is 0",
            ConnectError::FamilyMismatch => "the local and the remote address are of different families",
            ConnectError::InUse => "a connection between these two addresses and ports exists already",
            ConnectError::NoPort => "every ephemeral port is in use towards this remote address",
            ConnectError::TooManyConnections => "the limit max_connections is reached",
        })
    }
}

impl core::error::Error for ConnectError {}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ListenError::AddressInUse => "another listener has this address and port",
        })
    }
}

impl core::error::Error for ListenError {}
