//! Judges what the stacks say of themselves, after every turn: no timer lost, numbers and windows sane, memory and bytes
//! in flight within their limits; and after the path has healed, that whoever waited gets on.

use std::collections::HashMap;
use std::time::Duration;

use tcp_proto::{ConnectionInfo, ConnectionKey, Instant, Stack, State, SynCookies};

use crate::app::Stage;
use crate::host::{Host, LISTEN_PORT};
use crate::plan::{Opener, Plan};

/// Segments by which what is in flight may exceed the congestion window: limited transmit, and one that is sent whole
/// although less would have fit.
const FLIGHT_SLACK: u32 = 3;

/// Figures that count recoveries found needless.
const UNDO: [&str; 2] = ["eifel_undo", "duplicate_undo"];

/// Time by which the stack's wheel may be late.
const TICK: Duration = Duration::from_millis(1);

/// A connection in TIME_WAIT answers what is repeated, but for the FIN, no more often than this.
const ACK_INTERVAL: Duration = Duration::from_millis(500);

/// A connection of a worker.
type Name = (usize, usize, ConnectionKey);

/// Judges stacks.
pub struct Judge {
    /// SND.NXT after the last turn, and the most that was in flight since it fitted the congestion window.
    flights: HashMap<Name, (u32, u32)>,
    /// How often each worker's connections found a recovery needless.
    undone: HashMap<(usize, usize), u64>,
    demands: Vec<Demand>,
    /// A round trip takes no longer when nothing is wrong.
    round_trip: Duration,
    /// Whether the plan lets progress be demanded at all.
    may_demand: bool,
    /// Whether ports are used again: a SYN may have to wait for the end of a TIME_WAIT.
    reopens: bool,
    /// Ports of talks that both sides open: whose SYN arrived while the other's was lost waits for the other's timer.
    crossing: Vec<u16>,
    /// Whether both sides report selectively, and so probe.
    probes: bool,
    memory: [usize; 2],
}

/// Somebody must get on.
#[derive(Clone, Debug)]
struct Demand {
    name: Name,
    una: u32,
    state: State,
    by: Instant,
}

impl Judge {
    /// A judge of a plan's run.
    #[must_use]
    pub fn new(plan: &Plan) -> Judge {
        let faults = &plan.faults;
        let path: Duration = faults.ways.iter().map(crate::faults::Way::longest).sum();
        let hosts = 4 * (faults.wake + 2 * faults.commit);
        let delayed = plan.hosts.iter().map(|host| host.tcp.delayed_ack).max().unwrap_or_default();
        let roomy = plan.hosts.iter().all(|host| {
            host.memory >= 1 << 20
                && host.entries >= 64
                && host.connections >= 64
                && host.tcp.syn_backlog > 1
                && host.tcp.backlog > 1
        });
        let ends = faults.deletion > 0 || plan.deaf_after.is_some();
        let forgets = faults.ways.iter().any(|way| way.forgetting > 0) || ends;
        // Full-sized packets that nobody answers for are another matter.
        let mtu = faults.episodes.iter().any(|episode| matches!(episode.what, crate::faults::Trouble::Mtu { .. }));
        let mut ports: Vec<u16> = plan.talks.iter().map(|talk| talk.port).collect();
        ports.dedup();
        Judge {
            reopens: ports.len() < plan.talks.len(),
            flights: HashMap::new(),
            undone: HashMap::new(),
            demands: Vec::new(),
            round_trip: path + hosts + delayed,
            may_demand: roomy && !mtu && !forgets,
            crossing: plan
                .talks
                .iter()
                .filter(|talk| matches!(talk.opener, Opener::Both))
                .map(|talk| talk.port)
                .collect(),
            probes: plan.hosts.iter().all(|host| host.tcp.sack),
            memory: plan.hosts.each_ref().map(|host| host.memory),
        }
    }

    /// A worker was turned.
    pub fn after_turn(&mut self, now: Instant, host: &Host, queue: usize) {
        let worker = &host.workers[queue];
        let stack = &worker.stack;
        let memory = stack.buffer_memory();
        assert!(memory <= self.memory[host.number], "{memory} bytes in buffers");
        let rows = rows(stack, now);
        let undone = stack.figures().iter().filter(|(name, _)| UNDO.contains(name)).map(|(_, count)| count).sum();
        let undoes = self.undone.insert((host.number, queue), undone).is_some_and(|before| before != undone);
        for row in &rows {
            judge_numbers(row);
            let said = said(host, queue, row);
            judge_timers(row, stack, host, said);
            let deadline = row.timers.iter().map(|(_, left)| now + *left).min();
            let wakes = worker.due.unwrap_or(Instant::MAX);
            assert!(
                deadline.is_none_or(|at| at + TICK >= wakes),
                "a timer is due before the worker is turned: {row:?}"
            );
            self.judge_flight((host.number, queue, row.key), row, undoes);
        }
    }

    /// What is in flight after something new was sent fits the congestion window, or is no more than before: during a recovery
    /// it comes down step by step (RFC 9937). When one proves needless (`undoes`), what was taken for lost is in flight
    /// again.
    fn judge_flight(&mut self, name: Name, row: &ConnectionInfo, undoes: bool) {
        let (next, high) = self.flights.get(&name).copied().unwrap_or((row.snd_nxt, 0));
        let high = if undoes { high.max(row.in_flight) } else { high };
        let now_high = if row.in_flight <= row.cwnd { row.in_flight } else { high.max(row.in_flight) };
        self.flights.insert(name, (row.snd_nxt, now_high));
        let sent_new = next != row.snd_nxt && row.state.is_synchronized();
        let most = row.cwnd.max(high) + FLIGHT_SLACK * u32::from(row.mss);
        assert!(!sent_new || row.in_flight <= most, "in flight beyond the congestion window: {row:?}");
    }

    /// The path has healed: whoever has something unacknowledged gets on within an RTO and a round trip.
    /// `queued`: until what was sent before has arrived.
    pub fn demand_progress(&mut self, now: Instant, hosts: &[Host; 2], queued: Duration) {
        if !self.may_demand {
            return;
        }
        for host in hosts {
            for (queue, worker) in host.workers.iter().enumerate() {
                for row in rows(&worker.stack, now).iter().filter(|row| waits_for_answer(row)) {
                    if row.state == State::SYN_SENT && (self.reopens || self.crossing.contains(&row.key.local_port)) {
                        continue;
                    }
                    if meets_silence(&hosts[1 - host.number], &row.key) {
                        continue;
                    }
                    // A tail loss probe may go first, after two round trips; it starts the RTO over (RFC 8985 section 7.3).
                    let probe = if self.probes { 2 * row.srtt.unwrap_or_default() } else { Duration::ZERO };
                    // A listener that has just repeated its SYN-ACK does not answer the next SYN.
                    let once_more = if row.state == State::SYN_SENT { 2 * row.rto } else { Duration::ZERO };
                    // What is repeated in that interval stays unanswered, and the next time is as far again.
                    let limited = is_in_time_wait(&hosts[1 - host.number], &row.key, now);
                    let seldom = if limited { 3 * ACK_INTERVAL + 2 * row.rto } else { Duration::ZERO };
                    let by = now + probe + row.rto + once_more + seldom + 2 * self.round_trip + queued;
                    let name = (host.number, queue, row.key);
                    crate::trace::say(now, || format!("must get on by {:?}: {row:?}", by.since(now)));
                    self.demands.push(Demand { name, una: row.snd_una, state: row.state, by });
                }
            }
        }
    }

    /// Whether anybody must get on.
    #[must_use]
    pub fn demands_progress(&self) -> bool {
        !self.demands.is_empty()
    }

    /// When somebody must have got on.
    #[must_use]
    pub fn next_demand(&self) -> Option<Instant> {
        self.demands.iter().map(|demand| demand.by).min()
    }

    /// Whoever must have got on by now has.
    pub fn meet_demands(&mut self, now: Instant, hosts: &[Host; 2]) {
        let due: Vec<Demand> = self.demands.extract_if(.., |demand| demand.by <= now).collect();
        for demand in due {
            let (host, queue, key) = demand.name;
            let rows = rows(&hosts[host].workers[queue].stack, now);
            let Some(row) = rows.iter().find(|row| row.key == key) else { continue };
            let stuck = row.snd_una == demand.una && row.state == demand.state && waits_for_answer(row);
            assert!(!stuck, "no progress although the path has healed: {demand:?}, {row:?}");
        }
    }
}

/// Whether a host that has forgotten the peer of this connection tells nobody: it listens in cookie mode, and takes what
/// carries something for the first data of a connection whose cookie is still to come (docs/decisions/0013).
fn meets_silence(peer: &Host, key: &ConnectionKey) -> bool {
    let theirs = ConnectionKey::new(key.remote(), key.local());
    let forgotten = peer.workers.iter().all(|worker| !worker.stack.has_connection(&theirs));
    forgotten && key.remote_port == LISTEN_PORT && peer.tcp().syn_cookies != SynCookies::Never
}

/// Whether the peer of this connection is in TIME_WAIT.
fn is_in_time_wait(peer: &Host, key: &ConnectionKey, now: Instant) -> bool {
    let theirs = ConnectionKey::new(key.remote(), key.local());
    let mut all = peer.workers.iter().flat_map(|worker| rows(&worker.stack, now));
    all.any(|row| row.key == theirs && row.state == State::TIME_WAIT)
}

fn rows(stack: &Stack, now: Instant) -> Vec<ConnectionInfo> {
    let mut rows = Vec::new();
    let rest = stack.snapshot(now, 0, u32::MAX as usize, &mut rows);
    assert_eq!(rest, None, "a snapshot of all is whole");
    rows
}

fn armed(row: &ConnectionInfo, names: &[&str]) -> bool {
    row.timers.iter().any(|(name, _)| names.contains(name))
}

fn waits_for_answer(row: &ConnectionInfo) -> bool {
    row.snd_una != row.snd_nxt && row.snd_wnd > 0 && armed(row, &["retransmit", "establish"])
        || row.state == State::SYN_SENT
}

/// Bytes that the application has said on a connection, if one of a talk has it.
fn said(host: &Host, queue: usize, row: &ConnectionInfo) -> Option<u64> {
    let sides = host.apps.sides.iter().filter(|side| usize::from(side.queue) == queue);
    let mut open = sides.filter(|side| matches!(side.stage, Stage::Open(_)));
    // Two talks on one worker have different ports; the side knows its own only by its connection.
    open.find(|side| side.port_pair == Some((row.key.local_port, row.key.remote_port))).map(|side| side.said as u64)
}

fn judge_numbers(row: &ConnectionInfo) {
    let outstanding = row.snd_nxt.wrapping_sub(row.snd_una) as i32;
    assert!(outstanding >= 0, "SND.UNA is after SND.NXT: {row:?}");
    assert!(row.in_flight <= outstanding as u32, "more in flight than outstanding: {row:?}");
    assert!(!row.is_record || row.state == State::TIME_WAIT, "a record of what goes on: {row:?}");
    assert!(row.is_record || row.cwnd >= u32::from(row.mss).min(64), "no congestion window: {row:?}");
}

/// Whoever waits for something has a timer for it, or something to send at once.
fn judge_timers(row: &ConnectionInfo, stack: &Stack, host: &Host, said: Option<u64>) {
    use State::*;
    let unsent = said.is_some_and(|said| said > row.bytes_out);
    let closes = matches!(row.state, SYN_SENT | SYN_RCVD | FIN_WAIT_1 | CLOSING | LAST_ACK);
    let waits = closes || row.snd_una != row.snd_nxt || unsent;
    let served = armed(row, &["establish", "retransmit", "persist"]) || stack.wants_transmit();
    assert!(!waits || served || row.state == TIME_WAIT, "a timer is lost: {row:?}, {said:?} said");
    assert!(row.state != TIME_WAIT || armed(row, &["time_wait"]), "TIME_WAIT for ever: {row:?}");
    let tcp = host.tcp();
    let idles = tcp.keepalive && row.state.is_synchronized() && row.state != TIME_WAIT;
    assert!(!idles || armed(row, &["keepalive"]), "nobody looks after an idle connection: {row:?}");
    assert!(!waits || stack.poll_timeout().is_some() || stack.wants_transmit(), "no deadline at all: {row:?}");
}
