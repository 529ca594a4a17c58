//! Everything at once, for as long as it is asked for: conversations, transfers, clients that die, a wire that gets bad
//! and good again. Memory is looked at all the time.

use std::time::{Duration, Instant};

use tests::Lab;
use tests::net::WireOptions;
use tests::peer::{self, assert_same, bytes};
use tests::wait::End;

use crate::{CHARGEN, DAYTIME, ECHO, SERVERS, alone, resident, wait_for_nothing_left};

/// How long, in seconds; unset: not at all.
const SECONDS: &str = "XTCP_SOAK_SECONDS";
/// Clients of each kind.
const CLIENTS: u64 = 4;
/// How often the wire changes and memory is looked at.
const ROUND: Duration = Duration::from_secs(10);
/// What memory may grow by between the first and the last quarter, percent.
const GROWTH: u64 = 10;

#[test]
fn everything_at_once_for_as_long_as_it_is_asked_for() {
    let Some(seconds) = std::env::var(SECONDS).ok().map(|text| text.parse::<u64>().expect("a number of seconds"))
    else {
        println!("the soak was NOT run: it takes as many seconds as {SECONDS} says (`cargo xtask test --long`)");
        return;
    };
    let _turn = alone();
    let lab = Lab::for_load(&WireOptions { queues: 2, ..WireOptions::default() });
    let mut daemon = lab.daemon().tcp("msl = \"500ms\"");
    for (port, service) in [(ECHO, "echo"), (DAYTIME, "daytime"), (CHARGEN, "chargen")] {
        daemon = daemon.listen(SERVERS[0], port, service).listen(SERVERS[1], port, service);
    }
    let daemon = daemon.start();
    let end = End::default();
    let mut memory = Vec::new();
    std::thread::scope(|scope| {
        let comes = end.comes();
        for client in 0..CLIENTS {
            let (lab, end) = (&lab, &end);
            scope.spawn(move || transfers(lab, client, end));
            scope.spawn(move || short_ones(lab, client, end));
            scope.spawn(move || quitters(lab, client, end));
        }
        let until = Instant::now() + Duration::from_secs(seconds);
        for round in 0_u32.. {
            if Instant::now() >= until {
                break;
            }
            lab.lose([0, 10, 0, 50][round as usize % 4]).expect("a wire that loses as it is told");
            std::thread::sleep(ROUND.min(until.saturating_duration_since(Instant::now())));
            memory.push(resident(&daemon));
        }
        lab.lose(0).expect("a wire that loses nothing");
        drop(comes);
    });
    wait_for_nothing_left(&daemon);
    println!("resident memory every {} s: {memory:?} KiB, at the end {}", ROUND.as_secs(), resident(&daemon));
    let quarter = memory.len() / 4;
    if quarter > 0 {
        let most = |part: &[u64]| part.iter().copied().max().unwrap_or(0);
        let (early, late) = (most(&memory[quarter..2 * quarter]), most(&memory[memory.len() - quarter..]));
        assert!(late * 100 <= early * (100 + GROWTH), "memory grew from {early} to {late} KiB: {memory:?}");
    }
}

fn transfers(lab: &Lab, client: u64, end: &End) {
    for turn in 0.. {
        if end.has_come() {
            return;
        }
        let data = bytes(100_000 + 377_777 * (turn % 7), client * 1_000_003 + turn as u64);
        assert_same(&peer::exchange(&lab.connect((SERVERS[turn % 2], ECHO)), &data), &data);
    }
}

fn short_ones(lab: &Lab, client: u64, end: &End) {
    for turn in client as usize.. {
        if end.has_come() {
            return;
        }
        let answer = peer::read_to_end(&lab.connect((SERVERS[turn % 2], DAYTIME)));
        assert!(answer.ends_with(b"\r\n"), "cut short: {answer:?}");
    }
}

/// Takes some of an endless stream and goes.
fn quitters(lab: &Lab, client: u64, end: &End) {
    use std::io::Read;
    for turn in client as usize.. {
        if end.has_come() {
            return;
        }
        let mut some = vec![0; 10_000 + 1000 * (turn % 50)];
        lab.connect((SERVERS[turn % 2], CHARGEN)).read_exact(&mut some).expect("some of the stream");
    }
}
