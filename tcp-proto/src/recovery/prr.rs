//! Proportional rate reduction (RFC 9937): during fast recovery, how much each ACK lets go, so that what is in flight
//! comes down to the slow-start threshold by the end and neither stops nor bursts on the way.

/// Octets throughout.
#[derive(Clone, Debug, Default)]
pub(super) struct Prr {
    /// RecoverFS: in flight when recovery began.
    base: u32,
    /// What recovery is to come down to.
    threshold: u32,
    /// Delivered to the peer since.
    delivered: u64,
    /// Sent since.
    out: u64,
    /// What may be sent until the next ACK.
    allowance: u32,
}

/// What an ACK told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told {
    /// Octets that it acknowledged or reported for the first time.
    pub(super) delivered: u32,
    /// Octets in flight after it.
    pub(super) pipe: u32,
    /// Whether it acknowledged something new and showed no further loss.
    pub(super) is_safe: bool,
    /// Full-sized segment.
    pub(super) mss: u32,
}

impl Prr {
    /// Recovery begins with `base` octets in flight.
    //= docs/rfc/rfc9937.md#6.1-begin
    pub(super) fn begin(base: u32, threshold: u32) -> Prr {
        Prr { base: base.max(1), threshold, ..Prr::default() }
    }

    pub(super) fn allowance(&self) -> u32 {
        self.allowance
    }

    //= docs/rfc/rfc9937.md#6.2-first
    //= docs/rfc/rfc9937.md#6.2-nothing
    pub(super) fn on_ack(&mut self, told: Told) {
        if told.delivered == 0 {
            return;
        }
        self.delivered += u64::from(told.delivered);
        let allowed = match told.pipe > self.threshold {
            true => self.in_proportion(),
            false => self.catching_up(told),
        };
        // What is lost first goes again at once (section 6.2).
        let least = if self.out == 0 { told.mss } else { 0 };
        self.allowance = allowed.max(least);
    }

    /// More than the threshold is in flight: a share of what is delivered goes.
    //= docs/rfc/rfc9937.md#6.2-proportional
    fn in_proportion(&self) -> u32 {
        let share = (self.delivered * u64::from(self.threshold)).div_ceil(self.base.into());
        clamp(share.saturating_sub(self.out))
    }

    /// Less is in flight: up to the threshold, a little faster than what is delivered if the path can bear it.
    //= docs/rfc/rfc9937.md#6.2-below
    fn catching_up(&self, told: Told) -> u32 {
        let owed = clamp(self.delivered.saturating_sub(self.out));
        let limit = if told.is_safe { owed.max(told.delivered) + told.mss } else { owed };
        limit.min(self.threshold - told.pipe)
    }

    /// Something was found lost without an ACK: so much may go in any case.
    pub(super) fn allow(&mut self, octets: u32) {
        self.allowance = self.allowance.max(octets);
    }

    //= docs/rfc/rfc9937.md#6.3-sent
    pub(super) fn on_sent(&mut self, octets: u32) {
        self.out += u64::from(octets);
        self.allowance = self.allowance.saturating_sub(octets);
    }
}

fn clamp(octets: u64) -> u32 {
    u32::try_from(octets).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    const MSS: u32 = 1000;

    /// A window of `base` segments of which the first `lost` are lost; segments sent by each ACK.
    fn sends(base: u32, lost: u32, threshold: u32) -> Vec<u32> {
        let mut prr = Prr::begin(base * MSS, threshold * MSS);
        let mut pipe = (base - lost) * MSS;
        let ack = |_| {
            pipe -= MSS;
            prr.on_ack(Told { delivered: MSS, pipe, is_safe: false, mss: MSS });
            let sent = prr.allowance() / MSS;
            prr.on_sent(sent * MSS);
            pipe += sent * MSS;
            sent
        };
        (lost..base).map(ack).collect()
    }

    //= docs/rfc/rfc9937.md#6.1-begin
    //= docs/rfc/rfc9937.md#6.2-proportional
    //= docs/rfc/rfc9937.md#6.3-sent
    #[test]
    fn a_single_loss_halves_the_rate_evenly() {
        let sent = sends(20, 1, 10);
        assert_eq!(sent.iter().sum::<u32>(), 10);
        assert!(sent.windows(5).all(|five| (2..=3).contains(&five.iter().sum::<u32>())), "{sent:?}");
    }

    //= docs/rfc/rfc9937.md#6.2-below
    #[test]
    fn after_many_losses_each_delivered_segment_lets_one_go() {
        let sent = sends(20, 14, 10);
        assert_eq!(sent, [1; 6]);
    }

    //= docs/rfc/rfc9937.md#6.2-below
    #[test]
    fn below_the_threshold_a_safe_ack_lets_a_segment_more_go_and_none_goes_beyond() {
        for (is_safe, pipe, allowed) in [(false, 5, 1), (true, 5, 2), (true, 9, 1), (true, 10, 0)] {
            let mut prr = Prr::begin(20 * MSS, 10 * MSS);
            prr.on_sent(MSS);
            prr.on_ack(Told { delivered: MSS, pipe: 5 * MSS, is_safe: false, mss: MSS });
            prr.on_ack(Told { delivered: MSS, pipe: pipe * MSS, is_safe, mss: MSS });
            assert_eq!(prr.allowance(), allowed * MSS, "safe {is_safe}, {pipe} in flight");
        }
    }

    //= docs/rfc/rfc9937.md#6.2-first
    //= docs/rfc/rfc9937.md#6.2-nothing
    #[test]
    fn the_first_repetition_goes_at_once_and_an_ack_of_nothing_lets_nothing_go() {
        let mut prr = Prr::begin(100 * MSS, 10 * MSS);
        prr.on_ack(Told { delivered: 1, pipe: 90 * MSS, is_safe: false, mss: MSS });
        assert_eq!(prr.allowance(), MSS);
        prr.on_sent(MSS);
        prr.on_ack(Told { delivered: 0, pipe: 0, is_safe: true, mss: MSS });
        assert_eq!(prr.allowance(), 0);
    }
}
