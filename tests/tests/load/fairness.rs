//! One bulk transfer and a hundred conversations.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use tests::Lab;
use tests::net::WireOptions;
use tests::peer;
use tests::wait::End;

use crate::{CHARGEN, ECHO, SERVERS, alone};

const CONVERSATIONS: usize = 100;
/// Bytes that the bulk transfer moves while the conversations go on.
const BULK: u64 = 300_000_000;
/// Round trips that each conversation makes at least meanwhile.
const LEAST: u64 = 20;
/// No conversation falls behind the average by more than this factor.
const SPREAD: u64 = 4;

/// Round trips until the end comes; how many, and how long each took, us.
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

/// Reads until `BULK` bytes have come.
fn pull(connection: &TcpStream, moved: &AtomicU64) {
    let mut buffer = vec![0; 1 << 18];
    while moved.load(Ordering::Relaxed) < BULK {
        let length = peer::read(connection, &mut buffer).expect("more of the stream");
        assert!(length > 0, "chargen never ends");
        moved.fetch_add(length as u64, Ordering::Relaxed);
    }
}

fn quantile(sorted: &[u64], per_mille: usize) -> u64 {
    sorted[(sorted.len() - 1) * per_mille / 1000]
}

#[test]
fn a_bulk_transfer_does_not_starve_a_hundred_conversations() {
    let _turn = alone();
    let lab = Lab::for_load(&WireOptions::default());
    let daemon = lab.daemon().listen(SERVERS[0], ECHO, "echo").listen(SERVERS[0], CHARGEN, "chargen").start();
    let talkers: Vec<TcpStream> = (0..CONVERSATIONS).map(|_| lab.connect((SERVERS[0], ECHO))).collect();
    let bulk = lab.connect((SERVERS[0], CHARGEN));
    let (end, moved) = (End::default(), AtomicU64::new(0));
    let rounds: Vec<Vec<u64>> = std::thread::scope(|scope| {
        let comes = end.comes();
        let talks: Vec<_> = talkers.iter().map(|talker| scope.spawn(|| talk(talker, &end))).collect();
        pull(&bulk, &moved);
        drop(comes);
        talks.into_iter().map(|talk| talk.join().expect("a conversation")).collect()
    });
    let counts: Vec<u64> = rounds.iter().map(|took| took.len() as u64).collect();
    let (least, all) = (*counts.iter().min().expect("a hundred"), counts.iter().sum::<u64>());
    let mut took: Vec<u64> = rounds.into_iter().flatten().collect();
    took.sort_unstable();
    println!(
        "beside {BULK} bytes of bulk: {all} round trips, {least} at least, {} at most; p50 {} us, p99 {} us",
        counts.iter().max().expect("a hundred"),
        quantile(&took, 500),
        quantile(&took, 990),
    );
    assert!(least >= LEAST, "{least} round trips");
    assert!(least * SPREAD * CONVERSATIONS as u64 >= all, "{least} round trips, {} on average", all / 100);
    drop((talkers, bulk));
    drop(daemon);
}
