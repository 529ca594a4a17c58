//! What a turn gives to whom: frames to connections that want to send, changes to the connection table.

mod common;

use std::net::SocketAddr;
use std::time::Duration;

use common::crowd::{Crowd, PEER_ISN};
use common::{Seg, frame, plain, read_frame};
use tcp_common::layout::FLAG_COOKIE;
use tcp_proto::{
    ConnectionId, ConnectionKey, ConnectionValue, Device, NoEntry, StackConfig, State, SynCookies, TcpConfig, turn,
};

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
    /// Frames that wait to be received.
    arriving: Vec<Vec<u8>>,
    /// Sequence number of the last frame.
    seq: u32,
    /// Acknowledgment number of the last frame.
    ack: u32,
    /// Connections of frames for which the program found no entry.
    strangers: Vec<ConnectionKey>,
    /// What an entry says that is asked for; `None`: there is none.
    entry: Option<ConnectionValue>,
}

impl Device for Record {
    fn receive(&mut self, limit: usize, mut sink: impl FnMut(&[u8])) {
        let batch = self.arriving.len().min(limit);
        self.arriving.drain(..batch).for_each(|frame| sink(&frame));
    }

    fn commit(
        &mut self,
        new: &[(ConnectionKey, ConnectionValue)],
        changed: &[(ConnectionKey, ConnectionValue)],
        _: impl FnMut(ConnectionKey, NoEntry),
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
            self.ack = seg.ack;
        }
    }

    fn remove(&mut self, keys: &[ConnectionKey]) {
        self.removed.extend(keys);
    }

    fn take_strangers(&mut self) -> Vec<ConnectionKey> {
        std::mem::take(&mut self.strangers)
    }

    fn lookup(&mut self, _: &ConnectionKey) -> Option<ConnectionValue> {
        self.entry
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

//= docs/rfc/rfc9293.md#MUST-58
//= docs/rfc/rfc9293.md#MUST-59
#[test]
fn segments_that_wait_together_draw_a_single_ack_after_the_last_of_them() {
    let mut crowd = Crowd::new(StackConfig::default(), plain());
    let ack = crowd.open(1);
    let mut device = Record::default();
    device.turn(&mut crowd);
    device.sent_to.clear();
    let (peer, us) = (SocketAddr::from(([10, 0, 0, 2], 1)), common::LOCAL.parse().unwrap());
    let segment = |n: u32| Seg { seq: PEER_ISN + 1 + 100 * n, ack, ..Seg::parse("A 0:100 ack 0") };
    // More than one turn takes.
    device.arriving = (0..TURN as u32 + 10).map(|n| frame(peer, us, &segment(n))).collect();
    for acknowledged in [TURN as u32, TURN as u32 + 10] {
        device.turn(&mut crowd);
        assert_eq!((device.sent_to.len(), device.ack), (1, PEER_ISN + 1 + 100 * acknowledged));
        device.sent_to.clear();
    }
    assert!(device.arriving.is_empty());
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
    assert_eq!(device.updated, [(key(1), State::ESTABLISHED)]);
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

/// The connection of the peer at `port`.
fn key(port: u16) -> ConnectionKey {
    ConnectionKey::new(common::LOCAL.parse().unwrap(), SocketAddr::from(([10, 0, 0, 2], port)))
}

#[test]
fn a_connection_whose_entry_somebody_deleted_is_reset_and_one_whose_entry_came_late_is_not() {
    let mut crowd = Crowd::new(StackConfig::default(), plain());
    crowd.open(1);
    let entry = Some(ConnectionValue::default());
    let mut device = Record { strangers: vec![key(1)], entry, ..Record::default() };
    device.turn(&mut crowd);
    assert_eq!((crowd.stack.count(State::ESTABLISHED), &device.sent_to[..]), (1, &[][..]));
    let mut device = Record { strangers: vec![key(2), key(1)], ..Record::default() };
    device.turn(&mut crowd);
    assert_eq!((crowd.stack.count(State::ESTABLISHED), device.sent_to, device.removed), (0, vec![1], vec![key(1)]));
    let lost = crowd.stack.figures().into_iter().find(|(name, _)| *name == "entry_lost");
    assert_eq!(lost, Some(("entry_lost", 1)));
}

#[test]
fn a_strangers_data_are_reset_unless_the_program_made_an_entry_for_a_cookie() {
    let config = TcpConfig { syn_cookies: SynCookies::Auto, ..plain() };
    let mut crowd = Crowd::new(StackConfig { program_answers: true, ..StackConfig::default() }, config);
    let entry = |flags| Some(ConnectionValue { flags, ..ConnectionValue::default() });
    for (entry, reset) in [(None, true), (entry(0), true), (entry(FLAG_COOKIE), false)] {
        crowd.send(1, "PA 0:10", PEER_ISN, 900);
        let mut device = Record { entry, ..Record::default() };
        device.turn(&mut crowd);
        assert_eq!((device.sent_to.len(), device.seq == 900), (usize::from(reset), reset), "{entry:?}");
    }
}
