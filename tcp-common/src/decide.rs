//! What the XDP program does with a frame: the whole decision, generic over the maps it reads, so that
//! the host tests, the simulator and the loaded program run the same source.
//!
//! A frame to our MAC address on one of our VLANs, with a TCP segment to an owned port or an ICMP error
//! about a connection, is ours; every other is the kernel's. RFC 9293 section 3.10.7 is the daemon's:
//! here only those segments are dropped to which it would not answer anyhow.

use crate::counters::{Class, DropReason, Outcome};
use crate::layout::{Config, ConnectionKey, ListenerKey};
use crate::packet::{self, Frame, Packet, Segment};
use crate::source::{self, Sources};

/// What becomes of a frame, and how it is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What the segment is, if it is ours and well-formed.
    pub class: Option<Class>,
    /// What becomes of it.
    pub verdict: Verdict,
}

impl Decision {
    /// The counters that it moves by one, as slots of `Counters`: its outcome, its class, its drop reason.
    #[must_use]
    #[inline(always)]
    pub fn slots(&self) -> [Option<usize>; 3] {
        let reason = match self.verdict {
            Verdict::Drop(reason) => Some(reason.slot()),
            Verdict::Pass | Verdict::Steer(_) => None,
        };
        [Some(self.verdict.outcome().slot()), self.class.map(Class::slot), reason]
    }
}

/// What becomes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The kernel gets it.
    Pass,
    /// Nobody gets it.
    Drop(DropReason),
    /// The daemon gets it, through the socket of the queue that it arrived on.
    Steer(Steer),
}

/// Why the daemon gets a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Steer {
    /// It belongs to a connection.
    Connection {
        /// RX queue whose worker owns the connection.
        queue: u16,
    },
    /// It is a SYN to a listener.
    Syn,
    /// It is another segment of an owned port, to be answered per RFC 9293 sections 3.10.7.1 and 3.10.7.2.
    NoConnection,
    /// It is an ICMP error that quotes a segment of a connection.
    Icmp {
        /// RX queue whose worker owns the connection. Errors come from routers: hardly ever by its queue.
        queue: u16,
    },
}

impl Steer {
    /// RX queue whose worker is to get the frame, whichever it arrived on; `None`: that of its arrival.
    #[must_use]
    #[inline(always)]
    pub const fn owner(self) -> Option<u16> {
        match self {
            Steer::Connection { queue } | Steer::Icmp { queue } => Some(queue),
            Steer::Syn | Steer::NoConnection => None,
        }
    }
}

/// Which RX queues have a socket of the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sockets {
    /// The queue that the frame arrived on (and maybe others).
    Here,
    /// Others only.
    Elsewhere,
    /// None: no daemon lives.
    Nowhere,
}

/// What the decision needs of an entry of CONNECTIONS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// RX queue whose worker owns it.
    pub queue: u16,
}

/// The maps that the decision reads. Each method is one lookup; the program asks the kernel, tests and the
/// simulator ask memory.
pub trait Maps: Sources {
    /// The entry of CONFIG; `None`: there is none yet.
    fn config(&self) -> Option<&Config>;
    /// Whether frames of this VLAN (VID 1 to 4094) are taken.
    fn accepts_vlan(&self, vid: u16) -> bool;
    /// Whether a segment to this local port may be ours.
    fn owns_port(&self, port: u16) -> bool;
    /// The connection's entry in CONNECTIONS.
    fn connection(&self, key: &ConnectionKey) -> Option<Connection>;
    /// Whether LISTENERS has this entry.
    fn has_listener(&self, key: &ListenerKey) -> bool;
    /// Whether this is a unicast address of the interface now.
    fn has_address(&self, address: &[u8; 16]) -> bool;
    /// Which queues have a socket.
    fn sockets(&self) -> Sockets;
    /// Charges one ICMP error to this CPU's limit; `false`: there were too many.
    fn admit_icmp_error(&self) -> bool;
}

/// Decides what becomes of `frame`.
///
/// Unless it passes, `key` then says which connection it belongs to, would belong to, or is about. What `key` held
/// before does not matter, except that the ports stay as they were where extension headers hide them.
#[inline(always)]
pub fn decide<F: Frame + ?Sized, M: Maps>(frame: &F, maps: &M, key: &mut ConnectionKey) -> Decision {
    match ours(frame, maps, key) {
        Some(decision) => decision,
        None => Decision { class: None, verdict: Verdict::Pass },
    }
}

/// The decision about a frame that is ours; `None`: it is the kernel's, which has no TCP for a broadcast either.
//= docs/rfc/rfc9293.md#MUST-57
#[inline(always)]
fn ours<F: Frame + ?Sized, M: Maps>(frame: &F, maps: &M, key: &mut ConnectionKey) -> Option<Decision> {
    let config = maps.config()?;
    if *packet::destination(frame)? != config.mac {
        return None;
    }
    let link = packet::link(frame)?;
    if link.vlan != 0 && !maps.accepts_vlan(link.vlan) {
        return None;
    }
    key.pad = 0;
    match packet::classify(frame, &link, key)? {
        Packet::Tcp(segment) => of_segment(&segment, key, config, maps),
        Packet::IcmpError => of_icmp_error(key, maps),
        Packet::Hidden => of_hidden(key, maps),
    }
}

#[inline(always)]
fn of_segment<M: Maps>(segment: &Segment, key: &ConnectionKey, config: &Config, maps: &M) -> Option<Decision> {
    if !maps.owns_port(key.local_port) {
        return None;
    }
    let owner = owner(key, config, maps)?;
    let shape = segment.shape();
    let verdict = match maps.sockets() {
        Sockets::Nowhere => return None,
        Sockets::Elsewhere => Verdict::Drop(DropReason::NoSocket),
        Sockets::Here => of_owned(owner, shape, key, config, maps),
    };
    Some(Decision { class: shape.ok(), verdict })
}

/// Whose a segment of an owned port is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Owner {
    Connection(Connection),
    Listener,
    /// An active open may use the port; none does with this peer.
    Ephemeral,
}

/// `None`: the port is owned on another address, so that here it is the kernel's.
//= docs/rfc/rfc9293.md#MUST-57
#[inline(always)]
fn owner<M: Maps>(key: &ConnectionKey, config: &Config, maps: &M) -> Option<Owner> {
    if let Some(connection) = maps.connection(key) {
        return Some(Owner::Connection(connection));
    }
    if maps.has_listener(&ListenerKey { addr: key.local_addr, port: key.local_port, pad: 0 }) {
        return Some(Owner::Listener);
    }
    if !maps.has_address(&key.local_addr) {
        return None;
    }
    if maps.has_listener(&ListenerKey { addr: key.local_wildcard(), port: key.local_port, pad: 0 }) {
        return Some(Owner::Listener);
    }
    let ephemeral = config.ephemeral_first <= key.local_port && key.local_port <= config.ephemeral_last;
    ephemeral.then_some(Owner::Ephemeral)
}

/// What becomes of a segment that is ours while the daemon listens on its queue.
#[inline(always)]
fn of_owned<M: Maps>(
    owner: Owner,
    shape: Result<Class, DropReason>,
    key: &ConnectionKey,
    config: &Config,
    maps: &M,
) -> Verdict {
    match (owner, shape) {
        (_, Err(DropReason::Fragment)) => Verdict::Drop(DropReason::Fragment),
        (Owner::Connection(Connection { queue }), _) => Verdict::Steer(Steer::Connection { queue }),
        (_, Err(reason)) => Verdict::Drop(reason),
        (_, Ok(Class::Rst)) => Verdict::Drop(DropReason::StrayRst),
        (_, Ok(class)) => match source::refusal(class, key, config, maps) {
            Some(reason) => Verdict::Drop(reason),
            None => welcome(owner, class),
        },
    }
}

/// What becomes of a segment that belongs to no connection, and whose source is not refused.
#[inline(always)]
const fn welcome(owner: Owner, class: Class) -> Verdict {
    Verdict::Steer(match (owner, class) {
        (Owner::Listener, Class::Syn) => Steer::Syn,
        _ => Steer::NoConnection,
    })
}

#[inline(always)]
fn of_icmp_error<M: Maps>(quoted: &ConnectionKey, maps: &M) -> Option<Decision> {
    if !maps.owns_port(quoted.local_port) {
        return None;
    }
    let Connection { queue } = maps.connection(quoted)?;
    let verdict = match maps.sockets() {
        Sockets::Nowhere => return None,
        Sockets::Elsewhere => Verdict::Drop(DropReason::NoSocket),
        Sockets::Here if maps.admit_icmp_error() => Verdict::Steer(Steer::Icmp { queue }),
        Sockets::Here => Verdict::Drop(DropReason::IcmpRate),
    };
    Some(Decision { class: Some(Class::Icmp), verdict })
}

/// A packet behind more extension headers than are looked through. The kernel would look further, and might reset a
/// connection of ours for it. A host may discard such packets (RFC 8504 section 5.3); those that it forwards pass.
#[inline(always)]
fn of_hidden<M: Maps>(key: &ConnectionKey, maps: &M) -> Option<Decision> {
    if !maps.has_address(&key.local_addr) || maps.sockets() == Sockets::Nowhere {
        return None;
    }
    Some(Decision { class: None, verdict: Verdict::Drop(DropReason::Extensions) })
}

impl Verdict {
    /// Which counter it moves.
    #[must_use]
    #[inline(always)]
    pub const fn outcome(self) -> Outcome {
        match self {
            Verdict::Pass => Outcome::Pass,
            Verdict::Drop(_) => Outcome::Drop,
            Verdict::Steer(Steer::Connection { .. }) => Outcome::SteerConnection,
            Verdict::Steer(Steer::Syn) => Outcome::SteerSyn,
            Verdict::Steer(Steer::NoConnection) => Outcome::SteerNoConnection,
            Verdict::Steer(Steer::Icmp { .. }) => Outcome::SteerIcmp,
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;
    use crate::cases::world::MemoryMaps;
    use crate::cases::{Case, cases};
    use crate::counters::Counters;

    fn decided(case: &Case) -> Decision {
        let mut key = ConnectionKey::default();
        decide(case.frame.as_slice(), &MemoryMaps::new(&case.world), &mut key)
    }

    //= docs/rfc/rfc9293.md#MUST-57
    #[test]
    fn every_case_is_decided_as_the_table_says() {
        for case in cases() {
            let decision = decided(&case);
            assert_eq!((decision.class, decision.verdict), (case.class, case.verdict), "{}", case.name);
        }
    }

    #[test]
    fn a_decision_moves_its_outcome_its_class_and_its_reason_and_nothing_else() {
        for case in cases() {
            let decision = decided(&case);
            let mut slots = [0; Counters::SLOTS];
            decision.slots().into_iter().flatten().for_each(|slot| slots[slot] += 1);
            let counters = Counters::from_slots(slots);
            let named = |all: Vec<(&'static str, u64)>| all.into_iter().filter(|(_, n)| *n != 0).collect::<Vec<_>>();
            let outcome = case.verdict.outcome().name();
            let class: Vec<_> = case.class.map(|class| (class.name(), 1)).into_iter().collect();
            let reason: Vec<_> = match case.verdict {
                Verdict::Drop(reason) => [(reason.name(), 1)].into(),
                _ => Vec::new(),
            };
            assert_eq!(named(counters.verdicts().collect()), [(outcome, 1)], "{}", case.name);
            assert_eq!(named(counters.classes().collect()), class, "{}", case.name);
            assert_eq!(named(counters.drops().collect()), reason, "{}", case.name);
        }
    }

    #[test]
    fn the_table_reaches_every_class_verdict_and_drop_reason() {
        let cases = cases();
        for class in Class::ALL {
            assert!(cases.iter().any(|case| case.class == Some(*class)), "{class:?}");
        }
        for outcome in Outcome::ALL {
            assert!(cases.iter().any(|case| case.verdict.outcome() == *outcome), "{outcome:?}");
        }
        for reason in DropReason::ALL {
            assert!(cases.iter().any(|case| case.verdict == Verdict::Drop(*reason)), "{reason:?}");
        }
    }

    #[test]
    fn case_names_are_unique() {
        let mut names: Vec<_> = cases().iter().map(|case| case.name).collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{names:?}");
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_the_decision_panic(frame: Vec<u8>) {
            decided(&Case { frame, ..cases()[0].clone() });
        }

        /// Most random frames fail the first check; these are cases with some bytes changed and cut anywhere.
        #[test]
        fn no_damage_to_a_case_makes_the_decision_panic(
            which: proptest::sample::Index,
            damage: Vec<(proptest::sample::Index, u8)>,
            cut: Option<proptest::sample::Index>,
        ) {
            let mut case = which.get(&cases()).clone();
            let frame = &mut case.frame;
            for (at, byte) in damage.into_iter().filter(|_| !frame.is_empty()).collect::<Vec<_>>() {
                let at = at.index(frame.len());
                frame[at] = byte;
            }
            if let Some(cut) = cut {
                frame.truncate(cut.index(frame.len() + 1));
            }
            decided(&case);
        }
    }
}
