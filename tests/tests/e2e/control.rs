//! What `xtcp conns` and `xtcp stats` say: the fields that other programs rely on, and that they are true.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use serde_json::Value;
use tests::Lab;
use tests::daemon::output;
use tests::net::{SERVER_V4, SERVER_V6};
use tests::wait::until_it;

use crate::{CHARGEN, ECHO, SERVERS, server};

/// Fields of a connection's row besides `local`, `remote`, `state` and `timers`; all numbers but `ssthresh`.
const FIGURES: [&str; 15] = [
    "age_ms",
    "state_age_ms",
    "mss",
    "srtt_us",
    "rto_ms",
    "cwnd",
    "snd_una",
    "snd_nxt",
    "rcv_nxt",
    "snd_wnd",
    "rcv_wnd",
    "bytes_in",
    "bytes_out",
    "retransmits",
    "ssthresh",
];

#[test]
fn conns_shows_an_established_connection_with_every_figure() {
    let lab = Lab::new();
    let daemon = lab.daemon().listen(SERVER_V4, ECHO, "echo").listen(SERVER_V6, ECHO, "echo").start();
    for address in SERVERS {
        let local = SocketAddr::new(address, ECHO);
        let mut connection = lab.connect(local);
        let remote = connection.local_addr().unwrap().to_string();
        connection.write_all(&[1; 5000]).unwrap();
        connection.read_exact(&mut [0; 5000]).unwrap();
        let find = || daemon.rows().into_iter().find(|row| row.remote == remote);
        let all_acknowledged = |row: &Option<tests::daemon::Connection>| {
            row.as_ref().is_some_and(|row| row.number("snd_una") == row.number("snd_nxt"))
        };
        let row = until_it("everything to be acknowledged", find, all_acknowledged).unwrap();
        assert_eq!((row.local.as_str(), row.state.as_str()), (&*local.to_string(), "ESTABLISHED"));
        for name in FIGURES {
            let figure = row.figures.get(name).unwrap_or_else(|| panic!("no {name} in {row:#?}"));
            assert!(figure.is_number() || name == "ssthresh" && figure.is_null(), "{name} is {figure}");
        }
        assert_eq!((row.number("bytes_in"), row.number("bytes_out"), row.number("retransmits")), (5000, 5000, 0));
        let mss = if address.is_ipv4() { 1460 } else { 1440 };
        assert!((mss - 12..=mss).contains(&row.number("mss")), "{row:#?}");
        assert!(row.number("cwnd") >= row.number("mss") && row.number("rto_ms") >= 200, "{row:#?}");
        assert_sequence_numbers(&lab, &row);
    }
}

/// The row's sequence numbers are the wire's.
fn assert_sequence_numbers(lab: &Lab, row: &tests::daemon::Connection) {
    let ours = lab
        .segments(|segment| segment.source.to_string() == row.local && segment.destination.to_string() == row.remote);
    let syn_ack = ours.iter().find(|segment| segment.flags.syn).unwrap();
    let after = |start: u32| u64::from(start.wrapping_add(1 + 5000));
    assert_eq!(row.number("snd_nxt"), after(syn_ack.seq));
    assert_eq!(row.number("rcv_nxt"), after(syn_ack.ack.wrapping_sub(1)));
}

#[test]
fn conns_shows_a_row_for_every_listener() {
    let lab = Lab::new();
    let any = "0.0.0.0".parse().unwrap();
    let daemon = lab.daemon().listen(SERVER_V6, ECHO, "echo").listen(any, CHARGEN, "chargen").start();
    let mut rows: Vec<_> = daemon.rows().into_iter().map(|row| (row.local, row.remote, row.state)).collect();
    rows.sort();
    let row = |local: &str, remote: &str| (local.to_owned(), remote.to_owned(), "LISTEN".to_owned());
    assert_eq!(rows, [row("0.0.0.0:19", "0.0.0.0:0"), row("[fd00:77::2]:7", "[::]:0")]);
}

#[test]
fn conns_can_be_limited_to_one_state() {
    let lab = Lab::new();
    let daemon = lab.daemon().listen(SERVER_V4, ECHO, "echo").start();
    let _connection = lab.connect(server(ECHO));
    daemon.wait_for_state(ECHO, &["ESTABLISHED"]);
    for (state, count) in [("ESTABLISHED", 1), ("LISTEN", 1), ("CLOSE_WAIT", 0)] {
        let rows = output(&mut daemon.client("conns", &["--json", "--state", state]));
        let rows: Vec<Value> = serde_json::from_slice(&rows.stdout).unwrap();
        assert_eq!(rows.len(), count, "{rows:#?}");
        assert!(rows.iter().all(|row| row["state"] == state), "{rows:#?}");
    }
}

#[test]
fn conns_for_people_is_a_table_with_the_connection_in_it() {
    let lab = Lab::new();
    let daemon = lab.daemon().listen(SERVER_V4, ECHO, "echo").start();
    let connection = lab.connect(server(ECHO));
    daemon.wait_for_state(ECHO, &["ESTABLISHED"]);
    let table = String::from_utf8(output(&mut daemon.client("conns", &[])).stdout).unwrap();
    let remote = connection.local_addr().unwrap().to_string();
    let row = table.lines().find(|line| line.contains(&remote)).unwrap_or_else(|| panic!("no {remote} in\n{table}"));
    assert!(row.contains("10.77.0.2:7") && row.contains("ESTABLISHED"), "{row}");
}

#[test]
fn conns_watch_shows_the_table_again_and_again() {
    let lab = Lab::new();
    let daemon = lab.daemon().listen(SERVER_V4, ECHO, "echo").start();
    let mut watch = daemon.client("conns", &["--watch"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let tables = lines.by_ref().map_while(Result::ok).filter(|line| line.contains("10.77.0.2:7")).take(2).count();
    watch.kill().unwrap();
    watch.wait().unwrap();
    assert_eq!(tables, 2);
}

#[test]
fn only_the_owner_may_use_the_control_socket() {
    let lab = Lab::new();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("control.sock");
    let mut daemon = lab.daemon().control_socket(&path).listen(SERVER_V4, ECHO, "echo").start();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    daemon.terminate();
    daemon.wait();
    assert!(!path.exists(), "the socket is left behind");
}

#[test]
fn a_key_without_effect_yet_is_warned_about_at_start() {
    let lab = Lab::new();
    let daemon = lab.daemon().line("metrics = \"127.0.0.1:9464\"").listen(SERVER_V4, ECHO, "echo").start();
    let line = daemon.wait_for_log(&["metrics", "no effect"]);
    assert!(line.contains("WARN"), "{line}");
}

#[test]
fn stats_has_the_fields_that_programs_rely_on() {
    let lab = Lab::new();
    let daemon = lab.daemon().listen(SERVER_V4, ECHO, "echo").start();
    let mut connection = lab.connect(server(ECHO));
    connection.write_all(b"x").unwrap();
    connection.read_exact(&mut [0]).unwrap();
    let stats = daemon.stats();
    let listener = &stats["listeners"][0];
    assert_eq!((&listener["address"], &listener["service"]), (&"10.77.0.2:7".into(), &"echo".into()), "{stats:#}");
    for field in ["syn_queue", "syn_queue_max", "accept_queue", "accept_queue_max", "overflows"] {
        assert!(listener[field].is_u64(), "{field} in {listener:#}");
    }
    assert!(!listener["cookie_mode"].is_null(), "{listener:#}");
    for class in ["syn", "syn_ack", "fin", "rst", "ack", "data", "icmp"] {
        assert!(stats["classes"][class].is_u64(), "{class} in {stats:#}");
    }
    for field in ["sent", "ok", "bad"] {
        assert!(stats["cookies"][field].is_u64(), "{field} in {stats:#}");
    }
    assert!(stats["drops"].is_object() && stats["verdicts"].is_object() && stats["rings"].is_array(), "{stats:#}");
    assert_eq!(stats["connections"]["ESTABLISHED"], 1, "{stats:#}");
}

#[test]
fn stats_counts_the_classes_of_received_segments() {
    let lab = Lab::new();
    let daemon = lab.daemon().listen(SERVER_V4, ECHO, "echo").start();
    let mut connection = lab.connect(server(ECHO));
    connection.write_all(b"x").unwrap();
    connection.read_exact(&mut [0]).unwrap();
    drop(connection);
    daemon.wait_for_no_connection(ECHO);
    let classes = daemon.stats()["classes"].clone();
    let count = |class: &str| classes[class].as_u64().unwrap();
    assert_eq!((count("syn"), count("fin"), count("data"), count("rst")), (1, 1, 1, 0), "{classes:#}");
    assert!(count("ack") >= 1, "{classes:#}");
}

#[test]
fn stats_for_people_names_the_listener() {
    let lab = Lab::new();
    let daemon = lab.daemon().listen(SERVER_V4, ECHO, "echo").start();
    let text = output(&mut daemon.client("stats", &[]));
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.contains("10.77.0.2:7") && text.contains("echo"), "{text}");
}
