//! What a seed stands for: hosts and their parameters, faults, and what is said on which connection. Drawn before
//! anything runs, so that it can be shown whole when a check fails.

use std::sync::Arc;
use std::time::Duration;

use tcp_common::cookie;
use tcp_proto::{CongestionAlgorithm, Instant, RttEstimator, State, SynCookies, TcpConfig};

use crate::chance::Chance;
use crate::faults::Faults;

/// Segments that a run is planned to take, roughly: from half of this to twice as many.
const SEGMENTS: u64 = 4_200;

/// How much later a talk may be opened than the others: cookies that were on for their number are off again.
const AFTER_COOKIES: Duration = Duration::from_millis(5_500);

/// Everything that a run is made of.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Which one.
    pub seed: u64,
    /// Over IPv6.
    pub ipv6: bool,
    /// When it begins: both clocks' time since their epoch, ms.
    pub begins: u64,
    /// The two hosts.
    pub hosts: [HostPlan; 2],
    /// The path.
    pub faults: Faults,
    /// The talks.
    pub talks: Vec<Talk>,
    /// Which host closes its listeners, and when.
    pub deaf_after: Option<(usize, Duration)>,
}

/// A host.
#[derive(Clone, Debug)]
pub struct HostPlan {
    /// Workers, each with a queue and a stack.
    pub workers: u16,
    /// MTU of its interface, bytes.
    pub mtu: u16,
    /// Memory of each stack, bytes.
    pub memory: usize,
    /// Entries that the connection table has room for.
    pub entries: usize,
    /// Connections that each stack holds at most.
    pub connections: usize,
    /// How long a connection waits to be accepted, at most.
    pub accepts_after: Duration,
    /// Whether the XDP program answers by itself (`xdp_tx`).
    pub answers: bool,
    /// Parameters of its listeners and its opens.
    pub tcp: Arc<TcpConfig>,
}

/// A connection and what is said on it.
#[derive(Clone, Debug)]
pub struct Talk {
    /// Who opens: 0, 1; or both at once.
    pub opener: Opener,
    /// When, since the beginning; after the talk before on the same ports has ended.
    pub opens: Duration,
    /// The openers' ports differ between talks that are not the same connection again.
    pub port: u16,
    /// What each side does.
    pub sides: [Script; 2],
    /// Whether anything but "both streams whole, both ends finished" may be its outcome.
    pub may_fail: bool,
}

/// Who opens a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opener {
    /// One host, to a listener of the other.
    One(usize),
    /// Both, to each other.
    Both,
    /// One host, to a port where nobody listens.
    Refused(usize),
}

/// What one side does.
#[derive(Clone, Debug)]
pub struct Script {
    /// Bytes that it says.
    pub says: usize,
    /// Bytes that it writes at once, at most.
    pub piece: usize,
    /// After so many bytes it rests so long.
    pub burst: Option<(usize, Duration)>,
    /// How many bytes it reads at once, how rarely it rests (once in so many), and for how long at most.
    pub reads: (usize, u64, Duration),
    /// It says so much for each so much that it hears, the opener without having heard any first.
    pub answers: Option<(usize, usize)>,
    /// At this offset of what it says it is silent for so long.
    pub pause: Option<(usize, Duration)>,
    /// How it ends.
    pub ending: Ending,
}

/// How a side ends its talk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It says the end of its stream after its last byte, reads on to the end of the other's, and closes.
    HalfClose,
    /// It closes once it has said and heard everything, without waiting for the other's end.
    WhenHeard,
    /// It closes as soon as everything is written.
    WhenSaid,
    /// It aborts when the connection is in this state (SYN_SENT: at once), and half-closes until then.
    AbortIn(State),
    /// It aborts once it has said so many bytes.
    AbortAfter(usize),
    /// It closes right after opening.
    AtOnce,
    /// It closes so long after it has heard the other's end.
    AfterEnd(Duration),
}

impl Plan {
    /// What `seed` stands for.
    #[must_use]
    pub fn random(seed: u64) -> Plan {
        let chance = &mut Chance::new(seed);
        let ipv6 = chance.once_in(3);
        let segments = chance.between(SEGMENTS / 2, SEGMENTS * 2);
        let impatient = chance.once_in(3);
        let mut faults = Faults::random(chance, segments, ipv6, impatient);
        let lifetime = faults.lifetime();
        let hosts = [0, 1].map(|_| HostPlan::random(chance, impatient, lifetime));
        let mut talks = talks(chance, &hosts, segments, impatient);
        // While a host's commit is under way, the other's SYN may come too early for it, and is refused.
        for talk in talks.iter_mut().filter(|talk| talk.opener == Opener::Both && !faults.commit.is_zero()) {
            talk.may_fail = true;
        }
        for talk in talks.iter_mut().filter(|talk| !talk.may_fail) {
            talk.speak_first(&hosts);
        }
        let deaf = impatient && chance.once_in(4);
        let deaf_after = deaf.then(|| (chance.below(2) as usize, chance.time(Duration::from_millis(500))));
        let mut begins = chance.below(1 << 40);
        if impatient && chance.once_in(3) {
            faults.deletion = chance.magnitude(1, 30) as u32;
        }
        if chance.once_in(4) {
            let handshake = talks[0].opens + faults.ways[0].delay + chance.time(faults.ways[1].delay);
            begins = just_before_an_epoch(begins, handshake);
        }
        if let Some(last) = talks.last_mut().filter(|_| chance.once_in(2)) {
            last.opens += AFTER_COOKIES;
        }
        Plan { seed, ipv6, begins, hosts, faults, talks, deaf_after }
    }
}

/// The time `before` the next epoch of cookies begins, ms: one that is on its way then comes back in another epoch.
fn just_before_an_epoch(now: u64, before: Duration) -> u64 {
    let next = cookie::epoch(Instant::from_millis(now).as_nanos()) + 1;
    next * cookie::EPOCH_NS / 1_000_000 - before.as_millis() as u64
}

impl HostPlan {
    fn random(chance: &mut Chance, impatient: bool, lifetime: Duration) -> HostPlan {
        HostPlan {
            workers: chance.pick(&[1, 1, 2, 3]),
            mtu: if chance.once_in(2) { 1500 } else { 1280 + chance.below(220) as u16 },
            memory: if chance.once_in(8) { 64 << 10 } else { 1 << 30 },
            connections: if impatient && chance.once_in(8) { 2 } else { 256 },
            accepts_after: Duration::from_millis(chance.pick(&[0, 0, 0, 300])),
            answers: chance.once_in(2),
            entries: if impatient && chance.once_in(8) { 2 } else { 64 },
            tcp: Arc::new(tcp(chance, impatient, lifetime)),
        }
    }
}

/// Parameters, any that must work together; impatient ones give up soon. No segment lives longer than `lifetime`.
fn tcp(chance: &mut Chance, impatient: bool, lifetime: Duration) -> TcpConfig {
    let ms = Duration::from_millis;
    let retries = |chance: &mut Chance| if impatient { chance.between(1, 5) as u32 } else { 100 };
    let linger = chance.once_in(4).then(|| chance.pick(&[Duration::ZERO, ms(50), ms(3000)]));
    TcpConfig {
        syn_retries: retries(chance).min(30),
        synack_retries: retries(chance).min(30),
        initial_rto: chance.pick(&[ms(200), ms(1000), ms(1000)]),
        min_rto: chance.pick(&[ms(5), ms(50), ms(200), ms(200), ms(1000)]),
        max_rto: chance.pick(&[ms(2000), ms(5000), ms(20_000)]),
        retries1: 3,
        retries2: retries(chance),
        orphan_retries: retries(chance),
        user_timeout: if impatient && chance.once_in(3) { ms(chance.magnitude(300, 20_000)) } else { Duration::ZERO },
        delayed_ack: chance.pick(&[ms(0), ms(40), ms(40), ms(200), ms(499)]),
        persist_initial: chance.once_in(3).then(|| ms(chance.magnitude(5, 500))),
        persist_max: ms(chance.magnitude(500, 5000)),
        keepalive: chance.once_in(3),
        keepalive_time: ms(chance.magnitude(400, 2000)),
        // The patient's probes outlast every blackout.
        keepalive_interval: ms(chance.magnitude(if impatient { 50 } else { 200 }, 1000)),
        keepalive_probes: if impatient { 2 } else { 200 },
        // A peer that takes its time to close must not be reset by a connection that has gone.
        fin_wait2_timeout: if impatient { ms(chance.magnitude(200, 5000)) } else { ms(3_600_000) },
        msl: ms(chance.magnitude(50, 2000)).max(lifetime),
        time_wait_reuse: !chance.once_in(4),
        nodelay: chance.once_in(2),
        linger: linger.filter(|_| impatient),
        backlog: if chance.once_in(8) { 1 } else { 4096 },
        syn_backlog: if chance.once_in(3) { chance.pick(&[1, 2, 2]) } else { 4096 },
        syn_cookies: chance.pick(&[
            SynCookies::Auto,
            SynCookies::Auto,
            SynCookies::Auto,
            SynCookies::Always,
            SynCookies::Never,
        ]),
        mss: chance.once_in(4).then(|| chance.between(88, 1460) as u16),
        window_scale: !chance.once_in(4),
        timestamps: !chance.once_in(3),
        sack: !chance.once_in(3),
        ecn: !chance.once_in(3),
        congestion: chance.pick(&[CongestionAlgorithm::Cubic, CongestionAlgorithm::Cubic, CongestionAlgorithm::Reno]),
        autotune: !chance.once_in(3),
        recv_buffer: buffer(chance),
        send_buffer: buffer(chance),
        rtt_estimator: if chance.once_in(8) { RttEstimator::Rfc793 } else { RttEstimator::Rfc6298 },
        ..TcpConfig::default()
    }
}

fn buffer(chance: &mut Chance) -> u32 {
    if chance.once_in(3) { chance.magnitude(2048, 1 << 20) as u32 } else { 1 << chance.between(15, 20) }
}

fn talks(chance: &mut Chance, hosts: &[HostPlan; 2], segments: u64, impatient: bool) -> Vec<Talk> {
    let count = chance.between(1, 6);
    let mss = hosts.iter().map(|host| host.tcp.mss.unwrap_or(1400).min(host.mtu - 60)).min().unwrap_or(536);
    // Two segments and an ACK for each two full-sized segments of a stream.
    let bytes = segments * u64::from(mss) * 2 / 3 / count;
    let mut talks: Vec<Talk> = Vec::new();
    for n in 0..count {
        let mut talk = Talk::random(chance, bytes, impatient);
        talk.port = 40_000 + n as u16;
        // Without TIME_WAIT, segments of the connection before could be taken for the new one's.
        let again = talks.last().filter(|_| chance.once_in(3) && !impatient);
        if let Some(before) = again.filter(|before| before.opener == talk.opener) {
            talk.port = before.port;
        }
        talks.push(talk);
    }
    talks
}

impl Talk {
    fn random(chance: &mut Chance, bytes: u64, impatient: bool) -> Talk {
        let opener = match chance.below(12) {
            0 => Opener::Both,
            1 if impatient => Opener::Refused(chance.below(2) as usize),
            _ => Opener::One(chance.below(2) as usize),
        };
        let share = chance.pick(&[0, 0, 2, 5, 8, 10, 10]);
        let mut sides = [share, 10 - share].map(|tenths| Script::random(chance, (bytes * tenths / 10) as usize));
        if chance.once_in(4) {
            converse(chance, &mut sides);
        }
        let rude = impatient && !chance.once_in(4);
        if rude {
            let total = sides[0].says.max(sides[1].says).max(1) as u64;
            let side = chance.below(2) as usize;
            sides[side].ending = Ending::rude(chance, total);
        }
        let ms = Duration::from_millis;
        let dawdles = chance.once_in(4);
        if dawdles && !rude {
            sides[chance.below(2) as usize].ending = Ending::AfterEnd(chance.time_between(ms(1), ms(8000)));
        }
        let mut opener = opener;
        if impatient && chance.once_in(6) {
            (sides, opener) = if chance.once_in(4) { (abandon(chance), opener) } else { (cross(chance), Opener::Both) };
        }
        let may_fail = impatient;
        Talk { opener, opens: chance.time(Duration::from_millis(200)), port: 0, sides, may_fail }
    }
}

impl Talk {
    /// Has the opener speak at once if it may have been sent a cookie. When its ACK is lost there is no connection at the
    /// other end until it says something, and a probe of keep-alive would be answered with a reset
    /// (docs/decisions/0013).
    fn speak_first(&mut self, hosts: &[HostPlan; 2]) {
        let Opener::One(opener) = self.opener else { return };
        if hosts[1 - opener].tcp.syn_cookies == SynCookies::Never {
            return;
        }
        let script = &mut self.sides[opener];
        script.pause = script.pause.filter(|(at, _)| *at > 0);
        if script.says == 0 {
            script.ending = Ending::HalfClose;
        }
    }
}

/// Two sides that do the same at the same time, until one is rude when both have said the end of their streams.
fn cross(chance: &mut Chance) -> [Script; 2] {
    let says = chance.below(20_000) as usize;
    let mut sides = [0, 1].map(|_| Script { says, pause: None, burst: None, ..Script::random(chance, says) });
    sides.iter_mut().for_each(|side| side.ending = Ending::HalfClose);
    let endings = [Ending::AbortIn(State::CLOSING), Ending::AbortIn(State::FIN_WAIT_1), Ending::HalfClose];
    sides[0].ending = chance.pick(&endings);
    sides
}

/// A side that closes and one that takes longer to do so than the first one's FIN_WAIT_2 lasts.
fn abandon(chance: &mut Chance) -> [Script; 2] {
    let mut sides = [0, 1].map(|_| Script { pause: None, burst: None, ..Script::random(chance, 1000) });
    let first = chance.below(2) as usize;
    sides[first].ending = Ending::WhenHeard;
    sides[1 - first].ending = Ending::AfterEnd(chance.time_between(Duration::from_secs(4), Duration::from_secs(9)));
    sides
}

/// Makes a talk one of requests and responses.
fn converse(chance: &mut Chance, sides: &mut [Script; 2]) {
    let rounds = chance.magnitude(2, 100) as usize;
    let units = [0, 1].map(|side: usize| (sides[side].says / rounds).max(1));
    for (side, script) in sides.iter_mut().enumerate() {
        script.says = units[side] * rounds;
        script.answers = Some((units[side], units[1 - side]));
        script.burst = None;
    }
}

impl Script {
    fn random(chance: &mut Chance, says: usize) -> Script {
        let rest = |chance: &mut Chance| chance.time_between(Duration::from_micros(100), Duration::from_secs(2));
        let slow = chance.once_in(3);
        Script {
            says,
            piece: chance.magnitude(1, 65_000) as usize + 200,
            burst: chance.once_in(4).then(|| (chance.magnitude(2_000, 400_000) as usize, rest(chance))),
            reads: match slow {
                true => (chance.magnitude(500, 60_000) as usize, chance.magnitude(2, 64), rest(chance)),
                false => (65_000, 0, Duration::ZERO),
            },
            answers: None,
            pause: chance.once_in(4).then(|| (chance.below(says as u64 + 1) as usize, 3 * rest(chance))),
            ending: if chance.once_in(3) { Ending::WhenHeard } else { Ending::HalfClose },
        }
    }
}

impl Ending {
    fn rude(chance: &mut Chance, total: u64) -> Ending {
        let states = [
            State::SYN_SENT,
            State::ESTABLISHED,
            State::FIN_WAIT_1,
            State::FIN_WAIT_2,
            State::CLOSE_WAIT,
            State::CLOSING,
            State::LAST_ACK,
            State::TIME_WAIT,
            State::TIME_WAIT,
        ];
        match chance.below(6) {
            0..3 => Ending::AbortIn(chance.pick(&states)),
            3 => Ending::AbortAfter(chance.below(total) as usize),
            4 => Ending::WhenSaid,
            _ => Ending::AtOnce,
        }
    }
}
