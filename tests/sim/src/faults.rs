//! What the path does to frames: every fault there is, in one struct, drawn from the seed.

use std::time::Duration;

use crate::chance::Chance;

/// Names of the faults, as the coverage table shows them.
pub const NAMES: [&str; 23] = [
    "loss",
    "burst loss",
    "jitter",
    "reordering",
    "displacement",
    "duplication",
    "corruption",
    "mark",
    "queueing",
    "overflow",
    "blackout",
    "one-way blackout",
    "delay spike",
    "MTU change",
    "ICMP too big",
    "silent MTU",
    "queue migration",
    "handover",
    "reneging",
    "forgotten flow",
    "forgery",
    "full ring",
    "deleted entry",
];

/// How the path mistreats frames, and how slow the hosts are.
#[derive(Clone, Debug)]
pub struct Faults {
    /// From the first host to the second, and back.
    pub ways: [Way; 2],
    /// What happens for a while, in the order of its beginning.
    pub episodes: Vec<Episode>,
    /// How often (of 10,000 frames) the flow of a frame changes its queue at the receiving host.
    pub migration: u32,
    /// How often (of 10,000 frames) an attacker who has seen its addresses forges some more.
    pub forgery: u32,
    /// How often (of 10,000 frames) a frame that the program steers finds the ring of its socket full.
    pub ring_loss: u32,
    /// How often (of 10,000 frames) somebody deletes the entry of the connection that a frame belongs to.
    pub deletion: u32,
    /// Longest time that a commit to the connection table takes to be seen by the program.
    pub commit: Duration,
    /// Longest time from a frame's arrival to its worker's turn.
    pub wake: Duration,
}

/// One direction of the path. Probabilities are of 10,000 frames.
#[derive(Clone, Debug, Default)]
pub struct Way {
    /// Frames lost at random.
    pub loss: u32,
    /// Frames lost in bursts.
    pub burst: Option<Burst>,
    /// A number of frames lost in a row, and the time from one such burst to the next.
    pub volley: Option<(u32, Duration)>,
    /// One-way delay.
    pub delay: Duration,
    /// Random part of the delay; it keeps the order.
    pub jitter: Duration,
    /// Frames that are late by up to [`Way::late`], so that others overtake them.
    pub reordering: u32,
    /// Most that a frame is late.
    pub late: Duration,
    /// Frames that are overtaken by up to [`Way::places`] later ones.
    pub displacement: u32,
    /// Most places.
    pub places: u32,
    /// Frames that arrive twice.
    pub duplication: u32,
    /// Frames of which a bit of the packet flips.
    pub corruption: u32,
    /// Frames that a router marks, if they may be (RFC 3168).
    pub mark: u32,
    /// Bytes per second, and the bytes that wait at most; `None`: no limit.
    pub rate: Option<(u64, u64)>,
    /// ACKs with SACK of which something makes the peer seem to have forgotten what it reported.
    pub reneging: u32,
    /// Flows that a middlebox forgets when it has seen their SYN or FIN: nothing of them passes any more.
    pub forgetting: u32,
}

/// The model of Gilbert and Elliott: a good state without loss and a bad one. Probabilities of 10,000 frames.
#[derive(Clone, Copy, Debug)]
pub struct Burst {
    /// From good to bad.
    pub begins: u32,
    /// From bad to good.
    pub ends: u32,
    /// Loss while bad.
    pub loss: u32,
}

/// Something that happens for a while.
#[derive(Clone, Copy, Debug)]
pub struct Episode {
    /// It begins when so many frames have been sent.
    pub after: u64,
    /// How long it lasts.
    pub lasts: Duration,
    /// What it is.
    pub what: Trouble,
}

/// What an episode is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Nothing arrives, either way.
    Blackout,
    /// Nothing arrives in one direction.
    OneWay(usize),
    /// Frames take longer by so much; they keep their order.
    Spike(Duration),
    /// Packets above this size do not pass any more, for good; `silent`: nobody says so.
    Mtu {
        /// Largest packet, bytes.
        mtu: u16,
        /// Whether routers send no ICMP error.
        silent: bool,
    },
}

impl Faults {
    /// Faults of a seed of about `frames` frames.
    #[must_use]
    pub fn random(chance: &mut Chance, frames: u64, ipv6: bool, impatient: bool) -> Faults {
        let ideal = chance.once_in(6);
        let mut first = if ideal { Way::ideal(chance) } else { Way::random(chance) };
        // Who never gives up would never end.
        first.forgetting = if impatient && chance.once_in(2) { 2500 } else { 0 };
        let second = if chance.once_in(3) && !ideal { Way::random(chance) } else { first.clone() };
        let episodes = if chance.once_in(2) { 0 } else { chance.between(1, 4) };
        let mut episodes: Vec<_> = (0..episodes).map(|_| Episode::random(chance, frames, ipv6)).collect();
        episodes.sort_by_key(|episode| episode.after);
        Faults {
            ways: [first, second],
            episodes,
            migration: if chance.once_in(2) { 0 } else { chance.magnitude(1, 1000) as u32 },
            forgery: if chance.once_in(3) { chance.magnitude(10, 200) as u32 } else { 0 },
            ring_loss: if chance.once_in(3) && !ideal { chance.magnitude(1, 300) as u32 } else { 0 },
            deletion: 0,
            commit: Duration::from_micros(chance.pick(&[0, 10, 200, 5_000])),
            wake: Duration::from_micros(chance.pick(&[0, 0, 20, 500])),
        }
    }

    /// Longest time that a frame lives.
    #[must_use]
    pub fn lifetime(&self) -> Duration {
        let spike = |episode: &Episode| if let Trouble::Spike(extra) = episode.what { extra } else { Duration::ZERO };
        let spikes: Duration = self.episodes.iter().map(spike).max().unwrap_or_default();
        let longest = self.ways.iter().map(|way| way.longest() + way.delay + 2 * way.late).max().unwrap_or_default();
        longest + spikes + Duration::from_millis(50)
    }

    /// A path without faults.
    #[must_use]
    pub fn none(delay: Duration) -> Faults {
        let way = Way { delay, ..Way::default() };
        let (commit, wake) = (Duration::ZERO, Duration::ZERO);
        Faults {
            ways: [way.clone(), way],
            episodes: Vec::new(),
            migration: 0,
            forgery: 0,
            ring_loss: 0,
            deletion: 0,
            commit,
            wake,
        }
    }
}

impl Way {
    fn ideal(chance: &mut Chance) -> Way {
        let delay = chance.time_between(Duration::from_micros(10), Duration::from_millis(200));
        // A bottleneck that nothing overflows: round trips grow instead.
        let rate = chance.once_in(2).then(|| (chance.magnitude(200_000, 4_000_000), 4_000_000));
        Way { delay, rate, ..Way::default() }
    }

    fn random(chance: &mut Chance) -> Way {
        let delay = chance.time_between(Duration::from_micros(20), Duration::from_millis(150));
        let mut sometimes = |times, most| if chance.once_in(times) { chance.magnitude(1, most) as u32 } else { 0 };
        let (loss, reordering, displacement) = (sometimes(2, 1000), sometimes(3, 1500), sometimes(4, 1500));
        let (duplication, corruption, mark) = (sometimes(3, 1000), sometimes(3, 500), sometimes(4, 500));
        let reneging = sometimes(8, 2000);
        let burst = chance.once_in(4).then(|| Burst {
            begins: chance.magnitude(5, 300) as u32,
            ends: chance.magnitude(500, 5000) as u32,
            loss: chance.between(3000, 10_000) as u32,
        });
        let rate = chance.once_in(4).then(|| {
            let rate = chance.magnitude(50_000, 20_000_000);
            (rate, chance.magnitude(8_000, 2_000_000).min(2 * rate))
        });
        Way {
            loss,
            burst,
            volley: None,
            delay,
            jitter: if chance.once_in(2) { Duration::ZERO } else { chance.time(delay) },
            reordering,
            late: chance.time(2 * delay) + Duration::from_micros(10),
            displacement,
            places: chance.between(1, 10) as u32,
            duplication,
            corruption,
            mark,
            rate,
            reneging,
            forgetting: 0,
        }
    }

    /// Longest time that a frame takes if nothing is lost, with a full queue.
    #[must_use]
    pub fn longest(&self) -> Duration {
        let queueing = self
            .rate
            .map_or(Duration::ZERO, |(rate, queue)| Duration::from_secs_f64((queue + 2 * 1600) as f64 / rate as f64));
        self.delay + self.jitter + queueing
    }
}

impl Episode {
    fn random(chance: &mut Chance, frames: u64, ipv6: bool) -> Episode {
        let least = if ipv6 { 1280 } else { 576 };
        let what = match chance.below(8) {
            0..3 => Trouble::Blackout,
            3..5 => Trouble::OneWay(chance.below(2) as usize),
            5..7 => Trouble::Spike(chance.time_between(Duration::from_millis(100), Duration::from_secs(4))),
            _ => Trouble::Mtu { mtu: chance.between(least, 1499) as u16, silent: chance.once_in(2) },
        };
        let lasts = chance.time_between(Duration::from_millis(20), Duration::from_secs(20));
        Episode { after: chance.below(frames), lasts, what }
    }
}
