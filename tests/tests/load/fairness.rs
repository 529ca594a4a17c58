//! A hundred conversations, first among themselves, then beside one bulk transfer.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use tests::Lab;
use tests::net::WireOptions;
use tests::peer;
use tests::wait::End;

use crate::{CHARGEN, ECHO, SERVERS, alone};

const CONVERSATIONS: usize = 100;
/// Bytes that the bulk transfer moves while the conversations go on.
const BULK: u64 = 300_000_000;
/// How long the conversations are measured without it.
const QUIET: Duration = Duration::from_secs(2);
/// Round trips that each conversation makes at least meanwhile.
const LEAST: u64 = 20;
/// No conversation falls behind the average by more than this factor.
const SPREAD: u64 = 4;

/// Round trips until the end comes; how long each took, us.
fn talk(connection: &TcpStream, end: &End) -> Vec<u64> {
    let (mut connection, mut answer, mut took) = (connection, [0; 64], Vec::new());
    while !end.has_come() {
        let began = Instant::now();
        connection.write_all(&[b'?'; 64]).expect("a question");
        connection.read_exact(&mut answer).expect("an answer");
        took.push(began.elapsed().as_micros() as u64);
    }
    took
}

/// All conversations at once while `meanwhile` runs; how long each round trip of each conversation took, us.
fn all_talk(talkers: &[TcpStream], meanwhile: impl FnOnce()) -> Vec<Vec<u64>> {
    let end = End::default();
    std::thread::scope(|scope| {
        let comes = end.comes();
        let talks: Vec<_> = talkers.iter().map(|talker| scope.spawn(|| talk(talker, &end))).collect();
        meanwhile();
        drop(comes);
        talks.into_iter().map(|talk| talk.join().expect("a conversation")).collect()
    })
}

/// Reads until `BULK` bytes have come.
fn pull(connection: &TcpStream) {
    let (mut buffer, mut moved) = (vec![0; 1 << 18], 0);
    while moved < BULK {
        let length = peer::read(connection, &mut buffer).expect("more of the stream");
        assert!(length > 0, "chargen never ends");
        moved += length as u64;
    }
}

/// Prints the distribution of round trips; how many there were in all, and of the conversation with the fewest.
fn report(what: &str, rounds: Vec<Vec<u64>>) -> (u64, u64) {
    let counts = rounds.iter().map(|took| took.len() as u64);
    let (least, most) = (counts.clone().min().unwrap_or(0), counts.max().unwrap_or(0));
    let mut took: Vec<u64> = rounds.into_iter().flatten().collect();
    took.sort_unstable();
    let quantile = |per_mille: usize| took[(took.len() - 1) * per_mille / 1000];
    println!(
        "{what}: {} round trips, {least} to {most} each; p50 {} us, p90 {} us, p99 {} us, p99.9 {} us, longest {} us",
        took.len(),
        quantile(500),
        quantile(900),
        quantile(990),
        quantile(999),
        quantile(1000),
    );
    (took.len() as u64, least)
}

#[test]
fn a_bulk_transfer_does_not_starve_a_hundred_conversations() {
    let _turn = alone();
    let lab = Lab::for_load(&WireOptions::default());
    let daemon = lab.daemon().listen(SERVERS[0], ECHO, "echo").listen(SERVERS[0], CHARGEN, "chargen").start();
    let talkers: Vec<TcpStream> = (0..CONVERSATIONS).map(|_| lab.connect((SERVERS[0], ECHO))).collect();
    report("among themselves", all_talk(&talkers, || std::thread::sleep(QUIET)));
    let bulk = lab.connect((SERVERS[0], CHARGEN));
    let (all, least) = report(&format!("beside {BULK} bytes of bulk"), all_talk(&talkers, || pull(&bulk)));
    assert!(least >= LEAST, "{least} round trips");
    assert!(least * SPREAD * CONVERSATIONS as u64 >= all, "{least} round trips, {} on average", all / 100);
    drop((talkers, bulk));
    drop(daemon);
}
