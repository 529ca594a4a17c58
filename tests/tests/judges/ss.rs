//! The kernel's own view of its connections to xtcp, as `ss -ti` prints it: what was negotiated, what it counted, and
//! whether that agrees with `xtcp conns`.

use std::net::SocketAddr;

use tests::Lab;
use tests::daemon::Daemon;
use tests::impairment::Impairment;
use tests::peer::{self, assert_same, bytes};
use tests::wait::until_it;

use crate::{ECHO, SERVERS};

/// Bytes of a round trip: several segments.
const TRIP: usize = 100_000;

/// One connection as `ss -tinH` prints it: flags such as `sack`, and values such as `mss:1448`.
#[derive(Clone, Debug)]
struct View(String);

impl View {
    /// Of the only connection to `at`.
    fn of(lab: &Lab, at: SocketAddr) -> View {
        let view = lab.client.run(&format!("ss -tinoH dst {at}")).unwrap();
        assert_eq!(view.matches("ESTAB").count(), 1, "{view}");
        View(view)
    }

    fn has(&self, flag: &str) -> bool {
        self.0.split_whitespace().any(|word| word == flag)
    }

    /// What follows `name` and a colon.
    fn value(&self, name: &str) -> Option<&str> {
        self.0.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix(':'))
    }

    /// A figure; the kernel prints none that is zero.
    fn number(&self, name: &str) -> u64 {
        self.value(name).map_or(0, |value| value.parse().unwrap_or_else(|_| panic!("{name}:{value} in {self:?}")))
    }
}

/// A daemon whose echo has `lines` of its own.
fn echo(lab: &Lab, at: SocketAddr, lines: &str) -> Daemon {
    lab.daemon().listen_with(at, &format!("service = \"echo\"\n{lines}")).start()
}

/// What the kernel thinks after some round trips with an echo that has `lines` of its own; ECN is asked for.
fn after_round_trips(at: SocketAddr, lines: &str) -> View {
    let lab = Lab::new();
    lab.client.set_sysctl("net.ipv4.tcp_ecn", "1").unwrap();
    let _daemon = echo(&lab, at, lines);
    let mut client = lab.connect(at);
    (0..3).for_each(|seed| peer::round_trip(&mut client, &bytes(TRIP, seed)));
    View::of(&lab, at)
}

#[test]
fn the_kernel_agrees_on_what_was_negotiated() {
    for address in SERVERS {
        let view = after_round_trips(SocketAddr::new(address, ECHO), "");
        // 12 bytes of every segment are timestamps.
        let mss = if address.is_ipv4() { 1448 } else { 1428 };
        for flag in ["ts", "sack", "ecn", "ecnseen"] {
            assert!(view.has(flag), "{flag}: {view:?}");
        }
        assert_eq!(["mss", "rcvmss", "advmss"].map(|name| view.number(name)), [mss; 3], "{view:?}");
        assert_eq!(view.number("pmtu"), 1500, "{view:?}");
        assert!(view.value("wscale").is_some(), "{view:?}");
    }
}

#[test]
fn the_kernels_window_scale_is_what_stood_in_both_syns() {
    let lab = Lab::new();
    let at = SocketAddr::new(SERVERS[0], ECHO);
    let _daemon = echo(&lab, at, "");
    let mut client = lab.connect(at);
    peer::round_trip(&mut client, b"x");
    let shift = |ours: bool| {
        let syns = lab.segments(|segment| segment.flags.syn && (segment.source == at) == ours);
        syns[0].window_scale.expect("a window scale")
    };
    let view = View::of(&lab, at);
    assert_eq!(view.value("wscale"), Some(&*format!("{},{}", shift(true), shift(false))), "{view:?}");
}

#[test]
fn what_a_listener_does_not_offer_the_kernel_does_not_have() {
    let at = SocketAddr::new(SERVERS[0], ECHO);
    for (option, flags) in [("sack", &["sack"][..]), ("ecn", &["ecn", "ecnseen"]), ("timestamps", &["ts"])] {
        let view = after_round_trips(at, &format!("tcp = {{ {option} = false }}"));
        for flag in ["ts", "sack", "ecn", "ecnseen"] {
            assert_eq!(view.has(flag), !flags.contains(&flag), "{option} = false, {flag}: {view:?}");
        }
        assert_eq!(view.number("mss"), if option == "timestamps" { 1460 } else { 1448 }, "{view:?}");
    }
    let view = after_round_trips(at, "tcp = { window_scale = false }");
    assert_eq!(view.value("wscale"), None, "{view:?}");
    let view = after_round_trips(at, "tcp = { mss = 1000 }");
    assert_eq!((view.number("mss"), view.number("advmss")), (988, 1448), "{view:?}");
}

#[test]
fn the_kernel_and_xtcp_count_the_same_bytes_and_the_kernel_sends_nothing_twice_over_a_good_wire() {
    for address in SERVERS {
        let lab = Lab::new();
        let at = SocketAddr::new(address, ECHO);
        // Probes of a tail whose ACK is late because the machine is busy would be sent twice.
        lab.client.set_sysctl("net.ipv4.tcp_early_retrans", "0").unwrap();
        let daemon = echo(&lab, at, "");
        let mut client = lab.connect(at);
        (1..=10).for_each(|seed| peer::round_trip(&mut client, &bytes(TRIP, seed)));
        let (total, acked) = (10 * TRIP as u64, |view: &View| view.number("bytes_acked"));
        // The SYN counts as a byte.
        let view = until_it("everything acknowledged", || View::of(&lab, at), |view| acked(view) == total + 1);
        assert_eq!((view.number("bytes_sent"), view.number("bytes_received")), (total, total), "{view:?}");
        for nothing in ["bytes_retrans", "dsack_dups", "reord_seen", "lost", "sacked", "unacked"] {
            assert_eq!(view.number(nothing), 0, "{nothing}: {view:?}");
        }
        assert_eq!(view.value("retrans"), None, "{view:?}");
        // The SYN again.
        assert_eq!(view.number("delivered"), view.number("data_segs_out") + 1, "{view:?}");
        let row = &daemon.connections(ECHO)[0];
        let ours = ["bytes_in", "bytes_out"].map(|name| row.number(name));
        assert_eq!(ours, [total, total], "{row:#?}");
    }
}

#[test]
fn the_kernel_counts_what_we_report_of_duplicates_and_reordering() {
    let lab = Lab::new();
    let at = SocketAddr::new(SERVERS[0], ECHO);
    let daemon = echo(&lab, at, "");
    lab.impair(Impairment { reordering: 50, duplication: 20, ..Impairment::default() }).unwrap();
    let client = lab.connect(at);
    let data = bytes(50 * TRIP, 31);
    std::thread::scope(|scope| {
        let sent = scope.spawn(|| std::io::Write::write_all(&mut &client, &data));
        let mut echoed = vec![0; data.len()];
        std::io::Read::read_exact(&mut &client, &mut echoed).expect("the echo");
        sent.join().unwrap().expect("the peer takes the data");
        assert_same(&echoed, &data);
    });
    let view = View::of(&lab, at);
    assert!(view.number("dsack_dups") > 0 && view.number("reord_seen") > 0, "{view:?}");
    assert!(view.number("rcv_ooopack") > 0, "{view:?}");
    let row = &daemon.connections(ECHO)[0];
    assert_eq!([row.number("bytes_in"), row.number("bytes_out")], [data.len() as u64; 2], "{row:#?}");
    assert_eq!(view.number("bytes_received"), data.len() as u64, "{view:?}");
}
