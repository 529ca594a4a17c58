//! Path MTU discovery: what ICMP errors say (RFC 1191, RFC 8201), believed as far as RFC 5927 section 7.2 lets it be, and
//! what repeated timeouts tell where no ICMP errors come through (RFC 4821 section 7.7, black-hole detection).

use super::Connection;
use crate::drops::DropReason;
use crate::figures::Figure;
use crate::shared::Context;
use crate::time::Instant;

/// Smallest MTU that an ICMP error can bring us to, bytes (Linux's `min_pmtu`; RFC 8200 section 5).
const LEAST_V4: u16 = 552;
const LEAST_V6: u16 = 1280;
/// MTUs to fall back to when full-sized segments are never acknowledged: what tunnels of tunnels still carry, then
/// what every path does.
const BLACK_HOLE_V4: [u16; 2] = [1280, 576];
const BLACK_HOLE_V6: [u16; 1] = [1280];
/// MTUs that are common, for routers that do not say theirs (RFC 1191 section 7.1).
const PLATEAUS: [u16; 6] = [8166, 4352, 2002, 1492, 1006, LEAST_V4];
/// How long a path MTU counts before the link's is tried again, s (RFC 1191 section 6.3).
const LIFETIME: u32 = 600;

/// What a connection knows of its path's MTU. Sizes are of IP packets, bytes; 0: nothing.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PathMtu {
    limit: u16,
    /// A limit that an ICMP error claims although larger packets were acknowledged: taken if they are not any more.
    claimed: u16,
    /// When the limit stops to count, s of our clock; 0: never.
    until: u32,
}

fn seconds(now: Instant) -> u32 {
    (now.as_millis() / 1000) as u32
}

impl PathMtu {
    /// The MTU of the path over a link with `link`.
    //= docs/rfc/rfc1191.md#6.3-age
    //= docs/rfc/rfc1191.md#3-patience
    //= docs/rfc/rfc8201.md#4-age
    pub(super) fn of(self, link: u16, now: Instant) -> u16 {
        let counts = self.limit != 0 && (self.until == 0 || seconds(now) < self.until);
        if counts { self.limit.min(link) } else { link }
    }
}

impl Connection {
    /// MTU of the path, bytes.
    pub(super) fn path_mtu(&self, link: u16, now: Instant) -> u16 {
        self.path.of(link, now)
    }

    /// A router says that a packet of ours was too big, and what its next link carries (0: it does not say).
    //= docs/rfc/rfc1191.md#3-reduce
    //= docs/rfc/rfc1191.md#3-floor
    //= docs/rfc/rfc1191.md#3-increase
    //= docs/rfc/rfc1191.md#5-old-style
    //= docs/rfc/rfc5927.md#7.2-contradicted
    //= docs/rfc/rfc5927.md#7.2-floor
    //= docs/rfc/rfc8201.md#4-reduce
    //= docs/rfc/rfc8201.md#4-floor
    //= docs/rfc/rfc8201.md#4-absurd
    pub(super) fn packet_was_too_big(&mut self, cx: &mut Context<'_>, mtu: u16) {
        let now = self.path_mtu(cx.shared.config.mtu, cx.now);
        let least = if self.key.is_ipv4() { LEAST_V4 } else { LEAST_V6 };
        let plateau = || PLATEAUS.into_iter().find(|plateau| *plateau < now).unwrap_or(least);
        let claimed = if mtu == 0 { plateau() } else { mtu }.max(least);
        // Every link of IPv6 carries its least MTU: who says otherwise is not believed at all (RFC 8201 section 4).
        let absurd = !self.key.is_ipv4() && mtu < LEAST_V6;
        if absurd || claimed >= now || !self.send.is_outstanding() {
            return cx.drop(DropReason::IrrelevantIcmp);
        }
        let headers = self.headers() + self.option_length();
        if u32::from(claimed) < self.largest_acked() + u32::from(headers) {
            self.path.claimed = claimed;
        } else {
            cx.count(Figure::PathMtuLowered);
            self.lower_path_mtu(cx, claimed, seconds(cx.now) + LIFETIME);
        }
    }

    /// The retransmission timer expired: a claim that larger packets disproved may be true by now, and after R1
    /// retransmissions the path may swallow full-sized ones.
    //= docs/rfc/rfc4821.md#7.7-full-stop
    //= docs/rfc/rfc5927.md#7.2-contradicted
    pub(super) fn suspect_path(&mut self, cx: &Context<'_>) {
        let now = self.path_mtu(cx.shared.config.mtu, cx.now);
        if self.path.claimed != 0 {
            cx.count(Figure::PathMtuLowered);
            let claimed = core::mem::take(&mut self.path.claimed);
            return self.lower_path_mtu(cx, claimed, seconds(cx.now) + LIFETIME);
        }
        let sizes = if self.key.is_ipv4() { &BLACK_HOLE_V4[..] } else { &BLACK_HOLE_V6 };
        // What is sent again may be less than a full-sized segment, and too large all the same.
        let left = self.send.data_end() - self.send.una;
        let segment = left.min(self.segment_size(cx).into()) + u32::from(self.headers() + self.option_length());
        let smaller = sizes.iter().copied().find(|size| *size < now && u32::from(*size) < segment);
        if let Some(smaller) = smaller.filter(|_| u32::from(self.retries) >= self.config.retries1) {
            cx.count(Figure::BlackHole);
            self.lower_path_mtu(cx, smaller, 0);
        }
    }

    /// From now on packets are smaller, and those under way are sent again as smaller ones.
    //= docs/rfc/rfc1191.md#6.4-resend
    fn lower_path_mtu(&mut self, cx: &Context<'_>, mtu: u16, until: u32) {
        self.path = PathMtu { limit: mtu, claimed: 0, until };
        self.resend_larger_than(self.segment_size(cx).into());
    }
}
