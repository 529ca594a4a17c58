//! Transfers both ways at once with the kernel's TCP over a wire that loses, reorders and doubles segments: every byte
//! is compared, and both ends must have seen what the wire did and told each other of it (RFC 2018, RFC 2883).

use std::collections::HashSet;
use std::net::SocketAddr;

use tests::Lab;
use tests::impairment::Impairment;
use tests::net::{CLIENT_V4, CLIENT_V6, SERVER_V4};
use tests::nstat::Figures;
use tests::peer::{self, assert_same, bytes};
use tests::segment::Segment;
use tests::wait::until;

use crate::{ECHO, KERNEL, PROXY, SERVERS};

/// Bytes each way over a wire that is bad in one way, and in all.
const MUCH: usize = 20_000_000;
/// Bytes each way where not the amount is the point.
const SOME: usize = 5_000_000;
/// Bytes that a veth pair holds even when its receiver is not scheduled: none of them is lost.
const LITTLE: usize = 200_000;

const NONE: Impairment = Impairment { loss: 0, reordering: 0, duplication: 0 };
const LOSS: Impairment = Impairment { loss: 10, ..NONE };
const REORDERING: Impairment = Impairment { reordering: 50, ..NONE };
const DUPLICATION: Impairment = Impairment { duplication: 10, ..NONE };
const ALL: Impairment = Impairment { loss: 10, reordering: 50, duplication: 10 };

/// What came of a transfer, as both ends tell.
#[derive(Debug)]
struct Outcome {
    /// What the client's kernel counted.
    kernel: Figures,
    /// ACKs of ours that reported what arrived out of order.
    sacks: usize,
    /// ACKs of ours that reported what arrived twice.
    duplicates_reported: usize,
    /// Segments of ours that carried data sent before.
    repeated: usize,
    /// ACKs of the kernel's that reported what arrived twice.
    duplicates_reported_to_us: usize,
}

impl Outcome {
    /// Of `connections` that are over.
    fn of(lab: &Lab, connections: usize) -> Outcome {
        // The capture may lag behind; it is in order.
        until("the FIN of every connection on the wire", || (ended(lab) >= connections).then_some(()));
        let checker = lab.checker();
        let (ours, theirs): (Vec<&Segment>, Vec<&Segment>) =
            checker.segments().iter().partition(|segment| checker.is_ours(segment));
        let mut sent = HashSet::new();
        let data = ours.iter().filter(|segment| segment.length > 0);
        Outcome {
            kernel: Figures::of(&lab.client),
            sacks: ours.iter().filter(|segment| reports_a_hole(segment)).count(),
            duplicates_reported: ours.iter().filter(|segment| reports_a_duplicate(segment)).count(),
            repeated: data.filter(|segment| !sent.insert((segment.source, segment.destination, segment.seq))).count(),
            duplicates_reported_to_us: theirs.iter().filter(|segment| reports_a_duplicate(segment)).count(),
        }
    }

    fn print(&self, what: &str) {
        let names = ["TcpRetransSegs", "TcpExtTCPOFOQueue", "TcpExtTCPDSACKRecv", "TcpExtTCPSACKReorder"];
        let kernel = names.map(|name| format!("{name} {}", self.kernel.get(name))).join(", ");
        let Outcome { sacks, duplicates_reported, repeated, duplicates_reported_to_us, .. } = self;
        println!(
            "{what}: kernel: {kernel}, D-SACKs {duplicates_reported_to_us}; xtcp: again {repeated}, SACKs {sacks}, \
             D-SACKs {duplicates_reported}"
        );
    }

    /// Asserts that both ends repaired losses, and that ours told of the holes.
    fn assert_losses(&self) {
        assert!(self.kernel.get("TcpRetransSegs") > 0 && self.repeated > 0, "nothing was lost: {self:#?}");
        assert!(self.sacks > 0 && self.kernel.get("TcpExtTCPSackRecovery") > 0, "no hole was reported: {self:#?}");
    }

    /// Asserts that segments were overtaken in both directions.
    fn assert_reordering(&self) {
        assert!(self.kernel.get("TcpExtTCPOFOQueue") > 0, "nothing of ours was overtaken: {self:#?}");
        assert!(self.sacks > 0, "nothing of the kernel's was overtaken: {self:#?}");
    }

    /// Asserts that segments arrived twice at both ends, which told each other.
    fn assert_duplicates(&self) {
        assert!(self.duplicates_reported_to_us > 0, "nothing of ours arrived twice: {self:#?}");
        assert!(self.duplicates_reported > 0, "we reported nothing that came twice: {self:#?}");
        assert!(self.kernel.get("TcpExtTCPDSACKRecv") > 0, "the kernel saw no report of ours: {self:#?}");
    }
}

/// Connections that xtcp has sent a FIN of.
fn ended(lab: &Lab) -> usize {
    let checker = lab.checker();
    let fins = checker.segments().iter().filter(|segment| segment.flags.fin && checker.is_ours(segment));
    fins.map(|fin| (fin.source, fin.destination)).collect::<HashSet<_>>().len()
}

/// Whether an ACK tells of octets beyond a hole.
fn reports_a_hole(segment: &Segment) -> bool {
    segment.sacks.iter().any(|(start, _)| is_after(*start, segment.ack))
}

/// Whether the first block is a D-SACK: below the ACK, or inside the second block (RFC 2883 section 4).
fn reports_a_duplicate(segment: &Segment) -> bool {
    let Some((start, end)) = segment.sacks.first() else { return false };
    let inside = |(from, to): &(u32, u32)| !is_after(*from, *start) && !is_after(*end, *to);
    !is_after(*end, segment.ack) || segment.sacks.get(1).is_some_and(inside)
}

fn is_after(number: u32, other: u32) -> bool {
    (number.wrapping_sub(other) as i32) > 0
}

/// Echoes `length` bytes over a wire as bad as told, by a listener with `lines` of its own, for each address family.
fn echo_each(impairment: Impairment, length: usize, lines: &str, judge: impl Fn(&Outcome)) {
    for address in SERVERS {
        let lab = Lab::new();
        let at = SocketAddr::new(address, ECHO);
        let _daemon = lab.daemon().listen_with(at, &format!("service = \"echo\"\n{lines}")).start();
        lab.impair(impairment).unwrap();
        let data = bytes(length, 21);
        assert_same(&peer::exchange(&lab.connect(at), &data), &data);
        let outcome = Outcome::of(&lab, 1);
        outcome.print(&format!("{length} bytes each way, {at}, {impairment:?}"));
        judge(&outcome);
    }
}

#[test]
fn a_transfer_over_a_wire_that_loses_segments_arrives_whole_and_every_report_of_ours_makes_sense_to_the_kernel() {
    echo_each(LOSS, MUCH, "", |outcome| {
        outcome.assert_losses();
        // Nothing overtakes and nothing is doubled, so no report may be strange.
        for strange in ["TcpExtTCPSACKDiscard", "TcpExtTCPDSACKIgnoredDubious", "TcpExtTCPSACKReneging"] {
            assert_eq!(outcome.kernel.get(strange), 0, "{strange}: {outcome:#?}");
        }
    });
}

#[test]
fn a_transfer_over_a_wire_that_reorders_segments_arrives_whole() {
    echo_each(REORDERING, MUCH, "", Outcome::assert_reordering);
}

#[test]
fn a_transfer_over_a_wire_that_doubles_segments_arrives_whole_and_both_ends_tell_each_other() {
    echo_each(DUPLICATION, MUCH, "", Outcome::assert_duplicates);
}

#[test]
fn a_transfer_over_a_wire_that_loses_reorders_and_doubles_segments_arrives_whole() {
    echo_each(ALL, MUCH, "", |outcome| {
        outcome.assert_losses();
        outcome.assert_reordering();
        outcome.assert_duplicates();
    });
}

#[test]
fn without_selective_acknowledgments_a_transfer_over_such_a_wire_arrives_whole_and_nothing_is_reported() {
    echo_each(ALL, SOME, "tcp = { sack = false }", |outcome| {
        assert!(outcome.kernel.get("TcpRetransSegs") > 0 && outcome.repeated > 0, "nothing was lost: {outcome:#?}");
        let reported = (outcome.sacks, outcome.duplicates_reported, outcome.duplicates_reported_to_us);
        assert_eq!(reported, (0, 0, 0), "{outcome:#?}");
        assert_eq!(outcome.kernel.get("TcpExtTCPDSACKRecv"), 0, "{outcome:#?}");
    });
}

#[test]
fn over_a_good_wire_nothing_is_out_of_order_and_no_hole_is_reported() {
    echo_each(NONE, LITTLE, "", |outcome| {
        // A late ACK may draw a tail loss probe, so what was sent twice is not asserted.
        assert_eq!((outcome.sacks, outcome.kernel.get("TcpExtTCPOFOQueue")), (0, 0), "{outcome:#?}");
        assert_eq!(outcome.kernel.get("TcpExtTCPSackRecovery"), 0, "{outcome:#?}");
    });
}

#[test]
fn a_transfer_through_the_proxy_over_such_a_wire_arrives_whole() {
    let lab = Lab::new();
    let backend = SocketAddr::from(([127, 0, 0, 1], 8000));
    let (upload, download) = (bytes(MUCH, 22), bytes(MUCH, 23));
    let listener = peer::listen(&lab.server, backend);
    let _daemon = lab.daemon().listen(SERVER_V4, PROXY, &format!("proxy:{backend}")).start();
    lab.impair(ALL).unwrap();
    let client = lab.connect((SERVER_V4, PROXY));
    std::thread::scope(|scope| {
        scope.spawn(|| assert_same(&peer::exchange(&peer::accept(&listener), &download), &upload));
        assert_same(&peer::exchange(&client, &upload), &download);
    });
    let outcome = Outcome::of(&lab, 1);
    outcome.print("through the proxy");
    outcome.assert_losses();
    outcome.assert_reordering();
    outcome.assert_duplicates();
}

#[test]
fn active_opens_carry_their_streams_over_such_a_wire() {
    let lab = Lab::new();
    let daemon = lab.daemon().listen(SERVER_V4, ECHO, "echo").start();
    lab.impair(ALL).unwrap();
    for address in [CLIENT_V4, CLIENT_V6] {
        let at = SocketAddr::new(address, KERNEL);
        let kernel = peer::serve(peer::listen(&lab.client, at), 1, peer::echo);
        let (data, mut connect) = (bytes(SOME, 24), daemon.connect(at));
        assert_same(&peer::exchange_through(&mut connect, &data), &data);
        assert!(connect.wait().expect("its end").success());
        kernel.join().unwrap();
    }
    let outcome = Outcome::of(&lab, 2);
    outcome.print("active opens");
    outcome.assert_losses();
    outcome.assert_reordering();
    outcome.assert_duplicates();
}
