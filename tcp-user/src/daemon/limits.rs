//! Tells the operator which limits were hit: once a second the daemon looks at the figures of `xtcp stats`, and logs
//! those that have grown, at most one line for each limit (and listener) in [`QUIET`]. Nothing is logged on the data
//! path. `docs/limits.md` is the table of all limits; the program logs its own drops.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::stats::{ListenerStats, Stats};

/// Quiet after a line, for each limit and listener.
const QUIET: Duration = Duration::from_secs(10);

/// A limit that is told of when its counter moves.
struct Limit {
    /// Its counter, as `xtcp stats` names it: of the daemon, or of each listener.
    counter: &'static str,
    /// What was counted.
    what: &'static str,
    /// What to do about it.
    remedy: &'static str,
}

const LIMITS: &[Limit] = &[
    Limit {
        counter: "drops.too_many_connections",
        what: "opens refused: a worker has max_connections",
        remedy: "raise max_connections",
    },
    Limit {
        counter: "drops.table_full",
        what: "opens refused: all workers together have max_connections",
        remedy: "raise max_connections",
    },
    Limit {
        counter: "drops.time_wait_evicted",
        what: "connections in TIME_WAIT ended early to make room for others",
        remedy: "raise max_connections, or lower msl",
    },
    Limit {
        counter: "drops.too_many_orphans",
        what: "closed connections reset before their peers had finished",
        remedy: "raise max_orphans, or lower orphan_retries or fin_wait2_timeout",
    },
    Limit {
        counter: "drops.no_memory",
        what: "segments dropped: no memory for their data",
        remedy: "raise max_buffer_memory",
    },
    Limit { counter: "waits.memory", what: "writes cut short: no memory for them", remedy: "raise max_buffer_memory" },
    Limit {
        counter: "drops.too_many_gaps",
        what: "segments dropped: too many gaps in their connection's data",
        remedy: "the path loses much, or a peer attacks",
    },
    Limit {
        counter: "drops.rate_limited",
        what: "segments without a connection not answered",
        remedy: "raise rst_rate, or set no_connection = \"drop\"",
    },
    Limit {
        counter: "drops.reply_queue_full",
        what: "segments without a connection not answered: too many answers wait to be sent",
        remedy: "the worker can't keep up with them",
    },
    Limit {
        counter: "drops.ack_rate",
        what: "segments not answered: their connection had just sent an ACK of this kind",
        remedy: "a peer repeats nonsense, or somebody attacks",
    },
    Limit {
        counter: "drops.challenge_rate",
        what: "segments not answered: too many challenge ACKs",
        remedy: "somebody attacks many connections",
    },
    Limit {
        counter: "rings.handover_full",
        what: "segments dropped: too many for a worker arrived on other queues",
        remedy: "spread flows over queues, or use fewer",
    },
    Limit {
        counter: "clients_waited",
        what: "times that clients of the control socket had to wait for others",
        remedy: "use fewer at a time",
    },
];

const LISTENER_LIMITS: &[Limit] = &[
    Limit {
        counter: "listeners.syn_overflows",
        what: "SYNs dropped: the SYN queue is full",
        remedy: "raise syn_backlog, or lower synack_retries",
    },
    Limit {
        counter: "listeners.accept_overflows",
        what: "last ACKs of handshakes dropped: the accept queue is full",
        remedy: "raise backlog",
    },
];

/// The counter of a limit of the daemon; `None`: there is none of that name.
fn count(stats: &Stats, counter: &str) -> Option<u64> {
    match counter.split_once('.') {
        Some(("drops", reason)) => stats.drops.get(reason).copied(),
        Some(("figures", figure)) => stats.figures.get(figure).copied(),
        Some(("waits", cause)) => stats.waits.get(cause).copied(),
        Some(("rings", "handover_full")) => Some(stats.rings.iter().map(|ring| ring.handover.handover_full).sum()),
        None if counter == "clients_waited" => Some(stats.clients_waited),
        _ => None,
    }
}

/// The counter of a limit of a listener.
fn count_of_listener(listener: &ListenerStats, counter: &str) -> Option<u64> {
    match counter {
        "listeners.syn_overflows" => Some(listener.syn_overflows),
        "listeners.accept_overflows" => Some(listener.accept_overflows),
        _ => None,
    }
}

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
        for Limit { counter, what, remedy } in LIMITS {
            let times = self.hits(counter, None, count(stats, counter), now);
            lines.extend(times.map(|times| format!("limit hit: {times} {what}; {remedy}")));
        }
        for listener in &stats.listeners {
            let address = listener.address;
            for Limit { counter, what, remedy } in LISTENER_LIMITS {
                let times = self.hits(counter, Some(address), count_of_listener(listener, counter), now);
                lines.extend(times.map(|times| format!("limit hit: listener {address}: {times} {what}; {remedy}")));
            }
        }
        lines
    }

    /// How often a limit was hit since its last line, if a line is due. A counter that is not there has not moved.
    fn hits(
        &mut self,
        counter: &'static str,
        listener: Option<SocketAddr>,
        count: Option<u64>,
        now: Instant,
    ) -> Option<u64> {
        let told = self.told.entry((counter, listener)).or_default();
        let quiet = told.at.is_some_and(|at| now.duration_since(at) < QUIET);
        let count = count.filter(|&count| count > told.count && !quiet)?;
        told.at = Some(now);
        Some(count - std::mem::replace(&mut told.count, count))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use tcp_common::counters::Counters;
    use tcp_proto::{Stack, StackConfig};

    use super::*;
    use crate::worker::Report;

    const TABLE: &str = include_str!("../../../docs/limits.md");

    /// Where the table's tests are.
    const TESTS: &[(&str, &str)] = &[
        ("cookies", include_str!("../../../tcp-proto/tests/cookies.rs")),
        ("limits", include_str!("../../../tcp-proto/tests/limits.rs")),
        ("memory", include_str!("../../../tcp-proto/tests/memory.rs")),
        ("attacks", include_str!("../../../tcp-proto/tests/attacks.rs")),
        ("window", include_str!("../../../tcp-proto/tests/window.rs")),
        ("sack", include_str!("../../../tcp-proto/tests/sack.rs")),
        ("time_wait", include_str!("../../../tcp-proto/tests/time_wait.rs")),
        ("e2e::limits", include_str!("../../../tests/tests/e2e/limits.rs")),
        ("e2e::sources", include_str!("../../../tests/tests/e2e/sources.rs")),
        ("program::answers", include_str!("../../../tests/tests/program/answers.rs")),
        ("program::decision", include_str!("../../../tests/tests/program/decision.rs")),
        ("afxdp::handover", include_str!("../afxdp/handover.rs")),
        ("control", include_str!("../control/tests.rs")),
        ("config", include_str!("../config/tests.rs")),
        ("copy", include_str!("../services/copy.rs")),
    ];

    /// Where keys and constants are declared.
    const DECLARATIONS: [&str; 9] = [
        include_str!("../config/file.rs"),
        include_str!("../config/mod.rs"),
        include_str!("../control/server.rs"),
        include_str!("../control/protocol.rs"),
        include_str!("../afxdp/handover.rs"),
        include_str!("../services/http.rs"),
        include_str!("../services/copy.rs"),
        CORE,
        include_str!("../../../tcp-common/src/layout.rs"),
    ];

    /// The core's constants.
    const CORE: &str = include_str!("../../../tcp-proto/src/limits.rs");

    /// Those that bound nothing that others make xtcp hold or do: they pace its own work, or shape what another row says.
    const WITHOUT_ROW: [&str; 9] = [
        "INITIAL_BUFFER",
        "WINDOW_SLACK",
        "LINK_REACH",
        "COOKIE_DEMAND_INTERVAL",
        "COOKIE_DEMAND_HOLD",
        "REFRESH_BATCH",
        "TABLE_FULL_EVICTIONS",
        "STATE_DELAY",
        "REFRESH_INTERVAL",
    ];

    /// Cells of the table's rows.
    fn rows() -> Vec<Vec<&'static str>> {
        let rows = TABLE.lines().filter(|line| line.starts_with("| **"));
        rows.map(|row| row.trim_matches('|').split('|').map(str::trim).collect()).collect()
    }

    /// The words of a cell that are between backticks.
    fn quoted(cell: &str) -> impl Iterator<Item = &str> {
        cell.split('`').skip(1).step_by(2)
    }

    /// Figures of a worker that has done nothing: every counter is there.
    fn idle() -> Stats {
        let stack = Stack::new(StackConfig::default(), [0; 32], crate::worker::now());
        let report = Report {
            listeners: Vec::new(),
            states: Vec::new(),
            drops: stack.drops(),
            waits: stack.waits(),
            figures: stack.figures(),
            rings: None,
            buffer_memory: 0,
            buffers_freed: 0,
        };
        Stats::gather("veth0", &Counters::default(), &[report])
    }

    #[test]
    fn every_row_of_the_table_names_a_key_or_a_constant_a_counter_and_a_test_that_exist() {
        let listener = ListenerStats::new("10.0.0.1:7".parse().unwrap(), String::new());
        let rows = rows();
        assert!(rows.len() > 15, "{} rows", rows.len());
        for row in rows {
            let [limit, .., declared, _, _, counters, tests] = row[..] else { panic!("{row:?}") };
            let declarations = quoted(declared).map(|name| [format!("pub {name}: "), format!("const {name}: ")]);
            for names in declarations {
                let exists = |text: &&str| names.iter().any(|name| text.contains(name.as_str()));
                assert!(DECLARATIONS.iter().any(exists), "{limit}: {names:?} is not declared");
            }
            for counter in quoted(counters) {
                let known = count(&idle(), counter).or_else(|| count_of_listener(&listener, counter));
                assert!(known.is_some(), "{limit}: there is no counter {counter}");
            }
            assert!(quoted(tests).count() > 0, "{limit} names no test");
            for test in quoted(tests) {
                let (module, name) = test.rsplit_once("::").unwrap_or_else(|| panic!("{test}"));
                let source = TESTS.iter().find(|(known, _)| *known == module);
                let (_, source) = source.unwrap_or_else(|| panic!("{limit}: no module {module}"));
                assert!(source.contains(&format!("fn {name}()")), "{limit}: {test} does not exist");
            }
        }
    }

    #[test]
    fn every_constant_of_the_core_has_a_row_or_is_no_limit_and_no_limit_has_two() {
        let declared = CORE.lines().filter_map(|line| line.strip_prefix("pub(crate) const ")?.split_once(": "));
        let declared: Vec<&str> = declared.map(|(name, _)| name).collect();
        assert!(declared.len() > WITHOUT_ROW.len() && WITHOUT_ROW.iter().all(|name| declared.contains(name)));
        let rows = rows();
        let tabled: Vec<&str> = rows.iter().flat_map(|row| quoted(row[3])).collect();
        for name in declared {
            assert!(tabled.contains(&name) != WITHOUT_ROW.contains(&name), "{name}");
        }
        let once: HashSet<&str> = rows.iter().map(|row| row[0]).collect();
        assert_eq!(once.len(), rows.len());
        let table = TABLE.lines().skip_while(|line| !line.starts_with("| limit")).take_while(|line| !line.is_empty());
        assert_eq!(table.count(), rows.len() + 2, "between its head and its end the table has rows and nothing else");
    }

    #[test]
    fn every_row_with_a_counter_is_logged_or_says_why_not() {
        let logged = |name: &&str| LIMITS.iter().chain(LISTENER_LIMITS).any(|limit| limit.counter == *name);
        for row in rows() {
            let (effect, counters) = (row[row.len() - 3], row[row.len() - 2]);
            let says = effect.contains("Not logged: ") || effect.contains("logs the first");
            let told = quoted(counters).count() == 0 || quoted(counters).any(|name| logged(&name));
            assert!(told != says, "{}", row[0]);
        }
    }

    #[test]
    fn every_limit_that_is_logged_has_a_counter_and_a_row() {
        let idle = idle();
        for Limit { counter, .. } in LIMITS {
            assert!(count(&idle, counter).is_some(), "{counter}");
        }
        for Limit { counter, .. } in LIMITS.iter().chain(LISTENER_LIMITS) {
            assert!(rows().iter().any(|row| quoted(row[row.len() - 2]).any(|name| name == *counter)), "{counter}");
        }
    }

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
