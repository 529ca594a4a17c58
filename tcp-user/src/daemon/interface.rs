//! What happens to the interface under a running daemon: what is followed, and what can only be told.
//!
//! Followed: addresses (wildcard listeners and active opens). Told, each with what it means and what to do: the
//! interface going down and up, losing its carrier, and everything that was settled at start: the RX queues (a socket
//! and a worker each), the MAC address and the MTU. None of it ends the daemon; only an interface that is gone does.

use std::cell::RefCell;
use std::fmt;

use super::error::{DaemonError, list};
use crate::net::{Interface, InterfaceWatch, Seen};
use crate::xdp::Program;

/// Follows the interface and says what changes; `served` is what the daemon has settled on.
pub(super) async fn follow(
    program: &RefCell<Program>,
    watch: &mut InterfaceWatch,
    served: &Seen,
) -> Result<(), DaemonError> {
    let mut before = served.clone();
    loop {
        let now = watch.changed().await?;
        let name = &now.interface.name;
        for change in changes(&served.interface, &before.interface, &now.interface) {
            if change.is_trouble() {
                tracing::warn!("{name} {change}");
            } else {
                tracing::info!("{name} {change}");
            }
        }
        if now.addresses != before.addresses {
            tracing::info!("addresses now: {}", list(&now.addresses));
            program.borrow_mut().set_addresses(&now.addresses)?;
        }
        before = now;
    }
}

/// A change of the interface; its text follows the interface's name.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Change {
    Down,
    NoCarrier,
    Up,
    MoreQueues { now: u32, served: u32 },
    FewerQueues { now: u32, served: u32 },
    QueuesAsServed { served: u32 },
    Settled { what: &'static str, now: String, served: String },
    SettledAgain { what: &'static str, served: String },
}

/// What is different from `before`, seen from what the daemon serves.
fn changes(served: &Interface, before: &Interface, now: &Interface) -> Vec<Change> {
    let link = |at: &Interface| match (at.is_up, at.has_carrier) {
        (false, _) => Change::Down,
        (true, false) => Change::NoCarrier,
        (true, true) => Change::Up,
    };
    let mut changes = Vec::new();
    if link(now) != link(before) {
        changes.push(link(now));
    }
    if now.receive_queues != before.receive_queues {
        changes.push(queues(served.receive_queues, now.receive_queues));
    }
    let settled = |what, of: fn(&Interface) -> String| {
        let (served, before, now) = (of(served), of(before), of(now));
        match now == served {
            _ if now == before => None,
            true => Some(Change::SettledAgain { what, served }),
            false => Some(Change::Settled { what, now, served }),
        }
    };
    changes.extend(settled("MAC address", |at| at.mac.map(|byte| format!("{byte:02x}")).join(":")));
    changes.extend(settled("MTU", |at| at.mtu.to_string()));
    changes
}

fn queues(served: u32, now: u32) -> Change {
    match now.cmp(&served) {
        std::cmp::Ordering::Less => Change::FewerQueues { now, served },
        std::cmp::Ordering::Equal => Change::QueuesAsServed { served },
        std::cmp::Ordering::Greater => Change::MoreQueues { now, served },
    }
}

impl Change {
    /// Whether something does not work as long as this lasts.
    fn is_trouble(&self) -> bool {
        !matches!(self, Change::Up | Change::QueuesAsServed { .. } | Change::SettledAgain { .. })
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::Down => f.write_str(
                "is down: nothing arrives or leaves; connections go on when it is up again (`ip link set ... up`), \
                 as far as their timers allow",
            ),
            Change::NoCarrier => f.write_str(
                "has no carrier: nothing arrives or leaves; connections go on when the link is back, \
                 as far as their timers allow",
            ),
            Change::Up => f.write_str("is up"),
            Change::MoreQueues { now, served } => write!(
                f,
                "has {now} RX queues now, xtcp serves queues 0 to {}: segments of its ports that arrive on others are \
                 lost (drops.no_socket in `xtcp stats`; a veth runs no program on a new queue before it is down and up \
                 again: there the kernel refuses them); set the number back to {served} (`ethtool -L`), or restart \
                 xtcp to serve all",
                served - 1
            ),
            Change::FewerQueues { now, served } => write!(
                f,
                "has {now} RX queues now, xtcp serves {served}: the workers of the others get segments handed over \
                 only; set the number back to {served} (`ethtool -L`), or restart xtcp"
            ),
            Change::QueuesAsServed { served } => write!(f, "has {served} RX queues again, as many as xtcp serves"),
            Change::Settled { what, now, served } => write!(
                f,
                "has {what} {now} now, xtcp goes on with {served}: set it back (`ip link set`), or restart xtcp"
            ),
            Change::SettledAgain { what, served } => write!(f, "has {what} {served} again"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface() -> Interface {
        Interface {
            index: 7,
            name: "test0".to_owned(),
            mac: [2, 0, 0, 0, 0, 1],
            mtu: 1500,
            is_up: true,
            has_carrier: true,
            is_veth: true,
            receive_queues: 2,
        }
    }

    /// What is told when an interface that is served as it stands becomes `now`, and when it becomes as it was.
    fn there_and_back(now: &Interface) -> [Vec<Change>; 2] {
        let served = interface();
        [changes(&served, &served, now), changes(&served, now, &served)]
    }

    #[test]
    fn every_change_is_told_once_and_also_when_it_is_undone() {
        let down = Interface { is_up: false, has_carrier: false, ..interface() };
        assert_eq!(there_and_back(&down), [[Change::Down], [Change::Up]]);
        let lonely = Interface { has_carrier: false, ..interface() };
        assert_eq!(there_and_back(&lonely), [[Change::NoCarrier], [Change::Up]]);
        for (queues, change) in
            [(4, Change::MoreQueues { now: 4, served: 2 }), (1, Change::FewerQueues { now: 1, served: 2 })]
        {
            let other = Interface { receive_queues: queues, ..interface() };
            assert_eq!(there_and_back(&other), [[change], [Change::QueuesAsServed { served: 2 }]]);
            assert_eq!(changes(&interface(), &other, &other), [], "told once");
        }
        let [moved, back] = there_and_back(&Interface { mac: [2, 0, 0, 0, 0, 9], mtu: 9000, ..interface() });
        assert_eq!((moved.len(), back.len()), (2, 2));
        assert!(moved.iter().all(Change::is_trouble) && !back.iter().any(Change::is_trouble));
    }

    #[test]
    fn texts_say_what_it_means_and_what_to_do() {
        let text = Change::MoreQueues { now: 4, served: 2 }.to_string();
        assert!(["4", "0 to 1", "no_socket", "ethtool -L", "restart"].iter().all(|word| text.contains(word)), "{text}");
        let [moved, _] = there_and_back(&Interface { mac: [2, 0, 0, 0, 0, 9], ..interface() });
        let text = moved[0].to_string();
        assert!(text.contains("02:00:00:00:00:09") && text.contains("02:00:00:00:00:01"), "{text}");
    }
}
