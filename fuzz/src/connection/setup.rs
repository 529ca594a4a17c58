//! What an input's first bytes choose: how the stack, the connection and the peer are set up. Small limits, because at
//! limits things go wrong, and short times, because time costs nothing.

use std::time::Duration;

use tcp_common::cases::world::OUR_MAC;
use tcp_proto::{CongestionAlgorithm, RttEstimator, StackConfig, TcpConfig};

use crate::input::{Input, bit, pick};

/// How a run begins, and how it ends.
#[derive(Clone, Debug)]
pub struct Setup {
    pub v6: bool,
    pub vlan: Option<u16>,
    /// Whether we connect (else the peer does).
    pub active: bool,
    /// Whether a handshake without accidents comes first.
    pub shakes_hands: bool,
    /// Whether the peer comes to its senses in the end: then everything must arrive.
    pub heals: bool,
    /// Whether the application aborts in the end (else it closes).
    pub aborts: bool,
    /// Whether our numbers begin shortly before they wrap.
    pub wraps: bool,
    pub seed: u8,
    pub start_ms: u64,
    pub tcp: TcpConfig,
    pub stack: StackConfig,
    pub offers: Offers,
}

/// What every SYN of the peer's offers.
#[derive(Clone, Copy, Debug)]
pub struct Offers {
    pub mss: Option<u16>,
    pub scale: Option<u8>,
    pub timestamps: bool,
    pub sack: bool,
    pub ecn: bool,
}

impl Setup {
    pub fn read(input: &mut Input<'_>) -> Setup {
        let [run, options, peer, buffers, limits, times, seed, other] = input.array();
        let ms = Duration::from_millis;
        Setup {
            v6: bit(run, 0),
            vlan: bit(run, 1).then_some(0x2064),
            active: bit(run, 2),
            shakes_hands: bit(run, 3),
            heals: bit(run, 4),
            aborts: bit(run, 5),
            wraps: bit(run, 6),
            seed,
            start_ms: pick(other, &[1_000_000, 1_000_000, u32::MAX as u64 - 3000, 5_000_000_000]),
            tcp: TcpConfig {
                window_scale: bit(options, 0),
                timestamps: bit(options, 1),
                sack: bit(options, 2),
                ecn: bit(options, 3),
                nodelay: bit(options, 4),
                autotune: bit(options, 5),
                keepalive: bit(options, 6),
                congestion: if bit(options, 7) { CongestionAlgorithm::Reno } else { CongestionAlgorithm::Cubic },
                recv_buffer: pick(buffers, &[1 << 16, 1000, 20_000, 1 << 20]),
                send_buffer: pick(buffers >> 2, &[1 << 16, 1000, 20_000, 1 << 17]),
                mss: pick(buffers >> 4, &[None, None, Some(536), Some(88)]),
                linger: pick(times, &[None, None, Some(Duration::ZERO), Some(ms(3000))]),
                user_timeout: pick(times >> 2, &[Duration::ZERO, Duration::ZERO, ms(500), ms(30_000)]),
                delayed_ack: pick(times >> 4, &[ms(40), Duration::ZERO, ms(200), ms(499)]),
                persist_initial: pick(times >> 6, &[None, None, Some(ms(5)), Some(ms(60_000))]),
                retries2: pick(limits, &[15, 0, 3, 15]),
                syn_retries: pick(limits >> 2, &[7, 0]),
                synack_retries: pick(limits >> 2, &[5, 0]),
                orphan_retries: pick(limits >> 3, &[8, 0]),
                time_wait_reuse: !bit(other, 2),
                rtt_estimator: if bit(other, 3) { RttEstimator::Rfc793 } else { RttEstimator::Rfc6298 },
                keepalive_time: ms(3000),
                keepalive_interval: ms(1000),
                ..TcpConfig::default()
            },
            stack: StackConfig {
                mac: OUR_MAC,
                mtu: pick(limits >> 4, &[1500, 1500, 576, 1280]).max(if bit(run, 0) { 1280 } else { 576 }),
                max_connections: 4,
                max_buffer_memory: pick(limits >> 6, &[1 << 30, 1 << 30, 1 << 16, 1 << 14]),
                max_orphans: pick(other >> 4, &[16, 16, 0, 1]),
                ..StackConfig::default()
            },
            offers: Offers {
                mss: pick(peer, &[Some(1460), None, Some(0), Some(536)]),
                scale: pick(peer >> 2, &[None, Some(0), Some(7), Some(14)]),
                timestamps: bit(peer, 4),
                sack: bit(peer, 5),
                ecn: bit(peer, 6),
            },
        }
    }
}
