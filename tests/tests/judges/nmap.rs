//! nmap's scans of xtcp's ports and of the kernel's in the same namespace: what they show is what a conforming stack
//! shows, and the same for both. Afterwards xtcp holds nothing of them and serves.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use tests::Lab;
use tests::daemon::Daemon;
use tests::net::SERVER_V4;
use tests::peer;
use tests::wait::until_it;

use crate::{ECHO, KERNEL, SERVERS};

/// Nobody listens there, so the kernel answers.
const CLOSED: u16 = 2223;
/// Port of RFC 867.
const DAYTIME: u16 = 13;

/// What a scan shows of an open port, whoever has it, and of a closed one (RFC 9293 section 3.10.7: CLOSED and LISTEN).
const SCANS: [(&str, &str, &str); 8] = [
    ("-sS", "open", "closed"),           // SYN
    ("-sT", "open", "closed"),           // connect()
    ("-sF", "open|filtered", "closed"),  // FIN alone: a listener is silent
    ("-sN", "open|filtered", "closed"),  // no flag
    ("-sX", "open|filtered", "closed"),  // FIN, PSH and URG
    ("-sA", "unfiltered", "unfiltered"), // ACK: a RST from everybody
    ("-sW", "closed", "closed"),         // ACK again: the RST's window is zero
    ("-sM", "closed", "closed"),         // FIN and ACK: a RST, open or not
];

/// What nmap prints; its scans are bounded in time and in tries.
fn nmap(lab: &Lab, address: IpAddr, arguments: &str) -> String {
    let family = if address.is_ipv6() { "-6" } else { "" };
    let bounds = "-n -Pn --host-timeout 60s --max-retries 3 --initial-rtt-timeout 200ms --max-rtt-timeout 400ms";
    lab.client.run(&format!("nmap {family} {bounds} {arguments} {address}")).unwrap()
}

/// What a scan shows of each port.
fn scan(lab: &Lab, address: IpAddr, how: &str, ports: &str) -> BTreeMap<u16, String> {
    let report = nmap(lab, address, &format!("{how} -p {ports} -oG -"));
    let line = report.lines().find_map(|line| line.split_once("Ports: "));
    let (_, line) = line.unwrap_or_else(|| panic!("no ports in {report}"));
    let listed = line.split('\t').next().unwrap_or_default().split(", ");
    let port = |entry: &str| {
        let mut fields = entry.split('/');
        Some((fields.next()?.parse().ok()?, fields.next()?.to_owned()))
    };
    listed.map(|entry| port(entry).unwrap_or_else(|| panic!("{entry} in {report}"))).collect()
}

/// The value of the first attribute of an element in nmap's XML.
fn attribute<'a>(xml: &'a str, element: &str, name: &str) -> &'a str {
    let found = xml.split_once(&format!("<{element} ")).and_then(|(_, rest)| {
        let (inside, _) = rest.split_once('>')?;
        inside.split_once(&format!("{name}=\""))?.1.split_once('"')
    });
    found.unwrap_or_else(|| panic!("no {name} of {element} in {xml}")).0
}

/// xtcp is as it was: no connection is left, and it serves.
fn assert_healthy(lab: &Lab, daemon: &Daemon) {
    for port in [ECHO, DAYTIME] {
        until_it(
            "no connection left",
            || daemon.connections(port),
            |rows| rows.iter().all(|row| row.state == "TIME_WAIT"),
        );
    }
    peer::round_trip(&mut lab.connect((SERVER_V4, ECHO)), b"alive");
}

fn daemon(lab: &Lab) -> Daemon {
    let builder = SERVERS.into_iter().fold(lab.daemon(), |builder, address| builder.listen(address, ECHO, "echo"));
    builder.listen(SERVER_V4, DAYTIME, "daytime").start()
}

#[test]
fn every_scan_shows_of_our_ports_what_it_shows_of_the_kernels() {
    let lab = Lab::new();
    let daemon = daemon(&lab);
    for address in SERVERS {
        let _listener = peer::listen(&lab.server, SocketAddr::new(address, KERNEL));
        for (how, open, closed) in SCANS {
            let seen = scan(&lab, address, how, &format!("{ECHO},{KERNEL},{CLOSED}"));
            let expected = [(ECHO, open), (KERNEL, open), (CLOSED, closed)];
            assert_eq!(seen, expected.map(|(port, state)| (port, state.to_owned())).into(), "{how} {address}");
        }
    }
    assert_healthy(&lab, &daemon);
}

#[test]
fn ports_that_answer_strangers_with_silence_are_filtered() {
    let lab = Lab::new();
    let silent = "service = \"echo\"\ntcp = { no_connection = \"drop\" }";
    let _daemon = lab.daemon().listen_with((SERVER_V4, ECHO).into(), silent).start();
    for (how, state) in [("-sS", "open"), ("-sA", "filtered"), ("-sW", "filtered"), ("-sM", "open|filtered")] {
        assert_eq!(scan(&lab, SERVER_V4, how, &ECHO.to_string())[&ECHO], state, "{how}");
    }
}

#[test]
fn our_sequence_numbers_are_as_hard_to_predict_as_the_kernels() {
    let lab = Lab::new();
    let daemon = daemon(&lab);
    let _listener = peer::listen(&lab.server, (SERVER_V4, KERNEL).into());
    let [ours, kernels] = [ECHO, KERNEL].map(|port| {
        let xml = nmap(&lab, SERVER_V4, &format!("-O --max-os-tries 1 -p {port},{CLOSED} -oX -"));
        let index = attribute(&xml, "tcpsequence", "index").parse::<u32>().expect("a number");
        println!("port {port}: {index}, {}", attribute(&xml, "tcpsequence", "values"));
        assert_eq!(attribute(&xml, "tcpsequence", "difficulty"), "Good luck!", "port {port}: {xml}");
        index
    });
    // The index is a logarithm of how much six numbers vary, times 8 or so: chance alone moves it by some.
    assert!(ours.abs_diff(kernels) < 20, "{ours}, the kernel's {kernels}");
    assert_healthy(&lab, &daemon);
}

#[test]
fn version_probes_recognise_our_services() {
    let lab = Lab::new();
    let daemon = daemon(&lab);
    for (port, service) in [(ECHO, "echo"), (DAYTIME, "daytime")] {
        let xml = nmap(&lab, SERVER_V4, &format!("-sV -p {port} -oX -"));
        let seen = ["name", "method"].map(|name| attribute(&xml, "service", name));
        assert_eq!(seen, [service, "probed"], "{xml}");
    }
    assert_healthy(&lab, &daemon);
}
