//! What a campaign reached: every figure, every transition of the state machine, every fault, every reason of a drop and
//! every decision of the XDP program, with how often. What can't be reached is named here with its reason; a zero in
//! anything else means that the campaign does not test what it claims to.

use std::fmt::Write;

use tcp_common::counters::Outcome as Decided;
use tcp_proto::{Cause, State};

use crate::campaign::Total;
use crate::faults;

/// Fewer seeds than this are not expected to reach everything.
pub const ENOUGH: u64 = 500;

/// Transitions that the state function has and no connection takes.
const NEVER: [(State, Cause, &str); 9] = [
    (State::LISTEN, Cause::ActiveOpen, "a listener is no connection: it never opens actively"),
    (State::LISTEN, Cause::Close, "a listener's record ends without a connection"),
    (State::LISTEN, Cause::Abort, "a connection leaves LISTEN in the call that made it"),
    (State::LISTEN, Cause::Expired, "a connection leaves LISTEN in the call that made it"),
    (State::CLOSED, Cause::Reset, "no change"),
    (State::CLOSED, Cause::Abort, "no change"),
    (State::SYN_RCVD, Cause::Close, "a close in SYN_RCVD waits until the SYN is acknowledged"),
    (State::SYN_RCVD, Cause::Fin, "a FIN that is taken acknowledges the SYN, which comes first"),
    (State::TIME_WAIT, Cause::Reset, "no change (RFC 1337)"),
];

/// Reasons of drops that frames which pass the XDP program can't have, and figures, that these loads don't reach.
const NOT_HERE: [(&str, &str); 10] = [
    ("fragment", "the XDP program drops fragments"),
    ("not_tcp", "the XDP program passes what is not TCP"),
    ("martian", "the path forges no addresses"),
    ("rate_limited", "no thousand resets a second"),
    ("challenge_rate", "no hundreds of challenges a second"),
    ("reply_queue_full", "no hundreds of strangers at once"),
    ("too_many_orphans", "no thousands of connections"),
    ("other_stacks", "a SYN and its copy on two queues in the same moment: a few of ten thousand seeds"),
    ("too_many_gaps", "hardly any window here has room for so many"),
    ("meaningless", "the program drops or answers nearly all of them: one in a thousand seeds"),
];

/// What the XDP program and the daemon do beside the decision, as [`crate::host`] counts it.
///
/// It also answers what is old in TIME_WAIT, which happens here once in a thousand seeds.
const ANSWERS: [&str; 13] = [
    "behind a cookie",
    "behind a cookie, elsewhere",
    "bad cookie, not answered",
    "cookies demanded",
    "swept",
    "TIME_WAIT starts over",
    "ignored in TIME_WAIT",
    "cookie taken by the stack",
    "cookie taken by the program",
    "cookie of the last epoch",
    "keys renewed",
    "cookies turned on",
    "cookies turned off",
];

/// The table, and the names of what was never reached although it should be.
#[must_use]
pub fn table(total: &Total) -> (String, Vec<String>) {
    let (mut text, mut missed) = (String::new(), Vec::new());
    let sum = &total.sum;
    let named = |counts: &crate::count::Counts, names: &[&'static str]| -> Vec<(String, u64)> {
        names.iter().map(|name| ((*name).to_owned(), counts.of(name))).collect()
    };
    let decisions: Vec<_> = Decided::ALL.iter().map(|outcome| outcome.name()).collect();
    let here = |name: &str| NOT_HERE.iter().all(|(never, _)| *never != name);
    let drops = sum.drops.iter().filter(|(name, _)| here(name));
    let figures = sum.figures.iter().filter(|(name, _)| here(name));
    let groups = [
        ("states and what changed them", transitions(total)),
        ("timers, repairs, probes", figures.map(|(name, count)| (name.to_owned(), count)).collect()),
        ("faults", named(&sum.faults, &faults::NAMES)),
        ("decisions of the XDP program", named(&sum.faults, &decisions)),
        ("answers of the XDP program", named(&sum.faults, &ANSWERS)),
        ("dropped segments", drops.map(|(name, count)| (name.to_owned(), count)).collect()),
    ];
    for (title, rows) in groups {
        let _ = writeln!(text, "\n{title}");
        for (name, count) in rows {
            let _ = writeln!(text, "  {name:<28}{count:>12}{}", if count == 0 { "  <- never" } else { "" });
            missed.extend((count == 0).then(|| format!("{title}: {name}")));
        }
    }
    (text, missed)
}

/// Every change of state that can be, and how often it was.
fn transitions(total: &Total) -> Vec<(String, u64)> {
    let pairs = State::ALL.into_iter().flat_map(|state| Cause::ALL.map(|cause| (state, cause)));
    let changes = pairs.filter(|&(state, cause)| {
        state.next(cause) != state && NEVER.iter().all(|&(s, c, _)| (s, c) != (state, cause))
    });
    let counted = |state, cause| total.sum.transitions.iter().find(|(s, c, _)| (*s, *c) == (state, cause));
    changes
        .map(|(state, cause)| {
            let name = format!("{} {cause:?}", state.name());
            (name, counted(state, cause).map_or(0, |(.., count)| *count))
        })
        .collect()
}
