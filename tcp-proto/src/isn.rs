//! Initial sequence numbers (RFC 6528, RFC 9293 section 3.4.1): a clock of 4 us ticks plus a keyed hash of
//! the 4-tuple. Monotone for one tuple, unrelated between tuples, unpredictable without the key.

use tcp_common::ConnectionKey;
use tcp_common::siphash::{SipKey, siphash};

use crate::seq::SeqNum;
use crate::time::Instant;

/// The initial sequence number for a connection that starts at `now`.
//= docs/rfc/rfc9293.md#MUST-8
//= docs/rfc/rfc9293.md#MUST-9
//= docs/rfc/rfc9293.md#SHLD-1
//= docs/rfc/rfc6528.md#3-function
//= docs/rfc/rfc6528.md#3-prf
//= docs/rfc/rfc6528.md#3-clock
pub(crate) fn initial(secret: SipKey, key: &ConnectionKey, now: Instant) -> SeqNum {
    let ticks = (now.as_nanos() / 4_000) as u32;
    SeqNum(ticks.wrapping_add(siphash::<2, 4>(secret, &key.words()) as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(port: u16) -> ConnectionKey {
        ConnectionKey::new("10.0.0.1:80".parse().unwrap(), (core::net::Ipv4Addr::new(10, 0, 0, 2), port).into())
    }

    //= docs/rfc/rfc9293.md#MUST-8
    //= docs/rfc/rfc9293.md#SHLD-1
    //= docs/rfc/rfc6528.md#3-clock
    //= docs/rfc/rfc6528.md#3-function
    #[test]
    fn one_tuples_numbers_grow_by_a_tick_every_four_microseconds() {
        let at = |nanos| initial([1, 2], &key(1000), Instant::from_nanos(nanos));
        assert_eq!(at(4_000_000) - at(0), 1_000);
        assert!(at(60_000_000_000).after(at(0)));
    }

    //= docs/rfc/rfc9293.md#MUST-9
    //= docs/rfc/rfc9293.md#SHLD-1
    //= docs/rfc/rfc6528.md#3-prf
    //= docs/rfc/rfc6528.md#3-function
    #[test]
    fn tuples_and_secrets_give_unrelated_numbers() {
        let now = Instant::from_millis(5);
        let numbers: alloc::vec::Vec<u32> = (1..=64).map(|port| initial([1, 2], &key(port), now).0).collect();
        assert!(numbers.windows(2).any(|w| w[0].abs_diff(w[1]) > 1 << 28));
        assert_ne!(initial([1, 2], &key(1), now), initial([1, 3], &key(1), now));
    }
}
