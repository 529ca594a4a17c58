//! Connections in TIME_WAIT that the application does not hold any more: after a moment only records of them are left, and
//! no peer can tell.

mod common;

use common::crowd::{Crowd, PEER_ISN};
use common::{Trace, plain};
use tcp_proto::{
    ConnectionInfo, ConnectionKey, ConnectionValue, Device, Instant, NoEntry, StackConfig, State, TcpConfig, turn,
};

/// The peer's SYN: without options that agree on anything, and with timestamps.
const SYNS: [&str; 2] = ["S 0:0 <mss 1460,ws 7>", "S 0:0 <mss 1460,ws 7,ts 100 0>"];
/// When a connection that is in TIME_WAIT since 10 ms still is one, and when only its record is left.
const MOMENTS: [u64; 2] = [20, 200];

/// We closed first; the application is gone.
fn time_wait(config: TcpConfig, syn: &str) -> Trace {
    let mut t = Trace::established_with(config, syn, 65_535);
    t.close();
    let fin = t.take().expect("our FIN");
    t.quiet_until(10);
    let mut peers = common::Seg { window: 65_535, ..common::Seg::parse("FA 1:1 ack 2") };
    peers.timestamps = fin.timestamps.map(|(value, _)| (101, value));
    t.peer_seg(&peers);
    assert_eq!(t.take().map(|ack| (ack.seq, ack.ack)), Some((2, 2)));
    assert_eq!(t.state(), State::TIME_WAIT);
    t
}

fn row(t: &Trace) -> Option<ConnectionInfo> {
    let mut rows = Vec::new();
    assert_eq!(t.stack.snapshot(t.now, 0, 1000, &mut rows), None);
    rows.pop()
}

/// What a connection that has been in TIME_WAIT until `moment` says to a segment that comes twice, and what becomes of it.
fn answers(syn: &str, moment: u64, segment: &str) -> Vec<String> {
    let mut t = time_wait(plain_or_with(syn), syn);
    t.quiet_until(moment);
    assert_eq!(row(&t).map(|row| row.is_record), Some(moment == MOMENTS[1]));
    let mut said = Vec::new();
    for _ in 0..2 {
        t.peer(segment);
        while let Some(mut answer) = t.take() {
            // Our clock, and numbers that grow with it.
            answer.timestamps = answer.timestamps.map(|(_, echo)| (0, echo));
            said.push(answer.text(true));
        }
        let left = row(&t).map(|row| (row.state, row.timers[0].1 == common::ms(60_000), row.snd_nxt - row.snd_una));
        said.push(format!("{left:?}"));
    }
    let drops: Vec<_> = t.stack.drops().into_iter().filter(|(_, count)| *count > 0).collect();
    said.push(format!("{drops:?}"));
    said
}

fn plain_or_with(syn: &str) -> TcpConfig {
    TcpConfig { timestamps: syn.contains("ts"), window_scale: true, ..plain() }
}

//= docs/rfc/rfc1337.md#3-F1
//= docs/rfc/rfc9293.md#3.10.7.4-5-TIME-WAIT
//= docs/rfc/rfc9293.md#3.10.7.4-8-TIME-WAIT
#[test]
fn a_record_answers_whatever_arrives_as_its_connection_did() {
    let numbers = ["0:0", "1:1", "2:2", "3:3", "100:100", "70000:70000", "0:1", "1:2", "2:5", "9000000:9000000"];
    let acks = ["", " ack 0", " ack 1", " ack 2", " ack 3", " ack 4000000000"];
    let timestamps = ["", " <ts 50 0>", " <ts 101 0>", " <ts 200 0>"];
    let mut different = Vec::new();
    for syn in SYNS {
        let stamps = if syn == SYNS[0] { &timestamps[..1] } else { &timestamps };
        for (flags, number, ack, stamp) in all(&["", "F", "S", "R", "P", "SF"], &numbers, &acks, stamps) {
            let acknowledges = if ack.is_empty() { "" } else { "A" };
            let flags = match format!("{flags}{acknowledges}").as_str() {
                "" => continue,
                "A" => ".".to_owned(),
                flags => flags.to_owned(),
            };
            let segment = format!("{flags} {number}{ack}{stamp}");
            let [connection, record] = MOMENTS.map(|moment| answers(syn, moment, &segment));
            if connection != record {
                different.push(format!("{segment}: {connection:?}, the record {record:?}"));
            }
        }
    }
    assert!(different.is_empty(), "{} differ: {different:#?}", different.len());
}

/// Every combination.
fn all<'a>(
    flags: &'a [&'a str],
    numbers: &'a [&'a str],
    acks: &'a [&'a str],
    stamps: &'a [&'a str],
) -> impl Iterator<Item = (&'a str, &'a str, &'a str, &'a str)> {
    let each = move |flags| numbers.iter().flat_map(move |number| acks.iter().map(move |ack| (flags, *number, *ack)));
    flags
        .iter()
        .flat_map(move |flags| each(*flags))
        .flat_map(move |(flags, number, ack)| stamps.iter().map(move |stamp| (flags, number, ack, *stamp)))
}

/// A device whose program acknowledged a repeated FIN.
struct Prolonged {
    until: Option<Instant>,
    removed: usize,
}

impl Device for Prolonged {
    fn receive(&mut self, _: usize, _: impl FnMut(&[u8])) {}
    fn commit(
        &mut self,
        _: &[(ConnectionKey, ConnectionValue)],
        _: &[(ConnectionKey, ConnectionValue)],
        _: impl FnMut(ConnectionKey, NoEntry),
    ) {
    }
    fn transmit(&mut self, _: usize, _: impl FnMut(&mut [u8]) -> Option<usize>) {}
    fn remove(&mut self, keys: &[ConnectionKey]) {
        self.removed += keys.len();
    }
    fn prolongs_time_waits(&mut self) -> bool {
        self.until.is_some()
    }
    fn lookup(&mut self, _: &ConnectionKey) -> Option<ConnectionValue> {
        self.until.map(|until| ConnectionValue { deadline_ns: until.as_nanos(), ..ConnectionValue::default() })
    }
}

#[test]
fn a_fin_that_the_program_acknowledged_prolongs_time_wait() {
    for prolongs in [false, true] {
        let mut t = time_wait(plain(), SYNS[0]);
        t.quiet_until(50_000);
        let end = t.now + common::ms(10_010);
        let until = t.now + common::ms(40_000);
        let mut device = Prolonged { until: prolongs.then_some(until), removed: 0 };
        turn(&mut t.stack, &mut device, end, |_, _| {});
        assert_eq!((t.stack.count(State::TIME_WAIT), device.removed), if prolongs { (1, 0) } else { (0, 1) });
        turn(&mut t.stack, &mut device, until, |_, _| {});
        assert_eq!((t.stack.count(State::TIME_WAIT), device.removed), (0, 1));
    }
}

#[test]
fn a_connection_that_nobody_holds_is_a_record_once_it_has_been_in_time_wait_for_100_ms() {
    let mut t = time_wait(plain(), SYNS[0]);
    t.quiet_until(10 + 99);
    assert_eq!(row(&t).map(|row| row.is_record), Some(false));
    t.quiet_until(10 + 100);
    assert_eq!(row(&t).map(|row| row.is_record), Some(true));
}

#[test]
fn a_record_makes_room_and_ends_with_all_others() {
    let mut t = time_wait(plain(), SYNS[0]);
    t.quiet_until(1000);
    assert_eq!(row(&t).map(|row| row.is_record), Some(true));
    t.stack.abort_all(t.now);
    assert_eq!((t.stack.count(State::TIME_WAIT), t.stack.take_table_removals().len()), (0, 1));
    assert!(row(&t).is_none());
    t.assert_empty();
}

#[test]
fn connections_with_more_sets_of_parameters_than_are_kept_stay_until_time_wait_ends() {
    const SETS: u16 = 256;
    let mut crowd = Crowd::new(StackConfig { max_connections: 1000, ..StackConfig::default() }, plain());
    for port in 1..=SETS + 2 {
        crowd.send(port, "S 0:0 <mss 1460>", PEER_ISN, 0);
        let number = crowd.sent()[0].seq + 1;
        crowd.send(port, ". 0:0", PEER_ISN + 1, number);
        let id = crowd.stack.accept(crowd.listener).expect("a connection");
        let mut connection = crowd.stack.connection(crowd.now, id).expect("it is alive");
        connection.set_retries2(port.into());
        connection.close();
        crowd.sent();
        crowd.send(port, "FA 0:0", PEER_ISN + 1, number + 1);
        crowd.sent();
    }
    let (mut new, mut changed) = (Vec::new(), Vec::new());
    let later = crowd.now + common::ms(1000);
    crowd.stack.take_table_writes(later, &mut new, &mut changed);
    crowd.stack.handle_timeout(later);
    let mut rows = Vec::new();
    assert_eq!(crowd.stack.snapshot(later, 0, 10_000, &mut rows), None);
    let records = rows.iter().filter(|row| row.is_record).count();
    assert_eq!((rows.len(), records), (usize::from(SETS) + 2, usize::from(SETS)));
    crowd.stack.handle_timeout(later + common::ms(60_000));
    assert_eq!(crowd.stack.count(State::TIME_WAIT), 0);
}
