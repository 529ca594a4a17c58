//! Captures everything on the client's end of a lab's wire and hands it to the checker, frame by frame.
//!
//! xtcp's own traffic passes no socket of the server's kernel, so the peer's end is the only place to see all of it.
//! The packet socket is not bound to an interface, so a frame of xtcp's may be seen a second time, where an
//! [impairment](crate::impairment) sends it through another device. The first view counts: that is the wire's end.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::net::sockopt::{Timeout, set_socket_recv_buffer_size_force, set_socket_timeout};
use rustix::net::{AddressFamily, Protocol, RecvFlags, SocketAddrAny, SocketFlags, SocketType, recvfrom, socket_with};

use crate::checker::Checker;
use crate::net::Namespace;
use crate::segment::Mac;

/// Bytes of frames that the kernel keeps while the capturing thread is not scheduled.
const SOCKET_BUFFER: usize = 64 << 20;
/// Longest frame in bytes, jumbo frames included.
const LONGEST_FRAME: usize = 16 << 10;
/// `ETH_P_ALL`.
const ALL_PROTOCOLS: u16 = 3;
/// How often the capturing thread looks whether it is to stop.
const STOP_INTERVAL: Duration = Duration::from_millis(20);

/// A running capture.
#[derive(Debug)]
pub struct Capture {
    checker: Arc<Mutex<Checker>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Capture {
    /// Captures in `namespace` until stopped or dropped.
    ///
    /// # Errors
    /// When the packet socket can't be had.
    pub fn start(namespace: &Namespace, checker: Checker) -> Result<Capture> {
        let socket = namespace.enter(open).context("can't open a packet socket")?;
        let checker = Arc::new(Mutex::new(checker));
        let stop = Arc::new(AtomicBool::new(false));
        let (its_checker, its_stop) = (Arc::clone(&checker), Arc::clone(&stop));
        let thread = std::thread::spawn(move || capture(&socket, &its_checker, &its_stop));
        Ok(Capture { checker, stop, thread: Some(thread) })
    }

    /// The checker with what was captured so far.
    pub fn checker(&self) -> MutexGuard<'_, Checker> {
        lock(&self.checker)
    }

    /// Stops once every frame that has arrived is taken.
    pub fn stop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            eprintln!("the capturing thread panicked");
        }
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A checker that a panic left behind is still worth reading.
fn lock(checker: &Mutex<Checker>) -> MutexGuard<'_, Checker> {
    checker.lock().unwrap_or_else(PoisonError::into_inner)
}

fn open() -> rustix::io::Result<OwnedFd> {
    let protocol = NonZeroU32::new(u32::from(ALL_PROTOCOLS.to_be())).map(Protocol::from_raw);
    let socket = socket_with(AddressFamily::PACKET, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
    set_socket_recv_buffer_size_force(&socket, SOCKET_BUFFER)?;
    set_socket_timeout(&socket, Timeout::Recv, Some(STOP_INTERVAL))?;
    Ok(socket)
}

/// Reads until told to stop and nothing is left.
fn capture(socket: &OwnedFd, checker: &Mutex<Checker>, stop: &AtomicBool) {
    let started = Instant::now();
    let mut buffer = vec![0; LONGEST_FRAME];
    let mut views = Views::default();
    loop {
        let stopping = stop.load(Ordering::Relaxed);
        match recvfrom(socket, &mut buffer[..], RecvFlags::empty()) {
            Ok((length, _, from)) => {
                let (mut checker, frame) = (lock(checker), &buffer[..length]);
                if views.is_first(frame, from, checker.sender()) {
                    checker.frame(started.elapsed(), frame);
                }
            }
            Err(_) if stopping => return,
            Err(_) => {}
        }
    }
}

/// From which device, in which direction, frames of xtcp's come: an address of the packet socket, by EtherType, which
/// is part of it.
#[derive(Debug, Default)]
struct Views(HashMap<[u8; 2], SocketAddrAny>);

impl Views {
    /// Whether a frame is seen where the first of its kind was. A frame of another sender always is.
    fn is_first(&mut self, frame: &[u8], from: Option<SocketAddrAny>, sender: Mac) -> bool {
        let (Some(mac), Some(kind), Some(from)) = (frame.get(6..12), frame.get(12..14), from) else { return true };
        // What goes to many has an address of its own, and no segment does.
        let to_many = frame[0] & 1 == 1;
        to_many || mac != sender || *self.0.entry([kind[0], kind[1]]).or_insert_with(|| from.clone()) == from
    }
}
