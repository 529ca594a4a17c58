//! Peers that die by the hundred: with a word of their kernel's, or without any.

use std::net::TcpStream;

use tests::Lab;
use tests::daemon::Daemon;
use tests::net::WireOptions;
use tests::peer::Program;
use tests::wait::until_it;

use crate::{CHARGEN, ECHO, SERVERS, alone, count, resident, wait_for_nothing_left};

const MANY: usize = 300;

fn serve(lab: &Lab) -> Daemon {
    let quick = "tcp = { keepalive = true, keepalive_time = \"300ms\", keepalive_interval = \"100ms\", \
                 keepalive_probes = 3, retries2 = 4, retries1 = 2 }";
    // Send buffers of their full size, whatever their readers do: much to give back.
    let mut daemon = lab.daemon().tcp("msl = \"50ms\"\nautotune = false");
    for (port, service) in [(ECHO, "echo"), (CHARGEN, "chargen")] {
        daemon = daemon.listen_with((SERVERS[0], port).into(), &format!("service = \"{service}\"\n{quick}"));
    }
    daemon.start()
}

/// A client program that opens so many connections to chargen and reads none of them.
fn reader_of_nothing(lab: &Lab) -> Program {
    let script =
        format!("for i in $(seq {MANY}); do exec {{fd}}<>/dev/tcp/{}/{CHARGEN}; done; exec sleep 1000", SERVERS[0]);
    Program::start(lab.client.command("bash").args(["-c", &script]))
}

#[test]
fn clients_killed_by_the_hundred_in_the_middle_of_a_transfer_leave_nothing() {
    let _turn = alone();
    let lab = Lab::for_load(&WireOptions::default());
    let daemon = serve(&lab);
    let start = resident(&daemon);
    for _ in 0..3 {
        let mut client = reader_of_nothing(&lab);
        until_it("everybody connected", || count(&daemon, "ESTABLISHED"), |here| *here == MANY as u64);
        until_it("data on their way", || daemon.stats()["buffer_bytes"].as_u64(), |bytes| bytes.is_some_and(|b| b > 0));
        until_it("full send buffers", || resident(&daemon), |now| *now > 2 * start);
        client.kill();
        let peak = resident(&daemon);
        wait_for_nothing_left(&daemon);
        // Some is kept for the next connections.
        let least = peak.min(start + (peak - start) / 4);
        let back = until_it("memory given back", || resident(&daemon), |now| *now <= least);
        println!("resident memory: {start} KiB at first, {peak} with {MANY} full send buffers, {back} after their end");
        assert!(peak > 2 * start, "there was nothing to give back");
    }
}

#[test]
fn clients_that_vanish_by_the_hundred_are_found_out_and_leave_nothing() {
    let _turn = alone();
    let lab = Lab::for_load(&WireOptions::default());
    let daemon = serve(&lab);
    let idle: Vec<TcpStream> = (0..MANY).map(|_| lab.connect((SERVERS[0], ECHO))).collect();
    let client = reader_of_nothing(&lab);
    until_it("everybody connected", || count(&daemon, "ESTABLISHED"), |here| *here == 2 * MANY as u64);
    lab.lose(1000).expect("a wire that loses everything");
    wait_for_nothing_left(&daemon);
    drop((idle, client));
}
