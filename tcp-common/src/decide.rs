//! What the XDP program does with a frame: the whole decision, generic over the maps it reads, so that
//! the host tests, the simulator and the loaded program run the same source.
//!
//! A frame to our MAC address on one of our VLANs, with a TCP segment to an owned port or an ICMP error
//! about a connection, is ours; every other is the kernel's. RFC 9293 section 3.10.7 is the daemon's:
//! here only those segments are dropped to which it would not answer anyhow.

use crate::counters::{Class, DropReason, Outcome};
use crate::layout::{Config, ConnectionKey, ListenerKey, ListenerValue, is_mapped};
use crate::packet::{self, Frame, Packet, Place, Segment};
use crate::source::{self, Sources};

/// What becomes of a frame, and how it is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision<'m> {
    /// What the segment is, if it is ours and well-formed.
    pub class: Option<Class>,
    /// What becomes of it.
    pub verdict: Verdict,
    /// Where the segment lies in the frame, if there is one and it is steered.
    pub place: Place,
    /// The listener that it is for, if it is for one and is steered.
    pub listener: Option<&'m ListenerValue>,
    /// Whether it belongs to a connection in TIME_WAIT.
    pub time_wait: bool,
}

/// What the program may answer by itself instead of steering it ([`crate::answer`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Question {
    /// A SYN to a listener.
    Syn,
    /// A segment that belongs to no connection.
    NoConnection,
    /// A segment of a connection in TIME_WAIT.
    TimeWait,
}

impl Question {
    /// The question with this number.
    #[must_use]
    #[inline(always)]
    pub const fn from_number(number: u32) -> Option<Question> {
        match number {
            0 => Some(Question::Syn),
            1 => Some(Question::NoConnection),
            2 => Some(Question::TimeWait),
            _ => None,
        }
    }
}

impl Decision<'_> {
    /// The counters that it moves by one, as slots of `Counters`: its outcome, its class, its drop reason.
    #[must_use]
    #[inline(always)]
    pub fn slots(&self) -> [Option<usize>; 3] {
        let reason = match self.verdict {
            Verdict::Drop(reason) => Some(reason.slot()),
            Verdict::Pass | Verdict::Steer(_) | Verdict::Answer(_) => None,
        };
        [Some(self.verdict.outcome().slot()), self.class.map(Class::slot), reason]
    }

    /// What the program may answer by itself.
    #[must_use]
    #[inline(always)]
    pub fn question(&self) -> Option<Question> {
        match self.verdict {
            Verdict::Steer(Steer::Connection { .. }) if self.time_wait && self.class.is_some() => {
                Some(Question::TimeWait)
            }
            Verdict::Steer(Steer::Syn) => Some(Question::Syn),
            Verdict::Steer(Steer::NoConnection) => Some(Question::NoConnection),
            _ => None,
        }
    }

    /// A decision about a frame that carries no segment for the daemon.
    #[inline(always)]
    const fn plain(class: Option<Class>, verdict: Verdict) -> Self {
        Decision { class, verdict, place: Place::NONE, listener: None, time_wait: false }
    }
}

/// What becomes of a frame.
///
/// Aligned, so that BPF copies it as a word: parts of it would lie at odd places of its stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(align(8))]
pub enum Verdict {
    /// The kernel gets it.
    Pass,
    /// Nobody gets it.
    Drop(DropReason),
    /// The daemon gets it, through the socket of the queue that it arrived on.
    Steer(Steer),
    /// Nobody gets it: it was answered.
    Answer(Answer),
}

/// What the program answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A SYN-ACK with a cookie.
    Cookie,
    /// A reset to a segment that belongs to no connection.
    Reset,
    /// A reset to one with a bad cookie.
    BadCookie,
    /// An ACK for a connection in TIME_WAIT.
    TimeWait,
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
    /// It completes the handshake of a connection of which there was only a cookie; its entry is there now.
    Cookie,
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
            Steer::Syn | Steer::NoConnection | Steer::Cookie => None,
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
    /// Whether it is in TIME_WAIT.
    pub time_wait: bool,
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
    /// The entry in LISTENERS.
    fn listener(&self, key: &ListenerKey) -> Option<&ListenerValue>;
    /// Whether this is a unicast address of the interface now.
    fn has_address(&self, address: &[u8; 16]) -> bool;
    /// The RX queue that the frame arrived on.
    fn queue(&self) -> u16;
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
pub fn decide<'m, F: Frame + ?Sized, M: Maps>(frame: &F, maps: &'m M, key: &mut ConnectionKey) -> Decision<'m> {
    match ours(frame, maps, key) {
        Some(decision) => decision,
        None => Decision::plain(None, Verdict::Pass),
    }
}

/// [`decide`] about a frame that is ours; `None`: it is the kernel's, which has no TCP for a broadcast either.
///
/// By itself for the program, which has nothing to do for the kernel's frames but to count them.
//= docs/rfc/rfc9293.md#MUST-57
#[inline(always)]
pub fn ours<'m, F: Frame + ?Sized, M: Maps>(frame: &F, maps: &'m M, key: &mut ConnectionKey) -> Option<Decision<'m>> {
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
fn of_segment<'m, M: Maps>(
    segment: &Segment,
    key: &ConnectionKey,
    config: &Config,
    maps: &'m M,
) -> Option<Decision<'m>> {
    if !maps.owns_port(key.local_port) {
        return None;
    }
    let owner = owner(key, config, maps)?;
    let shape = if is_nobody(key) { Err(DropReason::Martian) } else { segment.shape() };
    let verdict = match maps.sockets() {
        Sockets::Nowhere => return None,
        Sockets::Elsewhere => Verdict::Drop(DropReason::NoSocket),
        Sockets::Here => of_owned(&owner, shape, key, config, maps),
    };
    let time_wait = match owner.connection {
        Some(connection) => connection.time_wait,
        None => false,
    };
    Some(Decision { class: shape.ok(), verdict, place: segment.place(key), listener: owner.listener, time_wait })
}

/// Whether an IPv6 packet comes from a mapped address: on the wire that is nobody's, in the maps an IPv4 host's.
#[inline(always)]
fn is_nobody(key: &ConnectionKey) -> bool {
    is_mapped(&key.remote_addr) && !key.is_ipv4()
}

/// Whose a segment of an owned port is: a connection's, or a listener's, or else that of an active open which may use the
/// port, but none does with this peer.
///
/// No enum, because the compiler would keep a queue and a pointer in the same register, which the verifier refuses.
#[derive(Clone, Copy, Default)]
struct Owner<'m> {
    connection: Option<Connection>,
    listener: Option<&'m ListenerValue>,
}

/// `None`: the port is owned on another address, so that here it is the kernel's.
//= docs/rfc/rfc9293.md#MUST-57
#[inline(always)]
fn owner<'m, M: Maps>(key: &ConnectionKey, config: &Config, maps: &'m M) -> Option<Owner<'m>> {
    if let Some(connection) = maps.connection(key) {
        return Some(Owner { connection: Some(connection), listener: None });
    }
    if let Some(listener) = maps.listener(&ListenerKey { addr: key.local_addr, port: key.local_port, pad: 0 }) {
        return Some(Owner { connection: None, listener: Some(listener) });
    }
    if !maps.has_address(&key.local_addr) {
        return None;
    }
    if let Some(listener) = maps.listener(&ListenerKey { addr: key.local_wildcard(), port: key.local_port, pad: 0 }) {
        return Some(Owner { connection: None, listener: Some(listener) });
    }
    let ephemeral = config.ephemeral_first <= key.local_port && key.local_port <= config.ephemeral_last;
    ephemeral.then_some(Owner::default())
}

/// What becomes of a segment that is ours while the daemon listens on its queue.
#[inline(always)]
fn of_owned<M: Maps>(
    owner: &Owner<'_>,
    shape: Result<Class, DropReason>,
    key: &ConnectionKey,
    config: &Config,
    maps: &M,
) -> Verdict {
    match (owner.connection, shape) {
        (_, Err(DropReason::Fragment)) => Verdict::Drop(DropReason::Fragment),
        // Only a new connection can come of a SYN in TIME_WAIT: whoever may not open one may not reopen one.
        (Some(connection), shape) if !(connection.time_wait && matches!(shape, Ok(Class::Syn))) => {
            Verdict::Steer(Steer::Connection { queue: connection.queue })
        }
        (_, Err(reason)) => Verdict::Drop(reason),
        (_, Ok(Class::Rst)) => Verdict::Drop(DropReason::StrayRst),
        (_, Ok(class)) => match source::refusal(class, key, config, maps) {
            Some(reason) => Verdict::Drop(reason),
            None => welcome(owner, class),
        },
    }
}

/// What becomes of a segment that has no connection, or asks for one, and whose source is not refused.
#[inline(always)]
const fn welcome(owner: &Owner<'_>, class: Class) -> Verdict {
    Verdict::Steer(match (owner.connection, class) {
        (Some(connection), _) => Steer::Connection { queue: connection.queue },
        (None, Class::Syn) if owner.listener.is_some() => Steer::Syn,
        (None, _) => Steer::NoConnection,
    })
}

#[inline(always)]
fn of_icmp_error<'m, M: Maps>(quoted: &ConnectionKey, maps: &'m M) -> Option<Decision<'m>> {
    if !maps.owns_port(quoted.local_port) {
        return None;
    }
    let Connection { queue, .. } = maps.connection(quoted)?;
    let verdict = match maps.sockets() {
        Sockets::Nowhere => return None,
        Sockets::Elsewhere => Verdict::Drop(DropReason::NoSocket),
        Sockets::Here if maps.admit_icmp_error() => Verdict::Steer(Steer::Icmp { queue }),
        Sockets::Here => Verdict::Drop(DropReason::IcmpRate),
    };
    Some(Decision::plain(Some(Class::Icmp), verdict))
}

/// A packet behind more extension headers than are looked through. The kernel would look further, and might reset a
/// connection of ours for it. A host may discard such packets (RFC 8504 section 5.3); those that it forwards pass.
#[inline(always)]
fn of_hidden<'m, M: Maps>(key: &ConnectionKey, maps: &'m M) -> Option<Decision<'m>> {
    if !maps.has_address(&key.local_addr) || maps.sockets() == Sockets::Nowhere {
        return None;
    }
    Some(Decision::plain(None, Verdict::Drop(DropReason::Extensions)))
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
            Verdict::Steer(Steer::Cookie) => Outcome::SteerCookie,
            Verdict::Steer(Steer::Icmp { .. }) => Outcome::SteerIcmp,
            Verdict::Answer(Answer::Cookie) => Outcome::AnswerCookie,
            Verdict::Answer(Answer::Reset) => Outcome::AnswerReset,
            Verdict::Answer(Answer::BadCookie) => Outcome::AnswerBadCookie,
            Verdict::Answer(Answer::TimeWait) => Outcome::AnswerTimeWait,
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;
    use crate::cases::answers::answer_cases;
    use crate::cases::world::MemoryMaps;
    use crate::cases::{Case, cases};
    use crate::counters::Counters;

    fn decided(case: &Case) -> (Option<Class>, Verdict, [Option<usize>; 3]) {
        let mut key = ConnectionKey::default();
        let maps = MemoryMaps::new(&case.world);
        let decision = decide(case.frame.as_slice(), &maps, &mut key);
        (decision.class, decision.verdict, decision.slots())
    }

    //= docs/rfc/rfc9293.md#MUST-57
    #[test]
    fn every_case_is_decided_as_the_table_says() {
        for case in cases() {
            let (class, verdict, _) = decided(&case);
            assert_eq!((class, verdict), (case.class, case.verdict), "{}", case.name);
        }
    }

    #[test]
    fn a_decision_moves_its_outcome_its_class_and_its_reason_and_nothing_else() {
        for case in cases() {
            let (.., moved) = decided(&case);
            let mut slots = [0; Counters::SLOTS];
            moved.into_iter().flatten().for_each(|slot| slots[slot] += 1);
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
    fn the_tables_reach_every_class_verdict_and_drop_reason() {
        let cases = cases();
        let answers = answer_cases(1_000 << 36);
        let verdicts: Vec<_> = cases
            .iter()
            .map(|case| case.verdict)
            .chain(answers.iter().filter_map(|case| case.deed.verdict()))
            .collect();
        for class in Class::ALL {
            assert!(cases.iter().any(|case| case.class == Some(*class)), "{class:?}");
        }
        for outcome in Outcome::ALL {
            assert!(verdicts.iter().any(|verdict| verdict.outcome() == *outcome), "{outcome:?}");
        }
        // Where a driver has no room is not for a table to say.
        for reason in DropReason::ALL.iter().filter(|reason| **reason != DropReason::NoRoom) {
            assert!(verdicts.contains(&Verdict::Drop(*reason)), "{reason:?}");
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
