//! A stack that listens and has one established connection gets one frame after the other, with what makes frames hold
//! together put right: checksums always, and as each frame's first byte says, its length, its addresses (those of the
//! connection, or a stranger's to the listener) and its numbers (taken as distances from where the connection is). In
//! between the application accepts, reads, writes and closes, and time passes. Held to be true: what is sent can be
//! read, nothing goes on for ever, rows and counters agree, memory stays within its limit, and all ends in the end.

use std::sync::Arc;
use std::time::Duration;

use tcp_common::cases::world::{OUR_MAC, PEER_MAC};
use tcp_proto::{ConnectionId, Instant, ListenOptions, ListenerId, Stack, StackConfig, State, TcpConfig};

use crate::frames::{self, Segment, addresses};
use crate::input::{Input, bit};
use crate::rows;
use crate::wire::{read, transmitted};

/// Frames of an input, at most.
const MAX_FRAMES: usize = 64;
/// Frames that the stack sends in a row, at most.
const MAX_ANSWERS: usize = 4000;
/// Deadlines until everything has ended by itself, at most.
const MAX_DEADLINES: usize = 5000;
const MEMORY: usize = 1 << 20;
const ISN: u32 = u32::MAX - 100;

/// Runs the target.
pub fn run(input: &[u8]) {
    let mut input = Input::new(input);
    let mut site = Site::new(input.byte());
    for _ in 0..MAX_FRAMES {
        if input.is_empty() {
            break;
        }
        let [control, length] = input.array();
        site.frame_arrives(control, input.bytes(length.into()));
        site.goes_on(control);
    }
    site.finish();
}

struct Site {
    stack: Stack,
    now: Instant,
    listener: ListenerId,
    held: Vec<ConnectionId>,
    v6: bool,
    tcp: Arc<TcpConfig>,
}

impl Site {
    fn new(options: u8) -> Site {
        let v6 = bit(options, 0);
        let now = Instant::from_millis(1_000_000);
        let limits = StackConfig { mac: OUR_MAC, max_connections: 4, max_buffer_memory: MEMORY, ..Default::default() };
        let tcp = TcpConfig {
            window_scale: bit(options, 1),
            timestamps: bit(options, 2),
            sack: bit(options, 3),
            ecn: bit(options, 4),
            keepalive: bit(options, 5),
            autotune: bit(options, 6),
            backlog: 2,
            syn_backlog: 2,
            recv_buffer: 20_000,
            send_buffer: 20_000,
            ..TcpConfig::default()
        };
        let tcp = Arc::new(tcp);
        let mut stack = Stack::new(limits, [7; 32], now);
        let listener = stack.listen(addresses(v6).0, ListenOptions { tcp: tcp.clone() }).expect("the first listener");
        let mut site = Site { stack, now, listener, held: Vec::new(), v6, tcp };
        site.establish();
        site
    }

    /// The peer opens with every option, and something is on its way to it.
    fn establish(&mut self) {
        let options = [2, 4, 5, 180, 1, 3, 3, 7, 4, 2, 8, 10, 0, 0, 0, 9, 0, 0, 0, 0];
        let ecn = if self.tcp.ecn { 0xc0 } else { 0 };
        let syn = Segment { flags: 2 | ecn, seq: ISN, window: 60_000, options: options.to_vec(), ..Segment::default() };
        self.peer_says(&syn);
        self.turn();
        let row = rows::rows(&self.stack, self.now).pop().expect("half a connection");
        let options = if self.tcp.timestamps { frames::pad_options(&[8, 10, 0, 0, 0, 9]) } else { Vec::new() };
        let ack = Segment { flags: 16, seq: row.rcv_nxt, ack: row.snd_nxt, window: 500, options, ..Segment::default() };
        self.peer_says(&ack);
        self.accept();
        self.write(4000);
        self.turn();
        assert_eq!(self.stack.count(State::ESTABLISHED), 1);
    }

    fn peer_says(&mut self, segment: &Segment) {
        let (local, remote) = addresses(self.v6);
        self.stack.handle_frame(self.now, &frames::segment(remote, local, segment));
    }

    /// Mends a frame as `control` says, and takes it in.
    fn frame_arrives(&mut self, control: u8, bytes: &[u8]) {
        let mut frame = bytes.to_vec();
        if frame.len() >= 14 {
            frame[..6].copy_from_slice(&OUR_MAC);
        }
        if bit(control, 0) {
            frames::fit(&mut frame);
        }
        if bit(control, 1) {
            self.aim(&mut frame, bit(control, 2));
        }
        frames::seal(&mut frame);
        self.stack.handle_frame(self.now, &frame);
    }

    /// Makes a frame one of the peer's to the connection, or of a stranger's to the listener. Its numbers are distances.
    fn aim(&self, frame: &mut [u8], stranger: bool) {
        let Some(place) = frames::place(frame).filter(|place| place.end >= place.body + 12) else { return };
        let (local, remote) = addresses(self.v6);
        let sample = frames::segment(remote, local, &Segment::default());
        let from = frames::place(&sample).expect("a segment").ip;
        let addresses = if self.v6 { 8..40 } else { 12..20 };
        frame[6..12].copy_from_slice(&PEER_MAC);
        if place.body >= place.ip + addresses.end {
            let source = &sample[from + addresses.start..from + addresses.end];
            frame[place.ip + addresses.start..place.ip + addresses.end].copy_from_slice(source);
        }
        let tcp = &mut frame[place.body..place.end];
        tcp[2..4].copy_from_slice(&local.port().to_be_bytes());
        if stranger {
            return;
        }
        tcp[..2].copy_from_slice(&remote.port().to_be_bytes());
        let rows = rows::rows(&self.stack, self.now);
        let row = rows.iter().find(|row| row.key.remote_port == remote.port());
        let Some(row) = row else { return };
        for (at, base) in [(4, row.rcv_nxt), (8, row.snd_una)] {
            let distance = u32::from_be_bytes(tcp[at..at + 4].try_into().expect("four"));
            tcp[at..at + 4].copy_from_slice(&base.wrapping_add(distance).to_be_bytes());
        }
    }

    /// What follows a frame: the application acts, time passes.
    fn goes_on(&mut self, control: u8) {
        match control >> 4 {
            1 => self.accept(),
            2 => self.read(),
            3 => self.write(3000),
            4 => drop(self.jump()),
            5 => self.shut_down(),
            6 => self.close(),
            7 => {
                self.now += Duration::from_secs(1);
                self.stack.handle_timeout(self.now);
            }
            // What is to be sent waits for the next frame.
            8..=10 => return,
            _ => {}
        }
        self.turn();
    }

    fn accept(&mut self) {
        self.held.extend(self.stack.accept(self.listener));
    }

    fn read(&mut self) {
        let mut into = [0; 5000];
        for id in self.held.clone() {
            if let Some(mut connection) = self.stack.connection(self.now, id) {
                let _what = connection.recv(&mut into);
            }
        }
    }

    fn write(&mut self, length: usize) {
        for id in self.held.clone() {
            if let Some(mut connection) = self.stack.connection(self.now, id) {
                let room = connection.send_room();
                assert!(connection.send(&vec![7; length]) <= room.min(length));
            }
        }
    }

    fn shut_down(&mut self) {
        for id in self.held.clone() {
            if let Some(mut connection) = self.stack.connection(self.now, id) {
                connection.shutdown_write();
            }
        }
    }

    fn close(&mut self) {
        for id in std::mem::take(&mut self.held) {
            if let Some(connection) = self.stack.connection(self.now, id) {
                connection.close();
            }
        }
    }

    /// Time passes until something is due; whether anything is.
    fn jump(&mut self) -> bool {
        let Some(deadline) = self.stack.poll_timeout() else { return false };
        self.now = self.now.max(deadline);
        self.stack.handle_timeout(self.now);
        true
    }

    fn turn(&mut self) {
        self.hear();
        let mut sent = 0;
        while let Some(frame) = transmitted(&mut self.stack, self.now) {
            read(&frame);
            sent += 1;
            assert!(sent < MAX_ANSWERS, "the stack does not come to rest");
            self.hear();
        }
        assert!(!self.stack.wants_transmit());
        let _keys = self.stack.take_table_removals();
        let rows = rows::rows(&self.stack, self.now);
        rows::judge_counts(&self.stack, &rows);
        rows.iter().for_each(|row| rows::judge(row, &self.stack, self.now, false, self.tcp.send_buffer));
        assert!(self.stack.buffer_memory() <= MEMORY);
    }

    fn hear(&mut self) {
        while self.stack.poll_event().is_some() {}
        self.stack.take_table_writes(self.now, &mut Vec::new(), &mut Vec::new());
    }

    fn finish(mut self) {
        self.close();
        self.stack.close_listener(self.now, self.listener);
        self.turn();
        for _ in 0..MAX_DEADLINES {
            if !self.jump() {
                break;
            }
            self.turn();
        }
        let rows = rows::rows(&self.stack, self.now);
        assert!(rows.is_empty() && self.stack.poll_timeout().is_none(), "left: {rows:?}");
        assert_eq!(self.stack.buffer_memory(), 0, "memory is left");
    }
}
