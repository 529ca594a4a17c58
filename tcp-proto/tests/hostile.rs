//! A peer that sends anything: random flags, numbers in and around the windows, options, text that contradicts itself,
//! while the application does anything too. Whatever happens, the stack does not panic, sends only what it was given
//! to send, never moves its right edge left, comes to rest, and gives all memory back.

mod common;

use common::reach::CONNECTED;
use common::{Seg, Trace, plain};
use tcp_proto::{Received, State, TcpConfig};

const SEEDS: u32 = 1000;
const STEPS: u32 = 120;

#[test]
fn a_peer_that_sends_anything_breaks_nothing() {
    for seed in 0..SEEDS {
        let outcome = std::panic::catch_unwind(|| Hostile::new(seed).run());
        outcome.unwrap_or_else(|_| panic!("the seed that fails: {seed}"));
    }
}

struct Hostile {
    trace: Trace,
    chance: u32,
    /// What the stack's last segment said: the peer aims there.
    next: u32,
    ack: u32,
    /// The right edge it offered, once it did.
    edge: Option<u32>,
    timestamps: bool,
    written: usize,
}

impl Hostile {
    fn new(seed: u32) -> Hostile {
        let mut hostile = Hostile {
            trace: Trace::listen(plain()),
            chance: seed.wrapping_mul(2_654_435_761),
            next: 0,
            ack: 0,
            edge: None,
            timestamps: false,
            written: 0,
        };
        let state = CONNECTED[hostile.below(CONNECTED.len() as u32) as usize];
        let recv_buffer = [1000, 20_000, 60_000][hostile.below(3) as usize];
        let config = TcpConfig { recv_buffer, nodelay: hostile.below(2) == 0, keepalive: true, ..plain() };
        hostile.timestamps = hostile.below(3) == 0 && state == State::SYN_SENT;
        hostile.trace = match hostile.timestamps {
            true => Trace::connect(TcpConfig { timestamps: true, ..config }),
            false => Trace::in_state_with(state, config),
        };
        hostile
    }

    fn below(&mut self, limit: u32) -> u32 {
        self.chance = self.chance.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        ((u64::from(self.chance.rotate_left(11)) * u64::from(limit)) >> 32) as u32
    }

    fn run(mut self) {
        for _ in 0..STEPS {
            self.watch();
            match self.below(10) {
                0..6 => self.send_anything(),
                6 => self.pass_time(),
                _ => self.act(),
            }
        }
        self.watch();
        // What has ended may still be held, because something is left to read.
        let (now, stack) = (self.trace.now, &mut self.trace.stack);
        self.trace.id.and_then(|id| stack.connection(now, id)).into_iter().for_each(|connection| connection.abort());
        stack.abort_all(now);
        while self.trace.take().is_some() {}
        assert_eq!((self.trace.state(), self.trace.stack.buffer_memory()), (State::CLOSED, 0));
    }

    /// Looks at what the stack sends; it ends, because nobody answers. (That text is the stream's is the trace's check.)
    fn watch(&mut self) {
        for _ in 0..2000 {
            let Some(segment) = self.trace.take() else { return };
            if segment.flags & 4 != 0 {
                continue;
            }
            self.next = segment.seq.wrapping_add(segment.payload.len() as u32);
            if segment.flags & 16 != 0 {
                self.note_edge(&segment);
            }
        }
        panic!("the stack does not come to rest");
    }

    fn note_edge(&mut self, segment: &Seg) {
        let edge = segment.ack.wrapping_add(segment.window.into());
        // A connection that has begun anew has numbers of its own.
        let begins = segment.flags & 2 != 0;
        if let Some(before) = self.edge.filter(|_| !begins) {
            assert!(edge.wrapping_sub(before) < 1 << 31, "the right edge moved from {before} to {edge}");
        }
        (self.edge, self.ack) = (Some(edge), segment.ack);
    }

    fn send_anything(&mut self) {
        let usual = ["S", "SA", ".", ".", ".", "PA", "PA", "FA", "FPA", "R", "RA"][self.below(11) as usize];
        let mut segment = Seg::parse(&format!("{usual} 0:0"));
        if self.below(30) == 0 {
            segment.flags = self.below(64) as u8;
        }
        segment.seq = self.near(self.ack);
        segment.ack = self.near(self.next);
        segment.window = [65_535, 0, 1, 500, 5000][self.below(5) as usize];
        let length = [0, 0, 0, 1, 10, 1460][self.below(6) as usize];
        segment.payload = vec![7; length];
        segment.mss = (segment.flags & 2 != 0).then(|| self.below(2000) as u16);
        segment.scale = (self.below(20) == 0).then(|| self.below(20) as u8);
        // Whatever answers our SYN may begin anew, with other numbers than the SYN that crossed it.
        self.edge = self.edge.filter(|_| self.trace.state() != State::SYN_RCVD);
        segment.timestamps = (self.timestamps && self.below(20) > 0).then(|| (self.below(50), 1_000_000));
        self.trace.peer_more(&segment);
    }

    /// A number at, shortly before or after `number`, or anywhere.
    fn near(&mut self, number: u32) -> u32 {
        match self.below(12) {
            0..7 => number,
            7 => number.wrapping_sub(1),
            8 => number.wrapping_add(1),
            9 => number.wrapping_add(self.below(3000)),
            10 => number.wrapping_sub(self.below(3000)),
            _ => self.below(u32::MAX),
        }
    }

    fn pass_time(&mut self) {
        if self.trace.stack.poll_timeout().is_some() {
            self.trace.jump("passing time");
        }
    }

    /// The application does something, if it holds a connection or can have one.
    fn act(&mut self) {
        if self.trace.id.is_none() {
            self.trace.id = self.trace.listener.and_then(|listener| self.trace.stack.accept(listener));
        }
        let Some(id) = self.trace.id else { return };
        let what = self.below(60);
        let length = self.below(5000) as usize;
        let written = self.written;
        let Some(mut connection) = self.trace.stack.connection(self.trace.now, id) else {
            (self.trace.id, self.written) = (None, 0);
            return;
        };
        match what {
            0..25 => self.written += connection.send(&common::stream(1 + written as u32, length)),
            25..50 => {
                let mut into = vec![0; length];
                if let Received::Bytes(count) = connection.recv(&mut into) {
                    assert!(count.get() <= length);
                }
            }
            50..55 => connection.shutdown_write(),
            55..58 => connection.set_nodelay(length.is_multiple_of(2)),
            58 => connection.close(),
            _ => connection.abort(),
        }
    }
}
