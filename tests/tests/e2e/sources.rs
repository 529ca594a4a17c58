//! Allowed and denied prefixes and the limit of SYNs of a source, as an operator sets them and peers see them. The
//! table of cases (`tcp-common/src/cases`) has every decision.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use etherparse::TcpHeader;
use serde_json::{Value, json};
use tests::Lab;
use tests::daemon::{Daemon, output};
use tests::net::{CLIENT_V4, CLIENT_V6, SERVER_V4};
use tests::peer;
use tests::raw::send_segment;
use tests::wait::until_it;

use crate::{ECHO, SERVERS, server};

/// An address that nobody has: what is sent to it vanishes.
const SILENT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 60));

/// What a client command printed on stdout and stderr, and its exit code.
fn said(daemon: &Daemon, command: &str, arguments: &[&str]) -> (String, String, Option<i32>) {
    let output = output(&mut daemon.client(command, arguments));
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (text(output.stdout), text(output.stderr), output.status.code())
}

/// Runs a client command that succeeds without a complaint; what it prints.
fn done(daemon: &Daemon, command: &str, arguments: &[&str]) -> String {
    let (stdout, stderr, code) = said(daemon, command, arguments);
    assert_eq!((stderr.as_str(), code), ("", Some(0)), "{command} {arguments:?}");
    stdout
}

/// Runs a client command that fails with a line on stderr; what it prints before, and the line.
fn failed(daemon: &Daemon, command: &str, arguments: &[&str], code: i32) -> (String, String) {
    let (stdout, stderr, actual) = said(daemon, command, arguments);
    assert_eq!(actual, Some(code), "{command} {arguments:?}: {stderr}");
    (stdout, stderr)
}

fn drops(daemon: &Daemon, reason: &str) -> u64 {
    let stats = daemon.stats();
    stats["drops"][reason].as_u64().unwrap_or_else(|| panic!("no {reason} in {:#}", stats["drops"]))
}

/// A SYN from the port `port` of `source`.
fn syn(lab: &Lab, source: IpAddr, port: u16) {
    let mut syn = TcpHeader::new(port, 0, 1000, 60_000);
    syn.syn = true;
    send_segment(&lab.client, source, server(ECHO), syn, b"");
}

/// A kernel's SYN to `to` stays without an answer, and is counted as denied.
fn assert_denied(lab: &Lab, daemon: &Daemon, to: SocketAddr) {
    let before = drops(daemon, "denied");
    let refused = lab.client.enter(|| TcpStream::connect_timeout(&to, Duration::from_millis(200)));
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::TimedOut);
    until_it("a denied SYN", || drops(daemon, "denied"), |drops| *drops > before);
}

#[test]
fn a_denied_source_cannot_connect_its_connection_lives_on_and_without_the_rule_it_connects_again() {
    for (address, client) in SERVERS.into_iter().zip([CLIENT_V4, CLIENT_V6]) {
        let lab = Lab::new();
        let daemon = lab.daemon().listen(address, ECHO, "echo").start();
        let to = SocketAddr::new(address, ECHO);
        let mut connection = lab.connect(to);
        peer::round_trip(&mut connection, b"before");
        let client = client.to_string();
        done(&daemon, "deny", &["add", &client]);
        assert_denied(&lab, &daemon, to);
        peer::round_trip(&mut connection, b"denied, and connected");
        daemon.wait_for_log(&["dropped", ": denied"]);
        done(&daemon, "deny", &["del", &client]);
        peer::round_trip(&mut lab.connect(to), b"again");
    }
}

#[test]
fn the_longest_prefix_of_the_configuration_decides() {
    let lab = Lab::new();
    let daemon = lab
        .daemon()
        .line("deny = [\"10.0.0.0/8\", \"::/0\"]")
        .line("allow = [\"10.77.0.1\"]")
        .listen(SERVER_V4, ECHO, "echo")
        .start();
    peer::round_trip(&mut lab.connect(server(ECHO)), b"an allowed address in a denied prefix");
    syn(&lab, SILENT, 1);
    until_it("a denied SYN", || drops(&daemon, "denied"), |drops| *drops == 1);
    done(&daemon, "allow", &["del", "10.77.0.1"]);
    assert_denied(&lab, &daemon, server(ECHO));
}

#[test]
fn prefixes_are_added_listed_and_removed_at_run_time() {
    let lab = Lab::new();
    let mut daemon = lab.daemon().line("deny = [\"192.0.2.0/24\"]").listen(SERVER_V4, ECHO, "echo").start();
    assert_eq!(done(&daemon, "deny", &["list"]), "192.0.2.0/24\n");
    assert_eq!(done(&daemon, "allow", &["list"]), "");
    assert_eq!(
        done(&daemon, "deny", &["add", "2001:DB8::/32", "10.9.9.9", "192.0.2.0/24"]),
        "2001:db8::/32: denied\n10.9.9.9/32: denied\n192.0.2.0/24: denied already\n"
    );
    assert_eq!(done(&daemon, "allow", &["add", "10.9.9.9/32"]), "10.9.9.9/32: allowed, no longer denied\n");
    let list = |command| -> Value { serde_json::from_str(&done(&daemon, command, &["list", "--json"])).unwrap() };
    assert_eq!(list("deny"), json!(["192.0.2.0/24", "2001:db8::/32"]));
    assert_eq!(list("allow"), json!(["10.9.9.9/32"]));
    assert_eq!(done(&daemon, "deny", &["add", "10.9.9.9"]), "10.9.9.9/32: denied, no longer allowed\n");
    assert_eq!(done(&daemon, "deny", &["del", "10.9.9.9"]), "10.9.9.9/32: no longer denied\n");
    daemon.terminate();
    daemon.wait();
    let daemon = lab.daemon().line("deny = [\"192.0.2.0/24\"]").listen(SERVER_V4, ECHO, "echo").start();
    assert_eq!(done(&daemon, "deny", &["list"]), "192.0.2.0/24\n", "changes at run time are the daemon's");
}

#[test]
fn many_prefixes_are_added_by_one_command() {
    let lab = Lab::new();
    let daemon = lab.daemon().listen(SERVER_V4, ECHO, "echo").start();
    let prefixes: Vec<String> = (0..1000).map(|n| format!("2001:db8:1234:5678:9abc:def0:{n:x}::/112")).collect();
    let arguments: Vec<&str> = std::iter::once("add").chain(prefixes.iter().map(String::as_str)).collect();
    assert_eq!(done(&daemon, "deny", &arguments).lines().count(), 1000);
    assert_eq!(done(&daemon, "deny", &["list"]).lines().count(), 1000);
}

#[test]
fn what_cannot_be_changed_is_said_in_one_line() {
    let lab = Lab::new();
    let daemon = lab.daemon().listen(SERVER_V4, ECHO, "echo").start();
    let cases = [
        ("10.1.2.3/8", "xtcp: \"10.1.2.3/8\": bits behind the length are set; is 10.0.0.0/8 meant?\n"),
        ("example.com", "xtcp: \"example.com\": is no prefix such as 10.0.0.0/8, 2001:db8::/32 or 192.0.2.1\n"),
        ("10.0.0.0/33", "xtcp: \"10.0.0.0/33\": the length of an IPv4 prefix is 0 to 32\n"),
    ];
    for (prefix, complaint) in cases {
        // Nothing is done when one of them is no prefix.
        let (stdout, stderr) = failed(&daemon, "deny", &["add", "10.8.0.0/16", prefix], 2);
        assert_eq!((stdout.as_str(), stderr.as_str()), ("", complaint));
    }
    done(&daemon, "allow", &["add", "10.0.0.0/8"]);
    done(&daemon, "deny", &["add", "10.1.0.0/16"]);
    let (stdout, stderr) = failed(&daemon, "deny", &["del", "10.1.0.0/16", "10.0.0.0/8", "10.2.0.0/16"], 1);
    assert_eq!(stdout, "10.1.0.0/16: no longer denied\n");
    assert_eq!(stderr, "xtcp: 10.0.0.0/8 is not in deny, but in allow\n");
    let (stdout, stderr) = failed(&daemon, "deny", &["del", "10.2.0.0/16"], 1);
    assert_eq!((stdout.as_str(), stderr.as_str()), ("", "xtcp: 10.2.0.0/16 is not in deny\n"));
}

#[test]
fn a_source_that_sends_too_many_syns_is_cut_short_and_another_one_connects() {
    const SYNS: u64 = 50;
    let lab = Lab::new();
    let limit = "source_syn_rate = 1\nsource_syn_burst = 3";
    let daemon = lab.daemon().line(limit).listen(SERVER_V4, ECHO, "echo").start();
    (1..=SYNS as u16).for_each(|port| syn(&lab, SILENT, port));
    until_it("all SYNs", || daemon.stats()["classes"]["syn"].as_u64(), |syns| *syns == Some(SYNS));
    let stats = daemon.stats();
    let (taken, dropped) = (&stats["verdicts"]["steer_syn"], &stats["drops"]["source_rate"]);
    let (taken, dropped) = (taken.as_u64().unwrap(), dropped.as_u64().unwrap());
    assert_eq!(taken + dropped, SYNS);
    assert!(taken >= 3 && dropped > 0, "{taken} taken, {dropped} dropped");
    daemon.wait_for_log(&["dropped", ": source_rate"]);
    peer::round_trip(&mut lab.connect(server(ECHO)), b"from another source");
    done(&daemon, "allow", &["add", &SILENT.to_string()]);
    let dropped = drops(&daemon, "source_rate");
    (101..=110).for_each(|port| syn(&lab, SILENT, port));
    until_it(
        "the SYNs of an allowed source",
        || daemon.stats()["classes"]["syn"].as_u64(),
        |syns| *syns >= Some(SYNS + 11),
    );
    assert_eq!(drops(&daemon, "source_rate"), dropped);
}
