//! SKELETON of the public boundary; bodies follow.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::num::NonZeroUsize;
use core::time::Duration;

use tcp_common::{ConnectionKey, ConnectionValue, State};

use crate::config::{StackConfig, TcpConfig};
use crate::time::Instant;

/// Names a connection for as long as the application holds it; never reused for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnectionId {
    index: u32,
    generation: u32,
}

/// Names a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ListenerId(u32);

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
    /// R1 was reached: the peer has not acknowledged for a while.
    Retransmitting(ConnectionId),
    /// The connection has ended. Received data may still be read if the reason is `Finished`.
    Closed(ConnectionId, CloseReason),
}

/// Why a connection ended.
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
    /// Every ephemeral port is taken for this remote address.
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
    /// SYNs and last ACKs dropped because a queue was full.
    pub overflows: u64,
}

/// A change of the connection table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Write.
    Write(ConnectionKey, ConnectionValue),
    /// Delete.
    Delete(ConnectionKey),
}

/// The TCP of one worker.
///
/// Methods are of four kinds. `handle_*`: the outside tells something. `poll_*`: the outside fetches what
/// followed; drain all of them after every input ([`crate::turn`] does). Commands: the application acts.
/// Getters change nothing.
pub struct Stack {}

impl Stack {
    /// A stack without listeners. `seed` keys ISNs, hashing and port choice: 32 secret random bytes.
    pub fn new(_config: StackConfig, _seed: [u8; 32], _now: Instant) -> Self {
        todo!()
    }
    /// A frame arrived.
    pub fn handle_frame(&mut self, _now: Instant, _frame: &[u8]) {
        todo!()
    }
    /// Time has passed: serves every timer due at `now`.
    pub fn handle_timeout(&mut self, _now: Instant) {
        todo!()
    }
    /// The next thing the application should know.
    #[must_use]
    pub fn poll_event(&mut self) -> Option<Event> {
        todo!()
    }
    /// Builds the next frame to send in `frame` (at least MTU + 18 bytes); its length.
    #[must_use]
    pub fn poll_transmit(&mut self, _now: Instant, _frame: &mut [u8]) -> Option<usize> {
        todo!()
    }
    /// When [`Stack::handle_timeout`] wants to be called at the latest.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        todo!()
    }

    /// Starts to listen (passive open). A wildcard address takes every local address of its family.
    pub fn listen(&mut self, _local: SocketAddr, _options: ListenOptions) -> Result<ListenerId, ListenError> {
        todo!()
    }
    /// Stops listening; half-open and unaccepted connections are reset, accepted ones live on.
    pub fn close_listener(&mut self, _now: Instant, _listener: ListenerId) {
        todo!()
    }
    /// Takes the oldest established connection off a listener's accept queue.
    pub fn accept(&mut self, _listener: ListenerId) -> Option<ConnectionId> {
        todo!()
    }
    /// Starts an active open; [`Event::Connected`] or [`Event::Closed`] follows.
    pub fn connect(
        &mut self,
        _now: Instant,
        _remote: SocketAddr,
        _options: ConnectOptions,
    ) -> Result<ConnectionId, ConnectError> {
        todo!()
    }
    /// Access to a connection; `None` once it has ended (or its handle was given back).
    pub fn connection(&mut self, _now: Instant, _id: ConnectionId) -> Option<ConnectionMut<'_>> {
        todo!()
    }

    /// Number of connections in `state` (LISTEN: listeners).
    #[must_use]
    pub fn count(&self, _state: State) -> usize {
        todo!()
    }
    /// Rows of at most `limit` connections from `cursor` on, and where to go on; listeners are not rows.
    /// Start with cursor 0; the sweep is over when the returned cursor is `None`.
    pub fn snapshot(
        &self,
        _now: Instant,
        _cursor: usize,
        _limit: usize,
        _rows: &mut Vec<ConnectionInfo>,
    ) -> Option<usize> {
        todo!()
    }
    /// Figures of a listener.
    #[must_use]
    pub fn listener(&self, _id: ListenerId) -> Option<ListenerInfo> {
        todo!()
    }
    /// Why segments were dropped, by reason.
    #[must_use]
    pub fn drops(&self) -> Vec<(&'static str, u64)> {
        todo!()
    }
    /// Bytes in send and receive buffers of all connections.
    #[must_use]
    pub fn buffer_memory(&self) -> usize {
        todo!()
    }
    /// Aborts every connection (RST) and closes every listener.
    pub fn abort_all(&mut self, _now: Instant) {
        todo!()
    }
}

/// A connection, borrowed from its stack.
pub struct ConnectionMut<'a> {
    _stack: &'a mut Stack,
}

impl ConnectionMut<'_> {
    /// Our socket address.
    #[must_use]
    pub fn local(&self) -> SocketAddr {
        todo!()
    }
    /// The peer's socket address.
    #[must_use]
    pub fn remote(&self) -> SocketAddr {
        todo!()
    }
    /// State.
    #[must_use]
    pub fn state(&self) -> State {
        todo!()
    }
    /// Queues as much of `bytes` as the send buffer takes; how many. 0: wait for [`Event::Writable`].
    /// Nothing is taken after [`ConnectionMut::shutdown_write`] (check [`ConnectionMut::may_send`]).
    pub fn send(&mut self, _bytes: &[u8]) -> usize {
        todo!()
    }
    /// Whether [`ConnectionMut::send`] may still take bytes (now or later).
    #[must_use]
    pub fn may_send(&self) -> bool {
        todo!()
    }
    /// Bytes the send buffer would take now.
    #[must_use]
    pub fn send_room(&self) -> usize {
        todo!()
    }
    /// Copies received bytes out.
    pub fn recv(&mut self, _into: &mut [u8]) -> Received {
        todo!()
    }
    /// Whether [`ConnectionMut::recv`] would return something else than `Nothing`.
    #[must_use]
    pub fn is_readable(&self) -> bool {
        todo!()
    }
    /// Half-close: a FIN follows what is queued. Receiving goes on.
    pub fn shutdown_write(&mut self) {
        todo!()
    }
    /// Gives the handle back and closes both ways: what is queued and a FIN are delivered in the
    /// background (see `linger`); unread or later data draw a RST. The id is dead afterwards.
    pub fn close(&mut self) {
        todo!()
    }
    /// Gives the handle back and sends RST. The id is dead afterwards.
    pub fn abort(&mut self) {
        todo!()
    }
    /// Switches Nagle's algorithm off or on.
    pub fn set_nodelay(&mut self, _nodelay: bool) {
        todo!()
    }
    /// The row `xtcp conns` shows.
    #[must_use]
    pub fn info(&self) -> ConnectionInfo {
        todo!()
    }
}
