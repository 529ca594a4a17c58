//! The XDP program's whole decision, over maps in memory that the first two bytes choose, about the frame that follows.
//! Held to be true: it does not panic; equal inputs are decided equally, whatever was in the key before; a decision
//! moves one outcome, at most one class and, if and only if it drops, one reason; and it is the decision that a reader
//! of the contract comes to who finds the connection with another parser, so that above all whatever is not owned passes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tcp_common::cases::world::{MemoryMaps, OUR_MAC, World};
use tcp_common::counters::{Counters, DropReason};
use tcp_common::decide::{Decision, Sockets, decide};
use tcp_common::{ConnectionKey, Steer, Verdict};

use crate::input::{Input, bit, pick};
use crate::naive::{self, Found, What};

/// Runs the target.
pub fn run(input: &[u8]) {
    let mut input = Input::new(input);
    let world = world(&mut input);
    let frame = input.rest();
    let mut key = ConnectionKey::default();
    let decision = decided(&world, frame, &mut key);
    let mut other = ConnectionKey {
        local_addr: [0xaa; 16],
        remote_addr: [0x55; 16],
        local_port: 0xffff,
        remote_port: 0xffff,
        pad: 0xffff_ffff,
    };
    assert_eq!(decided(&world, frame, &mut other), decision, "the decision depends on what the key held");
    check_counters(&decision);
    let found = naive::find(frame).filter(|_| frame.starts_with(&OUR_MAC));
    let expected = found.as_ref().map_or(Expected::Pass, |found| expect(&world, found));
    let actual = match decision.verdict {
        Verdict::Pass => Expected::Pass,
        Verdict::Drop(reason) => Expected::Drop(reason),
        Verdict::Steer(steer) => Expected::Steer(steer),
    };
    assert!(expected.allows(&actual), "{actual:?}, and expected is {expected:?} of {found:?}");
    if actual != Expected::Pass {
        let found = found.expect("something is owned").key;
        assert_eq!((key, other), (found, found), "the key of what is not passed");
    }
}

fn world(input: &mut Input<'_>) -> World {
    let [what, queue] = input.array();
    let mut world = World {
        sockets: pick(what, &[Sockets::Here, Sockets::Here, Sockets::Elsewhere, Sockets::Nowhere]),
        icmp_exhausted: bit(what, 2),
        queue: queue.into(),
        ..World::default()
    };
    if bit(what, 3) {
        world.vlans = Vec::new();
    }
    if bit(what, 4) {
        world.connections.clear();
    }
    if bit(what, 5) {
        world.listeners.clear();
    }
    if bit(what, 6) {
        world.ephemeral = RANGE_OF_NONE;
    }
    world
}

/// A range whose end lies before its start, as CONFIG says that there are no ports.
#[expect(clippy::reversed_empty_ranges, reason = "that it is empty is the point")]
const RANGE_OF_NONE: std::ops::RangeInclusive<u16> = 1..=0;

fn decided(world: &World, frame: &[u8], key: &mut ConnectionKey) -> Decision {
    decide(frame, &MemoryMaps::new(world), key)
}

fn check_counters(decision: &Decision) {
    let mut slots = [0; Counters::SLOTS];
    decision.slots().into_iter().flatten().for_each(|slot| slots[slot] += 1);
    let counters = Counters::from_slots(slots);
    let sum = |counters: &mut dyn Iterator<Item = (&'static str, u64)>| counters.map(|(_, count)| count).sum::<u64>();
    let drops = u64::from(matches!(decision.verdict, Verdict::Drop(_)));
    assert_eq!(sum(&mut counters.verdicts()), 1, "{decision:?}");
    assert_eq!(sum(&mut counters.drops()), drops, "{decision:?}");
    assert_eq!(sum(&mut counters.classes()), u64::from(decision.class.is_some()), "{decision:?}");
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    Pass,
    Drop(DropReason),
    /// For a reason that tells what is wrong with the segment's header or flags.
    DropMalformed,
    Steer(Steer),
}

impl Expected {
    fn allows(&self, actual: &Expected) -> bool {
        let of_world = [DropReason::Fragment, DropReason::StrayRst, DropReason::IcmpRate, DropReason::NoSocket]
            .map(Expected::Drop);
        match (self, actual) {
            (Expected::DropMalformed, Expected::Drop(_)) => !of_world.contains(actual),
            _ => self == actual,
        }
    }
}

/// The contract, read once more.
fn expect(world: &World, found: &Found) -> Expected {
    let key = &found.key;
    if found.vlan != 0 && !world.vlans.contains(&found.vlan) || !owns_port(world, key.local_port) {
        return Expected::Pass;
    }
    let connected = world.connections.contains(key);
    let listens = listens(world, key);
    let opens = world.ephemeral.contains(&key.local_port) && is_ours(world, key);
    if !(connected || (found.what != What::IcmpError && (listens || opens))) || world.sockets == Sockets::Nowhere {
        return Expected::Pass;
    }
    if world.sockets == Sockets::Elsewhere {
        return Expected::Drop(DropReason::NoSocket);
    }
    match found.what {
        What::IcmpError if world.icmp_exhausted => Expected::Drop(DropReason::IcmpRate),
        What::IcmpError => Expected::Steer(Steer::Icmp),
        What::Fragment => Expected::Drop(DropReason::Fragment),
        _ if connected => Expected::Steer(Steer::Connection { queue: world.queue }),
        What::Malformed => Expected::DropMalformed,
        What::Segment { flags, .. } => of_stranger(flags, listens),
    }
}

fn of_stranger(flags: u8, listens: bool) -> Expected {
    let (fin, syn, rst, ack) = (bit(flags, 0), bit(flags, 1), bit(flags, 2), bit(flags, 4));
    match (syn, rst) {
        (true, _) if fin || rst => Expected::DropMalformed,
        (true, _) if listens && !ack => Expected::Steer(Steer::Syn),
        (false, true) => Expected::Drop(DropReason::StrayRst),
        (false, false) if !ack => Expected::DropMalformed,
        _ => Expected::Steer(Steer::NoConnection),
    }
}

fn owns_port(world: &World, port: u16) -> bool {
    world.ephemeral.contains(&port) || world.listeners.iter().any(|listener| listener.port() == port)
}

fn is_ours(world: &World, key: &ConnectionKey) -> bool {
    world.addresses.contains(&key.local().ip())
}

/// (A segment to the wildcard address itself finds the wildcard listener: nobody has that address, and whoever gets
/// the segment drops it.)
fn listens(world: &World, key: &ConnectionKey) -> bool {
    let wildcard: IpAddr = match key.local().ip() {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let everywhere = SocketAddr::new(wildcard, key.local_port);
    world.listeners.contains(&key.local()) || (is_ours(world, key) && world.listeners.contains(&everywhere))
}
