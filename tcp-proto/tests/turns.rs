//! What a turn gives to whom: frames to connections that want to send, changes to the connection table.

mod common;

use std::net::SocketAddr;
use std::time::Duration;

use common::crowd::{Crowd, PEER_ISN};
use common::{plain, read_frame};
use tcp_proto::{ConnectionId, ConnectionKey, ConnectionValue, Device, StackConfig, State, turn};

/// Most frames that a turn sends.
const TURN: usize = 64;
/// How long a state may be out of date in the connection table.
const STATE_DELAY: Duration = Duration::from_millis(5);

/// A device that writes down what it is told.
#[derive(Default)]
struct Record {
    inserted: Vec<ConnectionKey>,
    updated: Vec<(ConnectionKey, State)>,
    removed: Vec<ConnectionKey>,
    /// Ports of peers to which frames were sent, in order.
    sent_to: Vec<u16>,
    /// Sequence number of the last frame.
    seq: u32,
}

impl Device for Record {
    fn receive(&mut self, _: usize, _: impl FnMut(&[u8])) {}

    fn commit(
        &mut self,
        new: &[(ConnectionKey, ConnectionValue)],
        changed: &[(ConnectionKey, ConnectionValue)],
        _: impl FnMut(ConnectionKey),
    ) {
        self.inserted.extend(new.iter().map(|(key, _)| *key));
        self.updated.extend(changed.iter().map(|(key, value)| (*key, value.state)));
    }

    fn transmit(&mut self, limit: usize, mut build: impl FnMut(&mut [u8]) -> Option<usize>) {
        let mut frame = [0; 2000];
        for _ in 0..limit {
            let Some(length) = build(&mut frame) else { return };
            let (_, peer, seg) = read_frame(&frame[..length]);
            self.sent_to.push(peer.port());
            self.seq = seg.seq;
        }
    }

    fn remove(&mut self, keys: &[ConnectionKey]) {
        self.removed.extend(keys);
    }
}

impl Record {
    fn turn(&mut self, crowd: &mut Crowd) {
        turn(&mut crowd.stack, self, crowd.now, |_, _| ());
    }
}

/// An established connection from `port` that the application holds.
fn established(crowd: &mut Crowd, port: u16) -> ConnectionId {
    crowd.open(port);
    crowd.stack.accept(crowd.listener).expect("an established connection")
}

fn write(crowd: &mut Crowd, id: ConnectionId, bytes: usize) {
    assert_eq!(crowd.stack.connection(crowd.now, id).expect("it is held").send(&vec![1; bytes]), bytes);
}

#[test]
fn of_all_who_want_to_send_each_gets_one_frame_before_anyone_gets_a_second() {
    let mut crowd = Crowd::new(StackConfig::default(), plain());
    let (bulk, others) = (1, 2..=150);
    let ids: Vec<ConnectionId> = (1..=150).map(|port| established(&mut crowd, port)).collect();
    write(&mut crowd, ids[0], 10 * 1460);
    ids[1..].iter().for_each(|&id| write(&mut crowd, id, 64));
    let mut device = Record::default();
    for turns in 1..=3 {
        device.turn(&mut crowd);
        assert_eq!(
            device.sent_to.len(),
            (turns * TURN).min(149 + 10),
            "a turn is full while there is something to send"
        );
    }
    let first_round: Vec<u16> = std::iter::once(bulk).chain(others).collect();
    assert_eq!(device.sent_to[..150], first_round, "the bulk sender was first, and last again");
    assert_eq!(device.sent_to[150..], [bulk; 9], "then it has the link to itself");
}

#[test]
fn a_state_that_lasts_is_in_the_connection_table_within_milliseconds_and_written_once() {
    let mut crowd = Crowd::new(StackConfig::default(), plain());
    established(&mut crowd, 1);
    let mut device = Record::default();
    device.turn(&mut crowd);
    assert_eq!(device.updated, []);
    let due = crowd.stack.poll_timeout().expect("the write is waited for");
    assert_eq!(due, crowd.now + STATE_DELAY);
    crowd.now = due;
    device.turn(&mut crowd);
    device.turn(&mut crowd);
    let key = ConnectionKey::new(common::LOCAL.parse().unwrap(), SocketAddr::from(([10, 0, 0, 2], 1)));
    assert_eq!(device.updated, [(key, State::ESTABLISHED)]);
}

#[test]
fn states_that_pass_at_once_cost_no_write() {
    let mut crowd = Crowd::new(StackConfig::default(), plain());
    let mut device = Record::default();
    crowd.send(1, "S 0:0 <mss 1460>", PEER_ISN, 0);
    device.turn(&mut crowd);
    assert_eq!(
        (device.inserted.len(), &device.sent_to[..]),
        (1, &[1][..]),
        "the entry is there before the SYN-ACK leaves"
    );
    let answered = device.seq.wrapping_add(1);
    crowd.send(1, ". 0:0", PEER_ISN + 1, answered);
    device.turn(&mut crowd);
    crowd.send(1, "FA 0:0", PEER_ISN + 1, answered);
    let id = crowd.stack.accept(crowd.listener).expect("an established connection");
    device.turn(&mut crowd);
    assert_eq!(crowd.stack.count(State::CLOSE_WAIT), 1);
    crowd.stack.connection(crowd.now, id).expect("it is held").close();
    device.turn(&mut crowd);
    assert_eq!(crowd.stack.count(State::LAST_ACK), 1);
    crowd.send(1, ". 0:0", PEER_ISN + 2, answered.wrapping_add(1));
    device.turn(&mut crowd);
    crowd.now += STATE_DELAY;
    device.turn(&mut crowd);
    assert_eq!((device.inserted.len(), device.updated, device.removed.len()), (1, vec![], 1));
}
