//! A whole stack and a crowd of peers, for what one connection does not show.

use std::net::SocketAddr;
use std::sync::Arc;

use tcp_proto::{Instant, ListenOptions, ListenerId, Stack, StackConfig, TcpConfig};

use super::{LOCAL, Seg, frame, read_frame};

/// A stack that listens at [`LOCAL`], and peers that differ by their port.
pub struct Crowd {
    pub stack: Stack,
    pub now: Instant,
    pub listener: ListenerId,
}

/// First sequence number of every peer.
pub const PEER_ISN: u32 = 1000;

impl Crowd {
    pub fn new(config: StackConfig, tcp: TcpConfig) -> Crowd {
        Crowd::seeded(config, tcp, 7)
    }

    /// The same with another secret.
    pub fn seeded(config: StackConfig, tcp: TcpConfig, seed: u8) -> Crowd {
        let now = Instant::from_millis(1_000_000);
        let mut stack = Stack::new(StackConfig { mac: [2, 0, 0, 0, 0, 1], ..config }, [seed; 32], now);
        let listener = stack.listen(LOCAL.parse().unwrap(), ListenOptions { tcp: Arc::new(tcp) }).unwrap();
        Crowd { stack, now, listener }
    }

    pub fn send(&mut self, port: u16, text: &str, seq: u32, ack: u32) {
        let seg = Seg { seq, ack, ..Seg::parse(text) };
        let peer = SocketAddr::from(([10, 0, 0, 2], port));
        self.stack.handle_frame(self.now, &frame(peer, LOCAL.parse().unwrap(), &seg));
    }

    pub fn sent(&mut self) -> Vec<Seg> {
        let (mut new, mut changed, mut buffer) = (Vec::new(), Vec::new(), [0; 2000]);
        self.stack.take_table_writes(self.now, &mut new, &mut changed);
        let next = || self.stack.poll_transmit(self.now, &mut buffer).map(|length| read_frame(&buffer[..length]).2);
        std::iter::from_fn(next).collect()
    }

    /// A connection from `port`; our next sequence number. The peer's is `PEER_ISN + 1`.
    pub fn open(&mut self, port: u16) -> u32 {
        self.send(port, "S 0:0 <mss 1460>", PEER_ISN, 0);
        let answers = self.sent();
        assert_eq!(answers.len(), 1, "a SYN-ACK for port {port}");
        self.send(port, ". 0:0", PEER_ISN + 1, answers[0].seq + 1);
        answers[0].seq + 1
    }
}
