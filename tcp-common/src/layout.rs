//! Keys and values of the pinned maps: `repr(C)`, explicit padding, sizes asserted.
//!
//! Integers print as stored, so addresses are byte arrays (IPv4 as `::ffff:a.b.c.d`) and ports are
//! in host order: `bpftool map dump` shows what a person expects.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::State;
use crate::rate::Rate;

/// Layout version of every pinned map; a daemon adopts only pins that carry its own.
pub const LAYOUT_VERSION: u32 = 4;

/// Key of CONNECTIONS, and the name of a connection everywhere: its 4-tuple.
///
/// Aligned so that BPF clears and copies it by words and not by a loop over its bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C, align(8))]
pub struct ConnectionKey {
    /// Our address; IPv4 as `::ffff:a.b.c.d`.
    pub local_addr: [u8; 16],
    /// The peer's address; IPv4 as `::ffff:a.b.c.d`.
    pub remote_addr: [u8; 16],
    /// Our port, host order.
    pub local_port: u16,
    /// The peer's port, host order.
    pub remote_port: u16,
    /// Always zero.
    pub pad: u32,
}

const _: () = assert!(size_of::<ConnectionKey>() == 40);

impl ConnectionKey {
    /// The key of the connection between two socket addresses of one family.
    #[must_use]
    pub fn new(local: SocketAddr, remote: SocketAddr) -> Self {
        ConnectionKey {
            local_addr: to_bytes(local.ip()),
            remote_addr: to_bytes(remote.ip()),
            local_port: local.port(),
            remote_port: remote.port(),
            pad: 0,
        }
    }

    /// Our socket address; never an IPv4-mapped IPv6 one.
    #[must_use]
    pub fn local(&self) -> SocketAddr {
        SocketAddr::new(from_bytes(self.local_addr), self.local_port)
    }

    /// The peer's socket address; never an IPv4-mapped IPv6 one.
    #[must_use]
    pub fn remote(&self) -> SocketAddr {
        SocketAddr::new(from_bytes(self.remote_addr), self.remote_port)
    }

    /// Whether the connection runs over IPv4.
    #[must_use]
    pub fn is_ipv4(&self) -> bool {
        is_mapped(&self.local_addr)
    }

    /// As input of a hash: five words.
    #[must_use]
    #[inline(always)]
    pub fn words(&self) -> [u64; 5] {
        let ([a, b], [c, d]) = (halves(self.local_addr), halves(self.remote_addr));
        [a, b, c, d, u64::from(self.local_port) << 16 | u64::from(self.remote_port)]
    }

    /// The address of a wildcard listener of this connection's family.
    #[must_use]
    #[inline(always)]
    pub fn local_wildcard(&self) -> [u8; 16] {
        let mut wildcard = [0; 16];
        if self.is_ipv4() {
            wildcard[..12].copy_from_slice(&V4_PREFIX);
        }
        wildcard
    }
}

/// An address as two words, for hashes.
#[inline(always)]
fn halves(bytes: [u8; 16]) -> [u64; 2] {
    let both = u128::from_le_bytes(bytes);
    [both as u64, (both >> 64) as u64]
}

const V4_PREFIX: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];
/// Bits before the IPv4 address in a mapped one.
pub const V4_PREFIX_LENGTH: u32 = 96;

/// Whether an address, as maps hold it, is of IPv4.
#[must_use]
#[inline(always)]
pub fn is_mapped(address: &[u8; 16]) -> bool {
    address[..12] == V4_PREFIX
}

/// An address as maps hold it: 16 bytes, IPv4 mapped.
#[must_use]
pub fn to_bytes(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// The address that `bytes` stand for; a mapped one comes back as IPv4.
#[must_use]
pub fn from_bytes(bytes: [u8; 16]) -> IpAddr {
    let [.., a, b, c, d] = bytes;
    if is_mapped(&bytes) { IpAddr::V4(Ipv4Addr::new(a, b, c, d)) } else { IpAddr::V6(Ipv6Addr::from(bytes)) }
}

/// Value of CONNECTIONS: what the program needs to decide, and what `bpftool` shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct ConnectionValue {
    /// State; printed by name.
    pub state: State,
    /// Bit 0 ([`FLAG_TIMESTAMPS`]): timestamps were negotiated. Bit 1 ([`FLAG_COOKIE`]): the program made the entry.
    pub flags: u8,
    /// RX queue whose worker owns the connection.
    pub queue: u16,
    /// SND.NXT: what the answer to a segment in TIME_WAIT carries as its sequence number.
    pub snd_nxt: u32,
    /// RCV.NXT: what such an answer acknowledges.
    pub rcv_nxt: u32,
    /// TS.Recent: the timestamp such an answer echoes.
    pub ts_recent: u32,
    /// When the state was entered, CLOCK_MONOTONIC in ns.
    pub since_ns: u64,
    /// When the next timer of the connection expires, CLOCK_MONOTONIC in ns; 0: none is armed.
    pub deadline_ns: u64,
    /// Segments received.
    pub segments_in: u64,
    /// Segments sent.
    pub segments_out: u64,
    /// Stream bytes received in order, each once.
    pub bytes_in: u64,
    /// Stream bytes sent, each once.
    pub bytes_out: u64,
}

/// [`ConnectionValue::flags`]: timestamps were negotiated (RFC 7323).
pub const FLAG_TIMESTAMPS: u8 = 1;
/// [`ConnectionValue::flags`]: the program made the entry when a cookie came back, and the daemon has not written it.
pub const FLAG_COOKIE: u8 = 2;

const _: () = assert!(size_of::<ConnectionValue>() == 64);

impl ConnectionValue {
    /// Whether the program made the entry before `time_ns` (CLOCK_MONOTONIC) and no worker has written it since.
    #[must_use]
    pub const fn is_unclaimed_since(&self, time_ns: u64) -> bool {
        self.flags & FLAG_COOKIE != 0 && self.since_ns < time_ns
    }
}

/// What the program puts before a frame for the worker that receives it when another one owns the connection
/// (XDP metadata: the bytes just before the Ethernet header in the memory of an AF_XDP frame).
///
/// A hint and no more: a frame without one shows whatever an earlier frame left in the same memory. A worker looks
/// for the connection among its own first, then asks [`Handover::owner`], and does not hand over what it was handed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Handover {
    /// [`Handover::MARK`].
    pub mark: u16,
    /// RX queue whose worker owns the connection.
    pub queue: u16,
    /// The connection's local port, host order.
    pub local_port: u16,
    /// The connection's remote port, host order.
    pub remote_port: u16,
}

const _: () = assert!(size_of::<Handover>() == Handover::LENGTH);

impl Handover {
    /// Bytes before the frame.
    pub const LENGTH: usize = 8;
    /// What distinguishes a hint from memory never written.
    pub const MARK: u16 = 0x5854;
    /// The same, of a hint that says: the program found no entry of a connection.
    pub const STRANGER: u16 = 0x5853;

    /// The hint about a connection that the worker of RX queue `queue` owns.
    #[must_use]
    #[inline(always)]
    pub fn new(key: &ConnectionKey, queue: u16) -> Self {
        Handover { mark: Handover::MARK, queue, local_port: key.local_port, remote_port: key.remote_port }
    }

    /// The hint that there is no entry of `key`.
    #[must_use]
    #[inline(always)]
    pub fn stranger(key: &ConnectionKey) -> Self {
        Handover { mark: Handover::STRANGER, ..Handover::new(key, 0) }
    }

    /// Whether `metadata` (the bytes before the frame) says that there was no entry of `key`.
    #[must_use]
    pub fn is_stranger(metadata: [u8; Handover::LENGTH], key: &ConnectionKey) -> bool {
        Handover::read(metadata) == Handover::stranger(key)
    }

    fn read(metadata: [u8; Handover::LENGTH]) -> Self {
        let [mark, queue, local_port, remote_port] =
            core::array::from_fn(|word| u16::from_ne_bytes([metadata[2 * word], metadata[2 * word + 1]]));
        Handover { mark, queue, local_port, remote_port }
    }

    /// The RX queue whose worker owns the connection `key`, if `metadata` (the bytes before the frame) says so.
    #[must_use]
    pub fn owner(metadata: [u8; Handover::LENGTH], key: &ConnectionKey) -> Option<u16> {
        let hint = Handover::read(metadata);
        (hint == Handover::new(key, hint.queue)).then_some(hint.queue)
    }
}

/// Key of LISTENERS: where a listener listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct ListenerKey {
    /// Its address, IPv4 mapped; `::ffff:0.0.0.0` and `::` are the wildcards of the two families.
    pub addr: [u8; 16],
    /// Its port, host order.
    pub port: u16,
    /// Always zero.
    pub pad: u16,
}

const _: () = assert!(size_of::<ListenerKey>() == 20);

impl ListenerKey {
    /// The key of a listener on `local`.
    #[must_use]
    pub fn new(local: SocketAddr) -> Self {
        ListenerKey { addr: to_bytes(local.ip()), port: local.port(), pad: 0 }
    }
}

/// Value of LISTENERS: what the program needs to answer for the listener, and figures to be looked at. The daemon writes
/// it when the listener begins and, if a figure moved, once a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct ListenerValue {
    /// Position in the daemon's list of listeners.
    pub index: u32,
    /// [`ListenerValue::COOKIES_AUTO`], [`ListenerValue::COOKIES_ALWAYS`] or [`ListenerValue::COOKIES_NEVER`].
    pub syn_cookies: u8,
    /// What SYN-ACKs offer if the SYN does: [`OFFERS_TIMESTAMPS`] and so on; and [`STAYS_SILENT`].
    pub offers: u8,
    /// TTL or hop limit of answers.
    pub ttl: u8,
    /// Traffic class of answers: DSCP, and an ECN field of zero.
    pub traffic_class: u8,
    /// MSS that SYN-ACKs announce, bytes.
    pub mss: u16,
    /// Window field of answers.
    pub window: u16,
    /// Window scale that SYN-ACKs offer.
    pub window_scale: u8,
    /// Whether SYNs are answered with cookies now: 0 or 1.
    pub cookie_mode: u8,
    /// Always zero.
    pub pad: u16,
    /// SYNs in a window of [`crate::gauge::WINDOW_NS`] above which they are answered with cookies (`auto`).
    pub syn_limit: u32,
    /// How long TIME_WAIT lasts, ms.
    pub time_wait_ms: u32,
    /// Connections in SYN_RCVD.
    pub syn_queue: u32,
    /// Most ever in SYN_RCVD; with several workers the sum of their peaks.
    pub syn_queue_max: u32,
    /// Established connections that wait to be accepted.
    pub accept_queue: u32,
    /// Most that ever waited to be accepted; with several workers the sum of their peaks.
    pub accept_queue_max: u32,
    /// Always zero.
    pub pad2: u32,
    /// SYNs and last ACKs dropped because a queue was full: the sum of the next two.
    pub overflows: u64,
    /// SYNs dropped because the SYN queue was full.
    pub syn_overflows: u64,
    /// Last ACKs dropped because the accept queue was full.
    pub accept_overflows: u64,
}

const _: () = assert!(size_of::<ListenerValue>() == 72);

impl ListenerValue {
    /// `syn_cookies = "auto"`: under a flood.
    pub const COOKIES_AUTO: u8 = 0;
    /// `syn_cookies = "always"`.
    pub const COOKIES_ALWAYS: u8 = 1;
    /// `syn_cookies = "never"`.
    pub const COOKIES_NEVER: u8 = 2;

    /// The same with the figures of `other`.
    #[must_use]
    pub const fn with_figures_of(self, other: &ListenerValue) -> ListenerValue {
        ListenerValue {
            cookie_mode: other.cookie_mode,
            syn_queue: other.syn_queue,
            syn_queue_max: other.syn_queue_max,
            accept_queue: other.accept_queue,
            accept_queue_max: other.accept_queue_max,
            overflows: other.overflows,
            syn_overflows: other.syn_overflows,
            accept_overflows: other.accept_overflows,
            ..self
        }
    }

    /// Whether segments without connection are answered with resets.
    #[must_use]
    #[inline(always)]
    pub const fn resets(&self) -> bool {
        self.offers & STAYS_SILENT == 0
    }
}

/// [`ListenerValue::offers`]: timestamps (RFC 7323 section 3).
pub const OFFERS_TIMESTAMPS: u8 = 1;
/// [`ListenerValue::offers`]: window scaling (RFC 7323 section 2).
pub const OFFERS_WINDOW_SCALE: u8 = 2;
/// [`ListenerValue::offers`]: selective acknowledgments (RFC 2018).
pub const OFFERS_SACK: u8 = 4;
/// [`ListenerValue::offers`]: explicit congestion notification (RFC 3168).
pub const OFFERS_ECN: u8 = 8;
/// [`ListenerValue::offers`]: no resets for segments without connection (`no_connection = "drop"`).
pub const STAYS_SILENT: u8 = 16;

/// Value of CONFIG, whose one entry the daemon writes and the program reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Config {
    /// [`LAYOUT_VERSION`] of whoever made the maps.
    pub layout_version: u32,
    /// How long TIME_WAIT lasts on ports without listener, ms.
    pub time_wait_ms: u32,
    /// When the daemon last said that it lives, CLOCK_MONOTONIC in ns.
    pub heartbeat_ns: u64,
    /// MAC address of the interface; frames to any other pass.
    pub mac: [u8; 6],
    /// First port of active opens, host order.
    pub ephemeral_first: u16,
    /// Last port of active opens, host order; below the first: there are none.
    pub ephemeral_last: u16,
    /// Whether the program answers by itself (`xdp_tx`): 0 or 1.
    pub answers: u8,
    /// Whether a checksum over the pseudo-header alone passes (`rx_checksum = "accept-partial"`): 0 or 1.
    pub accept_partial: u8,
    /// Entries of PREFIXES; 0: the program does not look there.
    pub prefixes: u32,
    /// How many resets a CPU sends; an interval of 0: none.
    pub resets: Rate,
    /// How many SYNs a source may send; an interval of 0: as many as it likes.
    pub source: Rate,
}

const _: () = assert!(size_of::<Config>() == 64);

/// Value of PREFIXES, which has a key for each prefix that is allowed or denied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct PrefixValue {
    /// 1: allowed, 2: denied; see [`Rule`](crate::prefix::Rule).
    pub rule: u32,
    /// Length of the prefix, bits of a mapped address.
    pub length: u32,
}

const _: () = assert!(size_of::<PrefixValue>() == 8);

/// Most connections that CONNECTIONS can be made for.
pub const MAX_CONNECTIONS: u32 = 1 << 24;
/// Most RX queues of an interface.
pub const MAX_QUEUES: u32 = 256;
/// Most listeners.
pub const MAX_LISTENERS: u32 = 1024;
/// Most unicast addresses of an interface.
pub const MAX_ADDRESSES: u32 = 1024;
/// Most prefixes that are allowed or denied, together.
pub const MAX_PREFIXES: u32 = 65_536;
/// Most sources whose SYNs are counted; another one takes the place of one that has sent none for long.
pub const MAX_SOURCES: u32 = 65_536;
/// 64-bit words of the map of owned ports: one bit per port.
pub const PORT_WORDS: u32 = 65536 / 64;
/// 64-bit words of the map of accepted VLANs: one bit per VID.
pub const VLAN_WORDS: u32 = 4096 / 64;

/// ICMP errors that a CPU gives to the daemon.
pub const ICMP_ERRORS: Rate = Rate::per_second(1_000, 100);
/// Most resets that a CPU sends at once.
pub const RESET_BURST: u32 = 100;
/// ACKs that a CPU sends for connections in TIME_WAIT. A repeated FIN, whose sender knows the numbers, is always
/// acknowledged.
pub const TIME_WAIT_ACKS: Rate = Rate::per_second(1_000, 100);
/// SYNs with data that a CPU gives to a daemon whose listener sends cookies. The program can't answer these (their checksum
/// covers the data), and a flood of them must not reach the daemon either.
pub const SYNS_WITH_DATA: Rate = Rate::per_second(1_000, 100);

/// The resets that a CPU sends for this `rst_rate`: at once no more than in a second, nor than [`RESET_BURST`].
#[must_use]
pub const fn resets(rst_rate: u32) -> Rate {
    Rate::per_second(rst_rate, if rst_rate < RESET_BURST { rst_rate } else { RESET_BURST })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(local: &str, remote: &str) -> ConnectionKey {
        ConnectionKey::new(local.parse().unwrap(), remote.parse().unwrap())
    }

    #[test]
    fn a_key_gives_back_the_addresses_that_it_was_made_of() {
        for (local, remote) in [("10.77.0.2:7", "10.77.0.1:50001"), ("[fd00::2]:7", "[fd00::1]:50001")] {
            let key = key(local, remote);
            assert_eq!((key.local(), key.remote()), (local.parse().unwrap(), remote.parse().unwrap()));
        }
    }

    #[test]
    fn the_wildcards_of_the_two_families_differ() {
        let wildcard = |local: &str| ListenerKey::new(local.parse().unwrap()).addr;
        assert_eq!(key("10.77.0.2:7", "10.77.0.1:1").local_wildcard(), wildcard("0.0.0.0:7"));
        assert_eq!(key("[fd00::2]:7", "[fd00::1]:1").local_wildcard(), wildcard("[::]:7"));
        assert_ne!(wildcard("0.0.0.0:7"), wildcard("[::]:7"));
    }

    #[test]
    fn a_hint_is_about_one_connection_and_memory_never_written_is_none() {
        let (own, other) = (key("10.77.0.2:7", "10.77.0.1:50001"), key("10.77.0.2:7", "10.77.0.1:50002"));
        let Handover { mark, queue, local_port, remote_port } = Handover::new(&own, 3);
        let mut metadata = [0; Handover::LENGTH];
        for (at, word) in [mark, queue, local_port, remote_port].into_iter().enumerate() {
            metadata[2 * at..][..2].copy_from_slice(&word.to_ne_bytes());
        }
        assert_eq!(Handover::owner(metadata, &own), Some(3));
        assert_eq!(Handover::owner(metadata, &other), None);
        assert_eq!(Handover::owner([0; Handover::LENGTH], &own), None);
        assert!(!Handover::is_stranger(metadata, &own));
        metadata[..2].copy_from_slice(&Handover::STRANGER.to_ne_bytes());
        metadata[2..4].fill(0);
        assert!(Handover::is_stranger(metadata, &own) && !Handover::is_stranger(metadata, &other));
        assert_eq!(Handover::owner(metadata, &own), None);
    }
}
