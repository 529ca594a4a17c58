//! The victims: a connection with echo or with the proxy, the stream that it carries under attack, and what somebody
//! who knew everything would know of its numbers.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use tests::Lab;
use tests::daemon::Daemon;
use tests::peer::{self, assert_same, bytes};
use tests::segment::Mac;
use tests::wait::End;

/// Pause between two exchanges of a conversation.
const PAUSE: Duration = Duration::from_millis(2);
/// What a bulk stream sends at once, in bytes, and the pause after it: 800 kB a second each way.
const CHUNK: usize = 16 << 10;
const CHUNK_PAUSE: Duration = Duration::from_millis(20);
/// Chunks that a bulk stream has under way at most.
const CHUNKS_UNDER_WAY: usize = 4;

/// Whom an attack is on.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// MAC addresses of both ends.
    pub client_mac: Mac,
    pub server_mac: Mac,
    /// The victim's connection.
    pub client: SocketAddr,
    pub server: SocketAddr,
}

impl Target {
    pub fn new(lab: &Lab, victim: &TcpStream) -> Target {
        Target {
            client_mac: lab.client.mac().expect("a MAC address"),
            server_mac: lab.server.mac().expect("a MAC address"),
            client: victim.local_addr().expect("an address"),
            server: victim.peer_addr().expect("an address"),
        }
    }
}

/// Numbers of a victim's connection, as xtcp has them.
#[derive(Clone, Copy, Debug)]
pub struct Numbers {
    /// RCV.NXT, or what it will be in a moment.
    pub rcv_nxt: u32,
    /// SND.NXT, or what it was a moment ago.
    pub snd_nxt: u32,
    /// What SND.NXT will be once everything under way is echoed.
    pub snd_max: u32,
    /// RCV.WND when the attack began, in bytes.
    pub rcv_wnd: u32,
}

/// A client's connection whose bytes all come back.
pub struct Victim {
    stream: TcpStream,
    pub target: Target,
    at_first: Numbers,
    /// Bytes that the client has sent (counted before they leave), and that came back, since.
    sent: AtomicU32,
    echoed: AtomicU32,
}

impl Victim {
    pub fn connect(lab: &Lab, daemon: &Daemon, server: SocketAddr) -> Victim {
        let mut stream = lab.connect(server);
        peer::round_trip(&mut stream, b"at rest");
        let target = Target::new(lab, &stream);
        let remote = target.client.to_string();
        let rows = daemon.connections(server.port());
        let row = rows.iter().find(|row| row.remote == remote).expect("the victim's connection");
        let number = |name| row.number(name) as u32;
        let [rcv_nxt, snd_nxt, rcv_wnd] = ["rcv_nxt", "snd_nxt", "rcv_wnd"].map(number);
        let at_first = Numbers { rcv_nxt, snd_nxt, snd_max: snd_nxt, rcv_wnd };
        Victim { stream, target, at_first, sent: AtomicU32::new(0), echoed: AtomicU32::new(0) }
    }

    pub fn numbers(&self) -> Numbers {
        let (sent, echoed) = (self.sent.load(Ordering::Relaxed), self.echoed.load(Ordering::Relaxed));
        let Numbers { rcv_nxt, snd_nxt, rcv_wnd, .. } = self.at_first;
        Numbers {
            rcv_nxt: rcv_nxt.wrapping_add(sent),
            snd_nxt: snd_nxt.wrapping_add(echoed),
            snd_max: snd_nxt.wrapping_add(sent),
            rcv_wnd,
        }
    }

    /// Exchanges of all sizes, one after the other, until the end comes; how many bytes came back.
    pub fn converse(&self, end: &End) -> u32 {
        let data = bytes(20_000, 77);
        for exchange in 0_usize.. {
            if end.has_come() {
                break;
            }
            let sent = &data[exchange % 100..][..1 + exchange * exchange % 4000];
            self.send(sent);
            self.receive(sent);
            std::thread::sleep(PAUSE);
        }
        self.echoed.load(Ordering::Relaxed)
    }

    /// A stream of large pieces, several of them under way, until the end comes; how many bytes came back.
    pub fn stream(&self, end: &End) -> u32 {
        let data = bytes(1 << 20, 99);
        let (under_way, expected) = mpsc::sync_channel(CHUNKS_UNDER_WAY);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let under_way = under_way;
                for chunk in data.chunks(CHUNK).cycle() {
                    if end.has_come() || under_way.send(chunk).is_err() {
                        break;
                    }
                    self.send(chunk);
                    std::thread::sleep(CHUNK_PAUSE);
                }
            });
            expected.iter().for_each(|chunk| self.receive(chunk));
        });
        self.echoed.load(Ordering::Relaxed)
    }

    /// Half-closes; nothing but the end of the stream comes back.
    pub fn close(&self) {
        self.stream.shutdown(Shutdown::Write).expect("a half-close");
        assert_eq!(peer::read_to_end(&self.stream), b"");
    }

    fn send(&self, data: &[u8]) {
        self.sent.fetch_add(data.len() as u32, Ordering::Relaxed);
        (&self.stream).write_all(data).expect("the connection takes data");
    }

    fn receive(&self, expected: &[u8]) {
        let mut answer = vec![0; expected.len()];
        (&self.stream).read_exact(&mut answer).expect("the connection answers");
        assert_same(&answer, expected);
        self.echoed.fetch_add(expected.len() as u32, Ordering::Relaxed);
    }
}
