//! CONNECTIONS in batches: what happens when there is no room, or when somebody deleted an entry meanwhile.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use tcp_common::cases::world::LOCAL_V4;
use tcp_common::layout::{FLAG_COOKIE, FLAG_TIMESTAMPS};
use tcp_common::{ConnectionKey, ConnectionValue, State};
use tcp_proto::NoEntry;
use xtcp::xdp::ConnectionTable;

use crate::bench::{Bench, MAX_CONNECTIONS};

fn key(number: u32) -> ConnectionKey {
    let remote =
        SocketAddr::new(IpAddr::V4(Ipv4Addr::from_bits(0x0a4d_0100 + number / 50_000)), (number % 50_000) as u16 + 1);
    ConnectionKey::new((LOCAL_V4, 7).into(), remote)
}

fn entries(numbers: std::ops::Range<u32>, state: State) -> Vec<(ConnectionKey, ConnectionValue)> {
    numbers.map(|number| (key(number), ConnectionValue { state, ..ConnectionValue::default() })).collect()
}

fn insert(table: &mut ConnectionTable, entries: &[(ConnectionKey, ConnectionValue)]) -> Vec<ConnectionKey> {
    let mut failed = Vec::new();
    table.insert_batch(entries, |key| failed.push(key)).unwrap();
    failed
}

#[test]
fn a_batch_larger_than_the_table_reports_each_entry_without_room() {
    let bench = Bench::new();
    let mut table = bench.program.connections().unwrap();
    let more = MAX_CONNECTIONS + 10;
    let failed = insert(&mut table, &entries(0..more, State::SYN_RCVD));
    assert_eq!(failed, (MAX_CONNECTIONS..more).map(key).collect::<Vec<_>>());
    assert_eq!(table.clear().unwrap(), MAX_CONNECTIONS as usize);
}

#[test]
fn a_full_table_still_takes_changes_of_its_entries_around_one_without_room() {
    let bench = Bench::new();
    let mut table = bench.program.connections().unwrap();
    insert(&mut table, &entries(0..MAX_CONNECTIONS, State::SYN_RCVD));
    let mut batch = entries(0..2, State::ESTABLISHED);
    batch.splice(1..1, entries(5000..5001, State::SYN_RCVD));
    assert_eq!(insert(&mut table, &batch), [key(5000)]);
    assert_eq!(count(&bench, "ESTABLISHED"), 2);
}

#[test]
fn entries_that_the_program_made_long_ago_are_found_however_the_table_is_sliced() {
    let bench = Bench::new();
    let mut table = bench.program.connections().unwrap();
    let mut all = entries(0..MAX_CONNECTIONS, State::SYN_RCVD);
    for (number, (_, value)) in (0..).zip(&mut all) {
        // A third is made by the program, and of these all but every fifth long ago.
        value.flags = if number % 3 == 0 { FLAG_COOKIE | FLAG_TIMESTAMPS } else { FLAG_TIMESTAMPS };
        value.since_ns = if number % 5 == 0 { 1000 } else { 999 };
        value.queue = (number % 7) as u16;
    }
    insert(&mut table, &all);
    let wanted = (0..MAX_CONNECTIONS).filter(|number| number % 3 == 0 && number % 5 != 0);
    let wanted: HashMap<_, _> = wanted.map(|number| (key(number), (number % 7) as u16)).collect();
    for slice in [1, 64, 1 << 20] {
        let (mut found, mut cursor) = (HashMap::new(), None);
        loop {
            let note = |queue, key| assert_eq!(found.insert(key, queue), None, "twice");
            cursor = table.made_by_program(cursor, slice, 1000, note).unwrap();
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(found, wanted, "slices of {slice}");
    }
}

#[test]
fn what_belongs_to_another_queue_is_not_overwritten() {
    let bench = Bench::new();
    let mut table = bench.program.connections().unwrap();
    let of_queue = |queue: u16, numbers, state| {
        let mut entries = entries(numbers, state);
        entries.iter_mut().for_each(|(_, value)| value.queue = queue);
        entries
    };
    let mut insert = |entries: &[_]| {
        let mut failed = Vec::new();
        table.insert_beside_others(entries, |key, why| failed.push((key, why))).unwrap();
        failed
    };
    assert_eq!(insert(&of_queue(0, 0..2, State::SYN_RCVD)), []);
    assert_eq!(insert(&of_queue(1, 1..3, State::SYN_RCVD)), [(key(1), NoEntry::Taken)]);
    // A successor of one's own has its entry.
    assert_eq!(insert(&of_queue(0, 0..2, State::ESTABLISHED)), []);
    assert_eq!((count(&bench, "ESTABLISHED"), count(&bench, "SYN_RCVD")), (2, 1));
    let rest = insert(&of_queue(0, 3..MAX_CONNECTIONS + 1, State::SYN_RCVD));
    assert_eq!(rest, [(key(MAX_CONNECTIONS), NoEntry::Full)]);
}

#[test]
fn a_change_does_not_bring_back_an_entry_that_somebody_deleted() {
    let bench = Bench::new();
    let mut table = bench.program.connections().unwrap();
    insert(&mut table, &entries(0..3, State::SYN_RCVD));
    table.delete_batch(&[key(1)]).unwrap();
    table.update_batch(&entries(0..3, State::ESTABLISHED)).unwrap();
    assert_eq!((count(&bench, "ESTABLISHED"), count(&bench, "SYN_RCVD")), (2, 0));
}

#[test]
fn missing_entries_in_a_deletion_keep_no_other_from_being_deleted() {
    let bench = Bench::new();
    let mut table = bench.program.connections().unwrap();
    insert(&mut table, &entries(0..4, State::TIME_WAIT));
    table.delete_batch(&[key(90), key(0), key(91), key(92), key(3), key(93)]).unwrap();
    assert_eq!(count(&bench, "TIME_WAIT"), 2);
    assert_eq!(table.clear().unwrap(), 2);
    assert_eq!(count(&bench, "state"), 0);
}

/// How often a word occurs in bpftool's listing of the table.
fn count(bench: &Bench, word: &str) -> usize {
    bench.bpftool_map("dump", "CONNECTIONS", "").matches(word).count()
}
