//! SYN cookies (RFC 4987 section 3.6): the answer to a SYN that leaves nothing behind. What the listener must know later
//! is in the numbers that the peer's ACK brings back, so that the XDP program and the daemon understand each other's.
//!
//! The initial sequence number is `[27 bits hash | 4 bits MSS | 1 bit epoch]`. The hash is SipHash-2-4 over the 4-tuple,
//! the peer's initial sequence number, our timestamp and the MSS, under a key that lives for two epochs of 69 s. The rest
//! of what was agreed is in the low six bits of our timestamp (`[ECN | SACK | window scale, 15: none]`), which stays
//! a clock of milliseconds that is up to 64 ms late. Without timestamps there is no place for it, and nothing but an MSS
//! is agreed.
//!
//! An ACK made up blindly passes with a probability of 2^-27: at 1,000,000 such ACKs a second one passes in 134 s on
//! average. It is worth no more than a SYN from an address that its sender owns: a connection that never speaks.

use core::hint::black_box;

use crate::ConnectionKey;
use crate::headers::MAX_WINDOW_SCALE;
use crate::siphash::{Sip, SipKey};

/// Length of an epoch as a power of two, ns: 68.7 s.
const EPOCH_SHIFT: u32 = 36;
/// Time for which one key issues cookies, ns. They stay good for another such time.
pub const EPOCH_NS: u64 = 1 << EPOCH_SHIFT;
/// Keys that the ring holds.
const SLOTS: usize = 4;

/// MSS values that a cookie can tell apart, bytes; others are rounded down. With the usual ones of Ethernet, PPPoE,
/// tunnels, clouds and jumbo frames, and the defaults of both families.
const MSS: [u16; 16] = [64, 536, 1024, 1220, 1300, 1360, 1380, 1400, 1420, 1440, 1452, 1460, 4036, 8856, 8940, 8960];

/// Low bits of our timestamp that carry options.
const OPTIONS: u32 = 0x3f;
/// In place of a window scale: none was agreed.
const NO_SCALE: u32 = 15;

/// The number of the epoch at `now_ns` (CLOCK_MONOTONIC).
#[inline(always)]
#[must_use]
pub const fn epoch(now_ns: u64) -> u64 {
    now_ns >> EPOCH_SHIFT
}

/// The clock that our timestamps show at `now_ns` (CLOCK_MONOTONIC): milliseconds, of all connections and the program.
#[inline(always)]
#[must_use]
pub const fn timestamp_clock(now_ns: u64) -> u32 {
    (now_ns / 1_000_000) as u32
}

/// The key of one epoch.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct CookieKey {
    /// The epoch that it is for.
    pub epoch: u64,
    /// Secret and random; zeros: there is no key yet.
    pub key: SipKey,
}

/// The ring of keys, by epoch. The daemon puts the next epoch's key in well before it begins and leaves the previous one,
/// so that all who use the ring need not change at the same instant.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct CookieKeys {
    slots: [CookieKey; SLOTS],
}

const _: () = assert!(size_of::<CookieKeys>() == 96);

impl CookieKeys {
    /// Puts the key of `epoch` in, in place of that of four epochs before.
    pub fn put(&mut self, epoch: u64, key: SipKey) {
        self.slots[epoch as usize % SLOTS] = CookieKey { epoch, key };
    }

    /// Makes the keys that are missing at `now_ns` (CLOCK_MONOTONIC), of the current epoch and of the next, so that no
    /// cookie waits for whoever calls this; whether there were any.
    ///
    /// # Errors
    /// What `secret` says.
    pub fn renew<E>(&mut self, now_ns: u64, mut secret: impl FnMut() -> Result<SipKey, E>) -> Result<bool, E> {
        let mut renewed = false;
        for epoch in [epoch(now_ns), epoch(now_ns) + 1] {
            if self.get(epoch).is_none() {
                self.put(epoch, secret()?);
                renewed = true;
            }
        }
        Ok(renewed)
    }

    /// The key of `epoch`.
    #[inline(always)]
    #[must_use]
    pub fn get(&self, epoch: u64) -> Option<SipKey> {
        let slot = &self.slots[epoch as usize % SLOTS];
        (slot.epoch == epoch && slot.key[0] | slot.key[1] != 0).then_some(slot.key)
    }
}

/// The keys are secret: they appear in no log.
impl core::fmt::Debug for CookieKeys {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_list().entries(self.slots.iter().map(|slot| slot.epoch)).finish()
    }
}

/// What SYN and SYN-ACK agree on: what the peer offers, as far as the listener has it switched on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The peer's MSS, bytes; the default of its family when it says none.
    pub mss: u16,
    /// The peer's window scale, 0 to 14; `None`: windows are not scaled.
    pub window_scale: Option<u8>,
    /// Whether selective acknowledgments are used.
    pub sack: bool,
    /// Whether explicit congestion notification is used.
    pub ecn: bool,
    /// Whether timestamps are used.
    pub timestamps: bool,
}

impl Offer {
    /// What of it a cookie can carry, and so the SYN-ACK may agree to: without timestamps only the MSS.
    #[inline(always)]
    #[must_use]
    pub fn carried(self) -> Offer {
        let Offer { mss, window_scale, sack, ecn, timestamps } = self;
        let window_scale = if timestamps { window_scale } else { None };
        Offer { mss, window_scale, sack: sack && timestamps, ecn: ecn && timestamps, timestamps }
    }

    /// As the low bits of our timestamp.
    #[inline(always)]
    fn bits(self) -> u32 {
        let scale = match self.window_scale {
            Some(scale) if scale > MAX_WINDOW_SCALE => u32::from(MAX_WINDOW_SCALE),
            Some(scale) => u32::from(scale),
            None => NO_SCALE,
        };
        u32::from(self.ecn) << 5 | u32::from(self.sack) << 4 | scale
    }

    #[inline(always)]
    fn from_bits(mss: u16, tsval: u32) -> Offer {
        let scale = tsval & 0xf;
        Offer {
            mss,
            window_scale: if tsval != 0 && scale != NO_SCALE { Some(scale as u8) } else { None },
            sack: tsval & 1 << 4 != 0,
            ecn: tsval & 1 << 5 != 0,
            timestamps: tsval != 0,
        }
    }
}

/// What the SYN-ACK carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cookie {
    /// Its sequence number.
    pub isn: u32,
    /// Its TSval; 0 when timestamps are not used, and only then.
    pub tsval: u32,
}

/// The cookie for a SYN with number `peer_isn` that agrees to [`Offer::carried`]; `None`: there is no key for this epoch.
#[inline(always)]
#[must_use]
pub fn issue(keys: &CookieKeys, now_ns: u64, key: &ConnectionKey, peer_isn: u32, offer: &Offer) -> Option<Cookie> {
    let epoch = epoch(now_ns);
    let secret = keys.get(epoch)?;
    let offer = offer.carried();
    let tsval = if offer.timestamps { stamp(timestamp_clock(now_ns), offer.bits()) } else { 0 };
    let low = mss_index(offer.mss) << 1 | epoch as u32 & 1;
    Some(Cookie { isn: number(secret, key, peer_isn, tsval, low), tsval })
}

/// What was agreed with the peer whose ACK has the sequence number `seq`, acknowledges `ack` and echoes `tsecr`, if it
/// acknowledges a cookie of this epoch or the previous one. An MSS comes back rounded down.
#[inline(always)]
#[must_use]
pub fn check(
    keys: &CookieKeys,
    now_ns: u64,
    key: &ConnectionKey,
    seq: u32,
    ack: u32,
    tsecr: Option<u32>,
) -> Option<Offer> {
    let isn = ack.wrapping_sub(1);
    let now = epoch(now_ns);
    let secret = keys.get(now.wrapping_sub((now ^ u64::from(isn)) & 1))?;
    // A peer that was sent no timestamp echoes none, or zero.
    let tsval = tsecr.unwrap_or(0);
    let good = number(secret, key, seq.wrapping_sub(1), tsval, isn & LOW) == isn;
    if good { Some(Offer::from_bits(MSS[(isn >> 1) as usize % MSS.len()], tsval)) } else { None }
}

/// Bits of a cookie below the hash.
const LOW: u32 = 0x1f;

/// The cookie whose low five bits are `low`.
///
/// Not inlined: BPF has little stack, and this needs most of what there is.
#[inline(never)]
fn number(secret: SipKey, key: &ConnectionKey, peer_isn: u32, tsval: u32, low: u32) -> u32 {
    let [a, b, c, d, e] = key.words();
    let words = [a, b, c, d, e, u64::from(peer_isn) << 32 | u64::from(tsval), u64::from(low >> 1)];
    let mut sip = Sip::<2, 4>::new(secret);
    let mut at = 0;
    // A loop that the compiler does not unroll: with all words at hand at once BPF runs out of registers, and of stack.
    while let Some(word) = words.get(black_box(at)) {
        sip.absorb(*word);
        at += 1;
    }
    (sip.finish(words.len() as u64) >> 32) as u32 & !LOW | low
}

/// The latest timestamp up to `clock` that carries `options` and is not zero.
#[inline(always)]
fn stamp(clock: u32, options: u32) -> u32 {
    let stamp = clock & !OPTIONS | options;
    if options > clock & OPTIONS || stamp == 0 { stamp.wrapping_sub(OPTIONS + 1) } else { stamp }
}

/// Place of the largest MSS in the table that is not above `mss`; of the smallest when all are.
#[inline(always)]
fn mss_index(mss: u16) -> u32 {
    let mut index = 0;
    for &step in &MSS[1..] {
        index += u32::from(mss >= step);
    }
    index
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;
    use core::hash::Hasher;

    use siphasher::sip::SipHasher24;

    use super::*;

    const NOW: u64 = 1_000 * EPOCH_NS + 12_345_678_901;
    const PEER: u32 = 0xdead_beef;

    fn keys() -> CookieKeys {
        let mut keys = CookieKeys::default();
        for epoch in 999..1003 {
            keys.put(epoch, [epoch.wrapping_mul(0x9e37_79b9_7f4a_7c15), !epoch]);
        }
        keys
    }

    fn tuple() -> ConnectionKey {
        ConnectionKey::new("10.77.0.2:7".parse().unwrap(), "10.77.0.1:50001".parse().unwrap())
    }

    fn offer() -> Offer {
        Offer { mss: 1460, window_scale: Some(7), sack: true, ecn: true, timestamps: true }
    }

    fn issued(offer: &Offer) -> Cookie {
        issue(&keys(), NOW, &tuple(), PEER, offer).unwrap()
    }

    /// The check of the ACK that answers `cookie` at `now`.
    fn checked(now: u64, cookie: Cookie) -> Option<Offer> {
        check(&keys(), now, &tuple(), PEER + 1, cookie.isn + 1, (cookie.tsval != 0).then_some(cookie.tsval))
    }

    fn all_offers() -> Vec<Offer> {
        let scales = (0..=14).map(Some).chain([None]);
        let flags = |bits: u8, at: u8| bits & 1 << at != 0;
        scales
            .flat_map(|window_scale| (0..8).map(move |bits| (window_scale, bits)))
            .flat_map(|(window_scale, bits)| {
                let (sack, ecn, timestamps) = (flags(bits, 0), flags(bits, 1), flags(bits, 2));
                MSS.map(|mss| Offer { mss, window_scale, sack, ecn, timestamps })
            })
            .collect()
    }

    #[test]
    fn the_hash_is_the_reference_crates_over_tuple_number_timestamp_and_mss() {
        let cookie = issued(&offer());
        let secret = keys().get(1000).unwrap();
        let mut reference = SipHasher24::new_with_keys(secret[0], secret[1]);
        reference.write(&tuple().local_addr);
        reference.write(&tuple().remote_addr);
        reference.write_u64(7 << 16 | 50_001);
        reference.write_u64(u64::from(PEER) << 32 | u64::from(cookie.tsval));
        reference.write_u64(11);
        assert_eq!(u64::from(cookie.isn >> 5), reference.finish() >> 37);
        assert_eq!(cookie.isn & LOW, 11 << 1);
    }

    #[test]
    fn every_combination_of_options_comes_back_as_far_as_a_cookie_carries_it() {
        for offer in all_offers() {
            assert_eq!(checked(NOW, issued(&offer)), Some(offer.carried()), "{offer:?}");
        }
        let without = Offer { timestamps: false, ..offer() }.carried();
        assert_eq!(without, Offer { mss: 1460, window_scale: None, sack: false, ecn: false, timestamps: false });
    }

    #[test]
    fn an_mss_is_rounded_down_and_one_below_all_becomes_the_smallest() {
        let comes_back = |mss| checked(NOW, issued(&Offer { mss, ..offer() })).unwrap().mss;
        for (mss, rounded) in [(0, 64), (63, 64), (64, 64), (535, 64), (536, 536), (1459, 1452), (1461, 1460)] {
            assert_eq!(comes_back(mss), rounded);
        }
        assert_eq!((comes_back(8959), comes_back(u16::MAX)), (8940, 8960));
        assert!(MSS.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn another_tuple_number_acknowledgment_or_echo_is_no_good() {
        let Cookie { isn, tsval } = issued(&offer());
        let check = |key: &ConnectionKey, seq, ack, tsecr| check(&keys(), NOW, key, seq, ack, tsecr);
        let (seq, ack, key) = (PEER + 1, isn + 1, tuple());
        assert_eq!(check(&key, seq, ack, Some(tsval)), Some(offer()));
        let (mut port, mut local, mut remote) = (key, key, key);
        port.remote_port += 1;
        local.local_addr[15] ^= 1;
        remote.remote_addr[10] ^= 1;
        for other in [port, local, remote, ConnectionKey { local_port: 8, ..key }] {
            assert_eq!(check(&other, seq, ack, Some(tsval)), None);
        }
        for bit in 0..32 {
            assert_eq!(check(&key, seq ^ 1 << bit, ack, Some(tsval)), None, "sequence number, bit {bit}");
            assert_eq!(check(&key, seq, (isn ^ 1 << bit).wrapping_add(1), Some(tsval)), None, "cookie, bit {bit}");
            assert_eq!(check(&key, seq, ack, Some(tsval ^ 1 << bit)), None, "echo, bit {bit}");
        }
        assert_eq!(check(&key, seq, ack, None), None);
    }

    #[test]
    fn a_cookie_is_good_in_its_epoch_and_the_next_and_then_no_more() {
        let cookie = issued(&offer());
        let later = |epochs: u64| NOW + epochs * EPOCH_NS;
        assert_eq!((checked(later(0), cookie), checked(later(1), cookie)), (Some(offer()), Some(offer())));
        assert_eq!((checked(later(2), cookie), checked(NOW - EPOCH_NS, cookie)), (None, None));
        let next = issue(&keys(), later(1), &tuple(), PEER, &offer()).unwrap();
        assert_ne!(next.isn >> 5, cookie.isn >> 5, "each epoch has a key of its own");
    }

    #[test]
    fn without_the_key_of_the_epoch_there_is_no_cookie() {
        let late = NOW + 4 * EPOCH_NS;
        assert_eq!(issue(&keys(), late, &tuple(), PEER, &offer()), None, "its slot holds an older key");
        assert_eq!(checked(late, issued(&offer())), None);
        // A map that nobody wrote yet must not pass for the key of the first epoch.
        assert_eq!(issue(&CookieKeys::default(), 5, &tuple(), PEER, &offer()), None);
        assert_eq!(check(&CookieKeys::default(), 5, &tuple(), 1, 1, None), None);
    }

    #[test]
    fn our_timestamp_is_never_above_the_clock_nor_more_than_64_ms_late_nor_zero() {
        for clock in (0..300).chain(u32::MAX - 300..=u32::MAX) {
            for options in 0..=OPTIONS {
                let stamp = stamp(clock, options);
                // Where the clock wraps, zero itself is passed over.
                let late = if clock <= OPTIONS { 2 * OPTIONS + 1 } else { OPTIONS + 1 };
                assert!(clock.wrapping_sub(stamp) <= late, "{stamp} at {clock}");
                assert_eq!((stamp & OPTIONS, stamp == 0), (options, false));
            }
        }
    }

    #[test]
    fn a_peer_that_was_sent_no_timestamp_may_echo_zero() {
        let bare = Offer { timestamps: false, ..offer() };
        let Cookie { isn, tsval } = issued(&bare);
        assert_eq!(tsval, 0);
        assert_eq!(check(&keys(), NOW, &tuple(), PEER + 1, isn + 1, Some(0)), Some(bare.carried()));
    }

    /// 2^20 tries at 2^-27 each: one in 128 such tests would see a hit if the numbers were not always the same.
    #[test]
    fn acks_made_up_at_random_fail() {
        let mut random = 1u64;
        let mut next = || {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 32) as u32
        };
        let (keys, key) = (keys(), tuple());
        let hits = (0..1 << 20).filter(|_| check(&keys, NOW, &key, next(), next(), Some(next())).is_some()).count();
        assert_eq!(hits, 0);
    }

    #[test]
    fn cookies_of_one_peer_are_spread_over_all_numbers() {
        let keys = keys();
        let mut ones = [0u32; 27];
        for peer_isn in 0..4096 {
            let isn = issue(&keys, NOW, &tuple(), peer_isn, &offer()).unwrap().isn;
            ones.iter_mut().enumerate().for_each(|(bit, count)| *count += isn >> (bit + 5) & 1);
        }
        // 4096 tosses of a coin: 2048 heads, give or take six standard deviations of 32.
        assert!(ones.iter().all(|count| count.abs_diff(2048) < 192), "{ones:?}");
    }
}
