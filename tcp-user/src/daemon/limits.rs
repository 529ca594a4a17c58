//! Tells the operator which limits were hit: once a second the daemon looks at the figures of `xtcp stats`, and logs
//! those that have grown, at most one line for each limit (and listener) in [`QUIET`]. Nothing is logged on the data
//! path. `docs/limits.md` is the table of all limits; the program logs its own drops.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::stats::{ListenerStats, Stats};

/// Quiet after a line, for each limit and listener.
const QUIET: Duration = Duration::from_secs(10);

/// A limit of the daemon as a whole.
struct Limit {
    /// Its counter.
    count: fn(&Stats) -> u64,
    /// What was counted.
    what: &'static str,
    /// What to do about it.
    remedy: &'static str,
}

/// A limit of each listener.
struct ListenerLimit {
    count: fn(&ListenerStats) -> u64,
    what: &'static str,
    remedy: &'static str,
}

const LIMITS: &[Limit] = &[
    Limit {
        count: |stats| stats.drop_count("too_many_connections"),
        what: "opens refused: a worker has max_connections",
        remedy: "raise max_connections",
    },
    Limit {
        count: |stats| stats.drop_count("table_full"),
        what: "opens refused: all workers together have max_connections",
        remedy: "raise max_connections",
    },
    Limit {
        count: |stats| stats.drop_count("time_wait_evicted"),
        what: "connections in TIME_WAIT ended early to make room for others",
        remedy: "raise max_connections, or lower msl",
    },
    Limit {
        count: |stats| stats.drop_count("too_many_orphans"),
        what: "closed connections reset before their peers had finished",
        remedy: "raise max_orphans, or lower orphan_retries or fin_wait2_timeout",
    },
    Limit {
        count: |stats| stats.drop_count("no_memory"),
        what: "segments dropped: no memory for their data",
        remedy: "raise max_buffer_memory",
    },
    Limit {
        count: |stats| stats.waits.get("memory").copied().unwrap_or(0),
        what: "writes cut short: no memory for them",
        remedy: "raise max_buffer_memory",
    },
    Limit {
        count: |stats| stats.drop_count("receive_buffer_full"),
        what: "segments dropped: beyond the receive buffer",
        remedy: "raise recv_buffer",
    },
    Limit {
        count: |stats| stats.drop_count("too_many_gaps"),
        what: "segments dropped: too many gaps in their connection's data",
        remedy: "the path loses much, or a peer attacks",
    },
    Limit {
        count: |stats| stats.drop_count("ack_rate"),
        what: "segments not answered: their connection had just sent an ACK of this kind",
        remedy: "a peer repeats nonsense, or somebody attacks",
    },
    Limit {
        count: |stats| stats.drop_count("challenge_rate"),
        what: "segments not answered: too many challenge ACKs",
        remedy: "somebody attacks many connections",
    },
    Limit {
        count: |stats| stats.drop_count("reply_queue_full"),
        what: "segments without a connection not answered: too many answers wait to be sent",
        remedy: "the worker can't keep up with them",
    },
    Limit {
        count: |stats| stats.drop_count("rate_limited"),
        what: "segments without a connection not answered",
        remedy: "raise rst_rate, or set no_connection = \"drop\"",
    },
    Limit {
        count: |stats| stats.rings.iter().map(|ring| ring.handover.handover_full).sum(),
        what: "segments dropped: too many for a worker arrived on other queues",
        remedy: "spread flows over queues, or use fewer",
    },
];

const LISTENER_LIMITS: &[ListenerLimit] = &[
    ListenerLimit {
        count: |listener| listener.syn_overflows,
        what: "SYNs dropped: the SYN queue is full",
        remedy: "raise syn_backlog, or lower synack_retries",
    },
    ListenerLimit {
        count: |listener| listener.accept_overflows,
        what: "last ACKs of handshakes dropped: the accept queue is full",
        remedy: "raise backlog",
    },
];

/// What was logged.
#[derive(Debug, Default)]
pub(super) struct LimitLog {
    /// By limit, and by listener if it is one's.
    told: HashMap<(&'static str, Option<SocketAddr>), Told>,
}

/// The last line of a limit.
#[derive(Debug, Default)]
struct Told {
    /// The count then.
    count: u64,
    at: Option<Instant>,
}

impl LimitLog {
    /// The lines that are due at `now`.
    pub(super) fn look(&mut self, stats: &Stats, now: Instant) -> Vec<String> {
        let mut lines = Vec::new();
        for &Limit { count, what, remedy } in LIMITS {
            let times = self.hits(what, None, count(stats), now);
            lines.extend(times.map(|times| format!("limit hit: {times} {what}; {remedy}")));
        }
        for listener in &stats.listeners {
            for &ListenerLimit { count, what, remedy } in LISTENER_LIMITS {
                let times = self.hits(what, Some(listener.address), count(listener), now);
                let line = |times| format!("limit hit: listener {}: {times} {what}; {remedy}", listener.address);
                lines.extend(times.map(line));
            }
        }
        lines
    }

    /// How often a limit was hit since its last line, if a line is due.
    fn hits(&mut self, what: &'static str, listener: Option<SocketAddr>, count: u64, now: Instant) -> Option<u64> {
        let told = self.told.entry((what, listener)).or_default();
        let quiet = told.at.is_some_and(|at| now.duration_since(at) < QUIET);
        if quiet || count <= told.count {
            return None;
        }
        told.at = Some(now);
        Some(count - std::mem::replace(&mut told.count, count))
    }
}

#[cfg(test)]
mod tests {
    use tcp_common::counters::Counters;

    use super::*;

    fn stats(drops: &[(&'static str, u64)]) -> Stats {
        let mut stats = Stats::gather("veth0", &Counters::default(), &[]);
        stats.drops.extend(drops.iter().copied());
        stats
    }

    #[test]
    fn a_limit_that_is_hit_is_told_at_once_and_then_every_ten_seconds_with_what_came_meanwhile() {
        let (mut log, start) = (LimitLog::default(), Instant::now());
        let mut look = |orphans, s| log.look(&stats(&[("too_many_orphans", orphans)]), start + Duration::from_secs(s));
        assert_eq!(look(0, 0), [""; 0]);
        let told = look(3, 1);
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].starts_with("limit hit: 3 closed connections reset") && told[0].contains("raise max_orphans"));
        assert_eq!((look(5, 2), look(9, 10)), (vec![], vec![]));
        assert!(look(9, 11)[0].starts_with("limit hit: 6 closed"));
        assert_eq!(look(9, 100), [""; 0]);
    }

    #[test]
    fn a_listeners_limit_is_told_with_its_address_whatever_others_were_told() {
        let (mut log, now) = (LimitLog::default(), Instant::now());
        let listener = |address: &str, syn_overflows, accept_overflows| ListenerStats {
            syn_overflows,
            accept_overflows,
            ..ListenerStats::new(address.parse().unwrap(), "echo".to_owned())
        };
        let mut stats = stats(&[("syn_queue_full", 1)]);
        stats.listeners = vec![listener("10.0.0.1:7", 1, 0)];
        assert!(log.look(&stats, now)[0].starts_with("limit hit: listener 10.0.0.1:7: 1 SYNs dropped"));
        stats.listeners = vec![listener("10.0.0.1:7", 2, 2), listener("[::]:80", 4, 0)];
        let told = log.look(&stats, now);
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(
            told[0].starts_with("limit hit: listener 10.0.0.1:7: 2 last ACKs") && told[0].ends_with("raise backlog")
        );
        assert!(told[1].starts_with("limit hit: listener [::]:80: 4 SYNs") && told[1].contains("raise syn_backlog"));
    }
}
