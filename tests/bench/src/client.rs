//! The client without a stack: opens very many connections from generated sources by raw frames, and answers what the
//! server sends from nothing but what it sends.
//!
//! It counts what is open by SYN-ACKs, one for each connection, and repeats SYNs that had none. It neither keeps data nor
//! repeats anything else: the server does that.

use std::fmt;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use ::tests::net::on_a_thread;
use anyhow::{Context, Result, ensure};
use bench_ebpf::{Template, V4};
use xtcp::afxdp::{XskOptions, XskSocket};

use crate::cpu::{self, CLIENT_CORE};
use crate::frame::{self, ACK, FIN, Kind, SYN, Script};
use crate::generator::Bounds;
use crate::lab::BenchLab;

/// Connections that may wait for their SYN-ACK.
const WINDOW: usize = 256;
/// Quiet after which what waits is taken for lost.
const PATIENCE: Duration = Duration::from_millis(200);
/// Frames that are taken or sent at once.
const BATCH: usize = 64;
/// Connections of one run, at most: their names are few enough to have a bit each.
pub const MAX_REQUESTS: u64 = 10_000_000;
/// Longest run.
const MAX_TIME: Duration = Duration::from_secs(300);

/// What opening so many connections came to.
#[derive(Clone, Debug)]
pub struct Opened {
    /// Connections.
    pub count: usize,
    /// Connections that the server has closed, too.
    pub closed: usize,
    /// Time from the first SYN to the last SYN-ACK.
    pub time: Duration,
    /// Longest time between two SYN-ACKs while connections waited for theirs.
    pub longest_stall: Duration,
    /// Connections opened in each tenth of the number, per second.
    pub rates: Vec<f64>,
    /// SYNs that were sent again.
    pub repeated: u64,
}

impl fmt::Display for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Opened { count, closed, time, longest_stall, repeated, .. } = self;
        let (seconds, stall) = (time.as_secs_f64(), longest_stall.as_secs_f64() * 1e3);
        let rate = *count as f64 / seconds.max(1e-9) / 1000.0;
        write!(
            f,
            "{seconds:.2} s: {count} connections opened ({rate:.1} k/s), {closed} closed by the server; longest time \
             without a SYN-ACK {stall:.1} ms, {repeated} SYNs repeated"
        )
    }
}

/// A client at its end of a lab's wire.
pub struct Client {
    socket: XskSocket,
    template: Template,
    script: Script,
}

impl Client {
    /// A client of the lab's listener (IPv4). The calling thread moves into its namespace, to its core, for good.
    ///
    /// # Errors
    /// When the kernel refuses, and when the lab serves over IPv6.
    pub fn new(lab: &mut BenchLab, script: Script) -> Result<Client> {
        ensure!(lab.ends.listener.is_ipv4(), "the client without a stack speaks IPv4");
        let end = &lab.wire.client;
        end.move_in()?;
        cpu::stay_on(CLIENT_CORE)?;
        let socket = XskSocket::bind(&XskOptions::new(end.interface(), end.interface_index()?, 1500, 0))?;
        lab.client.register(socket.as_fd())?;
        Ok(Client { socket, template: frame::template(Kind::Syn, &lab.ends), script })
    }

    /// Opens `count` connections, each from an address and port of its own, a window at a time.
    ///
    /// # Errors
    /// When it takes longer than five minutes.
    pub fn open(&mut self, count: usize) -> Result<Opened> {
        let opened = self.flood(&Bounds { rate: None, time: MAX_TIME, count: count as u64 });
        ensure!(opened.count == count, "{} of {count} connections are open after {MAX_TIME:?}", opened.count);
        Ok(opened)
    }

    /// Opens connections like [`Client::open`] until a bound is met.
    pub fn flood(&mut self, bounds: &Bounds) -> Opened {
        let mut run = Run::new(bounds.count as usize, &self.template);
        let mut answers = Vec::new();
        while run.open < run.is_open.len() && run.start.elapsed() < bounds.time {
            self.receive(&mut run, &mut answers);
            run.due = bounds.due(run.start.elapsed()) as usize;
            self.send(&mut run, &mut answers);
        }
        run.due = 0;
        self.answer(&mut run, Duration::from_millis(300));
        run.conclude()
    }

    /// Answers what comes for a while, and opens nothing.
    pub fn serve(&mut self, time: Duration) {
        self.answer(&mut Run::new(0, &self.template), time);
    }

    fn answer(&mut self, run: &mut Run, time: Duration) {
        let (until, mut answers) = (Instant::now() + time, Vec::new());
        while Instant::now() < until {
            self.receive(run, &mut answers);
            self.send(run, &mut answers);
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    fn receive(&mut self, run: &mut Run, answers: &mut Vec<Vec<u8>>) {
        let script = self.script;
        self.socket.receive(BATCH, |received| {
            run.note(received.frame);
            answers.extend(frame::answer(received.frame, script));
        });
    }

    /// Answers first, then as many SYNs as the window lets through.
    fn send(&mut self, run: &mut Run, answers: &mut Vec<Vec<u8>>) {
        let template = &self.template;
        let mut ready = answers.drain(..);
        self.socket.transmit(2 * BATCH, |memory| {
            if let Some(answer) = ready.next() {
                memory[..answer.len()].copy_from_slice(&answer);
                return Some(answer.len());
            }
            let number = run.next()?;
            let (source, port) = run.names.of(number);
            Some(frame::fill(memory, template, &template.fill(source, port, number as u32)))
        });
        drop(ready);
    }
}

/// The source and port of each connection by its number, and back.
#[derive(Clone, Copy, Debug)]
struct Names {
    base: u32,
    mask: u32,
    port: u32,
}

impl Names {
    fn of(&self, number: usize) -> (u32, u32) {
        let number = number as u32;
        (self.base | number & self.mask, self.port + (number >> self.mask.count_ones()))
    }

    fn number(&self, source: u32, port: u32) -> Option<usize> {
        let high = port.checked_sub(self.port)?;
        Some(((high << self.mask.count_ones()) | source & self.mask) as usize)
    }
}

/// The opening of so many connections.
struct Run {
    names: Names,
    is_open: Vec<bool>,
    open: usize,
    is_closed: Vec<bool>,
    closed: usize,
    /// Numbers below were asked for once in this pass.
    asked: usize,
    /// Numbers below may be asked for by now.
    due: usize,
    waiting: usize,
    repeated: u64,
    passes: u32,
    start: Instant,
    last: Instant,
    longest_stall: Duration,
    tenths: Vec<Instant>,
}

impl Run {
    fn new(count: usize, template: &Template) -> Run {
        let now = Instant::now();
        Run {
            names: Names { base: template.source_base, mask: template.source_mask, port: template.port_base },
            is_open: vec![false; count],
            open: 0,
            is_closed: vec![false; count],
            closed: 0,
            asked: 0,
            due: 0,
            waiting: 0,
            repeated: 0,
            passes: 0,
            start: now,
            last: now,
            longest_stall: Duration::ZERO,
            tenths: Vec::new(),
        }
    }

    /// The next connection to ask for, if one may be.
    fn next(&mut self) -> Option<usize> {
        if self.waiting >= WINDOW || self.asked == self.is_open.len() {
            if self.open == self.is_open.len() || self.last.elapsed() < PATIENCE {
                return None;
            }
            self.waiting = 0;
            self.last = Instant::now();
            if self.asked == self.is_open.len() {
                (self.asked, self.passes) = (0, self.passes + 1);
            }
        }
        while *self.is_open.get(self.asked)? {
            self.asked += 1;
        }
        if self.asked >= self.due {
            return None;
        }
        self.repeated += u64::from(self.passes > 0);
        self.asked += 1;
        self.waiting += 1;
        Some(self.asked - 1)
    }

    /// Counts the first SYN-ACK and the first FIN of a connection.
    fn note(&mut self, frame: &[u8]) {
        let Some((number, flags)) = self.read(frame) else { return };
        if flags & SYN != 0 {
            self.note_open(number);
        } else if flags & FIN != 0
            && let Some(is_closed) = self.is_closed.get_mut(number)
        {
            self.closed += usize::from(!*is_closed);
            *is_closed = true;
        }
    }

    fn note_open(&mut self, number: usize) {
        let Some(is_open) = self.is_open.get_mut(number).filter(|is_open| !**is_open) else { return };
        *is_open = true;
        self.open += 1;
        self.waiting = self.waiting.saturating_sub(1);
        let now = Instant::now();
        self.longest_stall = self.longest_stall.max(now - self.last);
        self.last = now;
        if self.open * 10 >= self.is_open.len() * (self.tenths.len() + 1) {
            self.tenths.push(now);
        }
    }

    /// Number and flags of a segment that has an ACK.
    fn read(&self, frame: &[u8]) -> Option<(usize, u8)> {
        let flags = *frame.get(V4.tcp + 13)?;
        let [a, b, c, d] = *frame.get(30..34)?.first_chunk()?;
        let [high, low] = *frame.get(V4.tcp + 2..)?.first_chunk()?;
        let port = u16::from_be_bytes([high, low]);
        let number = self.names.number(u32::from_be_bytes([a, b, c, d]), port.into())?;
        (flags & ACK != 0).then_some((number, flags))
    }

    fn conclude(self) -> Opened {
        let tenth = self.is_open.len() as f64 / 10.0;
        let begins = std::iter::once(self.start).chain(self.tenths.iter().copied());
        let rates = begins.zip(&self.tenths).map(|(from, to)| tenth / (*to - from).as_secs_f64()).collect();
        Opened {
            count: self.open,
            closed: self.closed,
            time: self.last - self.start,
            longest_stall: self.longest_stall,
            rates,
            repeated: self.repeated,
        }
    }
}

/// Runs `work` with a client on a thread of its own, which ends with it.
///
/// # Errors
/// What `work` says.
pub fn with_client<T: Send>(
    lab: &mut BenchLab,
    script: Script,
    work: impl FnOnce(&mut Client, &BenchLab) -> Result<T> + Send,
) -> Result<T> {
    on_a_thread(|| {
        let mut client = Client::new(lab, script).context("the client without a stack")?;
        work(&mut client, lab)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_connection_has_a_name_of_its_own_and_is_found_by_it() {
        let names = Names { base: 0xc612_0000, mask: 0x1_ffff, port: 0x4000 };
        for number in [0, 1, 0x1_ffff, 0x2_0000, 999_999] {
            let (source, port) = names.of(number);
            assert_eq!(names.number(source, port), Some(number));
            assert!(port < 0x1_0000 && source >> 17 == 0xc612_0000 >> 17);
        }
        assert_eq!(names.number(0xc612_0000, 80), None);
    }

    fn template() -> Template {
        let (client, server) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
        let listener = "10.77.0.2:7".parse().expect("an address");
        frame::template(Kind::Syn, &frame::Ends { client, server, listener })
    }

    fn from_server(source: [u8; 4], port: u16, flags: u8) -> Vec<u8> {
        let mut frame = vec![0; 54];
        frame[30..34].copy_from_slice(&source);
        frame[V4.tcp + 2..V4.tcp + 4].copy_from_slice(&port.to_be_bytes());
        frame[V4.tcp + 13] = flags;
        frame
    }

    #[test]
    fn a_connection_opens_once_and_is_closed_once_whatever_is_repeated() {
        let template = template();
        let mut run = Run::new(2, &template);
        let ((second, _), port) = (run.names.of(1), template.port_base as u16);
        for flags in [SYN | ACK, SYN | ACK, ACK, FIN | ACK, FIN | ACK] {
            run.note(&from_server(second.to_be_bytes(), port, flags));
        }
        run.note(&from_server([198, 19, 255, 255], port, FIN | ACK));
        assert_eq!((run.open, run.closed), (1, 1));
        assert_eq!((run.conclude().count, template.source_base), (1, 0xc612_0000));
    }

    #[test]
    fn no_connection_is_asked_for_before_it_is_due() {
        let mut run = Run::new(3, &template());
        assert_eq!(run.next(), None);
        run.due = 2;
        assert_eq!([run.next(), run.next(), run.next()], [Some(0), Some(1), None]);
    }
}
