//! The XDP program's whole decision, over maps in memory that the first two bytes choose, about the frame that follows.
//! Held to be true: it does not panic; equal inputs are decided equally, whatever was in the key before; a decision
//! moves one outcome, at most one class and, if and only if it drops, one reason; and it is the decision that a reader
//! of the contract comes to who finds the connection with another parser, so that above all whatever is not owned passes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tcp_common::cases::world::{MemoryMaps, OUR_MAC, PEER_V4, World};
use tcp_common::counters::{Class, Counters, DropReason};
use tcp_common::decide::{Question, Sockets, decide};
use tcp_common::layout::ListenerValue;
use tcp_common::packet::Place;
use tcp_common::prefix::Rule;
use tcp_common::rate::Rate;
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
        Verdict::Answer(answer) => panic!("{answer:?}: a decision answers nothing"),
    };
    assert!(expected.allows(&actual), "{actual:?}, and expected is {expected:?} of {found:?}");
    if let Some(found) = found.filter(|_| actual != Expected::Pass) {
        check_keys(&found, [key, other]);
    }
}

/// The key of what does not pass, whatever it was before; of what is hidden the addresses alone are known.
fn check_keys(found: &Found, mut keys: [ConnectionKey; 2]) {
    if found.what == What::Hidden {
        keys.iter_mut().for_each(|key| (key.local_port, key.remote_port) = (0, 0));
    }
    assert_eq!(keys, [found.key; 2], "the key of what is not passed");
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
    if bit(what, 7) {
        limit_sources(&mut world, queue);
    }
    world
}

/// Denies and allows some prefixes, and has the peer's address and network used up their SYNs.
fn limit_sources(world: &mut World, which: u8) {
    const RULES: &[(&str, Rule)] = &[
        ("10.0.0.0/8", Rule::Deny),
        ("10.77.0.1/32", Rule::Allow),
        ("0.0.0.0/0", Rule::Allow),
        ("::/0", Rule::Deny),
        ("fd00::/64", Rule::Allow),
        ("::/90", Rule::Allow),
        ("fd00::1/128", Rule::Deny),
    ];
    let chosen = RULES.iter().zip(0..).filter(|(_, number)| bit(which, *number));
    world.prefixes = chosen.map(|((prefix, rule), _)| (prefix.parse().expect("a prefix"), *rule)).collect();
    world.source_limit = Rate { interval_ns: 1, burst: 1, pad: 0 };
    world.exhausted_sources = vec![PEER_V4, IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0))];
}

/// A range whose end lies before its start, as CONFIG says that there are no ports.
#[expect(clippy::reversed_empty_ranges, reason = "that it is empty is the point")]
const RANGE_OF_NONE: std::ops::RangeInclusive<u16> = 1..=0;

/// A decision that outlives the maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Decided {
    class: Option<Class>,
    verdict: Verdict,
    slots: [Option<usize>; 3],
    place: Place,
    question: Option<Question>,
    listener: Option<ListenerValue>,
}

fn decided(world: &World, frame: &[u8], key: &mut ConnectionKey) -> Decided {
    let maps = MemoryMaps::new(world);
    let decision = decide(frame, &maps, key);
    Decided {
        class: decision.class,
        verdict: decision.verdict,
        slots: decision.slots(),
        place: decision.place,
        question: decision.question(),
        listener: decision.listener.copied(),
    }
}

fn check_counters(decision: &Decided) {
    let mut slots = [0; Counters::SLOTS];
    decision.slots.into_iter().flatten().for_each(|slot| slots[slot] += 1);
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
        use DropReason::{Denied, Extensions, Fragment, IcmpRate, NoSocket, SourceRate, StrayRst};
        match (self, actual) {
            (Expected::DropMalformed, Expected::Drop(reason)) => {
                ![Fragment, Extensions, StrayRst, IcmpRate, NoSocket, Denied, SourceRate].contains(reason)
            }
            _ => self == actual,
        }
    }
}

/// The contract, read once more.
fn expect(world: &World, found: &Found) -> Expected {
    let key = &found.key;
    if found.vlan != 0 && !world.vlans.contains(&found.vlan) {
        return Expected::Pass;
    }
    let connected = world.connections.contains(key);
    let listens = listens(world, key);
    let opens = world.ephemeral.contains(&key.local_port) && is_ours(world, key);
    let owned = match found.what {
        What::Hidden => is_ours(world, key),
        What::IcmpError => owns_port(world, key.local_port) && connected,
        _ => owns_port(world, key.local_port) && (connected || listens || opens),
    };
    if !owned || world.sockets == Sockets::Nowhere {
        return Expected::Pass;
    }
    match found.what {
        What::Hidden => Expected::Drop(DropReason::Extensions),
        _ if world.sockets == Sockets::Elsewhere => Expected::Drop(DropReason::NoSocket),
        What::IcmpError if world.icmp_exhausted => Expected::Drop(DropReason::IcmpRate),
        What::IcmpError => Expected::Steer(Steer::Icmp { queue: world.queue }),
        What::Fragment => Expected::Drop(DropReason::Fragment),
        _ if connected => Expected::Steer(Steer::Connection { queue: world.queue }),
        What::Malformed => Expected::DropMalformed,
        What::Segment { flags, .. } => match of_stranger(flags, listens) {
            Expected::Steer(steer) => of_source(world, key.remote().ip(), flags, Expected::Steer(steer)),
            dropped => dropped,
        },
    }
}

/// What becomes of a stranger's segment that could be `taken`.
fn of_source(world: &World, source: IpAddr, flags: u8, taken: Expected) -> Expected {
    let is_syn = bit(flags, 1) && !bit(flags, 4);
    let network = match source {
        IpAddr::V4(_) => source,
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
    };
    match rule(world, source) {
        Some(Rule::Deny) => Expected::Drop(DropReason::Denied),
        None if is_syn && world.exhausted_sources.contains(&network) => Expected::Drop(DropReason::SourceRate),
        Some(Rule::Allow) | None => taken,
    }
}

/// The rule of the longest prefix of an address, by how prefixes are written.
fn rule(world: &World, source: IpAddr) -> Option<Rule> {
    let covering = world.prefixes.iter().filter_map(|(prefix, rule)| {
        let text = prefix.to_string();
        let (address, length) = text.split_once('/')?;
        let length: u32 = length.parse().ok()?;
        let differ = match (address.parse().ok()?, source) {
            (IpAddr::V4(address), IpAddr::V4(source)) => (address.to_bits() ^ source.to_bits()).leading_zeros(),
            (IpAddr::V6(address), IpAddr::V6(source)) => (address.to_bits() ^ source.to_bits()).leading_zeros(),
            _ => return None,
        };
        (differ >= length).then_some((length, *rule))
    });
    covering.max_by_key(|(length, _)| *length).map(|(_, rule)| rule)
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
