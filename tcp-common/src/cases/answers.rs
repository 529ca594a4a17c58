//! The cases by which the program's answers are tested, on the host and in the kernel: what the maps hold, what came
//! before, a frame, what is done about it, and the frame that answers it, as another builder would write it.
//!
//! The world's time is the caller's: the loaded program asks the kernel's clock. Leaves out [`Deed::NoRoom`], which takes
//! a driver, and [`Deed::CutOff`]: the decision drops what is cut off before anybody would answer.

use alloc::vec;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr};
use core::ops::RangeInclusive;

use super::frames::SegmentFrame;
use super::world::{LOCAL_V4, LOCAL_V6, MemoryMaps, World, connection_v4};
use crate::answer::{Asked, Deed, Room};
use crate::cookie::{Cookie, EPOCH_NS, Offer, check, issue, timestamp_clock};
use crate::counters::Class;
use crate::decide::{Verdict, decide};
use crate::layout::{
    ConnectionKey, ConnectionValue, FLAG_COOKIE, FLAG_TIMESTAMPS, ListenerValue, OFFERS_TIMESTAMPS, STAYS_SILENT,
};
use crate::state::State;

/// One case.
#[derive(Clone, Debug)]
pub struct AnswerCase {
    /// What it shows, as a sentence.
    pub name: &'static str,
    /// What the maps hold.
    pub world: World,
    /// Frames that came before.
    pub before: Vec<Vec<u8>>,
    /// What arrives.
    pub frame: Vec<u8>,
    /// What is done about it.
    pub deed: Deed,
    /// What answers it.
    pub says: Option<Says>,
    /// How long TIME_WAIT lasts from now on, ms, if it begins anew.
    pub time_wait_ms: Option<u32>,
}

/// What the frame says that answers.
#[derive(Clone, Debug)]
pub struct Says {
    /// The frame, but for our timestamp, and the number of a cookie.
    pub frame: SegmentFrame,
    /// What a cookie agrees to, if it is one, and the peer's initial sequence number.
    pub cookie: Option<(Offer, u32)>,
}

impl Says {
    /// Compares the frame that answered with what it has to say, at a time within `times`, ns.
    ///
    /// # Panics
    /// When anything is different.
    pub fn judge(&self, name: &str, world: &World, reply: &[u8], times: &RangeInclusive<u64>) {
        let mut expected = self.frame.clone();
        assert_eq!(reply.len(), expected.build().len(), "{name}: {reply:02x?}");
        let tcp = reply.len() - 20 - expected.options.len();
        let word = |at: usize| u32::from_be_bytes([reply[at], reply[at + 1], reply[at + 2], reply[at + 3]]);
        let timestamps = expected.options.windows(2).position(|pair| pair == [8, 10]);
        let stamp = timestamps.map(|at| word(tcp + 20 + at + 2));
        if let (Some(at), Some(stamp)) = (timestamps, stamp) {
            expected.options[at + 2..at + 6].copy_from_slice(&stamp.to_be_bytes());
            let late = if self.cookie.is_some() { 64 } else { 0 };
            let clock = timestamp_clock(*times.start()) - late..=timestamp_clock(*times.end());
            assert!(clock.contains(&stamp), "{name}: our timestamp is {stamp}, the clock {clock:?}");
        }
        if let Some((offer, peer_isn)) = self.cookie {
            expected.seq = word(tcp + 4);
            let key = ConnectionKey::new(expected.source, expected.destination);
            let now = *times.end();
            let agreed = check(&world.keys(), now, &key, peer_isn.wrapping_add(1), expected.seq.wrapping_add(1), stamp);
            assert_eq!(agreed, Some(offer), "{name}: what the cookie agrees to");
        }
        assert_eq!(reply, expected.build(), "{name}");
    }
}

/// What became of a frame.
#[derive(Clone, Debug)]
pub struct Done {
    /// What the segment is.
    pub class: Option<Class>,
    /// What was done about it; `None`: the program would not have answered it.
    pub deed: Option<Deed>,
    /// What became of it.
    pub verdict: Verdict,
    /// The frame that answers it.
    pub reply: Vec<u8>,
}

/// Does with a frame what the program does.
#[must_use]
pub fn handle(maps: &MemoryMaps<'_>, frame: &[u8]) -> Done {
    let mut key = ConnectionKey::default();
    let decision = decide(frame, maps, &mut key);
    let mut room = Room::default();
    let deed = decision.question().filter(|_| maps.answers()).map(|question| {
        let asked = Asked { frame, maps, key: &key, place: &decision.place, listener: decision.listener };
        asked.answer(question, &mut room)
    });
    let verdict = deed.and_then(Deed::verdict).unwrap_or(decision.verdict);
    Done { class: decision.class, deed, verdict, reply: room.frame.bytes().to_vec() }
}

impl AnswerCase {
    fn new(name: &'static str, world: World, frame: Vec<u8>, deed: Deed) -> AnswerCase {
        AnswerCase { name, world, before: Vec::new(), frame, deed, says: None, time_wait_ms: None }
    }

    /// The same in another world.
    fn when(mut self, change: impl FnOnce(&mut World)) -> AnswerCase {
        change(&mut self.world);
        self
    }

    /// Answered by this frame.
    fn says(mut self, frame: SegmentFrame) -> AnswerCase {
        self.says = Some(Says { frame, cookie: None });
        self
    }

    /// After these.
    fn after(mut self, before: Vec<Vec<u8>>) -> AnswerCase {
        self.before = before;
        self
    }

    fn restarts(mut self, millis: u32) -> AnswerCase {
        self.time_wait_ms = Some(millis);
        self
    }

    /// Whether it is about a limit that is earned back so fast that real time lifts it.
    #[must_use]
    pub fn is_about_a_fast_limit(&self) -> bool {
        !self.before.is_empty() && matches!(self.deed, Deed::Ignore | Deed::SynData)
    }

    /// Whether it changes what the program remembers of its listeners and limits.
    #[must_use]
    pub fn leaves_traces(&self) -> bool {
        !self.before.is_empty() || self.world.listener.syn_limit == 0
    }
}

/// Every case, at this time (CLOCK_MONOTONIC, ns).
#[must_use]
pub fn answer_cases(now_ns: u64) -> Vec<AnswerCase> {
    [
        syns(now_ns),
        option_lists(now_ns),
        modes(now_ns),
        flawed(now_ns),
        martians(now_ns),
        strangers(now_ns),
        cookies(now_ns),
        time_wait(now_ns),
        time_wait_with_timestamps(now_ns),
    ]
    .concat()
}

/// The peer's number in SYNs.
const PEER_ISN: u32 = 1_000;
/// An option list as kernels write it: MSS 1460, SACK permitted, timestamps, window scale 7.
const LINUX: [u8; 20] = [2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 100, 0, 0, 0, 0, 1, 3, 3, 7];
/// The same without timestamps.
const NO_TIMESTAMPS: [u8; 9] = [2, 4, 5, 180, 4, 2, 3, 3, 7];
/// What answers `LINUX`: our MSS of 1400, window scale 4, SACK permitted, timestamps.
const ALL: [u8; 20] = [2, 4, 5, 120, 1, 3, 3, 4, 4, 2, 8, 10, 0, 0, 0, 0, 0, 0, 0, 100];
/// What is agreed then.
const AGREED: Offer = Offer { mss: 1460, window_scale: Some(7), sack: true, ecn: false, timestamps: true };
/// What is agreed without timestamps.
const ONLY_MSS: Offer = Offer { window_scale: None, sack: false, timestamps: false, ..AGREED };

/// A world with a listener whose answers look different from anybody else's.
fn world(now_ns: u64, syn_cookies: u8) -> World {
    let world = World::that_answers(now_ns);
    let listener =
        ListenerValue { syn_cookies, mss: 1400, window: 60_000, ttl: 33, traffic_class: 0x28, ..world.listener };
    World { listener, ..world }
}

fn always(now_ns: u64) -> World {
    world(now_ns, ListenerValue::COOKIES_ALWAYS)
}

/// As answers of the listener look.
fn by_listener(frame: SegmentFrame) -> SegmentFrame {
    SegmentFrame { window: 60_000, ttl: 33, traffic_class: 0x28, ..frame }
}

/// A SYN that is answered with a cookie.
fn cookie(name: &'static str, world: World, syn: &SegmentFrame, list: &[u8], offer: Offer) -> AnswerCase {
    let letters = if offer.ecn { "SAE" } else { "SA" };
    let frame = by_listener(syn.answered(letters)).numbered(0, PEER_ISN + 1).with_list(list);
    let says = Some(Says { frame, cookie: Some((offer, PEER_ISN)) });
    AnswerCase { says, ..AnswerCase::new(name, world, syn.build(), Deed::Cookie) }
}

fn syn_v4() -> SegmentFrame {
    SegmentFrame::v4(7, "S").stray().with_list(&LINUX)
}

fn syn_v6() -> SegmentFrame {
    SegmentFrame::v6(7, "S").stray().with_list(&LINUX)
}

fn syns(now: u64) -> Vec<AnswerCase> {
    const HOP_BY_HOP: u8 = 0;
    const FRAGMENT: u8 = 44;
    const DESTINATION_OPTIONS: u8 = 60;
    let padded = [0, 1, 4, 0, 0, 0, 0];
    let all = |name, syn: SegmentFrame| cookie(name, always(now), &syn, &ALL, AGREED);
    let mut padding = all("what pads a frame is no payload", syn_v4());
    padding.frame.extend_from_slice(&[0xee; 7]);
    let mut ecn = syn_v4();
    ecn.flags = super::frames::flags("SEC");
    let mut half_ecn = syn_v4();
    half_ecn.flags = super::frames::flags("SE");
    let with_ecn = Offer { ecn: true, ..AGREED };
    [
        all("a SYN is answered with a cookie", syn_v4()),
        all("an IPv6 SYN is answered with a cookie", syn_v6()),
        all("a tagged SYN is answered with its tag", syn_v4().tagged(100)),
        all("a tagged IPv6 SYN is answered with its tag", syn_v6().tagged(0x6064)),
        all("a SYN behind IPv4 options is answered without them", syn_v4().with_ip_options(4)),
        all("a SYN behind most IPv4 options is answered without them", syn_v4().tagged(100).with_ip_options(40)),
        all("a SYN behind an extension header is answered without it", syn_v6().extended(HOP_BY_HOP, &padded)),
        all(
            "a SYN behind four extension headers is answered without them",
            syn_v6()
                .extended(HOP_BY_HOP, &padded)
                .extended(DESTINATION_OPTIONS, &padded)
                .extended(FRAGMENT, &[0, 0, 0, 0, 0, 0, 9])
                .extended(DESTINATION_OPTIONS, &padded),
        ),
        padding,
        cookie("a wildcard listener answers for the address", always(now), &syn_to(80), &ALL, AGREED),
        cookie("a SYN that offers ECN gets it", always(now), &ecn, &ALL, with_ecn),
        cookie("ECE alone offers no ECN", always(now), &half_ecn, &ALL, AGREED),
    ]
    .into()
}

fn syn_to(port: u16) -> SegmentFrame {
    SegmentFrame::v4(port, "S").stray().with_list(&LINUX)
}

fn option_lists(now: u64) -> Vec<AnswerCase> {
    const MSS: [u8; 4] = [2, 4, 5, 120];
    let with = |name, list: &[u8], says: &[u8], offer| {
        cookie(name, always(now), &SegmentFrame::v4(7, "S").stray().with_list(list), says, offer)
    };
    let timed = |head: [u8; 4], pad: [u8; 2]| [&MSS, &head[..], &pad, &[8, 10, 0, 0, 0, 0, 0, 0, 0, 100]].concat();
    let stamps = [8, 10, 0, 0, 0, 100, 0, 0, 0, 0];
    let none = Offer { mss: 536, ..ONLY_MSS };
    let bare = Offer { mss: 536, timestamps: true, ..ONLY_MSS };
    let scaled = |shift| Offer { mss: 536, window_scale: Some(shift), sack: false, ..AGREED };
    let has_no = |mut case: AnswerCase, offers: u8| {
        case.world.listener.offers &= !offers;
        case
    };
    let mut cases = vec![
        with("without options IPv4's default MSS counts", &[], &MSS, none),
        cookie(
            "without options IPv6's default MSS counts",
            always(now),
            &SegmentFrame::v6(7, "S").stray(),
            &MSS,
            Offer { mss: 1220, ..none },
        ),
        with("without timestamps nothing but an MSS is agreed", &NO_TIMESTAMPS, &MSS, ONLY_MSS),
        with("without window scale and SACK the list is padded", &stamps, &timed([1; 4], [1; 2]), bare),
        with(
            "a window scale above 14 counts as 14",
            &[&[3, 3, 200, 1][..], &stamps].concat(),
            &timed([1, 3, 3, 4], [1; 2]),
            scaled(14),
        ),
        with(
            "the last of equal options counts",
            &[&[3, 3, 2, 3, 3, 5][..], &stamps].concat(),
            &timed([1, 3, 3, 4], [1; 2]),
            scaled(5),
        ),
        with("an unknown option is skipped", &[&[254, 5, 2, 4, 9][..], &stamps].concat(), &timed([1; 4], [1; 2]), bare),
        with("an option of length 0 ends the list", &[&[77, 0][..], &stamps].concat(), &MSS, none),
        with("an option of length 1 ends the list", &[&[77, 1][..], &stamps].concat(), &MSS, none),
        with("what follows the end of the list does not count", &[&[1, 0][..], &stamps].concat(), &MSS, none),
        with("an option that the header cuts off does not count", &[1, 1, 1, 1, 1, 2, 4, 5], &MSS, none),
        with("timestamps of a wrong length do not count", &[1, 1, 8, 6, 0, 0, 0, 100], &MSS, none),
        has_no(with("a listener without timestamps agrees to an MSS", &LINUX, &MSS, ONLY_MSS), OFFERS_TIMESTAMPS),
    ];
    cases.extend((0..=10).map(|words| {
        let list = &[1; 40][..4 * words];
        with("every length of a TCP header is taken", list, &MSS, none)
    }));
    cases
}

fn modes(now: u64) -> Vec<AnswerCase> {
    let auto = || world(now, ListenerValue::COOKIES_AUTO);
    let left = |name, world| AnswerCase::new(name, world, syn_v4().build(), Deed::Leave);
    let with = |name, world| cookie(name, world, &syn_v4(), &ALL, AGREED);
    let seconds = |seconds: u64| seconds * 1_000_000_000;
    let flooded = |world: &mut World| world.listener.syn_limit = 0;
    let demand = |until| move |world: &mut World| world.cookie_demand_ns = until;
    let alive = |at| move |world: &mut World| world.heartbeat_ns = at;
    let early = syn_v4().with_payload(b"early").build();
    let payload = |name, deed| AnswerCase::new(name, always(now), early.clone(), deed);
    [
        left("a program that is not to answer leaves SYNs alone", always(now)).when(|world| world.answers = false),
        left("auto leaves SYNs to the daemon while it is calm", auto()),
        with("auto answers SYNs when there are too many", auto()).when(flooded),
        with("auto answers SYNs after a flood", auto()).when(flooded).after(vec![syn_v4().build()]),
        with("auto answers SYNs while the daemon wants it", auto()).when(demand(now + seconds(60))),
        left("auto is calm when the daemon wants it no more", auto()).when(demand(now - seconds(1))),
        left("never leaves SYNs to the daemon", world(now, ListenerValue::COOKIES_NEVER))
            .when(flooded)
            .when(demand(now + seconds(60))),
        left("without keys there are no cookies", always(now)).when(|world| world.has_keys = false),
        left("a daemon that was not heard of for 4 s gets the SYNs", always(now)).when(alive(now - seconds(4))),
        with("a daemon that was heard of a second ago lives", always(now)).when(alive(now - seconds(1))),
        payload("a SYN with payload is left to the daemon", Deed::Leave),
        payload("a SYN with payload is dropped after too many", Deed::SynData).after(vec![early.clone(); 100]),
    ]
    .into()
}

/// Changes a byte of a frame.
fn flip(at: usize) -> impl FnOnce(&mut Vec<u8>) {
    move |frame| frame[at] ^= 0x40
}

/// Where the IPv4 checksum and the TCP checksum lie in an untagged frame.
const IP_SUM: usize = 14 + 10;
const TCP_SUM: usize = 14 + 20 + 16;

/// Puts a checksum over the pseudo-header alone in, as a peer's kernel leaves it to its device.
fn partial(frame: &mut [u8]) {
    let length = (frame.len() - 34) as u32;
    let words = frame[26..34].chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
    let sum = words.sum::<u32>() + 6 + length;
    let folded = (sum & 0xffff) + (sum >> 16);
    frame[TCP_SUM..TCP_SUM + 2].copy_from_slice(&(folded as u16).to_be_bytes());
}

fn flawed(now: u64) -> Vec<AnswerCase> {
    let bad = |name, frame| AnswerCase::new(name, always(now), frame, Deed::BadChecksum);
    let half = syn_v4().build_with(|frame| partial(frame));
    let mut taken = cookie("a partial checksum passes if it may", always(now), &syn_v4(), &ALL, AGREED);
    taken.frame.clone_from(&half);
    taken.world.accept_partial = true;
    let ack = SegmentFrame::v4(7, "A").stray();
    [
        bad("a wrong IPv4 checksum is not answered", syn_v4().build_with(flip(IP_SUM))),
        bad("a wrong TCP checksum is not answered", syn_v4().build_with(flip(TCP_SUM))),
        bad("a wrong TCP checksum over IPv6 is not answered", syn_v6().build_with(flip(14 + 40 + 16))),
        bad("a damaged option is not answered", syn_v4().build_with(flip(14 + 20 + 20 + 3))),
        bad("a damaged IPv4 option is not answered", syn_v4().with_ip_options(8).build_with(flip(34))),
        bad("an ACK with a wrong checksum is not reset", ack.build_with(flip(TCP_SUM))),
        bad("a partial checksum does not pass by itself", half),
        bad("a wrong checksum is not partial", syn_v4().build_with(flip(TCP_SUM)))
            .when(|world| world.accept_partial = true),
        taken,
    ]
    .into()
}

fn martians(now: u64) -> Vec<AnswerCase> {
    let from = |name, source: &str| {
        let source: IpAddr = source.parse().expect("an address");
        let local = if source.is_ipv4() { LOCAL_V4 } else { LOCAL_V6 };
        let syn = SegmentFrame::between((source, 9).into(), (local, 7).into(), "S").with_list(&LINUX);
        AnswerCase::new(name, always(now), syn.build(), Deed::Martian)
    };
    let mut group = syn_v4();
    group.macs[1] = [1, 0, 0x5e, 0, 0, 1];
    let mut port = syn_v4();
    port.source.set_port(0);
    let ack = SegmentFrame::between((Ipv4Addr::BROADCAST, 9).into(), (LOCAL_V4, 7).into(), "A");
    [
        from("this network is no host", "0.1.2.3"),
        from("a loopback address is no peer", "127.0.0.1"),
        from("an IPv4 group is no peer", "224.0.0.1"),
        from("the last IPv4 group is no peer", "239.255.255.255"),
        from("the broadcast is no peer", "255.255.255.255"),
        from("our own address is no peer", "10.77.0.2"),
        from("the unspecified IPv6 address is no peer", "::"),
        from("IPv6 loopback is no peer", "::1"),
        from("an IPv6 group is no peer", "ff02::1"),
        from("our own IPv6 address is no peer", "fd00::2"),
        AnswerCase::new("a frame from a group is not answered", always(now), group.build(), Deed::Martian),
        AnswerCase::new("port 0 is not answered", always(now), port.build(), Deed::Martian),
        AnswerCase::new("a broadcast address is not reset", always(now), ack.build(), Deed::Martian),
    ]
    .into()
}

impl AnswerCase {
    fn is(mut self, deed: Deed) -> AnswerCase {
        self.deed = deed;
        self
    }
}

fn strangers(now: u64) -> Vec<AnswerCase> {
    let never = || world(now, ListenerValue::COOKIES_NEVER);
    let reset = |name, segment: SegmentFrame, says: SegmentFrame| {
        AnswerCase::new(name, never(), segment.build(), Deed::Reset).says(says)
    };
    let by_ack = |name, segment: SegmentFrame| {
        let says = SegmentFrame { window: 0, ..by_listener(segment.answered("R")) }.numbered(2_000, 0);
        reset(name, segment, says)
    };
    let ack = || SegmentFrame::v4(7, "A").stray();
    let to_nobody = |letters| SegmentFrame::v4(40_000, letters);
    let nobody_says = |letters, answer: &str, seq, ack| {
        SegmentFrame { window: 0, ..to_nobody(letters).answered(answer) }.numbered(seq, ack)
    };
    let other = |name, segment: SegmentFrame, deed| AnswerCase::new(name, never(), segment.build(), deed);
    let silent = |world: &mut World| world.listener.offers |= STAYS_SILENT;
    let limited = |rate| move |world: &mut World| world.rst_rate = rate;
    let data = || ack().with_payload(b"who is there?");
    let acks = |count| vec![ack().build(); count];
    [
        by_ack("a stranger's ACK is reset", ack()),
        by_ack("a stranger's IPv6 ACK is reset", SegmentFrame::v6(7, "A").stray()),
        by_ack("a stranger's tagged ACK is reset", ack().tagged(100)),
        by_ack("a stranger's ACK with most options is reset", ack().with_options(40).with_ip_options(40)),
        by_ack("a stranger's FIN is reset", SegmentFrame::v4(7, "FA").stray()),
        by_ack("a stranger's SYN-ACK is reset", SegmentFrame::v4(7, "SA").stray()),
        reset("a SYN to a port of active opens is reset", to_nobody("S"), nobody_says("S", "RA", 0, 1_001)),
        reset("an ACK to a port of active opens is reset", to_nobody("A"), nobody_says("A", "R", 2_000, 0)),
        reset("a SYN of the last number is reset", to_nobody("S").numbered(u32::MAX, 5), nobody_says("S", "RA", 0, 0)),
        other("a stranger's data is left to the daemon", data(), Deed::Leave),
        other("a stranger's ACK draws nothing if it shall not", ack(), Deed::Silence).when(silent),
        other("a stranger's data draws nothing if it shall not", data(), Deed::Silence).when(silent),
        other("a stranger's ACK draws nothing if there are no resets", ack(), Deed::ResetRate).when(limited(0)),
        other("a stranger's data draws nothing if there are no resets", data(), Deed::ResetRate).when(limited(0)),
        by_ack("a reset less than at once is sent", ack()).when(limited(20)).after(acks(19)),
        other("after as many resets as at once none is sent", ack(), Deed::ResetRate).when(limited(20)).after(acks(20)),
        other("with one reset a second there is one at once", ack(), Deed::ResetRate).when(limited(1)).after(acks(1)),
    ]
    .into()
}

/// The segment of a peer that was sent a cookie `age_ns` ago.
fn returning(world: &World, segment: &SegmentFrame, age_ns: u64) -> SegmentFrame {
    let key = ConnectionKey::new(segment.destination, segment.source);
    let issued = issue(&world.keys(), world.now_ns - age_ns, &key, PEER_ISN, &AGREED);
    let Cookie { isn, tsval } = issued.expect("there is a key");
    let list = [&[1, 1, 8, 10, 0, 0, 0, 101][..], &tsval.to_be_bytes()].concat();
    segment.clone().numbered(PEER_ISN + 1, isn.wrapping_add(1)).with_list(&list)
}

fn cookies(now: u64) -> Vec<AnswerCase> {
    let ack = |letters| SegmentFrame::v4(7, letters).stray();
    let back = |segment: &SegmentFrame, age| returning(&always(now), segment, age);
    let case = |name, segment: SegmentFrame, deed| AnswerCase::new(name, always(now), segment.build(), deed);
    let good = |name, segment: &SegmentFrame| case(name, back(segment, 0), Deed::Accept);
    let reset = |name, segment: SegmentFrame| {
        let says = SegmentFrame { window: 0, ..by_listener(segment.answered("R")) }.numbered(segment.ack, 0);
        case(name, segment, Deed::ResetBadCookie).says(says)
    };
    let mut wrong = back(&ack("A"), 0);
    wrong.ack ^= 0x100;
    let mut without = back(&ack("A"), 0);
    without.options.clear();
    let bad = |letters| ack(letters).numbered(PEER_ISN + 1, 77);
    let plain = |name, world| {
        let segment = back(&ack("A"), 0);
        let says = SegmentFrame { window: 0, ..by_listener(segment.answered("R")) }.numbered(segment.ack, 0);
        AnswerCase::new(name, world, segment.build(), Deed::Reset).says(says)
    };
    let auto = |until| World { cookie_demand_ns: until, ..world(now, ListenerValue::COOKIES_AUTO) };
    let mut damaged = good("a good cookie with a wrong checksum is dropped", &ack("A")).is(Deed::BadChecksum);
    damaged.frame[TCP_SUM] ^= 1;
    let land = SegmentFrame::between((LOCAL_V4, 9).into(), (LOCAL_V4, 7).into(), "A");
    [
        good("a good cookie makes a connection", &ack("A")),
        good("a good cookie makes an IPv6 connection", &SegmentFrame::v6(7, "A").stray()),
        good("a good cookie makes a tagged connection", &ack("A").tagged(100).with_ip_options(8)),
        good("a good cookie with data makes a connection", &ack("PA").with_payload(b"GET /")),
        good("a good cookie with a FIN makes a connection", &ack("FA")),
        good("a daemon that is late keeps no cookie from being good", &ack("A")).when(|world| world.heartbeat_ns = 0),
        case("a cookie of the epoch before is good", back(&ack("A"), EPOCH_NS), Deed::Accept),
        reset("a cookie of two epochs before is bad", back(&ack("A"), 2 * EPOCH_NS)),
        reset("a cookie that somebody made up is bad", wrong),
        reset("a cookie without its timestamp is bad", without),
        case("data with a bad cookie is dropped", bad("PA").with_payload(b"GET /"), Deed::BadCookie),
        case("a FIN with a bad cookie is dropped", bad("FA"), Deed::BadCookie),
        case("a bad cookie draws nothing if it shall not", bad("A"), Deed::BadCookie)
            .when(|world| world.listener.offers |= STAYS_SILENT),
        case("a bad cookie draws nothing if there are no resets", bad("A"), Deed::BadCookie)
            .when(|world| world.rst_rate = 0),
        case("a bad cookie with a wrong checksum is dropped", bad("A"), Deed::BadChecksum).damaged(),
        damaged,
        good("a good cookie from our own address is dropped", &land).is(Deed::Martian),
        plain("a listener that never sends cookies takes none", world(now, ListenerValue::COOKIES_NEVER)),
        plain("a listener that never sent a cookie takes none", auto(0)),
        plain("a listener whose last cookie is too old takes none", auto(now - 2 * EPOCH_NS - 1_000_000_000)),
        good("a listener that sent cookies an epoch ago takes them", &ack("A"))
            .when(|world| *world = auto(now - EPOCH_NS)),
        good("a listener under a flood takes cookies", &ack("A"))
            .when(|world| *world = auto(0))
            .when(|world| world.listener.syn_limit = 0)
            .after(vec![syn_v4().build()]),
    ]
    .into()
}

impl AnswerCase {
    fn damaged(mut self) -> AnswerCase {
        self.frame[TCP_SUM] ^= 1;
        self
    }

    /// The entry that there is for the connection then, if a cookie made one.
    #[must_use]
    pub fn entry(&self, since_ns: u64) -> Option<ConnectionValue> {
        let word = |at: usize| u32::from_be_bytes(self.tcp()[at..at + 4].try_into().expect("four"));
        (self.deed == Deed::Accept).then(|| ConnectionValue {
            state: State::SYN_RCVD,
            flags: FLAG_COOKIE,
            queue: self.world.queue,
            snd_nxt: word(8),
            rcv_nxt: word(4),
            since_ns,
            ..ConnectionValue::default()
        })
    }

    /// The segment in the frame of a cookie that came back.
    fn tcp(&self) -> &[u8] {
        let ip = if self.frame[12] == 0x81 { 18 } else { 14 };
        let header = if self.frame[ip] >> 4 == 4 { usize::from(self.frame[ip] & 0xf) * 4 } else { 40 };
        &self.frame[ip + header..]
    }
}

/// SND.NXT and RCV.NXT of the connection in TIME_WAIT.
const SND_NXT: u32 = 2_000;
const RCV_NXT: u32 = 5_000;
/// Its TS.Recent.
const TS_RECENT: u32 = 300;
/// How long TIME_WAIT lasts at the listener, ms.
const LISTENER_TIME_WAIT_MS: u32 = 20_000;

fn closed(now: u64, flags: u8) -> World {
    let mut world = world(now, ListenerValue::COOKIES_NEVER);
    world.listener.time_wait_ms = LISTENER_TIME_WAIT_MS;
    world.entry = ConnectionValue {
        state: State::TIME_WAIT,
        flags,
        snd_nxt: SND_NXT,
        rcv_nxt: RCV_NXT,
        ts_recent: TS_RECENT,
        ..ConnectionValue::default()
    };
    world
}

fn time_wait(now: u64) -> Vec<AnswerCase> {
    let case = |name, segment: &SegmentFrame, deed| AnswerCase::new(name, closed(now, 0), segment.build(), deed);
    let ack = |name, segment: SegmentFrame| {
        let says = SegmentFrame { window: u16::MAX, ..by_listener(segment.answered("A")) };
        let says = says.numbered(SND_NXT, RCV_NXT);
        case(name, &segment, Deed::TimeWait).says(says)
    };
    let fin = |segment: SegmentFrame| segment.numbered(RCV_NXT - 1, SND_NXT);
    let of = |letters, seq, acks| SegmentFrame::v4(7, letters).numbered(seq, acks);
    let alone = SegmentFrame::v4(40_000, "FA").numbered(RCV_NXT - 1, SND_NXT);
    let mut active = closed(now, 0);
    active.connections = vec![ConnectionKey { local_port: 40_000, ..connection_v4() }];
    let by_nobody = alone.answered("A").numbered(SND_NXT, RCV_NXT);
    let mut group = of("A", 4_000, SND_NXT);
    group.macs[1][0] |= 1;
    [
        ack("a repeated FIN is acknowledged and begins TIME_WAIT anew", fin(SegmentFrame::v4(7, "FA")))
            .restarts(LISTENER_TIME_WAIT_MS),
        ack("a repeated IPv6 FIN is acknowledged", fin(SegmentFrame::v6(7, "FA"))).restarts(LISTENER_TIME_WAIT_MS),
        ack("a repeated tagged FIN is acknowledged", fin(SegmentFrame::v4(7, "FA").tagged(100)))
            .restarts(LISTENER_TIME_WAIT_MS),
        AnswerCase::new("a FIN to a port without listener is acknowledged", active, alone.build(), Deed::TimeWait)
            .says(by_nobody)
            .restarts(super::world::TIME_WAIT_MS),
        ack("a FIN that acknowledges what was never sent restarts nothing", of("FA", RCV_NXT - 1, SND_NXT + 1)),
        ack("an old segment is acknowledged", of("A", 4_000, SND_NXT)),
        case("old segments are acknowledged so often and no more", &of("A", 4_000, SND_NXT), Deed::Ignore)
            .after(vec![of("A", 4_000, SND_NXT).build(); 100]),
        ack("a repeated FIN is acknowledged however many old segments were", fin(SegmentFrame::v4(7, "FA")))
            .restarts(LISTENER_TIME_WAIT_MS)
            .after(vec![of("A", 4_000, SND_NXT).build(); 100]),
        case("a RST does nothing to TIME_WAIT", &of("R", RCV_NXT, SND_NXT), Deed::Ignore),
        case("a RST with ACK does nothing to TIME_WAIT", &of("RA", RCV_NXT, SND_NXT), Deed::Ignore),
        case("an ACK in order is ignored", &of("A", RCV_NXT, SND_NXT), Deed::Ignore),
        case("an ACK of what was never sent is left to the daemon", &of("A", RCV_NXT, SND_NXT + 1), Deed::Leave),
        case("a SYN that may reopen is left to the daemon", &of("S", RCV_NXT + 1, 0), Deed::Leave),
        case("a SYN-ACK is left to the daemon", &of("SA", RCV_NXT, SND_NXT), Deed::Leave),
        case("a new FIN is left to the daemon", &of("FA", RCV_NXT, SND_NXT), Deed::Leave),
        case("an ACK beyond the peer's FIN is left to the daemon", &of("A", RCV_NXT + 1, SND_NXT), Deed::Leave),
        case("data is left to the daemon", &of("PA", 4_000, SND_NXT).with_payload(b"late"), Deed::Leave),
        case("an old segment with a wrong checksum is dropped", &of("A", 4_000, SND_NXT), Deed::BadChecksum).damaged(),
        case("an old segment from a group is dropped", &group, Deed::Martian),
    ]
    .into()
}

fn time_wait_with_timestamps(now: u64) -> Vec<AnswerCase> {
    let case =
        |name, segment: &SegmentFrame, deed| AnswerCase::new(name, closed(now, FLAG_TIMESTAMPS), segment.build(), deed);
    let list = |stamp: u32| [&[1, 1, 8, 10][..], &stamp.to_be_bytes(), &[0; 4]].concat();
    let of = |letters, seq, stamp| SegmentFrame::v4(7, letters).numbered(seq, SND_NXT).with_list(&list(stamp));
    let ack = |name, segment: SegmentFrame| {
        let echo = [&[1, 1, 8, 10, 0, 0, 0, 0][..], &TS_RECENT.to_be_bytes()].concat();
        let says = SegmentFrame { window: u16::MAX, ..by_listener(segment.answered("A")) };
        let says = says.numbered(SND_NXT, RCV_NXT).with_list(&echo);
        case(name, &segment, Deed::TimeWait).says(says)
    };
    let untimed = SegmentFrame::v4(7, "S").numbered(RCV_NXT - 1, 0);
    [
        ack("what is acknowledged echoes TS.Recent", of("FA", RCV_NXT - 1, TS_RECENT)).restarts(LISTENER_TIME_WAIT_MS),
        ack("a FIN with an old timestamp restarts nothing", of("FA", RCV_NXT - 1, TS_RECENT - 1)),
        ack("an ACK in order with an old timestamp is acknowledged", of("A", RCV_NXT, TS_RECENT - 1)),
        ack("a SYN with an old timestamp is acknowledged", of("S", RCV_NXT + 1, TS_RECENT - 1)),
        ack("an old SYN with the same timestamp is acknowledged", of("S", RCV_NXT - 1, TS_RECENT)),
        ack("an old SYN without timestamp is acknowledged", untimed),
        case("a later SYN with the same timestamp may reopen", &of("S", RCV_NXT + 1, TS_RECENT), Deed::Leave),
        case("a SYN with a later timestamp may reopen", &of("S", RCV_NXT - 1, TS_RECENT + 1), Deed::Leave),
    ]
    .into()
}
